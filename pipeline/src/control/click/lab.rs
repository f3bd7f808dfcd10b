//! The working copy of a picture: at most 640 px, 8-bit sRGB and smoothed CIE Lab (D65).

use rayon::prelude::*;

use crate::media::Picture;

/// Longer side segmentation works at; contours are carried to the full size afterwards.
pub(super) const WORKING_SIDE: usize = 640;

/// A picture at segmentation size.
#[derive(Debug, Clone)]
pub(super) struct Working {
    pub(super) width: usize,
    pub(super) height: usize,
    /// 8-bit units, as floats.
    pub(super) rgb: Vec<[f32; 3]>,
    /// Lab after a light edge-keeping smoothing.
    pub(super) lab: Vec<[f32; 3]>,
}

impl Working {
    /// Area-averages `picture` down to [`WORKING_SIDE`] (never up) and converts it.
    pub(super) fn new(picture: &Picture) -> Self {
        let (full_width, full_height) = (picture.width() as usize, picture.height() as usize);
        let scale = (WORKING_SIDE as f64 / full_width.max(full_height) as f64).min(1.0);
        let fit = |side: usize| ((side as f64 * scale).round() as usize).clamp(1, side);
        let (width, height) = (fit(full_width), fit(full_height));
        let rgb = shrink(picture.rgb(), full_width, full_height, width, height);
        let raw: Vec<[f32; 3]> = rgb.par_iter().map(|&c| lab_from_rgb(c)).collect();
        let lab = smooth(&raw, width, height);
        Self { width, height, rgb, lab }
    }

    pub(super) fn len(&self) -> usize {
        self.rgb.len()
    }
}

/// CIE Lab of an sRGB colour given in 0..255.
pub(super) fn lab_from_rgb(rgb: [f32; 3]) -> [f32; 3] {
    let linear = rgb.map(|v| {
        let v = v / 255.0;
        if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
    });
    let [r, g, b] = linear;
    let xyz = [
        (0.412_456_4 * r + 0.357_576_1 * g + 0.180_437_5 * b) / 0.950_47,
        0.212_672_9 * r + 0.715_152_2 * g + 0.072_175 * b,
        (0.019_333_9 * r + 0.119_192 * g + 0.950_304_1 * b) / 1.088_83,
    ];
    let [x, y, z] = xyz.map(|t| if t > 0.008_856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 });
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

/// sRGB 0..255 (not clamped) of a CIE Lab colour.
pub(super) fn rgb_from_lab([l, a, b]: [f32; 3]) -> [f32; 3] {
    let y = (l + 16.0) / 116.0;
    let [x, y, z] = [y + a / 500.0, y, y - b / 200.0]
        .map(|t| if t > 0.206_893 { t * t * t } else { (t - 16.0 / 116.0) / 7.787 });
    let (x, z) = (x * 0.950_47, z * 1.088_83);
    [
        3.240_454_2 * x - 1.537_138_5 * y - 0.498_531_4 * z,
        -0.969_266 * x + 1.876_010_8 * y + 0.041_556 * z,
        0.055_643_4 * x - 0.204_025_9 * y + 1.057_225_2 * z,
    ]
    .map(|v| 255.0 * if v <= 0.003_130_8 { 12.92 * v } else { 1.055 * v.max(0.0).powf(1.0 / 2.4) - 0.055 })
}

fn shrink(bytes: &[u8], full_width: usize, full_height: usize, width: usize, height: usize) -> Vec<[f32; 3]> {
    let span = |i: usize, from: usize, to: usize| {
        let start = i * from / to;
        start..((i + 1) * from / to).max(start + 1)
    };
    let mut out = vec![[0.0; 3]; width * height];
    out.par_chunks_mut(width).enumerate().for_each(|(y, row)| {
        let rows = span(y, full_height, height);
        for (x, pixel) in row.iter_mut().enumerate() {
            let columns = span(x, full_width, width);
            let n = (rows.len() * columns.len()) as f32;
            let mut sum = [0u32; 3];
            for fy in rows.clone() {
                for p in bytes[3 * (fy * full_width + columns.start)..3 * (fy * full_width + columns.end)]
                    .chunks_exact(3)
                {
                    for i in 0..3 {
                        sum[i] += u32::from(p[i]);
                    }
                }
            }
            *pixel = sum.map(|s| s as f32 / n);
        }
    });
    out
}

/// 5×5 bilateral with a rational range kernel (half weight at ΔE 8).
fn smooth(lab: &[[f32; 3]], width: usize, height: usize) -> Vec<[f32; 3]> {
    const R: usize = 2;
    let mut out = vec![[0.0; 3]; lab.len()];
    out.par_chunks_mut(width).enumerate().for_each(|(y, row)| {
        for (x, pixel) in row.iter_mut().enumerate() {
            let centre = lab[y * width + x];
            let (mut sum, mut total) = ([0.0f32; 3], 0.0f32);
            for ny in y.saturating_sub(R)..(y + R + 1).min(height) {
                for c in &lab[ny * width + x.saturating_sub(R)..ny * width + (x + R + 1).min(width)] {
                    let d = [c[0] - centre[0], c[1] - centre[1], c[2] - centre[2]];
                    let w = 1.0 / (1.0 + (d[0] * d[0] + d[1] * d[1] + d[2] * d[2]) / 64.0);
                    let w = w * w;
                    for i in 0..3 {
                        sum[i] += w * c[i];
                    }
                    total += w;
                }
            }
            *pixel = sum.map(|s| s / total);
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lab_of_known_colours() {
        // Reference values of sRGB primaries under D65 (Lindbloom's calculator).
        for (rgb, want) in [
            ([255.0, 255.0, 255.0], [100.0, 0.0, 0.0]),
            ([255.0, 0.0, 0.0], [53.24, 80.09, 67.20]),
            ([0.0, 0.0, 255.0], [32.30, 79.19, -107.86]),
        ] {
            let got = lab_from_rgb(rgb);
            let back = rgb_from_lab(got);
            for i in 0..3 {
                assert!((got[i] - want[i]).abs() < 0.1, "{rgb:?}: {got:?} for {want:?}");
                assert!((back[i] - rgb[i]).abs() < 0.2, "{rgb:?} came back as {back:?}");
            }
        }
    }

    #[test]
    fn large_pictures_shrink_and_small_ones_do_not() {
        let big = Working::new(&Picture::new(1280, 2, vec![9; 1280 * 6]).unwrap());
        assert_eq!((big.width, big.height), (640, 1));
        let small = Working::new(&Picture::new(3, 2, vec![9; 18]).unwrap());
        assert_eq!((small.width, small.height), (3, 2));
        assert!((small.rgb[5][0] - 9.0).abs() < 1e-4);
    }
}
