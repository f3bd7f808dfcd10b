//! The record of what was fetched of a model, beside its files.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ModelStoreError;
use crate::store::atomic::{AtomicError, AtomicFile};
use crate::store::registry::is_contained;

/// Name of the record of what was fetched, beside a model's files.
pub const LOCK_FILE: &str = "kinora-model.lock.json";

/// What the first download recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lock {
    pub(super) kinora_model_lock: u32,
    pub(super) id: String,
    pub(super) repo: String,
    pub(super) commit: String,
    pub(super) files: BTreeMap<String, LockedFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LockedFile {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

pub(super) fn read_lock(folder: &Path) -> Result<Option<Lock>, ModelStoreError> {
    let path = folder.join(LOCK_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(source) => return Err(ModelStoreError::Io { action: "read", path, source }),
    };
    let invalid = |what: String| ModelStoreError::Lock { path: path.clone(), what };
    let lock: Lock = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    match lock.files.keys().find(|file| !is_contained(file)) {
        Some(file) => Err(invalid(format!("it names {file:?}, which leaves its folder"))),
        None => Ok(Some(lock)),
    }
}

pub(super) fn write_lock(folder: &Path, lock: &Lock) -> Result<(), ModelStoreError> {
    let path = folder.join(LOCK_FILE);
    let text = serde_json::to_string_pretty(lock)
        .map_err(|error| ModelStoreError::Lock { path: path.clone(), what: error.to_string() })?;
    let mut file = AtomicFile::create(&path)?;
    let written = file.file_mut().write_all(text.as_bytes());
    written.map_err(|source| AtomicError::from_io("write", &path, source))?;
    file.commit(true)?;
    Ok(())
}
