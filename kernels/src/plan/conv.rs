//! Which CUDA kernel runs a convolution, and how it is cut into blocks: a pure function.

use super::cuda::Card;

/// A convolution as a matrix product: rows are output pixels, columns output channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvCall {
    /// Output pixels of one phase.
    pub rows: usize,
    /// Output channels, rounded up to a multiple of 32.
    pub columns: usize,
    /// Input channels.
    pub channels: usize,
    /// Kernel area.
    pub taps: usize,
    /// 4 when the output is a doubled picture, computed in four interleaved parts; else 1.
    pub phases: usize,
    /// f16 or bf16, not f32.
    pub half: bool,
    /// The tensor copy engine can address the picture.
    pub addressable: bool,
    /// What happens to the sums.
    pub last: LastPass,
}

/// What a convolution does with its sums before it stores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastPass {
    /// Adds bias and residual; output channels in groups of 8.
    Whole,
    /// Leaves them as they are, in f32.
    Sums,
    /// `value · gelu(gate)` of neighbouring columns, half as many channels.
    Gated,
    /// An activation, or a number of output channels that is no multiple of 8.
    Active,
}

/// The algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvKernel {
    /// Hopper's warp-group products fed by its tensor copy engine.
    Hopper,
    /// Matrix units of any card.
    Matrix,
    /// f32 arithmetic on ordinary units.
    Plain,
}

impl ConvKernel {
    /// Name in receipts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hopper => "hopper",
            Self::Matrix => "matrix",
            Self::Plain => "plain",
        }
    }
}

/// A decision of [`plan_cuda_conv`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvPlan {
    /// The algorithm.
    pub kernel: ConvKernel,
    /// Name of the kernel in its source.
    pub function: &'static str,
    /// Pixels of a tile.
    pub tile_rows: usize,
    /// Channels of a tile.
    pub tile_columns: usize,
    /// Blocks of channels a tap is cut into.
    pub chunks: usize,
    /// Parts the sums are cut into so that every multiprocessor has work.
    pub splits: usize,
    /// Tiles of pixels that are worked on together, so that weights are read once for all of them.
    pub band: usize,
    /// Thread blocks.
    pub blocks: u64,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
}

/// A tile of `cuda/conv_hopper.cu`.
#[derive(Debug, Clone, Copy)]
struct Tile {
    function: &'static str,
    last: LastPass,
    columns: usize,
    stages: usize,
    threads: u32,
    blocks: usize,
    /// Measured part of the ideal rate on long sums.
    rate: f64,
    /// Two tiles at a time, the end of one under the products of the other.
    turns: bool,
}

/// Pixels of every tile.
const TILE_ROWS: usize = 128;

const TILES: [Tile; 8] = [
    turns("conv_hopper_turns_128x160", LastPass::Whole, 160, 1.0),
    turns("conv_hopper_turns_128x128", LastPass::Whole, 128, 0.9),
    narrow("conv_hopper_128x64", LastPass::Whole),
    Tile { turns: false, ..turns("conv_hopper_sums_128x160", LastPass::Sums, 160, 0.9) },
    narrow("conv_hopper_sums_128x64", LastPass::Sums),
    turns("conv_hopper_gated_turns_128x160", LastPass::Gated, 160, 1.0),
    Tile { turns: false, ..turns("conv_hopper_active_128x160", LastPass::Active, 160, 0.9) },
    narrow("conv_hopper_active_128x64", LastPass::Active),
];

const fn turns(function: &'static str, last: LastPass, columns: usize, rate: f64) -> Tile {
    Tile { function, last, columns, stages: 6, threads: 384, blocks: 1, rate, turns: true }
}

/// Two blocks a multiprocessor.
const fn narrow(function: &'static str, last: LastPass) -> Tile {
    Tile { function, last, columns: 64, stages: 4, threads: 288, blocks: 2, rate: 0.6, turns: false }
}

