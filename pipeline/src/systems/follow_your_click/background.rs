//! What stands behind the moving things: the plate network's colours with the photograph's grain.

use super::ClickAnimation;
use super::complete::complete;
use super::guide::hole_of;
use crate::media::Raster;

/// Longer side at which the background's texture is made; finer it would cost seconds and be finer
/// than what a moving thing lets one see.
const TEXTURE_SIDE: usize = 640;

/// Pixels of the network's size below which the background's structure is taken from patches.
const GRAIN: f64 = 3.0;

/// The plate in the photograph's texture, for a picture of `[width, height]` pixels; at most
/// [`TEXTURE_SIDE`] long.
pub(super) fn textured(
    job: &ClickAnimation,
    gated: &[bool],
    [width, height]: [usize; 2],
    plate: &Raster,
) -> Raster {
    let scale = (TEXTURE_SIDE as f64 / width.max(height) as f64).min(1.0);
    let side = |v: usize| ((v as f64 * scale).round() as usize).max(1);
    let (width, height) = (side(width), side(height));
    let holes: Vec<Raster> = job
        .regions
        .iter()
        .zip(gated)
        .filter(|&(_, &gated)| !gated)
        .map(|(region, _)| hole_of(&Raster::from_mask(&region.mask).resized(width, height)))
        .collect();
    let hole = union(holes.iter(), width, height);
    let painted = plate.resized(width, height);
    if hole.data.iter().all(|&v| v == 0.0) {
        return painted;
    }
    let textured = complete(&Raster::from_picture(&job.photo).resized(width, height), &hole, &painted);
    let radius = (GRAIN * width as f64 / plate.width as f64).round().max(1.0) as usize;
    with_grain(&painted, textured, &hole, radius)
}

/// Inside `hole`, the colours of `painted` with what is finer than `radius` pixels of `textured`.
///
/// Patches are right about grain and edges and may be wrong about where a shadow ends; the painted
/// colours, and the denoiser that goes on from them, are closer there.
fn with_grain(painted: &Raster, mut textured: Raster, hole: &Raster, radius: usize) -> Raster {
    for c in 0..3 {
        let plane: Vec<f32> = textured.data.iter().skip(c).step_by(3).copied().collect();
        let plane = Raster { channels: 1, data: plane, ..hole.clone() };
        let coarse = plane.box_blurred(radius).box_blurred(radius);
        for (at, _) in hole.data.iter().enumerate().filter(|(_, inside)| **inside > 0.0) {
            let value = painted.data[3 * at + c] + plane.data[at] - coarse.data[at];
            textured.data[3 * at + c] = value.clamp(-1.0, 1.0);
        }
    }
    textured
}

/// The most of all masks at every pixel; all are `width × height` with one channel.
pub(super) fn union<'a>(masks: impl Iterator<Item = &'a Raster>, width: usize, height: usize) -> Raster {
    let mut all = Raster::zeros(width, height, 1);
    for mask in masks {
        all.data.iter_mut().zip(&mask.data).for_each(|(value, &here)| *value = value.max(here));
    }
    all
}
