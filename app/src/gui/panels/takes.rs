//! Every clip made of the chosen shot, to look at again and to compare.

use eframe::egui::{
    Align, Layout, Margin, Role, ScrollArea, Sense, Stroke, StrokeKind, Ui, UiBuilder, WidgetInfo, vec2,
};

use crate::gui::icons;
use crate::gui::model::places::unix_now;
use crate::gui::model::takes::{self, Take};
use crate::gui::state::State;
use crate::gui::tasks::player::Film;
use crate::gui::text::{ago, seconds};
use crate::gui::theme::{RADIUS, RADIUS_LARGE, Type, palette, space};
use crate::gui::widgets::{caption, empty, icon_button, icon_text, shortened, tool_button};

/// Size of a take's tile.
const TILE: eframe::egui::Vec2 = vec2(180.0, 160.0);

/// Draws the panel.
pub(crate) fn show(ui: &mut Ui, state: &mut State) {
    let list = state.takes();
    let shot = state.item().and_then(|item| item.shot.as_ref()).map(|shot| shot.node.clone());
    let Some(shot) = shot.filter(|_| !list.is_empty()) else {
        let text = "Every clip you make is kept here, so that you can go back to it or compare two.";
        empty(ui, icons::FILM, "No takes yet", text);
        return;
    };
    eframe::egui::Frame::new().inner_margin(Margin::same(10)).show(ui, |ui| {
        ScrollArea::horizontal().auto_shrink([false, false]).show(ui, |ui| {
            ui.horizontal_top(|ui| {
                let count = list.len();
                // The one the timeline shows is the latest of which there are frames.
                let shown = list.iter().position(|take| state.has_frames(take));
                for (index, take) in list.iter().enumerate() {
                    let stale = shown == Some(index) && state.is_changed(&shot);
                    tile(ui, state, &shot, take, count - index, stale);
                    ui.add_space(space::XS);
                }
            });
        });
    });
}

fn tile(ui: &mut Ui, state: &mut State, shot: &str, take: &Take, number: usize, stale: bool) {
    let p = palette(ui);
    let Some(key) = take.cache_key() else { return };
    let film = Film::Take(key);
    let shown = state.monitor.film.as_ref() == Some(&film);
    let other = state.monitor.other.as_ref() == Some(&film);
    let name = format!("Take {number}");
    let (rect, response) = ui.allocate_exact_size(TILE, Sense::click());
    response.widget_info(|| WidgetInfo::selected(Role::ListItem, true, shown, &name));
    let fill = if response.hovered() { p.hover } else { p.raised };
    let line = if shown || response.has_focus() { p.accent } else { p.line };
    ui.painter().rect(rect, RADIUS_LARGE, fill, Stroke::new(1.0, line), StrokeKind::Inside);
    let picture = rect.shrink(4.0).with_max_y(rect.top() + 90.0);
    ui.painter().rect_filled(picture, RADIUS, p.stage);
    let there = state.has_frames(take);
    if there {
        if let Some(Ok(info)) = state.player.film(&film) {
            // The middle of the clip shows the motion at its widest.
            let at = info.frames / 2;
            if let Some(image) = state.player.still(&film, &info, at) {
                let texture = state.textures.get(ui.ctx(), &format!("take {}", take.key), &image);
                let size = vec2(info.width as f32, info.height as f32);
                super::media::cover(ui, texture, picture, size);
            }
        }
    } else {
        icon_text(ui, picture.center(), icons::HISTORY, 22.0, p.faint);
    }
    if shown || other {
        let mark = if other { "B" } else { "A" };
        let at = picture.left_top() + vec2(8.0, 6.0);
        ui.painter().text(
            at,
            eframe::egui::Align2::LEFT_TOP,
            mark,
            Type::Heading.font(),
            eframe::egui::Color32::WHITE,
        );
    }
    let below = rect.with_min_y(picture.bottom() + 4.0).shrink2(vec2(8.0, 2.0));
    let (words, seed) = take.summary(shot);
    let page = UiBuilder::new().max_rect(below).layout(Layout::top_down(Align::LEFT));
    ui.scope_builder(page, |ui| {
        ui.spacing_mut().item_spacing.y = 1.0;
        let width = ui.available_width();
        shortened(ui, &format!("{name} · {words}"), Type::Label, p.text, width);
        let seed = seed.map(|seed| format!("seed {seed}, ")).unwrap_or_default();
        let made = format!("{seed}{}", ago(take.made, unix_now()));
        if stale {
            let tip =
                "The timeline shows this take; an export makes what the shot is now. Animate to see that.";
            shortened(ui, "settings changed since", Type::Caption, p.warning, width).on_hover_text(tip);
        } else {
            caption(ui, made).on_hover_text(format!("made in {}", seconds(take.seconds)));
        }
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 0.0;
            if !there {
                if icon_button(ui, icons::REFRESH_CW, &format!("Render {name} again")).clicked() {
                    state.render_again(shot, take);
                }
            } else {
                let tip = "Compares it with the take that is shown";
                if tool_button(ui, icons::COLUMNS_2, &format!("Compare with {name}"), tip, other).clicked() {
                    state.monitor.other = (!other && !shown).then(|| film.clone());
                }
            }
            if icon_button(ui, icons::ROTATE_CCW, &format!("Use the settings of {name}")).clicked() {
                state.edit(|project| takes::use_settings(project, shot, &take.key));
            }
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                ui.spacing_mut().item_spacing.x = 0.0;
                if icon_button(ui, icons::TRASH_2, &format!("Forget {name}")).clicked() {
                    state.edit(|project| takes::forget(project, shot, &take.key));
                    if shown {
                        state.monitor_latest();
                    }
                }
                if tool_button(
                    ui,
                    icons::STAR,
                    &format!("Star {name}"),
                    "Keeps it among the favourites",
                    take.star,
                )
                .clicked()
                {
                    state.edit(|project| takes::star(project, shot, &take.key));
                }
            });
        });
    });
    if response.clicked() && there {
        let (position, wipe) = (state.monitor.position, state.monitor.other.clone());
        state.monitor.load(Some(film.clone()), false);
        state.monitor.position = position;
        state.monitor.other = wipe.filter(|other| *other != film);
    }
}
