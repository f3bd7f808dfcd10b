//! The program monitor: the clip that was made.

mod transport;

use std::sync::Arc;
use std::time::Duration;

use eframe::egui::{
    Color32, CursorIcon, Pos2, Rect, Role, Sense, Stroke, Ui, UiBuilder, Vec2, WidgetInfo, pos2, vec2,
};

use super::making;
use crate::gui::command::Command;
use crate::gui::icons;
use crate::gui::sequence::Seen;
use crate::gui::state::State;
use crate::gui::tasks::pictures::Loading;
use crate::gui::tasks::player::{Film, FilmInfo};
use crate::gui::theme::{Type, palette, space};
use crate::gui::widgets::{Tone, button, empty, progress};

/// Height of the transport below the picture.
const BAR: f32 = 66.0;

/// Draws the panel.
pub(crate) fn show(ui: &mut Ui, state: &mut State) {
    let p = palette(ui);
    let whole = ui.max_rect();
    let area = whole.with_max_y(whole.bottom() - BAR);
    ui.painter().rect_filled(area, 0, p.stage);
    let info = state.programme();
    let made = state.made_now();
    let shown = made.is_some_and(|live| making::show(ui, state, area, &live));
    match &info {
        _ if shown => {}
        None if !state.can_play() => waiting(ui, state, area),
        None => ui.ctx().request_repaint_after(Duration::from_millis(30)),
        Some(Err(why)) => {
            ui.scope_builder(UiBuilder::new().max_rect(area.shrink(space::L)), |ui| {
                empty(ui, icons::FILE_WARNING, "The clip cannot be shown", why);
            });
        }
        Some(Ok(info)) => play(ui, state, area, *info),
    }
    let bar = whole.with_min_y(whole.bottom() - BAR);
    ui.painter().hline(bar.x_range(), bar.top(), Stroke::new(1.0, p.line));
    let info = info.and_then(Result::ok);
    ui.scope_builder(UiBuilder::new().max_rect(bar.shrink2(vec2(space::S, space::XS))), |ui| {
        transport::show(ui, state, info);
    });
}

fn waiting(ui: &mut Ui, state: &State, area: Rect) {
    let live = state.runner.look(|_, live| live.cloned());
    ui.scope_builder(UiBuilder::new().max_rect(area.shrink(space::XL)), |ui| match live {
        Some(live) => {
            ui.vertical_centered(|ui| {
                ui.add_space((area.height() / 2.0 - 40.0).max(0.0));
                crate::gui::widgets::muted(ui, live.doing.as_str());
                ui.set_max_width(260.0);
                progress(ui, live.fraction, "Progress of the clip");
            });
        }
        None => {
            empty(ui, icons::FILM, "No clip yet", "Click on something in the picture, then press Animate.")
        }
    });
}

/// Where a film of this size is drawn.
fn place(area: Rect, info: &FilmInfo) -> Rect {
    fitted(area, vec2(info.width as f32, info.height as f32))
}

/// A rectangle of that shape, as large as there is room.
fn fitted(area: Rect, size: Vec2) -> Rect {
    let scale = (area.width() / size.x.max(1.0)).min(area.height() / size.y.max(1.0));
    Rect::from_center_size(area.center(), size * scale)
}

fn play(ui: &mut Ui, state: &mut State, area: Rect, info: FilmInfo) {
    let passed = f64::from(ui.input(|input| input.stable_dt)).min(0.25);
    let stage = area.shrink(space::S);
    let response = ui.interact(area, ui.scope_id().with("program"), Sense::click_and_drag());
    let (frames, sequence) = (info.frames, state.monitor.sequence);
    let kind = if sequence { "Timeline" } else { "Clip" };
    let beside = state.monitor.other.as_ref().filter(|_| !sequence).map(|_| state.monitor.wipe);
    response.widget_info(|| {
        let wipe = beside.map(|wipe| format!(", compared from {:.0} % of its width on", wipe * 100.0));
        let label = format!("{kind} of {frames} frames{}", wipe.unwrap_or_default());
        WidgetInfo::labeled(Role::Video, true, label)
    });
    let layers = picture(state, &info);
    if layers.first().is_none_or(|(_, opacity)| *opacity < 1.0) {
        ui.painter().rect_filled(fitted(stage, vec2(16.0, 9.0)), 0, Color32::BLACK);
    }
    let mut there = true;
    for (layer, (seen, opacity)) in layers.into_iter().enumerate() {
        there &= match seen {
            Seen::Frame(film, index) => frame(ui, state, stage, &film, index, (layer, opacity)),
            Seen::Still(shot) => still(ui, state, stage, &shot, (layer, opacity)),
        };
    }
    if !sequence {
        compare(ui, state, stage, &info, &response);
    }
    if state.shows_source() {
        let wide = vec2(190.0, 30.0);
        let spot = Rect::from_center_size(stage.center_bottom() - vec2(0.0, 30.0), wide);
        ui.scope_builder(UiBuilder::new().max_rect(spot), |ui| {
            let name = Command::AnimateFrame.name();
            if button(ui, Some(icons::CLAPPERBOARD), name, Tone::Main)
                .on_hover_text(Command::AnimateFrame.tip(ui.ctx()))
                .clicked()
            {
                state.todo.push(Command::AnimateFrame);
            }
        });
    }
    if response.clicked() && state.monitor.other.is_none() {
        state.todo.push(Command::PlayPause);
    }
    if state.monitor.is_playing() {
        let repeat = state.settings.repeat;
        match state.heard(&info) {
            // Sound cannot wait: frames follow it, and those that come too late are passed over.
            Some(position) => state.monitor.arrive(&info, position, repeat),
            // Time stands still for a frame that is not decoded, so that none is skipped.
            None if there => state.monitor.advance(&info, passed, repeat),
            None => {}
        }
        let next = 1.0 / (info.fps * state.monitor.speed.abs().max(1.0));
        ui.ctx().request_repaint_after(Duration::from_secs_f64((next / 2.0).clamp(0.004, 0.05)));
    }
}

