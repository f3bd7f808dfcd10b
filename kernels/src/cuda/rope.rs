//! Rotary position embedding on CUDA.

use candle_core::Tensor;
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;

use super::{Held, Output, card, element, function, launch, profile, ready};
use crate::error::{KernelError, Result};

/// `Params` of `cuda/rope.cu`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Params {
    x: u64,
    out: u64,
    cos: u64,
    sin: u64,
    count: i64,
    rows: i64,
    heads: i32,
    dim: i32,
    pairs: i32,
    halves: i32,
    sign: f32,
}

// SAFETY: plain numbers in C layout, the same as the kernels' parameter.
unsafe impl DeviceRepr for Params {}

/// Rotates `x` `[batch, tokens, heads, dim]` by f32 angles whose extents the caller has checked;
/// channels of a pair are neighbours where pairs are two channels apart (`step`), else `pairs` apart.
pub(crate) fn rotate(
    device: &CudaDevice,
    x: &Tensor,
    [cos, sin]: [&Tensor; 2],
    step: usize,
    sign: f32,
) -> Result<Tensor> {
    let Some(element) = element(x.dtype()) else {
        return Err(KernelError::DType { op: "rope", expected: "f32, f16 or bf16", got: x.dtype() });
    };
    let (_, _, heads, dim) = x.dims4()?;
    let pairs = cos.dims().last().copied().unwrap_or_default();
    let (input, cos, sin) = (Held::new(&ready(x)?)?, Held::new(&ready(cos)?)?, Held::new(&ready(sin)?)?);
    let out = Output::new(device, x.dtype(), x.elem_count())?;
    if x.elem_count() == 0 {
        return Ok(out.tensor(x.dims()));
    }
    profile::mark(|| format!("rope {:?}", x.dims()));
    let vector = 16 / x.dtype().size_in_bytes();
    // No vector may cross from one channel's share to another's.
    let border = if step == 1 { pairs } else { 2 * pairs };
    let whole = input.aligned() && dim % vector == 0 && border % vector == 0;
    let (vector, name) = if whole { (vector, "rotate_wide") } else { (1, "rotate_one") };
    let count =
        |what: usize| i32::try_from(what).map_err(|_| KernelError::shape("rope", "extents below 2^31", what));
    let vectors = x.elem_count() / vector;
    let params = Params {
        x: input.address()?,
        out: out.address,
        cos: cos.address()?,
        sin: sin.address()?,
        count: vectors as i64,
        rows: (cos.0.elem_count() / pairs.max(1)).max(1) as i64,
        heads: count(heads)?,
        dim: count(dim)?,
        pairs: count(pairs)?,
        halves: i32::from(step == 1),
        sign,
    };
    let kernel = function(device, "rope", element, name, 0)?;
    let blocks = vectors.div_ceil(256).min(64 * card(device)?.multiprocessors) as u32;
    // SAFETY: the operands are held past the launch and contiguous; the caller compared every extent.
    unsafe { launch(&device.cuda_stream(), &kernel, (blocks, 256, 0), &params)? };
    Ok(out.tensor(x.dims()))
}
