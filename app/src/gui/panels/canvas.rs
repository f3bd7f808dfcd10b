//! The picture: look at it, click on what should move, or paint it.

mod brush;
mod keys;
mod tools;

use eframe::egui::{
    Color32, CursorIcon, Modifiers, PointerButton, Pos2, Rect, Response, Role, Sense, Stroke, StrokeKind, Ui,
    UiBuilder, Vec2, WidgetInfo, pos2, vec2,
};

use crate::gui::icons;
use crate::gui::model::changes::{self, Click};
use crate::gui::model::scene::{Region, Shape};
use crate::gui::state::{MaskView, State, Tool};
use crate::gui::tasks::dialogs::Wanted;
use crate::gui::tasks::masks::Masking;
use crate::gui::tasks::pictures::Loading;
use crate::gui::theme::{RADIUS, Type, palette, region_colour, space};
use crate::gui::widgets::{Tone, button, empty, icon_text};

/// Closest a click on a point must be to mean the point.
const GRAB: f32 = 10.0;
/// Height of the bar of tools.
const BAR: f32 = 40.0;

/// Where the picture is on the screen.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Frame {
    /// The whole picture.
    rect: Rect,
}

impl Frame {
    /// The picture of `size` pixels in `area` at `zoom` points a pixel, with the point `centre` of
    /// it in the middle.
    fn new(area: Rect, size: Vec2, zoom: f32, centre: [f32; 2]) -> Self {
        let size = size * zoom;
        let offset = vec2(size.x * centre[0], size.y * centre[1]);
        Self { rect: Rect::from_min_size(area.center() - offset, size) }
    }

    /// A point of the screen as a fraction of the picture; none outside.
    fn fraction(&self, at: Pos2) -> Option<[f64; 2]> {
        let x = f64::from((at.x - self.rect.left()) / self.rect.width());
        let y = f64::from((at.y - self.rect.top()) / self.rect.height());
        let within = |v: f64| (0.0..=1.0).contains(&v);
        (within(x) && within(y)).then_some([x, y])
    }

    /// A fraction of the picture on the screen.
    fn point(&self, x: f64, y: f64) -> Pos2 {
        pos2(self.rect.left() + self.rect.width() * x as f32, self.rect.top() + self.rect.height() * y as f32)
    }
}

/// Draws the panel.
pub(crate) fn show(ui: &mut Ui, state: &mut State) {
    let p = palette(ui);
    let whole = ui.max_rect();
    let area = whole.with_max_y(whole.bottom() - BAR);
    ui.painter().rect_filled(area, 0, p.stage);
    match state.picture() {
        None => nothing(ui, state, area),
        Some((_, Loading::Waiting)) => {
            ui.painter().text(
                area.center(),
                eframe::egui::Align2::CENTER_CENTER,
                "Reading the picture…",
                Type::Body.font(),
                p.muted,
            );
        }
        Some((_, Loading::Failed(why))) => failed(ui, state, area, &why),
        Some((_, Loading::Ready(shown))) => {
            state.prepare();
            let size = vec2(shown.picture.width() as f32, shown.picture.height() as f32);
            let texture = state.textures.get(ui.ctx(), "canvas", &shown.preview);
            stage(ui, state, area, size, texture);
        }
    }
    let bar = whole.with_min_y(whole.bottom() - BAR);
    ui.scope_builder(UiBuilder::new().max_rect(bar.shrink2(vec2(space::S, 6.0))), |ui| {
        tools::show(ui, state)
    });
    ui.painter().hline(bar.x_range(), bar.top(), Stroke::new(1.0, p.line));
}

fn nothing(ui: &mut Ui, state: &mut State, area: Rect) {
    ui.scope_builder(UiBuilder::new().max_rect(area.shrink(space::L)), |ui| {
        let (icon, title, text) = match state.item() {
            Some(_) => (
                icons::CLAPPERBOARD,
                "Made by other nodes",
                "This picture is there once the project is rendered.",
            ),
            None => (icons::IMAGE, "No picture", "Drop one here, or choose File ▸ Add picture or clip."),
        };
        empty(ui, icon, title, &text.replace('▸', "→"));
    });
}

