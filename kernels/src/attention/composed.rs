//! Attention in tensor operations, for devices and types that have no kernel here.

use candle_core::{D, DType, Tensor};

use super::{AttentionSpec, Dims, Mask};
use crate::error::Result;

/// Returns `[batch, queries, inner, heads, dim]` and the log-sums `[batch, inner, heads, queries]`.
pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spec: &AttentionSpec,
    dims: &Dims,
    want_lse: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    // One batch dimension: candle's product refuses some strides of extent-one dimensions.
    let sequences = dims.batch * dims.inner;
    let four = |x: &Tensor, tokens: usize| x.contiguous()?.reshape((sequences, dims.heads, tokens, dims.dim));
    let (q, k, v) = (four(q, dims.queries)?, four(k, dims.keys)?, four(v, dims.keys)?);
    #[cfg(feature = "cuda")]
    if let (Some(device), Mask::None, false, true) =
        (crate::cuda::device(&q), &spec.mask, want_lse, dims.dim > 256)
    {
        // Scaled first, so that half types do not overflow; one pass for the softmax.
        let scores = (&q * spec.scale)?.matmul(&k.t()?)?;
        let out = crate::cuda::pointwise::softmax(&device, &scores)?.matmul(&v)?;
        let out = out.reshape((dims.batch, dims.inner, dims.heads, dims.queries, dims.dim))?;
        return Ok((out.permute((0, 3, 1, 2, 4))?.contiguous()?, None));
    }
    // Half types are widened: as exact as the kernels whose place this takes.
    let dtype = q.dtype();
    let single = |x: Tensor| x.to_dtype(DType::F32);
    let (q, k, v) = (single(q)?, single(k)?, single(v)?);
    let scores = (q.matmul(&k.t()?.contiguous()?)? * spec.scale)?;
    let scores = match &spec.mask {
        Mask::None => scores,
        Mask::Bias(bias) => {
            let bias = single(dims.bias(bias)?.contiguous()?)?;
            scores.add(&bias.reshape((sequences, dims.heads, dims.queries, dims.keys))?)?
        }
        Mask::Causal => {
            let hidden = |_, i: usize, j: usize| j + dims.queries > i + dims.keys;
            scores.broadcast_add(&bias_where(dims, 1, hidden, &q)?)?
        }
        Mask::Blocks(list) => {
            let hidden = |problem: usize, i: usize, j: usize| !list.sees(problem, i, j);
            let bias = bias_where(dims, sequences * dims.heads, hidden, &q)?;
            scores.add(&bias.reshape((sequences, dims.heads, dims.queries, dims.keys))?)?
        }
        Mask::Lengths(lengths) => {
            let hidden = |sequence: usize, _, j: usize| lengths.get(sequence).is_some_and(|n| j >= *n);
            let bias = bias_where(dims, sequences, hidden, &q)?;
            scores.broadcast_add(&bias)?
        }
    };
    // A finite floor: a query without a visible key then has a sum of zero instead of NaN.
    let max = scores.max_keepdim(D::Minus1)?.maximum(-1e38)?;
    let exp = scores.broadcast_sub(&max)?.exp()?;
    let total = exp.sum_keepdim(D::Minus1)?;
    let weights = exp.broadcast_div(&total.maximum(1e-38)?)?;
    let out = weights.matmul(&v)?.reshape((dims.batch, dims.inner, dims.heads, dims.queries, dims.dim))?;
    let out = out.to_dtype(dtype)?.permute((0, 3, 1, 2, 4))?.contiguous()?;
    let lse = match want_lse {
        true => Some((total.log()? + max)?.reshape((dims.batch, dims.inner, dims.heads, dims.queries))?),
        false => None,
    };
    Ok((out, lse))
}

fn bias_where(
    dims: &Dims,
    sequences: usize,
    hidden: impl Fn(usize, usize, usize) -> bool,
    like: &Tensor,
) -> Result<Tensor> {
    let mut bias = vec![0.0f32; sequences * dims.queries * dims.keys];
    for (at, value) in bias.iter_mut().enumerate() {
        let (rest, j) = (at / dims.keys, at % dims.keys);
        if hidden(rest / dims.queries, rest % dims.queries, j) {
            *value = f32::NEG_INFINITY;
        }
    }
    Ok(Tensor::from_vec(bias, (sequences, 1, dims.queries, dims.keys), like.device())?)
}
