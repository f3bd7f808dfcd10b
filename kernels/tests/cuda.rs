//! Every CUDA attention kernel against naive f64 arithmetic on the same rounded inputs.
//!
//! Without a driver or card the tests say so and pass: there is nothing to run.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, dead_code)]

use candle_core::{DType, Device, Tensor};
use kinora_kernels::*;

#[path = "support/naive.rs"]
mod naive;
use naive::Random;

fn card() -> Option<Device> {
    match open_cuda(0) {
        Ok(device) => Some(device),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

fn flat(x: &Tensor) -> Vec<f32> {
    // candle starts a kernel without blocks for an empty tensor, which the driver refuses.
    if x.elem_count() == 0 {
        return Vec::new();
    }
    x.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

/// `‖got − want‖ / ‖want‖`; infinite on NaN or another length.
fn relative(got: &[f32], want: &[f64]) -> f64 {
    if got.len() != want.len() {
        return f64::INFINITY;
    }
    let norm = |it: &mut dyn Iterator<Item = f64>| it.map(|x| x * x).sum::<f64>().sqrt();
    let error = norm(&mut got.iter().zip(want).map(|(g, w)| f64::from(*g) - w));
    let size = norm(&mut want.iter().copied());
    let ratio = if size == 0.0 { error } else { error / size };
    if ratio.is_nan() { f64::INFINITY } else { ratio }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    None,
    Causal,
    Lengths,
    Bias,
    Blocks,
}

/// Batch, heads, key heads, queries, keys, head dimension.
type Extents = (usize, usize, usize, usize, usize, usize);

/// One call; `interleaved` lays operands out as projections leave them. Returns the kernel that ran.
fn check(device: &Device, dtype: DType, extents: Extents, kind: Kind, interleaved: bool) -> String {
    let (batch, heads, kv_heads, queries, keys, dim) = extents;
    let mut random = Random(dim as u64 * 31 + keys as u64);
    let mut part = |heads: usize, tokens: usize, by: f32| {
        let values: Vec<f32> = random.fill(batch * heads * tokens * dim).iter().map(|x| x * by).collect();
        let x = Tensor::from_vec(values, (batch, heads, tokens, dim), &Device::Cpu).unwrap();
        x.to_dtype(dtype).unwrap()
    };
    let (q, k, v) = (part(heads, queries, 3.0), part(kv_heads, keys, 1.0), part(kv_heads, keys, 1.0));
    let group = heads / kv_heads;
    let every = |x: &Tensor| {
        let (b, h, n, d) = x.dims4().unwrap();
        let x = x.unsqueeze(2).unwrap().broadcast_as((b, h, group, n, d)).unwrap();
        flat(&x.contiguous().unwrap())
    };
    let bias: Vec<f32> = random.fill(heads * queries * keys);
    let lengths: Vec<usize> = (0..batch).map(|b| (b * 7 + keys / 2 + 1) % (keys + 1)).collect();
    // Blocks that each kind of kernel takes; some queries see nothing.
    let block = [[128, 64], [128, 100], [24, 40]][(queries + keys) % 3];
    let in_list = |h: usize, i: usize, j: usize| (h + 2 * i + j).is_multiple_of(3);
    let hidden = |yes: bool| if yes { f64::NEG_INFINITY } else { 0.0 };
    let seen = |s: usize, h: usize, i: usize, j: usize| match kind {
        Kind::None => 0.0,
        Kind::Causal => hidden(j + queries > i + keys),
        Kind::Lengths => hidden(j >= lengths[s]),
        Kind::Bias => f64::from(bias[(h * queries + i) * keys + j]),
        Kind::Blocks => hidden(!in_list(h, i / block[0], j / block[1])),
    };
    let (want, want_lse) =
        naive::attention((&flat(&q), &every(&k), &every(&v)), (batch, heads, queries, keys, dim), seen);
    let place = |x: &Tensor| {
        let x = x.to_device(device).unwrap();
        if interleaved {
            x.transpose(1, 2).unwrap().contiguous().unwrap().transpose(1, 2).unwrap()
        } else {
            x
        }
    };
    let mask = match kind {
        Kind::None => Mask::None,
        Kind::Causal => Mask::Causal,
        Kind::Lengths => Mask::Lengths(lengths.clone()),
        Kind::Bias => Mask::Bias(Tensor::from_slice(&bias, (heads, queries, keys), device).unwrap()),
        Kind::Blocks => Mask::Blocks(BlockList::from_fn(block, [queries, keys], heads, in_list).unwrap()),
    };
    let spec = AttentionSpec::new(dim).with_mask(mask);
    let (result, used) = observed(|| attention_with_lse(&place(&q), &place(&k), &place(&v), &spec));
    let (out, lse) = result.unwrap();
    let tolerance = match dtype {
        DType::F32 => 5e-6,
        DType::F16 => 1e-3,
        _ => 8e-3,
    };
    let error = relative(&flat(&out), &want);
    assert!(error < tolerance, "{used:?} {dtype:?} {extents:?} {kind:?}: {error}");
    for (got, want) in flat(&lse).iter().zip(&want_lse) {
        let close = f64::from(*got) == *want || (f64::from(*got) - want).abs() < 1e-3 * want.abs().max(1.0);
        assert!(close, "{used:?} {dtype:?} {extents:?} {kind:?}: log-sum {got}, want {want}");
    }
    used.iter().map(|u| u.kernel).collect::<Vec<_>>().join("+")
}

const KINDS: [Kind; 5] = [Kind::None, Kind::Causal, Kind::Lengths, Kind::Bias, Kind::Blocks];
const DTYPES: [DType; 3] = [DType::F16, DType::BF16, DType::F32];

fn table(cases: &[Extents], kinds: &[Kind]) {
    let Some(device) = card() else { return };
    for dtype in DTYPES {
        for extents in cases {
            for kind in kinds {
                for interleaved in [false, true] {
                    let kernel = check(&device, dtype, *extents, *kind, interleaved);
                    eprintln!("ok {kernel} {dtype:?} {extents:?} {kind:?}");
                }
            }
        }
    }
}

#[test]
fn time_axes() {
    let dims = [32, 40, 64, 80, 96, 128, 160];
    let cases: Vec<Extents> =
        dims.iter().flat_map(|d| [8, 16, 23, 32, 64].map(|f| (5, 4, 4, f, f, *d))).collect();
    table(&cases, &[Kind::None, Kind::Causal, Kind::Lengths]);
}

#[test]
fn text() {
    let dims = [32, 40, 64, 80, 96, 128, 160];
    let cases: Vec<Extents> =
        dims.iter().flat_map(|d| [4, 20, 77, 128].map(|keys| (2, 2, 2, 301, keys, *d))).collect();
    table(&cases, &[Kind::None, Kind::Lengths]);
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
        (1, 1, 1, 64, 257, 33),
        (1, 2, 2, 700, 640, 80),
        (1, 2, 2, 513, 1023, 128),
        (1, 1, 1, 1000, 999, 160),
    ];
    table(&cases, &KINDS);
}

#[test]
fn frames_are_read_in_place_for_any_batch() {
    let Some(device) = card() else { return };
    // [b, frames, places, heads, dim], more problems than a grid's second dimension holds.
    let (b, f, places, heads, dim) = (1, 8, 9000, 8, 40);
    let x = Tensor::randn(0f32, 1.0, (b, f, places, heads, dim), &Device::Cpu).unwrap();
    let x = x.to_dtype(DType::F16).unwrap();
    let view = |x: &Tensor| x.permute((0, 2, 3, 1, 4)).unwrap();
    let on_card = view(&x.to_device(&device).unwrap());
    let spec = AttentionSpec::new(dim);
    let got = attention(&on_card, &on_card, &on_card, &spec).unwrap();
    assert!(got.permute((0, 3, 1, 2, 4)).unwrap().is_contiguous());
    let want = attention(&view(&x), &view(&x), &view(&x), &spec).unwrap();
    let want: Vec<f64> = flat(&want).iter().map(|x| f64::from(*x)).collect();
    let error = relative(&flat(&got), &want);
    assert!(error < 1.5e-3, "{error}");
}

#[test]
fn nan_stays_in_its_query_and_padding_may_hold_it() {
    let Some(device) = card() else { return };
    for (keys, dim) in [(6, 40), (77, 40), (300, 64), (300, 48)] {
        for dtype in DTYPES {
            let mut q = vec![0.5f32; 70 * dim];
            q[dim] = f32::NAN;
            let mut kv = vec![0.25f32; keys * dim];
            kv[(keys - 1) * dim..].fill(f32::NAN);
            let put = |x: Vec<f32>, n: usize| {
                let x = Tensor::from_vec(x, (1, 1, n, dim), &device).unwrap();
                x.to_dtype(dtype).unwrap()
            };
            let (q, kv) = (put(q, 70), put(kv, keys));
            let spec = AttentionSpec::new(dim).with_mask(Mask::Lengths(vec![keys - 1]));
            let got = flat(&attention(&q, &kv, &kv, &spec).unwrap());
            for (i, y) in got.iter().enumerate() {
                let wrong = if i / dim == 1 { !y.is_nan() } else { (y - 0.25).abs() > 1e-3 };
                assert!(!wrong, "{dtype:?} {keys} {dim} at {i}: {y}");
            }
        }
    }
}

#[test]
fn mixed_types_are_refused() {
    let Some(device) = card() else { return };
    let x = Tensor::zeros((1, 1, 4, 8), DType::F16, &device).unwrap();
    let y = x.to_dtype(DType::F32).unwrap();
    let spec = AttentionSpec::new(8);
    assert!(matches!(attention(&x, &y, &y, &spec), Err(KernelError::DType { .. })));
    let cpu = x.to_device(&Device::Cpu).unwrap();
    assert!(attention(&x, &cpu, &cpu, &spec).is_err());
}

/// 10,000 calls of random shape (`KINORA_FUZZ_CASES` changes that) against the plain kernel in f32 on the
/// same rounded values, which the tables above hold against f64.
#[test]
fn random_shapes_agree_with_the_plain_kernel() {
    let Some(device) = card() else { return };
    let cases = std::env::var("KINORA_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000usize);
    const POOL: usize = 8 << 20;
    let pool = Tensor::randn(0f32, 1.0, POOL, &device).unwrap();
    let mut random = Random(20_261_127);
    let mut below = move |n: usize| ((random.next() + 1.0) / 2.0 * n as f32) as usize % n.max(1);
    let mut kernels = std::collections::BTreeMap::new();
    for case in 0..cases {
        let dtype = [DType::F16, DType::BF16][below(2)];
        let dim = if below(3) == 0 { 8 * (1 + below(32)) } else { [40, 64, 72, 80, 128, 160][below(6)] };
        let most = [17, 65, 130, 700][below(4)];
        let (queries, keys) = if below(2) == 0 {
            let n = 1 + below(most);
            (n, n)
        } else {
            (1 + below(most), 1 + below(most))
        };
        let (kv_heads, group) = (1 + below(3), 1 + below(3));
        let heads = kv_heads * group;
        let room = POOL / 4 / (heads * queries.max(keys) * dim);
        let (batch, inner) = (1 + below(3.min(room)), if below(4) == 0 { 2 } else { 1 });
        let mut part = |heads: usize, tokens: usize, by: f64| {
            let count = batch * inner * heads * tokens * dim;
            // Mostly aligned; rows of 16 bytes where not.
            let from = below(POOL - count + 1) / 8 * 8;
            let x = pool.narrow(0, from, count).unwrap().to_dtype(dtype).unwrap();
            let x = (x * by).unwrap();
            let x = match below(3) {
                0 => x.reshape((batch, inner, heads, tokens, dim)).unwrap(),
                1 => x.reshape((batch, inner, tokens, heads, dim)).unwrap().transpose(2, 3).unwrap(),
                _ => x.reshape((batch, tokens, inner, heads, dim)).unwrap().permute((0, 2, 3, 1, 4)).unwrap(),
            };
            if inner == 1 { x.squeeze(1).unwrap() } else { x }
        };
        let (q, k, v) = (part(heads, queries, 2.0), part(kv_heads, keys, 1.0), part(kv_heads, keys, 1.0));
        let mask = match below(4) {
            0 => Mask::Causal,
            1 => Mask::Lengths((0..batch * inner).map(|_| below(keys + 1)).collect()),
            2 => {
                let block = [[128, 128], [256, 72], [128, 64], [16, 48]][below(4)];
                let turn = below(5);
                let seen = |h: usize, i: usize, j: usize| (h + i * 3 + j + turn) % 4 < 2;
                Mask::Blocks(BlockList::from_fn(block, [queries, keys], heads, seen).unwrap())
            }
            _ => Mask::None,
        };
        let spec = AttentionSpec::new(dim).with_mask(mask);
        let (got, used) = observed(|| attention_with_lse(&q, &k, &v, &spec));
        let (got, lse) = got.unwrap();
        let single = |x: &Tensor| x.to_dtype(DType::F32).unwrap();
        let (want, want_lse) = attention_with_lse(&single(&q), &single(&k), &single(&v), &spec).unwrap();
        let norm = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
        let (error, size) = (norm(&(single(&got) - &want).unwrap()), norm(&want));
        let tolerance = if dtype == DType::F16 { 1e-3 } else { 8e-3 };
        // Written so that NaN fails.
        let close = error <= tolerance * size.max(1e-6);
        let name = used.first().map_or("none", |u| u.kernel);
        assert!(
            close,
            "case {case}, {name} {dtype:?} {:?} {:?} {spec:?}: {error} of {size}",
            q.dims(),
            k.dims()
        );
        for (a, b) in flat(&lse).iter().zip(flat(&want_lse)) {
            assert!(
                *a == b || (a - b).abs() < 2e-3 * b.abs().max(1.0),
                "case {case}, {name}: log-sum {a}, {b}"
            );
        }
        *kernels.entry(name).or_insert(0usize) += 1;
    }
    eprintln!("ok {cases} cases: {kernels:?}");
}

/// Bytes of the card that nobody has.
fn free(card: &Device) -> usize {
    card.synchronize().unwrap();
    candle_core::cuda_backend::cudarc::driver::result::mem_get_info().unwrap().0
}

#[test]
fn memory_of_dropped_tensors_goes_back_to_the_card() {
    let Some(card) = card() else { return };
    assert!(!cuda_cards().is_empty(), "a card that can be opened has a name");
    const HELD: usize = 8 << 30;
    let before = free(&card);
    let pieces: Vec<Tensor> = (0..8).map(|_| Tensor::zeros(HELD / 8, DType::U8, &card).unwrap()).collect();
    let held = free(&card);
    drop(pieces);
    let kept = free(&card);
    let began = std::time::Instant::now();
    release_cuda_memory(&card).unwrap();
    let seconds = began.elapsed().as_secs_f64();
    let after = free(&card);
    let gb = |bytes: usize| bytes as f64 / 1e9;
    eprintln!(
        "free: {:.1} GB, {:.1} with tensors, {:.1} without, {:.1} after giving back in {seconds:.3} s",
        gb(before),
        gb(held),
        gb(kept),
        gb(after),
    );
    // Tests beside this one hold a little.
    let little = HELD / 4;
    assert!(
        before - held > HELD - little && before - kept > HELD - little,
        "dropped tensors' memory is kept for the next"
    );
    assert!(after + little > before, "and is given back when told to");
    assert!(seconds < 2.0, "{seconds}");
}
