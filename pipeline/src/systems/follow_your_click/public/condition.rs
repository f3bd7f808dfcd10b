//! The five channels beside the noisy latents: where to move, and the first frame.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::control::mask::{Combine, animation_mask, combine};
use crate::media::Mask;
use crate::systems::follow_your_click::{AnimateError, ClickAnimation};

/// How mask and first-frame latents are laid out over the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditionLayout {
    /// The network reads latents alone.
    None,
    /// Mask on frame 0 only, first-frame latents on every frame (the paper's text).
    Paper,
    /// Mask on every frame, first-frame latents on frame 0 only (the released code).
    Repo,
    /// One number a frame instead of a mask, 1 at frame 0 and falling; latents on every frame (PIA).
    Pia,
}

/// PIA's curves of how much each frame resembles the first: small, moderate and large motion (Zhang et al.,
/// arXiv 2312.13964, and the public code); the last value continues.
const AFFINITY: [&[f64]; 3] = [
    &[1.0, 0.9, 0.85, 0.85, 0.85, 0.8],
    &[1.0, 0.8, 0.8, 0.8, 0.79, 0.78, 0.75],
    &[1.0, 0.8, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.5],
];

/// PIA's curve for a magnitude of 0..=1, a third of the range for each of the three; a loop comes back to 1.
pub fn pia_affinity(magnitude: f64, frames: usize, looped: bool) -> Vec<f64> {
    (0..frames).map(|frame| affinity_at(magnitude, frame, frames, looped)).collect()
}

/// The number of one frame on the curve for a magnitude, so that the magnitude may change over the clip.
pub(super) fn affinity_at(magnitude: f64, frame: usize, frames: usize, looped: bool) -> f64 {
    let curve = AFFINITY[((magnitude.clamp(0.0, 1.0) * 3.0) as usize).min(2)];
    // Looped, a frame is as far from the first as the nearer end of the clip.
    let frame = if looped { frame.min(frames.saturating_sub(frame + 1)) } else { frame };
    curve.get(frame).or(curve.last()).copied().unwrap_or(1.0)
}

/// The channels `[frames, h, w, 1 + c]`, mask first; `None` for [`ConditionLayout::None`].
///
/// `first` is `[h, w, c]`, `mask` its `h · w` coverages, `affinity` one number a frame.
///
/// # Errors
/// Sizes that do not fit.
pub fn image_channels(
    layout: ConditionLayout,
    first: &Tensor,
    mask: &[f32],
    affinity: &[f64],
) -> Result<Option<Tensor>> {
    let (h, w, c) = first.dims3()?;
    let frames = affinity.len();
    let mask = Tensor::from_slice(mask, (1, h, w, 1), first.device())?.to_dtype(first.dtype())?;
    let first = first.unsqueeze(0)?;
    let everywhere = |one: &Tensor| one.repeat((frames, 1, 1, 1));
    let at_first = |one: &Tensor, channels: usize| {
        let rest = Tensor::zeros((frames.saturating_sub(1), h, w, channels), one.dtype(), one.device())?;
        if frames > 1 { Tensor::cat(&[one, &rest], 0) } else { Ok(one.clone()) }
    };
    let (mask, picture) = match layout {
        ConditionLayout::None => return Ok(None),
        ConditionLayout::Paper => (at_first(&mask, 1)?, everywhere(&first)?),
        ConditionLayout::Repo => (everywhere(&mask)?, at_first(&first, c)?),
        ConditionLayout::Pia => {
            let numbers = Tensor::from_slice(affinity, (frames, 1, 1, 1), first.device())?;
            let numbers = numbers.to_dtype(first.dtype())?.broadcast_as((frames, h, w, 1))?;
            (numbers.contiguous()?, everywhere(&first)?)
        }
    };
    Tensor::cat(&[mask, picture], 3).map(Some)
}

/// Everything that moves, grown so that outlines move along.
pub(super) fn moving_mask(job: &ClickAnimation) -> std::result::Result<Mask, AnimateError> {
    let mut union: Option<Mask> = None;
    for region in &job.regions {
        let mask = animation_mask(&region.mask);
        union = Some(match union {
            None => mask,
            Some(so_far) => combine(&so_far, &mask, Combine::Union)
                .map_err(|error| AnimateError::Compute(candle_core::Error::wrap(error)))?,
        });
    }
    union.ok_or(AnimateError::NoRegion)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn channels(layout: ConditionLayout) -> Option<Vec<Vec<f32>>> {
        let first = Tensor::new(&[[[7f32, 8.0]], [[9.0, 10.0]]], &Device::Cpu).unwrap();
        let out = image_channels(layout, &first, &[1.0, 0.0], &pia_affinity(0.5, 3, false)).unwrap()?;
        assert_eq!(out.dims(), [3, 2, 1, 3]);
        Some(out.flatten_from(1).unwrap().to_vec2().unwrap())
    }

    #[test]
    fn the_layouts_differ_in_what_the_later_frames_see() {
        assert_eq!(channels(ConditionLayout::None), None);
        let (full, image, mask) = (
            vec![1.0, 7.0, 8.0, 0.0, 9.0, 10.0],
            vec![0.0, 7.0, 8.0, 0.0, 9.0, 10.0],
            vec![1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        );
        assert_eq!(channels(ConditionLayout::Paper).unwrap(), [full.clone(), image.clone(), image]);
        assert_eq!(channels(ConditionLayout::Repo).unwrap(), [full, mask.clone(), mask]);
        let pia = channels(ConditionLayout::Pia).unwrap();
        assert_eq!(pia[2], [0.8, 7.0, 8.0, 0.8, 9.0, 10.0]);
    }

    #[test]
    fn affinity_falls_with_magnitude_and_loops_come_back() {
        let last = |magnitude| pia_affinity(magnitude, 16, false)[15];
        assert_eq!((last(0.0), last(0.5), last(1.0)), (0.8, 0.75, 0.5));
        assert_eq!(pia_affinity(1.0, 2, false), [1.0, 0.8]);
        let looped = pia_affinity(1.0, 16, true);
        assert_eq!((looped[0], looped[15], looped[7], looped[8]), (1.0, 1.0, 0.7, 0.7));
    }
}
