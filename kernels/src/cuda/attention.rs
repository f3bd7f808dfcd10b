//! Attention calls to CUDA kernels.

use std::sync::{Arc, Mutex};

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr, DeviceRepr};
use candle_core::{DType, Tensor};

use super::tensor_map::TensorMap;
use super::{Output, address, card, element, function, launch};
use crate::attention::{AttentionSpec, BlockList, Dims, Mask};
use crate::error::{KernelError, Result};
use crate::plan::AttentionKernel;
use crate::plan::cuda::{CudaCall, MaskKind, plan_cuda_attention};
use crate::used::note;

/// `AttentionParams` of `cuda/common.cuh`, field by field. Strides count elements.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Params {
    q: u64,
    k: u64,
    v: u64,
    out: u64,
    lse: u64,
    bias: u64,
    lengths: u64,
    block_start: u64,
    block_index: u64,
    q_stride: [i64; 4],
    k_stride: [i64; 4],
    v_stride: [i64; 4],
    out_stride: [i64; 4],
    bias_stride: [i64; 5],
    batch: i32,
    inner: i32,
    heads: i32,
    group: i32,
    queries: i32,
    keys: i32,
    dim: i32,
    mask: i32,
    bias_f32: i32,
    block_q: i32,
    block_k: i32,
    block_planes: i32,
    scale_log2: f32,
    tiles: i32,
}

// SAFETY: plain numbers in C layout, the same as the kernels' parameter.
unsafe impl DeviceRepr for Params {}

/// `HopperParams` of `cuda/hopper.cu`.
#[repr(C, align(64))]
struct HopperParams {
    q: TensorMap,
    k: TensorMap,
    v: TensorMap,
    params: Params,
}

// SAFETY: plain data in C layout, the same as the kernel's parameter.
unsafe impl DeviceRepr for HopperParams {}

/// Row starts and block indices on a card.
type Uploaded = (CudaSlice<i32>, CudaSlice<i32>);

/// A block list on the card that last used it, so that later calls copy nothing.
#[derive(Debug, Default)]
pub(crate) struct CardCopy(Mutex<Option<(usize, Arc<Uploaded>)>>);

impl CardCopy {
    fn of(list: &BlockList, device: &CudaDevice) -> Result<Arc<Uploaded>> {
        let (start, index, copy) = list.parts();
        let card = device.cuda_stream().context().cu_ctx() as usize;
        let mut copy = copy.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((at, uploaded)) = &*copy
            && *at == card
        {
            return Ok(uploaded.clone());
        }
        // No allocation of nothing: a list may be empty.
        let index = if index.is_empty() { &[0] } else { index };
        let uploaded = Arc::new((device.clone_htod(start)?, device.clone_htod(index)?));
        *copy = Some((card, uploaded.clone()));
        Ok(uploaded)
    }
}

/// A call as the planner sees it; operands have five dimensions.
pub(crate) fn call_of(operands: [&Tensor; 3], spec: &AttentionSpec, dims: &Dims) -> CudaCall {
    let size = operands[0].dtype().size_in_bytes();
    let aligned = operands.iter().all(|x| {
        let (dims, stride) = (x.dims(), x.stride());
        (x.layout().start_offset() * size).is_multiple_of(16)
            && (0..4).all(|axis| dims[axis] <= 1 || (stride[axis] * size).is_multiple_of(16))
    });
    let distinct = operands.iter().all(|x| (0..4).all(|axis| x.dims()[axis] <= 1 || x.stride()[axis] > 0));
    CudaCall {
        shape: dims.shape(),
        half: operands[0].dtype() != DType::F32,
        brain: operands[0].dtype() == DType::BF16,
        aligned,
        distinct,
        plain_scale: spec.scale.is_finite() && spec.scale > 0.0,
        mask: match spec.mask {
            Mask::None => MaskKind::None,
            Mask::Causal => MaskKind::Causal,
            Mask::Lengths(_) => MaskKind::Lengths,
            Mask::Bias(_) => MaskKind::Bias,
            Mask::Blocks(_) => MaskKind::Blocks,
        },
        block: if let Mask::Blocks(list) = &spec.mask { list.block() } else { [0; 2] },
    }
}

