//! Vector exponential, complementary error function and the activations made of them.
//!
//! The polynomials were fitted for this crate by reweighted least squares on Chebyshev bases.

#![allow(clippy::excessive_precision, clippy::approx_constant)]

use super::simd::Simd;
use crate::pointwise::Activation;

/// `2^x`, relative error below 2e-7; infinities, subnormals and NaN as IEEE 754 has them.
///
/// # Safety
/// The processor has `S`.
#[inline(always)]
pub(crate) unsafe fn exp2<S: Simd>(x: S) -> S {
    // SAFETY: register arithmetic only.
    unsafe {
        // The bound comes first so that a NaN in x survives (see `Simd::max`).
        let x = S::splat(-200.0).max(S::splat(200.0).min(x));
        let n = x.round();
        exp2_fraction(x.sub(n)).scale2(n)
    }
}

/// `2^x` for `x` up to 125, zero below -125; relative error below 2e-7, NaN stays. A weight that far below the
/// largest one is lost in any sum with it.
///
/// # Safety
/// The processor has `S`.
#[inline(always)]
pub(crate) unsafe fn exp2_weight<S: Simd>(x: S) -> S {
    // SAFETY: register arithmetic only.
    unsafe {
        // The bound comes first so that a NaN in x survives (see `Simd::max`).
        let bounded = S::splat(-125.0).max(x);
        let n = bounded.round();
        exp2_fraction(bounded.sub(n)).scale2_above(n, x)
    }
}

#[inline(always)]
unsafe fn exp2_fraction<S: Simd>(f: S) -> S {
    const C: [f32; 7] =
        [1.0, 0.693_147_2, 0.240_226_47, 0.055_503_29, 0.009_618_489, 0.001_339_993_8, 0.000_153_458_03];
    // SAFETY: register arithmetic only.
    unsafe {
        let mut y = S::splat(C[6]);
        for i in (0..6).rev() {
            y = y.mul_add(f, S::splat(C[i]));
        }
        y
    }
}

/// `e^(x + correction)` where the correction is small or below the last digit of `x`.
///
/// # Safety
/// The processor has `S`.
#[inline(always)]
unsafe fn exp_corrected<S: Simd>(x: S, correction: S) -> S {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts; the first has few enough bits for n · part to be exact without FMA.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // SAFETY: register arithmetic only.
    unsafe {
        let x = S::splat(-150.0).max(S::splat(150.0).min(x));
        let n = x.add(correction).mul(S::splat(LOG2_E)).round();
        let r = n.mul_add(S::splat(-LN2_HIGH), x);
        let r = n.mul_add(S::splat(-LN2_LOW), r).add(correction);
        exp2_fraction(r.mul(S::splat(LOG2_E))).scale2(n)
    }
}

/// `erfc(z) = t · exp(-z² + P(t))`, `t = 1/(1 + z/2)`, for `z >= 0`; relative error below 4e-7
/// with FMA.
///
/// # Safety
/// The processor has `S`.
#[inline(always)]
pub(crate) unsafe fn erfc<S: Simd>(z: S) -> S {
    const C: [f32; 10] = [
        -0.553_635_03,
        0.565_612_7,
        0.014_718_506,
        -0.028_740_639,
        -8.704_113_5e-4,
        0.003_533_494_6,
        -2.470_485_7e-4,
        -4.927_136_6e-4,
        7.285_741_2e-5,
        4.831_844_7e-5,
    ];
    // SAFETY: register arithmetic only.
    unsafe {
        let one = S::splat(1.0);
        let bounded = S::splat(9.5).min(z);
        let t = one.div(bounded.mul_add(S::splat(0.5), one));
        let u = t.mul_add(S::splat(2.0 / 0.826_086_96), S::splat(-1.173_913_04 / 0.826_086_96));
        let mut p = S::splat(C[9]);
        for i in (0..9).rev() {
            p = p.mul_add(u, S::splat(C[i]));
        }
        // What rounding z² lost would be magnified by the exponential.
        let bounded = S::splat(12.0).min(z);
        let minus = S::splat(0.0).sub(bounded);
        let square = minus.mul(bounded);
        let lost = minus.mul_add(bounded, S::splat(0.0).sub(square));
        t.mul(exp_corrected(square, p.add(lost)))
    }
}

/// `activation(x)`.
///
/// # Safety
/// The processor has `S`.
#[inline(always)]
pub(crate) unsafe fn activate<S: Simd>(activation: Activation, x: S) -> S {
    // SAFETY: register arithmetic only.
    unsafe {
        match activation {
            Activation::None => x,
            Activation::Relu => S::splat(0.0).max(x),
            Activation::Silu => sigmoid_times(x, -1.0),
            Activation::QuickGelu => sigmoid_times(x, -1.702),
            Activation::GeluErf => {
                let half = erfc(x.abs().mul(S::splat(std::f32::consts::FRAC_1_SQRT_2))).mul(S::splat(0.5));
                x.mul(x.select_negative(half, S::splat(1.0).sub(half)))
            }
        }
    }
}

