//! Attention's gradients, by a call of their own and through `Tensor::backward`.

use candle_core::{Tensor, Var};

use super::{AttentionSpec, Dims, Mask, check, check_mask, composed, operand, ready};
use crate::autograd;
use crate::cpu::attention::{Problem, Visible};
use crate::cpu::attention_backward::{Backward, key_chunks, run};
use crate::cpu::view::{Guard, ours, single, tensor};
use crate::cpu::{Isa, Shared, output, threads};
use crate::error::{KernelError, Result};
use crate::plan::{AttentionKernel, AttentionShape, Target, plan_attention};
use crate::used::note;

/// Gradients of queries, keys and values of [`attention`](super::attention), each in its operand's
/// shape and type.
///
/// `out` and `lse` are what [`attention_with_lse`](super::attention_with_lse) gave for the same
/// operands, `grad` is the gradient of `out` and has its shape; any strides. Weights are recomputed a
/// tile at a time (FlashAttention's backward pass): memory grows with tokens, not with their square.
/// Where heads of queries share a head of keys, its gradients are the sum over them. No result depends
/// on threads or on the order in which a card runs its blocks.
///
/// `Tensor::backward` calls this by itself for results of `attention`; call it directly where the
/// forward pass runs again anyway, as with recomputed blocks.
///
/// # Errors
/// Shapes that do not fit together, and a bias whose gradient is wanted ([`KernelError::NoGradient`]).
pub fn attention_backward(
    [q, k, v]: [&Tensor; 3],
    out: &Tensor,
    lse: &Tensor,
    grad: &Tensor,
    spec: &AttentionSpec,
) -> Result<[Tensor; 3]> {
    let dims = check(q, k, v)?;
    check_mask(spec, &dims)?;
    let mut rows = q.dims().to_vec();
    rows.pop();
    if out.dims() != q.dims() || grad.dims() != q.dims() || lse.dims() != rows {
        return Err(KernelError::shape(
            "attention backward",
            format!("result and gradient {:?}, log-sums {rows:?}", q.dims()),
            (out.dims(), grad.dims(), lse.dims()),
        ));
    }
    let five = |x: &Tensor| dims.five(&x.detach());
    let lse = if dims.inner_given { lse.detach() } else { lse.detach().unsqueeze(1)? };
    let grads = backward([&five(q)?, &five(k)?, &five(v)?], &five(out)?, &lse, &five(grad)?, spec, &dims)?;
    if dims.inner_given {
        return Ok(grads);
    }
    let [dq, dk, dv] = grads;
    Ok([dq.squeeze(1)?, dk.squeeze(1)?, dv.squeeze(1)?])
}

/// Refuses a bias that wants a gradient.
pub(super) fn check_bias(spec: &AttentionSpec) -> Result<()> {
    match &spec.mask {
        Mask::Bias(bias) if bias.track_op() => Err(KernelError::NoGradient {
            op: "attention",
            operand: "bias",
            advice: "detach it, or write the attention out in tensor operations to train it",
        }),
        _ => Ok(()),
    }
}

/// Ties a computed result `[batch, queries, inner, heads, dim]` to the operands it came from.
pub(super) fn record(
    [q, k, v]: [&Tensor; 3],
    out: Tensor,
    lse: Tensor,
    spec: &AttentionSpec,
    dims: &Dims,
) -> Result<Tensor> {
    let (spec, dims, operands) = (spec.clone(), *dims, [q.detach(), k.detach(), v.detach()]);
    autograd::record("attention", &[q, k, v], out, move |grad, out| {
        let rows = |x: &Tensor| x.permute((0, 2, 3, 1, 4));
        let [q, k, v] = &operands;
        let grads = backward([q, k, v], &rows(out)?, &lse, &rows(grad)?, &spec, &dims)?;
        Ok(grads.map(Some).into())
    })
}

/// Everything as `[batch, inner, heads, tokens, dim]` without a graph behind it, and `lse` as
/// `[batch, inner, heads, queries]`.
fn backward(
    operands: [&Tensor; 3],
    out: &Tensor,
    lse: &Tensor,
    grad: &Tensor,
    spec: &AttentionSpec,
    dims: &Dims,
) -> Result<[Tensor; 3]> {
    check_bias(spec)?;
    if grad.dtype() != operands[0].dtype() {
        let got = grad.dtype();
        return Err(KernelError::DType { op: "attention backward", expected: "the operands' type", got });
    }
    #[cfg(feature = "cuda")]
    if let Some(device) = crate::cuda::device(operands[0])
        && let Some(grads) =
            crate::cuda::attention_backward::backward(&device, operands, out, lse, grad, spec, dims)?
    {
        return Ok(grads);
    }
    if operands.iter().all(|x| ours(x)) && ours(grad) {
        return on_cpu(operands, out, lse, grad, spec, dims);
    }
    note("attention backward", AttentionKernel::Composed.name(), None);
    let [q, k, v] = operands;
    let (q, k, v) = (Var::from_tensor(q)?, Var::from_tensor(k)?, Var::from_tensor(v)?);
    let (k5, v5) = (dims.every_head(k.as_tensor().clone())?, dims.every_head(v.as_tensor().clone())?);
    let out = composed::attention(&q, &k5, &v5, spec, dims, true)?.0;
    let grads = (out.permute((0, 2, 3, 1, 4))? * grad)?.sum_all()?.backward()?;
    let of = |x: &Var| match grads.get(x) {
        Some(grad) => Ok(grad.clone()),
        None => x.zeros_like(),
    };
    Ok([of(&q)?, of(&k)?, of(&v)?])
}

