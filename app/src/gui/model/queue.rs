//! The jobs: what waits, what runs, what became of the rest. Kept on disk, so that neither a crash
//! nor a restart loses one.

use std::fs::File;
use std::path::{Path, PathBuf};

use kinora_pipeline::store::atomic::{AtomicError, write_file};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::places::unix_now;

/// Finished jobs remembered.
const MAX_FINISHED: usize = 50;
/// The longest queue file that is believed.
const MAX_FILE: u64 = 256 << 20;

/// What a job is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Purpose {
    /// To see a shot move; its clip stays in the cache.
    Take {
        /// The shot's node.
        shot: String,
    },
    /// To write a file.
    Export {
        /// The node that writes it.
        node: String,
    },
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Its turn has not come.
    Waiting,
    /// At work.
    Running,
    /// Its window went away; it can go on where it stopped.
    Interrupted,
    /// Someone stopped it; it can go on where it stopped.
    Stopped,
    /// It ended with an error.
    Failed,
    /// It is done.
    Done,
}

impl Phase {
    /// Whether it will not change by itself any more.
    pub(crate) fn is_over(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }
}

/// One job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Unlike any other's in this queue.
    pub(crate) id: u64,
    /// What people call it.
    pub(crate) title: String,
    /// What it is for.
    pub(crate) purpose: Purpose,
    /// The document as it was when the job was asked for.
    pub(crate) document: Value,
    /// The folder its names resolve in.
    pub(crate) folder: PathBuf,
    /// Where outputs go; the document's folder when absent.
    #[serde(default)]
    pub(crate) out: Option<PathBuf>,
    /// Replace outputs that are there.
    #[serde(default)]
    pub(crate) force: bool,
    /// Where it stands.
    pub(crate) phase: Phase,
    /// Why it failed.
    #[serde(default)]
    pub(crate) error: Option<String>,
    /// When it was asked for, seconds since 1970.
    pub(crate) asked: u64,
    /// When it ended, seconds since 1970.
    #[serde(default)]
    pub(crate) ended: Option<u64>,
    /// How long it ran.
    #[serde(default)]
    pub(crate) seconds: f64,
    /// Files it wrote.
    #[serde(default)]
    pub(crate) files: Vec<PathBuf>,
    /// What it said on the way.
    #[serde(default)]
    pub(crate) notices: Vec<String>,
    /// The clip of a take that no project has listed yet, by its name in the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unlisted: Option<String>,
}

/// What is asked of a job.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    /// What people call it.
    pub(crate) title: &'a str,
    /// What it is for.
    pub(crate) purpose: Purpose,
    /// The document as it is now.
    pub(crate) document: Value,
    /// The folder its names resolve in.
    pub(crate) folder: &'a Path,
    /// Where outputs go; the document's folder when absent.
    pub(crate) out: Option<&'a Path>,
    /// Replace outputs that are there.
    pub(crate) force: bool,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ending {
    /// With these files.
    Done(Vec<PathBuf>),
    /// Someone stopped it.
    Stopped,
    /// With an error.
    Failed(String),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Kept {
    kinora_queue: u32,
    next: u64,
    paused: bool,
    jobs: Vec<Job>,
}

/// All jobs, those that wait in the order they will run.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    kept: Kept,
    path: Option<PathBuf>,
    // Held for as long as this window owns the queue on disk.
    _lock: Option<File>,
    fault: Option<String>,
}

