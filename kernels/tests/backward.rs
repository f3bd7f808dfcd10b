//! Attention's gradients against f64, finite differences, PyTorch and tensor operations.
// Test helpers outside #[test] functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use candle_core::{D, DType, Device, Tensor, Var};
use kinora_kernels::*;
use proptest::prelude::*;

#[path = "support/backward.rs"]
mod backward;
#[path = "support/naive.rs"]
#[allow(dead_code)]
mod naive;
use backward::{Extents, KINDS, Kind, case, flat, gradients, relative, run};
use naive::Random;

const CPU: Device = Device::Cpu;

/// One shape with some masks on every instruction set, outputs poisoned.
fn check(extents: Extents, kinds: &[Kind], seed: u64) {
    for kind in kinds {
        let case = case(&CPU, DType::F32, extents, *kind, seed);
        for (isa, interleaved) in Isa::available().into_iter().flat_map(|isa| [false, true].map(|x| (isa, x)))
        {
            let (grads, kernel) =
                with_isa(isa, || with_poisoned_outputs(|| run(&case, &CPU, interleaved))).expect("available");
            assert_eq!(kernel, "flash");
            for (i, (got, want)) in grads.iter().zip(&case.want).enumerate() {
                assert_eq!(got.dims(), case.operands[i].dims());
                // In memory heads lie together, token by token.
                assert!(got.transpose(1, 2).unwrap().is_contiguous());
                let error = relative(&flat(got), want);
                let name = ["queries", "keys", "values"][i];
                assert!(error < 5e-6, "{isa:?} {extents:?} {kind:?} {name}: {error}");
            }
        }
    }
}

#[test]
fn every_head_dimension() {
    for dim in (8..=256).step_by(8) {
        check((1, 2, 1, 19, 21, dim), &[Kind::None, Kind::Causal], dim as u64);
    }
}

#[test]
fn time_axes() {
    for (frames, dim) in [(1, 8), (8, 32), (16, 40), (23, 64), (32, 80), (64, 33), (65, 16)] {
        check((5, 4, 4, frames, frames, dim), &KINDS, frames as u64);
    }
}

#[test]
fn odd_sizes_and_empty_ones() {
    for extents in [
        (1, 1, 1, 1, 1, 1),
        (2, 3, 3, 33, 130, 7),
        (1, 1, 1, 129, 300, 12),
        (1, 6, 2, 300, 129, 40),
        (1, 1, 1, 5, 0, 8),
        (1, 1, 1, 0, 5, 8),
        (0, 2, 2, 4, 4, 8),
        (1, 2, 1, 64, 257, 33),
        (2, 1, 1, 257, 77, 40),
    ] {
        check(extents, &KINDS, 5);
    }
}

