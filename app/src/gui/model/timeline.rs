//! How shots and clips lie over time: tracks of clips, kept in the document's `ui.timeline`.
//!
//! A renderer carries it along untouched. A document without one has its shots end to end on one
//! track. Everything here is a value: read, changed, written back as one edit of the history.

mod cutting;

use kinora_pipeline::workflow::Document;
use kinora_pipeline::workflow::ops::{MOMENT, Op, opacity};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::edit::Edit;
use super::patch::{Path, find, place};
use super::project::{EditError, Project};

/// Tracks a timeline may have.
const MAX_TRACKS: usize = 16;
/// Clips a track may have.
const MAX_CLIPS: usize = 1000;
/// The latest moment, in seconds.
const LATEST: f64 = 24.0 * 3600.0;
/// Seconds below which two moments are one.
pub(crate) const HAIR: f64 = MOMENT;
/// Seconds a file gets whose length is not known yet.
const UNKNOWN: f64 = 5.0;

/// A stretch of a shot or file at a moment of the timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Placed {
    /// The node: an `animate.click`, or a `video.load` for the file itself.
    pub(crate) node: String,
    /// Where it begins, in seconds.
    pub(crate) at: f64,
    /// Seconds of the shot that are left out before it.
    pub(crate) from: f64,
    /// The second of the shot where it ends.
    pub(crate) to: f64,
    /// Seconds over which it appears from what lies under it.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub(crate) fade_in: f64,
    /// Seconds over which it gives way to what lies under it.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub(crate) fade_out: f64,
    /// Whether it appears out of the clip that ends where it begins, which goes on under it meanwhile.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) cross: bool,
    /// How loud its sound is, as a factor, 0..=4.
    #[serde(default = "as_it_is", skip_serializing_if = "is_as_it_is")]
    pub(crate) volume: f64,
    /// Frames per second of a file, as far as known: its frames are told apart by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fps: Option<f64>,
}

fn is_nothing(seconds: &f64) -> bool {
    *seconds == 0.0
}

fn as_it_is() -> f64 {
    1.0
}

fn is_as_it_is(volume: &f64) -> bool {
    *volume == 1.0
}

impl Placed {
    /// A stretch of a node's clip, without fades.
    pub(crate) fn new(node: &str, at: f64, from: f64, to: f64) -> Self {
        let (fade_in, fade_out, cross, volume) = (0.0, 0.0, false, 1.0);
        Self { node: node.to_owned(), at, from, to, fade_in, fade_out, cross, volume, fps: None }
    }

    /// How much of it is seen at a moment of the timeline, 0..1.
    pub(crate) fn opacity(&self, t: f64, fps: f64) -> f64 {
        opacity(t, (self.at, self.end()), (self.fade_in, self.fade_out), fps)
    }

    /// Keeps its fades within its length.
    fn settle(&mut self) {
        let length = self.length().max(0.0);
        let sane = |fade: f64| if fade.is_finite() { kept(fade.clamp(0.0, length.min(60.0))) } else { 0.0 };
        (self.fade_in, self.fade_out) = (sane(self.fade_in), sane(self.fade_out));
        self.cross &= self.fade_in > 0.0;
        self.volume = if self.volume.is_finite() { self.volume.clamp(0.0, 4.0) } else { 1.0 };
        self.fps = self.fps.filter(|fps| fps.is_finite() && (0.5..=240.0).contains(fps));
    }

    /// How long it is, in seconds.
    pub(crate) fn length(&self) -> f64 {
        self.to - self.from
    }

    /// Where it ends on the timeline.
    pub(crate) fn end(&self) -> f64 {
        self.at + self.length()
    }

    /// As it is under the one that appears out of it: `tail` seconds longer, and whole until then.
    fn under(&self, tail: f64) -> Self {
        let fade_out = if tail > 0.0 { 0.0 } else { self.fade_out };
        Self { to: self.to + tail, fade_out, ..self.clone() }
    }

    /// The second of its shot at a moment of the timeline.
    pub(crate) fn local(&self, t: f64) -> f64 {
        self.from + (t - self.at)
    }
}

/// Clips that do not overlap, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Track {
    /// What people call it.
    pub(crate) name: String,
    /// Whether it is left out of what is seen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) hidden: bool,
    /// Whether its clips are not heard.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) muted: bool,
    /// Whether its clips stay as they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) locked: bool,
    /// The clips.
    pub(crate) clips: Vec<Placed>,
}

