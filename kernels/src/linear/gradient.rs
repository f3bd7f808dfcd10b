//! Gradients of a linear layer: by input, by weights, by bias.

use candle_core::Tensor;

use super::{Body, Linear, finish};
use crate::autograd::{Gradients, record};
use crate::cpu::gemm::Packed;
use crate::cpu::view::{ours, single};
use crate::error::Result;
use crate::pointwise::Activation;
use crate::sums::sum_rows;
use crate::used::note;

/// The forward pass as a node of the graph. What an activation reads must be kept, so a call with one is
/// the product, the activation and the residual one after the other.
pub(super) fn linear(
    layer: &Linear,
    x: &Tensor,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    if activation != Activation::None {
        let z = layer.forward_fused(x, Activation::None, None)?;
        return finish(z, activation, residual);
    }
    let (weights, bias) = match &layer.body {
        // A master copy in f32 serves layers that compute in half types.
        Body::Trained { weights, bias } => {
            let as_x = |w: &Tensor| w.to_dtype(x.dtype());
            let weights = weights.iter().map(as_x).collect::<candle_core::Result<Vec<_>>>()?;
            (weights, bias.as_ref().map(as_x).transpose()?)
        }
        _ => (Vec::new(), None),
    };
    let plain = match &layer.body {
        Body::Trained { .. } => {
            Linear::frozen(weights.iter().map(Tensor::detach).collect(), bias.as_ref().map(Tensor::detach))?
        }
        _ => layer.clone(),
    };
    let input = x.detach();
    let out = plain.forward_fused(&input, Activation::None, residual.map(Tensor::detach).as_ref())?;
    let mut operands = vec![x];
    operands.extend(&weights);
    operands.extend(&bias);
    operands.extend(residual);
    let wants_input = x.track_op();
    let rows_of: Vec<(bool, usize)> =
        weights.iter().map(|w| Ok((w.track_op(), w.dim(0)?))).collect::<Result<_>>()?;
    let (wants_bias, has_bias) = (bias.as_ref().is_some_and(Tensor::track_op), bias.is_some());
    record("linear", &operands, out, move |grad, _| {
        let mut all: Gradients = vec![None];
        if wants_input {
            all[0] = Some(plain.by_input(grad)?);
        }
        let mut first = 0;
        for (wanted, rows) in &rows_of {
            let part = wanted.then(|| by_weight(&input, grad, first, *rows)).transpose()?;
            all.push(part);
            first += rows;
        }
        if has_bias {
            all.push(wants_bias.then(|| sum_rows(grad, &[first])).transpose()?);
        }
        all.push(Some(grad.clone()));
        Ok(all)
    })
}

impl Linear {
    /// `grad · W`, the gradient of the input of a layer without trained weights.
    pub(crate) fn by_input(&self, grad: &Tensor) -> Result<Tensor> {
        let mut dims = grad.dims().to_vec();
        dims.pop();
        dims.push(self.inner);
        if grad.elem_count() * self.inner == 0 {
            return Ok(Tensor::zeros(dims, grad.dtype(), grad.device())?);
        }
        match &self.body {
            Body::Packed { weight, .. } => {
                // Packed the other way for this call only: a frozen network keeps one copy.
                let turned = Packed::new(self.inner, self.out, |j, k| weight.value(k, j));
                let body = Body::Packed { weight: turned.into(), bias: None };
                Linear { body, out: self.inner, inner: self.out }.forward(grad)
            }
            Body::Generic { weight, .. } => {
                note("linear backward", "library", None);
                Ok(grad.reshape(((), self.out))?.matmul(weight)?.reshape(dims)?)
            }
            Body::Trained { weights, .. } => {
                let weights = weights.iter().map(Tensor::detach).collect();
                Linear::frozen(weights, None)?.by_input(grad)
            }
        }
    }
}

/// Rows `first..first + rows` of `gradᵀ x`, the gradient of a weight `[rows, in]`.
fn by_weight(x: &Tensor, grad: &Tensor, first: usize, rows: usize) -> Result<Tensor> {
    note("linear backward", "library", None);
    let last = |x: &Tensor| x.dims().last().copied().unwrap_or_default();
    let (inner, out) = (last(x), last(grad));
    let count = grad.elem_count() / out.max(1);
    if count * inner * rows == 0 {
        return Ok(Tensor::zeros((rows, inner), x.dtype(), x.device())?);
    }
    let grad = grad.reshape((count, out))?.narrow(1, first, rows)?.contiguous()?;
    let x = x.contiguous()?.reshape((count, inner))?;
    if ours(&x) {
        return Ok(single(&grad)?.t()?.matmul(&single(&x)?)?.to_dtype(x.dtype())?);
    }
    Ok(grad.t()?.matmul(&x)?)
}
