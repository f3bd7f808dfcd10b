//! How a clip or the whole timeline is written to a file.

mod formats;
mod frames;

use std::path::{Path, PathBuf};

use eframe::egui::{Align, Layout, ScrollArea, Ui};
use kinora_pipeline::media::Colour;
use serde_json::json;

use self::formats::{FORMATS, Format, colour_name, format_of};
use super::modal::{Modal, Step, buttons, title};
use crate::gui::exporting::Exported;
use crate::gui::icons;
use crate::gui::model::changes;
use crate::gui::model::marks::Marked;
use crate::gui::model::patch::{Path as Place, find, place};
use crate::gui::outlook::line;
use crate::gui::state::State;
use crate::gui::tasks::dialogs::Wanted;
use crate::gui::theme::space;
use crate::gui::widgets::{Tone, button, caption, choice, muted};

fn field(node: &str, name: &str) -> Place {
    place!["nodes", node, name]
}

fn read(state: &State, node: &str, name: &str) -> Option<String> {
    let value = state.project.as_ref()?.value();
    find(value, &field(node, name))?.as_str().map(str::to_owned)
}

/// Draws the dialog.
pub(super) fn show(ui: &mut Ui, state: &mut State, node: String, mut dest: PathBuf) -> Step {
    let what = state.exported(&node);
    let timeline = what.as_ref().is_some_and(|what| what.of == Marked::Timeline);
    title(ui, if timeline { "Export the timeline" } else { "Export the clip" });
    // In a small window the buttons stay in sight.
    let room = (ui.ctx().content_rect().height() - 190.0).max(80.0);
    ScrollArea::vertical().max_height(room).auto_shrink([false, true]).show(ui, |ui| {
        settings(ui, state, &node, &mut dest, what.as_ref());
    });
    let known = state.export_outlook(ui.ctx(), &node, &dest);
    line(ui, known.as_ref());
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

/// What is chosen for the file, and where it goes.
fn settings(ui: &mut Ui, state: &mut State, node: &str, dest: &mut PathBuf, what: Option<&Exported>) {
    let op = read(state, node, "op").unwrap_or_default();
    let stored = read(state, node, if op == "sequence.save" { "format" } else { "codec" });
    let mut at = format_of(&op, stored.as_deref(), dest);
    let names: Vec<(usize, &str)> = FORMATS.iter().map(|format| format.name).enumerate().collect();
    if choice(ui, "Format", &mut at, &names)
        && let Some(format) = FORMATS.get(at)
    {
        dest.set_extension(format.ending);
        set_format(state, node, format);
    }
    let format = FORMATS.get(at);
    let pictures = format.is_some_and(Format::is_folder);
    if !pictures {
        quality(ui, state, node);
    }
    if let Some(format) = format {
        colours(ui, state, node, format);
    }
    if let Some(what) = what {
        frames::show(ui, state, node, what);
    }
    ui.add_space(space::XS);
    caption(ui, if pictures { "Folder" } else { "File" });
    muted(ui, dest.display().to_string());
    if let Some(what) = what {
        for name in state.changed_shots(&what.of) {
            let text =
                format!("{name} was changed since its latest take: the file is made with what it is now");
            caption(ui, text);
        }
    }
}

/// Changes op, codec and name at once: those that do not fit each other are no sound document.
fn set_format(state: &mut State, node: &str, format: &Format) {
    let inside = read(state, node, "path").unwrap_or_default();
    let renamed = Path::new(&inside).with_extension(format.ending).to_string_lossy().replace('\\', "/");
    let video = read(state, node, "video").unwrap_or_default();
    let was = read(state, node, "op").unwrap_or_default();
    let (op, stored) = if format.is_folder() { ("sequence.save", "format") } else { ("video.save", "codec") };
    let colour = read(state, node, "colour");
    state.edit(|project| {
        project.edit("Change format", None, |edit| {
            if was != op {
                // The part that is saved stays what it is.
                let part = ["from", "to"].map(|name| (name, edit.get(&field(node, name)).cloned()));
                edit.set(place!["nodes", node], json!({ "op": op, "video": video, "path": renamed }))?;
                for (name, value) in part {
                    edit.set_or_remove(field(node, name), value)?;
                }
            } else {
                edit.set(field(node, "path"), json!(renamed))?;
                if !format.colours().iter().any(|known| colour.as_deref() == Some(known.name())) {
                    edit.remove(field(node, "colour"))?;
                }
            }
            Ok(edit.set(field(node, stored), json!(format.codec))?)
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

/// How colours are stored and tagged, to choose where the format leaves a choice.
fn colours(ui: &mut Ui, state: &mut State, node: &str, format: &Format) {
    let ways = format.colours();
    let Some(usual) = ways.first().copied() else {
        caption(ui, format!("Colours: {}", format.picture_colours()));
        return;
    };
    if ways.len() == 1 {
        caption(ui, format!("Colours: {}", colour_name(usual)));
        return;
    }
    let stored = read(state, node, "colour");
    let now = ways.iter().copied().find(|way| Some(way.name()) == stored.as_deref());
    let mut colour = now.unwrap_or(usual);
    let names: Vec<(Colour, &str)> = ways.iter().map(|way| (*way, colour_name(*way))).collect();
    if choice(ui, "Colours", &mut colour, &names) {
        // The usual way needs no word in the document.
        let value = (colour != usual).then(|| json!(colour.name()));
        state.edit(|project| changes::set_output(project, node, "colour", value));
        state.close_gesture();
    }
}
