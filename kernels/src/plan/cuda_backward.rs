//! Which CUDA kernels give attention's gradients, and how they are cut into blocks: a pure function.

use super::cuda::{CudaCall, MaskKind};
use super::{AttentionKernel, AttentionShape};

/// One kernel launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackwardPass {
    /// Work items of one problem.
    pub tiles: usize,
    /// Thread blocks.
    pub blocks: u64,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
}

/// A decision of [`plan_cuda_backward`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackwardPlan {
    /// The algorithm: `Short`, `Flash`, `Exact`, or `Composed` when no kernel takes the call.
    pub kernel: AttentionKernel,
    /// Head dimension the kernels are compiled for; at least the call's.
    pub dim: usize,
    /// Groups of 16 tokens a warp holds, for `Short`.
    pub groups: usize,
    /// The pass over queries (the only one of `Short`), which gives their gradients.
    pub queries: BackwardPass,
    /// The pass over keys, which gives those of keys and values.
    pub keys: BackwardPass,
}

impl BackwardPlan {
    /// Whether keys and values have a launch each: sums of both would not fit the registers.
    pub fn values_apart(&self) -> bool {
        self.kernel == AttentionKernel::Flash && self.dim > 160
    }
}

/// Head dimension, and for each pass warps, groups of 16 rows a warp, streamed rows.
type Tile = (usize, [usize; 3], [usize; 3]);

/// The instances of `cuda/backward_flash.cu`; other head dimensions are filled up with zeros.
const TILES: [Tile; 10] = [
    (32, [4, 1, 64], [8, 1, 64]),
    (40, [4, 1, 64], [8, 1, 64]),
    (48, [8, 1, 64], [4, 1, 64]),
    (64, [8, 1, 64], [4, 1, 64]),
    (80, [4, 1, 32], [8, 1, 64]),
    (96, [4, 1, 32], [4, 1, 32]),
    (128, [4, 1, 32], [4, 1, 32]),
    (160, [4, 1, 32], [4, 1, 32]),
    (192, [4, 1, 16], [4, 1, 16]),
    (256, [3, 1, 16], [3, 1, 16]),
];
/// The instances of `cuda/backward_short.cu`: head dimension and the most groups of 16 tokens.
const SHORT: [(usize, usize); 7] = [(32, 2), (40, 2), (64, 2), (80, 2), (96, 1), (128, 1), (160, 1)];
/// The instances of `cuda/backward_exact.cu`: head dimension, threads, streamed rows; first those for time axes.
const EXACT: [(usize, usize, usize); 7] =
    [(48, 64, 16), (96, 64, 16), (160, 64, 16), (48, 256, 32), (96, 256, 32), (160, 128, 16), (256, 128, 8)];

