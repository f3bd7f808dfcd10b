//! The register tile all matrix products are made of.

use super::simd::Simd;

/// `R` rows by `V` vectors of the product of `a` (`R x depth`) and `b` (`depth x V·LANES`).
///
/// `a[i, k]` is at `a + i * row + k * step`, `b[k, j]` at `b + k * b_row + j`. Strides that are
/// constants at the call become constants in the loop.
///
/// # Safety
/// All those elements are readable and the processor has `S`.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, const R: usize, const V: usize>(
    depth: usize,
    a: *const f32,
    row: usize,
    step: usize,
    b: *const f32,
    b_row: usize,
) -> [[S; V]; R] {
    // SAFETY: element addresses are within what the caller vouches for.
    unsafe {
        let mut acc = [[S::splat(0.0); V]; R];
        let (mut a, mut b) = (a, b);
        let mut left = depth;
        while left >= 4 {
            for u in 0..4 {
                one::<S, R, V>(&mut acc, a.wrapping_add(u * step), row, b.wrapping_add(u * b_row));
            }
            a = a.wrapping_add(4 * step);
            b = b.wrapping_add(4 * b_row);
            left -= 4;
        }
        while left > 0 {
            one::<S, R, V>(&mut acc, a, row, b);
            a = a.wrapping_add(step);
            b = b.wrapping_add(b_row);
            left -= 1;
        }
        acc
    }
}

#[inline(always)]
unsafe fn one<S: Simd, const R: usize, const V: usize>(
    acc: &mut [[S; V]; R],
    a: *const f32,
    row: usize,
    b: *const f32,
) {
    // SAFETY: one step of `tile`, within its bounds.
    unsafe {
        let mut columns = [S::splat(0.0); V];
        for j in 0..V {
            columns[j] = S::load(b.wrapping_add(j * S::LANES));
        }
        for i in 0..R {
            let x = S::splat(*a.wrapping_add(i * row));
            for j in 0..V {
                acc[i][j] = x.mul_add(columns[j], acc[i][j]);
            }
        }
    }
}

/// Calls `$body` with the constant `$R` equal to the run-time `$rows`, 1..=`S::ROWS`.
macro_rules! with_rows {
    ($S:ty, $rows:expr, $R:ident => $body:expr) => {{
        macro_rules! arm {
            ($n:literal) => {{
                if $n <= <$S>::ROWS {
                    const $R: usize = $n;
                    $body
                }
            }};
        }
        match $rows {
            1 => arm!(1),
            2 => arm!(2),
            3 => arm!(3),
            4 => arm!(4),
            5 => arm!(5),
            6 => arm!(6),
            7 => arm!(7),
            8 => arm!(8),
            9 => arm!(9),
            10 => arm!(10),
            11 => arm!(11),
            12 => arm!(12),
            13 => arm!(13),
            _ => arm!(14),
        }
    }};
}
pub(crate) use with_rows;

/// Where the `index`-th of `parts` near-equal pieces of `len` starts.
#[inline(always)]
pub(crate) fn cut(len: usize, parts: usize, index: usize) -> usize {
    len * index / parts
}
