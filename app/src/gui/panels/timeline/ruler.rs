//! The ruler with its times, and the playhead.

use eframe::egui::{Align2, Rect, Role, Sense, Shape, Stroke, Ui, WidgetInfo, pos2, vec2};

use super::Scale;
use crate::gui::model::marks::{Marked, Marks};
use crate::gui::sequence::Drag;
use crate::gui::state::State;
use crate::gui::theme::{Type, palette};
use crate::gui::widgets::slid;

/// Seconds between labels that can be chosen.
const STEPS: [f64; 18] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0,
    7200.0,
];
/// Least distance of labels, in points.
const APART: f32 = 72.0;

fn step(zoom: f32) -> f64 {
    STEPS.into_iter().find(|step| *step as f32 * zoom >= APART).unwrap_or(14_400.0)
}

/// A time as the ruler writes it.
fn label(t: f64, step: f64) -> String {
    let (minutes, seconds) = ((t / 60.0 + 1e-9).floor(), t.rem_euclid(60.0));
    if step >= 1.0 {
        let seconds = (seconds + 1e-6).floor();
        return match minutes >= 60.0 {
            true => format!("{}:{:02}:{seconds:02}", (minutes / 60.0).floor(), minutes % 60.0),
            false => format!("{minutes}:{seconds:02}"),
        };
    }
    format!("{minutes}:{seconds:05.2}")
}

/// Draws the ruler; a press on it takes the playhead there.
pub(super) fn show(ui: &Ui, state: &mut State, rect: Rect, scale: &Scale) {
    let p = palette(ui);
    let response = ui.interact(rect, ui.scope_id().with("ruler"), Sense::click_and_drag());
    let playhead = state.sequence.playhead;
    response.widget_info(|| {
        let mut info = WidgetInfo::labeled(Role::Slider, true, "Timeline playhead");
        info.value = Some(playhead);
        info
    });
    ui.painter().rect_filled(rect, 0, p.panel);
    let painter = ui.painter_at(rect);
    let step = step(scale.zoom);
    let parts = 5;
    let first = (scale.scroll / step).floor().max(0.0);
    let count = (scale.seconds(scale.right - scale.left) / step).ceil() as usize + 1;
    for index in 0..=count.min(400) {
        let t = (first + index as f64) * step;
        let x = scale.x(t);
        painter.vline(x, rect.bottom() - 8.0..=rect.bottom(), Stroke::new(1.0, p.outline));
        painter.text(
            pos2(x + 4.0, rect.top() + 4.0),
            Align2::LEFT_TOP,
            label(t, step),
            Type::Caption.font(),
            p.muted,
        );
        for part in 1..parts {
            let x = scale.x(t + step * f64::from(part) / f64::from(parts));
            painter.vline(x, rect.bottom() - 4.0..=rect.bottom(), Stroke::new(1.0, p.line));
        }
    }
    painter.hline(rect.x_range(), rect.bottom() - 0.5, Stroke::new(1.0, p.line));
    marked(ui, state, rect, scale);
    if response.has_focus() {
        painter.rect_stroke(
            rect.shrink(1.0),
            2,
            Stroke::new(1.0, p.accent),
            eframe::egui::StrokeKind::Inside,
        );
    }
    let film = state.timeline_info();
    if let Some(t) = film.and_then(|film| {
        let last = (film.frames - 1) as f64 / film.fps;
        slid(ui, &response, playhead, &(0.0..=last), 1.0 / film.fps)
    }) {
        state.show_timeline_at(t);
    }
    // A press and release within one frame is no drag.
    if response.clicked()
        && let Some(at) = response.interact_pointer_pos()
    {
        state.show_timeline_at(scale.t(at.x));
    }
    let pressed = response.is_pointer_button_down_on() && ui.input(|input| input.pointer.primary_pressed());
    if pressed || response.drag_started() {
        state.sequence.drag = Some(Drag::Playhead);
    }
}

/// The marked part, and where it begins and ends.
fn marked(ui: &Ui, state: &State, rect: Rect, scale: &Scale) {
    let marks = state.marks_of(&Marked::Timeline);
    let length = state.timeline_info().map_or(0.0, |info| info.seconds());
    let Some((from, to)) = marks.within(length) else { return };
    part(ui, rect, (scale.x(from), scale.x(to)), &marks, "the timeline");
}

/// A part of a line with time on it, with a handle at each end that is marked.
pub(in crate::gui::panels) fn part(ui: &Ui, rect: Rect, (left, right): (f32, f32), marks: &Marks, of: &str) {
    let p = palette(ui);
    let painter = ui.painter_at(rect.expand2(vec2(1.0, 0.0)));
    let band = rect.with_min_x(left).with_max_x(right);
    painter.rect_filled(band, 0, p.accent.gamma_multiply(0.25));
    for (at, x, name, inward) in [(marks.from, left, "In", 5.0), (marks.to, right, "Out", -5.0)] {
        let Some(at) = at.filter(|_| rect.x_range().expand(2.0).contains(x)) else { continue };
        let stroke = Stroke::new(2.0, p.accent);
        painter.vline(x, rect.y_range(), stroke);
        for y in [rect.top() + 1.0, rect.bottom() - 1.0] {
            painter.line_segment([pos2(x, y), pos2(x + inward, y)], stroke);
        }
        // Seen by those who cannot see it.
        let place = Rect::from_center_size(pos2(x, rect.center().y), vec2(6.0, rect.height()));
        let id = ui.scope_id().with(("mark", name, of));
        let words = format!("{name} point of {of} at {at:.2} s");
        ui.interact(place.intersect(rect), id, Sense::hover())
            .widget_info(|| WidgetInfo::labeled(Role::Label, true, &words));
    }
}

/// The line of the playhead over everything, and of what a drag snapped to.
pub(super) fn playhead(ui: &Ui, state: &State, page: Rect, scale: &Scale) {
    let p = palette(ui);
    let area = page.with_min_x(scale.left);
    let painter = ui.painter_at(area.expand2(vec2(6.0, 0.0)));
    if let Some(t) = state.sequence.snapped.filter(|_| state.sequence.drag.is_some()) {
        painter.vline(scale.x(t), area.y_range(), Stroke::new(1.0, p.warning));
    }
    let x = scale.x(state.sequence.playhead);
    if x < scale.left - 6.0 {
        return;
    }
    // It stands out where it is what the monitor shows.
    let colour = if state.monitor.sequence { p.accent } else { p.muted };
    painter.vline(x, area.y_range(), Stroke::new(1.5, colour));
    let top = area.top() + 2.0;
    let points = vec![
        pos2(x - 6.0, top),
        pos2(x + 6.0, top),
        pos2(x + 6.0, top + 8.0),
        pos2(x, top + 14.0),
        pos2(x - 6.0, top + 8.0),
    ];
    painter.add(Shape::convex_polygon(points, colour, Stroke::NONE));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_as_fine_as_there_is_room() {
        assert_eq!((step(60.0), step(400.0), step(0.05)), (2.0, 0.25, 1800.0));
        assert_eq!(label(75.0, 1.0), "1:15");
        assert_eq!(label(3725.0, 5.0), "1:02:05");
        assert_eq!(label(61.25, 0.25), "1:01.25");
        assert_eq!(label(0.0, 10.0), "0:00");
    }
}
