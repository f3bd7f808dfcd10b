//! Attention's gradients on a card against naive f64 arithmetic on the same rounded inputs, and their bits.
//!
//! Without a driver or card the tests say so and pass: there is nothing to run.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use candle_core::{DType, Device, Tensor, Var};
use kinora_kernels::*;

#[path = "support/backward.rs"]
mod backward;
#[path = "support/naive.rs"]
#[allow(dead_code)]
mod naive;
use backward::{Extents, KINDS, Kind, case, flat, relative, run};
use naive::Random;

const DTYPES: [DType; 3] = [DType::F16, DType::BF16, DType::F32];

fn card() -> Option<Device> {
    match open_cuda(0) {
        Ok(device) => Some(device),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// One case, twice: right, and equal bits. Returns the kernel that ran.
fn check(device: &Device, dtype: DType, extents: Extents, kind: Kind, seed: u64) -> &'static str {
    let case = case(device, dtype, extents, kind, seed);
    let interleaved = seed.is_multiple_of(2);
    let (grads, kernel) = run(&case, device, interleaved);
    let tolerance = match dtype {
        DType::F32 => 1e-5,
        DType::F16 => 3e-3,
        _ => 2e-2,
    };
    let again = run(&case, device, interleaved).0;
    for (i, (got, want)) in grads.iter().zip(&case.want).enumerate() {
        assert_eq!(got.dims(), case.operands[i].dims());
        let name = ["queries", "keys", "values"][i];
        let values = flat(got);
        let error = relative(&values, want);
        assert!(error < tolerance, "{kernel} {dtype:?} {extents:?} {kind:?} {name}: {error}");
        assert_eq!(values, flat(&again[i]), "{kernel} {dtype:?} {extents:?} {kind:?} {name}: other bits");
    }
    kernel
}

fn table(cases: &[Extents], kinds: &[Kind]) {
    let Some(device) = card() else { return };
    for dtype in DTYPES {
        for (number, extents) in cases.iter().enumerate() {
            for kind in kinds {
                let kernel = check(&device, dtype, *extents, *kind, number as u64);
                eprintln!("ok {kernel} {dtype:?} {extents:?} {kind:?}");
            }
        }
    }
}

#[test]
fn time_axes() {
    let dims = [32, 40, 64, 80, 96, 128, 160];
    let cases: Vec<Extents> =
        dims.iter().flat_map(|d| [1, 8, 16, 23, 32].map(|f| (5, 4, 4, f, f, *d))).collect();
    table(&cases, &[Kind::None, Kind::Causal, Kind::Lengths]);
}

#[test]
fn every_head_dimension() {
    let cases: Vec<Extents> = (8..=256).step_by(8).map(|d| (1, 2, 1, 150, 333, d)).collect();
    table(&cases, &KINDS);
}

#[test]
fn odd_sizes_and_empty_ones() {
    let cases = [
        (1, 1, 1, 1, 1, 1),
        (2, 3, 3, 33, 130, 7),
        (1, 1, 1, 129, 300, 12),
        (1, 6, 2, 300, 129, 40),
        (2, 2, 2, 257, 700, 64),
        (1, 1, 1, 5, 0, 8),
        (1, 1, 1, 0, 5, 8),
        (0, 2, 2, 4, 4, 8),
        (1, 2, 1, 64, 257, 33),
        (1, 2, 2, 700, 640, 80),
        (1, 2, 2, 513, 1023, 128),
        (1, 1, 1, 400, 399, 160),
        (2, 2, 2, 301, 77, 40),
    ];
    table(&cases, &KINDS);
}

/// 2,000 calls of random shape (`KINORA_FUZZ_CASES` changes that) against the plain kernel in f32 on the same
/// rounded values, which the tables above hold against f64.
#[test]
fn random_shapes_agree_with_the_plain_kernel() {
    let Some(device) = card() else { return };
    let cases = std::env::var("KINORA_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000usize);
    const POOL: usize = 4 << 20;
    let pool = Tensor::randn(0f32, 1.0, POOL, &device).unwrap();
    let mut random = Random(20_261_127);
    let mut below = move |n: usize| ((random.next() + 1.0) / 2.0 * n as f32) as usize % n.max(1);
    let mut kernels = std::collections::BTreeMap::new();
    for case in 0..cases {
        let dtype = [DType::F16, DType::BF16][below(2)];
        let dim = if below(3) == 0 { 8 * (1 + below(32)) } else { [40, 64, 80, 128, 160][below(5)] };
        let most = [17, 33, 130, 400][below(4)];
        let (queries, keys) = (1 + below(most), 1 + below(most));
        let (kv_heads, group) = (1 + below(3), 1 + below(2));
        let (heads, batch, inner) = (kv_heads * group, 1 + below(2), if below(4) == 0 { 2 } else { 1 });
        let mut part = |heads: usize, tokens: usize| {
            let count = batch * inner * heads * tokens * dim;
            let from = below(POOL - count + 1) / 8 * 8;
            let x = pool.narrow(0, from, count).unwrap().to_dtype(dtype).unwrap();
            match below(3) {
                0 => x.reshape((batch, inner, heads, tokens, dim)).unwrap(),
                1 => x.reshape((batch, inner, tokens, heads, dim)).unwrap().transpose(2, 3).unwrap(),
                _ => x.reshape((batch, tokens, inner, heads, dim)).unwrap().permute((0, 2, 3, 1, 4)).unwrap(),
            }
        };
        let (q, k) = (part(heads, queries), part(kv_heads, keys));
        let (v, grad) = (part(kv_heads, keys), part(heads, queries));
        let mask = match below(4) {
            0 => Mask::Causal,
            1 => Mask::Lengths((0..batch * inner).map(|_| below(keys + 1)).collect()),
            2 => {
                let block = [[128, 128], [16, 48], [64, 8]][below(3)];
                let turn = below(5);
                let seen = |h: usize, i: usize, j: usize| (h + i * 3 + j + turn) % 4 < 2;
                Mask::Blocks(BlockList::from_fn(block, [queries, keys], heads, seen).unwrap())
            }
            _ => Mask::None,
        };
        let spec = AttentionSpec::new(dim).with_mask(mask);
        let single = |x: &Tensor| x.to_dtype(DType::F32).unwrap();
        let (out, lse) = attention_with_lse(&q, &k, &v, &spec).unwrap();
        let (got, used) = observed(|| attention_backward([&q, &k, &v], &out, &lse, &grad, &spec));
        let [q32, k32, v32] = [&q, &k, &v].map(single);
        let (out, lse) = attention_with_lse(&q32, &k32, &v32, &spec).unwrap();
        let want = attention_backward([&q32, &k32, &v32], &out, &lse, &single(&grad), &spec).unwrap();
        let name = used.first().map_or("none", |u| u.kernel);
        let norm = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
        for (got, want) in got.unwrap().iter().zip(&want) {
            let (error, size) = (norm(&(single(got) - want).unwrap()), norm(want));
            let tolerance = if dtype == DType::F16 { 4e-3 } else { 3e-2 };
            // Written so that NaN fails. One visible key gives gradients of nothing but rounding.
            let close = error <= tolerance * size.max(0.05 * (want.elem_count() as f32).sqrt());
            assert!(
                close,
                "case {case}, {name} {dtype:?} {:?} {:?} {spec:?}: {error} of {size}",
                q.dims(),
                k.dims()
            );
        }
        *kernels.entry(name).or_insert(0usize) += 1;
    }
    eprintln!("ok {cases} cases: {kernels:?}");
}

#[test]
fn the_graph_gives_the_same_as_the_call() {
    let Some(device) = card() else { return };
    for (tokens, dtype) in [(16, DType::F32), (100, DType::F32), (16, DType::F16), (100, DType::F16)] {
        let part = || Tensor::randn(0f32, 1.0, (2, 4, tokens, 40), &device).unwrap().to_dtype(dtype).unwrap();
        let [q, k, v] = [part(), part(), part()].map(|x| Var::from_tensor(&x).unwrap());
        let grad = part();
        let spec = AttentionSpec::new(40);
        let out = attention(&q, &k, &v, &spec).unwrap();
        let grads = (&out * &grad).unwrap().sum_all().unwrap().backward().unwrap();
        let (again, lse) = attention_with_lse(&q.detach(), &k.detach(), &v.detach(), &spec).unwrap();
        assert_eq!(flat(&out), flat(&again));
        let want =
            attention_backward([&q.detach(), &k.detach(), &v.detach()], &again, &lse, &grad, &spec).unwrap();
        for (x, want) in [&q, &k, &v].iter().zip(&want) {
            assert_eq!(flat(grads.get(x).unwrap()), flat(want));
        }
    }
}

#[test]
fn padding_may_hold_anything() {
    let Some(device) = card() else { return };
    for (keys, dim) in [(16, 40), (77, 40), (300, 64)] {
        for dtype in DTYPES {
            let mut values = vec![0.25f32; keys * dim];
            values[(keys - 1) * dim..].fill(f32::NAN);
            let kv = Tensor::from_vec(values, (1, 1, keys, dim), &device).unwrap().to_dtype(dtype).unwrap();
            let q = Tensor::ones((1, 1, 16, dim), dtype, &device).unwrap();
            let spec = AttentionSpec::new(dim).with_mask(Mask::Lengths(vec![keys - 1]));
            let (out, lse) = attention_with_lse(&q, &kv, &kv, &spec).unwrap();
            let grads = attention_backward([&q, &kv, &kv], &out, &lse, &q, &spec).unwrap();
            for grad in &grads {
                assert!(flat(grad).iter().all(|x| x.is_finite()), "{keys} {dim} {dtype:?}");
            }
            for grad in &grads[1..] {
                assert!(flat(grad)[(keys - 1) * dim..].iter().all(|x| *x == 0.0));
            }
        }
    }
}
