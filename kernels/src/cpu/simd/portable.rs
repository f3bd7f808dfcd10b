//! Plain arrays that the compiler turns into whatever the target has (SSE2, NEON).

use super::{MAX_LANES, Simd};

/// Eight lanes without intrinsics.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 8]);

impl Portable {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        let mut out = self.0;
        for x in &mut out {
            *x = f(*x);
        }
        Self(out)
    }

    #[inline(always)]
    fn zip(self, o: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self.0;
        for i in 0..8 {
            out[i] = f(self.0[i], o.0[i]);
        }
        Self(out)
    }
}

impl Simd for Portable {
    const LANES: usize = 8;
    const ROWS: usize = 3;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 8])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller vouches for eight readable values.
        Self(unsafe { p.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller vouches for eight writable values.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> Self {
        let mut out = [0.0; 8];
        for (i, x) in out.iter_mut().enumerate().take(n) {
            // SAFETY: the caller vouches for the first n values.
            *x = unsafe { *p.add(i) };
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize) {
        for (i, x) in self.0.iter().enumerate().take(n) {
            // SAFETY: the caller vouches for the first n values.
            unsafe { *p.add(i) = *x };
        }
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self {
        self.zip(o, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, o: Self) -> Self {
        self.zip(o, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, o: Self) -> Self {
        self.zip(o, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, o: Self) -> Self {
        self.zip(o, |a, b| a / b)
    }
    // Not f32::mul_add: without an FMA unit that is a library call a lane.
    #[inline(always)]
    unsafe fn mul_add(self, m: Self, a: Self) -> Self {
        let mut out = a.0;
        for i in 0..8 {
            out[i] += self.0[i] * m.0[i];
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn min(self, o: Self) -> Self {
        self.zip(o, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn max(self, o: Self) -> Self {
        self.zip(o, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        const MAGIC: f32 = 12_582_912.0; // 1.5 · 2^23: the sum has no fraction bits left
        self.map(|x| (x + MAGIC) - MAGIC)
    }
    #[inline(always)]
    unsafe fn scale2(self, n: Self) -> Self {
        self.zip(n, |x, n| {
            let n = n as i32;
            let (a, c) = (n >> 2, n - 3 * (n >> 2));
            let (a, c) = (f32::from_bits(((a + 127) << 23) as u32), f32::from_bits(((c + 127) << 23) as u32));
            x * a * a * a * c
        })
    }
    #[inline(always)]
    unsafe fn scale2_above(self, n: Self, x: Self) -> Self {
        let scaled = self.zip(n, |y, n| f32::from_bits(((n as i32 + 127) << 23) as u32) * y);
        scaled.zip(x, |y, x| if x < -125.0 { 0.0 } else { y })
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        self.map(f32::abs)
    }
    #[inline(always)]
    unsafe fn select_negative(self, yes: Self, no: Self) -> Self {
        let mut out = no.0;
        for i in 0..8 {
            out[i] = if self.0[i].is_sign_negative() { yes.0[i] } else { no.0[i] };
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; MAX_LANES]) {
        for i in 0..8 {
            for j in 0..i {
                let (a, b) = (rows[i].0[j], rows[j].0[i]);
                rows[i].0[j] = b;
                rows[j].0[i] = a;
            }
        }
    }
}
