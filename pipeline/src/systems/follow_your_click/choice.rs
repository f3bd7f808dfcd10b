//! What a job may say about sampling where it does not leave that to the model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::animation::AnimateError;
use crate::sampling::SamplerKind;

/// Largest guidance scale: beyond it every checkpoint gives saturated noise.
pub const MAX_GUIDANCE: f64 = 30.0;
/// Range of [`SamplingChoice::working_size`], pixels.
pub const WORKING_SIZES: std::ops::RangeInclusive<u32> = 64..=2048;

/// The samplers a diffusion checkpoint can be run with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sampler {
    /// DDIM, what AnimateDiff, PIA and Follow-Your-Click were shown with.
    Ddim,
    /// Euler.
    Euler,
    /// Euler on the noise levels of Karras et al.
    EulerKarras,
    /// Euler that puts fresh noise back at every step.
    EulerAncestral,
    /// DPM-Solver++ (2M).
    #[serde(rename = "dpmpp_2m")]
    Dpmpp2m,
    /// DPM-Solver++ (2M) on the noise levels of Karras et al.
    #[serde(rename = "dpmpp_2m_karras")]
    Dpmpp2mKarras,
    /// LCM, for checkpoints distilled for few steps.
    Lcm,
}

impl Sampler {
    /// The solver behind the name.
    pub fn kind(self) -> SamplerKind {
        match self {
            Self::Ddim => SamplerKind::Ddim,
            Self::Euler => SamplerKind::Euler,
            Self::EulerKarras => SamplerKind::EulerKarras,
            Self::EulerAncestral => SamplerKind::EulerAncestral,
            Self::Dpmpp2m => SamplerKind::Dpmpp2m,
            Self::Dpmpp2mKarras => SamplerKind::Dpmpp2mKarras,
            Self::Lcm => SamplerKind::Lcm,
        }
    }
}

/// How a checkpoint is sampled, as far as the job says so. Every field is a model's own where it is `None`; a model
/// refuses those it has no use for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplingChoice {
    /// What the clip is steered away from; may be empty.
    pub negative_prompt: Option<String>,
    /// Weight of the prompt against the negative prompt, 1 (none) to [`MAX_GUIDANCE`].
    pub guidance_scale: Option<f64>,
    /// The solver.
    pub sampler: Option<Sampler>,
    /// Longer side of the picture the network works on, in pixels, within [`WORKING_SIZES`].
    pub working_size: Option<u32>,
    /// Hold everything outside the masks to the photograph while denoising.
    pub pin_background: Option<bool>,
}

impl SamplingChoice {
    /// The field in documents of the first choice that is made.
    pub fn first(&self) -> Option<&'static str> {
        let made = [
            ("negative_prompt", self.negative_prompt.is_some()),
            ("guidance_scale", self.guidance_scale.is_some()),
            ("sampler", self.sampler.is_some()),
            ("working_size", self.working_size.is_some()),
            ("pin_background", self.pin_background.is_some()),
        ];
        made.into_iter().find(|(_, made)| *made).map(|(field, _)| field)
    }

    /// Refuses numbers outside their range.
    ///
    /// # Errors
    /// [`AnimateError::Setting`].
    pub fn check(&self) -> Result<(), AnimateError> {
        let refuse =
            |field, expected: String, got: String| Err(AnimateError::Setting { field, expected, got });
        if let Some(scale) = self.guidance_scale
            && !(1.0..=MAX_GUIDANCE).contains(&scale)
        {
            return refuse("guidance_scale", format!("a number from 1 to {MAX_GUIDANCE}"), scale.to_string());
        }
        if let Some(size) = self.working_size
            && !WORKING_SIZES.contains(&size)
        {
            let (least, most) = (WORKING_SIZES.start(), WORKING_SIZES.end());
            return refuse("working_size", format!("{least} to {most} pixels"), size.to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_choice_is_named_and_ranges_are_checked() {
        assert_eq!(SamplingChoice::default().first(), None);
        let choice = SamplingChoice { working_size: Some(512), ..SamplingChoice::default() };
        assert_eq!(choice.first(), Some("working_size"));
        choice.check().unwrap();
        for bad in [f64::NAN, 0.5, 31.0, f64::INFINITY] {
            let choice = SamplingChoice { guidance_scale: Some(bad), ..SamplingChoice::default() };
            assert!(matches!(choice.check(), Err(AnimateError::Setting { field: "guidance_scale", .. })));
        }
        let choice = SamplingChoice { working_size: Some(63), ..SamplingChoice::default() };
        assert!(choice.check().unwrap_err().to_string().contains("64 to 2048 pixels"));
    }
}
