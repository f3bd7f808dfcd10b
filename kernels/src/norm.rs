//! Group and layer normalisation with the activation that follows them.

mod gradient;

use candle_core::{D, Tensor};
#[cfg(feature = "cuda")]
pub(crate) use gradient::GroupSums;

use crate::autograd::{fused, tracked};
use crate::cpu::norm::{Groups, group_norm, layer_norm};
use crate::cpu::view::{Guard, ours, single, tensor};
use crate::cpu::{Isa, output};
use crate::error::{KernelError, Result};
use crate::pointwise::Activation;
use crate::used::note;

/// Normalises groups of neighbouring channels of channels-last data.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// `weight` and `bias` are `[channels]`; `groups` divides `channels`.
    pub fn new(weight: Tensor, bias: Tensor, groups: usize, eps: f64) -> Result<Self> {
        let channels = weight.dims1()?;
        if groups == 0 || channels == 0 || channels % groups != 0 || bias.dims() != [channels] {
            return Err(KernelError::shape(
                "group_norm",
                format!("channels a multiple of {groups} groups, bias like weight"),
                (weight.dims(), bias.dims()),
            ));
        }
        Ok(Self { weight, bias, groups, eps })
    }

    /// Statistics over all dimensions but the first and, within it, per channel group; then the
    /// affine map and `activation`.
    ///
    /// `x` is `[n, …, channels]`. To pool the statistics over frames, reshape
    /// `[b * frames, h, w, c]` to `[b, frames * h, w, c]` first: that is a view.
    pub fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        self.compute(x, None, None, activation)
    }

    /// [`Self::forward`] of `[n, …, a]` and `[n, …, b]` side by side, `a + b` channels.
    ///
    /// On a card they are read where they lie, unless a gradient is wanted.
    pub fn forward_joined(&self, parts: [&Tensor; 2], activation: Activation) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let [x, rest] = parts
            && let Some(device) = crate::cuda::device(x)
            && let ([n, inside @ .., a], [rest_n, rest_inside @ .., b]) = (x.dims(), rest.dims())
            && (n, inside) == (rest_n, rest_inside)
            && a + b == self.weight.dims1()?
            && !tracked([x, rest, &self.weight, &self.bias])
        {
            let call = crate::cuda::norm::GroupCall {
                weight: &self.weight,
                bias: &self.bias,
                rest: Some(rest),
                added: None,
                film: None,
                groups: self.groups,
                eps: self.eps,
                activation,
            };
            let extents = (*n, inside.iter().product(), a + b);
            if let Some(y) = crate::cuda::norm::group_norm(&device, x, &call, extents)? {
                return Ok(y);
            }
        }
        self.forward(&Tensor::cat(&parts, D::Minus1)?, activation)
    }

    /// `activation(norm(x + added))`; each row of `added` `[m, channels]` serves `n / m` samples of
    /// `x` in a row. A time embedding enters a normed block this way without a pass of its own.
    pub fn forward_added(&self, x: &Tensor, added: &Tensor, activation: Activation) -> Result<Tensor> {
        self.compute(x, Some(added), None, activation)
    }

    /// `activation(norm(x) · (1 + scale) + shift)` with `scale` and `shift` `[n, channels]`.
    pub fn forward_film(
        &self,
        x: &Tensor,
        scale: &Tensor,
        shift: &Tensor,
        activation: Activation,
    ) -> Result<Tensor> {
        self.compute(x, None, Some((scale, shift)), activation)
    }

    fn compute(
        &self,
        x: &Tensor,
        added: Option<&Tensor>,
        film: Option<(&Tensor, &Tensor)>,
        activation: Activation,
    ) -> Result<Tensor> {
        let dims = x.dims().to_vec();
        let channels = self.weight.dims1()?;
        let (n, last) = match *dims.as_slice() {
            [n, .., last] => (n, last),
            _ => return Err(KernelError::shape("group_norm", "[n, …, channels]", dims)),
        };
        if last != channels {
            return Err(KernelError::shape("group_norm", format!("{channels} channels last"), dims));
        }
        if let Some((scale, shift)) = film
            && (scale.dims() != [n, channels] || shift.dims() != [n, channels])
        {
            let got = (scale.dims(), shift.dims());
            return Err(KernelError::shape("group_norm", format!("scale and shift [{n}, {channels}]"), got));
        }
        if let Some(added) = added
            && !matches!(*added.dims(), [m, c] if c == channels && m > 0 && n % m == 0)
        {
            let expected = format!("added [m, {channels}] with m dividing {n}");
            return Err(KernelError::shape("group_norm", expected, added.dims()));
        }
        let points: usize = dims[1..dims.len() - 1].iter().product();
        let operands =
            [Some(x), Some(&self.weight), Some(&self.bias), added, film.map(|f| f.0), film.map(|f| f.1)];
        if tracked(operands.into_iter().flatten()) && fused(x) {
            return gradient::group_norm(self, x, added, film, activation, (n, points, channels));
        }
        #[cfg(feature = "cuda")]
        if let Some(device) = crate::cuda::device(x) {
            let call = crate::cuda::norm::GroupCall {
                weight: &self.weight,
                bias: &self.bias,
                rest: None,
                added,
                film,
                groups: self.groups,
                eps: self.eps,
                activation,
            };
            if let Some(y) = crate::cuda::norm::group_norm(&device, x, &call, (n, points, channels))? {
                return Ok(y);
            }
        }
        let summed = added.map(|added| with_added(x, added)).transpose()?;
        let x = summed.as_ref().unwrap_or(x);
        if ours(x) && ours(&self.weight) && ours(&self.bias) {
            note("group_norm", "fused", Some(Isa::current()));
            let values = self.on_cpu(x, film, (n, points, channels), activation)?;
            return tensor(values, &dims, x);
        }
        note("group_norm", "composed", None);
        let grouped = x.contiguous()?.reshape((n, points, self.groups, channels / self.groups))?;
        let mean = grouped.mean_keepdim((1, 3))?;
        let centred = grouped.broadcast_sub(&mean)?;
        let variance = centred.sqr()?.mean_keepdim((1, 3))?;
        let normed =
            centred.broadcast_div(&(variance + self.eps)?.sqrt()?)?.reshape((n, points, channels))?;
        let mut y = normed.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?;
        if let Some((scale, shift)) = film {
            y = y.broadcast_mul(&(scale + 1.0)?.unsqueeze(1)?)?.broadcast_add(&shift.unsqueeze(1)?)?;
        }
        activation.apply(&y.reshape(dims)?)
    }

    fn on_cpu(
        &self,
        x: &Tensor,
        film: Option<(&Tensor, &Tensor)>,
        (samples, points, channels): (usize, usize, usize),
        activation: Activation,
    ) -> Result<Vec<f32>> {
        self.with_call(x, film, (samples, points, channels), activation, |call| {
            // SAFETY: `compute` checked every extent named in the call.
            Ok(unsafe { output(call.data.len(), |out| group_norm(Isa::current(), call, out)) })
        })
    }

    /// Lends the operands to a CPU kernel.
    fn with_call<T>(
        &self,
        x: &Tensor,
        film: Option<(&Tensor, &Tensor)>,
        (samples, points, channels): (usize, usize, usize),
        activation: Activation,
        run: impl FnOnce(&Groups<'_>) -> Result<T>,
    ) -> Result<T> {
        let input = single(&x.contiguous()?)?;
        let guard = Guard::new(&input)?;
        let list = |x: &Tensor| -> Result<Vec<f32>> { Ok(single(x)?.flatten_all()?.to_vec1()?) };
        let (weight, bias) = (list(&self.weight)?, list(&self.bias)?);
        let film =
            film.map(|(scale, shift)| -> Result<_> { Ok((list(scale)?, list(shift)?)) }).transpose()?;
        run(&Groups {
            data: guard.values()?,
            samples,
            points,
            channels,
            groups: self.groups,
            eps: self.eps,
            weight: &weight,
            bias: &bias,
            film: film.as_ref().map(|(scale, shift)| (scale.as_slice(), shift.as_slice())),
            activation,
        })
    }
}

