//! The KL autoencoder of latent diffusion (Rombach et al. 2022), in the layout of
//! `diffusers.AutoencoderKL`.

mod blocks;

use candle_core::Tensor;
use candle_nn::VarBuilder;
use kinora_kernels::{Activation, Conv2d, GroupNorm, Linear};
use serde::Deserialize;

use self::blocks::{MidBlock, ResnetBlock};
use super::tiling::{self, TileSpec};
use super::weights::{self, NetError, Result};

const NET: &str = "AutoencoderKL";
const EPS: f64 = 1e-6;

/// Called with the name and value of an intermediate result, `[n, h, w, c]`.
pub type Tap<'a> = &'a mut dyn FnMut(&str, &Tensor);

/// The fields of a `vae/config.json` this network reads; the default is Stable Diffusion 1.5's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct AutoencoderKlConfig {
    /// Channels of a picture.
    pub in_channels: usize,
    /// Channels of a decoded picture.
    pub out_channels: usize,
    /// Width of each resolution, finest first; each but the last halves the size after it.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks a resolution in the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Groups of every normalisation.
    pub norm_num_groups: usize,
    /// Latents handed out are the encoder's times this.
    pub scaling_factor: f64,
    /// Subtracted from the encoder's latents before scaling.
    pub shift_factor: Option<f64>,
    /// Whether a 1×1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1×1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the innermost block attends over positions.
    pub mid_block_add_attention: bool,
}

impl Default for AutoencoderKlConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

impl AutoencoderKlConfig {
    /// Pixels a latent cell spans along each side.
    pub fn factor(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }
}

/// The diagonal Gaussian an encoder proposes, unscaled, `[n, h/factor, w/factor, latent]`.
#[derive(Debug, Clone)]
pub struct Posterior {
    /// Its mean, also its mode.
    pub mean: Tensor,
    /// Logarithm of its variance, clamped to −30..20.
    pub logvar: Tensor,
}

impl Posterior {
    /// `mean + exp(logvar / 2) · noise`, with standard normal `noise` of the mean's shape.
    pub fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        let std = (&self.logvar * 0.5)?.exp()?;
        Ok((&self.mean + std.mul(noise)?)?)
    }
}

/// Pictures to latents and back.
#[derive(Debug, Clone)]
pub struct AutoencoderKl {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Linear>,
    post_quant_conv: Option<Linear>,
    config: AutoencoderKlConfig,
}

impl AutoencoderKl {
    /// Reads `encoder.…`, `decoder.…`, `quant_conv` and `post_quant_conv`.
    ///
    /// # Errors
    /// A configuration that contradicts itself, or missing, misshapen or non-finite weights.
    pub fn new(config: &AutoencoderKlConfig, vb: VarBuilder) -> Result<Self> {
        if config.block_out_channels.is_empty() || config.layers_per_block == 0 {
            return Err(NetError::config(
                NET,
                "block_out_channels and layers_per_block must not be empty or zero",
            ));
        }
        let latent = config.latent_channels;
        let conv1x1 = |used: bool, name: &str, width| {
            used.then(|| weights::linear(&vb.pp(name), width, width)).transpose()
        };
        Ok(Self {
            encoder: Encoder::new(config, &vb.pp("encoder"))?,
            decoder: Decoder::new(config, &vb.pp("decoder"))?,
            quant_conv: conv1x1(config.use_quant_conv, "quant_conv", 2 * latent)?,
            post_quant_conv: conv1x1(config.use_post_quant_conv, "post_quant_conv", latent)?,
            config: config.clone(),
        })
    }

    /// The configuration it was built with.
    pub fn config(&self) -> &AutoencoderKlConfig {
        &self.config
    }

    /// What the encoder proposes for pictures `[n, h, w, 3]` in −1..1, sizes multiples of
    /// [`AutoencoderKlConfig::factor`].
    pub fn posterior(&self, pictures: &Tensor) -> Result<Posterior> {
        self.posterior_tapped(pictures, &mut |_, _| {})
    }

