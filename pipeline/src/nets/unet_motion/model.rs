//! The whole network.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use kinora_kernels::{Activation, Conv2d};

use super::blocks::{DownBlock, MidBlock, UpBlock};
use super::config::UnetMotionConfig;
use super::embedding::ScalarEmbedding;
use super::error::{Result, UnetError};
use super::layers::{FrameGroupNorm, Pass, Probe, conv};
use super::regions::{Region, RegionWeights};

/// What one denoising call reads.
#[derive(Debug, Clone, Copy)]
pub struct UnetMotionInput<'a> {
    /// `[batch, frames, height, width, in_channels]`.
    pub sample: &'a Tensor,
    /// Diffusion time, one a batch item (0..1000 for the public networks).
    pub timesteps: &'a [f64],
    /// Text states `[batch, tokens, cross_attention_dim]` for the spatial cross-attentions.
    pub text: &'a Tensor,
    /// States of the short motion phrase, `[batch, tokens, cross_attention_dim]`; `text` if
    /// absent. Read only by networks with phrase attention.
    pub phrase: Option<&'a Tensor>,
    /// Motion strength, one a batch item; the embedding is left out if absent.
    pub strength: Option<&'a [f64]>,
    /// Frame rate label, one a batch item; the embedding is left out if absent.
    pub fps: Option<&'a [f64]>,
    /// Regions with their own text; empty for one text everywhere.
    pub regions: &'a [Region],
}

impl<'a> UnetMotionInput<'a> {
    /// The three inputs every call has; the rest absent.
    pub fn new(sample: &'a Tensor, timesteps: &'a [f64], text: &'a Tensor) -> Self {
        Self { sample, timesteps, text, phrase: None, strength: None, fps: None, regions: &[] }
    }
}

/// The video UNet. Immutable after loading; calls may run in parallel.
#[derive(Debug, Clone)]
pub struct UnetMotion {
    config: UnetMotionConfig,
    conv_in: Conv2d,
    time_embedding: ScalarEmbedding,
    motion_embedding: Option<ScalarEmbedding>,
    fps_embedding: Option<ScalarEmbedding>,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: FrameGroupNorm,
    conv_out: Conv2d,
    dtype: DType,
    device: Device,
}

impl UnetMotion {
    /// Reads exactly the tensors of [`UnetMotionConfig::parameters`] from `vb`.
    pub fn new(config: &UnetMotionConfig, vb: VarBuilder) -> Result<Self> {
        config.validate()?;
        let base = config.base_channels();
        let embedding = |name: &str| ScalarEmbedding::new(&vb.pp(name), base, config.time_dim());
        let motion_embedding =
            if config.strength_embedding { Some(embedding("motion_embedding")?) } else { None };
        let fps_embedding = if config.fps_embedding { Some(embedding("fps_embedding")?) } else { None };
        let mut skips = vec![base];
        let mut inner = base;
        let mut down_blocks = Vec::with_capacity(config.levels());
        for level in 0..config.levels() {
            down_blocks.push(DownBlock::new(&vb, config, level, inner, &mut skips)?);
            inner = config.block_out_channels[level];
        }
        let mid_block = MidBlock::new(&vb, config)?;
        let mut up_blocks = Vec::with_capacity(config.levels());
        for block in 0..config.levels() {
            up_blocks.push(UpBlock::new(&vb, config, block, inner, &mut skips)?);
            inner = config.block_out_channels[config.levels() - 1 - block];
        }
        Ok(Self {
            conv_in: conv(&vb.pp("conv_in"), config.in_channels, base, 1)?,
            time_embedding: embedding("time_embedding")?,
            motion_embedding,
            fps_embedding,
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: FrameGroupNorm::new(
                &vb.pp("conv_norm_out"),
                base,
                config.norm_groups,
                config.norm_eps,
                config.resnet_norm_over_frames,
            )?,
            conv_out: conv(&vb.pp("conv_out"), base, config.out_channels, 1)?,
            dtype: vb.dtype(),
            device: vb.device().clone(),
            config: config.clone(),
        })
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &UnetMotionConfig {
        &self.config
    }

    /// Element type of the weights and of the result.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The prediction, `[batch, frames, height, width, out_channels]`.
    ///
    /// Errors: [`UnetError::TooManyFrames`] beyond the positional encoding, [`UnetError::Input`]
    /// for shapes that do not fit.
    pub fn forward(&self, input: &UnetMotionInput) -> Result<Tensor> {
        self.run(input, None)
    }

    /// [`Self::forward`], showing every named intermediate to `probe`: `time_embedding` and
    /// `conv_in`, then `down_blocks.0.resnets.0` and so on.
    pub fn forward_probed(&self, input: &UnetMotionInput, probe: Probe) -> Result<Tensor> {
        self.run(input, Some(probe))
    }

    /// The states every block reads of timesteps, strength and frame rate, `[batch, time_dim]`.
    pub fn time_states(&self, input: &UnetMotionInput) -> Result<Tensor> {
        self.check(input)?;
        Ok(Activation::Silu.apply(&self.time(input)?)?)
    }

    /// [`Self::forward`] with [`Self::time_states`] given as a tensor, in place of the numbers: work
    /// on a card that can be recorded once and repeated for every step.
    pub fn forward_with_states(&self, input: &UnetMotionInput, time: &Tensor) -> Result<Tensor> {
        self.check(input)?;
        let (b, dim) = (input.sample.dim(0)?, self.config.time_dim());
        if time.dims() != [b, dim] {
            let expected = format!("[{b}, {dim}]");
            return Err(UnetError::Input { name: "time states", expected, got: time.dims().to_vec() });
        }
        self.blocks(input, time.clone(), None)
    }

    fn run(&self, input: &UnetMotionInput, probe: Option<Probe>) -> Result<Tensor> {
        self.check(input)?;
        let time = self.time(input)?;
        if let Some(probe) = probe {
            probe("time_embedding", &time);
        }
        self.blocks(input, Activation::Silu.apply(&time)?, probe)
    }

    fn blocks(&self, input: &UnetMotionInput, time: Tensor, probe: Option<Probe>) -> Result<Tensor> {
        let (b, f, h, w, _) = input.sample.dims5()?;
        let phrase = input.phrase.map(|phrase| phrase.to_dtype(self.dtype)).transpose()?;
        let regions = if input.regions.is_empty() {
            None
        } else {
            let (levels, dim) = (self.config.levels(), self.config.cross_attention_dim);
            Some(RegionWeights::new(input.regions, (b, f), (h, w), levels, dim, self.dtype, &self.device)?)
        };
        let pass = Pass {
            batch: b,
            frames: f,
            time,
            text: input.text.to_dtype(self.dtype)?,
            phrase,
            regions,
            probe,
        };
        let x = input.sample.to_dtype(self.dtype)?.contiguous()?.reshape((
            b * f,
            h,
            w,
            self.config.in_channels,
        ))?;
        let mut x = self.conv_in.forward(&x)?;
        if let Some(probe) = probe {
            probe("conv_in", &x);
        }
        let mut skips = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(&x, &pass, &mut skips)?;
        }
        x = self.mid_block.forward(&x, &pass)?;
        for block in &self.up_blocks {
            x = block.forward(&x, &pass, &mut skips)?;
        }
        let x = self.conv_out.forward(&self.conv_norm_out.forward(&x, &pass, Activation::Silu)?)?;
        Ok(x.reshape((b, f, h, w, self.config.out_channels))?)
    }

