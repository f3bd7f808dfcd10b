//! Attention over keys and values that stay in host memory and pass through the card in chunks.
//!
//! FastAttention's cooperation of processor and card, for sequences without growth: a second stream copies
//! the next chunk while the first works on this one, and partial results are merged by their log-sums,
//! which is exact. A transfer hides under the arithmetic when a key meets enough queries
//! ([`StreamPlan::hidden_from_queries`](crate::StreamPlan)).

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaEvent, CudaStream, DeviceRepr, sys};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};

use super::{Held, Output, element, function, launch};
use crate::attention::{AttentionSpec, Mask, attention_with_lse};
use crate::error::{KernelError, Result};
use crate::plan::AttentionShape;
use crate::plan::stream::plan_streaming;

/// Keys and values in host memory, `[batch, heads, keys, dim]` each, that cards may read.
///
/// Pages are locked for the life of this value, so that copies run beside kernels; where the system
/// refuses, copies still work but wait ([`HostKeys::locked`]).
#[derive(Debug)]
pub struct HostKeys {
    parts: [Tensor; 2],
    locks: Vec<Lock>,
}

/// Locked pages. Whoever holds it keeps the memory.
#[derive(Debug)]
struct Lock {
    at: *mut std::ffi::c_void,
    context: Arc<CudaContext>,
}

// SAFETY: the pointer is only handed back to the driver, which takes it from any thread.
unsafe impl Send for Lock {}
// SAFETY: as above; nothing is done through a shared reference.
unsafe impl Sync for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: `at` was registered by `HostKeys::new` and is registered once.
            let _ = unsafe { sys::cuMemHostUnregister(self.at) };
        }
    }
}

impl HostKeys {
    /// Takes keys and values on the CPU, of one type and shape, and locks their pages for `device`.
    ///
    /// # Errors
    /// [`KernelError::NoCuda`] for a device that is no card; shapes or types that differ; tensors elsewhere.
    pub fn new(device: &Device, k: &Tensor, v: &Tensor) -> Result<Self> {
        let card = card_of(device)?;
        if k.rank() != 4 || k.dims() != v.dims() {
            return Err(KernelError::shape(
                OP,
                "keys and values of one shape [batch, heads, keys, dim]",
                (k.dims(), v.dims()),
            ));
        }
        if k.dtype() != v.dtype() || element(k.dtype()).is_none() {
            let got = if element(k.dtype()).is_none() { k.dtype() } else { v.dtype() };
            return Err(KernelError::DType { op: OP, expected: "f32, f16 or bf16, keys as values", got });
        }
        if !k.device().is_cpu() || !v.device().is_cpu() {
            return Err(KernelError::shape(OP, "keys and values on the CPU", (k.device(), v.device())));
        }
        let parts = [k.contiguous()?, v.contiguous()?];
        let mut locks = Vec::new();
        let context = card.cuda_stream().context().clone();
        context.bind_to_thread().w()?;
        for part in &parts {
            let (at, bytes) = memory(part)?;
            // SAFETY: the memory belongs to a tensor this value keeps; it is unlocked before that goes.
            let status = unsafe { sys::cuMemHostRegister_v2(at.cast_mut().cast(), bytes, 0) };
            if bytes > 0 && status == sys::CUresult::CUDA_SUCCESS {
                locks.push(Lock { at: at.cast_mut().cast(), context: context.clone() });
            }
        }
        Ok(Self { parts, locks })
    }

    /// Whether all pages are locked.
    pub fn locked(&self) -> bool {
        self.locks.len() == self.parts.len()
    }
}

const OP: &str = "attention_streamed";

fn card_of(device: &Device) -> Result<CudaDevice> {
    match device {
        Device::Cuda(device) => Ok(device.clone()),
        _ => Err(KernelError::NoCuda { reason: "the device is not a card".into() }),
    }
}

