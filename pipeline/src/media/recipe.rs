//! Reads back the document that made a file, from whatever place its container has for it.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::error::MediaError;

/// The name of the metadata field, text chunk or tag.
pub(super) const RECIPE_KEY: &str = "kinora";

/// Longest recipe believed, in bytes; the same bound as a document's.
const MAX_RECIPE: u64 = 16 << 20;

/// The recipe stored in a picture, clip or sequence folder; `None` when it has none.
///
/// # Errors
/// The file cannot be read, or its container is damaged before the recipe.
pub fn read_recipe(path: &Path) -> Result<Option<String>, MediaError> {
    let meta = std::fs::metadata(path).map_err(|e| MediaError::read(path, e))?;
    if meta.is_dir() {
        let first = ["png", "exr"].map(|end| path.join(format!("frame_00000.{end}")));
        return first.iter().find(|first| first.is_file()).map_or(Ok(None), |first| read_recipe(first));
    }
    let mut file = BufReader::new(File::open(path).map_err(|e| MediaError::read(path, e))?);
    let mut head = Vec::new();
    file.by_ref().take(12).read_to_end(&mut head).map_err(|e| MediaError::read(path, e))?;
    let whole = |found: Option<Option<String>>| {
        found.ok_or_else(|| MediaError::Truncated {
            path: path.to_path_buf(),
            expected: "a whole container".into(),
            found: format!("the end after {} bytes", meta.len()),
        })
    };
    if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        return whole(from_png(&mut file));
    }
    if head.starts_with(b"GIF8") {
        return whole(from_gif(&mut file));
    }
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        return whole(from_webp(&mut file));
    }
    if head.starts_with(&[0x76, 0x2f, 0x31, 0x01]) {
        file.seek(SeekFrom::Start(0)).map_err(|e| MediaError::read(path, e))?;
        return whole(super::exr::recipe(&mut file));
    }
    if head.starts_with(b"\xff\xd8\xff") {
        return Ok(None);
    }
    from_container(path)
}

#[cfg(feature = "video")]
fn from_container(path: &Path) -> Result<Option<String>, MediaError> {
    super::video_in::container_tag(path, &[RECIPE_KEY, "comment"])
}

#[cfg(not(feature = "video"))]
fn from_container(path: &Path) -> Result<Option<String>, MediaError> {
    Err(MediaError::NeedsVideoFeature {
        path: path.to_path_buf(),
        what: "reading the recipe of a clip".into(),
    })
}

fn bytes<R: Read>(file: &mut R, count: u64) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    file.take(count).read_to_end(&mut out).ok()?;
    (out.len() as u64 == count).then_some(out)
}

fn utf8(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).ok()
}

/// PNG 3rd edition §11.3.3: the uncompressed `iTXt` chunk this crate writes.
fn from_png<R: Read + Seek>(file: &mut R) -> Option<Option<String>> {
    file.seek(SeekFrom::Start(8)).ok()?;
    loop {
        let head = bytes(file, 8)?;
        let length = u64::from(u32::from_be_bytes([head[0], head[1], head[2], head[3]]));
        match &head[4..] {
            b"IDAT" | b"IEND" => return Some(None),
            b"iTXt" if length <= MAX_RECIPE => {
                let body = bytes(file, length)?;
                let key = [RECIPE_KEY.as_bytes(), &[0, 0, 0]].concat();
                if let Some(rest) = body.strip_prefix(key.as_slice()) {
                    // Language and translated keyword, both ended by a zero.
                    let mut parts = rest.splitn(3, |&b| b == 0);
                    if let Some(text) = parts.nth(2) {
                        return Some(utf8(text.to_vec()));
                    }
                }
                file.seek(SeekFrom::Current(4)).ok()?;
            }
            _ => {
                file.seek(SeekFrom::Current(length as i64 + 4)).ok()?;
            }
        }
    }
}

/// GIF89a §24: the first comment extension before the first picture.
fn from_gif<R: Read + Seek>(file: &mut R) -> Option<Option<String>> {
    file.seek(SeekFrom::Start(10)).ok()?;
    let head = bytes(file, 3)?;
    if head[0] & 0x80 != 0 {
        let colours = 2i64 << (head[0] & 7);
        file.seek(SeekFrom::Current(colours * 3)).ok()?;
    }
    loop {
        if bytes(file, 1)?[0] != 0x21 {
            return Some(None);
        }
        let label = bytes(file, 1)?[0];
        let mut text = Vec::new();
        loop {
            let length = bytes(file, 1)?[0];
            if length == 0 {
                break;
            }
            text.extend(bytes(file, u64::from(length))?);
            if text.len() as u64 > MAX_RECIPE {
                return Some(None);
            }
        }
        if label == 0xFE {
            return Some(utf8(text));
        }
    }
}

/// The `KNRA` chunk this crate appends; readers skip unknown chunks (RFC 9649 §2.7.1.6).
fn from_webp<R: Read + Seek>(file: &mut R) -> Option<Option<String>> {
    file.seek(SeekFrom::Start(12)).ok()?;
    loop {
        let mut head = Vec::new();
        file.take(8).read_to_end(&mut head).ok()?;
        if head.is_empty() {
            return Some(None);
        }
        let length = u64::from(u32::from_le_bytes(head.get(4..8)?.try_into().ok()?));
        if head.starts_with(WEBP_CHUNK) && length <= MAX_RECIPE {
            return Some(utf8(bytes(file, length)?));
        }
        file.seek(SeekFrom::Current((length + length % 2) as i64)).ok()?;
    }
}

/// Name of the private RIFF chunk.
pub(super) const WEBP_CHUNK: &[u8; 4] = b"KNRA";
