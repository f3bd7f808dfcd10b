//! Noise that is the same on every device and for every split of the work.
//!
//! The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
//! 1, 2, 3", SC 2011). It is a pure function of a key and a counter, so a value depends on
//! nothing but `(seed, stream, element)`:
//!
//! * key = the two halves of `seed`, low word first;
//! * counter = `[block low, block high, stream low, stream high]` with `block = element / 4`;
//! * the four output words `w0..w3` of a block give the four normals `4·block..4·block+3` by two
//!   Box–Muller transforms in f64: `u = (w + ½)·2⁻³²`, `r = √(−2 ln u0)`, `r cos 2πu1`,
//!   `r sin 2πu1`, then `(w2, w3)` likewise, each rounded to f32.
//!
//! Drawing happens on the CPU whatever the device of the tensors, so no device has a say in it.

use candle_core::{Device, Result, Tensor};

/// Stream of the initial latents.
pub const INITIAL_STREAM: u64 = 0;
/// Stream of the part of the initial latents that all frames share.
pub const SHARED_STREAM: u64 = 1;
/// Stream of the noise that brings known latents to a sampler's level (latent pinning).
pub const PIN_STREAM: u64 = 2;
/// Stream of the autoencoder's posterior draw.
pub const POSTERIOR_STREAM: u64 = 3;
/// First stream of the noise that samplers add: step `i` of a run draws from `STEP_STREAM + i`.
pub const STEP_STREAM: u64 = 1 << 32;

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// The counter-based generator Philox4x32-10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

impl Philox {
    /// A generator for `seed`.
    pub fn new(seed: u64) -> Self {
        Self { key: halves(seed) }
    }

    /// A generator with the two key words of the publication.
    pub fn from_key(key: [u32; 2]) -> Self {
        Self { key }
    }

    /// The four words at `counter`.
    pub fn block(&self, counter: [u32; 4]) -> [u32; 4] {
        let mut c = counter;
        let mut k = self.key;
        for _ in 0..ROUNDS {
            let (high0, low0) = wide_product(MULTIPLIER[0], c[0]);
            let (high1, low1) = wide_product(MULTIPLIER[1], c[2]);
            c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0];
            k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
        }
        c
    }

    /// The four standard normals `4·block .. 4·block + 3` of `stream`.
    pub fn normals(&self, stream: u64, block: u64) -> [f32; 4] {
        let [block_low, block_high] = halves(block);
        let [stream_low, stream_high] = halves(stream);
        let [w0, w1, w2, w3] = self.block([block_low, block_high, stream_low, stream_high]);
        let (a, b) = box_muller(w0, w1);
        let (c, d) = box_muller(w2, w3);
        [a, b, c, d]
    }
}

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

fn wide_product(a: u32, b: u32) -> (u32, u32) {
    let [low, high] = halves(u64::from(a) * u64::from(b));
    (high, low)
}

fn box_muller(w0: u32, w1: u32) -> (f32, f32) {
    // Half a step off zero keeps the logarithm finite; the largest value is 6.76.
    let unit = |w: u32| (f64::from(w) + 0.5) / 4_294_967_296.0;
    let radius = (-2.0 * unit(w0).ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * unit(w1)).sin_cos();
    ((radius * cos) as f32, (radius * sin) as f32)
}

/// `count` standard normals of `(seed, stream)` beginning at element `first`.
pub fn normal_values(seed: u64, stream: u64, first: u64, count: usize) -> Vec<f32> {
    let generator = Philox::new(seed);
    let mut values = Vec::with_capacity(count);
    let mut block = first / 4;
    let mut skip = (first % 4) as usize;
    while values.len() < count {
        let wanted = (count - values.len()).min(4 - skip);
        values.extend(generator.normals(stream, block).iter().skip(skip).take(wanted));
        skip = 0;
        block += 1;
    }
    values
}

/// Standard normal noise of `shape`, f32, on the CPU; row-major element `i` is element `i` of the stream.
///
/// # Errors
/// Only if the tensor cannot be built.
pub fn normal(seed: u64, stream: u64, shape: &[usize]) -> Result<Tensor> {
    normal_from(seed, stream, 0, shape)
}

/// Like [`normal`], with the first element at `first` of the stream: frames `k..` of a clip are
/// drawn with `first = k · elements per frame` and equal the same frames of the whole clip.
///
/// # Errors
/// Only if the tensor cannot be built.
pub fn normal_from(seed: u64, stream: u64, first: u64, shape: &[usize]) -> Result<Tensor> {
    let count = shape.iter().product();
    Tensor::from_vec(normal_values(seed, stream, first, count), shape, &Device::Cpu)
}