#[test]
fn few_heads_with_many_keys_are_cut_into_ranges() {
    for extents in [(1, 1, 1, 70, 1111, 24), (1, 2, 1, 65, 2050, 16)] {
        check(extents, &KINDS, 7);
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let case = case(&CPU, DType::F32, (1, 2, 2, 200, 1300, 40), Kind::None, 3);
    let on = |threads: usize| {
        let pool = rayon_pool(threads);
        pool.install(|| run(&case, &CPU, true).0.map(|x| flat(&x)))
    };
    assert_eq!(on(1), on(3));
}

fn rayon_pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

#[test]
fn rank_five_and_broadcast_operands() {
    let (b, f, places, heads, dim) = (2, 16, 5, 3, 32);
    let mut random = Random(31);
    let mut part = || {
        let x = random.fill(b * f * places * heads * dim);
        Tensor::from_vec(x, (b, f, places, heads, dim), &CPU).unwrap()
    };
    let view = |x: &Tensor| x.permute((0, 2, 3, 1, 4)).unwrap();
    let [q, k, v, g] = [part(), part(), part(), part()].map(|x| view(&x));
    let flats = [&q, &k, &v, &g].map(flat);
    let extents = (b * places, heads, heads, f, f, dim);
    let want = gradients([&flats[0], &flats[1], &flats[2], &flats[3]], extents, |_, _, _, _| 0.0);
    let spec = AttentionSpec::new(dim);
    let (out, lse) = attention_with_lse(&q, &k, &v, &spec).unwrap();
    for (got, want) in attention_backward([&q, &k, &v], &out, &lse, &g, &spec).unwrap().iter().zip(&want) {
        assert_eq!(got.dims(), q.dims());
        assert!(relative(&flat(got), want) < 5e-6);
    }
    // A gradient that is one number everywhere has strides of zero.
    let ones = Tensor::ones((1, 1, 1, 1, 1), DType::F32, &CPU).unwrap().broadcast_as(q.dims()).unwrap();
    let got = attention_backward([&q, &k, &v], &out, &lse, &ones, &spec).unwrap();
    let solid = attention_backward([&q, &k, &v], &out, &lse, &ones.contiguous().unwrap(), &spec).unwrap();
    for (got, solid) in got.iter().zip(&solid) {
        assert_eq!(flat(got), flat(solid));
    }
}

#[test]
fn half_types_compute_in_single() {
    for dtype in [DType::F16, DType::BF16] {
        let case = case(&CPU, dtype, (1, 2, 2, 40, 50, 24), Kind::None, 9);
        for (got, want) in run(&case, &CPU, false).0.iter().zip(&case.want) {
            assert_eq!(got.dtype(), dtype);
            let error = relative(&flat(got), want);
            assert!(error < if dtype == DType::F16 { 2e-3 } else { 2e-2 }, "{dtype:?}: {error}");
        }
    }
}

/// The change of `Σ out · grad` when one value moves, in f64 from the forward reference.
#[test]
fn finite_differences_agree() {
    for (extents, seed) in [((1, 1, 1, 2, 3, 2), 1u64), ((2, 2, 2, 3, 2, 4), 2), ((1, 2, 2, 5, 4, 3), 3)] {
        let (sequences, heads, _, queries, keys, dim) = extents;
        let case = case(&CPU, DType::F32, extents, Kind::None, seed);
        let values: Vec<Vec<f32>> = case.operands.iter().map(flat).collect();
        let loss = |x: &[Vec<f32>]| -> f64 {
            let (out, _) = naive::attention(
                (&x[0], &x[1], &x[2]),
                (sequences, heads, queries, keys, dim),
                |_, _, _, _| 0.0,
            );
            out.iter().zip(&values[3]).map(|(o, g)| o * f64::from(*g)).sum()
        };
        let grads = run(&case, &CPU, false).0.map(|x| flat(&x));
        for (operand, at) in (0..3).flat_map(|o| (0..values[o].len()).map(move |at| (o, at))) {
            let moved = |by: f32| {
                let mut x = values.clone();
                x[operand][at] += by;
                (loss(&x), f64::from(x[operand][at]))
            };
            let ((up, x1), (down, x0)) = (moved(1e-3), moved(-1e-3));
            let (want, got) = ((up - down) / (x1 - x0), f64::from(grads[operand][at]));
            assert!((want - got).abs() < 2e-5, "{extents:?} operand {operand} at {at}: {got}, want {want}");
        }
    }
}

#[test]
fn pytorch_agrees() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/attention_backward.safetensors");
    let file = candle_core::safetensors::load(path, &CPU).unwrap();
    let mut seen = 0;
    for case in 0.. {
        let get = |name: &str| file.get(&format!("{case}.{name}"));
        let (Some(q), Some(k), Some(v), Some(g)) = (get("q"), get("k"), get("v"), get("grad")) else { break };
        let mask = match (get("causal"), get("bias")) {
            (Some(_), _) => Mask::Causal,
            (_, Some(bias)) => Mask::Bias(bias.clone()),
            _ => Mask::None,
        };
        let spec = AttentionSpec::new(q.dim(D::Minus1).unwrap()).with_mask(mask);
        let (out, lse) = attention_with_lse(q, k, v, &spec).unwrap();
        let grads = attention_backward([q, k, v], &out, &lse, g, &spec).unwrap();
        for (name, got) in [("out", &out), ("dq", &grads[0]), ("dk", &grads[1]), ("dv", &grads[2])] {
            let want: Vec<f64> = flat(get(name).unwrap()).iter().map(|x| f64::from(*x)).collect();
            let error = relative(&flat(got), &want);
            assert!(error < 5e-6, "case {case} {name}: {error}");
        }
        seen += 1;
    }
    assert!(seen >= 6, "{seen} cases");
}

