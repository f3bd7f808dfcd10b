//! Scaled dot-product attention behind one entry.

mod blocks;
mod composed;
mod explain;
mod gradient;

use candle_core::{DType, Tensor};

pub use blocks::BlockList;
pub use explain::{Explained, explain_attention};
pub use gradient::attention_backward;

use crate::cpu::attention::{Problem, Visible, run};
use crate::cpu::operand::Operand;
use crate::cpu::view::{Guard, ours, single, tensor};
use crate::cpu::{Isa, output, threads};
use crate::error::{KernelError, Result};
use crate::plan::{AttentionKernel, AttentionShape, Target, plan_attention};
use crate::used::note;

/// Which keys a query may see.
#[derive(Debug, Clone)]
pub enum Mask {
    /// Every key.
    None,
    /// Query `i` sees keys `0..=i + (keys - queries)`.
    Causal,
    /// Sequence `i` has this many keys, the rest is padding. One entry a sequence, batch-major.
    Lengths(Vec<usize>),
    /// Added to the scores before the softmax, broadcastable to `[batch, heads, queries, keys]`.
    Bias(Tensor),
    /// Blocks of queries see blocks of keys.
    Blocks(BlockList),
}

/// How exact the arithmetic must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Softmax in f32, products in the input type (f32 on the CPU).
    Exact,
}

/// Everything about an attention call that is not a tensor operand.
#[derive(Debug, Clone)]
pub struct AttentionSpec {
    /// Multiplies the scores; usually `1/sqrt(dim)`.
    pub scale: f64,
    /// Visibility.
    pub mask: Mask,
    /// Arithmetic.
    pub precision: Precision,
}

impl AttentionSpec {
    /// Unmasked exact attention with the usual `1/sqrt(dim)` scale.
    pub fn new(dim: usize) -> Self {
        Self { scale: 1.0 / (dim as f64).sqrt(), mask: Mask::None, precision: Precision::Exact }
    }

    /// The same with another mask.
    pub fn with_mask(mut self, mask: Mask) -> Self {
        self.mask = mask;
        self
    }
}

/// `softmax(scale · q kᵀ + mask) v`.
///
/// `q` is `[batch, heads, queries, dim]`, `k` and `v` are `[batch, heads, keys, dim]` or have a divisor of
/// `heads` (each head then serves a group of query heads), any strides
/// (a last dimension that is not contiguous is copied). All three may have a second batch
/// dimension, `[batch, inner, heads, tokens, dim]`: frames of `[b · f, h · w, c]` attend to each
/// other through `[b, h · w, heads, f, dim]` views without a copy.
///
/// The result has `q`'s shape and is a permuted view of a contiguous `[batch, queries, heads, dim]`
/// or `[batch, queries, inner, heads, dim]` buffer, so putting the heads back together is free. A
/// query that sees no key gives zeros.
///
/// The result takes part in `Tensor::backward` with gradients for `q`, `k` and `v` ([`attention_backward`]);
/// a bias that wants a gradient is refused ([`KernelError::NoGradient`]).
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, spec: &AttentionSpec) -> Result<Tensor> {
    Ok(compute(q, k, v, spec, false)?.0)
}

/// [`attention`], and the natural logarithm of each query's sum of exponentials (f32,
/// `[batch, (inner,) heads, queries]`, -inf where no key is visible) for merging partial results. The
/// log-sums carry no gradient.
pub fn attention_with_lse(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spec: &AttentionSpec,
) -> Result<(Tensor, Tensor)> {
    let (out, lse) = compute(q, k, v, spec, true)?;
    let lse = lse.ok_or_else(|| KernelError::shape("attention", "a log-sum", "none"))?;
    Ok((out, lse))
}

fn compute(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spec: &AttentionSpec,
    want_lse: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let dims = check(q, k, v)?;
    check_mask(spec, &dims)?;
    gradient::check_bias(spec)?;
    let (q5, k5, v5) = (dims.five(q)?, dims.five(k)?, dims.five(v)?);
    let (out, lse) = if [q, k, v].iter().any(|x| x.track_op()) {
        let (out, lse) = forward(&q5.detach(), &k5.detach(), &v5.detach(), spec, &dims, true)?;
        let kept = lse.clone().ok_or_else(|| KernelError::shape("attention", "a log-sum", "none"))?;
        (gradient::record([&q5, &k5, &v5], out, kept, spec, &dims)?, lse)
    } else {
        forward(&q5, &k5, &v5, spec, &dims, want_lse)?
    };
    // [batch, queries, inner, heads, dim] to the caller's order.
    let out = out.permute((0, 2, 3, 1, 4))?;
    if dims.inner_given {
        Ok((out, lse))
    } else {
        Ok((out.squeeze(1)?, lse.map(|l| l.squeeze(1)).transpose()?))
    }
}

