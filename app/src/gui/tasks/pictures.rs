//! Decodes the pictures the window shows.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use eframe::egui::ColorImage;
use kinora_pipeline::media::{ImageLimits, Picture, VideoLimits, VideoReader, read_picture};
use kinora_pipeline::store::assets::asset_roots;
use kinora_pipeline::store::paths::Roots;

use super::Wake;
use super::images::{MAX_PREVIEW, preview};
use super::worker::Worker;
use crate::gui::model::scene::Source;

/// Pictures kept decoded.
const KEPT: usize = 6;

/// One picture of one project.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PictureKey {
    /// The project's folder.
    folder: PathBuf,
    /// The file's name in the document.
    name: String,
    /// Moment in a clip: milliseconds and frames after that.
    moment: Option<(u64, u32)>,
}

impl PictureKey {
    /// The key of a source; none for pictures only a render makes.
    pub(crate) fn of(folder: &Path, source: &Source) -> Option<Self> {
        let folder = folder.to_path_buf();
        match source {
            Source::Image { path } => Some(Self { folder, name: path.clone(), moment: None }),
            Source::Frame { path, seconds, index, .. } => {
                let moment = Some(((seconds.max(0.0) * 1e3).round() as u64, *index));
                Some(Self { folder, name: path.clone(), moment })
            }
            Source::Made { .. } => None,
        }
    }
}

/// A decoded picture.
pub(crate) struct Shown {
    /// At its own size.
    pub(crate) picture: Arc<Picture>,
    /// At the screen's.
    pub(crate) preview: Arc<ColorImage>,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shown({:?})", self.picture)
    }
}

/// How far a picture is.
#[derive(Debug, Clone)]
pub(crate) enum Loading {
    /// Being read.
    Waiting,
    /// There.
    Ready(Arc<Shown>),
    /// It cannot be had; the text says why.
    Failed(String),
}

/// The decoded pictures.
#[derive(Debug)]
pub(crate) struct Pictures {
    worker: Worker<PictureKey, (PictureKey, Result<Shown, String>)>,
    known: HashMap<PictureKey, Loading>,
    /// Oldest first.
    order: Vec<PictureKey>,
}

impl Pictures {
    /// None yet.
    pub(crate) fn new(wake: Wake) -> Self {
        let start = || -> Box<dyn FnMut(PictureKey) -> _ + Send> {
            Box::new(|key: PictureKey| {
                let answer = load(&key);
                (key, answer)
            })
        };
        Self { worker: Worker::new("pictures", wake, start), known: HashMap::new(), order: vec![] }
    }

    /// The picture, which is asked for when it is not known.
    pub(crate) fn get(&mut self, key: &PictureKey) -> Loading {
        if let Some(loading) = self.known.get(key) {
            return loading.clone();
        }
        self.known.insert(key.clone(), Loading::Waiting);
        self.order.push(key.clone());
        while self.order.len() > KEPT {
            let old = self.order.remove(0);
            self.known.remove(&old);
        }
        self.worker.ask(key.clone(), |_| false);
        Loading::Waiting
    }

    /// How far a picture is, without asking for it.
    #[cfg(test)]
    pub(crate) fn peek(&self, key: &PictureKey) -> Option<&Loading> {
        self.known.get(key)
    }

    /// Width and height of a picture that is there.
    #[cfg(test)]
    pub(crate) fn size(&self, key: &PictureKey) -> Option<[u32; 2]> {
        match self.known.get(key)? {
            Loading::Ready(shown) => Some([shown.picture.width(), shown.picture.height()]),
            _ => None,
        }
    }

    /// Takes in what was decoded. Says whether anything was.
    pub(crate) fn poll(&mut self) -> bool {
        let answers = self.worker.answers();
        let any = !answers.is_empty();
        for (key, answer) in answers {
            // One that was let go in the meantime is not kept.
            if let Some(known) = self.known.get_mut(&key) {
                *known = match answer {
                    Ok(shown) => Loading::Ready(Arc::new(shown)),
                    Err(message) => Loading::Failed(message),
                };
            }
        }
        any
    }

    /// Reads a file anew when it is asked for next.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
        self.order.clear();
        self.worker.forget(|_| true);
    }
}

fn load(key: &PictureKey) -> Result<Shown, String> {
    let roots = Roots::open(&key.folder, None, &asset_roots(Some(&key.folder))).map_err(|e| e.to_string())?;
    let path = roots.file(&key.name).map_err(|e| e.to_string())?;
    let picture = match key.moment {
        None => read_picture(&path, &ImageLimits::default()).map_err(|e| e.to_string())?,
        Some((milliseconds, index)) => frame(&path, milliseconds as f64 / 1e3, index)?,
    };
    let shown = preview(&picture, MAX_PREVIEW);
    Ok(Shown { picture: Arc::new(picture), preview: Arc::new(shown) })
}

fn frame(path: &Path, seconds: f64, index: u32) -> Result<Picture, String> {
    let mut reader = VideoReader::open(path, &VideoLimits::default()).map_err(|e| e.to_string())?;
    if seconds > 0.0 {
        reader.seek(seconds).map_err(|e| e.to_string())?;
    }
    for left in (0..=index).rev() {
        let Some(frame) = reader.next_frame().map_err(|e| e.to_string())? else { break };
        if left == 0 {
            return Ok(frame.picture);
        }
    }
    Err(format!("{} has no frame {index} after {seconds} s", path.display()))
}