    /// The summed embeddings, `[batch, time_dim]`.
    fn time(&self, input: &UnetMotionInput) -> Result<Tensor> {
        let mut time = self.time_embedding.forward(input.timesteps, self.dtype, &self.device)?;
        let extras =
            [("strength", input.strength, &self.motion_embedding), ("fps", input.fps, &self.fps_embedding)];
        for (name, values, embedding) in extras {
            match (values, embedding) {
                (Some(values), Some(embedding)) => {
                    time = (time + embedding.forward(values, self.dtype, &self.device)?)?;
                }
                (Some(_), None) => {
                    return Err(UnetError::Conditioning {
                        name,
                        problem: "this network has no embedding for it; leave it out",
                    });
                }
                (None, _) => {}
            }
        }
        Ok(time)
    }

    fn check(&self, input: &UnetMotionInput) -> Result<(usize, usize, usize, usize)> {
        let config = &self.config;
        let refuse =
            |name, expected: String, got: &[usize]| UnetError::Input { name, expected, got: got.to_vec() };
        let (b, f, h, w) = match *input.sample.dims() {
            [b, f, h, w, c] if c == config.in_channels && b * f * h * w > 0 => (b, f, h, w),
            _ => {
                let expected = format!("[batch, frames, height, width, {}], none 0", config.in_channels);
                return Err(refuse("sample", expected, input.sample.dims()));
            }
        };
        if let Some(max) = config.max_frames().filter(|&max| f > max) {
            return Err(UnetError::TooManyFrames { frames: f, max });
        }
        let lists = [("timesteps", Some(input.timesteps)), ("strength", input.strength), ("fps", input.fps)];
        for (name, values) in lists {
            if let Some(values) = values.filter(|values| values.len() != b) {
                return Err(refuse(name, format!("{b} values, one a batch item"), &[values.len()]));
            }
        }
        for (name, text) in [("text", Some(input.text)), ("phrase", input.phrase)] {
            let Some(text) = text else { continue };
            if !matches!(*text.dims(), [n, tokens, d] if n == b && tokens > 0 && d == config.cross_attention_dim)
            {
                let expected = format!("[{b}, tokens, {}]", config.cross_attention_dim);
                return Err(refuse(name, expected, text.dims()));
            }
        }
        if input.phrase.is_some() && !config.reads_phrase() {
            return Err(UnetError::Conditioning {
                name: "phrase",
                problem: "this network has no phrase attention; put the phrase into the prompt instead",
            });
        }
        Ok((b, f, h, w))
    }
}
