//! A magnitude that changes over the clip, from the document to the embedded model's own displacement.
// Test helpers outside #[test] functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use candle_core::Device;
use kinora_pipeline::media::{Mask, Picture, write_png};
use kinora_pipeline::progress::NullProgress;
use kinora_pipeline::store::cache::Cache;
use kinora_pipeline::store::model_source::FolderModel;
use kinora_pipeline::systems::follow_your_click::embedded::{Embedded, Rendering};
use kinora_pipeline::systems::follow_your_click::{
    AnimateError, AnimationReport, Animator, ClickAnimation, Ease, FrameSink, Hooks, Magnitude, Region,
    SamplingChoice,
};
use kinora_pipeline::workflow::{
    Document, Engines, ErrorClass, MaskQuery, ModelName, Plan, RunContext, RunError, RunOptions, SystemClock,
    run,
};

const FRAMES: usize = 5;

fn model() -> Embedded {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/models/kinora-mini");
    Embedded::load(&FolderModel::new(folder), &Device::Cpu).unwrap()
}

fn job(magnitude: Magnitude) -> ClickAnimation {
    let (width, height) = (96u32, 64u32);
    let inside = |i: u32| (36..60).contains(&(i % width)) && (20..44).contains(&(i / width));
    let rgb =
        (0..width * height).flat_map(|i| if inside(i) { [220, 90, 40] } else { [30, 80, (i % 97) as u8] });
    let alpha = (0..width * height).map(|i| f32::from(u8::from(inside(i)))).collect();
    ClickAnimation {
        photo: Picture::new(width, height, rgb.collect()).unwrap(),
        regions: vec![Region {
            mask: Mask::new(width, height, alpha).unwrap(),
            prompt: "drift to the left".to_owned(),
            magnitude,
        }],
        frames: FRAMES,
        ease: Ease::Linear,
        seed: 7,
        steps: Some(1),
        guide: true,
        composite: false,
        size: None,
        sampling: SamplingChoice::default(),
    }
}

fn rendered(model: &Embedded, magnitude: Magnitude) -> Result<Rendering, AnimateError> {
    let hooks = Hooks { progress: &NullProgress, node: "shot", checkpoint: None, resume: false };
    model.render(&job(magnitude), &hooks)
}

#[test]
fn a_frame_moves_as_it_would_with_its_value_throughout() {
    let model = model();
    let values = vec![1.0, 0.8, 0.0, 0.4, 0.9];
    let keyed = rendered(&model, Magnitude::PerFrame(values.clone())).unwrap();
    for (frame, &value) in values.iter().enumerate() {
        let constant = rendered(&model, value.into()).unwrap();
        for (x, y) in [(0.0, 0.0), (0.1, -0.2), (-0.5, 0.3)] {
            let at = |rendering: &Rendering| rendering.displacement(frame, 0, x, y).unwrap();
            let (got, want) = (at(&keyed), at(&constant));
            assert!(
                (got[0] - want[0]).abs() < 1e-6 && (got[1] - want[1]).abs() < 1e-6,
                "{frame}: {got:?} {want:?}"
            );
        }
        // The warped photograph is the constant one's too.
        let (got, want) = (&keyed.guide[frame].picture.data, &constant.guide[frame].picture.data);
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-4), "{frame}");
    }
    let left = |frame: usize| keyed.displacement(frame, 0, 0.0, 0.0).unwrap()[0];
    assert!(left(4) > left(3) && left(3) > 0.02, "the inverse map of a drift to the left points right");
    assert_eq!(keyed.displacement(2, 0, 0.0, 0.0), Some([0.0, 0.0]));
}

#[test]
fn values_outside_the_range_or_for_another_length_are_refused() {
    let model = model();
    let refused = |values: Vec<f64>| rendered(&model, Magnitude::PerFrame(values)).unwrap_err();
    for bad in [1.01, -0.01, f64::NAN] {
        let error = refused(vec![0.5, 0.5, bad, 0.5, 0.5]);
        assert!(matches!(error, AnimateError::Magnitude { index: 0, .. }), "{error}");
    }
    let error = refused(vec![0.5, 0.6]);
    assert!(matches!(error, AnimateError::MagnitudeFrames { expected: FRAMES, got: 2, .. }), "{error}");
}

/// Remembers the job instead of rendering it.
#[derive(Default)]
struct Listener(Mutex<Vec<ClickAnimation>>);

impl Animator for Listener {
    fn name(&self) -> &str {
        "listener"
    }

    fn digest(&self) -> &str {
        "1"
    }

    fn max_frames(&self) -> usize {
        16
    }

    fn default_steps(&self) -> usize {
        1
    }

