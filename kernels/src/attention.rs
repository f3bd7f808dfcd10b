//! Scaled dot-product attention behind one entry.

use candle_core::{D, Tensor};

use crate::error::{KernelError, Result};

/// Which keys a query may see.
#[derive(Debug, Clone)]
pub enum Mask {
    /// Every key.
    None,
    /// Query `i` sees keys `0..=i + (keys - queries)`.
    Causal,
    /// Added to the scores before the softmax, broadcastable to `[batch, heads, queries, keys]`.
    Bias(Tensor),
}

/// How exact the arithmetic must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Softmax in f32, products in the input type.
    Exact,
}

/// Everything about an attention call that is not a tensor operand.
#[derive(Debug, Clone)]
pub struct AttentionSpec {
    /// Multiplies the scores; usually `1/sqrt(dim)`.
    pub scale: f64,
    /// Visibility.
    pub mask: Mask,
    /// Arithmetic.
    pub precision: Precision,
}

impl AttentionSpec {
    /// Unmasked exact attention with the usual `1/sqrt(dim)` scale.
    pub fn new(dim: usize) -> Self {
        Self {
            scale: 1.0 / (dim as f64).sqrt(),
            mask: Mask::None,
            precision: Precision::Exact,
        }
    }

    /// The same with another mask.
    pub fn with_mask(mut self, mask: Mask) -> Self {
        self.mask = mask;
        self
    }
}

/// `softmax(scale · q kᵀ + mask) v`.
///
/// `q` is `[batch, heads, queries, dim]`, `k` and `v` are `[batch, heads, keys, dim]`; any strides.
/// The result has `q`'s shape and is a transposed view of a contiguous
/// `[batch, queries, heads, dim]` buffer, so `transpose(1, 2)` and flattening the heads is free.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, spec: &AttentionSpec) -> Result<Tensor> {
    let (_, _, queries, dim) = q.dims4()?;
    let (_, _, keys, key_dim) = k.dims4()?;
    if dim != key_dim || k.dims() != v.dims() {
        return Err(KernelError::shape(
            "attention",
            format!("k and v of one shape with dim {dim}"),
            (q.dims(), k.dims(), v.dims()),
        ));
    }
    let scores = (q.contiguous()?.matmul(&k.t()?.contiguous()?)? * spec.scale)?;
    let scores = match &spec.mask {
        Mask::None => scores,
        Mask::Bias(bias) => scores.broadcast_add(bias)?,
        Mask::Causal => scores.broadcast_add(&causal_bias(queries, keys, q)?)?,
    };
    let max = scores.max_keepdim(D::Minus1)?;
    let exp = scores.broadcast_sub(&max)?.exp()?;
    let weights = exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?;
    let out = weights.matmul(&v.contiguous()?)?;
    Ok(out.transpose(1, 2)?.contiguous()?.transpose(1, 2)?)
}

fn causal_bias(queries: usize, keys: usize, like: &Tensor) -> Result<Tensor> {
    let offset = keys.saturating_sub(queries);
    let bias: Vec<f32> = (0..queries)
        .flat_map(|i| {
            (0..keys).map(move |j| {
                if j <= i + offset {
                    0.0
                } else {
                    f32::NEG_INFINITY
                }
            })
        })
        .collect();
    Ok(Tensor::from_vec(bias, (queries, keys), like.device())?.to_dtype(like.dtype())?)
}
