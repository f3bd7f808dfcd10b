//! U²-Net-p, a small salient-object network (Qin et al., Pattern Recognition 2020), with batch
//! normalisation folded into its convolutions.

mod ops;
mod rsu;

use candle_core::{D, Tensor};
use candle_nn::VarBuilder;
use kinora_kernels::{Conv2d, Linear};
use serde::Deserialize;

use self::ops::{max_pool2x, resize_bilinear, sigmoid};
use self::rsu::{Rsu, RsuShape};
use super::weights::{self, NetError, Result};

const NET: &str = "U2-Net-p";
/// Five halvings.
const MULTIPLE: usize = 32;

/// `config.json` beside the weights.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct U2NetpConfig {
    /// Width inside a residual U-block.
    pub mid_channels: usize,
    /// Width between blocks.
    pub out_channels: usize,
    /// Per-channel mean the network was trained with, sRGB 0..1.
    pub mean: [f32; 3],
    /// Per-channel standard deviation it was trained with.
    pub std: [f32; 3],
    /// Side of the square it was trained on.
    pub size: usize,
}

impl Default for U2NetpConfig {
    fn default() -> Self {
        Self {
            mid_channels: 16,
            out_channels: 64,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            size: 320,
        }
    }
}

/// Six nested U-blocks down, five up, and a fused prediction.
#[derive(Debug, Clone)]
pub struct U2Netp {
    down: Vec<Rsu>,
    /// Coarsest first.
    up: Vec<Rsu>,
    /// Finest first.
    side: Vec<Conv2d>,
    outconv: Linear,
    mean: Tensor,
    std: Tensor,
    config: U2NetpConfig,
}

impl U2Netp {
    /// Reads `stage1.…` to `stage1d.…`, `side1` to `side6` and `outconv`.
    ///
    /// # Errors
    /// Missing, misshapen or non-finite weights.
    pub fn new(config: &U2NetpConfig, vb: VarBuilder) -> Result<Self> {
        let (mid, out) = (config.mid_channels, config.out_channels);
        let shapes = [
            RsuShape::Pooled(7),
            RsuShape::Pooled(6),
            RsuShape::Pooled(5),
            RsuShape::Pooled(4),
            RsuShape::Dilated,
            RsuShape::Dilated,
        ];
        let down = (1..)
            .zip(shapes)
            .map(|(i, shape)| {
                Rsu::new(shape, if i == 1 { 3 } else { out }, mid, out, &vb.pp(format!("stage{i}")))
            })
            .collect::<Result<_>>()?;
        let up = (1..=5_usize)
            .rev()
            .map(|i| Rsu::new(shapes[i - 1], 2 * out, mid, out, &vb.pp(format!("stage{i}d"))))
            .collect::<Result<_>>()?;
        let side = (1..=6)
            .map(|i| weights::conv2d(&vb.pp(format!("side{i}")), out, 1, 3, 1, 1))
            .collect::<Result<_>>()?;
        let row = |values: [f32; 3]| Tensor::new(&values, vb.device())?.to_dtype(vb.dtype());
        Ok(Self {
            down,
            up,
            side,
            outconv: weights::linear(&vb.pp("outconv"), 6, 1)?,
            mean: row(config.mean)?,
            std: row(config.std)?,
            config: config.clone(),
        })
    }

    /// The configuration it was built with.
    pub fn config(&self) -> &U2NetpConfig {
        &self.config
    }

    /// Saliency `[n, h, w, 1]` in 0..1 of pictures `[n, h, w, 3]`, sRGB 0..1. The network was
    /// trained on 320 × 320; other sizes must be multiples of 32.
    ///
    /// # Errors
    /// An input of another shape.
    pub fn forward(&self, pictures: &Tensor) -> Result<Tensor> {
        match *pictures.dims() {
            [_, h, w, 3] if h > 0 && w > 0 && h % MULTIPLE == 0 && w % MULTIPLE == 0 => {}
            _ => {
                let expected = format!("[n, h, w, 3] with h and w multiples of {MULTIPLE}");
                return Err(NetError::input(NET, expected, pictures.dims()));
            }
        }
        let mut x = pictures.broadcast_sub(&self.mean)?.broadcast_div(&self.std)?;
        let mut skips = Vec::with_capacity(self.down.len());
        for (i, block) in self.down.iter().enumerate() {
            if i > 0 {
                x = max_pool2x(&x)?;
            }
            x = block.forward(&x)?;
            skips.push(x.clone());
        }
        let mut levels = Vec::with_capacity(self.side.len());
        levels.extend(skips.pop());
        for (block, skip) in self.up.iter().zip(skips.iter().rev()) {
            let (_, h, w, _) = skip.dims4()?;
            x = block.forward(&Tensor::cat(&[&resize_bilinear(&x, h, w)?, skip], D::Minus1)?)?;
            levels.push(x.clone());
        }
        let (_, h, w, _) = pictures.dims4()?;
        let sides = self
            .side
            .iter()
            .zip(levels.iter().rev())
            .map(|(side, level)| resize_bilinear(&side.forward(level)?, h, w))
            .collect::<Result<Vec<_>>>()?;
        sigmoid(&self.outconv.forward(&Tensor::cat(&sides, D::Minus1)?)?)
    }
}
