//! The autosave: every edit is appended to a file the moment it is made.
//!
//! A journal is lines of a digest, a space and JSON. The first line holds the document as it was
//! last saved; each further one an edit, an undo or a redo. A line that was cut off by a crash
//! fails its digest and ends the journal there. The file stays locked while its process lives, so
//! that a journal without an owner is known to be orphaned; it never touches the document itself.

use std::fs::{File, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use kinora_pipeline::store::cache::CacheKey;
use kinora_pipeline::workflow::MAX_BYTES;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::history::{History, Transaction};
use super::places::unix_now;

const EXTENSION: &str = "kinora-journal";
/// Digits of the digest before each line.
const DIGITS: usize = 16;
/// A journal longer than this is begun anew from the document as it then is.
const MAX_JOURNAL: u64 = 64 << 20;

/// The first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Version of this format.
    pub(crate) kinora_journal: u32,
    /// The document's file; none until it was saved once.
    pub(crate) document: Option<PathBuf>,
    /// The folder its names resolve in.
    pub(crate) folder: PathBuf,
    /// When it was begun, seconds since 1970.
    pub(crate) begun: u64,
    /// The document before the first edit.
    pub(crate) base: Value,
}

/// A further line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Entry {
    /// An edit.
    Do(Transaction),
    /// An edit outside the history: notes the editor makes for itself.
    Note(Transaction),
    /// The last edit was taken back.
    Undo,
    /// It was made again.
    Redo,
    /// A gesture ended.
    Close,
}

/// A journal being written.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
}

fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(value)?;
    let digest = CacheKey::of(&text);
    let mut line = digest.hex().as_bytes().get(..DIGITS).unwrap_or_default().to_vec();
    line.push(b' ');
    line.extend(text);
    line.push(b'\n');
    Ok(line)
}

