//! Results on disk, named by what they were made of.
//!
//! An entry is a folder of files under the hash of everything that went into it, with a manifest
//! of their sizes and digests. Entries appear whole by a rename; of two processes that make the
//! same one the first wins and both go on with it. A damaged entry counts as absent.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::atomic::{AtomicError, AtomicFolder, sweep_stale, write_file};

const MANIFEST: &str = "entry.json";
/// Layout of the cache folder; a build with another one does not see these entries.
const LAYOUT: &str = "v1";

/// The name of an entry: 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CacheKey(String);

impl CacheKey {
    /// The key of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).to_hex().to_string())
    }

    /// The digits.
    pub fn hex(&self) -> &str {
        &self.0
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    files: Vec<ManifestFile>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ManifestFile {
    path: String,
    bytes: u64,
    blake3: String,
}

/// A cache folder, shared by any number of processes.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// What lies in a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CacheSize {
    /// Whole entries.
    pub entries: u64,
    /// Their files together.
    pub bytes: u64,
}

/// A whole entry. While it is held no [`Cache::prune`] of any process removes it.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
    _held: File,
}

impl Entry {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// An entry being made; dropping it leaves nothing.
#[derive(Debug)]
pub struct Draft {
    folder: AtomicFolder,
    dest: PathBuf,
}

impl Draft {
    /// Where the files go; plain files and folders only.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Seals the entry. Another process's entry of the same key is as good as this one.
    pub fn commit(self) -> Result<Arc<Entry>, AtomicError> {
        let mut files = vec![];
        let fail = |source| AtomicError::from_io("seal", &self.dest, source);
        list(self.folder.path(), "", &mut files).map_err(fail)?;
        let text = serde_json::to_vec(&Manifest { files }).map_err(|e| fail(io::Error::other(e)))?;
        std::fs::write(self.folder.path().join(MANIFEST), text).map_err(fail)?;
        match self.folder.commit(false) {
            Ok(()) => {}
            Err(AtomicError::Exists { .. }) if verify(&self.dest).is_some() => {}
            Err(error) => return Err(error),
        }
        open(&self.dest).ok_or_else(|| AtomicError::Io {
            action: "reopen",
            path: self.dest.clone(),
            source: io::Error::other("the entry was removed as it was made"),
        })
    }
}

impl Cache {
    /// Opens or makes the cache in `root`.
    pub fn open(root: &Path) -> Result<Self, AtomicError> {
        std::fs::create_dir_all(root.join(LAYOUT))
            .map_err(|source| AtomicError::from_io("create the cache", root, source))?;
        // Records that a killed process was about to replace.
        sweep_stale(root);
        Ok(Self { root: root.to_path_buf() })
    }

    /// The folder a user's caches usually lie in: `$KINORA_CACHE`, `$XDG_CACHE_HOME/kinora`,
    /// `$HOME/.cache/kinora`, or the temporary folder's `kinora`.
    pub fn usual_folder() -> PathBuf {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        var("KINORA_CACHE")
            .or_else(|| var("XDG_CACHE_HOME").map(|folder| folder.join("kinora")))
            .or_else(|| var("LOCALAPPDATA").map(|folder| folder.join("kinora").join("cache")))
            .or_else(|| var("HOME").map(|home| home.join(".cache").join("kinora")))
            .unwrap_or_else(|| std::env::temp_dir().join("kinora"))
    }

    /// The folder of the cache.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn place(&self, key: &CacheKey) -> PathBuf {
        let shard = key.0.get(..2).unwrap_or("00");
        self.root.join(LAYOUT).join(shard).join(&key.0)
    }

    /// Whether there is an entry, without reading it through.
    pub fn has(&self, key: &CacheKey) -> bool {
        self.place(key).join(MANIFEST).is_file()
    }

    /// The entry of `key`, checked file by file; a damaged one is removed and counts as absent.
    pub fn get(&self, key: &CacheKey) -> Option<Arc<Entry>> {
        let path = self.place(key);
        let entry = open(&path)?;
        if verify(&path).is_some() {
            // Marks the use for `prune`; a read-only cache only loses the order.
            let _ = entry._held.set_modified(SystemTime::now());
            return Some(entry);
        }
        drop(entry);
        tracing::warn!(key = key.hex(), "removing a damaged cache entry");
        let _ = remove(&path);
        None
    }

