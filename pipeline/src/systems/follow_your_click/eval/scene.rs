//! Procedural clips with exact truth over real photographs.

use crate::media::{Picture, Raster};
use crate::systems::follow_your_click::guide::View;
use crate::systems::follow_your_click::motions::{Geometry, Kind, Truth};

/// Side of the square clips in pixels.
pub const SIDE: usize = 256;

/// A textured thing before a background, how it is asked to move, and the truth of that.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it is asked to do.
    pub kind: Kind,
    /// How far, 0..=1.
    pub magnitude: f64,
    /// The words.
    pub prompt: String,
    /// Whether the words were never used in training.
    pub held_out: bool,
    /// Coverage of the thing in frame 0.
    pub mask: Raster,
    /// Where the mask is and how large.
    pub geometry: Geometry,
    background: Raster,
    texture: Raster,
}

/// Uniform numbers for scenes; the stream is part of what an evaluation *is*, so it is fixed here.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def0)
    }

    /// 0..1. SplitMix64 (Steele, Lea and Flood, 2014).
    pub(super) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        ((self.unit() * n as f64) as usize).min(n.saturating_sub(1))
    }
}

impl Case {
    /// Draws a scene from two photographs; `None` when the mask came out empty.
    pub(super) fn draw(
        dice: &mut Dice,
        photos: &[Picture],
        kind: Kind,
        magnitude: f64,
        prompt: String,
        held_out: bool,
    ) -> Option<Self> {
        let first = dice.below(photos.len());
        // Another photograph where there is one.
        let second = (first + 1 + dice.below(photos.len().saturating_sub(1).max(1))) % photos.len();
        let background = crop(dice, photos.get(first)?);
        let texture = crop(dice, photos.get(second)?);
        let mask = blob(dice);
        let geometry = Geometry::of(&mask)?;
        Some(Self { kind, magnitude, prompt, held_out, mask, geometry, background, texture })
    }

    /// What the model is given.
    pub fn photo(&self) -> Raster {
        self.frame(Kind::Still, 0.0, 0.0).0
    }

    /// The picture and the coverage when the thing does `kind` with `magnitude` at `phase`.
    pub fn frame(&self, kind: Kind, magnitude: f64, phase: f64) -> (Raster, Raster) {
        let truth = Truth::new(kind, self.geometry, magnitude, phase);
        self.shifted(|point| truth.at(point), kind.is_gated())
    }

    /// The picture when the thing has moved by `pixels` without anything else.
    pub(super) fn translated(&self, pixels: [f64; 2]) -> Raster {
        let unit = SIDE as f64 / 2.0;
        self.shifted(|_| [-pixels[0] / unit, -pixels[1] / unit], false).0
    }

    fn shifted(&self, displacement: impl Fn([f64; 2]) -> [f64; 2] + Sync, gated: bool) -> (Raster, Raster) {
        let view = View::of(SIDE, SIDE);
        let mut packed = Raster::zeros(SIDE, SIDE, 4);
        packed.par_rows(|row, numbers| {
            for (column, out) in numbers.chunks_exact_mut(4).enumerate() {
                let point = view.point(column, row);
                let [dx, dy] = displacement(point.map(f64::from));
                let [x, y] = view.pixel([point[0] + dx as f32, point[1] + dy as f32]);
                let at = row * SIDE + column;
                let alpha = if gated { self.mask.data[at] } else { self.mask.bilinear_zero(x, y) };
                let mut colour = [0.0f32; 3];
                if alpha > 0.0 {
                    self.texture.bilinear(x, y, &mut colour);
                }
                for c in 0..3 {
                    out[c] = alpha * colour[c] + (1.0 - alpha) * self.background.data[3 * at + c];
                }
                out[3] = alpha;
            }
        });
        let pick = |range: std::ops::Range<usize>| Raster {
            width: SIDE,
            height: SIDE,
            channels: range.len(),
            data: packed.data.chunks_exact(4).flat_map(|p| p[range.clone()].iter().copied()).collect(),
        };
        (pick(0..3), pick(3..4))
    }
}

/// A random square of a photograph, 55–100 % of its shorter side, brought to [`SIDE`] by averaging.
fn crop(dice: &mut Dice, photo: &Picture) -> Raster {
    let (w, h) = (photo.width() as usize, photo.height() as usize);
    let side = (w.min(h) as f64 * dice.between(0.55, 1.0)).max(1.0);
    let left = dice.unit() * (w as f64 - side);
    let top = dice.unit() * (h as f64 - side);
    let source = Raster::from_picture(photo);
    let step = side / SIDE as f64;
    // At least as many readings a pixel as the source has pixels there.
    let taps = step.ceil().clamp(1.0, 16.0) as usize;
    let mut out = Raster::zeros(SIDE, SIDE, 3);
    out.par_rows(|row, numbers| {
        for (column, pixel) in numbers.chunks_exact_mut(3).enumerate() {
            let mut sum = [0.0f32; 3];
            let mut reading = [0.0f32; 3];
            for j in 0..taps {
                for i in 0..taps {
                    let x = left + step * (column as f64 + (i as f64 + 0.5) / taps as f64) - 0.5;
                    let y = top + step * (row as f64 + (j as f64 + 0.5) / taps as f64) - 0.5;
                    source.bilinear(x as f32, y as f32, &mut reading);
                    for c in 0..3 {
                        sum[c] += reading[c];
                    }
                }
            }
            for c in 0..3 {
                pixel[c] = sum[c] / (taps * taps) as f32;
            }
        }
    });
    out
}

/// A star-shaped outline: an ellipse whose radius has four harmonics, with a soft edge of a pixel.
fn blob(dice: &mut Dice) -> Raster {
    let centre = [dice.between(-0.4, 0.4), dice.between(-0.4, 0.4)];
    let radius = dice.between(0.2, 0.38);
    let stretch = dice.between(0.75, 1.35);
    let harmonics: Vec<(f64, f64)> = (2..6)
        .map(|k| (dice.between(0.0, 0.3) / f64::from(k), dice.between(0.0, std::f64::consts::TAU)))
        .collect();
    let view = View::of(SIDE, SIDE);
    let mut mask = Raster::zeros(SIDE, SIDE, 1);
    mask.par_rows(|row, numbers| {
        for (column, out) in numbers.iter_mut().enumerate() {
            let [x, y] = view.point(column, row).map(f64::from);
            let (x, y) = ((x - centre[0]) / stretch, (y - centre[1]) * stretch);
            let angle = y.atan2(x);
            let edge: f64 = harmonics
                .iter()
                .enumerate()
                .map(|(i, (a, p))| a * ((i as f64 + 2.0) * angle + p).cos())
                .sum();
            let distance = (radius * (1.0 + edge) - x.hypot(y)) * SIDE as f64 / 2.0;
            *out = (distance + 0.5).clamp(0.0, 1.0) as f32;
        }
    });
    mask
}
