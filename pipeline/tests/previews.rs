//! What is seen of a clip while the embedded model denoises it.
// Test helpers outside #[test] functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use candle_core::Device;
use kinora_pipeline::media::{Mask, Picture, Raster};
use kinora_pipeline::progress::{Event, NullProgress, Preview, Progress};
use kinora_pipeline::store::model_source::FolderModel;
use kinora_pipeline::systems::follow_your_click::embedded::{Embedded, Rendering};
use kinora_pipeline::systems::follow_your_click::{
    ClickAnimation, Ease, Hooks, Magnitude, Region, SamplingChoice,
};

const FRAMES: usize = 4;
const STEPS: usize = 8;

/// Keeps every preview.
#[derive(Default)]
struct Watch(Mutex<Vec<Preview>>);

impl Progress for Watch {
    fn event(&self, _: Event) {}

    fn wants_previews(&self) -> bool {
        true
    }

    fn preview(&self, preview: Preview) {
        self.0.lock().unwrap().push(preview);
    }
}

fn model() -> Embedded {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/models/kinora-mini");
    Embedded::load(&FolderModel::new(folder), &Device::Cpu).unwrap()
}

fn job(guide: bool) -> ClickAnimation {
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
            magnitude: Magnitude::Constant(0.8),
        }],
        frames: FRAMES,
        ease: Ease::Linear,
        seed: 7,
        steps: Some(STEPS),
        guide,
        composite: false,
        size: None,
        sampling: SamplingChoice::default(),
    }
}

fn rendered(model: &Embedded, job: &ClickAnimation, progress: &dyn Progress) -> (Rendering, f64) {
    let hooks = Hooks { progress, node: "shot", checkpoint: None, resume: false };
    let begun = Instant::now();
    let rendering = model.render(job, &hooks).unwrap();
    (rendering, begun.elapsed().as_secs_f64())
}

/// Mean difference of the bytes of a preview from the frames it is of.
fn distance(preview: &Preview, frames: &[Raster]) -> f64 {
    let shown = preview.frames.len();
    let mut sum = 0.0;
    for (i, frame) in preview.frames.iter().enumerate() {
        let truth = frames[i * FRAMES / shown].to_picture().unwrap();
        assert_eq!((frame.width(), frame.height()), (truth.width(), truth.height()));
        let differences = frame.rgb().iter().zip(truth.rgb()).map(|(a, b)| f64::from(a.abs_diff(*b)));
        sum += differences.sum::<f64>() / frame.rgb().len() as f64;
    }
    sum / shown as f64
}

#[test]
fn a_clip_is_seen_from_the_first_moment_and_is_the_same_unseen() {
    let model = model();
    for guide in [true, false] {
        let job = job(guide);
        let watch = Watch::default();
        let (seen, with) = rendered(&model, &job, &watch);
        let (unseen, without) = rendered(&model, &job, &NullProgress);
        assert_eq!(seen.decoded, unseen.decoded, "previews change no bit of the frames");
        let previews = watch.0.into_inner().unwrap();
        let steps: Vec<usize> = previews.iter().map(|preview| preview.done).collect();
        assert!(steps.is_sorted() && steps[0] == 0 && steps[steps.len() - 1] == STEPS, "{steps:?}");
        assert!(steps.len() >= 3, "some steps in between are seen: {steps:?}");
        assert!(previews.iter().all(|p| p.frames.len() == FRAMES && p.total == STEPS && p.node == "shot"));
        let off: Vec<f64> = previews.iter().map(|preview| distance(preview, &seen.decoded)).collect();
        println!("guide {guide}: steps {steps:?}, off by {off:.2?}; {with:.2} s seen, {without:.2} s unseen");
        assert_eq!(off[off.len() - 1], 0.0, "the last one is the frames themselves");
        assert!(off.iter().all(|&off| off < 24.0), "{off:?}");
    }
}
