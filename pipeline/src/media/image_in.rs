//! Still pictures and masks from files: content decides the format, never the extension.

use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use image::error::{LimitErrorKind, UnsupportedErrorKind};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};

use super::error::MediaError;
use super::limits::ImageLimits;
use super::picture::{Mask, Picture};
use super::{icc, jpeg_scan};

/// The sRGB grey that shows through transparent parts of a picture.
pub const ALPHA_GROUND: u8 = 128;

const KINDS: &str = "a picture (PNG, JPEG, WebP, GIF or AVIF)";

/// Reads a picture as 8-bit sRGB: upright (EXIF), colour-managed (ICC), alpha over [`ALPHA_GROUND`].
///
/// PNG, JPEG, WebP, the first frame of a GIF, and AVIF where FFmpeg decodes it. 16-bit and
/// greyscale data are converted; a CMYK JPEG is converted without its ink profile.
///
/// # Errors
/// Empty, truncated, damaged, unknown or over `limits`: each names the file and what was found.
pub fn read_picture(path: &Path, limits: &ImageLimits) -> Result<Picture, MediaError> {
    let decoded = decode(path, limits)?;
    let (width, height) = (decoded.image.width(), decoded.image.height());
    let Some(profile) = decoded.profile else {
        let rgb = match decoded.image {
            DynamicImage::ImageRgb8(rgb) => rgb.into_raw(),
            other => over_ground_8(&other.into_rgba8()),
        };
        return Ok(Picture::new(width, height, rgb)?);
    };
    let mut rgba = decoded.image.into_rgba16().into_raw();
    if let Err(reason) = icc::to_srgb(&mut rgba, &profile) {
        tracing::warn!("{}: {reason}; it is taken as sRGB", path.display());
    }
    Ok(Picture::new(width, height, over_ground_16(&rgba))?)
}

/// Reads coverage 0..1: the alpha channel where the file has transparency, else its luminance.
///
/// Values are taken as they are (128 of 255 is a coverage of 0.502): masks are not gamma-encoded.
///
/// # Errors
/// As [`read_picture`].
pub fn read_mask(path: &Path, limits: &ImageLimits) -> Result<Mask, MediaError> {
    let image = decode(path, limits)?.image;
    let (width, height) = (image.width(), image.height());
    let rgba = image.into_rgba16();
    let from_alpha = rgba.pixels().any(|p| p.0[3] != u16::MAX);
    let scale = 1.0 / f32::from(u16::MAX);
    let alpha = rgba
        .pixels()
        .map(|p| {
            let [r, g, b, a] = p.0.map(f32::from);
            let value = if from_alpha { a } else { 0.2126 * r + 0.7152 * g + 0.0722 * b };
            (value * scale).clamp(0.0, 1.0)
        })
        .collect();
    Ok(Mask::new(width, height, alpha)?)
}

/// Width and height as the file's header states them, without decoding it; `None` when that does not
/// work, the real error then comes from reading.
///
/// # Errors
/// [`MediaError::OverLimit`] when a picture of that size would be refused.
pub fn stated_size(path: &Path, limits: &ImageLimits) -> Result<Option<(u32, u32)>, MediaError> {
    let header = ImageReader::open(path).and_then(ImageReader::with_guessed_format).ok();
    let Some((width, height)) = header.and_then(|reader| reader.into_dimensions().ok()) else {
        return Ok(None);
    };
    let found = || format!("{width}x{height} pixels");
    if width.max(height) > limits.max_side {
        return Err(over(path, format!("{0}x{0} pixels", limits.max_side), found()));
    }
    let pixels = u64::from(width) * u64::from(height);
    // Colour conversion takes eight bytes a pixel.
    if pixels.saturating_mul(8) > limits.max_alloc {
        return Err(over(path, format!("{} megapixels", limits.max_alloc / 8_000_000), found()));
    }
    Ok(Some((width, height)))
}

struct Decoded {
    image: DynamicImage,
    profile: Option<Vec<u8>>,
}

fn decode(path: &Path, limits: &ImageLimits) -> Result<Decoded, MediaError> {
    let file = std::fs::File::open(path).map_err(|e| MediaError::read(path, e))?;
    let meta = file.metadata().map_err(|e| MediaError::read(path, e))?;
    if meta.is_dir() {
        return Err(MediaError::WrongKind {
            path: path.to_path_buf(),
            expected: KINDS,
            found: "a folder".into(),
        });
    }
    if meta.len() > limits.max_file {
        return Err(over(
            path,
            format!("{} bytes of file", limits.max_file),
            format!("{} bytes", meta.len()),
        ));
    }
    let mut bytes = Vec::new();
    // Once more on the bytes: a pipe or a growing file has no honest length.
    BufReader::new(file)
        .take(limits.max_file + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| MediaError::read(path, e))?;
    if bytes.len() as u64 > limits.max_file {
        return Err(over(path, format!("{} bytes of file", limits.max_file), "more".into()));
    }
    if bytes.is_empty() {
        return Err(MediaError::Empty { path: path.to_path_buf(), expected: KINDS });
    }
    let format = match image::guess_format(&bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP | ImageFormat::Gif)) => format,
        Ok(ImageFormat::Avif) => return decode_avif(path, limits),
        Ok(other) => {
            return Err(MediaError::WrongKind {
                path: path.to_path_buf(),
                expected: KINDS,
                found: format!("{other:?} data, which is not read here; convert it to PNG"),
            });
        }
        Err(_) => {
            return Err(MediaError::WrongKind {
                path: path.to_path_buf(),
                expected: KINDS,
                found: describe_head(&bytes),
            });
        }
    };
    if format == ImageFormat::Jpeg && !jpeg_scan::is_whole(&bytes) {
        return Err(truncated(path, &bytes, "an end-of-image marker"));
    }
    let fail = |error| from_image(path, &bytes, error, limits);
    let mut reader = ImageReader::with_format(Cursor::new(&bytes), format);
    let mut bounds = image::Limits::default();
    bounds.max_image_width = Some(limits.max_side);
    bounds.max_image_height = Some(limits.max_side);
    bounds.max_alloc = Some(limits.max_alloc);
    reader.limits(bounds);
    let mut decoder = reader.into_decoder().map_err(fail)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    // Colour conversion holds the picture once more, at eight bytes a pixel.
    if decoder.total_bytes().max(pixels.saturating_mul(8)) > limits.max_alloc {
        return Err(over(
            path,
            format!("{} bytes of memory", limits.max_alloc),
            format!("{width}x{height} pixels"),
        ));
    }
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    // Damaged metadata is no reason to refuse whole pixels.
    let profile = decoder.icc_profile().ok().flatten();
    let mut image = DynamicImage::from_decoder(decoder).map_err(fail)?;
    image.apply_orientation(orientation);
    Ok(Decoded { image, profile })
}

