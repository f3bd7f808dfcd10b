//! Attention over very many short sequences: a video's time axes.
//!
//! The rows of one sequence lie a frame apart, often a multiple of a page, where they displace each other
//! from every cache. So the heads of a sequence are copied together to scratch memory, each row of
//! memory once and in order, worked on there, and copied back; the next sequence is asked for meanwhile.

use std::cell::RefCell;

use super::attention::{Problem, Visible};
use super::gemm::{copy_values, load_up_to};
use super::math::exp2_weight;
use super::micro::{cut, tile, with_rows};
use super::operand::LINE;
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

/// Bytes of the scratch memory for heads; a part of the second-level cache.
const ROOM: usize = 128 << 10;

/// Pieces of the scratch memory.
#[derive(Clone, Copy)]
struct Room {
    /// Scaled queries of a group, `[dim][lanes]`.
    columns: *mut f32,
    /// Scores, then weights, `[keys][lanes]`.
    scores: *mut f32,
    /// Heads from here on, each its queries (later its result), keys and values, `[rows][padded]`.
    heads: *mut f32,
    /// `dim` in whole vectors.
    padded: usize,
}

impl Room {
    /// The three operands of a head.
    #[inline(always)]
    fn head(&self, p: &Problem<'_>, head: usize) -> [*mut f32; 3] {
        let q = self.heads.wrapping_add(head * (p.queries + 2 * p.keys) * self.padded);
        let k = q.wrapping_add(p.queries * self.padded);
        [q, k, k.wrapping_add(p.keys * self.padded)]
    }
}

impl Kernel for Task<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let p = self.problem;
        let padded = p.dim.div_ceil(S::LANES) * S::LANES;
        let head = (p.queries + 2 * p.keys) * padded;
        let most = (ROOM / (4 * head.max(1))).clamp(1, p.outer[2]);
        let mut scratch = SCRATCH.with(RefCell::take);
        let wanted = (p.dim + p.keys) * S::LANES + most * head + LINE;
        if scratch.len() < wanted {
            scratch.resize(wanted, 0.0);
        }
        // Vectors that begin with a cache line do not reach into a second one.
        let columns = scratch.as_mut_ptr().wrapping_add(scratch.as_ptr().align_offset(4 * LINE));
        let scores = columns.wrapping_add(p.dim * S::LANES);
        let room = Room { columns, scores, heads: scores.wrapping_add(p.keys * S::LANES), padded };
        let mut unit = self.units.0;
        while unit < self.units.1 {
            let count = (p.outer[2] - unit % p.outer[2]).min(most).min(self.units.1 - unit);
            // SAFETY: units are below the number of problems, the pieces of scratch as long as named.
            unsafe {
                gather::<S>(p, place(p, unit), count, room);
                for head in 0..count {
                    if unit + count + head < self.units.1 {
                        fetch::<S>(p, place(p, unit + count + head));
                    }
                    one::<S>(p, unit + head, room, room.head(p, head));
                }
                spread::<S>(p, place(p, unit), count, room);
            }
            unit += count;
        }
        SCRATCH.with(|cell| cell.replace(scratch));
    }
}

/// Asks for the rows of a head.
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

/// Copies `count` heads to the scratch memory, zeros after their last columns.
#[inline(always)]
unsafe fn gather<S: Simd>(p: &Problem<'_>, at: [usize; 3], count: usize, room: Room) {
    let whole = p.dim / S::LANES * S::LANES;
    for (part, (operand, rows)) in [(&p.q, p.queries), (&p.k, p.keys), (&p.v, p.keys)].into_iter().enumerate()
    {
        for row in 0..rows {
            for head in 0..count {
                let from = operand.at([at[0], at[1], at[2] + head, row]);
                let to = room.head(p, head)[part].wrapping_add(row * room.padded);
                // SAFETY: the operands hold those rows of `dim` values, the scratch rows whole vectors.
                unsafe {
                    for c in (0..whole).step_by(S::LANES) {
                        S::load(from.wrapping_add(c)).store(to.wrapping_add(c));
                    }
                    if whole < p.dim {
                        let last = S::load_partial(from.wrapping_add(whole), p.dim - whole);
                        last.store(to.wrapping_add(whole));
                    }
                }
            }
        }
    }
}

/// Copies the results of `count` heads from where their queries were.
#[inline(always)]
unsafe fn spread<S: Simd>(p: &Problem<'_>, at: [usize; 3], count: usize, room: Room) {
    for row in 0..p.queries {
        let to = (((at[0] * p.queries + row) * p.outer[1] + at[1]) * p.outer[2] + at[2]) * p.dim;
        for head in 0..count {
            let from = room.head(p, head)[0].wrapping_add(row * room.padded);
            // SAFETY: the output has those rows.
            unsafe { copy_values::<S>(from, p.out.at(to + head * p.dim), p.dim) };
        }
    }
}

/// One head, its result over its queries.
#[inline(always)]
unsafe fn one<S: Simd>(p: &Problem<'_>, unit: usize, room: Room, [q, k, v]: [*mut f32; 3]) {
    let padded = room.padded;
    let keys = match p.visible {
        Visible::Lengths(lengths) => lengths[unit / p.outer[2]],
        _ => p.keys,
    };
    // SAFETY: `q`, `k` and `v` are rows of whole vectors, the other pieces as long as named.
    unsafe {
        let mut first = 0;
        while first < p.queries {
            let count = (p.queries - first).min(S::LANES);
            let factor = p.scale * std::f32::consts::LOG2_E;
            let group = q.wrapping_add(first * padded);
            columns::<S>((group, padded), count, (p.dim, factor), room.columns, S::LANES);
            let parts = keys.div_ceil(S::ROWS);
            for part in 0..parts {
                let row = cut(keys, parts, part);
                let rows = cut(keys, parts, part + 1) - row;
                let (a, to) = (k.wrapping_add(row * padded), room.scores.wrapping_add(row * S::LANES));
                with_rows!(S, rows, N => {
                    let acc = tile::<S, N, 1>(p.dim, a, padded, 1, room.columns, S::LANES);
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
                let to = group.wrapping_add(row * padded);
                let mut c = 0;
                while c + 2 * S::LANES <= padded {
                    with_rows!(S, rows, N => {
                        let acc = tile::<S, N, 2>(keys, a, 1, S::LANES, v.wrapping_add(c), padded);
                        for i in 0..N {
                            acc[i][0].store(to.wrapping_add(i * padded + c));
                            acc[i][1].store(to.wrapping_add(i * padded + c + S::LANES));
                        }
                    });
                    c += 2 * S::LANES;
                }
                if c < padded {
                    with_rows!(S, rows, N => {
                        let acc = tile::<S, N, 1>(keys, a, 1, S::LANES, v.wrapping_add(c), padded);
                        for i in 0..N {
                            acc[i][0].store(to.wrapping_add(i * padded + c));
                        }
                    });
                }
            }
            first += S::LANES;
        }
    }
}

/// `count` scaled rows of `dim` values, `row` values from one to the next, as columns, one a lane, `next` values
/// from one to the next of the `dim` vectors; lanes without a row are zero.
#[inline(always)]
pub(super) unsafe fn columns<S: Simd>(
    (from, row): (*const f32, usize),
    count: usize,
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
                rows[i] = load_up_to::<S>(from.wrapping_add(i * row + c), dim - c);
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
            let weight = exp2_weight(S::load(at).sub(safe));
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
