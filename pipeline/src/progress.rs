//! How a running job talks to whoever started it: events and previews out, cancel in.
//!
//! The CLI, the desktop app and the tests are three implementations of [`Progress`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::media::Picture;

/// One thing that happened in a job. Times are in seconds, memory in bytes.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A node of the document began.
    NodeStarted { node: String, op: String },
    /// A node finished; `cached` when its result came from the cache on disk.
    NodeFinished { node: String, op: String, seconds: f64, cached: bool },
    /// One unit of a node's work is done (a denoise step, a decoded frame, an encoded frame).
    Step { node: String, stage: &'static str, done: usize, total: usize },
    /// Something the user should know and that does not stop the job.
    Notice { node: String, message: String },
    /// A file is complete and in its place.
    Wrote { node: String, path: String, bytes: u64 },
}

/// A clip as far as it is known while it is made: a few small frames, spread evenly over it.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// The node that makes the clip.
    pub node: String,
    /// Denoise steps that are in it; 0 for what is known before the first.
    pub done: usize,
    /// Denoise steps in all.
    pub total: usize,
    /// In order of time, all of one size, at least one.
    pub frames: Vec<Picture>,
}

/// Receives the events of a job and says whether it should stop.
pub trait Progress: Send + Sync {
    /// Called from the job's thread; must return quickly.
    fn event(&self, event: Event);

    /// Whether anybody looks at previews; where not, none are made.
    fn wants_previews(&self) -> bool {
        false
    }

    /// Called from the job's thread when there is a new preview; must return quickly. What is
    /// shown here has no influence on the result.
    fn preview(&self, _preview: Preview) {}

    /// Polled between kernels batches, at least once a denoise step.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Ignores every event and never cancels.
#[derive(Debug, Default, Clone, Copy)]
pub struct NullProgress;

impl Progress for NullProgress {
    fn event(&self, _event: Event) {}
}

/// A flag shared between the one who cancels and the job that polls it.
#[derive(Debug, Default, Clone)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks the job to stop at its next poll.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether [`Self::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
