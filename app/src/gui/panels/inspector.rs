//! What is chosen: the regions with their words, and how the clip is made.

mod rendering;

use eframe::egui::{Align, Id, Layout, Margin, Role, ScrollArea, Sense, Ui, WidgetInfo, vec2};
use kinora_pipeline::control::click::CandidateKind;
use kinora_pipeline::workflow::ops::Candidate;

use crate::gui::command::Command;
use crate::gui::comparing::CANDIDATES;
use crate::gui::icons;
use crate::gui::model::changes;
use crate::gui::model::keys::keys_of;
use crate::gui::model::scene::{Region, Shape};
use crate::gui::outlook::line;
use crate::gui::panels::prompt;
use crate::gui::state::State;
use crate::gui::tasks::forecast::Asked;
use crate::gui::tasks::masks::Masking;
use crate::gui::theme::{Type, palette, region_colour, space};
use crate::gui::widgets::{
    Tone, caption, card, empty, icon_button, muted, progress, rule, section, segmented, shortened, slider,
    text_field, wide_button,
};

/// Words the embedded model knows well, to choose instead of typing.
const SUGGESTIONS: [&str; 8] =
    ["drift left", "drift right", "rise slowly", "sway", "turn clockwise", "grow", "ripple", "flow down"];

/// Draws the panel.
pub(crate) fn show(ui: &mut Ui, state: &mut State) {
    let footer = 84.0;
    let whole = ui.max_rect();
    let top = whole.with_max_y(whole.bottom() - footer);
    ui.scope_builder(eframe::egui::UiBuilder::new().max_rect(top), |ui| {
        ui.set_clip_rect(ui.clip_rect().intersect(top));
        ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| {
            eframe::egui::Frame::new().inner_margin(Margin::symmetric(12, 8)).show(ui, |ui| {
                if state.item().is_none() {
                    empty(ui, icons::SETTINGS, "Nothing is chosen", "Add a picture to begin.");
                    return;
                }
                section(ui, "What moves", |ui| regions(ui, state));
                if let Some(shot) = state.item().and_then(|item| item.shot.clone()) {
                    rule(ui);
                    section(ui, "Clip", |ui| rendering::clip(ui, state, &shot));
                    rule(ui);
                    section(ui, "Rendering", |ui| rendering::show(ui, state, &shot));
                }
            });
        });
    });
    let bottom = whole.with_min_y(whole.bottom() - footer);
    let p = palette(ui);
    ui.painter().hline(bottom.x_range(), bottom.top(), eframe::egui::Stroke::new(1.0, p.line));
    ui.scope_builder(eframe::egui::UiBuilder::new().max_rect(bottom.shrink2(vec2(12.0, 10.0))), |ui| {
        main_button(ui, state);
    });
}

/// Animate, or how far it is.
fn main_button(ui: &mut Ui, state: &mut State) {
    let live = state.runner.look(|_, live| live.cloned());
    let ctx = ui.ctx().clone();
    match live {
        Some(live) => {
            ui.horizontal(|ui| {
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    let name = if live.stopping { "Stopping…" } else { "Stop" };
                    ui.add_enabled_ui(!live.stopping, |ui| {
                        if crate::gui::widgets::button(ui, Some(icons::CIRCLE_STOP), name, Tone::Plain)
                            .clicked()
                        {
                            state.todo.push(Command::StopRender);
                        }
                    });
                    ui.with_layout(Layout::top_down(Align::LEFT), |ui| {
                        ui.spacing_mut().item_spacing.y = 4.0;
                        let left =
                            live.seconds_left().map(|s| format!(" · {} left", crate::gui::text::seconds(s)));
                        let text = format!("{}{}", live.doing, left.unwrap_or_default());
                        let width = ui.available_width();
                        shortened(ui, &text, Type::Label, palette(ui).muted, width);
                        progress(ui, live.fraction, "Progress of the job");
                    });
                });
            });
        }
        None => {
            outlook(ui, state);
            let blocked = state.blocked(Command::Animate);
            ui.add_enabled_ui(blocked.is_none(), |ui| {
                let response = wide_button(ui, Some(icons::SPARKLES), "Animate", Tone::Main);
                let tip = blocked.clone().unwrap_or_else(|| Command::Animate.tip(&ctx));
                if response.on_hover_text(&tip).on_disabled_hover_text(tip).clicked() {
                    state.todo.push(Command::Animate);
                }
            });
        }
    }
}

/// What the clip will take, or what is in its way.
fn outlook(ui: &mut Ui, state: &mut State) {
    let shot = state.item().and_then(|item| item.shot.as_ref()).map(|shot| shot.node.clone());
    let (Some(project), Some(shot)) = (&state.project, shot) else {
        caption(ui, "Click on something, and it can be animated");
        return;
    };
    let ask = || Asked { value: project.value().clone(), folder: project.folder(), dest: None };
    let (known, again) = state.outlooks.get(project.revision(), &shot, ask);
    line(ui, known);
    if let Some(again) = again {
        ui.ctx().request_repaint_after(again);
    }
}

