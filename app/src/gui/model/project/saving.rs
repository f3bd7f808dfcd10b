//! Saving a project, the versions a save replaces, and bringing one of those back.

use std::path::{Path, PathBuf};

use kinora_pipeline::store::atomic::{AtomicError, write_file};
use kinora_pipeline::workflow::Document;
use serde_json::Value;

use super::{EditError, MAX_VERSIONS, OpenError, Place, Project, blake, name_of, read_bounded};
use crate::gui::model::patch::place;
use crate::gui::model::places::{Places, unix_now};

/// Why a document was not saved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SaveError {
    /// It was never saved, so there is no file to save to.
    #[error("this project has no file yet; choose a name for it")]
    NoFile,
    /// Another program changed the file in the meantime.
    #[error("{} was changed by another program since it was opened; save under another name, or replace it", path.display())]
    ChangedOnDisk {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be put in its place.
    #[error(transparent)]
    Write(#[from] AtomicError),
}

impl Project {
    /// Saves over its file. With `replace`, also over what another program put there.
    pub(crate) fn save(&mut self, replace: bool) -> Result<(), SaveError> {
        let Place::File(path) = self.place.clone() else { return Err(SaveError::NoFile) };
        let there = std::fs::read(&path).ok();
        if !replace
            && let (Some(there), Some(known)) = (&there, &self.disk)
            && blake::of(there) != *known
        {
            return Err(SaveError::ChangedOnDisk { path });
        }
        self.write(&path, there.as_deref())
    }

    /// Saves as `path`, which becomes its file. Names of other files in the document are the
    /// caller's business; see [`crate::gui::model::media`].
    pub(crate) fn save_as(&mut self, path: &Path, places: &Places) -> Result<(), SaveError> {
        let there = std::fs::read(path).ok();
        self.versions = places.versions(path);
        self.write(path, there.as_deref())?;
        self.place = Place::File(path.canonicalize().unwrap_or_else(|_| path.to_path_buf()));
        self.versions = places.versions(&self.folder().join(name_of(path)));
        Ok(())
    }

    fn write(&mut self, path: &Path, there: Option<&[u8]>) -> Result<(), SaveError> {
        let text = self.document.to_text();
        if let Some(there) = there.filter(|there| *there != text.as_bytes()) {
            keep_version(&self.versions, there);
        }
        write_file(path, text.as_bytes(), true)?;
        self.disk = Some(blake::of(text.as_bytes()));
        self.saved = Some(self.value.clone());
        self.history.close();
        if let Some(journal) = self.journal.take() {
            journal.discard();
        }
        Ok(())
    }

    /// Kept versions, the newest first: when each was replaced, and its file.
    pub(crate) fn versions(&self) -> Vec<(u64, PathBuf)> {
        list_versions(&self.versions)
    }

    /// Puts a kept version's nodes in place of the present ones, as an edit that can be undone.
    pub(crate) fn restore(&mut self, version: &Path) -> Result<(), OpenError> {
        let bytes = read_bounded(version)?;
        let text = String::from_utf8(bytes).map_err(|_| OpenError::NotText { path: version.into() })?;
        let old = Document::parse(&text, &name_of(version))?;
        let nodes = old.value().get("nodes").cloned().unwrap_or(Value::Null);
        let restored = self.edit("Restore version", None, |edit| {
            edit.set(place!["nodes"], nodes)?;
            Ok(())
        });
        match restored {
            Err(EditError::Document(error)) => Err(error.into()),
            // The nodes parsed as they are; nothing else can stand against them.
            _ => Ok(()),
        }
    }
}

/// Keeps what a save is about to replace. Failing to is no reason not to save.
fn keep_version(folder: &Path, bytes: &[u8]) {
    if std::fs::create_dir_all(folder).is_err() {
        return;
    }
    let mut stamp = unix_now();
    while folder.join(format!("{stamp}.kinora.json")).exists() {
        stamp += 1;
    }
    if let Err(error) = write_file(&folder.join(format!("{stamp}.kinora.json")), bytes, false) {
        tracing::warn!(%error, "the replaced version was not kept");
    }
    for (_, old) in list_versions(folder).into_iter().skip(MAX_VERSIONS) {
        let _ = std::fs::remove_file(old);
    }
}

fn list_versions(folder: &Path) -> Vec<(u64, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let stamp = entry.file_name().to_str()?.strip_suffix(".kinora.json")?.parse().ok()?;
            Some((stamp, entry.path()))
        })
        .collect();
    found.sort_by_key(|(stamp, _)| std::cmp::Reverse(*stamp));
    found
}
