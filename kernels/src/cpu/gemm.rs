//! Packed f32 matrix product `C = act(A Wᵀ + bias) + residual`.
//!
//! The weight is stored once as panels of 32 columns. `A` is copied row by row into a small block
//! (so a convolution gathers its neighbourhoods there and nowhere else), whose rows have a fixed
//! odd-ish distance: the register tile then addresses all of them from one pointer, and no two
//! rows fall into the same cache set.

use std::cell::RefCell;

use super::math::activate;
use super::micro::{cut, tile, with_rows};
use super::simd::Simd;
use super::{Isa, Kernel, Shared, for_each, threads};
use crate::pointwise::Activation;

/// Columns of a weight panel.
pub(crate) const PANEL: usize = 32;
/// Longest piece of the inner dimension handled at once.
const DEPTH: usize = 512;
/// Distance between rows of the `A` block: not a multiple of 4 KiB or of a power of two of lines.
const STRIDE: usize = DEPTH + 16;
/// Rows of the `A` block.
const BLOCK: usize = 112;

/// A weight `[columns, depth]` in panels `[columns / 32][depth][32]`, the last filled with zeros.
#[derive(Clone)]
pub(crate) struct Packed {
    data: Vec<f32>,
    pub(crate) columns: usize,
    pub(crate) depth: usize,
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed({} x {})", self.columns, self.depth)
    }
}

impl Packed {
    /// Packs what `value(column, k)` gives.
    pub(crate) fn new(columns: usize, depth: usize, value: impl Fn(usize, usize) -> f32) -> Self {
        let mut data = vec![0.0; columns.div_ceil(PANEL) * depth * PANEL];
        for (panel, part) in data.chunks_exact_mut((depth * PANEL).max(1)).enumerate() {
            for k in 0..depth {
                for j in 0..PANEL.min(columns - panel * PANEL) {
                    part[k * PANEL + j] = value(panel * PANEL + j, k);
                }
            }
        }
        Self { data, columns, depth }
    }

    /// The weight of `column` at inner index `k`.
    pub(crate) fn value(&self, column: usize, k: usize) -> f32 {
        self.data[(column / PANEL * self.depth + k) * PANEL + column % PANEL]
    }
}

/// Where the rows of `A` come from.
pub(crate) trait Rows: Sync {
    /// Copies elements `k0..k1` of row `r` to `to`.
    ///
    /// # Safety
    /// `r` is below the row count given to [`product`], `k1` at most the depth, and `to` has room.
    unsafe fn copy<S: Simd>(&self, r: usize, k0: usize, k1: usize, to: *mut f32);
    /// Where row `r` of `C` starts in the output (and residual), in elements.
    fn place(&self, r: usize) -> usize;
}

/// What happens to a finished sum before it is stored.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue<'a> {
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) activation: Activation,
    /// Added last; laid out like the output.
    pub(crate) residual: Option<&'a [f32]>,
}

/// Writes `rows` rows of `weight.columns` values.
///
/// # Safety
/// For every row, `place(r) + columns` is within `out` and the residual, rows do not overlap in
/// `out`, the bias has `columns` values, and `source` can copy every row.
pub(crate) unsafe fn product<R: Rows>(
    isa: Isa,
    source: &R,
    rows: usize,
    weight: &Packed,
    epilogue: Epilogue<'_>,
    out: Shared,
) {
    let panels = weight.columns.div_ceil(PANEL);
    if rows == 0 || panels == 0 {
        return;
    }
    let wanted = 4 * threads();
    let row_blocks = rows.div_ceil(BLOCK);
    let column_blocks =
        if row_blocks >= wanted { 1 } else { wanted.div_ceil(row_blocks).min(panels.div_ceil(2)) };
    let work = 2 * rows * weight.columns * weight.depth;
    for_each(row_blocks * column_blocks, work, |task| {
        let (row_block, column_block) = (task / column_blocks, task % column_blocks);
        let block = Block {
            source,
            weight,
            epilogue,
            out,
            rows: (cut(rows, row_blocks, row_block), cut(rows, row_blocks, row_block + 1)),
            panels: (cut(panels, column_blocks, column_block), cut(panels, column_blocks, column_block + 1)),
        };
        // SAFETY: the caller's promises; blocks cover disjoint rows and panels.
        unsafe { isa.run(block) }
    });
}

