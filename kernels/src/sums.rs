//! Sums over rows: what the gradient of everything that was added to many rows is.

use candle_core::Tensor;

use crate::cpu::Isa;
use crate::cpu::pointwise_backward::sum_rows as on_cpu;
use crate::cpu::view::{Guard, ours, single, tensor};
use crate::error::Result;

/// `x` added up to shape `dims` `[…, columns]`: seen as `[outer, rows, columns]`, over its rows. Sums are f32
/// by blocks and wider between them, and do not depend on threads.
pub(crate) fn sum_rows(x: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let columns = dims.last().copied().unwrap_or(1);
    let outer = dims.iter().rev().skip(1).product();
    let x = x.contiguous()?;
    if x.elem_count() == 0 {
        return Ok(Tensor::zeros(dims, x.dtype(), x.device())?);
    }
    #[cfg(feature = "cuda")]
    if let Some(device) = crate::cuda::device(&x) {
        let sums = crate::cuda::norm_backward::sum_rows(&device, &x, outer, columns)?;
        return Ok(sums.reshape(dims)?.to_dtype(x.dtype())?);
    }
    if !ours(&x) {
        return Ok(x.reshape((outer, (), columns))?.sum(1)?.reshape(dims)?);
    }
    let input = single(&x)?;
    let guard = Guard::new(&input)?;
    tensor(on_cpu(Isa::current(), guard.values()?, outer, columns), dims, &x)
}
