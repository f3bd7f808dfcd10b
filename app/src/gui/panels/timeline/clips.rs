//! The tracks with their clips.

use eframe::egui::{
    Align2, Color32, CursorIcon, PointerButton, Pos2, Rect, Response, Role, Sense, Shape, Stroke, StrokeKind,
    Ui, WidgetInfo, pos2, vec2,
};

use super::{Scale, TRACK, ground, head};
use crate::gui::icons;
use crate::gui::model::timeline::{At, Edge, Placed, Timeline};
use crate::gui::sequence::Drag;
use crate::gui::sounding::decibels;
use crate::gui::state::State;
use crate::gui::tasks::pictures::Loading;
use crate::gui::tasks::player::{Film, FilmInfo};
use crate::gui::tasks::waves::PER_SECOND;
use crate::gui::theme::{Type, palette};
use crate::gui::widgets::{icon_button, icon_text, tool_button};

/// Height of a clip's name.
const NAME: f32 = 17.0;
/// Width of the ends that trim.
const HANDLE: f32 = 8.0;
/// Width of what a fade is dragged by.
const GRIP: f32 = 12.0;
/// Height of a drawn sound.
const SOUND: f32 = 14.0;

/// Draws a track.
pub(super) fn track(
    ui: &mut Ui,
    state: &mut State,
    timeline: &Timeline,
    track: usize,
    rect: Rect,
    scale: &Scale,
) {
    let p = palette(ui);
    let Some(found) = timeline.tracks.get(track) else { return };
    let area = ground(ui, rect, scale);
    head(ui, rect, scale, |ui| {
        let name = &found.name;
        let (spot, response) = ui.allocate_exact_size(vec2(40.0, TRACK - 8.0), Sense::hover());
        response.widget_info(|| WidgetInfo::labeled(Role::Label, true, format!("Track {name}")));
        let ink = if found.hidden { p.faint } else { p.text };
        ui.painter().text(spot.left_center(), Align2::LEFT_CENTER, name, Type::Strong.font(), ink);
        let (icon, tip) = if found.hidden {
            (icons::EYE_OFF, format!("Show track {name}"))
        } else {
            (icons::EYE, format!("Hide track {name}"))
        };
        if icon_button(ui, icon, &tip).clicked() {
            state.arrange("Change track", |timeline| {
                timeline.tracks.get_mut(track).map(|track| track.hidden = !track.hidden)
            });
        }
        let label = format!("Mute track {name}");
        if tool_button(ui, icons::VOLUME_2, &label, "Leaves its sound out", found.muted).clicked() {
            state.arrange("Change track", |timeline| {
                timeline.tracks.get_mut(track).map(|track| track.muted = !track.muted)
            });
        }
        let icon = if found.locked { icons::LOCK } else { icons::LOCK_OPEN };
        let label = format!("Lock track {name}");
        if tool_button(ui, icon, &label, "Keeps its clips as they are", found.locked).clicked() {
            state.arrange("Change track", |timeline| {
                timeline.tracks.get_mut(track).map(|track| track.locked = !track.locked)
            });
        }
        if found.clips.is_empty()
            && timeline.tracks.len() > 1
            && icon_button(ui, icons::TRASH_2, &format!("Remove track {name}")).clicked()
        {
            state.arrange("Remove track", |timeline| timeline.remove_track(track));
        }
    });
    // Nothing that keys could do lies here.
    let back = ui.interact(area, ui.scope_id().with(("track", track)), Sense::CLICK);
    if back.clicked() {
        (state.sequence.chosen, state.sequence.keys) = (None, None);
    }
    let old = ui.clip_rect();
    ui.set_clip_rect(old.intersect(area));
    for (index, clip) in found.clips.iter().enumerate() {
        let shown = Rect::from_min_max(
            pos2(scale.x(clip.at), rect.top() + 2.0),
            pos2(scale.x(clip.end()).max(scale.x(clip.at) + 3.0), rect.bottom() - 3.0),
        );
        if shown.right() >= area.left() && shown.left() <= area.right() {
            one(ui, state, timeline, (track, index), clip, shown, scale);
        }
    }
    ui.set_clip_rect(old);
}

