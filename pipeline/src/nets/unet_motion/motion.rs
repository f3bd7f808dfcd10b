//! The temporal transformer: attention along the frames of each pixel.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use kinora_kernels::{Activation, LayerNorm, Linear};

use super::config::{MotionConfig, UnetMotionConfig};
use super::embedding::frame_positions;
use super::error::{Result, UnetError};
use super::layers::{
    CrossAttention, FeedForward, FrameGroupNorm, Pass, SelfAttention, TRANSFORMER_NORM_EPS, layer_norm,
    linear,
};
use super::regions::TextKind;

/// Attention to the motion phrase.
#[derive(Debug, Clone)]
struct Phrase {
    norm: LayerNorm,
    attention: CrossAttention,
    query_positions: bool,
}

/// AnimateDiff's motion module, with Follow-Your-Click's cross-attention to the motion phrase
/// between the self-attentions and the feed-forward.
#[derive(Debug, Clone)]
pub(super) struct MotionModule {
    norm: FrameGroupNorm,
    proj_in: Linear,
    self_attentions: Vec<(LayerNorm, SelfAttention)>,
    phrase: Option<Phrase>,
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
        let self_attentions = (1..=motion.self_attentions)
            .map(|i| {
                let norm = layer_norm(&block.pp(format!("norm{i}")), channels)?;
                Ok((norm, SelfAttention::new(&block.pp(format!("attn{i}")), channels, heads)?))
            })
            .collect::<Result<_>>()?;
        let context = config.cross_attention_dim;
        let phrase = match motion.phrase_attention {
            Some(phrase) => Some(Phrase {
                norm: layer_norm(&block.pp("norm_ma"), channels)?,
                attention: CrossAttention::new(&block.pp("attn3"), channels, context, heads)?,
                query_positions: phrase.ma_query_pe,
            }),
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
        // Frames stay where the spatial layers put them; attention reads them with strides.
        let dims = (batch, frames, pixels, c);
        let normed = self.norm.forward(x, pass, Activation::None)?.reshape(dims)?;
        let mut t = self.proj_in.forward(&normed)?;
        for (norm, attention) in &self.self_attentions {
            t = attention.along_frames(&norm.forward_added(&t, &positions, pixels)?, &t)?;
        }
        if let Some(phrase) = &self.phrase {
            let normed = if phrase.query_positions {
                phrase.norm.forward_added(&t, &positions, pixels)?
            } else {
                phrase.norm.forward(&t)?
            };
            let q = phrase.attention.queries(&normed)?.reshape((batch, frames * pixels, c))?;
            let out = pass.cross_attention(&phrase.attention, &q, TextKind::Phrase, (h, w))?;
            t = phrase.attention.output(&out.reshape(dims)?, &t)?;
        }
        let t = self.ff.forward(&self.norm3.forward(&t)?, &t)?;
        Ok(self.proj_out.forward_fused(&t.reshape((n, h, w, c))?, Activation::None, Some(x))?)
    }
}
