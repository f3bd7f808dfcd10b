//! A file FFmpeg writes into, with what the disk says of it.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ffmpeg_next as ffmpeg;

use crate::media::error::MediaError;

/// Remembers the first error of the disk, which FFmpeg reduces to a number.
pub(super) struct Target {
    pub(super) file: File,
    pub(super) error: Arc<Mutex<Option<std::io::Error>>>,
}

impl Target {
    fn note<T>(&self, result: std::io::Result<T>) -> std::io::Result<T> {
        result.inspect_err(|error| {
            let copy =
                error.raw_os_error().map_or_else(|| error.kind().into(), std::io::Error::from_raw_os_error);
            self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(copy);
        })
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let result = self.file.write(bytes);
        self.note(result)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let result = self.file.flush();
        self.note(result)
    }
}

impl Seek for Target {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(to)
    }
}

/// The disk's own error where it had one, else FFmpeg's.
pub(super) fn disk_or(
    path: &Path,
    disk: &Mutex<Option<std::io::Error>>,
    error: ffmpeg::Error,
    step: &'static str,
) -> MediaError {
    if let Some(source) = disk.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return MediaError::write(path, source);
    }
    MediaError::Encode { path: path.to_path_buf(), step, reason: error.to_string() }
}
