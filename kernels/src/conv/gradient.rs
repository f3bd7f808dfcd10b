//! Gradients of convolutions and of doubled pictures.
//!
//! The gradient by the input of a convolution is another convolution, so it runs on the same kernels: the
//! weight with its taps turned round and its channels exchanged, packed for the one call.

use candle_core::{D, DType, Tensor};

use super::{Body, Conv2d, upsample_nearest2x};
use crate::autograd::{Gradients, record};
use crate::cpu::pointwise_backward::add_blocks;
use crate::cpu::view::{Guard, ours, single, tensor};
use crate::cpu::{Isa, output};
use crate::error::Result;
use crate::linear::finish;
use crate::pointwise::Activation;
use crate::sums::sum_rows;
use crate::used::note;

/// The forward pass as a node of the graph; an activation and what follows are nodes of their own.
pub(super) fn conv2d(
    layer: &Conv2d,
    x: &Tensor,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    if activation != Activation::None {
        return finish(layer.forward_fused(x, Activation::None, None)?, activation, residual);
    }
    let parts = Parts::new(layer, x)?;
    let plain = residual.map(Tensor::detach);
    let out = parts.plain.forward_fused(&x.detach(), Activation::None, plain.as_ref())?;
    parts.record(x, residual, out, false)
}

/// The convolution of the doubled picture as a node of the graph.
pub(super) fn upsampled(layer: &Conv2d, x: &Tensor) -> Result<Tensor> {
    let parts = Parts::new(layer, x)?;
    let out = parts.plain.forward_upsampled(&x.detach())?;
    parts.record(x, None, out, true)
}

/// A layer with its trained tensors apart.
struct Parts {
    plain: Conv2d,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
}

impl Parts {
    fn new(layer: &Conv2d, x: &Tensor) -> Result<Self> {
        let Body::Trained { weight, bias } = &layer.body else {
            return Ok(Self { plain: layer.clone(), weight: None, bias: None });
        };
        // A master copy in f32 serves layers that compute in half types.
        let (weight, bias) =
            (weight.to_dtype(x.dtype())?, bias.as_ref().map(|b| b.to_dtype(x.dtype())).transpose()?);
        let plain = bias.as_ref().map(Tensor::detach);
        let plain = Conv2d::new(weight.detach(), plain, layer.stride, layer.padding)?;
        Ok(Self { plain, weight: Some(weight), bias })
    }

    fn record(self, x: &Tensor, residual: Option<&Tensor>, out: Tensor, doubled: bool) -> Result<Tensor> {
        let Self { plain, weight, bias } = self;
        let mut operands = vec![x];
        operands.extend(&weight);
        operands.extend(&bias);
        operands.extend(residual);
        let wants_input = x.track_op();
        let wants_weight = weight.as_ref().map(Tensor::track_op);
        let wants_bias = bias.as_ref().map(Tensor::track_op);
        let input = x.detach();
        record("conv2d", &operands, out, move |grad, _| {
            let mut all: Gradients = vec![None];
            if wants_input {
                let by_input = if doubled { plain.by_doubled(grad) } else { plain.by_input(grad, &input) };
                all[0] = Some(by_input?);
            }
            if let Some(wanted) = wants_weight {
                let seen = || if doubled { upsample_nearest2x(&input) } else { Ok(input.clone()) };
                all.push(wanted.then(|| plain.by_weight(&seen()?, grad)).transpose()?);
            }
            if let Some(wanted) = wants_bias {
                all.push(wanted.then(|| sum_rows(grad, &[plain.out])).transpose()?);
            }
            all.push(Some(grad.clone()));
            Ok(all)
        })
    }
}

impl Conv2d {
    /// The weight `[out, in, kernel, kernel]`.
    fn weight(&self) -> Result<Tensor> {
        let (out, inner, kernel) = (self.out, self.inner, self.kernel);
        match &self.body {
            Body::Packed { weight, .. } => {
                let area = kernel * kernel;
                let at = |i: usize| weight.value(i / (inner * area), i % area * inner + i / area % inner);
                let values: Vec<f32> = (0..out * inner * area).map(at).collect();
                Ok(Tensor::from_vec(values, (out, inner, kernel, kernel), &candle_core::Device::Cpu)?)
            }
            #[cfg(feature = "cuda")]
            Body::Card(weights) => weights.original(),
            Body::Generic { weight, .. } | Body::Trained { weight, .. } => Ok(weight.detach()),
        }
    }

    /// The gradient of the input `x` for the gradient `grad` of the result.
    fn by_input(&self, grad: &Tensor, x: &Tensor) -> Result<Tensor> {
        let (_, height, width, _) = x.dims4()?;
        if x.elem_count() == 0 || grad.elem_count() == 0 {
            return Ok(x.zeros_like()?);
        }
        let grad = spread(grad, self.stride)?;
        // With more padding than a kernel reaches over, the outermost results saw zeros only.
        let (padding, cut) = if self.padding < self.kernel {
            (self.kernel - 1 - self.padding, 0)
        } else {
            (0, self.padding + 1 - self.kernel)
        };
        let (_, h, w, _) = grad.dims4()?;
        let grad = grad.narrow(1, cut, h - cut)?.narrow(2, cut, w - cut)?;
        let turned = turn(&self.weight()?.transpose(0, 1)?.contiguous()?)?;
        // At least as large as the input: what is spread ends with a whole step.
        let y = Conv2d::new(turned, None, 1, padding)?.forward(&grad)?;
        Ok(y.narrow(1, 0, height)?.narrow(2, 0, width)?.contiguous()?)
    }