fn failed(ui: &mut Ui, state: &mut State, area: Rect, why: &str) {
    let node = state.item().map(|item| match &item.source {
        crate::gui::model::scene::Source::Frame { video, .. } => video.clone(),
        _ => item.picture.clone(),
    });
    ui.scope_builder(UiBuilder::new().max_rect(area.shrink(space::XL)), |ui| {
        ui.vertical_centered(|ui| {
            ui.add_space((area.height() / 2.0 - 110.0).max(0.0));
            empty_top(ui, why);
            ui.add_space(space::M);
            if button(ui, Some(icons::SEARCH), "Find the file…", Tone::Main).clicked()
                && let Some(node) = node
            {
                let folder = state.dialog_folder();
                state.dialogs.ask(Wanted::Relink(node), folder.as_deref(), "");
            }
        });
    });
}

fn empty_top(ui: &mut Ui, why: &str) {
    let p = palette(ui);
    let (rect, _) = ui.allocate_exact_size(vec2(40.0, 40.0), Sense::hover());
    icon_text(ui, rect.center(), icons::FILE_WARNING, 30.0, p.warning);
    ui.label(
        eframe::egui::RichText::new("The picture cannot be shown").font(Type::Heading.font()).color(p.text),
    );
    ui.label(eframe::egui::RichText::new(why).font(Type::Body.font()).color(p.muted));
}

fn stage(ui: &mut Ui, state: &mut State, area: Rect, size: Vec2, texture: eframe::egui::TextureId) {
    let margin = 16.0;
    let fit = ((area.width() - 2.0 * margin) / size.x).min((area.height() - 2.0 * margin) / size.y).max(1e-3);
    let zoom = state.canvas.zoom.unwrap_or(fit);
    state.canvas.drawn_zoom = zoom;
    let frame = Frame::new(area, size, zoom, state.canvas.centre);
    let id = ui.scope_id().with("stage");
    let response = ui.interact(area, id, Sense::click_and_drag());
    let name = state.item().map(|item| item.name.clone()).unwrap_or_default();
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, format!("Picture {name}")));
    navigate(ui, state, &response, area, size, &frame, fit);
    let frame = Frame::new(area, size, state.canvas.zoom.unwrap_or(fit), state.canvas.centre);

    let painter = ui.painter_at(area);
    let uv = Rect::from_min_max(Pos2::ZERO, pos2(1.0, 1.0));
    painter.image(texture, frame.rect, uv, Color32::WHITE);
    masks(ui, state, &painter, &frame);
    let paints = matches!(state.canvas.tool, Tool::Brush | Tool::Erase);
    let hovered = response.hover_pos().filter(|_| !paints).and_then(|at| grabbed(state, &frame, at));
    points(state, &painter, &frame, hovered);
    if paints {
        brush::go_on(ui, state, &response, &frame);
        brush::show(ui, state, &painter, &frame, response.hover_pos());
    } else {
        edit(ui, state, &response, &frame);
    }
    keys::cursor(ui, state, &painter, &response, &frame, size);
    keys::nodes(ui, state, &painter, &frame, size);
    hint(ui, state, &painter, area, &response);
    let cursor = match (state.canvas.tool, hovered) {
        (_, Some(_)) => CursorIcon::Grab,
        (Tool::Pan, _) => CursorIcon::Grab,
        _ => CursorIcon::Crosshair,
    };
    if response.hovered() && !paints {
        ui.ctx().set_cursor_icon(cursor);
    }
}

/// Wheel and pinch zoom about the pointer, the middle button and the hand drag.
fn navigate(
    ui: &Ui,
    state: &mut State,
    response: &Response,
    area: Rect,
    size: Vec2,
    frame: &Frame,
    fit: f32,
) {
    let canvas = &mut state.canvas;
    let zoom = canvas.zoom.unwrap_or(fit);
    if let Some(at) = response.hover_pos() {
        let (pinch, scroll, command) =
            ui.input(|input| (input.zoom_delta(), input.smooth_scroll_delta(), input.modifiers.command));
        let wheel = if command { 1.0 } else { (scroll.y / 240.0).exp() };
        let factor = pinch * wheel;
        if (factor - 1.0).abs() > 1e-4 {
            let next = (zoom * factor).clamp((fit * 0.2).min(0.05), 40.0);
            // The point under the pointer stays there.
            let under = vec2(
                (at.x - frame.rect.left()) / frame.rect.width(),
                (at.y - frame.rect.top()) / frame.rect.height(),
            );
            let away = (at - area.center()) / (size * next);
            canvas.centre = [under.x - away.x, under.y - away.y];
            canvas.zoom = Some(next);
        }
    }
    let pans = response.dragged_by(PointerButton::Middle)
        || (canvas.tool == Tool::Pan && response.dragged_by(PointerButton::Primary));
    if pans {
        let by = response.drag_delta() / (size * zoom);
        canvas.centre = [canvas.centre[0] - by.x, canvas.centre[1] - by.y];
        canvas.zoom = Some(zoom);
    }
    // The picture never leaves the panel altogether.
    canvas.centre = canvas.centre.map(|v| if v.is_finite() { v.clamp(-0.2, 1.2) } else { 0.5 });
}

