//! The bar below the picture: the line with the playhead, the buttons, how loud it is.

use eframe::egui::{Align, Layout, Rect, Role, Sense, Stroke, Ui, Vec2, WidgetInfo, pos2, vec2};

use crate::gui::command::Command;
use crate::gui::icons;
use crate::gui::monitor::timecode;
use crate::gui::panels::timeline::ruler;
use crate::gui::state::State;
use crate::gui::tasks::player::FilmInfo;
use crate::gui::theme::{Type, palette, space};
use crate::gui::widgets::{icon_button, slid, tool_button};

/// Draws the bar.
pub(super) fn show(ui: &mut Ui, state: &mut State, info: Option<FilmInfo>) {
    ui.spacing_mut().item_spacing.y = 2.0;
    scrubber(ui, state, info);
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 2.0;
        let p = palette(ui);
        let time = info.map_or("--:--:--".to_owned(), |info| timecode(&info, state.monitor.position));
        ui.label(eframe::egui::RichText::new(time).font(Type::Label.font()).color(p.muted));
        ui.add_space(space::S);
        source(ui, state);
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            ui.spacing_mut().item_spacing.x = 2.0;
            let ctx = ui.ctx().clone();
            let can = state.blocked(Command::Export).is_none();
            ui.add_enabled_ui(can, |ui| {
                if icon_button(ui, icons::UPLOAD, "Export").on_hover_text(Command::Export.tip(&ctx)).clicked()
                {
                    state.todo.push(Command::Export);
                }
            });
            let tip = Command::Repeat.tip(&ctx);
            if tool_button(ui, icons::REPEAT, "Repeat", &tip, state.settings.repeat).clicked() {
                state.todo.push(Command::Repeat);
            }
            loudness(ui, state);
            ui.add_enabled_ui(info.is_some(), |ui| {
                let playing = state.monitor.is_playing();
                let play = if playing { icons::PAUSE } else { icons::PLAY };
                for (command, icon, name) in [
                    (Command::GoToEnd, icons::SKIP_FORWARD, "To the last frame"),
                    (Command::StepForward, icons::STEP_FORWARD, "One frame forward"),
                    (Command::PlayPause, play, if playing { "Pause" } else { "Play" }),
                    (Command::StepBack, icons::STEP_BACK, "One frame back"),
                    (Command::GoToStart, icons::SKIP_BACK, "To the first frame"),
                ] {
                    if icon_button(ui, icon, name).clicked() {
                        state.todo.push(command);
                    }
                }
            });
            let speed = state.monitor.speed;
            if speed != 0.0 && speed != 1.0 {
                crate::gui::widgets::caption(ui, format!("{speed:+.0}×"));
            }
        });
    });
}

/// How loud everything is.
fn loudness(ui: &mut Ui, state: &mut State) {
    let muted = state.settings.muted;
    let mut tip = Command::Mute.tip(ui.ctx());
    if !state.sound.has_device() {
        tip.push_str("; there is no device for sound now, and time goes by the clock");
    }
    if tool_button(ui, icons::VOLUME_2, "Mute", &tip, muted).clicked() {
        state.todo.push(Command::Mute);
    }
    // Where there is little room the keys do.
    if ui.available_width() > 300.0 {
        let mut volume = f64::from(state.settings.volume);
        let slider = eframe::egui::Slider::new(&mut volume, 0.0..=1.0).show_value(false);
        let quiet = ui.scope(|ui| {
            // As slim as the line with the playhead.
            (ui.spacing_mut().slider_width, ui.spacing_mut().interact_size.y) = (56.0, 12.0);
            ui.add_enabled(!muted, slider)
        });
        let response = quiet.inner;
        response.widget_info(|| {
            let mut label = WidgetInfo::labeled(Role::Slider, !muted, "Volume");
            label.value = Some(volume);
            label
        });
        if response.changed() {
            state.settings.volume = volume as f32;
            state.apply_volume();
            state.touch_settings();
        }
    }
}

/// Whether the chosen take, the timeline or the clip a picture is from is played.
fn source(ui: &mut Ui, state: &mut State) {
    let ctx = ui.ctx().clone();
    let choices = [
        (Command::PlayTimeline, icons::LIST_VIDEO, state.monitor.sequence),
        (Command::PlaySource, icons::CLAPPERBOARD, state.shows_source()),
    ];
    for (command, icon, on) in choices {
        // Few pictures are frames of clips.
        if command == Command::PlaySource && !state.has_source() {
            continue;
        }
        let can = state.blocked(command).is_none();
        ui.add_enabled_ui(can, |ui| {
            if tool_button(ui, icon, command.name(), &command.tip(&ctx), on).clicked() {
                state.todo.push(command);
            }
        });
    }
}

/// The line with the playhead.
fn scrubber(ui: &mut Ui, state: &mut State, info: Option<FilmInfo>) {
    let p = palette(ui);
    let (rect, response) =
        ui.allocate_exact_size(Vec2::new(ui.available_width().max(1.0), 22.0), Sense::click_and_drag());
    let position = state.monitor.position;
    response.widget_info(|| {
        let mut label = WidgetInfo::labeled(Role::Slider, info.is_some(), "Playhead");
        label.value = Some(position);
        label
    });
    let rail = Rect::from_center_size(rect.center(), vec2(rect.width() - 12.0, 4.0));
    ui.painter().rect_filled(rail, 2, p.outline);
    let Some(info) = info else { return };
    let along = |frame: usize| {
        let last = (info.frames - 1).max(1) as f32;
        rail.left() + rail.width() * frame as f32 / last
    };
    if info.frames <= 120 {
        for frame in 0..info.frames {
            let x = along(frame);
            ui.painter().vline(x, rail.bottom() + 3.0..=rail.bottom() + 6.0, Stroke::new(1.0, p.line));
        }
    }
    if (response.dragged() || response.clicked())
        && let Some(at) = response.interact_pointer_pos()
    {
        let share = ((at.x - rail.left()) / rail.width()).clamp(0.0, 1.0);
        let frame = (share * (info.frames - 1) as f32).round() as usize;
        state.monitor.go_to(&info, frame);
    }
    let last = (info.frames - 1) as f64 / info.fps;
    if let Some(t) = slid(ui, &response, position, &(0.0..=last), 1.0 / info.fps) {
        state.monitor.go_to(&info, (t * info.fps).round() as usize);
    }
    let x = along(info.frame_at(state.monitor.position));
    ui.painter().rect_filled(rail.with_max_x(x), 2, p.accent);
    let marks = state.shown_marks();
    if let Some((from, to)) = marks.within(info.seconds()) {
        let last = info.frame_at((to - 0.5 / info.fps).max(0.0));
        let ends = (along(info.frame_at(from)), along(last));
        let of = if state.monitor.sequence { "the program" } else { "the clip" };
        ruler::part(ui, rail.expand2(vec2(6.0, 6.0)), ends, &marks, of);
    }
    let line = if response.has_focus() { p.accent } else { p.panel };
    ui.painter().circle(pos2(x, rail.center().y), 6.5, p.text, Stroke::new(2.0, line));
}
