//! Activations, gated units and pixel copies on CUDA.

use candle_core::Tensor;
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;

use super::{Held, Output, card, element, function, launch, ready};
use crate::error::{KernelError, Result};
use crate::pointwise::Activation;

/// `PointParams` of `cuda/pointwise.cu`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct PointParams {
    x: u64,
    out: u64,
    bias: u64,
    residual: u64,
    count: i64,
    columns: i32,
    height: i32,
    width: i32,
    activation: i32,
}

// SAFETY: plain numbers in C layout, the same as the kernels' parameter.
unsafe impl DeviceRepr for PointParams {}

/// `SoftmaxParams` of `cuda/pointwise.cu`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct SoftmaxParams {
    x: u64,
    out: u64,
    rows: i64,
    columns: i32,
}

// SAFETY: plain numbers in C layout, the same as the kernel's parameter.
unsafe impl DeviceRepr for SoftmaxParams {}

/// Queues `name` over `count` values whose rows have `columns`, in vectors where everything allows it.
///
/// # Safety
/// Addresses in `params` are of live, contiguous memory of the extents the kernel `name` reads and
/// writes for these counts.
unsafe fn run(
    device: &CudaDevice,
    dtype: candle_core::DType,
    name: &str,
    (count, columns): (usize, usize),
    aligned: bool,
    params: PointParams,
) -> Result<()> {
    let Some(element) = element(dtype) else {
        return Err(KernelError::DType { op: "pointwise", expected: "f32, f16 or bf16", got: dtype });
    };
    if count == 0 {
        return Ok(());
    }
    let vector = 16 / dtype.size_in_bytes();
    let step = if aligned && columns % vector == 0 { vector } else { 1 };
    let count = count / step;
    let columns = i32::try_from(columns / step)
        .map_err(|_| KernelError::shape("pointwise", "rows below 2^31 values", columns))?;
    super::profile::mark(|| format!("{name} {count} vectors"));
    let params = PointParams { count: count as i64, columns, ..params };
    let name = format!("{name}_{}", if step == 1 { "one" } else { "wide" });
    let kernel = function(device, "pointwise", element, &name, 0)?;
    // Blocks enough to fill the card some waves over; each thread goes on with a stride.
    let most = 64 * card(device)?.multiprocessors;
    let blocks = count.div_ceil(256).min(most) as u32;
    // SAFETY: the caller's promises.
    unsafe { launch(&device.cuda_stream(), &kernel, (blocks, 256, 0), &params) }
}

/// `activation(x)`.
pub(crate) fn activate(device: &CudaDevice, x: &Tensor, activation: Activation) -> Result<Tensor> {
    let held = Held::new(&ready(x)?)?;
    let count = x.elem_count();
    let out = Output::new(device, x.dtype(), count)?;
    let params = PointParams {
        x: held.address()?,
        out: out.address,
        activation: activation as i32,
        ..PointParams::default()
    };
    // The kernel does not look at rows, so any length that divides the whole will do.
    let vector = 16 / x.dtype().size_in_bytes();
    let columns = if count.is_multiple_of(vector) { vector } else { 1 };
    // SAFETY: input and output have `count` values.
    unsafe { run(device, x.dtype(), "activate", (count, columns), held.aligned(), params)? };
    Ok(out.tensor(x.dims()))
}

/// `value · gelu_erf(gate)` of `x` `[…, 2 half]` into `dims`.
pub(crate) fn geglu(device: &CudaDevice, x: &Tensor, half: usize, dims: &[usize]) -> Result<Tensor> {
    let held = Held::new(&ready(x)?)?;
    let count = x.elem_count() / 2;
    let out = Output::new(device, x.dtype(), count)?;
    let params = PointParams { x: held.address()?, out: out.address, ..PointParams::default() };
    // SAFETY: rows of 2 half values give rows of half values.
    unsafe { run(device, x.dtype(), "geglu", (count, half), held.aligned(), params)? };
    Ok(out.tensor(dims))
}

