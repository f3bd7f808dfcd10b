//! From a job to frames.

use candle_core::{DType, Tensor};

use super::condition::{ConditionLayout, affinity_at, image_channels, moving_mask};
use super::decode::decode;
use super::effort::{Extent, effort};
use super::fit::{blended, out_size, resized, to_picture, to_tensor, working_size};
use super::load::{Public, PublicParts};
use super::options::PublicOptions;
use crate::control::mask::{LatentMode, animation_mask, dilate, feather, to_latent};
use crate::media::Mask;
use crate::nets::UnetMotionInput;
use crate::nets::unet_motion::Region as TextRegion;
use crate::progress::Event;
use crate::sampling::denoise::{
    self, CheckpointPolicy, DenoiseError, DenoiseSpec, StepHook, StepReport, Terms,
};
use crate::sampling::noise::{INITIAL_STREAM, PIN_STREAM, normal};
use crate::sampling::{Guidance, SamplerSpec, Scheduler};
use crate::systems::follow_your_click::preview::{Colours, show};
use crate::systems::follow_your_click::{
    AnimateError, AnimationReport, Animator, ClickAnimation, Ease, Effort, FrameSink, Hooks, JobSize,
    validate,
};

/// The denoise loop's state in the folder a job keeps it in.
const CHECKPOINT: &str = "denoise.safetensors";

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
    pub guidance: Guidance,
    pub steps: usize,
    pub seed: u64,
    /// Hash over everything that decides the latents.
    pub identity: &'a str,
}