/// Picks the kernels of a backward call; `group` heads of queries share a head of keys.
///
/// Sequences of up to 32 tokens stay in a warp's registers and pass through memory once. The rest
/// takes two passes, one that owns queries and one that owns keys, and computes the scores in both:
/// seven products instead of five, and no sum that depends on the order of blocks.
pub fn plan_cuda_backward(call: CudaCall, group: usize) -> BackwardPlan {
    let AttentionShape { problems, queries, keys, dim } = call.shape;
    let kv_problems = problems / group.max(1);
    let pass = |problems: usize, tokens: usize, rows: usize, threads: usize, shared_bytes: usize| {
        let tiles = tokens.div_ceil(rows);
        BackwardPass {
            tiles: tiles.max(1),
            blocks: problems as u64 * tiles as u64,
            threads: threads as u32,
            shared_bytes: shared_bytes as u32,
        }
    };
    let none = pass(0, 0, 1, 0, 0);
    if dim > 256 {
        let kernel = AttentionKernel::Composed;
        return BackwardPlan { kernel, dim, groups: 0, queries: none, keys: none };
    }
    if !call.half || !call.aligned || !call.plain_scale || !dim.is_multiple_of(8) {
        let instances = if queries.max(keys) <= 16 { &EXACT[..] } else { &EXACT[3..] };
        let (size, threads, tile) =
            instances.iter().copied().find(|instance| dim <= instance.0).unwrap_or((256, 128, 8));
        let rows = threads / 4;
        let row_floats = dim.div_ceil(4) * 4 + 4;
        let shared = 4 * (2 * (rows + tile) * row_floats + 2 * tile * (rows + 4)) + 8 * rows.max(tile);
        return BackwardPlan {
            kernel: AttentionKernel::Exact,
            dim: size,
            groups: 0,
            queries: pass(problems, queries, rows, threads, shared),
            keys: pass(kv_problems, keys, rows, threads, shared),
        };
    }
    let groups = queries.max(keys).div_ceil(16).max(1);
    let fits = SHORT.iter().any(|(size, most)| *size == dim && groups <= *most);
    if fits && group == 1 && !matches!(call.mask, MaskKind::Bias | MaskKind::Blocks) {
        let queries = BackwardPass { blocks: (problems as u64).div_ceil(4), ..pass(0, 0, 1, 128, 0) };
        return BackwardPlan { kernel: AttentionKernel::Short, dim, groups, queries, keys: none };
    }
    let (size, own, other) =
        TILES.into_iter().find(|tile| dim <= tile.0).unwrap_or((256, [3, 1, 16], [3, 1, 16]));
    // Both operands of the owned rows once, both of the streamed ones two deep, with two floats a row.
    let of = |problems: usize, tokens: usize, [warps, groups, stream]: [usize; 3]| {
        let rows = 16 * warps * groups;
        let shared = (2 * rows + 4 * stream) * 2 * (size.next_multiple_of(16) + 8) + 16 * stream;
        pass(problems, tokens, rows, 32 * warps, shared)
    };
    BackwardPlan {
        kernel: AttentionKernel::Flash,
        dim: size,
        groups: 0,
        queries: of(problems, queries, own),
        keys: of(kv_problems, keys, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(problems: usize, queries: usize, keys: usize, dim: usize) -> CudaCall {
        CudaCall {
            shape: AttentionShape { problems, queries, keys, dim },
            half: true,
            brain: false,
            aligned: true,
            distinct: true,
            plain_scale: true,
            mask: MaskKind::None,
            block: [0; 2],
        }
    }

    #[test]
    fn time_axes_stay_in_registers() {
        for (frames, dim, groups) in [(1, 160, 1), (16, 40, 1), (17, 80, 2), (32, 64, 2)] {
            let plan = plan_cuda_backward(call(8192 * 8, frames, frames, dim), 1);
            assert_eq!((plan.kernel, plan.groups), (AttentionKernel::Short, groups));
            assert_eq!(plan.queries.blocks, 8192 * 2);
        }
        for (frames, dim, group) in [(17, 160, 1), (33, 40, 1), (16, 48, 1), (16, 40, 2)] {
            assert_eq!(
                plan_cuda_backward(call(64, frames, frames, dim), group).kernel,
                AttentionKernel::Flash
            );
        }
        let biased = CudaCall { mask: MaskKind::Bias, ..call(64, 16, 16, 40) };
        assert_eq!(plan_cuda_backward(biased, 1).kernel, AttentionKernel::Flash);
    }

    #[test]
    fn every_block_fits_the_smallest_card() {
        for dim in 1..=256 {
            for half in [false, true] {
                let plan = plan_cuda_backward(CudaCall { half, ..call(6, 300, 500, dim) }, 2);
                let wanted =
                    if half && dim % 8 == 0 { AttentionKernel::Flash } else { AttentionKernel::Exact };
                assert!(plan.kernel == wanted && plan.dim >= dim, "{plan:?}");
                for pass in [plan.queries, plan.keys] {
                    assert!(pass.shared_bytes <= 99 << 10, "{dim}: {plan:?}");
                    assert!(pass.tiles > 0 && pass.blocks > 0 && pass.threads % 32 == 0);
                }
                assert_eq!(plan.keys.blocks, 3 * plan.keys.tiles as u64);
            }
        }
        assert_eq!(plan_cuda_backward(call(1, 8, 8, 512), 1).kernel, AttentionKernel::Composed);
        // Nothing to write is nothing to launch.
        for half in [false, true] {
            let none = plan_cuda_backward(CudaCall { half, ..call(1, 0, 70, 40) }, 1);
            assert!(none.queries.blocks == 0 && none.keys.blocks > 0);
        }
    }
}
