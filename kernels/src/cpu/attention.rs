//! Tiled attention without the score matrix.
//!
//! Scores are computed transposed, one query a vector lane: the softmax over keys is then plain
//! vertical arithmetic, and keys and values are read where they lie, through their strides.

use std::cell::RefCell;

use super::gemm::{load_up_to, store_up_to};
use super::math::exp2_weight;
use super::micro::{cut, tile, with_rows};
use super::operand::{LINE, Operand, Rows, panels, rows};
use super::simd::Simd;
use super::{Isa, Kernel, Shared, for_each, short};
use crate::attention::{AttentionSpec, BlockList, Mask};
use crate::plan::{AttentionKernel, AttentionPlan};

/// Which keys count.
#[derive(Clone, Copy)]
pub(crate) enum Visible<'a> {
    All,
    /// Query `i` sees keys up to `i + keys - queries`.
    Causal,
    /// The first so many keys of each sequence.
    Lengths(&'a [usize]),
    /// Added to the scores; the last stride is that of the keys.
    Bias(Operand<'a>, usize),
    /// Blocks of keys a block of queries.
    Blocks(&'a BlockList),
}

impl<'a> Visible<'a> {
    /// What a mask without a bias hides.
    pub(crate) fn of(spec: &'a AttentionSpec) -> Self {
        match &spec.mask {
            Mask::Causal => Self::Causal,
            Mask::Lengths(lengths) => Self::Lengths(lengths),
            Mask::Blocks(list) => Self::Blocks(list),
            Mask::None | Mask::Bias(_) => Self::All,
        }
    }
}

/// A whole call.
#[derive(Clone, Copy)]
pub(crate) struct Problem<'a> {
    pub(crate) q: Operand<'a>,
    pub(crate) k: Operand<'a>,
    pub(crate) v: Operand<'a>,
    /// Batches, inner batches, heads.
    pub(crate) outer: [usize; 3],
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) dim: usize,
    pub(crate) scale: f32,
    pub(crate) visible: Visible<'a>,
    pub(crate) plan: AttentionPlan,
    /// `[batch, queries, inner batch, heads, dim]`.
    pub(crate) out: Shared,
    /// `[batch, inner batch, heads, queries]`.
    pub(crate) lse: Option<Shared>,
}

/// Computes the call.
///
/// # Safety
/// Operands hold every element their strides reach, `out` and `lse` have room, lengths are at most
/// `keys` and one a sequence, and `isa` came from `Isa::current`.
pub(crate) unsafe fn run(isa: Isa, problem: &Problem<'_>) {
    if problem.plan.kernel == AttentionKernel::Short && short::takes(problem) {
        // SAFETY: the same promises.
        return unsafe { short::run(isa, problem) };
    }
    let chunks = problem.queries.div_ceil(problem.plan.query_tile);
    let units = problem.outer.iter().product::<usize>() * chunks;
    let step = problem.plan.tiles_per_task;
    let work = 4 * units * problem.plan.query_tile * problem.keys * problem.dim;
    for_each(units.div_ceil(step), work, |task| {
        let units = (task * step, units.min((task + 1) * step));
        // SAFETY: the caller's promises; units write disjoint rows.
        unsafe { isa.run(Task { problem, chunks, units }) };
    });
}

struct Task<'a> {
    problem: &'a Problem<'a>,
    chunks: usize,
    units: (usize, usize),
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Pieces of the scratch memory for one group of queries.
#[derive(Clone, Copy)]
struct Group {
    /// Scaled queries, `[dim][lanes]`.
    queries: *mut f32,
    /// Weighted sums, `[lanes][padded dim]`.
    sums: *mut f32,
    /// Running maximum and sum of exponentials, `[lanes]` each.
    max: *mut f32,
    total: *mut f32,
}

