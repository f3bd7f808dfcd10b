//! What sounds while something plays, and how loud clips are.

use super::model::timeline::HAIR;
use super::overlays::toasts::Kind;
use super::state::State;
use super::tasks::player::{Film, FilmInfo};
use super::tasks::sound::{Piece, Score};

/// One step of louder and quieter: three decibels.
const STEP: f64 = 1.412_537_5;
/// The loudest a clip may be made.
const LOUDEST: f64 = 4.0;
/// The quietest that is not silent.
const QUIETEST: f64 = 0.01;
/// Seconds of a new cross-fade.
const USUAL_CROSS: f64 = 0.5;

impl State {
    /// The moment that is heard while the program monitor plays; none where nothing sounds.
    pub(crate) fn heard(&mut self, info: &FilmInfo) -> Option<f64> {
        let score = self.score(info);
        let (position, speed) = (self.monitor.position, self.monitor.speed);
        self.sound.follow(score, position, speed)
    }

    /// The files that sound in what the program monitor plays.
    fn score(&mut self, info: &FilmInfo) -> Score {
        if !self.monitor.sequence {
            return match self.monitor.film.clone() {
                Some(Film::File(path)) => {
                    let span = (0.0, info.seconds());
                    vec![Piece { path, span, from: 0.0, fades: (0.0, 0.0), volume: 1.0 }]
                }
                _ => vec![],
            };
        }
        let Some(timeline) = self.timeline() else { return vec![] };
        let tracks = timeline.tracks.iter().filter(|track| !track.hidden && !track.muted);
        let clips: Vec<_> = tracks.flat_map(|track| track.laid()).collect();
        let piece = |state: &mut Self, (clip, tail): (super::model::timeline::Placed, f64)| {
            let Some(Film::File(path)) = state.film_of(&clip.node) else { return None };
            let fades = (clip.fade_in, clip.fade_out.max(tail));
            Some(Piece { path, span: (clip.at, clip.end()), from: clip.from, fades, volume: clip.volume })
        };
        clips.into_iter().filter_map(|laid| piece(self, laid)).filter(|piece| piece.volume > 0.0).collect()
    }

    /// Brings the loudness of everything to the device.
    pub(crate) fn apply_volume(&self) {
        let volume = if self.settings.muted { 0.0 } else { self.settings.volume };
        // What people hear as half is a good deal less than half.
        self.sound.set_volume(volume * volume);
    }

    /// Whether the chosen clip has a sound that can be changed.
    pub(crate) fn chosen_sounds(&self) -> bool {
        let Some((_, clip)) = self.chosen_clip() else { return false };
        let document = self.project.as_ref().map(|project| project.document());
        document
            .and_then(|document| document.node(&clip.node))
            .is_some_and(|node| matches!(node.op, kinora_pipeline::workflow::ops::Op::VideoLoad(_)))
    }

    /// Makes the chosen clip louder or quieter by a step.
    pub(crate) fn turn_clip(&mut self, louder: bool) {
        let Some((at, clip)) = self.chosen_clip() else { return };
        let now = clip.volume.max(QUIETEST);
        let next = if louder { now * STEP } else { now / STEP }.clamp(QUIETEST, LOUDEST);
        let next = if (next - 1.0).abs() < 0.01 { 1.0 } else { next };
        self.arrange("Change volume", |timeline| timeline.set_volume(at, next));
    }

    /// Silences the chosen clip, or lets it be heard again.
    pub(crate) fn mute_clip(&mut self) {
        let Some((at, clip)) = self.chosen_clip() else { return };
        let next = if clip.volume > 0.0 { 0.0 } else { 1.0 };
        self.arrange("Mute clip", |timeline| timeline.set_volume(at, next));
    }

    /// Whether a clip ends where the chosen one begins.
    pub(crate) fn can_cross(&self) -> bool {
        let Some(((track, index), _)) = self.chosen_clip() else { return false };
        let track = self.timeline().and_then(|timeline| timeline.tracks.get(track));
        track.is_some_and(|track| track.before(index).is_some())
    }

    /// Lets the chosen clip appear out of the one before it, or begin with a cut again.
    pub(crate) fn cross_clip(&mut self) {
        let Some((at, clip)) = self.chosen_clip() else { return };
        let seconds = if clip.cross { 0.0 } else { USUAL_CROSS.min(clip.length() / 2.0) };
        if seconds < HAIR && !clip.cross {
            self.toasts.add(Kind::Info, "the clip is too short for a cross-fade");
            return;
        }
        self.arrange("Cross-fade", |timeline| timeline.cross(at, seconds));
    }
}

/// A volume as people read it.
pub(crate) fn decibels(volume: f64) -> String {
    if volume <= 0.0 { "muted".to_owned() } else { format!("{:+.0} dB", 20.0 * volume.log10()) }
}
