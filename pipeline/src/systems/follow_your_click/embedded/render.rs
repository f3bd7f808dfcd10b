//! One job through the embedded model.

use candle_core::{DType, Tensor};

use super::load::Embedded;
use super::preview::{Previews, show_decoded};
use crate::media::Raster;
use crate::nets::mini::{FrameField, Motion};
use crate::nets::unet_motion::UnetMotionInput;
use crate::progress::{Event, NullProgress};
use crate::sampling::denoise::{self, CheckpointPolicy, DenoiseError, DenoiseSpec, StepHook, StepReport};
use crate::sampling::noise::clip_normal;
use crate::sampling::schedulers::flow::{FlowEuler, FlowOptions, FlowSpacing};
use crate::sampling::{Prediction, Scheduler as _};
use crate::systems::follow_your_click::background::{textured, union};
use crate::systems::follow_your_click::detail::{Decoded, compose};
use crate::systems::follow_your_click::guide::{
    Displacement, GuideFrame, Layer, Scene, View, hole_of, push_pull,
};
use crate::systems::follow_your_click::scenery::is_scenery;
use crate::systems::follow_your_click::{
    AnimateError, AnimationReport, Animator, ClickAnimation, FrameSink, Hooks, frame_phases,
};

/// Longer side of the finest frames made from a larger photograph.
const MAX_SIDE: u32 = 3840;

/// Nodes of the lattice on which a displacement is kept for warping; fields are smooth, and the
/// finest wave has 80 nodes.
const LATTICE: usize = 256;

/// Frames encoded or decoded at once: enough to keep two cores busy, little enough memory.
const BATCH: usize = 4;

/// A displacement read from a lattice over the picture.
#[derive(Debug)]
struct Lattice {
    view: View,
    nodes: Raster,
    /// Longest displacement at the nodes, field units.
    reach: f32,
}

impl Lattice {
    fn of(field: &FrameField, extent: [f32; 2]) -> Self {
        let view = View { width: LATTICE, height: LATTICE, extent };
        let mut nodes = Raster::zeros(LATTICE, LATTICE, 2);
        nodes.par_rows(|row, numbers| {
            for (column, out) in numbers.chunks_exact_mut(2).enumerate() {
                let [x, y] = view.point(column, row);
                out.copy_from_slice(&field.at(x, y));
            }
        });
        let reach = nodes.data.chunks_exact(2).fold(0.0f32, |m, d| m.max(d[0].hypot(d[1])));
        Self { view, nodes, reach }
    }
}

impl Displacement for Lattice {
    fn at(&self, x: f32, y: f32) -> [f32; 2] {
        let [column, row] = self.view.pixel([x, y]);
        let mut out = [0.0; 2];
        self.nodes.bilinear(column, row, &mut out);
        out
    }
}

/// A clip at the network's size, with what is needed to bring it to any other.
#[derive(Debug)]
pub struct Rendering {
    /// Warped photograph, moved masks and validity of each frame.
    pub guide: Vec<GuideFrame>,
    /// Decoded frames, three channels, -1..=1.
    pub decoded: Vec<Raster>,
    /// The guide through encoder and decoder.
    pub guide_decoded: Vec<Raster>,
    /// The painted background at the network's size.
    pub plate: Raster,
    /// The background in the photograph's own texture, finer than the plate.
    background: Raster,
    /// What the prompts were understood as, and how many steps ran.
    pub report: AnimationReport,
    view: View,
    gated: Vec<bool>,
    /// `[frame][region]`.
    motions: Vec<Vec<Lattice>>,
}

/// A prompt as the networks read it.
struct Phrase {
    hidden: Tensor,
    pooled: Tensor,
    understood: String,
}

impl Embedded {
    /// The network's frame size for a photograph: its aspect, the area the model was trained with,
    /// sides that are multiples of what the UNet can halve.
    pub fn working_size(&self, width: u32, height: u32) -> (usize, usize) {
        let multiple = self.autoencoder.config().factor() * self.config.unet.latent_multiple();
        let aspect = f64::from(width) / f64::from(height);
        let side = (self.config.area as f64).sqrt();
        let round = |v: f64| ((v / multiple as f64).round().max(1.0) as usize) * multiple;
        // A panorama is worked on narrower than it is rather than in enormous strips.
        let aspect = aspect.clamp(0.25, 4.0);
        (round(side * aspect.sqrt()), round(side / aspect.sqrt()))
    }

