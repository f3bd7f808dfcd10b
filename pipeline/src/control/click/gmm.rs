//! Gaussian mixture colour models with full covariance.
//!
//! As in OpenCV's GrabCut (public source): hard component assignment, and densities without the
//! (2π)^(-3/2) factor, so data terms compare with published parameter values.

const COMPONENTS: usize = 5;
const KMEANS_ROUNDS: usize = 6;
/// More samples than this do not change a five-component fit visibly.
const MAX_SAMPLES: usize = 1500;

/// A mixture of at most five Gaussians over three colour channels.
#[derive(Debug, Clone)]
pub struct Gmm {
    parts: Vec<Gaussian>,
}

#[derive(Debug, Clone)]
struct Gaussian {
    weight: f32,
    log_factor: f32,
    mean: [f32; 3],
    /// Upper triangle of the inverse covariance: 00 01 02 11 12 22.
    inverse: [f32; 6],
}

impl Gmm {
    /// Fits the mixture to `samples`; `floor` (squared channel units) is added to every variance,
    /// so that a flat area does not become a needle. `None` when there are no samples.
    /// Deterministic: k-means++ draws from a fixed seed.
    pub fn fit(samples: &[[f32; 3]], floor: f32) -> Option<Self> {
        let stride = samples.len().div_ceil(MAX_SAMPLES).max(1);
        let picked: Vec<[f32; 3]> = samples.iter().copied().step_by(stride).collect();
        if picked.is_empty() {
            return None;
        }
        let centres = kmeans(&picked);
        let mut sums = vec![Moments::default(); centres.len()];
        for &sample in &picked {
            sums[nearest(&centres, sample).0].add(sample);
        }
        let total = picked.len() as f32;
        let parts = sums.iter().filter(|m| m.count > 0.0).map(|m| m.gaussian(total, floor)).collect();
        Some(Self { parts })
    }

    /// −ln p(colour), without the constant 1.5·ln 2π.
    pub fn cost(&self, colour: [f32; 3]) -> f32 {
        let mut density = 0.0f32;
        let mut smallest = f32::MAX;
        for part in &self.parts {
            let energy = 0.5 * part.distance(colour) - part.log_factor;
            smallest = smallest.min(energy);
            density += (-energy).exp();
        }
        // Far from every component the sum underflows; the nearest one alone is then exact enough.
        if density > 1e-30 { -density.ln() } else { smallest }
    }

    /// Bhattacharyya-like separation 0..1 of two mixtures, from samples of both.
    pub fn separation(&self, other: &Self, own: &[[f32; 3]], others: &[[f32; 3]]) -> f32 {
        let won = |samples: &[[f32; 3]], a: &Self, b: &Self| {
            let stride = samples.len().div_ceil(600).max(1);
            let (mut hits, mut seen) = (0.0f32, 0.0f32);
            for &c in samples.iter().step_by(stride) {
                let margin = b.cost(c) - a.cost(c);
                hits += 1.0 / (1.0 + (-margin).exp());
                seen += 1.0;
            }
            if seen > 0.0 { hits / seen } else { 0.5 }
        };
        (won(own, self, other) + won(others, other, self) - 1.0).clamp(0.0, 1.0)
    }
}

impl Gaussian {
    fn distance(&self, c: [f32; 3]) -> f32 {
        let d = [c[0] - self.mean[0], c[1] - self.mean[1], c[2] - self.mean[2]];
        let m = &self.inverse;
        d[0] * (m[0] * d[0] + 2.0 * (m[1] * d[1] + m[2] * d[2]))
            + d[1] * (m[3] * d[1] + 2.0 * m[4] * d[2])
            + m[5] * d[2] * d[2]
    }
}

#[derive(Debug, Clone, Default)]
struct Moments {
    count: f64,
    sum: [f64; 3],
    products: [f64; 6],
}

impl Moments {
    fn add(&mut self, c: [f32; 3]) {
        let c = c.map(f64::from);
        self.count += 1.0;
        for i in 0..3 {
            self.sum[i] += c[i];
        }
        let pairs = [c[0] * c[0], c[0] * c[1], c[0] * c[2], c[1] * c[1], c[1] * c[2], c[2] * c[2]];
        for (total, pair) in self.products.iter_mut().zip(pairs) {
            *total += pair;
        }
    }

