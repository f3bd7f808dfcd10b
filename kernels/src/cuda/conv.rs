//! Convolution calls to CUDA kernels.

pub(crate) mod linear;
mod product;

use std::sync::{Arc, OnceLock};

use candle_core::cuda_backend::CudaDevice;
use candle_core::{DType, Tensor};

pub(crate) use self::product::Geometry;
use self::product::{FLAT, GATED, Order, Params, at, count, four, product, ready, small};
use super::{Output, address, device};
use crate::error::{KernelError, Result};
use crate::linear::finish;
use crate::pointwise::Activation;

/// How the terms of a product lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// `[out, taps, in]`: pixels are gathered tap by tap.
    Taps,
    /// `[out, 1, taps · in]`: neighbourhoods of a narrow input are written out first.
    Patches,
    /// `[taps · out, 1, in]`: what a pixel gives to each tap of a narrow output, added up afterwards.
    Collect,
}

/// A layer's weight in the kernels' own order, converted once.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    /// `[columns, taps, channels]`; 16-bit ones have every 32 rows in the order of the matrix units.
    weight: Tensor,
    /// f32, one a column.
    bias: Option<Tensor>,
    /// The four 2×2 kernels of a doubled picture, made at the first use.
    phases: Arc<OnceLock<Tensor>>,
    layout: Layout,
    geometry: Geometry,
    out: usize,
    inner: usize,
}

impl Weights {
    /// `None` where no kernel of ours takes the layer: other types, weights being trained.
    pub(crate) fn new(weight: &Tensor, bias: Option<&Tensor>, geometry: Geometry) -> Result<Option<Self>> {
        if device(weight).is_none() || weight.track_op() || bias.is_some_and(Tensor::track_op) {
            return Ok(None);
        }
        let (out, inner, kernel, _) = weight.dims4()?;
        let half = weight.dtype() != DType::F32;
        let area = kernel * kernel;
        if out == 0 || inner == 0 || area * inner.max(out) >= 1 << 30 {
            return Ok(None);
        }
        let layout = if half && kernel > 1 && geometry.stride == 1 && area * out <= 64 && inner % 8 == 0 {
            Layout::Collect
        } else if half && (inner % 8 != 0 || inner < 32 && kernel > 1) {
            Layout::Patches
        } else {
            Layout::Taps
        };
        let rows = match layout {
            Layout::Taps => weight.permute((0, 2, 3, 1))?.reshape((out, area, inner))?,
            Layout::Patches => {
                let rows = weight.permute((0, 2, 3, 1))?.reshape((out, 1, area * inner))?;
                rows.pad_with_zeros(2, 0, (area * inner).next_multiple_of(8) - area * inner)?
            }
            Layout::Collect => weight.permute((2, 3, 0, 1))?.reshape((area * out, 1, inner))?,
        };
        let columns = out.next_multiple_of(32);
        let bias = bias.map(|b| b.to_dtype(DType::F32)?.pad_with_zeros(0, 0, columns - out)?.contiguous());
        Ok(Some(Self {
            weight: arrange(&rows)?,
            bias: bias.transpose()?,
            phases: Arc::default(),
            layout,
            geometry,
            out,
            inner,
        }))
    }

    /// The weight as checkpoints store it, for a composed call.
    pub(crate) fn original(&self) -> Result<Tensor> {
        let (out, inner, kernel) = (self.out, self.inner, self.geometry.kernel);
        let (columns, taps, channels) = self.weight.dims3()?;
        let rows = interleave(&self.weight.reshape((columns, taps * channels))?)?;
        Ok(match self.layout {
            Layout::Collect => {
                let rows = rows.narrow(0, 0, kernel * kernel * out)?;
                rows.reshape((kernel, kernel, out, inner))?.permute((2, 3, 0, 1))?
            }
            _ => {
                let rows = rows.narrow(0, 0, out)?.narrow(1, 0, kernel * kernel * inner)?;
                rows.reshape((out, kernel, kernel, inner))?.permute((0, 3, 1, 2))?
            }
        }
        .contiguous()?)
    }