impl Journal {
    /// Begins a journal in `folder`, which is made when missing.
    pub(crate) fn begin(folder: &Path, header: &Header) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut attempt = 0u32;
        let (path, file) = loop {
            let name = format!("{}-{}-{attempt}.{EXTENSION}", unix_now(), std::process::id());
            let path = folder.join(name);
            match File::options().create_new(true).write(true).open(&path) {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 1000 => attempt += 1,
                Err(error) => return Err(error),
            }
        };
        // Without locks on this file system a journal looks orphaned to other windows; they offer
        // it, and nothing is lost.
        let _ = file.try_lock();
        let mut journal = Self { path, file, bytes: 0 };
        journal.put(header)?;
        Ok(journal)
    }

    fn put(&mut self, value: &impl Serialize) -> io::Result<()> {
        let line = line(value)?;
        self.file.write_all(&line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Appends an entry. What was written survives the death of the process; [`Self::flush`] makes
    /// it survive that of the machine.
    pub(crate) fn append(&mut self, entry: &Entry) -> io::Result<()> {
        self.put(entry)
    }

    /// Brings everything to the disk.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whether it has grown so long that a new one should be begun.
    pub(crate) fn is_long(&self) -> bool {
        self.bytes > MAX_JOURNAL
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it: everything in it is saved, or was given up.
    pub(crate) fn discard(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Unsaved work of a window that is gone.
#[derive(Debug)]
pub(crate) struct Orphan {
    /// The journal.
    pub(crate) path: PathBuf,
    /// What it was begun with.
    pub(crate) header: Header,
    /// The document after its last whole entry.
    pub(crate) value: Value,
    /// The history that leads there.
    pub(crate) history: History,
    /// Edits in it.
    pub(crate) edits: usize,
    /// When the last one was made, seconds since 1970.
    pub(crate) changed: u64,
    /// Length of what is whole.
    bytes: u64,
    // Held so that a second window started at the same moment does not offer it too.
    lock: File,
}

impl Orphan {
    /// Goes on writing where the gone window stopped, so that its history stays one history.
    pub(crate) fn resume(&self) -> io::Result<Journal> {
        let mut file = self.lock.try_clone()?;
        file.set_len(self.bytes)?;
        file.seek(io::SeekFrom::End(0))?;
        Ok(Journal { path: self.path.clone(), file, bytes: self.bytes })
    }

    /// Removes the journal.
    pub(crate) fn discard(self) {
        let _ = std::fs::remove_file(&self.path);
        drop(self.lock);
    }
}

/// The orphaned journals in `folder` that hold edits, the latest first. Those without any, which
/// hold nothing that is not saved, are removed.
pub(crate) fn orphans(folder: &Path) -> Vec<Orphan> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<Orphan> = vec![];
    for entry in entries {
        let path = entry.path();
        if path.extension().is_none_or(|end| end != EXTENSION) {
            continue;
        }
        let Ok(lock) = File::options().read(true).write(true).open(&path) else { continue };
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            continue;
        }
        match read(&path, lock) {
            Some(orphan) if orphan.edits > 0 => found.push(orphan),
            Some(orphan) => orphan.discard(),
            // Not even a header: the window died at its first edit, or this is something else. It
            // is left alone; it is small.
            None => {}
        }
    }
    found.sort_by_key(|orphan| std::cmp::Reverse(orphan.changed));
    found
}

fn read(path: &Path, lock: File) -> Option<Orphan> {
    let file = File::open(path).ok()?;
    let modified = file.metadata().ok()?.modified().ok()?;
    let changed = modified.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut lines = Lines { reader: BufReader::new(file.take(4 * MAX_JOURNAL)), whole: 0 };
    let header: Header = lines.next()?;
    if header.kinora_journal != 1 {
        return None;
    }
    let mut value = header.base.clone();
    let mut history = History::default();
    let mut edits = 0;
    let mut bytes = lines.whole;
    // Ends at the first line that is torn or does not fit: what comes before is whole.
    while let Some(entry) = lines.next::<Entry>() {
        let fits = match entry {
            Entry::Do(transaction) => {
                let fits = transaction.apply(&mut value).is_ok();
                if fits {
                    history.push(transaction);
                }
                fits
            }
            Entry::Note(transaction) => transaction.apply(&mut value).is_ok(),
            Entry::Undo => history.undo(&mut value).is_ok(),
            Entry::Redo => history.redo(&mut value).is_ok(),
            Entry::Close => {
                history.close();
                bytes = lines.whole;
                continue;
            }
        };
        if !fits {
            break;
        }
        bytes = lines.whole;
        edits += 1;
    }
    Some(Orphan { path: path.to_path_buf(), header, value, history, edits, changed, bytes, lock })
}

struct Lines<R> {
    reader: BufReader<R>,
    /// Bytes of the lines given out.
    whole: u64,
}

impl<R: io::Read> Lines<R> {
    fn next<T: serde::de::DeserializeOwned>(&mut self) -> Option<T> {
        let mut line = vec![];
        let bound = (2 * MAX_BYTES + DIGITS + 2) as u64;
        let read = self.reader.by_ref().take(bound).read_until(b'\n', &mut line).ok()?;
        if read == 0 || line.pop() != Some(b'\n') {
            return None;
        }
        let (digest, text) = line.split_at_checked(DIGITS)?;
        let text = text.strip_prefix(b" ")?;
        if CacheKey::of(text).hex().as_bytes().get(..DIGITS)? != digest {
            return None;
        }
        let value = serde_json::from_slice(text).ok()?;
        self.whole += read as u64;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::edit::Edit;
    use super::super::patch::place;
    use super::*;
    use serde_json::json;

    fn header() -> Header {
        Header {
            kinora_journal: 1,
            document: Some("/project/a.kinora.json".into()),
            folder: "/project".into(),
            begun: 7,
            base: json!({ "n": 0 }),
        }
    }

    fn set(value: &mut Value, to: i64) -> Transaction {
        let mut edit = Edit::new(value);
        edit.set(place!["n"], to).unwrap();
        let (after, transaction) = edit.finish("Set", None);
        *value = after;
        transaction
    }

    #[test]
    fn work_of_a_dead_window_is_found_with_its_history() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::begin(dir.path(), &header()).unwrap();
        let mut value = json!({ "n": 0 });
        for to in 1..=3 {
            journal.append(&Entry::Do(set(&mut value, to))).unwrap();
        }
        journal.append(&Entry::Undo).unwrap();
        journal.flush().unwrap();
        assert!(orphans(dir.path()).is_empty(), "its window still lives");
        drop(journal);
        let mut found = orphans(dir.path());
        let mut orphan = found.pop().unwrap();
        assert_eq!((orphan.edits, &orphan.value, orphan.header), (4, &json!({ "n": 2 }), header()));
        orphan.history.undo(&mut orphan.value).unwrap();
        orphan.history.redo(&mut orphan.value).unwrap();
        orphan.history.redo(&mut orphan.value).unwrap();
        assert_eq!(orphan.value, json!({ "n": 3 }));
    }

    #[test]
    fn a_journal_cut_at_any_byte_gives_its_whole_entries() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::begin(dir.path(), &header()).unwrap();
        let mut value = json!({ "n": 0 });
        for to in 1..=4 {
            journal.append(&Entry::Do(set(&mut value, to))).unwrap();
        }
        let path = journal.path().to_path_buf();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        let ends: Vec<usize> =
            whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1).collect();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let lines = ends.iter().filter(|&&end| end <= cut).count();
            let found = orphans(dir.path());
            if lines < 2 {
                assert!(found.is_empty(), "cut at {cut}");
            } else {
                assert_eq!(found[0].value, json!({ "n": lines - 1 }), "cut at {cut}");
            }
            drop(found);
        }
        let mut bent = whole.clone();
        let middle = ends[1] + DIGITS + 4;
        bent[middle] ^= 1;
        std::fs::write(&path, bent).unwrap();
        assert_eq!(orphans(dir.path())[0].value, json!({ "n": 1 }), "nothing after a bent line is believed");
    }

    #[test]
    fn journals_that_hold_nothing_new_are_swept_and_others_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        drop(Journal::begin(dir.path(), &header()).unwrap());
        std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        assert!(orphans(dir.path()).is_empty());
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["notes.txt"]);
        assert!(orphans(&dir.path().join("absent")).is_empty());
    }
}