impl Tile {
    /// Cycles of a multiprocessor for the whole call, its sums cut into `splits`.
    fn cycles(&self, call: ConvCall, steps: usize, splits: usize, multiprocessors: usize) -> f64 {
        let area = (TILE_ROWS * self.columns) as f64;
        let tiles = items(call, self.columns, splits) as usize;
        // 2048 multiply-adds a cycle, 64 terms a step.
        let products = steps.div_ceil(splits) as f64 * area * 64.0 / 2048.0 / self.rate;
        let store = if splits > 1 { area / 8.0 } else { area / 12.0 } + 600.0;
        let waves = tiles.div_ceil(multiprocessors) as f64;
        let (each, tail) = match (self.turns, self.blocks) {
            (true, _) => ((products + 300.0).max((products + store) / 2.0), store),
            (false, 1) => (products + store, 0.0),
            _ => (products.max(store), 0.0),
        };
        let reduction = if splits > 1 {
            4000.0
                + (call.rows * call.phases * call.columns * splits * 4) as f64
                    / (12.0 * multiprocessors as f64)
        } else {
            0.0
        };
        waves * each + tail + reduction
    }
}

/// Picks the kernel, its tile and its grid.
///
/// On Hopper the tile is the one whose waves of blocks take the fewest cycles by the rates measured on
/// long sums; sums are split when the tiles alone leave multiprocessors idle.
pub fn plan_cuda_conv(call: ConvCall, card: Card) -> ConvPlan {
    let multiprocessors = card.multiprocessors.max(1);
    if call.half && call.addressable && card.capability == (9, 0) {
        let chunks = call.channels.div_ceil(64);
        let steps = call.taps * chunks;
        let mut best = (f64::INFINITY, TILES[0], 1);
        for tile in TILES {
            let whole = tile.last == call.last;
            let parts = tile.last == LastPass::Sums && call.last != LastPass::Sums;
            let splits = [1, 2, 3, 4, 6, 8].into_iter();
            for splits in splits.filter(|s| if *s == 1 { whole } else { parts && steps / s >= 8 }) {
                let cycles = tile.cycles(call, steps, splits, multiprocessors);
                if cycles < best.0 {
                    best = (cycles, tile, splits);
                }
            }
        }
        let (_, tile, splits) = best;
        let items = items(call, tile.columns, splits);
        return ConvPlan {
            kernel: ConvKernel::Hopper,
            function: tile.function,
            tile_rows: TILE_ROWS,
            tile_columns: tile.columns,
            chunks,
            splits,
            band: 8,
            blocks: items.min((multiprocessors * tile.blocks) as u64),
            threads: tile.threads,
            // Stages, two barriers each and two for turns, two sets of biases for both groups, room to align.
            shared_bytes: (tile.stages * ((TILE_ROWS + tile.columns) * 128 + 16) + 16 * tile.columns + 1040)
                as u32,
        };
    }
    let (kernel, tile_columns, chunk, shared_bytes) =
        if call.half { (ConvKernel::Matrix, 128, 32, 3 * 16384) } else { (ConvKernel::Plain, 64, 16, 0) };
    let chunks = call.channels.div_ceil(chunk);
    let tiles = items(call, tile_columns, 1);
    let idle = (2 * multiprocessors as u64 / tiles.max(1)) as usize;
    let splits = if call.half { idle.min(call.taps * chunks / 16).clamp(1, 8) } else { 1 };
    ConvPlan {
        kernel,
        function: "conv_tile",
        tile_rows: TILE_ROWS,
        tile_columns,
        chunks,
        splits,
        band: 1,
        blocks: tiles * splits as u64,
        threads: 256,
        shared_bytes,
    }
}

/// Whether a linear layer of 16-bit values `[rows, inner]` to `[rows, out]` runs as a convolution: where that beat
/// cuBLASLt on an H200. Wide results of short sums go to the library, which stores them faster.
pub fn linear_is_ours(rows: usize, inner: usize, out: usize, card: Card) -> bool {
    let fits = inner.is_multiple_of(8) && out.is_multiple_of(32);
    card.capability == (9, 0) && fits && rows >= 2048 && (inner >= 640 || out <= 2 * inner)
}

