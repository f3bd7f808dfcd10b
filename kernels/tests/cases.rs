//! Every operation against naive f64 arithmetic, for every instruction set this processor has.
// Test helpers outside #[test] functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use candle_core::{DType, Device, Tensor};
use kinora_kernels::*;
use proptest::prelude::*;

#[path = "support/attention.rs"]
mod attention_cases;
#[path = "support/naive.rs"]
mod naive;
#[path = "support/norm.rs"]
mod norm_cases;
use naive::{Random, conv, linear, max_error};

/// Runs `f` once an instruction set, with outputs poisoned.
fn on_every_isa(f: impl Fn(Isa)) {
    for isa in Isa::available() {
        with_isa(isa, || with_poisoned_outputs(|| f(isa))).expect("available");
    }
}

fn cpu(values: &[f32], dims: &[usize]) -> Tensor {
    Tensor::from_slice(values, dims, &Device::Cpu).unwrap()
}

fn flat(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

fn check_linear(rows: usize, inner: usize, out: usize, seed: u64) {
    let mut random = Random(seed);
    let (x, w, b, r) =
        (random.fill(rows * inner), random.fill(out * inner), random.fill(out), random.fill(rows * out));
    on_every_isa(|isa| {
        let layer = Linear::new(cpu(&w, &[out, inner]), Some(cpu(&b, &[out]))).unwrap();
        let input = cpu(&x, &[rows, inner]);
        let want = linear(&x, &w, &b, rows, inner, out);
        let error = max_error(&flat(&layer.forward(&input).unwrap()), &want);
        assert!(error < 2e-6 * (inner as f64 + 8.0).sqrt(), "{isa:?} {rows}x{inner}->{out}: {error}");
        let fused = layer.forward_fused(&input, Activation::Relu, Some(&cpu(&r, &[rows, out]))).unwrap();
        let want: Vec<f64> = want.iter().zip(&r).map(|(y, r)| y.max(0.0) + f64::from(*r)).collect();
        let error = max_error(&flat(&fused), &want);
        assert!(error < 2e-6 * (inner as f64 + 8.0).sqrt(), "{isa:?} fused {rows}x{inner}->{out}: {error}");
    });
}

#[test]
fn linear_sizes() {
    for (rows, inner, out) in [
        (1, 1, 1),
        (2, 1280, 1280),
        (3, 7, 5),
        (14, 512, 32),
        (15, 513, 33),
        (113, 1030, 47),
        (250, 96, 768),
        (77, 0, 9),
        (0, 4, 4),
    ] {
        check_linear(rows, inner, out, 7);
    }
}

fn check_conv(n: usize, size: (usize, usize), io: (usize, usize), shape: (usize, usize, usize), seed: u64) {
    let ((h, w), (inner, out), (kernel, stride, padding)) = (size, io, shape);
    let mut random = Random(seed);
    let (x, weight, b) =
        (random.fill(n * h * w * inner), random.fill(out * inner * kernel * kernel), random.fill(out));
    let (want, dims) = conv(&x, &weight, &b, (n, h, w), io, shape);
    on_every_isa(|isa| {
        let layer =
            Conv2d::new(cpu(&weight, &[out, inner, kernel, kernel]), Some(cpu(&b, &[out])), stride, padding)
                .unwrap();
        let got = layer.forward(&cpu(&x, &[n, h, w, inner])).unwrap();
        assert_eq!(got.dims(), dims);
        let error = max_error(&flat(&got), &want);
        assert!(
            error < 2e-6 * ((inner * kernel * kernel) as f64 + 8.0).sqrt(),
            "{isa:?} {size:?} {io:?} {shape:?}: {error}"
        );
        // A transposed view goes through a copy and must give the same.
        let view = cpu(&x, &[n, h, w, inner])
            .transpose(1, 2)
            .unwrap()
            .contiguous()
            .unwrap()
            .transpose(1, 2)
            .unwrap();
        assert_eq!(flat(&layer.forward(&view).unwrap()), flat(&got));
    });
}

#[test]
fn conv_sizes() {
    for (size, io, shape) in [
        ((1, 1), (1, 1), (3, 1, 1)),
        ((5, 7), (3, 48), (3, 1, 1)),
        ((8, 8), (34, 96), (3, 1, 1)),
        ((9, 6), (70, 33), (3, 2, 1)),
        ((8, 8), (16, 4), (3, 1, 1)),
        ((6, 6), (130, 20), (1, 1, 0)),
        ((11, 5), (4, 17), (5, 2, 2)),
        ((4, 4), (5, 6), (4, 4, 0)),
        ((3, 2), (2, 3), (3, 1, 2)),
        ((1, 2), (3, 2), (7, 1, 3)),
    ] {
        check_conv(2, size, io, shape, 11);
    }
}

#[test]
fn upsampled_conv_equals_the_two_calls() {
    let mut random = Random(3);
    for (h, w, inner, out) in [(1, 1, 1, 1), (4, 5, 19, 33), (8, 3, 64, 40)] {
        let (x, weight, b) = (random.fill(2 * h * w * inner), random.fill(out * inner * 9), random.fill(out));
        on_every_isa(|isa| {
            let layer = Conv2d::new(cpu(&weight, &[out, inner, 3, 3]), Some(cpu(&b, &[out])), 1, 1).unwrap();
            let x = cpu(&x, &[2, h, w, inner]);
            let big = upsample_nearest2x(&x).unwrap();
            for ((at, expected), got) in flat(&layer.forward(&big).unwrap())
                .iter()
                .enumerate()
                .zip(flat(&layer.forward_upsampled(&x).unwrap()))
            {
                assert!((expected - got).abs() < 1e-4, "{isa:?} {h}x{w} at {at}: {expected} {got}");
            }
            for (y, x0) in (0..2 * h).flat_map(|y| (0..2 * w).map(move |x| (y, x))) {
                use candle_core::IndexOp;
                assert_eq!(flat(&big.i((1, y, x0)).unwrap()), flat(&x.i((1, y / 2, x0 / 2)).unwrap()));
            }
        });
    }
}

#[test]
fn activations_follow_f64() {
    let x: Vec<f32> = (-6000..=6000).map(|i| i as f32 / 500.0).chain([-80.0, -200.0, 200.0, 0.0]).collect();
    on_every_isa(|isa| {
        for activation in [Activation::Silu, Activation::Relu, Activation::GeluErf, Activation::QuickGelu] {
            let got = flat(&activation.apply(&cpu(&x, &[x.len()])).unwrap());
            for (x, got) in x.iter().zip(got) {
                let want = naive::activate(activation, f64::from(*x));
                let tolerance = if isa == Isa::Portable { 4e-6 } else { 6e-7 };
                // The tail of QuickGelu rounds its exponent argument: absolute there.
                assert!(
                    (f64::from(got) - want).abs()
                        <= tolerance * want.abs() + 2e-7 * (-x.abs()).exp().max(1e-3) as f64,
                    "{isa:?} {activation:?}({x}) = {got}, want {want}"
                );
            }
        }
    });
}

#[test]
fn nan_and_infinity_go_through() {
    on_every_isa(|isa| {
        let x = cpu(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0], &[4]);
        for activation in [Activation::Silu, Activation::Relu, Activation::GeluErf, Activation::QuickGelu] {
            let got = flat(&activation.apply(&x).unwrap());
            assert!(got[0].is_nan(), "{isa:?} {activation:?} {got:?}");
            assert_eq!(got[1], f32::INFINITY, "{isa:?} {activation:?}");
            assert!(got[3].is_finite());
        }
        let layer = Linear::new(cpu(&[1.0; 40], &[20, 2]), None).unwrap();
        let got = flat(&layer.forward(&cpu(&[1.0, 2.0, f32::NAN, 1.0, 0.5, 0.5], &[3, 2])).unwrap());
        assert!(
            got[..20].iter().all(|x| *x == 3.0)
                && got[20..40].iter().all(|x| x.is_nan())
                && got[40..].iter().all(|x| *x == 1.0)
        );
    });
}

