//! Weighted sums of tensors in one pass.

use super::gemm::{load_up_to, store_up_to};
use super::simd::Simd;
use super::{Isa, Kernel, Shared, for_each};

/// Values a task handles.
const PIECE: usize = 1 << 14;

struct Piece<'a> {
    terms: &'a [(f32, &'a [f32])],
    start: usize,
    len: usize,
    out: *mut f32,
}

impl Kernel for Piece<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for i in (0..self.len).step_by(S::LANES) {
            let n = self.len - i;
            // SAFETY: every term has start + len values, the output len from here on.
            unsafe {
                let mut sum = S::splat(0.0);
                for (k, (weight, values)) in self.terms.iter().enumerate() {
                    let x: S = load_up_to(values.as_ptr().wrapping_add(self.start + i), n);
                    let weight = S::splat(*weight);
                    sum = if k == 0 { x.mul(weight) } else { x.mul_add(weight, sum) };
                }
                store_up_to(sum, self.out.wrapping_add(i), n);
            }
        }
    }
}

/// `out[i] = Σ weight · values[i]`.
///
/// # Safety
/// Every term has `len` values and `out` room for as many.
pub(crate) unsafe fn weighted_sum(isa: Isa, terms: &[(f32, &[f32])], len: usize, out: Shared) {
    for_each(len.div_ceil(PIECE), len * terms.len() * 2, |task| {
        let start = task * PIECE;
        let piece = Piece { terms, start, len: PIECE.min(len - start), out: out.at(start) };
        // SAFETY: pieces are disjoint and inside all buffers.
        unsafe { isa.run(piece) };
    });
}