/// Attention in tensor operations whose backward pass is the tensor library's own.
fn composed(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let scale = 1.0 / (q.dim(D::Minus1).unwrap() as f64).sqrt();
    let scores =
        (q.contiguous().unwrap().matmul(&k.t().unwrap().contiguous().unwrap()).unwrap() * scale).unwrap();
    let exp = scores.broadcast_sub(&scores.max_keepdim(D::Minus1).unwrap()).unwrap().exp().unwrap();
    let weights = exp.broadcast_div(&exp.sum_keepdim(D::Minus1).unwrap()).unwrap();
    weights.matmul(&v.contiguous().unwrap()).unwrap()
}

/// A layer `[tokens, width] -> [tokens, width]` trained to reverse its tokens, by plain gradient descent.
fn train(steps: usize, attend: impl Fn(&Tensor, &Tensor, &Tensor) -> Tensor) -> (Vec<f32>, Vec<f32>) {
    let (tokens, heads, dim) = (6, 2, 8);
    let width = heads * dim;
    let mut random = Random(77);
    let mut fill = |rows: usize, columns: usize, by: f32| {
        let x = random.fill(rows * columns).iter().map(|x| x * by).collect::<Vec<_>>();
        Tensor::from_vec(x, (rows, columns), &CPU).unwrap()
    };
    let x = fill(tokens, width, 1.0);
    let reversed: Vec<Tensor> = (0..tokens).rev().map(|i| x.narrow(0, i, 1).unwrap()).collect();
    let target = Tensor::cat(&reversed, 0).unwrap();
    let weights: Vec<Var> = (0..4).map(|_| Var::from_tensor(&fill(width, width, 0.3)).unwrap()).collect();
    let mut losses = Vec::new();
    for _ in 0..steps {
        let heads_of = |w: &Var| {
            let y = x.matmul(w).unwrap().reshape((1, tokens, heads, dim)).unwrap();
            y.transpose(1, 2).unwrap()
        };
        let mixed = attend(&heads_of(&weights[0]), &heads_of(&weights[1]), &heads_of(&weights[2]));
        let mixed = mixed.transpose(1, 2).unwrap().contiguous().unwrap().reshape((tokens, width)).unwrap();
        let loss = (mixed.matmul(&weights[3]).unwrap() - &target).unwrap().sqr().unwrap().mean_all().unwrap();
        losses.push(loss.to_scalar::<f32>().unwrap());
        let grads = loss.backward().unwrap();
        for w in &weights {
            w.set(&(w.as_tensor() - (grads.get(w).unwrap() * 2.0).unwrap()).unwrap()).unwrap();
        }
    }
    (losses, weights.iter().flat_map(|w| flat(w)).collect())
}

#[test]
fn a_layer_trains_through_the_graph_as_with_tensor_operations() {
    let (losses, weights) = train(60, |q, k, v| attention(q, k, v, &AttentionSpec::new(8)).unwrap());
    let (want_losses, want_weights) = train(60, composed);
    assert!(losses[59] < 0.5 * losses[0], "{} to {}", losses[0], losses[59]);
    for (got, want) in losses.iter().zip(&want_losses) {
        assert!((got - want).abs() < 1e-4 * want, "{got}, want {want}");
    }
    for (got, want) in weights.iter().zip(&want_weights) {
        assert!((got - want).abs() < 1e-3, "{got}, want {want}");
    }
}