#[test]
fn geglu_gates() {
    let mut random = Random(5);
    for (rows, half) in [(1, 1), (3, 16), (70, 37), (0, 4)] {
        let x = random.fill(rows * 2 * half);
        on_every_isa(|isa| {
            let got = flat(&geglu(&cpu(&x, &[rows, 2 * half])).unwrap());
            for r in 0..rows {
                for c in 0..half {
                    let (value, gate) =
                        (f64::from(x[r * 2 * half + c]), f64::from(x[r * 2 * half + half + c]));
                    let want = value * naive::activate(Activation::GeluErf, gate);
                    assert!((f64::from(got[r * half + c]) - want).abs() < 2e-6, "{isa:?}");
                }
            }
        });
    }
}

#[test]
fn half_types_compute_in_single() {
    let mut random = Random(9);
    let (x, w) = (random.fill(6 * 40), random.fill(24 * 40));
    for dtype in [DType::F16, DType::BF16] {
        let to = |v: &[f32], dims: &[usize]| cpu(v, dims).to_dtype(dtype).unwrap();
        let (x, w) = (to(&x, &[6, 40]), to(&w, &[24, 40]));
        let got = Linear::new(w.clone(), None).unwrap().forward(&x).unwrap();
        assert_eq!(got.dtype(), dtype);
        let want = linear(&flat(&x), &flat(&w), &[0.0; 24], 6, 40, 24);
        assert!(max_error(&flat(&got), &want) < 0.1);
    }
}

