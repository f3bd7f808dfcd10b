//! What the planner decides for a call, and what that costs, without running it.

use candle_core::Tensor;

use super::{AttentionSpec, Mask, check};
use crate::cpu::view::ours;
use crate::cpu::{cache_bytes, threads};
use crate::error::Result;
use crate::plan::io::{AttentionIo, IoCall, attention_io};
use crate::plan::{AttentionKernel, AttentionPlan, Target, plan_attention};

/// The planner's decision for a call and its traffic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Explained {
    /// The algorithm.
    pub kernel: AttentionKernel,
    /// The compiled form a card runs; none on the processor.
    pub code: Option<&'static str>,
    /// Queries that share a pass over the keys.
    pub query_tile: usize,
    /// The fast memory the traffic is counted for, in bytes: a card's second-level cache, or that of one core.
    pub fast_bytes: u64,
    /// Traffic between it and the memory behind it. A written-out score matrix is part of the prediction.
    pub io: AttentionIo,
}

/// Says which kernel [`attention`](super::attention) would run for these operands and what it would move.
///
/// The arguments are those of the call. A mask of lengths, blocks or added scores is counted as if every key
/// were seen.
///
/// # Errors
/// Shapes that do not fit together, or a driver that does not answer.
pub fn explain_attention(q: &Tensor, k: &Tensor, v: &Tensor, spec: &AttentionSpec) -> Result<Explained> {
    let dims = check(q, k, v)?;
    let Decision { kernel, code, query_tile, concurrent, fast_bytes } = match decision(q, k, v, spec)? {
        Some(on_card) => on_card,
        None => {
            let target = if ours(q) { Target::Cpu { threads: threads() } } else { Target::Generic };
            let AttentionPlan { kernel, query_tile, .. } = plan_attention(dims.shape(), target);
            // A core's cache serves the one tile it works on.
            Decision { kernel, code: None, query_tile, concurrent: 1, fast_bytes: cache_bytes() }
        }
    };
    let call = IoCall {
        shape: dims.shape(),
        key_problems: dims.batch * dims.inner * dims.kv_heads,
        element_bytes: q.dtype().size_in_bytes(),
        causal: matches!(spec.mask, Mask::Causal),
        query_tile,
        concurrent,
        fast_bytes,
    };
    let mut io = attention_io(call);
    if kernel == AttentionKernel::Composed {
        // Scores written, read and written by the softmax, read again.
        let scores = dims.shape().problems as u128 * dims.queries as u128 * dims.keys as u128;
        io.predicted_bytes = io.floor_bytes + 4 * scores * call.element_bytes as u128;
    }
    Ok(Explained { kernel, code, query_tile, fast_bytes, io })
}

struct Decision {
    kernel: AttentionKernel,
    code: Option<&'static str>,
    query_tile: usize,
    /// Tiles at once.
    concurrent: usize,
    fast_bytes: u64,
}

#[cfg(feature = "cuda")]
fn decision(q: &Tensor, k: &Tensor, v: &Tensor, spec: &AttentionSpec) -> Result<Option<Decision>> {
    let Some(device) = crate::cuda::device(q) else { return Ok(None) };
    let dims = check(q, k, v)?;
    let (q5, k5, v5) = (dims.five(q)?, dims.five(k)?, dims.five(v)?);
    let call = crate::cuda::attention::call_of([&q5, &k5, &v5], spec, &dims);
    let card = crate::cuda::card(&device)?;
    let plan = crate::plan::cuda::plan_cuda_attention(call, card);
    // A multiprocessor holds 2,048 threads.
    let resident = card.multiprocessors * (2048 / plan.threads.max(1) as usize).max(1);
    let concurrent = (plan.blocks as usize).min(resident);
    let query_tile = dims.queries.div_ceil(plan.tiles).max(1);
    let fast_bytes = crate::cuda::cache_bytes(&device)?;
    Ok(Some(Decision { kernel: plan.kernel, code: plan.code, query_tile, concurrent, fast_bytes }))
}

#[cfg(not(feature = "cuda"))]
fn decision(_: &Tensor, _: &Tensor, _: &Tensor, _: &AttentionSpec) -> Result<Option<Decision>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn a_call_is_explained_without_running() {
        let part = |heads: usize, tokens: usize| {
            Tensor::zeros((2, heads, tokens, 32), DType::F32, &Device::Cpu).unwrap()
        };
        let (q, kv) = (part(4, 600), part(2, 700));
        let e = explain_attention(&q, &kv, &kv, &AttentionSpec::new(32)).unwrap();
        assert_eq!(e.kernel, AttentionKernel::Flash);
        assert_eq!(e.io.floor_bytes, 4 * 32 * 2 * (2 * 4 * 600 + 2 * 2 * 700));
        assert!(e.io.predicted_bytes >= e.io.bound_bytes && e.fast_bytes > 0);
        assert!(explain_attention(&q, &part(3, 700), &kv, &AttentionSpec::new(32)).is_err());
    }
}
