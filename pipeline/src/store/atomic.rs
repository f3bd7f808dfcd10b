//! Files and folders that appear whole or not at all.
//!
//! Everything is written under a hidden temporary name beside its destination, flushed to the
//! disk and only then renamed. A crash at any byte leaves the old file, the new file, or a
//! `.partial` that [`sweep_stale`] removes: the writer holds a lock on its temporary for as long
//! as it lives, so an unlocked one has no owner.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

const SUFFIX: &str = ".partial";

/// Why a file or folder could not be put in its place.
#[derive(Debug, thiserror::Error)]
pub enum AtomicError {
    /// The destination is there and the caller did not ask to replace it.
    #[error("{} exists already; pass --force to replace it or choose another name", path.display())]
    Exists { path: PathBuf },
    /// The destination has no file name (`/`, `..`) or one that is not Unicode.
    #[error("{} cannot be written: it does not end in a file name", path.display())]
    NoName { path: PathBuf },
    /// The disk is full.
    #[error("no space left while writing {}: free some disk space or write elsewhere", path.display())]
    Full { path: PathBuf },
    /// The folder refuses writes.
    #[error("{} may not be written: the folder is read-only for this user", path.display())]
    Refused { path: PathBuf, source: io::Error },
    /// Any other failure of the file system.
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl AtomicError {
    /// Sorts an error of the file system into the cases a user can act on.
    pub fn from_io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            io::ErrorKind::AlreadyExists => Self::Exists { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Refused { path, source }
            }
            _ => Self::Io { action, path, source },
        }
    }
}

/// A file being written beside its destination. Dropping it removes what was written.
#[derive(Debug)]
pub struct AtomicFile {
    dest: PathBuf,
    temp: tempfile::NamedTempFile,
}

impl AtomicFile {
    /// Starts `.NAME.XXXXXX.partial` in the folder of `dest`, which must exist.
    pub fn create(dest: &Path) -> Result<Self, AtomicError> {
        let (folder, name) = split(dest)?;
        let mut builder = tempfile::Builder::new();
        let prefix = format!(".{name}.");
        builder.prefix(&prefix).suffix(SUFFIX);
        #[cfg(unix)]
        let everyone = {
            use std::os::unix::fs::PermissionsExt;
            // The umask still applies; a temporary's private mode would survive the rename.
            std::fs::Permissions::from_mode(0o666)
        };
        #[cfg(unix)]
        builder.permissions(everyone);
        loop {
            let temp =
                builder.tempfile_in(folder).map_err(|source| AtomicError::from_io("create", dest, source))?;
            if owned(temp.as_file(), temp.path()) {
                return Ok(Self { dest: dest.to_path_buf(), temp });
            }
        }
    }

    /// Where the bytes go until [`Self::commit`]; for writers that open by name.
    pub fn path(&self) -> &Path {
        self.temp.path()
    }

    /// Where the file will be.
    pub fn dest(&self) -> &Path {
        &self.dest
    }

    /// The open temporary.
    pub fn file_mut(&mut self) -> &mut File {
        self.temp.as_file_mut()
    }

    /// Flushes to the disk, renames into place and flushes the folder.
    ///
    /// # Errors
    /// [`AtomicError::Exists`] when the destination is there and `overwrite` is false; it is left
    /// as it was.
    pub fn commit(self, overwrite: bool) -> Result<(), AtomicError> {
        let Self { dest, temp } = self;
        // By name, because a writer may have replaced the temporary's inode.
        File::options()
            .write(true)
            .open(temp.path())
            .and_then(|file| file.sync_all())
            .map_err(|source| AtomicError::from_io("flush", &dest, source))?;
        let put = if overwrite { temp.persist(&dest) } else { temp.persist_noclobber(&dest) };
        put.map_err(|failed| AtomicError::from_io("put in place", &dest, failed.error))?;
        sync_folder_of(&dest)
    }
}

/// A folder being filled beside its destination. Dropping it removes what was written.
#[derive(Debug)]
pub struct AtomicFolder {
    dest: PathBuf,
    temp: tempfile::TempDir,
    // Locked while this value lives, so that a sweep leaves the folder alone.
    lock: Option<File>,
}

/// Where a folder's lock is a file in it, because a folder itself cannot be locked.
#[cfg(not(unix))]
const LOCK_NAME: &str = ".lock";

/// Opens what is locked for as long as a folder is being filled.
fn folder_lock(folder: &Path) -> io::Result<File> {
    #[cfg(unix)]
    return File::open(folder);
    #[cfg(not(unix))]
    return File::options().create(true).truncate(false).write(true).open(folder.join(LOCK_NAME));
}