impl Public {
    /// Denoises one clip; the clean latents `[frames, h, w, c]` and the evaluations run in this call. `seen` is
    /// called after every step.
    ///
    /// # Errors
    /// [`AnimateError::Cancelled`], or what the networks, the sampler or the checkpoint report.
    pub fn denoise_clip(
        &self,
        request: &ClipRequest<'_>,
        hooks: &Hooks<'_>,
        seen: Option<&mut StepHook<'_>>,
    ) -> Result<(Tensor, usize), AnimateError> {
        let mut scheduler = request.sampler.build(request.steps).map_err(|error| self.model_error(&error))?;
        let total = scheduler.timesteps().len();
        let start = (request.noise * scheduler.init_noise_sigma())?;
        let parts = self.parts()?;
        let config = parts.unet.config();
        let (strength, fps) = ([request.strength.unwrap_or(0.0)], [self.options.fps]);
        let guidance = request.guidance;
        let mut network =
            Terms(|sample: &Tensor, timestep: f64| -> candle_core::Result<Vec<(f64, Tensor)>> {
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
                    parts.unet.forward(&input).map_err(candle_core::Error::wrap)?.to_dtype(DType::F32)
                };
                let conditional = pass(request.text, request.regions)?;
                if !guidance.needs_unconditional() {
                    return Ok(vec![(1.0, conditional.squeeze(0)?)]);
                }
                let unconditional = pass(request.negative, &[])?;
                // Contrast, where guidance restores it, is measured per item of the batch.
                let terms = guidance.terms(conditional, unconditional)?;
                terms.into_iter().map(|(weight, x)| Ok((weight, x.squeeze(0)?))).collect()
            });
        let spec = DenoiseSpec {
            seed: request.seed,
            job: request.identity.to_owned(),
            start: 0,
            checkpoint: hooks.checkpoint.map(|path| CheckpointPolicy {
                path: path.join(CHECKPOINT),
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
        inner.step = seen.map(|seen| -> &mut StepHook<'_> { seen });
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
    fn encode_text(&self, parts: &PublicParts, prompt: &str) -> Result<Tensor, AnimateError> {
        let limit = parts.text.config().max_position_embeddings;
        let tokens = self.tokenizer.encode(prompt, limit).map_err(|error| self.model_error(&error))?;
        let ids = Tensor::from_vec(tokens.ids, (1, limit), &self.device)?;
        Ok(parts.text.forward(&ids).map_err(|error| self.model_error(&error))?.hidden)
    }

    /// Tokens of a prompt beyond what the text encoder reads, with the limit.
    fn too_long(&self, prompt: &str) -> Result<Option<(usize, usize)>, AnimateError> {
        let limit = self.blueprint.text.max_position_embeddings;
        let tokens = self.tokenizer.encode(prompt, limit).map_err(|error| self.model_error(&error))?;
        Ok(tokens.truncated.then_some((tokens.tokens, limit.saturating_sub(2))))
    }

    /// Pixels that one cell of the coarsest level spans.
    fn cell(&self) -> usize {
        self.blueprint.vae.factor() << self.blueprint.unet.levels().saturating_sub(1)
    }

    fn identity(&self, job: &ClickAnimation, options: &PublicOptions, steps: usize) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(self.digest.as_bytes()).update(job.photo.rgb());
        let settings = format!(
            "{}x{} {} {steps} {} {:?} {:?}",
            job.photo.width(),
            job.photo.height(),
            job.seed,
            job.frames,
            job.ease,
            options
        );
        hash.update(settings.as_bytes());
        for region in &job.regions {
            hash.update(format!("{:?} {:?}", region.prompt, region.magnitude).as_bytes());
            for alpha in region.mask.alpha() {
                hash.update(&alpha.to_le_bytes());
            }
        }
        hash.finalize().to_hex().to_string()
    }

    fn check(&self, hooks: &Hooks<'_>) -> Result<(), AnimateError> {
        if hooks.progress.cancelled() { Err(AnimateError::Cancelled) } else { Ok(()) }
    }

    /// The text of the whole picture, and of each region if there are several.
    fn texts(
        &self,
        parts: &PublicParts,
        job: &ClickAnimation,
        w: usize,
        h: usize,
    ) -> Result<(Tensor, Vec<TextRegion>), AnimateError> {
        if let [only] = job.regions.as_slice() {
            return Ok((self.encode_text(parts, &only.prompt)?, Vec::new()));
        }
        let mut regions = Vec::with_capacity(job.regions.len());
        for region in &job.regions {
            let text = self.encode_text(parts, &region.prompt)?;
            let mask = to_latent(&animation_mask(&region.mask), w, h, LatentMode::Area);
            let mask = Tensor::from_vec(mask, (h, w), &self.device)?;
            regions.push(TextRegion { text, phrase: None, mask });
        }
        Ok((self.encode_text(parts, "")?, regions))
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

impl Animator for Public {
    fn name(&self) -> &str {
        &self.name
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn max_frames(&self) -> usize {
        let covered = self.blueprint.unet.max_frames().unwrap_or(usize::MAX);
        covered.min(self.options.trained_frames)
    }

    fn default_steps(&self) -> usize {
        self.options.steps
    }

    fn effort(&self, job: &JobSize<'_>) -> Option<Effort> {
        let options = self.options.chosen(job.sampling);
        let (width, height) = working_size(job.width, job.height, options.long_side, self.cell());
        let factor = self.blueprint.vae.factor();
        let steps = options.sampler.build(job.steps.unwrap_or(options.steps)).ok()?.timesteps().len();
        let passes = steps * if options.guidance.needs_unconditional() { 2 } else { 1 };
        let extent = Extent { w: width / factor, h: height / factor, frames: job.frames, passes };
        Some(effort(&self.blueprint, extent))
    }

    fn validate(&self, job: &ClickAnimation) -> Result<(), AnimateError> {
        job.sampling.check()?;
        validate(&self.name, self.max_frames(), job)?;
        for (index, region) in job.regions.iter().enumerate() {
            if let Some((tokens, limit)) = self.too_long(&region.prompt)? {
                return Err(AnimateError::PromptTooLong { index, tokens, limit, model: self.name.clone() });
            }
        }
        let keyed = job.regions.iter().position(|region| region.magnitude.is_keyed());
        if let Some(index) = keyed.filter(|_| self.options.layout != ConditionLayout::Pia) {
            let reason = if self.blueprint.unet.strength_embedding {
                "reads one motion strength a clip"
            } else {
                "has no control for how far things move"
            };
            return Err(AnimateError::KeyedMagnitude { index, model: self.name.clone(), reason });
        }
        let negative = job.sampling.negative_prompt.as_deref().unwrap_or_default();
        if let Some((tokens, limit)) = self.too_long(negative)? {
            return Err(AnimateError::Setting {
                field: "negative_prompt",
                expected: format!("at most {limit} tokens"),
                got: format!("{tokens} tokens"),
            });
        }
        let steps = job.steps.unwrap_or(self.options.steps);
        let sampler = self.options.chosen(&job.sampling).sampler;
        let built = sampler.build(steps).map(drop);
        built.map_err(|error| AnimateError::Setting {
            field: "steps",
            expected: "a number of steps the sampler can take".to_owned(),
            got: error.to_string(),
        })
    }

    fn animate(
        &self,
        job: &ClickAnimation,
        hooks: &Hooks<'_>,
        sink: &mut FrameSink<'_>,
    ) -> Result<AnimationReport, AnimateError> {
        self.validate(job)?;
        let size_error = || self.model_error(&"a picture of that size cannot be resized");
        let options = self.options.chosen(&job.sampling);
        let parts = self.parts()?;
        let factor = self.blueprint.vae.factor();
        let (photo_width, photo_height) = (job.photo.width(), job.photo.height());
        let (width, height) = working_size(photo_width, photo_height, options.long_side, self.cell());
        let (w, h) = (width / factor, height / factor);

        let (text, regions) = self.texts(&parts, job, w, h)?;
        let negative = self.encode_text(&parts, &options.negative_prompt)?;
        let small = resized(&job.photo, width, height).ok_or_else(size_error)?;
        let pixels = to_tensor(&small, &self.device)?.to_dtype(parts.unet.dtype())?;
        let encoded = parts.vae.encode(&pixels, None).map_err(|error| self.model_error(&error))?;
        let first = encoded.squeeze(0)?.to_dtype(DType::F32)?;
        self.check(hooks)?;

        let moving = moving_mask(job)?;
        let magnitude = job.regions.iter().map(|region| region.magnitude.most()).fold(0.0, f64::max);
        let affinity: Vec<f64> = (0..job.frames)
            .map(|frame| {
                let here = job.regions.iter().map(|region| region.magnitude.at(frame)).fold(0.0, f64::max);
                affinity_at(here, frame, job.frames, job.ease == Ease::Loop)
            })
            .collect();
        let mask = to_latent(&moving, w, h, LatentMode::Max);
        let image = image_channels(options.layout, &first, &mask, &affinity)?;
        if job.ease != Ease::Linear && options.layout != ConditionLayout::Pia {
            let message = format!("{} decides the course of the motion itself; ease is not used", self.name);
            hooks.progress.event(Event::Notice { node: hooks.node.to_owned(), message });
        }
        if !self.blueprint.unet.strength_embedding && options.layout != ConditionLayout::Pia {
            let message =
                format!("{} has no control for how far things move; magnitude is not used", self.name);
            hooks.progress.event(Event::Notice { node: hooks.node.to_owned(), message });
        }
        let holds = options.pin_background || options.layout == ConditionLayout::None;
        let pin = holds.then(|| self.pin(&moving, &first, job.frames)).transpose()?;
        let channels = parts.vae.config().latent_channels;
        let noise =
            normal(job.seed, INITIAL_STREAM, &[job.frames, h, w, channels])?.to_device(&self.device)?;
        let steps = job.steps.unwrap_or(options.steps);
        let identity = self.identity(job, &options, steps);
        let request = ClipRequest {
            text: &text,
            negative: &negative,
            regions: &regions,
            image: image.as_ref(),
            strength: Some(magnitude * options.strength),
            pin: pin.as_ref(),
            noise: &noise,
            sampler: &options.sampler,
            guidance: options.guidance,
            steps,
            seed: job.seed,
            identity: &identity,
        };
        let colours = hooks.progress.wants_previews().then(|| Colours::of(&first, &small)).flatten();
        let mut seen = colours.map(|colours| {
            move |report: &StepReport<'_>| match colours.pictures(report.clean) {
                Ok(frames) => show(hooks, report.done, report.total, frames.iter()),
                Err(error) => tracing::debug!(%error, "no preview"),
            }
        });
        let seen = seen.as_mut().map(|seen| -> &mut StepHook<'_> { seen });
        let (latents, steps_run) = self.denoise_clip(&request, hooks, seen)?;

        let (out_width, out_height) = out_size(photo_width, photo_height, job.size);
        let backdrop = resized(&job.photo, out_width, out_height).ok_or_else(size_error)?;
        let blend = job.composite.then(|| {
            let grown = dilate(&moving, moving.width() as f32 / 64.0);
            let soft = feather(&grown, grown.width() as f32 / 64.0);
            to_latent(&soft, out_width, out_height, LatentMode::Area)
        });
        let blend = blend.and_then(|alpha| Mask::new(backdrop.width(), backdrop.height(), alpha).ok());
        let mut tiled = false;
        for frame in 0..job.frames {
            self.check(hooks)?;
            let latents = latents.narrow(0, frame, 1)?.to_dtype(parts.unet.dtype())?;
            let (pixels, in_tiles) =
                decode(&parts.vae, &latents, tiled).map_err(|error| self.model_error(&error))?;
            if in_tiles && !tiled {
                let message = "the card has no memory for a whole frame; decoding in tiles".to_owned();
                hooks.progress.event(Event::Notice { node: hooks.node.to_owned(), message });
            }
            tiled = in_tiles;
            let decoded = to_picture(&pixels)?;
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
