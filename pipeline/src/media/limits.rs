//! How much a media file may ask for before it is refused.

use std::time::Duration;

/// Bounds on one picture. The defaults admit any camera and no decompression bomb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLimits {
    /// Widest and tallest picture, in pixels.
    pub max_side: u32,
    /// Memory one decode may take, in bytes.
    pub max_alloc: u64,
    /// Largest file, in bytes.
    pub max_file: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { max_side: 16384, max_alloc: 512 << 20, max_file: 512 << 20 }
    }
}

/// Bounds on one clip.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoLimits {
    /// Pixels of one frame.
    pub max_pixels: u64,
    /// Streams of all kinds in the container.
    pub max_streams: u32,
    /// Length of the clip in seconds, as stated and as decoded.
    pub max_seconds: f64,
    /// Frames handed out by one reader.
    pub max_frames: u64,
    /// Bytes read to find out what the file is.
    pub probe_bytes: u64,
    /// Media time, in seconds, looked at to find out what the streams are.
    pub probe_seconds: f64,
    /// Wall time one call (open, next frame, seek) may take.
    pub call_deadline: Duration,
}

impl Default for VideoLimits {
    fn default() -> Self {
        Self {
            max_pixels: 16384 * 16384 / 4,
            max_streams: 64,
            max_seconds: 6.0 * 3600.0,
            max_frames: 2_000_000,
            probe_bytes: 8 << 20,
            probe_seconds: 10.0,
            call_deadline: Duration::from_secs(30),
        }
    }
}
