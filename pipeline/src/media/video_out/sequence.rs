//! One picture a frame: into a folder that appears whole, or beside others by a `%05d` pattern.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{Codec, EncodeSpec, MediaSink, WrittenFile, check_frame, no_frames};
use crate::media::error::MediaError;
use crate::media::exr;
use crate::media::image_out::{encode_png, from_png};
use crate::media::picture::Picture;
use crate::store::atomic::{AtomicError, AtomicFile, AtomicFolder};

pub(super) fn create(path: &Path, spec: &EncodeSpec) -> Result<Box<dyn MediaSink>, MediaError> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    if name.contains('%') || name.to_ascii_lowercase().ends_with(&format!(".{}", ending(spec))) {
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

/// What the names of the pictures end in.
fn ending(spec: &EncodeSpec) -> &'static str {
    if spec.codec == Codec::ExrSequence { "exr" } else { "png" }
}

/// Writes one picture to an empty file. Returns its size in bytes.
fn write_frame(path: &Path, file: &File, picture: &Picture, spec: &EncodeSpec) -> Result<u64, MediaError> {
    let mut writer = BufWriter::new(file);
    let recipe = spec.recipe.as_deref();
    if spec.codec == Codec::ExrSequence {
        exr::encode(path, &mut writer, picture, spec.fps, recipe)?;
    } else {
        encode_png(&mut writer, picture, recipe).map_err(|e| from_png(path, e))?;
    }
    writer.flush().map_err(|e| MediaError::write(path, e))?;
    Ok(file.metadata().map_err(|e| MediaError::write(path, e))?.len())
}

/// The first thing in a folder that is no frame of a sequence; `None` when the folder may be replaced by
/// another sequence without losing anything else.
pub fn foreign_entry(folder: &Path) -> Option<String> {
    let frame = |name: &str| {
        let digits = name.strip_prefix("frame_");
        let digits = digits.and_then(|rest| rest.strip_suffix(".png").or(rest.strip_suffix(".exr")));
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !frame(name)).min()
}

/// `frame_00000` … in a new folder.
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
        let to = self.folder.path().join(format!("frame_{:05}.{}", self.frames, ending(&self.spec)));
        let file = File::create_new(&to).map_err(|e| MediaError::write(&self.path, e))?;
        self.bytes += write_frame(&self.path, &file, picture, &self.spec)?;
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
                expected: format!(
                    "a folder, or one frame number pattern such as frame_%05d.{}",
                    ending(spec)
                ),
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
        self.bytes += write_frame(&dest, file.file_mut(), picture, &self.spec)?;
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
