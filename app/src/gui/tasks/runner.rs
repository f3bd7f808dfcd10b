//! Runs the jobs of the queue, one after the other, on a thread of its own.

mod watch;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kinora_pipeline::progress::CancelToken;
use kinora_pipeline::store::assets::asset_roots;
use kinora_pipeline::store::cache::{Cache, CacheKey};
use kinora_pipeline::workflow::{
    Document, ErrorClass, Plan, RunContext, RunError, RunOptions, SystemClock, run,
};
use serde_json::Value;

use super::moving::Moving;
use super::{Shop, Wake};
use crate::engines::Machinery;
use crate::gui::model::queue::{Ending, Job, Phase, Purpose, Queue};
use watch::{Meter, Watch};

/// What the running job is at.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    /// The job.
    pub(crate) id: u64,
    /// What people call it.
    pub(crate) title: String,
    /// What it is for.
    pub(crate) purpose: Purpose,
    /// When it began.
    pub(crate) begun: Instant,
    /// What it is doing, for people.
    pub(crate) doing: String,
    /// How much of it is done, 0..1.
    pub(crate) fraction: f32,
    /// Whether it was asked to stop.
    pub(crate) stopping: bool,
    /// What it said.
    pub(crate) notices: Vec<String>,
    /// What the clip looks like so far.
    pub(crate) moving: Option<Arc<Moving>>,
}

impl Live {
    /// Seconds left, from what has passed; none in the first moments.
    pub(crate) fn seconds_left(&self) -> Option<f64> {
        let passed = self.begun.elapsed().as_secs_f64();
        let fraction = f64::from(self.fraction);
        (fraction > 0.03 && passed > 0.5).then(|| passed / fraction * (1.0 - fraction))
    }
}

/// A job that ended.
#[derive(Debug, Clone)]
pub(crate) struct News {
    /// The job as it ran.
    pub(crate) job: Job,
    /// How it ended.
    pub(crate) ending: Ending,
    /// The cache key of the clip of a take.
    pub(crate) key: Option<CacheKey>,
}

struct Inner {
    queue: Queue,
    live: Option<Live>,
    cancel: CancelToken,
    news: Vec<News>,
    closed: bool,
}

struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
    wake: Wake,
    shop: Arc<Shop>,
    cache: PathBuf,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The window's side of the queue.
pub(crate) struct Runner {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Runner")
    }
}

impl Runner {
    /// Jobs of `queue` with the models of `shop`, results in `cache`.
    pub(crate) fn new(queue: Queue, shop: Arc<Shop>, cache: &Path, wake: Wake) -> Self {
        let inner = Inner { queue, live: None, cancel: CancelToken::default(), news: vec![], closed: false };
        let shared = Arc::new(Shared {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            wake,
            shop,
            cache: cache.to_path_buf(),
        });
        Self { shared, thread: None }
    }