impl Track {
    /// A track without clips.
    fn new(name: String) -> Self {
        Self { name, hidden: false, muted: false, locked: false, clips: vec![] }
    }

    /// The clip at a place that ends where the one after it begins.
    pub(crate) fn before(&self, index: usize) -> Option<&Placed> {
        let (clip, before) = (self.clips.get(index)?, self.clips.get(index.checked_sub(1)?)?);
        ((before.end() - clip.at).abs() <= HAIR).then_some(before)
    }

    /// Seconds a clip goes on under the one that appears out of it.
    fn tail(&self, index: usize) -> f64 {
        let next = self.clips.get(index + 1).filter(|next| next.cross && self.before(index + 1).is_some());
        next.map_or(0.0, |next| next.fade_in)
    }

    /// Its clips as they are seen and heard, and how many seconds each goes on under the next one.
    pub(crate) fn laid(&self) -> impl Iterator<Item = (Placed, f64)> {
        self.clips.iter().enumerate().map(|(index, clip)| {
            let tail = self.tail(index);
            (clip.under(tail), tail)
        })
    }
}

/// Which clip: its track and its place there.
pub(crate) type At = (usize, usize);

/// An end of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    /// Its beginning.
    Start,
    /// Its end.
    End,
}

/// Tracks, the lowest first; an upper one lies over those below it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timeline {
    /// The tracks.
    pub(crate) tracks: Vec<Track>,
}

fn at() -> Path {
    place!["ui", "timeline"]
}

/// How long the clip of a node is in seconds; none for nodes that make none, and for files, whose
/// length only their container knows.
pub(crate) fn source_length(document: &Document, node: &str) -> Option<f64> {
    match &document.node(node)?.op {
        Op::AnimateClick(shot) => Some(f64::from(shot.frames) / shot.fps.max(0.1)),
        _ => None,
    }
}

fn can_be_placed(document: &Document, node: &str) -> bool {
    document.node(node).is_some_and(|node| matches!(node.op, Op::AnimateClick(_) | Op::VideoLoad(_)))
}

/// A moment as the document keeps it.
pub(super) fn kept(seconds: f64) -> f64 {
    (seconds.clamp(0.0, LATEST) * 1e5).round() / 1e5
}

impl Timeline {
    /// Reads a document's timeline. What makes no sense in it is passed over.
    pub(crate) fn of(document: &Document) -> Self {
        let stored = find(document.value(), &at()).cloned();
        let read: Option<Self> = stored.and_then(|value| serde_json::from_value(value).ok());
        match read {
            Some(read) => read.sane(document),
            None => Self::usual(document),
        }
    }

    /// The shots end to end.
    fn usual(document: &Document) -> Self {
        let mut clips = vec![];
        let mut at = 0.0;
        for name in document.nodes().keys() {
            if let Some(length) = source_length(document, name) {
                clips.push(Placed::new(name, kept(at), 0.0, kept(length)));
                at += length;
            }
        }
        Self { tracks: vec![Track { clips, ..Track::new("V1".into()) }] }
    }

    fn sane(mut self, document: &Document) -> Self {
        self.tracks.truncate(MAX_TRACKS);
        for track in &mut self.tracks {
            track.name = track.name.chars().filter(|c| !c.is_control()).take(24).collect();
            track.clips.retain(|clip| can_be_placed(document, &clip.node));
            track.clips.truncate(MAX_CLIPS);
            for clip in &mut track.clips {
                let longest = source_length(document, &clip.node).unwrap_or(LATEST);
                (clip.at, clip.from) = (kept(clip.at), kept(clip.from));
                clip.to = clip.to.clamp(0.0, longest);
                // A shot that became shorter than what was cut from it is shown whole.
                if clip.length() < HAIR {
                    (clip.from, clip.to) = (0.0, longest.min(UNKNOWN));
                }
                clip.settle();
            }
            track.settle();
        }
        if self.tracks.is_empty() {
            self.tracks.push(Track::new("V1".into()));
        }
        self
    }

    /// A clip.
    pub(crate) fn clip(&self, (track, index): At) -> Option<&Placed> {
        self.tracks.get(track)?.clips.get(index)
    }