#[inline(always)]
unsafe fn sigmoid_times<S: Simd>(x: S, slope: f32) -> S {
    // SAFETY: register arithmetic only.
    unsafe {
        // 2^100 is past where the quotient is the limit and short of infinity, so 0/inf is never met.
        let power = S::splat(100.0).min(x.mul(S::splat(slope * std::f32::consts::LOG2_E)));
        x.div(S::splat(1.0).add(exp2(power)))
    }
}

/// The derivative of `activation` at `x`; a rectifier's is zero at zero.
///
/// # Safety
/// The processor has `S`.
#[inline(always)]
pub(crate) unsafe fn slope<S: Simd>(activation: Activation, x: S) -> S {
    // SAFETY: register arithmetic only.
    unsafe {
        let (zero, one) = (S::splat(0.0), S::splat(1.0));
        match activation {
            Activation::None => one,
            Activation::Relu => zero.sub(x).select_negative(one, zero),
            Activation::Silu => sigmoid_slope(x, 1.0),
            Activation::QuickGelu => sigmoid_slope(x, 1.702),
            Activation::GeluErf => {
                let half = erfc(x.abs().mul(S::splat(std::f32::consts::FRAC_1_SQRT_2))).mul(S::splat(0.5));
                let below = x.select_negative(half, one.sub(half));
                // Past 20 the density is zero; the bound keeps infinity times zero out.
                let x = S::splat(-20.0).max(S::splat(20.0).min(x));
                let power = x.mul(x).mul(S::splat(-0.5 * std::f32::consts::LOG2_E));
                let density = exp2(power).mul(S::splat(0.398_942_28));
                x.mul_add(density, below)
            }
        }
    }
}

/// `d/dx x·s(kx) = s(kx) + kx · s(kx) · s(-kx)` for the sigmoid `s`.
#[inline(always)]
unsafe fn sigmoid_slope<S: Simd>(x: S, k: f32) -> S {
    // SAFETY: register arithmetic only.
    unsafe {
        let one = S::splat(1.0);
        // Past 60 the slope is 0 or 1 in f32.
        let x = S::splat(-60.0).max(S::splat(60.0).min(x.mul(S::splat(k))));
        let power = exp2(x.mul(S::splat(-std::f32::consts::LOG2_E)));
        let sigmoid = one.div(one.add(power));
        let rest = power.mul(sigmoid);
        sigmoid.mul(x.mul_add(rest, one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{Isa, Kernel};

    /// Powers of two of 16 values, as any number and as a weight.
    struct Powers([f32; 16]);

    impl Kernel for Powers {
        type Out = [[f32; 16]; 2];

        #[inline(always)]
        unsafe fn run<S: Simd>(self) -> Self::Out {
            let mut out = [[0.0; 16]; 2];
            for i in (0..16).step_by(S::LANES) {
                // SAFETY: LANES divides 16.
                unsafe {
                    let x = S::load(self.0.as_ptr().wrapping_add(i));
                    exp2(x).store(out[0].as_mut_ptr().wrapping_add(i));
                    exp2_weight(x).store(out[1].as_mut_ptr().wrapping_add(i));
                }
            }
            out
        }
    }

    fn powers(isa: Isa, x: [f32; 16]) -> [[f32; 16]; 2] {
        // SAFETY: `available` names what the processor has.
        unsafe { isa.run(Powers(x)) }
    }

    #[test]
    fn powers_of_two_are_right_to_the_last_digits() {
        for isa in Isa::available() {
            for step in 0..2_000 {
                let x: [f32; 16] = std::array::from_fn(|i| (step * 16 + i) as f32 * (-125.0 / 32_000.0));
                let [any, weight] = powers(isa, x);
                for (i, x) in x.into_iter().enumerate() {
                    let want = f64::from(x).exp2();
                    for got in [any[i], weight[i]] {
                        let error = (f64::from(got) / want - 1.0).abs();
                        assert!(error < 2.5e-7, "{isa:?}: 2^{x} is {want}, not {got}");
                    }
                }
            }
        }
    }

    #[test]
    fn weights_vanish_far_below_and_keep_nan() {
        let mut x = [0.0; 16];
        x[..5].copy_from_slice(&[f32::NEG_INFINITY, f32::NAN, -125.1, -1e30, -f32::NAN]);
        for isa in Isa::available() {
            let [any, weight] = powers(isa, x);
            assert_eq!([weight[0], weight[2], weight[3], weight[5]], [0.0, 0.0, 0.0, 1.0], "{isa:?}");
            assert!(weight[1].is_nan() && weight[4].is_nan() && any[1].is_nan(), "{isa:?}");
            assert_eq!(any[0], 0.0);
        }
    }
}