#[test]
fn mismatches_are_typed_errors() {
    let x = cpu(&[0.0; 24], &[2, 3, 4]);
    let is_shape = |e: KernelError| matches!(e, KernelError::Shape { .. });
    assert!(is_shape(Linear::new(x.clone(), None).unwrap_err()));
    assert!(is_shape(Linear::new(cpu(&[0.0; 6], &[2, 3]), Some(cpu(&[0.0; 3], &[3]))).unwrap_err()));
    let layer = Linear::new(cpu(&[0.0; 6], &[2, 3]), None).unwrap();
    assert!(is_shape(layer.forward(&x).unwrap_err()));
    assert!(is_shape(layer.forward_fused(&cpu(&[0.0; 3], &[1, 3]), Activation::None, Some(&x)).unwrap_err()));
    assert!(is_shape(Conv2d::new(cpu(&[0.0; 6], &[1, 1, 2, 3]), None, 1, 0).unwrap_err()));
    assert!(is_shape(Conv2d::new(cpu(&[0.0; 9], &[1, 1, 3, 3]), None, 0, 0).unwrap_err()));
    let layer = Conv2d::new(cpu(&[0.0; 9], &[1, 1, 3, 3]), None, 1, 0).unwrap();
    assert!(is_shape(layer.forward(&x).unwrap_err()));
    assert!(is_shape(layer.forward(&cpu(&[0.0; 4], &[1, 2, 2, 1])).unwrap_err()));
    assert!(is_shape(geglu(&cpu(&[0.0; 3], &[1, 3])).unwrap_err()));
    // f64 has no kernel: the answer is an error, not a wrong result.
    assert!(layer.forward(&Tensor::zeros((1, 4, 4, 1), DType::F64, &Device::Cpu).unwrap()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_linear(rows in 0usize..40, inner in 0usize..70, out in 1usize..80, seed in any::<u64>()) {
        check_linear(rows, inner, out, seed);
    }

    #[test]
    fn any_conv(h in 1usize..9, w in 1usize..9, inner in 1usize..20, out in 1usize..40, kernel in 1usize..5, stride in 1usize..4, padding in 0usize..4, seed in any::<u64>()) {
        prop_assume!(h + 2 * padding >= kernel && w + 2 * padding >= kernel);
        check_conv(1, (h, w), (inner, out), (kernel, stride, padding), seed);
    }
}