/// Operands of five dimensions to `[batch, queries, inner, heads, dim]` and log-sums.
fn forward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spec: &AttentionSpec,
    dims: &Dims,
    want_lse: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    #[cfg(feature = "cuda")]
    if let Some(device) = crate::cuda::device(q)
        && let Some(both) = crate::cuda::attention::attention(&device, [q, k, v], spec, dims, want_lse)?
    {
        return Ok(both);
    }
    let (k, v) = (dims.every_head(k.clone())?, dims.every_head(v.clone())?);
    if ours(q) && ours(&k) && ours(&v) {
        return on_cpu(q, &k, &v, spec, dims, want_lse);
    }
    note("attention", AttentionKernel::Composed.name(), None);
    composed::attention(q, &k, &v, spec, dims, want_lse)
}

/// Refuses masks that are not made for the extents.
fn check_mask(spec: &AttentionSpec, dims: &Dims) -> Result<()> {
    if let Mask::Lengths(lengths) = &spec.mask
        && (lengths.len() != dims.batch * dims.inner || lengths.iter().any(|n| *n > dims.keys))
    {
        return Err(KernelError::shape(
            "attention",
            format!("{} lengths of at most {} keys", dims.batch * dims.inner, dims.keys),
            lengths,
        ));
    }
    if let Mask::Blocks(list) = &spec.mask {
        let problems = dims.batch * dims.inner * dims.heads;
        if list.extents() != [dims.queries, dims.keys] || !problems.is_multiple_of(list.planes()) {
            return Err(KernelError::shape(
                "attention",
                format!(
                    "a block list for {} queries and {} keys whose planes divide {problems}",
                    dims.queries, dims.keys
                ),
                (list.extents(), list.planes()),
            ));
        }
    }
    Ok(())
}

/// `x` in f32 with a last dimension that is contiguous.
fn ready(x: &Tensor) -> Result<Tensor> {
    let x = single(x)?;
    Ok(if x.stride().last() == Some(&1) || x.dims().last() == Some(&1) { x } else { x.contiguous()? })
}

/// Extents of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dims {
    pub(crate) batch: usize,
    pub(crate) inner: usize,
    pub(crate) heads: usize,
    /// Heads of keys and values; each serves `heads / kv_heads` heads of queries in a row.
    pub(crate) kv_heads: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) dim: usize,
    inner_given: bool,
}

impl Dims {
    /// What the planner counts in.
    pub(crate) fn shape(&self) -> AttentionShape {
        AttentionShape {
            problems: self.batch * self.inner * self.heads,
            queries: self.queries,
            keys: self.keys,
            dim: self.dim,
        }
    }

    fn five(&self, x: &Tensor) -> Result<Tensor> {
        Ok(if self.inner_given { x.clone() } else { x.unsqueeze(1)? })
    }

    /// Keys or values with every query head's own copy, for kernels without grouped heads.
    fn every_head(&self, x: Tensor) -> Result<Tensor> {
        if self.kv_heads == self.heads {
            return Ok(x);
        }
        let (b, i, h, n, d) = x.dims5()?;
        let group = self.heads / h;
        // One more dimension than candle's kernels index well: batch and inner go together.
        let x = x.contiguous()?.reshape((b * i, h, 1, n, d))?;
        Ok(x.broadcast_as((b * i, h, group, n, d))?.contiguous()?.reshape((b, i, self.heads, n, d))?)
    }

    /// The bias seen as `[batch, inner, heads, queries, keys]`.
    pub(crate) fn bias(&self, bias: &Tensor) -> Result<Tensor> {
        let wanted = (self.batch, self.inner, self.heads, self.queries, self.keys);
        let expected =
            || KernelError::shape("attention", format!("a bias broadcastable to {wanted:?}"), bias.dims());
        if self.inner_given {
            return bias.broadcast_as(wanted).map_err(|_| expected());
        }
        let four =
            bias.broadcast_as((self.batch, self.heads, self.queries, self.keys)).map_err(|_| expected())?;
        Ok(four.unsqueeze(1)?)
    }
}