/// What is to be seen at the monitor's moment, the lowest first, with how much of it.
fn picture(state: &mut State, info: &FilmInfo) -> Vec<(Seen, f32)> {
    let position = state.monitor.position;
    if state.monitor.sequence {
        return state.seen(position);
    }
    match state.monitor.film.clone() {
        Some(film) => vec![(Seen::Frame(film, info.frame_at(position)), 1.0)],
        None => vec![],
    }
}

/// Which layer of how many lie over each other, and how much of it is seen.
type Layer = (usize, f32);

/// Draws a frame; says whether it was there, or never will be.
fn frame(ui: &Ui, state: &mut State, stage: Rect, film: &Film, index: usize, layer: Layer) -> bool {
    let info = match state.player.film(film) {
        Some(Ok(info)) => info,
        Some(Err(_)) => return true,
        None => return false,
    };
    let speed = state.monitor.speed;
    if let Some(image) = state.player.frame(film, &info, index, speed) {
        draw(ui, state, "program", layer, &image, place(stage, &info));
        if layer.0 == 0 {
            state.monitor.drawn = Some((film.clone(), index));
        }
        return true;
    }
    if layer.0 > 0 {
        // What fades in over another shows its nearest frame meanwhile.
        if let Some((_, image)) = state.player.there(film, index) {
            draw(ui, state, "program", layer, &image, place(stage, &info));
        }
        return state.player.is_bad(film, index);
    }
    // What was drawn before stays until there is something new: no flicker between frames. While it stands
    // what is nearest is drawn, so that a jump in a long clip shows at once where it leads.
    let nearest = if speed == 0.0 { state.player.there(film, index) } else { None };
    if let Some((at, _)) = nearest {
        state.monitor.drawn = Some((film.clone(), at));
    }
    if let Some((drawn, at)) = state.monitor.drawn.clone()
        && let Some(Ok(old)) = state.player.film(&drawn)
        && let Some(image) = state.player.known(&drawn, at)
    {
        draw(ui, state, "program", layer, &image, place(stage, &old));
    }
    state.player.is_bad(film, index)
}

/// The photograph of a shot that has no clip yet.
fn still(ui: &Ui, state: &mut State, stage: Rect, shot: &str, layer: Layer) -> bool {
    let item = state.project.as_ref().and_then(|project| project.scene().item(shot));
    let key = item.and_then(|item| state.picture_key(item));
    match key.map(|key| state.pictures.get(&key)) {
        Some(Loading::Ready(shown)) => {
            let size = vec2(shown.preview.size[0] as f32, shown.preview.size[1] as f32);
            draw(ui, state, "program still", layer, &shown.preview, fitted(stage, size));
            true
        }
        Some(Loading::Waiting) => false,
        Some(Loading::Failed(_)) | None => true,
    }
}

fn draw(
    ui: &Ui,
    state: &mut State,
    slot: &str,
    (layer, opacity): Layer,
    image: &Arc<eframe::egui::ColorImage>,
    rect: Rect,
) {
    let texture = state.textures.get(ui.ctx(), &format!("{slot} {layer}"), image);
    let uv = Rect::from_min_max(Pos2::ZERO, pos2(1.0, 1.0));
    ui.painter().image(texture, rect, uv, Color32::WHITE.gamma_multiply(opacity));
}

/// The second take right of a line that can be dragged.
fn compare(ui: &Ui, state: &mut State, stage: Rect, info: &FilmInfo, response: &eframe::egui::Response) {
    let rect = place(stage, info);
    let Some(other) = state.monitor.other.clone() else { return };
    let Some(Ok(theirs)) = state.player.film(&other) else { return };
    if response.dragged()
        && let Some(at) = response.interact_pointer_pos()
    {
        state.monitor.wipe = ((at.x - rect.left()) / rect.width()).clamp(0.0, 1.0);
    }
    // The same moment of a take with another rate.
    let index = theirs.frame_at(info.frame_at(state.monitor.position) as f64 / info.fps);
    let wipe = state.monitor.wipe;
    let x = rect.left() + rect.width() * wipe;
    if let Some(image) = state.player.frame(&other, &theirs, index, state.monitor.speed) {
        let texture = state.textures.get(ui.ctx(), "program other", &image);
        let uv = Rect::from_min_max(pos2(wipe, 0.0), pos2(1.0, 1.0));
        ui.painter().image(texture, rect.with_min_x(x), uv, Color32::WHITE);
    }
    let painter = ui.painter();
    painter.vline(x, rect.y_range(), Stroke::new(2.0, Color32::WHITE));
    painter.circle(
        pos2(x, rect.center().y),
        9.0,
        Color32::WHITE,
        Stroke::new(1.0, Color32::from_black_alpha(90)),
    );
    for (text, at, align) in [
        ("A", pos2(rect.left() + 10.0, rect.top() + 8.0), eframe::egui::Align2::LEFT_TOP),
        ("B", pos2(rect.right() - 10.0, rect.top() + 8.0), eframe::egui::Align2::RIGHT_TOP),
    ] {
        painter.text(at + vec2(1.0, 1.0), align, text, Type::Title.font(), Color32::from_black_alpha(160));
        painter.text(at, align, text, Type::Title.font(), Color32::WHITE);
    }
    if response.hovered() {
        ui.ctx().set_cursor_icon(CursorIcon::ResizeHorizontal);
    }
}
