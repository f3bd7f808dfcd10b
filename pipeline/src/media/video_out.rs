//! Clips to files: one family of formats per file, one trait for all.

mod colour;
#[cfg(feature = "video")]
mod disk;
mod gif;
mod palette;
mod sequence;
#[cfg(feature = "video")]
mod sound;
#[cfg(feature = "video")]
mod stream;
#[cfg(feature = "video")]
mod families {
    pub(super) mod av1;
    pub(super) mod ffv1;
    pub(super) mod h264;
    pub(super) mod h265;
    pub(super) mod prores;
    pub(super) mod vp9;
    pub(super) mod webp;
}
#[cfg(feature = "video")]
mod webp_recipe;

use std::path::{Path, PathBuf};

pub use colour::Colour;
pub use sequence::foreign_entry;

use super::error::MediaError;
use super::picture::Picture;

/// The format family of a clip.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// H.264 8-bit 4:2:0 in MP4 (or .mov, .mkv): plays everywhere.
    H264,
    /// H.265 8-bit 4:2:0 in MP4, tagged `hvc1` for Apple players.
    H265,
    /// ProRes 422 HQ 10-bit in QuickTime: for editing.
    #[serde(rename = "prores")]
    ProRes,
    /// VP9 8-bit 4:2:0 in WebM.
    Vp9,
    /// AV1 8-bit 4:2:0 in MP4 (or .webm, .mkv).
    Av1,
    /// FFV1 RGB in Matroska: lossless.
    Ffv1,
    /// Animated GIF, 256 colours a frame.
    Gif,
    /// Animated WebP.
    #[serde(rename = "webp")]
    WebpAnimation,
    /// One PNG a frame: a folder, or a name with `%05d` in it.
    PngSequence,
    /// One OpenEXR of half floats in linear light a frame: a folder, or a name with `%05d` in it.
    ExrSequence,
}

impl Codec {
    /// What a file name asks for, when it says.
    ///
    /// A name without extension, or a PNG name with a frame pattern, is a PNG sequence.
    pub fn from_path(path: &Path) -> Option<Self> {
        let Some(extension) = path.extension() else {
            return Some(Self::PngSequence);
        };
        match extension.to_str()?.to_ascii_lowercase().as_str() {
            "mp4" | "m4v" => Some(Self::H264),
            "mov" => Some(Self::ProRes),
            "webm" => Some(Self::Vp9),
            "mkv" => Some(Self::Ffv1),
            "gif" => Some(Self::Gif),
            "webp" => Some(Self::WebpAnimation),
            "png" => Some(Self::PngSequence),
            "exr" => Some(Self::ExrSequence),
            _ => None,
        }
    }

    /// Extensions the family may be written to; the first is the usual one.
    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::H264 | Self::H265 => &["mp4", "m4v", "mov", "mkv"],
            Self::ProRes => &["mov"],
            Self::Vp9 => &["webm", "mkv"],
            Self::Av1 => &["mp4", "webm", "mkv"],
            Self::Ffv1 => &["mkv"],
            Self::Gif => &["gif"],
            Self::WebpAnimation => &["webp"],
            Self::PngSequence => &["", "png"],
            Self::ExrSequence => &["", "exr"],
        }
    }

    /// Whether the family stores sound beside its pictures.
    pub fn has_sound(self) -> bool {
        !matches!(self, Self::Gif | Self::WebpAnimation) && !self.is_pictures()
    }

    /// Whether every frame is a file of its own.
    pub fn is_pictures(self) -> bool {
        matches!(self, Self::PngSequence | Self::ExrSequence)
    }
}

/// How much quality a lossy family keeps; lossless families take no notice.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// Quick and small, for a look.
    Draft,
    /// For showing.
    #[default]
    Standard,
    /// Visually transparent.
    High,
}

impl Quality {
    /// Picks by level.
    #[cfg(feature = "video")]
    fn pick<T>(self, draft: T, standard: T, high: T) -> T {
        match self {
            Self::Draft => draft,
            Self::Standard => standard,
            Self::High => high,
        }
    }
}

/// What to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeSpec {
    /// The format family.
    pub codec: Codec,
    /// Width of every frame in pixels; even for the 4:2:0 families, ProRes rounds nothing.
    pub width: u32,
    /// Height of every frame in pixels.
    pub height: u32,
    /// Frames per second as a fraction, both parts at least 1.
    pub fps: (u32, u32),
    /// How much a lossy family keeps.
    pub quality: Quality,
    /// How colours are stored and tagged; the family's usual way when `None`.
    pub colour: Option<Colour>,
    /// Whether there is sound; families without sound take no notice.
    pub sound: bool,
    /// The document that made the clip, stored in the container.
    pub recipe: Option<String>,
    /// Replace an existing file.
    pub overwrite: bool,
}

/// A finished output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// Where it is: a file, or the folder of a sequence.
    pub path: PathBuf,
    /// Size of all files, in bytes.
    pub bytes: u64,
    /// Frames written.
    pub frames: u64,
}

/// Takes frames one by one. Dropping it before [`MediaSink::finish`] leaves nothing on the disk.
pub trait MediaSink: Send {
    /// Appends one frame.
    ///
    /// # Errors
    /// The frame's size differs from the spec, or the encoder or the disk refuses.
    fn write(&mut self, picture: &Picture) -> Result<(), MediaError>;

