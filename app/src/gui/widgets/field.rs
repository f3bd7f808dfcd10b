//! Controls for values: numbers, choices, texts.

use eframe::egui::{
    Align, Color32, ComboBox, CornerRadius, DragValue, Frame, Id, Layout, Margin, Response, Role, Sense,
    Slider, Stroke, StrokeKind, TextEdit, Ui, WidgetInfo, pos2, vec2,
};

use crate::gui::theme::{RADIUS, ROW, Type, palette, space};

/// What happened to a control that is dragged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dragged {
    /// It has another value.
    pub(crate) changed: bool,
    /// The drag or the typing ended.
    pub(crate) ended: bool,
}

impl Dragged {
    fn of(response: &Response) -> Self {
        let ended = response.drag_stopped() || response.lost_focus();
        Self { changed: response.changed(), ended }
    }
}

/// Width of the words before a control.
const LABEL: f32 = 92.0;

/// Draws a row: its name on the left, its control over the rest.
fn row<R>(ui: &mut Ui, name: &str, add: impl FnOnce(&mut Ui) -> R) -> R {
    ui.horizontal(|ui| {
        let p = palette(ui);
        let (rect, _) = ui.allocate_exact_size(vec2(LABEL, ROW), Sense::hover());
        let galley = ui.painter().layout_no_wrap(name.to_owned(), Type::Label.font(), p.muted);
        ui.painter().galley(pos2(rect.left(), rect.center().y - galley.size().y / 2.0), galley, p.muted);
        ui.with_layout(Layout::right_to_left(Align::Center), add).inner
    })
    .inner
}

fn name(response: &Response, enabled: bool, value: f64, role: Role, name: &str) {
    response.widget_info(|| {
        let mut info = WidgetInfo::labeled(role, enabled, name);
        info.value = Some(value);
        info
    });
}

/// A slider with its number.
pub(crate) fn slider(
    ui: &mut Ui,
    label: &str,
    value: &mut f64,
    range: std::ops::RangeInclusive<f64>,
    decimals: usize,
    suffix: &str,
) -> Dragged {
    row(ui, label, |ui| {
        let enabled = ui.is_enabled();
        let (low, high) = (*range.start(), *range.end());
        let speed = (high - low) / 200.0;
        let typed = ui.add_sized(
            vec2(58.0, ROW - 4.0),
            DragValue::new(value).range(range.clone()).speed(speed).fixed_decimals(decimals).suffix(suffix),
        );
        name(&typed, enabled, *value, Role::SpinButton, &format!("{label} value"));
        let slid = ui.scope(|ui| {
            let p = palette(ui);
            ui.spacing_mut().slider_width = (ui.available_width() - space::XS).max(32.0);
            ui.spacing_mut().interact_size.y = 15.0;
            let visuals = ui.visuals_mut();
            visuals.selection.bg_fill = p.accent;
            visuals.widgets.inactive.bg_fill = p.outline;
            for state in
                [&mut visuals.widgets.inactive, &mut visuals.widgets.hovered, &mut visuals.widgets.active]
            {
                state.bg_fill = p.outline;
                state.fg_stroke = Stroke::new(2.0, p.text);
            }
            ui.add(Slider::new(value, range).show_value(false))
        });
        let slid = slid.inner;
        name(&slid, enabled, *value, Role::Slider, label);
        let (a, b) = (Dragged::of(&typed), Dragged::of(&slid));
        Dragged { changed: a.changed || b.changed, ended: a.ended || b.ended }
    })
}

/// A number to drag or type.
pub(crate) fn number(
    ui: &mut Ui,
    label: &str,
    value: &mut f64,
    range: std::ops::RangeInclusive<f64>,
    decimals: usize,
    suffix: &str,
) -> Dragged {
    row(ui, label, |ui| {
        let enabled = ui.is_enabled();
        let speed = if decimals == 0 { 0.25 } else { 0.05 };
        let drag = DragValue::new(value).range(range).speed(speed).fixed_decimals(decimals).suffix(suffix);
        let response = ui.add_sized(vec2(84.0, ROW - 4.0), drag);
        name(&response, enabled, *value, Role::SpinButton, label);
        Dragged::of(&response)
    })
}

/// A list to choose one from; `options` are values with their names.
pub(crate) fn choice<T: Copy + PartialEq>(
    ui: &mut Ui,
    label: &str,
    value: &mut T,
    options: &[(T, &str)],
) -> bool {
    let before = *value;
    let shown = options.iter().find(|(option, _)| *option == before).map_or("", |(_, name)| name);
    menu(ui, label, shown, |ui| {
        for &(option, name) in options {
            ui.selectable_value(value, option, name);
        }
    });
    *value != before
}