impl Queue {
    /// The queue kept in `folder`. Jobs that ran when their window went away are interrupted. Where
    /// another window owns it, this one begins with an empty queue of its own and keeps none.
    pub(crate) fn open(folder: &Path) -> Self {
        let mut queue = Self::default();
        queue.kept.kinora_queue = 1;
        if let Err(error) = std::fs::create_dir_all(folder) {
            queue.fault = Some(format!("jobs are not kept: {} cannot be made ({error})", folder.display()));
            return queue;
        }
        let lock = File::options().create(true).truncate(false).write(true).open(folder.join("lock"));
        match lock.map(|file| (file.try_lock(), file)) {
            Ok((Err(std::fs::TryLockError::WouldBlock), _)) | Err(_) => return queue,
            Ok((_, file)) => queue._lock = Some(file),
        }
        let path = folder.join("queue.json");
        match read(&path) {
            Ok(Some(kept)) => queue.kept = kept,
            Ok(None) => {}
            Err(problem) => {
                let aside = path.with_extension("damaged.json");
                let _ = std::fs::rename(&path, &aside);
                queue.fault = Some(format!(
                    "the job list could not be understood ({problem}); it is kept as {}",
                    aside.display()
                ));
            }
        }
        for job in &mut queue.kept.jobs {
            if job.phase == Phase::Running {
                job.phase = Phase::Interrupted;
            }
        }
        queue.path = Some(path);
        queue
    }

    /// What is wrong with keeping jobs; given out once.
    pub(crate) fn take_fault(&mut self) -> Option<String> {
        self.fault.take()
    }

    /// The jobs, the one that runs or runs next first, finished ones last with the latest first.
    pub(crate) fn jobs(&self) -> &[Job] {
        &self.kept.jobs
    }

    /// A job by id.
    pub(crate) fn job(&self, id: u64) -> Option<&Job> {
        self.kept.jobs.iter().find(|job| job.id == id)
    }

    /// Whether no job is begun for now.
    pub(crate) fn is_paused(&self) -> bool {
        self.kept.paused
    }

    /// Stops or allows beginning jobs.
    pub(crate) fn set_paused(&mut self, paused: bool) {
        self.kept.paused = paused;
        self.save();
    }

    /// Adds a job to the end of those that wait. Returns its id.
    pub(crate) fn add(&mut self, order: Order<'_>) -> u64 {
        self.kept.next += 1;
        let id = self.kept.next;
        let job = Job {
            id,
            title: order.title.to_owned(),
            purpose: order.purpose,
            document: order.document,
            folder: order.folder.to_path_buf(),
            out: order.out.map(Path::to_path_buf),
            force: order.force,
            phase: Phase::Waiting,
            error: None,
            asked: unix_now(),
            ended: None,
            seconds: 0.0,
            files: vec![],
            notices: vec![],
            unlisted: None,
        };
        let at = self.kept.jobs.iter().position(|job| job.phase.is_over()).unwrap_or(self.kept.jobs.len());
        self.kept.jobs.insert(at, job);
        self.save();
        id
    }

    /// The next job to run, which now counts as running. None while paused or while one runs.
    pub(crate) fn begin(&mut self) -> Option<Job> {
        let busy = self.kept.jobs.iter().any(|job| job.phase == Phase::Running);
        if self.kept.paused || busy {
            return None;
        }
        let job = self.kept.jobs.iter_mut().find(|job| job.phase == Phase::Waiting)?;
        job.phase = Phase::Running;
        (job.error, job.ended, job.notices) = (None, None, vec![]);
        let job = job.clone();
        self.save();
        Some(job)
    }

    /// Writes down how a job ended.
    pub(crate) fn end(&mut self, id: u64, ending: Ending, seconds: f64, notices: Vec<String>) {
        let Some(at) = self.kept.jobs.iter().position(|job| job.id == id) else { return };
        let mut job = self.kept.jobs.remove(at);
        (job.ended, job.seconds, job.notices) = (Some(unix_now()), seconds, notices);
        match ending {
            Ending::Done(files) => (job.phase, job.files) = (Phase::Done, files),
            Ending::Stopped => job.phase = Phase::Stopped,
            Ending::Failed(error) => (job.phase, job.error) = (Phase::Failed, Some(error)),
        }
        let at = self.kept.jobs.iter().position(|job| job.phase.is_over()).unwrap_or(self.kept.jobs.len());
        self.kept.jobs.insert(at, job);
        let mut finished = 0;
        self.kept.jobs.retain(|job| {
            finished += usize::from(job.phase.is_over());
            !job.phase.is_over() || finished <= MAX_FINISHED
        });
        self.save();
    }

