//! One PNG a frame: into a folder that appears whole, or beside others by a `%05d` pattern.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::{EncodeSpec, MediaSink, WrittenFile, check_frame, no_frames};
use crate::media::error::MediaError;
use crate::media::image_out::{encode_png, from_png};
use crate::media::picture::Picture;
use crate::store::atomic::{AtomicError, AtomicFile, AtomicFolder};

pub(super) fn create(path: &Path, spec: &EncodeSpec) -> Result<Box<dyn MediaSink>, MediaError> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    if name.contains('%') || name.to_ascii_lowercase().ends_with(".png") {
        return Ok(Box::new(PatternSink::create(path, name, spec)?));
    }
    Ok(Box::new(FolderSink {
        path: path.to_path_buf(),
        spec: spec.clone(),
        folder: AtomicFolder::create(path)?,
        frames: 0,
        bytes: 0,
    }))
}

/// The first thing in a folder that is no frame of a sequence; `None` when the folder may be replaced by
/// another sequence without losing anything else.
pub fn foreign_entry(folder: &Path) -> Option<String> {
    let frame = |name: &str| {
        let digits = name.strip_prefix("frame_").and_then(|rest| rest.strip_suffix(".png"));
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !frame(name)).min()
}

/// `frame_00000.png` … in a new folder.
struct FolderSink {
    path: PathBuf,
    spec: EncodeSpec,
    folder: AtomicFolder,
    frames: u64,
    bytes: u64,
}

impl MediaSink for FolderSink {
    fn write(&mut self, picture: &Picture) -> Result<(), MediaError> {
        check_frame(&self.path, &self.spec, self.frames, picture)?;
        let to = self.folder.path().join(format!("frame_{:05}.png", self.frames));
        let file = File::create_new(&to).map_err(|e| MediaError::write(&self.path, e))?;
        encode_png(BufWriter::new(&file), picture, self.spec.recipe.as_deref())
            .map_err(|e| from_png(&self.path, e))?;
        self.bytes += file.metadata().map_err(|e| MediaError::write(&self.path, e))?.len();
        self.frames += 1;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<WrittenFile, MediaError> {
        if self.frames == 0 {
            return Err(no_frames(&self.path));
        }
        if let Some(name) = foreign_entry(&self.path) {
            return Err(MediaError::BadSpec {
                path: self.path,
                expected: "a folder that holds nothing but numbered frames".into(),
                found: format!("{name} in it; name another folder"),
            });
        }
        self.folder.commit(self.spec.overwrite)?;
        Ok(WrittenFile { path: self.path, bytes: self.bytes, frames: self.frames })
    }
}

/// Files named by a pattern in an existing folder; they appear together at the end.
struct PatternSink {
    path: PathBuf,
    spec: EncodeSpec,
    prefix: String,
    digits: usize,
    suffix: String,
    /// Written and closed, not yet in place.
    waiting: Vec<AtomicFile>,
    bytes: u64,
}

impl PatternSink {
    fn create(path: &Path, name: &str, spec: &EncodeSpec) -> Result<Self, MediaError> {
        let parsed = name.split_once('%').and_then(|(prefix, rest)| {
            let (digits, suffix) = rest.split_once('d')?;
            let digits = if digits.is_empty() { 1 } else { digits.parse().ok()? };
            ((1..=12).contains(&digits) && !suffix.contains('%'))
                .then(|| (prefix.to_owned(), digits, suffix.to_owned()))
        });
        let Some((prefix, digits, suffix)) = parsed else {
            return Err(MediaError::BadSpec {
                path: path.to_path_buf(),
                expected: "a folder, or one frame number pattern such as frame_%05d.png".into(),
                found: name.to_owned(),
            });
        };
        Ok(Self {
            path: path.to_path_buf(),
            spec: spec.clone(),
            prefix,
            digits,
            suffix,
            waiting: Vec::new(),
            bytes: 0,
        })
    }
}

impl MediaSink for PatternSink {
    fn write(&mut self, picture: &Picture) -> Result<(), MediaError> {
        let index = self.waiting.len() as u64;
        check_frame(&self.path, &self.spec, index, picture)?;
        let digits = self.digits;
        let name = format!("{}{index:0digits$}{}", self.prefix, self.suffix);
        let dest = self.path.with_file_name(name);
        if !self.spec.overwrite && std::fs::symlink_metadata(&dest).is_ok() {
            return Err(AtomicError::Exists { path: dest }.into());
        }
        let mut file = AtomicFile::create(&dest)?;
        encode_png(BufWriter::new(file.file_mut()), picture, self.spec.recipe.as_deref())
            .map_err(|e| from_png(&dest, e))?;
        self.bytes += file.file_mut().metadata().map_err(|e| MediaError::write(&dest, e))?.len();
        self.waiting.push(file);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<WrittenFile, MediaError> {
        if self.waiting.is_empty() {
            return Err(no_frames(&self.path));
        }
        let frames = self.waiting.len() as u64;
        for file in self.waiting {
            file.commit(self.spec.overwrite)?;
        }
        Ok(WrittenFile { path: self.path, bytes: self.bytes, frames })
    }
}
