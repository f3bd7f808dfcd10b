//! Attention against f64: head dimensions, strides, masks, both ranks.

use candle_core::{DType, Tensor};
use kinora_kernels::*;
use proptest::prelude::*;

use crate::naive::{Random, attention as naive, max_error};
use crate::{cpu, flat, on_every_isa};

/// The bias of `(sequence, head, query, key)`.
type BiasAt = dyn Fn(usize, usize, usize, usize) -> f64 + Sync;

/// One shape with every mask, the operands laid out as a projection leaves them.
fn check(batch: usize, heads: usize, queries: usize, keys: usize, dim: usize, seed: u64) {
    let mut random = Random(seed);
    let (nq, nk) = (batch * heads * queries * dim, batch * heads * keys * dim);
    let (q, k, v) =
        (random.fill(nq).iter().map(|x| x * 3.0).collect::<Vec<f32>>(), random.fill(nk), random.fill(nk));
    let bias = random.fill(heads * queries * keys);
    let lengths: Vec<usize> =
        (0..batch).map(|b| if keys == 0 { 0 } else { (b * 7 + 1) % (keys + 1) }).collect();
    let extents = (batch, heads, queries, keys, dim);
    let hidden = |yes: bool| if yes { f64::NEG_INFINITY } else { 0.0 };
    // Blocks of 24 queries by 40 keys, a pattern a head; some queries see nothing.
    let seen = |h: usize, i: usize, j: usize| (h + 2 * i + j).is_multiple_of(3);
    let list = BlockList::from_fn([24, 40], [queries, keys], heads, seen).unwrap();
    let masks: [(Mask, Box<BiasAt>); 5] = [
        (Mask::Blocks(list), Box::new(move |_, h, i, j| hidden(!seen(h, i / 24, j / 40)))),
        (Mask::None, Box::new(|_, _, _, _| 0.0)),
        (Mask::Causal, Box::new(move |_, _, i, j| hidden(j + queries > i + keys))),
        (Mask::Lengths(lengths.clone()), Box::new(move |s, _, _, j| hidden(j >= lengths[s]))),
        (
            Mask::Bias(cpu(&bias, &[heads, queries, keys])),
            Box::new(move |_, h, i, j| f64::from(bias[(h * queries + i) * keys + j])),
        ),
    ];
    let interleaved = |x: &[f32], tokens: usize| {
        cpu(x, &[batch, heads, tokens, dim])
            .transpose(1, 2)
            .unwrap()
            .contiguous()
            .unwrap()
            .transpose(1, 2)
            .unwrap()
    };
    for (mask, bias) in &masks {
        let (want, want_lse) = naive((&q, &k, &v), extents, bias);
        on_every_isa(|isa| {
            let spec = AttentionSpec::new(dim).with_mask(mask.clone());
            let (out, lse) = attention_with_lse(
                &interleaved(&q, queries),
                &interleaved(&k, keys),
                &interleaved(&v, keys),
                &spec,
            )
            .unwrap();
            assert_eq!(out.dims(), [batch, heads, queries, dim]);
            assert!(out.transpose(1, 2).unwrap().is_contiguous());
            let error = max_error(&flat(&out), &want);
            assert!(error < 5e-6, "{isa:?} {extents:?} {mask:?}: {error}");
            for (got, want) in flat(&lse).iter().zip(&want_lse) {
                assert!(
                    f64::from(*got) == *want || (f64::from(*got) - want).abs() < 1e-5,
                    "{isa:?} {extents:?} {got} {want}"
                );
            }
        });
    }
}

#[test]
fn every_head_dimension() {
    for dim in (8..=256).step_by(8) {
        check(1, 2, 19, 21, dim, dim as u64);
    }
}

#[test]
fn odd_sizes_and_empty_ones() {
    for (batch, heads, queries, keys, dim) in [
        (1, 1, 1, 1, 1),
        (2, 3, 33, 130, 7),
        (1, 1, 129, 300, 12),
        (1, 2, 300, 129, 40),
        (3, 2, 16, 16, 32),
        (1, 1, 5, 0, 8),
        (1, 1, 0, 5, 8),
        (0, 2, 4, 4, 8),
        (1, 1, 64, 257, 33),
        (2, 1, 257, 77, 40),
    ] {
        check(batch, heads, queries, keys, dim, 5);
    }
}

#[test]
fn rank_five_reads_frames_in_place() {
    let (b, f, places, heads, dim) = (2, 16, 5, 3, 32);
    let mut random = Random(31);
    let mut part = || cpu(&random.fill(b * f * places * heads * dim), &[b, f, places, heads, dim]);
    let (q, k, v) = (part(), part(), part());
    let view = |x: &Tensor| x.permute((0, 2, 3, 1, 4)).unwrap();
    let plain = |x: &Tensor| flat(&view(x));
    let (want, _) =
        naive((&plain(&q), &plain(&k), &plain(&v)), (b * places, heads, f, f, dim), |_, _, _, _| 0.0);
    on_every_isa(|isa| {
        let out = attention(&view(&q), &view(&k), &view(&v), &AttentionSpec::new(dim)).unwrap();
        assert!(max_error(&flat(&out), &want) < 5e-6, "{isa:?}");
        // Back in [b, f, places, heads, dim] order the memory is contiguous.
        assert!(out.permute((0, 3, 1, 2, 4)).unwrap().is_contiguous());
    });
}

