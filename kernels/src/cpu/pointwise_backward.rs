//! Gradients of element-wise operations and of doubled pictures, and sums over rows.

use super::gemm::{load_up_to, store_up_to};
use super::math::{activate, slope};
use super::simd::Simd;
use super::{Isa, Kernel, Shared, for_each};
use crate::pointwise::Activation;

/// Values a task handles.
const PIECE: usize = 1 << 14;

/// Work over pieces of rows.
struct Rows<'a, W> {
    data: &'a [f32],
    grad: &'a [f32],
    /// Values of a row of `data` and of `out`.
    lengths: (usize, usize),
    out: *mut f32,
    work: W,
}

/// What happens to one row.
pub(super) trait Row: Copy + Sync + Send {
    /// # Safety
    /// The rows have the lengths the operation is made for, and the processor has `S`.
    unsafe fn row<S: Simd>(self, data: &[f32], grad: &[f32], out: *mut f32);
}

impl<W: Row> Kernel for Rows<'_, W> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let rows = self.data.len() / self.lengths.0;
        let width = self.grad.len() / rows.max(1);
        for r in 0..rows {
            let data = &self.data[r * self.lengths.0..][..self.lengths.0];
            let grad = &self.grad[r * width..][..width];
            // SAFETY: the row of the output is there, as the caller of `run` promises.
            unsafe { self.work.row::<S>(data, grad, self.out.wrapping_add(r * self.lengths.1)) };
        }
    }
}

/// Runs `work` over `rows` rows cut out of `data` and `grad`, a row of the output `out_length` long.
///
/// # Safety
/// `out` has room for all rows; the lengths of rows are those `work` is made for.
pub(super) unsafe fn each_row<W: Row>(
    isa: Isa,
    (data, grad): (&[f32], &[f32]),
    (rows, out_length): (usize, usize),
    work: W,
    out: Shared,
) {
    let (length, width) = (data.len() / rows.max(1), grad.len() / rows.max(1));
    if length == 0 {
        return;
    }
    let step = (PIECE / length).max(1);
    for_each(rows.div_ceil(step), data.len() * 16, |task| {
        let (r0, r1) = (task * step, rows.min((task + 1) * step));
        let (data, grad) = (&data[r0 * length..r1 * length], &grad[r0 * width..r1 * width]);
        let lengths = (length, out_length);
        // SAFETY: row ranges are disjoint and inside the buffers.
        unsafe { isa.run(Rows { data, grad, lengths, out: out.at(r0 * out_length), work }) };
    });
}

#[derive(Clone, Copy)]
struct Slope(Activation);

impl Row for Slope {
    #[inline(always)]
    unsafe fn row<S: Simd>(self, data: &[f32], grad: &[f32], out: *mut f32) {
        for i in (0..data.len()).step_by(S::LANES) {
            let n = data.len() - i;
            // SAFETY: all three have i + n values.
            unsafe {
                let x: S = load_up_to(data.as_ptr().wrapping_add(i), n);
                let g: S = load_up_to(grad.as_ptr().wrapping_add(i), n);
                store_up_to(g.mul(slope(self.0, x)), out.wrapping_add(i), n);
            }
        }
    }
}

/// `out[i] = grad[i] · activation'(data[i])`.
///
/// # Safety
/// `grad` is as long as `data` and `out` has room for as much.
pub(crate) unsafe fn activate_backward(
    isa: Isa,
    activation: Activation,
    data: &[f32],
    grad: &[f32],
    out: Shared,
) {
    let whole = data.len() - data.len() % PIECE;
    // SAFETY: pieces are rows of their own; the rest is one more.
    unsafe {
        each_row(isa, (&data[..whole], &grad[..whole]), (whole / PIECE, PIECE), Slope(activation), out);
        each_row(
            isa,
            (&data[whole..], &grad[whole..]),
            (1, data.len() - whole),
            Slope(activation),
            Shared(out.at(whole)),
        );
    }
}

#[derive(Clone, Copy)]
struct Gate;

impl Row for Gate {
    #[inline(always)]
    unsafe fn row<S: Simd>(self, data: &[f32], grad: &[f32], out: *mut f32) {
        let half = grad.len();
        for i in (0..half).step_by(S::LANES) {
            let n = half - i;
            // SAFETY: data and out have two halves of the gradient's length.
            unsafe {
                let value: S = load_up_to(data.as_ptr().wrapping_add(i), n);
                let gate: S = load_up_to(data.as_ptr().wrapping_add(half + i), n);
                let g: S = load_up_to(grad.as_ptr().wrapping_add(i), n);
                store_up_to(g.mul(activate(Activation::GeluErf, gate)), out.wrapping_add(i), n);
                let by_gate = g.mul(value).mul(slope(Activation::GeluErf, gate));
                store_up_to(by_gate, out.wrapping_add(half + i), n);
            }
        }
    }
}

