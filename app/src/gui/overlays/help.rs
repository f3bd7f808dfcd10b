//! Dialogs that explain: the keys, and what this program is.

use eframe::egui::{Align, Layout, RichText, ScrollArea, Ui};

use super::modal::{Modal, Step, buttons, title};
use crate::gui::command::{Group, TABLE, written};
use crate::gui::theme::{Type, palette, space};
use crate::gui::widgets::{Tone, button, caption, muted};

/// What the keys do.
pub(super) fn shortcuts(ui: &mut Ui) -> Step {
    title(ui, "Keyboard shortcuts");
    let mut step = Step::Stay(Modal::Shortcuts);
    let p = palette(ui);
    ScrollArea::vertical().max_height(440.0).auto_shrink([false, true]).show(ui, |ui| {
        ui.spacing_mut().interact_size.y = 20.0;
        ui.spacing_mut().item_spacing = eframe::egui::vec2(36.0, 4.0);
        ui.columns(2, |columns| {
            for (at, group) in Group::ALL.into_iter().enumerate() {
                let Some(ui) = columns.get_mut(at % 2) else { continue };
                let entries: Vec<_> =
                    TABLE.iter().filter(|entry| entry.group == group && !entry.keys.is_empty()).collect();
                if entries.is_empty() {
                    continue;
                }
                ui.label(RichText::new(group.name()).font(Type::Heading.font()).color(p.accent));
                for entry in entries {
                    ui.horizontal(|ui| {
                        ui.label(
                            RichText::new(entry.name.trim_end_matches('…'))
                                .font(Type::Label.font())
                                .color(p.text),
                        )
                        .on_hover_text(entry.tip);
                        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                            let keys: Vec<String> = entry.keys.iter().map(|k| written(ui.ctx(), k)).collect();
                            caption(ui, keys.join("  or  "));
                        });
                    });
                }
                ui.add_space(space::M);
            }
        });
    });
    buttons(ui, |ui| {
        if button(ui, None, "Close", Tone::Main).clicked() {
            step = Step::Close;
        }
    });
    step
}

/// What this is.
pub(super) fn about(ui: &mut Ui) -> Step {
    title(ui, "Kinora");
    muted(
        ui,
        format!(
            "Version {}. Click a thing in a picture, say how it moves, get a clip.",
            env!("CARGO_PKG_VERSION")
        ),
    );
    ui.add_space(space::S);
    muted(
        ui,
        "The model is inside the program; nothing is downloaded unless you ask for it, and nothing leaves this machine.",
    );
    ui.add_space(space::S);
    caption(ui, "MIT or Apache-2.0. Typeface Inter (OFL-1.1), icons Lucide (ISC).");
    let mut step = Step::Stay(Modal::About);
    buttons(ui, |ui| {
        if button(ui, None, "Close", Tone::Main).clicked() {
            step = Step::Close;
        }
    });
    step
}
