//! Sixteen lanes with AVX-512F and DQ.

use std::arch::x86_64::*;

use super::{MAX_LANES, Simd};

/// A `zmm` register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// Pairs of the lower (upper) halves of each 128 bits.
#[inline(always)]
unsafe fn low(x: __m512, y: __m512) -> __m512 {
    // SAFETY: register arithmetic; the caller has the instruction set.
    unsafe { _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y))) }
}
#[inline(always)]
unsafe fn high(x: __m512, y: __m512) -> __m512 {
    // SAFETY: register arithmetic; the caller has the instruction set.
    unsafe { _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y))) }
}

// SAFETY (every block below): the trait's contract gives AVX-512F/DQ and the named lanes in memory.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx512 {
    const LANES: usize = 16;
    const ROWS: usize = 14;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Self(unsafe { _mm512_loadu_ps(p) })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { _mm512_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> Self {
        Self(unsafe { _mm512_maskz_loadu_ps(mask(n), p) })
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize) {
        unsafe { _mm512_mask_storeu_ps(p, mask(n), self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self {
        Self(unsafe { _mm512_add_ps(self.0, o.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, o: Self) -> Self {
        Self(unsafe { _mm512_sub_ps(self.0, o.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, o: Self) -> Self {
        Self(unsafe { _mm512_mul_ps(self.0, o.0) })
    }
    #[inline(always)]
    unsafe fn div(self, o: Self) -> Self {
        Self(unsafe { _mm512_div_ps(self.0, o.0) })
    }
    #[inline(always)]
    unsafe fn mul_add(self, m: Self, a: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(self.0, m.0, a.0) })
    }
    #[inline(always)]
    unsafe fn min(self, o: Self) -> Self {
        Self(unsafe { _mm512_min_ps(self.0, o.0) })
    }
    #[inline(always)]
    unsafe fn max(self, o: Self) -> Self {
        Self(unsafe { _mm512_max_ps(self.0, o.0) })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    unsafe fn scale2(self, n: Self) -> Self {
        Self(unsafe { _mm512_scalef_ps(self.0, n.0) })
    }
    #[inline(always)]
    unsafe fn scale2_above(self, n: Self, x: Self) -> Self {
        unsafe {
            let keep = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x.0, _mm512_set1_ps(-125.0));
            Self(_mm512_maskz_scalef_ps(keep, self.0, n.0))
        }
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        Self(unsafe { _mm512_abs_ps(self.0) })
    }
    #[inline(always)]
    unsafe fn select_negative(self, yes: Self, no: Self) -> Self {
        unsafe {
            let sign = _mm512_movepi32_mask(_mm512_castps_si512(self.0));
            Self(_mm512_mask_blend_ps(sign, no.0, yes.0))
        }
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; MAX_LANES]) {
        unsafe {
            // Within each 128 bits first: row 4g + c then holds columns c, c + 4, … of rows 4g…4g + 3.
            for g in (0..16).step_by(4) {
                let [a, b, c, d] = [rows[g].0, rows[g + 1].0, rows[g + 2].0, rows[g + 3].0];
                let (ab, cd) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
                let (ab_high, cd_high) = (_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
                rows[g] = Self(low(ab, cd));
                rows[g + 1] = Self(high(ab, cd));
                rows[g + 2] = Self(low(ab_high, cd_high));
                rows[g + 3] = Self(high(ab_high, cd_high));
            }
            // Then the 128-bit pieces among the four groups of rows.
            const EVEN: i32 = 0x88;
            const ODD: i32 = 0xdd;
            for c in 0..4 {
                let [p, q, r, s] = [rows[c].0, rows[c + 4].0, rows[c + 8].0, rows[c + 12].0];
                let (even, even2) = (_mm512_shuffle_f32x4::<EVEN>(p, q), _mm512_shuffle_f32x4::<EVEN>(r, s));
                let (odd, odd2) = (_mm512_shuffle_f32x4::<ODD>(p, q), _mm512_shuffle_f32x4::<ODD>(r, s));
                rows[c] = Self(_mm512_shuffle_f32x4::<EVEN>(even, even2));
                rows[c + 4] = Self(_mm512_shuffle_f32x4::<EVEN>(odd, odd2));
                rows[c + 8] = Self(_mm512_shuffle_f32x4::<ODD>(even, even2));
                rows[c + 12] = Self(_mm512_shuffle_f32x4::<ODD>(odd, odd2));
            }
        }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}
