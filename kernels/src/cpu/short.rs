//! Attention over very many short sequences: a video's time axes.
//!
//! All scores of a group of queries stay in the first-level cache and are finished in one pass. The
//! rows of one sequence lie a frame apart, too far for the processor's own prefetcher, so the rows
//! of later sequences are asked for ahead.

use std::cell::RefCell;

use super::attention::{Operand, Problem, Visible};
use super::gemm::{load_up_to, store_up_to};
use super::math::exp2;
use super::micro::{cut, tile, with_rows};
use super::simd::{MAX_LANES, Simd};
use super::{Isa, Kernel, for_each};

/// Whether [`run`] can take the call.
pub(crate) fn takes(problem: &Problem<'_>) -> bool {
    !matches!(problem.visible, Visible::Bias(..) | Visible::Blocks(_))
}

/// Computes the call.
///
/// # Safety
/// As [`super::attention::run`] asks, and [`takes`] said yes.
pub(crate) unsafe fn run(isa: Isa, problem: &Problem<'_>) {
    let units = problem.outer.iter().product::<usize>();
    let step = problem.plan.tiles_per_task;
    let work = 4 * units * problem.queries * problem.keys * problem.dim;
    for_each(units.div_ceil(step), work, |task| {
        let units = (task * step, units.min((task + 1) * step));
        // SAFETY: the caller's promises; units write disjoint rows.
        unsafe { isa.run(Task { problem, units }) };
    });
}

struct Task<'a> {
    problem: &'a Problem<'a>,
    units: (usize, usize),
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Batch, inner batch and head of a unit.
fn place(p: &Problem<'_>, unit: usize) -> [usize; 3] {
    let sequence = unit / p.outer[2];
    [sequence / p.outer[1], sequence % p.outer[1], unit % p.outer[2]]
}

/// Pieces of the scratch memory.
#[derive(Clone, Copy)]
struct Room {
    /// Scaled queries of a group, `[dim][lanes]`.
    queries: *mut f32,
    /// Scores, then weights, `[keys][lanes]`.
    scores: *mut f32,
    /// The last columns of the values where they do not fill a vector, `[keys][lanes]`.
    tail: *mut f32,
}

impl Kernel for Task<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let p = self.problem;
        let mut scratch = SCRATCH.with(RefCell::take);
        let wanted = (p.dim + 2 * p.keys) * S::LANES;
        if scratch.len() < wanted {
            scratch.resize(wanted, 0.0);
        }
        let queries = scratch.as_mut_ptr();
        let scores = queries.wrapping_add(p.dim * S::LANES);
        let room = Room { queries, scores, tail: scores.wrapping_add(p.keys * S::LANES) };
        for unit in self.units.0..self.units.1 {
            // SAFETY: units are below the number of problems, the pieces of scratch as long as named.
            unsafe {
                if unit + AHEAD < self.units.1 {
                    fetch::<S>(p, place(p, unit + AHEAD));
                }
                one::<S>(p, unit, room);
            }
        }
        SCRATCH.with(|cell| cell.replace(scratch));
    }
}

/// Sequences between asking for rows and reading them.
const AHEAD: usize = 2;
/// Values in a cache line.
const LINE: usize = 16;

#[inline(always)]
unsafe fn fetch<S: Simd>(p: &Problem<'_>, at: [usize; 3]) {
    for (operand, rows) in [(&p.q, p.queries), (&p.k, p.keys), (&p.v, p.keys)] {
        for row in 0..rows {
            let from = operand.at([at[0], at[1], at[2], row]);
            for c in (0..p.dim).step_by(LINE) {
                // SAFETY: asking for a line never faults.
                unsafe { S::prefetch(from.wrapping_add(c)) };
            }
        }
    }
}

