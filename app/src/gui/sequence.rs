//! The timeline as it is worked on: what is chosen, how far it is zoomed, what is seen when.

mod cutting;
mod keying;

use std::collections::HashMap;

use kinora_pipeline::store::assets::asset_roots;
use kinora_pipeline::store::paths::Roots;
use kinora_pipeline::workflow::ops::Op;

use super::model::keys::{self, Key};
use super::model::scene::Item;
use super::model::takes;
use super::model::timeline::{At, Edge, HAIR, Placed, Timeline, source_length};
use super::state::State;
use super::tasks::player::{Film, FilmInfo};

/// Frames per second where no shot says.
const USUAL_FPS: f64 = 24.0;

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
}
