//! The window: menu, toolbar, panels, status, and whatever lies over them.

use std::sync::Arc;

use eframe::egui::{
    self, Align, Context, Frame, Layout, Margin, MenuBar, Panel, RichText, Stroke, Ui, ViewportCommand, vec2,
};
use egui_tiles::Tree;

use super::command::{Command, Group, TABLE, pressed};
use super::files::After;
use super::icons;
use super::layout::{self, Pane, Panels};
use super::measure::Measure;
use super::model::places::Places;
use super::overlays::{modal, palette as command_palette, welcome};
use super::state::State;
use super::tasks::Wake;
use super::tasks::opener::Wish;
use super::text::seconds;
use super::theme::{self, Type, palette, space};
use super::widgets::{Tone, button, caption, icon_button};

/// Height of the menu bar.
const TOP: f32 = 40.0;
/// Height of the status bar.
const BOTTOM: f32 = 26.0;

/// The window.
#[derive(Debug)]
pub(crate) struct App {
    /// What it shows.
    pub(crate) state: State,
    /// How the panels are arranged.
    layout: Tree<Pane>,
    title: String,
    /// The measurement that was asked for.
    pub(crate) measure: Option<Measure>,
}

impl App {
    /// A window over the folders of one user.
    pub(crate) fn new(ctx: &Context, places: Places) -> Self {
        theme::install(ctx);
        let waker = ctx.clone();
        let wake: Wake = Arc::new(move || waker.request_repaint());
        let state = State::new(places, wake);
        state.apply_settings(ctx);
        let layout = layout::remembered(state.settings.layout.as_ref()).unwrap_or_else(layout::usual);
        Self { state, layout, title: String::new(), measure: None }
    }

    /// Shows one panel alone.
    #[cfg(test)]
    pub(crate) fn only(&mut self, pane: Pane) {
        self.layout = Tree::new_tabs(egui::Id::unique("panels"), vec![pane]);
    }

    /// What happens without anything being drawn.
    pub(crate) fn tick(&mut self, ctx: &Context) {
        self.state.poll(ctx);
        for path in dropped(ctx) {
            self.state.open_any(&path);
        }
        if self.state.modal.is_none() && self.state.palette.is_none() {
            let commands = pressed(ctx);
            self.state.todo.extend(commands);
            self.pasted(ctx);
        }
        if ctx.input(|input| input.viewport().close_requested()) && !self.state.leaving {
            self.state.leave(After::Quit);
            if !self.state.leaving {
                ctx.send_viewport_cmd(ViewportCommand::CancelClose);
            }
        }
    }

    /// Copies and pastes while nobody types: keys, files, pictures.
    fn pasted(&mut self, ctx: &Context) {
        if ctx.text_edit_focused() {
            return;
        }
        let events = ctx.input(|input| input.events.clone());
        for event in events {
            match event {
                egui::Event::Copy => {
                    self.state.copy_keys(ctx);
                }
                egui::Event::Paste(text) if !self.state.paste_keys(&text) => {
                    for path in files_in(&text) {
                        self.state.open_any(&path);
                    }
                }
                egui::Event::PasteImage(image) => self.state.opener.ask(Wish::Pasted(image)),
                _ => {}
            }
        }
    }

    /// Draws everything, then does what was asked for.
    pub(crate) fn draw(&mut self, ui: &mut Ui) {
        let ctx = ui.ctx().clone();
        let p = palette(ui);
        ui.painter().rect_filled(ui.max_rect(), 0, p.chrome);
        // The ground is drawn once: each layer over the whole window costs without a graphics card.
        let bar = Frame::new().inner_margin(Margin::symmetric(8, 5));
        Panel::top("menu").exact_size(TOP).resizable(false).show_separator_line(false).frame(bar).show(
            ui,
            |ui| {
                menu(ui, &mut self.state);
            },
        );
        let bar = Frame::new().inner_margin(Margin::symmetric(12, 3));
        Panel::bottom("status")
            .exact_size(BOTTOM)
            .resizable(false)
            .show_separator_line(false)
            .frame(bar)
            .show(ui, |ui| {
                status(ui, &mut self.state);
            });
        let page = Frame::new().inner_margin(Margin { left: 4, right: 4, top: 0, bottom: 0 });
        egui::CentralPanel::no_frame().frame(page).show(ui, |ui| {
            if self.state.project.is_none() {
                welcome::show(ui, &mut self.state);
                return;
            }
            let mut panels = Panels { state: &mut self.state, edited: false };
            self.layout.ui(&mut panels, ui);
            if panels.edited {
                self.state.settings.layout = serde_json::to_value(&self.layout).ok();
                self.state.touch_settings();
            }
        });
        modal::show(&ctx, &mut self.state);
        command_palette::show(&ctx, &mut self.state);
        self.state.toasts.show(&ctx);
        welcome::drop_hint(&ctx);
        for command in std::mem::take(&mut self.state.todo) {
            self.state.perform(command, &ctx);
        }
        if let Some(pane) = self.state.show_pane.take() {
            layout::show(&mut self.layout, pane);
        }
        if std::mem::take(&mut self.state.reset_layout) {
            self.layout = layout::usual();
            self.state.settings.layout = None;
            self.state.touch_settings();
        }
        self.state.textures.sweep();
        if self.state.opener.waits() {
            ctx.request_repaint();
        }
        self.name_window(&ctx);
        if self.state.leaving {
            self.state.write_settings();
            ctx.send_viewport_cmd(ViewportCommand::Close);
        }
    }

