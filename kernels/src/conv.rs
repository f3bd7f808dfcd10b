//! Convolution and resampling over channels-last pictures.

mod gradient;

use std::sync::{Arc, OnceLock};

use candle_core::Tensor;

use crate::autograd::{fused, record, tracked};
use crate::cpu::gemm::{Packed, product};
use crate::cpu::patches::Patches;
use crate::cpu::pointwise::copy_blocks;
use crate::cpu::view::{Guard, ours, single, tensor};
use crate::cpu::{Isa, output};
use crate::error::{KernelError, Result};
use crate::linear::{bias_values, check_residual, finish, fused_output, unsupported};
use crate::pointwise::Activation;
use crate::used::note;

/// A 2-D convolution with square stride and zero padding.
///
/// A frozen weight is repacked once at construction. A weight or bias that wants a gradient
/// ([`candle_core::Var`] or made from one) is kept as it is and packed by every call. Results are
/// differentiable by every operand that wants it.
#[derive(Debug, Clone)]
pub struct Conv2d {
    body: Body,
    out: usize,
    inner: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
}

#[derive(Debug, Clone)]
enum Body {
    Packed {
        weight: Arc<Packed>,
        bias: Option<Arc<[f32]>>,
        phases: Arc<OnceLock<[Packed; 4]>>,
    },
    #[cfg(feature = "cuda")]
    Card(crate::cuda::conv::Weights),
    Generic {
        weight: Tensor,
        bias: Option<Tensor>,
    },
    /// Weight or bias want a gradient.
    Trained {
        weight: Tensor,
        bias: Option<Tensor>,
    },
}