impl Kernel for Task<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let p = self.problem;
        let lanes = 2 * S::LANES;
        let padded = p.dim.div_ceil(S::LANES) * S::LANES;
        let groups = p.plan.query_tile.div_ceil(lanes);
        let each = lanes * (p.dim + padded + 2);
        let tile_keys = p.plan.key_tile;
        let mut scratch = SCRATCH.with(RefCell::take);
        let wanted = groups * each + tile_keys * (lanes + 2 * padded) + lanes + LINE;
        if scratch.len() < wanted {
            scratch.resize(wanted, 0.0);
        }
        let base = scratch.as_mut_ptr().wrapping_add(scratch.as_ptr().align_offset(4 * LINE));
        let group = |g: usize| {
            let queries = base.wrapping_add(g * each);
            let sums = queries.wrapping_add(lanes * p.dim);
            let max = sums.wrapping_add(lanes * padded);
            Group { queries, sums, max, total: max.wrapping_add(lanes) }
        };
        let scores = base.wrapping_add(groups * each);
        let keys = scores.wrapping_add(tile_keys * lanes);
        let values = keys.wrapping_add(tile_keys * padded);
        let factors = values.wrapping_add(tile_keys * padded);
        for unit in self.units.0..self.units.1 {
            let (index, chunk) = (unit / self.chunks, unit % self.chunks);
            let head = index % p.outer[2];
            let sequence = index / p.outer[2];
            let at = [sequence / p.outer[1], sequence % p.outer[1], head];
            let (q0, q1) = (cut(p.queries, self.chunks, chunk), cut(p.queries, self.chunks, chunk + 1));
            let used = (q1 - q0).div_ceil(lanes);
            let limit = match p.visible {
                Visible::Lengths(lengths) => lengths[sequence],
                Visible::Causal => (q1 + p.keys).saturating_sub(p.queries).min(p.keys),
                _ => p.keys,
            };
            // SAFETY: indices stay inside the extents of the call, scratch pieces inside `wanted`.
            unsafe {
                for g in 0..used {
                    let (first, count) = (q0 + g * lanes, (q1 - q0 - g * lanes).min(lanes));
                    start::<S>(p, at, first, count, group(g), padded);
                }
                let mut j0 = 0;
                while j0 < limit {
                    let mut j1 = limit.min(j0 + tile_keys);
                    if let Visible::Blocks(list) = p.visible {
                        let [tall, wide] = list.block();
                        j1 = j1.min((j0 / wide + 1) * wide);
                        // A tile that no query of the unit sees.
                        if !(q0..q1).step_by(tall).chain([q1 - 1]).any(|query| list.sees(index, query, j0)) {
                            j0 = j1;
                            continue;
                        }
                    }
                    let tile = [at[0], at[1], at[2], j0];
                    let k = rows::<S>(&p.k, tile, (j1 - j0, p.dim), keys, padded);
                    panels::<S>(&p.v, tile, (j1 - j0, p.dim), values);
                    for g in 0..used {
                        let (first, count) = (q0 + g * lanes, (q1 - q0 - g * lanes).min(lanes));
                        let range = Range { at, first, count, j0, j1 };
                        if count > S::LANES {
                            step::<S, 2>(p, range, group(g), scores, (k, values), factors, padded);
                        } else {
                            step::<S, 1>(p, range, group(g), scores, (k, values), factors, padded);
                        }
                    }
                    j0 = j1;
                }
                for g in 0..used {
                    let (first, count) = (q0 + g * lanes, (q1 - q0 - g * lanes).min(lanes));
                    end::<S>(p, at, first, count, group(g), padded);
                }
            }
        }
        SCRATCH.with(|cell| cell.replace(scratch));
    }
}

/// A group of queries against a tile of keys.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) at: [usize; 3],
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) j0: usize,
    pub(super) j1: usize,
}

