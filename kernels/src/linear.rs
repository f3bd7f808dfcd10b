//! Affine maps of the last dimension.

mod gradient;

use std::sync::Arc;

use candle_core::{D, Tensor};

use crate::autograd::{fused, tracked};
use crate::cpu::gemm::{Epilogue, Packed, product};
use crate::cpu::patches::Plain;
use crate::cpu::view::{Guard, ours, single, tensor};
use crate::cpu::{Isa, output};
use crate::error::{KernelError, Result};
use crate::pointwise::Activation;
use crate::used::note;

/// `x Wᵀ + b` over the last dimension; also serves as a 1×1 convolution of channels-last data.
///
/// On the CPU a frozen weight is repacked once at construction. Weights or a bias that want a gradient
/// ([`candle_core::Var`] or made from one) are kept as they are and packed by every call, so that an
/// optimizer's steps are seen. Results are differentiable by every operand that wants it.
#[derive(Debug, Clone)]
pub struct Linear {
    body: Body,
    out: usize,
    inner: usize,
}

#[derive(Debug, Clone)]
enum Body {
    Packed {
        weight: Arc<Packed>,
        bias: Option<Arc<[f32]>>,
    },
    Generic {
        weight: Tensor,
        bias: Option<Tensor>,
    },
    /// Rows under each other, of which some want a gradient.
    Trained {
        weights: Vec<Tensor>,
        bias: Option<Tensor>,
    },
}

impl Linear {
    /// `weight` is `[out, in]`, or `[out, in, 1, 1]` as a 1×1 convolution stores it; `bias` `[out]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let weight = match *weight.dims() {
            [_, _] => weight,
            [out, inner, 1, 1] => weight.reshape((out, inner))?,
            _ => return Err(KernelError::shape("linear", "[out, in]", weight.dims())),
        };
        Self::stacked(vec![weight], bias)
    }

    /// Layers that read the same input as one: the rows of `weights`, each `[out, in]`, under each other.
    pub fn stacked(weights: Vec<Tensor>, bias: Option<Tensor>) -> Result<Self> {
        let shapes: Vec<_> = weights.iter().map(|w| w.dims2()).collect::<candle_core::Result<_>>()?;
        let (out, inner) = (shapes.iter().map(|s| s.0).sum(), shapes.first().map_or(0, |s| s.1));
        if shapes.is_empty() || shapes.iter().any(|s| s.1 != inner) {
            return Err(KernelError::shape("linear", "weights [out, in] of one input", shapes));
        }
        if let Some(bias) = &bias
            && bias.dims() != [out]
        {
            return Err(KernelError::shape("linear", format!("a bias [{out}]"), bias.dims()));
        }
        if tracked(weights.iter().chain(&bias)) {
            return Ok(Self { body: Body::Trained { weights, bias }, out, inner });
        }
        Self::frozen(weights, bias)
    }

    fn frozen(mut weights: Vec<Tensor>, bias: Option<Tensor>) -> Result<Self> {
        let weight = if weights.len() == 1 { weights.swap_remove(0) } else { Tensor::cat(&weights, 0)? };
        let (out, inner) = weight.dims2()?;
        let body = if ours(&weight) {
            let values: Vec<f32> = single(&weight)?.flatten_all()?.to_vec1()?;
            let packed = Packed::new(out, inner, |j, k| values[j * inner + k]);
            Body::Packed { weight: Arc::new(packed), bias: bias.map(|b| bias_values(&b)).transpose()? }
        } else {
            Body::Generic { weight, bias }
        };
        Ok(Self { body, out, inner })
    }

    /// `[…, in]` to `[…, out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_fused(x, Activation::None, None)
    }

    /// [`Self::forward`] of two inputs `[…, a]` and `[…, b]` side by side, `a + b` values in a row.
    ///
    /// On a card they are read where they lie, unless a gradient is wanted.
    pub fn forward_joined(&self, parts: [&Tensor; 2]) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let (Body::Generic { weight, bias }, [x, rest]) = (&self.body, parts)
            && let Some(device) = crate::cuda::device(x)
            && let ([lead @ .., a], [rest_lead @ .., b]) = (x.dims(), rest.dims())
            && lead == rest_lead
            && a + b == self.inner
            && !tracked(parts)
        {
            let dims = [lead, &[self.out]].concat();
            let whole = crate::cuda::conv::linear::linear(
                &device,
                (x, Some(rest)),
                weight,
                bias.as_ref(),
                None,
                &dims,
            )?;
            if let Some(y) = whole {
                return Ok(y);
            }
        }
        self.forward(&Tensor::cat(&parts, D::Minus1)?)
    }

    /// `activation(x Wᵀ + b) + residual` in one pass; `residual` has the shape of the result.
    pub fn forward_fused(
        &self,
        x: &Tensor,
        activation: Activation,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let mut dims = x.dims().to_vec();
        if dims.pop() != Some(self.inner) {
            return Err(KernelError::shape("linear", format!("last dimension {}", self.inner), x.dims()));
        }
        let rows: usize = dims.iter().product();
        dims.push(self.out);
        check_residual("linear", residual, &dims)?;
        if fused(x) && (matches!(self.body, Body::Trained { .. }) || tracked([x].into_iter().chain(residual)))
        {
            return gradient::linear(self, x, activation, residual);
        }
        match &self.body {
            Body::Trained { weights, bias } => {
                note("linear", "composed", None);
                let weight = Tensor::cat(weights, 0)?;
                let y = x.contiguous()?.reshape((rows, self.inner))?.matmul(&weight.t()?)?;
                let y = bias.iter().try_fold(y, |y, bias| y.broadcast_add(bias))?;
                finish(y.reshape(dims)?, activation, residual)
            }
            Body::Packed { weight, bias } if ours(x) => {
                note("linear", "packed", Some(Isa::current()));
                let input = single(&x.contiguous()?)?;
                let guard = Guard::new(&input)?;
                let source = Plain { data: guard.values()?, depth: self.inner, columns: self.out };
                fused_output(rows * self.out, residual, bias.as_deref(), activation, |out, epilogue| {
                    // SAFETY: the input holds rows · inner values, the output and residual
                    // rows · out, the bias out.
                    unsafe { product(Isa::current(), &source, rows, weight, epilogue, out) }
                })
                .and_then(|values| tensor(values, &dims, x))
            }
            Body::Packed { .. } => Err(unsupported("linear", x)),
            Body::Generic { weight, bias } => {
                #[cfg(feature = "cuda")]
                if let Some(device) = crate::cuda::device(x)
                    && let Some(y) =
                        on_card(&device, x, (weight, bias.as_ref()), activation, residual, &dims)?
                {
                    return Ok(y);
                }
                note("linear", "composed", None);
                let y = x.contiguous()?.reshape((rows, self.inner))?.matmul(&weight.t()?)?;
                let y = match bias {
                    Some(bias) => y.broadcast_add(bias)?,
                    None => y,
                };
                finish(y.reshape(dims)?, activation, residual)
            }
        }
    }
}

