//! Rows for the matrix product: plain ones and the neighbourhoods of a convolution.

use super::gemm::{Rows, copy_values};
use super::simd::Simd;

/// Rows of a contiguous matrix.
pub(crate) struct Plain<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) depth: usize,
    pub(crate) columns: usize,
}

impl Rows for Plain<'_> {
    #[inline(always)]
    unsafe fn copy<S: Simd>(&self, r: usize, k0: usize, k1: usize, to: *mut f32) {
        // SAFETY: row r and columns k0..k1 exist, as the trait asks of the caller.
        unsafe { copy_values::<S>(self.data.as_ptr().wrapping_add(r * self.depth + k0), to, k1 - k0) }
    }

    #[inline(always)]
    fn place(&self, r: usize) -> usize {
        r * self.columns
    }
}

/// Neighbourhoods of a channels-last picture, in the order `[kernel row, kernel column, channel]`.
///
/// Row `r` is output pixel `r` of `[n, out_height, out_width]`. The output it writes may be a
/// picture `spread` times as large of which it fills the pixels of one phase.
#[derive(Clone, Copy)]
pub(crate) struct Patches<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    pub(crate) out_height: usize,
    pub(crate) out_width: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// Zeros above and left of the picture.
    pub(crate) padding: (usize, usize),
    pub(crate) columns: usize,
    pub(crate) spread: usize,
    pub(crate) phase: (usize, usize),
}

impl Patches<'_> {
    #[inline(always)]
    fn pixel(&self, r: usize) -> (usize, usize, usize) {
        let (line, x) = (r / self.out_width, r % self.out_width);
        (line / self.out_height, line % self.out_height, x)
    }
}

impl Rows for Patches<'_> {
    #[inline(always)]
    unsafe fn copy<S: Simd>(&self, r: usize, k0: usize, k1: usize, to: *mut f32) {
        let (n, y, x) = self.pixel(r);
        // One kernel row is one run of memory: neighbouring pixels are neighbours in it.
        let run = self.kernel * self.channels;
        let left = (x * self.stride) as isize - self.padding.1 as isize;
        let from = (-left).clamp(0, self.kernel as isize) as usize * self.channels;
        let until = (self.width as isize - left).clamp(0, self.kernel as isize) as usize * self.channels;
        let mut k = k0;
        while k < k1 {
            let ky = k / run;
            let (start, end) = (k - ky * run, (k1 - ky * run).min(run));
            let line = (y * self.stride + ky) as isize - self.padding.0 as isize;
            let to = to.wrapping_add(k - k0);
            let (a, b) = if line < 0 || line >= self.height as isize {
                (end, end)
            } else {
                (from.clamp(start, end), until.clamp(start, end).max(from.clamp(start, end)))
            };
            // SAFETY: a..b are the elements whose pixel lies in the picture, and start..end fit `to`.
            unsafe {
                if a > start {
                    std::ptr::write_bytes(to, 0, a - start);
                }
                if b > a {
                    let pixel = ((n * self.height) as isize + line) * self.width as isize + left;
                    let source =
                        self.data.as_ptr().wrapping_offset(pixel * self.channels as isize + a as isize);
                    copy_values::<S>(source, to.wrapping_add(a - start), b - a);
                }
                if end > b {
                    std::ptr::write_bytes(to.wrapping_add(b - start), 0, end - b);
                }
            }
            k += end - start;
        }
    }

    #[inline(always)]
    fn place(&self, r: usize) -> usize {
        if self.spread == 1 {
            return r * self.columns;
        }
        let (n, y, x) = self.pixel(r);
        let line = (n * self.out_height + y) * self.spread + self.phase.0;
        ((line * self.out_width + x) * self.spread + self.phase.1) * self.columns
    }
}
