//! The vector operations every CPU kernel is written in, one implementation an instruction set.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use portable::Portable;

/// The most lanes any implementation has.
pub(crate) const MAX_LANES: usize = 16;

/// A register of `LANES` f32 values.
///
/// # Safety
/// Every method may only run on a processor that has the implementing instruction set, inside a
/// function compiled for it; [`Isa::run`](crate::cpu::Isa::run) is the one way in. Pointers must
/// be valid for the lanes named; no alignment is asked.
pub(crate) trait Simd: Copy + 'static {
    /// Values in one register.
    const LANES: usize;
    /// Rows of the matrix-product register tile (with two vectors of columns).
    const ROWS: usize;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    /// The first `n < LANES` values, zero after them; nothing past them is read.
    unsafe fn load_partial(p: *const f32, n: usize) -> Self;
    /// Writes the first `n < LANES` values and nothing past them.
    unsafe fn store_partial(self, p: *mut f32, n: usize);
    unsafe fn add(self, o: Self) -> Self;
    unsafe fn sub(self, o: Self) -> Self;
    unsafe fn mul(self, o: Self) -> Self;
    unsafe fn div(self, o: Self) -> Self;
    /// `self * m + a`, fused where the set has it.
    unsafe fn mul_add(self, m: Self, a: Self) -> Self;
    /// The smaller; `o` when either is NaN.
    unsafe fn min(self, o: Self) -> Self;
    /// The larger; `o` when either is NaN.
    unsafe fn max(self, o: Self) -> Self;
    /// To the nearest integer, ties to even, for `|x| < 2^22`.
    unsafe fn round(self) -> Self;
    /// `self * 2^n` for integral `n` in -300..=300, with overflow to infinity and underflow
    /// through the subnormals to zero.
    unsafe fn scale2(self, n: Self) -> Self;
    /// `self * 2^n` for `self` between 1/2 and 2 and integral `n` in -125..=125, zero where `x < -125`; NaN stays.
    unsafe fn scale2_above(self, n: Self, x: Self) -> Self;
    unsafe fn abs(self) -> Self;
    /// `yes` where `self` is negative (sign bit), else `no`.
    unsafe fn select_negative(self, yes: Self, no: Self) -> Self;

    /// Transposes the first `LANES` registers as a square matrix.
    unsafe fn transpose(rows: &mut [Self; MAX_LANES]);
    /// Asks for the cache line at `p`, which need not be readable.
    #[inline(always)]
    unsafe fn prefetch(_p: *const f32) {}

    /// Sum of the lanes.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut lanes = [0.0f32; MAX_LANES];
        // SAFETY: LANES is at most 16 and the caller has the instruction set.
        unsafe { self.store(lanes.as_mut_ptr()) };
        let mut width = Self::LANES;
        while width > 1 {
            width /= 2;
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
        }
        lanes[0]
    }
}