#[inline(always)]
unsafe fn one<S: Simd>(p: &Problem<'_>, unit: usize, room: Room) {
    let at = place(p, unit);
    let whole = p.dim / S::LANES * S::LANES;
    let keys = match p.visible {
        Visible::Lengths(lengths) => lengths[unit / p.outer[2]],
        _ => p.keys,
    };
    let (k, v) = (p.k.at([at[0], at[1], at[2], 0]), p.v.at([at[0], at[1], at[2], 0]));
    // SAFETY: the operands hold `keys` rows of `dim` values; scratch rows are whole vectors.
    unsafe {
        if whole < p.dim {
            for j in 0..keys {
                let x = S::load_partial(v.wrapping_add(j * p.v.strides[3] + whole), p.dim - whole);
                x.store(room.tail.wrapping_add(j * S::LANES));
            }
        }
        let mut first = 0;
        while first < p.queries {
            let count = (p.queries - first).min(S::LANES);
            let factor = p.scale * std::f32::consts::LOG2_E;
            columns::<S>(&p.q, at, (first, count), (p.dim, factor), room.queries, S::LANES);
            let parts = keys.div_ceil(S::ROWS);
            for part in 0..parts {
                let row = cut(keys, parts, part);
                let rows = cut(keys, parts, part + 1) - row;
                let (a, to) =
                    (k.wrapping_add(row * p.k.strides[3]), room.scores.wrapping_add(row * S::LANES));
                with_rows!(S, rows, N => {
                    let acc = tile::<S, N, 1>(p.dim, a, p.k.strides[3], 1, room.queries, S::LANES);
                    for i in 0..N {
                        acc[i][0].store(to.wrapping_add(i * S::LANES));
                    }
                });
            }
            if matches!(p.visible, Visible::Causal) {
                for j in 0..keys {
                    for i in 0..count {
                        if j + p.queries > first + i + p.keys {
                            *room.scores.wrapping_add(j * S::LANES + i) = f32::NEG_INFINITY;
                        }
                    }
                }
            }
            let (max, total) = soften::<S>(keys, room.scores);
            if let Some(lse) = p.lse {
                let (mut maxima, mut totals) = ([0.0f32; MAX_LANES], [0.0f32; MAX_LANES]);
                max.store(maxima.as_mut_ptr());
                total.store(totals.as_mut_ptr());
                for i in 0..count {
                    // No visible key: the logarithm of zero.
                    *lse.at(unit * p.queries + first + i) = if totals[i] == 0.0 {
                        f32::NEG_INFINITY
                    } else {
                        maxima[i] / std::f32::consts::LOG2_E + totals[i].ln()
                    };
                }
            }
            let parts = count.div_ceil(S::ROWS);
            for part in 0..parts {
                let row = cut(count, parts, part);
                let rows = cut(count, parts, part + 1) - row;
                let a = room.scores.wrapping_add(row).cast_const();
                let query = first + row;
                let to = (((at[0] * p.queries + query) * p.outer[1] + at[1]) * p.outer[2] + at[2]) * p.dim;
                let (to, next) = (p.out.at(to), p.outer[1] * p.outer[2] * p.dim);
                let mut c = 0;
                while c + 2 * S::LANES <= whole {
                    with_rows!(S, rows, N => {
                        let acc = tile::<S, N, 2>(keys, a, 1, S::LANES, v.wrapping_add(c), p.v.strides[3]);
                        for i in 0..N {
                            acc[i][0].store(to.wrapping_add(i * next + c));
                            acc[i][1].store(to.wrapping_add(i * next + c + S::LANES));
                        }
                    });
                    c += 2 * S::LANES;
                }
                while c < p.dim {
                    let b = if c < whole {
                        (v.wrapping_add(c), p.v.strides[3])
                    } else {
                        (room.tail.cast_const(), S::LANES)
                    };
                    with_rows!(S, rows, N => {
                        let acc = tile::<S, N, 1>(keys, a, 1, S::LANES, b.0, b.1);
                        for i in 0..N {
                            store_up_to(acc[i][0], to.wrapping_add(i * next + c), p.dim - c);
                        }
                    });
                    c += S::LANES;
                }
            }
            first += S::LANES;
        }
    }
}

/// `count` scaled rows of a head from `first` on as columns, one a lane, `next` values from one to the next
/// of the `dim` vectors; lanes without a row are zero.
#[inline(always)]
pub(super) unsafe fn columns<S: Simd>(
    from: &Operand<'_>,
    at: [usize; 3],
    (first, count): (usize, usize),
    (dim, factor): (usize, f32),
    to: *mut f32,
    next: usize,
) {
    // SAFETY: the rows exist; `to` has `dim` vectors.
    unsafe {
        let factor = S::splat(factor);
        for c in (0..dim).step_by(S::LANES) {
            let mut rows = [S::splat(0.0); MAX_LANES];
            for i in 0..count {
                let from = from.at([at[0], at[1], at[2], first + i]);
                rows[i] = load_up_to::<S>(from.wrapping_add(c), dim - c);
            }
            S::transpose(&mut rows);
            for i in 0..S::LANES.min(dim - c) {
                rows[i].mul(factor).store(to.wrapping_add((c + i) * next));
            }
        }
    }
}

/// Turns scores into weights that sum to 1; the maximum and the sum of exponentials of each lane.
#[inline(always)]
unsafe fn soften<S: Simd>(keys: usize, scores: *mut f32) -> (S, S) {
    // SAFETY: `keys` vectors of scores.
    unsafe {
        let mut max = S::splat(f32::NEG_INFINITY);
        for j in 0..keys {
            max = S::load(scores.wrapping_add(j * S::LANES)).max(max);
        }
        // Where every key is hidden the maximum is -inf, and -inf - -inf would be NaN.
        let safe = max.max(S::splat(-1e38));
        let mut total = S::splat(0.0);
        for j in 0..keys {
            let at = scores.wrapping_add(j * S::LANES);
            let weight = exp2(S::load(at).sub(safe));
            weight.store(at);
            total = total.add(weight);
        }
        // A sum is at least 1 where a key is visible; a query that sees none gets zeros.
        let inverse = S::splat(1.0).div(S::splat(1e-30).max(total));
        for j in 0..keys {
            let at = scores.wrapping_add(j * S::LANES);
            S::load(at).mul(inverse).store(at);
        }
        (max, total)
    }
}
