//! Shots and clips over time, and what changes within them.

mod clips;
mod drag;
mod lanes;
pub(super) mod ruler;
mod words;

use eframe::egui::{Align, Layout, Rect, ScrollArea, Sense, Stroke, Ui, UiBuilder, pos2, vec2};

use crate::gui::command::Command;
use crate::gui::icons;
use crate::gui::model::keys::lanes;
use crate::gui::monitor::timecode;
use crate::gui::state::State;
use crate::gui::tasks::player::FilmInfo;
use crate::gui::theme::{Type, palette, space};
use crate::gui::widgets::{empty, icon_button, tool_button};

/// Fewest points per second.
pub(crate) const MIN_ZOOM: f32 = 0.05;
/// Most points per second.
pub(crate) const MAX_ZOOM: f32 = 2000.0;
/// Width of the names on the left.
const HEAD: f32 = 168.0;
/// Height of the bar of tools.
const BAR: f32 = 36.0;
/// Height of the ruler.
const RULER: f32 = 24.0;
/// Height of a track.
const TRACK: f32 = 56.0;
/// Height of a lane of keys.
const LANE: f32 = 52.0;

/// Where moments are on the screen.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    /// Where the second `scroll` is.
    left: f32,
    /// The right end.
    right: f32,
    /// Points per second.
    zoom: f32,
    /// The second at the left end.
    scroll: f64,
}

impl Scale {
    fn x(&self, t: f64) -> f32 {
        // Far beyond the panel is far enough; more has no meaning in points.
        let x = (t - self.scroll) * f64::from(self.zoom);
        self.left + x.clamp(-1e5, 1e5) as f32
    }

    fn t(&self, x: f32) -> f64 {
        self.scroll + f64::from((x - self.left) / self.zoom)
    }

    /// How many seconds so many points are.
    fn seconds(&self, points: f32) -> f64 {
        f64::from(points / self.zoom)
    }
}

/// Draws the panel.
pub(crate) fn show(ui: &mut Ui, state: &mut State) {
    let whole = ui.max_rect();
    let bar = whole.with_max_y(whole.top() + BAR);
    ui.scope_builder(UiBuilder::new().max_rect(bar.shrink2(vec2(space::S, 4.0))), |ui| tools(ui, state));
    let page = whole.with_min_y(bar.bottom());
    let Some(timeline) = state.timeline().cloned() else { return };
    if timeline.tracks.len() == 1 && timeline.length() <= 0.0 {
        ui.scope_builder(UiBuilder::new().max_rect(page.shrink(space::M)), |ui| {
            let text = "Click on something in a picture, and its shot appears here.";
            empty(ui, icons::LIST_VIDEO, "Nothing on the timeline", text);
        });
        return;
    }
    let scale = navigate(ui, state, page);
    let p = palette(ui);
    let top = page.with_max_y(page.top() + RULER);
    ui.painter().rect_filled(page.with_max_x(scale.left), 0, p.panel);
    ruler::show(ui, state, top.with_min_x(scale.left), &scale);
    let body = page.with_min_y(top.bottom());
    let shot = state.item().and_then(|item| item.shot.clone()).filter(|_| state.lane_clip().is_some());
    let lanes = shot.as_ref().map(lanes).unwrap_or_default();
    ui.scope_builder(UiBuilder::new().max_rect(body), |ui| {
        ui.set_clip_rect(ui.clip_rect().intersect(body));
        let list = ScrollArea::vertical().id_salt("tracks").auto_shrink([false, false]);
        let shown = list.show(ui, |ui| {
            ui.spacing_mut().item_spacing.y = 0.0;
            let room = body.height().max(1.0);
            let mut height = 0.0;
            for track in (0..timeline.tracks.len()).rev() {
                let rect = row(ui, TRACK);
                clips::track(ui, state, &timeline, track, rect, &scale);
                height += TRACK;
            }
            for lane in &lanes {
                if let Some(region) = shot.as_ref().and_then(|shot| shot.regions.get(lane.region)) {
                    let rect = row(ui, words::WORDS);
                    words::show(ui, state, lane.region, region, rect, &scale);
                    height += words::WORDS;
                }
                let rect = row(ui, LANE);
                lanes::show(ui, state, lane, rect, &scale);
                height += LANE;
            }
            let left = room - height;
            if left > 0.0 {
                let (rect, response) =
                    ui.allocate_exact_size(vec2(ui.available_width().max(1.0), left), Sense::CLICK);
                ui.painter().rect_filled(rect.with_min_x(scale.left), 0, p.field);
                if response.clicked() {
                    (state.sequence.chosen, state.sequence.keys) = (None, None);
                }
            }
        });
        state.sequence.down = shown.state.clamped_offset().y;
    });
    drag::go_on(ui, state, &scale, body);
    ruler::playhead(ui, state, page, &scale);
    ui.painter().vline(scale.left, page.y_range(), Stroke::new(1.0, p.line));
    ui.painter().hline(page.x_range(), page.top(), Stroke::new(1.0, p.line));
    if state.sequence.drag.is_some() {
        ui.ctx().request_repaint();
    }
}

fn row(ui: &mut Ui, height: f32) -> Rect {
    let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width().max(1.0), height), Sense::hover());
    rect
}

