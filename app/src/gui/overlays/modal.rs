//! Dialogs of the window itself. One at a time; Escape leaves each without doing anything.

use std::path::PathBuf;

use eframe::egui::{Align, Context, Frame, Id, Layout, Margin, RichText, ScrollArea, Stroke, Ui};

use crate::gui::files::After;
use crate::gui::icons;
use crate::gui::model::places::unix_now;
use crate::gui::overlays::toasts::Kind;
use crate::gui::state::State;
use crate::gui::tasks::dialogs::Wanted;
use crate::gui::tasks::opener::{Wish, usable};
use crate::gui::text::ago;
use crate::gui::theme::{Palette, RADIUS, RADIUS_LARGE, Type, palette, space};
use crate::gui::widgets::{Tone, button, caption, card, muted, text_field};

/// An open dialog.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Modal {
    /// Unsaved work of a window that is gone.
    Recover,
    /// A document that was not opened.
    Refused {
        /// Which.
        title: String,
        /// Why, in full.
        text: String,
    },
    /// Unsaved work is in the way of this.
    Unsaved(After),
    /// Another program changed the file.
    ChangedOnDisk,
    /// A file is there already.
    Overwrite {
        /// The node that writes it.
        node: String,
        /// The file.
        dest: PathBuf,
    },
    /// A file that knows the document that made it.
    Finished(PathBuf),
    /// How the clip is written.
    Export {
        /// The node that writes it.
        node: String,
        /// The file.
        dest: PathBuf,
    },
    /// Files the document names that are not there.
    Missing,
    /// Earlier versions of the document.
    Versions,
    /// What the keys do.
    Shortcuts,
    /// What this is.
    About,
    /// A path to type where the desktop has no file dialog.
    TypePath {
        /// What for.
        wanted: Wanted,
        /// What was typed.
        text: String,
        /// Whether the field is to take the keyboard.
        fresh: bool,
    },
}

/// What a dialog decided.
pub(super) enum Step {
    Stay(Modal),
    Close,
}

/// Draws the open dialog.
pub(crate) fn show(ctx: &Context, state: &mut State) {
    let Some(modal) = state.modal.take() else { return };
    let p = Palette::current(ctx);
    let width: f32 = match &modal {
        Modal::Shortcuts => 760.0,
        Modal::Refused { .. } => 620.0,
        _ => 460.0,
    };
    let frame = Frame::new()
        .fill(p.raised)
        .stroke(Stroke::new(1.0, p.outline))
        .corner_radius(RADIUS_LARGE)
        .inner_margin(Margin::same(20));
    let shown =
        eframe::egui::Modal::new(Id::unique("dialog")).frame(frame).backdrop_color(p.veil).show(ctx, |ui| {
            ui.set_width(width.min(ctx.content_rect().width() - 80.0).max(1.0));
            draw(ui, state, modal.clone())
        });
    let dismissed = shown.should_close();
    // A dialog that opened another one has decided already.
    if state.modal.is_some() {
        return;
    }
    match shown.inner {
        Step::Stay(modal) if !dismissed => state.modal = Some(modal),
        _ => {
            if modal == Modal::Recover {
                // They stay where they are and are offered at the next start.
                state.orphans.clear();
            }
        }
    }
}

pub(super) fn title(ui: &mut Ui, text: &str) {
    ui.label(RichText::new(text).font(Type::Title.font()).color(palette(ui).text));
    ui.add_space(space::XS);
}

/// The row of buttons, the main one rightmost.
pub(super) fn buttons(ui: &mut Ui, add: impl FnOnce(&mut Ui)) {
    ui.add_space(space::M);
    ui.allocate_ui_with_layout(
        eframe::egui::vec2(ui.available_width().max(1.0), 28.0),
        Layout::right_to_left(Align::Center),
        add,
    );
}

fn draw(ui: &mut Ui, state: &mut State, modal: Modal) -> Step {
    match modal {
        Modal::Recover => recover(ui, state),
        Modal::Refused { title, text } => refused(ui, title, text),
        Modal::Unsaved(after) => unsaved(ui, state, after),
        Modal::ChangedOnDisk => changed(ui, state),
        Modal::Overwrite { node, dest } => overwrite(ui, state, node, dest),
        Modal::Finished(path) => finished(ui, state, path),
        Modal::Export { node, dest } => super::export::show(ui, state, node, dest),
        Modal::Missing => super::missing::show(ui, state),
        Modal::Versions => versions(ui, state),
        Modal::Shortcuts => super::help::shortcuts(ui),
        Modal::About => super::help::about(ui),
        Modal::TypePath { wanted, text, fresh } => type_path(ui, state, wanted, text, fresh),
    }
}

