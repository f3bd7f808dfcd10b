//! Keys of the chosen region: where they are set, copied and pasted.

use eframe::egui::Context;

use super::State;
use crate::gui::model::changes;
use crate::gui::model::keys::{self, Copied};
use crate::gui::model::timeline::{At, Placed};
use crate::gui::overlays::toasts::Kind;

impl State {
    /// The clip on the timeline whose keys are shown: the chosen one, else the first of the chosen
    /// shot.
    pub(crate) fn lane_clip(&self) -> Option<(At, &Placed)> {
        let shot = &self.item()?.shot.as_ref()?.node;
        let timeline = self.timeline()?;
        let chosen = self.sequence.chosen.filter(|at| timeline.clip(*at).is_some_and(|c| c.node == *shot));
        let at = chosen.or_else(|| timeline.first_of(shot))?;
        Some((at, timeline.clip(at)?))
    }

    /// The second of the chosen shot that is looked at.
    pub(crate) fn shot_time(&self) -> f64 {
        let length = self.item().and_then(|item| item.shot.as_ref());
        let length = length.map_or(0.0, |shot| f64::from(shot.spec.frames) / shot.spec.fps.max(0.1));
        let t = if self.monitor.sequence {
            self.lane_clip().map_or(0.0, |(_, clip)| clip.local(self.sequence.playhead))
        } else {
            self.monitor.position
        };
        t.clamp(0.0, length)
    }

    /// Sets a key of the chosen region where the playhead is.
    pub(crate) fn set_key(&mut self) {
        let (Some((region, _)), t) = (self.region(), self.shot_time()) else { return };
        let id = self.choice.item.clone();
        self.edit(|project| keys::set_key(project, &id, region, t, None));
        self.show_pane = Some(crate::gui::layout::Pane::Timeline);
    }

    /// Puts the chosen keys on the clipboard; says whether there are any.
    pub(crate) fn copy_keys(&mut self, ctx: &Context) -> bool {
        let Some((region, chosen)) = &self.sequence.keys else { return false };
        let number = self.item().and_then(|item| item.regions().get(*region)).map(|region| &region.magnitude);
        let Some(copied) = number.and_then(|number| Copied::of(number, chosen)) else { return false };
        ctx.copy_text(copied.to_text());
        true
    }

    /// Puts keys from the clipboard where the playhead is; says whether the text was keys.
    pub(crate) fn paste_keys(&mut self, text: &str) -> bool {
        let Some(copied) = Copied::from_text(text) else { return false };
        let region = self.sequence.keys.as_ref().map(|(region, _)| *region).or(self.choice.region);
        let Some(region) = region else {
            self.toasts.add(Kind::Info, "choose a region to paste the keys to");
            return true;
        };
        let (id, t) = (self.choice.item.clone(), self.shot_time());
        self.edit(|project| keys::paste_keys(project, &id, region, t, &copied));
        true
    }

    /// Changes the magnitude of a region where the playhead is: its one value, or a key there.
    pub(crate) fn change_magnitude(&mut self, region: usize, value: f64) {
        let id = self.choice.item.clone();
        let found = self.item().and_then(|item| item.regions().get(region));
        let keyed = found.is_some_and(|region| !keys::keys_of(&region.magnitude).is_empty());
        let t = self.shot_time();
        self.edit(|project| {
            if keyed {
                keys::set_key(project, &id, region, t, Some(value))
            } else {
                changes::set_magnitude(project, &id, region, value)
            }
        });
    }
}
