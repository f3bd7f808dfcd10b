//! Colour reduction for GIF: variance-based splitting of a histogram, then error diffusion.
//!
//! Boxes are cut where they lower the squared error most (Wu, "Color quantization by dynamic
//! programming and principal analysis", 1992, along axes only), refined by two k-means rounds.

use std::collections::BTreeMap;

/// Colours kept apart in the histogram: 5 bits a channel.
const SHIFT: u32 = 3;

/// Up to 255 colours; index 255 is left for "unchanged".
#[derive(Debug, Clone)]
pub(super) struct Palette {
    colours: Vec<[u8; 3]>,
    /// Nearest colour of every 5-bit cell, filled when asked for.
    cache: Vec<u16>,
}

#[derive(Clone, Copy)]
struct Bin {
    colour: [f64; 3],
    count: f64,
}

impl Palette {
    /// Fits a palette to the pixels `r g b r g b …` of one picture.
    pub(super) fn fit(rgb: &[u8]) -> Self {
        let mut cells: BTreeMap<u16, ([f64; 3], f64)> = BTreeMap::new();
        for pixel in rgb.chunks_exact(3) {
            let entry = cells.entry(cell(pixel[0], pixel[1], pixel[2])).or_default();
            for (sum, &value) in entry.0.iter_mut().zip(pixel) {
                *sum += f64::from(value);
            }
            entry.1 += 1.0;
        }
        let mut bins: Vec<Bin> = cells
            .values()
            .map(|(sum, count)| Bin { colour: sum.map(|s| s / count), count: *count })
            .collect();
        let means = split(&mut bins, 255);
        let colours = refine(&bins, means);
        Self {
            colours: colours.iter().map(|c| c.map(|v| v.round().clamp(0.0, 255.0) as u8)).collect(),
            cache: vec![u16::MAX; 1 << 15],
        }
    }

    /// 256 RGB triples for the file.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.colours.iter().flatten().copied().collect();
        bytes.resize(256 * 3, 0);
        bytes
    }

    fn nearest(&mut self, colour: [i32; 3]) -> usize {
        let key = usize::from(cell(colour[0] as u8, colour[1] as u8, colour[2] as u8));
        if self.cache[key] == u16::MAX {
            // The cell's centre stands for it: 8 levels wide, dithering spreads the rest.
            let centre = [key >> 10, key >> 5 & 31, key & 31].map(|v| (v as i32) * 8 + 4);
            let best = self
                .colours
                .iter()
                .enumerate()
                .min_by_key(|(_, c)| distance(**c, centre))
                .map_or(0, |(index, _)| index);
            self.cache[key] = best as u16;
        }
        usize::from(self.cache[key])
    }

    /// Mean squared error a channel of the pixels under this palette without dithering.
    pub(super) fn error(&mut self, rgb: &[u8]) -> f64 {
        let mut sum = 0.0;
        let mut count = 0.0;
        // A sixteenth of the pixels tells whether the colours still fit.
        for pixel in rgb.chunks_exact(3).step_by(16) {
            let colour = [pixel[0], pixel[1], pixel[2]].map(i32::from);
            let index = self.nearest(colour);
            sum += f64::from(distance(self.colours[index], colour));
            count += 3.0;
        }
        sum / f64::max(count, 1.0)
    }

    /// Floyd-Steinberg in serpentine order; pixels with `keep` become index 255.
    pub(super) fn dither(&mut self, rgb: &[u8], width: usize, keep: Option<&[bool]>) -> Vec<u8> {
        let mut out = Vec::with_capacity(rgb.len() / 3);
        let mut here = vec![[0i32; 3]; width + 2];
        let mut below = vec![[0i32; 3]; width + 2];
        for (y, row) in rgb.chunks_exact(width * 3).enumerate() {
            let mut line = vec![255u8; width];
            let backwards = y % 2 == 1;
            for step in 0..width {
                let x = if backwards { width - 1 - step } else { step };
                if keep.is_some_and(|k| k[y * width + x]) {
                    continue;
                }
                let mut wanted = [0; 3];
                for c in 0..3 {
                    // Errors are sixteenths; rounding keeps flat areas flat.
                    wanted[c] = (i32::from(row[x * 3 + c]) + ((here[x + 1][c] + 8) >> 4)).clamp(0, 255);
                }
                let index = self.nearest(wanted);
                line[x] = index as u8;
                let ahead = if backwards { x } else { x + 2 };
                let behind = if backwards { x + 2 } else { x };
                for c in 0..3 {
                    let error = wanted[c] - i32::from(self.colours[index][c]);
                    here[ahead][c] += error * 7;
                    below[behind][c] += error * 3;
                    below[x + 1][c] += error * 5;
                    below[ahead][c] += error;
                }
            }
            out.extend_from_slice(&line);
            std::mem::swap(&mut here, &mut below);
            below.fill([0; 3]);
        }
        out
    }
}

fn cell(r: u8, g: u8, b: u8) -> u16 {
    u16::from(r >> SHIFT) << 10 | u16::from(g >> SHIFT) << 5 | u16::from(b >> SHIFT)
}

