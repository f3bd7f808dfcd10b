//! How a clip or the whole timeline is written to a file.

use std::path::{Path, PathBuf};

use eframe::egui::{Align, Layout, Ui};
use kinora_pipeline::workflow::ops::{Fit, Op, VideoSequence};
use serde_json::{Value, json};

use super::modal::{Modal, Step, buttons, title};
use crate::gui::icons;
use crate::gui::model::changes;
use crate::gui::model::patch::{Path as Place, find, place};
use crate::gui::state::State;
use crate::gui::tasks::dialogs::Wanted;
use crate::gui::theme::space;
use crate::gui::widgets::{Tone, button, caption, choice, muted};

/// The formats with the ending each is written with; none for a folder of pictures.
const FORMATS: [(&str, &str, &str); 10] = [
    ("h264", "mp4", "H.264 — plays everywhere"),
    ("h265", "mp4", "H.265 — half the size"),
    ("prores", "mov", "ProRes 422 HQ — for editing"),
    ("av1", "mp4", "AV1 — smallest"),
    ("vp9", "webm", "VP9 — for the web"),
    ("ffv1", "mkv", "FFV1 — lossless"),
    ("gif", "gif", "GIF"),
    ("webp", "webp", "Animated WebP"),
    (PNG, "", "PNG pictures — a folder"),
    (EXR, "", "OpenEXR pictures — a folder, linear light"),
];
/// The formats that are no file but a folder.
const PNG: &str = "png";
const EXR: &str = "exr";

fn is_folder(format: &str) -> bool {
    format == PNG || format == EXR
}

/// Sizes a timeline is usually written in; none is that of its first clip.
const SIZES: [(Option<(u32, u32)>, &str); 7] = [
    (None, "As the first clip"),
    (Some((1280, 720)), "1280 × 720"),
    (Some((1920, 1080)), "1920 × 1080"),
    (Some((2560, 1440)), "2560 × 1440"),
    (Some((3840, 2160)), "3840 × 2160"),
    (Some((1080, 1080)), "1080 × 1080, square"),
    (Some((1080, 1920)), "1080 × 1920, upright"),
];
/// Frames per second people ask for, beside the timeline's own.
const RATES: [f64; 6] = [12.0, 24.0, 25.0, 30.0, 50.0, 60.0];

/// Which of the formats: `stored` is the codec of a file, or the format of a folder's pictures.
fn format_of(op: &str, stored: Option<&str>, dest: &Path) -> usize {
    let wanted = if op == "sequence.save" { stored.or(Some(PNG)) } else { stored };
    let named = wanted.and_then(|codec| FORMATS.iter().position(|(name, _, _)| *name == codec));
    let end = dest.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
    let by_ending = || FORMATS.iter().position(|(_, ending, _)| !ending.is_empty() && *ending == end);
    named.or_else(by_ending).unwrap_or(0)
}

fn field(node: &str, name: &str) -> Place {
    place!["nodes", node, name]
}

fn read(state: &State, node: &str, name: &str) -> Option<String> {
    let value = state.project.as_ref()?.value();
    find(value, &field(node, name))?.as_str().map(str::to_owned)
}

/// The sequence that a saving node saves, with its name.
fn film(state: &State, node: &str) -> Option<(String, VideoSequence)> {
    let document = state.project.as_ref()?.document();
    let link = match &document.node(node)?.op {
        Op::VideoSave(save) => &save.video,
        Op::SequenceSave(save) => &save.video,
        _ => return None,
    };
    match &document.node(&link.node)?.op {
        Op::VideoSequence(film) => Some((link.node.clone(), film.clone())),
        _ => None,
    }
}

/// Draws the dialog.
pub(super) fn show(ui: &mut Ui, state: &mut State, node: String, mut dest: PathBuf) -> Step {
    let film = film(state, &node);
    title(ui, if film.is_some() { "Export the timeline" } else { "Export the clip" });
    let op = read(state, &node, "op").unwrap_or_default();
    let stored = read(state, &node, if op == "sequence.save" { "format" } else { "codec" });
    let mut format = format_of(&op, stored.as_deref(), &dest);
    let names: Vec<(usize, &str)> =
        FORMATS.iter().enumerate().map(|(at, (_, _, name))| (at, *name)).collect();
    if choice(ui, "Format", &mut format, &names)
        && let Some((codec, ending, _)) = FORMATS.get(format)
    {
        dest.set_extension(ending);
        set_format(state, &node, codec, ending);
    }
    let pictures = FORMATS.get(format).is_some_and(|(codec, ..)| is_folder(codec));
    if !pictures {
        quality(ui, state, &node);
    }
    if let Some((name, film)) = &film {
        frames(ui, state, name, film);
    }
    ui.add_space(space::XS);
    caption(ui, if pictures { "Folder" } else { "File" });
    muted(ui, dest.display().to_string());
    let mut step = Step::Stay(Modal::Export { node: node.clone(), dest: dest.clone() });
    buttons(ui, |ui| {
        if button(ui, Some(icons::UPLOAD), "Export", Tone::Main).clicked() {
            step = Step::Close;
            state.export_now(&node, &dest, false);
        }
        if button(ui, None, "Cancel", Tone::Plain).clicked() {
            step = Step::Close;
        }
        ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
            if button(ui, Some(icons::FOLDER), "Choose the file…", Tone::Plain).clicked() {
                let name =
                    dest.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                state.dialogs.ask(Wanted::Export { node: node.clone() }, dest.parent(), &name);
                step = Step::Close;
            }
        });
    });
    step
}

