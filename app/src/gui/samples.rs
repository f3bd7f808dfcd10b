//! Pictures to begin with, inside the program.

use std::path::Path;
use std::sync::Arc;

use eframe::egui::ColorImage;
use kinora_pipeline::media::{ImageLimits, read_picture};

use super::model::media::import_bytes;
use super::tasks::Wake;
use super::tasks::images::preview;
use super::tasks::worker::Worker;

/// A sample picture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// What people call it.
    pub(crate) name: &'static str,
    /// Its file name.
    pub(crate) file: &'static str,
    /// How its thing moves unless said otherwise.
    pub(crate) prompt: &'static str,
    /// The file.
    pub(crate) bytes: &'static [u8],
}

/// The samples, in the order they are shown; their origin is in `assets/LICENSES.md`.
pub(crate) const SAMPLES: [Sample; 3] = [
    Sample {
        name: "Rocket",
        file: "rocket.jpg",
        prompt: "rise slowly",
        bytes: include_bytes!("../../../assets/samples/rocket.jpg"),
    },
    Sample {
        name: "Coffee",
        file: "coffee.jpg",
        prompt: "swirl gently",
        bytes: include_bytes!("../../../assets/samples/coffee.jpg"),
    },
    Sample {
        name: "Cat",
        file: "cat.jpg",
        prompt: "sway from side to side",
        bytes: include_bytes!("../../../assets/samples/cat.jpg"),
    },
];

/// The samples as the first screen shows them, decoded when it does.
#[derive(Debug)]
pub(crate) struct SamplePictures {
    worker: Worker<usize, (usize, Option<ColorImage>)>,
    shown: [Option<Arc<ColorImage>>; SAMPLES.len()],
    asked: bool,
}

impl SamplePictures {
    /// None yet; `folder` is where they are unpacked.
    pub(crate) fn new(folder: &Path, wake: Wake) -> Self {
        let folder = folder.join("samples");
        let start = move || -> Box<dyn FnMut(usize) -> (usize, Option<ColorImage>) + Send> {
            Box::new(move |index| (index, decode(&folder, index)))
        };
        Self { worker: Worker::new("samples", wake, start), shown: Default::default(), asked: false }
    }

    /// A sample's picture, when it is there.
    pub(crate) fn get(&mut self, index: usize) -> Option<Arc<ColorImage>> {
        if !self.asked {
            self.asked = true;
            for index in 0..SAMPLES.len() {
                self.worker.ask(index, |_| false);
            }
        }
        for (index, image) in self.worker.answers() {
            if let (Some(slot), Some(image)) = (self.shown.get_mut(index), image) {
                *slot = Some(Arc::new(image));
            }
        }
        self.shown.get(index)?.clone()
    }
}

fn decode(folder: &Path, index: usize) -> Option<ColorImage> {
    let sample = SAMPLES.get(index)?;
    std::fs::create_dir_all(folder).ok()?;
    let name = import_bytes(folder, sample.file, sample.bytes).ok()?;
    let picture = read_picture(&folder.join(name), &ImageLimits::default()).ok()?;
    Some(preview(&picture, 480))
}
