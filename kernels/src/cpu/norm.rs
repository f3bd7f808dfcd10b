//! Group and layer normalisation over channels-last data.

use super::gemm::{load_up_to, store_up_to};
use super::math::activate;
use super::simd::Simd;
use super::{Isa, Kernel, Shared, for_each};
use crate::pointwise::Activation;

/// Points a task handles: short enough for f32 sums of shifted values to keep their digits.
const POINTS: usize = 256;

/// A call of group normalisation.
pub(crate) struct Groups<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) samples: usize,
    pub(crate) points: usize,
    pub(crate) channels: usize,
    pub(crate) groups: usize,
    pub(crate) eps: f64,
    pub(crate) weight: &'a [f32],
    pub(crate) bias: &'a [f32],
    /// Per sample and channel, `y · (1 + scale) + shift` before the activation.
    pub(crate) film: Option<(&'a [f32], &'a [f32])>,
    pub(crate) activation: Activation,
}

/// Sums and sums of squares of `x - x[first point]`, a channel each.
struct Moments<'a> {
    reference: &'a [f32],
    rows: &'a [f32],
    channels: usize,
    sums: *mut f32,
}

impl Kernel for Moments<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (points, channels) = (self.rows.len() / self.channels, self.channels);
        for c in (0..channels).step_by(S::LANES) {
            let n = channels - c;
            // SAFETY: channel c exists in every row; sums hold two values a channel.
            unsafe {
                let reference: S = load_up_to(self.reference.as_ptr().wrapping_add(c), n);
                let zero = S::splat(0.0);
                let (mut sum, mut square) = ([zero; 4], [zero; 4]);
                for r in 0..points {
                    let x: S = load_up_to(self.rows.as_ptr().wrapping_add(r * channels + c), n);
                    let x = x.sub(reference);
                    sum[r & 3] = sum[r & 3].add(x);
                    square[r & 3] = x.mul_add(x, square[r & 3]);
                }
                let total = |v: [S; 4]| v[0].add(v[1]).add(v[2].add(v[3]));
                store_up_to(total(sum), self.sums.wrapping_add(c), n);
                store_up_to(total(square), self.sums.wrapping_add(channels + c), n);
            }
        }
    }
}

/// `activation((x - mean) · factor + offset)`, a channel each.
struct Affine<'a> {
    rows: &'a [f32],
    mean: &'a [f32],
    factor: &'a [f32],
    offset: &'a [f32],
    activation: Activation,
    out: *mut f32,
}

impl Kernel for Affine<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let channels = self.mean.len();
        for r in 0..self.rows.len() / channels {
            for c in (0..channels).step_by(S::LANES) {
                let n = channels - c;
                // SAFETY: channel c exists in every row and parameter vector.
                unsafe {
                    let x: S = load_up_to(self.rows.as_ptr().wrapping_add(r * channels + c), n);
                    let mean = load_up_to(self.mean.as_ptr().wrapping_add(c), n);
                    let factor = load_up_to(self.factor.as_ptr().wrapping_add(c), n);
                    let offset = load_up_to(self.offset.as_ptr().wrapping_add(c), n);
                    let y = x.sub(mean).mul_add(factor, offset);
                    store_up_to(activate(self.activation, y), self.out.wrapping_add(r * channels + c), n);
                }
            }
        }
    }
}

/// Normalises, scales and activates.
///
/// # Safety
/// `data` is `samples · points · channels` long, `out` has room for as much, parameters are a value
/// a channel (film a value a sample and channel), and `groups` divides `channels`.
pub(crate) unsafe fn group_norm(isa: Isa, call: &Groups<'_>, out: Shared) {
    let Groups { data, samples, .. } = *call;
    if data.is_empty() {
        return;
    }
    let cut = Cut::of(call);
    let affine = affine(call, &statistics(isa, call));
    for_each(samples * cut.blocks, data.len() * 8, |task| {
        let (sample, block) = (task / cut.blocks, task % cut.blocks);
        let [mean, factor, offset] = &affine[sample];
        let range = cut.rows(sample, block);
        let to = out.at(range.start);
        let affine =
            Affine { rows: &data[range], mean, factor, offset, activation: call.activation, out: to };
        // SAFETY: every task writes the rows it reads.
        unsafe { isa.run(affine) };
    });
}

/// How the points of a call are cut into tasks.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// Tasks a sample.
    pub(super) blocks: usize,
    points: usize,
    channels: usize,
}

impl Cut {
    pub(super) fn of(call: &Groups<'_>) -> Self {
        Self { blocks: call.points.div_ceil(POINTS), points: call.points, channels: call.channels }
    }

    /// The values of a task.
    pub(super) fn rows(self, sample: usize, block: usize) -> std::ops::Range<usize> {
        let first = sample * self.points;
        (first + block * POINTS) * self.channels
            ..(first + self.points.min((block + 1) * POINTS)) * self.channels
    }
}

