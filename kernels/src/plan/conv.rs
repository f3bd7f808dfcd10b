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
    /// Thread blocks.
    pub blocks: u64,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
}

/// A tile of `cuda/conv_hopper.cu`. Times are in units of the ideal 32,768 products.
#[derive(Debug, Clone, Copy)]
struct Tile {
    function: &'static str,
    rows: usize,
    columns: usize,
    stages: usize,
    threads: u32,
    blocks: usize,
    /// Measured part of the ideal rate on long sums.
    rate: f64,
    /// Two tiles at a time, the end of one under the products of the other.
    turns: bool,
}

const TILES: [Tile; 7] = [
    tile("conv_hopper_256x160", 256, 160, 4, 0.98),
    tile("conv_hopper_256x128", 256, 128, 4, 0.95),
    tile("conv_hopper_128x256", 128, 256, 4, 0.93),
    tile("conv_hopper_128x160", 128, 160, 6, 0.94),
    Tile { turns: true, ..tile("conv_hopper_turns_128x160", 128, 160, 6, 0.94) },
    Tile { turns: true, ..tile("conv_hopper_turns_128x128", 128, 128, 7, 0.85) },
    Tile { threads: 288, blocks: 2, ..tile("conv_hopper_128x64", 128, 64, 4, 0.6) },
];

const fn tile(function: &'static str, rows: usize, columns: usize, stages: usize, rate: f64) -> Tile {
    Tile { function, rows, columns, stages, threads: 384, blocks: 1, rate, turns: false }
}

impl Tile {
    /// Cycles of a multiprocessor for the whole call, its sums cut into `splits`.
    fn cycles(&self, call: ConvCall, steps: usize, splits: usize, multiprocessors: usize) -> f64 {
        let area = (self.rows * self.columns) as f64;
        let tiles = call.rows.div_ceil(self.rows) * call.columns.div_ceil(self.columns) * call.phases;
        // 2048 multiply-adds a cycle, 64 terms a step.
        let products = steps.div_ceil(splits) as f64 * area * 64.0 / 2048.0 / self.rate;
        let store = if splits > 1 { area / 8.0 } else { area / 16.0 } + 600.0;
        let waves = (tiles * splits).div_ceil(multiprocessors) as f64;
        let tail = if self.turns { store } else { 0.0 };
        let each = match (self.turns, self.blocks) {
            (false, 1) => products + store,
            _ => products.max(store),
        };
        let reduction = if splits > 1 {
            4000.0 + (call.rows * call.phases * call.columns * splits * 4) as f64 / (12.0 * multiprocessors as f64)
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
            for splits in [1, 2, 3, 4, 6, 8].into_iter().filter(|s| *s == 1 || steps / s >= 8) {
                let cycles = tile.cycles(call, steps, splits, multiprocessors);
                if cycles < best.0 {
                    best = (cycles, tile, splits);
                }
            }
        }
        let (_, tile, splits) = best;
        let items = items(call, tile.rows, tile.columns, splits);
        return ConvPlan {
            kernel: ConvKernel::Hopper,
            function: tile.function,
            tile_rows: tile.rows,
            tile_columns: tile.columns,
            chunks,
            splits,
            blocks: items.min((multiprocessors * tile.blocks) as u64),
            threads: tile.threads,
            // Stages, two barriers each and two for turns, room to align.
            shared_bytes: (tile.stages * ((tile.rows + tile.columns) * 128 + 16) + 1040) as u32,
        };
    }
    let (kernel, tile_columns, chunk, shared_bytes) =
        if call.half { (ConvKernel::Matrix, 128, 32, 3 * 16384) } else { (ConvKernel::Plain, 64, 16, 0) };
    let chunks = call.channels.div_ceil(chunk);
    let tiles = items(call, 128, tile_columns, 1);
    let idle = (2 * multiprocessors as u64 / tiles.max(1)) as usize;
    let splits = if call.half { idle.min(call.taps * chunks / 16).clamp(1, 8) } else { 1 };
    ConvPlan {
        kernel,
        function: "conv_tile",
        tile_rows: 128,
        tile_columns,
        chunks,
        splits,
        blocks: tiles * splits as u64,
        threads: 256,
        shared_bytes,
    }
}

fn items(call: ConvCall, rows: usize, columns: usize, splits: usize) -> u64 {
    (call.rows.div_ceil(rows) * call.columns.div_ceil(columns) * call.phases * splits) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: Card = Card { capability: (9, 0), multiprocessors: 132 };
    const ADA: Card = Card { capability: (8, 9), multiprocessors: 128 };

    fn call(rows: usize, channels: usize, columns: usize, taps: usize) -> ConvCall {
        ConvCall { rows, columns, channels, taps, phases: 1, half: true, addressable: true }
    }

    #[test]
    fn long_sums_take_wide_tiles() {
        for (rows, channels) in [(131_072, 320), (32_768, 640), (8192, 1280)] {
            let p = plan_cuda_conv(call(rows, channels, channels, 9), H100);
            assert_eq!((p.function, p.splits), ("conv_hopper_256x160", 1), "{channels}");
        }
        let small = plan_cuda_conv(call(2048, 1280, 1280, 9), H100);
        assert_eq!((small.function, small.splits), ("conv_hopper_128x160", 1));
        let vae = plan_cuda_conv(call(65_536, 512, 512, 9), H100);
        assert_eq!((vae.tile_rows * vae.tile_columns, vae.splits), (256 * 128, 1));
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
