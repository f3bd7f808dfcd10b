//! Boundary strength between neighbouring pixels: how different the boxes on both sides are,
//! measured against how much each varies in itself. Texture gives weak answers, outlines strong ones.

use super::lab::Working;

/// Half-lengths of the compared boxes in pixels; out-of-focus outlines need the long one.
const SCALES: [usize; 3] = [2, 4, 8];
/// Share of the inner variance that counts against a difference of means.
const TEXTURE: f32 = 1.5;
/// ΔE at which an outline counts as 63 % certain.
const CONTRAST: f32 = 9.0;

/// Sums over any box in constant time.
#[derive(Debug)]
pub(super) struct Edges {
    width: usize,
    height: usize,
    /// Running sums of L, a, b and L²+a²+b²; one row and column more than the picture.
    sums: Vec<[f64; 4]>,
}

impl Edges {
    pub(super) fn new(work: &Working) -> Self {
        let (width, height) = (work.width, work.height);
        let mut sums = vec![[0.0f64; 4]; (width + 1) * (height + 1)];
        for y in 0..height {
            let mut row = [0.0f64; 4];
            for x in 0..width {
                let c = work.lab[y * width + x].map(f64::from);
                let values = [c[0], c[1], c[2], c[0] * c[0] + c[1] * c[1] + c[2] * c[2]];
                for i in 0..4 {
                    row[i] += values[i];
                }
                let above = sums[y * (width + 1) + x + 1];
                sums[(y + 1) * (width + 1) + x + 1] =
                    [above[0] + row[0], above[1] + row[1], above[2] + row[2], above[3] + row[3]];
            }
        }
        Self { width, height, sums }
    }

    /// Mean colour and total variance of a box, ends exclusive.
    fn moments(&self, x0: usize, y0: usize, x1: usize, y1: usize) -> ([f32; 3], f32) {
        let at = |x: usize, y: usize| &self.sums[y * (self.width + 1) + x];
        let (a, b, c, d) = (at(x0, y0), at(x1, y0), at(x0, y1), at(x1, y1));
        let n = ((x1 - x0) * (y1 - y0)) as f64;
        let m: [f64; 4] = std::array::from_fn(|i| (d[i] - b[i] - c[i] + a[i]) / n);
        let variance = m[3] - m[0] * m[0] - m[1] * m[1] - m[2] * m[2];
        ([m[0] as f32, m[1] as f32, m[2] as f32], variance.max(0.0) as f32)
    }

    /// Strength 0..1 between pixel (x, y) and its right neighbour.
    pub(super) fn right(&self, x: usize, y: usize) -> f32 {
        self.strongest(|r| {
            let half = r.div_ceil(2);
            let (y0, y1) = (y.saturating_sub(half), (y + half + 1).min(self.height));
            (
                self.moments((x + 1).saturating_sub(r), y0, x + 1, y1),
                self.moments(x + 1, y0, (x + 1 + r).min(self.width), y1),
            )
        })
    }

    /// Strength 0..1 between pixel (x, y) and the one below.
    pub(super) fn below(&self, x: usize, y: usize) -> f32 {
        self.strongest(|r| {
            let half = r.div_ceil(2);
            let (x0, x1) = (x.saturating_sub(half), (x + half + 1).min(self.width));
            (
                self.moments(x0, (y + 1).saturating_sub(r), x1, y + 1),
                self.moments(x0, y + 1, x1, (y + 1 + r).min(self.height)),
            )
        })
    }

    fn strongest(&self, sides: impl Fn(usize) -> (([f32; 3], f32), ([f32; 3], f32))) -> f32 {
        let mut best = 0.0f32;
        for r in SCALES {
            let ((a, va), (b, vb)) = sides(r);
            let gap: f32 = (0..3).map(|i| (a[i] - b[i]).powi(2)).sum();
            let contrast = gap / (gap + TEXTURE * (va + vb) + 2.0).sqrt();
            best = best.max(contrast);
        }
        1.0 - (-best / CONTRAST).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Picture;

    #[test]
    fn a_step_is_strong_and_texture_is_weak() {
        let picture = |f: fn(u32, u32) -> u8| {
            let bytes = (0..64 * 64).flat_map(|i| [f(i % 64, i / 64); 3]).collect();
            Edges::new(&Working::new(&Picture::new(64, 64, bytes).unwrap()))
        };
        let step = picture(|x, _| if x < 32 { 60 } else { 160 });
        let checks = picture(|x, y| if (x + y) % 2 == 0 { 60 } else { 160 });
        assert!(step.right(31, 30) > 0.9);
        assert!(step.right(10, 30) < 0.01 && step.below(31, 30) < 0.01);
        assert!(checks.right(31, 30) < 0.2, "{}", checks.right(31, 30));
    }
}
