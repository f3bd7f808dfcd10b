//! Brush and eraser: a stroke is drawn while the button is down and kept when it is let go.

use eframe::egui::{Color32, Painter, PointerButton, Pos2, Response, Shape, Stroke as Line, Ui};

use super::Frame;
use crate::gui::state::{State, Tool};
use crate::gui::theme::region_colour;

/// Points of one stroke; a document takes no more.
const MAX_POINTS: usize = 4096;
/// The brush, of the picture's longer side.
pub(super) const SIZES: std::ops::RangeInclusive<f32> = 0.002..=0.2;

/// Goes on with a stroke, or begins one.
pub(super) fn go_on(ui: &Ui, state: &mut State, response: &Response, frame: &Frame) {
    let erase = state.canvas.tool == Tool::Erase;
    let at = response.interact_pointer_pos();
    let down = response.is_pointer_button_down_on() && ui.input(|input| input.pointer.primary_down());
    if down && let Some(at) = at {
        let x = f64::from((at.x - frame.rect.left()) / frame.rect.width());
        let y = f64::from((at.y - frame.rect.top()) / frame.rect.height());
        // A little beyond the edge is still a stroke along it.
        let point = (x.clamp(-0.1, 1.1), y.clamp(-0.1, 1.1));
        let stroke = state.canvas.stroke.get_or_insert_with(Vec::new);
        let longer = f64::from(frame.rect.width().max(frame.rect.height()).max(1.0));
        let far = stroke.last().is_none_or(|&(px, py)| {
            let (dx, dy) = (
                (point.0 - px) * f64::from(frame.rect.width()),
                (point.1 - py) * f64::from(frame.rect.height()),
            );
            // Nearer points than these do not change what a round brush covers.
            dx.hypot(dy) >= (0.2 * f64::from(state.canvas.brush) * longer).max(1.0)
        });
        if far && stroke.len() < MAX_POINTS {
            stroke.push(point);
        }
        return;
    }
    let still = ui.input(|input| input.pointer.primary_down());
    if !still && let Some(points) = state.canvas.stroke.take() {
        state.stroked(points, erase);
    } else if !still
        && response.clicked_by(PointerButton::Primary)
        && let Some([x, y]) = at.and_then(|at| frame.fraction(at))
    {
        // A press and release within one frame.
        state.stroked(vec![(x, y)], erase);
    }
}

/// The stroke that is being drawn, and the brush under the pointer.
pub(super) fn show(ui: &Ui, state: &State, painter: &Painter, frame: &Frame, hover: Option<Pos2>) {
    let radius = state.canvas.brush * frame.rect.width().max(frame.rect.height());
    let erase = state.canvas.tool == Tool::Erase;
    let index = if state.canvas.new_region { None } else { state.choice.region };
    let fresh = state.item().map_or(0, |item| item.regions().len());
    let colour = region_colour(index.unwrap_or(fresh));
    if let Some(stroke) = &state.canvas.stroke {
        let ink = if erase { Color32::from_black_alpha(150) } else { colour.gamma_multiply(0.5) };
        let points: Vec<Pos2> = stroke.iter().map(|&(x, y)| frame.point(x, y)).collect();
        // One path, so that it is nowhere twice as dark as it is.
        match points.as_slice() {
            [only] => {
                painter.circle_filled(*only, radius, ink);
            }
            _ => {
                painter.add(Shape::line(points, Line::new(2.0 * radius, ink)));
            }
        }
    }
    if let Some(at) = hover {
        painter.circle_stroke(at, radius, Line::new(2.5, Color32::from_black_alpha(140)));
        painter.circle_stroke(at, radius, Line::new(1.2, if erase { Color32::WHITE } else { colour }));
        ui.ctx().set_cursor_icon(eframe::egui::CursorIcon::Crosshair);
    }
}
