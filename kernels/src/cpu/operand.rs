//! Where attention's operands lie, and how tiles of them are laid out for the register tile.

use super::gemm::{copy_values, load_up_to};
use super::simd::Simd;

/// One operand: memory and the distances between batches, inner batches, heads and tokens.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) strides: [usize; 4],
}

impl Operand<'_> {
    #[inline(always)]
    pub(crate) fn at(&self, index: [usize; 4]) -> *const f32 {
        let offset: usize = (0..4).map(|i| index[i] * self.strides[i]).sum();
        self.data.as_ptr().wrapping_add(offset)
    }
}

/// Values in a cache line.
pub(super) const LINE: usize = 16;

/// Rows in whole vectors: the first, and the distance from one to the next.
pub(super) type Rows = (*const f32, usize);

/// `count` rows in whole vectors: where they lie one after the other, or copied. Rows of one head among
/// several lie a power of two apart often enough to displace each other from the first-level cache.
#[inline(always)]
pub(super) unsafe fn rows<S: Simd>(
    from: &Operand<'_>,
    at: [usize; 4],
    (count, dim): (usize, usize),
    to: *mut f32,
    padded: usize,
) -> Rows {
    let (start, next) = (from.at(at), from.strides[3]);
    if padded == dim && next == dim {
        return (start, next);
    }
    // SAFETY: the rows exist; `to` holds `count` padded ones.
    unsafe {
        for i in 0..count {
            let row = to.wrapping_add(i * padded);
            copy_values::<S>(start.wrapping_add(i * next), row, dim);
            S::splat(0.0).store_partial(row.wrapping_add(dim), padded - dim);
        }
    }
    (to, padded)
}

/// Copies `count` rows as panels of two vectors, row after row, the last panel perhaps of one: what the
/// products with one panel read then stays in the first-level cache.
#[inline(always)]
pub(super) unsafe fn panels<S: Simd>(
    from: &Operand<'_>,
    at: [usize; 4],
    (count, dim): (usize, usize),
    to: *mut f32,
) {
    let start = from.at(at);
    for i in 0..count {
        let row = start.wrapping_add(i * from.strides[3]);
        for c in (0..dim).step_by(2 * S::LANES) {
            let width = if dim - c > S::LANES { 2 * S::LANES } else { S::LANES };
            let to = to.wrapping_add(c * count + i * width);
            // SAFETY: the rows exist; `to` holds `count` rows in whole vectors.
            unsafe {
                for v in (0..width).step_by(S::LANES) {
                    let x: S = load_up_to(row.wrapping_add(c + v), dim - c - v);
                    x.store(to.wrapping_add(v));
                }
            }
        }
    }
}
