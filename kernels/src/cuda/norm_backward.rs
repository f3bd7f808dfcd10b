//! Gradients of norms, and sums over rows, on CUDA.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{DType, Tensor};

use super::norm::{Cut, GroupCall, lanes};
use super::{Held, Output, card, element, function, launch, profile, ready};
use crate::error::{KernelError, Result};
use crate::norm::GroupSums;
use crate::used::note;

/// `Params` of `cuda/norm_backward.cu`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Params {
    x: u64,
    grad: u64,
    out: u64,
    weight: u64,
    bias: u64,
    added: u64,
    scale: u64,
    shift: u64,
    partial: u64,
    plain: u64,
    moved: u64,
    groups_of: u64,
    rows_of: u64,
    points: i64,
    channels: i32,
    groups: i32,
    chunks: i32,
    chunk_points: i32,
    tile: i32,
    lines: i32,
    added_samples: i32,
    activation: i32,
    problems: i32,
    eps: f32,
}

// SAFETY: plain numbers in C layout, the same as the kernels' parameter.
unsafe impl DeviceRepr for Params {}

fn count(what: usize) -> Result<i32> {
    i32::try_from(what).map_err(|_| KernelError::shape("norm backward", "extents below 2^31", what))
}

/// Operands in the type of `x`, contiguous.
struct Operands<'a> {
    x: &'a Tensor,
    aligned: bool,
    held: Vec<Held>,
}

impl<'a> Operands<'a> {
    fn new(x: &'a Tensor) -> Self {
        Self { x, aligned: true, held: Vec::new() }
    }

    /// Keeps an operand and returns where it lies.
    fn add(&mut self, operand: &Tensor) -> Result<u64> {
        let held = Held::new(&ready(&operand.to_dtype(self.x.dtype())?)?)?;
        self.aligned &= held.aligned();
        let address = held.address()?;
        self.held.push(held);
        Ok(address)
    }

    /// Values of a vector: 16 bytes where every operand and `columns` allow it.
    fn step(&self, columns: usize) -> usize {
        let vector = 16 / self.x.dtype().size_in_bytes();
        if self.aligned && columns % vector == 0 { vector } else { 1 }
    }
}

/// One kernel's blocks, threads and shared bytes.
type Grid = (usize, usize, usize);

/// # Safety
/// Addresses in `params` are of live memory of the extents that kernel `name` reads and writes.
unsafe fn queue(device: &CudaDevice, dtype: DType, name: &str, grid: Grid, params: &Params) -> Result<()> {
    let Some(element) = element(dtype) else {
        return Err(KernelError::DType { op: "norm backward", expected: "f32, f16 or bf16", got: dtype });
    };
    let (blocks, threads, bytes) = grid;
    let blocks = u32::try_from(blocks).ok().filter(|blocks| *blocks < 1 << 31);
    let blocks =
        blocks.ok_or_else(|| KernelError::shape("norm backward", "fewer than 2^31 blocks", grid.0))?;
    let kernel = function(device, "norm_backward", element, name, bytes as u32)?;
    // SAFETY: the caller's promises.
    unsafe { launch(&device.cuda_stream(), &kernel, (blocks, threads as u32, bytes as u32), params) }
}

/// The gradient of `x` `[n, points, channels]`, and the sums that those of the parameters are made of.
pub(crate) fn group_norm(
    device: &CudaDevice,
    x: &Tensor,
    grad: &Tensor,
    call: &GroupCall<'_>,
    (samples, points, channels): (usize, usize, usize),
) -> Result<(Tensor, GroupSums)> {
    note("group_norm backward", "split", None);
    profile::mark(|| format!("group_norm backward {samples}x{points}x{channels}"));
    let mut operands = Operands::new(x);
    let mut params = Params {
        x: operands.add(x)?,
        grad: operands.add(grad)?,
        weight: operands.add(call.weight)?,
        bias: operands.add(call.bias)?,
        added: call.added.map_or(Ok(0), |added| operands.add(added))?,
        scale: call.film.map_or(Ok(0), |film| operands.add(film.0))?,
        shift: call.film.map_or(Ok(0), |film| operands.add(film.1))?,
        points: points as i64,
        channels: count(channels)?,
        groups: count(call.groups)?,
        added_samples: count(samples / call.added.map_or(Ok(1), |added| added.dim(0))?.max(1))?,
        activation: call.activation as i32,
        eps: call.eps as f32,
        ..Params::default()
    };
    let dims = [samples, channels];
    if samples * points == 0 {
        let zeros = || Tensor::zeros(&dims, DType::F32, x.device());
        return Ok((x.zeros_like()?, GroupSums { plain: zeros()?, normed: zeros()? }));
    }
    let step = operands.step(channels);
    let cut = Cut::new(samples, points, channels / step, card(device)?.multiprocessors);
    let out = Output::new(device, x.dtype(), samples * points * channels)?;
    let partial = Output::new(device, DType::F32, 2 * samples * cut.chunks * channels)?;
    let groups_of = Output::new(device, DType::F32, 4 * samples * call.groups)?;
    let (plain, normed) = (
        Output::new(device, DType::F32, samples * channels)?,
        Output::new(device, DType::F32, samples * channels)?,
    );
    params.out = out.address;
    params.partial = partial.address;
    params.groups_of = groups_of.address;
    (params.plain, params.moved) = (plain.address, normed.address);
    params.cut(cut)?;
    let problems = samples * call.groups;
    params.problems = count(problems)?;
    let kind = if step > 1 { "wide" } else { "one" };
    let (blocks, bytes) = (samples * cut.chunks, 8 * cut.tile * step * cut.lines);
    // SAFETY: operands are held past the launches and contiguous, the caller checked the extents; the outputs
    // are as large as the kernels' comments say.
    unsafe {
        let run = |name: &str, grid| queue(device, x.dtype(), name, grid, &params);
        run(&format!("sums_moments_{kind}"), (blocks, cut.threads(), bytes))?;
        run("finish_moments", (problems.div_ceil(4), 128, 0))?;
        run(&format!("sums_group_{kind}"), (blocks, cut.threads(), bytes))?;
        run("finish_group", (problems, 128, 0))?;
        run(&format!("group_input_{kind}"), (blocks, cut.threads(), 0))?;
    }
    drop((partial, groups_of));
    Ok((out.tensor(x.dims()), GroupSums { plain: plain.tensor(&dims), normed: normed.tensor(&dims) }))
}

