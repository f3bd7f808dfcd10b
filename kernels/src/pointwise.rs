//! Activations and gated units.

use candle_core::{D, Tensor};

use crate::autograd::{fused, record, tracked};
use crate::cpu::pointwise::{activate_all, gated};
use crate::cpu::pointwise_backward::{activate_backward, gated_backward};
use crate::cpu::view::{Guard, ours, single, tensor};
use crate::cpu::{Isa, output};
use crate::error::{KernelError, Result};
use crate::used::note;

/// A function applied element by element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The identity.
    None,
    /// `x · sigmoid(x)`.
    Silu,
    /// `max(x, 0)`.
    Relu,
    /// `x · Φ(x)` with the exact error function.
    GeluErf,
    /// `x · sigmoid(1.702 x)`, CLIP's GELU.
    QuickGelu,
}

impl Activation {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Silu => "silu",
            Self::Relu => "relu",
            Self::GeluErf => "gelu",
            Self::QuickGelu => "quick_gelu",
        }
    }

    /// The activated tensor.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        if self == Self::None {
            return Ok(x.clone());
        }
        if tracked([x]) && fused(x) {
            let input = x.detach();
            let out = self.apply(&input)?;
            return record("activation", &[x], out, move |grad, _| {
                Ok(vec![Some(self.backward(&input, grad)?)])
            });
        }
        note("activation", self.name(), ours(x).then(Isa::current));
        #[cfg(feature = "cuda")]
        if let Some(device) = crate::cuda::device(x) {
            return crate::cuda::pointwise::activate(&device, x, self);
        }
        if ours(x) {
            let input = single(&x.contiguous()?)?;
            let guard = Guard::new(&input)?;
            let data = guard.values()?;
            // SAFETY: the output is as long as the input and every element is written.
            let values = unsafe { output(data.len(), |out| activate_all(Isa::current(), self, data, out)) };
            return tensor(values, x.dims(), x);
        }
        Ok(match self {
            Self::None => x.clone(),
            Self::Silu => x.silu()?,
            Self::Relu => x.relu()?,
            Self::GeluErf => x.gelu_erf()?,
            Self::QuickGelu => (x * ((x * -1.702)?.exp()? + 1.0)?.recip()?)?,
        })
    }

    /// The gradient of `x` for the gradient `grad` of [`Self::apply`].
    fn backward(self, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
        note("activation backward", self.name(), ours(x).then(Isa::current));
        #[cfg(feature = "cuda")]
        if let Some(device) = crate::cuda::device(x) {
            return crate::cuda::pointwise_backward::activate(&device, x, grad, self);
        }
        let (input, gradient) = (single(&x.contiguous()?)?, single(grad)?);
        let (data, guard) = (Guard::new(&input)?, Guard::new(&gradient)?);
        let (data, gradients) = (data.values()?, guard.values()?);
        let isa = Isa::current();
        // SAFETY: the gradient has the shape of `x`, and so has the output.
        let values = unsafe { output(data.len(), |out| activate_backward(isa, self, data, gradients, out)) };
        tensor(values, x.dims(), x)
    }
}

/// Splits `[…, 2c]` into value and gate halves and returns `value · gelu_erf(gate)`, `[…, c]`.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    let Some(last) = dims.pop().filter(|last| last % 2 == 0) else {
        return Err(KernelError::shape("geglu", "an even last dimension", x.dims()));
    };
    let half = last / 2;
    dims.push(half);
    if tracked([x]) && fused(x) {
        let input = x.detach();
        let out = geglu(&input)?;
        return record("geglu", &[x], out, move |grad, _| Ok(vec![Some(geglu_backward(&input, grad)?)]));
    }
    #[cfg(feature = "cuda")]
    if let Some(device) = crate::cuda::device(x) {
        note("geglu", "fused", None);
        return crate::cuda::pointwise::geglu(&device, x, half, &dims);
    }
    note("geglu", if ours(x) { "fused" } else { "composed" }, ours(x).then(Isa::current));
    if ours(x) {
        let input = single(&x.contiguous()?)?;
        let guard = Guard::new(&input)?;
        let data = guard.values()?;
        // SAFETY: rows of 2 · half values give rows of half values, all written.
        let values = unsafe { output(data.len() / 2, |out| gated(Isa::current(), data, half, out)) };
        return tensor(values, &dims, x);
    }
    let value = x.narrow(D::Minus1, 0, half)?;
    let gate = x.narrow(D::Minus1, half, half)?;
    Ok((value * Activation::GeluErf.apply(&gate.contiguous()?)?)?)
}

/// The gradient of `x` `[…, 2c]` for the gradient `grad` `[…, c]` of [`geglu`].
pub(crate) fn geglu_backward(x: &Tensor, grad: &Tensor) -> Result<Tensor> {
    note("geglu backward", "fused", ours(x).then(Isa::current));
    #[cfg(feature = "cuda")]
    if let Some(device) = crate::cuda::device(x) {
        return crate::cuda::pointwise_backward::geglu(&device, x, grad);
    }
    let (input, gradient) = (single(&x.contiguous()?)?, single(grad)?);
    let (data, guard) = (Guard::new(&input)?, Guard::new(&gradient)?);
    let (data, gradients) = (data.values()?, guard.values()?);
    let rows = data.len() / x.dim(D::Minus1)?.max(1);
    // SAFETY: rows of 2c values have gradients of c values.
    let values =
        unsafe { output(data.len(), |out| gated_backward(Isa::current(), data, gradients, rows, out)) };
    tensor(values, x.dims(), x)
}