fn recover(ui: &mut Ui, state: &mut State) -> Step {
    title(ui, "Unsaved work was found");
    muted(ui, "Kinora was closed before these were saved. Files on the disk are as you last saved them.");
    ui.add_space(space::S);
    let mut step = Step::Stay(Modal::Recover);
    let mut chosen = None;
    let mut dropped = None;
    let now = unix_now();
    for (index, orphan) in state.orphans.iter().enumerate() {
        let name = orphan.header.document.as_ref().and_then(|path| path.file_name());
        let name = name.map_or("Untitled".to_owned(), |name| name.to_string_lossy().into_owned());
        card(ui, false, |ui| {
            ui.horizontal(|ui| {
                ui.vertical(|ui| {
                    ui.label(RichText::new(&name).font(Type::Strong.font()).color(palette(ui).text));
                    let edits = if orphan.edits == 1 {
                        "1 edit".to_owned()
                    } else {
                        format!("{} edits", orphan.edits)
                    };
                    caption(ui, format!("{edits}, the last {}", ago(orphan.changed, now)));
                });
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    if button(ui, Some(icons::HISTORY), &format!("Recover {name}"), Tone::Main).clicked() {
                        chosen = Some(index);
                    }
                    if button(ui, None, &format!("Discard {name}"), Tone::Danger).clicked() {
                        dropped = Some(index);
                    }
                });
            });
        });
        ui.add_space(space::XS);
    }
    buttons(ui, |ui| {
        if button(ui, None, "Later", Tone::Plain).clicked() {
            step = Step::Close;
        }
    });
    if let Some(index) = dropped {
        state.orphans.remove(index).discard();
        if state.orphans.is_empty() {
            step = Step::Close;
        }
    }
    if let Some(index) = chosen {
        state.recover(index);
        step = Step::Close;
    }
    step
}

fn refused(ui: &mut Ui, heading: String, text: String) -> Step {
    title(ui, &heading);
    muted(ui, "Nothing was changed. What is wrong with it:");
    ui.add_space(space::S);
    let p = palette(ui);
    Frame::new().fill(p.field).corner_radius(RADIUS).inner_margin(Margin::same(10)).show(ui, |ui| {
        ScrollArea::vertical().max_height(260.0).auto_shrink([false, true]).show(ui, |ui| {
            ui.label(RichText::new(&text).monospace().color(p.text));
        });
    });
    let mut step = Step::Stay(Modal::Refused { title: heading, text: text.clone() });
    buttons(ui, |ui| {
        if button(ui, None, "Close", Tone::Main).clicked() {
            step = Step::Close;
        }
        if button(ui, None, "Copy", Tone::Plain).clicked() {
            ui.ctx().copy_text(text);
        }
    });
    step
}

fn unsaved(ui: &mut Ui, state: &mut State, after: After) -> Step {
    let name = state.project.as_ref().map(|project| project.name()).unwrap_or_default();
    title(ui, &format!("Save {name} first?"));
    muted(ui, "It has edits that are not in its file.");
    let mut step = Step::Stay(Modal::Unsaved(after.clone()));
    buttons(ui, |ui| {
        if button(ui, Some(icons::SAVE), "Save", Tone::Main).clicked() {
            step = Step::Close;
            if state.save(false) {
                state.go_on(after.clone());
            }
        }
        if button(ui, None, "Cancel", Tone::Plain).clicked() {
            step = Step::Close;
        }
        ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
            if button(ui, None, "Don't save", Tone::Danger).clicked() {
                step = Step::Close;
                state.go_on(after);
            }
        });
    });
    step
}

fn changed(ui: &mut Ui, state: &mut State) -> Step {
    title(ui, "The file was changed by another program");
    muted(ui, "Saving over it keeps what is there now among the earlier versions.");
    let mut step = Step::Stay(Modal::ChangedOnDisk);
    buttons(ui, |ui| {
        if button(ui, None, "Save as…", Tone::Main).clicked() {
            state.ask_where_to_save();
            step = Step::Close;
        }
        if button(ui, None, "Cancel", Tone::Plain).clicked() {
            step = Step::Close;
        }
        if button(ui, None, "Save over it", Tone::Danger).clicked() {
            step = Step::Close;
            state.save(true);
        }
    });
    step
}

