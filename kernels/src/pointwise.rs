//! Activations and gated units.

use candle_core::{D, Tensor};

use crate::error::Result;

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
    /// The activated tensor.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::None => x.clone(),
            Self::Silu => x.silu()?,
            Self::Relu => x.relu()?,
            Self::GeluErf => x.gelu_erf()?,
            Self::QuickGelu => (x * ((x * -1.702)?.exp()? + 1.0)?.recip()?)?,
        })
    }
}

/// Splits `[…, 2c]` into value and gate halves and returns `value · gelu_erf(gate)`, `[…, c]`.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let halves = x.chunk(2, D::Minus1)?;
    Ok((&halves[0] * Activation::GeluErf.apply(&halves[1])?)?)
}