/// Start and bytes of a contiguous tensor's values.
fn memory(x: &Tensor) -> Result<(*const u8, usize)> {
    let (storage, layout) = x.storage_and_layout();
    let (from, count) = (layout.start_offset(), x.elem_count());
    fn part<T>(values: &[T], from: usize, count: usize) -> Option<(*const u8, usize)> {
        let values = values.get(from..from + count)?;
        Some((values.as_ptr().cast(), size_of_val(values)))
    }
    let found = match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => part(values, from, count),
        Storage::Cpu(CpuStorage::F16(values)) => part(values, from, count),
        Storage::Cpu(CpuStorage::BF16(values)) => part(values, from, count),
        _ => None,
    };
    found.ok_or_else(|| KernelError::shape(OP, "f32, f16 or bf16 on the CPU", x.dtype()))
}

/// [`attention`](crate::attention) of `q` `[batch, heads, queries, dim]` on a card over keys and values that stay
/// in host memory, with at most `device_bytes` of the card's memory beside `q` and the result.
///
/// The mask is none or lengths. Exact: partial results are merged in f32 by their log-sums. Waits for the
/// last copy before it returns, not for the result.
///
/// # Errors
/// Shapes or types that do not fit, another mask, a cap too small for a chunk, or the driver's.
pub fn attention_streamed(
    q: &Tensor,
    keys: &HostKeys,
    spec: &AttentionSpec,
    device_bytes: u64,
) -> Result<Tensor> {
    let device = &card_of(q.device())?;
    let stream = device.cuda_stream();
    let copies = &stream.context().new_stream().w()?;
    let [k, _] = &keys.parts;
    let wrong = || {
        KernelError::shape(
            OP,
            "q [batch, heads, queries, dim] and keys [batch, heads, keys, dim]",
            (q.dims(), k.dims()),
        )
    };
    let (&[batch, heads, queries, dim], &[key_batch, key_heads, tokens, key_dim]) = (q.dims(), k.dims())
    else {
        return Err(wrong());
    };
    if batch != key_batch || dim != key_dim || dim == 0 || key_heads == 0 || heads % key_heads != 0 {
        return Err(wrong());
    }
    let dtype = q.dtype();
    let Some(element) = element(dtype).filter(|_| k.dtype() == dtype) else {
        return Err(KernelError::DType { op: OP, expected: "q of the keys' type", got: dtype });
    };
    let lengths = match &spec.mask {
        Mask::None => None,
        Mask::Lengths(lengths) if lengths.len() == batch && lengths.iter().all(|n| *n <= tokens) => {
            Some(lengths)
        }
        other => return Err(KernelError::shape(OP, "no mask, or a length for each sequence", other)),
    };
    let shape = AttentionShape { problems: batch * heads, queries, keys: tokens, dim };
    let size = dtype.size_in_bytes();
    let plan = plan_streaming(shape, batch * key_heads, size, device_bytes)?;
    let dims = [batch, queries, heads, dim];
    let rows = batch * heads * queries;
    let out = Output::new(device, dtype, rows * dim)?;
    if rows == 0 || plan.chunks == 0 {
        return Ok(Tensor::zeros(&dims, dtype, q.device())?.transpose(1, 2)?);
    }
    let total = Tensor::zeros(rows * dim, DType::F32, q.device())?;
    let total_lse = Tensor::full(f32::NEG_INFINITY, rows, q.device())?;
    let merge = function(device, "merge", element, "attention_merge", 0)?;

    // Two buffers of keys and values; each is free once the kernels that read it are done.
    let room = batch * key_heads * plan.chunk.min(tokens) * dim;
    let mut buffers = Vec::new();
    for _ in 0..plan.chunks.min(2) {
        let pair = [Output::new(device, dtype, room)?, Output::new(device, dtype, room)?];
        let at = [pair[0].address, pair[1].address];
        let free: CudaEvent = stream.record_event(None).w()?;
        buffers.push((at, pair.map(|part| part.tensor(&[room])), free));
    }
    // Dropped before the buffers and before the caller may drop the keys, whatever goes wrong.
    let _waited = Waited(copies.clone());
    let count = buffers.len();
    for chunk in 0..plan.chunks {
        let from = chunk * plan.chunk;
        let here = plan.chunk.min(tokens - from);
        let Some((at, parts, free)) = buffers.get_mut(chunk % count) else { break };
        copies.wait(free).w()?;
        for (host, to) in keys.parts.iter().zip(*at) {
            copy_chunk(host, to, [batch * key_heads, tokens, dim * size], from..from + here, copies)?;
        }
        stream.wait(&copies.record_event(None).w()?).w()?;
        let view = |part: &Tensor| {
            part.narrow(0, 0, batch * key_heads * here * dim)?.reshape((batch, key_heads, here, dim))
        };
        let mask = lengths.map_or(Mask::None, |lengths| {
            Mask::Lengths(lengths.iter().map(|n| n.saturating_sub(from).min(here)).collect())
        });
        let spec = AttentionSpec { mask, ..spec.clone() };
        let (part, lse) = attention_with_lse(q, &view(&parts[0])?, &view(&parts[1])?, &spec)?;
        *free = stream.record_event(None).w()?;
        let part = part.transpose(1, 2)?.contiguous()?;
        let params = MergeParams {
            total: Held::new(&total)?.address()?,
            total_lse: Held::new(&total_lse)?.address()?,
            part: Held::new(&part)?.address()?,
            part_lse: Held::new(&lse)?.address()?,
            out: if chunk + 1 == plan.chunks { out.address } else { 0 },
            rows: rows as i64,
            queries: extent(queries)?,
            heads: extent(heads)?,
            dim: extent(dim)?,
        };
        let blocks = u32::try_from(rows.div_ceil(8))
            .map_err(|_| KernelError::shape(OP, "fewer than 2^35 rows", rows))?;
        // SAFETY: all operands live until after the launch on the stream that frees them; the kernel writes
        // `rows` rows of `dim` values and as many log-sums.
        unsafe { launch(&stream, &merge, (blocks, 256, 0), &params)? };
    }
    Ok(out.tensor(&dims).transpose(1, 2)?)
}

