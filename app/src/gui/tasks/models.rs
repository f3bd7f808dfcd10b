//! Lists, fetches, checks and removes models, one thing at a time.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use kinora_pipeline::progress::{CancelToken, Event, Progress};
use kinora_pipeline::store::hub::HubOptions;
use kinora_pipeline::store::model_store::{ModelStatus, ModelStore, Presence};

use super::Wake;
use super::worker::Worker;
use crate::gui::overlays::toasts::{Kind, Toasts};
use crate::progress::human_bytes;

/// What can be asked of the store.
#[derive(Debug)]
pub(crate) enum Question {
    /// What there is.
    List,
    /// Fetches a model with what it needs.
    Pull { id: String, offline: bool },
    /// Compares a model's files with their digests.
    Verify(String),
    /// Deletes a model's files.
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
pub(crate) struct Fetching {
    /// Which model.
    pub(crate) id: String,
    /// What it is at.
    pub(crate) doing: String,
    /// How much of that is done, 0..1.
    pub(crate) fraction: f32,
}

/// The models as far as they are known.
#[derive(Debug)]
pub(crate) struct ModelsState {
    worker: Worker<Question, Answer>,
    list: Option<Result<Vec<ModelStatus>, String>>,
    asked: bool,
    /// Whether models came or went since the list was first read.
    changed: bool,
    fetching: Arc<Mutex<Option<Fetching>>>,
    cancel: Arc<Mutex<CancelToken>>,
}

impl ModelsState {
    /// Nothing known yet; nothing is read before someone looks.
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
        Self {
            worker: Worker::new("models", wake, start),
            list: None,
            asked: false,
            changed: false,
            fetching,
            cancel,
        }
    }

    /// Takes in what was answered. Says whether anything was.
    pub(crate) fn poll(&mut self, toasts: &mut Toasts) -> bool {
        let answers = self.worker.answers();
        let any = !answers.is_empty();
        for answer in answers {
            match answer {
                Answer::List(list) => {
                    self.changed |= self.list.is_some() && self.list.as_ref() != Some(&list);
                    self.list = Some(list);
                }
                Answer::Said(kind, text) => {
                    toasts.add(kind, text);
                    self.worker.ask(Question::List, |waiting| matches!(waiting, Question::List));
                }
            }
        }
        any
    }

    /// Asks for the list, the first time someone looks.
    pub(crate) fn look(&mut self) {
        if !self.asked {
            self.asked = true;
            self.ask(Question::List);
        }
    }

    /// Asks for something; the answer is said or listed.
    pub(crate) fn ask(&mut self, question: Question) {
        self.worker.ask(question, |_| false);
    }

    /// The models, or why they cannot be listed; none while that is not known.
    pub(crate) fn list(&self) -> Option<&Result<Vec<ModelStatus>, String>> {
        self.list.as_ref()
    }

    /// Stops what is being fetched; it goes on from there later.
    pub(crate) fn stop_fetching(&self) {
        self.cancel.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }

    /// Whether models came or went since the last time this was asked.
    pub(crate) fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The models that can animate a click, with whether all they need is here.
    pub(crate) fn animators(&self) -> Vec<(&ModelStatus, bool)> {
        let Some(Ok(models)) = &self.list else { return vec![] };
        let here = |id: &str| models.iter().any(|m| m.id == id && m.presence == Presence::Present);
        // Base models are no animators: what they lack is what the additions to them bring.
        let animates = |m: &&ModelStatus| !m.needs.is_empty() || m.id.starts_with("hub:");
        models
            .iter()
            .filter(animates)
            .map(|m| (m, here(&m.id) && m.needs.iter().all(|need| here(need))))
            .collect()
    }

    /// Whether the list is there.
    #[cfg(test)]
    pub(crate) fn is_listed(&self) -> bool {
        matches!(self.list, Some(Ok(_)))
    }

    /// What is being fetched.
    pub(crate) fn fetching(&self) -> Option<Fetching> {
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