#[inline(always)]
unsafe fn start<S: Simd>(
    p: &Problem<'_>,
    at: [usize; 3],
    first: usize,
    count: usize,
    group: Group,
    padded: usize,
) {
    let lanes = 2 * S::LANES;
    let factor = p.scale * std::f32::consts::LOG2_E;
    // SAFETY: `count <= lanes` queries exist from `first`; the group's pieces have their sizes.
    unsafe {
        for i in 0..count {
            let row = p.q.at([at[0], at[1], at[2], first + i]);
            for c in 0..p.dim {
                *group.queries.wrapping_add(c * lanes + i) = *row.wrapping_add(c) * factor;
            }
        }
        for i in 0..lanes {
            *group.max.wrapping_add(i) = f32::NEG_INFINITY;
            *group.total.wrapping_add(i) = 0.0;
        }
        for i in (0..lanes * padded).step_by(S::LANES) {
            S::splat(0.0).store(group.sums.wrapping_add(i));
        }
    }
}

#[inline(always)]
unsafe fn step<S: Simd, const V: usize>(
    p: &Problem<'_>,
    range: Range,
    group: Group,
    scores: *mut f32,
    (k, v): (Rows, *const f32),
    factors: *mut f32,
    padded: usize,
) {
    let lanes = 2 * S::LANES;
    let keys = range.j1 - range.j0;
    // SAFETY: keys j0..j1 exist; scores hold a tile; sums hold `lanes` padded rows; v has panels of
    // whole vectors up to `padded`.
    unsafe {
        let parts = keys.div_ceil(S::ROWS);
        for part in 0..parts {
            let first = cut(keys, parts, part);
            let count = cut(keys, parts, part + 1) - first;
            let (a, to) = (k.0.wrapping_add(first * k.1), scores.wrapping_add(first * lanes));
            with_rows!(S, count, N => {
                let acc = tile::<S, N, V>(p.dim, a, k.1, 1, group.queries, lanes);
                for i in 0..N {
                    for j in 0..V {
                        acc[i][j].store(to.wrapping_add(i * lanes + j * S::LANES));
                    }
                }
            });
        }
        hide(p, range, scores, lanes);
        let mut rescale = false;
        for j in 0..V {
            rescale |=
                soften::<S>(keys, scores.wrapping_add(j * S::LANES), lanes, j * S::LANES, group, factors);
        }
        if rescale && range.j0 > 0 {
            for i in 0..range.count {
                let (row, factor) = (group.sums.wrapping_add(i * padded), S::splat(*factors.wrapping_add(i)));
                for c in (0..padded).step_by(S::LANES) {
                    S::load(row.wrapping_add(c)).mul(factor).store(row.wrapping_add(c));
                }
            }
        }
        let parts = range.count.div_ceil(S::ROWS);
        let mut c = 0;
        while c < padded {
            let (panel, wide) = (v.wrapping_add(c * keys), padded - c > S::LANES);
            for part in 0..parts {
                let first = cut(range.count, parts, part);
                let count = cut(range.count, parts, part + 1) - first;
                let a = scores.wrapping_add(first).cast_const();
                let to = group.sums.wrapping_add(first * padded + c);
                with_rows!(S, count, N => if wide {
                    add_rows(tile::<S, N, 2>(keys, a, 1, lanes, panel, 2 * S::LANES), to, padded);
                } else {
                    add_rows(tile::<S, N, 1>(keys, a, 1, lanes, panel, S::LANES), to, padded);
                });
            }
            c += if wide { 2 * S::LANES } else { S::LANES };
        }
    }
}

#[inline(always)]
pub(super) unsafe fn add_rows<S: Simd, const N: usize, const V: usize>(
    acc: [[S; V]; N],
    to: *mut f32,
    row: usize,
) {
    for i in 0..N {
        for j in 0..V {
            let at = to.wrapping_add(i * row + j * S::LANES);
            // SAFETY: the tile lies inside the sums.
            unsafe { S::load(at).add(acc[i][j]).store(at) };
        }
    }
}

