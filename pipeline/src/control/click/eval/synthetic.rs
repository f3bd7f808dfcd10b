//! Textured shapes on textured ground, with the truth they were drawn from.

use crate::control::click::lab::rgb_from_lab;
use crate::control::mask::distance_to;
use crate::media::Picture;

/// Colour gaps between shape and ground in ΔE.
pub(super) const GAPS: [f32; 4] = [5.0, 10.0, 20.0, 40.0];
const WIDTH: usize = 320;
const HEIGHT: usize = 240;

/// A picture and which of its pixels are the thing.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The picture, 320×240.
    pub picture: Picture,
    /// Row-major truth.
    pub truth: Vec<bool>,
    /// ΔE between thing and ground.
    pub gap: f32,
}

impl Scene {
    pub(super) fn width(&self) -> usize {
        WIDTH
    }

    pub(super) fn height(&self) -> usize {
        HEIGHT
    }

    /// Bounds of the truth with a margin of 5 % of the picture, ends exclusive.
    pub(super) fn loose_box(&self) -> [usize; 4] {
        let (mut low, mut high) = ([WIDTH, HEIGHT], [0, 0]);
        for i in (0..self.truth.len()).filter(|&i| self.truth[i]) {
            let at = [i % WIDTH, i / WIDTH];
            for k in 0..2 {
                low[k] = low[k].min(at[k]);
                high[k] = high[k].max(at[k] + 1);
            }
        }
        [
            low[0].saturating_sub(16),
            low[1].saturating_sub(12),
            (high[0] + 16).min(WIDTH),
            (high[1] + 12).min(HEIGHT),
        ]
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }

    fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    fn normal(&mut self) -> f32 {
        (-2.0 * self.unit().max(1e-7).ln()).sqrt() * (std::f32::consts::TAU * self.unit()).cos()
    }
}

/// Picture number `index` of the set; always the same. Gap, noise and softness cycle with the
/// index, shape and colours are drawn.
pub fn scene(index: usize) -> Scene {
    let mut random = Random((index as u64 + 1).wrapping_mul(0x5851_f42d_4c95_7f2d));
    let gap = GAPS[index % 4];
    let noise = [0.0, 4.0, 8.0][index / 4 % 3];
    let soft = random.range(0.0, 3.0);
    let truth = shape(&mut random, index / 12 % 4);
    let distractor = (random.unit() < 0.3).then(|| distractor(&mut random, &truth)).flatten();
    let (ground, thing) = colours(&mut random, gap);
    let (rough, smooth) = (texture(&mut random), texture(&mut random));
    let own = coverage(&truth, soft);
    let other = distractor.map(|d| coverage(&d, soft));
    let mut rgb = Vec::with_capacity(3 * truth.len());
    for i in 0..truth.len() {
        let share = own[i].max(other.as_ref().map_or(0.0, |o| o[i]));
        let mixed: [f32; 3] = std::array::from_fn(|k| {
            let (g, t) = (
                ground[k] + if k == 0 { rough[i] } else { 0.0 },
                thing[k] + if k == 0 { smooth[i] } else { 0.0 },
            );
            g + share * (t - g)
        });
        for v in rgb_from_lab(mixed) {
            rgb.push((v + noise * random.normal()).round().clamp(0.0, 255.0) as u8);
        }
    }
    match Picture::new(WIDTH as u32, HEIGHT as u32, rgb) {
        Ok(picture) => Scene { picture, truth, gap },
        Err(_) => unreachable!("the buffer has the size it was made for"),
    }
}

/// Two colours inside sRGB exactly `gap` apart.
fn colours(random: &mut Random, gap: f32) -> ([f32; 3], [f32; 3]) {
    let fits = |lab: [f32; 3]| rgb_from_lab(lab).iter().all(|v| (12.0..=243.0).contains(v));
    loop {
        let ground = [random.range(25.0, 80.0), random.range(-35.0, 35.0), random.range(-35.0, 35.0)];
        let way = [random.normal(), random.normal(), random.normal()];
        let long = way.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-3);
        let thing: [f32; 3] = std::array::from_fn(|k| ground[k] + gap * way[k] / long);
        if fits(ground) && fits(thing) {
            return (ground, thing);
        }
    }
}

/// Lightness variation: two octaves of value noise and sometimes stripes, at most about ±5.
fn texture(random: &mut Random) -> Vec<f32> {
    let mut out = vec![0.0f32; WIDTH * HEIGHT];
    for (cell, strength) in [(random.range(20.0, 60.0), 2.5), (random.range(4.0, 10.0), 1.5)] {
        let columns = (WIDTH as f32 / cell) as usize + 2;
        let grid: Vec<f32> =
            (0..columns * ((HEIGHT as f32 / cell) as usize + 2)).map(|_| random.range(-1.0, 1.0)).collect();
        for (i, v) in out.iter_mut().enumerate() {
            let (fx, fy) = ((i % WIDTH) as f32 / cell, (i / WIDTH) as f32 / cell);
            let (x, y, tx, ty) = (fx as usize, fy as usize, fx.fract(), fy.fract());
            let at = |x: usize, y: usize| grid[y * columns + x];
            let top = at(x, y) + tx * (at(x + 1, y) - at(x, y));
            let low = at(x, y + 1) + tx * (at(x + 1, y + 1) - at(x, y + 1));
            *v += strength * (top + ty * (low - top));
        }
    }
    if random.unit() < 0.3 {
        let (turn, wave) = (random.range(0.0, std::f32::consts::TAU), random.range(6.0, 16.0));
        for (i, v) in out.iter_mut().enumerate() {
            let along = (i % WIDTH) as f32 * turn.cos() + (i / WIDTH) as f32 * turn.sin();
            *v += 2.0 * (along * std::f32::consts::TAU / wave).sin();
        }
    }
    out
}