    /// [`Self::posterior`], showing the intermediate results by their checkpoint names.
    pub fn posterior_tapped(&self, pictures: &Tensor, tap: Tap) -> Result<Posterior> {
        let factor = self.config.factor();
        match *pictures.dims() {
            [_, h, w, c]
                if c == self.config.in_channels && h > 0 && w > 0 && h % factor == 0 && w % factor == 0 => {}
            _ => {
                let expected =
                    format!("[n, h, w, {}] with h and w multiples of {factor}", self.config.in_channels);
                return Err(NetError::input(NET, expected, pictures.dims()));
            }
        }
        let mut moments = self.encoder.forward(pictures, tap)?;
        if let Some(conv) = &self.quant_conv {
            moments = conv.forward(&moments)?;
        }
        let latent = self.config.latent_channels;
        Ok(Posterior {
            mean: moments.narrow(3, 0, latent)?.contiguous()?,
            logvar: moments.narrow(3, latent, latent)?.clamp(-30.0, 20.0)?,
        })
    }

    /// Scaled latents of pictures `[n, h, w, 3]` in −1..1: a draw with the given standard normal
    /// noise, or the mean without.
    pub fn encode(&self, pictures: &Tensor, noise: Option<&Tensor>) -> Result<Tensor> {
        let posterior = self.posterior(pictures)?;
        let latents = match noise {
            Some(noise) => posterior.sample(noise)?,
            None => posterior.mean,
        };
        let shift = self.config.shift_factor.unwrap_or(0.0);
        Ok(((latents - shift)? * self.config.scaling_factor)?)
    }

    /// Pictures of scaled latents `[n, h, w, latent]`: `[n, h·factor, w·factor, 3]`, about −1..1,
    /// not clamped.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        self.decode_tapped(latents, &mut |_, _| {})
    }

    /// [`Self::decode`], showing the intermediate results by their checkpoint names.
    pub fn decode_tapped(&self, latents: &Tensor, tap: Tap) -> Result<Tensor> {
        if !matches!(*latents.dims(), [_, _, _, c] if c == self.config.latent_channels) {
            return Err(NetError::input(
                NET,
                format!("[n, h, w, {}]", self.config.latent_channels),
                latents.dims(),
            ));
        }
        let shift = self.config.shift_factor.unwrap_or(0.0);
        let mut x = ((latents / self.config.scaling_factor)? + shift)?;
        if let Some(conv) = &self.post_quant_conv {
            x = conv.forward(&x)?;
        }
        self.decoder.forward(&x, tap)
    }

    /// Decodes `[f, h, w, latent]` one frame at a time, so that memory is one frame's; `sink`
    /// gets the index and the picture `[1, H, W, 3]`.
    ///
    /// # Errors
    /// The network's, or the first that `sink` returns.
    pub fn decode_frames<E: From<NetError>>(
        &self,
        latents: &Tensor,
        mut sink: impl FnMut(usize, Tensor) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let frames = latents.dim(0).map_err(NetError::from)?;
        for i in 0..frames {
            let frame = latents.narrow(0, i, 1).map_err(NetError::from)?;
            sink(i, self.decode(&frame)?)?;
        }
        Ok(())
    }

    /// Decodes `[n, h, w, latent]` in overlapping tiles blended linearly; memory is one tile's.
    pub fn decode_tiled(&self, latents: &Tensor, tiles: TileSpec) -> Result<Tensor> {
        tiling::decode_tiled(latents, tiles, self.config.factor(), |tile| self.decode(tile))
    }
}

#[derive(Debug, Clone)]
struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

#[derive(Debug, Clone)]
struct DownBlock {
    resnets: Vec<ResnetBlock>,
    downsampler: Option<Conv2d>,
}