fn on_cpu(
    [q, k, v]: [&Tensor; 3],
    out: &Tensor,
    lse: &Tensor,
    grad: &Tensor,
    spec: &AttentionSpec,
    dims: &Dims,
) -> Result<[Tensor; 3]> {
    let ([q32, k32, v32], [out32, grad32]) = ([ready(q)?, ready(k)?, ready(v)?], [ready(out)?, ready(grad)?]);
    let (qg, kg, vg) = (Guard::strided(&q32), Guard::strided(&k32), Guard::strided(&v32));
    let (og, gg) = (Guard::strided(&out32), Guard::strided(&grad32));
    let lse = single(&lse.contiguous()?)?;
    let lse_guard = Guard::new(&lse)?;
    let bias = match &spec.mask {
        Mask::Bias(bias) if ours(bias) => Some(single(&dims.bias(bias)?)?),
        Mask::Bias(bias) => return Err(crate::linear::unsupported("attention bias", bias)),
        _ => None,
    };
    let bias_guard = bias.as_ref().map(Guard::strided);
    let visible = match (&spec.mask, &bias, &bias_guard) {
        (Mask::Bias(_), Some(bias), Some(guard)) => {
            Visible::Bias(operand(bias, guard)?, bias.stride().last().copied().unwrap_or(0))
        }
        _ => Visible::of(spec),
    };
    let isa = Isa::current();
    note("attention backward", AttentionKernel::Flash.name(), Some(isa));
    let problems = dims.batch * dims.inner * dims.heads;
    let shape = AttentionShape { problems, queries: dims.queries, keys: dims.keys, dim: dims.dim };
    let (q_in, k_in, v_in) = (operand(&q32, &qg)?, operand(&k32, &kg)?, operand(&v32, &vg)?);
    let (result, grad_in) = (operand(&out32, &og)?, operand(&grad32, &gg)?);
    let sequences = dims.batch * dims.inner;
    let chunks = key_chunks(sequences * dims.kv_heads, dims.keys);
    let (query_values, key_values) =
        (problems * dims.queries * dims.dim, sequences * dims.kv_heads * dims.keys * dims.dim);
    let mut partial = vec![0.0f32; if chunks > 1 { chunks * query_values } else { 0 }];
    let partial = Shared(partial.as_mut_ptr());
    let lse_values = lse_guard.values()?;
    let call = |dq| Problem {
        q: q_in,
        k: k_in,
        v: v_in,
        outer: [dims.batch, dims.inner, dims.heads],
        queries: dims.queries,
        keys: dims.keys,
        dim: dims.dim,
        scale: spec.scale as f32,
        visible,
        plan: plan_attention(shape, Target::Cpu { threads: threads() }),
        out: dq,
        lse: None,
    };
    let (mut dk, mut dv) = (Vec::new(), Vec::new());
    // SAFETY: `operand` checked the reach of every stride, `check` and the callers the extents, `check_mask`
    // the lengths; each unit writes the rows of its keys, and its rows of queries or of `partial`.
    let dq = unsafe {
        output(query_values, |dq| {
            dk = output(key_values, |dk| {
                dv = output(key_values, |dv| {
                    let group = dims.heads / dims.kv_heads.max(1);
                    let call = call(dq);
                    let lse = lse_values;
                    run(isa, &Backward { call, group, result, grad: grad_in, lse, dk, dv, chunks, partial });
                });
            });
        })
    };
    // [batch, tokens, inner, heads, dim] in memory, so that putting heads back together is free.
    let back = |values, tokens, heads, like: &Tensor| -> Result<Tensor> {
        let x = tensor(values, &[dims.batch, tokens, dims.inner, heads, dims.dim], like)?;
        Ok(x.permute((0, 2, 3, 1, 4))?)
    };
    Ok([
        back(dq, dims.queries, dims.heads, q)?,
        back(dk, dims.keys, dims.kv_heads, k)?,
        back(dv, dims.keys, dims.kv_heads, v)?,
    ])
}