/// Takes the lock of a new temporary; `false` when a sweep was faster and it must be made again.
///
/// A file system without locks only loses the sweep of stale temporaries.
fn owned(lock: &File, temporary: &Path) -> bool {
    !matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock)) && temporary.exists()
}

impl AtomicFolder {
    /// Starts `.NAME.XXXXXX.partial/` beside `dest`, whose parent must exist.
    pub fn create(dest: &Path) -> Result<Self, AtomicError> {
        let (folder, name) = split(dest)?;
        let mut builder = tempfile::Builder::new();
        let prefix = format!(".{name}.");
        builder.prefix(&prefix).suffix(SUFFIX);
        #[cfg(unix)]
        let everyone = {
            use std::os::unix::fs::PermissionsExt;
            std::fs::Permissions::from_mode(0o777)
        };
        #[cfg(unix)]
        builder.permissions(everyone);
        loop {
            let temp =
                builder.tempdir_in(folder).map_err(|source| AtomicError::from_io("create", dest, source))?;
            match folder_lock(temp.path()) {
                Ok(lock) if owned(&lock, temp.path()) => {
                    return Ok(Self { dest: dest.to_path_buf(), temp, lock: Some(lock) });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(AtomicError::from_io("create", dest, source)),
            }
        }
    }

    /// Where the files go until [`Self::commit`].
    pub fn path(&self) -> &Path {
        self.temp.path()
    }

    /// Flushes every file in it, renames the folder into place and flushes its parent.
    ///
    /// Replacing a folder takes two renames: a crash between them leaves the destination absent.
    pub fn commit(mut self, overwrite: bool) -> Result<(), AtomicError> {
        let dest = self.dest.clone();
        let fail = |action| move |source| AtomicError::from_io(action, &dest, source);
        // A locked folder keeps its lock through the rename; a lock file must not go with it.
        let lock = self.lock.take();
        #[cfg(not(unix))]
        {
            drop(lock);
            std::fs::remove_file(self.temp.path().join(LOCK_NAME)).map_err(fail.clone()("finish"))?;
        }
        sync_tree(self.temp.path()).map_err(fail.clone()("flush"))?;
        if std::fs::symlink_metadata(&self.dest).is_ok() {
            if !overwrite {
                return Err(AtomicError::Exists { path: self.dest.clone() });
            }
            let (folder, name) = split(&self.dest)?;
            let old = tempfile::Builder::new()
                .prefix(&format!(".{name}."))
                .suffix(SUFFIX)
                .tempdir_in(folder)
                .map_err(fail.clone()("replace"))?;
            std::fs::rename(&self.dest, old.path().join("old")).map_err(fail.clone()("replace"))?;
        }
        std::fs::rename(self.temp.path(), &self.dest).map_err(|source| {
            // What the kernel says when a folder with files in it won the race.
            if source.kind() == io::ErrorKind::DirectoryNotEmpty {
                return AtomicError::Exists { path: self.dest.clone() };
            }
            AtomicError::from_io("put in place", &self.dest, source)
        })?;
        let _gone = self.temp.keep();
        #[cfg(unix)]
        drop(lock);
        sync_folder_of(&self.dest)
    }
}

/// Writes `bytes` to `dest` whole.
pub fn write_file(dest: &Path, bytes: &[u8], overwrite: bool) -> Result<(), AtomicError> {
    let mut file = AtomicFile::create(dest)?;
    io::Write::write_all(file.file_mut(), bytes)
        .map_err(|source| AtomicError::from_io("write", dest, source))?;
    file.commit(overwrite)
}

/// Removes temporaries in `folder` whose writer is gone (killed, power cut); returns how many.
///
/// A temporary still locked by a living writer stays. Errors are not reported: a later sweep
/// meets the same files.
pub fn sweep_stale(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let mut removed = 0;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !(name.starts_with('.') && name.ends_with(SUFFIX)) {
            continue;
        }
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let lock = match (kind.is_dir(), kind.is_file()) {
            (true, _) => folder_lock(&path),
            (_, true) => File::open(&path),
            _ => continue,
        };
        // Held while removing: a writer that has just made this one sees it and makes another.
        let Some(_lock) = lock.ok().filter(|lock| lock.try_lock().is_ok()) else { continue };
        let gone = if kind.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed += usize::from(gone.is_ok());
    }
    removed
}

fn split(dest: &Path) -> Result<(&Path, &str), AtomicError> {
    let bad = || AtomicError::NoName { path: dest.to_path_buf() };
    let name = dest.file_name().and_then(|name| name.to_str()).ok_or_else(bad)?;
    let folder = dest.parent().ok_or_else(bad)?;
    Ok((if folder.as_os_str().is_empty() { Path::new(".") } else { folder }, name))
}

