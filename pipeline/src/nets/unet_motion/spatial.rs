//! The transformer over the pixels of a frame and the words of a prompt.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use kinora_kernels::{Activation, LayerNorm, Linear};

use super::config::UnetMotionConfig;
use super::error::Result;
use super::layers::{
    CrossAttention, FeedForward, FrameGroupNorm, Pass, SelfAttention, TRANSFORMER_NORM_EPS, layer_norm,
    projection,
};
use super::regions::TextKind;

/// GroupNorm, projection, one block (self, text, feed-forward), projection, residual.
#[derive(Debug, Clone)]
pub(super) struct SpatialTransformer {
    norm: FrameGroupNorm,
    proj_in: Linear,
    norm1: LayerNorm,
    attn1: SelfAttention,
    norm2: LayerNorm,
    attn2: CrossAttention,
    norm3: LayerNorm,
    ff: FeedForward,
    proj_out: Linear,
    first_frame: bool,
}

impl SpatialTransformer {
    pub(super) fn new(
        vb: &VarBuilder,
        config: &UnetMotionConfig,
        channels: usize,
        heads: usize,
    ) -> Result<Self> {
        let block = vb.pp("transformer_blocks.0");
        let as_linear = config.use_linear_projection;
        Ok(Self {
            norm: FrameGroupNorm::new(
                &vb.pp("norm"),
                channels,
                config.norm_groups,
                TRANSFORMER_NORM_EPS,
                false,
            )?,
            proj_in: projection(&vb.pp("proj_in"), channels, as_linear)?,
            norm1: layer_norm(&block.pp("norm1"), channels)?,
            attn1: SelfAttention::new(&block.pp("attn1"), channels, heads)?,
            norm2: layer_norm(&block.pp("norm2"), channels)?,
            attn2: CrossAttention::new(&block.pp("attn2"), channels, config.cross_attention_dim, heads)?,
            norm3: layer_norm(&block.pp("norm3"), channels)?,
            ff: FeedForward::new(&block.pp("ff"), channels, config.ff_mult)?,
            proj_out: projection(&vb.pp("proj_out"), channels, as_linear)?,
            first_frame: config.first_frame_attention,
        })
    }

    /// `[batch · frames, h, w, c]` to the same.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (n, h, w, c) = x.dims4()?;
        let tokens = self.norm.forward(x, pass, Activation::None)?;
        let tokens = self.proj_in.forward(&tokens)?.reshape((n, h * w, c))?;
        let tokens = self.within_frame(&self.norm1.forward(&tokens)?, &tokens, pass)?;
        let tokens = self.to_text(&self.norm2.forward(&tokens)?, &tokens, (h, w), pass)?;
        let tokens = self.ff.forward(&self.norm3.forward(&tokens)?, &tokens)?;
        Ok(self.proj_out.forward_fused(&tokens.reshape((n, h, w, c))?, Activation::None, Some(x))?)
    }

    fn within_frame(&self, x: &Tensor, residual: &Tensor, pass: &Pass) -> Result<Tensor> {
        if !self.first_frame || pass.frames == 1 {
            return self.attn1.forward(x, residual);
        }
        let [q, k, v] = self.attn1.projected(x)?;
        let with_first = |x: &Tensor| -> Result<Tensor> {
            let (n, tokens, heads, dim) = x.dims4()?;
            let clip = x.contiguous()?.reshape((pass.batch, pass.frames, tokens, heads * dim))?;
            let first = clip.narrow(1, 0, 1)?.broadcast_as(clip.shape())?;
            Ok(Tensor::cat(&[&clip, &first], 2)?.reshape((n, 2 * tokens, heads, dim))?)
        };
        self.attn1.mixed([&q, &with_first(&k)?, &with_first(&v)?], residual)
    }

    /// All frames of a clip query the same text, so they are one long row of queries.
    fn to_text(&self, x: &Tensor, residual: &Tensor, size: (usize, usize), pass: &Pass) -> Result<Tensor> {
        let (n, tokens, c) = x.dims3()?;
        let q = self.attn2.queries(x)?.reshape((pass.batch, pass.frames * tokens, c))?;
        let out = pass.cross_attention(&self.attn2, &q, TextKind::Prompt, size)?;
        self.attn2.output(&out.reshape((n, tokens, c))?, residual)
    }
}
