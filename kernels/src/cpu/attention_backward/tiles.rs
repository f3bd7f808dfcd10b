//! The arithmetic of one tile: scores to weights and slopes, and their products.

use super::{QUERY_TILE, Room};
use crate::cpu::attention::{Problem, Range, add_rows, hide};
use crate::cpu::gemm::store_up_to;
use crate::cpu::math::exp2;
use crate::cpu::micro::{cut, tile, with_rows};
use crate::cpu::operand::Rows;
use crate::cpu::simd::Simd;

/// Weights of a tile and the gradients of its scores. `whole`: the tile has every key, so that
/// `delta` follows from it.
#[inline(always)]
pub(super) unsafe fn weigh<S: Simd>(
    p: &Problem<'_>,
    range: Range,
    (k, v): (*const f32, *const f32),
    room: Room,
    whole: bool,
) {
    let keys = range.j1 - range.j0;
    let scores_of = (k, p.k.strides[3], room.columns[0], room.weights);
    let slopes_of = (v, p.v.strides[3], room.columns[1], room.slopes);
    // SAFETY: keys j0..j1 exist and the tile fits the room.
    unsafe {
        for (rows, next, columns, to) in [scores_of, slopes_of] {
            let mut lane = 0;
            while lane < range.count {
                let (columns, to) = (columns.wrapping_add(lane), to.wrapping_add(lane));
                if range.count - lane > S::LANES {
                    products::<S, 2>(p.dim, keys, rows, next, columns, to);
                } else {
                    products::<S, 1>(p.dim, keys, rows, next, columns, to);
                }
                lane += 2 * S::LANES;
            }
        }
        hide(p, range, room.weights, QUERY_TILE);
        for lane in (0..range.count).step_by(S::LANES) {
            slopes::<S>(keys, room, lane, whole);
        }
    }
}

/// Products of `keys` rows with the `V` vectors of columns at `columns`.
#[inline(always)]
unsafe fn products<S: Simd, const V: usize>(
    dim: usize,
    keys: usize,
    rows: *const f32,
    next: usize,
    columns: *mut f32,
    to: *mut f32,
) {
    let parts = keys.div_ceil(S::ROWS);
    for part in 0..parts {
        let first = cut(keys, parts, part);
        let count = cut(keys, parts, part + 1) - first;
        let (a, to) = (rows.wrapping_add(first * next), to.wrapping_add(first * QUERY_TILE));
        // SAFETY: `count` rows of `dim` values; the tile and the columns have QUERY_TILE lanes.
        unsafe {
            with_rows!(S, count, N => {
                let acc = tile::<S, N, V>(dim, a, next, 1, columns, QUERY_TILE);
                for i in 0..N {
                    for j in 0..V {
                        acc[i][j].store(to.wrapping_add(i * QUERY_TILE + j * S::LANES));
                    }
                }
            });
        }
    }
}

/// One vector of score columns to weights, and `weight · (grad · value - delta)` beside them.
#[inline(always)]
unsafe fn slopes<S: Simd>(keys: usize, room: Room, lane: usize, whole: bool) {
    // SAFETY: `keys` rows of QUERY_TILE lanes, and as many in `lse` and `delta`.
    unsafe {
        let lse = S::load(room.lse.wrapping_add(lane));
        let mut delta = S::load(room.delta.wrapping_add(lane));
        let (weights, slopes) = (room.weights.wrapping_add(lane), room.slopes.wrapping_add(lane));
        for key in 0..keys {
            let at = weights.wrapping_add(key * QUERY_TILE);
            let weight = exp2(S::load(at).sub(lse));
            weight.store(at);
            if whole {
                delta = weight.mul_add(S::load(slopes.wrapping_add(key * QUERY_TILE)), delta);
            }
        }
        for key in 0..keys {
            let at = slopes.wrapping_add(key * QUERY_TILE);
            let weight = S::load(weights.wrapping_add(key * QUERY_TILE));
            weight.mul(S::load(at).sub(delta)).store(at);
        }
    }
}

/// Adds the product of `a` (`count x depth` through its row and column strides) and `rows` to sums.
#[inline(always)]
pub(super) unsafe fn accumulate<S: Simd>(
    count: usize,
    depth: usize,
    (a, row, step): (*mut f32, usize, usize),
    rows: Rows,
    sums: *mut f32,
    padded: usize,
) {
    let parts = count.div_ceil(S::ROWS);
    for part in 0..parts {
        let first = cut(count, parts, part);
        let count = cut(count, parts, part + 1) - first;
        let (a, to) = (a.wrapping_add(first * row).cast_const(), sums.wrapping_add(first * padded));
        let mut c = 0;
        while c < padded {
            let (b, to) = (rows.0.wrapping_add(c), to.wrapping_add(c));
            let wide = padded - c > S::LANES;
            // SAFETY: the tiles lie inside the sums, the operands have the named extents.
            unsafe {
                with_rows!(S, count, N => if wide {
                    add_rows(tile::<S, N, 2>(depth, a, row, step, b, rows.1), to, padded);
                } else {
                    add_rows(tile::<S, N, 1>(depth, a, row, step, b, rows.1), to, padded);
                });
            }
            c += if wide { 2 * S::LANES } else { S::LANES };
        }
    }
}

/// Writes `count` rows of `dim` scaled sums.
#[inline(always)]
pub(super) unsafe fn put_rows<S: Simd>(
    from: *const f32,
    padded: usize,
    to: *mut f32,
    next: usize,
    (count, dim): (usize, usize),
    factor: f32,
) {
    // SAFETY: both sides have the rows.
    unsafe {
        let factor = S::splat(factor);
        for i in 0..count {
            for c in (0..dim).step_by(S::LANES) {
                let x = S::load(from.wrapping_add(i * padded + c)).mul(factor);
                store_up_to(x, to.wrapping_add(i * next + c), dim - c);
            }
        }
    }
}
