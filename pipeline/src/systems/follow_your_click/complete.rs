//! Texture for the painted background.
//!
//! The plate network knows what colours belong behind a thing but paints them softly. Here the
//! hole is filled again from patches of the photograph itself, coarse to fine, so that grass,
//! wood and foliage continue in their own texture; the plate says what to look for.
//!
//! Patches are matched as in Barnes et al., "PatchMatch" (2009), with all pixels updated at once
//! from their neighbours' last answers, which makes the result the same for any number of threads;
//! the picture is formed as in Wexler, Shechtman and Irani, "Space-Time Completion of Video"
//! (2007): every pixel is voted for by all patches that cover it.

use crate::media::Raster;

/// Patches are squares of `2 · RADIUS + 1` pixels.
const RADIUS: isize = 3;

/// Longer side of the coarsest level in pixels: a patch there spans a seventh of the picture.
const COARSEST: usize = 48;

/// Rounds of matching and voting on a level, and matching passes in a round. The coarsest level
/// decides what goes where; finer ones refine.
const ROUNDS: [usize; 2] = [8, 3];
const PASSES: usize = 4;

/// Squared distance, per patch, at which a vote counts `1/e`; relative to the patch's own best.
const VOTE_SCALE: f32 = 0.15;

/// Where each pixel's patch finds its like, and how unlike it still is.
#[derive(Debug, Clone, Copy)]
struct Match {
    x: i32,
    y: i32,
    cost: f32,
}

/// Fills `hole` (1 inside) of `photo` with the photograph's own texture, led by `painted`.
///
/// All rasters have one size; `photo` and `painted` three channels in -1..=1, `hole` one. Outside
/// the hole the result is the photograph. Where the photograph has no whole patch outside the
/// hole, `painted` is returned unchanged.
pub(super) fn complete(photo: &Raster, hole: &Raster, painted: &Raster) -> Raster {
    let mut levels = vec![Level::finest(photo, hole, painted)];
    while let Some(level) = levels.last()
        && level.width().max(level.height()) > 2 * COARSEST
    {
        levels.push(level.halved());
    }
    // A level whose hole leaves no patch to copy from is no use; finer ones may still have some.
    let mut matches: Option<(Vec<Match>, usize, usize)> = None;
    let mut filled: Option<Raster> = None;
    for (depth, level) in levels.iter().enumerate().rev() {
        let sources = level.sources();
        if sources.is_empty() {
            continue;
        }
        let first = filled.is_none();
        let mut picture = level.photo.clone();
        level.keep_known(&mut picture, &level.painted);
        let mut field = level.begin(&sources, matches.as_ref(), &picture);
        if !first {
            level.vote(&field, &mut picture);
        }
        for round in 0..ROUNDS[usize::from(!first)] {
            for pass in 0..PASSES {
                field =
                    level.improve(&field, &picture, &sources, (depth * 64 + round * PASSES + pass) as u64);
            }
            level.vote(&field, &mut picture);
        }
        matches = Some((field, level.width(), level.height()));
        filled = Some(picture);
    }
    match filled {
        Some(picture) if (picture.width, picture.height) == (photo.width, photo.height) => picture,
        _ => painted.clone(),
    }
}

/// One level of the pyramid.
struct Level {
    photo: Raster,
    painted: Raster,
    /// Pixels to fill.
    hole: Vec<bool>,
    /// Pixels whose patch touches the hole: those that look for a match.
    wanting: Vec<bool>,
    /// Pixels whose patch lies inside the picture and outside the hole.
    whole: Vec<bool>,
}

impl Level {
    fn finest(photo: &Raster, hole: &Raster, painted: &Raster) -> Self {
        Self::new(photo.clone(), painted.clone(), hole.data.iter().map(|&h| h > 0.0).collect())
    }

