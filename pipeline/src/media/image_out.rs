//! Still pictures to files, whole or not at all.

use std::io::{BufWriter, Write};
use std::path::Path;

use super::error::MediaError;
use super::picture::{Mask, Picture};
use super::recipe::RECIPE_KEY;
use crate::store::atomic::AtomicFile;

/// Writes a PNG tagged sRGB.
///
/// # Errors
/// The destination exists and `overwrite` is false, or the disk refuses; nothing is left behind.
pub fn write_png(path: &Path, picture: &Picture, overwrite: bool) -> Result<(), MediaError> {
    write_png_with_recipe(path, picture, None, overwrite)
}

/// As [`write_png`], with the document that made it in an `iTXt` chunk named `kinora`.
pub fn write_png_with_recipe(
    path: &Path,
    picture: &Picture,
    recipe: Option<&str>,
    overwrite: bool,
) -> Result<(), MediaError> {
    let mut file = AtomicFile::create(path)?;
    encode_png(BufWriter::new(file.file_mut()), picture, recipe).map_err(|error| from_png(path, error))?;
    Ok(file.commit(overwrite)?)
}

/// Encodes without a file; deterministic for equal input.
pub(super) fn encode_png<W: Write>(
    mut writer: W,
    picture: &Picture,
    recipe: Option<&str>,
) -> Result<(), png::EncodingError> {
    {
        let mut encoder = png::Encoder::new(&mut writer, picture.width(), picture.height());
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
        if let Some(recipe) = recipe {
            encoder.add_itxt_chunk(RECIPE_KEY.to_owned(), recipe.to_owned())?;
        }
        let mut body = encoder.write_header()?;
        body.write_image_data(picture.rgb())?;
        body.finish()?;
    }
    writer.flush().map_err(png::EncodingError::IoError)
}

/// Writes coverage as an 8-bit greyscale PNG; 1.0 is white.
pub fn write_mask_png(path: &Path, mask: &Mask, overwrite: bool) -> Result<(), MediaError> {
    let grey: Vec<u8> = mask.alpha().iter().map(|a| (a.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
    let mut file = AtomicFile::create(path)?;
    let mut writer = BufWriter::new(file.file_mut());
    let mut encoder = png::Encoder::new(&mut writer, mask.width(), mask.height());
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder
        .write_header()
        .and_then(|mut body| {
            body.write_image_data(&grey)?;
            body.finish()
        })
        .map_err(|error| from_png(path, error))?;
    writer.flush().map_err(|e| MediaError::write(path, e))?;
    drop(writer);
    Ok(file.commit(overwrite)?)
}

/// Writes a baseline JPEG, `quality` 1..=100.
pub fn write_jpeg(path: &Path, picture: &Picture, quality: u8, overwrite: bool) -> Result<(), MediaError> {
    if !(1..=100).contains(&quality) {
        return Err(MediaError::BadSpec {
            path: path.to_path_buf(),
            expected: "a JPEG quality of 1 to 100".into(),
            found: quality.to_string(),
        });
    }
    let mut file = AtomicFile::create(path)?;
    let mut writer = BufWriter::new(file.file_mut());
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut writer, quality)
        .encode(picture.rgb(), picture.width(), picture.height(), image::ExtendedColorType::Rgb8)
        .map_err(|error| match error {
            image::ImageError::IoError(source) => MediaError::write(path, source),
            other => MediaError::Encode {
                path: path.to_path_buf(),
                step: "JPEG encoding",
                reason: other.to_string(),
            },
        })?;
    writer.flush().map_err(|e| MediaError::write(path, e))?;
    drop(writer);
    Ok(file.commit(overwrite)?)
}

pub(super) fn from_png(path: &Path, error: png::EncodingError) -> MediaError {
    match error {
        png::EncodingError::IoError(source) => MediaError::write(path, source),
        other => {
            MediaError::Encode { path: path.to_path_buf(), step: "PNG encoding", reason: other.to_string() }
        }
    }
}
