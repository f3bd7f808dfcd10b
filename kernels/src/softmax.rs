//! The softmax of rows.

use candle_core::{D, DType, Tensor};

use crate::autograd::{fused, record, tracked};
use crate::cpu::softmax::{softmax as on_cpu, softmax_backward};
use crate::cpu::view::{Guard, ours, single, tensor};
use crate::cpu::{Isa, output};
use crate::error::{KernelError, Result};
use crate::used::note;

/// The softmax over the last dimension of `x`, in `x`'s type with f32 sums. A row of -inf gives zeros, as
/// attention defines it, and a row with a NaN gives NaN.
///
/// # Errors
/// [`KernelError::Shape`] for a tensor without dimensions.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let Some(columns) = x.dims().last().copied() else {
        return Err(KernelError::shape("softmax", "at least one dimension", x.dims()));
    };
    if tracked([x]) && fused(x) {
        let out = softmax(&x.detach())?;
        return record("softmax", &[x], out, move |grad, out| Ok(vec![Some(backward(out, grad, columns)?)]));
    }
    #[cfg(feature = "cuda")]
    if let Some(device) = crate::cuda::device(x) {
        note("softmax", "rows", None);
        return crate::cuda::pointwise::softmax(&device, x);
    }
    note("softmax", if ours(x) { "rows" } else { "composed" }, ours(x).then(Isa::current));
    if !ours(x) {
        let top = x.max_keepdim(D::Minus1)?.maximum(-1e38)?;
        let exp = x.broadcast_sub(&top)?.exp()?;
        let floor = if x.dtype() == DType::F64 { 1e-300 } else { 1e-38 };
        return Ok(exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?.maximum(floor)?)?);
    }
    let input = single(&x.contiguous()?)?;
    let guard = Guard::new(&input)?;
    let data = guard.values()?;
    // SAFETY: the output is as long as the input, whose rows have `columns` values.
    let values = unsafe { output(data.len(), |out| on_cpu(Isa::current(), data, columns, out)) };
    tensor(values, x.dims(), x)
}

fn backward(result: &Tensor, grad: &Tensor, columns: usize) -> Result<Tensor> {
    note("softmax backward", "rows", ours(result).then(Isa::current));
    #[cfg(feature = "cuda")]
    if let Some(device) = crate::cuda::device(result) {
        return crate::cuda::pointwise_backward::softmax(&device, result, grad, columns);
    }
    let (y, gradient) = (single(result)?, single(grad)?);
    let (y, guard) = (Guard::new(&y)?, Guard::new(&gradient)?);
    let (y, gradients) = (y.values()?, guard.values()?);
    let isa = Isa::current();
    // SAFETY: the gradient has the shape of the result, and so has the output.
    let values = unsafe { output(y.len(), |out| softmax_backward(isa, y, gradients, columns, out)) };
    tensor(values, result.dims(), result)
}