    fn new(photo: Raster, painted: Raster, hole: Vec<bool>) -> Self {
        let (w, h) = (photo.width, photo.height);
        let mask = Raster {
            width: w,
            height: h,
            channels: 1,
            data: hole.iter().map(|&inside| f32::from(u8::from(inside))).collect(),
        };
        let touched = mask.dilated(RADIUS as usize);
        let wanting: Vec<bool> = touched.data.iter().map(|&t| t > 0.0).collect();
        let r = RADIUS as usize;
        let whole = (0..w * h)
            .map(|at| {
                let (x, y) = (at % w, at / w);
                !wanting[at] && x >= r && y >= r && x + r < w && y + r < h
            })
            .collect();
        Self { photo, painted, hole, wanting, whole }
    }

    fn width(&self) -> usize {
        self.photo.width
    }

    fn height(&self) -> usize {
        self.photo.height
    }

    /// Half the size; known pixels are averaged without the hole, which grows to cover any doubt.
    fn halved(&self) -> Self {
        let (w, h) = (self.width().div_ceil(2), self.height().div_ceil(2));
        let mut photo = Raster::zeros(w, h, 3);
        let mut painted = Raster::zeros(w, h, 3);
        let mut hole = vec![false; w * h];
        for y in 0..h {
            for x in 0..w {
                let at = y * w + x;
                for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                    let px = (2 * x + dx).min(self.width() - 1);
                    let py = (2 * y + dy).min(self.height() - 1);
                    let from = py * self.width() + px;
                    hole[at] |= self.hole[from];
                    for c in 0..3 {
                        photo.data[3 * at + c] += 0.25 * self.photo.data[3 * from + c];
                        painted.data[3 * at + c] += 0.25 * self.painted.data[3 * from + c];
                    }
                }
            }
        }
        Self::new(photo, painted, hole)
    }

    /// Pixels a patch may be copied from.
    fn sources(&self) -> Vec<(i32, i32)> {
        let w = self.width();
        (0..self.whole.len())
            .filter(|&at| self.whole[at])
            .map(|at| ((at % w) as i32, (at / w) as i32))
            .collect()
    }

    /// Puts `inside` into the hole of `picture`.
    fn keep_known(&self, picture: &mut Raster, inside: &Raster) {
        for (at, _) in self.hole.iter().enumerate().filter(|(_, hole)| **hole) {
            picture.data[3 * at..3 * at + 3].copy_from_slice(&inside.data[3 * at..3 * at + 3]);
        }
    }

    fn is_whole(&self, x: i32, y: i32) -> bool {
        x >= 0
            && y >= 0
            && (x as usize) < self.width()
            && (y as usize) < self.height()
            && self.whole[y as usize * self.width() + x as usize]
    }

    /// Squared difference of two patches, given up at `limit`. The picture's edge is held.
    fn cost(&self, picture: &Raster, x: i32, y: i32, sx: i32, sy: i32, limit: f32) -> f32 {
        let (w, h) = (self.width() as isize, self.height() as isize);
        let mut sum = 0.0;
        for dy in -RADIUS..=RADIUS {
            let ty = (y as isize + dy).clamp(0, h - 1) as usize;
            let source = ((sy as isize + dy) as usize * self.width() + (sx as isize - RADIUS) as usize) * 3;
            let line = &self.photo.data[source..source + 3 * (2 * RADIUS as usize + 1)];
            if x as isize >= RADIUS && (x as isize) + RADIUS < w {
                let target = (ty * self.width() + (x as isize - RADIUS) as usize) * 3;
                let other = &picture.data[target..target + line.len()];
                sum += line.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
            } else {
                for (i, pixel) in line.chunks_exact(3).enumerate() {
                    let tx = (x as isize - RADIUS + i as isize).clamp(0, w - 1) as usize;
                    let other = &picture.data[(ty * self.width() + tx) * 3..][..3];
                    sum += pixel.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
                }
            }
            if sum >= limit {
                return limit;
            }
        }
        sum
    }

    /// First answers: the coarser level's, doubled, or sources drawn at random.
    fn begin(
        &self,
        sources: &[(i32, i32)],
        coarser: Option<&(Vec<Match>, usize, usize)>,
        picture: &Raster,
    ) -> Vec<Match> {
        let w = self.width();
        let mut field = vec![Match { x: -1, y: -1, cost: f32::INFINITY }; self.whole.len()];
        for (at, slot) in field.iter_mut().enumerate().filter(|(at, _)| self.wanting[*at]) {
            let (x, y) = (at % w, at / w);
            let carried = coarser.and_then(|(old, ow, oh)| {
                let found = old.get((y / 2).min(oh - 1) * ow + (x / 2).min(ow - 1))?;
                let at = (2 * found.x + (x % 2) as i32, 2 * found.y + (y % 2) as i32);
                (found.x >= 0 && self.is_whole(at.0, at.1)).then_some(at)
            });
            let (sx, sy) =
                carried.unwrap_or_else(|| sources[(hash(at as u64, 0x5eed) % sources.len() as u64) as usize]);
            let cost = self.cost(picture, x as i32, y as i32, sx, sy, f32::INFINITY);
            *slot = Match { x: sx, y: sy, cost };
        }
        field
    }

    /// One pass: every pixel tries what its neighbours found and draws around its best.
    fn improve(&self, field: &[Match], picture: &Raster, sources: &[(i32, i32)], pass: u64) -> Vec<Match> {
        use rayon::prelude::*;
        let (w, h) = (self.width() as i32, self.height() as i32);
        // Far neighbours first: answers travel quickly, then settle.
        let reach = [8, 4, 2, 1][pass as usize % PASSES];
        let mut next = field.to_vec();
        next.par_chunks_mut(self.width()).enumerate().for_each(|(row, line)| {
            for (column, slot) in line.iter_mut().enumerate() {
                let at = row * self.width() + column;
                if !self.wanting[at] {
                    continue;
                }
                let (x, y) = (column as i32, row as i32);
                let mut best = *slot;
                best.cost = self.cost(picture, x, y, best.x, best.y, f32::INFINITY);
                let consider = |best: &mut Match, sx: i32, sy: i32| {
                    if self.is_whole(sx, sy) && (sx, sy) != (best.x, best.y) {
                        let cost = self.cost(picture, x, y, sx, sy, best.cost);
                        if cost < best.cost {
                            *best = Match { x: sx, y: sy, cost };
                        }
                    }
                };
                for (dx, dy) in [(-1, 0), (1, 0), (0, -1), (0, 1)] {
                    let (nx, ny) = (x + dx * reach, y + dy * reach);
                    if nx < 0 || ny < 0 || nx >= w || ny >= h {
                        continue;
                    }
                    let near = field[(ny * w + nx) as usize];
                    if near.x >= 0 {
                        consider(&mut best, near.x - dx * reach, near.y - dy * reach);
                    }
                }
                let mut radius = w.max(h);
                let mut draw = hash(at as u64, pass);
                while radius >= 1 {
                    draw = hash(draw, pass);
                    let span = (2 * radius + 1) as u64;
                    let dx = (draw % span) as i32 - radius;
                    let dy = ((draw >> 32) % span) as i32 - radius;
                    let (sx, sy) = (best.x + dx, best.y + dy);
                    consider(&mut best, sx, sy);
                    radius /= 2;
                }
                // In a picture that is mostly hole, windows rarely hit a source.
                let (sx, sy) = sources[(hash(draw, 1) % sources.len() as u64) as usize];
                consider(&mut best, sx, sy);
                *slot = best;
            }
        });
        next
    }

    /// Forms the hole's pixels from the patches that cover them; good matches count more.
    fn vote(&self, field: &[Match], picture: &mut Raster) {
        let (w, h) = (self.width() as i32, self.height() as i32);
        picture.par_rows(|row, line| {
            let y = row as i32;
            for (column, pixel) in line.chunks_exact_mut(3).enumerate() {
                if !self.hole[row * self.width() + column] {
                    continue;
                }
                let x = column as i32;
                let r = RADIUS as i32;
                let covering = || {
                    (-r..=r).flat_map(move |dy| (-r..=r).map(move |dx| (dx, dy))).filter_map(|(dx, dy)| {
                        let (px, py) = (x + dx, y + dy);
                        if px < 0 || py < 0 || px >= w || py >= h {
                            return None;
                        }
                        let found = field[(py * w + px) as usize];
                        (found.x >= 0).then_some((found, dx, dy))
                    })
                };
                let least = covering().fold(f32::INFINITY, |m, (found, ..)| m.min(found.cost));
                let scale = 1.0 / (2.0 * least + VOTE_SCALE);
                let mut sum = [0.0f32; 3];
                let mut total = 0.0f32;
                for (found, dx, dy) in covering() {
                    let weight = (-(found.cost - least) * scale).exp();
                    let at = ((found.y - dy) * w + found.x - dx) as usize * 3;
                    for c in 0..3 {
                        sum[c] += weight * self.photo.data[at + c];
                    }
                    total += weight;
                }
                if total > 0.0 {
                    for c in 0..3 {
                        pixel[c] = sum[c] / total;
                    }
                }
            }
        });
    }
}

