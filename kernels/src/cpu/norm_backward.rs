//! Gradients of group and layer normalisation over channels-last data.
//!
//! Statistics are taken again from the input: reading it once more is cheaper than what a forward pass
//! would have to keep.

use super::gemm::{load_up_to, store_up_to};
use super::math::slope;
use super::norm::{Cut, Groups, affine, statistics};
use super::simd::Simd;
use super::{Isa, Kernel, Shared, for_each};
use crate::pointwise::Activation;

/// A piece of the points of one sample, with what maps its channels.
#[derive(Clone, Copy)]
struct Piece<'a> {
    rows: &'a [f32],
    grad: &'a [f32],
    mean: &'a [f32],
    factor: &'a [f32],
    offset: &'a [f32],
    activation: Activation,
}

impl Piece<'_> {
    /// `x - mean` and the gradient before the activation, at channel `c` of row `r`.
    ///
    /// # Safety
    /// The row and channel exist and the processor has `S`.
    #[inline(always)]
    unsafe fn at<S: Simd>(&self, r: usize, c: usize) -> (S, S) {
        let (place, n) = (r * self.mean.len() + c, self.mean.len() - c);
        // SAFETY: as the caller promises; `grad` is as long as `rows`.
        unsafe {
            let x: S = load_up_to(self.rows.as_ptr().wrapping_add(place), n);
            let grad: S = load_up_to(self.grad.as_ptr().wrapping_add(place), n);
            let d = x.sub(load_up_to(self.mean.as_ptr().wrapping_add(c), n));
            if self.activation == Activation::None {
                return (d, grad);
            }
            let factor = load_up_to(self.factor.as_ptr().wrapping_add(c), n);
            let offset = load_up_to(self.offset.as_ptr().wrapping_add(c), n);
            (d, grad.mul(slope(self.activation, d.mul_add(factor, offset))))
        }
    }
}

/// Sums of the gradient and of the gradient times `x - mean`, a channel each.
struct Sums<'a> {
    piece: Piece<'a>,
    sums: *mut f32,
}

impl Kernel for Sums<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let channels = self.piece.mean.len();
        for c in (0..channels).step_by(S::LANES) {
            let n = channels - c;
            // SAFETY: channel c exists in every row; sums hold two values a channel.
            unsafe {
                let zero = S::splat(0.0);
                let (mut plain, mut moved) = ([zero; 2], [zero; 2]);
                for r in 0..self.piece.rows.len() / channels {
                    let (d, grad) = self.piece.at::<S>(r, c);
                    plain[r & 1] = plain[r & 1].add(grad);
                    moved[r & 1] = grad.mul_add(d, moved[r & 1]);
                }
                store_up_to(plain[0].add(plain[1]), self.sums.wrapping_add(c), n);
                store_up_to(moved[0].add(moved[1]), self.sums.wrapping_add(channels + c), n);
            }
        }
    }
}

/// `grad · factor - level - (x - mean) · lean`, a channel each.
struct Input<'a> {
    piece: Piece<'a>,
    level: &'a [f32],
    lean: &'a [f32],
    out: *mut f32,
}

impl Kernel for Input<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let channels = self.piece.mean.len();
        for r in 0..self.piece.rows.len() / channels {
            for c in (0..channels).step_by(S::LANES) {
                let n = channels - c;
                // SAFETY: channel c exists in every row and parameter vector.
                unsafe {
                    let (d, grad) = self.piece.at::<S>(r, c);
                    let factor: S = load_up_to(self.piece.factor.as_ptr().wrapping_add(c), n);
                    let level: S = load_up_to(self.level.as_ptr().wrapping_add(c), n);
                    let lean: S = load_up_to(self.lean.as_ptr().wrapping_add(c), n);
                    let taken = d.mul_add(lean, level);
                    store_up_to(grad.mul(factor).sub(taken), self.out.wrapping_add(r * channels + c), n);
                }
            }
        }
    }
}

