//! How many bytes an attention call moves, and how few any exact method could: pure arithmetic.
//!
//! Two memories: a large slow one and a fast one of `M` elements. FlashAttention moves `N² d² / M`
//! elements, which no exact method beats when `M ≥ d²`; below that the bound is `N² d / √M`, reached by
//! blocked matrix products that write the scores out ("The I/O Complexity of Attention", theorems
//! 1 and 2). Both are orders of growth: the bounds below take their constant as one, and never less than
//! reading the operands and writing the result.

use super::AttentionShape;

/// Which of the two bounds holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regime {
    /// `M ≥ d²`: keeping tiles of queries while keys pass by is optimal.
    LargeCache,
    /// `M < d²`: two products that write the scores out move less.
    SmallCache,
}

/// A call as its traffic sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoCall {
    /// The extents.
    pub shape: AttentionShape,
    /// Sequences times heads of keys and values; fewer than `shape.problems` where heads share them.
    pub key_problems: usize,
    /// Bytes of an element in slow memory.
    pub element_bytes: usize,
    /// Each query sees only keys up to its own place.
    pub causal: bool,
    /// Queries that share a pass over the keys.
    pub query_tile: usize,
    /// Query tiles that run at once.
    pub concurrent: usize,
    /// Bytes of fast memory.
    pub fast_bytes: u64,
}

/// What a call moves between the two memories, in bytes, and what it computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionIo {
    /// Operands read once and the result written once: the least traffic of any method.
    pub floor_bytes: u128,
    /// What the plan's tiles move: keys and values pass again where they cannot stay.
    pub predicted_bytes: u128,
    /// The lower bound for this fast memory; at least `floor_bytes`.
    pub bound_bytes: u128,
    /// Which bound it is.
    pub regime: Regime,
    /// Multiplications and additions of both products, half of them where the mask is causal.
    pub flops: f64,
}

