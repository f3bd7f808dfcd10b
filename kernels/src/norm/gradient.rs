//! Gradients of the norms, for whichever of their operands want one.

use candle_core::{DType, Tensor};

use super::{GroupNorm, LayerNorm, with_added};
use crate::autograd::{Gradients, record};
use crate::cpu::norm_backward::{group_norm_backward, layer_norm_backward};
use crate::cpu::view::{Guard, ours, single, tensor};
use crate::cpu::{Isa, output};
use crate::error::{KernelError, Result};
use crate::pointwise::Activation;
use crate::sums::sum_rows;
use crate::used::note;

/// Sums over the points of each sample, f32 `[n, channels]`.
pub(crate) struct GroupSums {
    /// Of the gradient before the activation.
    pub(crate) plain: Tensor,
    /// Of that gradient times the normalised value.
    pub(crate) normed: Tensor,
}

/// The forward pass as a node of the graph.
pub(super) fn group_norm(
    norm: &GroupNorm,
    x: &Tensor,
    added: Option<&Tensor>,
    film: Option<(&Tensor, &Tensor)>,
    activation: Activation,
    extents: (usize, usize, usize),
) -> Result<Tensor> {
    let mut operands = vec![x, &norm.weight, &norm.bias];
    operands.extend(added);
    operands.extend(film.map(|f| [f.0, f.1]).into_iter().flatten());
    let wanted: Vec<bool> = operands.iter().map(|x| x.track_op()).collect();
    let plain = GroupNorm { weight: norm.weight.detach(), bias: norm.bias.detach(), ..norm.clone() };
    let (input, added) = (x.detach(), added.map(Tensor::detach));
    let film = film.map(|(scale, shift)| (scale.detach(), shift.detach()));
    let out = plain.compute(&input, added.as_ref(), film.as_ref().map(|f| (&f.0, &f.1)), activation)?;
    record("group_norm", &operands, out, move |grad, _| {
        let film = film.as_ref().map(|f| (&f.0, &f.1));
        let parameters = wanted[1] || wanted[2] || film.is_some() && (wanted[3] || wanted[4]);
        let (dx, sums) = group_backward(&plain, &input, added.as_ref(), film, activation, extents, grad)?;
        let mut all: Gradients = vec![Some(dx.clone()), None, None];
        if let Some(added) = &added {
            let clips = wanted[3].then(|| sum_rows(&dx, added.dims())).transpose()?;
            all.push(clips);
        }
        if !parameters {
            return Ok(all);
        }
        let fits = |x: Tensor, like: &Tensor| x.to_dtype(like.dtype());
        let GroupSums { plain: offsets, normed } = sums;
        let scaled = |x: &Tensor| -> Result<Tensor> {
            let x = match film {
                Some((scale, _)) => x.mul(&(scale.to_dtype(DType::F32)? + 1.0)?)?,
                None => x.clone(),
            };
            Ok(x.sum(0)?)
        };
        all[1] = wanted[1].then(|| Result::Ok(fits(scaled(&normed)?, &plain.weight)?)).transpose()?;
        all[2] = wanted[2].then(|| Result::Ok(fits(scaled(&offsets)?, &plain.bias)?)).transpose()?;
        if let Some((scale, shift)) = film {
            let (weight, bias) = (plain.weight.to_dtype(DType::F32)?, plain.bias.to_dtype(DType::F32)?);
            let by_scale = (normed.broadcast_mul(&weight)? + offsets.broadcast_mul(&bias)?)?;
            all.extend([Some(fits(by_scale, scale)?), Some(fits(offsets, shift)?)]);
        }
        Ok(all)
    })
}

