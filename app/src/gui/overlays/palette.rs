//! The command palette: type a part of a name, press Enter.

use eframe::egui::{
    Align2, Area, Color32, Context, Frame, Id, Key, Margin, Modifiers, Order, Role, ScrollArea, Sense,
    Stroke, WidgetInfo, pos2, vec2,
};

use crate::gui::command::{Command, Entry, TABLE};
use crate::gui::state::State;
use crate::gui::theme::{Palette, RADIUS, RADIUS_LARGE, ROW, Type, palette, space};
use crate::gui::widgets::{icon_text, muted, text_field};

/// The open palette.
#[derive(Debug, Clone, Default)]
pub(crate) struct PaletteState {
    text: String,
    at: usize,
    fresh: bool,
}

impl PaletteState {
    /// An empty one that takes the keyboard.
    pub(crate) fn new() -> Self {
        Self { fresh: true, ..Self::default() }
    }
}

/// How well a name fits what was typed; none when it does not. Higher is better.
fn fit(name: &str, typed: &str) -> Option<i32> {
    let name: Vec<char> = name.to_lowercase().chars().collect();
    let mut score = 0;
    let mut from = 0;
    let mut last = None;
    for letter in typed.to_lowercase().chars().filter(|c| !c.is_whitespace()) {
        let at = from + name.get(from..)?.iter().position(|&c| c == letter)?;
        let starts = at == 0 || name.get(at - 1).is_some_and(|c| !c.is_alphanumeric());
        score += if last == at.checked_sub(1) && last.is_some() { 6 } else { 0 };
        score += if starts { 8 } else { 0 };
        score -= (at - from).min(6) as i32;
        (last, from) = (Some(at), at + 1);
    }
    Some(score - name.len() as i32 / 8)
}

/// The commands that fit, the best first.
fn matches(typed: &str) -> Vec<&'static Entry> {
    let mut found: Vec<(i32, usize, &Entry)> = TABLE
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.command != Command::Palette)
        .filter_map(|(order, entry)| {
            let own = fit(entry.name, typed);
            let grouped =
                fit(&format!("{} {}", entry.group.name(), entry.name), typed).map(|score| score - 4);
            Some((own.max(grouped)?, order, entry))
        })
        .collect();
    if !typed.trim().is_empty() {
        found.sort_by_key(|&(score, order, _)| (-score, order));
    }
    found.into_iter().map(|(_, _, entry)| entry).collect()
}

