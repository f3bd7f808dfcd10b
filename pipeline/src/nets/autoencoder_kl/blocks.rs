//! The residual block and the attending innermost block of the autoencoder.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use kinora_kernels::{Activation, AttentionSpec, Conv2d, GroupNorm, Linear, attention};

use super::EPS;
use crate::nets::weights::{self, Result};

/// Two normalised convolutions around a skip connection.
#[derive(Debug, Clone)]
pub(super) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Linear>,
}

impl ResnetBlock {
    pub(super) fn new(inner: usize, out: usize, groups: usize, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            norm1: weights::group_norm(&vb.pp("norm1"), inner, groups, EPS)?,
            conv1: weights::conv2d(&vb.pp("conv1"), inner, out, 3, 1, 1)?,
            norm2: weights::group_norm(&vb.pp("norm2"), out, groups, EPS)?,
            conv2: weights::conv2d(&vb.pp("conv2"), out, out, 3, 1, 1)?,
            conv_shortcut: (inner != out)
                .then(|| weights::linear(&vb.pp("conv_shortcut"), inner, out))
                .transpose()?,
        })
    }

    /// `[n, h, w, inner]` to `[n, h, w, out]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.conv1.forward(&self.norm1.forward(x, Activation::Silu)?)?;
        let shortcut = self.conv_shortcut.as_ref().map(|conv| conv.forward(x)).transpose()?;
        let y = self.norm2.forward(&y, Activation::Silu)?;
        Ok(self.conv2.forward_fused(&y, Activation::None, Some(shortcut.as_ref().unwrap_or(x)))?)
    }
}

/// Residual block, optional attention, residual block.
#[derive(Debug, Clone)]
pub(super) struct MidBlock {
    first: ResnetBlock,
    attention: Option<AttentionBlock>,
    second: ResnetBlock,
}

impl MidBlock {
    pub(super) fn new(width: usize, groups: usize, attend: bool, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            first: ResnetBlock::new(width, width, groups, &vb.pp("resnets.0"))?,
            attention: attend
                .then(|| AttentionBlock::new(width, groups, &vb.pp("attentions.0")))
                .transpose()?,
            second: ResnetBlock::new(width, width, groups, &vb.pp("resnets.1"))?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.first.forward(x)?;
        if let Some(attention) = &self.attention {
            x = attention.forward(&x)?;
        }
        self.second.forward(&x)
    }
}

/// One head of self-attention over all positions of a picture.
#[derive(Debug, Clone)]
struct AttentionBlock {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl AttentionBlock {
    fn new(width: usize, groups: usize, vb: &VarBuilder) -> Result<Self> {
        // Files from before diffusers 0.17 name the four maps differently.
        let old = vb.contains_tensor("query.weight");
        let names =
            if old { ["query", "key", "value", "proj_attn"] } else { ["to_q", "to_k", "to_v", "to_out.0"] };
        let [to_q, to_k, to_v, to_out] = names.map(|name| weights::linear(&vb.pp(name), width, width));
        Ok(Self {
            group_norm: weights::group_norm(&vb.pp("group_norm"), width, groups, EPS)?,
            to_q: to_q?,
            to_k: to_k?,
            to_v: to_v?,
            to_out: to_out?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (n, h, w, c) = x.dims4()?;
        let normed = self.group_norm.forward(x, Activation::None)?;
        let tokens =
            |map: &Linear| -> Result<Tensor> { Ok(map.forward(&normed)?.reshape((n, 1, h * w, c))?) };
        let mixed = attention(
            &tokens(&self.to_q)?,
            &tokens(&self.to_k)?,
            &tokens(&self.to_v)?,
            &AttentionSpec::new(c),
        )?;
        Ok(self.to_out.forward_fused(&mixed.reshape((n, h, w, c))?, Activation::None, Some(x))?)
    }
}
