//! One repository of the hub: what it holds, and its files fetched into their place.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use hf_hub::repository::RepoTreeEntry;
use hf_hub::{HFRepositorySync, RepoTypeModel};
use sha2::{Digest, Sha256};

use super::{Hub, HubError};
use crate::progress::{Event, Progress};
use crate::store::registry::is_contained;

/// Name of this module's [`Event::Step`]s; they count mebibytes.
pub const STAGE: &str = "download";

/// Disk space that must remain after a download.
const SPARE_BYTES: u64 = 256 << 20;

/// A file as the hub describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    pub path: String,
    pub bytes: u64,
    /// Id of the content; a partial download of another content is never continued.
    pub content_id: String,
    pub sha256: Option<String>,
}

/// A file in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub bytes: u64,
    pub sha256: String,
}

/// One repository at one commit.
pub struct HubRepo<'a> {
    pub(super) hub: &'a Hub,
    pub(super) name: String,
    pub(super) commit: String,
    pub(super) repo: HFRepositorySync<RepoTypeModel>,
}

impl std::fmt::Debug for HubRepo<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubRepo")
            .field("name", &self.name)
            .field("commit", &self.commit)
            .finish_non_exhaustive()
    }
}

impl HubRepo<'_> {
    /// The commit the revision stands for.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// What the hub says of these paths.
    ///
    /// # Errors
    /// [`HubError::NotFound`] if one is missing, or another answer of the hub.
    pub fn describe(&self, paths: &[String], progress: &dyn Progress) -> Result<Vec<RemoteFile>, HubError> {
        let what = format!("{} in {}", paths.join(", "), self.name);
        let entries = self.hub.attempt(progress, &self.name, &what, || {
            self.repo.get_paths_info().paths(paths.to_vec()).revision(self.commit.clone()).send()
        })?;
        let files: Vec<RemoteFile> = entries.into_iter().filter_map(remote_file).collect();
        let find = |path: &String| {
            let found = files.iter().find(|file| &file.path == path).cloned();
            found.ok_or_else(|| HubError::NotFound { what: format!("{path} in {}", self.name) })
        };
        paths.iter().map(find).collect()
    }

    /// Every weight and configuration file of the repository: safetensors, JSON, text. Pickled
    /// checkpoints are left out, since reading one can run code.
    ///
    /// # Errors
    /// An answer of the hub.
    pub fn list(&self, progress: &dyn Progress) -> Result<Vec<RemoteFile>, HubError> {
        let what = format!("file list of {}", self.name);
        let entries = self.hub.attempt(progress, &self.name, &what, || {
            self.repo.list_tree().revision(self.commit.clone()).recursive(true).limit(10_000).send()
        })?;
        let wanted = |file: &RemoteFile| {
            let known = [".safetensors", ".json", ".txt"].iter().any(|end| file.path.ends_with(end));
            known && is_contained(&file.path)
        };
        Ok(entries.into_iter().filter_map(remote_file).filter(wanted).collect())
    }

    /// Fetches one file to `dest`, whose folder must exist; goes on from what an earlier try left.
    ///
    /// # Errors
    /// Too little space, a cut connection, wrong length or digest, cancel, or a file system that refuses.
    pub fn fetch(
        &self,
        file: &RemoteFile,
        dest: &Path,
        node: &str,
        progress: &dyn Progress,
    ) -> Result<Fetched, HubError> {
        let io = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| HubError::Io { action, path, source }
        };
        let (folder, partial_path) = partial_of(dest, &file.content_id)?;
        let mut partial = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&partial_path)
            .map_err(io("open", &partial_path))?;
        if partial.try_lock().is_err() {
            return Err(HubError::Busy { path: dest.to_path_buf() });
        }
        let mut done = partial.metadata().map_err(io("read", &partial_path))?.len();
        if done > file.bytes {
            partial.set_len(0).map_err(io("write", &partial_path))?;
            done = 0;
        }
        check_space(&folder, file.bytes - done)?;
        partial.seek(std::io::SeekFrom::Start(done)).map_err(io("write", &partial_path))?;
        let mebibytes = |bytes: u64| usize::try_from(bytes.div_ceil(1 << 20)).unwrap_or(usize::MAX);
        let step = |done| Event::Step {
            node: node.to_owned(),
            stage: STAGE,
            done: mebibytes(done),
            total: mebibytes(file.bytes),
        };
        progress.event(step(done));
        while done < file.bytes {
            let end = file.bytes.min(done + self.hub.options.chunk_bytes.max(1));
            let what = format!("{} in {}", file.path, self.name);
            let chunk = self.hub.attempt(progress, &self.name, &what, || {
                let request = self.repo.download_file_to_bytes().filename(file.path.clone());
                request.revision(self.commit.clone()).range(done..end).send()
            });
            let chunk = chunk.map_err(|error| match error {
                HubError::Other { what } => {
                    HubError::Cut { file: file.path.clone(), done, total: file.bytes, what }
                }
                other => other,
            })?;
            let found = chunk.len() as u64;
            if found != end - done {
                return Err(HubError::Length { file: file.path.clone(), expected: end - done, found });
            }
            partial.write_all(&chunk).map_err(io("write", &partial_path))?;
            done = end;
            progress.event(step(done));
        }
        partial.sync_all().map_err(io("flush", &partial_path))?;
        let sha256 = sha256_of(&partial_path)?;
        if let Some(expected) = &file.sha256
            && !expected.eq_ignore_ascii_case(&sha256)
        {
            std::fs::remove_file(&partial_path).map_err(io("remove", &partial_path))?;
            return Err(HubError::Digest {
                file: file.path.clone(),
                expected: expected.clone(),
                found: sha256,
            });
        }
        std::fs::rename(&partial_path, dest).map_err(io("put in place", dest))?;
        #[cfg(unix)]
        File::open(&folder).and_then(|opened| opened.sync_all()).map_err(io("flush", &folder))?;
        progress.event(Event::Wrote {
            node: node.to_owned(),
            path: dest.display().to_string(),
            bytes: file.bytes,
        });
        Ok(Fetched { bytes: file.bytes, sha256 })
    }
}

