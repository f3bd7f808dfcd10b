//! Buttons.

use eframe::egui::{
    Align2, Color32, FontId, Response, Role, Sense, Stroke, StrokeKind, Ui, Vec2, WidgetInfo, pos2, vec2,
};

use crate::gui::theme::{Palette, RADIUS, ROW, Type, fonts, palette, space};

/// What a button means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// One of many.
    Plain,
    /// The one thing to do next.
    Main,
    /// Without a frame until pointed at.
    Quiet,
    /// Takes something away.
    Danger,
}

struct Inks {
    fill: Color32,
    line: Color32,
    ink: Color32,
}

fn inks(p: &Palette, tone: Tone, response: &Response, enabled: bool) -> Inks {
    let (hovered, held) = (response.hovered() || response.has_focus(), response.is_pointer_button_down_on());
    let plain = if held { p.pressed } else { p.hover };
    let inks = match tone {
        Tone::Main => Inks {
            fill: if hovered { p.accent_hover } else { p.accent },
            line: Color32::TRANSPARENT,
            ink: p.on_accent,
        },
        Tone::Plain => Inks { fill: if hovered { plain } else { p.raised }, line: p.outline, ink: p.text },
        Tone::Quiet => Inks {
            fill: if hovered { plain } else { Color32::TRANSPARENT },
            line: Color32::TRANSPARENT,
            ink: if hovered { p.text } else { p.muted },
        },
        Tone::Danger => Inks { fill: if hovered { plain } else { p.raised }, line: p.outline, ink: p.bad },
    };
    if enabled {
        return inks;
    }
    let fill = if tone == Tone::Quiet { Color32::TRANSPARENT } else { p.raised };
    Inks { fill, line: if tone == Tone::Quiet { Color32::TRANSPARENT } else { p.line }, ink: p.faint }
}

fn paint(ui: &Ui, response: &Response, inks: &Inks) {
    let p = palette(ui);
    let line = if response.has_focus() { p.accent } else { inks.line };
    ui.painter().rect(response.rect, RADIUS, inks.fill, Stroke::new(1.0, line), StrokeKind::Inside);
}

fn icon_font(size: f32) -> FontId {
    FontId::new(size, fonts::icons())
}

/// Draws an icon, centred.
pub(crate) fn icon_text(ui: &Ui, at: eframe::egui::Pos2, icon: &str, size: f32, colour: Color32) {
    ui.painter().text(at, Align2::CENTER_CENTER, icon, icon_font(size), colour);
}

fn labelled(ui: &mut Ui, icon: Option<&str>, text: &str, tone: Tone, width: Option<f32>) -> Response {
    let enabled = ui.is_enabled();
    let font = if tone == Tone::Main { Type::Strong.font() } else { Type::Body.font() };
    let galley = ui.painter().layout_no_wrap(text.to_owned(), font, Color32::PLACEHOLDER);
    let icon_width = if icon.is_some() { 16.0 + space::S } else { 0.0 };
    let wanted = galley.size().x + icon_width + 2.0 * space::M;
    let width = width.unwrap_or(wanted).max(wanted.min(ui.available_width())).max(1.0);
    let (rect, response) = ui.allocate_exact_size(vec2(width, ROW), Sense::click());
    response.widget_info(|| WidgetInfo::labeled(Role::Button, enabled, text));
    if ui.is_rect_visible(rect) {
        let inks = inks(palette(ui), tone, &response, enabled);
        paint(ui, &response, &inks);
        let mut x = rect.center().x - (galley.size().x + icon_width) / 2.0;
        x = x.max(rect.left() + space::S);
        if let Some(icon) = icon {
            icon_text(ui, pos2(x + 8.0, rect.center().y), icon, 15.0, inks.ink);
            x += icon_width;
        }
        let at = pos2(x, rect.center().y - galley.size().y / 2.0);
        ui.painter().with_clip_rect(rect).galley_with_override_text_color(at, galley, inks.ink);
    }
    response
}

/// A button with words.
pub(crate) fn button(ui: &mut Ui, icon: Option<&str>, text: &str, tone: Tone) -> Response {
    labelled(ui, icon, text, tone, None)
}

/// A button as wide as there is room.
pub(crate) fn wide_button(ui: &mut Ui, icon: Option<&str>, text: &str, tone: Tone) -> Response {
    let width = ui.available_width();
    labelled(ui, icon, text, tone, Some(width))
}

/// A square button with an icon; `name` is its name and its tooltip.
pub(crate) fn icon_button(ui: &mut Ui, icon: &str, name: &str) -> Response {
    let enabled = ui.is_enabled();
    let (rect, response) = ui.allocate_exact_size(Vec2::splat(ROW), Sense::click());
    response.widget_info(|| WidgetInfo::labeled(Role::Button, enabled, name));
    if ui.is_rect_visible(rect) {
        let inks = inks(palette(ui), Tone::Quiet, &response, enabled);
        paint(ui, &response, &inks);
        icon_text(ui, rect.center(), icon, 16.0, inks.ink);
    }
    response.on_hover_text(name)
}

/// A square button that stays down while `selected`.
pub(crate) fn tool_button(ui: &mut Ui, icon: &str, name: &str, tip: &str, selected: bool) -> Response {
    let enabled = ui.is_enabled();
    let (rect, response) = ui.allocate_exact_size(Vec2::splat(ROW), Sense::click());
    response.widget_info(|| WidgetInfo::selected(Role::Button, enabled, selected, name));
    if ui.is_rect_visible(rect) {
        let p = palette(ui);
        let mut inks = inks(p, Tone::Quiet, &response, enabled);
        if selected {
            (inks.fill, inks.ink) = (p.selected, p.accent);
        }
        paint(ui, &response, &inks);
        icon_text(ui, rect.center(), icon, 16.0, inks.ink);
    }
    response.on_hover_text(tip)
}
