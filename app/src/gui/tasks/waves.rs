//! The sound of clips, as a line of loudness for the timeline.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kinora_pipeline::media::{VideoLimits, loudness};

use super::Wake;
use super::worker::Worker;

/// Stretches of a second that are measured.
pub(crate) const PER_SECOND: u32 = 40;

/// Loudness, 0..=1, of each stretch; none for a file without sound.
pub(crate) type Wave = Option<Arc<Vec<f32>>>;

/// The sound of files.
#[derive(Debug)]
pub(crate) struct Waves {
    worker: Worker<PathBuf, (PathBuf, Wave)>,
    known: HashMap<PathBuf, Option<Wave>>,
    closed: Arc<AtomicBool>,
}

impl Waves {
    /// None known yet.
    pub(crate) fn new(wake: Wake) -> Self {
        let closed = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&closed);
        let start = move || -> Box<dyn FnMut(PathBuf) -> (PathBuf, Wave) + Send> {
            Box::new(move |path| {
                let found =
                    loudness(&path, PER_SECOND, &VideoLimits::default(), &|| stop.load(Ordering::Relaxed));
                let wave = found.unwrap_or_else(|error| {
                    tracing::warn!("the sound cannot be drawn: {error}");
                    None
                });
                (path, wave.map(Arc::new))
            })
        };
        Self { worker: Worker::new("waves", wake, start), known: HashMap::new(), closed }
    }

    /// The sound of a file, which is read when it was not; none while that goes on.
    pub(crate) fn get(&mut self, path: &PathBuf) -> Wave {
        if let Some(known) = self.known.get(path) {
            return known.clone().flatten();
        }
        self.known.insert(path.clone(), None);
        self.worker.ask(path.clone(), |_| false);
        None
    }

    /// Takes in what was read. Says whether anything was.
    pub(crate) fn poll(&mut self) -> bool {
        let answers = self.worker.answers();
        let any = !answers.is_empty();
        self.known.extend(answers.into_iter().map(|(path, wave)| (path, Some(wave))));
        any
    }
}

impl Drop for Waves {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}
