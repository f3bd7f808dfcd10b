//! From superpixels to a contour: a pixel cut in a band around it, then a guided filter carried to
//! the full size.

use rayon::prelude::*;

use super::grabcut::{FIXED, HARD, Models, squared};
use super::lab::Working;
use super::maxflow::MaxFlow;
use crate::control::mask::distance_to;
use crate::media::Picture;

/// Half-width of the band whose pixels may change side.
const BAND: f32 = 8.0;
/// Smoothness weight between pixels.
const GAMMA: f32 = 18.0;
/// Evidence at the rim of the band for staying on the superpixels' side.
const SHAPE: f32 = 1.5;
/// Guided filter (He et al., PAMI 2013): window radius and ε for colours in 0..1.
const RADIUS: usize = 3;
const EPSILON: f64 = 4e-4;
/// Half-width of the soft contour in working pixels.
const SOFT: f32 = 2.5;

/// A pixel the person decided on.
#[derive(Debug, Clone, Copy)]
pub(super) struct PixelSeed {
    pub(super) index: usize,
    pub(super) keep: bool,
}

/// Moves the contour of `inside` to the pixels' edges; seeds hold exactly, pixels where `allowed`
/// is false are outside.
pub(super) fn cut_band(
    work: &Working,
    inside: &[bool],
    models: &Models,
    seeds: &[PixelSeed],
    allowed: &dyn Fn(usize) -> bool,
    beta: f32,
) -> Vec<bool> {
    let (width, height) = (work.width, work.height);
    let depth = contour_depth(inside, width, height);
    let mut forced = vec![0i8; work.len()];
    for seed in seeds {
        forced[seed.index] = if seed.keep { 1 } else { -1 };
    }
    // Around a seed on the wrong side there is no contour yet, so the band opens there too.
    let wrong: Vec<bool> = (0..work.len()).map(|i| forced[i] != 0 && (forced[i] == 1) != inside[i]).collect();
    let to_wrong = wrong.iter().any(|&w| w).then(|| distance_to(&wrong, width, height));
    let mut node = vec![u32::MAX; work.len()];
    let mut pixels = Vec::new();
    for i in 0..work.len() {
        if depth[i] <= BAND || forced[i] != 0 || to_wrong.as_ref().is_some_and(|d| d[i] <= 2.0 * BAND) {
            node[i] = pixels.len() as u32;
            pixels.push(i);
        }
    }
    let mut flow = MaxFlow::new(pixels.len(), 4 * pixels.len());
    for (n, &i) in pixels.iter().enumerate() {
        if forced[i] == 1 {
            flow.add_terminal(n, HARD, 0);
        } else if forced[i] == -1 || !allowed(i) {
            flow.add_terminal(n, 0, HARD);
        } else {
            let depth = if inside[i] { depth[i] } else { -depth[i] };
            let shape = SHAPE * (depth / BAND).clamp(-1.0, 1.0);
            let odds = ((models.evidence(work.lab[i]) + shape) * FIXED) as i64;
            flow.add_terminal(n, odds.max(0), (-odds).max(0));
        }
    }
    let link = |i: usize, j: usize, closeness: f32| {
        (GAMMA * closeness * (-beta * squared(work.rgb[i], work.rgb[j])).exp() * FIXED) as i64
    };
    for (n, &i) in pixels.iter().enumerate() {
        let (x, y) = (i % width, i / width);
        for ny in y.saturating_sub(1)..(y + 2).min(height) {
            for nx in x.saturating_sub(1)..(x + 2).min(width) {
                let j = ny * width + nx;
                if node[j] != u32::MAX && j <= i {
                    continue;
                }
                let closeness = if nx != x && ny != y { std::f32::consts::FRAC_1_SQRT_2 } else { 1.0 };
                let weight = link(i, j, closeness);
                match node[j] {
                    u32::MAX => attach(&mut flow, n, inside[j], weight),
                    other => flow.add_edge(n, other as usize, weight, weight),
                }
            }
        }
    }
    flow.solve();
    let mut out = inside.to_vec();
    for (n, &i) in pixels.iter().enumerate() {
        out[i] = flow.is_source(n);
    }
    out
}

