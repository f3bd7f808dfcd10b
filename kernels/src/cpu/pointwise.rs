//! Element-wise kernels.

use super::gemm::{copy_values, load_up_to, store_up_to};
use super::math::activate;
use super::simd::Simd;
use super::{Isa, Kernel, Shared, for_each};
use crate::pointwise::Activation;

/// Values a task handles.
const PIECE: usize = 1 << 14;

struct Activate<'a> {
    activation: Activation,
    data: &'a [f32],
    out: *mut f32,
}

impl Kernel for Activate<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (data, len) = (self.data.as_ptr(), self.data.len());
        let mut i = 0;
        while i < len {
            // SAFETY: i..len is inside the piece on both sides.
            unsafe {
                let x = load_up_to::<S>(data.wrapping_add(i), len - i);
                store_up_to(activate(self.activation, x), self.out.wrapping_add(i), len - i);
            }
            i += S::LANES;
        }
    }
}

/// `out[i] = activation(data[i])`.
///
/// # Safety
/// `out` has room for `data.len()` values.
pub(crate) unsafe fn activate_all(isa: Isa, activation: Activation, data: &[f32], out: Shared) {
    for_each(data.len().div_ceil(PIECE), data.len() * 16, |task| {
        let start = task * PIECE;
        let piece = &data[start..data.len().min(start + PIECE)];
        // SAFETY: pieces are disjoint and inside both buffers.
        unsafe { isa.run(Activate { activation, data: piece, out: out.at(start) }) };
    });
}

struct Gated<'a> {
    rows: &'a [f32],
    half: usize,
    out: *mut f32,
}

impl Kernel for Gated<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (r, row) in self.rows.chunks_exact(2 * self.half).enumerate() {
            let (row, out) = (row.as_ptr(), self.out.wrapping_add(r * self.half));
            let mut i = 0;
            while i < self.half {
                let left = self.half - i;
                // SAFETY: i + left is half: both halves of the row and the output row have it.
                unsafe {
                    let value = load_up_to::<S>(row.wrapping_add(i), left);
                    let gate = load_up_to::<S>(row.wrapping_add(self.half + i), left);
                    store_up_to(value.mul(activate(Activation::GeluErf, gate)), out.wrapping_add(i), left);
                }
                i += S::LANES;
            }
        }
    }
}

/// `out[r] = data[r, ..half] · gelu(data[r, half..])`.
///
/// # Safety
/// `out` has room for half of `data`, whose rows are `2 · half` long.
pub(crate) unsafe fn gated(isa: Isa, data: &[f32], half: usize, out: Shared) {
    if half == 0 {
        return;
    }
    let rows = data.len() / (2 * half);
    let step = (PIECE / half).max(1);
    for_each(rows.div_ceil(step), data.len() * 16, |task| {
        let (r0, r1) = (task * step, rows.min((task + 1) * step));
        let rows = &data[r0 * 2 * half..r1 * 2 * half];
        // SAFETY: row ranges are disjoint and inside both buffers.
        unsafe { isa.run(Gated { rows, half, out: out.at(r0 * half) }) };
    });
}

struct Double<'a> {
    line: &'a [f32],
    channels: usize,
    out: *mut f32,
}

impl Kernel for Double<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (x, pixel) in self.line.chunks_exact(self.channels).enumerate() {
            for at in [
                2 * x,
                2 * x + 1,
                2 * x + 2 * self.line.len() / self.channels,
                2 * x + 1 + 2 * self.line.len() / self.channels,
            ] {
                // SAFETY: the output has two lines of twice the pixels.
                unsafe {
                    copy_values::<S>(pixel.as_ptr(), self.out.wrapping_add(at * self.channels), self.channels)
                };
            }
        }
    }
}

/// Writes every line of `width` pixels twice with every pixel twice.
///
/// # Safety
/// `data` has `lines · width · channels` values and `out` room for four times as many.
pub(crate) unsafe fn copy_blocks(
    isa: Isa,
    data: &[f32],
    lines: usize,
    width: usize,
    channels: usize,
    out: Shared,
) {
    let len = width * channels;
    if len == 0 {
        return;
    }
    for_each(lines, data.len() * 4, |line| {
        // SAFETY: input line `line` fills output lines 2·line and 2·line + 1.
        unsafe {
            isa.run(Double {
                line: &data[line * len..(line + 1) * len],
                channels,
                out: out.at(4 * line * len),
            })
        };
    });
}