fn regions(ui: &mut Ui, state: &mut State) {
    let regions: Vec<Region> = state.item().map(|item| item.regions().to_vec()).unwrap_or_default();
    if regions.is_empty() {
        muted(ui, "Click on a thing in the picture. It is cut out at once; then say how it moves.");
        return;
    }
    for (index, region) in regions.iter().enumerate() {
        region_card(ui, state, index, region);
        ui.add_space(space::XS);
    }
    if wide_button(ui, Some(icons::PLUS), "Add region", Tone::Quiet).clicked() {
        state.canvas.new_region = true;
        state.canvas.tool = crate::gui::state::Tool::Pick;
    }
}

fn region_card(ui: &mut Ui, state: &mut State, index: usize, region: &Region) {
    let p = palette(ui);
    let chosen = state.choice.region == Some(index);
    let id = state.choice.item.clone();
    card(ui, chosen, |ui| {
        ui.horizontal(|ui| {
            let width = (ui.available_width() - if chosen { 64.0 } else { 0.0 }).max(1.0);
            let (rect, response) = ui.allocate_exact_size(vec2(width, 24.0), Sense::click());
            response.widget_info(|| WidgetInfo::selected(Role::ListItem, true, chosen, &region.name));
            let dot = eframe::egui::pos2(rect.left() + 7.0, rect.center().y);
            ui.painter().circle_filled(dot, 6.0, region_colour(index));
            let clip = ui.painter_at(rect);
            clip.text(
                eframe::egui::pos2(rect.left() + 22.0, rect.center().y),
                eframe::egui::Align2::LEFT_CENTER,
                &region.name,
                Type::Strong.font(),
                p.text,
            );
            if !chosen {
                let at = eframe::egui::pos2(rect.right(), rect.center().y);
                clip.text(
                    at,
                    eframe::egui::Align2::RIGHT_CENTER,
                    short(&region.prompt),
                    Type::Caption.font(),
                    p.muted,
                );
            }
            if response.clicked() {
                (state.choice.region, state.choice.click) = (Some(index), None);
                state.typed = None;
            }
            if chosen {
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    ui.spacing_mut().item_spacing.x = 0.0;
                    if icon_button(ui, icons::TRASH_2, "Remove this region").clicked() {
                        state.choice.click = None;
                        state.todo.push(Command::RemoveRegion);
                    }
                    region_menu(ui, state, region);
                });
            }
        });
        if chosen {
            ui.add_space(space::XS);
            words(ui, state, index, region, &id);
            magnitude(ui, state, index, region);
            shape(ui, state, index, region, &id);
        }
    });
}

fn short(prompt: &str) -> String {
    let mut text: String = prompt.chars().take(18).collect();
    if prompt.chars().nth(18).is_some() {
        text.push('…');
    }
    text
}

fn region_menu(ui: &mut Ui, state: &mut State, region: &Region) {
    let button = icon_button(ui, icons::ELLIPSIS_VERTICAL, "More about this region");
    eframe::egui::Popup::menu(&button).show(|ui| {
        ui.set_min_width(200.0);
        caption(ui, "Name");
        let field = Id::unique(("region name", &region.mask));
        let mut name: String = ui.data(|data| data.get_temp(field)).unwrap_or_else(|| region.name.clone());
        let response = text_field(ui, field, "Region name", "Name", &mut name, 40);
        if response.changed() {
            ui.data_mut(|data| data.insert_temp(field, name.clone()));
        }
        if response.lost_focus() {
            ui.data_mut(|data| data.remove::<String>(field));
            if name.trim() != region.name && !name.trim().is_empty() {
                state.edit(|project| changes::rename(project, &region.mask, &name));
                state.close_gesture();
            }
        }
        ui.separator();
        for command in [Command::RaiseRegion, Command::LowerRegion] {
            if ui.button(command.name()).clicked() {
                state.todo.push(command);
            }
        }
    });
}

/// The prompt, with words to choose.
fn words(ui: &mut Ui, state: &mut State, index: usize, region: &Region, id: &str) {
    let field = Id::unique(("prompt", id, index));
    prompt::field(ui, state, (id, index), region, field, ("How it moves", prompt::Look::Framed));
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing = vec2(4.0, 4.0);
        for words in SUGGESTIONS {
            if chip(ui, words, region.prompt == words) {
                state.typed = None;
                state.edit(|project| changes::set_prompt(project, id, index, words));
                state.close_gesture();
            }
        }
    });
}