fn one(
    ui: &mut Ui,
    state: &mut State,
    timeline: &Timeline,
    at: At,
    clip: &Placed,
    rect: Rect,
    scale: &Scale,
) {
    let p = palette(ui);
    let chosen = state.sequence.chosen == Some(at);
    let locked = timeline.is_locked(at.0);
    let hidden = timeline.tracks.get(at.0).is_some_and(|track| track.hidden);
    let id = ui.scope_id().with(("clip", at));
    let response = ui.interact(rect, id, Sense::click_and_drag());
    let name = state.clip_name(&clip.node);
    let mut label = format!("Clip {name} at {:.2} s, {:.2} s long", clip.at, clip.length());
    let volume = (clip.volume != 1.0).then(|| decibels(clip.volume));
    if let Some(volume) = &volume {
        label.push_str(&format!(", {volume}"));
    }
    let changed = state.is_changed(&clip.node);
    if changed {
        label.push_str(", changed since its take");
    }
    response.widget_info(|| WidgetInfo::selected(Role::ListItem, true, chosen, &label));

    let fill = if response.hovered() { p.hover } else { p.raised };
    ui.painter().rect_filled(rect, 4, fill);
    let strip = rect.with_min_y(rect.top() + NAME).shrink2(vec2(1.0, 1.0));
    pictures(ui, state, clip, strip, scale);
    if hidden {
        ui.painter().rect_filled(rect, 4, p.field.gamma_multiply(0.6));
    }
    let bar = rect.with_max_y(rect.top() + NAME);
    let painter = ui.painter().with_clip_rect(ui.clip_rect().intersect(bar.shrink2(vec2(4.0, 0.0))));
    let mut from = bar.left().max(scale.left) + 6.0;
    if changed && bar.width() > 24.0 {
        icon_text(ui, pos2(from + 5.0, bar.center().y), icons::TRIANGLE_ALERT, 11.0, p.warning);
        from += 16.0;
    }
    painter.text(pos2(from, bar.center().y), Align2::LEFT_CENTER, &name, Type::Caption.font(), p.text);
    if let Some(volume) = volume.filter(|_| bar.width() > 120.0) {
        let end = pos2(bar.right() - 6.0, bar.center().y);
        painter.text(end, Align2::RIGHT_CENTER, volume, Type::Caption.font(), p.muted);
    }
    fades(ui, clip, rect, scale);
    let line = match (chosen, response.has_focus()) {
        (true, _) => Stroke::new(2.0, p.accent),
        (_, true) => Stroke::new(1.0, p.accent),
        _ => Stroke::new(1.0, p.outline),
    };
    ui.painter().rect_stroke(rect, 4, line, StrokeKind::Inside);

    if response.clicked() || response.drag_started_by(PointerButton::Primary) {
        state.choose_clip(at);
    }
    if response.secondary_clicked() {
        state.choose_clip(at);
    }
    menu(&response, state);
    if changed {
        response.clone().on_hover_text(
            "Changed since its latest take: this shows the take, an export makes what the shot is now",
        );
    }
    if locked {
        return;
    }
    let press = ui.input(|input| input.pointer.press_origin());
    if response.drag_started_by(PointerButton::Primary)
        && let Some(press) = press
    {
        let (held, begun) = (scale.t(press.x), timeline.clone());
        state.sequence.drag = Some(if ui.input(|input| input.modifiers.alt) {
            Drag::Slip { at, held, begun }
        } else {
            Drag::Clip { at, grab: held - clip.at, begun }
        });
    }
    let width = HANDLE.min(rect.width() / 4.0);
    for (edge, side) in [
        (Edge::Start, rect.with_max_x(rect.left() + width)),
        (Edge::End, rect.with_min_x(rect.right() - width)),
    ] {
        let handle = ui.interact(side, id.with(edge == Edge::Start), Sense::drag());
        let what = if edge == Edge::Start { "start" } else { "end" };
        handle
            .widget_info(|| WidgetInfo::labeled(Role::Splitter, true, format!("Trim the {what} of {name}")));
        if handle.hovered() || handle.dragged() {
            ui.ctx().set_cursor_icon(CursorIcon::ResizeHorizontal);
            ui.painter().rect_filled(side.shrink2(vec2(2.0, 6.0)), 2, p.accent);
        }
        if handle.drag_started_by(PointerButton::Primary) {
            state.choose_clip(at);
            state.sequence.drag = Some(Drag::Trim { at, edge, begun: timeline.clone() });
        }
    }
    if chosen && rect.width() > 4.0 * GRIP {
        grips(ui, state, timeline, at, clip, rect, scale);
    }
}