/// Sums over the points of a sample, `[samples, channels]`.
pub(crate) struct GroupSums {
    /// Of the gradient before the activation.
    pub(crate) plain: Vec<f64>,
    /// Of that gradient times the normalised value.
    pub(crate) normed: Vec<f64>,
}

/// Writes the gradient of `call.data` for the gradient `grad` of the result, and returns the sums that
/// the gradients of the parameters are made of.
///
/// # Safety
/// As [`group_norm`](super::norm::group_norm); `grad` is as long as `call.data`.
pub(crate) unsafe fn group_norm_backward(
    isa: Isa,
    call: &Groups<'_>,
    grad: &[f32],
    out: Shared,
) -> GroupSums {
    let Groups { data, samples, points, channels, groups, .. } = *call;
    let (mut plain, mut normed) = (vec![0.0; samples * channels], vec![0.0; samples * channels]);
    if data.is_empty() {
        return GroupSums { plain, normed };
    }
    let cut = Cut::of(call);
    let (statistics, width) = (statistics(isa, call), channels / groups);
    let affine = affine(call, &statistics);
    let piece = |sample: usize, block: usize| {
        let ([mean, factor, offset], range) = (&affine[sample], cut.rows(sample, block));
        let (rows, grad) = (&data[range.clone()], &grad[range]);
        Piece { rows, grad, mean, factor, offset, activation: call.activation }
    };
    let mut sums = vec![0.0f32; samples * cut.blocks * 2 * channels];
    let shared = Shared(sums.as_mut_ptr());
    for_each(samples * cut.blocks, data.len() * 8, |task| {
        let piece = piece(task / cut.blocks, task % cut.blocks);
        // SAFETY: every task has sums of its own.
        unsafe { isa.run(Sums { piece, sums: shared.at(task * 2 * channels) }) };
    });
    let mut levels = vec![0.0f32; samples * channels];
    let mut leans = vec![0.0f32; samples * channels];
    for sample in 0..samples {
        for block in 0..cut.blocks {
            let part = &sums[(sample * cut.blocks + block) * 2 * channels..][..2 * channels];
            for c in 0..channels {
                plain[sample * channels + c] += f64::from(part[c]);
                normed[sample * channels + c] += f64::from(part[channels + c]);
            }
        }
        for group in 0..groups {
            let (_, inverse) = statistics[sample * groups + group];
            let range = sample * channels + group * width..sample * channels + (group + 1) * width;
            let count = (points * width) as f64;
            let (mut level, mut lean) = (0.0, 0.0);
            for at in range.clone() {
                normed[at] *= inverse;
                // factor = inverse · weight · (1 + scale).
                let factor = f64::from(affine[sample][1][at - sample * channels]);
                level += factor * plain[at] / count;
                lean += factor * normed[at] * inverse / count;
            }
            levels[range.clone()].fill(level as f32);
            leans[range].fill(lean as f32);
        }
    }
    for_each(samples * cut.blocks, data.len() * 8, |task| {
        let (sample, block) = (task / cut.blocks, task % cut.blocks);
        let of = |x| -> &[f32] {
            let x: &Vec<f32> = x;
            &x[sample * channels..][..channels]
        };
        let to = out.at(cut.rows(sample, block).start);
        let (level, lean) = (of(&levels), of(&leans));
        // SAFETY: every task writes the rows it reads.
        unsafe { isa.run(Input { piece: piece(sample, block), level, lean, out: to }) };
    });
    GroupSums { plain, normed }
}

/// Rows of a layer norm.
struct Layer<'a> {
    rows: &'a [f32],
    grad: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: *mut f32,
    /// Room for the gradients of weight and bias over these rows, or null.
    sums: *mut f32,
}

