//! A document being edited: its text, its history, its file, its autosave.

mod autosave;
mod saving;

use std::path::{Path, PathBuf};

use kinora_pipeline::workflow::{Document, DocumentError, MAX_BYTES, VERSION};
use serde_json::{Value, json};

use super::edit::Edit;
use super::history::History;
use super::journal::{Entry, Journal};
use super::patch::PatchError;
use super::places::Places;
use super::scene::Scene;
use super::timeline::Timeline;
pub(crate) use saving::SaveError;

/// Versions of a document kept when it is saved over.
const MAX_VERSIONS: usize = 20;

/// Why a document was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// More than a document may have.
    #[error("{} has {bytes} bytes; a document has at most {}", path.display(), MAX_BYTES)]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Bytes that are no text.
    #[error("{} is not a document: expected UTF-8 text, found other bytes", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A text that is not a sound document.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// Why an edit was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    /// It does not fit the document.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// The document would no longer be sound.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It makes no sense here; the text says why.
    #[error("{0}")]
    Refused(String),
}

/// Where a project lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a folder of its own until it is saved.
    Untitled(PathBuf),
    /// In a file.
    File(PathBuf),
}

/// A document being edited.
#[derive(Debug)]
pub(crate) struct Project {
    value: Value,
    document: Document,
    scene: Scene,
    timeline: Timeline,
    history: History,
    place: Place,
    saved: Option<Value>,
    /// Digest of the file as this window last read or wrote it.
    disk: Option<blake::Digest>,
    revision: u64,
    versions: PathBuf,
    journals: PathBuf,
    journal: Option<Journal>,
    /// Why edits are not being autosaved, said once.
    fault: Option<String>,
}

mod blake {
    use kinora_pipeline::store::cache::CacheKey;

    pub(super) type Digest = CacheKey;

    pub(super) fn of(bytes: &[u8]) -> Digest {
        CacheKey::of(bytes)
    }
}

impl Project {
    /// A project without a file, with these nodes.
    pub(crate) fn untitled(places: &Places, folder: PathBuf, nodes: Value) -> Result<Self, EditError> {
        let value = json!({ "kinora": VERSION, "nodes": nodes });
        let document = parse(&value, "untitled")?;
        Ok(Self::with(places, value, document, Place::Untitled(folder), History::default()))
    }

    /// A project without a file, from the text of a document.
    pub(crate) fn unsaved(places: &Places, folder: PathBuf, text: &str) -> Result<Self, OpenError> {
        let document = Document::parse(text, "recipe")?;
        let value = document.value().clone();
        Ok(Self::with(places, value, document, Place::Untitled(folder), History::default()))
    }

    /// Opens the document at `path`.
    pub(crate) fn open(path: &Path, places: &Places) -> Result<Self, OpenError> {
        let path = path.canonicalize().map_err(|source| OpenError::Read { path: path.into(), source })?;
        let bytes = read_bounded(&path)?;
        let disk = blake::of(&bytes);
        let text = String::from_utf8(bytes).map_err(|_| OpenError::NotText { path: path.clone() })?;
        let document = Document::parse(&text, &name_of(&path))?;
        let value = document.value().clone();
        let mut project = Self::with(places, value.clone(), document, Place::File(path), History::default());
        (project.saved, project.disk) = (Some(value), Some(disk));
        Ok(project)
    }

    fn with(places: &Places, value: Value, document: Document, place: Place, history: History) -> Self {
        let (scene, timeline) = (Scene::of(&document), Timeline::of(&document));
        let versions = match &place {
            Place::File(path) => places.versions(path),
            Place::Untitled(folder) => places.versions(folder),
        };
        Self {
            value,
            document,
            scene,
            timeline,
            history,
            place,
            saved: None,
            disk: None,
            revision: 0,
            versions,
            journals: places.journals(),
            journal: None,
            fault: None,
        }
    }

    /// The document's text as a value.
    pub(crate) fn value(&self) -> &Value {
        &self.value
    }

    /// The document.
    pub(crate) fn document(&self) -> &Document {
        &self.document
    }

    /// The document as the window sees it.
    pub(crate) fn scene(&self) -> &Scene {
        &self.scene
    }

    /// How its shots lie over time.
    pub(crate) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Grows with every change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Where it lives.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The folder its names resolve in.
    pub(crate) fn folder(&self) -> PathBuf {
        match &self.place {
            Place::Untitled(folder) => folder.clone(),
            Place::File(path) => path.parent().map(Path::to_path_buf).unwrap_or_default(),
        }
    }

