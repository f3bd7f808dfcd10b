//! Gradients of attention without the score matrix.
//!
//! Scores are recomputed a tile at a time from the saved log-sums and lie transposed, one query a
//! vector lane, as in the forward pass; all five products then read operands and weights where they
//! are. A unit is a head of keys with a range of them: it walks over every query of every head that
//! shares those keys, so that their gradients are sums in one place and in one order.

mod tiles;

use std::cell::RefCell;

use tiles::{accumulate, put_rows, weigh};

use super::attention::{Problem, Range, Visible};
use super::gemm::{load_up_to, store_up_to};
use super::micro::cut;
use super::operand::{Operand, rows};
use super::short::columns;
use super::simd::Simd;
use super::{Isa, Kernel, Shared, for_each};

/// A whole call.
#[derive(Clone, Copy)]
pub(crate) struct Backward<'a> {
    /// The forward call; `out` takes the gradient of the queries, in the same order.
    pub(crate) call: Problem<'a>,
    /// Heads of queries that share a head of keys.
    pub(crate) group: usize,
    /// The forward result.
    pub(crate) result: Operand<'a>,
    /// The gradient of the result.
    pub(crate) grad: Operand<'a>,
    /// Log-sums, `[batch, inner batch, heads, queries]`.
    pub(crate) lse: &'a [f32],
    /// `[batch, keys, inner batch, heads of keys, dim]` each.
    pub(crate) dk: Shared,
    pub(crate) dv: Shared,
    /// Ranges the keys are cut into, a function of the shape alone.
    pub(crate) chunks: usize,
    /// With more than one range: what each adds to the gradient of the queries, `[chunks]` of that size.
    pub(crate) partial: Shared,
}

/// Queries whose weights are held at once.
const QUERY_TILE: usize = 64;
/// Keys whose weights are held at once.
const KEY_TILE: usize = 64;

/// Ranges of keys: enough units for many threads where there are few heads.
pub(crate) fn key_chunks(problems: usize, keys: usize) -> usize {
    16usize.div_ceil(problems.max(1)).min(keys / 512).clamp(1, 8)
}

/// Computes the call.
///
/// # Safety
/// Operands hold every element their strides reach, the outputs have room, `lse` has one value a
/// query, lengths are at most `keys` and one a sequence, heads divide by `group`, and `isa` came
/// from `Isa::current`.
pub(crate) unsafe fn run(isa: Isa, b: &Backward<'_>) {
    let p = &b.call;
    let units = p.outer.iter().product::<usize>() / b.group * b.chunks;
    let each = 10 * p.queries * b.group * p.keys.div_ceil(b.chunks) * p.dim;
    let step = ((1 << 21) / each.max(1)).clamp(1, (units / (8 * super::threads())).max(1));
    for_each(units.div_ceil(step), units * each, |task| {
        let units = (task * step, units.min((task + 1) * step));
        // SAFETY: the caller's promises; units write disjoint rows.
        unsafe { isa.run(Task { b, units }) };
    });
    if b.chunks > 1 {
        const PIECE: usize = 1 << 14;
        let len = p.outer.iter().product::<usize>() * p.queries * p.dim;
        for_each(len.div_ceil(PIECE), b.chunks * len, |piece| {
            let range = (piece * PIECE, len.min((piece + 1) * PIECE));
            // SAFETY: pieces are disjoint and inside both buffers.
            unsafe { isa.run(Sum { b, len, range }) };
        });
    }
}

/// Adds what the ranges of keys gave, always in the same order.
struct Sum<'a> {
    b: &'a Backward<'a>,
    len: usize,
    range: (usize, usize),
}

impl Kernel for Sum<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let b = self.b;
        for at in (self.range.0..self.range.1).step_by(S::LANES) {
            let left = self.range.1 - at;
            // SAFETY: `range` lies inside `len`, of which there are `chunks`.
            unsafe {
                let mut total: S = load_up_to(b.partial.at(at), left);
                for chunk in 1..b.chunks {
                    total = total.add(load_up_to(b.partial.at(chunk * self.len + at), left));
                }
                store_up_to(total, b.call.out.at(at), left);
            }
        }
    }
}