/// Accounts for a call.
///
/// Tiles of one head that run at once read its keys together, so a head whose keys and values do not fit
/// the fast memory is read once per wave of `concurrent` tiles.
pub fn attention_io(call: IoCall) -> AttentionIo {
    let AttentionShape { problems, queries, keys, dim } = call.shape;
    let element = call.element_bytes as u128;
    let size = |problems: usize, rows: usize| problems as u128 * rows as u128 * dim as u128 * element;
    let keys_bytes = 2 * size(call.key_problems, keys);
    let floor_bytes = 2 * size(problems, queries) + keys_bytes;

    let tiles = queries.div_ceil(call.query_tile.max(1)).max(1);
    let concurrent = call.concurrent.max(1);
    // Heads at work at once, each with its keys and values.
    let heads = concurrent.div_ceil(tiles).min(call.key_problems.max(1));
    let stays = 2 * size(heads, keys) <= u128::from(call.fast_bytes);
    let passes = if stays { 1 } else { tiles.div_ceil(concurrent) } as u128;
    // A later wave of a causal mask reads a longer prefix: half of the keys on average.
    let again = (passes - 1) * keys_bytes / if call.causal { 2 } else { 1 };

    let halved = if call.causal { 2.0 } else { 1.0 };
    let (n, m, d) = (queries as f64, keys as f64, dim as f64);
    let fast = (call.fast_bytes as f64 / call.element_bytes.max(1) as f64).max(1.0);
    let (regime, elements) = if fast >= d * d {
        (Regime::LargeCache, n * m * d * d / fast)
    } else {
        (Regime::SmallCache, n * m * d / fast.sqrt())
    };
    let bound = problems as f64 * elements * call.element_bytes as f64 / halved;
    AttentionIo {
        floor_bytes,
        predicted_bytes: floor_bytes + again,
        bound_bytes: (bound as u128).max(floor_bytes),
        regime,
        flops: 4.0 * problems as f64 * n * m * d / halved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(problems: usize, queries: usize, keys: usize, dim: usize) -> IoCall {
        IoCall {
            shape: AttentionShape { problems, queries, keys, dim },
            key_problems: problems,
            element_bytes: 2,
            causal: false,
            query_tile: 128,
            concurrent: 132,
            fast_bytes: 50 << 20,
        }
    }

    /// Traffic of an exact walk: a least-recently-used cache of whole key tiles of one head.
    fn walked(call: IoCall, key_tile: usize) -> u128 {
        let AttentionShape { queries, keys, dim, .. } = call.shape;
        let bytes = |rows: usize| (rows * dim * call.element_bytes) as u128;
        let (mut cache, mut used, mut moved): (Vec<usize>, u128, u128) = (Vec::new(), 0, 0);
        let tiles: Vec<usize> = (0..queries.div_ceil(call.query_tile)).collect();
        for wave in tiles.chunks(call.concurrent) {
            moved += 2 * bytes(wave.iter().map(|t| call.query_tile.min(queries - t * call.query_tile)).sum());
            for tile in 0..keys.div_ceil(key_tile) {
                let rows = key_tile.min(keys - tile * key_tile);
                if let Some(at) = cache.iter().position(|held| *held == tile) {
                    cache.remove(at);
                } else {
                    moved += 2 * bytes(rows);
                    used += 2 * bytes(key_tile);
                    while used > u128::from(call.fast_bytes) && !cache.is_empty() {
                        cache.remove(0);
                        used -= 2 * bytes(key_tile);
                    }
                }
                cache.push(tile);
            }
        }
        moved
    }

    #[test]
    fn the_prediction_is_what_a_cache_would_move() {
        for (queries, keys, dim, fast, concurrent) in
            [(4096, 4096, 40, 50 << 20, 132), (8192, 8192, 64, 1 << 20, 8), (1000, 3000, 128, 64 << 10, 1)]
        {
            let c = IoCall { fast_bytes: fast, concurrent, ..call(1, queries, keys, dim) };
            assert_eq!(attention_io(c).predicted_bytes, walked(c, 125), "{c:?}");
        }
    }

    #[test]
    fn the_regime_turns_where_the_memory_holds_a_square_of_the_head() {
        let at = |elements: u64, dim: usize| {
            attention_io(IoCall { fast_bytes: 2 * elements, ..call(1, 1 << 20, 1 << 20, dim) })
        };
        assert_eq!(at(511 * 511, 512).regime, Regime::SmallCache);
        assert_eq!(at(512 * 512, 512).regime, Regime::LargeCache);
        // At the turn both bounds are N² elements.
        let n2 = 2u128 << 40;
        assert_eq!(at(512 * 512, 512).bound_bytes, n2);
        assert!(at(511 * 511, 512).bound_bytes.abs_diff(n2) < n2 / 200);
        // Four times the memory: a quarter of the traffic, or half of it in the small regime.
        assert_eq!(at(4 << 20, 512).bound_bytes * 4, at(1 << 20, 512).bound_bytes);
        assert_eq!(at(1 << 14, 512).bound_bytes * 2, at(1 << 12, 512).bound_bytes);
    }

    #[test]
    fn no_bound_is_below_the_operands() {
        for c in [call(256, 4096, 77, 40), call(65_536, 16, 16, 40), call(0, 0, 0, 8), call(3, 0, 9, 8)] {
            let io = attention_io(c);
            assert_eq!(io.bound_bytes, io.floor_bytes);
            assert_eq!(io.predicted_bytes, io.floor_bytes);
        }
    }

    #[test]
    fn shared_keys_and_masks_count_once_and_half() {
        let all = attention_io(call(8, 4096, 4096, 64));
        let shared = attention_io(IoCall { key_problems: 2, ..call(8, 4096, 4096, 64) });
        assert_eq!(all.floor_bytes - shared.floor_bytes, 2 * 6 * 4096 * 64 * 2);
        let causal = attention_io(IoCall { causal: true, ..call(8, 4096, 4096, 64) });
        assert_eq!(causal.flops * 2.0, all.flops);
    }
}
