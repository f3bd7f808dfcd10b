//! The models: what is here, what can be fetched, under which licence.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use eframe::egui::{Margin, RichText, ScrollArea, Ui};
use kinora_pipeline::progress::{CancelToken, Event, Progress};
use kinora_pipeline::store::hub::HubOptions;
use kinora_pipeline::store::model_store::{ModelStatus, ModelStore, Presence};

use crate::gui::icons;
use crate::gui::overlays::toasts::{Kind, Toasts};
use crate::gui::state::State;
use crate::gui::tasks::Wake;
use crate::gui::tasks::worker::Worker;
use crate::gui::theme::{Type, palette, space};
use crate::gui::widgets::{Tone, badge, button, caption, card, muted, progress};
use crate::progress::human_bytes;

#[derive(Debug)]
enum Question {
    List,
    Pull { id: String, offline: bool },
    Verify(String),
    Remove(String),
}

enum Answer {
    List(Result<Vec<ModelStatus>, String>),
    Said(Kind, String),
}

/// Opens the store; the network stays untouched when asked so.
type Open = dyn Fn(bool) -> Result<ModelStore, String> + Send;

/// A download that runs.
#[derive(Debug, Clone, Default)]
struct Fetching {
    id: String,
    doing: String,
    fraction: f32,
}

/// The models as far as they are known.
#[derive(Debug)]
pub(crate) struct ModelsState {
    worker: Worker<Question, Answer>,
    list: Option<Result<Vec<ModelStatus>, String>>,
    asked: bool,
    fetching: Arc<Mutex<Option<Fetching>>>,
    cancel: Arc<Mutex<CancelToken>>,
}

impl ModelsState {
    /// Nothing known yet; nothing is read before the panel is looked at.
    pub(crate) fn new(root: &Path, wake: Wake) -> Self {
        let root = root.to_path_buf();
        Self::over(Box::new(move |offline| store(&root, offline)), wake)
    }

    /// [`Self::new`] over another store.
    pub(crate) fn over(open: Box<Open>, wake: Wake) -> Self {
        let fetching = Arc::new(Mutex::new(None));
        let cancel = Arc::new(Mutex::new(CancelToken::default()));
        let (shown, token, redraw) = (Arc::clone(&fetching), Arc::clone(&cancel), Arc::clone(&wake));
        let start = move || -> Box<dyn FnMut(Question) -> Answer + Send> {
            Box::new(move |question| answer(question, &*open, &shown, &token, &redraw))
        };
        Self { worker: Worker::new("models", wake, start), list: None, asked: false, fetching, cancel }
    }

    /// Takes in what was answered. Says whether anything was.
    pub(crate) fn poll(&mut self, toasts: &mut Toasts) -> bool {
        let answers = self.worker.answers();
        let any = !answers.is_empty();
        for answer in answers {
            match answer {
                Answer::List(list) => self.list = Some(list),
                Answer::Said(kind, text) => {
                    toasts.add(kind, text);
                    self.worker.ask(Question::List, |waiting| matches!(waiting, Question::List));
                }
            }
        }
        any
    }

    /// Whether the list is there.
    #[cfg(test)]
    pub(crate) fn is_listed(&self) -> bool {
        matches!(self.list, Some(Ok(_)))
    }

