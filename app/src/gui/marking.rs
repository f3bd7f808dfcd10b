//! In and out points of what the program monitor shows.

use super::model::film;
use super::model::marks::{self, Marked, Marks};
use super::monitor::timecode;
use super::overlays::toasts::Kind;
use super::state::State;
use super::tasks::player::{Film, FilmInfo};

impl State {
    /// What in and out points are set in: the timeline, or the clip of the chosen shot.
    pub(crate) fn marked(&self) -> Option<Marked> {
        if self.monitor.sequence {
            return self.timeline_info().map(|_| Marked::Timeline);
        }
        let shot = self.item()?.shot.as_ref()?;
        matches!(self.monitor.film, Some(Film::Take(_))).then(|| Marked::Shot(shot.node.clone()))
    }

    /// The marks of something.
    pub(crate) fn marks_of(&self, of: &Marked) -> Marks {
        self.project.as_ref().map(|project| marks::marks(project.value(), of)).unwrap_or_default()
    }

    /// The marks of what the program monitor shows.
    pub(crate) fn shown_marks(&self) -> Marks {
        self.marked().map(|of| self.marks_of(&of)).unwrap_or_default()
    }

    /// The nodes that save what is marked.
    fn savers_of(&self, of: &Marked) -> Vec<String> {
        let Some(project) = &self.project else { return vec![] };
        match of {
            Marked::Timeline => {
                film::film_of(project.value()).map(|film| film::savers(project.value(), film))
            }
            Marked::Shot(node) => {
                let mut shots = project.scene().items.iter().filter_map(|item| item.shot.as_ref());
                let shot = shots.find(|shot| shot.node == *node);
                shot.map(|shot| shot.outputs.iter().map(|output| output.node.clone()).collect())
            }
        }
        .unwrap_or_default()
    }

    /// Lets the marked part begin, or end, with the frame that is shown.
    pub(crate) fn mark(&mut self, end: bool) {
        let (Some(of), Some(Ok(info))) = (self.marked(), self.programme()) else { return };
        let frame = info.frame_at(self.monitor.position);
        let (now, at) = (self.marks_of(&of), |frame: usize| frame as f64 / info.fps);
        // The last frame is seen until the next one would begin.
        let marks = if end { now.ended(at(frame + 1)) } else { now.begun(at(frame)) };
        self.set_marks(if end { "Mark out" } else { "Mark in" }, &of, marks);
    }

    /// Marks nothing any more.
    pub(crate) fn clear_marks(&mut self) {
        if let Some(of) = self.marked() {
            self.set_marks("Clear in and out", &of, Marks::default());
        }
    }

    fn set_marks(&mut self, label: &str, of: &Marked, marks: Marks) {
        let savers = self.savers_of(of);
        if self.edit(|project| marks::set(project, label, of, marks, &savers)).is_none() {
            return;
        }
        if let Some(Ok(info)) = self.programme() {
            let part = part_words(&marks, &info);
            self.toasts.add(Kind::Info, part.unwrap_or_else(|| "nothing is marked any more".to_owned()));
        }
    }

    /// Shows the first frame of the marked part, or the last.
    pub(crate) fn go_to_mark(&mut self, end: bool) {
        let marks = self.shown_marks();
        let Some(Ok(info)) = self.programme() else { return };
        let frame = if end {
            marks.to.map(|to| info.frame_at((to - 0.5 / info.fps).max(0.0)))
        } else {
            marks.from.map(|from| info.frame_at(from))
        };
        if let Some(frame) = frame {
            self.monitor.go_to(&info, frame);
        }
    }
}

/// The marked part of a film, as people read it; none where nothing is marked.
pub(crate) fn part_words(marks: &Marks, info: &FilmInfo) -> Option<String> {
    let (from, to) = marks.within(info.seconds())?;
    let frames = kinora_pipeline::workflow::ops::saved_frames(from, Some(to), info.fps, info.frames);
    let count = frames.len();
    let last = frames.end.saturating_sub(1);
    let code = |frame: usize| timecode(info, frame as f64 / info.fps);
    let words = if count == 1 { "1 frame".to_owned() } else { format!("{count} frames") };
    Some(format!("{} to {}, {words}", code(frames.start), code(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_said_by_its_first_and_last_frame() {
        let info = FilmInfo { width: 4, height: 4, frames: 16, fps: 8.0 };
        let part = |from, to| part_words(&Marks { from, to }, &info);
        assert_eq!(part(None, None), None);
        assert_eq!(part(Some(0.5), Some(1.0)).as_deref(), Some("00:00:04 to 00:00:07, 4 frames"));
        assert_eq!(part(Some(1.875), None).as_deref(), Some("00:01:07 to 00:01:07, 1 frame"));
        assert_eq!(part(Some(2.0), None), None, "beyond the end there is nothing");
    }
}
