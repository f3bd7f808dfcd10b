//! Weighted sums on CUDA.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{DType, Tensor};

use super::{Held, Output, card, function, launch, profile, ready};
use crate::combine::MOST_TERMS;
use crate::error::Result;

/// `Params` of `cuda/combine.cu`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Params {
    term: [u64; MOST_TERMS],
    out: u64,
    count: i64,
    weight: [f32; MOST_TERMS],
    kind: [i32; MOST_TERMS],
    terms: i32,
}

// SAFETY: plain numbers in C layout, the same as the kernels' parameter.
unsafe impl DeviceRepr for Params {}

/// `Σ weight · tensor` in f32 of up to [`MOST_TERMS`] tensors of one shape.
pub(crate) fn weighted_sum(device: &CudaDevice, weights: &[f64], tensors: &[Tensor]) -> Result<Tensor> {
    let held = tensors.iter().map(|x| Held::new(&ready(x)?)).collect::<Result<Vec<_>>>()?;
    let dims = tensors.first().map_or(&[][..], Tensor::dims);
    let count: usize = dims.iter().product();
    let out = Output::new(device, DType::F32, count)?;
    if count == 0 {
        return Ok(out.tensor(dims));
    }
    profile::mark(|| format!("weighted_sum {} of {count}", tensors.len()));
    let (wide, name) = if count % 4 == 0 && held.iter().all(Held::aligned) {
        (4, "combine_wide")
    } else {
        (1, "combine_one")
    };
    let mut params = Params {
        out: out.address,
        count: (count / wide) as i64,
        terms: tensors.len().min(MOST_TERMS) as i32,
        ..Params::default()
    };
    for (k, ((held, x), weight)) in held.iter().zip(tensors).zip(weights).take(MOST_TERMS).enumerate() {
        params.term[k] = held.address()?;
        params.weight[k] = *weight as f32;
        params.kind[k] = match x.dtype() {
            DType::F32 => 0,
            DType::F16 => 1,
            _ => 2,
        };
    }
    let kernel = function(device, "combine", "f32", name, 0)?;
    let blocks = (count / wide).div_ceil(256).min(64 * card(device)?.multiprocessors) as u32;
    // SAFETY: the operands are held past the launch, contiguous, and as long as the output.
    unsafe { launch(&device.cuda_stream(), &kernel, (blocks, 256, 0), &params)? };
    Ok(out.tensor(dims))
}