/// Blob, star polygon, letter or ring.
fn shape(random: &mut Random, kind: usize) -> Vec<bool> {
    let centre = [random.range(0.35, 0.65) * WIDTH as f32, random.range(0.38, 0.62) * HEIGHT as f32];
    let size = random.range(38.0, 75.0);
    let turn = random.range(0.0, std::f32::consts::TAU);
    let waves: Vec<[f32; 2]> = (2..6)
        .map(|k| [random.range(0.0, 0.3) / k as f32 * 2.0, random.range(0.0, std::f32::consts::TAU)])
        .collect();
    let corners: Vec<f32> =
        (0..(5 + (random.unit() * 5.0) as usize)).map(|_| random.range(0.45, 1.1)).collect();
    let (flat, hole, letter) =
        (random.range(0.55, 1.0), random.range(0.3, 0.55), (random.unit() * 4.0) as usize);
    let inside = |x: f32, y: f32| -> bool {
        let (dx, dy) = (x - centre[0], y - centre[1]);
        let (u, v) = ((dx * turn.cos() + dy * turn.sin()) / size, (dy * turn.cos() - dx * turn.sin()) / size);
        let (radius, angle) = (u.hypot(v), v.atan2(u) + std::f32::consts::PI);
        match kind {
            0 => {
                radius
                    < 0.8
                        + waves
                            .iter()
                            .zip(2..)
                            .map(|(w, k)| w[0] * (k as f32 * angle + w[1]).sin())
                            .sum::<f32>()
            }
            1 => {
                let at = angle / std::f32::consts::TAU * corners.len() as f32;
                let k = at as usize;
                let (a, b) = (corners[k % corners.len()], corners[(k + 1) % corners.len()]);
                radius < a + at.fract() * (b - a)
            }
            2 => {
                let bar = |x0: f32, x1: f32, y0: f32, y1: f32| (x0..x1).contains(&u) && (y0..y1).contains(&v);
                match letter {
                    0 => bar(-0.8, 0.8, -0.9, -0.45) || bar(-0.25, 0.25, -0.5, 0.9),
                    1 => bar(-0.8, -0.3, -0.9, 0.9) || bar(-0.4, 0.8, 0.4, 0.9),
                    2 => {
                        bar(-0.8, -0.35, -0.9, 0.9)
                            || bar(0.35, 0.8, -0.9, 0.9)
                            || bar(-0.4, 0.4, -0.22, 0.22)
                    }
                    _ => bar(-0.9, 0.9, -0.25, 0.25) || bar(-0.25, 0.25, -0.9, 0.9),
                }
            }
            _ => {
                let (a, b) = (u, v / flat);
                a.hypot(b) < 1.0 && a.hypot(b) > hole
            }
        }
    };
    (0..WIDTH * HEIGHT).map(|i| inside((i % WIDTH) as f32 + 0.5, (i / WIDTH) as f32 + 0.5)).collect()
}

/// A disc of the thing's colour elsewhere, at least 8 px away from it; `None` when there is no room.
fn distractor(random: &mut Random, truth: &[bool]) -> Option<Vec<bool>> {
    let room = distance_to(truth, WIDTH, HEIGHT);
    for _ in 0..40 {
        let (x, y, radius) =
            (random.range(0.0, WIDTH as f32), random.range(0.0, HEIGHT as f32), random.range(10.0, 26.0));
        if room[y as usize * WIDTH + x as usize] > radius + 8.0 {
            return Some(
                (0..truth.len())
                    .map(|i| ((i % WIDTH) as f32 - x).hypot((i / WIDTH) as f32 - y) < radius)
                    .collect(),
            );
        }
    }
    None
}

/// Share of the shape in each pixel with an edge `soft` pixels wide.
fn coverage(set: &[bool], soft: f32) -> Vec<f32> {
    let to_inside = distance_to(set, WIDTH, HEIGHT);
    let outside: Vec<bool> = set.iter().map(|&v| !v).collect();
    let to_outside = distance_to(&outside, WIDTH, HEIGHT);
    (0..set.len())
        .map(|i| {
            let depth = if set[i] { to_outside[i] - 0.5 } else { 0.5 - to_inside[i] };
            (0.5 + depth / soft.max(1.0)).clamp(0.0, 1.0)
        })
        .collect()
}