    fn animate(
        &self,
        job: &ClickAnimation,
        _: &Hooks<'_>,
        sink: &mut FrameSink<'_>,
    ) -> Result<AnimationReport, AnimateError> {
        self.validate(job)?;
        self.0.lock().unwrap().push(job.clone());
        for frame in 0..job.frames {
            sink(job.photo.clone()).map_err(|source| AnimateError::Sink { frame, source })?;
        }
        Ok(AnimationReport::default())
    }
}

struct Fake(Arc<Listener>);

impl Engines for Fake {
    fn animator(&self, _: &ModelName<'_>) -> Result<Arc<dyn Animator>, AnimateError> {
        Ok(self.0.clone())
    }

    fn click(&self, picture: &Picture, _: &MaskQuery<'_>) -> Result<Mask, RunError> {
        let all = vec![1.0; (picture.width() * picture.height()) as usize];
        Mask::new(picture.width(), picture.height(), all).map_err(|error| RunError::input(error.to_string()))
    }

    fn click_digest(&self) -> String {
        "all".into()
    }

    fn refine(&self, mask: Mask, _: f64, _: f64) -> Result<Mask, RunError> {
        Ok(mask)
    }

    fn numeric_path(&self) -> String {
        "test".into()
    }
}

/// The magnitudes of the job that a document with these fields makes.
fn asked(fields: &str) -> Result<Vec<Magnitude>, RunError> {
    let dir = tempfile::tempdir().unwrap();
    let photo = Picture::new(8, 8, vec![9; 192]).unwrap();
    write_png(&dir.path().join("photo.png"), &photo, false).unwrap();
    let text = format!(
        r#"{{ "kinora": 1, "nodes": {{
  "photo": {{ "op": "image.load", "path": "photo.png" }},
  "thing": {{ "op": "mask.click", "image": "@photo", "points": [{{ "x": 0.5, "y": 0.5 }}] }},
  "shot": {{ "op": "animate.click", "image": "@photo", "frames": 5, "fps": 4, {fields} }},
  "file": {{ "op": "sequence.save", "video": "@shot", "path": "frames" }} }} }}"#
    );
    let listener = Arc::new(Listener::default());
    let options = RunOptions {
        folder: dir.path().to_path_buf(),
        out: None,
        assets: vec![],
        force: false,
        resume: false,
        targets: None,
        engines: Arc::new(Fake(Arc::clone(&listener))),
        cache: Cache::open(&dir.path().join("cache")).unwrap(),
    };
    let plan = Plan::build(&Document::parse(&text, "test.kinora.json")?, &options)?;
    run(&plan, &mut RunContext { progress: &NullProgress, clock: &SystemClock::default() })?;
    let jobs = listener.0.lock().unwrap();
    Ok(jobs[0].regions.iter().map(|region| region.magnitude.clone()).collect())
}

#[test]
fn keys_of_a_document_are_read_at_the_time_of_each_frame() {
    let one = |magnitude: &str| {
        asked(&format!(r#""mask": "@thing", "prompt": "left", "magnitude": {magnitude}"#)).unwrap().remove(0)
    };
    // Frames lie at 0, 0.25, 0.5, 0.75 and 1 s.
    assert_eq!(
        one(r#"{ "keys": [[0, 0], [1, 1]], "ease": "linear" }"#),
        Magnitude::PerFrame(vec![0.0, 0.25, 0.5, 0.75, 1.0])
    );
    assert_eq!(
        one(r#"{ "keys": [[0, 0], [1, 1]], "ease": "smooth" }"#),
        Magnitude::PerFrame(vec![0.0, 0.15625, 0.5, 0.84375, 1.0])
    );
    assert_eq!(
        one(r#"{ "keys": [[0.25, 1], [0.5, 0.5]], "ease": "step" }"#),
        Magnitude::PerFrame(vec![1.0, 1.0, 0.5, 0.5, 0.5])
    );
    assert_eq!(one(r#"{ "keys": [[0, 0.4]] }"#), Magnitude::Constant(0.4));
    let both = asked(
        r#""regions": [{ "mask": "@thing", "prompt": "left", "magnitude": { "keys": [[0, 1], [1, 0]], "ease": "linear" } },
           { "mask": "@thing", "prompt": "up", "magnitude": 0.3 }]"#,
    );
    let expected = [Magnitude::PerFrame(vec![1.0, 0.75, 0.5, 0.25, 0.0]), Magnitude::Constant(0.3)];
    assert_eq!(both.unwrap(), expected);
    let linked = asked(r#""mask": "@thing", "prompt": "left", "magnitude": "@thing.area""#).unwrap();
    assert_eq!(linked, [Magnitude::Constant(1.0)]);
    let error = asked(r#""mask": "@thing", "prompt": "left", "magnitude": "@photo.width""#).unwrap_err();
    assert_eq!(error.class(), ErrorClass::BadInput);
    assert!(error.to_string().contains("magnitude: expected a magnitude from 0 to 1, got 8"), "{error}");
}