/// Runs a call whose operands have five dimensions; `None` when no kernel takes it.
///
/// Returns `[batch, queries, inner, heads, dim]` and the log-sums `[batch, inner, heads, queries]`.
pub(crate) fn attention(
    device: &CudaDevice,
    [q, k, v]: [&Tensor; 3],
    spec: &AttentionSpec,
    dims: &Dims,
    want_lse: bool,
) -> Result<Option<(Tensor, Option<Tensor>)>> {
    let dtype = q.dtype();
    for other in [k, v] {
        if other.dtype() != dtype || !other.device().same_device(q.device()) {
            let got = other.dtype();
            return Err(KernelError::DType { op: "attention", expected: "q's type, on q's card", got });
        }
    }
    let Some(element) = element(dtype) else { return Ok(None) };
    let ready = |x: &Tensor| if x.stride()[4] == 1 || dims.dim == 1 { Ok(x.clone()) } else { x.contiguous() };
    let (q, k, v) = (ready(q)?, ready(k)?, ready(v)?);
    let bias = match &spec.mask {
        Mask::Bias(bias) => {
            if !bias.device().same_device(q.device()) {
                return Err(KernelError::shape("attention", "a bias on q's card", bias.device()));
            }
            let bias = dims.bias(bias)?;
            Some(if bias.dtype() == dtype { bias } else { bias.to_dtype(DType::F32)? })
        }
        _ => None,
    };
    let (rows, out_dims) =
        (dims.batch * dims.inner * dims.heads, [dims.batch, dims.queries, dims.inner, dims.heads, dims.dim]);
    let card = card(device)?;
    let call = call_of([&q, &k, &v], spec, dims);
    let plan = plan_cuda_attention(call, card);
    if plan.kernel == AttentionKernel::Composed {
        return Ok(None);
    }
    note("attention", plan.kernel.name(), None);
    let out = Output::new(device, dtype, rows * dims.queries * dims.dim)?;
    let lse = want_lse.then(|| Output::new(device, DType::F32, rows * dims.queries)).transpose()?;
    let lse_dims = [dims.batch, dims.inner, dims.heads, dims.queries];
    let finish =
        |out: Output, lse: Option<Output>| Some((out.tensor(&out_dims), lse.map(|l| l.tensor(&lse_dims))));
    if rows * dims.queries == 0 {
        return Ok(finish(out, lse));
    }
    let count = |what: usize| {
        i32::try_from(what).map_err(|_| KernelError::shape("attention", "extents below 2^31", what))
    };
    let blocks = u32::try_from(plan.blocks).ok().filter(|b| *b < 1 << 30).ok_or_else(|| {
        KernelError::shape("attention", "fewer than 2^30 thread blocks; split the batch", plan.blocks)
    })?;
    // Kernels number work items in 32 bits.
    if rows as u64 * plan.tiles as u64 >= 1 << 31 {
        return Err(KernelError::shape(
            "attention",
            "fewer than 2^31 tiles; split the batch",
            (rows, plan.tiles),
        ));
    }
    let stream = device.cuda_stream();
    let lengths = match &spec.mask {
        Mask::Lengths(lengths) => {
            let short = lengths.iter().map(|n| count(*n)).collect::<Result<Vec<i32>>>()?;
            Some(device.clone_htod(&short)?)
        }
        _ => None,
    };
    let blocks_on_card = match &spec.mask {
        Mask::Blocks(list) => Some((list, CardCopy::of(list, device)?)),
        _ => None,
    };
    let (qs, ks, vs) = (q.storage_and_layout(), k.storage_and_layout(), v.storage_and_layout());
    let bs = bias.as_ref().map(Tensor::storage_and_layout);
    let (qa, ka, va) = (address(&qs.0, &stream)?, address(&ks.0, &stream)?, address(&vs.0, &stream)?);
    let ba = bs.as_ref().map(|b| address(&b.0, &stream)).transpose()?;
    let la = lengths.as_ref().map(|l| l.device_ptr(&stream));
    let la_blocks = blocks_on_card.as_ref().map(|(_, c)| (c.0.device_ptr(&stream), c.1.device_ptr(&stream)));
    let at = |base: u64, x: &Tensor| base + (x.layout().start_offset() * x.dtype().size_in_bytes()) as u64;
    let outer = |x: &Tensor| std::array::from_fn(|axis| x.stride()[axis] as i64);
    let row = dims.inner * dims.heads * dims.dim;
    let params = Params {
        q: at(qa.0, &q),
        k: at(ka.0, &k),
        v: at(va.0, &v),
        out: out.address,
        lse: lse.as_ref().map_or(0, |l| l.address),
        bias: ba.as_ref().zip(bias.as_ref()).map_or(0, |(a, b)| at(a.0, b)),
        lengths: la.as_ref().map_or(0, |l| l.0),
        block_start: la_blocks.as_ref().map_or(0, |l| l.0.0),
        block_index: la_blocks.as_ref().map_or(0, |l| l.1.0),
        q_stride: outer(&q),
        k_stride: outer(&k),
        v_stride: outer(&v),
        out_stride: [dims.queries * row, dims.heads * dims.dim, dims.dim, row].map(|s| s as i64),
        bias_stride: bias.as_ref().map_or([0; 5], |b| std::array::from_fn(|axis| b.stride()[axis] as i64)),
        batch: count(dims.batch)?,
        inner: count(dims.inner)?,
        heads: count(dims.heads)?,
        group: count(dims.heads / dims.kv_heads.max(1))?,
        queries: count(dims.queries)?,
        keys: count(dims.keys)?,
        dim: count(dims.dim)?,
        mask: call.mask as i32,
        bias_f32: bias.as_ref().is_some_and(|b| b.dtype() == DType::F32).into(),
        block_q: count(call.block[0])?,
        block_k: count(call.block[1])?,
        block_planes: count(blocks_on_card.as_ref().map_or(0, |(list, _)| list.planes()))?,
        scale_log2: (spec.scale * std::f64::consts::LOG2_E) as f32,
        tiles: count(plan.tiles)?,
    };
    let (source, name) = match plan.kernel {
        AttentionKernel::Short => ("short", format!("attention_short_d{}_k{}", plan.dim, plan.key_groups)),
        AttentionKernel::Cross => ("cross", format!("attention_cross_d{}_k{}", plan.dim, plan.key_groups)),
        AttentionKernel::Hopper if call.mask == MaskKind::Blocks => {
            ("hopper", format!("attention_blocks_d{}", plan.dim))
        }
        AttentionKernel::Hopper => ("hopper", format!("attention_hopper_d{}", plan.dim)),
        AttentionKernel::Flash => ("flash", format!("attention_flash_d{}", plan.dim)),
        _ => ("exact", "attention_exact".into()),
    };
    let function = function(device, source, element, &name, plan.shared_bytes)?;
    let grid = (blocks, plan.threads, plan.shared_bytes);
    // SAFETY: addresses and strides are those of live tensors whose guards are held past the call,
    // `check` compared the extents, `dims.bias` the bias, `compute` the lengths; the output has room
    // for every row and log-sum.
    unsafe {
        if plan.kernel == AttentionKernel::Hopper {
            let half = dtype == DType::F16;
            let key_rows = 16 * plan.key_groups as u32;
            let parameters = HopperParams {
                q: TensorMap::rows(params.q, &q, half, 64)?,
                k: TensorMap::rows(params.k, &k, half, key_rows)?,
                v: TensorMap::rows(params.v, &v, half, key_rows)?,
                params,
            };
            launch(&stream, &function, grid, &parameters)?;
        } else {
            launch(&stream, &function, grid, &params)?;
        }
    }
    drop((qa, ka, va, ba, la, la_blocks));
    Ok(finish(out, lse))
}
