//! Reading a clip: what moved, how far, and how close to the truth the pixels are.

use std::ops::RangeInclusive;

use rayon::prelude::*;

use super::scene::{Case, SIDE};
use crate::media::Raster;
use crate::systems::follow_your_click::motions::{KINDS, Kind};

/// Frames of sixteen that are looked at: every periodic kind is away from rest in several of them.
pub(super) const FRAMES: [usize; 5] = [2, 4, 7, 11, 15];

/// The motion that explains a clip best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// The kind with the least photometric error at the requested magnitude.
    pub kind: Kind,
    /// The multiple of the requested magnitude, along the requested kind's own path, with the
    /// least photometric error: 1 is right, 0 is no motion, negative is the opposite.
    pub factor: f64,
}

/// Everything measured on one case. Decibels are PSNR over 8-bit sRGB, pooled over the frames
/// looked at; `None` where the region is empty.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CaseResult {
    /// Requested motion.
    pub kind: String,
    /// Requested magnitude.
    pub magnitude: f64,
    /// The words.
    pub prompt: String,
    /// Whether the words were never used in training.
    pub held_out: bool,
    /// What the model said it understood.
    pub understood: String,
    /// The kind that explains the clip best.
    pub measured_kind: String,
    /// Measured over requested displacement; absent for `still`.
    pub factor: Option<f64>,
    /// Displacement in pixels of 256; only for `still`.
    pub still_px: Option<f64>,
    /// Frame 0 of the product against the input.
    pub frame0_db: f64,
    /// The autoencoder alone on the input.
    pub autoencoder_input_db: f64,
    /// Decoded clip against truth outside the swept region.
    pub outside_db: Option<f64>,
    /// The autoencoder alone on the true frames, there.
    pub outside_autoencoder_db: Option<f64>,
    /// Decoded clip against truth inside the moved thing.
    pub inside_db: Option<f64>,
    /// The pure warp through the autoencoder, there.
    pub inside_warp_db: Option<f64>,
    /// The product's frames (with the photograph's detail), there.
    pub inside_product_db: Option<f64>,
    /// The finished frames less what the denoiser changed, there.
    pub inside_undenoised_db: Option<f64>,
    /// Decoded clip against truth in the background that came into view.
    pub uncovered_db: Option<f64>,
    /// The pure warp with smooth filling through the autoencoder, there.
    pub uncovered_warp_db: Option<f64>,
    /// The product's frames, there.
    pub uncovered_product_db: Option<f64>,
    /// The finished frames less what the denoiser changed, there.
    pub uncovered_undenoised_db: Option<f64>,
    /// Seconds to render the case.
    pub seconds: f64,
}

/// Squared error over a region, gathered over frames.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Pool {
    sum: f64,
    count: usize,
}

impl Pool {
    /// Adds the pixels where `region` holds.
    pub(super) fn add(&mut self, a: &Raster, b: &Raster, region: impl Fn(usize) -> bool) {
        for (at, (p, q)) in a.data.chunks_exact(3).zip(b.data.chunks_exact(3)).enumerate() {
            if region(at) {
                for (&x, &y) in p.iter().zip(q) {
                    // Both are seen after rounding to the range of a picture.
                    let difference = f64::from(x.clamp(-1.0, 1.0) - y.clamp(-1.0, 1.0)) * 127.5;
                    self.sum += difference * difference;
                    self.count += 1;
                }
            }
        }
    }

    /// PSNR in dB, capped at 99; `None` without pixels.
    pub(super) fn db(self) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let mse = self.sum / self.count as f64;
        Some((10.0 * (255.0f64 * 255.0 / mse.max(1e-9)).log10()).min(99.0))
    }
}

/// Where the thing should be in each frame of `clip`.
fn requested(case: &Case, clip: &[(usize, &Raster)]) -> Vec<Raster> {
    clip.iter().map(|&(frame, _)| case.frame(case.kind, case.magnitude, frame as f64 / 15.0).1).collect()
}