impl Params {
    fn cut(&mut self, cut: Cut) -> Result<()> {
        self.chunks = count(cut.chunks)?;
        self.chunk_points = count(cut.chunk_points)?;
        self.tile = count(cut.tile)?;
        self.lines = count(cut.lines)?;
        Ok(())
    }
}

/// The gradient of `x` `[…, channels]`, and f32 ones of weight and bias where asked for.
pub(crate) fn layer_norm(
    device: &CudaDevice,
    x: &Tensor,
    grad: &Tensor,
    weight: &Tensor,
    eps: f64,
    parameters: bool,
) -> Result<(Tensor, Option<[Tensor; 2]>)> {
    let channels = weight.dim(0)?;
    let rows = x.elem_count() / channels.max(1);
    if rows == 0 {
        let zeros = || Tensor::zeros(channels, DType::F32, x.device());
        let sums = if parameters { Some([zeros()?, zeros()?]) } else { None };
        return Ok((x.zeros_like()?, sums));
    }
    let mut operands = Operands::new(x);
    let mut params = Params {
        x: operands.add(x)?,
        grad: operands.add(grad)?,
        weight: operands.add(weight)?,
        points: rows as i64,
        channels: count(channels)?,
        eps: eps as f32,
        ..Params::default()
    };
    let step = operands.step(channels);
    let shape = if step > 1 { lanes(channels / step) } else { None };
    note("layer_norm backward", if shape.is_some() { "rows" } else { "blocks" }, None);
    profile::mark(|| format!("layer_norm backward {rows}x{channels}"));
    let out = Output::new(device, x.dtype(), x.elem_count())?;
    let rows_of = if parameters { Some(Output::new(device, DType::F32, 2 * rows)?) } else { None };
    params.out = out.address;
    params.rows_of = rows_of.as_ref().map_or(0, |rows| rows.address);
    params.tile = count(shape.map_or(0, |(lanes, _)| lanes))?;
    let (name, blocks) = match shape {
        Some((lanes, vectors)) => (format!("layer_input_{vectors}"), rows.div_ceil(256 / lanes)),
        None => ("layer_input_any".into(), rows.min(1 << 16)),
    };
    // SAFETY: the operands are held past the launch and contiguous, the gradient has the shape of `x`, and
    // the output is as large; `rows_of` holds two values a row.
    unsafe { queue(device, x.dtype(), &name, (blocks, 256, 0), &params)? };
    let sums = if parameters {
        let [bias, weight] = sums(device, x.dtype(), "layer", step, (1, rows, channels), params)?;
        Some([weight.reshape(channels)?, bias.reshape(channels)?])
    } else {
        None
    };
    drop(rows_of);
    Ok((out.tensor(x.dims()), sums))
}

/// Sums of `x`, seen as `[outer, rows, columns]`, over rows: f32 `[outer, columns]`.
pub(crate) fn sum_rows(device: &CudaDevice, x: &Tensor, outer: usize, columns: usize) -> Result<Tensor> {
    note("sum_rows", "split", None);
    let mut operands = Operands::new(x);
    let grad = operands.add(x)?;
    let rows = x.elem_count() / (outer * columns).max(1);
    let params = Params { grad, points: rows as i64, channels: count(columns)?, ..Params::default() };
    let [sums, _] = sums(device, x.dtype(), "plain", operands.step(columns), (outer, rows, columns), params)?;
    Ok(sums)
}

/// Both sums of a kind over the points of every sample, f32 `[samples, channels]`.
fn sums(
    device: &CudaDevice,
    dtype: DType,
    what: &str,
    step: usize,
    (samples, points, channels): (usize, usize, usize),
    params: Params,
) -> Result<[Tensor; 2]> {
    let cut = Cut::new(samples, points, channels / step, card(device)?.multiprocessors);
    let partial = Output::new(device, DType::F32, 2 * samples * cut.chunks * channels)?;
    let problems = samples * channels;
    let both = [Output::new(device, DType::F32, problems)?, Output::new(device, DType::F32, problems)?];
    let mut params = Params {
        partial: partial.address,
        plain: both[0].address,
        moved: both[1].address,
        problems: count(problems)?,
        ..params
    };
    params.cut(cut)?;
    let name = format!("sums_{what}_{}", if step > 1 { "wide" } else { "one" });
    let grid = (samples * cut.chunks, cut.threads(), 8 * cut.tile * step * cut.lines);
    // SAFETY: the caller's operands are held and have these extents; `partial` holds two sums a sample, chunk
    // and channel, and the outputs one a sample and channel.
    unsafe {
        queue(device, dtype, &name, grid, &params)?;
        queue(device, dtype, "finish_plain", (problems.div_ceil(4), 128, 0), &params)?;
    }
    drop(partial);
    Ok(both.map(|sums| sums.tensor(&[samples, channels])))
}