/// Where the fades of a clip end on the screen.
fn corners(clip: &Placed, rect: Rect, scale: &Scale) -> [(Edge, f32); 2] {
    let within = |x: f32| x.clamp(rect.left(), rect.right());
    [
        (Edge::Start, within(scale.x(clip.at + clip.fade_in))),
        (Edge::End, within(scale.x(clip.end() - clip.fade_out))),
    ]
}

/// The shade over what is only partly seen.
fn fades(ui: &Ui, clip: &Placed, rect: Rect, scale: &Scale) {
    let p = palette(ui);
    let low = rect.bottom() - 1.0;
    let high = rect.top() + NAME;
    for (edge, x) in corners(clip, rect, scale) {
        let (seconds, end) = match edge {
            Edge::Start => (clip.fade_in, rect.left()),
            Edge::End => (clip.fade_out, rect.right()),
        };
        if seconds <= 0.0 {
            continue;
        }
        let shade = vec![pos2(end, high), pos2(x, high), pos2(end, low)];
        ui.painter().add(Shape::convex_polygon(shade, Color32::from_black_alpha(150), Stroke::NONE));
        ui.painter().line_segment([pos2(end, low), pos2(x, high)], Stroke::new(1.5, p.accent_hover));
    }
}

/// What a fade is dragged by, at the upper corners of the chosen clip.
fn grips(ui: &Ui, state: &mut State, timeline: &Timeline, at: At, clip: &Placed, rect: Rect, scale: &Scale) {
    let p = palette(ui);
    let name = state.clip_name(&clip.node);
    for (edge, x) in corners(clip, rect, scale) {
        // Beside the ends that trim, so that both can be taken hold of.
        let x = match edge {
            Edge::Start => x.max(rect.left() + HANDLE + GRIP / 2.0),
            Edge::End => x.min(rect.right() - HANDLE - GRIP / 2.0),
        };
        let spot = Rect::from_center_size(pos2(x, rect.top() + NAME), vec2(GRIP, GRIP));
        let grip = ui.interact(spot, ui.scope_id().with(("fade", at, edge == Edge::Start)), Sense::drag());
        let what = if edge == Edge::Start { "start" } else { "end" };
        grip.widget_info(|| WidgetInfo::labeled(Role::Splitter, true, format!("Fade the {what} of {name}")));
        let held = grip.hovered() || grip.dragged();
        if held {
            ui.ctx().set_cursor_icon(CursorIcon::ResizeHorizontal);
        }
        let fill = if held { p.accent } else { p.text };
        ui.painter().circle(spot.center(), GRIP / 2.0 - 2.0, fill, Stroke::new(1.0, p.field));
        if grip.drag_started_by(PointerButton::Primary) {
            state.sequence.drag = Some(Drag::Fade { at, edge, begun: timeline.clone() });
        }
    }
}

fn menu(response: &Response, state: &mut State) {
    use crate::gui::command::Command;
    response.context_menu(|ui| {
        ui.set_min_width(200.0);
        for command in [
            Command::SplitClip,
            Command::TrimStart,
            Command::TrimEnd,
            Command::SlipEarlier,
            Command::SlipLater,
            Command::FadeIn,
            Command::FadeOut,
            Command::CrossFade,
            Command::ClipLouder,
            Command::ClipQuieter,
            Command::MuteClip,
            Command::RemoveClip,
            Command::RippleClip,
        ] {
            let can = state.blocked(command).is_none();
            if ui.add_enabled(can, eframe::egui::Button::new(command.name())).clicked() {
                state.todo.push(command);
                ui.close();
            }
        }
    });
}

/// What the clip shows, all along it: frames, or the photograph of a shot not made yet.
fn pictures(ui: &Ui, state: &mut State, clip: &Placed, rect: Rect, scale: &Scale) {
    if rect.width() < 6.0 || rect.height() < 6.0 {
        return;
    }
    match state.film_of(&clip.node) {
        Some(film) => {
            let sound = matches!(&film, Film::File(_));
            if let Some(Ok(info)) = state.strips.film(&film) {
                frames(ui, state, clip, &film, &info, rect, scale);
            }
            if sound && let Film::File(path) = &film {
                let line = rect.with_min_y(rect.bottom() - SOUND);
                if let Some(wave) = state.waves.get(path) {
                    loudness(ui, clip, &wave, line, scale);
                }
            }
        }
        None => still(ui, state, clip, rect, scale),
    }
}