/// Distance of every pixel from the contour of `inside`, about 4 % exact (3-4 chamfer): 1 for
/// pixels that touch the other side.
fn contour_depth(inside: &[bool], width: usize, height: usize) -> Vec<f32> {
    const SLANT: f32 = 4.0 / 3.0;
    let mut depth = vec![f32::MAX; inside.len()];
    for y in 0..height {
        for x in 0..width {
            let i = y * width + x;
            if x + 1 < width && inside[i] != inside[i + 1] {
                (depth[i], depth[i + 1]) = (1.0, 1.0);
            }
            if y + 1 < height && inside[i] != inside[i + width] {
                (depth[i], depth[i + width]) = (1.0, 1.0);
            }
        }
    }
    for y in 0..height {
        for x in 0..width {
            let i = y * width + x;
            let mut least = depth[i];
            if x > 0 {
                least = least.min(depth[i - 1] + 1.0);
            }
            if y > 0 {
                least = least.min(depth[i - width] + 1.0);
                if x > 0 {
                    least = least.min(depth[i - width - 1] + SLANT);
                }
                if x + 1 < width {
                    least = least.min(depth[i - width + 1] + SLANT);
                }
            }
            depth[i] = least;
        }
    }
    for y in (0..height).rev() {
        for x in (0..width).rev() {
            let i = y * width + x;
            let mut least = depth[i];
            if x + 1 < width {
                least = least.min(depth[i + 1] + 1.0);
            }
            if y + 1 < height {
                least = least.min(depth[i + width] + 1.0);
                if x > 0 {
                    least = least.min(depth[i + width - 1] + SLANT);
                }
                if x + 1 < width {
                    least = least.min(depth[i + width + 1] + SLANT);
                }
            }
            depth[i] = least;
        }
    }
    depth
}

/// A link to a pixel whose side is fixed is a link to that terminal.
fn attach(flow: &mut MaxFlow, node: usize, source: bool, weight: i64) {
    if source {
        flow.add_terminal(node, weight, 0);
    } else {
        flow.add_terminal(node, 0, weight);
    }
}

/// A local linear model α = a·colour + b.
type Line = [f32; 4];

/// Coverage at the size of `picture` from a decided working mask: the contour is resolved by
/// local linear models of the colours, everything else is exactly 0 or 1.
pub(super) fn soft_mask(work: &Working, inside: &[bool], picture: &Picture) -> Vec<f32> {
    let (width, height) = (work.width, work.height);
    let depth = contour_depth(inside, width, height);
    let fitted = SOFT + RADIUS as f32;
    let near: Vec<usize> = (0..work.len()).filter(|&i| depth[i] <= fitted).collect();
    let mut slot = vec![u32::MAX; work.len()];
    for (n, &i) in near.iter().enumerate() {
        slot[i] = n as u32;
    }
    let lines: Vec<Line> = near.par_iter().map(|&i| fit_line(work, inside, i)).collect();
    let band: Vec<usize> = near.iter().copied().filter(|&i| depth[i] <= SOFT).collect();
    let averaged: Vec<Line> = band.par_iter().map(|&i| average(&lines, &slot, i, width, height)).collect();
    let mut band_slot = vec![u32::MAX; work.len()];
    for (n, &i) in band.iter().enumerate() {
        band_slot[i] = n as u32;
    }
    let line_at = |i: usize| match band_slot[i] {
        u32::MAX => [0.0, 0.0, 0.0, f32::from(u8::from(inside[i]))],
        n => averaged[n as usize],
    };
    let (full_width, full_height) = (picture.width() as usize, picture.height() as usize);
    let (sx, sy) = (width as f32 / full_width as f32, height as f32 / full_height as f32);
    let mut alpha = vec![0.0f32; full_width * full_height];
    alpha.par_chunks_mut(full_width).enumerate().for_each(|(y, row)| {
        let fy = ((y as f32 + 0.5) * sy - 0.5).clamp(0.0, (height - 1) as f32);
        let (y0, ty) = (fy as usize, fy.fract());
        let y1 = (y0 + 1).min(height - 1);
        let band_at = |r: usize, x: usize| band_slot[r * width + x] != u32::MAX;
        let soft: Vec<bool> = (0..width)
            .map(|x| [y0, y1].iter().any(|&r| band_at(r, x) || band_at(r, (x + 1).min(width - 1))))
            .collect();
        for (x, out) in row.iter_mut().enumerate() {
            let fx = ((x as f32 + 0.5) * sx - 0.5).clamp(0.0, (width - 1) as f32);
            let (x0, tx) = (fx as usize, fx.fract());
            if !soft[x0] {
                *out = f32::from(u8::from(inside[y0 * width + x0]));
                continue;
            }
            let x1 = (x0 + 1).min(width - 1);
            let corners = [y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1];
            let weights = [(1.0 - ty) * (1.0 - tx), (1.0 - ty) * tx, ty * (1.0 - tx), ty * tx];
            let mut line = [0.0f32; 4];
            for (corner, weight) in corners.into_iter().zip(weights) {
                for (l, v) in line.iter_mut().zip(line_at(corner)) {
                    *l += weight * v;
                }
            }
            let p = 3 * (y * full_width + x);
            let c = &picture.rgb()[p..p + 3];
            let value = line[3] + (0..3).map(|k| line[k] * f32::from(c[k]) / 255.0).sum::<f32>();
            // The window blurs the step; the slope gives the contour its sharpness back.
            let t = ((value - 0.5) * 1.7 + 0.5).clamp(0.0, 1.0);
            *out = t * t * (3.0 - 2.0 * t);
        }
    });
    alpha
}