#[test]
fn the_graph_reaches_operands_through_views_groups_and_one_source() {
    // One projection gives queries, keys and values; keys and values serve two heads each.
    let mut random = Random(5);
    let source = Var::from_slice(&random.fill(2 * 9 * 64), (2, 9, 64), &CPU).unwrap();
    let part = |from: usize, heads: usize| {
        let x = source.narrow(2, from, 8 * heads).unwrap();
        x.reshape((2, 9, heads, 8)).unwrap().transpose(1, 2).unwrap()
    };
    let (q, k, v) = (part(0, 4), part(32, 2), part(48, 2));
    let weight = Tensor::from_vec(random.fill(2 * 4 * 9 * 8), (2, 4, 9, 8), &CPU).unwrap();
    let grad_of = |out: Tensor| {
        let grads = (out * &weight).unwrap().sum_all().unwrap().backward().unwrap();
        flat(grads.get(&source).unwrap())
    };
    let got = grad_of(attention(&q, &k, &v, &AttentionSpec::new(8)).unwrap());
    let every = |x: &Tensor| {
        let x = x.unsqueeze(2).unwrap().broadcast_as((2, 2, 2, 9, 8)).unwrap();
        x.contiguous().unwrap().reshape((2, 4, 9, 8)).unwrap()
    };
    let want: Vec<f64> =
        grad_of(composed(&q, &every(&k), &every(&v))).iter().map(|x| f64::from(*x)).collect();
    assert!(relative(&got, &want) < 5e-6);
    // The log-sums come with the same graph; f64 takes tensor operations and agrees.
    let got = grad_of(attention_with_lse(&q, &k, &v, &AttentionSpec::new(8)).unwrap().0);
    assert!(relative(&got, &want) < 5e-6);
    let double = |x: &Tensor| x.to_dtype(DType::F64).unwrap();
    let out = attention(&double(&q), &double(&k), &double(&v), &AttentionSpec::new(8)).unwrap();
    assert!(relative(&grad_of(out.to_dtype(DType::F32).unwrap()), &want) < 5e-6);
}

#[test]
fn what_has_no_gradient_is_refused() {
    let x = Tensor::zeros((1, 2, 3, 8), DType::F32, &CPU).unwrap();
    let bias = Var::zeros((2, 3, 3), DType::F32, &CPU).unwrap();
    let spec = AttentionSpec::new(8).with_mask(Mask::Bias(bias.as_tensor().clone()));
    let error = attention(&x, &x, &x, &spec).unwrap_err();
    assert!(matches!(error, KernelError::NoGradient { operand: "bias", .. }));
    assert!(error.to_string().contains("detach it"), "{error}");
    let spec = AttentionSpec::new(8);
    let (out, lse) = attention_with_lse(&x, &x, &x, &spec).unwrap();
    let short = out.narrow(2, 0, 2).unwrap();
    let refused = |out: &Tensor, lse: &Tensor, grad: &Tensor| {
        matches!(attention_backward([&x, &x, &x], out, lse, grad, &spec), Err(KernelError::Shape { .. }))
    };
    assert!(refused(&short, &lse, &out) && refused(&out, &lse, &short) && refused(&out, &out, &out));
    let half = out.to_dtype(DType::F16).unwrap();
    assert!(matches!(
        attention_backward([&x, &x, &x], &out, &lse, &half, &spec),
        Err(KernelError::DType { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_gradient(batch in 1usize..3, kv_heads in 1usize..3, group in 1usize..3, queries in 1usize..90, keys in 1usize..200, dim in 1usize..70, kind in 0usize..5, seed in any::<u64>()) {
        check((batch, kv_heads * group, kv_heads, queries, keys, dim), &[KINDS[kind]], seed);
    }
}