fn distance(a: [u8; 3], b: [i32; 3]) -> i32 {
    (0..3).map(|c| (i32::from(a[c]) - b[c]).pow(2)).sum()
}

/// Cuts the bins into at most `most` boxes and returns their means.
fn split(bins: &mut [Bin], most: usize) -> Vec<[f64; 3]> {
    let mut boxes = vec![(0, bins.len())];
    let mut gains = vec![best_cut(&mut bins[..])];
    while boxes.len() < most {
        let best = gains
            .iter()
            .enumerate()
            .filter_map(|(i, cut)| cut.map(|(gain, axis, at)| (i, gain, axis, at)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((index, _, axis, at)) = best else { break };
        let (start, end) = boxes[index];
        sort_along(&mut bins[start..end], axis);
        boxes[index] = (start, start + at);
        boxes.push((start + at, end));
        gains[index] = best_cut(&mut bins[start..start + at]);
        gains.push(best_cut(&mut bins[start + at..end]));
    }
    boxes
        .iter()
        .map(|&(start, end)| {
            let slice = &bins[start..end];
            let count: f64 = slice.iter().map(|b| b.count).sum();
            std::array::from_fn(|c| slice.iter().map(|b| b.colour[c] * b.count).sum::<f64>() / count.max(1.0))
        })
        .collect()
}

fn sort_along(bins: &mut [Bin], axis: usize) {
    bins.sort_by(|a, b| a.colour[axis].total_cmp(&b.colour[axis]));
}

/// The axis and position whose cut lowers the squared error most, with that gain.
fn best_cut(bins: &mut [Bin]) -> Option<(f64, usize, usize)> {
    if bins.len() < 2 {
        return None;
    }
    let mut best = None;
    for axis in 0..3 {
        sort_along(bins, axis);
        let mut total = [0.0; 4];
        for bin in bins.iter() {
            add(&mut total, bin);
        }
        let mut left = [0.0; 4];
        for (at, bin) in bins.iter().enumerate().take(bins.len() - 1) {
            add(&mut left, bin);
            let right: [f64; 4] = std::array::from_fn(|i| total[i] - left[i]);
            let gain = energy(&left) + energy(&right) - energy(&total);
            if gain > 1e-6 && best.is_none_or(|(most, _, _)| gain > most) {
                best = Some((gain, axis, at + 1));
            }
        }
    }
    best
}

fn add(sums: &mut [f64; 4], bin: &Bin) {
    for c in 0..3 {
        sums[c] += bin.colour[c] * bin.count;
    }
    sums[3] += bin.count;
}

fn energy(sums: &[f64; 4]) -> f64 {
    (sums[0].powi(2) + sums[1].powi(2) + sums[2].powi(2)) / sums[3].max(1.0)
}

fn refine(bins: &[Bin], mut means: Vec<[f64; 3]>) -> Vec<[f64; 3]> {
    // Enough to settle the means; large histograms are near settled and not worth the time.
    let rounds = if bins.len() > 8192 { 1 } else { 2 };
    for _ in 0..rounds {
        let mut sums = vec![[0.0; 4]; means.len()];
        for bin in bins {
            let nearest = means
                .iter()
                .enumerate()
                .map(|(i, m)| (i, (0..3).map(|c| (m[c] - bin.colour[c]).powi(2)).sum::<f64>()))
                .min_by(|a, b| a.1.total_cmp(&b.1))
                .map_or(0, |(i, _)| i);
            add(&mut sums[nearest], bin);
        }
        for (mean, sum) in means.iter_mut().zip(&sums) {
            if sum[3] > 0.0 {
                *mean = std::array::from_fn(|c| sum[c] / sum[3]);
            }
        }
    }
    means
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_colours_are_kept_exactly() {
        let rgb = [[255, 0, 0], [0, 0, 0], [12, 200, 99]].concat().repeat(50);
        let mut palette = Palette::fit(&rgb);
        let indices = palette.dither(&rgb, 15, None);
        let bytes = palette.bytes();
        for (pixel, index) in rgb.chunks_exact(3).zip(indices) {
            assert_eq!(pixel, &bytes[usize::from(index) * 3..][..3]);
        }
    }

    #[test]
    fn a_smooth_picture_keeps_its_local_mean() {
        let (w, h) = (64, 64);
        let rgb: Vec<u8> = (0..h)
            .flat_map(|y| (0..w).flat_map(move |x| [(x * 4) as u8, (y * 4) as u8, ((x + y) * 2) as u8]))
            .collect();
        let mut palette = Palette::fit(&rgb);
        let indices = palette.dither(&rgb, w, None);
        let bytes = palette.bytes();
        for (bx, by) in [(1, 1), (3, 5), (6, 2)] {
            for c in 0..3 {
                let mut sum = [0i64; 2];
                for y in by * 8..by * 8 + 8 {
                    for x in bx * 8..bx * 8 + 8 {
                        sum[0] += i64::from(rgb[(y * w + x) * 3 + c]);
                        sum[1] += i64::from(bytes[usize::from(indices[y * w + x]) * 3 + c]);
                    }
                }
                assert!((sum[0] - sum[1]).abs() < 3 * 64, "block {bx},{by} channel {c}: {sum:?}");
            }
        }
    }
}
