//! The numbers that change within the chosen shot, with their keyframes.

use eframe::egui::{
    Align2, CursorIcon, PointerButton, Rect, Role, Sense, Shape, Stroke, Ui, Vec2, WidgetInfo, pos2, vec2,
};
use kinora_pipeline::workflow::{KeyEase, Number};

use super::{LANE, Scale, at, ground, head};
use crate::gui::icons;
use crate::gui::model::keys::{self, Lane, keys_of};
use crate::gui::model::timeline::Placed;
use crate::gui::sequence::{Drag, Focus};
use crate::gui::state::State;
use crate::gui::theme::{Type, palette, region_colour};
use crate::gui::widgets::{arrows, icon_button, shortened};

/// Room above the value 1 and below the value 0.
const MARGIN: f32 = 9.0;
/// Half the diagonal of a key.
const KEY: f32 = 5.5;

/// The value at a height of the screen, in a lane that reaches from one height to another.
pub(super) fn value_at((top, bottom): (f32, f32), y: f32) -> f64 {
    let (high, low) = (top + MARGIN, bottom - MARGIN);
    f64::from(((low - y) / (low - high).max(1.0)).clamp(0.0, 1.0))
}

fn height_of(rect: Rect, value: f64) -> f32 {
    let (high, low) = (rect.top() + MARGIN, rect.bottom() - MARGIN);
    low - (low - high) * value.clamp(0.0, 1.0) as f32
}

/// Draws a lane.
pub(super) fn show(ui: &mut Ui, state: &mut State, lane: &Lane, rect: Rect, scale: &Scale) {
    let p = palette(ui);
    let Some(clip) = state.lane_clip().map(|(_, clip)| clip.clone()) else { return };
    let area = ground(ui, rect, scale);
    head(ui, rect, scale, |ui| names(ui, state, lane));
    let old = ui.clip_rect();
    ui.set_clip_rect(old.intersect(area));
    // Where the clip is, the lane can be written on.
    let open = Rect::from_x_y_ranges(scale.x(clip.at)..=scale.x(clip.end()), area.y_range());
    ui.painter().rect_filled(open, 0, p.panel);
    for value in [0.0, 0.5, 1.0] {
        ui.painter().hline(open.x_range(), height_of(rect, value), Stroke::new(1.0, p.line));
    }
    let back = ui.interact(open, ui.scope_id().with(("lane", lane.region)), Sense::click());
    back.widget_info(|| WidgetInfo::labeled(Role::Group, true, format!("Lane {}", lane.name)));
    curve(ui, state, lane, &clip, open, rect, scale);
    write(ui, state, lane, &clip, &back, rect, scale);
    diamonds(ui, state, lane, &clip, rect, scale);
    ui.set_clip_rect(old);
}

fn names(ui: &mut Ui, state: &mut State, lane: &Lane) {
    let p = palette(ui);
    // Below the region's own row, whose dot is there.
    ui.add_space(14.0);
    let keyed = !keys_of(&lane.number).is_empty();
    let buttons = if keyed { 56.0 } else { 28.0 };
    let room = (ui.available_width() - buttons).max(20.0);
    ui.allocate_ui_with_layout(
        vec2(room, LANE - 8.0),
        eframe::egui::Layout::left_to_right(eframe::egui::Align::Center),
        |ui| {
            ui.set_min_width(room);
            shortened(ui, "Magnitude", Type::Caption, p.muted, room).on_hover_text(&lane.name);
        },
    );
    let id = state.choice.item.clone();
    let t = state.shot_time();
    if icon_button(ui, icons::DIAMOND_PLUS, &format!("Set key of {}", lane.name)).clicked() {
        state.edit(|project| keys::set_key(project, &id, lane.region, t, None));
    }
    if !keyed {
        return;
    }
    let more = icon_button(ui, icons::SPLINE, &format!("Easing of {}", lane.name));
    eframe::egui::Popup::menu(&more).show(|ui| {
        ui.set_min_width(180.0);
        let now = match &lane.number {
            Number::Keyed(keys) => keys.ease,
            _ => KeyEase::default(),
        };
        let eases = [
            (KeyEase::Step, "Hold until the next key"),
            (KeyEase::Linear, "Straight lines"),
            (KeyEase::Smooth, "Slow in and out"),
        ];
        for (ease, name) in eases {
            if ui.selectable_label(now == ease, name).clicked() {
                state.edit(|project| keys::set_ease(project, &id, lane.region, ease));
                ui.close();
            }
        }
        ui.separator();
        if ui.button("Remove all keys").clicked() {
            state.edit(|project| keys::clear_keys(project, &id, lane.region, t));
            ui.close();
        }
    });
}

/// The value over the clip.
fn curve(ui: &Ui, state: &State, lane: &Lane, clip: &Placed, open: Rect, rect: Rect, scale: &Scale) {
    let p = palette(ui);
    if lane.number.link().is_some() {
        let middle = open.intersect(ui.clip_rect()).center();
        let text = "made by another node";
        ui.painter().text(middle, Align2::CENTER_CENTER, text, Type::Caption.font(), p.muted);
        return;
    }
    let (left, right) = (open.left().max(scale.left), open.right().min(scale.right));
    if right <= left {
        return;
    }
    let steps = (((right - left) / 3.0) as usize).clamp(1, 800);
    let points = (0..=steps).map(|index| {
        let x = left + (right - left) * index as f32 / steps as f32;
        pos2(x, height_of(rect, lane.number.at(clip.local(scale.t(x)), None)))
    });
    let chosen = state.choice.region == Some(lane.region);
    let colour = region_colour(lane.region).gamma_multiply(if chosen { 1.0 } else { 0.6 });
    ui.painter().add(Shape::line(points.collect(), Stroke::new(1.6, colour)));
}