#[test]
fn broadcast_keys_and_half_types() {
    let mut random = Random(37);
    let (q, k) =
        (cpu(&random.fill(3 * 2 * 9 * 16), &[3, 2, 9, 16]), cpu(&random.fill(2 * 7 * 16), &[1, 2, 7, 16]));
    let shared = k.broadcast_as((3, 2, 7, 16)).unwrap();
    let spec = AttentionSpec::new(16);
    on_every_isa(|isa| {
        let got = attention(&q, &shared, &shared, &spec).unwrap();
        let want =
            attention(&q, &shared.contiguous().unwrap(), &shared.contiguous().unwrap(), &spec).unwrap();
        assert_eq!(flat(&got), flat(&want), "{isa:?}");
    });
    let half = |x: &Tensor| x.to_dtype(DType::F16).unwrap();
    let got = attention(&half(&q), &half(&shared), &half(&shared), &spec).unwrap();
    assert_eq!(got.dtype(), DType::F16);
    let exact: Vec<f64> =
        flat(&attention(&q, &shared, &shared, &spec).unwrap()).iter().map(|x| f64::from(*x)).collect();
    assert!(max_error(&flat(&got), &exact) < 5e-3);
}

#[test]
fn composed_fallback_agrees() {
    // f64 has no kernel here, so it takes the written-out path.
    let mut random = Random(41);
    let part = |random: &mut Random, t: usize| cpu(&random.fill(2 * 3 * t * 8), &[2, 3, t, 8]);
    let (q, k, v) = (part(&mut random, 6), part(&mut random, 9), part(&mut random, 9));
    let double = |x: &Tensor| x.to_dtype(DType::F64).unwrap();
    let list = BlockList::from_fn([2, 4], [6, 9], 3, |h, i, j| (h + i + j) % 2 == 1).unwrap();
    for mask in [Mask::None, Mask::Causal, Mask::Lengths(vec![0, 4]), Mask::Blocks(list)] {
        let spec = AttentionSpec::new(8).with_mask(mask);
        let (a, l) = attention_with_lse(&q, &k, &v, &spec).unwrap();
        let (b, m) = attention_with_lse(&double(&q), &double(&k), &double(&v), &spec).unwrap();
        let exact: Vec<f64> = flat(&b).iter().map(|x| f64::from(*x)).collect();
        assert!(max_error(&flat(&a), &exact) < 1e-5);
        for (l, m) in flat(&l).iter().zip(flat(&m)) {
            assert!(*l == m || (l - m).abs() < 1e-5, "{l} {m}");
        }
    }
}

#[test]
fn nan_goes_through_and_stays_in_its_query() {
    let mut q = vec![0.5f32; 4 * 8];
    q[8] = f32::NAN;
    on_every_isa(|isa| {
        let k = cpu(&[0.25; 6 * 8], &[1, 1, 6, 8]);
        let got = flat(&attention(&cpu(&q, &[1, 1, 4, 8]), &k, &k, &AttentionSpec::new(8)).unwrap());
        for (i, y) in got.iter().enumerate() {
            assert_eq!(y.is_nan(), i / 8 == 1, "{isa:?} at {i}: {y}");
        }
        // Padding beyond the length may hold anything.
        let mut values = vec![0.25f32; 6 * 8];
        values[5 * 8..].fill(f32::NAN);
        let padded = cpu(&values, &[1, 1, 6, 8]);
        let spec = AttentionSpec::new(8).with_mask(Mask::Lengths(vec![5]));
        let got = flat(&attention(&k, &padded, &padded, &spec).unwrap());
        assert!(got.iter().all(|y| (*y - 0.25).abs() < 1e-6), "{isa:?} {got:?}");
    });
}

#[test]
fn mismatches_are_refused() {
    let x = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &candle_core::Device::Cpu).unwrap();
    let spec = AttentionSpec::new(8);
    let refused = |q: &[usize], k: &[usize], v: &[usize], spec: &AttentionSpec| {
        matches!(attention(&x(q), &x(k), &x(v), spec), Err(KernelError::Shape { .. }))
    };
    assert!(refused(&[1, 2, 3], &[1, 2, 3], &[1, 2, 3], &spec));
    assert!(refused(&[1, 2, 3, 8], &[1, 2, 5, 4], &[1, 2, 5, 8], &spec));
    assert!(refused(&[1, 2, 3, 8], &[1, 2, 5, 8], &[1, 2, 4, 8], &spec));
    assert!(refused(&[2, 2, 3, 8], &[1, 2, 5, 8], &[1, 2, 5, 8], &spec));
    assert!(refused(&[1, 1, 2, 3, 8], &[1, 2, 3, 8], &[1, 2, 3, 8], &spec));
    assert!(refused(&[1, 1, 3, 0], &[1, 1, 3, 0], &[1, 1, 3, 0], &spec));
    let square = [1, 2, 3, 8];
    assert!(refused(&square, &square, &square, &spec.clone().with_mask(Mask::Lengths(vec![4]))));
    assert!(refused(&square, &square, &square, &spec.clone().with_mask(Mask::Lengths(vec![1, 1]))));
    assert!(refused(&square, &square, &square, &spec.with_mask(Mask::Bias(x(&[2, 2])))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_attention(batch in 1usize..3, heads in 1usize..4, queries in 1usize..80, keys in 1usize..300, dim in 1usize..70, seed in any::<u64>()) {
        check(batch, heads, queries, keys, dim, seed);
    }
}