/// Gradients of values and gates in `rows` rows of `data` for the gradient `grad` of `value · gelu(gate)`.
///
/// # Safety
/// `data` and `out` are twice as long as `grad`.
pub(crate) unsafe fn gated_backward(isa: Isa, data: &[f32], grad: &[f32], rows: usize, out: Shared) {
    // SAFETY: rows of 2 · half values have gradients of half values.
    unsafe { each_row(isa, (data, grad), (rows, data.len() / rows.max(1)), Gate, out) };
}

#[derive(Clone, Copy)]
struct Halve {
    channels: usize,
}

impl Row for Halve {
    /// A row is two lines of the doubled picture; `grad` is the same memory.
    #[inline(always)]
    unsafe fn row<S: Simd>(self, data: &[f32], _: &[f32], out: *mut f32) {
        let (c, line) = (self.channels, data.len() / 2);
        for x in 0..line / (2 * c) {
            for i in (0..c).step_by(S::LANES) {
                let at = |y: usize, dx: usize| data.as_ptr().wrapping_add(y * line + (2 * x + dx) * c + i);
                // SAFETY: both lines have pixels 2x and 2x + 1, the output pixel x.
                unsafe {
                    let top: S = load_up_to::<S>(at(0, 0), c - i).add(load_up_to(at(0, 1), c - i));
                    let bottom: S = load_up_to::<S>(at(1, 0), c - i).add(load_up_to(at(1, 1), c - i));
                    store_up_to(top.add(bottom), out.wrapping_add(x * c + i), c - i);
                }
            }
        }
    }
}

/// Adds up the four pixels that each pixel of a picture of `lines` lines in all was copied to.
///
/// # Safety
/// `data` holds `4 · lines · width · channels` values, `out` has room for a quarter.
pub(crate) unsafe fn add_blocks(isa: Isa, data: &[f32], lines: usize, channels: usize, out: Shared) {
    if data.is_empty() {
        return;
    }
    // SAFETY: two lines of the large picture give one of the small.
    unsafe { each_row(isa, (data, data), (lines, data.len() / lines / 4), Halve { channels }, out) };
}

/// Adds rows up.
struct Column<'a> {
    rows: &'a [f32],
    columns: usize,
    out: *mut f32,
}

impl Kernel for Column<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for c in (0..self.columns).step_by(S::LANES) {
            let n = self.columns - c;
            // SAFETY: every row and the output have column c.
            unsafe {
                let mut sum = [S::splat(0.0); 4];
                for r in 0..self.rows.len() / self.columns {
                    let x = load_up_to(self.rows.as_ptr().wrapping_add(r * self.columns + c), n);
                    sum[r & 3] = sum[r & 3].add(x);
                }
                store_up_to(sum[0].add(sum[1]).add(sum[2].add(sum[3])), self.out.wrapping_add(c), n);
            }
        }
    }
}

/// Sums of `data` `[outer, rows, columns]` over rows, `[outer, columns]`: f32 by blocks, f64 between them.
pub(crate) fn sum_rows(isa: Isa, data: &[f32], outer: usize, columns: usize) -> Vec<f32> {
    const BLOCK: usize = 256;
    if data.is_empty() {
        return vec![0.0; outer * columns];
    }
    let rows = data.len() / (outer * columns);
    let blocks = rows.div_ceil(BLOCK);
    let mut parts = vec![0.0f32; outer * blocks * columns];
    let shared = Shared(parts.as_mut_ptr());
    for_each(outer * blocks, data.len(), |task| {
        let (first, block) = (task / blocks * rows, task % blocks * BLOCK);
        let range = (first + block) * columns..(first + rows.min(block + BLOCK)) * columns;
        // SAFETY: every task has sums of its own.
        unsafe { isa.run(Column { rows: &data[range], columns, out: shared.at(task * columns) }) };
    });
    let total = |at: usize| {
        let (outer, c) = (at / columns, at % columns);
        (0..blocks).map(|b| f64::from(parts[(outer * blocks + b) * columns + c])).sum::<f64>() as f32
    };
    (0..outer * columns).map(total).collect()
}
