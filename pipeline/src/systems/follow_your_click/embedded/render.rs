//! One job through the embedded model.

mod latents;
mod rendering;

use candle_core::Tensor;

pub use rendering::Rendering;

use rendering::Lattice;

use super::load::Embedded;
use super::preview::show_decoded;
use crate::media::Raster;
use crate::nets::mini::Motion;
use crate::progress::Event;
use crate::systems::follow_your_click::background::{textured, union};
use crate::systems::follow_your_click::guide::{GuideFrame, Layer, Scene, View, hole_of, push_pull};
use crate::systems::follow_your_click::scenery::is_scenery;
use crate::systems::follow_your_click::{
    AnimateError, AnimationReport, Animator, ClickAnimation, FrameSink, Hooks, frame_phases,
};

/// Longer side of the finest frames made from a larger photograph.
const MAX_SIDE: u32 = 3840;

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
