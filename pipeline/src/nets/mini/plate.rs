//! The background plate: paints what is behind a thing that moves away.
//!
//! A convolutional net over a pixel-unshuffled picture whose hole was filled smoothly; it adds to
//! the fill inside the hole and nowhere else. `assets/models/kinora-mini/training/plate.py`.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::nets::weights;

/// Sizes of the plate net.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlateConfig {
    /// Side of the pixel blocks packed into channels.
    pub patch: usize,
    /// Width at the packed size and at half of it.
    pub widths: [usize; 2],
    /// Residual blocks before and after the half-size part.
    pub outer_blocks: usize,
    /// Dilation of each residual block at half size.
    pub dilations: Vec<usize>,
}

/// A plain convolution over `[n, channels, height, width]`; runs once a clip, so it is candle's.
#[derive(Debug, Clone)]
struct Conv {
    weight: Tensor,
    bias: Tensor,
    stride: usize,
    dilation: usize,
}

impl Conv {
    fn new(inner: usize, out: usize, stride: usize, dilation: usize, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            weight: weights::tensor(vb, &[out, inner, 3, 3], "weight")?,
            bias: weights::tensor(vb, &[out], "bias")?.reshape((1, out, 1, 1))?,
            stride,
            dilation,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.conv2d(&self.weight, self.dilation, self.stride, self.dilation, 1)?.broadcast_add(&self.bias)
    }
}

#[derive(Debug, Clone)]
struct Block {
    conv1: Conv,
    conv2: Conv,
}

impl Block {
    fn new(width: usize, dilation: usize, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            conv1: Conv::new(width, width, 1, dilation, &vb.pp("conv1"))?,
            conv2: Conv::new(width, width, 1, 1, &vb.pp("conv2"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x + self.conv2.forward(&self.conv1.forward(&x.silu()?)?.silu()?)?
    }
}

/// The plate net.
#[derive(Debug, Clone)]
pub struct Plate {
    patch: usize,
    conv_in: Conv,
    before: Vec<Block>,
    down: Conv,
    middle: Vec<Block>,
    up: Conv,
    after: Vec<Block>,
    conv_out: Conv,
}

impl Plate {
    /// Reads `conv_in`, `before.N`, `down`, `middle.N`, `up`, `after.N`, `conv_out`.
    pub fn new(config: &PlateConfig, vb: VarBuilder) -> Result<Self> {
        let [outer, inner] = config.widths;
        let packed = config.patch * config.patch;
        let blocks = |name: &str| -> Result<Vec<Block>> {
            (0..config.outer_blocks).map(|i| Block::new(outer, 1, &vb.pp(name).pp(i))).collect()
        };
        Ok(Self {
            patch: config.patch,
            conv_in: Conv::new(4 * packed, outer, 1, 1, &vb.pp("conv_in"))?,
            before: blocks("before")?,
            down: Conv::new(outer, inner, 2, 1, &vb.pp("down"))?,
            middle: config
                .dilations
                .iter()
                .enumerate()
                .map(|(i, &dilation)| Block::new(inner, dilation, &vb.pp("middle").pp(i)))
                .collect::<Result<_>>()?,
            up: Conv::new(inner, outer, 1, 1, &vb.pp("up"))?,
            after: blocks("after")?,
            conv_out: Conv::new(outer, 3 * packed, 1, 1, &vb.pp("conv_out"))?,
        })
    }

    /// Pictures must have sides that are multiples of this.
    pub fn multiple(&self) -> usize {
        2 * self.patch
    }

    /// `filled` is `[n, 3, h, w]` in -1..=1 with the hole filled smoothly, `hole` is `[n, 1, h, w]`
    /// with 1 inside. Returns `[n, 3, h, w]`, equal to `filled` outside the hole.
    pub fn forward(&self, filled: &Tensor, hole: &Tensor) -> Result<Tensor> {
        let input = Tensor::cat(&[filled, &hole.affine(2.0, -1.0)?], 1)?;
        let mut x = self.conv_in.forward(&candle_nn::ops::pixel_unshuffle(&input, self.patch)?)?;
        for block in &self.before {
            x = block.forward(&x)?;
        }
        let skip = x.clone();
        x = self.down.forward(&x)?;
        for block in &self.middle {
            x = block.forward(&x)?;
        }
        let (_, _, h, w) = skip.dims4()?;
        x = (skip + self.up.forward(&x.upsample_nearest2d(h, w)?)?)?;
        for block in &self.after {
            x = block.forward(&x)?;
        }
        let added = candle_nn::ops::pixel_shuffle(&self.conv_out.forward(&x.silu()?)?, self.patch)?;
        filled + added.broadcast_mul(hole)?
    }
}
