//! What a running node is given, and how it fails.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::engines::Engines;
use super::error::{DocumentError, ErrorClass};
use super::model_name::ModelName;
use super::value::{Clip, ClipWriter, Value, Written, measure};
use crate::media::{Mask, MediaError, Picture};
use crate::progress::{Event, Progress};
use crate::store::atomic::AtomicError;
use crate::store::cache::{Cache, CacheKey};
use crate::store::paths::{PathError, Roots};
use crate::systems::follow_your_click::{AnimateError, Animator};

/// Why a job ended without its outputs.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The document or a file it names is wrong.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// What a node was given cannot be worked with.
    #[error("{0}")]
    Input(String),
    /// The job was asked to stop.
    #[error("interrupted; what is finished is kept and --resume continues")]
    Cancelled,
    /// Another process is at the same job.
    #[error("another process is rendering this document (its job is {0}); wait for it or stop it")]
    Busy(String),
    /// A path that is refused.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A file could not be put in its place.
    #[error(transparent)]
    Atomic(#[from] AtomicError),
    /// A picture or clip could not be read or written.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The model could not do it.
    #[error(transparent)]
    Animate(AnimateError),
    /// A fault of Kinora itself.
    #[error("internal error: {0}; please report it with the document")]
    Bug(String),
    /// The node at which it happened.
    #[error("{node} ({op}): {source}")]
    At { node: String, op: &'static str, source: Box<RunError> },
}

impl From<AnimateError> for RunError {
    fn from(error: AnimateError) -> Self {
        // A sink that refused is one of ours, wrapped; its own kind is what matters.
        match error {
            AnimateError::Cancelled => Self::Cancelled,
            AnimateError::Sink { frame, source } => match source.downcast::<Self>() {
                Ok(inner) => *inner,
                Err(source) => Self::Animate(AnimateError::Sink { frame, source }),
            },
            other => Self::Animate(other),
        }
    }
}

impl RunError {
    /// What a node was given cannot be worked with.
    pub fn input(message: impl Into<String>) -> Self {
        Self::Input(message.into())
    }

    /// A fault of Kinora itself.
    pub fn bug(message: String) -> Self {
        Self::Bug(message)
    }

    /// What the caller should do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Document(error) => error.class(),
            Self::Input(_) => ErrorClass::BadInput,
            Self::Cancelled => ErrorClass::Interrupted,
            Self::Busy(_) => ErrorClass::Temporary,
            Self::Path(PathError::Io { .. }) => ErrorClass::Io,
            Self::Path(_) => ErrorClass::BadInput,
            Self::Atomic(error) => atomic_class(error),
            Self::Media(MediaError::Write(error)) => atomic_class(error),
            Self::Media(MediaError::Read { .. } | MediaError::Encode { .. }) => ErrorClass::Io,
            Self::Media(MediaError::MissingPart { .. } | MediaError::NeedsVideoFeature { .. }) => {
                ErrorClass::Unavailable
            }
            Self::Media(_) => ErrorClass::BadInput,
            Self::Animate(error) => animate_class(error),
            Self::Bug(_) => ErrorClass::Bug,
            Self::At { source, .. } => source.class(),
        }
    }
}

fn atomic_class(error: &AtomicError) -> ErrorClass {
    match error {
        AtomicError::Exists { .. } | AtomicError::NoName { .. } => ErrorClass::BadInput,
        _ => ErrorClass::Io,
    }
}

/// What the caller should do about a failed animation.
pub fn animate_class(error: &AnimateError) -> ErrorClass {
    match error {
        AnimateError::Model { .. } | AnimateError::NotInstalled { .. } => ErrorClass::Unavailable,
        AnimateError::Cancelled => ErrorClass::Interrupted,
        AnimateError::Checkpoint { .. } | AnimateError::Sink { .. } => ErrorClass::Io,
        AnimateError::Compute(_) => ErrorClass::Bug,
        _ => ErrorClass::BadInput,
    }
}

/// What one node is given while it runs.
pub struct NodeContext<'a> {
    pub(super) node: &'a str,
    pub(super) key: &'a CacheKey,
    pub(super) inputs: BTreeMap<String, Value>,
    pub(super) roots: &'a Roots,
    pub(super) cache: &'a Cache,
    pub(super) engines: &'a dyn Engines,
    pub(super) progress: &'a dyn Progress,
    pub(super) recipe: &'a str,
    pub(super) overwrite: bool,
    pub(super) resume: bool,
    pub(super) notices: Vec<String>,
}