    fn gaussian(&self, total: f32, floor: f32) -> Gaussian {
        let n = self.count;
        let mean = self.sum.map(|s| s / n);
        let index = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)];
        let mut c = [0.0f64; 6];
        for (k, (i, j)) in index.into_iter().enumerate() {
            c[k] = self.products[k] / n - mean[i] * mean[j];
            if i == j {
                c[k] = c[k].max(0.0) + f64::from(floor).max(0.01);
            }
        }
        let [a, b, d, e, f, g] = c;
        let determinant = (a * (e * g - f * f) - b * (b * g - f * d) + d * (b * f - e * d)).max(1e-9);
        let inverse =
            [e * g - f * f, d * f - b * g, b * f - d * e, a * g - d * d, b * d - a * f, a * e - b * b];
        let weight = n as f32 / total;
        Gaussian {
            weight,
            log_factor: weight.ln() - 0.5 * (determinant as f32).ln(),
            mean: mean.map(|v| v as f32),
            inverse: inverse.map(|v| (v / determinant) as f32),
        }
    }
}

impl Gmm {
    /// Number of components and their weights, which sum to 1.
    pub fn weights(&self) -> Vec<f32> {
        self.parts.iter().map(|p| p.weight).collect()
    }
}

fn squared(a: [f32; 3], b: [f32; 3]) -> f32 {
    (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2) + (a[2] - b[2]).powi(2)
}

fn nearest(centres: &[[f32; 3]], sample: [f32; 3]) -> (usize, f32) {
    let mut best = (0, f32::MAX);
    for (i, &centre) in centres.iter().enumerate() {
        let d = squared(centre, sample);
        if d < best.1 {
            best = (i, d);
        }
    }
    best
}

/// k-means++ with a fixed seed; returns fewer centres when there are fewer distinct colours.
fn kmeans(samples: &[[f32; 3]]) -> Vec<[f32; 3]> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let mut centres = vec![samples[samples.len() / 2]];
    let mut gap: Vec<f32> = samples.iter().map(|&s| squared(s, centres[0])).collect();
    while centres.len() < COMPONENTS {
        let total: f32 = gap.iter().sum();
        if total <= 1e-3 {
            break;
        }
        let mut left = uniform() * total;
        let chosen = gap
            .iter()
            .position(|&g| {
                left -= g;
                left <= 0.0 && g > 0.0
            })
            .unwrap_or(samples.len() - 1);
        let centre = samples[chosen];
        centres.push(centre);
        for (g, &s) in gap.iter_mut().zip(samples) {
            *g = g.min(squared(s, centre));
        }
    }
    for _ in 0..KMEANS_ROUNDS {
        let mut sums = vec![([0.0f32; 3], 0.0f32); centres.len()];
        for &s in samples {
            let (sum, n) = &mut sums[nearest(&centres, s).0];
            for i in 0..3 {
                sum[i] += s[i];
            }
            *n += 1.0;
        }
        for (centre, (sum, n)) in centres.iter_mut().zip(sums) {
            if n > 0.0 {
                *centre = sum.map(|v| v / n);
            }
        }
    }
    centres
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_colours_are_told_apart() {
        let dark: Vec<_> = (0..50).map(|i| [10.0 + (i % 3) as f32, 0.0, 0.0]).collect();
        let light: Vec<_> = (0..50).map(|i| [80.0 + (i % 3) as f32, 5.0, 0.0]).collect();
        let (a, b) = (Gmm::fit(&dark, 1.0).unwrap(), Gmm::fit(&light, 1.0).unwrap());
        assert!(a.cost([11.0, 0.0, 0.0]) + 10.0 < b.cost([11.0, 0.0, 0.0]));
        assert!(a.separation(&b, &dark, &light) > 0.99);
        assert!(a.separation(&a, &dark, &dark) < 0.01);
    }

    #[test]
    fn one_flat_colour_gives_one_finite_component() {
        let model = Gmm::fit(&[[5.0, 5.0, 5.0]; 20], 0.0).unwrap();
        assert_eq!(model.weights().len(), 1);
        assert!(model.cost([5.0, 5.0, 5.0]).is_finite() && model.cost([200.0, -90.0, 3.0]).is_finite());
        assert!(Gmm::fit(&[], 1.0).is_none());
    }

    #[test]
    fn cost_is_the_gaussian_formula_without_its_constant() {
        // One component of variance 4 per channel: −ln p = ½·d²/4 + ½·ln 64.
        let samples = [
            [-2.0, 0.0, 0.0],
            [2.0, 0.0, 0.0],
            [0.0, -2.0, 0.0],
            [0.0, 2.0, 0.0],
            [0.0, 0.0, -2.0],
            [0.0, 0.0, 2.0],
        ];
        let moments = samples.iter().fold(Moments::default(), |mut m, &s| {
            m.add(s);
            m
        });
        let model = Gmm { parts: vec![moments.gaussian(6.0, 4.0 - 8.0 / 6.0)] };
        let want = 0.5 * 9.0 / 4.0 + 0.5 * 64f32.ln();
        assert!((model.cost([3.0, 0.0, 0.0]) - want).abs() < 1e-4);
    }
}
