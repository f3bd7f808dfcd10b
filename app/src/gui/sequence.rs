//! The timeline as it is worked on: what is chosen, how far it is zoomed, what is seen when.

use std::collections::HashMap;

use eframe::egui::Context;
use kinora_pipeline::store::assets::asset_roots;
use kinora_pipeline::store::paths::Roots;
use kinora_pipeline::workflow::ops::Op;

use super::model::changes;
use super::model::keys::{self, Copied, Key};
use super::model::scene::{Item, Source};
use super::model::takes;
use super::model::timeline::{At, Edge, HAIR, Placed, Timeline, source_length};
use super::overlays::toasts::Kind;
use super::state::State;
use super::tasks::player::{Film, FilmInfo};

/// Frames per second where no shot says.
const USUAL_FPS: f64 = 24.0;

/// Seconds of a new fade.
const USUAL_FADE: f64 = 0.5;

/// Which panel the keys that change things are meant for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Focus {
    /// The picture and its regions.
    #[default]
    Picture,
    /// The timeline.
    Timeline,
}

/// What is being dragged on the timeline, with how it was when that began.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Drag {
    /// The playhead.
    Playhead,
    /// A clip, held so many seconds after its start.
    Clip { at: At, grab: f64, begun: Timeline },
    /// What a clip shows, held at a moment of the timeline.
    Slip { at: At, held: f64, begun: Timeline },
    /// The fade of an end of a clip.
    Fade { at: At, edge: Edge, begun: Timeline },
    /// An end of a clip.
    Trim { at: At, edge: Edge, begun: Timeline },
    /// The chosen keys of a region, held at a moment of the shot and a value, in the lane that
    /// reaches from one height of the screen to another.
    Keys { region: usize, held: (f64, f64), begun: Vec<Key>, lane: (f32, f32) },
}

/// The timeline as it is worked on.
#[derive(Debug, Clone)]
pub(crate) struct TimelineView {
    /// Points of the screen per second; none fits everything.
    pub(crate) zoom: Option<f32>,
    /// The zoom that was drawn last.
    pub(crate) drawn_zoom: f32,
    /// The second at the left end.
    pub(crate) scroll: f64,
    /// How far the tracks are scrolled down, in points.
    pub(crate) down: f32,
    /// The moment of the playhead.
    pub(crate) playhead: f64,
    /// The chosen clip.
    pub(crate) chosen: Option<At>,
    /// The region whose keys are chosen, and which of them.
    pub(crate) keys: Option<(usize, Vec<usize>)>,
    /// Whether edges snap.
    pub(crate) snap: bool,
    /// What is being dragged.
    pub(crate) drag: Option<Drag>,
    /// Where a dragged edge snapped to, to draw a line there.
    pub(crate) snapped: Option<f64>,
}

impl Default for TimelineView {
    fn default() -> Self {
        Self {
            zoom: None,
            drawn_zoom: 60.0,
            scroll: 0.0,
            down: 0.0,
            playhead: 0.0,
            chosen: None,
            keys: None,
            snap: true,
            drag: None,
            snapped: None,
        }
    }
}

/// What is to be seen at a moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    /// A frame of a clip.
    Frame(Film, usize),
    /// The photograph of a shot that was not made yet.
    Still(String),
}

impl State {
    /// The timeline of the project.
    pub(crate) fn timeline(&self) -> Option<&Timeline> {
        self.project.as_ref().map(|project| project.timeline())
    }

    /// Frames per second of the timeline: the finest of its shots, or of its files where there are
    /// no shots.
    pub(crate) fn timeline_fps(&self) -> f64 {
        let Some(project) = &self.project else { return USUAL_FPS };
        let shots = project.timeline().clips().filter_map(|(_, clip)| {
            match &project.document().node(&clip.node)?.op {
                Op::AnimateClick(shot) => Some(shot.fps),
                _ => None,
            }
        });
        let finest = shots.fold(0.0, f64::max);
        let files = project.timeline().clips().filter_map(|(_, clip)| clip.fps);
        let finest = if finest > 0.0 { finest } else { files.fold(0.0, f64::max) };
        if finest >= 1.0 { finest.min(240.0) } else { USUAL_FPS }
    }

    /// The timeline as a film; none where nothing is on it.
    pub(crate) fn timeline_info(&self) -> Option<FilmInfo> {
        let length = self.timeline()?.length();
        if length < HAIR {
            return None;
        }
        let fps = self.timeline_fps();
        let frames = ((length * fps - 1e-6).ceil() as usize).max(1);
        Some(FilmInfo { width: 1920, height: 1080, frames, fps })
    }

    /// What the program monitor plays: the timeline, or one clip. None while nothing is known.
    pub(crate) fn programme(&mut self) -> Option<Result<FilmInfo, String>> {
        if self.monitor.sequence {
            return self.timeline_info().map(Ok);
        }
        let film = self.monitor.film.clone()?;
        self.player.film(&film)
    }

    /// Whether there is something to play.
    pub(crate) fn can_play(&self) -> bool {
        if self.monitor.sequence { self.timeline_info().is_some() } else { self.monitor.film.is_some() }
    }

    /// What the timeline shows at a moment, the lowest first, with how much of it is seen.
    pub(crate) fn seen(&mut self, t: f64) -> Vec<(Seen, f32)> {
        let fps = self.timeline_fps();
        let layers = self.timeline().map(|timeline| timeline.layers(t, fps)).unwrap_or_default();
        layers.into_iter().map(|(clip, opacity)| (self.seen_of(clip, t), opacity as f32)).collect()
    }

