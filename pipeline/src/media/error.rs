//! What can be wrong with a media file, said so that a user can act on it.

use std::path::{Path, PathBuf};

use super::picture::PictureError;
use crate::store::atomic::AtomicError;

/// Why a picture or clip could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The file system refused a read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// Nothing in it.
    #[error("{} is empty: expected {expected}, found 0 bytes; copy or download it again", path.display())]
    Empty { path: PathBuf, expected: &'static str },
    /// The content is of no kind that can be read here.
    #[error("{} is not {expected}: found {found}", path.display())]
    WrongKind { path: PathBuf, expected: &'static str, found: String },
    /// It ends before its content does.
    #[error("{} is truncated: expected {expected}, found {found}; copy or download it again", path.display())]
    Truncated { path: PathBuf, expected: String, found: String },
    /// It breaks the rules of its own format.
    #[error("{} is damaged: expected {expected}, found {found}", path.display())]
    Damaged { path: PathBuf, expected: &'static str, found: String },
    /// It is bigger, longer or slower than the caller allows.
    #[error("{} is over the limit: at most {limit}, found {found}", path.display())]
    OverLimit { path: PathBuf, limit: String, found: String },
    /// A clip with sound and no picture.
    #[error("{} has no video: expected at least one video stream, found {found}", path.display())]
    NoVideo { path: PathBuf, found: String },
    /// This build has no FFmpeg.
    #[error(
        "{} needs FFmpeg for {what}, and this build was made without the feature `video`; \
         use PNG, JPEG, WebP or GIF images, write .gif or a PNG sequence, or build with `--features video`",
        path.display()
    )]
    NeedsVideoFeature { path: PathBuf, what: String },
    /// The FFmpeg in use lacks a part.
    #[error(
        "the FFmpeg libraries here have no {kind} `{name}`, needed for {}; \
         install a fuller FFmpeg or choose another format", path.display()
    )]
    MissingPart { path: PathBuf, kind: &'static str, name: String },
    /// A request that no encoder could fulfil.
    #[error("cannot write {}: expected {expected}, found {found}", path.display())]
    BadSpec { path: PathBuf, expected: String, found: String },
    /// A frame that does not fit the clip being written.
    #[error("frame {index} of {} is {found}, expected {expected}", path.display())]
    WrongFrame { path: PathBuf, index: u64, expected: String, found: String },
    /// The encoder or container writer failed.
    #[error("{step} of {} failed: {reason}", path.display())]
    Encode { path: PathBuf, step: &'static str, reason: String },
    /// The output could not be put on the disk.
    #[error(transparent)]
    Write(#[from] AtomicError),
    /// A raster of the wrong length.
    #[error(transparent)]
    Picture(#[from] PictureError),
}

impl MediaError {
    /// Sorts a failed write of `path`.
    pub(super) fn write(path: &Path, source: std::io::Error) -> Self {
        Self::Write(AtomicError::from_io("write", path, source))
    }

    pub(super) fn read(path: &Path, source: std::io::Error) -> Self {
        Self::Read { path: path.to_path_buf(), source }
    }
}