    /// The gradient of the small picture for the gradient `grad` of the result over the doubled one: the
    /// four copies of a pixel are seen through 4×4 taps, two steps on for the next pixel.
    fn by_doubled(&self, grad: &Tensor) -> Result<Tensor> {
        let (n, h, w, _) = grad.dims4()?;
        if grad.elem_count() == 0 {
            return Ok(Tensor::zeros((n, h / 2, w / 2, self.inner), grad.dtype(), grad.device())?);
        }
        let weight = self.weight()?.transpose(0, 1)?.to_dtype(DType::F32)?;
        let both = |x: &Tensor, axis: usize| -> Result<Tensor> {
            let tap = |i: usize| x.narrow(axis, i, 1);
            let taps = [tap(2)?, (tap(1)? + tap(2)?)?, (tap(0)? + tap(1)?)?, tap(0)?];
            Ok(Tensor::cat(&taps, axis)?)
        };
        let weight = both(&both(&weight, 2)?, 3)?.to_dtype(grad.dtype())?;
        Conv2d::new(weight.contiguous()?, None, 2, 1)?.forward(grad)
    }

    /// The gradient of the weight, `[out, in, kernel, kernel]`: a product of all pixels for every tap.
    fn by_weight(&self, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
        note("conv2d backward", "library", None);
        let (kernel, inner, out) = (self.kernel, self.inner, self.out);
        if grad.elem_count() * inner == 0 {
            return Ok(Tensor::zeros((out, inner, kernel, kernel), x.dtype(), x.device())?);
        }
        let (on_cpu, dtype) = (ours(x), x.dtype());
        let wide = |x: &Tensor| if on_cpu { single(x) } else { Ok(x.clone()) };
        let (_, oh, ow, _) = grad.dims4()?;
        let grad = wide(grad)?.reshape(((), out))?;
        let (s, p) = (self.stride, self.padding);
        let x = wide(x)?.pad_with_zeros(1, p, p + s)?.pad_with_zeros(2, p, p + s)?;
        let mut taps = Vec::with_capacity(kernel * kernel);
        for (ky, kx) in (0..kernel).flat_map(|y| (0..kernel).map(move |x| (y, x))) {
            let seen = x.narrow(1, ky, oh * s)?.narrow(2, kx, ow * s)?.contiguous()?;
            // The first of every `s` lines, then of every `s` pixels.
            let seen = seen.reshape(((), s, ow * s * inner))?.narrow(1, 0, 1)?.contiguous()?;
            let seen = seen.reshape(((), s, inner))?.narrow(1, 0, 1)?.contiguous()?.reshape(((), inner))?;
            taps.push(grad.t()?.matmul(&seen)?);
        }
        let weight = Tensor::stack(&taps, D::Minus1)?.reshape((out, inner, kernel, kernel))?;
        Ok(weight.to_dtype(dtype)?)
    }
}

/// `weight` `[a, b, kernel, kernel]` with its taps in the opposite order.
fn turn(weight: &Tensor) -> Result<Tensor> {
    let (a, b, kernel, _) = weight.dims4()?;
    let area = (kernel * kernel) as u32;
    let order = Tensor::from_vec((0..area).rev().collect::<Vec<u32>>(), area as usize, weight.device())?;
    let taps = weight.reshape((a * b, kernel * kernel))?.index_select(&order, 1)?;
    Ok(taps.reshape((a, b, kernel, kernel))?)
}

/// `[n, h, w, c]` with `step - 1` zeros behind every pixel and line.
fn spread(x: &Tensor, step: usize) -> Result<Tensor> {
    if step == 1 {
        return Ok(x.clone());
    }
    let (n, h, w, c) = x.dims4()?;
    let lines = x.reshape((n * h * w, 1, c))?.pad_with_zeros(1, 0, step - 1)?;
    let lines = lines.reshape((n * h, 1, w * step * c))?.pad_with_zeros(1, 0, step - 1)?;
    Ok(lines.reshape((n, h * step, w * step, c))?)
}

/// The gradient of a picture for the gradient `grad` `[n, 2h, 2w, c]` of the doubled one.
pub(super) fn halved(grad: &Tensor) -> Result<Tensor> {
    let (n, h, w, c) = grad.dims4()?;
    let dims = [n, h / 2, w / 2, c];
    note("upsample backward", "nearest", ours(grad).then(Isa::current));
    #[cfg(feature = "cuda")]
    if let Some(device) = crate::cuda::device(grad) {
        return crate::cuda::pointwise_backward::halve(&device, grad);
    }
    let gradient = single(grad)?;
    let guard = Guard::new(&gradient)?;
    let data = guard.values()?;
    // SAFETY: two lines of the doubled picture give one of the small.
    let values = unsafe { output(data.len() / 4, |out| add_blocks(Isa::current(), data, n * h / 2, c, out)) };
    tensor(values, &dims, grad)
}