    fn name_window(&mut self, ctx: &Context) {
        let title = match &self.state.project {
            Some(project) => {
                let mark = if project.is_dirty() { "• " } else { "" };
                format!("{mark}{} – Kinora", project.name())
            }
            None => "Kinora".to_owned(),
        };
        if title != self.title {
            ctx.send_viewport_cmd(ViewportCommand::Title(title.clone()));
            self.title = title;
        }
        let size = ctx.content_rect().size() * ctx.zoom_factor();
        let known = vec2(self.state.settings.window[0], self.state.settings.window[1]);
        if (size - known).length() > 1.0 && size.x > 200.0 {
            self.state.settings.window = [size.x, size.y];
            self.state.touch_settings();
        }
    }
}

impl eframe::App for App {
    fn logic(&mut self, ctx: &Context, _frame: &mut eframe::Frame) {
        self.tick(ctx);
    }

    fn ui(&mut self, ui: &mut Ui, _frame: &mut eframe::Frame) {
        let begun = std::time::Instant::now();
        self.draw(ui);
        if let Some(measure) = &mut self.measure {
            measure.frame(ui.ctx(), &mut self.state, begun.elapsed());
        }
    }

    fn clear_color(&self, _visuals: &egui::Visuals) -> [f32; 4] {
        [0.06, 0.06, 0.07, 1.0]
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.state.write_settings();
    }
}

/// Files dropped on the window.
fn dropped(ctx: &Context) -> Vec<std::path::PathBuf> {
    ctx.input(|input| input.raw.dropped_files.iter().map(|file| file.path().to_path_buf()).collect())
}

/// The files a pasted text names: what file managers put on the clipboard.
fn files_in(text: &str) -> Vec<std::path::PathBuf> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| {
        let plain = line.strip_prefix("file://").map_or_else(|| line.to_owned(), unescape);
        std::path::PathBuf::from(plain)
    });
    lines.filter(|path| path.is_absolute() && path.is_file()).take(16).collect()
}

/// The path of a `file://` address: `%20` is a space.
fn unescape(text: &str) -> String {
    let mut bytes = vec![];
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let escaped = (byte == b'%').then(|| {
            let mut ahead = rest.clone();
            let digits = [ahead.next()?, ahead.next()?];
            let value = u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?;
            rest = ahead;
            Some(value)
        });
        bytes.push(escaped.flatten().unwrap_or(byte));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn menu(ui: &mut Ui, state: &mut State) {
    let ctx = ui.ctx().clone();
    MenuBar::new().ui(ui, |ui| {
        ui.spacing_mut().item_spacing.x = 0.0;
        ui.spacing_mut().button_padding = vec2(9.0, 4.0);
        for group in Group::ALL {
            ui.menu_button(group.name(), |ui| {
                ui.set_min_width(240.0);
                ui.spacing_mut().item_spacing.y = 0.0;
                // A long menu in a small window is scrolled.
                let room = (ctx.content_rect().height() - TOP - 24.0).max(120.0);
                egui::ScrollArea::vertical().max_height(room).show(ui, |ui| {
                    for entry in TABLE.iter().filter(|entry| entry.group == group) {
                        menu_line(ui, state, entry.command);
                        if entry.command == Command::OpenDocument {
                            recent(ui, state);
                        }
                    }
                });
            });
        }
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            ui.spacing_mut().item_spacing.x = space::XS;
            let tip = Command::Palette.tip(&ctx);
            if icon_button(ui, icons::SEARCH, "Find a command").on_hover_text(tip).clicked() {
                state.todo.push(Command::Palette);
            }
            if state.project.is_some() {
                for command in [Command::Redo, Command::Undo] {
                    let can = state.blocked(command).is_none();
                    ui.add_enabled_ui(can, |ui| {
                        let icon = command.entry().and_then(|entry| entry.icon).unwrap_or_default();
                        if icon_button(ui, icon, command.name()).clicked() {
                            state.todo.push(command);
                        }
                    });
                }
                let dirty = state.project.as_ref().is_some_and(|project| project.is_dirty());
                let tone = if dirty { Tone::Plain } else { Tone::Quiet };
                // Where there is little room the words go first.
                let save = if ui.available_width() > 90.0 {
                    button(ui, Some(icons::SAVE), "Save", tone)
                } else {
                    icon_button(ui, icons::SAVE, "Save")
                };
                if save.on_hover_text(Command::Save.tip(&ctx)).clicked() {
                    state.todo.push(Command::Save);
                }
            }
        });
    });
}

