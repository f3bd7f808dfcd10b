//! From a job to frames.

use candle_core::{DType, Tensor};

use super::condition::{ConditionLayout, image_channels, pia_affinity};
use super::fit::{blended, resized, to_picture, to_tensor, working_size};
use super::load::Public;
use crate::control::mask::{Combine, LatentMode, animation_mask, combine, dilate, feather, to_latent};
use crate::media::Mask;
use crate::nets::UnetMotionInput;
use crate::nets::unet_motion::Region as TextRegion;
use crate::progress::Event;
use crate::sampling::denoise::{self, CheckpointPolicy, DenoiseError, DenoiseSpec};
use crate::sampling::noise::{INITIAL_STREAM, PIN_STREAM, normal};
use crate::sampling::{SamplerSpec, Scheduler};
use crate::systems::follow_your_click::{
    AnimateError, AnimationReport, Animator, ClickAnimation, Ease, FrameSink, Hooks,
};

/// Latents that are held to the photograph.
#[derive(Debug)]
pub struct Pin {
    /// Clean latents `[frames, h, w, c]`.
    pub clean: Tensor,
    /// How far each is held, 0..=1, `[frames, h, w, 1]`.
    pub keep: Tensor,
}

/// One clip as the networks see it.
#[derive(Debug)]
pub struct ClipRequest<'a> {
    /// Text states `[1, tokens, width]`.
    pub text: &'a Tensor,
    /// States of the negative prompt, of the same shape.
    pub negative: &'a Tensor,
    /// Regions with their own text; empty for one text everywhere.
    pub regions: &'a [TextRegion],
    /// Channels beside the latents, `[frames, h, w, 5]`, for networks that read them.
    pub image: Option<&'a Tensor>,
    /// Motion strength, for networks with that embedding.
    pub strength: Option<f64>,
    pub pin: Option<&'a Pin>,
    /// Standard normal noise `[frames, h, w, c]`.
    pub noise: &'a Tensor,
    pub sampler: &'a SamplerSpec,
    pub steps: usize,
    pub seed: u64,
    /// Hash over everything that decides the latents.
    pub identity: &'a str,
}