fn sync_folder_of(dest: &Path) -> Result<(), AtomicError> {
    let (folder, _) = split(dest)?;
    #[cfg(unix)]
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .or_else(ignore_unsupported)
        .map_err(|source| AtomicError::from_io("flush the folder of", dest, source))?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::options().write(true).open(entry.path())?.sync_all()?;
        }
    }
    #[cfg(unix)]
    File::open(folder)?.sync_all().or_else(ignore_unsupported)?;
    Ok(())
}

// Some network and overlay file systems cannot flush a folder; the rename is still atomic.
#[cfg(unix)]
fn ignore_unsupported(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_only_on_commit() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("clip.mp4");
        let mut file = AtomicFile::create(&dest).unwrap();
        file.file_mut().write_all(b"frames").unwrap();
        assert!(!dest.exists());
        assert_eq!(file.path().parent(), dest.parent());
        assert!(names(dir.path())[0].starts_with(".clip.mp4."));
        file.commit(false).unwrap();
        assert_eq!(names(dir.path()), ["clip.mp4"]);
        assert_eq!(std::fs::read(&dest).unwrap(), b"frames");
    }

    #[test]
    fn dropping_removes_and_an_existing_file_is_kept_without_force() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("a.json");
        write_file(&dest, b"old", false).unwrap();
        drop(AtomicFile::create(&dest).unwrap());
        assert_eq!(names(dir.path()), ["a.json"]);
        let error = write_file(&dest, b"new", false).unwrap_err();
        assert!(matches!(error, AtomicError::Exists { .. }), "{error}");
        assert!(error.to_string().contains("--force"));
        assert_eq!(std::fs::read(&dest).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["a.json"]);
        write_file(&dest, b"new", true).unwrap();
        assert_eq!(std::fs::read(&dest).unwrap(), b"new");
    }

    #[test]
    fn a_writer_that_reopens_by_name_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("b.bin");
        let file = AtomicFile::create(&dest).unwrap();
        std::fs::write(file.path(), b"by name").unwrap();
        file.commit(false).unwrap();
        assert_eq!(std::fs::read(&dest).unwrap(), b"by name");
    }

    #[test]
    fn a_folder_appears_whole_and_the_first_of_two_writers_wins() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("frames");
        let one = AtomicFolder::create(&dest).unwrap();
        let two = AtomicFolder::create(&dest).unwrap();
        std::fs::write(one.path().join("0.png"), b"1").unwrap();
        std::fs::write(two.path().join("0.png"), b"2").unwrap();
        one.commit(false).unwrap();
        let late = two.commit(false).unwrap_err();
        assert!(matches!(late, AtomicError::Exists { .. }), "{late}");
        assert_eq!(names(dir.path()), ["frames"]);
        assert_eq!(names(&dest), ["0.png"]);
        assert_eq!(std::fs::read(dest.join("0.png")).unwrap(), b"1");
    }

    #[test]
    fn a_folder_is_replaced_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("frames");
        for text in [&b"old"[..], b"new"] {
            let folder = AtomicFolder::create(&dest).unwrap();
            std::fs::write(folder.path().join("0.png"), text).unwrap();
            folder.commit(true).unwrap();
        }
        assert_eq!(std::fs::read(dest.join("0.png")).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["frames"]);
    }

    #[test]
    fn the_sweep_takes_only_temporaries_without_an_owner() {
        let dir = tempfile::tempdir().unwrap();
        let alive = AtomicFile::create(&dir.path().join("a")).unwrap();
        let folder = AtomicFolder::create(&dir.path().join("b")).unwrap();
        std::fs::write(dir.path().join(".dead.123456.partial"), b"half").unwrap();
        std::fs::create_dir(dir.path().join(".gone.654321.partial")).unwrap();
        std::fs::write(dir.path().join(".gone.654321.partial/0.png"), b"half").unwrap();
        std::fs::write(dir.path().join("mine.partial"), b"not hidden, not ours").unwrap();
        assert_eq!(sweep_stale(dir.path()), 2);
        assert!(alive.path().exists() && folder.path().exists());
        assert!(dir.path().join("mine.partial").exists());
    }

    #[test]
    fn a_folder_that_is_a_file_or_a_name_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), b"").unwrap();
        let error = AtomicFile::create(&dir.path().join("f/out.mp4")).unwrap_err();
        assert!(error.to_string().contains("out.mp4"), "{error}");
        assert!(matches!(AtomicFile::create(Path::new("/")).unwrap_err(), AtomicError::NoName { .. }));
    }

    #[cfg(unix)]
    #[test]
    fn committed_files_have_the_usual_mode() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("a");
        write_file(&dest, b"x", false).unwrap();
        let plain = dir.path().join("plain");
        std::fs::write(&plain, b"x").unwrap();
        let mode = |p: &Path| p.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&dest), mode(&plain));
    }
}