fn overwrite(ui: &mut Ui, state: &mut State, node: String, dest: PathBuf) -> Step {
    title(ui, "Replace the file?");
    muted(ui, format!("{} is there already.", dest.display()));
    let mut step = Step::Stay(Modal::Overwrite { node: node.clone(), dest: dest.clone() });
    buttons(ui, |ui| {
        if button(ui, None, "Replace", Tone::Main).clicked() {
            step = Step::Close;
            state.export_now(&node, &dest, true);
        }
        if button(ui, None, "Cancel", Tone::Plain).clicked() {
            step = Step::Close;
        }
    });
    step
}

fn finished(ui: &mut Ui, state: &mut State, path: PathBuf) -> Step {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    title(ui, &format!("{name} was made here"));
    muted(ui, "It carries the project that made it. That can be opened again, or the file used as it is.");
    let mut step = Step::Stay(Modal::Finished(path.clone()));
    buttons(ui, |ui| {
        if button(ui, Some(icons::FOLDER_OPEN), "Open its project", Tone::Main).clicked() {
            step = Step::Close;
            state.leave(After::Recipe(path.clone()));
        }
        let (usable, folder) = (usable(&path), path.is_dir());
        let name = if folder { "Use the first picture" } else { "Use the file" };
        if usable.is_some() && button(ui, Some(icons::FILE_PLUS), name, Tone::Plain).clicked() {
            step = Step::Close;
            state.opener.ask(Wish::Plain(path));
        }
        if button(ui, None, "Cancel", Tone::Plain).clicked() {
            step = Step::Close;
        }
    });
    step
}

fn versions(ui: &mut Ui, state: &mut State) -> Step {
    title(ui, "Earlier versions");
    muted(ui, "What each save replaced. Going back is an edit and can be undone.");
    ui.add_space(space::S);
    let list = state.project.as_ref().map(|project| project.versions()).unwrap_or_default();
    let mut step = Step::Stay(Modal::Versions);
    let now = unix_now();
    ScrollArea::vertical().max_height(300.0).auto_shrink([false, true]).show(ui, |ui| {
        for (index, (stamp, path)) in list.iter().enumerate() {
            ui.horizontal(|ui| {
                muted(ui, ago(*stamp, now));
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    if button(
                        ui,
                        Some(icons::ROTATE_CCW),
                        &format!("Go back to version {}", list.len() - index),
                        Tone::Plain,
                    )
                    .clicked()
                    {
                        step = Step::Close;
                        if let Some(project) = &mut state.project {
                            match project.restore(path) {
                                Ok(()) => state.toasts.add(Kind::Done, "the earlier version is back"),
                                Err(error) => state.toasts.add(Kind::Error, error.to_string()),
                            }
                        }
                    }
                });
            });
        }
    });
    buttons(ui, |ui| {
        if button(ui, None, "Close", Tone::Main).clicked() {
            step = Step::Close;
        }
    });
    step
}

fn type_path(ui: &mut Ui, state: &mut State, wanted: Wanted, mut text: String, fresh: bool) -> Step {
    title(ui, "Type the path of the file");
    muted(ui, "This desktop has no file dialog. You can also drop files on the window.");
    ui.add_space(space::S);
    let response = text_field(ui, Id::unique("typed path"), "Path of the file", "/home/…", &mut text, 4096);
    if fresh {
        response.request_focus();
    }
    let entered = response.lost_focus() && ui.input(|input| input.key_pressed(eframe::egui::Key::Enter));
    let mut step = Step::Stay(Modal::TypePath { wanted: wanted.clone(), text: text.clone(), fresh: false });
    let typed = text.trim().to_owned();
    buttons(ui, |ui| {
        ui.add_enabled_ui(!typed.is_empty(), |ui| {
            if (button(ui, None, "Use this file", Tone::Main).clicked() || entered) && !typed.is_empty() {
                step = Step::Close;
                state.file_chosen(&wanted, std::path::Path::new(&typed));
            }
        });
        if button(ui, None, "Cancel", Tone::Plain).clicked() {
            step = Step::Close;
        }
    });
    step
}