/// SplitMix64's finaliser (Steele, Lea and Flood, 2014) over a pair.
fn hash(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(b.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stripes with a period of 6 pixels.
    fn stripes(width: usize, height: usize) -> Raster {
        let mut out = Raster::zeros(width, height, 3);
        out.par_rows(|_, row| {
            row.iter_mut().enumerate().for_each(|(i, v)| *v = if (i / 3) % 6 < 3 { 0.7 } else { -0.7 })
        });
        out
    }

    fn square(width: usize, height: usize, from: usize, to: usize) -> Raster {
        let mut hole = Raster::zeros(width, height, 1);
        hole.par_rows(|y, row| {
            row.iter_mut().enumerate().for_each(|(x, v)| {
                *v = f32::from(u8::from((from..to).contains(&x) && (from..to).contains(&y)))
            })
        });
        hole
    }

    #[test]
    fn a_pattern_continues_through_the_hole() {
        let truth = stripes(96, 72);
        let hole = square(96, 72, 24, 48);
        let grey = Raster { data: vec![0.0; truth.data.len()], ..truth.clone() };
        let mut holed = truth.clone();
        let mut painted = truth.clone();
        for (at, _) in hole.data.iter().enumerate().filter(|(_, h)| **h > 0.0) {
            holed.data[3 * at..3 * at + 3].fill(1.0);
            painted.data[3 * at..3 * at + 3].copy_from_slice(&grey.data[3 * at..3 * at + 3]);
        }
        let filled = complete(&holed, &hole, &painted);
        let (mut error, mut count) = (0.0, 0);
        for (at, _) in hole.data.iter().enumerate().filter(|(_, h)| **h > 0.0) {
            error += (filled.data[3 * at] - truth.data[3 * at]).abs();
            count += 1;
        }
        assert!(error / (count as f32) < 0.1, "mean error {}", error / count as f32);
    }

    #[test]
    fn outside_the_hole_nothing_changes_and_threads_do_not_matter() {
        let photo = stripes(80, 60);
        let hole = square(80, 60, 20, 40);
        let painted = Raster { data: vec![0.1; photo.data.len()], ..photo.clone() };
        let filled = complete(&photo, &hole, &painted);
        for (at, &inside) in hole.data.iter().enumerate() {
            if inside == 0.0 {
                assert_eq!(filled.data[3 * at..3 * at + 3], photo.data[3 * at..3 * at + 3]);
            }
        }
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one.install(|| complete(&photo, &hole, &painted)).data, filled.data);
    }

    #[test]
    fn a_picture_that_is_all_hole_keeps_the_paint() {
        let photo = stripes(40, 40);
        let hole = Raster { width: 40, height: 40, channels: 1, data: vec![1.0; 1600] };
        let painted = Raster { data: vec![0.3; photo.data.len()], ..photo.clone() };
        assert_eq!(complete(&photo, &hole, &painted).data, painted.data);
    }
}