    fn fetching(&self) -> Option<Fetching> {
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn store(root: &Path, offline: bool) -> Result<ModelStore, String> {
    let mut options = HubOptions::from_env();
    options.offline |= offline;
    ModelStore::new(root, options).map_err(|error| error.to_string())
}

fn answer(
    question: Question,
    open: &Open,
    shown: &Arc<Mutex<Option<Fetching>>>,
    cancel: &Arc<Mutex<CancelToken>>,
    wake: &Wake,
) -> Answer {
    let said = |result: Result<String, String>| match result {
        Ok(text) => Answer::Said(Kind::Done, text),
        Err(text) => Answer::Said(Kind::Error, text),
    };
    match question {
        Question::List => {
            Answer::List(open(true).and_then(|store| store.list().map_err(|error| error.to_string())))
        }
        Question::Verify(id) => said(open(true).and_then(|store| {
            let report = store.verify(&id).map_err(|error| error.to_string())?;
            match report.damaged.first() {
                None => Ok(format!("{id} is sound: {} files match their digests", report.sound.len())),
                Some((file, problem)) => {
                    Err(format!("{id} is damaged: {file}: {problem}; remove it and fetch it again"))
                }
            }
        })),
        Question::Remove(id) => said(open(true).and_then(|store| {
            let freed = store.remove(&id).map_err(|error| error.to_string())?;
            Ok(format!("{id} was removed, {} are free again", human_bytes(freed)))
        })),
        Question::Pull { id, offline } => {
            let token = CancelToken::default();
            *cancel.lock().unwrap_or_else(PoisonError::into_inner) = token.clone();
            let watch = Watch {
                id: id.clone(),
                shown: Arc::clone(shown),
                cancel: token.clone(),
                wake: Arc::clone(wake),
            };
            let result =
                open(offline).and_then(|store| store.pull(&id, &watch).map_err(|error| error.to_string()));
            *shown.lock().unwrap_or_else(PoisonError::into_inner) = None;
            if token.is_cancelled() {
                return Answer::Said(
                    Kind::Info,
                    format!("fetching {id} was stopped; it goes on where it stopped"),
                );
            }
            said(result.map(|files| format!("{id} is in {}", files.root.display())))
        }
    }
}

struct Watch {
    id: String,
    shown: Arc<Mutex<Option<Fetching>>>,
    cancel: CancelToken,
    wake: Wake,
}

impl Progress for Watch {
    fn event(&self, event: Event) {
        let Event::Step { stage, done, total, .. } = event else { return };
        let fraction = if total > 0 { done as f32 / total as f32 } else { 0.0 };
        let next = Fetching { id: self.id.clone(), doing: stage.to_owned(), fraction };
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
        (self.wake)();
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

/// Draws the panel.
pub(crate) fn show(ui: &mut Ui, state: &mut State) {
    if !state.models.asked {
        state.models.asked = true;
        state.models.worker.ask(Question::List, |_| false);
    }
    let fetching = state.models.fetching();
    eframe::egui::Frame::new().inner_margin(Margin::same(10)).show(ui, |ui| {
        let mut offline = state.settings.offline;
        if ui.checkbox(&mut offline, "Never use the network").changed() {
            state.settings.offline = offline;
            state.touch_settings();
        }
        ui.add_space(space::XS);
        ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| {
            embedded(ui);
            let models = state.models.list.clone();
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

fn embedded(ui: &mut Ui) {
    let p = palette(ui);
    card(ui, false, |ui| {
        ui.horizontal_wrapped(|ui| {
            ui.label(RichText::new("Kinora mini").font(Type::Strong.font()).color(p.text));
            badge(ui, "Built in", p.good);
        });
        caption(ui, "Follow-Your-Click, 256 × 256, 16 frames. MIT or Apache-2.0. Works without any network.");
    });
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
        if model.bytes > 0 {
            caption(ui, human_bytes(model.bytes));
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
                if button(ui, Some(icons::CIRCLE_STOP), &format!("Stop fetching {id}"), Tone::Plain).clicked()
                {
                    state.models.cancel.lock().unwrap_or_else(PoisonError::into_inner).cancel();
                }
                return;
            }
            if model.presence != Presence::Present {
                let can = fetching.is_none() && !state.settings.offline;
                let name = if model.presence == Presence::Partial { "Go on" } else { "Fetch" };
                ui.add_enabled_ui(can, |ui| {
                    let response = button(ui, Some(icons::DOWNLOAD), &format!("{name} {id}"), Tone::Plain);
                    if response
                        .on_disabled_hover_text("The network is switched off, or something else is fetched")
                        .clicked()
                    {
                        let pull = Question::Pull { id: id.clone(), offline: state.settings.offline };
                        state.models.worker.ask(pull, |_| false);
                    }
                });
            }
            if model.presence != Presence::Absent {
                if button(ui, None, &format!("Check {id}"), Tone::Quiet).clicked() {
                    state.models.worker.ask(Question::Verify(id.clone()), |_| false);
                }
                if button(ui, None, &format!("Remove {id}"), Tone::Danger).clicked() {
                    state.models.worker.ask(Question::Remove(id.clone()), |_| false);
                }
            }
        });
    });
}