    /// Starts the entry of `key`.
    pub fn create(&self, key: &CacheKey) -> Result<Draft, AtomicError> {
        let dest = self.place(key);
        if let Some(shard) = dest.parent() {
            std::fs::create_dir_all(shard)
                .map_err(|source| AtomicError::from_io("create the cache", shard, source))?;
            sweep_stale(shard);
        }
        Ok(Draft { folder: AtomicFolder::create(&dest)?, dest })
    }

    /// A folder for the state of unfinished work of `key`; it stays until
    /// [`Self::drop_checkpoint`].
    pub fn checkpoint(&self, key: &CacheKey) -> Result<PathBuf, AtomicError> {
        let path = self.root.join("checkpoints").join(&key.0);
        std::fs::create_dir_all(&path).map_err(|source| AtomicError::from_io("create", &path, source))?;
        sweep_stale(&path);
        Ok(path)
    }

    /// Whether unfinished work of `key` was left.
    pub fn has_checkpoint(&self, key: &CacheKey) -> bool {
        let path = self.root.join("checkpoints").join(&key.0);
        std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Forgets the unfinished work of `key`.
    pub fn drop_checkpoint(&self, key: &CacheKey) {
        let _ = std::fs::remove_dir_all(self.root.join("checkpoints").join(&key.0));
    }

    /// Counts whole entries and their bytes.
    pub fn size(&self) -> CacheSize {
        self.entries().iter().fold(CacheSize::default(), |sum, entry| CacheSize {
            entries: sum.entries + 1,
            bytes: sum.bytes + entry.bytes,
        })
    }

    /// Removes the entries used longest ago until at most `max_bytes` are left; entries in use
    /// stay. Returns what was removed.
    pub fn prune(&self, max_bytes: u64) -> CacheSize {
        let mut entries = self.entries();
        entries.sort_by_key(|entry| entry.used);
        let mut left: u64 = entries.iter().map(|entry| entry.bytes).sum();
        let mut removed = CacheSize::default();
        for entry in entries {
            if left <= max_bytes {
                break;
            }
            if remove(&entry.path) {
                left -= entry.bytes;
                removed.entries += 1;
                removed.bytes += entry.bytes;
            }
        }
        removed
    }

    fn entries(&self) -> Vec<Listed> {
        let mut found = vec![];
        let shards = std::fs::read_dir(self.root.join(LAYOUT)).into_iter().flatten().flatten();
        for entry in shards.flat_map(|shard| std::fs::read_dir(shard.path()).into_iter().flatten().flatten())
        {
            let path = entry.path();
            let Ok(meta) = path.join(MANIFEST).metadata() else { continue };
            let Some(manifest) = manifest(&path) else { continue };
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            found.push(Listed {
                bytes: manifest.files.iter().map(|file| file.bytes).sum::<u64>() + meta.len(),
                used: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                path,
            });
        }
        found
    }

    /// Reads a small JSON record kept beside the entries; `None` when absent or damaged.
    pub fn record<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&std::fs::read(self.root.join(name)).ok()?).ok()
    }

    /// Writes a small JSON record beside the entries, whole.
    pub fn set_record<T: Serialize>(&self, name: &str, value: &T) -> Result<(), AtomicError> {
        let path = self.root.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|source| AtomicError::from_io("create", folder, source))?;
        }
        let text = serde_json::to_vec_pretty(value)
            .map_err(|error| AtomicError::from_io("write", &path, io::Error::other(error)))?;
        write_file(&path, &text, true)
    }
}