    /// Keeps with a job the clip it made, until a project lists it.
    pub(crate) fn keep_clip(&mut self, id: u64, key: &str) {
        if let Some(job) = self.kept.jobs.iter_mut().find(|job| job.id == id) {
            job.unlisted = Some(key.to_owned());
            self.save();
        }
    }

    /// The jobs of a project's folder whose clips no project has listed yet, the latest first. They count
    /// as listed from now on.
    pub(crate) fn take_unlisted(&mut self, folder: &Path) -> Vec<Job> {
        let mut found = vec![];
        for job in self.kept.jobs.iter_mut().filter(|job| job.folder == folder && job.unlisted.is_some()) {
            found.push(job.clone());
            job.unlisted = None;
        }
        if !found.is_empty() {
            self.save();
        }
        found
    }

    /// Takes a waiting job out of the line. One that runs must be stopped where it runs.
    pub(crate) fn stop(&mut self, id: u64) {
        if self.job(id).is_some_and(|job| job.phase == Phase::Waiting) {
            self.end(id, Ending::Stopped, 0.0, vec![]);
        }
    }

    /// Puts a job that is over back into the line. What it had done already is not done again.
    pub(crate) fn retry(&mut self, id: u64) {
        let Some(at) = self.kept.jobs.iter().position(|job| job.id == id && job.phase.is_over()) else {
            return;
        };
        let mut job = self.kept.jobs.remove(at);
        (job.phase, job.error, job.ended) = (Phase::Waiting, None, None);
        let at = self.kept.jobs.iter().position(|job| job.phase.is_over()).unwrap_or(self.kept.jobs.len());
        self.kept.jobs.insert(at, job);
        self.save();
    }

    /// Forgets a job that is not running.
    pub(crate) fn remove(&mut self, id: u64) {
        self.kept.jobs.retain(|job| job.id != id || job.phase == Phase::Running);
        self.save();
    }

    /// Forgets every job that is done.
    pub(crate) fn clear_done(&mut self) {
        self.kept.jobs.retain(|job| job.phase != Phase::Done);
        self.save();
    }

    /// Moves a waiting job before or behind its neighbour.
    pub(crate) fn shift(&mut self, id: u64, earlier: bool) {
        let Some(at) = self.kept.jobs.iter().position(|job| job.id == id) else { return };
        let other = if earlier { at.wrapping_sub(1) } else { at + 1 };
        let waits = |at: usize| self.kept.jobs.get(at).is_some_and(|job| job.phase == Phase::Waiting);
        if waits(at) && waits(other) {
            self.kept.jobs.swap(at, other);
            self.save();
        }
    }

    fn save(&mut self) {
        let Some(path) = &self.path else { return };
        let write = || -> Result<(), AtomicError> {
            let text = serde_json::to_vec(&self.kept)
                .map_err(|error| AtomicError::from_io("write", path, std::io::Error::other(error)))?;
            write_file(path, &text, true)
        };
        if let Err(error) = write() {
            self.fault = Some(format!("jobs are not kept: {error}"));
        }
    }
}

fn read(path: &Path) -> Result<Option<Kept>, String> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(meta) if meta.len() > MAX_FILE => return Err(format!("{} bytes are too many", meta.len())),
        Ok(_) => {}
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut kept: Kept = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if kept.kinora_queue != 1 {
        return Err(format!("version {} is not known", kept.kinora_queue));
    }
    // Ids are what jobs are told apart by; a file with doubles does not get to confuse them.
    let mut seen = std::collections::HashSet::new();
    kept.jobs.retain(|job| seen.insert(job.id));
    kept.next = kept.jobs.iter().map(|job| job.id).chain([kept.next]).max().unwrap_or(0);
    Ok(Some(kept))
}

#[cfg(test)]
mod tests;
