//! The job of animating clicked regions, independent of the model that does it.

use std::path::Path;

use super::choice::SamplingChoice;
use super::magnitude::Magnitude;
use crate::media::{Mask, Picture};
use crate::progress::Progress;

/// One thing that moves.
#[derive(Debug, Clone)]
pub struct Region {
    /// Coverage of the thing in the photograph, in the photograph's size.
    pub mask: Mask,
    /// How it moves, e.g. "drift to the left". Not empty.
    pub prompt: String,
    /// How far it moves, 0..=1 of the largest motion the model was trained for.
    pub magnitude: Magnitude,
}

/// How the motion runs over the clip.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Ease {
    /// Constant speed.
    #[default]
    Linear,
    /// Slow start and end.
    Smooth,
    /// There and back again, so that the clip can repeat without a jump.
    Loop,
}

/// Phase of the motion, 0..=1, at each of `frames` frames; the first is always 0.
///
/// A loop returns to 0 one frame *after* its last, so that repeating it shows no frame twice.
pub fn frame_phases(ease: Ease, frames: usize) -> Vec<f64> {
    let last = frames.saturating_sub(1).max(1) as f64;
    (0..frames)
        .map(|frame| match ease {
            Ease::Linear => frame as f64 / last,
            Ease::Smooth => {
                let u = frame as f64 / last;
                u * u * (3.0 - 2.0 * u)
            }
            Ease::Loop => {
                let turn = frame as f64 / frames as f64;
                0.5 - 0.5 * (std::f64::consts::TAU * turn).cos()
            }
        })
        .collect()
}

/// A photograph, what moves in it, and how to render that.
#[derive(Debug, Clone)]
pub struct ClickAnimation {
    /// Frame 0.
    pub photo: Picture,
    /// What moves; at least one. Later regions lie over earlier ones.
    pub regions: Vec<Region>,
    /// Length of the clip, from 2 to [`Animator::max_frames`].
    pub frames: usize,
    /// Course of the motion.
    pub ease: Ease,
    /// Seed of the noise.
    pub seed: u64,
    /// Denoise steps; `None` for the model's own default.
    pub steps: Option<usize>,
    /// Warp the first frame along the predicted motion and denoise the rest (`true`), or the
    /// paper's plain path (`false`).
    pub guide: bool,
    /// Keep the photograph's own pixels where nothing moves and its detail where the motion
    /// carries it; `false` shows what the decoder gives.
    pub composite: bool,
    /// Longer side of the frames in pixels; `None` for the photograph's size (up to 3,840).
    pub size: Option<u32>,
    /// What the job says about sampling; nothing for models that leave no choice.
    pub sampling: SamplingChoice,
}

/// A job as far as its cost depends on it.
#[derive(Debug, Clone, Copy)]
pub struct JobSize<'a> {
    /// Width of the photograph in pixels.
    pub width: u32,
    /// Height of the photograph in pixels.
    pub height: u32,
    /// Frames of the clip.
    pub frames: usize,
    /// Denoise steps; `None` for the model's own default.
    pub steps: Option<usize>,
    /// What the job says about sampling.
    pub sampling: &'a SamplingChoice,
}

/// What one clip costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effort {
    /// Floating-point operations in 10⁹.
    pub gigaflop: f64,
    /// Memory while it renders, weights included, in bytes.
    pub memory: u64,
}

/// What an [`Animator`] is given beside the job.
pub struct Hooks<'a> {
    /// Receives progress; asked for cancellation between steps and frames.
    pub progress: &'a dyn Progress,
    /// Name under which progress is reported.
    pub node: &'a str,
    /// Existing folder in which the state of the denoise loop is kept between steps, `None` to keep none.
    pub checkpoint: Option<&'a Path>,
    /// Continue from the checkpoint if there is one of this very job.
    pub resume: bool,
}

impl std::fmt::Debug for Hooks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks")
            .field("node", &self.node)
            .field("checkpoint", &self.checkpoint)
            .finish_non_exhaustive()
    }
}

/// What was done, for the receipt and for the user.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct AnimationReport {
    /// What each region's prompt was understood as, e.g. "move left"; empty if nothing was
    /// recognised.
    pub understood: Vec<String>,
    /// Size of the frames in pixels.
    pub width: u32,
    /// Height of the frames in pixels.
    pub height: u32,
    /// Frames given to the sink.
    pub frames: usize,
    /// Denoise steps run in this call; fewer than asked for after a resume.
    pub steps_run: usize,
}

