//! Stand-ins for the models, so that documents run in milliseconds: a click is a disc, an
//! animation shifts the masked pixels.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kinora_pipeline::media::{Mask, Picture};
use kinora_pipeline::progress::{CancelToken, Event, Progress};
use kinora_pipeline::store::cache::Cache;
use kinora_pipeline::systems::follow_your_click::{
    AnimateError, AnimationReport, Animator, ClickAnimation, FrameSink, Hooks,
};
use kinora_pipeline::workflow::{
    Document, DocumentError, Engines, MaskQuery, ModelName, Plan, RunContext, RunError, RunOptions,
    RunReport, SystemClock,
};

pub(crate) const MAX_TOKENS: usize = 77;

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) clicks: AtomicUsize,
    pub(crate) renders: AtomicUsize,
    pub(crate) steps: AtomicUsize,
}

pub(crate) struct Shifter {
    counts: Arc<Counts>,
}

impl Animator for Shifter {
    fn name(&self) -> &str {
        "shifter"
    }

    fn digest(&self) -> &str {
        "shifter-1"
    }

    fn max_frames(&self) -> usize {
        16
    }

    fn default_steps(&self) -> usize {
        4
    }

    fn validate(&self, job: &ClickAnimation) -> Result<(), AnimateError> {
        if !(2..=self.max_frames()).contains(&job.frames) {
            return Err(AnimateError::Frames { model: "shifter".into(), max: 16, got: job.frames });
        }
        for (index, region) in job.regions.iter().enumerate() {
            let tokens = region.prompt.split_whitespace().count() + 2;
            if tokens > MAX_TOKENS {
                let model = "shifter".into();
                return Err(AnimateError::PromptTooLong { index, tokens, limit: MAX_TOKENS, model });
            }
        }
        Ok(())
    }

    /// Four "steps", each kept as a file, then frames that depend on what the steps left.
    fn animate(
        &self,
        job: &ClickAnimation,
        hooks: &Hooks<'_>,
        sink: &mut FrameSink<'_>,
    ) -> Result<AnimationReport, AnimateError> {
        self.counts.renders.fetch_add(1, Ordering::SeqCst);
        let place = hooks.checkpoint.map(|folder| folder.join("state"));
        let kept = place.as_ref().filter(|_| hooks.resume).and_then(|path| std::fs::read(path).ok());
        let mut state = kept.unwrap_or_default();
        let before = state.len();
        while state.len() < 4 {
            if hooks.progress.cancelled() {
                return Err(AnimateError::Cancelled);
            }
            state.push((job.seed as u8).wrapping_mul(31).wrapping_add(state.len() as u8));
            self.counts.steps.fetch_add(1, Ordering::SeqCst);
            if let Some(place) = &place {
                std::fs::write(place, &state).unwrap();
            }
            hooks.progress.event(Event::Step {
                node: hooks.node.into(),
                stage: "denoise",
                done: state.len(),
                total: 4,
            });
        }
        let (width, height) = (job.photo.width() as usize, job.photo.height() as usize);
        for frame in 0..job.frames {
            let mut picture = job.photo.clone();
            for region in &job.regions {
                let shift = (frame as f64 * region.magnitude.at(frame) * 4.0) as usize;
                for y in 0..height {
                    for x in 0..width {
                        if region.mask.alpha()[y * width + x] > 0.5 {
                            let from = (y * width + (x + width - shift % width) % width) * 3;
                            let to = (y * width + x) * 3;
                            for c in 0..3 {
                                picture.rgb_mut()[to + c] = job.photo.rgb()[from + c] ^ (state[3] & 1);
                            }
                        }
                    }
                }
            }
            sink(picture).map_err(|source| AnimateError::Sink { frame, source })?;
        }
        Ok(AnimationReport {
            understood: vec!["shift".into()],
            width: width as u32,
            height: height as u32,
            frames: job.frames,
            steps_run: 4 - before,
        })
    }
}

#[derive(Default)]
pub(crate) struct Fakes {
    pub(crate) counts: Arc<Counts>,
}

impl Engines for Fakes {
    fn animator(&self, model: &ModelName<'_>) -> Result<Arc<dyn Animator>, AnimateError> {
        if model.name == ModelName::EMBEDDED {
            return Ok(Arc::new(Shifter { counts: Arc::clone(&self.counts) }));
        }
        let message = "not installed; kinora models pull".into();
        Err(AnimateError::Model { model: model.name.into(), message })
    }