    fn seen_of(&mut self, clip: Placed, t: f64) -> Seen {
        match self.film_of(&clip.node) {
            Some(film) => {
                let index = match self.player.film(&film) {
                    Some(Ok(info)) => info.frame_at(clip.local(t)),
                    _ => 0,
                };
                Seen::Frame(film, index)
            }
            None => Seen::Still(clip.node),
        }
    }

    /// The film of a node: the latest take of a shot whose frames are there, or a file.
    pub(crate) fn film_of(&mut self, node: &str) -> Option<Film> {
        let revision = self.project.as_ref()?.revision();
        if self.films.as_ref().is_none_or(|(of, _)| *of != revision) {
            self.films = Some((revision, HashMap::new()));
        }
        if let Some(known) = self.films.as_ref().and_then(|(_, films)| films.get(node)) {
            return known.clone();
        }
        let found = self.find_film(node);
        if let Some((_, films)) = &mut self.films {
            films.insert(node.to_owned(), found.clone());
        }
        found
    }

    fn find_film(&self, node: &str) -> Option<Film> {
        let project = self.project.as_ref()?;
        match &project.document().node(node)?.op {
            Op::AnimateClick(_) => {
                let list = takes::takes(project.value(), node);
                let there = list.into_iter().find(|take| self.has_frames(take))?;
                there.cache_key().map(Film::Take)
            }
            Op::VideoLoad(load) => {
                let folder = project.folder();
                let roots = Roots::open(&folder, None, &asset_roots(Some(&folder))).ok()?;
                roots.file(&load.path).ok().map(Film::File)
            }
            _ => None,
        }
    }

    /// What people call the clip of a node.
    pub(crate) fn clip_name(&self, node: &str) -> String {
        let Some(project) = &self.project else { return node.to_owned() };
        if let Some(item) = project.scene().item(node) {
            return item.name.clone();
        }
        match project.document().node(node).map(|node| &node.op) {
            Some(Op::VideoLoad(load)) => load.path.rsplit('/').next().unwrap_or(&load.path).to_owned(),
            _ => node.to_owned(),
        }
    }

    /// How long the source of a clip is, as far as that is known.
    pub(crate) fn longest(&mut self, node: &str) -> f64 {
        let known = self.project.as_ref().and_then(|project| source_length(project.document(), node));
        if let Some(length) = known {
            return length;
        }
        let film = self.film_of(node);
        match film.and_then(|film| self.player.film(&film)) {
            Some(Ok(info)) => info.seconds(),
            _ => f64::INFINITY,
        }
    }

    /// Frames per second of the file of a node, as far as that is known.
    pub(crate) fn file_rate(&mut self, node: &str) -> Option<f64> {
        match self.film_of(node)? {
            film @ Film::File(_) => self.player.film(&film)?.ok().map(|info| info.fps),
            Film::Take(_) => None,
        }
    }

    /// Lets the program monitor show the timeline at a moment.
    pub(crate) fn show_timeline_at(&mut self, t: f64) {
        let Some(info) = self.timeline_info() else {
            self.sequence.playhead = 0.0;
            return;
        };
        self.monitor.enter_sequence();
        // Frames have their own grid; the playhead stands on it.
        let last = (info.frames - 1) as f64 / info.fps;
        let frame = (t.clamp(0.0, last) * info.fps).round() / info.fps;
        (self.monitor.position, self.monitor.speed) = (frame, 0.0);
        self.sequence.playhead = frame;
    }

    /// Keeps the playhead where the monitor is.
    pub(crate) fn follow_monitor(&mut self) {
        if self.monitor.sequence {
            self.sequence.playhead = self.monitor.position;
        }
        // The length of a file is found out before it is put on the timeline.
        if let Some(node) = self.placeable() {
            self.longest(&node);
        }
        let gone = |at: &At| self.timeline().is_none_or(|timeline| timeline.clip(*at).is_none());
        if self.sequence.chosen.as_ref().is_some_and(gone) {
            self.sequence.chosen = None;
        }
        let count = |region: usize| {
            let regions = self.item().map(Item::regions).unwrap_or_default();
            regions.get(region).map_or(0, |region| keys::keys_of(&region.magnitude).len())
        };
        if self.sequence.keys.as_ref().is_some_and(|(region, list)| {
            let count = count(*region);
            list.iter().any(|key| *key >= count)
        }) {
            self.sequence.keys = None;
        }
    }

    /// Chooses a clip and, where it is a shot, its picture.
    pub(crate) fn choose_clip(&mut self, at: At) {
        let node = self.timeline().and_then(|timeline| timeline.clip(at)).map(|clip| clip.node.clone());
        let Some(node) = node else { return };
        (self.sequence.chosen, self.sequence.keys) = (Some(at), None);
        if self.choice.item != node {
            self.choose(&node);
        }
    }

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

    /// Moves the playhead to the next cut, or the one before.
    pub(crate) fn go_to_cut(&mut self, forward: bool) {
        let Some(timeline) = self.timeline() else { return };
        let (edges, t) = (timeline.edges(None), self.sequence.playhead);
        let found = if forward {
            edges.into_iter().filter(|edge| *edge > t + HAIR).min_by(f64::total_cmp)
        } else {
            edges.into_iter().filter(|edge| *edge < t - HAIR).max_by(f64::total_cmp)
        };
        if let Some(edge) = found {
            self.show_timeline_at(edge);
        }
    }

    /// Sets a key of the chosen region where the playhead is.
    pub(crate) fn set_key(&mut self) {
        let (Some((region, _)), t) = (self.region(), self.shot_time()) else { return };
        let id = self.choice.item.clone();
        self.edit(|project| keys::set_key(project, &id, region, t, None));
        self.show_pane = Some(super::layout::Pane::Timeline);
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