/// `x` `[n, …, channels]` with each row of `added` `[m, channels]` added to `n / m` samples in a row.
fn with_added(x: &Tensor, added: &Tensor) -> Result<Tensor> {
    let (m, channels) = added.dims2()?;
    let clips = (m, x.elem_count() / (m * channels), channels);
    Ok(x.contiguous()?.reshape(clips)?.broadcast_add(&added.unsqueeze(1)?)?.reshape(x.dims())?)
}

/// Normalises the last dimension.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// `weight` and `bias` are `[channels]`.
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        Self { weight, bias, eps }
    }

    /// `x` is `[…, channels]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.compute(x, None)
    }

    /// `norm(x) + added`, where row `r` of `x` gets row `(r / repeat) % m` of `added` `[m, channels]`:
    /// with `x` `[batch, frames, pixels, channels]` and `repeat` pixels, a position a frame.
    pub fn forward_added(&self, x: &Tensor, added: &Tensor, repeat: usize) -> Result<Tensor> {
        let channels = self.weight.dims1()?;
        let rows = x.elem_count() / channels.max(1);
        if !matches!(*added.dims(), [m, c] if m > 0 && c == channels && repeat > 0 && rows.is_multiple_of(m * repeat))
        {
            let expected = format!("added [m, {channels}] with m times {repeat} dividing {rows} rows");
            return Err(KernelError::shape("layer_norm", expected, added.dims()));
        }
        self.compute(x, Some((added, repeat)))
    }

    fn compute(&self, x: &Tensor, added: Option<(&Tensor, usize)>) -> Result<Tensor> {
        let channels = self.weight.dims1()?;
        if x.dims().last() != Some(&channels) || self.bias.dims() != [channels] || channels == 0 {
            return Err(KernelError::shape(
                "layer_norm",
                format!("{channels} channels last and as many biases"),
                (x.dims(), self.bias.dims()),
            ));
        }
        let operands = [Some(x), Some(&self.weight), Some(&self.bias), added.map(|a| a.0)];
        if tracked(operands.into_iter().flatten()) && fused(x) {
            return gradient::layer_norm(self, x, added);
        }
        #[cfg(feature = "cuda")]
        if let Some(device) = crate::cuda::device(x)
            && let Some(y) =
                crate::cuda::norm::layer_norm(&device, x, (&self.weight, &self.bias), added, self.eps)?
        {
            return Ok(y);
        }
        let normed = self.apart(x)?;
        let Some((added, repeat)) = added else { return Ok(normed) };
        let m = added.dim(0)?;
        let rows = (x.elem_count() / channels / (m * repeat), m, repeat, channels);
        let added = added.reshape((1, m, 1, channels))?;
        Ok(normed.reshape(rows)?.broadcast_add(&added)?.reshape(x.dims())?)
    }

    /// The norm where no kernel of a card takes it.
    fn apart(&self, x: &Tensor) -> Result<Tensor> {
        if ours(x) && ours(&self.weight) && ours(&self.bias) {
            note("layer_norm", "fused", Some(Isa::current()));
            let input = single(&x.contiguous()?)?;
            let guard = Guard::new(&input)?;
            let data = guard.values()?;
            let (weight, bias) =
                (single(&self.weight)?.to_vec1::<f32>()?, single(&self.bias)?.to_vec1::<f32>()?);
            // SAFETY: the last dimension is `channels` long, and so are weight and bias.
            let values = unsafe {
                output(data.len(), |out| {
                    layer_norm(Isa::current(), data, &weight, &bias, self.eps as f32, out)
                })
            };
            return tensor(values, x.dims(), x);
        }
        note("layer_norm", "composed", None);
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = centred.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        Ok(normed.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?)
    }
}