impl Public {
    /// Denoises one clip; the clean latents `[frames, h, w, c]` and the evaluations run in this call. `seen` is
    /// given the latents after every step.
    ///
    /// # Errors
    /// [`AnimateError::Cancelled`], or what the networks, the sampler or the checkpoint report.
    pub fn denoise_clip(
        &self,
        request: &ClipRequest<'_>,
        hooks: &Hooks<'_>,
        seen: Option<&mut dyn FnMut(&Tensor)>,
    ) -> Result<(Tensor, usize), AnimateError> {
        let mut scheduler = request.sampler.build(request.steps).map_err(|error| self.model_error(&error))?;
        let total = scheduler.timesteps().len();
        let start = (request.noise * scheduler.init_noise_sigma())?;
        let config = self.parts.unet.config();
        let (strength, fps) = ([request.strength.unwrap_or(0.0)], [self.options.fps]);
        let guidance = self.options.guidance;
        let mut network = |sample: &Tensor, timestep: f64| -> candle_core::Result<Tensor> {
            let input = match request.image {
                Some(image) => Tensor::cat(&[sample, image], 3)?,
                None => sample.clone(),
            };
            let (input, timesteps) = (input.unsqueeze(0)?, [timestep]);
            // One pass after the other: the same numbers as a batch of two with half the memory.
            let pass = |text: &Tensor, regions: &[TextRegion]| {
                let input = UnetMotionInput {
                    phrase: config.reads_phrase().then_some(text),
                    strength: config.strength_embedding.then_some(&strength),
                    fps: config.fps_embedding.then_some(&fps),
                    regions,
                    ..UnetMotionInput::new(&input, &timesteps, text)
                };
                self.parts.unet.forward(&input).map_err(candle_core::Error::wrap)
            };
            let conditional = pass(request.text, request.regions)?;
            if !guidance.needs_unconditional() {
                return conditional.squeeze(0);
            }
            let unconditional = pass(request.negative, &[])?;
            guidance.combine(&conditional, &unconditional, None)?.squeeze(0)
        };
        let spec = DenoiseSpec {
            seed: request.seed,
            job: request.identity.to_owned(),
            start: 0,
            checkpoint: hooks.checkpoint.map(|path| CheckpointPolicy {
                path: path.to_path_buf(),
                every: 1,
                resume: hooks.resume,
            }),
        };
        let pin_noise = normal(request.seed, PIN_STREAM, request.noise.dims())?.to_device(&self.device)?;
        let mut pin = |scheduler: &dyn Scheduler, next: usize, sample: &Tensor| match request.pin {
            None => Ok(sample.clone()),
            Some(pin) => {
                let known =
                    scheduler.noised(next, &pin.clean, &pin_noise).map_err(candle_core::Error::wrap)?;
                sample + (known - sample)?.broadcast_mul(&pin.keep)?
            }
        };
        let mut inner = denoise::Hooks::new(hooks.progress, hooks.node);
        inner.pin = Some(&mut pin);
        let mut seen = seen;
        let mut step = |report: &denoise::StepReport<'_>| {
            if let Some(seen) = seen.as_mut() {
                seen(report.latents);
            }
        };
        inner.step = Some(&mut step);
        let run = denoise::run(&spec, &mut network, scheduler.as_mut(), &start, &mut inner);
        let outcome = run.map_err(|error| match error {
            DenoiseError::Cancelled { .. } => AnimateError::Cancelled,
            DenoiseError::Network { source, .. } => AnimateError::Compute(source),
            DenoiseError::Checkpoint(inner) => AnimateError::Checkpoint {
                path: hooks.checkpoint.map(|path| path.display().to_string()).unwrap_or_default(),
                message: inner.to_string(),
            },
            other => self.model_error(&other),
        })?;
        Ok((outcome.latents, total - outcome.resumed_from.unwrap_or(0)))
    }

    /// Text states of a prompt, `[1, tokens, width]`.
    fn encode_text(&self, index: usize, prompt: &str) -> Result<Tensor, AnimateError> {
        let limit = self.parts.text.config().max_position_embeddings;
        let tokens = self.parts.tokenizer.encode(prompt, limit).map_err(|error| self.model_error(&error))?;
        if tokens.truncated {
            let (tokens, limit) = (tokens.tokens, limit.saturating_sub(2));
            return Err(AnimateError::PromptTooLong { index, tokens, limit, model: self.name.clone() });
        }
        let ids = Tensor::from_vec(tokens.ids, (1, limit), &self.device)?;
        Ok(self.parts.text.forward(&ids).map_err(|error| self.model_error(&error))?.hidden)
    }

    fn identity(&self, job: &ClickAnimation, steps: usize) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(self.digest.as_bytes()).update(job.photo.rgb());
        let settings = format!(
            "{}x{} {} {steps} {} {:?} {:?}",
            job.photo.width(),
            job.photo.height(),
            job.seed,
            job.frames,
            job.ease,
            self.options
        );
        hash.update(settings.as_bytes());
        for region in &job.regions {
            hash.update(format!("{:?} {}", region.prompt, region.magnitude).as_bytes());
            for alpha in region.mask.alpha() {
                hash.update(&alpha.to_le_bytes());
            }
        }
        hash.finalize().to_hex().to_string()
    }

    fn model_error(&self, error: &dyn std::fmt::Display) -> AnimateError {
        AnimateError::Model { model: self.name.clone(), message: error.to_string() }
    }

    fn check(&self, hooks: &Hooks<'_>) -> Result<(), AnimateError> {
        if hooks.progress.cancelled() { Err(AnimateError::Cancelled) } else { Ok(()) }
    }

    /// The text of the whole picture, and of each region if there are several.
    fn texts(
        &self,
        job: &ClickAnimation,
        w: usize,
        h: usize,
    ) -> Result<(Tensor, Vec<TextRegion>), AnimateError> {
        if let [only] = job.regions.as_slice() {
            return Ok((self.encode_text(0, &only.prompt)?, Vec::new()));
        }
        let mut regions = Vec::with_capacity(job.regions.len());
        for (index, region) in job.regions.iter().enumerate() {
            let text = self.encode_text(index, &region.prompt)?;
            let mask = to_latent(&animation_mask(&region.mask), w, h, LatentMode::Area);
            let mask = Tensor::from_vec(mask, (h, w), &self.device)?;
            regions.push(TextRegion { text, phrase: None, mask });
        }
        Ok((self.encode_text(0, "")?, regions))
    }

    /// How far the latents of each frame are held to the photograph's.
    fn pin(&self, moving: &Mask, first: &Tensor, frames: usize) -> Result<Pin, AnimateError> {
        let (h, w, _) = first.dims3()?;
        let soft = feather(moving, moving.width() as f32 / 64.0);
        let held: Vec<f32> =
            to_latent(&soft, w, h, LatentMode::Max).iter().map(|alpha| 1.0 - alpha).collect();
        let held = Tensor::from_vec(held, (1, h, w, 1), &self.device)?;
        let rest = held.repeat((frames.saturating_sub(1), 1, 1, 1))?;
        // A network that never sees the photograph can begin with it only if frame 0 is held whole.
        let start = match self.options.layout {
            ConditionLayout::None => held.ones_like()?,
            _ => held,
        };
        let clean = first.unsqueeze(0)?.repeat((frames, 1, 1, 1))?;
        Ok(Pin { clean, keep: Tensor::cat(&[start, rest], 0)? })
    }
}