/// Noise for a clip `[frames, …]` whose frames share a part: `√share · common + √(1−share) · own`.
///
/// `share` in 0..=1 is the correlation between the noise of any two frames; each value stays
/// standard normal. The embedded model is trained with 0.5, public checkpoints with 0.
///
/// # Errors
/// `shape` without a frame axis, or a tensor that cannot be built.
pub fn clip_normal(seed: u64, shape: &[usize], share: f64) -> Result<Tensor> {
    let own = normal(seed, INITIAL_STREAM, shape)?;
    let share = share.clamp(0.0, 1.0);
    if share == 0.0 {
        return Ok(own);
    }
    let Some((_, frame)) = shape.split_first() else {
        candle_core::bail!("clip noise needs a shape [frames, …], found a scalar")
    };
    let common = normal(seed, SHARED_STREAM, frame)?.unsqueeze(0)?;
    own.affine((1.0 - share).sqrt(), 0.0)?.broadcast_add(&common.affine(share.sqrt(), 0.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kat_vectors` of the Random123 distribution, lines "philox4x32 10".
    #[test]
    fn equals_the_published_known_answers() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, words) in cases {
            assert_eq!(Philox::from_key(key).block(counter), words);
        }
    }

    #[test]
    fn a_value_depends_on_its_element_alone() {
        let whole = normal_values(7, 3, 0, 1003);
        for first in [0usize, 1, 2, 3, 4, 5, 499, 1000] {
            for count in [0usize, 1, 2, 3, 4, 7] {
                let count = count.min(1003 - first);
                assert_eq!(normal_values(7, 3, first as u64, count), whole[first..first + count]);
            }
        }
    }

    #[test]
    fn the_block_counter_uses_all_64_bits() {
        let high = normal_values(1, 0, 1 << 40, 4);
        assert_ne!(high, normal_values(1, 0, 0, 4));
        assert_ne!(high, normal_values(1, 1 << 38, 0, 4));
    }

    #[test]
    fn frames_drawn_apart_equal_the_whole_clip() -> Result<()> {
        let whole = normal(11, 0, &[4, 3, 5])?;
        let tail = normal_from(11, 0, 2 * 15, &[2, 3, 5])?;
        assert_eq!(whole.narrow(0, 2, 2)?.to_vec3::<f32>()?, tail.to_vec3::<f32>()?);
        Ok(())
    }

    /// Moments of 400,000 draws: each bound is five standard errors of its estimate.
    #[test]
    fn draws_are_standard_normal() {
        let values = normal_values(2024, 5, 0, 400_000);
        let n = values.len() as f64;
        let moment = |power: i32| values.iter().map(|&v| f64::from(v).powi(power)).sum::<f64>() / n;
        assert!(moment(1).abs() < 5.0 * (1.0 / n).sqrt(), "mean {}", moment(1));
        assert!((moment(2) - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "variance {}", moment(2));
        assert!(moment(3).abs() < 5.0 * (15.0 / n).sqrt(), "skewness {}", moment(3));
        assert!((moment(4) - 3.0).abs() < 5.0 * (96.0 / n).sqrt(), "kurtosis {}", moment(4));
        let beyond = values.iter().filter(|v| v.abs() > 1.959_964).count() as f64 / n;
        assert!((beyond - 0.05).abs() < 5.0 * (0.05 * 0.95 / n).sqrt(), "tails {beyond}");
        let neighbours = values.windows(2).map(|w| f64::from(w[0] * w[1])).sum::<f64>() / n;
        assert!(neighbours.abs() < 5.0 * (1.0 / n).sqrt(), "neighbours {neighbours}");
    }

    #[test]
    fn streams_and_seeds_are_uncorrelated() {
        let n = 200_000;
        let base = normal_values(1, 0, 0, n);
        for other in
            [normal_values(1, 1, 0, n), normal_values(2, 0, 0, n), normal_values(1, STEP_STREAM, 0, n)]
        {
            let product = base.iter().zip(&other).map(|(a, b)| f64::from(a * b)).sum::<f64>() / n as f64;
            assert!(product.abs() < 5.0 / (n as f64).sqrt(), "{product}");
        }
    }

    #[test]
    fn shared_clip_noise_has_the_asked_correlation() -> Result<()> {
        let frames = clip_normal(3, &[2, 60_000], 0.5)?.to_vec2::<f32>()?;
        let n = frames[0].len() as f64;
        let product = frames[0].iter().zip(&frames[1]).map(|(a, b)| f64::from(a * b)).sum::<f64>() / n;
        let power = frames[0].iter().map(|v| f64::from(v * v)).sum::<f64>() / n;
        assert!((product - 0.5).abs() < 0.03, "{product}");
        assert!((power - 1.0).abs() < 0.03, "{power}");
        assert_eq!(clip_normal(3, &[2, 5], 0.0)?.to_vec2::<f32>()?, normal(3, 0, &[2, 5])?.to_vec2::<f32>()?);
        Ok(())
    }
}