fn items(call: ConvCall, columns: usize, splits: usize) -> u64 {
    (call.rows.div_ceil(TILE_ROWS) * call.columns.div_ceil(columns) * call.phases * splits) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: Card = Card { capability: (9, 0), multiprocessors: 132 };
    const ADA: Card = Card { capability: (8, 9), multiprocessors: 128 };

    fn call(rows: usize, channels: usize, columns: usize, taps: usize) -> ConvCall {
        ConvCall {
            rows,
            columns,
            channels,
            taps,
            phases: 1,
            half: true,
            addressable: true,
            last: LastPass::Whole,
        }
    }

    #[test]
    fn tiles_follow_the_channels() {
        for (rows, channels) in [(131_072, 320), (32_768, 640), (8192, 1280), (2048, 1280)] {
            let p = plan_cuda_conv(call(rows, channels, channels, 9), H100);
            assert_eq!((p.tile_columns, p.splits), (160, 1), "{channels}");
        }
        for (rows, channels) in [(65_536, 512), (1 << 20, 256), (1 << 22, 128)] {
            let p = plan_cuda_conv(call(rows, channels, channels, 9), H100);
            assert_eq!((p.tile_columns, p.splits), (128, 1), "{channels}");
        }
    }

    #[test]
    fn wide_results_of_short_sums_are_left_to_the_library() {
        assert!(linear_is_ours(131_072, 320, 320, H100) && linear_is_ours(32_768, 640, 1920, H100));
        assert!(!linear_is_ours(131_072, 320, 960, H100) && !linear_is_ours(154, 768, 640, H100));
        assert!(!linear_is_ours(131_072, 320, 320, ADA));
    }

    #[test]
    fn few_tiles_split_their_sums() {
        let p = plan_cuda_conv(call(256, 1280, 1280, 9), H100);
        assert!(p.splits > 1 && p.blocks > 66, "{p:?}");
        let p = plan_cuda_conv(call(256, 1280, 1280, 9), ADA);
        assert!(p.splits > 1 && p.kernel == ConvKernel::Matrix, "{p:?}");
    }

    #[test]
    fn narrow_outputs_take_the_narrow_tile() {
        assert_eq!(plan_cuda_conv(call(1 << 20, 128, 32, 1), H100).function, "conv_hopper_128x64");
    }

    #[test]
    fn each_last_pass_has_its_kernels() {
        let with = |last| plan_cuda_conv(ConvCall { last, ..call(131_072, 320, 2560, 1) }, H100);
        for (last, part) in
            [(LastPass::Sums, "_sums_"), (LastPass::Gated, "_gated_"), (LastPass::Active, "_active_")]
        {
            assert!(with(last).function.contains(part), "{last:?}");
            assert_eq!(with(last).splits, 1);
        }
        for rows in [1, 100, 512] {
            let p = plan_cuda_conv(ConvCall { last: LastPass::Sums, ..call(rows, 1280, 1280, 9) }, H100);
            assert_eq!(p.splits, 1, "sums are not summed again");
        }
    }

    #[test]
    fn other_cards_and_types_have_a_kernel() {
        assert_eq!(plan_cuda_conv(call(4096, 320, 320, 9), ADA).kernel, ConvKernel::Matrix);
        let single = ConvCall { half: false, ..call(4096, 320, 320, 9) };
        assert_eq!(plan_cuda_conv(single, H100).kernel, ConvKernel::Plain);
        let odd = ConvCall { addressable: false, ..call(4096, 320, 320, 9) };
        assert_eq!(plan_cuda_conv(odd, H100).kernel, ConvKernel::Matrix);
    }

    #[test]
    fn every_block_fits_its_card() {
        for rows in [1, 64, 1000, 8192, 1 << 22] {
            for columns in [32, 64, 128, 320, 512, 1280, 2560] {
                for (channels, taps) in [(8, 1), (64, 9), (328, 9), (2560, 9), (320, 1)] {
                    let p = plan_cuda_conv(call(rows, channels, columns, taps), H100);
                    assert!(p.splits == 1 || p.function.contains("_sums_"), "{p:?}");
                    let per_multiprocessor = if p.threads == 288 { 2 } else { 1 };
                    assert!(p.shared_bytes <= (227 << 10) / per_multiprocessor, "{p:?}");
                    assert!(p.blocks > 0 && p.splits <= taps * p.chunks, "{p:?}");
                    let p = plan_cuda_conv(call(rows, channels, columns, taps), ADA);
                    assert!(p.shared_bytes <= 99 << 10 && p.blocks > 0 && p.splits <= taps * p.chunks);
                }
            }
        }
    }
}
