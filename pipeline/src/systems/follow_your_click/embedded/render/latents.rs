//! A clip in latent space: pictures encoded, denoised over the guide, and decoded.

use candle_core::{DType, Tensor};

use super::Phrase;
use crate::media::Raster;
use crate::nets::unet_motion::UnetMotionInput;
use crate::progress::NullProgress;
use crate::sampling::denoise::{self, CheckpointPolicy, DenoiseError, DenoiseSpec, StepHook, StepReport};
use crate::sampling::noise::clip_normal;
use crate::sampling::schedulers::flow::{FlowEuler, FlowOptions, FlowSpacing};
use crate::sampling::{Prediction, Scheduler as _};
use crate::systems::follow_your_click::embedded::load::Embedded;
use crate::systems::follow_your_click::embedded::preview::Previews;
use crate::systems::follow_your_click::guide::{GuideFrame, Scene};
use crate::systems::follow_your_click::{AnimateError, ClickAnimation, Hooks};

/// Frames encoded or decoded at once: enough to keep two cores busy, little enough memory.
const BATCH: usize = 4;

impl Embedded {
    /// Latents of the guide's pictures, `[frames, h, w, c]`.
    pub(super) fn encode(&self, guide: &[GuideFrame], hooks: &Hooks<'_>) -> Result<Tensor, AnimateError> {
        let mut latents = Vec::new();
        for (batch, frames) in guide.chunks(BATCH).enumerate() {
            self.check(hooks)?;
            let pictures: Vec<f32> = frames.iter().flat_map(|f| f.picture.data.iter().copied()).collect();
            let Some(first) = frames.first() else { continue };
            let shape = (frames.len(), first.picture.height, first.picture.width, 3);
            let pictures = Tensor::from_vec(pictures, shape, &self.device)?;
            latents.push(self.autoencoder.encode(&pictures).map_err(|e| self.model_error(&e))?);
            self.step(hooks, "encode", (batch * BATCH + frames.len()).min(guide.len()), guide.len());
        }
        Ok(Tensor::cat(&latents, 0)?)
    }

    /// Pictures of latents, -1..=1 before clamping.
    pub(super) fn decode(
        &self,
        latents: &Tensor,
        stage: &'static str,
        hooks: &Hooks<'_>,
    ) -> Result<Vec<Raster>, AnimateError> {
        let frames = latents.dim(0)?;
        let mut out = Vec::with_capacity(frames);
        for start in (0..frames).step_by(BATCH) {
            self.check(hooks)?;
            let count = BATCH.min(frames - start);
            let pictures = self
                .autoencoder
                .decode(&latents.narrow(0, start, count)?)
                .map_err(|e| self.model_error(&e))?;
            let (_, height, width, channels) = pictures.dims4()?;
            for frame in 0..count {
                let values = pictures.get(frame)?.flatten_all()?.to_vec1::<f32>()?;
                let data = values.into_iter().map(|v| v.clamp(-1.0, 1.0)).collect();
                out.push(Raster { width, height, channels, data });
            }
            self.step(hooks, stage, start + count, frames);
        }
        Ok(out)
    }

