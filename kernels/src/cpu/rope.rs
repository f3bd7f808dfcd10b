//! Rotation of pairs of channels by the position of their token.

use super::simd::Simd;
use super::{Isa, Kernel, Shared, for_each};

/// A call over `[batch, tokens, heads, dim]`.
pub(crate) struct Rotation<'a> {
    pub(crate) data: &'a [f32],
    /// `[tokens or batch · tokens, pairs]`.
    pub(crate) cos: &'a [f32],
    pub(crate) sin: &'a [f32],
    pub(crate) heads: usize,
    pub(crate) dim: usize,
    pub(crate) pairs: usize,
    /// Distance between the two channels of a pair, and between first channels.
    pub(crate) apart: usize,
    pub(crate) step: usize,
    /// 1 to rotate, -1 to rotate back.
    pub(crate) sign: f32,
}

/// The heads of one token.
struct Token<'a> {
    call: &'a Rotation<'a>,
    row: &'a [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    out: *mut f32,
}

impl Kernel for Token<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Rotation { dim, apart, step, sign, .. } = *self.call;
        for (h, head) in self.row.chunks_exact(dim).enumerate() {
            let out = self.out.wrapping_add(h * dim);
            // SAFETY: every channel of a head is written, inside the token's part of the output.
            unsafe {
                for (i, (cos, sin)) in self.cos.iter().zip(self.sin).enumerate() {
                    let (a, b) = (head[i * step], head[i * step + apart]);
                    let sin = sin * sign;
                    *out.wrapping_add(i * step) = a * cos - b * sin;
                    *out.wrapping_add(i * step + apart) = b * cos + a * sin;
                }
                for (i, x) in head.iter().enumerate().skip(2 * self.cos.len()) {
                    *out.wrapping_add(i) = *x;
                }
            }
        }
    }
}

/// Rotates every token by its own angles; channels past the pairs are copied.
///
/// # Safety
/// `out` has room for `data.len()` values, `cos` and `sin` are of equal length, and the last channel of the
/// last pair, `2 · pairs - 1`, is below `dim`.
pub(crate) unsafe fn rotate(isa: Isa, call: &Rotation<'_>, out: Shared) {
    let (row, rows) = (call.heads * call.dim, call.cos.len() / call.pairs.max(1));
    if call.data.is_empty() {
        return;
    }
    for_each(call.data.len() / row, call.data.len() * 2, |token| {
        let angles =
            if call.pairs == 0 { 0..0 } else { token % rows * call.pairs..(token % rows + 1) * call.pairs };
        let token = Token {
            call,
            row: &call.data[token * row..][..row],
            cos: &call.cos[angles.clone()],
            sin: &call.sin[angles],
            out: out.at(token * row),
        };
        // SAFETY: tokens are disjoint and inside both buffers.
        unsafe { isa.run(token) };
    });
}
