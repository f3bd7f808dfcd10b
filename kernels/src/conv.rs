//! Convolution and resampling over channels-last pictures.

use candle_core::Tensor;

use crate::error::{KernelError, Result};

/// A 2-D convolution with square stride and zero padding.
#[derive(Debug, Clone)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: usize,
    padding: usize,
}

impl Conv2d {
    /// `weight` is `[out, in, kernel, kernel]` as checkpoints store it, `bias` is `[out]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>, stride: usize, padding: usize) -> Result<Self> {
        let (out, _, kh, kw) = weight.dims4()?;
        if kh != kw || bias.as_ref().is_some_and(|b| b.dims() != [out]) {
            return Err(KernelError::shape(
                "conv2d",
                "a square kernel and one bias an output channel",
                (weight.dims(), bias.as_ref().map(|b| b.dims().to_vec())),
            ));
        }
        Ok(Self { weight, bias, stride, padding })
    }

    /// `[n, height, width, in]` to `[n, height', width', out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let nchw = x.permute((0, 3, 1, 2))?.contiguous()?;
        let y = nchw.conv2d(&self.weight, self.padding, self.stride, 1, 1)?;
        let y = y.permute((0, 2, 3, 1))?.contiguous()?;
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }
}

/// Doubles height and width of `[n, height, width, channels]` by repeating pixels.
pub fn upsample_nearest2x(x: &Tensor) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let x = x.reshape((n, h, 1, w, 1, c))?.broadcast_as((n, h, 2, w, 2, c))?;
    Ok(x.reshape((n, 2 * h, 2 * w, c))?)
}