/// Applies the mask to a tile of transposed scores. A tile lies inside one key block of a list.
#[inline(always)]
pub(super) unsafe fn hide(p: &Problem<'_>, range: Range, scores: *mut f32, lanes: usize) {
    if let Visible::Blocks(list) = p.visible {
        let [b0, b1, head] = range.at;
        let problem = (b0 * p.outer[1] + b1) * p.outer[2] + head;
        for i in (0..range.count).filter(|i| !list.sees(problem, range.first + i, range.j0)) {
            for j in 0..range.j1 - range.j0 {
                // SAFETY: the score is in the tile.
                unsafe { *scores.wrapping_add(j * lanes + i) = f32::NEG_INFINITY };
            }
        }
        return;
    }
    for j in range.j0..range.j1 {
        let row = scores.wrapping_add((j - range.j0) * lanes);
        for i in 0..range.count {
            let at = row.wrapping_add(i);
            match p.visible {
                // SAFETY: the score is in the tile.
                Visible::Causal if j + p.queries > range.first + i + p.keys => unsafe {
                    *at = f32::NEG_INFINITY
                },
                Visible::Bias(bias, key_stride) => {
                    let [b0, b1, head] = range.at;
                    let value = bias.at([b0, b1, head, range.first + i]).wrapping_add(j * key_stride);
                    // SAFETY: the bias covers every query and key.
                    unsafe { *at += *value * std::f32::consts::LOG2_E };
                }
                Visible::Causal => {}
                _ => return,
            }
        }
    }
}

/// Turns one vector of score columns into weights; says whether older sums must shrink.
#[inline(always)]
unsafe fn soften<S: Simd>(
    keys: usize,
    scores: *mut f32,
    lanes: usize,
    lane: usize,
    group: Group,
    factors: *mut f32,
) -> bool {
    // SAFETY: `keys` rows of `lanes` scores, and `lanes` entries in each state vector.
    unsafe {
        let old = S::load(group.max.wrapping_add(lane));
        let (mut max, mut other) = (old, old);
        let mut j = 0;
        while j + 2 <= keys {
            max = S::load(scores.wrapping_add(j * lanes)).max(max);
            other = S::load(scores.wrapping_add((j + 1) * lanes)).max(other);
            j += 2;
        }
        if j < keys {
            max = S::load(scores.wrapping_add(j * lanes)).max(max);
        }
        max = other.max(max);
        // Where every key so far is hidden the maximum is -inf, and -inf - -inf would be NaN.
        let safe = max.max(S::splat(-1e38));
        let factor = exp2_weight(old.sub(safe));
        let mut total = S::load(group.total.wrapping_add(lane)).mul(factor);
        for j in 0..keys {
            let at = scores.wrapping_add(j * lanes);
            let weight = exp2_weight(S::load(at).sub(safe));
            weight.store(at);
            total = total.add(weight);
        }
        max.store(group.max.wrapping_add(lane));
        total.store(group.total.wrapping_add(lane));
        factor.store(factors.wrapping_add(lane));
        (0..S::LANES).any(|i| *factors.wrapping_add(lane + i) != 1.0)
    }
}

#[inline(always)]
unsafe fn end<S: Simd>(
    p: &Problem<'_>,
    at: [usize; 3],
    first: usize,
    count: usize,
    group: Group,
    padded: usize,
) {
    let [b0, b1, head] = at;
    for i in 0..count {
        let query = first + i;
        // SAFETY: the query exists, so its output row and its sums do.
        unsafe {
            let (max, total) = (*group.max.wrapping_add(i), *group.total.wrapping_add(i));
            // No visible key: the answer is defined as zero.
            let factor = S::splat(if total == 0.0 { 0.0 } else { 1.0 / total });
            let row = (((b0 * p.queries + query) * p.outer[1] + b1) * p.outer[2] + head) * p.dim;
            let sums = group.sums.wrapping_add(i * padded);
            for c in (0..p.dim).step_by(S::LANES) {
                let x: S = load_up_to(sums.wrapping_add(c), padded - c);
                store_up_to(x.mul(factor), p.out.at(row + c), p.dim - c);
            }
            if let Some(lse) = p.lse {
                let value = if total == 0.0 {
                    f32::NEG_INFINITY
                } else {
                    max / std::f32::consts::LOG2_E + total.ln()
                };
                *lse.at(((b0 * p.outer[1] + b1) * p.outer[2] + head) * p.queries + query) = value;
            }
        }
    }
}
