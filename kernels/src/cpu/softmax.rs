//! The softmax of rows and its gradient.

use super::gemm::{load_up_to, store_up_to};
use super::math::exp2;
use super::pointwise_backward::{Row, each_row};
use super::simd::{MAX_LANES, Simd};
use super::{Isa, Shared};

#[derive(Clone, Copy)]
struct Forward;

impl Row for Forward {
    #[inline(always)]
    unsafe fn row<S: Simd>(self, data: &[f32], _: &[f32], out: *mut f32) {
        let n = data.len();
        // SAFETY: data and out have the row's length; the lanes MAX_LANES values.
        unsafe {
            let mut lanes = [f32::NEG_INFINITY; MAX_LANES];
            let mut top = S::splat(f32::NEG_INFINITY);
            for i in (0..n - n % S::LANES).step_by(S::LANES) {
                // In this order a NaN already seen stays.
                top = S::load(data.as_ptr().wrapping_add(i)).max(top);
            }
            top.store(lanes.as_mut_ptr());
            let rest = &data[n - n % S::LANES..];
            let top = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| a.max(*b));
            let base = S::splat(if top == f32::NEG_INFINITY { 0.0 } else { top });
            let mut total = S::splat(0.0);
            for i in (0..n).step_by(S::LANES) {
                let x: S = load_up_to(data.as_ptr().wrapping_add(i), n - i);
                let y = exp2(x.sub(base).mul(S::splat(std::f32::consts::LOG2_E)));
                store_up_to(y, out.wrapping_add(i), n - i);
                total = total.add(load_up_to(out.wrapping_add(i).cast_const(), n - i));
            }
            let total = total.sum();
            let factor = S::splat(if total == 0.0 { 0.0 } else { 1.0 / total });
            for i in (0..n).step_by(S::LANES) {
                let y: S = load_up_to(out.wrapping_add(i).cast_const(), n - i);
                store_up_to(y.mul(factor), out.wrapping_add(i), n - i);
            }
        }
    }
}

/// The softmax of rows of `columns` values; a row of -inf gives zeros.
///
/// # Safety
/// `out` has room for `data.len()` values, a multiple of `columns`.
pub(crate) unsafe fn softmax(isa: Isa, data: &[f32], columns: usize, out: Shared) {
    let rows = data.len() / columns.max(1);
    // SAFETY: the caller's promises.
    unsafe { each_row(isa, (data, data), (rows, columns), Forward, out) };
}

#[derive(Clone, Copy)]
struct Backward;

impl Row for Backward {
    /// `data` is the softmax itself.
    #[inline(always)]
    unsafe fn row<S: Simd>(self, data: &[f32], grad: &[f32], out: *mut f32) {
        let (y, g) = (data.as_ptr(), grad.as_ptr());
        // SAFETY: all three have the row's length.
        unsafe {
            let mut total = S::splat(0.0);
            for i in (0..data.len()).step_by(S::LANES) {
                let n = data.len() - i;
                let y: S = load_up_to(y.wrapping_add(i), n);
                total = y.mul_add(load_up_to(g.wrapping_add(i), n), total);
            }
            let mean = S::splat(total.sum());
            for i in (0..data.len()).step_by(S::LANES) {
                let n = data.len() - i;
                let (y, g): (S, S) = (load_up_to(y.wrapping_add(i), n), load_up_to(g.wrapping_add(i), n));
                store_up_to(y.mul(g.sub(mean)), out.wrapping_add(i), n);
            }
        }
    }
}

/// `out = result · (grad - Σ result · grad)` over rows of `columns`.
///
/// # Safety
/// All three are as long as `result`, a multiple of `columns`.
pub(crate) unsafe fn softmax_backward(isa: Isa, result: &[f32], grad: &[f32], columns: usize, out: Shared) {
    let rows = result.len() / columns.max(1);
    // SAFETY: the caller's promises.
    unsafe { each_row(isa, (result, grad), (rows, columns), Backward, out) };
}