/// Doubles height and width of `x` `[n, h, w, c]`.
pub(crate) fn upsample_nearest2x(device: &CudaDevice, x: &Tensor) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let held = Held::new(&ready(x)?)?;
    let out = Output::new(device, x.dtype(), 4 * x.elem_count())?;
    let count = |what: usize| {
        i32::try_from(what).map_err(|_| KernelError::shape("upsample", "extents below 2^31", what))
    };
    let params = PointParams {
        x: held.address()?,
        out: out.address,
        height: count(h)?,
        width: count(w)?,
        ..PointParams::default()
    };
    // SAFETY: each of n · h · w pixels of c values goes to four places of the output.
    unsafe { run(device, x.dtype(), "upsample", (x.elem_count(), c), held.aligned(), params)? };
    Ok(out.tensor(&[n, 2 * h, 2 * w, c]))
}

/// `activation(y + bias) + residual` written over `y` `[rows, columns]`, which no other tensor shares.
///
/// # Errors
/// [`KernelError::Shape`] when `y` is not contiguous or an operand does not fit or lies elsewhere.
pub(crate) fn finish(
    device: &CudaDevice,
    y: Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let columns = y.dims().last().copied().unwrap_or_default();
    let fits = |other: &Tensor| other.dtype() == y.dtype() && other.device().same_device(y.device());
    let bias_fits = bias.is_none_or(|b| fits(b) && b.dims() == [columns]);
    let residual_fits = residual.is_none_or(|r| fits(r) && r.elem_count() == y.elem_count());
    if !y.is_contiguous() || !bias_fits || !residual_fits {
        let got = (bias.map(Tensor::shape), residual.map(Tensor::shape));
        return Err(KernelError::shape("linear", "a bias and residual of the result's type and size", got));
    }
    {
        let held = Held::new(&y)?;
        let bias = bias.map(|b| Held::new(&b.contiguous()?)).transpose()?;
        let residual = residual.map(|r| Held::new(&ready(r)?)).transpose()?;
        let aligned = [Some(&held), bias.as_ref(), residual.as_ref()];
        let params = PointParams {
            out: held.address()?,
            bias: bias.as_ref().map_or(Ok(0), Held::address)?,
            residual: residual.as_ref().map_or(Ok(0), Held::address)?,
            activation: activation as i32,
            ..PointParams::default()
        };
        let aligned = aligned.into_iter().flatten().all(Held::aligned);
        // SAFETY: extents were compared above; each value is read and written by one thread.
        unsafe { run(device, y.dtype(), "finish", (y.elem_count(), columns), aligned, params)? };
    }
    Ok(y)
}

/// The softmax over the last dimension; rows of -inf give zeros.
pub(crate) fn softmax(device: &CudaDevice, x: &Tensor) -> Result<Tensor> {
    let Some(element) = element(x.dtype()) else {
        return Err(KernelError::DType { op: "softmax", expected: "f32, f16 or bf16", got: x.dtype() });
    };
    let held = Held::new(&ready(x)?)?;
    let columns = x.dims().last().copied().unwrap_or_default();
    let rows = x.elem_count() / columns.max(1);
    let out = Output::new(device, x.dtype(), x.elem_count())?;
    if rows > 0 {
        let columns = i32::try_from(columns)
            .map_err(|_| KernelError::shape("softmax", "rows below 2^31 values", columns))?;
        let params = SoftmaxParams { x: held.address()?, out: out.address, rows: rows as i64, columns };
        let kernel = function(device, "pointwise", element, "softmax_rows", 0)?;
        let blocks = rows.min(1 << 20) as u32;
        // SAFETY: input and output have `rows` rows of `columns` values.
        unsafe { launch(&device.cuda_stream(), &kernel, (blocks, 256, 0), &params)? };
    }
    Ok(out.tensor(x.dims()))
}
