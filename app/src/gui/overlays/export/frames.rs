//! Size, rate and part of what is exported.

use eframe::egui::Ui;
use kinora_pipeline::workflow::ops::{Fit, saved_frames, sequence_frames};
use serde_json::{Value, json};

use crate::gui::exporting::Exported;
use crate::gui::marking::part_words;
use crate::gui::model::framing;
use crate::gui::model::marks::{self, Marked, Marks};
use crate::gui::model::patch::place;
use crate::gui::state::State;
use crate::gui::tasks::player::FilmInfo;
use crate::gui::widgets::{caption, choice};

/// Sizes clips are usually written in; none is that of the (first) clip.
const SIZES: [(u32, u32, &str); 6] = [
    (1280, 720, "1280 × 720"),
    (1920, 1080, "1920 × 1080"),
    (2560, 1440, "2560 × 1440"),
    (3840, 2160, "3840 × 2160"),
    (1080, 1080, "1080 × 1080, square"),
    (1080, 1920, "1080 × 1920, upright"),
];
/// Frames per second people ask for, beside the clip's own.
const RATES: [f64; 6] = [12.0, 24.0, 25.0, 30.0, 50.0, 60.0];

/// Draws the controls.
pub(super) fn show(ui: &mut Ui, state: &mut State, saver: &str, what: &Exported) {
    let timeline = what.of == Marked::Timeline;
    size(ui, state, saver, what, timeline);
    rate(ui, state, saver, what, timeline);
    range(ui, state, saver, what, timeline);
}

fn size(ui: &mut Ui, state: &mut State, saver: &str, what: &Exported, timeline: bool) {
    let film = what.sequence.as_ref().map(|(_, film)| film);
    let mut size = film.and_then(|film| film.width.zip(film.height));
    let own = size.filter(|size| !SIZES.iter().any(|(width, height, _)| (*width, *height) == *size));
    let written = own.map(|(width, height)| format!("{width} × {height}")).unwrap_or_default();
    let mut sizes = vec![(None, if timeline { "As the first clip" } else { "As the clip" })];
    sizes.extend(SIZES.iter().map(|(width, height, name)| (Some((*width, *height)), *name)));
    sizes.extend(own.map(|size| (Some(size), written.as_str())));
    if choice(ui, "Size", &mut size, &sizes) {
        let side = |side: Option<u32>| side.map(|side| json!(side));
        let (width, height) = (size.map(|(width, _)| width), size.map(|(_, height)| height));
        let mut fields = vec![("width", side(width)), ("height", side(height))];
        if size.is_none() && !timeline {
            // There is no other shape to fit any more.
            fields.push(("fit", None));
        }
        set(state, saver, what, "Change size", &fields);
    }
    // What fills a frame of another shape is asked only where there may be one.
    if timeline || size.is_some() {
        let mut fit = film.map_or(Fit::Contain, |film| film.fit);
        let fits = [(Fit::Contain, "Whole, black beside them"), (Fit::Cover, "Filled, cut off at the sides")];
        if choice(ui, "Other shapes", &mut fit, &fits) {
            let value = (timeline || fit != Fit::Contain).then(|| json!(fit));
            set(state, saver, what, "Change fit", &[("fit", value)]);
        }
    }
}

fn rate(ui: &mut Ui, state: &mut State, saver: &str, what: &Exported, timeline: bool) {
    let own = what.own_fps;
    let chosen = what.sequence.as_ref().and_then(|(_, film)| film.fps);
    let mut rates: Vec<f64> = RATES.iter().copied().chain([own]).chain(chosen).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    let whose = if timeline { "the timeline's" } else { "the clip's" };
    let texts: Vec<String> = rates.iter().map(|rate| rate_text(*rate, own, whose)).collect();
    let rates: Vec<(f64, &str)> = rates.iter().copied().zip(texts.iter().map(String::as_str)).collect();
    let mut rate = chosen.unwrap_or(own);
    if choice(ui, "Frame rate", &mut rate, &rates) {
        let value = (timeline || rate != own).then(|| json!(rate));
        set(state, saver, what, "Change frame rate", &[("fps", value)]);
    }
}

/// All of it, or what is between the in and the out point.
fn range(ui: &mut Ui, state: &mut State, saver: &str, what: &Exported, timeline: bool) {
    let kept = state.marks_of(&what.of);
    let own = FilmInfo {
        width: 1,
        height: 1,
        frames: sequence_frames(what.seconds, what.own_fps),
        fps: what.own_fps,
    };
    let mut part = state.project.as_ref().is_some_and(|project| marks::saves_part(project.value(), saver));
    let all = if timeline { "The whole timeline" } else { "The whole clip" };
    if let Some(words) = part_words(&kept, &own) {
        let words = format!("In to out: {words}");
        if choice(ui, "Range", &mut part, &[(false, all), (true, words.as_str())]) {
            let marks = if part { kept } else { Marks::default() };
            state.edit(|project| marks::choose(project, saver, marks));
        }
    } else if choice(ui, "Range", &mut part, &[(false, all), (true, "A part of it")]) {
        // A document from elsewhere may save a part that nothing marks.
        state.edit(|project| marks::choose(project, saver, Marks::default()));
    }
    let (fps, frames) = saved(state, saver, what);
    let count = if frames == 1 { "1 frame".to_owned() } else { format!("{frames} frames") };
    caption(ui, format!("{count}, {:.2} s", frames as f64 / fps));
}

/// The rate of the file, and how many frames it will have.
fn saved(state: &State, saver: &str, what: &Exported) -> (f64, usize) {
    let fps = what.sequence.as_ref().and_then(|(_, film)| film.fps).unwrap_or(what.own_fps);
    let count = sequence_frames(what.seconds, fps);
    let value = state.project.as_ref().map(|project| project.value());
    let node = value.and_then(|value| value.get("nodes")?.get(saver));
    let number = |name: &str| node.and_then(|node| node.get(name)?.as_f64());
    (fps, saved_frames(number("from").unwrap_or(0.0), number("to"), fps, count).len())
}

fn rate_text(rate: f64, own: f64, whose: &str) -> String {
    let own = if rate == own { format!(", {whose}") } else { String::new() };
    let digits = format!("{rate:.3}");
    format!("{} a second{own}", digits.trim_end_matches('0').trim_end_matches('.'))
}

fn set(state: &mut State, saver: &str, what: &Exported, label: &str, fields: &[(&str, Option<Value>)]) {
    match &what.sequence {
        Some((film, _)) if what.of == Marked::Timeline => state.edit(|project| {
            project.edit(label, None, |edit| {
                for (name, value) in fields {
                    edit.set_or_remove(place!["nodes", film.as_str(), *name], value.clone())?;
                }
                Ok(())
            })
        }),
        _ => state.edit(|project| framing::set(project, saver, label, fields)),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_as_people_do() {
        assert_eq!(rate_text(8.0, 8.0, "the timeline's"), "8 a second, the timeline's");
        assert_eq!(rate_text(29.97, 8.0, "the clip's"), "29.97 a second");
    }
}