/// Waits for a stream's copies when it goes.
struct Waited(Arc<CudaStream>);

impl Drop for Waited {
    fn drop(&mut self) {
        let _ = self.0.synchronize();
    }
}

fn extent(n: usize) -> Result<i32> {
    i32::try_from(n).map_err(|_| KernelError::shape(OP, "extents below 2^31", n))
}

/// Tokens of every head, `[heads, tokens, row bytes]` on the host, to a packed buffer on the card.
fn copy_chunk(
    host: &Tensor,
    to: u64,
    [heads, tokens, row]: [usize; 3],
    chunk: std::ops::Range<usize>,
    copies: &CudaStream,
) -> Result<()> {
    let (from, _) = memory(host)?;
    let plan = sys::CUDA_MEMCPY2D {
        srcXInBytes: chunk.start * row,
        srcY: 0,
        srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
        srcHost: from.cast(),
        srcDevice: 0,
        srcArray: std::ptr::null_mut(),
        srcPitch: tokens * row,
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstHost: std::ptr::null_mut(),
        dstDevice: to,
        dstArray: std::ptr::null_mut(),
        dstPitch: chunk.len() * row,
        WidthInBytes: chunk.len() * row,
        Height: heads,
    };
    // SAFETY: `HostKeys` keeps the host's memory until `attention_streamed` has waited for this stream; the
    // buffer has room for `chunk.len()` tokens of every head, and is allocated before the event waited for.
    unsafe { sys::cuMemcpy2DAsync_v2(&raw const plan, copies.cu_stream()) }.result().w()?;
    Ok(())
}

/// `MergeParams` of `cuda/merge.cu`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct MergeParams {
    total: u64,
    total_lse: u64,
    part: u64,
    part_lse: u64,
    out: u64,
    rows: i64,
    queries: i32,
    heads: i32,
    dim: i32,
}

// SAFETY: plain numbers in C layout, the same as the kernel's parameter.
unsafe impl DeviceRepr for MergeParams {}