struct Listed {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

fn open(path: &Path) -> Option<Arc<Entry>> {
    let manifest = path.join(MANIFEST);
    let held =
        File::options().read(true).write(true).open(&manifest).or_else(|_| File::open(&manifest)).ok()?;
    // Failing to lock (no locks on this file system) only loses the protection from prune.
    let _ = held.try_lock_shared();
    Some(Arc::new(Entry { path: path.to_path_buf(), _held: held }))
}

fn manifest(path: &Path) -> Option<Manifest> {
    serde_json::from_slice(&std::fs::read(path.join(MANIFEST)).ok()?).ok()
}

fn verify(path: &Path) -> Option<()> {
    for file in manifest(path)?.files {
        // A manifest is data from the disk: its names must not lead out.
        super::paths::check_name(&file.path).ok()?;
        let full = path.join(&file.path);
        if full.metadata().ok()?.len() != file.bytes || digest_file(&full).ok()? != file.blake3 {
            return None;
        }
    }
    Some(())
}

/// Takes an entry away unless someone holds it: renamed first, so that nobody finds half of it.
fn remove(path: &Path) -> bool {
    let Ok(manifest) = File::open(path.join(MANIFEST)) else { return false };
    if manifest.try_lock().is_err() {
        return false;
    }
    let Some((folder, name)) = path.parent().zip(path.file_name()) else { return false };
    let gone = folder.join(format!(".{}.removed{}.partial", name.to_string_lossy(), std::process::id()));
    std::fs::rename(path, &gone).is_ok() && std::fs::remove_dir_all(&gone).is_ok()
}

fn list(folder: &Path, prefix: &str, files: &mut Vec<ManifestFile>) -> io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // The lock of the temporary folder goes before the rename.
        if prefix.is_empty() && name.starts_with('.') {
            continue;
        }
        let path = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{path}/"), files)?;
        } else {
            let bytes = entry.metadata()?.len();
            files.push(ManifestFile { bytes, blake3: digest_file(&entry.path())?, path });
        }
    }
    Ok(())
}

/// The BLAKE3 digest of a file's content, as hexadecimal digits.
pub fn digest_file(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            n => hasher.update(buffer.get(..n).unwrap_or_default()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &Cache, key: &CacheKey, text: &str) -> Arc<Entry> {
        let draft = cache.create(key).unwrap();
        std::fs::create_dir(draft.path().join("frames")).unwrap();
        std::fs::write(draft.path().join("frames/0.png"), text).unwrap();
        draft.commit().unwrap()
    }

    #[test]
    fn entries_are_found_again_and_damage_is_absence() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let key = CacheKey::of(b"a");
        assert!(cache.get(&key).is_none() && !cache.has(&key));
        drop(put(&cache, &key, "whole"));
        let other = Cache::open(dir.path()).unwrap();
        let entry = other.get(&key).unwrap();
        let file = entry.path().join("frames/0.png");
        assert_eq!(std::fs::read(&file).unwrap(), b"whole");
        drop(entry);
        std::fs::write(&file, "wholf").unwrap();
        assert!(cache.get(&key).is_none(), "one changed byte");
        drop(put(&cache, &key, "again"));
        std::fs::remove_file(&file).unwrap();
        assert!(cache.get(&key).is_none(), "a missing file");
        drop(put(&cache, &key, "again"));
        std::fs::write(cache.place(&key).join(MANIFEST), "{").unwrap();
        assert!(cache.get(&key).is_none(), "a broken manifest");
        drop(put(&cache, &key, "again"));
        assert!(cache.get(&key).is_some());
    }

    #[test]
    fn a_manifest_cannot_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let key = CacheKey::of(b"evil");
        drop(put(&cache, &key, "x"));
        let digest = digest_file(Path::new("/proc/version")).unwrap_or_default();
        let manifest = format!(
            r#"{{"files": [{{"path": "../../../../../../proc/version", "bytes": 0, "blake3": "{digest}"}}]}}"#
        );
        std::fs::write(cache.place(&key).join(MANIFEST), manifest).unwrap();
        assert!(cache.get(&key).is_none());
    }

    #[test]
    fn concurrent_writers_end_with_one_entry() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let key = CacheKey::of(b"shared");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let entry = put(&cache, &key, "same");
                    assert_eq!(std::fs::read(entry.path().join("frames/0.png")).unwrap(), b"same");
                });
            }
        });
        assert_eq!(cache.size().entries, 1);
    }

    #[test]
    fn pruning_takes_the_least_used_and_nothing_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let keys = [b"a", b"b", b"c"].map(|name| CacheKey::of(name));
        let mut held = None;
        for (age, key) in keys.iter().enumerate() {
            let entry = put(&cache, key, &"x".repeat(1000));
            let used = SystemTime::now() - std::time::Duration::from_secs(1000 - age as u64);
            entry._held.set_modified(used).unwrap();
            held = held.or(Some(entry));
        }
        let before = cache.size();
        assert_eq!(before.entries, 3);
        let removed = cache.prune(before.bytes * 2 / 3);
        assert_eq!(removed.entries, 1);
        assert!(cache.has(&keys[0]), "the oldest is held");
        assert!(!cache.has(&keys[1]) && cache.has(&keys[2]));
        drop(held);
        assert_eq!(cache.prune(0).entries, 2);
        assert_eq!(cache.size(), CacheSize::default());
    }
}