/// A double click sets a key.
fn write(
    ui: &Ui,
    state: &mut State,
    lane: &Lane,
    clip: &Placed,
    back: &eframe::egui::Response,
    rect: Rect,
    scale: &Scale,
) {
    if back.clicked() {
        (state.choice.region, state.choice.click) = (Some(lane.region), None);
        state.sequence.keys = None;
    }
    let Some(at) = back.interact_pointer_pos().filter(|_| back.double_clicked()) else { return };
    let t = clip.local(scale.t(at.x));
    let value = value_at((rect.top(), rect.bottom()), at.y);
    let id = state.choice.item.clone();
    let region = lane.region;
    state.edit(|project| keys::set_key(project, &id, region, t, Some(value)));
    state.close_gesture();
    ui.ctx().request_repaint();
}

fn diamonds(ui: &Ui, state: &mut State, lane: &Lane, clip: &Placed, rect: Rect, scale: &Scale) {
    let p = palette(ui);
    let list = keys_of(&lane.number).to_vec();
    for (index, &(t, value)) in list.iter().enumerate() {
        // Keys of what was cut off are not on the timeline.
        if t < clip.from - 1e-6 || t > clip.to + 1e-6 {
            continue;
        }
        let centre = at(scale, clip.at + t - clip.from, height_of(rect, value));
        if centre.x < scale.left - KEY || centre.x > scale.right + KEY {
            continue;
        }
        let spot = Rect::from_center_size(centre, Vec2::splat(2.0 * KEY + 4.0));
        let id = ui.scope_id().with(("key", lane.region, index));
        let response = ui.interact(spot, id, Sense::click_and_drag());
        let chosen = state.sequence.keys.as_ref();
        let chosen = chosen.is_some_and(|(region, keys)| *region == lane.region && keys.contains(&index));
        let label = format!("Key {} of {}: {value:.2} at {t:.2} s", index + 1, lane.name);
        response.widget_info(|| WidgetInfo::selected(Role::Button, true, chosen, &label));
        let size = if response.hovered() || chosen { KEY + 1.0 } else { KEY };
        let fill = if chosen { p.accent } else { region_colour(lane.region) };
        let line = if response.has_focus() { p.accent } else { p.field };
        let points = [vec2(0.0, -size), vec2(size, 0.0), vec2(0.0, size), vec2(-size, 0.0)];
        let points = points.map(|by| centre + by).to_vec();
        ui.painter().add(Shape::convex_polygon(points, fill, Stroke::new(1.5, line)));
        if response.hovered() {
            ui.ctx().set_cursor_icon(CursorIcon::Grab);
        }
        let response = response.on_hover_text(format!("{:.0} % at {t:.2} s", value * 100.0));
        let by = arrows(ui, &response);
        if by != Vec2::ZERO {
            if !chosen {
                choose(state, lane.region, index, false);
            }
            state.nudge_keys(f64::from(by.x), f64::from(-by.y));
        }
        if response.gained_focus() {
            state.focus = Focus::Timeline;
        }
        let started = response.drag_started_by(PointerButton::Primary);
        if response.clicked() || started && !chosen {
            let more = ui.input(|input| input.modifiers.shift || input.modifiers.command);
            choose(state, lane.region, index, more);
        }
        if started {
            let begun = list.clone();
            let lane = (rect.top(), rect.bottom());
            state.sequence.drag =
                Some(Drag::Keys { region: self::region(state), held: (t, value), begun, lane });
        }
    }
}

fn region(state: &State) -> usize {
    state.sequence.keys.as_ref().map_or(0, |(region, _)| *region)
}

/// Chooses a key; with `more` beside those that are chosen, or no longer.
fn choose(state: &mut State, region: usize, index: usize, more: bool) {
    (state.choice.region, state.choice.click) = (Some(region), None);
    let keys = match state.sequence.keys.take() {
        Some((of, mut keys)) if more && of == region => {
            match keys.iter().position(|key| *key == index) {
                Some(at) => {
                    keys.remove(at);
                }
                None => keys.push(index),
            }
            keys
        }
        _ => vec![index],
    };
    state.sequence.keys = (!keys.is_empty()).then_some((region, keys));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_and_values_agree() {
        let rect = Rect::from_min_size(pos2(0.0, 100.0), vec2(10.0, LANE));
        for value in [0.0, 0.25, 1.0] {
            let back = value_at((rect.top(), rect.bottom()), height_of(rect, value));
            assert!((back - value).abs() < 1e-6);
        }
        assert_eq!(value_at((rect.top(), rect.bottom()), 0.0), 1.0);
        assert_eq!(value_at((rect.top(), rect.bottom()), 500.0), 0.0);
    }
}
