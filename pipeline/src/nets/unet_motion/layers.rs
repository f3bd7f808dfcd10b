//! Kernel layers from named weights, and the state every block reads.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use kinora_kernels::{
    Activation, AttentionSpec, Conv2d, GatedLinear, GroupNorm, LayerNorm, Linear, attention,
};

use super::error::Result;
use super::regions::RegionWeights;
use crate::nets::weights::{self, tensor};

/// Epsilon of every transformer's group norm; not configurable in any public network.
pub(super) const TRANSFORMER_NORM_EPS: f64 = 1e-6;
/// PyTorch's default, which every public checkpoint was trained with.
const LAYER_NORM_EPS: f64 = 1e-5;

/// Receives named intermediate results.
pub type Probe<'a> = &'a dyn Fn(&str, &Tensor);

/// What a forward pass shares between its blocks.
pub(super) struct Pass<'a> {
    pub(super) batch: usize,
    pub(super) frames: usize,
    /// `silu` of the summed embeddings, `[batch, time_dim]`.
    pub(super) time: Tensor,
    /// `[batch, tokens, dim]`.
    pub(super) text: Tensor,
    /// `[batch, tokens, dim]`.
    pub(super) phrase: Option<Tensor>,
    pub(super) regions: Option<RegionWeights>,
    pub(super) probe: Option<Probe<'a>>,
}

impl Pass<'_> {
    pub(super) fn report(&self, block: &str, part: &str, index: usize, x: &Tensor) {
        if let Some(probe) = self.probe {
            probe(&format!("{block}.{part}.{index}"), x);
        }
    }
}

pub(super) fn linear(vb: &VarBuilder, inner: usize, out: usize, bias: bool) -> Result<Linear> {
    let weight = tensor(vb, &[out, inner], "weight")?;
    let bias = if bias { Some(tensor(vb, &[out], "bias")?) } else { None };
    Ok(Linear::new(weight, bias)?)
}

/// A linear map over channels stored as a 1×1 convolution.
pub(super) fn pointwise(vb: &VarBuilder, inner: usize, out: usize) -> Result<Linear> {
    let weight = tensor(vb, &[out, inner, 1, 1], "weight")?;
    Ok(Linear::new(weight, Some(tensor(vb, &[out], "bias")?))?)
}

/// A projection of a spatial transformer, stored as a linear layer or as a 1×1 convolution.
pub(super) fn projection(vb: &VarBuilder, channels: usize, as_linear: bool) -> Result<Linear> {
    if as_linear { linear(vb, channels, channels, true) } else { pointwise(vb, channels, channels) }
}

pub(super) fn conv(vb: &VarBuilder, inner: usize, out: usize, stride: usize) -> Result<Conv2d> {
    Ok(weights::conv2d(vb, inner, out, 3, stride, 1)?)
}

pub(super) fn layer_norm(vb: &VarBuilder, channels: usize) -> Result<LayerNorm> {
    Ok(weights::layer_norm(vb, channels, LAYER_NORM_EPS)?)
}

/// A group norm whose statistics are per frame or per clip.
#[derive(Debug, Clone)]
pub(super) struct FrameGroupNorm {
    norm: GroupNorm,
    over_frames: bool,
}

impl FrameGroupNorm {
    pub(super) fn new(
        vb: &VarBuilder,
        channels: usize,
        groups: usize,
        eps: f64,
        over_frames: bool,
    ) -> Result<Self> {
        Ok(Self { norm: weights::group_norm(vb, channels, groups, eps)?, over_frames })
    }

    /// `[batch · frames, h, w, c]` to the same.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass, activation: Activation) -> Result<Tensor> {
        Ok(self.norm.forward(&self.samples(x, pass)?, activation)?.reshape(x.dims())?)
    }

    /// [`Self::forward`] of the channels of two tensors side by side.
    pub(super) fn forward_joined(
        &self,
        parts: [&Tensor; 2],
        pass: &Pass,
        activation: Activation,
    ) -> Result<Tensor> {
        let (n, h, w, _) = parts[0].dims4()?;
        let [x, rest] = [self.samples(parts[0], pass)?, self.samples(parts[1], pass)?];
        Ok(self.norm.forward_joined([&x, &rest], activation)?.reshape((n, h, w, ()))?)
    }

    /// [`Self::forward`] of `x` with a row of `added` `[batch, c]` added to every clip.
    pub(super) fn forward_added(
        &self,
        x: &Tensor,
        added: &Tensor,
        pass: &Pass,
        activation: Activation,
    ) -> Result<Tensor> {
        Ok(self.norm.forward_added(&self.samples(x, pass)?, added, activation)?.reshape(x.dims())?)
    }

    /// What statistics are taken over, as the first dimension.
    fn samples(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (_, h, w, c) = x.dims4()?;
        Ok(if self.over_frames { x.reshape((pass.batch, pass.frames * h, w, c))? } else { x.clone() })
    }
}

/// The weight `[out, inner]` of a linear layer without bias.
fn weight(vb: &VarBuilder, inner: usize, out: usize) -> Result<Tensor> {
    Ok(tensor(vb, &[out, inner], "weight")?)
}

/// Weights of layers that read the same input, as one layer: it is read once.
fn together(weights: &[Tensor]) -> Result<Linear> {
    Ok(Linear::stacked(weights.to_vec(), None)?)
}

/// Multi-head attention of a sequence to itself.
#[derive(Debug, Clone)]
pub(super) struct SelfAttention {
    /// `to_q`, `to_k` and `to_v`.
    to_qkv: Linear,
    to_out: Linear,
    heads: usize,
}