/// Why a clip could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AnimateError {
    /// No region, or one that covers nothing.
    #[error(
        "region {index} covers no pixel of the {width}x{height} picture; click on the thing that should move"
    )]
    EmptyRegion { index: usize, width: u32, height: u32 },
    /// No region at all.
    #[error("nothing to animate: expected at least one region with a mask and a prompt")]
    NoRegion,
    /// A mask of another size than the photograph.
    #[error(
        "region {index}: expected a mask of {expected_width}x{expected_height} pixels like the picture, got {width}x{height}"
    )]
    MaskSize { index: usize, expected_width: u32, expected_height: u32, width: u32, height: u32 },
    /// A prompt without words.
    #[error("region {index}: the prompt is empty; say how the region moves, e.g. \"drift to the left\"")]
    EmptyPrompt { index: usize },
    /// A prompt that does not fit the text encoder.
    #[error("region {index}: the prompt has {tokens} tokens, {model} reads at most {limit}; shorten it")]
    PromptTooLong { index: usize, tokens: usize, limit: usize, model: String },
    /// A magnitude that is not a number in 0..=1.
    #[error("region {index}: expected a magnitude from 0 to 1, got {got}")]
    Magnitude { index: usize, got: f64 },
    /// Magnitudes for another number of frames.
    #[error("region {index}: expected a magnitude for each of {expected} frames, got {got}")]
    MagnitudeFrames { index: usize, expected: usize, got: usize },
    /// A magnitude that changes over the clip, for a model that cannot follow it.
    #[error("region {index}: expected one magnitude for the whole clip, got keyframes; {model} {reason}")]
    KeyedMagnitude { index: usize, model: String, reason: &'static str },
    /// More or fewer frames than the motion modules were trained for.
    #[error(
        "{model} makes 2 to {max} frames, got {got}; render fewer frames, or repeat the clip with ease \"loop\""
    )]
    Frames { model: String, max: usize, got: usize },
    /// No steps, or absurdly many.
    #[error("expected 1 to 1000 denoise steps, got {got}")]
    Steps { got: usize },
    /// The job was asked to stop.
    #[error("interrupted; the finished steps are kept and --resume continues")]
    Cancelled,
    /// A number or text about sampling that cannot be used.
    #[error("{field}: expected {expected}, got {got}")]
    Setting { field: &'static str, expected: String, got: String },
    /// Something about sampling that this model has no use for.
    #[error("{field}: {model} has no use for it; leave it out, or choose a public checkpoint as the model")]
    Unused { model: String, field: &'static str },
    /// No model of that name.
    #[error(
        "no model {model:?}; known are {known}, hub:OWNER/NAME@REVISION, or a folder of weights beside the document"
    )]
    UnknownModel { model: String, known: String },
    /// A model that is known and whose weights are not on this machine.
    #[error(
        "the weights of {model} are not on this machine; fetch them once with `kinora models pull {pull}`"
    )]
    NotInstalled {
        /// The model asked for.
        model: String,
        /// What to pull: the model, or the base it needs.
        pull: String,
    },
    /// A model file that is missing, damaged or of another shape.
    #[error("model {model}: {message}")]
    Model { model: String, message: String },
    /// The checkpoint could not be written or read.
    #[error("checkpoint {path}: {message}")]
    Checkpoint { path: String, message: String },
    /// Whoever receives the frames refused one.
    #[error("frame {frame} could not be stored: {source}")]
    Sink { frame: usize, source: Box<dyn std::error::Error + Send + Sync> },
    /// Arithmetic refused: a bug, or a device that failed.
    #[error("computation failed: {0}")]
    Compute(#[from] candle_core::Error),
}

impl From<kinora_kernels::KernelError> for AnimateError {
    fn from(error: kinora_kernels::KernelError) -> Self {
        Self::Compute(error.into())
    }
}

/// Receives the finished frames in order.
pub type FrameSink<'a> = dyn FnMut(Picture) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + 'a;

/// A model that can do the job.
pub trait Animator: Send + Sync {
    /// Name for messages and receipts.
    fn name(&self) -> &str;

    /// Hash over all weights and configuration; part of cache keys and receipts.
    fn digest(&self) -> &str;

    /// Longest clip the motion modules were trained for.
    fn max_frames(&self) -> usize;

    /// Denoise steps used when the job names none.
    fn default_steps(&self) -> usize;

    /// What a job of this size will cost, told without reading weights; `None` when the model does not know.
    fn effort(&self, job: &JobSize<'_>) -> Option<Effort> {
        let _ = job;
        None
    }

