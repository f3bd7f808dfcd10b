//! What happens while something is dragged on the timeline.

use eframe::egui::{Rect, Ui};

use super::{Scale, TRACK, lanes};
use crate::gui::model::keys;
use crate::gui::model::timeline::{At, Edge, Timeline, snapped};
use crate::gui::sequence::Drag;
use crate::gui::state::State;

/// Points within which edges snap.
const REACH: f32 = 9.0;

/// Goes on with a drag, or ends it.
pub(super) fn go_on(ui: &Ui, state: &mut State, scale: &Scale, body: Rect) {
    let Some(drag) = state.sequence.drag.clone() else { return };
    let (down, pointer) = ui.input(|input| (input.pointer.primary_down(), input.pointer.latest_pos()));
    if let Some(at) = pointer {
        let t = scale.t(at.x);
        match drag {
            Drag::Playhead => {
                let targets = state.timeline().map(|timeline| timeline.edges(None)).unwrap_or_default();
                let near = snap(state, t, &targets, scale);
                state.sequence.snapped = near;
                state.show_timeline_at(near.unwrap_or(t));
            }
            Drag::Clip { at: from, grab, begun } => clip(state, &begun, from, t - grab, at.y, scale, body),
            Drag::Trim { at: which, edge, begun } => trim(state, &begun, which, edge, t, scale),
            Drag::Slip { at: which, held, begun } => slip(state, &begun, which, t - held),
            Drag::Fade { at: which, edge, begun } => fade(state, &begun, which, edge, t),
            Drag::Keys { region, held, begun, lane } => {
                let clip = state.lane_clip().map(|(_, clip)| clip.clone());
                let (Some(clip), Some((_, chosen))) = (clip, state.sequence.keys.clone()) else { return };
                let by = (clip.local(t) - held.0, lanes::value_at(lane, at.y) - held.1);
                let id = state.choice.item.clone();
                state.edit(|project| keys::move_keys(project, &id, region, &begun, &chosen, by));
            }
        }
    }
    if !down {
        (state.sequence.drag, state.sequence.snapped) = (None, None);
        state.close_gesture();
    }
}

fn snap(state: &State, t: f64, targets: &[f64], scale: &Scale) -> Option<f64> {
    if state.sequence.snap { snapped(t, targets, scale.seconds(REACH)) } else { None }
}

/// A moment on the grid of frames.
fn on_grid(t: f64, fps: f64) -> f64 {
    (t * fps).round() / fps
}

fn clip(state: &mut State, begun: &Timeline, from: At, start: f64, y: f32, scale: &Scale, body: Rect) {
    let Some(clip) = begun.clip(from) else { return };
    let mut targets = begun.edges(Some(from));
    targets.push(state.sequence.playhead);
    let length = clip.length();
    // Either end may snap; the nearer one wins.
    let ends =
        [(snap(state, start, &targets, scale), 0.0), (snap(state, start + length, &targets, scale), length)];
    let best = ends
        .into_iter()
        .filter_map(|(near, offset)| near.map(|near| (near, near - offset)))
        .min_by(|a, b| (a.1 - start).abs().total_cmp(&(b.1 - start).abs()));
    state.sequence.snapped = best.map(|(near, _)| near);
    let wish = best.map_or_else(|| on_grid(start, state.timeline_fps()), |(_, start)| start);
    let track = track_at(state, y, begun.tracks.len(), body).filter(|track| !begun.is_locked(*track));
    let mut timeline = begun.clone();
    let at = timeline.move_clip(from, track.unwrap_or(from.0), wish);
    if state.edit(|project| timeline.write(project, "Move clip", Some("move clip"))).is_some() {
        state.sequence.chosen = Some(at);
    }
}

fn trim(state: &mut State, begun: &Timeline, at: At, edge: Edge, t: f64, scale: &Scale) {
    let Some(clip) = begun.clip(at) else { return };
    let mut targets = begun.edges(Some(at));
    targets.push(state.sequence.playhead);
    let fps = state.timeline_fps();
    let near = snap(state, t, &targets, scale);
    state.sequence.snapped = near;
    let longest = state.longest(&clip.node);
    let mut timeline = begun.clone();
    timeline.trim(at, edge, near.unwrap_or_else(|| on_grid(t, fps)), longest, 1.0 / fps);
    let label = if edge == Edge::Start { "Trim start" } else { "Trim end" };
    state.edit(|project| timeline.write(project, label, Some("trim clip")));
}

/// What is dragged to the right comes from earlier in the shot, as under a window that stands.
fn slip(state: &mut State, begun: &Timeline, at: At, by: f64) {
    let Some(clip) = begun.clip(at) else { return };
    let fps = state.timeline_fps();
    let longest = state.longest(&clip.node);
    let mut timeline = begun.clone();
    timeline.slip(at, -on_grid(by, fps), longest);
    state.edit(|project| timeline.write(project, "Slip clip", Some("slip clip")));
}

fn fade(state: &mut State, begun: &Timeline, at: At, edge: Edge, t: f64) {
    let Some(clip) = begun.clip(at) else { return };
    let seconds = if edge == Edge::Start { t - clip.at } else { clip.end() - t };
    let mut timeline = begun.clone();
    timeline.fade(at, edge, on_grid(seconds.max(0.0), state.timeline_fps()));
    let label = if edge == Edge::Start { "Fade in" } else { "Fade out" };
    state.edit(|project| timeline.write(project, label, Some("fade clip")));
}

/// The track at a height of the screen; the uppermost is drawn first.
fn track_at(state: &State, y: f32, count: usize, body: Rect) -> Option<usize> {
    let row = ((y - body.top() + state.sequence.down) / TRACK).floor();
    (row >= 0.0 && (row as usize) < count).then(|| count - 1 - row as usize)
}
