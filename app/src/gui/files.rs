//! Opening, saving and leaving projects.

use std::path::{Path, PathBuf};

use super::model::changes::{self, NewItem};
use super::model::media::{self, import, import_bytes, missing};
use super::model::places::unix_now;
use super::model::project::{OpenError, Place, Project, SaveError};
use super::overlays::modal::Modal;
use super::overlays::toasts::Kind;
use super::samples::SAMPLES;
use super::state::{Choice, State};
use super::tasks::dialogs::{Answer, Wanted};
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
}

/// Files that are clips by their name; content decides when they are read.
fn is_clip(path: &Path) -> bool {
    const CLIPS: [&str; 10] = ["mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "m2ts"];
    let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
    CLIPS.contains(&end.as_str())
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
            self.add_media(path);
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
            After::Open(path) => self.open_document(&path),
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
        self.canvas = super::state::Canvas { centre: [0.5, 0.5], ..Default::default() };
    }

    fn open_document(&mut self, path: &Path) {
        match Project::open(path, &self.places) {
            Ok(project) => {
                if let Some(old) = self.project.take() {
                    old.discard();
                }
                self.show_nothing();
                self.enter(project);
                self.settings.remember(path);
                self.touch_settings();
            }
            Err(error) => self.refuse(path, &error),
        }
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

    fn enter(&mut self, project: Project) {
        self.project = Some(project);
        let first = self.project.as_ref().and_then(|project| project.scene().items.first());
        if let Some(id) = first.map(|item| item.id.clone()) {
            self.choose(&id);
        } else {
            self.toasts.add(Kind::Info, "this project has no pictures to show; it can still be rendered");
        }
        self.look_for_missing();
    }

    /// Finds out which files the document names are not there.
    pub(crate) fn look_for_missing(&mut self) {
        let Some(project) = &self.project else { return };
        let folder = project.folder();
        let gone = missing(project.value(), &folder, &asset_roots(Some(&folder)));
        self.missing = Some((project.revision(), gone));
    }

    /// Takes over the unsaved work at `index` of the list.
    pub(crate) fn recover(&mut self, index: usize) {
        if index >= self.orphans.len() {
            return;
        }
        let orphan = self.orphans.remove(index);
        match Project::recover(orphan, &self.places) {
            Ok(project) => {
                if let Some(old) = self.project.take() {
                    old.discard();
                }
                self.show_nothing();
                self.enter(project);
                self.toasts.add(Kind::Done, "the unsaved work is back; save it to keep it");
            }
            Err(error) => self.toasts.add(Kind::Error, format!("the unsaved work cannot be used: {error}")),
        }
        self.modal = None;
    }

    /// A folder for a project without a file.
    fn new_folder(&self) -> std::io::Result<PathBuf> {
        let root = self.places.untitled();
        std::fs::create_dir_all(&root)?;
        for attempt in 0..1000 {
            let folder = root.join(format!("{}-{}-{attempt}", unix_now(), std::process::id()));
            match std::fs::create_dir(&folder) {
                Ok(()) => return Ok(folder),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(std::io::Error::other("no free name"))
    }

    /// Begins a project with a sample picture.
    pub(crate) fn start_with_sample(&mut self, index: usize) {
        let Some(sample) = SAMPLES.get(index) else { return };
        self.bring(None, |folder| {
            let name = import_bytes(folder, sample.file, sample.bytes).map_err(|error| error.to_string())?;
            Ok((name, false))
        });
    }

    /// Brings a picture or clip into the project, which begins with it when there is none.
    pub(crate) fn add_media(&mut self, path: &Path) {
        let path = path.to_path_buf();
        self.bring(Some(&path), |folder| {
            let name = import(folder, &path).map_err(|error| error.to_string())?;
            Ok((name, is_clip(&path)))
        });
    }

    fn bring(&mut self, path: Option<&Path>, fetch: impl FnOnce(&Path) -> Result<(String, bool), String>) {
        if let Some(path) = path.filter(|path| !path.is_file()) {
            self.toasts.add(Kind::Error, format!("there is no file {}", path.display()));
            return;
        }
        let fresh = self.project.is_none();
        let folder = match self.project.as_ref().map(Project::folder) {
            Some(folder) => Ok(folder),
            None => self.new_folder().map_err(|error| format!("no project can be begun: {error}")),
        };
        let brought = folder.and_then(|folder| fetch(&folder).map(|found| (folder, found)));
        let (folder, (name, clip)) = match brought {
            Ok(found) => found,
            Err(message) => {
                self.toasts.add(Kind::Error, message);
                return;
            }
        };
        let item = if clip { NewItem::Frame(&name, 0.0) } else { NewItem::Picture(&name) };
        let added = if fresh {
            self.begin(folder, item)
        } else {
            self.edit(|project| changes::add_item(project, item))
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
        for (at, name) in renamed {
            if let Err(error) = changes::relink(project, &at, &name) {
                self.toasts.add(Kind::Error, error.to_string());
                return;
            }
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
            Wanted::Media => self.open_any(path),
            Wanted::Document => self.leave(After::Open(path.to_path_buf())),
            Wanted::SaveAs => self.save_as(path),
            Wanted::Relink(node) => self.relink(node, path),
            Wanted::Export { node } => self.export_to(node, path),
        }
    }

    fn relink(&mut self, node: &str, path: &Path) {
        let Some(project) = &self.project else { return };
        let named = media::named(project.value()).into_iter().find(|named| named.node == node);
        let Some(named) = named else { return };
        match import(&project.folder(), path) {
            Ok(name) => {
                self.edit(|project| changes::relink(project, &named.at, &name));
                self.pictures.forget();
                self.look_for_missing();
            }
            Err(error) => self.toasts.add(Kind::Error, error.to_string()),
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
        assert!(
            is_clip(Path::new("a.MP4")) && !is_clip(Path::new("a.gif")) && is_document(Path::new("a.json"))
        );
    }
}