impl Encoder {
    fn new(config: &AutoencoderKlConfig, vb: &VarBuilder) -> Result<Self> {
        let widths = &config.block_out_channels;
        let groups = config.norm_num_groups;
        let mut inner = widths[0];
        let mut down_blocks = Vec::with_capacity(widths.len());
        for (i, &width) in widths.iter().enumerate() {
            let vb = vb.pp("down_blocks").pp(i);
            let resnets = (0..config.layers_per_block)
                .map(|j| {
                    let from = if j == 0 { inner } else { width };
                    ResnetBlock::new(from, width, groups, &vb.pp("resnets").pp(j))
                })
                .collect::<Result<_>>()?;
            let downsampler = (i + 1 < widths.len())
                .then(|| weights::conv2d(&vb.pp("downsamplers.0.conv"), width, width, 3, 2, 0))
                .transpose()?;
            down_blocks.push(DownBlock { resnets, downsampler });
            inner = width;
        }
        Ok(Self {
            conv_in: weights::conv2d(&vb.pp("conv_in"), config.in_channels, widths[0], 3, 1, 1)?,
            down_blocks,
            mid_block: MidBlock::new(inner, groups, config.mid_block_add_attention, &vb.pp("mid_block"))?,
            conv_norm_out: weights::group_norm(&vb.pp("conv_norm_out"), inner, groups, EPS)?,
            conv_out: weights::conv2d(&vb.pp("conv_out"), inner, 2 * config.latent_channels, 3, 1, 1)?,
        })
    }

    fn forward(&self, x: &Tensor, tap: Tap) -> Result<Tensor> {
        let mut x = self.conv_in.forward(x)?;
        tap("encoder.conv_in", &x);
        for (i, block) in self.down_blocks.iter().enumerate() {
            for resnet in &block.resnets {
                x = resnet.forward(&x)?;
            }
            if let Some(conv) = &block.downsampler {
                // The reference pads below and to the right only.
                x = conv.forward(&x.pad_with_zeros(1, 0, 1)?.pad_with_zeros(2, 0, 1)?)?;
            }
            tap(&format!("encoder.down_blocks.{i}"), &x);
        }
        x = self.mid_block.forward(&x)?;
        tap("encoder.mid_block", &x);
        Ok(self.conv_out.forward(&self.conv_norm_out.forward(&x, Activation::Silu)?)?)
    }
}

#[derive(Debug, Clone)]
struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

#[derive(Debug, Clone)]
struct UpBlock {
    resnets: Vec<ResnetBlock>,
    upsampler: Option<Conv2d>,
}

impl Decoder {
    fn new(config: &AutoencoderKlConfig, vb: &VarBuilder) -> Result<Self> {
        let groups = config.norm_num_groups;
        let widths: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let top = widths[0];
        let mut inner = top;
        let mut up_blocks = Vec::with_capacity(widths.len());
        for (i, &width) in widths.iter().enumerate() {
            let vb = vb.pp("up_blocks").pp(i);
            let resnets = (0..=config.layers_per_block)
                .map(|j| {
                    let from = if j == 0 { inner } else { width };
                    ResnetBlock::new(from, width, groups, &vb.pp("resnets").pp(j))
                })
                .collect::<Result<_>>()?;
            let upsampler = (i + 1 < widths.len())
                .then(|| weights::conv2d(&vb.pp("upsamplers.0.conv"), width, width, 3, 1, 1))
                .transpose()?;
            up_blocks.push(UpBlock { resnets, upsampler });
            inner = width;
        }
        Ok(Self {
            conv_in: weights::conv2d(&vb.pp("conv_in"), config.latent_channels, top, 3, 1, 1)?,
            mid_block: MidBlock::new(top, groups, config.mid_block_add_attention, &vb.pp("mid_block"))?,
            up_blocks,
            conv_norm_out: weights::group_norm(&vb.pp("conv_norm_out"), inner, groups, EPS)?,
            conv_out: weights::conv2d(&vb.pp("conv_out"), inner, config.out_channels, 3, 1, 1)?,
        })
    }

    fn forward(&self, x: &Tensor, tap: Tap) -> Result<Tensor> {
        let mut x = self.mid_block.forward(&self.conv_in.forward(x)?)?;
        tap("decoder.mid_block", &x);
        for (i, block) in self.up_blocks.iter().enumerate() {
            for resnet in &block.resnets {
                x = resnet.forward(&x)?;
            }
            if let Some(conv) = &block.upsampler {
                x = conv.forward_upsampled(&x)?;
            }
            tap(&format!("decoder.up_blocks.{i}"), &x);
        }
        Ok(self.conv_out.forward(&self.conv_norm_out.forward(&x, Activation::Silu)?)?)
    }
}
