//! Convolutions and linear layers as products of our kernels.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{DType, Tensor};

use crate::cuda::tensor_map::TensorMap;
use crate::cuda::{Held, Output, address, card, element, function, launch, profile};
use crate::error::{KernelError, Result};
use crate::plan::conv::{ConvCall, ConvKernel, LastPass, plan_cuda_conv};
use crate::used::note;

/// `ConvParams` of `cuda/conv.cuh`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Params {
    pub(super) x: u64,
    pub(super) weight: u64,
    pub(super) bias: u64,
    pub(super) residual: u64,
    pub(super) out: u64,
    pub(super) partial: u64,
    pub(super) rows: i64,
    pub(super) height: i32,
    pub(super) width: i32,
    pub(super) channels: i32,
    pub(super) out_height: i32,
    pub(super) out_width: i32,
    pub(super) out_channels: i32,
    pub(super) columns: i32,
    pub(super) kernel: i32,
    pub(super) stride: i32,
    pub(super) padding: i32,
    pub(super) phases: i32,
    pub(super) chunks: i32,
    pub(super) row_tiles: i32,
    pub(super) column_tiles: i32,
    pub(super) splits: i32,
    pub(super) band: i32,
    pub(super) narrow_bias: i32,
    pub(super) activation: i32,
    pub(super) slope: f32,
}

// SAFETY: plain numbers in C layout, the same as the kernels' parameter.
unsafe impl DeviceRepr for Params {}

/// `HopperConvParams` of `cuda/conv_hopper.cu`.
#[repr(C, align(64))]
struct HopperParams {
    pixels: TensorMap,
    weights: TensorMap,
    rest: TensorMap,
    params: Params,
    first_chunks: i32,
    plain_rows: i32,
}

// SAFETY: plain data in C layout, the same as the kernel's parameter.
unsafe impl DeviceRepr for HopperParams {}

/// The kernel, its stride and its padding: what a layer does to a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

/// A linear layer.
pub(super) const FLAT: Geometry = Geometry { kernel: 1, stride: 1, padding: 0 };

/// How the rows of a weight lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Every 32 in the order of the matrix units (f32: in plain order).
    Units,
    /// As checkpoints store them. Hopper's kernels only.
    Plain,
}

/// `CONV_GATED` of `cuda/conv.cuh`, an activation of [`Params`].
pub(super) const GATED: i32 = 4;

