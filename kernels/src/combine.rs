//! Weighted sums of tensors: guidance and the update of a sampler as one pass over the latents.

use candle_core::{DType, Tensor};

use crate::autograd::{fused, record, tracked};
use crate::cpu::combine::weighted_sum as on_cpu;
use crate::cpu::view::{Guard, ours, single};
use crate::cpu::{Isa, output};
use crate::error::{KernelError, Result};
use crate::used::note;

/// The most terms of one pass.
pub(crate) const MOST_TERMS: usize = 6;

/// `Σ weight · tensor` in f32, every tensor read once.
///
/// One to six tensors of one shape on one device, each of any float type. Guided prediction and step of a
/// sampler are linear in the sample, the outputs of the network and fresh noise, so that the whole update
/// is one such sum (`step_weights` of the samplers). Differentiable by every tensor.
///
/// # Errors
/// [`KernelError::Shape`] for no or too many terms, shapes or devices that differ.
pub fn weighted_sum(terms: &[(f64, &Tensor)]) -> Result<Tensor> {
    let Some((_, first)) = terms.first() else {
        return Err(KernelError::shape("weighted_sum", "at least one term", 0));
    };
    let fits = |x: &Tensor| x.dims() == first.dims() && x.device().same_device(first.device());
    if terms.len() > MOST_TERMS || !terms.iter().all(|(_, x)| fits(x)) {
        let got: Vec<_> = terms.iter().map(|(_, x)| x.dims().to_vec()).collect();
        let expected = format!("up to {MOST_TERMS} tensors of one shape on one device");
        return Err(KernelError::shape("weighted_sum", expected, got));
    }
    let tensors: Vec<Tensor> = terms.iter().map(|(_, x)| x.detach()).collect();
    let weights: Vec<f64> = terms.iter().map(|(weight, _)| *weight).collect();
    if !tensors.iter().all(fused) {
        note("weighted_sum", "composed", None);
        let mut sum = (first.to_dtype(DType::F32)? * weights[0])?;
        for (weight, x) in &terms[1..] {
            sum = (sum + (x.to_dtype(DType::F32)? * *weight)?)?;
        }
        return Ok(sum);
    }
    let out = compute(&weights, &tensors)?;
    let operands: Vec<&Tensor> = terms.iter().map(|(_, x)| *x).collect();
    if !tracked(operands.iter().copied()) {
        return Ok(out);
    }
    let parts: Vec<_> =
        terms.iter().map(|(weight, x)| x.track_op().then_some((*weight, x.dtype()))).collect();
    record("weighted_sum", &operands, out, move |grad, _| {
        let part = |part: &Option<(f64, DType)>| match part {
            Some((weight, dtype)) => Ok(Some((grad * *weight)?.to_dtype(*dtype)?)),
            None => Ok(None),
        };
        parts.iter().map(part).collect()
    })
}

fn compute(weights: &[f64], tensors: &[Tensor]) -> Result<Tensor> {
    let first = &tensors[0];
    #[cfg(feature = "cuda")]
    if let Some(device) = crate::cuda::device(first) {
        note("weighted_sum", "fused", None);
        return crate::cuda::combine::weighted_sum(&device, weights, tensors);
    }
    debug_assert!(ours(first));
    note("weighted_sum", "fused", Some(Isa::current()));
    let tensors: Vec<Tensor> = tensors.iter().map(|x| single(&x.contiguous()?)).collect::<Result<_>>()?;
    let guards: Vec<Guard<'_>> = tensors.iter().map(Guard::new).collect::<Result<_>>()?;
    let terms: Vec<(f32, &[f32])> = weights
        .iter()
        .zip(&guards)
        .map(|(weight, guard)| Ok((*weight as f32, guard.values()?)))
        .collect::<Result<_>>()?;
    let len = first.elem_count();
    // SAFETY: every term has the first one's shape.
    let values = unsafe { output(len, |out| on_cpu(Isa::current(), &terms, len, out)) };
    Ok(Tensor::from_vec(values, first.dims(), first.device())?)
}