    /// What people call it.
    pub(crate) fn name(&self) -> String {
        match &self.place {
            Place::Untitled(_) => "Untitled".to_owned(),
            Place::File(path) => name_of(path).trim_end_matches(".kinora.json").to_owned(),
        }
    }

    /// Whether there is something to save.
    pub(crate) fn is_dirty(&self) -> bool {
        self.saved.as_ref() != Some(&self.value)
    }

    /// What undo would take back.
    pub(crate) fn undo_label(&self) -> Option<&str> {
        self.history.undo_label()
    }

    /// What redo would make again.
    pub(crate) fn redo_label(&self) -> Option<&str> {
        self.history.redo_label()
    }

    /// Makes an edit of the history. `build` puts it together; the document is left as it was when
    /// it fails or its result is not a sound document.
    ///
    /// Edits in a row with the same `merge` become one, until [`Self::close_gesture`].
    pub(crate) fn edit<T>(
        &mut self,
        label: &str,
        merge: Option<&str>,
        build: impl FnOnce(&mut Edit) -> Result<T, EditError>,
    ) -> Result<T, EditError> {
        let mut edit = Edit::new(&self.value);
        let answer = build(&mut edit)?;
        super::film::refresh(&mut edit)?;
        let (value, transaction) = edit.finish(label, merge.map(str::to_owned));
        if transaction.is_nothing() {
            return Ok(answer);
        }
        let document = parse(&value, &self.name())?;
        self.log(&Entry::Do(transaction.clone()));
        self.history.push(transaction);
        self.show(value, document);
        Ok(answer)
    }

    /// Changes what the editor keeps for itself in the document's `ui`; undo passes it by.
    pub(crate) fn note(
        &mut self,
        build: impl FnOnce(&mut Edit) -> Result<(), EditError>,
    ) -> Result<(), EditError> {
        let mut edit = Edit::new(&self.value);
        build(&mut edit)?;
        let (value, transaction) = edit.finish("Note", None);
        if transaction.is_nothing() {
            return Ok(());
        }
        let outside = transaction
            .patches
            .iter()
            .any(|patch| patch.path.first() != Some(&super::patch::Step::from("ui")));
        if outside {
            return Err(EditError::Refused("notes belong into the document's \"ui\"".into()));
        }
        let document = parse(&value, &self.name())?;
        self.log(&Entry::Note(transaction));
        self.show(value, document);
        Ok(())
    }

    fn show(&mut self, value: Value, document: Document) {
        (self.scene, self.timeline) = (Scene::of(&document), Timeline::of(&document));
        self.value = value;
        self.document = document;
        self.revision += 1;
    }

    /// Ends a drag or a stretch of typing.
    pub(crate) fn close_gesture(&mut self) {
        if self.history.close() {
            self.log(&Entry::Close);
        }
    }

    /// Takes the last edit back and says which.
    pub(crate) fn undo(&mut self) -> Result<Option<String>, EditError> {
        self.step(History::undo, &Entry::Undo)
    }

    /// Makes the edit last taken back again and says which.
    pub(crate) fn redo(&mut self) -> Result<Option<String>, EditError> {
        self.step(History::redo, &Entry::Redo)
    }

    fn step(
        &mut self,
        walk: impl FnOnce(&mut History, &mut Value) -> Result<Option<String>, PatchError>,
        entry: &Entry,
    ) -> Result<Option<String>, EditError> {
        let mut value = self.value.clone();
        let mut history = self.history.clone();
        let Some(label) = walk(&mut history, &mut value)? else { return Ok(None) };
        let document = parse(&value, &self.name())?;
        self.log(entry);
        self.history = history;
        self.show(value, document);
        Ok(Some(label))
    }

    /// Gives up what is not saved.
    pub(crate) fn discard(mut self) {
        if let Some(journal) = self.journal.take() {
            journal.discard();
        }
        if let Place::Untitled(folder) = &self.place {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

fn parse(value: &Value, name: &str) -> Result<Document, DocumentError> {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    Document::parse(&text, name)
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, OpenError> {
    use std::io::Read as _;
    let fail = |source| OpenError::Read { path: path.to_path_buf(), source };
    let file = std::fs::File::open(path).map_err(fail)?;
    let meta = file.metadata().map_err(fail)?;
    if !meta.is_file() {
        return Err(fail(std::io::Error::other("expected a file, found a folder or device")));
    }
    let mut bytes = vec![];
    // A growing file has no honest length.
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() > MAX_BYTES {
        return Err(OpenError::TooLong { path: path.to_path_buf(), bytes: meta.len() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