fn masks(ui: &Ui, state: &mut State, painter: &eframe::egui::Painter, frame: &Frame) {
    let count = state.item().map_or(0, |item| item.regions().len());
    let uv = Rect::from_min_max(Pos2::ZERO, pos2(1.0, 1.0));
    let view = state.canvas.view;
    if view == MaskView::Hidden {
        return;
    }
    for index in 0..count {
        let chosen = state.choice.region == Some(index);
        if view == MaskView::Matte && !chosen {
            continue;
        }
        match state.mask(index) {
            Some(Masking::Ready(mask)) => {
                let image = if view == MaskView::Matte { &mask.matte } else { &mask.tint };
                let slot = format!("mask {index} {view:?}");
                let texture = state.textures.get(ui.ctx(), &slot, image);
                let strength = if chosen || view == MaskView::Matte { 1.0 } else { 0.55 };
                painter.image(texture, frame.rect, uv, Color32::WHITE.gamma_multiply(strength));
            }
            Some(Masking::Waiting) => ui.ctx().request_repaint_after(std::time::Duration::from_millis(50)),
            Some(Masking::Failed(_)) | None => {}
        }
    }
}

/// The clicks of the chosen region, if it has any.
fn clicks(region: Option<(usize, &Region)>) -> Option<(usize, Vec<Click>)> {
    let (index, region) = region?;
    match &region.shape {
        Shape::Clicks(clicks) => {
            Some((index, clicks.points.iter().map(|p| Click { x: p.x, y: p.y, keep: p.keep }).collect()))
        }
        _ => None,
    }
}

/// The click under a point of the screen.
fn grabbed(state: &State, frame: &Frame, at: Pos2) -> Option<usize> {
    let (_, points) = clicks(state.region())?;
    let near = |click: &Click| frame.point(click.x, click.y).distance(at);
    let nearest = points.iter().enumerate().min_by(|a, b| near(a.1).total_cmp(&near(b.1)))?;
    (near(nearest.1) <= GRAB).then_some(nearest.0)
}

fn points(state: &State, painter: &eframe::egui::Painter, frame: &Frame, hovered: Option<usize>) {
    let Some((region, points)) = clicks(state.region()) else { return };
    if state.canvas.view == MaskView::Hidden {
        return;
    }
    for (index, Click { x, y, keep }) in points.into_iter().enumerate() {
        let at = frame.point(x, y);
        let chosen = state.choice.click == Some(index);
        let radius = if chosen || hovered == Some(index) { 8.0 } else { 6.5 };
        let fill = if keep { region_colour(region) } else { Color32::from_rgb(30, 30, 32) };
        let ink = if keep { Color32::from_rgb(16, 17, 18) } else { Color32::WHITE };
        painter.circle(at, radius + 1.5, Color32::from_black_alpha(120), Stroke::NONE);
        painter.circle(at, radius, fill, Stroke::new(if chosen { 2.5 } else { 1.5 }, Color32::WHITE));
        let arm = radius * 0.45;
        painter.line_segment([at - vec2(arm, 0.0), at + vec2(arm, 0.0)], Stroke::new(1.6, ink));
        if keep {
            painter.line_segment([at - vec2(0.0, arm), at + vec2(0.0, arm)], Stroke::new(1.6, ink));
        }
    }
}