fn menu_line(ui: &mut Ui, state: &mut State, command: Command) {
    let Some(entry) = command.entry() else { return };
    let blocked = state.blocked(command);
    let mut name = entry.name.to_owned();
    if let Some(project) = &state.project {
        let what = match command {
            Command::Undo => project.undo_label(),
            Command::Redo => project.redo_label(),
            _ => None,
        };
        if let Some(what) = what {
            name = format!("{name} {}", what.to_lowercase());
        }
    }
    let keys = RichText::new(command.keys_text(ui.ctx())).font(Type::Caption.font());
    let line = egui::Button::new(name).shortcut_text(keys).frame(true).min_size(vec2(240.0, 26.0));
    let response = ui.add_enabled(blocked.is_none(), line);
    let response = match blocked {
        Some(why) => response.on_disabled_hover_text(why),
        None => response.on_hover_text(entry.tip),
    };
    if response.clicked() {
        state.todo.push(command);
        ui.close();
    }
}

fn recent(ui: &mut Ui, state: &mut State) {
    let list = state.settings.recent.clone();
    ui.add_enabled_ui(!list.is_empty(), |ui| {
        ui.menu_button("Open recent", |ui| {
            ui.set_min_width(240.0);
            for path in list {
                let name =
                    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                if ui.button(name).on_hover_text(path.display().to_string()).clicked() {
                    state.leave(After::Open(path));
                    ui.close();
                }
            }
        });
    });
}

fn status(ui: &mut Ui, state: &mut State) {
    let p = palette(ui);
    ui.horizontal_centered(|ui| {
        let text = match &state.project {
            Some(project) => {
                let saved = if project.is_dirty() { "not saved" } else { "saved" };
                format!("{}, {saved}", project.name())
            }
            None => "No project".to_owned(),
        };
        caption(ui, text);
        let missing = state.missing.as_ref().map_or(0, |missing| missing.gone.len());
        if missing > 0 {
            let text = if missing == 1 {
                "1 file is missing".to_owned()
            } else {
                format!("{missing} files are missing")
            };
            let text = RichText::new(text).font(Type::Caption.font()).color(p.warning);
            let link = ui.link(text).on_hover_text(Command::FindMissing.tip(ui.ctx()));
            if link.clicked() {
                state.todo.push(Command::FindMissing);
            }
        }
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let live = state.runner.look(|_, live| live.cloned());
            if let Some(live) = live {
                let left = live.seconds_left().map(|s| format!(", {} left", seconds(s))).unwrap_or_default();
                caption(ui, format!("{}{left}", live.doing));
                let (rect, _) = ui.allocate_exact_size(vec2(90.0, 4.0), egui::Sense::hover());
                ui.painter().rect_filled(rect, 2, p.line);
                let filled = rect.with_max_x(rect.left() + rect.width() * live.fraction);
                ui.painter().rect(filled, 2, p.accent, Stroke::NONE, egui::StrokeKind::Inside);
            } else if let Some(name) = state.opener.busy() {
                caption(ui, format!("Opening {name}…"));
            } else if state.masks.is_busy() {
                caption(ui, "Cutting out…");
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_paths() {
        assert_eq!(unescape("/a%20b/c.png"), "/a b/c.png");
        assert_eq!(unescape("/100%"), "/100%");
        assert_eq!(unescape("/%zz%4"), "/%zz%4");
        assert_eq!(unescape("/%C3%A9"), "/é");
    }
}
