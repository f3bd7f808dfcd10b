//! Files a document names that are not there, and finding them again.

use std::path::Path;

use eframe::egui::{Align, Layout, RichText, ScrollArea, Ui};

use super::modal::{Modal, Step, buttons, title};
use crate::gui::icons;
use crate::gui::state::State;
use crate::gui::tasks::dialogs::Wanted;
use crate::gui::theme::{Type, palette, space};
use crate::gui::widgets::{Tone, button, caption, card, muted};

/// Draws the dialog.
pub(super) fn show(ui: &mut Ui, state: &mut State) -> Step {
    let gone = state.missing.as_ref().map(|missing| missing.gone.clone()).unwrap_or_default();
    if gone.is_empty() {
        return Step::Close;
    }
    title(ui, if gone.len() == 1 { "A file is missing" } else { "Files are missing" });
    muted(ui, "Moved or renamed since? When one is found, others beside it are found too.");
    ui.add_space(space::S);
    let mut step = Step::Stay(Modal::Missing);
    ScrollArea::vertical().max_height(300.0).auto_shrink([false, true]).show(ui, |ui| {
        for (index, (named, why)) in gone.iter().enumerate() {
            let name = Path::new(&named.name).file_name();
            let name = name.map_or_else(|| named.name.clone(), |name| name.to_string_lossy().into_owned());
            card(ui, false, |ui| {
                ui.horizontal(|ui| {
                    ui.label(RichText::new(&name).font(Type::Strong.font()).color(palette(ui).text));
                    ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                        let tone = if index == 0 { Tone::Main } else { Tone::Plain };
                        if button(ui, Some(icons::SEARCH), &format!("Find {name}…"), tone).clicked() {
                            let folder = state.dialog_folder();
                            let wanted = Wanted::Relink(named.node.clone());
                            state.dialogs.ask(wanted, folder.as_deref(), "");
                            step = Step::Close;
                        }
                    });
                });
                caption(ui, why.as_str());
            });
            ui.add_space(space::XS);
        }
    });
    buttons(ui, |ui| {
        if button(ui, None, "Later", Tone::Plain).clicked() {
            step = Step::Close;
        }
    });
    step
}