    /// Appends sound: [`SOUND_RATE`](crate::media::SOUND_RATE) samples a second, -1..=1, left and right in
    /// turn. The family may have none, and then takes no notice.
    ///
    /// # Errors
    /// The encoder or the disk refuses.
    fn sound(&mut self, _samples: &[f32]) -> Result<(), MediaError> {
        Ok(())
    }

    /// Closes the file and puts it in its place.
    ///
    /// # Errors
    /// No frame was written, or the encoder or the disk refuses.
    fn finish(self: Box<Self>) -> Result<WrittenFile, MediaError>;
}

/// Opens a writer for `spec` at `path`, whose folder must exist.
///
/// # Errors
/// The size, rate or extension does not suit the family, the encoder is missing, the destination
/// exists without `overwrite`, or the folder refuses writes.
pub fn create_sink(path: &Path, spec: &EncodeSpec) -> Result<Box<dyn MediaSink>, MediaError> {
    check(path, spec)?;
    match spec.codec {
        Codec::Gif => Ok(Box::new(gif::GifSink::create(path, spec)?)),
        Codec::PngSequence | Codec::ExrSequence => sequence::create(path, spec),
        _ => create_stream(path, spec),
    }
}

#[cfg(feature = "video")]
fn create_stream(path: &Path, spec: &EncodeSpec) -> Result<Box<dyn MediaSink>, MediaError> {
    use families::{av1, ffv1, h264, h265, prores, vp9, webp};
    let plan = match spec.codec {
        Codec::H264 => h264::plan(spec),
        Codec::H265 => h265::plan(spec),
        Codec::ProRes => prores::plan(spec),
        Codec::Vp9 => vp9::plan(spec),
        Codec::Av1 => av1::plan(spec),
        Codec::Ffv1 => ffv1::plan(),
        _ => webp::plan(spec),
    };
    Ok(Box::new(stream::StreamSink::create(path, spec, plan)?))
}

#[cfg(not(feature = "video"))]
fn create_stream(path: &Path, spec: &EncodeSpec) -> Result<Box<dyn MediaSink>, MediaError> {
    Err(MediaError::NeedsVideoFeature { path: path.to_path_buf(), what: format!("writing {:?}", spec.codec) })
}

fn check(path: &Path, spec: &EncodeSpec) -> Result<(), MediaError> {
    let bad = |expected: String, found: String| {
        Err(MediaError::BadSpec { path: path.to_path_buf(), expected, found })
    };
    let (width, height) = (spec.width, spec.height);
    let most = if spec.codec == Codec::WebpAnimation { 16383 } else { 16384 };
    if width == 0 || height == 0 || width > most || height > most {
        return bad(format!("1 to {most} pixels a side"), format!("{width}x{height}"));
    }
    let even = matches!(spec.codec, Codec::H264 | Codec::H265 | Codec::Vp9 | Codec::Av1);
    if even && (width % 2 == 1 || height % 2 == 1) {
        return bad(
            format!(
                "even sides for {:?}, whose colour is stored at half size (try {}x{}, or prores, ffv1, gif or a PNG sequence)",
                spec.codec,
                width + width % 2,
                height + height % 2
            ),
            format!("{width}x{height}"),
        );
    }
    if spec.codec == Codec::ProRes && width % 2 == 1 {
        return bad("an even width for ProRes 4:2:2".into(), format!("{width}x{height}"));
    }
    if spec.codec == Codec::Av1 && (width < 64 || height < 64) {
        return bad("at least 64x64 pixels for AV1".into(), format!("{width}x{height}"));
    }
    if matches!(spec.codec, Codec::H264 | Codec::H265) && (width < 16 || height < 16) {
        return bad(format!("at least 16x16 pixels for {:?}", spec.codec), format!("{width}x{height}"));
    }
    let (num, den) = spec.fps;
    if num == 0 || den == 0 || num > 1_000_000 || den > 1_000_000 || num / den > 1000 {
        return bad(
            "a frame rate above 0 and at most 1000, both parts at most 1000000".into(),
            format!("{num}/{den}"),
        );
    }
    let ways = spec.codec.colours();
    if let Some(colour) = spec.colour.filter(|colour| !ways.contains(colour)) {
        let names: Vec<&str> = ways.iter().map(|way| way.name()).collect();
        return bad(format!("colours of {:?} as {}", spec.codec, names.join(", ")), colour.name().into());
    }
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let allowed = spec.codec.extensions();
    if !spec.codec.is_pictures() && !allowed.contains(&extension.as_str()) {
        return bad(
            format!("a name ending in .{} for {:?}", allowed.join(", ."), spec.codec),
            format!(".{extension}"),
        );
    }
    if !spec.overwrite && std::fs::symlink_metadata(path).is_ok() {
        return Err(crate::store::atomic::AtomicError::Exists { path: path.to_path_buf() }.into());
    }
    Ok(())
}

/// Refuses a frame whose size is not the clip's.
fn check_frame(path: &Path, spec: &EncodeSpec, index: u64, picture: &Picture) -> Result<(), MediaError> {
    if (picture.width(), picture.height()) == (spec.width, spec.height) {
        return Ok(());
    }
    Err(MediaError::WrongFrame {
        path: path.to_path_buf(),
        index,
        expected: format!("{}x{}", spec.width, spec.height),
        found: format!("{}x{}", picture.width(), picture.height()),
    })
}

fn no_frames(path: &Path) -> MediaError {
    MediaError::BadSpec {
        path: path.to_path_buf(),
        expected: "at least one frame".into(),
        found: "none".into(),
    }
}