fn check(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Dims> {
    let wrong = || {
        KernelError::shape(
            "attention",
            "q [batch, (inner,) heads, queries, dim] with k and v [batch, (inner,) heads, keys, dim]",
            (q.dims(), k.dims(), v.dims()),
        )
    };
    let (inner_given, batch, inner, heads, queries, dim) = match *q.dims() {
        [b, h, n, d] => (false, b, 1, h, n, d),
        [b, i, h, n, d] => (true, b, i, h, n, d),
        _ => return Err(wrong()),
    };
    let rank = q.rank();
    let (kv_heads, keys) =
        if k.rank() == rank { (k.dims()[rank - 3], k.dims()[rank - 2]) } else { return Err(wrong()) };
    let grouped = kv_heads == heads || (kv_heads > 0 && heads % kv_heads == 0);
    let mut expected = q.dims().to_vec();
    expected[rank - 3] = kv_heads;
    expected[rank - 2] = keys;
    if k.dims() != expected || v.dims() != expected || dim == 0 || !grouped {
        return Err(wrong());
    }
    Ok(Dims { batch, inner, heads, kv_heads, queries, keys, dim, inner_given })
}

fn on_cpu(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spec: &AttentionSpec,
    dims: &Dims,
    want_lse: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let outer = dims.batch * dims.inner * dims.heads;
    let (q32, k32, v32) = (ready(q)?, ready(k)?, ready(v)?);
    let (qg, kg, vg) = (Guard::strided(&q32), Guard::strided(&k32), Guard::strided(&v32));
    let bias = match &spec.mask {
        Mask::Bias(bias) if ours(bias) => Some(single(&dims.bias(bias)?)?),
        Mask::Bias(bias) => return Err(crate::linear::unsupported("attention bias", bias)),
        _ => None,
    };
    let bias_guard = bias.as_ref().map(Guard::strided);
    let isa = Isa::current();
    let plan = plan_attention(dims.shape(), Target::Cpu { threads: threads() });
    note("attention", plan.kernel.name(), Some(isa));
    let visible = match (&spec.mask, &bias, &bias_guard) {
        (Mask::Bias(_), Some(bias), Some(guard)) => {
            Visible::Bias(operand(bias, guard)?, bias.stride().last().copied().unwrap_or(0))
        }
        _ => Visible::of(spec),
    };
    let (q_in, k_in, v_in) = (operand(&q32, &qg)?, operand(&k32, &kg)?, operand(&v32, &vg)?);
    let mut lse = want_lse.then(|| vec![0.0f32; outer * dims.queries]);
    let lse_at = lse.as_mut().map(|l| crate::cpu::Shared(l.as_mut_ptr()));
    // SAFETY: `operand` checked the reach of every stride, `check` the extents, `check_mask` the
    // lengths; each query of each sequence and head writes its row and its log-sum.
    let values = unsafe {
        output(outer * dims.queries * dims.dim, |out| {
            let problem = Problem {
                q: q_in,
                k: k_in,
                v: v_in,
                outer: [dims.batch, dims.inner, dims.heads],
                queries: dims.queries,
                keys: dims.keys,
                dim: dims.dim,
                scale: spec.scale as f32,
                visible,
                plan,
                out,
                lse: lse_at,
            };
            run(isa, &problem);
        })
    };
    let out = tensor(values, &[dims.batch, dims.queries, dims.inner, dims.heads, dims.dim], q)?;
    let lse = lse
        .map(|l| {
            Tensor::from_vec(l, (dims.batch, dims.inner, dims.heads, dims.queries), q.device())?
                .to_dtype(DType::F32)
        })
        .transpose()?;
    Ok((out, lse))
}

fn operand<'a>(x: &Tensor, guard: &'a Guard<'_>) -> Result<Operand<'a>> {
    let data = guard.values()?;
    let reach: usize = x.dims().iter().zip(x.stride()).map(|(n, s)| n.saturating_sub(1) * s).sum();
    let [a, b, c, d, _] = *x.stride() else {
        return Err(KernelError::shape("attention", "five dimensions", x.dims()));
    };
    if x.elem_count() > 0 && reach >= data.len() {
        return Err(KernelError::shape("attention", "strides within the memory", (x.dims(), x.stride())));
    }
    Ok(Operand { data, strides: [a, b, c, d] })
}