impl SelfAttention {
    pub(super) fn new(vb: &VarBuilder, channels: usize, heads: usize) -> Result<Self> {
        let part = |name: &str| weight(&vb.pp(name), channels, channels);
        Ok(Self {
            to_qkv: together(&[part("to_q")?, part("to_k")?, part("to_v")?])?,
            to_out: linear(&vb.pp("to_out.0"), channels, channels, true)?,
            heads,
        })
    }

    /// Queries, keys and values `[n, tokens, heads, dim]` of `x` `[n, tokens, c]`.
    pub(super) fn projected(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        let (n, tokens, channels) = x.dims3()?;
        let heads = self.heads;
        let all = self.to_qkv.forward(x)?.reshape((n, tokens, 3 * heads, channels / heads))?;
        Ok([all.narrow(2, 0, heads)?, all.narrow(2, heads, heads)?, all.narrow(2, 2 * heads, heads)?])
    }

    /// Attention within each sequence of `x` `[n, tokens, c]`, projected out and added to `residual`.
    pub(super) fn forward(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let [q, k, v] = self.projected(x)?;
        self.mixed([&q, &k, &v], residual)
    }

    /// The attention of [`Self::projected`] operands, projected out and added to `residual`
    /// `[n, queries, c]`.
    pub(super) fn mixed(&self, operands: [&Tensor; 3], residual: &Tensor) -> Result<Tensor> {
        let [q, k, v] = operands.map(|x| x.transpose(1, 2));
        let (q, k, v) = (q?, k?, v?);
        let out = attention(&q, &k, &v, &AttentionSpec::new(q.dim(3)?))?;
        let out = out.transpose(1, 2)?.reshape(residual.dims())?;
        Ok(self.to_out.forward_fused(&out, Activation::None, Some(residual))?)
    }

    /// Attention of each pixel of `x` `[batch, frames, pixels, c]` along its frames, read in place,
    /// projected out and added to `residual`.
    pub(super) fn along_frames(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let (batch, frames, pixels, channels) = x.dims4()?;
        let heads = self.heads;
        let all = self.to_qkv.forward(x)?.reshape((batch, frames, pixels, 3 * heads, channels / heads))?;
        let part = |index: usize| all.narrow(3, index * heads, heads)?.permute((0, 2, 3, 1, 4));
        let out = attention(&part(0)?, &part(1)?, &part(2)?, &AttentionSpec::new(channels / heads))?;
        let out = out.permute((0, 3, 1, 2, 4))?.reshape((batch, frames, pixels, channels))?;
        Ok(self.to_out.forward_fused(&out, Activation::None, Some(residual))?)
    }
}

/// Multi-head attention to another sequence.
#[derive(Debug, Clone)]
pub(super) struct CrossAttention {
    to_q: Linear,
    /// `to_k` and `to_v`.
    to_kv: Linear,
    to_out: Linear,
    heads: usize,
}

impl CrossAttention {
    /// `context` is the width keys and values are projected from.
    pub(super) fn new(vb: &VarBuilder, channels: usize, context: usize, heads: usize) -> Result<Self> {
        let part = |name: &str| weight(&vb.pp(name), context, channels);
        Ok(Self {
            to_q: linear(&vb.pp("to_q"), channels, channels, false)?,
            to_kv: together(&[part("to_k")?, part("to_v")?])?,
            to_out: linear(&vb.pp("to_out.0"), channels, channels, true)?,
            heads,
        })
    }

    pub(super) fn queries(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.to_q.forward(x)?)
    }

    /// Attention of `q` `[n, queries, c]` to `context` `[n, tokens, width]`; not yet projected out.
    pub(super) fn attend(&self, q: &Tensor, context: &Tensor) -> Result<Tensor> {
        let (n, queries, channels) = q.dims3()?;
        let (heads, dim) = (self.heads, channels / self.heads);
        let both = self.to_kv.forward(context)?.reshape((n, context.dim(1)?, 2 * heads, dim))?;
        let (k, v) =
            (both.narrow(2, 0, heads)?.transpose(1, 2)?, both.narrow(2, heads, heads)?.transpose(1, 2)?);
        let q = q.reshape((n, queries, heads, dim))?.transpose(1, 2)?;
        let out = attention(&q, &k, &v, &AttentionSpec::new(dim))?;
        Ok(out.transpose(1, 2)?.reshape((n, queries, channels))?)
    }

    /// `x` projected out and added to `residual` of the same shape.
    pub(super) fn output(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        Ok(self.to_out.forward_fused(x, Activation::None, Some(residual))?)
    }
}

/// The gated feed-forward `ff.net.{0.proj,2}`.
#[derive(Debug, Clone)]
pub(super) struct FeedForward {
    proj: GatedLinear,
    out: Linear,
}

impl FeedForward {
    pub(super) fn new(vb: &VarBuilder, channels: usize, mult: usize) -> Result<Self> {
        let inner = mult * channels;
        let proj = vb.pp("net.0.proj");
        let bias = tensor(&proj, &[2 * inner], "bias")?;
        Ok(Self {
            proj: GatedLinear::new(weight(&proj, channels, 2 * inner)?, Some(bias))?,
            out: linear(&vb.pp("net.2"), inner, channels, true)?,
        })
    }

    /// Of `x`, added to `residual` of the same shape.
    pub(super) fn forward(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let gated = self.proj.forward(x)?;
        Ok(self.out.forward_fused(&gated, Activation::None, Some(residual))?)
    }
}
