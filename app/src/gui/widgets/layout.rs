//! What stands around controls: headings, cards, remarks, bars.

use eframe::egui::{
    Color32, Frame, InnerResponse, Margin, Response, RichText, Role, Sense, Stroke, StrokeKind, Ui,
    WidgetInfo, pos2, vec2,
};

use super::button::icon_text;
use crate::gui::theme::{RADIUS, RADIUS_LARGE, Type, palette, space};

/// A heading in a panel.
pub(crate) fn heading(ui: &mut Ui, text: &str) -> Response {
    ui.label(RichText::new(text).font(Type::Heading.font()).color(palette(ui).text))
}

/// Text of the second rank.
pub(crate) fn muted(ui: &mut Ui, text: impl Into<String>) -> Response {
    ui.label(RichText::new(text).font(Type::Body.font()).color(palette(ui).muted))
}

/// A remark.
pub(crate) fn caption(ui: &mut Ui, text: impl Into<String>) -> Response {
    ui.label(RichText::new(text).font(Type::Caption.font()).color(palette(ui).muted))
}

/// A line across.
pub(crate) fn rule(ui: &mut Ui) {
    let p = palette(ui);
    let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width().max(1.0), 1.0), Sense::hover());
    ui.painter().hline(rect.x_range(), rect.center().y, Stroke::new(1.0, p.line));
}

/// A titled group of controls.
pub(crate) fn section<R>(ui: &mut Ui, title: &str, add: impl FnOnce(&mut Ui) -> R) -> R {
    ui.add_space(space::XS);
    heading(ui, title);
    ui.add_space(space::XS);
    let answer = add(ui);
    ui.add_space(space::M);
    answer
}

/// A card on a panel.
pub(crate) fn card<R>(ui: &mut Ui, selected: bool, add: impl FnOnce(&mut Ui) -> R) -> InnerResponse<R> {
    let p = palette(ui);
    let line = if selected { p.accent } else { p.line };
    Frame::new()
        .fill(p.raised)
        .stroke(Stroke::new(1.0, line))
        .corner_radius(RADIUS_LARGE)
        .inner_margin(Margin::same(10))
        .show(ui, |ui| {
            ui.set_width(ui.available_width().max(1.0));
            add(ui)
        })
}

/// What a panel shows when it has nothing to show.
pub(crate) fn empty(ui: &mut Ui, icon: &str, title: &str, text: &str) {
    let p = palette(ui);
    let height = ui.available_height();
    ui.vertical_centered(|ui| {
        ui.add_space(((height - 120.0) / 2.0).max(space::M));
        let (rect, _) = ui.allocate_exact_size(vec2(32.0, 32.0), Sense::hover());
        icon_text(ui, rect.center(), icon, 26.0, p.faint);
        ui.label(RichText::new(title).font(Type::Strong.font()).color(p.muted));
        ui.set_max_width(280.0);
        ui.label(RichText::new(text).font(Type::Label.font()).color(p.muted));
    });
}

/// A small word on a coloured ground.
pub(crate) fn badge(ui: &mut Ui, text: &str, colour: Color32) {
    let galley = ui.painter().layout_no_wrap(text.to_owned(), Type::Caption.font(), colour);
    let (rect, response) = ui.allocate_exact_size(galley.size() + vec2(10.0, 4.0), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, text));
    ui.painter().rect_filled(rect, RADIUS, colour.gamma_multiply(0.16));
    ui.painter().galley(rect.center() - galley.size() / 2.0, galley, colour);
}

/// A bar that fills from 0 to 1; `name` says what is being done.
pub(crate) fn progress(ui: &mut Ui, fraction: f32, name: &str) -> Response {
    let p = palette(ui);
    let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
    let wide = ui.available_width().max(1.0);
    let (rect, response) = ui.allocate_exact_size(vec2(wide, 6.0), Sense::hover());
    response.widget_info(|| {
        let mut info = WidgetInfo::labeled(Role::ProgressIndicator, true, name);
        info.value = Some(f64::from(fraction * 100.0));
        info
    });
    ui.painter().rect(rect, 3, p.field, Stroke::new(1.0, p.line), StrokeKind::Inside);
    let mut filled = rect;
    filled.set_right(rect.left() + rect.width() * fraction);
    if filled.width() >= 1.0 {
        ui.painter().rect_filled(filled, 3, p.accent);
    }
    response
}

/// Text in one line, cut with an ellipsis where there is no room, whole in its tooltip.
pub(crate) fn shortened(ui: &mut Ui, text: &str, kind: Type, colour: Color32, width: f32) -> Response {
    let galley = {
        let mut job = eframe::egui::text::LayoutJob::simple_singleline(text.to_owned(), kind.font(), colour);
        job.wrap = eframe::egui::text::TextWrapping::truncate_at_width(width.max(1.0));
        ui.painter().layout_job(job)
    };
    let cut = galley.elided;
    let (rect, response) =
        ui.allocate_exact_size(vec2(width.min(galley.size().x).max(1.0), galley.size().y), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, text));
    ui.painter().galley(pos2(rect.left(), rect.top()), galley, colour);
    if cut { response.on_hover_text(text) } else { response }
}
