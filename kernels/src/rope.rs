//! Rotary position embedding: pairs of channels turned by angles that grow with the position.

use candle_core::{DType, Tensor};

use crate::autograd::{record, tracked};
use crate::cpu::rope::{Rotation, rotate};
use crate::cpu::view::{Guard, ours, single, tensor};
use crate::cpu::{Isa, output};
use crate::error::{KernelError, Result};
use crate::used::note;

/// Which channels turn together, for `n` pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotaryPairs {
    /// `i` and `i + n`, as language models of the Llama and Qwen families have it.
    Halves,
    /// `2i` and `2i + 1`, as the RoFormer paper and most video transformers have it.
    Interleaved,
}

/// Turns pair `i` of every head of `x` by its token's angle: `(a cos - b sin, b cos + a sin)`.
///
/// `x` is `[batch, tokens, heads, dim]`, the layout projections write, of any strides; `cos` and `sin` are
/// f32 `[tokens, pairs]` or `[batch, tokens, pairs]` with `2 · pairs <= dim`, and channels from `2 · pairs`
/// on are copied. Angles of several axes (time, height, width) are laid side by side in `cos` and `sin`.
/// The result is contiguous and differentiable by `x`. Source: Su et al. 2021, section 3.2.2.
///
/// # Errors
/// [`KernelError::Shape`] for shapes that do not fit, [`KernelError::DType`] for angles that are not f32 or
/// for an `x` without kernels.
pub fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor, pairs: RotaryPairs) -> Result<Tensor> {
    let wrong = || {
        let got = (x.dims(), cos.dims(), sin.dims());
        KernelError::shape(
            "rope",
            "x [batch, tokens, heads, dim] with cos and sin [(batch,) tokens, up to dim / 2]",
            got,
        )
    };
    let [batch, tokens, _, dim] = *x.dims() else { return Err(wrong()) };
    let fits = match *cos.dims() {
        [t, n] => t == tokens && 2 * n <= dim,
        [b, t, n] => b == batch && t == tokens && 2 * n <= dim,
        _ => false,
    };
    if !fits || sin.dims() != cos.dims() {
        return Err(wrong());
    }
    for angles in [cos, sin] {
        if angles.dtype() != DType::F32 || !angles.device().same_device(x.device()) {
            let expected = "angles in f32 where x is";
            return Err(KernelError::DType { op: "rope", expected, got: angles.dtype() });
        }
    }
    let (cos, sin) = (cos.detach().contiguous()?, sin.detach().contiguous()?);
    let out = turned(&x.detach(), &cos, &sin, pairs, 1.0)?;
    if !tracked([x]) {
        return Ok(out);
    }
    // A rotation's transpose turns back.
    record("rope", &[x], out, move |grad, _| Ok(vec![Some(turned(grad, &cos, &sin, pairs, -1.0)?)]))
}

fn turned(x: &Tensor, cos: &Tensor, sin: &Tensor, pairs: RotaryPairs, sign: f32) -> Result<Tensor> {
    let (_, _, heads, dim) = x.dims4()?;
    let n = cos.dims().last().copied().unwrap_or_default();
    let (step, apart) = match pairs {
        RotaryPairs::Halves => (1, n),
        RotaryPairs::Interleaved => (2, 1),
    };
    #[cfg(feature = "cuda")]
    if let Some(device) = crate::cuda::device(x) {
        note("rope", "tokens", None);
        return crate::cuda::rope::rotate(&device, x, [cos, sin], step, sign);
    }
    if !ours(x) {
        return Err(KernelError::DType { op: "rope", expected: "f32, f16 or bf16", got: x.dtype() });
    }
    note("rope", "tokens", Some(Isa::current()));
    let input = single(&x.contiguous()?)?;
    let (data, cos, sin) = (Guard::new(&input)?, Guard::new(cos)?, Guard::new(sin)?);
    let call = Rotation {
        data: data.values()?,
        cos: cos.values()?,
        sin: sin.values()?,
        heads,
        dim,
        pairs: n,
        apart,
        step,
        sign,
    };
    // SAFETY: `rope` compared every extent.
    let values = unsafe { output(call.data.len(), |out| rotate(Isa::current(), &call, out)) };
    tensor(values, x.dims(), x)
}