/// Places for pictures of one shape along a clip that are on the screen: where each is, and the
/// second of the shot in its middle.
fn places(clip: &Placed, aspect: f32, rect: Rect, scale: &Scale) -> Vec<(Rect, f64)> {
    let width = (rect.height() * aspect).clamp(12.0, 400.0);
    let first = ((scale.left - rect.left()) / width).floor().max(0.0) as usize;
    let last = ((scale.right.min(rect.right()) - rect.left()) / width).ceil().max(0.0) as usize;
    (first..last.min(first + 200))
        .map(|index| {
            let left = rect.left() + index as f32 * width;
            let place = Rect::from_min_size(pos2(left, rect.top()), vec2(width, rect.height()));
            (place, clip.local(scale.t(place.center().x)))
        })
        .collect()
}

fn image(ui: &Ui, texture: eframe::egui::TextureId, place: Rect, rect: Rect) {
    let uv = Rect::from_min_max(Pos2::ZERO, pos2(1.0, 1.0));
    ui.painter().with_clip_rect(ui.clip_rect().intersect(rect)).image(texture, place, uv, Color32::WHITE);
}

fn frames(
    ui: &Ui,
    state: &mut State,
    clip: &Placed,
    film: &Film,
    info: &FilmInfo,
    rect: Rect,
    scale: &Scale,
) {
    let aspect = info.width as f32 / info.height.max(1) as f32;
    for (place, t) in places(clip, aspect, rect, scale) {
        // Of a long file only moments on a grid are decoded, so that a small change of the zoom
        // does not ask for all of them anew.
        let wide = scale.seconds(place.width()).max(1.0 / info.fps);
        let grid = wide.log2().ceil().exp2();
        let t = if info.frames > 64 { (t / grid).floor() * grid } else { t };
        let index = info.frame_at(t);
        // The monitor goes first: a strip can wait, a person who scrubs cannot.
        let asked = if state.player.is_busy() { None } else { state.strips.still(film, info, index) };
        let there = asked.or_else(|| state.strips.there(film, index).map(|(_, image)| image));
        if let Some(picture) = there {
            let slot = format!("strip {:p}", std::sync::Arc::as_ptr(&picture));
            let texture = state.textures.get(ui.ctx(), &slot, &picture);
            image(ui, texture, place, rect);
        }
    }
}

fn still(ui: &Ui, state: &mut State, clip: &Placed, rect: Rect, scale: &Scale) {
    let item = state.project.as_ref().and_then(|project| project.scene().item(&clip.node));
    let key = item.and_then(|item| state.picture_key(item));
    let Some(Loading::Ready(shown)) = key.map(|key| state.pictures.get(&key)) else { return };
    let [width, height] = shown.preview.size;
    let slot =
        if state.choice.item == clip.node { "canvas".to_owned() } else { format!("thumb {}", clip.node) };
    let texture = state.textures.get(ui.ctx(), &slot, &shown.preview);
    for (place, _) in places(clip, width as f32 / height.max(1) as f32, rect, scale) {
        image(ui, texture, place, rect);
    }
}

fn loudness(ui: &Ui, clip: &Placed, wave: &[f32], rect: Rect, scale: &Scale) {
    let p = palette(ui);
    ui.painter().rect_filled(rect, 0, Color32::from_black_alpha(150));
    let (left, right) = (rect.left().max(scale.left), rect.right().min(scale.right));
    let mut x = left;
    while x < right {
        let place = |x: f32| (clip.local(scale.t(x)).max(0.0) * f64::from(PER_SECOND)) as usize;
        let (from, to) = (place(x), place(x + 2.0).max(place(x) + 1));
        let loudest = wave.get(from..to.min(wave.len())).into_iter().flatten().fold(0.0f32, |a, b| a.max(*b));
        let half = ((loudest * clip.volume as f32).min(1.0).sqrt() * rect.height() / 2.0).max(0.5);
        ui.painter().vline(
            x,
            rect.center().y - half..=rect.center().y + half,
            Stroke::new(1.0, p.accent_hover),
        );
        x += 2.0;
    }
}
