//! A small deterministic autoencoder, in the layout of `diffusers.AutoencoderTiny`
//! (github.com/madebyollin/taesd).
//!
//! Two extensions serve the embedded model: widths may differ between resolutions, and `patch`
//! packs `patch²` pixels into channels before the first and after the last convolution.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use kinora_kernels::{Activation, Conv2d, Linear, upsample_nearest2x};
use serde::Deserialize;

use super::tiling::{self, TileSpec};
use super::weights::{self, NetError, Result};

const NET: &str = "AutoencoderTiny";

/// The fields of a configuration file this network reads; the default is TAESD's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct AutoencoderTinyConfig {
    /// Channels of a picture.
    pub in_channels: usize,
    /// Channels of a decoded picture.
    pub out_channels: usize,
    /// Width of each encoder resolution, finest first; each but the first halves the size before it.
    pub encoder_block_out_channels: Vec<usize>,
    /// Width of each decoder resolution, coarsest first; each but the last doubles the size after it.
    pub decoder_block_out_channels: Vec<usize>,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Residual blocks a resolution of the encoder.
    pub num_encoder_blocks: Vec<usize>,
    /// Residual blocks a resolution of the decoder.
    pub num_decoder_blocks: Vec<usize>,
    /// The decoder clamps latents softly to ± this.
    pub latent_magnitude: f64,
    /// Latents handed out are the encoder's times this.
    pub scaling_factor: f64,
    /// Side of the pixel blocks packed into channels; 1 for none.
    pub patch: usize,
}

impl Default for AutoencoderTinyConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            latent_channels: 4,
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            latent_magnitude: 3.0,
            scaling_factor: 1.0,
            patch: 1,
        }
    }
}

impl AutoencoderTinyConfig {
    /// Pixels a latent cell spans along each side.
    pub fn factor(&self) -> usize {
        self.patch << self.num_encoder_blocks.len().saturating_sub(1)
    }
}

/// Pictures to latents and back, without a posterior.
#[derive(Debug, Clone)]
pub struct AutoencoderTiny {
    encoder: Vec<Layer>,
    decoder: Vec<Layer>,
    config: AutoencoderTinyConfig,
}

impl AutoencoderTiny {
    /// Reads `encoder.layers.…` and `decoder.layers.…`.
    ///
    /// # Errors
    /// A configuration that contradicts itself, or missing, misshapen or non-finite weights.
    pub fn new(config: &AutoencoderTinyConfig, vb: VarBuilder) -> Result<Self> {
        let c = config;
        let levels = c.num_encoder_blocks.len();
        if levels == 0
            || c.patch == 0
            || c.encoder_block_out_channels.len() != levels
            || c.decoder_block_out_channels.len() != levels
            || c.num_decoder_blocks.len() != levels
        {
            return Err(NetError::config(
                NET,
                "patch must be positive, and num_encoder_blocks, num_decoder_blocks, encoder_block_out_channels \
                 and decoder_block_out_channels of one length, at least 1",
            ));
        }
        Ok(Self { encoder: encoder(c, &vb)?, decoder: decoder(c, &vb)?, config: c.clone() })
    }

    /// The configuration it was built with.
    pub fn config(&self) -> &AutoencoderTinyConfig {
        &self.config
    }

    /// Latents `[n, h/factor, w/factor, latent]` of pictures `[n, h, w, 3]` in −1..1, sizes
    /// multiples of [`AutoencoderTinyConfig::factor`].
    pub fn encode(&self, pictures: &Tensor) -> Result<Tensor> {
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
        let mut x = pixel_unshuffle(&pictures.affine(0.5, 0.5)?, self.config.patch)?;
        for layer in &self.encoder {
            x = layer.forward(&x)?;
        }
        Ok((x * self.config.scaling_factor)?)
    }

    /// Pictures `[n, h·factor, w·factor, 3]` of latents `[n, h, w, latent]`: about −1..1, not
    /// clamped.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        if !matches!(*latents.dims(), [_, _, _, c] if c == self.config.latent_channels) {
            return Err(NetError::input(
                NET,
                format!("[n, h, w, {}]", self.config.latent_channels),
                latents.dims(),
            ));
        }
        let magnitude = self.config.latent_magnitude;
        let mut x = ((latents / (magnitude * self.config.scaling_factor))?.tanh()? * magnitude)?;
        for layer in &self.decoder {
            x = layer.forward(&x)?;
        }
        Ok(pixel_shuffle(&x, self.config.patch)?.affine(2.0, -1.0)?)
    }

    /// Decodes in overlapping tiles blended linearly; memory is one tile's.
    pub fn decode_tiled(&self, latents: &Tensor, tiles: TileSpec) -> Result<Tensor> {
        tiling::decode_tiled(latents, tiles, self.config.factor(), |tile| self.decode(tile))
    }
}