/// Clicks add and take away, drags move clicks.
fn edit(ui: &Ui, state: &mut State, response: &Response, frame: &Frame) {
    let drag_id = response.id.with("dragged click");
    if response.drag_started_by(PointerButton::Primary) && state.canvas.tool != Tool::Pan {
        let start = ui.input(|input| input.pointer.press_origin());
        let found = start.and_then(|at| grabbed(state, frame, at));
        ui.data_mut(|data| data.insert_temp(drag_id, found));
        if found.is_some() {
            state.choice.click = found;
        }
    }
    let dragged: Option<usize> = ui.data(|data| data.get_temp::<Option<usize>>(drag_id)).flatten();
    if let (Some(point), true, Some(at)) =
        (dragged, response.dragged_by(PointerButton::Primary), response.interact_pointer_pos())
        && let Some((region, list)) = clicks(state.region())
        && let Some(&Click { keep, .. }) = list.get(point)
    {
        let x = f64::from(((at.x - frame.rect.left()) / frame.rect.width()).clamp(0.0, 1.0));
        let y = f64::from(((at.y - frame.rect.top()) / frame.rect.height()).clamp(0.0, 1.0));
        let id = state.choice.item.clone();
        state.edit(|project| changes::move_click(project, &id, region, point, Click { x, y, keep }));
    }
    if response.drag_stopped() {
        ui.data_mut(|data| data.remove::<Option<usize>>(drag_id));
        state.close_gesture();
    }
    let primary = response.clicked_by(PointerButton::Primary);
    let secondary = response.clicked_by(PointerButton::Secondary);
    let Some(at) = response.interact_pointer_pos().filter(|_| primary || secondary) else { return };
    if primary && let Some(point) = grabbed(state, frame, at) {
        state.choice.click = Some(point);
        return;
    }
    let Some([x, y]) = frame.fraction(at) else { return };
    let alt = ui.input(|input| input.modifiers.matches_any(Modifiers::ALT));
    match state.canvas.tool {
        Tool::Pan | Tool::Brush | Tool::Erase => {}
        // A click on another region chooses it, unless it is meant as a click of this one.
        Tool::Pick if primary && !alt => state.clicked(x, y, true),
        Tool::Pick | Tool::LeaveOut => state.clicked(x, y, false),
    }
}

fn hint(ui: &Ui, state: &State, painter: &eframe::egui::Painter, area: Rect, response: &Response) {
    let text = match state.region() {
        _ if state.canvas.tool == Tool::Erase && state.region().is_none() => "Choose a region to erase from",
        None if state.canvas.tool == Tool::Brush => "Paint over what should move",
        Some(_) if state.canvas.new_region && state.canvas.tool == Tool::Brush => {
            "Paint over the next thing that should move"
        }
        None => "Click on what should move",
        Some(_) if state.canvas.new_region => "Click on the next thing that should move",
        Some(_) if state.masks.is_busy() && response.hovered() => "Cutting out…",
        Some(_) => return,
    };
    let galley = ui.painter().layout_no_wrap(text.to_owned(), Type::Strong.font(), Color32::WHITE);
    let size = galley.size() + vec2(24.0, 14.0);
    let rect = Rect::from_center_size(pos2(area.center().x, area.bottom() - 30.0), size);
    painter.rect(
        rect,
        RADIUS,
        Color32::from_black_alpha(190),
        Stroke::new(1.0, Color32::from_white_alpha(40)),
        StrokeKind::Inside,
    );
    painter.galley(rect.center() - galley.size() / 2.0, galley, Color32::WHITE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screen_and_picture_agree_at_any_zoom() {
        let area = Rect::from_min_size(pos2(100.0, 50.0), vec2(400.0, 300.0));
        for (zoom, centre) in [(1.0, [0.5, 0.5]), (0.3, [0.5, 0.5]), (7.0, [0.2, 0.9])] {
            let frame = Frame::new(area, vec2(640.0, 480.0), zoom, centre);
            for (x, y) in [(0.0, 0.0), (0.25, 0.75), (1.0, 1.0)] {
                let back = frame.fraction(frame.point(x, y)).unwrap();
                assert!((back[0] - x).abs() < 1e-4 && (back[1] - y).abs() < 1e-4, "{back:?}");
            }
            let middle = frame.fraction(area.center()).unwrap();
            assert!((middle[0] - f64::from(centre[0])).abs() < 1e-4);
        }
        let frame = Frame::new(area, vec2(640.0, 480.0), 0.1, [0.5, 0.5]);
        assert!(frame.fraction(area.left_top()).is_none());
    }
}