/// Queues the product of `x`'s neighbourhoods with `weight`. Where `params` names memory for partial
/// sums, the product is left there in f32, a row of all columns a pixel.
///
/// `order` is that of the rows of `weight` `[phases · columns, taps, channels]`. `rest` holds the channels behind
/// those of `x`, a multiple of 64; with plain rows only.
pub(super) fn product(
    device: &CudaDevice,
    (x, rest): (&Tensor, Option<&Tensor>),
    (weight, order): (&Tensor, Order),
    geometry: Geometry,
    params: Params,
) -> Result<()> {
    let dtype = x.dtype();
    let Some(element) = element(dtype) else { return Ok(()) };
    let [n, height, width, first] = four(x)?;
    let (weight_rows, taps, depth) = weight.dims3()?;
    let channels = if rest.is_some() { depth } else { first };
    let mut p = Params {
        height: count(height)?,
        width: count(width)?,
        channels: count(channels)?,
        kernel: count(geometry.kernel)?,
        stride: count(geometry.stride)?,
        padding: count(geometry.padding)?,
        ..params
    };
    let mut picture = [n, height, width, first];
    if geometry == FLAT {
        // Pixels are independent: one long line.
        picture = [1, 1, n * height * width, first];
        (p.height, p.width) = (1, count(picture[2])?);
        (p.out_height, p.out_width) = (1, p.width);
        p.rows = i64::from(p.width);
    }
    let call = ConvCall {
        rows: usize::try_from(p.rows).unwrap_or(0),
        columns: weight_rows / p.phases.unsigned_abs() as usize,
        channels,
        taps,
        phases: p.phases.unsigned_abs() as usize,
        half: dtype != DType::F32,
        // The engine's fields for corners, steps and offsets are narrow.
        addressable: channels % 8 == 0
            && geometry.kernel <= 64
            && geometry.padding <= 64
            && geometry.stride <= 8,
        last: match p.activation {
            _ if params.partial != 0 => LastPass::Sums,
            GATED => LastPass::Gated,
            0 if p.out_channels % 8 == 0 => LastPass::Whole,
            _ => LastPass::Active,
        },
    };
    let plan = plan_cuda_conv(call, card(device)?);
    let op = match (order, call.last) {
        (Order::Plain, _) => "linear",
        (_, LastPass::Gated) => "geglu",
        _ => "conv2d",
    };
    note(op, plan.kernel.name(), None);
    profile::mark(|| {
        let more = if p.residual != 0 { " + residual" } else { "" };
        format!(
            "{op} {}x{taps}x{channels}x{}{more}, {} {}",
            call.rows * call.phases,
            p.out_channels,
            plan.function,
            plan.splits
        )
    });
    p.columns = count(call.columns)?;
    p.chunks = count(plan.chunks)?;
    p.row_tiles = count(call.rows.div_ceil(plan.tile_rows))?;
    p.column_tiles = count(call.columns.div_ceil(plan.tile_columns))?;
    p.splits = count(plan.splits)?;
    p.band = count(plan.band)?;
    let items = call.rows.div_ceil(plan.tile_rows)
        * call.columns.div_ceil(plan.tile_columns)
        * plan.splits
        * call.phases;
    count(items)?;
    let blocks = plan.blocks.min(items as u64) as u32;
    let parts = if plan.splits > 1 {
        let parts = Output::new(device, DType::F32, plan.splits * call.rows * call.phases * call.columns)?;
        p.partial = parts.address;
        Some(parts)
    } else {
        None
    };
    let stream = device.cuda_stream();
    let (xs, ws) = (x.storage_and_layout(), weight.storage_and_layout());
    let (xa, wa) = (address(&xs.0, &stream)?, address(&ws.0, &stream)?);
    (p.x, p.weight) = (at(xa.0, x), at(wa.0, weight));
    let grid = (blocks, plan.threads, plan.shared_bytes);
    let hopper = plan.kernel == ConvKernel::Hopper;
    let source = if hopper { "conv_hopper" } else { "conv" };
    let kernel = function(device, source, element, plan.function, plan.shared_bytes)?;
    // SAFETY: addresses are those of live contiguous tensors whose guards are held past the calls and
    // whose extents the parameters repeat; the output has room for every pixel.
    unsafe {
        if hopper {
            let half = dtype == DType::F16;
            let shape =
                (if call.phases == 4 { 3 } else { geometry.kernel }, geometry.stride, geometry.padding);
            let pixels = TensorMap::pixels(p.x, half, picture, shape, plan.tile_rows as u32)?;
            let parameters = HopperParams {
                pixels,
                rest: match rest {
                    Some(rest) => {
                        let [.., height, width, _] = picture;
                        let picture = [1, height, width, channels - first];
                        TensorMap::pixels(
                            Held::new(rest)?.address()?,
                            half,
                            picture,
                            shape,
                            plan.tile_rows as u32,
                        )?
                    }
                    None => pixels,
                },
                first_chunks: if rest.is_some() { count(first / 64)? } else { p.chunks },
                weights: match order {
                    Order::Units => TensorMap::weights(
                        p.weight,
                        half,
                        [weight_rows, taps, depth],
                        plan.tile_columns as u32,
                    )?,
                    Order::Plain => TensorMap::plain_weights(
                        p.weight,
                        half,
                        [weight_rows, depth],
                        plan.tile_columns as u32,
                    )?,
                },
                params: p,
                plain_rows: i32::from(order == Order::Plain),
            };
            launch(&stream, &kernel, grid, &parameters)?;
        } else {
            launch(&stream, &kernel, grid, &p)?;
        }
    }
    if let Some(parts) = parts {
        let values = call.rows * call.phases * call.columns / 8;
        small(device, dtype, "conv_finish", x, p, values as u64)?;
        drop(parts);
    }
    drop((xa, wa));
    Ok(())
}

/// Queues one of the passes that go over `items` values or groups of them.
pub(super) fn small(
    device: &CudaDevice,
    dtype: DType,
    name: &'static str,
    x: &Tensor,
    params: Params,
    items: u64,
) -> Result<()> {
    let Some(element) = element(dtype) else { return Ok(()) };
    let kernel = function(device, "conv", element, name, 0)?;
    let stream = device.cuda_stream();
    let xs = x.storage_and_layout();
    let xa = address(&xs.0, &stream)?;
    let most = 16 * card(device)?.multiprocessors.max(1) as u64;
    let blocks = items.div_ceil(256).clamp(1, most) as u32;
    // SAFETY: as in `product`; these kernels stay within the extents of their parameters.
    unsafe { launch(&stream, &kernel, (blocks, 256, 0), &Params { x: at(xa.0, x), ..params }) }?;
    drop(xa);
    Ok(())
}

/// Contiguous and starting at a multiple of 16 bytes, as the kernels read memory.
pub(super) fn ready(x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let aligned = x.layout().start_offset() * x.dtype().size_in_bytes() % 16 == 0;
    Ok(if aligned { x } else { x.force_contiguous()? })
}

pub(super) fn at(base: u64, x: &Tensor) -> u64 {
    base + (x.layout().start_offset() * x.dtype().size_in_bytes()) as u64
}

pub(super) fn four(x: &Tensor) -> Result<[usize; 4]> {
    Ok(x.dims4()?.into())
}

pub(super) fn count(what: usize) -> Result<i32> {
    i32::try_from(what)
        .map_err(|_| KernelError::shape("conv2d", "fewer than 2^31 pixels; split the batch", what))
}
