//! Drawing cases, rendering them and measuring.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Deserialize;

use super::measure::{CaseResult, FRAMES, Pool, fit, is_measurable, still_px};
use super::report::Report;
use super::scene::{Case, Dice, SIDE};
use crate::media::{Mask, Picture, Raster};
use crate::progress::{Event, NullProgress, Progress};
use crate::systems::follow_your_click::embedded::Embedded;
use crate::systems::follow_your_click::motions::{KINDS, Kind};
use crate::systems::follow_your_click::{
    AnimateError, Animator as _, ClickAnimation, Ease, Hooks, Region, SamplingChoice,
};

/// Frames of a case's clip.
const CLIP: usize = 16;

/// Prompts of a kind, `prompts.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Phrases {
    /// Used in training.
    pub train: Vec<String>,
    /// Never used in training.
    pub held_out: Vec<String>,
}

/// Prompts by kind name.
pub type Prompts = BTreeMap<String, Phrases>;

/// What to evaluate on.
#[derive(Debug)]
pub struct EvalOptions<'a> {
    /// Photographs the model never saw, with their names; at least one.
    pub photos: &'a [(String, Picture)],
    /// Prompts by kind.
    pub prompts: &'a Prompts,
    /// Cases to render.
    pub cases: usize,
    /// Denoise steps; `None` for the model's own default.
    pub steps: Option<usize>,
}

impl EvalOptions<'_> {
    /// Names everything a case's figures depend on but its number.
    pub fn identity(&self, model: &Embedded) -> String {
        let mut hash = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(env!("CARGO_PKG_VERSION").as_bytes());
        part(model.digest().as_bytes());
        part(&self.steps.unwrap_or(model.default_steps()).to_le_bytes());
        for (name, picture) in self.photos {
            part(name.as_bytes());
            part(&[picture.width().to_le_bytes(), picture.height().to_le_bytes()].concat());
            part(picture.rgb());
        }
        for (kind, phrases) in self.prompts {
            part(kind.as_bytes());
            for prompt in phrases.train.iter().chain(&phrases.held_out) {
                part(prompt.as_bytes());
            }
        }
        hash.finalize().to_hex().to_string()
    }
}

