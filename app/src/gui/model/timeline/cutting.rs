//! What is done to clips and tracks: moving, trimming, fading, splitting, putting there and taking away.

use super::{At, Edge, HAIR, LATEST, MAX_TRACKS, Placed, Timeline, Track, UNKNOWN, kept};

impl Timeline {
    /// The start nearest to `wish` where a clip of `length` fits on a track without its clip
    /// `except`.
    fn nearest_gap(&self, track: usize, wish: f64, length: f64, except: Option<usize>) -> f64 {
        let wish = wish.max(0.0);
        let Some(track) = self.tracks.get(track) else { return wish };
        let others = track.clips.iter().enumerate().filter(|(index, _)| Some(*index) != except);
        let (mut open, mut best) = (0.0, None::<f64>);
        let mut offer = |low: f64, high: f64| {
            if high >= low - HAIR {
                let here = wish.clamp(low, high.max(low));
                if best.is_none_or(|best| (here - wish).abs() < (best - wish).abs()) {
                    best = Some(here);
                }
            }
        };
        for (_, clip) in others {
            offer(open, clip.at - length);
            open = clip.end();
        }
        offer(open, f64::INFINITY);
        best.unwrap_or(wish)
    }

    /// Moves a clip to a track and moment, or as near to it as there is room. Returns where it is.
    pub(crate) fn move_clip(&mut self, from: At, track: usize, wish: f64) -> At {
        let Some(clip) = self.clip(from).cloned() else { return from };
        let track = track.min(self.tracks.len().saturating_sub(1));
        let except = (track == from.0).then_some(from.1);
        let at = kept(self.nearest_gap(track, wish, clip.length(), except));
        if let Some(old) = self.tracks.get_mut(from.0) {
            old.clips.remove(from.1);
        }
        self.insert(track, Placed { at, ..clip }).unwrap_or(from)
    }

    fn insert(&mut self, track: usize, clip: Placed) -> Option<At> {
        let found = self.tracks.get_mut(track)?;
        let index = found.clips.partition_point(|other| other.at < clip.at);
        found.clips.insert(index, clip);
        Some((track, index))
    }

    /// Moves an end of a clip, no further than its shot, its neighbours and one `frame` allow.
    pub(crate) fn trim(&mut self, (track, index): At, edge: Edge, t: f64, longest: f64, frame: f64) {
        let Some(clips) = self.tracks.get_mut(track).map(|track| &mut track.clips) else { return };
        let before = index.checked_sub(1).and_then(|i| clips.get(i)).map_or(0.0, Placed::end);
        let after = clips.get(index + 1).map_or(LATEST, |clip| clip.at);
        let Some(clip) = clips.get_mut(index) else { return };
        match edge {
            Edge::Start => {
                let low = before.max(clip.at - clip.from);
                let t = kept(t.min(clip.end() - frame).max(low));
                clip.from = kept(clip.from + (t - clip.at));
                clip.at = t;
            }
            Edge::End => {
                let high = after.min(clip.at + longest - clip.from);
                let t = t.max(clip.at + frame).min(high);
                clip.to = kept(clip.from + (t - clip.at));
            }
        }
        clip.settle();
    }

    /// Shows another stretch of the shot in the same place: what is seen comes `by` seconds later
    /// in the shot, as far as there is some.
    pub(crate) fn slip(&mut self, (track, index): At, by: f64, longest: f64) {
        let Some(clip) = self.tracks.get_mut(track).and_then(|track| track.clips.get_mut(index)) else {
            return;
        };
        let length = clip.length();
        let latest = (longest.min(LATEST) - length).max(0.0);
        let from = kept((clip.from + by).clamp(0.0, latest.max(0.0)));
        (clip.from, clip.to) = (from, kept(from + length));
    }

    /// Lets an end of a clip fade over so many seconds, at most its length.
    pub(crate) fn fade(&mut self, (track, index): At, edge: Edge, seconds: f64) {
        let Some(clip) = self.tracks.get_mut(track).and_then(|track| track.clips.get_mut(index)) else {
            return;
        };
        match edge {
            Edge::Start => clip.fade_in = seconds,
            Edge::End => clip.fade_out = seconds,
        }
        clip.settle();
    }

    /// Lets a clip appear out of the one before it over so many seconds, or begin with a cut again. Says
    /// whether there is one that ends where it begins.
    pub(crate) fn cross(&mut self, (track, index): At, seconds: f64) -> bool {
        let Some(track) = self.tracks.get_mut(track) else { return false };
        if track.before(index).is_none() {
            return false;
        }
        if let Some(clip) = track.clips.get_mut(index) {
            (clip.fade_in, clip.cross) = (seconds, seconds > 0.0);
            clip.settle();
        }
        true
    }

    /// Makes a clip louder or quieter: its volume, as a factor.
    pub(crate) fn set_volume(&mut self, (track, index): At, volume: f64) {
        if let Some(clip) = self.tracks.get_mut(track).and_then(|track| track.clips.get_mut(index)) {
            clip.volume = kept(volume);
            clip.settle();
        }
    }

    /// Cuts a clip in two at a moment inside it. Returns the place of the second part.
    pub(crate) fn split(&mut self, (track, index): At, t: f64) -> Option<At> {
        let clips = &mut self.tracks.get_mut(track)?.clips;
        let clip = clips.get_mut(index)?;
        if t <= clip.at + HAIR || t >= clip.end() - HAIR {
            return None;
        }
        let cut = kept(clip.local(t));
        let second = Placed { at: kept(t), from: cut, fade_in: 0.0, cross: false, ..clip.clone() };
        (clip.to, clip.fade_out) = (cut, 0.0);
        clips.insert(index + 1, second);
        Some((track, index + 1))
    }

    /// Takes a clip away; with `ripple` those after it on its track close the gap.
    pub(crate) fn remove(&mut self, (track, index): At, ripple: bool) {
        let Some(clips) = self.tracks.get_mut(track).map(|track| &mut track.clips) else { return };
        if index >= clips.len() {
            return;
        }
        let gone = clips.remove(index);
        if ripple {
            for clip in clips.iter_mut().skip(index) {
                clip.at = kept(clip.at - gone.length());
            }
        }
    }

    /// Puts a node's clip at the end of the first track that is not locked.
    pub(crate) fn append(&mut self, node: &str, length: Option<f64>, fps: Option<f64>) -> Option<At> {
        let track = self.tracks.iter().position(|track| !track.locked)?;
        let at = self.tracks.get(track)?.clips.last().map_or(0.0, Placed::end);
        let to = kept(length.unwrap_or(UNKNOWN));
        self.insert(track, Placed { fps, ..Placed::new(node, kept(at), 0.0, to) })
    }

    /// Adds a track on top. None when there are as many as may be.
    pub(crate) fn add_track(&mut self) -> Option<usize> {
        if self.tracks.len() >= MAX_TRACKS {
            return None;
        }
        let name = (1..).map(|n| format!("V{n}")).find(|name| self.tracks.iter().all(|t| t.name != *name))?;
        self.tracks.push(Track::new(name));
        Some(self.tracks.len() - 1)
    }

    /// Takes an empty track away, unless it is the last.
    pub(crate) fn remove_track(&mut self, track: usize) -> bool {
        let empty = self.tracks.get(track).is_some_and(|track| track.clips.is_empty());
        if empty && self.tracks.len() > 1 {
            self.tracks.remove(track);
            return true;
        }
        false
    }
}