    /// Whether the track of a clip is locked.
    pub(crate) fn is_locked(&self, track: usize) -> bool {
        self.tracks.get(track).is_none_or(|track| track.locked)
    }

    /// Every clip with its place.
    pub(crate) fn clips(&self) -> impl Iterator<Item = (At, &Placed)> {
        self.tracks.iter().enumerate().flat_map(|(track, found)| {
            found.clips.iter().enumerate().map(move |(index, clip)| ((track, index), clip))
        })
    }

    /// The end of the last clip, in seconds.
    pub(crate) fn length(&self) -> f64 {
        self.clips().map(|(_, clip)| clip.end()).fold(0.0, f64::max)
    }

    /// What is seen at a moment: the uppermost clip there.
    pub(crate) fn seen(&self, t: f64) -> Option<(At, &Placed)> {
        let found = self.clips().filter(|((track, _), clip)| {
            self.tracks.get(*track).is_some_and(|track| !track.hidden)
                && clip.at <= t + HAIR
                && t < clip.end() - HAIR
        });
        found.last()
    }

    /// What is seen at a moment, the lowest first, with how much of it: all that lies over the
    /// uppermost clip that lets nothing through.
    pub(crate) fn layers(&self, t: f64, fps: f64) -> Vec<(Placed, f64)> {
        let mut layers = vec![];
        for track in self.tracks.iter().filter(|track| !track.hidden).rev() {
            for (index, clip) in track.clips.iter().enumerate().rev() {
                let tail = track.tail(index);
                if clip.at > t + HAIR || t >= clip.end() + tail - HAIR {
                    continue;
                }
                let clip = clip.under(tail);
                let opacity = clip.opacity(t, fps);
                layers.push((clip, opacity));
                if opacity >= 1.0 {
                    layers.reverse();
                    return layers;
                }
            }
        }
        layers.reverse();
        layers
    }

    /// The first clip of a node.
    pub(crate) fn first_of(&self, node: &str) -> Option<At> {
        self.clips().find(|(_, clip)| clip.node == node).map(|(at, _)| at)
    }

    /// Moments worth snapping to, apart from those of the clip `except`.
    pub(crate) fn edges(&self, except: Option<At>) -> Vec<f64> {
        let others = self.clips().filter(|(at, _)| Some(*at) != except);
        let mut edges: Vec<f64> = others.flat_map(|(_, clip)| [clip.at, clip.end()]).collect();
        edges.push(0.0);
        edges
    }

    /// Writes it into the document as one edit; edits in a row with the same `merge` become one.
    pub(crate) fn write(
        &self,
        project: &mut Project,
        label: &str,
        merge: Option<&str>,
    ) -> Result<(), EditError> {
        let value = self.value()?;
        project.edit(label, merge, |edit| Ok(edit.set_deep(at(), value)?))
    }

    fn value(&self) -> Result<Value, EditError> {
        serde_json::to_value(self).map_err(|error| EditError::Refused(error.to_string()))
    }
}

impl Track {
    /// Puts its clips in order, later ones behind those they would overlap.
    fn settle(&mut self) {
        self.clips.sort_by(|a, b| a.at.total_cmp(&b.at));
        let mut open = 0.0f64;
        for clip in &mut self.clips {
            clip.at = kept(clip.at.max(open));
            open = clip.end();
        }
    }
}

/// Lets a new shot join the timeline of a document that has one, within the edit that makes it.
pub(super) fn joined(edit: &mut Edit, shot: &str, length: f64) -> Result<(), EditError> {
    let Some(stored) = edit.get(&at()).cloned() else { return Ok(()) };
    let Ok(mut timeline) = serde_json::from_value::<Timeline>(stored) else { return Ok(()) };
    if timeline.append(shot, Some(length), None).is_some() {
        edit.set(at(), timeline.value()?)?;
    }
    Ok(())
}

/// The moment of `wish` nearest to one of `targets` within `reach` seconds, if there is one.
pub(crate) fn snapped(wish: f64, targets: &[f64], reach: f64) -> Option<f64> {
    let near = targets.iter().copied().min_by(|a, b| (a - wish).abs().total_cmp(&(b - wish).abs()))?;
    ((near - wish).abs() <= reach).then_some(near)
}

#[cfg(test)]
mod tests;