impl Kernel for Layer<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let channels = self.weight.len();
        let part = 1.0 / channels as f32;
        for r in 0..self.rows.len() / channels {
            let row = self.rows.as_ptr().wrapping_add(r * channels);
            let grad = self.grad.as_ptr().wrapping_add(r * channels);
            // SAFETY: the row, its gradients and the weight have `channels` values.
            unsafe {
                let zero = S::splat(0.0);
                let mut total = zero;
                for c in (0..channels).step_by(S::LANES) {
                    total = total.add(load_up_to(row.wrapping_add(c), channels - c));
                }
                let middle = S::splat(total.sum() * part);
                let (mut square, mut plain, mut moved) = (zero, zero, zero);
                for c in (0..channels).step_by(S::LANES) {
                    let n = channels - c;
                    let x: S = load_up_to(row.wrapping_add(c), n);
                    let g: S = load_up_to(grad.wrapping_add(c), n);
                    let weight: S = load_up_to(self.weight.as_ptr().wrapping_add(c), n);
                    let (mut d, scaled) = (x.sub(middle), g.mul(weight));
                    if n < S::LANES {
                        // Past the row there is no deviation from the mean.
                        let mut lanes = [0.0f32; super::simd::MAX_LANES];
                        d.store(lanes.as_mut_ptr());
                        d = S::load_partial(lanes.as_ptr(), n);
                    }
                    square = d.mul_add(d, square);
                    plain = plain.add(scaled);
                    moved = scaled.mul_add(d, moved);
                }
                let inverse = 1.0 / (square.sum() * part + self.eps).sqrt();
                let level = S::splat(plain.sum() * part);
                let lean = S::splat(moved.sum() * part * inverse * inverse);
                let inverse = S::splat(inverse);
                for c in (0..channels).step_by(S::LANES) {
                    let n = channels - c;
                    let x: S = load_up_to(row.wrapping_add(c), n);
                    let g: S = load_up_to(grad.wrapping_add(c), n);
                    let weight: S = load_up_to(self.weight.as_ptr().wrapping_add(c), n);
                    let d = x.sub(middle);
                    let y = g.mul(weight).sub(level).sub(d.mul(lean)).mul(inverse);
                    store_up_to(y, self.out.wrapping_add(r * channels + c), n);
                    if !self.sums.is_null() {
                        let (a, b) = (self.sums.wrapping_add(c), self.sums.wrapping_add(channels + c));
                        let so_far: S = load_up_to(a.cast_const(), n);
                        store_up_to(g.mul_add(d.mul(inverse), so_far), a, n);
                        let so_far: S = load_up_to(b.cast_const(), n);
                        store_up_to(g.add(so_far), b, n);
                    }
                }
            }
        }
    }
}

/// Writes the gradient of rows of `weight.len()` values for the gradient `grad` of their norms; the
/// gradients of weight and bias come back where `parameters` asks for them.
///
/// # Safety
/// `out` has room for `data.len()` values, a multiple of `weight.len()`, and `grad` is as long.
pub(crate) unsafe fn layer_norm_backward(
    isa: Isa,
    data: &[f32],
    grad: &[f32],
    weight: &[f32],
    eps: f32,
    parameters: bool,
    out: Shared,
) -> Option<[Vec<f64>; 2]> {
    let channels = weight.len();
    let rows = data.len() / channels.max(1);
    let step = ((1 << 14) / channels.max(1)).max(1);
    let tasks = rows.div_ceil(step);
    let mut sums = vec![0.0f32; if parameters { tasks * 2 * channels } else { 0 }];
    let shared = Shared(sums.as_mut_ptr());
    for_each(tasks, data.len() * 16, |task| {
        let (start, end) = (task * step * channels, rows.min((task + 1) * step) * channels);
        let sums = if parameters { shared.at(task * 2 * channels) } else { std::ptr::null_mut() };
        let (rows, grad) = (&data[start..end], &grad[start..end]);
        // SAFETY: row ranges and sums are disjoint and inside their buffers.
        unsafe { isa.run(Layer { rows, grad, weight, eps, out: out.at(start), sums }) };
    });
    parameters.then(|| {
        let mut total = [vec![0.0; channels], vec![0.0; channels]];
        for part in sums.chunks_exact((2 * channels).max(1)) {
            for (total, part) in total.iter_mut().zip(part.chunks_exact(channels)) {
                total.iter_mut().zip(part).for_each(|(t, p)| *t += f64::from(*p));
            }
        }
        total
    })
}
