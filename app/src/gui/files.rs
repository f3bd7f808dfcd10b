//! Opening, saving and leaving projects.

use std::path::{Path, PathBuf};

use super::model::changes::{self, NewItem};
use super::model::media::{self, import, missing};
use super::model::project::{OpenError, Place, Project, SaveError};
use super::overlays::modal::Modal;
use super::overlays::toasts::Kind;
use super::state::{Choice, Missing, State};
use super::tasks::dialogs::{Answer, Wanted, is_media};
use super::tasks::opener::{Brought, Opened, Wish};
use kinora_pipeline::store::assets::asset_roots;

/// What to go on with after unsaved work was seen to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum After {
    /// The first screen.
    Close,
    /// Closing the window.
    Quit,
    /// Another document.
    Open(PathBuf),
    /// The document that made a file.
    Recipe(PathBuf),
}

fn is_document(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("json"))
}

impl State {
    /// Opens whatever a person gave: a document, a picture, a clip.
    pub(crate) fn open_any(&mut self, path: &Path) {
        if is_document(path) {
            self.leave(After::Open(path.to_path_buf()));
        } else {
            self.opener.ask(Wish::Media(path.to_path_buf()));
        }
    }

    /// Goes on to `after`, asking first where work is not saved.
    pub(crate) fn leave(&mut self, after: After) {
        // An untouched picture is no work.
        let work = self.project.as_ref().is_some_and(|project| {
            project.is_dirty()
                && (matches!(project.place(), Place::File(_)) || project.undo_label().is_some())
        });
        if work {
            self.modal = Some(Modal::Unsaved(after));
        } else {
            self.go_on(after);
        }
    }

    /// Leaves the project as it is and goes on.
    pub(crate) fn go_on(&mut self, after: After) {
        match after {
            After::Close => self.close(),
            After::Quit => {
                self.close();
                self.leaving = true;
            }
            After::Open(path) => self.opener.ask(Wish::Document(path)),
            After::Recipe(path) => self.opener.ask(Wish::Recipe(path)),
        }
    }

    fn close(&mut self) {
        if let Some(project) = self.project.take() {
            project.discard();
        }
        self.show_nothing();
    }

    fn show_nothing(&mut self) {
        self.choice = Choice::default();
        self.typed = None;
        self.missing = None;
        self.pictures.forget();
        self.monitor.load(None, false);
        self.sequence = super::sequence::TimelineView { snap: self.sequence.snap, ..Default::default() };
        (self.films, self.changed) = (None, None);
        self.canvas = super::state::Canvas::default();
    }

    /// Takes in what was opened, and goes on with what waits. Says whether anything was.
    pub(crate) fn take_opened(&mut self) -> bool {
        let answer = self.opener.answer();
        let any = answer.is_some();
        match answer {
            Some(Opened::Document(path, Ok(project))) => {
                self.enter_instead(*project);
                self.settings.remember(&path);
                self.touch_settings();
            }
            Some(Opened::Recipe(_, Ok(project))) => {
                self.enter_instead(*project);
                self.toasts.add(Kind::Done, "this is what made the file; save it to keep it");
            }
            Some(Opened::Document(path, Err(error)) | Opened::Recipe(path, Err(error))) => {
                self.refuse(&path, &error);
            }
            Some(Opened::Media(brought)) => self.place(brought),
            Some(Opened::Asks(path)) => self.modal = Some(Modal::Finished(path)),
            Some(Opened::Nothing(why)) => self.toasts.add(Kind::Error, why),
            None => {}
        }
        let project = self.project.as_ref();
        self.opener.go_on(|| project.map(Project::folder));
        any
    }

