//! The temporal transformer: attention along the frames of each pixel.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use kinora_kernels::{Activation, LayerNorm, Linear};

use super::config::{MotionConfig, UnetMotionConfig};
use super::embedding::frame_positions;
use super::error::{Result, UnetError};
use super::layers::{
    FeedForward, FrameGroupNorm, Pass, Projections, TRANSFORMER_NORM_EPS, layer_norm, linear,
};
use super::regions::{TextKind, TokenOrder};

/// A norm and the attention that reads it.
#[derive(Debug, Clone)]
struct Normed {
    norm: LayerNorm,
    attention: Projections,
}

/// AnimateDiff's motion module, with Follow-Your-Click's cross-attention to the motion phrase
/// between the self-attentions and the feed-forward.
#[derive(Debug, Clone)]
pub(super) struct MotionModule {
    norm: FrameGroupNorm,
    proj_in: Linear,
    self_attentions: Vec<Normed>,
    phrase: Option<(Normed, bool)>,
    norm3: LayerNorm,
    ff: FeedForward,
    proj_out: Linear,
    /// `[max_frames, c]`.
    positions: Tensor,
}

impl MotionModule {
    pub(super) fn new(
        vb: &VarBuilder,
        config: &UnetMotionConfig,
        motion: &MotionConfig,
        channels: usize,
        heads: usize,
    ) -> Result<Self> {
        let block = vb.pp("transformer_blocks.0");
        let normed = |norm: &str, attn: &str, context| -> Result<Normed> {
            Ok(Normed {
                norm: layer_norm(&block.pp(norm), channels)?,
                attention: Projections::new(&block.pp(attn), channels, context, heads)?,
            })
        };
        let self_attentions = (1..=motion.self_attentions)
            .map(|i| normed(&format!("norm{i}"), &format!("attn{i}"), channels))
            .collect::<Result<_>>()?;
        let phrase = match motion.phrase_attention {
            Some(phrase) => {
                Some((normed("norm_ma", "attn3", config.cross_attention_dim)?, phrase.ma_query_pe))
            }
            None => None,
        };
        let over_frames = config.temporal_norm_over_frames;
        Ok(Self {
            norm: FrameGroupNorm::new(
                &vb.pp("norm"),
                channels,
                motion.norm_groups,
                TRANSFORMER_NORM_EPS,
                over_frames,
            )?,
            proj_in: linear(&vb.pp("proj_in"), channels, channels, true)?,
            self_attentions,
            phrase,
            norm3: layer_norm(&block.pp("norm3"), channels)?,
            ff: FeedForward::new(&block.pp("ff"), channels, motion.ff_mult)?,
            proj_out: linear(&vb.pp("proj_out"), channels, channels, true)?,
            positions: frame_positions(motion.max_frames, channels, vb.dtype(), vb.device())?,
        })
    }

    /// `[batch · frames, h, w, c]` to the same.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (n, h, w, c) = x.dims4()?;
        let (batch, frames, pixels) = (pass.batch, pass.frames, h * w);
        let max = self.positions.dim(0)?;
        if frames > max {
            return Err(UnetError::TooManyFrames { frames, max });
        }
        let positions = self.positions.narrow(0, 0, frames)?;
        let t = self.proj_in.forward(&self.norm.forward(x, pass, Activation::None)?)?;
        let t = t.reshape((batch, frames, pixels, c))?.transpose(1, 2)?;
        let mut t = t.contiguous()?.reshape((batch * pixels, frames, c))?;
        for layer in &self.self_attentions {
            let normed = layer.norm.forward(&t)?.broadcast_add(&positions)?;
            t = (&t + layer.attention.self_attention(&normed)?)?;
        }
        if let Some((layer, query_positions)) = &self.phrase {
            let normed = layer.norm.forward(&t)?;
            let normed = if *query_positions { normed.broadcast_add(&positions)? } else { normed };
            let q = layer.attention.queries(&normed)?.reshape((batch, pixels * frames, c))?;
            let kind = TextKind::Phrase;
            let out = pass.cross_attention(&layer.attention, &q, kind, TokenOrder::PixelMajor, (h, w))?;
            t = (&t + layer.attention.output(&out)?.reshape((batch * pixels, frames, c))?)?;
        }
        let t = (&t + self.ff.forward(&self.norm3.forward(&t)?)?)?;
        let t = self.proj_out.forward(&t)?.reshape((batch, pixels, frames, c))?.transpose(1, 2)?;
        Ok((t.contiguous()?.reshape((n, h, w, c))? + x)?)
    }
}