    /// Checks what can be checked without computing.
    fn validate(&self, job: &ClickAnimation) -> Result<(), AnimateError> {
        if let Some(field) = job.sampling.first() {
            return Err(AnimateError::Unused { model: self.name().to_owned(), field });
        }
        validate(self.name(), self.max_frames(), job)
    }

    /// Checks that the text encoder can read every prompt whole; a model without one has nothing to
    /// check.
    ///
    /// # Errors
    /// [`AnimateError::PromptTooLong`] naming the region.
    fn check_prompts(&self, job: &ClickAnimation) -> Result<(), AnimateError> {
        let _ = job;
        Ok(())
    }

    /// Renders the clip; frames arrive at `sink` in order, each as soon as it is finished.
    fn animate(
        &self,
        job: &ClickAnimation,
        hooks: &Hooks<'_>,
        sink: &mut FrameSink<'_>,
    ) -> Result<AnimationReport, AnimateError>;
}

pub(super) fn validate(model: &str, max_frames: usize, job: &ClickAnimation) -> Result<(), AnimateError> {
    if job.regions.is_empty() {
        return Err(AnimateError::NoRegion);
    }
    if !(2..=max_frames).contains(&job.frames) {
        return Err(AnimateError::Frames { model: model.to_owned(), max: max_frames, got: job.frames });
    }
    if let Some(got) = job.steps
        && !(1..=1000).contains(&got)
    {
        return Err(AnimateError::Steps { got });
    }
    let (width, height) = (job.photo.width(), job.photo.height());
    for (index, region) in job.regions.iter().enumerate() {
        let mask = &region.mask;
        if (mask.width(), mask.height()) != (width, height) {
            return Err(AnimateError::MaskSize {
                index,
                expected_width: width,
                expected_height: height,
                width: mask.width(),
                height: mask.height(),
            });
        }
        if !mask.alpha().iter().any(|&alpha| alpha > 0.5) {
            return Err(AnimateError::EmptyRegion { index, width, height });
        }
        if region.prompt.trim().is_empty() {
            return Err(AnimateError::EmptyPrompt { index });
        }
        region.magnitude.check(index, job.frames)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> ClickAnimation {
        let mask = Mask::new(4, 2, vec![0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
        ClickAnimation {
            photo: Picture::new(4, 2, vec![0; 24]).unwrap(),
            regions: vec![Region { mask, prompt: "drift left".into(), magnitude: 0.5.into() }],
            frames: 16,
            ease: Ease::Linear,
            seed: 0,
            steps: None,
            guide: true,
            composite: true,
            size: None,
            sampling: SamplingChoice::default(),
        }
    }

    #[test]
    fn phases_start_at_rest_and_reach_the_end() {
        assert_eq!(frame_phases(Ease::Linear, 3), [0.0, 0.5, 1.0]);
        assert_eq!(frame_phases(Ease::Smooth, 3), [0.0, 0.5, 1.0]);
        assert_eq!(frame_phases(Ease::Loop, 1), [0.0]);
        let there_and_back = frame_phases(Ease::Loop, 16);
        assert!(there_and_back[0].abs() < 1e-12 && (there_and_back[8] - 1.0).abs() < 1e-12);
        assert!((there_and_back[1] - there_and_back[15]).abs() < 1e-12, "symmetric about the turn");
    }

    #[test]
    fn a_good_job_passes() {
        validate("m", 16, &job()).unwrap();
    }

    #[test]
    fn every_refusal_names_its_reason() {
        let refused = |change: fn(&mut ClickAnimation)| {
            let mut job = job();
            change(&mut job);
            validate("kinora-mini", 16, &job).unwrap_err().to_string()
        };
        assert!(refused(|job| job.regions.clear()).contains("nothing to animate"));
        assert!(refused(|job| job.frames = 17).contains("2 to 16 frames, got 17"));
        assert!(refused(|job| job.frames = 1).contains("got 1"));
        assert!(refused(|job| job.steps = Some(0)).contains("got 0"));
        assert!(refused(|job| job.regions[0].prompt = " \n".into()).contains("prompt is empty"));
        assert!(refused(|job| job.regions[0].magnitude = 1.5.into()).contains("from 0 to 1, got 1.5"));
        assert!(refused(|job| job.regions[0].magnitude = f64::NAN.into()).contains("got NaN"));
        assert!(refused(|job| job.regions[0].mask.alpha_mut().fill(0.0)).contains("covers no pixel"));
        assert!(
            refused(|job| job.regions[0].mask = Mask::new(1, 1, vec![1.0]).unwrap())
                .contains("4x2 pixels like the picture, got 1x1")
        );
    }
}