fn remote_file(entry: RepoTreeEntry) -> Option<RemoteFile> {
    match entry {
        RepoTreeEntry::File { oid, size, path, lfs, .. } => {
            let bytes = lfs.as_ref().and_then(|lfs| lfs.size).unwrap_or(size);
            let sha256 = lfs.and_then(|lfs| lfs.sha256);
            Some(RemoteFile { path, bytes, content_id: oid, sha256 })
        }
        RepoTreeEntry::Directory { .. } => None,
    }
}

/// The folder of `dest` and the name a download of this content has until it is whole.
fn partial_of(dest: &Path, content_id: &str) -> Result<(PathBuf, PathBuf), HubError> {
    let name = dest.file_name().and_then(|name| name.to_str());
    let (Some(folder), Some(name)) = (dest.parent(), name) else {
        return Err(HubError::Other { what: format!("{} does not end in a file name", dest.display()) });
    };
    let id: String = content_id.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    Ok((folder.to_path_buf(), folder.join(format!(".{name}.{id}.download"))))
}

fn check_space(folder: &Path, bytes: u64) -> Result<(), HubError> {
    let needed = bytes.saturating_add(SPARE_BYTES);
    let free = fs4::available_space(folder).map_err(|source| HubError::Io {
        action: "measure the free space of",
        path: folder.to_path_buf(),
        source,
    })?;
    if bytes > 0 && free < needed {
        return Err(HubError::Space { folder: folder.to_path_buf(), needed, free });
    }
    Ok(())
}

/// SHA-256 of a file in lower-case hexadecimal.
///
/// # Errors
/// A file that cannot be read.
pub fn sha256_of(path: &Path) -> Result<String, HubError> {
    let io = |source| HubError::Io { action: "read", path: path.to_path_buf(), source };
    let mut file = File::open(path).map_err(io)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(io)?;
        let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else { break };
        hasher.update(part);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_that_cannot_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_space(folder.path(), 0).is_ok());
        assert!(matches!(check_space(folder.path(), 1 << 60), Err(HubError::Space { .. })));
    }
}