/// Ridge regression of the mask on the colours in the window around `i`.
fn fit_line(work: &Working, inside: &[bool], i: usize) -> Line {
    let (width, height) = (work.width, work.height);
    let (x, y) = (i % width, i / width);
    let (mut n, mut m, mut s, mut sm) = (0.0f64, [0.0f64; 3], 0.0f64, [0.0f64; 3]);
    let mut c = [0.0f64; 6];
    for ny in y.saturating_sub(RADIUS)..(y + RADIUS + 1).min(height) {
        for j in ny * width + x.saturating_sub(RADIUS)..ny * width + (x + RADIUS + 1).min(width) {
            let p = work.rgb[j].map(|v| f64::from(v) / 255.0);
            n += 1.0;
            for k in 0..3 {
                m[k] += p[k];
            }
            for (total, v) in c.iter_mut().zip([
                p[0] * p[0],
                p[0] * p[1],
                p[0] * p[2],
                p[1] * p[1],
                p[1] * p[2],
                p[2] * p[2],
            ]) {
                *total += v;
            }
            if inside[j] {
                s += 1.0;
                for k in 0..3 {
                    sm[k] += p[k];
                }
            }
        }
    }
    let m = m.map(|v| v / n);
    let s = s / n;
    let v: [f64; 3] = std::array::from_fn(|k| sm[k] / n - m[k] * s);
    let a = c[0] / n - m[0] * m[0] + EPSILON;
    let b = c[1] / n - m[0] * m[1];
    let d = c[2] / n - m[0] * m[2];
    let e = c[3] / n - m[1] * m[1] + EPSILON;
    let f = c[4] / n - m[1] * m[2];
    let g = c[5] / n - m[2] * m[2] + EPSILON;
    let inverse = [e * g - f * f, d * f - b * g, b * f - d * e, a * g - d * d, b * d - a * f, a * e - b * b];
    let determinant = a * inverse[0] + b * inverse[1] + d * inverse[2];
    let slope = [
        inverse[0] * v[0] + inverse[1] * v[1] + inverse[2] * v[2],
        inverse[1] * v[0] + inverse[3] * v[1] + inverse[4] * v[2],
        inverse[2] * v[0] + inverse[4] * v[1] + inverse[5] * v[2],
    ]
    .map(|t| t / determinant);
    let offset = s - slope[0] * m[0] - slope[1] * m[1] - slope[2] * m[2];
    [slope[0] as f32, slope[1] as f32, slope[2] as f32, offset as f32]
}

fn average(lines: &[Line], slot: &[u32], i: usize, width: usize, height: usize) -> Line {
    let (x, y) = (i % width, i / width);
    let (mut sum, mut n) = ([0.0f32; 4], 0.0f32);
    for ny in y.saturating_sub(RADIUS)..(y + RADIUS + 1).min(height) {
        for j in ny * width + x.saturating_sub(RADIUS)..ny * width + (x + RADIUS + 1).min(width) {
            if slot[j] != u32::MAX {
                for (s, v) in sum.iter_mut().zip(lines[slot[j] as usize]) {
                    *s += v;
                }
                n += 1.0;
            }
        }
    }
    sum.map(|s| s / n.max(1.0))
}
