//! Clips from files: streamed frame by frame, upright, in sRGB, with exact times.

#[cfg(not(feature = "video"))]
mod absent;
#[cfg(feature = "video")]
mod colour;
#[cfg(feature = "video")]
mod loudness;
#[cfg(feature = "video")]
mod open;
mod orient;
#[cfg(feature = "video")]
mod reader;
#[cfg(feature = "video")]
mod sound;

#[cfg(not(feature = "video"))]
pub use absent::{SoundReader, VideoReader, loudness};
#[cfg(feature = "video")]
pub use loudness::loudness;
#[cfg(feature = "video")]
pub(super) use open::container_tag;
pub use orient::Orientation;
#[cfg(feature = "video")]
pub use reader::VideoReader;
#[cfg(feature = "video")]
pub use sound::SoundReader;

use super::picture::Picture;

/// Samples a second of all sound inside Kinora, for each of two channels.
pub const SOUND_RATE: u32 = 48_000;

/// Channels sound is handed out with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// One, mixed from all.
    Mono,
    /// Left and right, interleaved.
    Stereo,
}

impl Channels {
    /// How many.
    pub fn count(self) -> usize {
        match self {
            Self::Mono => 1,
            Self::Stereo => 2,
        }
    }
}

/// One decoded frame.
#[derive(Debug, Clone, PartialEq)]
pub struct TimedPicture {
    /// When it is shown, in seconds from the start of the clip.
    pub seconds: f64,
    /// The frame, upright, 8-bit sRGB.
    pub picture: Picture,
}

/// What a container says about its first video stream.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoInfo {
    /// Width in pixels after turning upright.
    pub width: u32,
    /// Height in pixels after turning upright.
    pub height: u32,
    /// Average frames per second as a fraction; `None` when unknown.
    pub fps: Option<(u32, u32)>,
    /// Length in seconds as the container states it.
    pub seconds: Option<f64>,
    /// Number of frames as the container states it.
    pub frames: Option<u64>,
    /// FFmpeg's name of the codec.
    pub codec: String,
    /// FFmpeg's name of the container.
    pub container: String,
    /// FFmpeg's name of the stored pixel format.
    pub pixel_format: String,
    /// How stored frames are turned to stand upright.
    pub orientation: Orientation,
    /// Whether the frames hold two fields; they are handed out woven, not deinterlaced.
    pub interlaced: bool,
    /// Things a user should know: odd tags, a turn that is no multiple of 90 degrees.
    pub notices: Vec<String>,
}