/// Why an evaluation could not run.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// Nothing to draw scenes from.
    #[error("no photographs to evaluate on; expected a folder with at least one picture")]
    NoPhotos,
    /// A kind without prompts.
    #[error("prompts.json has no {which} prompt for {kind:?}")]
    NoPrompt { kind: &'static str, which: &'static str },
    /// Scene after scene in which no motion could be seen.
    #[error("no measurable scene for {kind:?} in {tries} tries; the photographs are too flat")]
    Flat { kind: &'static str, tries: usize },
    /// A case could not be written down.
    #[error("cannot keep a measured case: {0}")]
    Keep(#[from] std::io::Error),
    /// The model failed on a case.
    #[error(transparent)]
    Animate(#[from] AnimateError),
}

/// Renders and measures, after the cases of `done`, which an earlier run with the same options
/// handed to `keep` in this order. Cancelling `progress` is an error between two cases.
pub fn evaluate(
    model: &Embedded,
    options: &EvalOptions<'_>,
    done: Vec<CaseResult>,
    keep: &mut dyn FnMut(&CaseResult) -> std::io::Result<()>,
    progress: &dyn Progress,
) -> Result<Report, EvalError> {
    if options.photos.is_empty() {
        return Err(EvalError::NoPhotos);
    }
    let photos: Vec<Picture> = options.photos.iter().map(|(_, picture)| picture.clone()).collect();
    let steps = options.steps.unwrap_or(model.default_steps());
    let mut results = done;
    results.truncate(options.cases);
    for index in results.len()..options.cases {
        if progress.cancelled() {
            return Err(AnimateError::Cancelled.into());
        }
        let case = draw(index, &photos, options.prompts)?;
        let result = measure(model, &case, steps)?;
        keep(&result)?;
        results.push(result);
        progress.event(Event::Step {
            node: "eval".into(),
            stage: "case",
            done: index + 1,
            total: options.cases,
        });
    }
    let names = options.photos.iter().map(|(name, _)| name.clone()).collect();
    Ok(Report::new(format!("{} {}", model.name(), model.digest()), steps, names, results))
}

/// Kinds take turns, magnitudes are spread evenly within each, every second prompt is unseen.
fn draw(index: usize, photos: &[Picture], prompts: &Prompts) -> Result<Case, EvalError> {
    const TRIES: usize = 40;
    let kind = KINDS[index % KINDS.len()];
    let round = index / KINDS.len();
    let held_out = (round + index) % 2 == 1;
    let magnitude = [0.6, 0.3, 0.9, 0.45, 0.75, 1.0, 0.35, 0.55, 0.85][round % 9];
    let mut dice = Dice::new(index as u64 + 1);
    let which = if held_out { "held_out" } else { "train" };
    let missing = EvalError::NoPrompt { kind: kind.name(), which };
    let phrases = prompts.get(kind.name()).ok_or(missing)?;
    let list = if held_out { &phrases.held_out } else { &phrases.train };
    let missing = EvalError::NoPrompt { kind: kind.name(), which };
    let prompt = list.get(dice.below(list.len())).ok_or(missing)?;
    for _ in 0..TRIES {
        if let Some(case) = Case::draw(&mut dice, photos, kind, magnitude, prompt.clone(), held_out)
            && is_measurable(&case)
        {
            return Ok(case);
        }
    }
    Err(EvalError::Flat { kind: kind.name(), tries: TRIES })
}

fn measure(model: &Embedded, case: &Case, steps: usize) -> Result<CaseResult, EvalError> {
    let lost =
        || AnimateError::Model { model: model.name().to_owned(), message: "a frame is missing".into() };
    let photo = case.photo().to_picture().ok_or_else(lost)?;
    let side = SIDE as u32;
    let mask = Mask::new(side, side, case.mask.data.clone()).map_err(|_| lost())?;
    let job = ClickAnimation {
        photo,
        regions: vec![Region { mask, prompt: case.prompt.clone(), magnitude: case.magnitude.into() }],
        frames: CLIP,
        ease: Ease::Linear,
        seed: 1,
        steps: Some(steps),
        guide: true,
        composite: true,
        size: None,
        sampling: SamplingChoice::default(),
    };
    let hooks = Hooks { progress: &NullProgress, node: "eval", checkpoint: None, resume: false };
    let began = Instant::now();
    let rendering = model.render(&job, &hooks)?;
    let scene = rendering.scene(&job, SIDE, SIDE);
    let product: Vec<(usize, Raster)> = [0]
        .into_iter()
        .chain(FRAMES)
        .map(|t| Ok((t, rendering.composed(&scene, t).ok_or_else(lost)?)))
        .collect::<Result<_, AnimateError>>()?;
    let seconds = began.elapsed().as_secs_f64();
    let undenoised: Vec<Raster> = FRAMES
        .into_iter()
        .map(|t| rendering.undenoised(&scene, t).ok_or_else(lost))
        .collect::<Result<_, AnimateError>>()?;

    let truths: Vec<(Raster, Raster)> =
        (0..CLIP).map(|t| case.frame(case.kind, case.magnitude, t as f64 / (CLIP - 1) as f64)).collect();
    let mut swept = case.mask.clone();
    for (_, alpha) in &truths {
        swept.data.iter_mut().zip(&alpha.data).for_each(|(s, &a)| *s = s.max(a));
    }
    // What the denoiser may touch is a little more than what moved.
    let swept = swept.dilated(4);

    let looked_at: Vec<&Raster> = FRAMES.iter().filter_map(|&t| truths.get(t)).map(|(p, _)| p).collect();
    let through = model.reconstruct(&looked_at)?;
    let warp = rendering.pure_warp(&job, &FRAMES);
    let warp = model.reconstruct(&warp.iter().collect::<Vec<_>>())?;

    let [mut outside, mut outside_ae] = [Pool::default(); 2];
    let [mut inside, mut inside_warp, mut inside_product, mut inside_undenoised] = [Pool::default(); 4];
    let [mut uncovered, mut uncovered_warp, mut uncovered_product, mut uncovered_undenoised] =
        [Pool::default(); 4];
    for (i, &t) in FRAMES.iter().enumerate() {
        let (Some((truth, alpha)), Some(decoded)) = (truths.get(t), rendering.decoded.get(t)) else {
            continue;
        };
        let is_outside = |at: usize| swept.data[at] < 0.01;
        let is_inside = |at: usize| alpha.data[at] > 0.5;
        let is_uncovered = |at: usize| case.mask.data[at] > 0.5 && alpha.data[at] < 0.05;
        outside.add(decoded, truth, is_outside);
        outside_ae.add(&through[i], truth, is_outside);
        inside.add(decoded, truth, is_inside);
        inside_warp.add(&warp[i], truth, is_inside);
        inside_product.add(&product[i + 1].1, truth, is_inside);
        inside_undenoised.add(&undenoised[i], truth, is_inside);
        uncovered.add(decoded, truth, is_uncovered);
        uncovered_warp.add(&warp[i], truth, is_uncovered);
        uncovered_product.add(&product[i + 1].1, truth, is_uncovered);
        uncovered_undenoised.add(&undenoised[i], truth, is_uncovered);
    }
    let whole = |a: &Raster, b: &Raster| {
        let mut pool = Pool::default();
        pool.add(a, b, |_| true);
        pool.db().unwrap_or(0.0)
    };
    let still = &truths[0].0;
    let input = model.reconstruct(&[still])?;
    let clip: Vec<(usize, &Raster)> = product.iter().skip(1).map(|(t, r)| (*t, r)).collect();
    let found = fit(case, &clip);
    let is_still = case.kind == Kind::Still;
    Ok(CaseResult {
        kind: case.kind.name().to_owned(),
        magnitude: case.magnitude,
        prompt: case.prompt.clone(),
        held_out: case.held_out,
        understood: rendering.report.understood.concat(),
        measured_kind: found.kind.name().to_owned(),
        factor: (!is_still).then_some(found.factor),
        still_px: is_still.then(|| still_px(case, &clip)),
        frame0_db: whole(&product[0].1, still),
        autoencoder_input_db: whole(&input[0], still),
        outside_db: outside.db(),
        outside_autoencoder_db: outside_ae.db(),
        inside_db: inside.db(),
        inside_warp_db: inside_warp.db(),
        inside_product_db: inside_product.db(),
        inside_undenoised_db: inside_undenoised.db(),
        uncovered_db: uncovered.db(),
        uncovered_warp_db: uncovered_warp.db(),
        uncovered_product_db: uncovered_product.db(),
        uncovered_undenoised_db: uncovered_undenoised.db(),
        seconds,
    })
}
