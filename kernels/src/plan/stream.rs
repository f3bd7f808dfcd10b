//! How keys and values that stay in host memory are cut into chunks: a pure function.

use super::AttentionShape;
use crate::error::{KernelError, Result};

/// Chunks of a streamed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamPlan {
    /// Keys a chunk; the last may be shorter.
    pub chunk: usize,
    /// Chunks.
    pub chunks: usize,
    /// Device memory the call takes beside `q` and its result, in bytes: two chunks of keys and values, a
    /// partial result, and the running one in f32, with their log-sums.
    pub device_bytes: u64,
    /// Queries a key must meet for its transfer to hide under the arithmetic: the card's products a second
    /// over the link's bytes a second, times half the bytes of an element.
    pub hidden_from_queries: u64,
}

/// Keys a chunk is a multiple of: a whole tile of every kernel.
const GRAIN: usize = 128;
/// Products and link of a card at work: 600 TFLOP/s, 50 GB/s.
const FLOPS_A_LINK_BYTE: u64 = 12_000;

/// Cuts keys into the largest chunks that fit `device_bytes` twice; `key_problems` is sequences times heads of keys.
///
/// # Errors
/// A cap that holds no chunk: says how much is needed.
pub fn plan_streaming(
    shape: AttentionShape,
    key_problems: usize,
    element_bytes: usize,
    device_bytes: u64,
) -> Result<StreamPlan> {
    let AttentionShape { problems, queries, keys, dim } = shape;
    let rows = problems as u64 * queries as u64;
    let fixed = rows * (dim as u64 * (4 + element_bytes as u64) + 8);
    // Two buffers, each of keys and values.
    let each = 4 * key_problems as u64 * dim as u64 * element_bytes as u64;
    let grain = GRAIN as u64 * each;
    let whole = keys.div_ceil(GRAIN).max(1) as u64;
    let grains = device_bytes.saturating_sub(fixed).checked_div(grain).unwrap_or(whole).min(whole);
    if grains == 0 {
        return Err(KernelError::shape(
            "attention_streamed",
            format!("at least {} bytes of device memory for chunks of {GRAIN} keys", fixed + grain),
            device_bytes,
        ));
    }
    let chunk = grains as usize * GRAIN;
    Ok(StreamPlan {
        chunk,
        chunks: keys.div_ceil(chunk),
        device_bytes: fixed + grains * grain,
        hidden_from_queries: FLOPS_A_LINK_BYTE * element_bytes as u64 / 2,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: AttentionShape = AttentionShape { problems: 8, queries: 1000, keys: 10_000, dim: 64 };

    #[test]
    fn chunks_fill_the_memory_and_cover_the_keys() {
        let least = 8 * 1000 * (64 * 6 + 8) + 128 * 4 * 8 * 64 * 2;
        for cap in [least, least + 1, 3 * least, u64::MAX] {
            let plan = plan_streaming(SHAPE, 8, 2, cap).unwrap();
            assert!(plan.device_bytes <= cap && plan.chunk.is_multiple_of(GRAIN));
            assert!(plan.chunk * plan.chunks >= 10_000 && plan.chunk * (plan.chunks - 1) < 10_000);
        }
        assert_eq!(plan_streaming(SHAPE, 8, 2, u64::MAX).unwrap().chunks, 1);
        assert_eq!(plan_streaming(SHAPE, 8, 2, least).unwrap().chunk, 128);
        let error = plan_streaming(SHAPE, 8, 2, least - 1).unwrap_err().to_string();
        assert!(error.contains(&least.to_string()), "{error}");
    }

    #[test]
    fn nothing_is_planned_too() {
        let none = AttentionShape { problems: 0, queries: 0, keys: 0, dim: 8 };
        assert_eq!(plan_streaming(none, 0, 2, 0).unwrap().chunks, 0);
        assert_eq!(plan_streaming(AttentionShape { keys: 0, ..SHAPE }, 8, 2, 1 << 30).unwrap().chunks, 0);
    }
}