struct Task<'a> {
    b: &'a Backward<'a>,
    units: (usize, usize),
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Pieces of the scratch memory.
#[derive(Clone, Copy)]
struct Room {
    /// Floats of a row of a head, whole vectors.
    padded: usize,
    /// Scaled queries and gradients of the result, `[dim][QUERY_TILE]`.
    columns: [*mut f32; 2],
    /// The same as rows where they are copied, `[QUERY_TILE][padded]`.
    rows: [*mut f32; 2],
    /// Keys as rows where they are copied, `[KEY_TILE][padded]`.
    keys: *mut f32,
    /// Log-sums in powers of two and `grad · result`, `[QUERY_TILE]`.
    lse: *mut f32,
    delta: *mut f32,
    /// Weights and gradients of the scores, `[KEY_TILE][QUERY_TILE]`.
    weights: *mut f32,
    slopes: *mut f32,
    /// Sums: `[QUERY_TILE][padded]`, and twice `[keys of the unit][padded]`.
    dq: *mut f32,
    dk: *mut f32,
    dv: *mut f32,
}

impl Room {
    fn new<S: Simd>(scratch: &mut Vec<f32>, dim: usize, unit_keys: usize) -> Self {
        let padded = dim.div_ceil(S::LANES) * S::LANES;
        let sizes = [
            dim * QUERY_TILE,
            dim * QUERY_TILE,
            QUERY_TILE * padded,
            QUERY_TILE * padded,
            KEY_TILE * padded,
            QUERY_TILE,
            QUERY_TILE,
            KEY_TILE * QUERY_TILE,
            KEY_TILE * QUERY_TILE,
            QUERY_TILE * padded,
            unit_keys * padded,
            unit_keys * padded,
        ];
        let wanted = sizes.iter().sum::<usize>();
        if scratch.len() < wanted {
            scratch.resize(wanted, 0.0);
        }
        let mut next = scratch.as_mut_ptr();
        let [a, b, c, d, keys, lse, delta, weights, slopes, dq, dk, dv] = sizes.map(|size| {
            let piece = next;
            next = next.wrapping_add(size);
            piece
        });
        Self { padded, columns: [a, b], rows: [c, d], keys, lse, delta, weights, slopes, dq, dk, dv }
    }
}

impl Kernel for Task<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (b, p) = (self.b, &self.b.call);
        let mut scratch = SCRATCH.with(RefCell::take);
        let room = Room::new::<S>(&mut scratch, p.dim, p.keys.div_ceil(b.chunks));
        for unit in self.units.0..self.units.1 {
            // SAFETY: units are below the number of heads of keys times ranges; the room fits one.
            unsafe { one::<S>(b, unit, room) };
        }
        SCRATCH.with(|cell| cell.replace(scratch));
    }
}

#[inline(always)]
unsafe fn one<S: Simd>(b: &Backward<'_>, unit: usize, room: Room) {
    let p = &b.call;
    let (index, chunk) = (unit / b.chunks, unit % b.chunks);
    let kv_heads = p.outer[2] / b.group;
    let (sequence, kv_head) = (index / kv_heads, index % kv_heads);
    let (b0, b1) = (sequence / p.outer[1], sequence % p.outer[1]);
    let (k0, k1) = (cut(p.keys, b.chunks, chunk), cut(p.keys, b.chunks, chunk + 1));
    let limit = match p.visible {
        Visible::Lengths(lengths) => k1.min(lengths[sequence]),
        _ => k1,
    };
    let padded = room.padded;
    // SAFETY: the unit's sequence, head and keys exist, and the room fits them.
    unsafe {
        for i in (0..(k1 - k0) * padded).step_by(S::LANES) {
            S::splat(0.0).store(room.dk.wrapping_add(i));
            S::splat(0.0).store(room.dv.wrapping_add(i));
        }
        for head in kv_head * b.group..(kv_head + 1) * b.group {
            let mut first = 0;
            while first < p.queries {
                let count = (p.queries - first).min(QUERY_TILE);
                let queries = Queries { at: [b0, b1, head], kv_head, first, count };
                let last = match p.visible {
                    Visible::Causal => limit.min((first + count + p.keys).saturating_sub(p.queries)),
                    _ => limit,
                };
                against_keys::<S>(b, queries, (k0, last, chunk), room);
                first += count;
            }
        }
        let next = p.outer[1] * kv_heads * p.dim;
        let to = ((b0 * p.keys + k0) * p.outer[1] + b1) * kv_heads * p.dim + kv_head * p.dim;
        put_rows::<S>(room.dk, padded, b.dk.at(to), next, (k1 - k0, p.dim), p.scale);
        put_rows::<S>(room.dv, padded, b.dv.at(to), next, (k1 - k0, p.dim), 1.0);
    }
}

/// A tile of queries of one head.
#[derive(Clone, Copy)]
struct Queries {
    at: [usize; 3],
    kv_head: usize,
    first: usize,
    count: usize,
}

