//! Kernel layers from named weights, and the state every block reads.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use kinora_kernels::{Activation, AttentionSpec, Conv2d, GroupNorm, LayerNorm, Linear, attention, geglu};

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
        if !self.over_frames {
            return Ok(self.norm.forward(x, activation)?);
        }
        let dims = x.dims4()?;
        let clip = x.reshape((pass.batch, pass.frames * dims.1, dims.2, dims.3))?;
        Ok(self.norm.forward(&clip, activation)?.reshape(dims)?)
    }
}

/// Multi-head attention's four projections.
#[derive(Debug, Clone)]
pub(super) struct Projections {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

impl Projections {
    /// `context` is the width keys and values are projected from.
    pub(super) fn new(vb: &VarBuilder, channels: usize, context: usize, heads: usize) -> Result<Self> {
        Ok(Self {
            to_q: linear(&vb.pp("to_q"), channels, channels, false)?,
            to_k: linear(&vb.pp("to_k"), context, channels, false)?,
            to_v: linear(&vb.pp("to_v"), context, channels, false)?,
            to_out: linear(&vb.pp("to_out.0"), channels, channels, true)?,
            heads,
        })
    }

    pub(super) fn queries(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.to_q.forward(x)?)
    }

    pub(super) fn keys_values(&self, context: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok((self.to_k.forward(context)?, self.to_v.forward(context)?))
    }

    pub(super) fn output(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.to_out.forward(x)?)
    }

    /// `q` `[n, queries, c]`, `k` and `v` `[n, keys, c]` to `[n, queries, c]`.
    pub(super) fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let (n, queries, channels) = q.dims3()?;
        let dim = channels / self.heads;
        let split = |x: &Tensor| -> Result<Tensor> {
            let (n, tokens, _) = x.dims3()?;
            Ok(x.reshape((n, tokens, self.heads, dim))?.transpose(1, 2)?)
        };
        let out = attention(&split(q)?, &split(k)?, &split(v)?, &AttentionSpec::new(dim))?;
        Ok(out.transpose(1, 2)?.reshape((n, queries, channels))?)
    }

    /// Attention of `x` `[n, tokens, c]` to itself, projected out.
    pub(super) fn self_attention(&self, x: &Tensor) -> Result<Tensor> {
        let (k, v) = self.keys_values(x)?;
        self.output(&self.attend(&self.queries(x)?, &k, &v)?)
    }
}

/// The gated feed-forward `ff.net.{0.proj,2}`.
#[derive(Debug, Clone)]
pub(super) struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    pub(super) fn new(vb: &VarBuilder, channels: usize, mult: usize) -> Result<Self> {
        let inner = mult * channels;
        Ok(Self {
            proj: linear(&vb.pp("net.0.proj"), channels, 2 * inner, true)?,
            out: linear(&vb.pp("net.2"), inner, channels, true)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.out.forward(&geglu(&self.proj.forward(x)?)?)?)
    }
}