#[cfg(feature = "video")]
fn decode_avif(path: &Path, limits: &ImageLimits) -> Result<Decoded, MediaError> {
    let bounds = super::VideoLimits {
        max_pixels: (limits.max_alloc / 8).min(u64::from(limits.max_side) * u64::from(limits.max_side)),
        max_frames: 1,
        ..super::VideoLimits::default()
    };
    let mut reader = super::VideoReader::open(path, &bounds)?;
    let frame = reader.next_frame()?.ok_or_else(|| MediaError::Truncated {
        path: path.to_path_buf(),
        expected: "one AVIF picture".into(),
        found: "none that decodes".into(),
    })?;
    let (width, height) = (frame.picture.width(), frame.picture.height());
    let rgb = image::RgbImage::from_raw(width, height, frame.picture.into_rgb()).ok_or_else(|| {
        MediaError::Damaged {
            path: path.to_path_buf(),
            expected: "three bytes a pixel",
            found: "fewer".into(),
        }
    })?;
    Ok(Decoded { image: DynamicImage::ImageRgb8(rgb), profile: None })
}

#[cfg(not(feature = "video"))]
fn decode_avif(path: &Path, _limits: &ImageLimits) -> Result<Decoded, MediaError> {
    Err(MediaError::NeedsVideoFeature { path: path.to_path_buf(), what: "AVIF pictures".into() })
}

fn over_ground_8(rgba: &image::RgbaImage) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(rgba.as_raw().len() / 4 * 3);
    for pixel in rgba.pixels() {
        let [r, g, b, a] = pixel.0.map(u32::from);
        for value in [r, g, b] {
            rgb.push(((value * a + u32::from(ALPHA_GROUND) * (255 - a) + 127) / 255) as u8);
        }
    }
    rgb
}

fn over_ground_16(rgba: &[u16]) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(rgba.len() / 4 * 3);
    let ground = u64::from(ALPHA_GROUND) * 257;
    for pixel in rgba.chunks_exact(4) {
        if let [r, g, b, a] = *pixel {
            let a = u64::from(a);
            for value in [r, g, b] {
                let mixed = (u64::from(value) * a + ground * (65535 - a) + 32767) / 65535;
                rgb.push(((mixed * 255 + 32767) / 65535) as u8);
            }
        }
    }
    rgb
}

fn over(path: &Path, limit: String, found: String) -> MediaError {
    MediaError::OverLimit { path: path.to_path_buf(), limit, found }
}

fn truncated(path: &Path, bytes: &[u8], expected: &str) -> MediaError {
    MediaError::Truncated {
        path: path.to_path_buf(),
        expected: expected.into(),
        found: format!("the end after {} bytes", bytes.len()),
    }
}

fn from_image(path: &Path, bytes: &[u8], error: ImageError, limits: &ImageLimits) -> MediaError {
    match error {
        ImageError::Limits(limit) => match limit.kind() {
            LimitErrorKind::DimensionError => {
                over(path, format!("{0}x{0} pixels", limits.max_side), "a wider or taller picture".into())
            }
            _ => over(
                path,
                format!("{} bytes of memory", limits.max_alloc),
                "a picture that needs more".into(),
            ),
        },
        ImageError::IoError(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
            truncated(path, bytes, "the whole picture")
        }
        ImageError::IoError(source) => MediaError::read(path, source),
        ImageError::Unsupported(unsupported) => MediaError::WrongKind {
            path: path.to_path_buf(),
            expected: KINDS,
            found: match unsupported.kind() {
                UnsupportedErrorKind::Color(kind) => format!("colour type {kind:?}"),
                _ => unsupported.to_string(),
            },
        },
        other => {
            let found = other.to_string();
            let lower = found.to_lowercase();
            let cut = [
                "eof",
                "end of file",
                "unexpected end",
                "not enough",
                "exhausted",
                "corrupt deflate stream. insufficient",
            ];
            if cut.iter().any(|sign| lower.contains(sign)) {
                truncated(path, bytes, "the whole picture")
            } else {
                MediaError::Damaged { path: path.to_path_buf(), expected: "a well-formed picture", found }
            }
        }
    }
}

fn describe_head(bytes: &[u8]) -> String {
    let head: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("{} bytes beginning {}", bytes.len(), head.join(" "))
}
