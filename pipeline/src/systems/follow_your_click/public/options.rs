//! How a public checkpoint wants to be sampled.

use super::condition::ConditionLayout;
use crate::nets::UnetMotionConfig;
use crate::sampling::{Guidance, SamplerSpec};
use crate::systems::follow_your_click::SamplingChoice;

/// Settings of a render with a public checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct PublicOptions {
    pub sampler: SamplerSpec,
    /// Steps when the job names none.
    pub steps: usize,
    pub guidance: Guidance,
    /// What the unconditional pass reads.
    pub negative_prompt: String,
    pub layout: ConditionLayout,
    /// Hold the latents outside the mask to the photograph's, noised to each step's level.
    pub pin_background: bool,
    /// Longer side of the picture the network works on, in pixels.
    pub long_side: usize,
    /// Motion strength at magnitude 1; the paper shows 4 to 16.
    pub strength: f64,
    /// Frame-stride label of networks with an fps embedding.
    pub fps: f64,
    /// Frames of the training clips; more are refused.
    pub trained_frames: usize,
}

impl PublicOptions {
    /// The settings a network's parts call for.
    pub fn of(unet: &UnetMotionConfig) -> Self {
        let follow_your_click = unet.strength_embedding;
        let layout = match (unet.in_channels, follow_your_click) {
            (9, true) => ConditionLayout::Repo,
            (9, false) => ConditionLayout::Pia,
            _ => ConditionLayout::None,
        };
        Self {
            sampler: if follow_your_click {
                SamplerSpec::follow_your_click()
            } else {
                SamplerSpec::animatediff()
            },
            steps: 25,
            guidance: Guidance::plain(7.5),
            negative_prompt: "low quality, blurry, watermark, text, deformed".to_owned(),
            layout,
            pin_background: true,
            long_side: 512,
            strength: 16.0,
            fps: 2.0,
            trained_frames: 16,
        }
    }
    /// These settings with what a job says in their place.
    pub fn chosen(&self, choice: &SamplingChoice) -> Self {
        let mut options = self.clone();
        if let Some(prompt) = &choice.negative_prompt {
            options.negative_prompt.clone_from(prompt);
        }
        if let Some(scale) = choice.guidance_scale {
            options.guidance.scale = scale;
        }
        if let Some(sampler) = choice.sampler {
            options.sampler.kind = sampler.kind();
        }
        if let Some(size) = choice.working_size {
            options.long_side = size as usize;
        }
        if let Some(pin) = choice.pin_background {
            options.pin_background = pin;
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::SamplerKind;
    use crate::systems::follow_your_click::Sampler;

    #[test]
    fn a_choice_changes_what_it_names_and_nothing_else() {
        let own = PublicOptions::of(&UnetMotionConfig::pia());
        assert_eq!(own.chosen(&SamplingChoice::default()), own);
        let choice = SamplingChoice {
            negative_prompt: Some(String::new()),
            guidance_scale: Some(3.0),
            sampler: Some(Sampler::Dpmpp2mKarras),
            working_size: Some(256),
            pin_background: Some(false),
        };
        let mut expected = own.clone();
        expected.negative_prompt.clear();
        expected.guidance.scale = 3.0;
        expected.sampler.kind = SamplerKind::Dpmpp2mKarras;
        (expected.long_side, expected.pin_background) = (256, false);
        assert_eq!(own.chosen(&choice), expected);
    }
}
