//! Gradients on the CPU against finite differences of f64 arithmetic, for every instruction set.
// Test helpers outside test functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use candle_core::{DType, Device, Tensor, Var};
use kinora_kernels::*;

#[path = "support/gradient.rs"]
mod gradient;
#[path = "support/naive.rs"]
mod naive;
use gradient::{flat, recorded, small};

/// Runs `f` once an instruction set, with outputs poisoned.
fn on_every_isa(f: impl Fn(Isa)) {
    for isa in Isa::available() {
        with_isa(isa, || with_poisoned_outputs(|| f(isa))).expect("available");
    }
}

fn cpu(values: &[f32], dims: &[usize]) -> Tensor {
    Tensor::from_slice(values, dims, &Device::Cpu).unwrap()
}

#[test]
fn every_operation_follows_finite_differences() {
    on_every_isa(|isa| {
        let wrong: Vec<String> =
            small().iter().flat_map(|case| case.check(&Device::Cpu, DType::F32, 1e-4, 48)).collect();
        assert!(wrong.is_empty(), "{isa:?}: {wrong:#?}");
    });
}

#[test]
fn results_and_gradients_match_torch() {
    on_every_isa(|isa| {
        let wrong = recorded(&Device::Cpu, 1e-4);
        assert!(wrong.is_empty(), "{isa:?}: {wrong:#?}");
    });
}

#[test]
fn half_types_follow_within_their_digits() {
    let check =
        |dtype, limit| small().into_iter().flat_map(move |case| case.check(&Device::Cpu, dtype, limit, 24));
    let wrong: Vec<String> = check(DType::F16, 6e-3).chain(check(DType::BF16, 5e-2)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_softmax_row_of_minus_infinity_is_zeros_and_has_no_gradient() {
    on_every_isa(|isa| {
        let low = f32::NEG_INFINITY;
        let x = Var::from_tensor(&cpu(&[low, low, low, 1.0, low, 2.0], &[2, 3])).unwrap();
        let y = softmax(&x).unwrap();
        let values = flat(&y);
        assert_eq!(values[..3], [0.0; 3], "{isa:?}");
        assert!((values[3] - 0.268_941_43).abs() < 1e-6 && values[4] == 0.0, "{isa:?}");
        let weights = cpu(&[1.0, -2.0, 3.0, 1.0, 5.0, -1.0], &[2, 3]);
        let grads = (y * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let grad = flat(grads.get(&x).unwrap());
        assert!(grad[..3] == [0.0; 3] && grad[4] == 0.0 && (grad[3] - 0.393_223_9).abs() < 1e-6, "{grad:?}");
    });
}

/// What an optimizer does to a variable is seen by a layer made before.
#[test]
fn a_trained_layer_follows_its_variables() {
    let weight = Var::from_tensor(&cpu(&[1.0, 2.0, 3.0, 4.0], &[2, 2])).unwrap();
    let rest = cpu(&[1.0, 1.0], &[1, 2]);
    let layer = Linear::stacked(vec![weight.as_tensor().clone(), rest], None).unwrap();
    let x = cpu(&[1.0, 1.0], &[1, 2]);
    assert_eq!(flat(&layer.forward(&x).unwrap()), [3.0, 7.0, 2.0]);
    weight.set(&cpu(&[0.0, 1.0, 1.0, 0.0], &[2, 2])).unwrap();
    assert_eq!(flat(&layer.forward(&x).unwrap()), [1.0, 1.0, 2.0]);
    let kernel = Var::from_tensor(&cpu(&[2.0], &[1, 1, 1, 1])).unwrap();
    let conv = Conv2d::new(kernel.as_tensor().clone(), None, 1, 0).unwrap();
    kernel.set(&cpu(&[5.0], &[1, 1, 1, 1])).unwrap();
    assert_eq!(flat(&conv.forward(&cpu(&[3.0], &[1, 1, 1, 1])).unwrap()), [15.0]);
}

/// A master copy in f32 gets its gradient in f32 from layers that compute in half types.
#[test]
fn variables_may_be_wider_than_the_data() {
    let weight = Var::from_tensor(&cpu(&[0.5, -1.0, 2.0, 0.25], &[2, 2])).unwrap();
    let x = cpu(&[1.0, 2.0], &[1, 2]).to_dtype(DType::F16).unwrap();
    let layer = Linear::new(weight.as_tensor().clone(), None).unwrap();
    let y = layer.forward(&x).unwrap();
    assert_eq!(y.dtype(), DType::F16);
    let grads = y.sum_all().unwrap().backward().unwrap();
    let grad = grads.get(&weight).unwrap();
    assert_eq!((grad.dtype(), flat(grad)), (DType::F32, vec![1.0, 2.0, 1.0, 2.0]));
}

/// An operand used twice gets both shares, and what is empty stays empty.
#[test]
fn shares_add_up_and_empty_tensors_stay_empty() {
    let x = Var::from_tensor(&cpu(&[1.0, -2.0], &[1, 2])).unwrap();
    let twice = weighted_sum(&[(2.0, &x), (-0.5, &x), (3.0, &cpu(&[1.0, 1.0], &[1, 2]))]).unwrap();
    assert_eq!(flat(&twice), [4.5, 0.0]);
    let grads = twice.sum_all().unwrap().backward().unwrap();
    assert_eq!(flat(grads.get(&x).unwrap()), [1.5, 1.5]);
    let none = Var::from_tensor(&cpu(&[], &[0, 4])).unwrap();
    let linear = Linear::new(cpu(&[1.0; 8], &[2, 4]), None).unwrap();
    let norm = LayerNorm::new(cpu(&[1.0; 4], &[4]), cpu(&[0.0; 4], &[4]), 1e-5);
    for y in [
        linear.forward(&none).unwrap(),
        geglu(&none).unwrap(),
        norm.forward(&none).unwrap(),
        softmax(&none).unwrap(),
    ] {
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(grads.get(&none).unwrap().dims(), [0, 4]);
    }
}

#[test]
fn mismatches_are_typed_errors() {
    let x = cpu(&[0.0; 24], &[1, 2, 3, 4]);
    let is_shape = |e: KernelError| matches!(e, KernelError::Shape { .. });
    let angles = |n: usize| cpu(&vec![0.0; n], &[2, n / 2]);
    assert!(is_shape(rope(&x, &angles(6), &angles(6), RotaryPairs::Halves).unwrap_err()));
    assert!(is_shape(rope(&x, &angles(4), &angles(2), RotaryPairs::Halves).unwrap_err()));
    let half = angles(4).to_dtype(DType::F16).unwrap();
    assert!(matches!(rope(&x, &half, &half, RotaryPairs::Halves), Err(KernelError::DType { .. })));
    assert!(is_shape(weighted_sum(&[]).unwrap_err()));
    assert!(is_shape(weighted_sum(&[(1.0, &x), (1.0, &angles(4))]).unwrap_err()));
    assert!(is_shape(weighted_sum(&[(1.0, &x); 7]).unwrap_err()));
    assert!(is_shape(softmax(&Tensor::new(1f32, &Device::Cpu).unwrap()).unwrap_err()));
    assert!(is_shape(Linear::stacked(vec![], None).unwrap_err()));
    assert!(is_shape(Linear::stacked(vec![angles(4), angles(6)], None).unwrap_err()));
}
