//! What is done to the clips at the playhead and to the chosen one, each as one edit.

use super::State;
use crate::gui::model::keys;
use crate::gui::model::scene::Source;
use crate::gui::model::timeline::{At, Edge, HAIR, Placed, Timeline};
use crate::gui::overlays::toasts::Kind;

/// Seconds of a new fade.
const USUAL_FADE: f64 = 0.5;

impl State {
    /// Changes the timeline as one edit.
    pub(crate) fn arrange<T>(&mut self, label: &str, change: impl FnOnce(&mut Timeline) -> T) -> Option<T> {
        let mut timeline = self.timeline()?.clone();
        let answer = change(&mut timeline);
        self.edit(|project| timeline.write(project, label, None))?;
        Some(answer)
    }

    /// The clip a command about clips is for: the chosen one where the playhead is in it, else the
    /// uppermost there.
    pub(crate) fn clip_at_playhead(&self) -> Option<At> {
        let timeline = self.timeline()?;
        let t = self.sequence.playhead;
        let inside = |at: &At| {
            timeline.clip(*at).is_some_and(|clip| t > clip.at + HAIR && t < clip.end() - HAIR)
                && !timeline.is_locked(at.0)
        };
        self.sequence.chosen.filter(inside).or_else(|| timeline.seen(t).map(|(at, _)| at).filter(inside))
    }

    /// Cuts the clip under the playhead in two.
    pub(crate) fn split_clip(&mut self) {
        let (Some(at), t) = (self.clip_at_playhead(), self.sequence.playhead) else { return };
        if let Some(Some(second)) = self.arrange("Split clip", |timeline| timeline.split(at, t)) {
            self.sequence.chosen = Some(second);
        }
    }

    /// Cuts the clip under the playhead off before or after it.
    pub(crate) fn trim_to_playhead(&mut self, edge: Edge) {
        let (Some(at), t) = (self.clip_at_playhead(), self.sequence.playhead) else { return };
        let node = self.timeline().and_then(|timeline| timeline.clip(at)).map(|clip| clip.node.clone());
        let longest = node.map_or(0.0, |node| self.longest(&node));
        let frame = 1.0 / self.timeline_fps();
        let label = if edge == Edge::Start { "Trim start" } else { "Trim end" };
        self.arrange(label, |timeline| timeline.trim(at, edge, t, longest, frame));
    }

    /// The clip a command is for that works on the chosen one, unless its track is locked.
    pub(crate) fn chosen_clip(&self) -> Option<(At, &Placed)> {
        let (at, timeline) = (self.sequence.chosen?, self.timeline()?);
        timeline.clip(at).filter(|_| !timeline.is_locked(at.0)).map(|clip| (at, clip))
    }

    /// Lets the chosen clip show what comes one frame later in its shot, or one frame earlier.
    pub(crate) fn slip_clip(&mut self, later: bool) {
        let Some((at, clip)) = self.chosen_clip() else { return };
        let node = clip.node.clone();
        let (longest, frame) = (self.longest(&node), 1.0 / self.timeline_fps());
        let Some(mut timeline) = self.timeline().cloned() else { return };
        timeline.slip(at, if later { frame } else { -frame }, longest);
        if self.timeline() == Some(&timeline) {
            let end = if later { "end" } else { "start" };
            self.toasts.add(Kind::Info, format!("the {end} of the shot is seen already"));
            return;
        }
        self.edit(|project| timeline.write(project, "Slip clip", None));
    }

    /// Gives an end of the chosen clip a fade of half a second, or takes it away.
    pub(crate) fn fade_clip(&mut self, edge: Edge) {
        let Some((at, clip)) = self.chosen_clip() else { return };
        let now = if edge == Edge::Start { clip.fade_in } else { clip.fade_out };
        let seconds = if now > 0.0 { 0.0 } else { USUAL_FADE.min(clip.length() / 2.0) };
        let label = if edge == Edge::Start { "Fade in" } else { "Fade out" };
        self.arrange(label, |timeline| timeline.fade(at, edge, seconds));
    }

    /// Takes the chosen keys or the chosen clip away; says whether there was one.
    pub(crate) fn remove_from_timeline(&mut self, ripple: bool) -> bool {
        if let Some((region, chosen)) = self.sequence.keys.take().filter(|_| !ripple) {
            let id = self.choice.item.clone();
            self.edit(|project| keys::remove_keys(project, &id, region, &chosen));
            return true;
        }
        let Some(at) = self.sequence.chosen.take() else { return false };
        if self.timeline().is_some_and(|timeline| timeline.is_locked(at.0)) {
            self.toasts.add(Kind::Info, "this track is locked");
            return true;
        }
        let label = if ripple { "Remove clip and gap" } else { "Remove clip" };
        self.arrange(label, |timeline| timeline.remove(at, ripple));
        true
    }

    /// The node that can be put on the timeline: the chosen shot, or the clip its picture is from.
    pub(crate) fn placeable(&self) -> Option<String> {
        let item = self.item()?;
        match (&item.shot, &item.source) {
            (Some(shot), _) => Some(shot.node.clone()),
            (None, Source::Frame { video, .. }) => Some(video.clone()),
            _ => None,
        }
    }

    /// Puts the chosen shot, or the chosen picture's clip, at the end of the timeline.
    pub(crate) fn add_to_timeline(&mut self) {
        let Some(node) = self.placeable() else { return };
        let length = Some(self.longest(&node)).filter(|length| length.is_finite());
        let fps = self.file_rate(&node);
        match self.arrange("Add to timeline", |timeline| timeline.append(&node, length, fps)) {
            Some(Some(at)) => (self.sequence.chosen, self.sequence.keys) = (Some(at), None),
            Some(None) => self.toasts.add(Kind::Info, "every track is locked"),
            None => {}
        }
    }
}
