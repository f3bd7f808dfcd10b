//! The canvas by keyboard and screen reader: a cursor that places clicks, and each click as something of its own.

use eframe::egui::{
    Color32, Key, Modifiers, Painter, Rect, Response, Role, Sense, Stroke, Ui, Vec2, WidgetInfo, vec2,
};

use super::{Frame, clicks};
use crate::gui::model::changes::{self, Click};
use crate::gui::sequence::Focus;
use crate::gui::state::{State, Tool};
use crate::gui::theme::palette;
use crate::gui::widgets::arrows;

/// How far an arrow key goes, of the picture's longer side.
const STEP: f64 = 0.01;
/// Half the size of the cursor, and of what a click is focused by, in points.
const REACH: f32 = 12.0;

/// One arrow key as a part of the picture's width and height, the same distance both ways.
fn step(size: Vec2) -> (f64, f64) {
    let longer = f64::from(size.x.max(size.y));
    (STEP * longer / f64::from(size.x.max(1.0)), STEP * longer / f64::from(size.y.max(1.0)))
}

fn moved((x, y): (f64, f64), by: Vec2, size: Vec2) -> (f64, f64) {
    let (dx, dy) = step(size);
    ((x + f64::from(by.x) * dx).clamp(0.0, 1.0), (y + f64::from(by.y) * dy).clamp(0.0, 1.0))
}

/// The cursor of the picture while that has the focus: arrows move it, Enter clicks there, with Shift beside the thing.
pub(super) fn cursor(
    ui: &Ui,
    state: &mut State,
    painter: &Painter,
    response: &Response,
    frame: &Frame,
    size: Vec2,
) {
    if !response.has_focus() || !matches!(state.canvas.tool, Tool::Pick | Tool::LeaveOut) {
        return;
    }
    state.focus = Focus::Picture;
    let by = arrows(ui, response);
    let (x, y) = moved(state.canvas.cursor, by, size);
    state.canvas.cursor = (x, y);
    let (beside, on) = ui.input_mut(|input| {
        // First with Shift: a key without modifiers is also one with Shift that nobody minds.
        let beside = input.consume_key(Modifiers::SHIFT, Key::Enter);
        (beside, input.consume_key(Modifiers::NONE, Key::Enter))
    });
    if beside || on {
        state.clicked(x, y, on && state.canvas.tool == Tool::Pick);
    }
    let at = frame.point(x, y);
    for (ink, width) in [(Color32::from_black_alpha(160), 3.5), (Color32::WHITE, 1.5)] {
        let line = Stroke::new(width, ink);
        for along in [vec2(1.0, 0.0), vec2(-1.0, 0.0), vec2(0.0, 1.0), vec2(0.0, -1.0)] {
            painter.line_segment([at + along * 4.0, at + along * REACH], line);
        }
    }
}

/// The clicks of the chosen region as nodes: with the focus on one, arrows move it and Delete takes it away.
pub(super) fn nodes(ui: &Ui, state: &mut State, painter: &Painter, frame: &Frame, size: Vec2) {
    let Some((index, list)) = clicks(state.region()) else { return };
    let name = state.region().map(|(_, region)| region.name.clone()).unwrap_or_default();
    let item = state.choice.item.clone();
    for (point, Click { x, y, keep }) in list.into_iter().enumerate() {
        let spot = Rect::from_center_size(frame.point(x, y), Vec2::splat(2.0 * REACH));
        let id = ui.scope_id().with(("click", index, point));
        let node = ui.interact(spot, id, Sense::focusable_noninteractive());
        let kind = if keep { "on" } else { "beside" };
        let (across, down) = ((x * 100.0).round(), (y * 100.0).round());
        let label = format!("Click {} {kind} {name}, {across} % across, {down} % down", point + 1);
        let chosen = state.choice.click == Some(point);
        node.widget_info(|| WidgetInfo::selected(Role::ListItem, true, chosen, &label));
        if node.gained_focus() {
            (state.choice.click, state.focus) = (Some(point), Focus::Picture);
        }
        let by = arrows(ui, &node);
        if by != Vec2::ZERO {
            let (x, y) = moved((x, y), by, size);
            state.edit(|project| changes::move_click(project, &item, index, point, Click { x, y, keep }));
        }
        if node.lost_focus() {
            state.close_gesture();
        }
        if node.has_focus() {
            painter.circle_stroke(spot.center(), REACH, Stroke::new(2.0, palette(ui).accent));
        }
    }
}