/// A small button with words to choose.
fn chip(ui: &mut Ui, text: &str, chosen: bool) -> bool {
    let p = palette(ui);
    let galley = ui.painter().layout_no_wrap(text.to_owned(), Type::Caption.font(), p.muted);
    let (rect, response) = ui.allocate_exact_size(galley.size() + vec2(14.0, 8.0), Sense::click());
    response.widget_info(|| WidgetInfo::selected(Role::Button, true, chosen, text));
    let fill = match (chosen, response.hovered()) {
        (true, _) => p.selected,
        (_, true) => p.hover,
        _ => p.field,
    };
    let line = if chosen || response.has_focus() { p.accent } else { p.outline };
    let radius = rect.height() / 2.0;
    ui.painter().rect(
        rect,
        radius,
        fill,
        eframe::egui::Stroke::new(1.0, line),
        eframe::egui::StrokeKind::Inside,
    );
    let ink = if chosen { p.accent } else { p.muted };
    ui.painter().galley_with_override_text_color(rect.center() - galley.size() / 2.0, galley, ink);
    response.clicked()
}

fn magnitude(ui: &mut Ui, state: &mut State, index: usize, region: &Region) {
    if let Some(link) = region.magnitude.link() {
        caption(ui, format!("The magnitude comes from {link}"));
        return;
    }
    let t = state.shot_time();
    let mut percent = region.magnitude.at(t, None) * 100.0;
    let dragged = slider(ui, "Magnitude", &mut percent, 0.0..=100.0, 0, " %");
    if dragged.changed {
        state.change_magnitude(index, percent / 100.0);
    }
    if dragged.ended {
        state.close_gesture();
    }
    let count = keys_of(&region.magnitude).len();
    ui.horizontal(|ui| {
        if icon_button(ui, icons::DIAMOND_PLUS, "Set key of the magnitude").clicked() {
            state.choice.region = Some(index);
            state.todo.push(Command::SetKey);
        }
        let keys = if count == 1 { "1 key".to_owned() } else { format!("{count} keys") };
        let words = if count == 0 { "the same all along".to_owned() } else { format!("{keys}, at {t:.2} s") };
        caption(ui, words);
    });
}

fn shape(ui: &mut Ui, state: &mut State, index: usize, region: &Region, id: &str) {
    match &region.shape {
        Shape::Clicks(clicks) => {
            let masking = state.mask(index);
            if let Some(Masking::Failed(why)) = &masking {
                ui.label(eframe::egui::RichText::new(why).font(Type::Label.font()).color(palette(ui).bad));
            }
            if let Some(Masking::Ready(mask)) = &masking
                && mask.candidates.len() > 1
            {
                candidates(ui, state, index, clicks.candidate, &mask.candidates, id);
            }
            if !clicks.strokes.is_empty() {
                strokes(ui, state, index, clicks.strokes.len(), clicks.query().is_some(), id);
            }
            for (which, label, value, low) in
                [("feather", "Soft edge", clicks.feather, 0.0), ("dilate", "Grow", clicks.dilate, -40.0)]
            {
                let mut pixels = value;
                let dragged = slider(ui, label, &mut pixels, low..=40.0, 1, " px");
                if dragged.changed {
                    state.edit(|project| changes::set_edge(project, id, index, which, pixels));
                }
                if dragged.ended {
                    state.close_gesture();
                }
            }
        }
        Shape::File { path } => {
            caption(ui, format!("Shape from {path}"));
        }
        Shape::Made { op } => {
            caption(ui, format!("Shape made by {op}"));
        }
    }
}

/// How much was painted, and a way to be rid of it.
fn strokes(ui: &mut Ui, state: &mut State, index: usize, count: usize, found: bool, id: &str) {
    ui.horizontal(|ui| {
        caption(ui, if count == 1 { "1 stroke".to_owned() } else { format!("{count} strokes") });
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            ui.add_enabled_ui(found, |ui| {
                if icon_button(ui, icons::ERASER, "Remove the strokes").clicked() {
                    state.edit(|project| changes::clear_strokes(project, id, index));
                }
            });
        });
    });
}

/// The things a click may have meant.
fn candidates(
    ui: &mut Ui,
    state: &mut State,
    index: usize,
    now: Candidate,
    found: &[(CandidateKind, f32)],
    id: &str,
) {
    let mut options = vec![(Candidate::Best, "Auto")];
    for (wanted, kind, name) in CANDIDATES {
        if found.iter().any(|(has, _)| *has == kind) || now == wanted {
            options.push((wanted, name));
        }
    }
    let mut wanted = now;
    if segmented(ui, &mut wanted, &options) {
        state.edit(|project| changes::set_candidate(project, id, index, wanted));
    }
}