    /// Token ids of a prompt, padded to what the text encoder reads.
    fn tokens(&self, index: usize, prompt: &str) -> Result<Vec<u32>, AnimateError> {
        let limit = self.text.config().max_position_embeddings;
        let tokens = self.tokenizer.encode(prompt, limit).map_err(|error| self.model_error(&error))?;
        if tokens.truncated {
            let model = self.config.model.clone();
            let limit = limit - 2;
            return Err(AnimateError::PromptTooLong { index, tokens: tokens.tokens, limit, model });
        }
        Ok(tokens.ids)
    }

    fn phrase(&self, index: usize, prompt: &str) -> Result<Phrase, AnimateError> {
        let ids = self.tokens(index, prompt)?;
        let ids = Tensor::from_vec(ids, (1, self.text.config().max_position_embeddings), &self.device)?;
        let caption = self.text.forward(&ids).map_err(|error| self.model_error(&error))?;
        let understood = caption.kinds.first().map(|kinds| self.understood(kinds)).unwrap_or_default();
        Ok(Phrase { hidden: caption.hidden, pooled: caption.pooled, understood })
    }

    /// The motions whose probability passes the threshold, most probable first; empty for none.
    fn understood(&self, probabilities: &[f32]) -> String {
        let mut named: Vec<(f32, &str)> = probabilities
            .iter()
            .copied()
            .zip(self.config.kinds.iter().map(String::as_str))
            .filter(|(probability, _)| *probability >= self.config.kind_threshold)
            .collect();
        named.sort_by(|a, b| b.0.total_cmp(&a.0));
        named.truncate(2);
        named.into_iter().map(|(_, kind)| kind.replace('_', " ")).collect::<Vec<_>>().join(" and ")
    }

    /// Renders a job at the network's size.
    pub fn render(&self, job: &ClickAnimation, hooks: &Hooks<'_>) -> Result<Rendering, AnimateError> {
        self.validate(job)?;
        let view = View::of(job.photo.width() as usize, job.photo.height() as usize);
        let (width, height) = self.working_size(job.photo.width(), job.photo.height());
        let small = view.resized(width, height);
        let phases = frame_phases(job.ease, job.frames);

        let mut phrases = Vec::with_capacity(job.regions.len());
        for (index, region) in job.regions.iter().enumerate() {
            let phrase = self.phrase(index, &region.prompt)?;
            if phrase.understood.is_empty() {
                let message = format!(
                    "no motion word recognised in {:?}; try e.g. \"drift left\", \"turn clockwise\", \"grow\", \"sway\"",
                    region.prompt
                );
                hooks.progress.event(Event::Notice { node: hooks.node.to_owned(), message });
            }
            phrases.push(phrase);
        }
        let moves: Vec<Motion> = job
            .regions
            .iter()
            .zip(&phrases)
            .map(|(region, phrase)| {
                // The field reads the mask in the picture's own aspect, which the working size rounds.
                let longer = (self.config.area as f64).sqrt();
                let scale = longer / f64::from(job.photo.width().max(job.photo.height()));
                let side = |v: u32| ((f64::from(v) * scale).round() as usize).max(1);
                let mask = Raster::from_mask(&region.mask)
                    .resized(side(region.mask.width()), side(region.mask.height()));
                self.field.predict(&mask, &phrase.pooled, &region.magnitude.frames(job.frames), &phases)
            })
            .collect::<Result<_, _>>()?;

        let gated: Vec<bool> = moves
            .iter()
            .zip(&job.regions)
            .map(|(m, region)| m.gate > 0.5 || is_scenery(&Raster::from_mask(&region.mask)))
            .collect();
        let photo = Raster::from_picture(&job.photo).resized(width, height);
        let layers: Vec<Layer> = job
            .regions
            .iter()
            .zip(&gated)
            .map(|(region, &gated)| {
                let mask = Raster::from_mask(&region.mask).resized(width, height);
                Layer { hole: hole_of(&mask), mask, gated }
            })
            .collect();
        let plate = self.paint(&photo, &layers)?;
        let background = if job.composite {
            textured(job, &gated, [view.width, view.height], &plate)
        } else {
            plate.clone()
        };
        let motions: Vec<Vec<Lattice>> = (0..job.frames)
            .map(|frame| {
                moves
                    .iter()
                    .filter_map(|m| m.frames.get(frame))
                    .map(|f| Lattice::of(f, view.extent))
                    .collect()
            })
            .collect();
        let scene = Scene { view: small, photo, plate, layers, sharp: false };
        let guide: Vec<GuideFrame> = motions.iter().map(|m| scene.frame(m)).collect();

        let guide_latents = self.encode(&guide, hooks)?;
        let (latents, steps_run) = self.denoise(job, hooks, &scene, &guide, &guide_latents, &phrases)?;
        let decoded = self.decode(&latents, "decode", hooks)?;
        show_decoded(hooks, job.steps.unwrap_or(self.config.default_steps), &decoded);
        let guide_decoded =
            if job.composite { self.decode(&guide_latents, "detail", hooks)? } else { Vec::new() };
        let report = AnimationReport {
            understood: phrases.into_iter().map(|p| p.understood).collect(),
            width: job.photo.width(),
            height: job.photo.height(),
            frames: job.frames,
            steps_run,
        };
        Ok(Rendering {
            guide,
            decoded,
            guide_decoded,
            plate: scene.plate,
            background,
            report,
            view,
            gated,
            motions,
        })
    }