/// Everything that moves, grown so that outlines move along.
fn moving_mask(job: &ClickAnimation) -> Result<Mask, AnimateError> {
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

impl Animator for Public {
    fn name(&self) -> &str {
        &self.name
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn max_frames(&self) -> usize {
        let covered = self.parts.unet.config().max_frames().unwrap_or(usize::MAX);
        covered.min(self.options.trained_frames)
    }

    fn default_steps(&self) -> usize {
        self.options.steps
    }

    fn animate(
        &self,
        job: &ClickAnimation,
        hooks: &Hooks<'_>,
        sink: &mut FrameSink<'_>,
    ) -> Result<AnimationReport, AnimateError> {
        self.validate(job)?;
        let size_error = || self.model_error(&"a picture of that size cannot be resized");
        let levels = self.parts.unet.config().levels();
        let factor = self.parts.vae.config().factor();
        let cell = factor << levels.saturating_sub(1);
        let (photo_width, photo_height) = (job.photo.width(), job.photo.height());
        let (width, height) = working_size(photo_width, photo_height, self.options.long_side, cell);
        let (w, h) = (width / factor, height / factor);

        let (text, regions) = self.texts(job, w, h)?;
        let negative = self.encode_text(0, &self.options.negative_prompt)?;
        let small = resized(&job.photo, width, height).ok_or_else(size_error)?;
        let encoded = self.parts.vae.encode(&to_tensor(&small, &self.device)?, None);
        let first = encoded.map_err(|error| self.model_error(&error))?.squeeze(0)?;
        self.check(hooks)?;

        let moving = moving_mask(job)?;
        let magnitude = job.regions.iter().map(|region| region.magnitude).fold(0.0, f64::max);
        let affinity = pia_affinity(magnitude, job.frames, job.ease == Ease::Loop);
        let mask = to_latent(&moving, w, h, LatentMode::Max);
        let image = image_channels(self.options.layout, &first, &mask, &affinity)?;
        if job.ease != Ease::Linear && self.options.layout != ConditionLayout::Pia {
            let message = format!("{} decides the course of the motion itself; ease is not used", self.name);
            hooks.progress.event(Event::Notice { node: hooks.node.to_owned(), message });
        }
        let holds = self.options.pin_background || self.options.layout == ConditionLayout::None;
        let pin = holds.then(|| self.pin(&moving, &first, job.frames)).transpose()?;
        let channels = self.parts.vae.config().latent_channels;
        let noise =
            normal(job.seed, INITIAL_STREAM, &[job.frames, h, w, channels])?.to_device(&self.device)?;
        let steps = job.steps.unwrap_or(self.options.steps);
        let identity = self.identity(job, steps);
        let request = ClipRequest {
            text: &text,
            negative: &negative,
            regions: &regions,
            image: image.as_ref(),
            strength: Some(magnitude * self.options.strength),
            pin: pin.as_ref(),
            noise: &noise,
            sampler: &self.options.sampler,
            steps,
            seed: job.seed,
            identity: &identity,
        };
        let (latents, steps_run) = self.denoise_clip(&request, hooks, None)?;

        let (out_width, out_height) = out_size(photo_width, photo_height, job.size);
        let backdrop = resized(&job.photo, out_width, out_height).ok_or_else(size_error)?;
        let blend = job.composite.then(|| {
            let grown = dilate(&moving, moving.width() as f32 / 64.0);
            let soft = feather(&grown, grown.width() as f32 / 64.0);
            to_latent(&soft, out_width, out_height, LatentMode::Area)
        });
        let blend = blend.and_then(|alpha| Mask::new(backdrop.width(), backdrop.height(), alpha).ok());
        for frame in 0..job.frames {
            self.check(hooks)?;
            let decoded = self.parts.vae.decode(&latents.narrow(0, frame, 1)?.to_dtype(DType::F32)?);
            let decoded = to_picture(&decoded.map_err(|error| self.model_error(&error))?)?;
            let decoded = resized(&decoded, out_width, out_height).ok_or_else(size_error)?;
            let picture = match &blend {
                Some(mask) => blended(&decoded, &backdrop, mask).ok_or_else(size_error)?,
                None => decoded,
            };
            sink(picture).map_err(|source| AnimateError::Sink { frame, source })?;
            let (done, total) = (frame + 1, job.frames);
            hooks.progress.event(Event::Step { node: hooks.node.to_owned(), stage: "decode", done, total });
        }
        Ok(AnimationReport {
            understood: job.regions.iter().map(|region| region.prompt.clone()).collect(),
            width: backdrop.width(),
            height: backdrop.height(),
            frames: job.frames,
            steps_run,
        })
    }
}

/// Size of the frames: as asked, else the photograph's up to 3,840 pixels; even, as encoders want.
fn out_size(width: u32, height: u32, asked: Option<u32>) -> (usize, usize) {
    let longer = width.max(height);
    let side = asked.unwrap_or(longer.min(3840));
    let scale = f64::from(side) / f64::from(longer);
    let even = |v: u32| ((f64::from(v) * scale / 2.0).round() as usize).max(1) * 2;
    (even(width), even(height))
}