/// One tile of queries against keys `k0..last` of the unit; adds to the sums of keys and values and
/// writes the gradient of the queries.
#[inline(always)]
unsafe fn against_keys<S: Simd>(
    b: &Backward<'_>,
    queries: Queries,
    (k0, last, chunk): (usize, usize, usize),
    room: Room,
) {
    let p = &b.call;
    let Queries { at, kv_head, first, count } = queries;
    let [b0, b1, head] = at;
    let padded = room.padded;
    let problem = (b0 * p.outer[1] + b1) * p.outer[2] + head;
    // One tile has whole rows of weights, which give `grad · result` without reading the result.
    let whole = b.chunks == 1 && last <= KEY_TILE && !matches!(p.visible, Visible::Blocks(_));
    // SAFETY: the queries exist, keys up to `last` do, and the pieces of the room have their sizes.
    unsafe {
        let factor = p.scale * std::f32::consts::LOG2_E;
        let lanes = count.div_ceil(S::LANES) * S::LANES;
        let q = rows::<S>(&p.q, [b0, b1, head, first], (count, p.dim), room.rows[0], padded);
        let grad = rows::<S>(&b.grad, [b0, b1, head, first], (count, p.dim), room.rows[1], padded);
        for i in (0..lanes).step_by(S::LANES) {
            let here = (count - i).min(S::LANES);
            for (x, factor, to) in [(q, factor, room.columns[0]), (grad, 1.0, room.columns[1])] {
                let from = (x.0.wrapping_add(i * x.1), x.1);
                columns::<S>(from, here, (p.dim, factor), to.wrapping_add(i), QUERY_TILE);
            }
        }
        for i in 0..lanes {
            let lse = if i < count { b.lse[problem * p.queries + first + i] } else { 0.0 };
            // A query that sees no key has no weights at all: 2^(s - huge) is zero.
            *room.lse.wrapping_add(i) =
                if lse == f32::NEG_INFINITY { 1e30 } else { lse * std::f32::consts::LOG2_E };
            let mut delta = 0.0;
            if i < count && !whole {
                let (x, y) = (b.grad.at([b0, b1, head, first + i]), b.result.at([b0, b1, head, first + i]));
                let mut sum = S::splat(0.0);
                for c in (0..p.dim).step_by(S::LANES) {
                    let (x, y): (S, S) =
                        (load_up_to(x.wrapping_add(c), p.dim - c), load_up_to(y.wrapping_add(c), p.dim - c));
                    sum = x.mul_add(y, sum);
                }
                delta = sum.sum();
            }
            *room.delta.wrapping_add(i) = delta;
        }
        for i in (0..count * padded).step_by(S::LANES) {
            S::splat(0.0).store(room.dq.wrapping_add(i));
        }
        let mut j0 = k0;
        while j0 < last {
            let mut j1 = last.min(j0 + KEY_TILE);
            if let Visible::Blocks(list) = p.visible {
                let [tall, wide] = list.block();
                j1 = j1.min((j0 / wide + 1) * wide);
                let mut rows = (first..first + count).step_by(tall).chain([first + count - 1]);
                if !rows.any(|query| list.sees(problem, query, j0)) {
                    j0 = j1;
                    continue;
                }
            }
            let range = Range { at, first, count, j0, j1 };
            let (k, v) = (p.k.at([b0, b1, kv_head, j0]), p.v.at([b0, b1, kv_head, j0]));
            weigh::<S>(p, range, (k, v), room, whole);
            let keys = j1 - j0;
            let sums = (j0 - k0) * padded;
            // A loop, so that the product is compiled once for both.
            for (a, rows, to) in [(room.weights, grad, room.dv), (room.slopes, q, room.dk)] {
                accumulate::<S>(keys, count, (a, QUERY_TILE, 1), rows, to.wrapping_add(sums), padded);
            }
            let k = rows::<S>(&p.k, [b0, b1, kv_head, j0], (keys, p.dim), room.keys, padded);
            accumulate::<S>(count, keys, (room.slopes, 1, QUERY_TILE), k, room.dq, padded);
            j0 = j1;
        }
        let next = p.outer[1] * p.outer[2] * p.dim;
        let to = (((b0 * p.queries + first) * p.outer[1] + b1) * p.outer[2] + head) * p.dim;
        let out = if b.chunks == 1 {
            p.out
        } else {
            Shared(b.partial.at(chunk * p.outer.iter().product::<usize>() * p.queries * p.dim))
        };
        put_rows::<S>(room.dq, padded, out.at(to), next, (count, p.dim), p.scale);
    }
}