    /// The photograph without its moving things: filled smoothly, then painted.
    fn paint(&self, photo: &Raster, layers: &[Layer]) -> Result<Raster, AnimateError> {
        let holes = layers.iter().filter(|layer| !layer.gated).map(|layer| &layer.hole);
        let hole = union(holes, photo.width, photo.height);
        if hole.data.iter().all(|&v| v == 0.0) {
            return Ok(photo.clone());
        }
        let known = Raster { data: hole.data.iter().map(|h| 1.0 - h).collect(), ..hole.clone() };
        let filled = push_pull(photo, &known);
        let painted = self.plate.forward(&self.planes(&filled)?, &self.planes(&hole)?)?;
        let painted = painted.permute((0, 2, 3, 1))?.flatten_all()?.to_vec1::<f32>()?;
        Ok(Raster { data: painted.into_iter().map(|v| v.clamp(-1.0, 1.0)).collect(), ..filled })
    }

    /// `[1, channels, height, width]`.
    fn planes(&self, raster: &Raster) -> Result<Tensor, AnimateError> {
        let shape = (1, raster.height, raster.width, raster.channels);
        Ok(Tensor::from_slice(&raster.data, shape, &self.device)?.permute((0, 3, 1, 2))?.contiguous()?)
    }

    /// Latents of the guide's pictures, `[frames, h, w, c]`.
    fn encode(&self, guide: &[GuideFrame], hooks: &Hooks<'_>) -> Result<Tensor, AnimateError> {
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
    fn decode(
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
    fn denoise(
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

    fn check(&self, hooks: &Hooks<'_>) -> Result<(), AnimateError> {
        if hooks.progress.cancelled() { Err(AnimateError::Cancelled) } else { Ok(()) }
    }

    fn step(&self, hooks: &Hooks<'_>, stage: &'static str, done: usize, total: usize) {
        hooks.progress.event(Event::Step { node: hooks.node.to_owned(), stage, done, total });
    }

    fn model_error(&self, error: &dyn std::fmt::Display) -> AnimateError {
        AnimateError::Model { model: self.config.model.clone(), message: error.to_string() }
    }
}

impl Rendering {
    /// One frame at the size of `scene`, which [`Rendering::scene`] made.
    pub fn composed(&self, scene: &Scene, frame: usize) -> Option<Raster> {
        self.compose_with(scene, frame, self.decoded.get(frame)?)
    }

    /// The same without what the denoiser changed: what warp, texture and detail do alone.
    pub fn undenoised(&self, scene: &Scene, frame: usize) -> Option<Raster> {
        self.compose_with(scene, frame, self.guide_decoded.get(frame)?)
    }

    fn compose_with(&self, scene: &Scene, frame: usize, decoded: &Raster) -> Option<Raster> {
        let motions = self.motions.get(frame)?;
        let pixels = 256.0 / 2.0;
        let motion = motions.iter().fold(0.0f32, |m, d| m.max((d.reach * pixels / 2.0).min(1.0)));
        let decoded = Decoded {
            frame: decoded,
            guide_decoded: self.guide_decoded.get(frame)?,
            guide: self.guide.get(frame)?,
            motion,
        };
        Some(compose(&decoded, &scene.frame(motions)))
    }

    /// Displacement of a region at a point of a frame, both in field units; `None` for a frame or region there is not.
    pub fn displacement(&self, frame: usize, region: usize, x: f32, y: f32) -> Option<[f32; 2]> {
        Some(self.motions.get(frame)?.get(region)?.at(x, y))
    }

    /// What warping alone gives at the network's size, holes filled smoothly: the baseline that
    /// the painted plate and the denoiser must beat.
    pub fn pure_warp(&self, job: &ClickAnimation, frames: &[usize]) -> Vec<Raster> {
        let mut scene = self.scene(job, self.plate.width, self.plate.height);
        scene.sharp = false;
        let mut known = Raster {
            data: vec![1.0; self.plate.width * self.plate.height],
            channels: 1,
            ..self.plate.clone()
        };
        for layer in scene.layers.iter().filter(|layer| !layer.gated) {
            known.data.iter_mut().zip(&layer.hole.data).for_each(|(k, &h)| *k = k.min(1.0 - h));
        }
        scene.plate = push_pull(&scene.photo, &known);
        frames.iter().filter_map(|&t| self.motions.get(t)).map(|m| scene.frame(m).picture).collect()
    }

    /// The job's scene at a final size.
    pub fn scene(&self, job: &ClickAnimation, width: usize, height: usize) -> Scene {
        let layers = job
            .regions
            .iter()
            .zip(&self.gated)
            .map(|(region, &gated)| {
                let mask = Raster::from_mask(&region.mask).resized(width, height);
                Layer { hole: hole_of(&mask), mask, gated }
            })
            .collect();
        Scene {
            view: self.view.resized(width, height),
            photo: Raster::from_picture(&job.photo).resized(width, height),
            plate: self.background.resized(width, height),
            layers,
            sharp: true,
        }
    }
}

impl Animator for Embedded {
    fn name(&self) -> &str {
        &self.config.model
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn max_frames(&self) -> usize {
        self.config.frames
    }

    fn default_steps(&self) -> usize {
        self.config.default_steps
    }

    fn check_prompts(&self, job: &ClickAnimation) -> Result<(), AnimateError> {
        job.regions
            .iter()
            .enumerate()
            .try_for_each(|(index, region)| self.tokens(index, &region.prompt).map(drop))
    }

    fn animate(
        &self,
        job: &ClickAnimation,
        hooks: &Hooks<'_>,
        sink: &mut FrameSink<'_>,
    ) -> Result<AnimationReport, AnimateError> {
        let mut rendering = self.render(job, hooks)?;
        let (width, height) = final_size(job);
        let scene = job.composite.then(|| rendering.scene(job, width, height));
        for frame in 0..job.frames {
            self.check(hooks)?;
            let picture = match &scene {
                Some(scene) => rendering.composed(scene, frame),
                None => rendering.decoded.get(frame).map(|small| small.resized(width, height)),
            };
            let picture = picture
                .and_then(|raster| raster.to_picture())
                .ok_or_else(|| self.model_error(&format!("frame {frame} was not rendered")))?;
            sink(picture).map_err(|source| AnimateError::Sink { frame, source })?;
            self.step(hooks, "compose", frame + 1, job.frames);
        }
        (rendering.report.width, rendering.report.height) = (width as u32, height as u32);
        Ok(rendering.report)
    }
}

/// Size of the finished frames: even sides, as every video format wants them.
fn final_size(job: &ClickAnimation) -> (usize, usize) {
    let (w, h) = (job.photo.width(), job.photo.height());
    let longer = job.size.unwrap_or(w.max(h)).clamp(16, MAX_SIDE);
    let scale = f64::from(longer) / f64::from(w.max(h));
    let even = |v: u32| ((f64::from(v) * scale / 2.0).round().max(1.0) as usize) * 2;
    (even(w), even(h))
}

/// Means of mask and validity over each latent cell, interleaved.
fn cell_means(mask: &Raster, valid: &Raster, w: usize, h: usize) -> Vec<f32> {
    let (mask, valid) = (mask.resized(w, h), valid.resized(w, h));
    mask.data.iter().zip(&valid.data).flat_map(|(&m, &v)| [m, v]).collect()
}