    /// Samples the residual and adds what it is a residual to.
    pub(super) fn denoise(
        &self,
        job: &ClickAnimation,
        hooks: &Hooks<'_>,
        scene: &Scene,
        guide: &[GuideFrame],
        guide_latents: &Tensor,
        phrases: &[Phrase],
    ) -> Result<(Tensor, usize), AnimateError> {
        let steps = job.steps.unwrap_or(self.config.default_steps);
        let (frames, h, w, c) = guide_latents.dims4()?;
        // The plain path sees frame 0 on every frame and the mask where it was clicked.
        let (base, masks) = if job.guide {
            let pairs = guide.iter().map(|g| (g.mask.clone(), g.valid.clone())).collect::<Vec<_>>();
            (guide_latents.clone(), pairs)
        } else {
            let first = guide_latents.narrow(0, 0, 1)?.repeat((frames, 1, 1, 1))?;
            let mut mask = Raster::zeros(scene.view.width, scene.view.height, 1);
            for layer in &scene.layers {
                mask.data.iter_mut().zip(&layer.mask.data).for_each(|(m, &l)| *m = m.max(l));
            }
            let nothing = Raster::zeros(scene.view.width, scene.view.height, 1);
            (first, vec![(mask, nothing); frames])
        };
        let maps: Vec<f32> = masks.iter().flat_map(|(mask, valid)| cell_means(mask, valid, w, h)).collect();
        let maps = Tensor::from_vec(maps, (frames, h, w, 2), &self.device)?;
        let hidden: Vec<&Tensor> = phrases.iter().map(|p| &p.hidden).collect();
        let text = Tensor::cat(&hidden, 1)?;
        // One number for the clip: what its regions reach on average.
        let reached = job.regions.iter().map(|region| region.magnitude.most()).sum::<f64>();
        let strength = reached / job.regions.len().max(1) as f64;
        let strength = [strength * self.config.strength_scale];

        let options = FlowOptions {
            prediction: Prediction::Sample,
            spacing: FlowSpacing::Uniform,
            shift: 1.0,
            time_scale: self.config.timestep_scale,
        };
        let internal = |message: String| AnimateError::Model { model: self.config.model.clone(), message };
        let mut scheduler = FlowEuler::new(steps, &options).map_err(|e| internal(e.to_string()))?;
        let noise = clip_normal(job.seed, &[frames, h, w, c], 0.5)?.to_device(&self.device)?;
        let mut network = |sample: &Tensor, timestep: f64| -> candle_core::Result<Tensor> {
            let input = Tensor::cat(&[sample, &base, &maps], 3)?.unsqueeze(0)?;
            let timesteps = [timestep];
            let input = UnetMotionInput {
                strength: Some(&strength),
                ..UnetMotionInput::new(&input, &timesteps, &text)
            };
            self.unet.forward(&input).map_err(candle_core::Error::wrap)?.squeeze(0)
        };
        let spec = DenoiseSpec {
            seed: job.seed,
            job: self.identity(job, steps),
            start: 0,
            checkpoint: hooks.checkpoint.map(|folder| CheckpointPolicy {
                path: folder.join("denoise.safetensors"),
                every: 1,
                resume: hooks.resume,
            }),
        };
        let mut previews = Previews::begin(self, hooks, guide, &base, steps);
        let mut seen = previews.as_mut().map(|previews| |report: &StepReport<'_>| previews.step(report));
        let mut inner = denoise::Hooks::new(hooks.progress, hooks.node);
        inner.step = seen.as_mut().map(|seen| -> &mut StepHook<'_> { seen });
        let outcome = denoise::run(&spec, &mut network, &mut scheduler, &noise, &mut inner).map_err(
            |error| match error {
                DenoiseError::Cancelled { .. } => AnimateError::Cancelled,
                DenoiseError::Network { source, .. } => AnimateError::Compute(source),
                DenoiseError::Checkpoint(inner) => AnimateError::Checkpoint {
                    path: hooks.checkpoint.map(|p| p.display().to_string()).unwrap_or_default(),
                    message: inner.to_string(),
                },
                other => internal(other.to_string()),
            },
        )?;
        let steps_run = steps - outcome.resumed_from.unwrap_or(0).min(scheduler.timesteps().len());
        Ok(((base + outcome.latents)?.to_dtype(DType::F32)?, steps_run))
    }

    /// Hash over everything that decides the denoised latents.
    fn identity(&self, job: &ClickAnimation, steps: usize) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(self.digest.as_bytes()).update(job.photo.rgb());
        for number in [u64::from(job.photo.width()), u64::from(job.photo.height()), job.seed, steps as u64] {
            hash.update(&number.to_le_bytes());
        }
        hash.update(&[u8::from(job.guide)]).update(format!("{:?} {}", job.ease, job.frames).as_bytes());
        for region in &job.regions {
            hash.update(&(region.prompt.len() as u64).to_le_bytes()).update(region.prompt.as_bytes());
            for magnitude in region.magnitude.frames(job.frames) {
                hash.update(&magnitude.to_le_bytes());
            }
            for alpha in region.mask.alpha() {
                hash.update(&alpha.to_le_bytes());
            }
        }
        hash.finalize().to_hex().to_string()
    }

    /// Pictures through encoder and decoder: the best any clip of this model can look.
    pub fn reconstruct(&self, pictures: &[&Raster]) -> Result<Vec<Raster>, AnimateError> {
        let quiet = Hooks { progress: &NullProgress, node: "", checkpoint: None, resume: false };
        let mut out = Vec::with_capacity(pictures.len());
        for picture in pictures {
            let shape = (1, picture.height, picture.width, 3);
            let tensor = Tensor::from_slice(&picture.data, shape, &self.device)?;
            let latents = self.autoencoder.encode(&tensor).map_err(|e| self.model_error(&e))?;
            out.extend(self.decode(&latents, "decode", &quiet)?);
        }
        Ok(out)
    }
}

/// Means of mask and validity over each latent cell, interleaved.
fn cell_means(mask: &Raster, valid: &Raster, w: usize, h: usize) -> Vec<f32> {
    let (mask, valid) = (mask.resized(w, h), valid.resized(w, h));
    mask.data.iter().zip(&valid.data).flat_map(|(&m, &v)| [m, v]).collect()
}
