//! The autosave: the journal that edits go to, and the work of a window that left one behind.

use serde_json::Value;

use super::{Entry, Journal, OpenError, Place, Project, blake, parse};
use crate::gui::model::journal::{Header, Orphan};
use crate::gui::model::places::{Places, unix_now};

impl Project {
    /// Takes over the work of a window that is gone. It counts as unsaved.
    pub(crate) fn recover(orphan: Orphan, places: &Places) -> Result<Self, OpenError> {
        let place = match &orphan.header.document {
            Some(path) => Place::File(path.clone()),
            None => Place::Untitled(orphan.header.folder.clone()),
        };
        let document = parse(&orphan.value, "recovered")?;
        let mut project = Self::with(places, orphan.value.clone(), document, place, orphan.history.clone());
        project.saved = orphan.header.document.is_some().then(|| orphan.header.base.clone());
        if let Place::File(path) = &project.place {
            project.disk = std::fs::read(path).ok().map(|bytes| blake::of(&bytes));
        }
        match orphan.resume() {
            Ok(journal) => project.journal = Some(journal),
            Err(error) => {
                project.fault = Some(format!(
                    "edits are not autosaved: {} cannot be written ({error})",
                    orphan.path.display()
                ));
            }
        }
        Ok(project)
    }

    /// Why edits are not being autosaved; given out once.
    pub(crate) fn take_fault(&mut self) -> Option<String> {
        self.fault.take()
    }

    fn begin_journal(&mut self, base: Value) {
        let document = match &self.place {
            Place::File(path) => Some(path.clone()),
            Place::Untitled(_) => None,
        };
        let header = Header { kinora_journal: 1, document, folder: self.folder(), begun: unix_now(), base };
        match Journal::begin(&self.journals, &header) {
            Ok(journal) => {
                if let Some(old) = self.journal.replace(journal) {
                    old.discard();
                }
            }
            Err(error) => {
                self.fault = Some(format!(
                    "edits are not autosaved: {} cannot be written ({error})",
                    self.journals.display()
                ));
            }
        }
    }

    /// Brings an edit to the journal, and begins one where there is none.
    pub(super) fn log(&mut self, entry: &Entry) {
        if self.journal.as_ref().is_none_or(Journal::is_long) {
            self.begin_journal(self.value.clone());
        }
        let Some(journal) = &mut self.journal else { return };
        if let Err(error) = journal.append(entry) {
            let path = journal.path().display().to_string();
            self.fault = Some(format!("edits are not autosaved: {path} cannot be written ({error})"));
            // The next edit tries a new one, which begins with the whole document.
            if let Some(journal) = self.journal.take() {
                journal.discard();
            }
        }
    }

    /// Brings the autosave to the disk.
    pub(crate) fn flush(&self) {
        if let Some(journal) = &self.journal {
            let _ = journal.flush();
        }
    }
}