    /// The bias as the layer had it, in type `dtype`.
    pub(crate) fn original_bias(&self, dtype: DType) -> Result<Option<Tensor>> {
        Ok(self.bias.as_ref().map(|b| b.narrow(0, 0, self.out)?.to_dtype(dtype)).transpose()?)
    }

    /// Whether a picture of doubled size has a kernel without the large input.
    pub(crate) fn upsamples(&self) -> bool {
        self.layout == Layout::Taps && self.geometry == Geometry { kernel: 3, stride: 1, padding: 1 }
    }

    /// `activation(conv(x) + b) + residual`; `dims` is the result's `[n, height, width, out]`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        dims: [usize; 4],
        activation: Activation,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        if activation == Activation::GeluErf && x.dtype() == DType::F32 {
            // The kernels' own is good enough for 16 bits only.
            return finish(self.forward(x, dims, Activation::None, None)?, activation, residual);
        }
        let device = self.device(x)?;
        let x = ready(x)?;
        let residual = match residual {
            Some(r) if r.dtype() != x.dtype() || !r.device().same_device(x.device()) => {
                let got = r.dtype();
                return Err(KernelError::DType {
                    op: "conv2d",
                    expected: "a residual of x's type on its card",
                    got,
                });
            }
            Some(r) => Some(ready(r)?),
            None => None,
        };
        let out = Output::new(&device, x.dtype(), dims.iter().product())?;
        if dims.contains(&0) {
            return Ok(out.tensor(&dims));
        }
        let [_, height, width, _] = four(&x)?;
        let mut params = self.params(&x, dims, activation, out.address)?;
        let stream = device.cuda_stream();
        let rs = residual.as_ref().map(Tensor::storage_and_layout);
        let ra = rs.as_ref().map(|r| address(&r.0, &stream)).transpose()?;
        params.residual = ra.as_ref().zip(residual.as_ref()).map_or(0, |(a, r)| at(a.0, r));
        let bs = self.bias.as_ref().map(Tensor::storage_and_layout);
        let ba = bs.as_ref().map(|b| address(&b.0, &stream)).transpose()?;
        params.bias = ba.as_ref().zip(self.bias.as_ref()).map_or(0, |(a, b)| at(a.0, b));
        match self.layout {
            Layout::Taps => {
                product(&device, (&x, None), (&self.weight, Order::Units), self.geometry, params)?;
            }
            Layout::Patches => {
                let depth = self.weight.dim(2)?;
                let rows = dims[0] * dims[1] * dims[2];
                let patches = Output::new(&device, x.dtype(), rows * depth)?;
                let gather = Params { out: patches.address, columns: count(depth)?, ..params };
                small(&device, x.dtype(), "conv_patches", &x, gather, (rows * depth / 8) as u64)?;
                let patches = patches.tensor(&[1, 1, rows, depth]);
                product(&device, (&patches, None), (&self.weight, Order::Units), FLAT, params)?;
            }
            Layout::Collect => {
                let columns = self.weight.dim(0)?;
                let pixels = dims[0] * height * width;
                let given = Output::new(&device, DType::F32, pixels * columns)?;
                let sums = Params { partial: given.address, out_channels: count(columns)?, ..params };
                product(&device, (&x, None), (&self.weight, Order::Units), FLAT, sums)?;
                let collect = Params { partial: given.address, columns: count(columns)?, ..params };
                small(
                    &device,
                    x.dtype(),
                    "conv_collect",
                    &x,
                    collect,
                    dims.iter().product::<usize>() as u64,
                )?;
            }
        }
        drop((ra, ba));
        Ok(out.tensor(&dims))
    }

    /// A linear layer from `[2 · half, in]` whose output is `value · gelu(gate)`; `None` where no kernel takes it.
    pub(crate) fn gated(weight: &Tensor, bias: Option<&Tensor>) -> Result<Option<Self>> {
        let (out, inner) = weight.dims2()?;
        if out % 8 != 0 || inner % 8 != 0 || weight.dtype() == DType::F32 {
            return Ok(None);
        }
        // Four values, then their four gates.
        let mixed = |x: &Tensor, depth: usize| -> Result<Tensor> {
            let x = x.reshape((2, out / 8, 4, depth))?.permute((1, 0, 2, 3))?;
            Ok(x.contiguous()?.reshape((out, depth))?)
        };
        if weight.track_op() || bias.is_some_and(Tensor::track_op) {
            return Ok(None);
        }
        let weight = mixed(weight, inner)?.reshape((out, inner, 1, 1))?;
        let bias = bias.map(|b| Ok::<_, KernelError>(mixed(b, 1)?.reshape(out)?)).transpose()?;
        Self::new(&weight, bias.as_ref(), FLAT)
    }

    /// Weight `[2 · half, in]`, values first, and bias of a layer made by [`Self::gated`].
    pub(crate) fn ungated(&self) -> Result<(Tensor, Option<Tensor>)> {
        let apart = |x: Tensor, depth: usize| -> Result<Tensor> {
            let x = x.reshape((self.out / 8, 2, 4, depth))?.permute((1, 0, 2, 3))?;
            Ok(x.contiguous()?.reshape((self.out, depth))?)
        };
        let bias = self.original_bias(self.weight.dtype())?;
        let bias = bias.map(|b| Ok::<_, KernelError>(apart(b, 1)?.flatten_all()?)).transpose()?;
        Ok((apart(self.original()?, self.inner)?, bias))
    }

    /// `[…, in]` to `[…, half]` for a layer made by [`Self::gated`].
    pub(crate) fn forward_gated(&self, x: &Tensor) -> Result<Tensor> {
        let device = self.device(x)?;
        let mut dims = x.dims().to_vec();
        if dims.pop() != Some(self.inner) {
            return Err(KernelError::shape("geglu", format!("last dimension {}", self.inner), x.dims()));
        }
        let rows: usize = dims.iter().product();
        dims.push(self.out / 2);
        let x = ready(x)?.reshape((1, 1, rows, self.inner))?;
        let out = Output::new(&device, x.dtype(), rows * self.out / 2)?;
        if rows == 0 {
            return Ok(out.tensor(&dims));
        }
        let mut params = self.params(&x, [1, 1, rows, self.out], Activation::None, out.address)?;
        params.activation = GATED;
        let stream = device.cuda_stream();
        let bs = self.bias.as_ref().map(Tensor::storage_and_layout);
        let ba = bs.as_ref().map(|b| address(&b.0, &stream)).transpose()?;
        params.bias = ba.as_ref().zip(self.bias.as_ref()).map_or(0, |(a, b)| at(a.0, b));
        product(&device, (&x, None), (&self.weight, Order::Units), self.geometry, params)?;
        drop(ba);
        Ok(out.tensor(&dims))
    }

    /// `conv(upsample_nearest2x(x)) + b` without the large picture, where [`Self::upsamples`].
    pub(crate) fn forward_upsampled(&self, x: &Tensor) -> Result<Tensor> {
        let device = self.device(x)?;
        let x = ready(x)?;
        let [n, height, width, _] = four(&x)?;
        let dims = [n, 2 * height, 2 * width, self.out];
        let out = Output::new(&device, x.dtype(), dims.iter().product())?;
        if dims.contains(&0) {
            return Ok(out.tensor(&dims));
        }
        let weight = match self.phases.get() {
            Some(weight) => weight.clone(),
            None => {
                let weight = phase_kernels(&self.original()?)?;
                self.phases.get_or_init(|| weight).clone()
            }
        };
        let mut params = self.params(&x, [n, height, width, self.out], Activation::None, out.address)?;
        params.phases = 4;
        let stream = device.cuda_stream();
        let bs = self.bias.as_ref().map(Tensor::storage_and_layout);
        let ba = bs.as_ref().map(|b| address(&b.0, &stream)).transpose()?;
        params.bias = ba.as_ref().zip(self.bias.as_ref()).map_or(0, |(a, b)| at(a.0, b));
        product(
            &device,
            (&x, None),
            (&weight, Order::Units),
            Geometry { kernel: 2, ..self.geometry },
            params,
        )?;
        drop(ba);
        Ok(out.tensor(&dims))
    }

    fn device(&self, x: &Tensor) -> Result<CudaDevice> {
        match device(x) {
            Some(device)
                if x.dtype() == self.weight.dtype() && x.device().same_device(self.weight.device()) =>
            {
                Ok(device)
            }
            _ => {
                let got = x.dtype();
                Err(KernelError::DType { op: "conv2d", expected: "the weight's type, on its card", got })
            }
        }
    }

    fn params(&self, x: &Tensor, dims: [usize; 4], activation: Activation, out: u64) -> Result<Params> {
        let [_, height, width, channels] = four(x)?;
        let (activation, slope) = match activation {
            Activation::Relu => (1, 0.0),
            Activation::Silu => (2, 1.0),
            Activation::QuickGelu => (2, 1.702),
            Activation::GeluErf => (3, 0.0),
            Activation::None => (0, 0.0),
        };
        let rows = dims[0] * dims[1] * dims[2];
        count(rows)?;
        Ok(Params {
            out,
            rows: rows as i64,
            height: count(height)?,
            width: count(width)?,
            channels: count(channels)?,
            out_height: count(dims[1])?,
            out_width: count(dims[2])?,
            out_channels: count(self.out)?,
            kernel: count(self.geometry.kernel)?,
            stride: count(self.geometry.stride)?,
            padding: count(self.geometry.padding)?,
            phases: 1,
            splits: 1,
            activation,
            slope,
            ..Params::default()
        })
    }
}

