//! Which CUDA kernel runs an attention call, and how it is cut into blocks: a pure function.

use super::{AttentionKernel, AttentionShape};

/// What the planner must know about a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
}

impl Card {
    /// The compiled forms its attention kernels may come as, best first: machine code of a family, or PTX that
    /// the driver compiles. Turing has matrix instructions for f16, Volta runs the plain kernel.
    pub fn codes(self) -> &'static [&'static str] {
        match self.capability {
            (9, 0) => &["90a", "ptx80"],
            (8, _) => &["80", "ptx80"],
            (7, 5) => &["ptx75", "ptx70"],
            (7, _) => &["ptx70"],
            (major, _) if major > 8 => &["ptx80"],
            _ => &[],
        }
    }

    /// The most shared memory a block may have, in bytes.
    pub fn shared_limit(self) -> u32 {
        let kib = match self.capability {
            (7, 5) => 64,
            (7, _) => 96,
            (8, 0 | 7) => 163,
            (8 | 12, _) => 99,
            _ => 227,
        };
        kib << 10
    }

    /// Whether its matrix instructions take the type of a call.
    fn multiplies(self, call: CudaCall) -> bool {
        match self.capability {
            (7, 5) => call.half && !call.brain,
            (major, _) => call.half && major >= 8,
        }
    }
}

/// Which keys a query may see, without the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskKind {
    /// Every key.
    None,
    /// Keys up to the query's own place.
    Causal,
    /// A number of keys a sequence.
    Lengths,
    /// Added scores.
    Bias,
    /// Blocks of keys a block of queries.
    Blocks,
}

/// A call as the planner sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaCall {
    /// The extents.
    pub shape: AttentionShape,
    /// f16 or bf16, not f32.
    pub half: bool,
    /// bf16.
    pub brain: bool,
    /// Every row starts at a multiple of 16 bytes.
    pub aligned: bool,
    /// No operand repeats memory through a stride of zero.
    pub distinct: bool,
    /// The scale is positive and finite.
    pub plain_scale: bool,
    /// Visibility.
    pub mask: MaskKind,
    /// Queries and keys of a block, where the mask is made of them.
    pub block: [usize; 2],
}

/// A decision of [`plan_cuda_attention`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaPlan {
    /// The algorithm; `Composed` when no kernel takes the call.
    pub kernel: AttentionKernel,
    /// The form of it that is best for the card; none for a card without one.
    pub code: Option<&'static str>,
    /// Head dimension the kernel is compiled for; at least the call's.
    pub dim: usize,
    /// Groups of 16 keys held at once, where the kernel has a choice.
    pub key_groups: usize,
    /// Work items of one problem.
    pub tiles: usize,
    /// Thread blocks.
    pub blocks: u64,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
}

/// Head dimensions of the kernels that keep rows in registers.
const REGISTER_DIMS: [usize; 7] = [32, 40, 64, 80, 96, 128, 160];
/// Head dimensions the tiled kernel is compiled for; others are filled up with zeros.
const TILED_DIMS: [usize; 9] = [32, 48, 64, 80, 96, 128, 160, 192, 256];
/// Tiles of the Hopper kernel, as `cuda/hopper.cu` instantiates it.
const HOPPER_TILES: [HopperTile; 6] = [
    HopperTile { dim: 40, queries: 192, keys: 128, stages: [2, 2] },
    HopperTile { dim: 64, queries: 192, keys: 128, stages: [2, 2] },
    HopperTile { dim: 72, queries: 192, keys: 128, stages: [1, 2] },
    HopperTile { dim: 80, queries: 192, keys: 112, stages: [2, 2] },
    HopperTile { dim: 128, queries: 128, keys: 128, stages: [2, 3] },
    HopperTile { dim: 160, queries: 128, keys: 96, stages: [1, 2] },
];
/// Its tiles for lists of blocks.
const HOPPER_BLOCK_TILES: [HopperTile; 5] = [
    HopperTile { dim: 40, queries: 128, keys: 128, stages: [2, 3] },
    HopperTile { dim: 64, queries: 128, keys: 128, stages: [2, 3] },
    HopperTile { dim: 80, queries: 128, keys: 128, stages: [2, 3] },
    HopperTile { dim: 128, queries: 128, keys: 128, stages: [2, 3] },
    HopperTile { dim: 160, queries: 128, keys: 96, stages: [1, 2] },
];