impl std::fmt::Debug for NodeContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeContext")
            .field("node", &self.node)
            .field("inputs", &self.inputs)
            .finish_non_exhaustive()
    }
}

impl<'a> NodeContext<'a> {
    /// The node's name.
    pub fn node(&self) -> &'a str {
        self.node
    }

    /// The models.
    pub fn engines(&self) -> &'a dyn Engines {
        self.engines
    }

    /// The model of that name, looked up where the document may read.
    pub fn animator(&self, name: &str) -> Result<Arc<dyn Animator>, RunError> {
        let name = ModelName::look_up(name, self.roots)?;
        Ok(self.engines.animator(&name)?)
    }

    /// Where progress goes.
    pub fn progress(&self) -> &'a dyn Progress {
        self.progress
    }

    /// The document as text, for the metadata of outputs.
    pub fn recipe(&self) -> &'a str {
        self.recipe
    }

    /// Whether an existing output is replaced.
    pub fn overwrite(&self) -> bool {
        self.overwrite
    }

    /// Whether unfinished work is continued.
    pub fn resume(&self) -> bool {
        self.resume
    }

    /// Stops here when the job was cancelled.
    pub fn poll(&self) -> Result<(), RunError> {
        if self.progress.cancelled() { Err(RunError::Cancelled) } else { Ok(()) }
    }

    /// Reports one unit of work; `total` 0 when unknown.
    pub fn step(&self, stage: &'static str, done: usize, total: usize) {
        self.progress.event(Event::Step { node: self.node.to_owned(), stage, done, total });
    }

    /// Tells the user something that does not stop the job; it goes into the receipt too.
    pub fn notice(&mut self, message: String) {
        self.progress.event(Event::Notice { node: self.node.to_owned(), message: message.clone() });
        self.notices.push(message);
    }

    /// A file the document names.
    pub fn file(&self, name: &str) -> Result<PathBuf, RunError> {
        Ok(self.roots.file(name)?)
    }

    /// Where an output the document names goes; its folders exist afterwards.
    pub fn output(&self, name: &str) -> Result<PathBuf, RunError> {
        Ok(self.roots.create_output(name)?)
    }

    /// What the link in `field` brought.
    pub fn input(&self, field: &str) -> Result<Value, RunError> {
        let value = self.inputs.get(field).cloned();
        value.ok_or_else(|| RunError::bug(format!("the link {field} of {} was not followed", self.node)))
    }

    /// The picture linked in `field`.
    pub fn picture_input(&self, field: &str) -> Result<Arc<Picture>, RunError> {
        match self.input(field)? {
            Value::Picture(picture) => Ok(picture),
            other => Err(other.unexpected("a picture")),
        }
    }

    /// The mask linked in `field`.
    pub fn mask_input(&self, field: &str) -> Result<Arc<Mask>, RunError> {
        match self.input(field)? {
            Value::Mask(mask) => Ok(mask),
            other => Err(other.unexpected("a mask")),
        }
    }

    /// The clip linked in `field`.
    pub fn clip_input(&self, field: &str) -> Result<Clip, RunError> {
        match self.input(field)? {
            Value::Clip(clip) => Ok(clip),
            other => Err(other.unexpected("a clip")),
        }
    }

    /// The number linked in `field`.
    pub fn number_input(&self, field: &str) -> Result<f64, RunError> {
        match self.input(field)? {
            Value::Number(number) => Ok(number),
            other => Err(other.unexpected("a number")),
        }
    }

    /// Starts the clip this node makes.
    pub fn clip(&self, fps: (u32, u32)) -> Result<ClipWriter, RunError> {
        Ok(ClipWriter::new(self.cache.create(self.key)?, fps))
    }

    /// Where this node keeps the state of unfinished work; emptied unless the job resumes.
    pub fn checkpoint_folder(&self) -> Result<Option<PathBuf>, RunError> {
        if !self.resume {
            self.cache.drop_checkpoint(self.key);
        }
        Ok(Some(self.cache.checkpoint(self.key)?))
    }

    /// Reports a file that is in its place and describes it for the receipt.
    pub fn wrote(&self, path: PathBuf, frames: usize, pixels: String) -> Result<Value, RunError> {
        let (bytes, blake3) =
            measure(&path).map_err(|source| AtomicError::from_io("read back", &path, source))?;
        Ok(Value::File(Written { path, bytes, blake3, frames, pixels }))
    }
}