    fn click(&self, picture: &Picture, query: &MaskQuery<'_>) -> Result<Mask, RunError> {
        self.counts.clicks.fetch_add(1, Ordering::SeqCst);
        let (width, height) = (picture.width(), picture.height());
        let radius = f64::from(width.min(height)) * 0.15;
        let alpha = (0..width * height)
            .map(|i| {
                let (x, y) = (f64::from(i % width), f64::from(i / width));
                let near = query.points.iter().any(|p| {
                    p.keep && (x - p.x * f64::from(width)).hypot(y - p.y * f64::from(height)) < radius
                });
                f32::from(near)
            })
            .collect();
        Mask::new(width, height, alpha).map_err(|error| RunError::input(error.to_string()))
    }

    fn click_digest(&self) -> String {
        "disc-1".into()
    }

    fn refine(&self, mask: Mask, _dilate: f64, _feather: f64) -> Result<Mask, RunError> {
        Ok(mask)
    }

    fn numeric_path(&self) -> String {
        "test f32".into()
    }
}

/// Cancels once `after` events of stage "denoise" have come.
pub(crate) struct Watch {
    pub(crate) cancel: CancelToken,
    pub(crate) after: Option<usize>,
    pub(crate) events: std::sync::Mutex<Vec<Event>>,
}

impl Watch {
    pub(crate) fn new(after: Option<usize>) -> Self {
        Self { cancel: CancelToken::default(), after, events: Default::default() }
    }

    pub(crate) fn cached(&self) -> Vec<(String, bool)> {
        let events = self.events.lock().unwrap();
        let finished = events.iter().filter_map(|event| match event {
            Event::NodeFinished { node, cached, .. } => Some((node.clone(), *cached)),
            _ => None,
        });
        finished.collect()
    }
}

impl Progress for Watch {
    fn event(&self, event: Event) {
        if let Event::Step { stage: "denoise", done, .. } = &event
            && self.after.is_some_and(|after| *done >= after)
        {
            self.cancel.cancel();
        }
        self.events.lock().unwrap().push(event);
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

/// A folder with a picture in it, a cache beside it, and the fakes.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) engines: Arc<Fakes>,
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shots = dir.path().join("shots");
        std::fs::create_dir_all(&shots).unwrap();
        let rgb: Vec<u8> = (0..32 * 24 * 3).map(|i| (i * 7 % 251) as u8).collect();
        let picture = Picture::new(32, 24, rgb).unwrap();
        kinora_pipeline::media::write_png(&shots.join("photo.png"), &picture, false).unwrap();
        Self { dir, engines: Arc::default() }
    }

    pub(crate) fn shots(&self) -> PathBuf {
        self.dir.path().join("shots")
    }

    pub(crate) fn options(&self) -> RunOptions {
        RunOptions {
            folder: self.shots(),
            out: None,
            assets: vec![repository().join("assets")],
            force: false,
            resume: false,
            targets: None,
            engines: self.engines.clone(),
            cache: Cache::open(&self.dir.path().join("cache")).unwrap(),
        }
    }

    pub(crate) fn plan(&self, text: &str) -> Result<Plan, DocumentError> {
        Plan::build(&Document::parse(text, "test.kinora.json")?, &self.options())
    }

    pub(crate) fn run(&self, text: &str, options: &RunOptions, watch: &Watch) -> Result<RunReport, RunError> {
        let document = Document::parse(text, "test.kinora.json")?;
        let plan = Plan::build(&document, options)?;
        kinora_pipeline::workflow::run(
            &plan,
            &mut RunContext { progress: watch, clock: &SystemClock::default() },
        )
    }
}

/// A document with `node` among working ones; `node` is the fields after the op.
pub(crate) fn with(nodes: &str) -> String {
    format!("{{ \"kinora\": 1,\n  \"nodes\": {{\n    {nodes} }} }}")
}

pub(crate) const SHOT: &str = r#"{ "kinora": 1, "nodes": {
  "photo": { "op": "image.load", "path": "photo.png" },
  "thing": { "op": "mask.click", "image": "@photo", "points": [{ "x": 0.5, "y": 0.5 }] },
  "shot": { "op": "animate.click", "image": "@photo", "mask": "@thing", "prompt": "drift to the left", "magnitude": 0.5, "frames": 4 },
  "file": { "op": "sequence.save", "video": "@shot", "path": "out/frames" } } }"#;