/// Rows filled up to a multiple of 32 and put in the kernels' order.
fn arrange(rows: &Tensor) -> Result<Tensor> {
    let (n, taps, channels) = rows.dims3()?;
    let columns = n.next_multiple_of(32);
    let rows = rows.reshape((n, taps * channels))?.pad_with_zeros(0, 0, columns - n)?;
    Ok(interleave(&rows)?.reshape((columns, taps, channels))?)
}

/// Swaps the axes of 4 in every 32 rows seen as 4 × 4 × 2; f32 stays in plain order. Its own inverse.
fn interleave(rows: &Tensor) -> Result<Tensor> {
    let (n, depth) = rows.dims2()?;
    if rows.dtype() == DType::F32 {
        return Ok(rows.contiguous()?);
    }
    let rows = rows.reshape((n / 32, 4, 4, 2, depth))?.permute((0, 2, 1, 3, 4))?;
    Ok(rows.contiguous()?.reshape((n, depth))?)
}

/// The 2×2 kernels of the four phases of a doubled picture from `[out, in, 3, 3]`: a 3×3 kernel over
/// repeated pixels sees only 2×2 different ones, so the weights of equal pixels are added up.
fn phase_kernels(weight: &Tensor) -> Result<Tensor> {
    let (out, inner, _, _) = weight.dims4()?;
    let wide = weight.to_dtype(DType::F32)?;
    // Kernel rows (or columns) that fall on the first and second input pixel of a phase.
    let sums = |x: &Tensor, axis: usize, phase: usize| -> Result<[Tensor; 2]> {
        let cut = 1 + phase;
        Ok([x.narrow(axis, 0, cut)?.sum(axis)?, x.narrow(axis, cut, 3 - cut)?.sum(axis)?])
    };
    let mut phases = Vec::new();
    for phase in 0..4 {
        let mut taps = Vec::new();
        for line in sums(&wide, 2, phase / 2)? {
            taps.extend(sums(&line, 2, phase % 2)?);
        }
        let rows = Tensor::stack(&taps, 1)?.reshape((out, 4, inner))?.to_dtype(weight.dtype())?;
        phases.push(arrange(&rows)?);
    }
    Ok(Tensor::cat(&phases, 0)?)
}