/// Draws the palette while it is open.
pub(crate) fn show(ctx: &Context, state: &mut State) {
    let Some(mut open) = state.palette.take() else { return };
    let p = Palette::current(ctx);
    let screen = ctx.content_rect();
    let (mut chosen, mut close) = (None, false);
    // Before the field sees them, which would move its cursor.
    let (up, down, enter, escape) = ctx.input_mut(|input| {
        (
            input.consume_key(Modifiers::NONE, Key::ArrowUp),
            input.consume_key(Modifiers::NONE, Key::ArrowDown),
            input.consume_key(Modifiers::NONE, Key::Enter),
            input.consume_key(Modifiers::NONE, Key::Escape),
        )
    });
    let area = Area::new(Id::unique("palette"))
        .order(Order::Foreground)
        .anchor(Align2::CENTER_TOP, vec2(0.0, (screen.height() * 0.14).min(140.0)))
        .show(ctx, |ui| {
            Frame::new()
                .fill(p.raised)
                .stroke(Stroke::new(1.0, p.outline))
                .corner_radius(RADIUS_LARGE)
                .inner_margin(Margin::same(8))
                .shadow(ui.visuals().window_shadow)
                .show(ui, |ui| {
                    ui.set_width(520.0_f32.min(screen.width() - 40.0).max(1.0));
                    let field = Id::unique("palette field");
                    let response = text_field(
                        ui,
                        field,
                        "Find a command",
                        "Type what you want to do",
                        &mut open.text,
                        60,
                    );
                    if open.fresh || !response.has_focus() {
                        response.request_focus();
                        open.fresh = false;
                    }
                    if response.changed() {
                        open.at = 0;
                    }
                    let found = matches(&open.text);
                    let count = found.len();
                    if count > 0 {
                        open.at = match (up, down) {
                            (true, _) => (open.at + count - 1) % count,
                            (_, true) => (open.at + 1) % count,
                            _ => open.at.min(count - 1),
                        };
                    }
                    ui.add_space(space::XS);
                    ScrollArea::vertical().max_height(360.0).auto_shrink([false, true]).show(ui, |ui| {
                        ui.spacing_mut().item_spacing.y = 0.0;
                        for (index, entry) in found.iter().enumerate() {
                            let blocked = state.blocked(entry.command);
                            let line = row(ui, entry, index == open.at, blocked.is_some());
                            if index == open.at && (up || down) {
                                line.scroll_to_me(None);
                            }
                            let line = match &blocked {
                                Some(why) => line.on_hover_text(why),
                                None => line.on_hover_text(entry.tip),
                            };
                            if line.clicked() && blocked.is_none() {
                                chosen = Some(entry.command);
                            }
                        }
                    });
                    if count == 0 {
                        ui.add_space(space::S);
                        muted(ui, "No command is called that");
                    } else if enter
                        && let Some(entry) = found.get(open.at)
                        && state.blocked(entry.command).is_none()
                    {
                        chosen = Some(entry.command);
                    }
                });
        });
    if escape || area.response.clicked_elsewhere() {
        close = true;
    }
    if let Some(command) = chosen {
        state.todo.push(command);
    } else if !close {
        state.palette = Some(open);
    }
}

fn row(ui: &mut eframe::egui::Ui, entry: &Entry, at: bool, blocked: bool) -> eframe::egui::Response {
    let p = palette(ui);
    let (rect, response) =
        ui.allocate_exact_size(vec2(ui.available_width().max(1.0), ROW + 2.0), Sense::click());
    response.widget_info(|| WidgetInfo::selected(Role::MenuItem, !blocked, at, entry.name));
    if !ui.is_rect_visible(rect) {
        return response;
    }
    let fill = match (at, response.hovered()) {
        (true, _) => p.selected,
        (false, true) => p.hover,
        _ => Color32::TRANSPARENT,
    };
    ui.painter().rect_filled(rect, RADIUS, fill);
    let ink = if blocked { p.faint } else { p.text };
    if let Some(icon) = entry.icon {
        icon_text(
            ui,
            pos2(rect.left() + 18.0, rect.center().y),
            icon,
            15.0,
            if blocked { p.faint } else { p.muted },
        );
    }
    let painter = ui.painter();
    painter.text(
        pos2(rect.left() + 38.0, rect.center().y),
        Align2::LEFT_CENTER,
        entry.name,
        Type::Body.font(),
        ink,
    );
    let keys = entry.command.keys_text(ui.ctx());
    let right = painter.text(
        pos2(rect.right() - 10.0, rect.center().y),
        Align2::RIGHT_CENTER,
        keys,
        Type::Caption.font(),
        p.muted,
    );
    painter.text(
        pos2(right.left() - 12.0, rect.center().y),
        Align2::RIGHT_CENTER,
        entry.group.name(),
        Type::Caption.font(),
        p.faint,
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_letters_find_the_command() {
        let first = |typed: &str| matches(typed).first().map(|entry| entry.command);
        assert_eq!(first("undo"), Some(Command::Undo));
        assert_eq!(first("anim"), Some(Command::Animate));
        assert_eq!(first("zf"), Some(Command::ZoomFit));
        assert_eq!(first("save as"), Some(Command::SaveAs));
        assert_eq!(first("dark"), Some(Command::Theme(crate::gui::model::settings::ThemeChoice::Dark)));
        assert_eq!(first("zzzz"), None);
        assert_eq!(matches("").len(), TABLE.len() - 1, "nothing typed lists everything in order");
    }
}