/// Mean absolute error between a clip and a hypothesis where the hypothesis, the request or the
/// still shows the thing.
fn mismatch(case: &Case, clip: &[(usize, &Raster)], requested: &[Raster], kind: Kind, magnitude: f64) -> f64 {
    let (mut sum, mut count) = (0.0f64, 0usize);
    for (&(frame, picture), requested) in clip.iter().zip(requested) {
        let phase = frame as f64 / 15.0;
        let (hypothesis, alpha) = case.frame(kind, magnitude, phase);
        for at in 0..SIDE * SIDE {
            if alpha.data[at] > 0.5 || requested.data[at] > 0.5 || case.mask.data[at] > 0.5 {
                for c in 0..3 {
                    // Robust: a wrong fill must not outvote a right motion.
                    sum += f64::from((picture.data[3 * at + c] - hypothesis.data[3 * at + c]).abs().min(0.5));
                    count += 1;
                }
            }
        }
    }
    sum / count.max(1) as f64
}

/// Finds the motion in `clip`, pairs of frame number and picture.
pub(super) fn fit(case: &Case, clip: &[(usize, &Raster)]) -> Fit {
    let requested = requested(case, clip);
    let mismatch = |kind: Kind, magnitude: f64| mismatch(case, clip, &requested, kind, magnitude);
    let errors: Vec<(Kind, f64)> =
        KINDS.into_par_iter().map(|kind| (kind, mismatch(kind, case.magnitude))).collect();
    let least = errors.into_iter().min_by(|a, b| a.1.total_cmp(&b.1));
    let kind = least.map_or(Kind::Still, |(kind, _)| kind);
    if case.kind == Kind::Still {
        return Fit { kind, factor: 0.0 };
    }
    let best = |centre: f64, steps: RangeInclusive<i32>, step: f64| {
        let errors: Vec<(f64, f64)> = steps
            .into_par_iter()
            .map(|i| centre + f64::from(i) * step)
            .map(|factor| (factor, mismatch(case.kind, factor * case.magnitude)))
            .collect();
        let least = errors.into_iter().min_by(|a, b| a.1.total_cmp(&b.1));
        least.map_or(centre, |(factor, _)| factor)
    };
    let coarse = best(0.0, -5..=10, 0.2);
    let middle = best(coarse, -3..=3, 0.05);
    let fine = best(middle, -2..=2, 0.0125);
    Fit { kind, factor: fine }
}

/// Largest displacement of the thing over the frames, in pixels, by matching translations of up to
/// 1.5 px in quarter pixels.
pub(super) fn still_px(case: &Case, clip: &[(usize, &Raster)]) -> f64 {
    let mut worst = 0.0f64;
    for &(_, picture) in clip {
        let mut best = (f64::INFINITY, 0.0);
        for j in -6..=6 {
            for i in -6..=6 {
                let shift = [f64::from(i) * 0.25, f64::from(j) * 0.25];
                let hypothesis = case.translated(shift);
                let error: f64 = (0..SIDE * SIDE)
                    .filter(|&at| case.mask.data[at] > 0.5)
                    .map(|at| {
                        f64::from((picture.data[3 * at + 1] - hypothesis.data[3 * at + 1]).abs().min(0.5))
                    })
                    .sum();
                if error < best.0 {
                    best = (error, shift[0].hypot(shift[1]));
                }
            }
        }
        worst = worst.max(best.1);
    }
    worst
}

/// Whether the measure finds the right answer on the truth itself; a flat texture hides its motion
/// from any measure, and such a scene is drawn again before any model sees it.
pub(super) fn is_measurable(case: &Case) -> bool {
    let frames: Vec<(usize, Raster)> =
        FRAMES.iter().map(|&t| (t, case.frame(case.kind, case.magnitude, t as f64 / 15.0).0)).collect();
    let clip: Vec<(usize, &Raster)> = frames.iter().map(|(t, r)| (*t, r)).collect();
    let still = mismatch(case, &clip, &requested(case, &clip), Kind::Still, 0.0);
    // A moved thing must differ from an unmoved one by more than compression would change it.
    case.kind == Kind::Still || still > 0.03
}