/// The product with everything behind it in its epilogue, or in one pass more when an activation
/// stands between bias and residual.
#[cfg(feature = "cuda")]
fn on_card(
    device: &candle_core::cuda_backend::CudaDevice,
    x: &Tensor,
    (weight, bias): (&Tensor, Option<&Tensor>),
    activation: Activation,
    residual: Option<&Tensor>,
    dims: &[usize],
) -> Result<Option<Tensor>> {
    use crate::cuda::{conv::linear::linear, gemm::product, pointwise::finish};
    let plain = activation == Activation::None;
    if plain && let Some(y) = linear(device, (x, None), weight, bias, residual, dims)? {
        return Ok(Some(y));
    }
    let (inside, added) = if plain { (bias, residual) } else { (None, None) };
    let Some(y) = product(device, x, weight, inside, added, dims)? else { return Ok(None) };
    let y = if plain { y } else { finish(device, y, bias, activation, residual)? };
    // Afterwards, because the library may refuse.
    note("linear", "cublaslt", None);
    Ok(Some(y))
}

pub(crate) fn bias_values(bias: &Tensor) -> Result<Arc<[f32]>> {
    Ok(single(bias)?.to_vec1::<f32>()?.into())
}

pub(crate) fn unsupported(op: &'static str, x: &Tensor) -> KernelError {
    KernelError::DType { op, expected: "f32, f16 or bf16 on the CPU, where the weight is", got: x.dtype() }
}

pub(crate) fn check_residual(op: &'static str, residual: Option<&Tensor>, dims: &[usize]) -> Result<()> {
    match residual {
        Some(r) if r.dims() != dims => Err(KernelError::shape(op, format!("a residual {dims:?}"), r.dims())),
        _ => Ok(()),
    }
}

/// The generic tail: activation, then residual.
pub(crate) fn finish(y: Tensor, activation: Activation, residual: Option<&Tensor>) -> Result<Tensor> {
    let y = activation.apply(&y)?;
    Ok(match residual {
        Some(residual) => (y + residual)?,
        None => y,
    })
}

/// Allocates the output and lends the residual to `fill`, which must write every value.
pub(crate) fn fused_output(
    len: usize,
    residual: Option<&Tensor>,
    bias: Option<&[f32]>,
    activation: Activation,
    fill: impl FnOnce(crate::cpu::Shared, Epilogue<'_>),
) -> Result<Vec<f32>> {
    let residual = match residual {
        Some(r) if ours(r) => Some(single(&r.contiguous()?)?),
        Some(r) => return Err(unsupported("residual", r)),
        None => None,
    };
    let guard = residual.as_ref().map(Guard::new).transpose()?;
    let residual = guard.as_ref().map(Guard::values).transpose()?;
    // SAFETY: both callers run a product over all rows and columns of the output.
    Ok(unsafe { output(len, |out| fill(out, Epilogue { bias, activation, residual })) })
}
