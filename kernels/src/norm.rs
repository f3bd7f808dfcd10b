//! Group and layer normalisation with the activation that follows them.

use candle_core::{D, Tensor};

use crate::error::{KernelError, Result};
use crate::pointwise::Activation;

/// Normalises groups of neighbouring channels of channels-last data.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// `weight` and `bias` are `[channels]`; `groups` divides `channels`.
    pub fn new(weight: Tensor, bias: Tensor, groups: usize, eps: f64) -> Result<Self> {
        let channels = weight.dims1()?;
        if groups == 0 || channels % groups != 0 || bias.dims() != [channels] {
            return Err(KernelError::shape(
                "group_norm",
                format!("channels a multiple of {groups} groups, bias like weight"),
                (weight.dims(), bias.dims()),
            ));
        }
        Ok(Self {
            weight,
            bias,
            groups,
            eps,
        })
    }

    /// Statistics over all dimensions but the first and, within it, per channel group; then the
    /// affine map and `activation`.
    ///
    /// `x` is `[n, …, channels]`. To pool the statistics over frames, reshape
    /// `[b * frames, h, w, c]` to `[b, frames * h, w, c]` first: that is a view.
    pub fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let dims = x.dims().to_vec();
        let channels = self.weight.dims1()?;
        let (Some(&n), Some(&last)) = (dims.first(), dims.last()) else {
            return Err(KernelError::shape("group_norm", "[n, …, channels]", dims));
        };
        if last != channels {
            return Err(KernelError::shape(
                "group_norm",
                format!("{channels} channels last"),
                dims,
            ));
        }
        let points = x.elem_count() / n / channels;
        let grouped = x
            .contiguous()?
            .reshape((n, points, self.groups, channels / self.groups))?;
        let mean = grouped.mean_keepdim((1, 3))?;
        let centred = grouped.broadcast_sub(&mean)?;
        let variance = centred.sqr()?.mean_keepdim((1, 3))?;
        let normed = centred
            .broadcast_div(&(variance + self.eps)?.sqrt()?)?
            .reshape(dims)?;
        activation.apply(
            &normed
                .broadcast_mul(&self.weight)?
                .broadcast_add(&self.bias)?,
        )
    }
}

/// Normalises the last dimension.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// `weight` and `bias` are `[channels]`.
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        Self { weight, bias, eps }
    }

    /// `x` is `[…, channels]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = centred.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        Ok(normed
            .broadcast_mul(&self.weight)?
            .broadcast_add(&self.bias)?)
    }
}