/// Packs `patch × patch` pixels into channels, in `torch.pixel_unshuffle`'s channel order
/// (`c · patch² + dy · patch + dx`): `[n, h, w, c]` to `[n, h/patch, w/patch, c·patch²]`.
pub fn pixel_unshuffle(x: &Tensor, patch: usize) -> Result<Tensor> {
    if patch == 1 {
        return Ok(x.clone());
    }
    let (n, h, w, c) = x.dims4()?;
    let (h, w) = (h / patch, w / patch);
    let x = x.reshape(&[n, h, patch, w, patch, c])?.permute(vec![0, 1, 3, 5, 2, 4])?;
    Ok(x.contiguous()?.reshape((n, h, w, c * patch * patch))?)
}

/// Undoes [`pixel_unshuffle`].
pub fn pixel_shuffle(x: &Tensor, patch: usize) -> Result<Tensor> {
    if patch == 1 {
        return Ok(x.clone());
    }
    let (n, h, w, c) = x.dims4()?;
    let c = c / (patch * patch);
    let x = x.reshape(&[n, h, w, c, patch, patch])?.permute(vec![0, 1, 4, 2, 5, 3])?;
    Ok(x.contiguous()?.reshape((n, h * patch, w * patch, c))?)
}

#[derive(Debug, Clone)]
enum Layer {
    Conv(Conv2d),
    Relu,
    Block(Box<Block>),
    Upsample,
}

impl Layer {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Conv(conv) => Ok(conv.forward(x)?),
            Self::Relu => Ok(Activation::Relu.apply(x)?),
            Self::Block(block) => block.forward(x),
            Self::Upsample => Ok(upsample_nearest2x(x)?),
        }
    }
}

fn encoder(c: &AutoencoderTinyConfig, vb: &VarBuilder) -> Result<Vec<Layer>> {
    let vb = vb.pp("encoder.layers");
    let mut layers = Vec::new();
    let mut inner = c.in_channels * c.patch * c.patch;
    for (i, (&width, &blocks)) in c.encoder_block_out_channels.iter().zip(&c.num_encoder_blocks).enumerate() {
        let at = vb.pp(layers.len());
        layers.push(Layer::Conv(match i {
            0 => weights::conv2d(&at, inner, width, 3, 1, 1)?,
            _ => weights::conv2d_no_bias(&at, inner, width, 3, 2, 1)?,
        }));
        for _ in 0..blocks {
            let block = Block::new(width, width, &vb.pp(layers.len()))?;
            layers.push(Layer::Block(Box::new(block)));
        }
        inner = width;
    }
    let last = weights::conv2d(&vb.pp(layers.len()), inner, c.latent_channels, 3, 1, 1)?;
    layers.push(Layer::Conv(last));
    Ok(layers)
}

fn decoder(c: &AutoencoderTinyConfig, vb: &VarBuilder) -> Result<Vec<Layer>> {
    let vb = vb.pp("decoder.layers");
    let widths = &c.decoder_block_out_channels;
    let mut layers =
        vec![Layer::Conv(weights::conv2d(&vb.pp(0), c.latent_channels, widths[0], 3, 1, 1)?), Layer::Relu];
    for (i, (&width, &blocks)) in widths.iter().zip(&c.num_decoder_blocks).enumerate() {
        for _ in 0..blocks {
            let block = Block::new(width, width, &vb.pp(layers.len()))?;
            layers.push(Layer::Block(Box::new(block)));
        }
        let next = widths.get(i + 1);
        if next.is_some() {
            layers.push(Layer::Upsample);
        }
        let at = vb.pp(layers.len());
        layers.push(Layer::Conv(match next {
            Some(&next) => weights::conv2d_no_bias(&at, width, next, 3, 1, 1)?,
            None => weights::conv2d(&at, width, c.out_channels * c.patch * c.patch, 3, 1, 1)?,
        }));
    }
    Ok(layers)
}

#[derive(Debug, Clone)]
struct Block {
    conv: [Conv2d; 3],
    skip: Option<Linear>,
}

impl Block {
    fn new(inner: usize, out: usize, vb: &VarBuilder) -> Result<Self> {
        let conv = |index, inner| weights::conv2d(&vb.pp("conv").pp(index), inner, out, 3, 1, 1);
        Ok(Self {
            conv: [conv(0, inner)?, conv(2, out)?, conv(4, out)?],
            skip: (inner != out).then(|| weights::linear_no_bias(&vb.pp("skip"), inner, out)).transpose()?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [first, second, third] = &self.conv;
        let y = Activation::Relu.apply(&first.forward(x)?)?;
        let y = third.forward(&Activation::Relu.apply(&second.forward(&y)?)?)?;
        let skip = self.skip.as_ref().map(|skip| skip.forward(x)).transpose()?;
        Ok(Activation::Relu.apply(&(skip.as_ref().unwrap_or(x) + y)?)?)
    }
}
