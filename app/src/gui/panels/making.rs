//! A clip while it is made: its moving picture, how far it is, how long it will still take.

use std::time::Duration;

use eframe::egui::{
    Align2, Color32, CursorIcon, Pos2, Rect, Response, Role, Sense, Stroke, StrokeKind, Ui, UiBuilder,
    WidgetInfo, pos2, vec2,
};

use crate::gui::state::State;
use crate::gui::tasks::moving::Moving;
use crate::gui::tasks::runner::Live;
use crate::gui::text::seconds;
use crate::gui::theme::{RADIUS, Type, palette, space};
use crate::gui::widgets::progress;

/// Height of the words and the bar below the picture.
const FOOT: f32 = 40.0;
/// Height of the small picture in the list of jobs.
const SMALL: f32 = 34.0;

/// Shows what there is of a clip in the program monitor; says whether there was anything.
pub(crate) fn show(ui: &mut Ui, state: &mut State, area: Rect, live: &Live) -> bool {
    let Some(moving) = live.moving.clone() else { return false };
    let p = palette(ui);
    let stage = area.with_max_y(area.bottom() - FOOT).shrink(space::S);
    let Some(rect) = picture(ui, state, &moving, stage) else { return false };
    let label = format!("Preview of {}, {}", live.title, moving.words());
    let response = ui.interact(rect, ui.scope_id().with("making"), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Video, true, &label));

    let words = format!("Preview, {}", moving.words());
    let galley = ui.painter().layout_no_wrap(words, Type::Caption.font(), Color32::WHITE);
    let plate = Rect::from_min_size(rect.left_top() + vec2(10.0, 10.0), galley.size() + vec2(12.0, 6.0));
    ui.painter().rect_filled(plate, RADIUS, Color32::from_black_alpha(170));
    ui.painter().galley(plate.min + vec2(6.0, 3.0), galley, Color32::WHITE);

    let foot = area.with_min_y(area.bottom() - FOOT).shrink2(vec2(space::M, space::XS));
    let left = live.seconds_left().map(|left| format!("{} left", seconds(left))).unwrap_or_default();
    let line = foot.top() + 8.0;
    let painter = ui.painter();
    let doing = if live.stopping { "Stopping…" } else { live.doing.as_str() };
    painter.text(pos2(foot.left(), line), Align2::LEFT_CENTER, doing, Type::Label.font(), p.text);
    painter.text(pos2(foot.right(), line), Align2::RIGHT_CENTER, left, Type::Label.font(), p.muted);
    let bar = foot.with_min_y(line + 12.0);
    ui.scope_builder(UiBuilder::new().max_rect(bar), |ui| {
        progress(ui, live.fraction, "Progress of the clip");
    });
    true
}

/// A small moving picture that leads to the large one; none where there is nothing yet.
pub(crate) fn thumbnail(ui: &mut Ui, state: &mut State, live: &Live) -> Option<Response> {
    let moving = live.moving.clone()?;
    let (_, frame) = moving.at(0.0)?;
    let [width, height] = frame.size;
    let wide = (SMALL * width as f32 / height.max(1) as f32).clamp(SMALL / 2.0, SMALL * 2.5);
    let (rect, response) = ui.allocate_exact_size(vec2(wide, SMALL), Sense::click());
    let label = format!("Watch {} being made", live.title);
    response.widget_info(|| WidgetInfo::labeled(Role::Button, true, &label));
    picture(ui, state, &moving, rect)?;
    let p = palette(ui);
    let line = if response.hovered() || response.has_focus() { p.accent } else { p.line };
    ui.painter().rect_stroke(rect, 2, Stroke::new(1.0, line), StrokeKind::Outside);
    let tip = format!("Shows it large, {}", moving.words());
    Some(response.on_hover_cursor(CursorIcon::PointingHand).on_hover_text(tip))
}

/// Draws the frame whose turn it is, as large as there is room. Says where.
fn picture(ui: &Ui, state: &mut State, moving: &Moving, stage: Rect) -> Option<Rect> {
    let (index, frame) = moving.at(ui.input(|input| input.time))?;
    let size = vec2(frame.size[0] as f32, frame.size[1] as f32);
    let scale = (stage.width() / size.x.max(1.0)).min(stage.height() / size.y.max(1.0));
    let rect = Rect::from_center_size(stage.center(), size * scale);
    let texture = state.textures.get(ui.ctx(), &format!("making {index}"), frame);
    ui.painter().image(texture, rect, Rect::from_min_max(Pos2::ZERO, pos2(1.0, 1.0)), Color32::WHITE);
    ui.ctx().request_repaint_after(Duration::from_secs_f64(moving.pace() / 2.0));
    Some(rect)
}
