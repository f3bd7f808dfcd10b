//! Commands on tracks and keys: what the buttons beside them do, for the one that is chosen.

use kinora_pipeline::workflow::{KeyEase, Number};

use super::model::keys::{self, keys_of};
use super::model::timeline::Track;
use super::state::State;

/// How much a command raises a key, of the largest motion.
const NUDGE: f64 = 0.05;

impl State {
    /// The track a command is for: that of the chosen clip, else the lowest.
    fn track_of_choice(&self) -> Option<usize> {
        let tracks = self.timeline()?.tracks.len();
        self.sequence.chosen.map(|(track, _)| track).or(Some(0)).filter(|track| *track < tracks)
    }

    /// Hides, mutes or locks the track of the chosen clip, or the other way round.
    pub(crate) fn change_track(&mut self, change: impl FnOnce(&mut Track)) {
        let Some(track) = self.track_of_choice() else { return };
        self.arrange("Change track", |timeline| timeline.tracks.get_mut(track).map(change));
    }

    /// The region whose keys a command changes, if it has some: that of the chosen keys, else the chosen one.
    pub(crate) fn keyed_region(&self) -> Option<usize> {
        let region = self.sequence.keys.as_ref().map(|(region, _)| *region).or(self.choice.region)?;
        let number = &self.item()?.regions().get(region)?.magnitude;
        (!keys_of(number).is_empty()).then_some(region)
    }

    /// Lets the value go from key to key in the next way.
    pub(crate) fn ease_keys(&mut self) {
        let Some(region) = self.keyed_region() else { return };
        let number = self.item().and_then(|item| item.regions().get(region)).map(|region| &region.magnitude);
        let next = match number {
            Some(Number::Keyed(keys)) => match keys.ease {
                KeyEase::Step => KeyEase::Linear,
                KeyEase::Linear => KeyEase::Smooth,
                KeyEase::Smooth => KeyEase::Step,
            },
            _ => return,
        };
        let id = self.choice.item.clone();
        self.edit(|project| keys::set_ease(project, &id, region, next));
    }

    /// Leaves the value at the playhead for the whole shot.
    pub(crate) fn clear_keys(&mut self) {
        let Some(region) = self.keyed_region() else { return };
        let (id, t) = (self.choice.item.clone(), self.shot_time());
        self.edit(|project| keys::clear_keys(project, &id, region, t));
        self.sequence.keys = None;
    }

    /// Moves the chosen keys by so many frames of their shot and so many steps of the value.
    pub(crate) fn nudge_keys(&mut self, frames: f64, steps: f64) {
        let Some((region, chosen)) = self.sequence.keys.clone() else { return };
        let Some(item) = self.item() else { return };
        let Some(shot) = &item.shot else { return };
        let by = (frames / shot.spec.fps.max(0.1), steps * NUDGE);
        let begun = item.regions().get(region).map(|region| keys_of(&region.magnitude).to_vec());
        let (id, begun) = (item.id.clone(), begun.unwrap_or_default());
        self.edit(|project| keys::move_keys(project, &id, region, &begun, &chosen, by));
        self.close_gesture();
    }
}
