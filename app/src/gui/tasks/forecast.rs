//! What a clip will take, found out before it is asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kinora_pipeline::store::disk::free_bytes;
use kinora_pipeline::workflow::Plan;
use serde_json::Value;

use super::runner::{document, options};
use super::worker::Worker;
use super::{Shop, Wake};

/// How long a document must rest before it is planned.
const REST: Duration = Duration::from_millis(400);

/// What a clip will take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outlook {
    /// Seconds.
    pub(crate) seconds: f64,
    /// Whether that rests on earlier runs on this machine.
    pub(crate) measured: bool,
    /// Memory in bytes.
    pub(crate) memory: u64,
    /// Disk in bytes, where frames are kept.
    pub(crate) disk: u64,
    /// Memory that is free now, in bytes.
    pub(crate) memory_free: u64,
    /// Disk that is free now where frames are kept, in bytes.
    pub(crate) disk_free: u64,
    /// Bytes of the file that is written.
    pub(crate) file: u64,
    /// Disk that is free now where the file goes, in bytes; none where nobody can say.
    pub(crate) file_free: Option<u64>,
    /// Whether the clip is there already.
    pub(crate) known: bool,
}

struct Question {
    revision: u64,
    shot: String,
    asked: Asked,
}

/// What is planned, and for where.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The document.
    pub(crate) value: Value,
    /// The folder its names resolve in.
    pub(crate) folder: PathBuf,
    /// The file that is written outside of it.
    pub(crate) dest: Option<PathBuf>,
}

type Answer = (u64, String, Result<Outlook, String>);

/// Plans the shot that is chosen whenever the document rests.
#[derive(Debug)]
pub(crate) struct Outlooks {
    worker: Worker<Question, Answer>,
    /// What is known, for one revision and shot.
    known: Option<Answer>,
    asked: Option<(u64, String)>,
    changed: (u64, String, Instant),
}

impl Outlooks {
    /// Nothing known yet.
    pub(crate) fn new(shop: Arc<Shop>, cache: &Path, wake: Wake) -> Self {
        let cache = cache.to_path_buf();
        let start = move || -> Box<dyn FnMut(Question) -> Answer + Send> {
            Box::new(move |question| {
                let outlook = plan(&shop, &cache, &question);
                (question.revision, question.shot, outlook)
            })
        };
        let changed = (0, String::new(), Instant::now());
        Self { worker: Worker::new("forecast", wake, start), known: None, asked: None, changed }
    }

    /// The outlook for a shot; asked for once the document has rested. The second value says after
    /// how long to look again.
    pub(crate) fn get(
        &mut self,
        revision: u64,
        shot: &str,
        ask: impl FnOnce() -> Asked,
    ) -> (Option<&Result<Outlook, String>>, Option<Duration>) {
        if (self.changed.0, self.changed.1.as_str()) != (revision, shot) {
            self.changed = (revision, shot.to_owned(), Instant::now());
        }
        let rested = self.changed.2.elapsed();
        let mut again = None;
        if self.asked.as_ref().is_none_or(|(asked, of)| (*asked, of.as_str()) != (revision, shot)) {
            if rested >= REST {
                self.asked = Some((revision, shot.to_owned()));
                self.worker.ask(Question { revision, shot: shot.to_owned(), asked: ask() }, |_| true);
            } else {
                again = Some(REST - rested);
            }
        }
        let known = self.known.as_ref().filter(|(_, of, _)| of == shot).map(|(_, _, outlook)| outlook);
        (known, again)
    }

    /// Asks again, because files or the cache changed.
    pub(crate) fn renew(&mut self) {
        self.asked = None;
    }

    /// Lets this be what is known, for one revision and shot.
    #[cfg(test)]
    pub(crate) fn pretend(&mut self, revision: u64, shot: &str, outlook: Outlook) {
        self.asked = Some((revision, shot.to_owned()));
        self.known = Some((revision, shot.to_owned(), Ok(outlook)));
    }

    /// Whether the last question was answered.
    #[cfg(test)]
    pub(crate) fn is_planned(&self) -> bool {
        let known = self.known.as_ref().map(|(revision, shot, _)| (*revision, shot.clone()));
        known.is_some() && known == self.asked
    }

    /// Whether the last answer says that the clip is there.
    #[cfg(test)]
    pub(crate) fn is_known(&self) -> bool {
        matches!(&self.known, Some((_, _, Ok(outlook))) if outlook.known)
    }

    /// Whether what is known is about the document and the shot that were asked about last.
    #[cfg(test)]
    pub(crate) fn is_settled(&self) -> bool {
        self.known.as_ref().is_some_and(|(revision, shot, _)| {
            self.asked.is_some() && (*revision, shot.as_str()) == (self.changed.0, self.changed.1.as_str())
        })
    }

    /// Takes in what was planned. Says whether anything was.
    pub(crate) fn poll(&mut self) -> bool {
        let answers = self.worker.answers();
        let any = !answers.is_empty();
        if let Some(last) = answers.into_iter().next_back() {
            self.known = Some(last);
        }
        any
    }
}

fn plan(shop: &Shop, cache: &Path, question: &Question) -> Result<Outlook, String> {
    let Asked { value, folder, dest } = &question.asked;
    let document = document(value, "project")?;
    // What is in the way of a file is asked about when it is written.
    let options = options(shop.for_plans()?, cache, folder, &question.shot, dest.is_some())?;
    let plan = Plan::build(&document, &options).map_err(|error| error.to_string())?;
    let runs = plan.steps().iter().filter(|step| step.needed && !step.cached);
    let file: u64 = runs.filter(|step| step.output.is_some()).map(|step| step.work.disk).sum();
    let forecast = plan.forecast();
    let known = plan.steps().iter().any(|step| step.node == question.shot && step.cached);
    Ok(Outlook {
        seconds: forecast.seconds,
        measured: forecast.measured,
        memory: forecast.memory,
        disk: forecast.disk.saturating_sub(file),
        memory_free: forecast.memory_free,
        disk_free: forecast.disk_free,
        file,
        file_free: dest.as_deref().and_then(free_bytes),
        known,
    })
}
