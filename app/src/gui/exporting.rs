//! Clips and the timeline as files.

use std::path::{Path, PathBuf};

use eframe::egui::Context;
use kinora_pipeline::workflow::ops::{Op, VideoSequence};
use serde_json::json;

use super::layout::Pane;
use super::model::marks::{self, Marked};
use super::model::project::Place;
use super::model::queue::{Order, Purpose};
use super::model::{changes, film, framing};
use super::overlays::modal::Modal;
use super::overlays::toasts::Kind;
use super::state::State;
use super::tasks::forecast::{Asked, Outlook};

/// What a node saves.
#[derive(Debug, Clone)]
pub(crate) struct Exported {
    /// The clip of a shot, or the timeline.
    pub(crate) of: Marked,
    /// The sequence that says size and rate, with its node; none while they are the clip's own.
    pub(crate) sequence: Option<(String, VideoSequence)>,
    /// Frames per second of the clip itself.
    pub(crate) own_fps: f64,
    /// How long it is.
    pub(crate) seconds: f64,
}

impl State {
    /// Asks where the clip goes.
    pub(crate) fn export(&mut self) {
        let Some(shot) = self.item().and_then(|item| item.shot.as_ref()) else { return };
        let (shot, output) = (shot.node.clone(), shot.outputs.first().cloned());
        let Some(output) = output else {
            self.toasts.add(Kind::Info, "this shot has no node that saves its clip");
            return;
        };
        // What is marked of it, or all.
        let length = self.exported(&output.node).map_or(0.0, |what| what.seconds);
        let marks = self.marks_of(&Marked::Shot(shot)).usable(length);
        self.close_gesture();
        self.edit(|project| marks::choose(project, &output.node, marks));
        let dest = self.export_place(&output.path);
        self.modal = Some(Modal::Export { node: output.node, dest });
    }

    /// Asks where the whole timeline goes, as one file.
    pub(crate) fn export_timeline(&mut self) {
        self.close_gesture();
        let Some(mut timeline) = self.timeline().cloned() else { return };
        // Only a file knows its rate, and its frames are told apart by it.
        for clip in timeline.tracks.iter_mut().flat_map(|track| &mut track.clips) {
            if clip.fps.is_none() {
                clip.fps = self.file_rate(&clip.node);
            }
        }
        let fps = self.timeline_fps();
        let Some(node) = self.edit(|project| film::make(project, &timeline, fps)) else { return };
        let output = self.project.as_ref().and_then(|project| film::output_of(project.document()));
        let Some(output) = output else { return };
        let dest = self.export_place(&output.path);
        self.modal = Some(Modal::Export { node, dest });
    }

    /// What a node saves, as far as the window can change it.
    pub(crate) fn exported(&self, saver: &str) -> Option<Exported> {
        let project = self.project.as_ref()?;
        let document = project.document();
        let video = match &document.node(saver)?.op {
            Op::VideoSave(save) => &save.video.node,
            Op::SequenceSave(save) => &save.video.node,
            _ => return None,
        };
        let sequence = |name: &str| match &document.node(name)?.op {
            Op::VideoSequence(film) => Some((name.to_owned(), film.clone())),
            _ => None,
        };
        if film::film_of(project.value()) == Some(video) {
            let seconds = project.timeline().length();
            let (of, own_fps) = (Marked::Timeline, self.timeline_fps());
            return Some(Exported { of, sequence: sequence(video), own_fps, seconds });
        }
        let (clip, framing) = framing::clip_of(document, video);
        let Op::AnimateClick(shot) = &document.node(clip)?.op else { return None };
        let seconds = f64::from(shot.frames) / shot.fps.max(0.1);
        let of = Marked::Shot(clip.to_owned());
        Some(Exported { of, sequence: framing.and_then(sequence), own_fps: shot.fps, seconds })
    }

    /// What a file of the export dialog will take, as far as that is known.
    pub(crate) fn export_outlook(
        &mut self,
        ctx: &Context,
        saver: &str,
        dest: &Path,
    ) -> Option<Result<Outlook, String>> {
        let project = self.project.as_ref()?;
        let ask = || {
            let mut value = project.value().clone();
            if let Some(path) = value.pointer_mut(&format!("/nodes/{saver}/path")) {
                // No file of that name is in the way of a plan.
                let end = dest.extension().map(|end| format!(".{}", end.to_string_lossy()));
                *path = json!(format!("file-of-a-forecast{}", end.unwrap_or_default()));
            }
            Asked { value, folder: project.folder(), dest: Some(dest.to_path_buf()) }
        };
        let (known, again) = self.export_outlooks.get(project.revision(), saver, ask);
        if let Some(again) = again {
            ctx.request_repaint_after(again);
        }
        known.cloned()
    }

    /// Where a file of the project goes: beside a saved project, among the person's videos else.
    fn export_place(&self, name: &str) -> PathBuf {
        if let Some(project) = &self.project
            && let Place::File(_) = project.place()
        {
            return project.folder().join(name);
        }
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_else(std::env::temp_dir);
        let videos = home.join("Videos");
        let folder = if videos.is_dir() { videos } else { home };
        folder.join(name.rsplit('/').next().unwrap_or(name))
    }

    /// Writes the clip of a saving node to `dest`, over what is there only with `force`.
    pub(crate) fn export_now(&mut self, node: &str, dest: &Path, force: bool) {
        self.close_gesture();
        let Some(project) = &self.project else { return };
        if !force && dest.exists() {
            self.modal = Some(Modal::Overwrite { node: node.to_owned(), dest: dest.to_path_buf() });
            return;
        }
        let parts = dest.parent().zip(dest.file_name().and_then(|name| name.to_str()));
        let Some((out, name)) = parts else {
            self.toasts.add(Kind::Error, format!("{} is not the name of a file", dest.display()));
            return;
        };
        // The job's document names the file inside the folder it is given, as a document must.
        let mut document = project.value().clone();
        if let Some(path) = document.pointer_mut(&format!("/nodes/{node}/path")) {
            *path = json!(name);
        }
        let purpose = Purpose::Export { node: node.to_owned() };
        let (folder, title) = (project.folder(), format!("Export {name}"));
        let order = Order { title: &title, purpose, document, folder: &folder, out: Some(out), force };
        self.runner.change(|queue| queue.add(order));
        self.modal = None;
        self.show_pane = Some(Pane::Jobs);
    }

    /// Chooses another file for the clip of a saving node.
    pub(crate) fn export_to(&mut self, node: &str, path: &Path) {
        let inside = self.project.as_ref().and_then(|project| {
            let folder = project.folder().canonicalize().ok()?;
            let full = path.parent()?.canonicalize().ok()?.join(path.file_name()?);
            full.strip_prefix(folder).ok()?.to_str().map(|name| name.replace('\\', "/"))
        });
        // A place inside the project is its document's business too.
        if let Some(name) = inside {
            self.edit(|project| changes::set_output(project, node, "path", Some(json!(name))));
            self.close_gesture();
        }
        self.modal = Some(Modal::Export { node: node.to_owned(), dest: path.to_path_buf() });
    }
}