/// Mean and inverse deviation of every group of every sample, combined in f64.
pub(super) fn statistics(isa: Isa, call: &Groups<'_>) -> Vec<(f64, f64)> {
    let Groups { data, samples, points, channels, groups, .. } = *call;
    let cut = Cut::of(call);
    let mut sums = vec![0.0f32; samples * cut.blocks * 2 * channels];
    let shared = Shared(sums.as_mut_ptr());
    for_each(samples * cut.blocks, data.len() * 2, |task| {
        let (sample, block) = (task / cut.blocks, task % cut.blocks);
        let moments = Moments {
            reference: &data[sample * points * channels..][..channels],
            rows: &data[cut.rows(sample, block)],
            channels,
            sums: shared.at(task * 2 * channels),
        };
        // SAFETY: every task has sums of its own.
        unsafe { isa.run(moments) };
    });
    let (count, width) = (points as f64, channels / groups);
    let mut statistics = Vec::with_capacity(samples * groups);
    for sample in 0..samples {
        let first = &data[sample * points * channels..][..channels];
        let mut moments = vec![(0.0f64, 0.0f64); channels];
        for block in 0..cut.blocks {
            let part = &sums[(sample * cut.blocks + block) * 2 * channels..][..2 * channels];
            for c in 0..channels {
                moments[c].0 += f64::from(part[c]);
                moments[c].1 += f64::from(part[channels + c]);
            }
        }
        for (c, (sum, square)) in moments.iter_mut().enumerate() {
            let mean = *sum / count;
            *square -= *sum * mean;
            *sum = f64::from(first[c]) + mean;
        }
        for group in moments.chunks_exact(width) {
            let mean = group.iter().map(|m| m.0).sum::<f64>() / width as f64;
            let spread: f64 = group.iter().map(|m| m.1 + count * (m.0 - mean).powi(2)).sum();
            statistics.push((mean, 1.0 / (spread / (count * width as f64) + call.eps).sqrt()));
        }
    }
    statistics
}

/// Mean, factor and offset of every channel, a sample each.
pub(super) fn affine(call: &Groups<'_>, statistics: &[(f64, f64)]) -> Vec<[Vec<f32>; 3]> {
    let Groups { channels, groups, .. } = *call;
    let width = channels / groups;
    let sample = |sample: usize| {
        let (mut means, mut factors, mut offsets) =
            (vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]);
        for c in 0..channels {
            let (mean, inverse) = statistics[sample * groups + c / width];
            let (scale, shift) = call.film.map_or((1.0, 0.0), |(scale, shift)| {
                (1.0 + f64::from(scale[sample * channels + c]), f64::from(shift[sample * channels + c]))
            });
            means[c] = mean as f32;
            factors[c] = (inverse * f64::from(call.weight[c]) * scale) as f32;
            offsets[c] = (f64::from(call.bias[c]) * scale + shift) as f32;
        }
        [means, factors, offsets]
    };
    (0..call.samples).map(sample).collect()
}

struct Layer<'a> {
    rows: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
    out: *mut f32,
}

impl Kernel for Layer<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let channels = self.weight.len();
        let whole = channels - channels % S::LANES;
        for r in 0..self.rows.len() / channels {
            let (row, out) =
                (self.rows.as_ptr().wrapping_add(r * channels), self.out.wrapping_add(r * channels));
            // SAFETY: the row, its output and the parameters have `channels` values.
            unsafe {
                let mut total = S::splat(0.0);
                for c in (0..channels).step_by(S::LANES) {
                    total = total.add(load_up_to(row.wrapping_add(c), channels - c));
                }
                let mean = total.sum() / channels as f32;
                let middle = S::splat(mean);
                let mut square = S::splat(0.0);
                for c in (0..whole).step_by(S::LANES) {
                    let x = S::load(row.wrapping_add(c)).sub(middle);
                    square = x.mul_add(x, square);
                }
                let rest: f32 = (whole..channels).map(|c| (*row.wrapping_add(c) - mean).powi(2)).sum();
                let inverse = S::splat(1.0 / ((square.sum() + rest) / channels as f32 + self.eps).sqrt());
                for c in (0..channels).step_by(S::LANES) {
                    let n = channels - c;
                    let x: S = load_up_to(row.wrapping_add(c), n);
                    let weight = load_up_to(self.weight.as_ptr().wrapping_add(c), n);
                    let bias = load_up_to(self.bias.as_ptr().wrapping_add(c), n);
                    store_up_to(x.sub(middle).mul(inverse).mul_add(weight, bias), out.wrapping_add(c), n);
                }
            }
        }
    }
}

/// Normalises rows of `weight.len()` values.
///
/// # Safety
/// `out` has room for `data.len()` values, a multiple of `weight.len()`, which `bias.len()` equals.
pub(crate) unsafe fn layer_norm(isa: Isa, data: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: Shared) {
    let channels = weight.len();
    if data.is_empty() {
        return;
    }
    let rows = data.len() / channels;
    let step = ((1 << 14) / channels).max(1);
    for_each(rows.div_ceil(step), data.len() * 8, |task| {
        let (start, end) = (task * step * channels, rows.min((task + 1) * step) * channels);
        // SAFETY: row ranges are disjoint and inside both buffers.
        unsafe { isa.run(Layer { rows: &data[start..end], weight, bias, eps, out: out.at(start) }) };
    });
}