#[derive(Debug, Clone, Copy)]
struct HopperTile {
    dim: usize,
    queries: usize,
    keys: usize,
    /// Tiles of queries and of keys held at once; values have two.
    stages: [usize; 2],
}

/// Picks the kernel, its tile and its grid.
///
/// Keys that fit one tile are read once: up to 64 with few queries by the short-sequence kernel, up
/// to 128 by the one that keeps them in shared memory. The rest runs tiled, on Hopper's own matrix
/// instructions where the head dimension has a kernel. f32, odd dimensions and misaligned rows take
/// the plain kernel. What a call moves is [`attention_io`](super::io::attention_io)'s to say: traffic is
/// N² d² / M, so the tile of queries is as tall as registers allow.
pub fn plan_cuda_attention(call: CudaCall, card: Card) -> CudaPlan {
    let AttentionShape { problems, queries, keys, dim } = call.shape;
    let plan = |kernel, dim, key_groups, tiles: usize, blocks: u64, threads, shared_bytes| CudaPlan {
        kernel,
        code: card.codes().first().copied(),
        dim,
        key_groups,
        tiles: tiles.max(1),
        blocks,
        threads,
        shared_bytes,
    };
    let many = |tiles: usize| problems as u64 * tiles.max(1) as u64;
    let register_dim = REGISTER_DIMS.contains(&dim);
    let fast = card.multiplies(call) && call.aligned && call.plain_scale && dim % 8 == 0 && dim <= 256;
    // The tiled kernels walk over a list of blocks; their tiles must not straddle two.
    let tiled = TILED_DIMS.into_iter().find(|d| dim <= *d).unwrap_or(256);
    let warps = if tiled <= 128 { 8 } else { 4 };
    let whole_blocks = call.block[0].is_multiple_of(16 * warps) && call.block[1].is_multiple_of(64);
    let hopper = hopper_tile(call, card);
    let exact = || {
        let (query_tile, key_tile) = (32, 16);
        let tiles = queries.div_ceil(query_tile);
        let floats = (query_tile + 2 * key_tile) * (dim + 1) + query_tile * (key_tile + 1);
        let shared = 4 * floats as u32;
        if dim > 256 || shared > card.shared_limit() {
            return plan(AttentionKernel::Composed, dim, 0, 1, 0, 0, 0);
        }
        plan(AttentionKernel::Exact, dim, 0, tiles, many(tiles), 256, shared)
    };
    if !fast || call.mask == MaskKind::Blocks && !whole_blocks && hopper.is_none() {
        return exact();
    }
    if keys <= 64 && queries <= 64 && register_dim && !matches!(call.mask, MaskKind::Bias | MaskKind::Blocks)
    {
        let tiles = queries.div_ceil(16).max(1);
        let key_groups = keys.div_ceil(16).next_power_of_two().max(1);
        return plan(AttentionKernel::Short, dim, key_groups, tiles, many(tiles).div_ceil(4), 128, 0);
    }
    if keys <= 128 && register_dim && matches!(call.mask, MaskKind::None | MaskKind::Lengths) {
        let groups = [1, 2, 5, 8].into_iter().find(|groups| keys <= 16 * groups).unwrap_or(8);
        // Eight strips a warp, fewer when that leaves multiprocessors idle.
        let strips = queries.div_ceil(16);
        let full = strips.div_ceil(64);
        let wanted = (4 * card.multiprocessors).div_ceil(problems.max(1)).min(strips.div_ceil(8));
        let tiles = full.max(wanted).max(1);
        let shared = (64 * groups * dim) as u32;
        return plan(AttentionKernel::Cross, dim, groups, tiles, many(tiles), 256, shared);
    }
    if let Some(HopperTile { dim, queries: query_tile, keys: key_tile, stages }) = hopper {
        let boxes = dim.div_ceil(64);
        // Tiles, barriers, room to align.
        let rows = stages[0] * query_tile + (stages[1] + 2) * key_tile;
        let shared = (boxes * 128 * rows + 128 + 1024) as u32;
        let threads = 2 * query_tile as u32 + 128;
        let tiles = queries.div_ceil(query_tile);
        // Persistent: a block a multiprocessor takes tiles in turn.
        let blocks = many(tiles).min(card.multiprocessors.max(1) as u64);
        return plan(AttentionKernel::Hopper, dim, key_tile / 16, tiles, blocks, threads, shared);
    }
    let tiles = queries.div_ceil(16 * warps);
    let shared = ((16 * warps + 2 * 64) * 2 * (tiled + 8)) as u32;
    if shared > card.shared_limit() {
        return exact();
    }
    plan(AttentionKernel::Flash, tiled, 0, tiles, many(tiles), 32 * warps as u32, shared)
}

