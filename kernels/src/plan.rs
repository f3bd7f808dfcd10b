//! Which attention kernel runs, and with which tiles: a pure function of the shape and the machine.

pub(crate) mod conv;
pub(crate) mod cuda;
pub(crate) mod cuda_backward;
pub(crate) mod io;
pub(crate) mod stream;

/// The extents of one attention call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Independent sequences times heads.
    pub problems: usize,
    /// Queries of one sequence.
    pub queries: usize,
    /// Keys of one sequence.
    pub keys: usize,
    /// Head dimension.
    pub dim: usize,
}

/// What the call runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Processor threads, computing in f32.
    Cpu { threads: usize },
    /// Anything else: written out in tensor operations.
    Generic,
}

/// The algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionKernel {
    /// All keys in one tile, many sequences a task: video time axes.
    Short,
    /// All keys in one tile, so one softmax pass: text.
    Cross,
    /// Key tiles with a running maximum and sum.
    Flash,
    /// [`Flash`](Self::Flash) on Hopper's warp-group matrix instructions and tensor copy engine.
    Hopper,
    /// f32 arithmetic on ordinary units, for types and strides the matrix units cannot take.
    Exact,
    /// Tensor operations with the whole score matrix.
    Composed,
}

/// A decision of [`plan_attention`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionPlan {
    /// The algorithm.
    pub kernel: AttentionKernel,
    /// Queries that share a pass over the keys.
    pub query_tile: usize,
    /// Keys whose scores are held at once.
    pub key_tile: usize,
    /// `(sequence, query tile)` pairs a task does one after the other.
    pub tiles_per_task: usize,
}

/// Picks the kernel and its tiles.
pub fn plan_attention(shape: AttentionShape, target: Target) -> AttentionPlan {
    let AttentionShape { problems, queries, keys, dim } = shape;
    let Target::Cpu { threads } = target else {
        return AttentionPlan {
            kernel: AttentionKernel::Composed,
            query_tile: queries,
            key_tile: keys,
            tiles_per_task: 1,
        };
    };
    let (kernel, key_tile) = match keys {
        0..=64 => (AttentionKernel::Short, keys.max(1)),
        65..=256 => (AttentionKernel::Cross, keys),
        _ => (AttentionKernel::Flash, 128),
    };
    // So many queries share a pass over the keys, which are copied once for all of them.
    let query_tile = queries.clamp(1, 128);
    let tiles = problems * queries.div_ceil(query_tile);
    let work = 4 * query_tile * keys.max(1) * dim.max(1);
    let tiles_per_task = ((1 << 21) / work).clamp(1, (tiles / (8 * threads.max(1))).max(1));
    AttentionPlan { kernel, query_tile, key_tile, tiles_per_task }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Target = Target::Cpu { threads: 2 };

    fn plan(problems: usize, queries: usize, keys: usize, dim: usize) -> AttentionPlan {
        plan_attention(AttentionShape { problems, queries, keys, dim }, CPU)
    }

    #[test]
    fn the_kernel_follows_the_keys() {
        assert_eq!(plan(3072, 16, 16, 32).kernel, AttentionKernel::Short);
        assert_eq!(plan(16, 4096, 77, 40).kernel, AttentionKernel::Cross);
        assert_eq!(plan(16, 4096, 4096, 40).kernel, AttentionKernel::Flash);
        let generic =
            plan_attention(AttentionShape { problems: 1, queries: 8, keys: 8, dim: 8 }, Target::Generic);
        assert_eq!(generic.kernel, AttentionKernel::Composed);
    }

    #[test]
    fn every_thread_gets_work_and_tiny_sequences_share_tasks() {
        let short = plan(3072, 16, 16, 32);
        assert!(short.tiles_per_task > 8 && 3072 / short.tiles_per_task >= 16);
        assert_eq!(plan(1, 4096, 4096, 64).tiles_per_task, 1);
    }

    #[test]
    fn degenerate_shapes_have_a_plan() {
        for (problems, queries, keys, dim) in [(0, 0, 0, 0), (1, 0, 5, 8), (1, 5, 0, 8), (7, 1, 1, 1)] {
            let p = plan(problems, queries, keys, dim);
            assert!(p.query_tile > 0 && p.key_tile > 0 && p.tiles_per_task > 0);
        }
    }
}
