//! The clip that a picture is a frame of: played by itself, and searched for the frame that is animated.

use kinora_pipeline::store::assets::asset_roots;
use kinora_pipeline::store::paths::Roots;

use super::layout::Pane;
use super::model::changes;
use super::model::scene::Source;
use super::state::State;
use super::tasks::player::{Film, FilmInfo};

impl State {
    /// The clip that the chosen picture is a frame of, and the second of that frame.
    fn source_clip(&self) -> Option<(Film, f64)> {
        let project = self.project.as_ref()?;
        let Source::Frame { path, seconds, .. } = &self.item()?.source else { return None };
        let folder = project.folder();
        let roots = Roots::open(&folder, None, &asset_roots(Some(&folder))).ok()?;
        Some((Film::File(roots.file(path).ok()?), *seconds))
    }

    /// Whether the chosen picture is a frame of a clip.
    pub(crate) fn has_source(&self) -> bool {
        self.item().is_some_and(|item| matches!(item.source, Source::Frame { .. }))
    }

    /// Whether the program monitor shows the clip that the chosen picture is a frame of.
    pub(crate) fn shows_source(&self) -> bool {
        let Some(film) = self.monitor.film.as_ref().filter(|_| !self.monitor.sequence) else { return false };
        matches!(film, Film::File(_)) && self.source_clip().is_some_and(|(source, _)| source == *film)
    }

    /// Shows the clip by itself, at the frame that is animated. Says whether there is one.
    pub(crate) fn show_source(&mut self) -> bool {
        let Some((film, seconds)) = self.source_clip() else { return false };
        self.monitor.load(Some(film), false);
        self.monitor.position = seconds;
        true
    }

    /// Shows the clip by itself, or the latest take again.
    pub(crate) fn play_source(&mut self) {
        if self.shows_source() {
            self.monitor_latest();
        } else if self.show_source() {
            self.show_pane = Some(Pane::Program);
        }
    }

    /// Takes the frame that is shown for the one that is animated.
    pub(crate) fn animate_frame(&mut self, info: &FilmInfo) {
        self.monitor.pause();
        let seconds = info.frame_at(self.monitor.position) as f64 / info.fps;
        let id = self.choice.item.clone();
        if self.edit(|project| changes::set_frame(project, &id, seconds)).is_some() {
            self.close_gesture();
            self.show_pane = Some(Pane::Canvas);
        }
    }
}