/// A list that opens over the panel; `shown` is what is chosen, `add` draws the lines.
pub(crate) fn menu(ui: &mut Ui, label: &str, shown: &str, add: impl FnOnce(&mut Ui)) {
    row(ui, label, |ui| {
        let enabled = ui.is_enabled();
        let combo = ComboBox::from_id_salt(label)
            .selected_text(shown)
            .width(ui.available_width().min(168.0))
            .height(360.0)
            .show_ui(ui, add);
        combo.response.widget_info(|| {
            let mut info = WidgetInfo::labeled(Role::ComboBox, enabled, label);
            info.current_text_value = Some(shown.to_owned());
            info
        });
    });
}

/// A few choices side by side, no wider than there is room.
pub(crate) fn segmented<T: Copy + PartialEq>(ui: &mut Ui, value: &mut T, options: &[(T, &str)]) -> bool {
    let p = palette(ui);
    let before = *value;
    let galleys: Vec<_> = options
        .iter()
        .map(|(_, text)| {
            ui.painter().layout_no_wrap((*text).to_owned(), Type::Label.font(), Color32::PLACEHOLDER)
        })
        .collect();
    let wanted: f32 = galleys.iter().map(|galley| galley.size().x + 2.0 * space::S).sum();
    let squeeze = (ui.available_width() / wanted.max(1.0)).clamp(0.0, 1.0);
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 0.0;
        let last = options.len().saturating_sub(1);
        for (index, (&(option, text), galley)) in options.iter().zip(galleys).enumerate() {
            let selected = option == before;
            let width = (galley.size().x + 2.0 * space::S) * squeeze;
            let (rect, response) = ui.allocate_exact_size(vec2(width, ROW - 4.0), Sense::click());
            let enabled = ui.is_enabled();
            response.widget_info(|| WidgetInfo::selected(Role::RadioButton, enabled, selected, text));
            let radius = CornerRadius {
                nw: if index == 0 { RADIUS } else { 0 },
                sw: if index == 0 { RADIUS } else { 0 },
                ne: if index == last { RADIUS } else { 0 },
                se: if index == last { RADIUS } else { 0 },
            };
            let fill = match (selected, response.hovered()) {
                (true, _) => p.selected,
                (false, true) => p.hover,
                (false, false) => p.field,
            };
            let line = if response.has_focus() { p.accent } else { p.outline };
            ui.painter().rect(rect, radius, fill, Stroke::new(1.0, line), StrokeKind::Inside);
            let ink = if selected { p.accent } else { p.muted };
            let at = rect.center() - galley.size() / 2.0;
            ui.painter().with_clip_rect(rect).galley_with_override_text_color(at, galley, ink);
            if response.clicked() {
                *value = option;
            }
        }
    });
    *value != before
}

/// A line of text; `name` is its name, `hint` what it says while empty.
pub(crate) fn text_field(
    ui: &mut Ui,
    id: Id,
    name: &str,
    hint: &str,
    text: &mut String,
    limit: usize,
) -> Response {
    let p = palette(ui);
    let frame = Frame::new().fill(p.field).stroke(Stroke::new(1.0, p.outline));
    let response = framed(ui, id, (name, hint), text, limit, frame.corner_radius(RADIUS));
    if response.has_focus() {
        ui.painter().rect_stroke(response.rect, RADIUS, Stroke::new(1.0, p.accent), StrokeKind::Inside);
    }
    response
}

/// A field for a line of text on a ground that is there already.
pub(crate) fn plain_text_field(
    ui: &mut Ui,
    id: Id,
    name: &str,
    hint: &str,
    text: &mut String,
    limit: usize,
) -> Response {
    framed(ui, id, (name, hint), text, limit, Frame::new())
}

fn framed(
    ui: &mut Ui,
    id: Id,
    (name, hint): (&str, &str),
    text: &mut String,
    limit: usize,
    frame: Frame,
) -> Response {
    let p = palette(ui);
    let enabled = ui.is_enabled();
    let edit = TextEdit::singleline(text)
        .id(id)
        .hint_text(eframe::egui::RichText::new(hint).color(p.faint))
        .char_limit(limit)
        .desired_width(f32::INFINITY)
        .align(eframe::egui::Align2::LEFT_CENTER)
        .min_size(vec2(0.0, ROW))
        .frame(frame.inner_margin(Margin::symmetric(8, 5)));
    let response = ui.add(edit);
    let shown = text.clone();
    response.widget_info(|| {
        let mut info = WidgetInfo::labeled(Role::TextInput, enabled, name);
        info.current_text_value = Some(shown.clone());
        info
    });
    response
}