/// The Hopper kernel's tile when it takes the call; smaller head dimensions are filled up with zeros.
fn hopper_tile(call: CudaCall, card: Card) -> Option<HopperTile> {
    let AttentionShape { queries, keys, dim, .. } = call.shape;
    let tiles: &[HopperTile] = match call.mask {
        MaskKind::None => &HOPPER_TILES,
        // A row without a visible key has no place in the pipeline.
        MaskKind::Causal if keys >= queries => &HOPPER_TILES,
        MaskKind::Blocks if call.block[0].is_multiple_of(128) => &HOPPER_BLOCK_TILES,
        _ => return None,
    };
    if card.capability != (9, 0) || !call.distinct || keys <= 64 || queries < 64 {
        return None;
    }
    tiles.iter().copied().find(|tile| dim <= tile.dim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: Card = Card { capability: (9, 0), multiprocessors: 132 };
    const ADA: Card = Card { capability: (8, 9), multiprocessors: 128 };

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
    fn time_axes_take_the_short_kernel_whatever_the_batch() {
        for (frames, groups) in [(8, 1), (16, 1), (24, 2), (32, 2), (48, 4), (64, 4)] {
            let p = plan_cuda_attention(call(200_000 * 8, frames, frames, 40), H100);
            assert_eq!((p.kernel, p.key_groups), (AttentionKernel::Short, groups));
            assert_eq!(p.blocks, 200_000 * 8 * frames.div_ceil(16) as u64 / 4);
        }
    }

    #[test]
    fn text_stays_resident_and_fills_the_card() {
        let p = plan_cuda_attention(call(256, 4096, 77, 40), H100);
        assert_eq!((p.kernel, p.key_groups, p.tiles), (AttentionKernel::Cross, 5, 4));
        assert_eq!(p.shared_bytes, 80 * 40 * 2 * 2);
        assert!(plan_cuda_attention(call(8, 4096, 77, 40), H100).blocks >= 256);
    }

    #[test]
    fn what_the_fast_kernels_refuse_takes_the_plain_one() {
        for change in [
            |c: &mut CudaCall| c.half = false,
            |c: &mut CudaCall| c.aligned = false,
            |c: &mut CudaCall| c.plain_scale = false,
            |c: &mut CudaCall| c.shape.dim = 33,
        ] {
            let mut c = call(16, 4096, 4096, 40);
            change(&mut c);
            let p = plan_cuda_attention(c, H100);
            assert_eq!(p.kernel, AttentionKernel::Exact);
            assert!(p.shared_bytes <= 99 << 10);
        }
        assert_eq!(plan_cuda_attention(call(1, 4096, 4096, 512), H100).kernel, AttentionKernel::Composed);
    }

    #[test]
    fn every_block_fits_the_smallest_card() {
        for dim in (8..=256).step_by(8) {
            for keys in [0, 1, 16, 64, 77, 128, 129, 4096] {
                for mask in [MaskKind::None, MaskKind::Causal, MaskKind::Lengths, MaskKind::Bias] {
                    let p = plan_cuda_attention(CudaCall { mask, ..call(4, 300, keys, dim) }, ADA);
                    assert!(p.shared_bytes <= 99 << 10, "{dim} {keys} {p:?}");
                    assert!(p.dim >= dim && p.tiles > 0 && p.blocks > 0);
                }
            }
        }
    }

    #[test]
    fn hopper_takes_long_sequences_in_persistent_blocks() {
        for (dim, tiled) in [(40, 40), (56, 64), (64, 64), (72, 72), (80, 80), (128, 128), (160, 160)] {
            let p = plan_cuda_attention(call(256, 4096, 4096, dim), H100);
            assert_eq!((p.kernel, p.dim, p.blocks), (AttentionKernel::Hopper, tiled, 132));
            assert!(p.shared_bytes <= 227 << 10, "{p:?}");
        }
        assert_eq!(plan_cuda_attention(call(256, 4096, 4096, 40), ADA).kernel, AttentionKernel::Flash);
        assert_eq!(plan_cuda_attention(call(256, 4096, 4096, 192), H100).kernel, AttentionKernel::Flash);
        // A causal row without a visible key has no place in the pipeline.
        let causal = CudaCall { mask: MaskKind::Causal, ..call(4, 300, 200, 64) };
        assert_eq!(plan_cuda_attention(causal, H100).kernel, AttentionKernel::Flash);
    }

    #[test]
    fn lists_of_blocks_take_a_kernel_whose_tiles_fit_them() {
        let listed = |block, card| {
            let call = CudaCall { mask: MaskKind::Blocks, block, ..call(8, 4096, 4096, 64) };
            plan_cuda_attention(call, card).kernel
        };
        assert_eq!(listed([128, 128], H100), AttentionKernel::Hopper);
        assert_eq!(listed([384, 100], H100), AttentionKernel::Hopper);
        assert_eq!(listed([128, 64], ADA), AttentionKernel::Flash);
        assert_eq!(listed([128, 100], ADA), AttentionKernel::Exact);
        assert_eq!(listed([64, 64], H100), AttentionKernel::Exact);
    }
    #[test]
    fn old_cards_take_what_they_can() {
        let (turing, volta) = (
            Card { capability: (7, 5), multiprocessors: 40 },
            Card { capability: (7, 0), multiprocessors: 80 },
        );
        let on = |card, call| {
            let p = plan_cuda_attention(call, card);
            assert!(p.shared_bytes <= card.shared_limit());
            (p.kernel, p.code)
        };
        let code = Some("ptx75");
        assert_eq!(on(turing, call(256, 4096, 4096, 40)), (AttentionKernel::Flash, code));
        assert_eq!(on(turing, call(256, 4096, 77, 40)), (AttentionKernel::Cross, code));
        assert_eq!(on(turing, call(65_536, 16, 16, 40)), (AttentionKernel::Short, code));
        // No room for its tiles, no bf16, and no room at all.
        assert_eq!(on(turing, call(16, 4096, 4096, 160)), (AttentionKernel::Flash, code));
        assert_eq!(on(turing, call(16, 4096, 4096, 128)), (AttentionKernel::Exact, code));
        let brain = CudaCall { brain: true, ..call(16, 4096, 4096, 40) };
        assert_eq!(on(turing, brain), (AttentionKernel::Exact, code));
        assert_eq!(on(turing, call(16, 4096, 4096, 256)), (AttentionKernel::Composed, code));
        assert_eq!(on(volta, call(256, 4096, 77, 40)), (AttentionKernel::Exact, Some("ptx70")));
        assert_eq!(on(volta, call(16, 4096, 4096, 256)), (AttentionKernel::Exact, Some("ptx70")));
        let kepler = Card { capability: (3, 5), multiprocessors: 13 };
        assert_eq!(plan_cuda_attention(call(1, 1, 1, 8), kepler).code, None);
    }
}