    /// Reads the queue and what runs.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&Queue, Option<&Live>) -> R) -> R {
        let inner = self.shared.lock();
        look(&inner.queue, inner.live.as_ref())
    }

    /// Changes the queue; the thread begins what may begin.
    pub(crate) fn change<R>(&mut self, change: impl FnOnce(&mut Queue) -> R) -> R {
        let answer = change(&mut self.shared.lock().queue);
        self.start();
        self.shared.changed.notify_all();
        answer
    }

    fn start(&mut self) {
        if self.thread.is_some() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        match std::thread::Builder::new().name("jobs".to_owned()).spawn(move || serve(&shared)) {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => tracing::error!(%error, "no thread for jobs"),
        }
    }

    /// Begins with the jobs that an earlier window left waiting; how many those are. None while the queue is
    /// paused.
    pub(crate) fn go_on(&mut self) -> usize {
        let waiting = self.look(|queue, _| {
            let waits = queue.jobs().iter().filter(|job| job.phase == Phase::Waiting).count();
            if queue.is_paused() { 0 } else { waits }
        });
        if waiting > 0 {
            self.start();
        }
        waiting
    }

    /// Stops a job, whether it runs or waits.
    pub(crate) fn stop(&mut self, id: u64) {
        let mut inner = self.shared.lock();
        match &mut inner.live {
            Some(live) if live.id == id => {
                live.stopping = true;
                inner.cancel.cancel();
            }
            _ => inner.queue.stop(id),
        }
    }

    /// Jobs that ended since the last time.
    pub(crate) fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.shared.lock().news)
    }

    /// Lets a job seem to run, for pictures of the window.
    #[cfg(test)]
    pub(crate) fn pretend(&mut self, live: Option<Live>) {
        self.shared.lock().live = live;
    }

    /// Whether one runs.
    pub(crate) fn is_running(&self) -> bool {
        self.shared.lock().live.is_some()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        {
            let mut inner = self.shared.lock();
            inner.closed = true;
            inner.cancel.cancel();
        }
        self.shared.changed.notify_all();
        // Waits for the answer to the cancel, at most one step: a job that is told to stop writes
        // its checkpoint.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(shared: &Arc<Shared>) {
    super::share::step_back();
    loop {
        let (job, cancel) = {
            let mut inner = shared.lock();
            loop {
                if inner.closed {
                    return;
                }
                if let Some(job) = inner.queue.begin() {
                    inner.cancel = CancelToken::default();
                    inner.live = Some(Live {
                        id: job.id,
                        title: job.title.clone(),
                        purpose: job.purpose.clone(),
                        begun: Instant::now(),
                        doing: "Looking at the document".to_owned(),
                        fraction: 0.0,
                        stopping: false,
                        notices: vec![],
                        moving: None,
                    });
                    break (job, inner.cancel.clone());
                }
                inner = shared.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
        };
        (shared.wake)();
        let begun = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| work(shared, &job, &cancel)));
        let (ending, key) = match result {
            Ok(Ok((files, key))) => (Ending::Done(files), key),
            Ok(Err(problem)) if problem.stopped => (Ending::Stopped, None),
            Ok(Err(problem)) => (Ending::Failed(problem.message), None),
            Err(_) => {
                let message = "a fault inside Kinora; please report it with this document".to_owned();
                (Ending::Failed(message), None)
            }
        };
        let seconds = begun.elapsed().as_secs_f64();
        // The next job of a line that goes on uses the same weights; after one that was stopped nobody waits.
        if !matches!(ending, Ending::Done(_)) {
            shared.shop.free_renders();
        }
        let mut inner = shared.lock();
        let notices = inner.live.take().map(|live| live.notices).unwrap_or_default();
        // A window that closes leaves its job to the next one.
        if inner.closed && ending == Ending::Stopped {
            return;
        }
        inner.queue.end(job.id, ending.clone(), seconds, notices);
        if let (Some(key), Purpose::Take { .. }) = (&key, &job.purpose) {
            inner.queue.keep_clip(job.id, key.hex());
        }
        inner.news.push(News { job, ending, key });
        drop(inner);
        (shared.wake)();
    }
}

struct Stop {
    stopped: bool,
    message: String,
}

impl Stop {
    fn failed(message: impl std::fmt::Display) -> Self {
        Self { stopped: false, message: message.to_string() }
    }
}

impl From<RunError> for Stop {
    fn from(error: RunError) -> Self {
        Self { stopped: error.class() == ErrorClass::Interrupted, message: error.to_string() }
    }
}

/// How a job's document is planned: to see a shot, or to write one file.
pub(crate) fn options(
    engines: Arc<Machinery>,
    cache: &Path,
    folder: &Path,
    target: &str,
    force: bool,
) -> Result<RunOptions, String> {
    Ok(RunOptions {
        folder: folder.to_path_buf(),
        out: None,
        assets: asset_roots(Some(folder)),
        force,
        // Unfinished work goes on where it stopped, and finished files are not made twice.
        resume: true,
        targets: Some(vec![target.to_owned()]),
        engines,
        cache: Cache::open(cache).map_err(|error| error.to_string())?,
    })
}

/// Reads a document that is kept as a value.
pub(crate) fn document(value: &Value, name: &str) -> Result<Document, String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    Document::parse(&text, name).map_err(|error| error.to_string())
}

fn work(
    shared: &Arc<Shared>,
    job: &Job,
    cancel: &CancelToken,
) -> Result<(Vec<PathBuf>, Option<CacheKey>), Stop> {
    let target = match &job.purpose {
        Purpose::Take { shot } => shot,
        Purpose::Export { node } => node,
    };
    let document = document(&job.document, &job.title).map_err(Stop::failed)?;
    let engines = shared.shop.for_renders().map_err(Stop::failed)?;
    let mut options =
        options(engines, &shared.cache, &job.folder, target, job.force).map_err(Stop::failed)?;
    options.out.clone_from(&job.out);
    let plan = Plan::build(&document, &options).map_err(Stop::failed)?;
    let watch = Watch {
        shared,
        document: &document,
        cancel: cancel.clone(),
        meter: Mutex::new(Meter::new(&plan)),
        drawn: Mutex::new(Instant::now()),
    };
    let mut context = RunContext { progress: &watch, clock: &SystemClock::default() };
    let report = run(&plan, &mut context)?;
    let files = report.outputs.values().map(|written| written.path.clone()).collect();
    let key = plan.steps().iter().find(|step| step.node == *target).map(|step| step.key.clone());
    Ok((files, key))
}
