//! Attention's gradients the slow way in f64, and one case as every backend runs it.

use candle_core::{DType, Device, Tensor};
use kinora_kernels::*;

use crate::naive::Random;

/// Sequences, heads, heads of keys, queries, keys, head dimension.
pub(crate) type Extents = (usize, usize, usize, usize, usize, usize);

/// Gradients of contiguous `[sequences, heads, tokens, dim]` operands for the gradient `g` of the result;
/// `seen(sequence, head, i, j)` is the bias.
pub(crate) fn gradients(
    [q, k, v, g]: [&[f32]; 4],
    (sequences, heads, kv_heads, queries, keys, dim): Extents,
    seen: impl Fn(usize, usize, usize, usize) -> f64,
) -> [Vec<f64>; 3] {
    let scale = 1.0 / (dim as f64).sqrt();
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    let dot =
        |x: &[f32], y: &[f32]| -> f64 { x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum() };
    for (sequence, head) in (0..sequences).flat_map(|s| (0..heads).map(move |h| (s, h))) {
        let kv = (sequence * kv_heads + head / (heads / kv_heads)) * keys;
        for i in 0..queries {
            let row = ((sequence * heads + head) * queries + i) * dim;
            let (query, grad) = (&q[row..row + dim], &g[row..row + dim]);
            let at = |j: usize| (kv + j) * dim..(kv + j + 1) * dim;
            let scores: Vec<f64> =
                (0..keys).map(|j| dot(query, &k[at(j)]) * scale + seen(sequence, head, i, j)).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if max == f64::NEG_INFINITY {
                continue;
            }
            let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp() / total).collect();
            let slopes: Vec<f64> = (0..keys).map(|j| dot(grad, &v[at(j)])).collect();
            let delta: f64 = weights.iter().zip(&slopes).map(|(w, s)| w * s).sum();
            for j in 0..keys {
                let slope = weights[j] * (slopes[j] - delta) * scale;
                for c in 0..dim {
                    let key = (kv + j) * dim + c;
                    dq[row + c] += slope * f64::from(k[key]);
                    dk[key] += slope * f64::from(query[c]);
                    dv[key] += weights[j] * f64::from(grad[c]);
                }
            }
        }
    }
    [dq, dk, dv]
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    None,
    Causal,
    Lengths,
    Bias,
    Blocks,
}

pub(crate) const KINDS: [Kind; 5] = [Kind::None, Kind::Causal, Kind::Lengths, Kind::Bias, Kind::Blocks];

/// `‖got − want‖ / ‖want‖`, or the error's root mean square where the answer is zero (a single key leaves nothing to
/// learn); infinite on NaN or another length.
pub(crate) fn relative(got: &[f32], want: &[f64]) -> f64 {
    if got.len() != want.len() {
        return f64::INFINITY;
    }
    let norm = |it: &mut dyn Iterator<Item = f64>| it.map(|x| x * x).sum::<f64>().sqrt();
    let error = norm(&mut got.iter().zip(want).map(|(g, w)| f64::from(*g) - w));
    let size = norm(&mut want.iter().copied());
    let ratio = error / if size < 1e-12 { (want.len().max(1) as f64).sqrt() } else { size };
    if ratio.is_nan() { f64::INFINITY } else { ratio }
}

pub(crate) fn flat(x: &Tensor) -> Vec<f32> {
    // candle starts a kernel without blocks for an empty tensor, which the driver refuses.
    if x.elem_count() == 0 {
        return Vec::new();
    }
    x.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

/// Random operands, a mask of a kind, and the answer.
pub(crate) struct Case {
    /// Queries, keys, values, gradient of the result, on the CPU.
    pub(crate) operands: [Tensor; 4],
    pub(crate) spec: AttentionSpec,
    pub(crate) want: [Vec<f64>; 3],
}

/// One case; `seed` also picks blocks and lengths.
pub(crate) fn case(device: &Device, dtype: DType, extents: Extents, kind: Kind, seed: u64) -> Case {
    let (batch, heads, kv_heads, queries, keys, dim) = extents;
    let mut random = Random(seed);
    let mut part = |heads: usize, tokens: usize, by: f32| {
        let values: Vec<f32> = random.fill(batch * heads * tokens * dim).iter().map(|x| x * by).collect();
        Tensor::from_vec(values, (batch, heads, tokens, dim), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    };
    let (q, k) = (part(heads, queries, 3.0), part(kv_heads, keys, 1.0));
    let operands = [q, k, part(kv_heads, keys, 1.0), part(heads, queries, 1.0)];
    let bias = random.fill(heads * queries * keys);
    let lengths: Vec<usize> =
        (0..batch).map(|b| (b * 7 + keys / 2 + seed as usize % 5) % (keys + 1)).collect();
    // Some queries see nothing.
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
    let values: Vec<Vec<f32>> = operands.iter().map(flat).collect();
    let want = gradients([&values[0], &values[1], &values[2], &values[3]], extents, seen);
    let mask = match kind {
        Kind::None => Mask::None,
        Kind::Causal => Mask::Causal,
        Kind::Lengths => Mask::Lengths(lengths.clone()),
        Kind::Bias => Mask::Bias(Tensor::from_slice(&bias, (heads, queries, keys), device).unwrap()),
        Kind::Blocks => Mask::Blocks(BlockList::from_fn(block, [queries, keys], heads, in_list).unwrap()),
    };
    Case { operands, spec: AttentionSpec::new(dim).with_mask(mask), want }
}

/// Runs a case on a device, heads together or apart in memory; gradients and the backward kernel's name.
pub(crate) fn run(case: &Case, device: &Device, interleaved: bool) -> ([Tensor; 3], &'static str) {
    let place = |x: &Tensor| {
        let x = x.to_device(device).unwrap();
        if interleaved {
            x.transpose(1, 2).unwrap().contiguous().unwrap().transpose(1, 2).unwrap()
        } else {
            x
        }
    };
    let [q, k, v, grad] = case.operands.each_ref().map(place);
    let (out, lse) = attention_with_lse(&q, &k, &v, &case.spec).unwrap();
    let (grads, used) = observed(|| attention_backward([&q, &k, &v], &out, &lse, &grad, &case.spec));
    (grads.unwrap(), used.first().map_or("none", |u| u.kernel))
}