    fn refuse(&mut self, path: &Path, error: &OpenError) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let text = match error {
            OpenError::Document(error) => {
                let lines = error.problems().map(|problem| {
                    let help = miette::Diagnostic::help(problem).map(|help| format!("\n    {help}"));
                    format!("{problem}{}", help.unwrap_or_default())
                });
                lines.collect::<Vec<_>>().join("\n\n")
            }
            other => other.to_string(),
        };
        self.modal = Some(Modal::Refused { title: format!("{name} was not opened"), text });
    }

    fn enter_instead(&mut self, project: Project) {
        if let Some(old) = self.project.take() {
            old.discard();
        }
        self.show_nothing();
        self.enter(project);
    }

    fn enter(&mut self, project: Project) {
        self.project = Some(project);
        self.list_takes();
        let first = self.project.as_ref().and_then(|project| project.scene().items.first());
        if let Some(id) = first.map(|item| item.id.clone()) {
            self.choose(&id);
        } else {
            self.toasts.add(Kind::Info, "this project has no pictures to show; it can still be rendered");
        }
        self.look_for_missing();
        if self.missing.as_ref().is_some_and(|missing| !missing.gone.is_empty()) {
            self.modal = Some(Modal::Missing);
        }
    }

    /// Finds out which files the document names are not there.
    pub(crate) fn look_for_missing(&mut self) {
        let Some(project) = &self.project else { return };
        let folder = project.folder();
        let gone = missing(project.value(), &folder, &asset_roots(Some(&folder)));
        let named = media::named(project.value());
        self.missing = Some(Missing { revision: project.revision(), named, gone });
    }

    /// Looks for files again when an edit, or undo, has the document name others.
    pub(crate) fn follow_files(&mut self) {
        let (Some(project), Some(missing)) = (&self.project, &mut self.missing) else { return };
        if missing.revision == project.revision() {
            return;
        }
        missing.revision = project.revision();
        if media::named(project.value()) != missing.named {
            self.look_for_missing();
        }
    }

    /// Takes over the unsaved work at `index` of the list.
    pub(crate) fn recover(&mut self, index: usize) {
        if index >= self.orphans.len() {
            return;
        }
        let orphan = self.orphans.remove(index);
        match Project::recover(orphan, &self.places) {
            Ok(project) => {
                self.enter_instead(project);
                self.toasts.add(Kind::Done, "the unsaved work is back; save it to keep it");
            }
            Err(error) => self.toasts.add(Kind::Error, format!("the unsaved work cannot be used: {error}")),
        }
        // Unless the work opened a dialog of its own.
        if self.modal == Some(Modal::Recover) {
            self.modal = None;
        }
    }

    /// Begins a project with a sample picture.
    pub(crate) fn start_with_sample(&mut self, index: usize) {
        self.opener.ask(Wish::Sample(index));
    }

    /// Puts a file that was brought into the project's folder into its document.
    fn place(&mut self, brought: Brought) {
        let item =
            if brought.clip { NewItem::Frame(&brought.name, 0.0) } else { NewItem::Picture(&brought.name) };
        let added = match self.project.as_ref().map(Project::folder) {
            None if brought.fresh => self.begin(brought.folder.clone(), item),
            Some(folder) if folder == brought.folder => self.edit(|project| changes::add_item(project, item)),
            // The project it was for was closed in the meantime.
            _ => return,
        };
        if let Some(id) = added {
            self.choose(&id);
            self.look_for_missing();
        }
    }

    fn begin(&mut self, folder: PathBuf, item: NewItem<'_>) -> Option<String> {
        let begun = changes::first_item(item)
            .and_then(|(nodes, id)| Ok((Project::untitled(&self.places, folder, nodes)?, id)));
        match begun {
            Ok((project, id)) => {
                self.project = Some(project);
                Some(id)
            }
            Err(error) => {
                self.toasts.add(Kind::Error, error.to_string());
                None
            }
        }
    }

    /// Saves, asking for a name where there is none.
    pub(crate) fn save(&mut self, replace: bool) -> bool {
        let Some(project) = &mut self.project else { return false };
        match project.save(replace) {
            Ok(()) => {
                self.toasts.add(Kind::Done, "saved");
                true
            }
            Err(SaveError::NoFile) => {
                self.ask_where_to_save();
                false
            }
            Err(SaveError::ChangedOnDisk { .. }) => {
                self.modal = Some(Modal::ChangedOnDisk);
                false
            }
            Err(error) => {
                self.toasts.add(Kind::Error, error.to_string());
                false
            }
        }
    }

    /// Asks for a name to save under.
    pub(crate) fn ask_where_to_save(&mut self) {
        let Some(project) = &self.project else { return };
        let name = match project.place() {
            Place::File(_) => project.name(),
            Place::Untitled(_) => {
                let first = project.scene().items.first().map_or("project", |item| item.picture.as_str());
                first.to_owned()
            }
        };
        self.dialogs.ask(Wanted::SaveAs, self.dialog_folder().as_deref(), &format!("{name}.kinora.json"));
    }

    fn save_as(&mut self, path: &Path) {
        let path = with_ending(path);
        let Some(project) = &mut self.project else { return };
        let old = project.folder();
        let untitled = matches!(project.place(), Place::Untitled(_)).then(|| old.clone());
        let Some(folder) = path.parent().filter(|folder| folder.is_dir()) else {
            self.toasts.add(Kind::Error, format!("there is no folder for {}", path.display()));
            return;
        };
        let renamed = match media::carry(project.value(), &old, folder, &asset_roots(Some(&old))) {
            Ok(renamed) => renamed,
            Err(error) => {
                self.toasts.add(Kind::Error, error.to_string());
                return;
            }
        };
        if !renamed.is_empty()
            && let Err(error) = changes::relink(project, renamed)
        {
            self.toasts.add(Kind::Error, error.to_string());
            return;
        }
        match project.save_as(&path, &self.places) {
            Ok(()) => {
                if let Some(folder) = untitled {
                    let _ = std::fs::remove_dir_all(folder);
                }
                self.settings.remember(&path);
                self.touch_settings();
                self.pictures.forget();
                self.look_for_missing();
                self.toasts.add(Kind::Done, format!("saved as {}", path.display()));
            }
            Err(error) => self.toasts.add(Kind::Error, error.to_string()),
        }
    }

    /// Goes on after a file dialog.
    pub(crate) fn file_answered(&mut self, wanted: Wanted, answer: Answer) {
        match answer {
            Answer::Chosen(path) => self.file_chosen(&wanted, &path),
            Answer::Dismissed => {}
            Answer::Unavailable => {
                self.modal = Some(Modal::TypePath { wanted, text: String::new(), fresh: true });
            }
        }
    }

    /// Goes on with a file for what was wanted.
    pub(crate) fn file_chosen(&mut self, wanted: &Wanted, path: &Path) {
        match wanted {
            // A finished file that was chosen as a project is asked about like one that was dropped.
            Wanted::Document if !is_media(path) => self.leave(After::Open(path.to_path_buf())),
            Wanted::Media | Wanted::Document | Wanted::Pictures => self.open_any(path),
            Wanted::SaveAs => self.save_as(path),
            Wanted::Relink(node) => self.relink(node, path),
            Wanted::Export { node } => self.export_to(node, path),
        }
    }

    /// Lets the document use `path` for the missing file of a node, and what lies beside it for
    /// other missing files of the same names.
    fn relink(&mut self, node: &str, path: &Path) {
        let Some(project) = &self.project else { return };
        let folder = project.folder();
        let all = media::named(project.value());
        let Some(wanted) = all.iter().find(|named| named.node == node).cloned() else { return };
        let gone = self.missing.as_ref().map(|missing| missing.gone.clone()).unwrap_or_default();
        let beside = path.parent().unwrap_or(path);
        let mut found = vec![];
        for named in all {
            let lost = named.node == node || gone.iter().any(|(gone, _)| *gone == named);
            let file = if named.name == wanted.name {
                path.to_path_buf()
            } else {
                Path::new(&named.name).file_name().map(|name| beside.join(name)).unwrap_or_default()
            };
            if !lost || !file.is_file() {
                continue;
            }
            match import(&folder, &file) {
                Ok(name) => found.push((named.at, name)),
                Err(error) => self.toasts.add(Kind::Error, error.to_string()),
            }
        }
        let count = found.len();
        if count == 0 {
            let why = format!("{} is not a file that can be used", path.display());
            self.toasts.add(Kind::Error, why);
            return;
        }
        self.edit(|project| changes::relink(project, found));
        self.pictures.forget();
        self.look_for_missing();
        let left = self.missing.as_ref().map_or(0, |missing| missing.gone.len());
        let files =
            if count == 1 { "1 file was found".to_owned() } else { format!("{count} files were found") };
        match left {
            0 => self.toasts.add(Kind::Done, files),
            left => {
                self.toasts.add(Kind::Info, format!("{files}, {left} still missing"));
                self.modal = Some(Modal::Missing);
            }
        }
    }
}

/// Documents end in `.kinora.json`.
fn with_ending(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if name.to_ascii_lowercase().ends_with(".json") {
        return path.to_path_buf();
    }
    path.with_file_name(format!("{}.kinora.json", name.trim_end_matches(".kinora")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_get_their_ending_and_keep_one_they_have() {
        let ends = |name: &str| with_ending(Path::new(name)).display().to_string();
        assert_eq!(ends("/a/sea"), "/a/sea.kinora.json");
        assert_eq!(ends("/a/sea.kinora"), "/a/sea.kinora.json");
        assert_eq!(ends("/a/sea.JSON"), "/a/sea.JSON");
        assert!(is_document(Path::new("a.json")) && !is_document(Path::new("a.mp4")));
    }
}
