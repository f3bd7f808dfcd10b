//! A render as a state machine on disk: queued, running, interrupted, failed, done.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::key::canonical;
use crate::store::atomic::{AtomicError, sweep_stale};
use crate::store::cache::{Cache, CacheKey};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Planned, not begun.
    Queued,
    /// At work.
    Running,
    /// Stopped or killed; can be resumed.
    Interrupted,
    /// Ended with an error.
    Failed,
    /// Every output is in its place.
    Done,
}

/// Where a node of a job stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum NodeState {
    /// Begun.
    Running {
        /// The node's key at that time.
        key: CacheKey,
    },
    /// Finished, or found in the cache.
    Done {
        /// The node's key.
        key: CacheKey,
    },
}

/// A job as it is kept in the cache folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub id: String,
    /// Where it stands.
    pub state: JobState,
    /// The document's file name.
    pub name: String,
    /// The process that last worked on it.
    pub process: u32,
    /// When it was begun, seconds since 1970.
    pub started: u64,
    /// When it last changed, seconds since 1970.
    pub updated: u64,
    /// Its nodes.
    pub nodes: BTreeMap<String, NodeState>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The document.
    pub document: Value,
}

/// The name of the job of a document with these folders.
pub(super) fn job_id(document: &Value, folder: &Path, out: &Path) -> String {
    let whole = json!({ "document": document, "folder": folder, "out": out });
    CacheKey::of(canonical(&whole).as_bytes()).hex().chars().take(16).collect()
}

fn record(id: &str) -> String {
    format!("jobs/{id}/job.json")
}

fn lock_path(cache: &Cache, id: &str) -> PathBuf {
    cache.root().join("jobs").join(id).join("lock")
}

impl Job {
    /// The job as it stands; one that says it runs but whose process is gone is interrupted.
    pub fn read(cache: &Cache, id: &str) -> Option<Self> {
        let mut job: Self = cache.record(&record(id))?;
        let held = File::open(lock_path(cache, id)).is_ok_and(|lock| lock.try_lock_shared().is_err());
        if matches!(job.state, JobState::Queued | JobState::Running) && !held {
            job.state = JobState::Interrupted;
        }
        Some(job)
    }

    /// Every job in the cache, the newest first.
    pub fn list(cache: &Cache) -> Vec<Self> {
        let folders = std::fs::read_dir(cache.root().join("jobs")).into_iter().flatten().flatten();
        let mut jobs: Vec<Self> =
            folders.filter_map(|folder| Self::read(cache, folder.file_name().to_str()?)).collect();
        jobs.sort_by_key(|job| std::cmp::Reverse(job.updated));
        jobs
    }

    /// Whether the job was at work on this node with this key when it ended.
    pub(super) fn was_writing(&self, node: &str, key: &CacheKey) -> bool {
        self.state == JobState::Interrupted
            && matches!(self.nodes.get(node), Some(NodeState::Running { key: at }) if at == key)
    }

    /// Keeps the state.
    pub(super) fn write(&self, cache: &Cache) -> Result<(), AtomicError> {
        cache.set_record(&record(&self.id), self)
    }
}

/// Held for as long as a process works on a job.
#[derive(Debug)]
pub(super) struct JobLock(#[allow(dead_code, reason = "closing it gives the lock back")] File);

impl JobLock {
    /// Takes the job; `None` when another process has it.
    pub(super) fn take(cache: &Cache, id: &str) -> Result<Option<Self>, AtomicError> {
        let path = lock_path(cache, id);
        let fail = |source| AtomicError::from_io("create", &path, source);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(fail)?;
        }
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {
                path.parent().map(sweep_stale);
                Ok(Some(Self(file)))
            }
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            // A file system without locks cannot tell two processes apart; outputs stay atomic.
            Err(std::fs::TryLockError::Error(_)) => Ok(Some(Self(file))),
        }
    }
}
