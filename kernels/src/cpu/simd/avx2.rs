//! Eight lanes with AVX2 and FMA.

use std::arch::x86_64::*;

use super::{MAX_LANES, Simd};

/// A `ymm` register.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256);

#[inline(always)]
unsafe fn mask(n: usize) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}

#[inline(always)]
unsafe fn power2(n: __m256i) -> __m256 {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)))) }
}

/// Pairs of the lower (upper) halves of each 128 bits.
#[inline(always)]
unsafe fn low(x: __m256, y: __m256) -> __m256 {
    // SAFETY: register arithmetic; the caller has the instruction set.
    unsafe { _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(x), _mm256_castps_pd(y))) }
}
#[inline(always)]
unsafe fn high(x: __m256, y: __m256) -> __m256 {
    // SAFETY: register arithmetic; the caller has the instruction set.
    unsafe { _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(x), _mm256_castps_pd(y))) }
}

// SAFETY (every block below): the trait's contract gives AVX2, FMA and the named lanes in memory.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx2 {
    const LANES: usize = 8;
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self(unsafe { _mm256_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Self(unsafe { _mm256_loadu_ps(p) })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { _mm256_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> Self {
        Self(unsafe { _mm256_maskload_ps(p, mask(n)) })
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize) {
        unsafe { _mm256_maskstore_ps(p, mask(n), self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self {
        Self(unsafe { _mm256_add_ps(self.0, o.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, o: Self) -> Self {
        Self(unsafe { _mm256_sub_ps(self.0, o.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, o: Self) -> Self {
        Self(unsafe { _mm256_mul_ps(self.0, o.0) })
    }
    #[inline(always)]
    unsafe fn div(self, o: Self) -> Self {
        Self(unsafe { _mm256_div_ps(self.0, o.0) })
    }
    #[inline(always)]
    unsafe fn mul_add(self, m: Self, a: Self) -> Self {
        Self(unsafe { _mm256_fmadd_ps(self.0, m.0, a.0) })
    }
    #[inline(always)]
    unsafe fn min(self, o: Self) -> Self {
        Self(unsafe { _mm256_min_ps(self.0, o.0) })
    }
    #[inline(always)]
    unsafe fn max(self, o: Self) -> Self {
        Self(unsafe { _mm256_max_ps(self.0, o.0) })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    unsafe fn scale2(self, n: Self) -> Self {
        // Four factors, so that none leaves the exponent range on the way to a subnormal.
        unsafe {
            let n = _mm256_cvtps_epi32(n.0);
            let quarter = _mm256_srai_epi32::<2>(n);
            let rest = _mm256_sub_epi32(n, _mm256_add_epi32(quarter, _mm256_add_epi32(quarter, quarter)));
            let (a, c) = (power2(quarter), power2(rest));
            let x = _mm256_mul_ps(_mm256_mul_ps(self.0, a), a);
            Self(_mm256_mul_ps(_mm256_mul_ps(x, a), c))
        }
    }
    #[inline(always)]
    unsafe fn scale2_above(self, n: Self, x: Self) -> Self {
        unsafe {
            let exponent = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n.0));
            let scaled = _mm256_add_epi32(_mm256_castps_si256(self.0), exponent);
            let keep = _mm256_cmp_ps::<_CMP_NLT_UQ>(x.0, _mm256_set1_ps(-125.0));
            Self(_mm256_and_ps(keep, _mm256_castsi256_ps(scaled)))
        }
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        Self(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }
    #[inline(always)]
    unsafe fn select_negative(self, yes: Self, no: Self) -> Self {
        Self(unsafe { _mm256_blendv_ps(no.0, yes.0, self.0) })
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; MAX_LANES]) {
        unsafe {
            // Within each 128 bits first: row 4g + c then holds columns c and c + 4 of rows 4g…4g + 3.
            for g in [0, 4] {
                let [a, b, c, d] = [rows[g].0, rows[g + 1].0, rows[g + 2].0, rows[g + 3].0];
                let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
                rows[g] = Self(low(ab, cd));
                rows[g + 1] = Self(high(ab, cd));
                rows[g + 2] = Self(low(ab_high, cd_high));
                rows[g + 3] = Self(high(ab_high, cd_high));
            }
            for c in 0..4 {
                let (p, q) = (rows[c].0, rows[c + 4].0);
                rows[c] = Self(_mm256_permute2f128_ps::<0x20>(p, q));
                rows[c + 4] = Self(_mm256_permute2f128_ps::<0x31>(p, q));
            }
        }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}