/// Changes op, codec and name at once: those that do not fit each other are no sound document.
fn set_format(state: &mut State, node: &str, codec: &str, ending: &str) {
    let inside = read(state, node, "path").unwrap_or_default();
    let renamed = Path::new(&inside).with_extension(ending).to_string_lossy().replace('\\', "/");
    let video = read(state, node, "video").unwrap_or_default();
    let was = read(state, node, "op").unwrap_or_default();
    let (op, stored) = if is_folder(codec) { ("sequence.save", "format") } else { ("video.save", "codec") };
    state.edit(|project| {
        project.edit("Change format", None, |edit| {
            if was != op {
                edit.set(place!["nodes", node], json!({ "op": op, "video": video, "path": renamed }))?;
            } else {
                edit.set(field(node, "path"), json!(renamed))?;
            }
            Ok(edit.set(field(node, stored), json!(codec))?)
        })
    });
}

fn quality(ui: &mut Ui, state: &mut State, node: &str) {
    let qualities = [("draft", "Draft"), ("standard", "Standard"), ("high", "High")];
    let now = read(state, node, "quality").unwrap_or_else(|| "standard".to_owned());
    let mut quality = qualities.iter().map(|(name, _)| *name).find(|name| *name == now).unwrap_or("standard");
    if choice(ui, "Quality", &mut quality, &qualities) {
        state.edit(|project| changes::set_output(project, node, "quality", Some(json!(quality))));
        state.close_gesture();
    }
}

/// Size, rate and shape of a timeline's frames.
fn frames(ui: &mut Ui, state: &mut State, name: &str, film: &VideoSequence) {
    let mut size = film.width.zip(film.height);
    let own = size.filter(|size| !SIZES.iter().any(|(known, _)| *known == Some(*size)));
    let written = own.map(|(width, height)| format!("{width} × {height}")).unwrap_or_default();
    let mut sizes = SIZES.to_vec();
    sizes.extend(own.map(|size| (Some(size), written.as_str())));
    if choice(ui, "Size", &mut size, &sizes) {
        let side = |side: Option<u32>| side.map(|side| json!(side));
        set(
            state,
            name,
            "Change size",
            &[
                ("width", side(size.map(|(width, _)| width))),
                ("height", side(size.map(|(_, height)| height))),
            ],
        );
    }
    let timeline = state.timeline_fps();
    let mut rates: Vec<f64> = RATES.iter().copied().chain([timeline]).chain(film.fps).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    let texts: Vec<String> = rates.iter().map(|rate| rate_text(*rate, timeline)).collect();
    let rates: Vec<(f64, &str)> = rates.iter().copied().zip(texts.iter().map(String::as_str)).collect();
    let mut rate = film.fps.unwrap_or(timeline);
    if choice(ui, "Frame rate", &mut rate, &rates) {
        set(state, name, "Change frame rate", &[("fps", Some(json!(rate)))]);
    }
    let mut fit = film.fit;
    let fits = [(Fit::Contain, "Whole, black beside them"), (Fit::Cover, "Filled, cut off at the sides")];
    if choice(ui, "Other shapes", &mut fit, &fits) {
        set(state, name, "Change fit", &[("fit", Some(json!(fit)))]);
    }
}

fn rate_text(rate: f64, timeline: f64) -> String {
    let own = if rate == timeline { ", the timeline's" } else { "" };
    let digits = format!("{rate:.3}");
    format!("{} a second{own}", digits.trim_end_matches('0').trim_end_matches('.'))
}

fn set(state: &mut State, node: &str, label: &str, fields: &[(&str, Option<Value>)]) {
    state.edit(|project| {
        project.edit(label, None, |edit| {
            for (name, value) in fields {
                edit.set_or_remove(field(node, name), value.clone())?;
            }
            Ok(())
        })
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_codec_and_else_by_ending() {
        let video = |codec, dest: &str| format_of("video.save", codec, Path::new(dest));
        assert_eq!((video(Some("av1"), "a.mp4"), video(None, "a.MOV"), video(None, "a.xyz")), (3, 2, 0));
        assert_eq!(format_of("sequence.save", None, Path::new("frames")), 8);
        assert_eq!(format_of("sequence.save", Some("exr"), Path::new("frames")), 9);
        assert_eq!(video(None, "frames"), 0, "a name without an ending is no folder of pictures by itself");
    }

    #[test]
    fn rates_are_written_as_people_do() {
        assert_eq!(rate_text(8.0, 8.0), "8 a second, the timeline's");
        assert_eq!(rate_text(29.97, 8.0), "29.97 a second");
    }
}