/// Wheel and pinch: with the command key zoom about the pointer, sideways scroll.
fn navigate(ui: &Ui, state: &mut State, page: Rect) -> Scale {
    let length = state.timeline_info().map_or(1.0, |info| info.seconds());
    let left = (page.left() + HEAD).min(page.right() - 40.0);
    let width = (page.right() - left - 24.0).max(40.0);
    let fit = (width / (length as f32).max(0.1)).clamp(MIN_ZOOM, MAX_ZOOM);
    let view = &mut state.sequence;
    // What is dragged stays under the pointer although the timeline grows.
    let held = view.drag.is_some().then_some(view.drawn_zoom);
    let mut zoom = view.zoom.or(held).unwrap_or(fit);
    if view.zoom.is_none() {
        view.scroll = 0.0;
    }
    let pointer = ui.input(|input| input.pointer.hover_pos());
    if let Some(at) = pointer.filter(|at| page.contains(*at) && ui.rect_contains_pointer(page)) {
        let (factor, across) = ui.input(|input| (input.zoom_delta(), input.smooth_scroll_delta().x));
        if (factor - 1.0).abs() > 1e-4 {
            let next = (zoom * factor).clamp(MIN_ZOOM, MAX_ZOOM);
            let under = view.scroll + f64::from((at.x - left) / zoom);
            view.scroll = under - f64::from((at.x - left) / next);
            (zoom, view.zoom) = (next, Some(next));
        }
        if across != 0.0 {
            view.scroll -= f64::from(across / zoom);
            view.zoom = Some(zoom);
        }
    }
    // A playing playhead is followed page by page.
    if state.monitor.sequence && state.monitor.is_playing() && view.zoom.is_some() {
        let seen = f64::from(width / zoom);
        if view.playhead < view.scroll || view.playhead > view.scroll + seen {
            view.scroll = view.playhead;
        }
    }
    view.scroll = view.scroll.clamp(0.0, length.max(0.0));
    view.drawn_zoom = zoom;
    Scale { left, right: page.right(), zoom, scroll: view.scroll }
}

fn tools(ui: &mut Ui, state: &mut State) {
    let ctx = ui.ctx().clone();
    ui.horizontal_centered(|ui| {
        ui.spacing_mut().item_spacing.x = 2.0;
        let p = palette(ui);
        let fps = state.timeline_fps();
        let info = FilmInfo { width: 1, height: 1, frames: usize::MAX, fps };
        let time = timecode(&info, state.sequence.playhead);
        ui.label(eframe::egui::RichText::new(time).font(Type::Strong.font()).color(p.text));
        ui.add_space(space::M);
        for command in [Command::SplitClip, Command::RemoveClip, Command::AddToTimeline, Command::SetKey] {
            let can = state.blocked(command).is_none();
            ui.add_enabled_ui(can, |ui| {
                let icon = command.entry().and_then(|entry| entry.icon).unwrap_or_default();
                let response = icon_button(ui, icon, command.name());
                if response.on_hover_text(command.tip(&ctx)).clicked() {
                    state.todo.push(command);
                }
            });
        }
        let tip = Command::Snap.tip(&ctx);
        if tool_button(ui, icons::MAGNET, "Snap", &tip, state.sequence.snap).clicked() {
            state.todo.push(Command::Snap);
        }
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            ui.spacing_mut().item_spacing.x = 2.0;
            for command in
                [Command::FitTimeline, Command::ZoomTimelineIn, Command::ZoomTimelineOut, Command::AddTrack]
            {
                let icon = command.entry().and_then(|entry| entry.icon).unwrap_or_default();
                if icon_button(ui, icon, command.name()).clicked() {
                    state.todo.push(command);
                }
            }
        });
    });
}

/// The name of a row, left of it, with its buttons.
fn head(ui: &mut Ui, rect: Rect, scale: &Scale, add: impl FnOnce(&mut Ui)) {
    let p = palette(ui);
    let head = rect.with_max_x(scale.left);
    ui.painter().rect_filled(head, 0, p.panel);
    ui.painter().hline(rect.x_range(), rect.bottom() - 0.5, Stroke::new(1.0, p.line));
    let inner = UiBuilder::new().max_rect(head.shrink2(vec2(space::S, 2.0)));
    ui.scope_builder(inner.layout(Layout::left_to_right(Align::Center)), |ui| {
        ui.spacing_mut().item_spacing.x = 0.0;
        ui.set_clip_rect(ui.clip_rect().intersect(head));
        add(ui);
    });
}

/// The part of a row where time goes, with its ground.
fn ground(ui: &Ui, rect: Rect, scale: &Scale) -> Rect {
    let p = palette(ui);
    let area = rect.with_min_x(scale.left);
    ui.painter().rect_filled(area, 0, p.field);
    area
}

/// A point at a moment.
fn at(scale: &Scale, t: f64, y: f32) -> eframe::egui::Pos2 {
    pos2(scale.x(t), y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_points_agree_at_any_zoom() {
        for (zoom, scroll) in [(60.0, 0.0), (0.05, 10.0), (2000.0, 3599.5)] {
            let scale = Scale { left: 148.0, right: 900.0, zoom, scroll };
            for x in [148.0, 400.0, 900.0] {
                assert!((scale.x(scale.t(x)) - x).abs() < 0.01, "{zoom} {scroll}");
            }
        }
        let scale = Scale { left: 0.0, right: 100.0, zoom: 2000.0, scroll: 0.0 };
        assert_eq!(scale.x(1e12), 1e5, "no moment is at no place");
    }
}
