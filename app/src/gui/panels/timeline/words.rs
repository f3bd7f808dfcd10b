//! The motion prompt of a region over its shot, which can be typed where it stands.

use eframe::egui::{Id, Rect, Sense, Stroke, StrokeKind, Ui, UiBuilder, pos2, vec2};

use super::{Scale, ground, head};
use crate::gui::model::scene::Region;
use crate::gui::panels::prompt;
use crate::gui::state::State;
use crate::gui::theme::{RADIUS, Type, palette, region_colour};
use crate::gui::widgets::shortened;

/// Height of the row.
pub(super) const WORDS: f32 = 34.0;
/// The least width in which words can be typed.
const LEAST: f32 = 48.0;
/// The width from which on a row shows where its words end.
const WIDEST: f32 = 560.0;

/// Draws the row of a region.
pub(super) fn show(ui: &mut Ui, state: &mut State, index: usize, region: &Region, rect: Rect, scale: &Scale) {
    let p = palette(ui);
    let Some(clip) = state.lane_clip().map(|(_, clip)| clip.clone()) else { return };
    let area = ground(ui, rect, scale);
    let colour = region_colour(index);
    head(ui, rect, scale, |ui| {
        let (dot, _) = ui.allocate_exact_size(vec2(14.0, WORDS - 8.0), Sense::hover());
        ui.painter().circle_filled(pos2(dot.left() + 5.0, dot.center().y), 4.0, colour);
        let room = ui.available_width().max(20.0);
        shortened(ui, &region.name, Type::Caption, p.text, room).on_hover_text(&region.name);
    });
    let old = ui.clip_rect();
    ui.set_clip_rect(old.intersect(area));
    let bar =
        Rect::from_x_y_ranges(scale.x(clip.at)..=scale.x(clip.end()), area.shrink2(vec2(0.0, 4.0)).y_range());
    let chosen = state.choice.region == Some(index);
    let line = if chosen { colour } else { colour.gamma_multiply(0.5) };
    ui.painter().rect(bar, RADIUS, colour.gamma_multiply(0.16), Stroke::new(1.0, line), StrokeKind::Inside);
    // What is typed stays in sight, however far the shot reaches beside the panel.
    let seen = bar.intersect(area).shrink2(vec2(2.0, 0.0));
    if seen.width() >= LEAST {
        let field = seen.with_max_x(seen.right().min(seen.left() + WIDEST));
        let id = state.choice.item.clone();
        let name = format!("Prompt of {}", region.name);
        ui.scope_builder(UiBuilder::new().max_rect(field), |ui| {
            let edit = Id::unique(("prompt on the timeline", &id, index));
            let response = prompt::field(ui, state, (&id, index), region, edit, (&name, prompt::Look::Plain));
            if response.gained_focus() {
                (state.choice.region, state.choice.click) = (Some(index), None);
            }
        });
    }
    ui.set_clip_rect(old);
}
