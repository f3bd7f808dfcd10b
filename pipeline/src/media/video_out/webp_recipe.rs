//! Adds the recipe to a finished WebP, whose muxer has no metadata of its own.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use crate::media::recipe::WEBP_CHUNK;

/// Appends a private chunk and corrects the length in the RIFF header (RFC 9649 §2.3).
pub(super) fn append(file: &mut File, recipe: &str) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    let mut head = [0; 12];
    file.read_exact(&mut head)?;
    if !head.starts_with(b"RIFF") || !head.ends_with(b"WEBP") {
        return Err(std::io::Error::other("the encoder did not write a WebP header"));
    }
    let mut end = file.seek(SeekFrom::End(0))?;
    if end % 2 == 1 {
        file.write_all(&[0])?;
        end += 1;
    }
    let too_long = |_| std::io::Error::from(std::io::ErrorKind::FileTooLarge);
    let length = u32::try_from(recipe.len()).map_err(too_long)?;
    file.write_all(WEBP_CHUNK)?;
    file.write_all(&length.to_le_bytes())?;
    file.write_all(recipe.as_bytes())?;
    if length % 2 == 1 {
        file.write_all(&[0])?;
    }
    let padded = u64::from(length) + u64::from(length % 2);
    let riff = u32::try_from(end + 8 + padded - 8).map_err(too_long)?;
    file.seek(SeekFrom::Start(4))?;
    file.write_all(&riff.to_le_bytes())?;
    file.flush()
}
