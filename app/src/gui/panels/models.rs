//! The models: what is here, what can be fetched, under which licence.

use std::collections::HashMap;

use eframe::egui::{Margin, Response, RichText, Role, ScrollArea, Ui, WidgetInfo};
use kinora_pipeline::store::model_store::{ModelStatus, Presence};

use crate::cli::DeviceChoice;
use crate::embedded::kinora_mini_bytes;
use crate::gui::command::Command;
use crate::gui::icons;
use crate::gui::model::weights;
use crate::gui::state::State;
use crate::gui::tasks::models::{Fetching, Question};
use crate::gui::theme::{Type, palette, space};
use crate::gui::widgets::{Tone, badge, button, caption, card, choice, muted, progress};
use crate::progress::human_bytes;

/// Draws the panel.
pub(crate) fn show(ui: &mut Ui, state: &mut State) {
    state.models.look();
    let fetching = state.models.fetching();
    eframe::egui::Frame::new().inner_margin(Margin::same(10)).show(ui, |ui| {
        let mut offline = state.settings.offline;
        if ui.checkbox(&mut offline, "Never use the network").changed() {
            state.todo.push(Command::Offline);
        }
        device(ui, state);
        ui.add_space(space::XS);
        ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| {
            embedded(ui);
            let models = state.models.list().cloned();
            match models {
                None => {
                    muted(ui, "Looking…");
                }
                Some(Err(why)) => {
                    ui.label(RichText::new(why).color(palette(ui).bad));
                }
                Some(Ok(models)) => {
                    let ids: HashMap<String, Presence> =
                        models.iter().map(|m| (m.id.clone(), m.presence)).collect();
                    for model in &models {
                        ui.add_space(space::XS);
                        row(ui, state, model, &ids, fetching.as_ref());
                    }
                }
            }
        });
    });
}

/// Where clips are computed, where there is a choice.
fn device(ui: &mut Ui, state: &mut State) {
    let cards = state.cards().to_vec();
    if cards.is_empty() {
        return;
    }
    let mut device = state.settings.device();
    let cards = cards.iter().enumerate().map(|(at, name)| (DeviceChoice::Cuda(at), name.as_str()));
    let options: Vec<_> = std::iter::once((DeviceChoice::Cpu, "Processor")).chain(cards).collect();
    ui.add_space(space::XS);
    if choice(ui, "Compute on", &mut device, &options) {
        state.choose_device(device);
    }
}

fn embedded(ui: &mut Ui) {
    let p = palette(ui);
    card(ui, false, |ui| {
        ui.horizontal_wrapped(|ui| {
            ui.label(RichText::new("Kinora mini").font(Type::Strong.font()).color(p.text));
            badge(ui, "Built in", p.good);
        });
        caption(ui, human_bytes(kinora_mini_bytes()));
        caption(ui, "Follow-Your-Click, 256 × 256, 16 frames. MIT or Apache-2.0. Works without any network.");
    });
}

/// What it takes on the disk, or would.
fn size_of(model: &ModelStatus) -> String {
    match (model.presence, weights::file_bytes(&model.id)) {
        (Presence::Partial, Some(whole)) => {
            format!("{} of about {}", human_bytes(model.bytes), human_bytes(whole))
        }
        (Presence::Absent, Some(whole)) => format!("About {} to fetch", human_bytes(whole)),
        _ if model.bytes > 0 => human_bytes(model.bytes),
        _ => String::new(),
    }
}

/// A button of a card. The card says which model; its name says so too, for who does not see the card.
fn act(ui: &mut Ui, icon: Option<&str>, (text, name): (&str, &str), id: &str, tone: Tone) -> Response {
    let response = button(ui, icon, text, tone);
    let enabled = ui.is_enabled();
    response.widget_info(|| WidgetInfo::labeled(Role::Button, enabled, format!("{name} {id}")));
    response
}

fn row(
    ui: &mut Ui,
    state: &mut State,
    model: &ModelStatus,
    here: &HashMap<String, Presence>,
    fetching: Option<&Fetching>,
) {
    let p = palette(ui);
    let id = &model.id;
    let mine = fetching.filter(|fetching| fetching.id == *id);
    card(ui, false, |ui| {
        ui.horizontal_wrapped(|ui| {
            ui.label(RichText::new(&model.title).font(Type::Strong.font()).color(p.text));
            match model.presence {
                Presence::Absent => badge(ui, "Not here", p.muted),
                Presence::Partial => badge(ui, "Incomplete", p.warning),
                Presence::Present => badge(ui, "Installed", p.good),
            }
        });
        let size = size_of(model);
        if !size.is_empty() {
            caption(ui, size);
        }
        // A base alone renders nothing.
        let card = matches!(state.settings.device(), DeviceChoice::Cuda(_));
        let memory = weights::memory_bytes(id, &model.needs, card).filter(|_| !model.needs.is_empty());
        if let Some(memory) = memory {
            let size = human_bytes(memory);
            caption(ui, format!("Needs about {size} of memory, and more the larger the picture"));
        }
        caption(ui, &model.licence);
        let missing: Vec<&str> = model
            .needs
            .iter()
            .filter(|need| here.get(*need) != Some(&Presence::Present))
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            caption(ui, format!("Also needs {}", missing.join(", ")));
        }
        if let Some(mine) = mine {
            caption(ui, &mine.doing);
            progress(ui, mine.fraction, &format!("Fetching {id}"));
        }
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing.x = 4.0;
            if mine.is_some() {
                if act(ui, Some(icons::CIRCLE_STOP), ("Stop", "Stop fetching"), id, Tone::Plain).clicked() {
                    state.models.stop_fetching();
                }
                return;
            }
            if model.presence != Presence::Present {
                let can = fetching.is_none() && !state.settings.offline;
                let name = if model.presence == Presence::Partial { "Go on" } else { "Fetch" };
                ui.add_enabled_ui(can, |ui| {
                    let response = act(ui, Some(icons::DOWNLOAD), (name, name), id, Tone::Plain);
                    if response
                        .on_disabled_hover_text("The network is switched off, or something else is fetched")
                        .clicked()
                    {
                        let pull = Question::Pull { id: id.clone(), offline: state.settings.offline };
                        state.models.ask(pull);
                    }
                });
            }
            if model.presence != Presence::Absent {
                if act(ui, None, ("Check", "Check"), id, Tone::Quiet).clicked() {
                    state.models.ask(Question::Verify(id.clone()));
                }
                if act(ui, None, ("Remove", "Remove"), id, Tone::Danger).clicked() {
                    state.models.ask(Question::Remove(id.clone()));
                }
            }
        });
    });
}