impl Conv2d {
    /// `weight` is `[out, in, kernel, kernel]` as checkpoints store it, `bias` is `[out]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>, stride: usize, padding: usize) -> Result<Self> {
        let (out, inner, kernel, kw) = weight.dims4()?;
        if kernel != kw || kernel == 0 || stride == 0 || bias.as_ref().is_some_and(|b| b.dims() != [out]) {
            return Err(KernelError::shape(
                "conv2d",
                "a square kernel, a stride of at least 1 and one bias an output channel",
                (weight.dims(), stride, bias.as_ref().map(|b| b.dims().to_vec())),
            ));
        }
        let body = if tracked([&weight].into_iter().chain(&bias)) {
            Body::Trained { weight, bias }
        } else if ours(&weight) {
            let values: Vec<f32> = single(&weight)?.flatten_all()?.to_vec1()?;
            let area = kernel * kernel;
            let packed =
                Packed::new(out, area * inner, |j, k| values[(j * inner + k % inner) * area + k / inner]);
            let bias = bias.map(|b| bias_values(&b)).transpose()?;
            Body::Packed { weight: Arc::new(packed), bias, phases: Arc::default() }
        } else {
            Self::elsewhere(weight, bias, stride, padding)?
        };
        Ok(Self { body, out, inner, kernel, stride, padding })
    }

    #[cfg(feature = "cuda")]
    fn elsewhere(weight: Tensor, bias: Option<Tensor>, stride: usize, padding: usize) -> Result<Body> {
        let geometry = crate::cuda::conv::Geometry { kernel: weight.dim(2)?, stride, padding };
        Ok(match crate::cuda::conv::Weights::new(&weight, bias.as_ref(), geometry)? {
            Some(weights) => Body::Card(weights),
            None => Body::Generic { weight, bias },
        })
    }

    #[cfg(not(feature = "cuda"))]
    fn elsewhere(weight: Tensor, bias: Option<Tensor>, _: usize, _: usize) -> Result<Body> {
        Ok(Body::Generic { weight, bias })
    }

    /// `[n, height, width, in]` to `[n, height', width', out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_fused(x, Activation::None, None)
    }

    /// `activation(conv(x) + b) + residual` in one pass; `residual` has the shape of the result.
    pub fn forward_fused(
        &self,
        x: &Tensor,
        activation: Activation,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (n, height, width) = self.check(x)?;
        let size =
            |len: usize| (len + 2 * self.padding).checked_sub(self.kernel).map(|room| room / self.stride + 1);
        let (Some(out_height), Some(out_width)) = (size(height), size(width)) else {
            return Err(KernelError::shape(
                "conv2d",
                format!("at least {0}x{0} pixels with padding", self.kernel),
                x.dims(),
            ));
        };
        let dims = [n, out_height, out_width, self.out];
        check_residual("conv2d", residual, &dims)?;
        if self.differentiates(x, residual) {
            return gradient::conv2d(self, x, activation, residual);
        }
        match &self.body {
            Body::Packed { weight, bias, .. } if ours(x) => {
                note("conv2d", "packed", Some(Isa::current()));
                let input = single(&x.contiguous()?)?;
                let guard = Guard::new(&input)?;
                let source = Patches {
                    data: guard.values()?,
                    height,
                    width,
                    channels: self.inner,
                    out_height,
                    out_width,
                    kernel: self.kernel,
                    stride: self.stride,
                    padding: (self.padding, self.padding),
                    columns: self.out,
                    spread: 1,
                    phase: (0, 0),
                };
                let rows = n * out_height * out_width;
                fused_output(rows * self.out, residual, bias.as_deref(), activation, |out, epilogue| {
                    // SAFETY: the input is [n, height, width, inner], the output and residual
                    // rows · out, and the patch geometry is the one the output size came from.
                    unsafe { product(Isa::current(), &source, rows, weight, epilogue, out) }
                })
                .and_then(|values| tensor(values, &dims, x))
            }
            Body::Packed { .. } => Err(unsupported("conv2d", x)),
            #[cfg(feature = "cuda")]
            Body::Card(weights) => weights.forward(x, dims, activation, residual),
            Body::Generic { weight, bias } | Body::Trained { weight, bias } => {
                self.composed(x, weight, bias.as_ref(), activation, residual)
            }
        }
    }

    /// Whether a call is to be a node of ours in the graph.
    fn differentiates(&self, x: &Tensor, residual: Option<&Tensor>) -> bool {
        let trained = matches!(self.body, Body::Trained { .. });
        fused(x) && (trained || tracked([x].into_iter().chain(residual)))
    }

    fn composed(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        note("conv2d", "composed", None);
        let nchw = x.permute((0, 3, 1, 2))?.contiguous()?;
        let y = nchw.conv2d(weight, self.padding, self.stride, 1, 1)?;
        let y = y.permute((0, 2, 3, 1))?.contiguous()?;
        let y = match bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        finish(y, activation, residual)
    }

    /// `forward(upsample_nearest2x(x))` without the large picture.
    ///
    /// A 3×3 kernel over repeated pixels sees only 2×2 different ones, so each of the four output
    /// phases is a 2×2 convolution with summed weights: 4/9 of the products. Differs from the
    /// two calls by rounding only.
    pub fn forward_upsampled(&self, x: &Tensor) -> Result<Tensor> {
        let (n, height, width) = self.check(x)?;
        if (self.kernel, self.stride, self.padding) == (3, 1, 1) && self.differentiates(x, None) {
            return gradient::upsampled(self, x);
        }
        #[cfg(feature = "cuda")]
        if let Body::Card(weights) = &self.body
            && weights.upsamples()
        {
            return weights.forward_upsampled(x);
        }
        let (Body::Packed { weight, bias, phases }, true, (3, 1, 1)) =
            (&self.body, ours(x), (self.kernel, self.stride, self.padding))
        else {
            return self.forward(&upsample_nearest2x(x)?);
        };
        note("conv2d", "upsampled", Some(Isa::current()));
        let phases = phases.get_or_init(|| [0, 1, 2, 3].map(|phase| self.phase_weight(weight, phase)));
        let input = single(&x.contiguous()?)?;
        let guard = Guard::new(&input)?;
        let dims = [n, 2 * height, 2 * width, self.out];
        let data = guard.values()?;
        let values =
            fused_output(dims.iter().product(), None, bias.as_deref(), Activation::None, |out, epilogue| {
                for (index, weight) in phases.iter().enumerate() {
                    let phase = (index / 2, index % 2);
                    let source = Patches {
                        data,
                        height,
                        width,
                        channels: self.inner,
                        out_height: height,
                        out_width: width,
                        kernel: 2,
                        stride: 1,
                        padding: (1 - phase.0, 1 - phase.1),
                        columns: self.out,
                        spread: 2,
                        phase,
                    };
                    // SAFETY: the four phases together write every pixel of the doubled picture.
                    unsafe { product(Isa::current(), &source, n * height * width, weight, epilogue, out) }
                }
            })?;
        tensor(values, &dims, x)
    }

    fn phase_weight(&self, weight: &Packed, phase: usize) -> Packed {
        // Kernel rows (or columns) that fall on the first and second input pixel of a phase.
        let taps = |phase: usize, tap: usize| match (phase, tap) {
            (0, 0) => 0..1,
            (0, _) => 1..3,
            (_, 0) => 0..2,
            _ => 2..3,
        };
        Packed::new(self.out, 4 * self.inner, |j, k| {
            let (tap, c) = (k / self.inner, k % self.inner);
            let (rows, columns) = (taps(phase / 2, tap / 2), taps(phase % 2, tap % 2));
            rows.flat_map(|y| columns.clone().map(move |x| (3 * y + x) * self.inner + c))
                .map(|k| weight.value(j, k))
                .sum()
        })
    }

    fn check(&self, x: &Tensor) -> Result<(usize, usize, usize)> {
        match *x.dims() {
            [n, height, width, channels] if channels == self.inner => Ok((n, height, width)),
            _ => Err(KernelError::shape("conv2d", format!("[n, height, width, {}]", self.inner), x.dims())),
        }
    }
}

/// Doubles height and width of `[n, height, width, channels]` by repeating pixels.
pub fn upsample_nearest2x(x: &Tensor) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    if tracked([x]) && fused(x) {
        let out = upsample_nearest2x(&x.detach())?;
        return record("upsample", &[x], out, |grad, _| Ok(vec![Some(gradient::halved(grad)?)]));
    }
    note("upsample", "nearest", ours(x).then(Isa::current));
    #[cfg(feature = "cuda")]
    if let Some(device) = crate::cuda::device(x) {
        return crate::cuda::pointwise::upsample_nearest2x(&device, x);
    }
    if !ours(x) {
        let x = x.reshape((n, h, 1, w, 1, c))?.broadcast_as((n, h, 2, w, 2, c))?;
        return Ok(x.reshape((n, 2 * h, 2 * w, c))?);
    }
    let input = single(&x.contiguous()?)?;
    let guard = Guard::new(&input)?;
    let data = guard.values()?;
    // SAFETY: every input line fills its two output lines.
    let values = unsafe { output(4 * data.len(), |out| copy_blocks(Isa::current(), data, n * h, w, c, out)) };
    tensor(values, &[n, 2 * h, 2 * w, c], x)
}
