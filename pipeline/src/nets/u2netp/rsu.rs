//! The residual U-block: a small U-shaped network inside every stage.

use candle_core::{D, Tensor};
use candle_nn::VarBuilder;
use kinora_kernels::{Activation, Conv2d};

use super::ops::{dilated, max_pool2x, resize_bilinear};
use crate::nets::weights::{self, Result};

/// How a block widens its view.
#[derive(Debug, Clone, Copy)]
pub(super) enum RsuShape {
    /// By halving the picture `depth - 2` times; the innermost convolution has dilation 2.
    Pooled(usize),
    /// By dilations 1, 2, 4, 8 at one size.
    Dilated,
}

#[derive(Debug, Clone)]
pub(super) struct Rsu {
    shape: RsuShape,
    conv_in: Conv2d,
    /// Outermost first.
    down: Vec<Conv2d>,
    /// Innermost first.
    up: Vec<Conv2d>,
}

impl Rsu {
    pub(super) fn new(
        shape: RsuShape,
        inner: usize,
        mid: usize,
        out: usize,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let depth = match shape {
            RsuShape::Pooled(depth) => depth,
            RsuShape::Dilated => 4,
        };
        let conv = |part: String, inner, out| {
            // Padding 1 also serves the dilated ones: see `ops::dilated`.
            weights::conv2d(&vb.pp(format!("rebnconv{part}.conv_s1")), inner, out, 3, 1, 1)
        };
        Ok(Self {
            shape,
            conv_in: conv("in".into(), inner, out)?,
            down: (1..=depth)
                .map(|i| conv(i.to_string(), if i == 1 { out } else { mid }, mid))
                .collect::<Result<_>>()?,
            up: (1..depth)
                .rev()
                .map(|i| conv(format!("{i}d"), 2 * mid, if i == 1 { out } else { mid }))
                .collect::<Result<_>>()?,
        })
    }

    /// `[n, h, w, inner]` to `[n, h, w, out]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let relu = |conv: &Conv2d, x: &Tensor, dilation: usize| -> Result<Tensor> {
            Ok(Activation::Relu.apply(&dilated(conv, x, dilation)?)?)
        };
        let depth = self.down.len();
        // Level 0 is the outermost; the innermost has one level to itself.
        let dilation = |level: usize| match self.shape {
            RsuShape::Dilated => 1 << level,
            RsuShape::Pooled(_) if level + 1 == depth => 2,
            RsuShape::Pooled(_) => 1,
        };
        let residual = relu(&self.conv_in, x, 1)?;
        let mut x = residual.clone();
        let mut skips = Vec::with_capacity(depth);
        for (level, conv) in self.down.iter().enumerate() {
            if matches!(self.shape, RsuShape::Pooled(_)) && level > 0 && level + 1 < depth {
                x = max_pool2x(&x)?;
            }
            x = relu(conv, &x, dilation(level))?;
            skips.push(x.clone());
        }
        skips.pop();
        for (conv, (level, skip)) in self.up.iter().zip(skips.iter().enumerate().rev()) {
            let (_, h, w, _) = skip.dims4()?;
            let dilation = if matches!(self.shape, RsuShape::Dilated) { dilation(level) } else { 1 };
            x = relu(conv, &Tensor::cat(&[&resize_bilinear(&x, h, w)?, skip], D::Minus1)?, dilation)?;
        }
        Ok((x + residual)?)
    }
}