struct Block<'a, R> {
    source: &'a R,
    weight: &'a Packed,
    epilogue: Epilogue<'a>,
    out: Shared,
    rows: (usize, usize),
    panels: (usize, usize),
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl<R: Rows> Kernel for Block<'_, R> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (r0, r1) = self.rows;
        let mut scratch = SCRATCH.with(RefCell::take);
        if scratch.len() < BLOCK * STRIDE {
            scratch.resize(BLOCK * STRIDE, 0.0);
        }
        let a = scratch.as_mut_ptr();
        let depth = self.weight.depth;
        let pieces = depth.div_ceil(DEPTH).max(1);
        let groups = (r1 - r0).div_ceil(S::ROWS);
        for piece in 0..pieces {
            let (k0, k1) = (cut(depth, pieces, piece), cut(depth, pieces, piece + 1));
            for r in r0..r1 {
                // SAFETY: r is a row of the product; the block has STRIDE >= k1 - k0 values a row.
                unsafe { self.source.copy::<S>(r, k0, k1, a.wrapping_add((r - r0) * STRIDE)) };
            }
            let last = piece + 1 == pieces;
            for panel in self.panels.0..self.panels.1 {
                let b = self.weight.data.as_ptr().wrapping_add((panel * depth + k0) * PANEL);
                for group in 0..groups {
                    let first = cut(r1 - r0, groups, group);
                    let count = cut(r1 - r0, groups, group + 1) - first;
                    let a = a.wrapping_add(first * STRIDE).cast_const();
                    let mut column = panel * PANEL;
                    let mut b = b;
                    while column < self.weight.columns.min((panel + 1) * PANEL) {
                        let wide =
                            self.weight.columns - column > S::LANES && column % PANEL + 2 * S::LANES <= PANEL;
                        // SAFETY: the panel holds 32 columns, zeros past the last; rows and
                        // columns are within the product.
                        unsafe {
                            with_rows!(S, count, N => if wide {
                                self.finish(tile::<S, N, 2>(k1 - k0, a, STRIDE, 1, b, PANEL), r0 + first, column, piece > 0, last)
                            } else {
                                self.finish(tile::<S, N, 1>(k1 - k0, a, STRIDE, 1, b, PANEL), r0 + first, column, piece > 0, last)
                            });
                        }
                        let step = if wide { 2 * S::LANES } else { S::LANES };
                        column += step;
                        b = b.wrapping_add(step);
                    }
                }
            }
        }
        SCRATCH.with(|cell| cell.replace(scratch));
    }
}

impl<R: Rows> Block<'_, R> {
    /// Adds what is there, and on the last piece finishes the value, then stores.
    #[inline(always)]
    unsafe fn finish<S: Simd, const N: usize, const V: usize>(
        &self,
        acc: [[S; V]; N],
        row: usize,
        column: usize,
        add: bool,
        last: bool,
    ) {
        // SAFETY: every address is `place(row) + column` with row and column inside the product;
        // vectors that would pass the last column are partial.
        unsafe {
            for i in 0..N {
                let place = self.source.place(row + i) + column;
                for j in 0..V {
                    let n = self.weight.columns - column - j * S::LANES;
                    let at = place + j * S::LANES;
                    let mut x = acc[i][j];
                    if add {
                        x = x.add(load_up_to(self.out.at(at), n));
                    }
                    if last {
                        if let Some(bias) = self.epilogue.bias {
                            x = x.add(load_up_to(bias.as_ptr().wrapping_add(column + j * S::LANES), n));
                        }
                        x = activate(self.epilogue.activation, x);
                        if let Some(residual) = self.epilogue.residual {
                            x = x.add(load_up_to(residual.as_ptr().wrapping_add(at), n));
                        }
                    }
                    store_up_to(x, self.out.at(at), n);
                }
            }
        }
    }
}

/// A whole vector, or the `n` values there are.
///
/// # Safety
/// `min(n, LANES)` values are readable and the processor has `S`.
#[inline(always)]
pub(crate) unsafe fn load_up_to<S: Simd>(p: *const f32, n: usize) -> S {
    // SAFETY: as the caller promises.
    unsafe { if n >= S::LANES { S::load(p) } else { S::load_partial(p, n) } }
}

/// Stores a whole vector, or its first `n` values.
///
/// # Safety
/// `min(n, LANES)` values are writable and the processor has `S`.
#[inline(always)]
pub(crate) unsafe fn store_up_to<S: Simd>(x: S, p: *mut f32, n: usize) {
    // SAFETY: as the caller promises.
    unsafe { if n >= S::LANES { x.store(p) } else { x.store_partial(p, n) } }
}

/// Copies `n` values.
///
/// # Safety
/// Both sides have `n` values, and the processor has `S`.
#[inline(always)]
pub(crate) unsafe fn copy_values<S: Simd>(from: *const f32, to: *mut f32, n: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        let mut i = 0;
        while i + S::LANES <= n {
            S::load(from.wrapping_add(i)).store(to.wrapping_add(i));
            i += S::LANES;
        }
        if i < n {
            S::load_partial(from.wrapping_add(i), n - i).store_partial(to.wrapping_add(i), n - i);
        }
    }
}
