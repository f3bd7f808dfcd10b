//! Attention's gradients on a card.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DeviceRepr};
use candle_core::{DType, Tensor};

use super::attention::{CardCopy, Params, call_of};
use super::{Output, address, element, function, launch};
use crate::attention::{AttentionSpec, Dims, Mask};
use crate::error::{KernelError, Result};
use crate::plan::AttentionKernel;
use crate::plan::cuda::CudaCall;
use crate::plan::cuda_backward::{BackwardPass, plan_cuda_backward};
use crate::used::note;

/// `BackwardParams` of `cuda/backward.cuh`, field by field. Strides count elements.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct BackwardParams {
    call: Params,
    grad: u64,
    dq: u64,
    dk: u64,
    dv: u64,
    rows: u64,
    seen: u64,
    grad_stride: [i64; 4],
    dq_stride: [i64; 4],
    dk_stride: [i64; 4],
    scale: f32,
    key_tiles: i32,
}

// SAFETY: plain numbers in C layout, the same as the kernels' parameter.
unsafe impl DeviceRepr for BackwardParams {}

/// Gradients of operands `[batch, inner, heads, tokens, dim]`, in their shape over memory in the order
/// batch, tokens, inner, heads, dim; `None` when no kernel takes the call.
///
/// `out` and `grad` have the queries' shape, `lse` is `[batch, inner, heads, queries]`.
pub(crate) fn backward(
    device: &CudaDevice,
    [q, k, v]: [&Tensor; 3],
    out: &Tensor,
    lse: &Tensor,
    grad: &Tensor,
    spec: &AttentionSpec,
    dims: &Dims,
) -> Result<Option<[Tensor; 3]>> {
    let dtype = q.dtype();
    for other in [k, v, out, grad] {
        if other.dtype() != dtype || !other.device().same_device(q.device()) {
            let got = other.dtype();
            return Err(KernelError::DType {
                op: "attention backward",
                expected: "q's type, on q's card",
                got,
            });
        }
    }
    if lse.dtype() != DType::F32 || !lse.device().same_device(q.device()) {
        let got = lse.dtype();
        return Err(KernelError::DType {
            op: "attention backward",
            expected: "f32 log-sums on q's card",
            got,
        });
    }
    let Some(element) = element(dtype) else { return Ok(None) };
    let last_together =
        |x: &Tensor| if x.stride()[4] == 1 || dims.dim == 1 { Ok(x.clone()) } else { x.contiguous() };
    let size = dtype.size_in_bytes();
    let aligned = |x: &Tensor| {
        let (extents, stride) = (x.dims(), x.stride());
        (x.layout().start_offset() * size).is_multiple_of(16)
            && (0..4).all(|axis| extents[axis] <= 1 || (stride[axis] * size).is_multiple_of(16))
    };
    // What comes back through candle's graph may have any strides; a copy is cheaper than the plain kernel.
    let vectors = |x: &Tensor| {
        let x = last_together(x)?;
        if size == 4 || !dims.dim.is_multiple_of(8) || aligned(&x) { Ok(x) } else { x.force_contiguous() }
    };
    let (q, k, v) = (vectors(q)?, vectors(k)?, vectors(v)?);
    let (out, grad, lse) = (vectors(out)?, vectors(grad)?, lse.contiguous()?);
    let bias = match &spec.mask {
        Mask::Bias(bias) if !bias.device().same_device(q.device()) => {
            return Err(KernelError::shape("attention backward", "a bias on q's card", bias.device()));
        }
        Mask::Bias(bias) => {
            let bias = dims.bias(bias)?;
            Some(if bias.dtype() == dtype { bias } else { bias.to_dtype(DType::F32)? })
        }
        _ => None,
    };
    let problems = dims.batch * dims.inner * dims.heads;
    let block = if let Mask::Blocks(list) = &spec.mask { list.block() } else { [0; 2] };
    let aligned = [&q, &k, &v, &out, &grad].into_iter().all(aligned);
    let call = CudaCall { aligned, distinct: true, ..call_of([&q, &k, &v], spec, dims) };
    let group = dims.heads / dims.kv_heads.max(1);
    let plan = plan_cuda_backward(call, group);
    if plan.kernel == AttentionKernel::Composed {
        return Ok(None);
    }
    note("attention backward", plan.kernel.name(), None);
    let key_rows = dims.batch * dims.inner * dims.kv_heads * dims.keys;
    let dq = Output::new(device, dtype, problems * dims.queries * dims.dim)?;
    let (dk, dv) =
        (Output::new(device, dtype, key_rows * dims.dim)?, Output::new(device, dtype, key_rows * dims.dim)?);
    let rows = Output::new(device, DType::F32, 2 * problems * dims.queries)?;
    let count = |what: usize| {
        i32::try_from(what).map_err(|_| KernelError::shape("attention backward", "extents below 2^31", what))
    };
    let stream = device.cuda_stream();
    let lengths = match &spec.mask {
        Mask::Lengths(lengths) => {
            let short = lengths.iter().map(|n| count(*n)).collect::<Result<Vec<i32>>>()?;
            Some(device.clone_htod(&short)?)
        }
        _ => None,
    };
    let list = match &spec.mask {
        Mask::Blocks(list) => Some((list, CardCopy::of(list, device)?)),
        _ => None,
    };
    // A byte a pair of blocks.
    let [tall, wide] = [(0, dims.queries), (1, dims.keys)].map(|(i, n)| n.div_ceil(block[i].max(1)));
    let list_rows = list.as_ref().map_or(0, |(list, _)| list.planes() * tall);
    // SAFETY: `attention_backward_seen` writes all of it before anything reads it.
    let seen = list.as_ref().map(|_| unsafe { device.alloc::<u8>((list_rows * wide).max(1)) }).transpose()?;
    let operands = [&q, &k, &v, &out, &grad, &lse];
    let storages = operands.map(Tensor::storage_and_layout);
    let guards = storages.each_ref().map(|s| address(&s.0, &stream));
    let [qa, ka, va, oa, ga, la] = guards;
    let (qa, ka, va, oa, ga, la) = (qa?, ka?, va?, oa?, ga?, la?);
    let bias_storage = bias.as_ref().map(Tensor::storage_and_layout);
    let ba = bias_storage.as_ref().map(|b| address(&b.0, &stream)).transpose()?;
    let lengths_at = lengths.as_ref().map(|l| l.device_ptr(&stream));
    let list_at = list.as_ref().map(|(_, c)| (c.0.device_ptr(&stream), c.1.device_ptr(&stream)));
    let seen_at = seen.as_ref().map(|s| s.device_ptr(&stream));
    let at = |base: u64, x: &Tensor| base + (x.layout().start_offset() * x.dtype().size_in_bytes()) as u64;
    let outer = |x: &Tensor| std::array::from_fn(|axis| x.stride()[axis] as i64);
    let token_major = |tokens: usize, heads: usize| {
        let row = dims.inner * heads * dims.dim;
        [tokens * row, heads * dims.dim, dims.dim, row].map(|s| s as i64)
    };
    let params = BackwardParams {
        call: Params {
            q: at(qa.0, &q),
            k: at(ka.0, &k),
            v: at(va.0, &v),
            out: at(oa.0, &out),
            lse: at(la.0, &lse),
            bias: ba.as_ref().zip(bias.as_ref()).map_or(0, |(a, b)| at(a.0, b)),
            lengths: lengths_at.as_ref().map_or(0, |l| l.0),
            block_start: list_at.as_ref().map_or(0, |l| l.0.0),
            block_index: list_at.as_ref().map_or(0, |l| l.1.0),
            q_stride: outer(&q),
            k_stride: outer(&k),
            v_stride: outer(&v),
            out_stride: outer(&out),
            bias_stride: bias
                .as_ref()
                .map_or([0; 5], |b| std::array::from_fn(|axis| b.stride()[axis] as i64)),
            batch: count(dims.batch)?,
            inner: count(dims.inner)?,
            heads: count(dims.heads)?,
            group: count(group)?,
            queries: count(dims.queries)?,
            keys: count(dims.keys)?,
            dim: count(dims.dim)?,
            mask: call.mask as i32,
            bias_f32: bias.as_ref().is_some_and(|b| b.dtype() == DType::F32).into(),
            block_q: count(block[0])?,
            block_k: count(block[1])?,
            block_planes: count(list.as_ref().map_or(0, |(list, _)| list.planes()))?,
            scale_log2: (spec.scale * std::f64::consts::LOG2_E) as f32,
            tiles: count(plan.queries.tiles)?,
        },
        grad: at(ga.0, &grad),
        dq: dq.address,
        dk: dk.address,
        dv: dv.address,
        rows: rows.address,
        seen: seen_at.as_ref().map_or(0, |s| s.0),
        grad_stride: outer(&grad),
        dq_stride: token_major(dims.queries, dims.heads),
        dk_stride: token_major(dims.keys, dims.kv_heads),
        scale: spec.scale as f32,
        key_tiles: count(plan.keys.tiles)?,
    };
    let queue = |source: &'static str, name: &str, pass: BackwardPass| -> Result<()> {
        if pass.blocks == 0 {
            return Ok(());
        }
        let blocks = u32::try_from(pass.blocks).ok().filter(|b| *b < 1 << 30).ok_or_else(|| {
            KernelError::shape(
                "attention backward",
                "fewer than 2^30 thread blocks; split the batch",
                pass.blocks,
            )
        })?;
        let function = function(device, source, element, name, pass.shared_bytes)?;
        // SAFETY: addresses and strides are those of live tensors whose guards are held past the call; the
        // callers compared the extents and `dims.bias` the bias; the outputs have room for every row.
        unsafe { launch(&stream, &function, (blocks, pass.threads, pass.shared_bytes), &params) }
    };
    if list.is_some() {
        let blocks = list_rows.div_ceil(128) as u64;
        let pass = BackwardPass { tiles: 1, blocks, threads: 128, shared_bytes: 0 };
        queue("backward_exact", "attention_backward_seen", pass)?;
    }
    let dim = plan.dim;
    match plan.kernel {
        AttentionKernel::Short => {
            let name = format!("attention_backward_short_d{dim}_n{}", plan.groups);
            queue("backward_short", &name, plan.queries)?;
        }
        // The pass over queries leaves delta to the pass over keys.
        AttentionKernel::Flash => {
            queue("backward_flash", &format!("attention_backward_queries_d{dim}"), plan.queries)?;
            queue("backward_flash", &format!("attention_backward_keys_d{dim}"), plan.keys)?;
            if plan.values_apart() {
                queue("backward_flash", &format!("attention_backward_values_d{dim}"), plan.keys)?;
            }
        }
        _ => {
            for (side, pass) in [("queries", plan.queries), ("keys", plan.keys)] {
                let name = format!("attention_backward_exact_{side}_d{dim}_t{}", pass.threads);
                queue("backward_exact", &name, pass)?;
            }
        }
    }
    drop((qa, ka, va, oa, ga, la, ba, lengths_at, list_at, seen_at));
    let back = |x: Output, tokens: usize, heads: usize| -> Result<Tensor> {
        let x = x.tensor(&[dims.batch, tokens, dims.inner, heads, dims.dim]);
        Ok(x.permute((0, 2, 3, 1, 4))?)
    };
    Ok(Some([
        back(dq, dims.queries, dims.heads)?,
        back(dk, dims.keys, dims.kv_heads)?,
        back(dv, dims.keys, dims.kv_heads)?,
    ]))
}
