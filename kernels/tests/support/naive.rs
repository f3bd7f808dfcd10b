//! The same operations written the slow way in f64.

use kinora_kernels::Activation;

/// A small generator for test inputs.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// One value in -1..1.
    pub(crate) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32) / (1u32 << 23) as f32 - 1.0
    }

    /// `n` values in -1..1.
    pub(crate) fn fill(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }
}

/// The largest difference; infinite when lengths differ or a value is NaN.
pub(crate) fn max_error(got: &[f32], want: &[f64]) -> f64 {
    if got.len() != want.len() {
        return f64::INFINITY;
    }
    got.iter()
        .zip(want)
        .map(|(g, w)| (f64::from(*g) - w).abs())
        .fold(0.0, |a, b| if b.is_nan() { f64::INFINITY } else { a.max(b) })
}

/// `x wᵀ + b`.
pub(crate) fn linear(x: &[f32], w: &[f32], b: &[f32], rows: usize, inner: usize, out: usize) -> Vec<f64> {
    let dot = |r: usize, j: usize| {
        (0..inner).map(|k| f64::from(x[r * inner + k]) * f64::from(w[j * inner + k])).sum::<f64>()
    };
    (0..rows).flat_map(|r| (0..out).map(move |j| (r, j))).map(|(r, j)| dot(r, j) + f64::from(b[j])).collect()
}

/// A channels-last convolution and the shape of its result.
pub(crate) fn conv(
    x: &[f32],
    weight: &[f32],
    b: &[f32],
    (n, h, w): (usize, usize, usize),
    (inner, out): (usize, usize),
    (kernel, stride, padding): (usize, usize, usize),
) -> (Vec<f64>, [usize; 4]) {
    let (oh, ow) = ((h + 2 * padding - kernel) / stride + 1, (w + 2 * padding - kernel) / stride + 1);
    let mut y = vec![0.0; n * oh * ow * out];
    for i in 0..n {
        for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
            for j in 0..out {
                let mut sum = f64::from(b[j]);
                for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
                    let (sy, sx) = (oy * stride + ky, ox * stride + kx);
                    if sy < padding || sx < padding || sy - padding >= h || sx - padding >= w {
                        continue;
                    }
                    for c in 0..inner {
                        let at = ((i * h + sy - padding) * w + sx - padding) * inner + c;
                        sum += f64::from(x[at])
                            * f64::from(weight[((j * inner + c) * kernel + ky) * kernel + kx]);
                    }
                }
                y[((i * oh + oy) * ow + ox) * out + j] = sum;
            }
        }
    }
    (y, [n, oh, ow, out])
}

/// The error function complement by continued fraction and series, about 1e-15.
pub(crate) fn erfc(z: f64) -> f64 {
    if z < 0.0 {
        return 2.0 - erfc(-z);
    }
    if z < 2.5 {
        let (mut term, mut sum, mut n) = (z, z, 0.0);
        while term.abs() > 1e-18 {
            n += 1.0;
            term *= -z * z / n;
            sum += term / (2.0 * n + 1.0);
        }
        return 1.0 - sum * 2.0 / std::f64::consts::PI.sqrt();
    }
    let mut f = z;
    for k in (1..120).rev() {
        f = z + f64::from(k) / 2.0 / f;
    }
    (-z * z).exp() / f / std::f64::consts::PI.sqrt()
}

/// `activation(x)`.
pub(crate) fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Activation::GeluErf => x * 0.5 * erfc(-x / std::f64::consts::SQRT_2),
    }
}

/// Contiguous `[sequences, heads, tokens, dim]` reference; `seen(sequence, head, i, j)` is the bias.
///
/// Queries are shared out among the machine's threads; no sum crosses a thread, so results do not depend on them.
pub(crate) fn attention(
    (q, k, v): (&[f32], &[f32], &[f32]),
    (sequences, heads, queries, keys, dim): (usize, usize, usize, usize, usize),
    bias: impl Fn(usize, usize, usize, usize) -> f64 + Sync,
) -> (Vec<f64>, Vec<f64>) {
    let row =
        |x: &[f32], row: usize| x[row * dim..][..dim].iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let one = |index: usize, out: &mut [f64]| {
        let (problem, i) = (index / queries, index % queries);
        let query = row(q, index);
        let scores: Vec<f64> = (0..keys)
            .map(|j| {
                let key = &k[(problem * keys + j) * dim..][..dim];
                query.iter().zip(key).map(|(q, k)| q * f64::from(*k)).sum::<f64>() / (dim as f64).sqrt()
                    + bias(problem / heads, problem % heads, i, j)
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> =
            scores.iter().map(|x| if max == f64::NEG_INFINITY { 0.0 } else { (x - max).exp() }).collect();
        let total: f64 = weights.iter().sum();
        for (j, weight) in weights.iter().enumerate() {
            let value = &v[(problem * keys + j) * dim..][..dim];
            out.iter_mut().zip(value).for_each(|(y, v)| *y += weight * f64::from(*v));
        }
        out.iter_mut().for_each(|y| *y = if total == 0.0 { 0.0 } else { *y / total });
        if total == 0.0 { f64::NEG_INFINITY } else { max + total.ln() }
    };
    let rows = sequences * heads * queries;
    let (mut out, mut lse) = (vec![0.0; rows * dim], vec![0.0; rows]);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = rows.div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts = out.chunks_mut(share * dim).zip(lse.chunks_mut(share)).enumerate();
        for (part, (out, lse)) in parts {
            let one = &one;
            scope.spawn(move || {
                for (at, (out, lse)) in out.chunks_mut(dim).zip(lse).enumerate() {
                    *lse = one(part * share + at, out);
                }
            });
        }
    });
    (out, lse)
}
