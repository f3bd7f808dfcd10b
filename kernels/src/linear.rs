//! Affine maps of the last dimension.

use candle_core::Tensor;

use crate::error::{KernelError, Result};

/// `x Wᵀ + b` over the last dimension; also serves as a 1×1 convolution of channels-last data.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// `weight` is `[out, in]`, or `[out, in, 1, 1]` as a 1×1 convolution stores it.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let weight = match *weight.dims() {
            [_, _] => weight,
            [out, inner, 1, 1] => weight.reshape((out, inner))?,
            _ => return Err(KernelError::shape("linear", "[out, in]", weight.dims())),
        };
        Ok(Self { weight, bias })
    }

    /// `[…, in]` to `[…, out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (out, inner) = self.weight.dims2()?;
        let mut dims = x.dims().to_vec();
        if dims.pop() != Some(inner) {
            return Err(KernelError::shape("linear", format!("last dimension {inner}"), x.dims()));
        }
        let rows: usize = dims.iter().product();
        let y = x.contiguous()?.reshape((rows, inner))?.matmul(&self.weight.t()?)?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        dims.push(out);
        Ok(y.reshape(dims)?)
    }
}
