//! The first half of a transformer's feed-forward layer.

use candle_core::Tensor;

use crate::error::{KernelError, Result};
use crate::linear::Linear;
use crate::pointwise::geglu;
#[cfg(feature = "cuda")]
use crate::{autograd::record, pointwise::geglu_backward};

/// `geglu(x Wᵀ + b)`: an affine map to values and gates, of which only `value · gelu_erf(gate)` is stored.
///
/// On a card the two are one pass in f16 and bf16.
#[derive(Debug, Clone)]
pub struct GatedLinear {
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    #[cfg(feature = "cuda")]
    Card(crate::cuda::conv::Weights),
    Plain(Linear),
}

impl GatedLinear {
    /// `weight` is `[2 · out, in]`, values first, `bias` is `[2 · out]`, as checkpoints store them.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let (rows, _) = weight.dims2()?;
        if rows % 2 != 0 || bias.as_ref().is_some_and(|b| b.dims() != [rows]) {
            let got = (weight.dims(), bias.as_ref().map(|b| b.dims().to_vec()));
            return Err(KernelError::shape("geglu", "an even number of rows and as many biases", got));
        }
        #[cfg(feature = "cuda")]
        if let Some(weights) = crate::cuda::conv::Weights::gated(&weight, bias.as_ref())? {
            return Ok(Self { body: Body::Card(weights) });
        }
        Ok(Self { body: Body::Plain(Linear::new(weight, bias)?) })
    }

    /// `[…, in]` to `[…, out]`. On the way back a card computes values and gates again instead of keeping
    /// them: they are eight times as large as `x` in a usual network.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.body {
            #[cfg(feature = "cuda")]
            Body::Card(weights) => {
                let (weights, input) = (weights.clone(), x.detach());
                record("gated_linear", &[x], weights.forward_gated(&input)?, move |grad, _| {
                    let (weight, bias) = weights.ungated()?;
                    let linear = Linear::new(weight, bias)?;
                    let both = geglu_backward(&linear.forward(&input)?, grad)?;
                    Ok(vec![Some(linear.by_input(&both)?)])
                })
            }
            Body::Plain(linear) => geglu(&linear.forward(x)?),
        }
    }
}
