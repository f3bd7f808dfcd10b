//! Linear layers through the kernels of convolution, where those beat cuBLASLt.

use candle_core::cuda_backend::CudaDevice;
use candle_core::{D, Tensor};

use super::product::{FLAT, Order, Params, count, product};
use crate::cuda::{Held, Output, card, ready};
use crate::error::Result;
use crate::plan::conv::linear_is_ours;

/// `x wᵀ + bias + residual` with `x` `[…, inner]` and `w` `[out, inner]` as checkpoints store it; `None` for
/// other types and cards, operands that differ, weights being trained, and shapes cuBLASLt is faster at.
/// `rest` holds the terms behind those of `x`, if they lie apart.
pub(crate) fn linear(
    device: &CudaDevice,
    (x, rest): (&Tensor, Option<&Tensor>),
    w: &Tensor,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    dims: &[usize],
) -> Result<Option<Tensor>> {
    let (out, inner) = w.dims2()?;
    let rows: usize = dims.iter().rev().skip(1).product();
    let same = |other: &Tensor| other.dtype() == x.dtype() && other.device().same_device(x.device());
    let half = x.dtype().size_in_bytes() == 2;
    if !half
        || !linear_is_ours(rows, inner, out, card(device)?)
        || !w.is_contiguous()
        || ![Some(w), rest, bias, residual].into_iter().flatten().all(same)
        || [Some(x), rest, Some(w), bias, residual].into_iter().flatten().any(Tensor::track_op)
        || rest.is_some() && !x.dim(D::Minus1)?.is_multiple_of(64)
    {
        return Ok(None);
    }
    let held = |x: &Tensor| Held::new(&ready(x)?);
    let line = |x: &Tensor| -> Result<Tensor> { Ok(ready(x)?.reshape((1, 1, rows, ()))?) };
    let (x, rest) = (line(x)?, rest.map(line).transpose()?);
    let (weight, bias, residual) =
        (w.reshape((out, 1, inner))?, bias.map(held).transpose()?, residual.map(held).transpose()?);
    let (input, weights, more) =
        (Held::new(&x)?, Held::new(&weight)?, rest.as_ref().map(Held::new).transpose()?);
    let operands = [Some(&input), Some(&weights), more.as_ref(), residual.as_ref()];
    if !operands.into_iter().flatten().all(Held::aligned) {
        return Ok(None);
    }
    let result = Output::new(device, x.dtype(), rows * out)?;
    let params = Params {
        out: result.address,
        bias: bias.as_ref().map_or(Ok(0), Held::address)?,
        residual: residual.as_ref().map_or(Ok(0), Held::address)?,
        out_channels: count(out)?,
        phases: 1,
        splits: 1,
        narrow_bias: 1,
        ..Params::default()
    };
    product(device, (&x, rest.as_ref()), (&weight, Order::Plain), FLAT, params)?;
    Ok(Some(result.tensor(dims)))
}
