//! Gradients of activations, gated units, the softmax and doubled pictures on CUDA.

use candle_core::Tensor;
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;

use super::{Held, Output, card, element, function, launch, profile, ready};
use crate::error::{KernelError, Result};
use crate::pointwise::Activation;

/// `Params` of `cuda/pointwise_backward.cu`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Params {
    x: u64,
    grad: u64,
    out: u64,
    count: i64,
    columns: i32,
    width: i32,
    activation: i32,
}

// SAFETY: plain numbers in C layout, the same as the kernels' parameter.
unsafe impl DeviceRepr for Params {}

fn count(what: usize) -> Result<i32> {
    i32::try_from(what).map_err(|_| KernelError::shape("pointwise backward", "extents below 2^31", what))
}

/// Queues `name` over `values` values whose rows have `columns`, in vectors where everything allows it,
/// and returns what it wrote: `dims` values of the type of `grad`.
///
/// # Safety
/// The kernel `name`, for these counts, reads no more of `x` and `grad` and writes exactly `dims` values.
unsafe fn run(
    device: &CudaDevice,
    name: &str,
    x: Option<&Tensor>,
    grad: &Tensor,
    (values, columns): (usize, usize),
    params: Params,
    dims: &[usize],
) -> Result<Tensor> {
    let dtype = grad.dtype();
    let Some(element) = element(dtype) else {
        return Err(KernelError::DType {
            op: "pointwise backward",
            expected: "f32, f16 or bf16",
            got: dtype,
        });
    };
    let x = x.map(|x| Held::new(&ready(&x.to_dtype(dtype)?)?)).transpose()?;
    let grad = Held::new(&ready(grad)?)?;
    let out = Output::new(device, dtype, dims.iter().product())?;
    if values == 0 {
        return Ok(out.tensor(dims));
    }
    profile::mark(|| format!("{name} backward {values}"));
    let vector = 16 / dtype.size_in_bytes();
    let aligned = x.iter().chain([&grad]).all(Held::aligned);
    let (step, kind) = if aligned && columns % vector == 0 { (vector, "wide") } else { (1, "one") };
    let params = Params {
        x: x.as_ref().map_or(Ok(0), Held::address)?,
        grad: grad.address()?,
        out: out.address,
        count: (values / step) as i64,
        columns: count(columns / step)?,
        ..params
    };
    let kernel = function(device, "pointwise_backward", element, &format!("{name}_{kind}"), 0)?;
    let most = 64 * card(device)?.multiprocessors;
    let blocks = (values / step).div_ceil(256).min(most) as u32;
    // SAFETY: the caller's promises; operands are held past the launch.
    unsafe { launch(&device.cuda_stream(), &kernel, (blocks, 256, 0), &params)? };
    Ok(out.tensor(dims))
}

/// `grad · activation'(x)`.
pub(crate) fn activate(
    device: &CudaDevice,
    x: &Tensor,
    grad: &Tensor,
    activation: Activation,
) -> Result<Tensor> {
    let params = Params { activation: activation as i32, ..Params::default() };
    // The kernel does not look at rows, so any length that divides the whole will do.
    let (values, vector) = (x.elem_count(), 16 / grad.dtype().size_in_bytes());
    let columns = if values % vector == 0 { vector } else { 1 };
    // SAFETY: operands and output have as many values.
    unsafe { run(device, "activate", Some(x), grad, (values, columns), params, x.dims()) }
}

/// The gradient of `x` `[…, 2c]` for `grad` `[…, c]`.
pub(crate) fn geglu(device: &CudaDevice, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let half = x.dims().last().copied().unwrap_or_default() / 2;
    // SAFETY: rows of 2c values and as many of the output have gradients of c values.
    unsafe { run(device, "geglu", Some(x), grad, (grad.elem_count(), half), Params::default(), x.dims()) }
}

/// Adds up the four copies of every pixel: `[n, 2h, 2w, c]` to `[n, h, w, c]`.
pub(crate) fn halve(device: &CudaDevice, grad: &Tensor) -> Result<Tensor> {
    let (n, h, w, c) = grad.dims4()?;
    let dims = [n, h / 2, w / 2, c];
    let params = Params { width: count(w / 2)?, ..Params::default() };
    // SAFETY: each pixel of the output reads four of a picture twice as wide and high.
    unsafe { run(device, "halve", None, grad, (grad.elem_count() / 4, c), params, &dims) }
}

/// `y (grad - Σ y grad)` over rows of `columns`.
pub(crate) fn softmax(device: &CudaDevice, y: &Tensor, grad: &Tensor, columns: usize) -> Result<Tensor> {
    let Some(element) = element(y.dtype()) else {
        return Err(KernelError::DType { op: "softmax", expected: "f32, f16 or bf16", got: y.dtype() });
    };
    let (held, gradient) = (Held::new(&ready(y)?)?, Held::new(&ready(grad)?)?);
    let rows = y.elem_count() / columns.max(1);
    let out = Output::new(device, y.dtype(), y.elem_count())?;
    if rows > 0 {
        let params = Params {
            x: held.address()?,
            grad: gradient.address()?,
            out: out.address,
            count: rows as i64,
            columns: count(columns)?,
            ..Params::default()
        };
        let vector = 16 / y.dtype().size_in_bytes();
        let short = columns % vector == 0 && columns <= 128 * vector && held.aligned() && gradient.aligned();
        let (name, blocks) = if short { ("softmax_warps", rows.div_ceil(8)) } else { ("softmax_rows", rows) };
        let kernel = function(device, "pointwise_backward", element, name, 0)?;
        // SAFETY: all three have `rows` rows of `columns` values.
        unsafe { launch(&device.cuda_stream(), &kernel, (blocks.min(1 << 20) as u32, 256, 0), &params)? };
    }
    Ok(out.tensor(y.dims()))
}