fn group_backward(
    norm: &GroupNorm,
    x: &Tensor,
    added: Option<&Tensor>,
    film: Option<(&Tensor, &Tensor)>,
    activation: Activation,
    (samples, points, channels): (usize, usize, usize),
    grad: &Tensor,
) -> Result<(Tensor, GroupSums)> {
    let extents = (samples, points, channels);
    #[cfg(feature = "cuda")]
    if let Some(device) = crate::cuda::device(x) {
        let call = crate::cuda::norm::GroupCall {
            weight: &norm.weight,
            bias: &norm.bias,
            rest: None,
            added,
            film,
            groups: norm.groups,
            eps: norm.eps,
            activation,
        };
        return crate::cuda::norm_backward::group_norm(&device, x, grad, &call, extents);
    }
    note("group_norm backward", "fused", Some(Isa::current()));
    let summed = added.map(|added| with_added(&single(x)?, &single(added)?)).transpose()?;
    let gradient = single(grad)?;
    let guard = Guard::new(&gradient)?;
    let gradients = guard.values()?;
    norm.with_call(summed.as_ref().unwrap_or(x), film, extents, activation, |call| {
        let mut sums = None;
        // SAFETY: the forward pass checked every extent; the gradient has the shape of `x`.
        let values = unsafe {
            output(call.data.len(), |out| {
                sums = Some(group_norm_backward(Isa::current(), call, gradients, out));
            })
        };
        let place = |x: Vec<f64>| -> Result<Tensor> {
            Ok(Tensor::from_vec(x, (samples, channels), grad.device())?.to_dtype(DType::F32)?)
        };
        let sums = sums.ok_or_else(|| KernelError::shape("group_norm", "sums", "none"))?;
        let sums = GroupSums { plain: place(sums.plain)?, normed: place(sums.normed)? };
        Ok((tensor(values, x.dims(), x)?, sums))
    })
}

/// The forward pass as a node of the graph.
pub(super) fn layer_norm(norm: &LayerNorm, x: &Tensor, added: Option<(&Tensor, usize)>) -> Result<Tensor> {
    let mut operands = vec![x, &norm.weight, &norm.bias];
    operands.extend(added.map(|a| a.0));
    let parameters = norm.weight.track_op() || norm.bias.track_op();
    let positions = match added {
        Some((added, repeat)) if added.track_op() => Some((added.dim(0)?, repeat, added.dtype())),
        _ => None,
    };
    let plain = LayerNorm { weight: norm.weight.detach(), bias: norm.bias.detach(), eps: norm.eps };
    let input = x.detach();
    let more = added.map(|(added, repeat)| (added.detach(), repeat));
    let out = plain.compute(&input, more.as_ref().map(|(added, repeat)| (added, *repeat)))?;
    record("layer_norm", &operands, out, move |grad, _| {
        let (dx, by_parameters) = layer_backward(&plain, &input, grad, parameters)?;
        let mut all: Gradients = vec![Some(dx), None, None];
        if let Some([weight, bias]) = by_parameters {
            all[1] = Some(weight.to_dtype(plain.weight.dtype())?);
            all[2] = Some(bias.to_dtype(plain.bias.dtype())?);
        }
        if let Some((period, repeat, dtype)) = positions {
            let channels = plain.weight.dim(0)?;
            let outer = grad.elem_count() / (period * repeat * channels);
            let rows = sum_rows(&grad.to_dtype(DType::F32)?, &[outer, period, channels])?;
            let rows = sum_rows(&rows, &[period * channels])?.reshape((period, channels))?;
            all.push(Some(rows.to_dtype(dtype)?));
        }
        Ok(all)
    })
}

/// The gradient of `x`, and f32 ones of weight and bias where asked for.
fn layer_backward(
    norm: &LayerNorm,
    x: &Tensor,
    grad: &Tensor,
    parameters: bool,
) -> Result<(Tensor, Option<[Tensor; 2]>)> {
    #[cfg(feature = "cuda")]
    if let Some(device) = crate::cuda::device(x) {
        return crate::cuda::norm_backward::layer_norm(&device, x, grad, &norm.weight, norm.eps, parameters);
    }
    debug_assert!(ours(x));
    note("layer_norm backward", "fused", Some(Isa::current()));
    let (input, gradient) = (single(&x.contiguous()?)?, single(grad)?);
    let (data, guard) = (Guard::new(&input)?, Guard::new(&gradient)?);
    let (data, gradients) = (data.values()?, guard.values()?);
    let weight = single(&norm.weight)?.to_vec1::<f32>()?;
    let (isa, eps) = (Isa::current(), norm.eps as f32);
    let mut sums = None;
    // SAFETY: the last dimension is as long as the weight, and the gradient has the shape of `x`.
    let values = unsafe {
        output(data.len(), |out| {
            sums = layer_norm_backward(isa, data, gradients, &weight, eps, parameters, out);
        })
    };
    let place = |x: Vec<f64>| -> Result<Tensor> {
        Ok(Tensor::from_vec(x, weight.len(), grad.device())?.to_dtype(DType::F32)?)
    };
    let sums = sums.map(|[weight, bias]| Result::Ok([place(weight)?, place(bias)?])).transpose()?;
    Ok((tensor(values, x.dims(), x)?, sums))
}
