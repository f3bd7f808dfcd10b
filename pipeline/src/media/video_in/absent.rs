//! The reader of a build without FFmpeg: it says what is missing.

use std::path::Path;

use super::{Channels, TimedPicture, VideoInfo};
use crate::media::error::MediaError;
use crate::media::limits::VideoLimits;

/// Never exists in a build without the feature `video`.
#[derive(Debug)]
pub struct VideoReader(std::convert::Infallible);

impl VideoReader {
    /// Always [`MediaError::NeedsVideoFeature`].
    pub fn open(path: &Path, _limits: &VideoLimits) -> Result<Self, MediaError> {
        Err(MediaError::NeedsVideoFeature { path: path.to_path_buf(), what: "reading clips".into() })
    }

    /// What the container says.
    pub fn info(&self) -> &VideoInfo {
        match self.0 {}
    }

    /// The next frame.
    pub fn next_frame(&mut self) -> Result<Option<TimedPicture>, MediaError> {
        match self.0 {}
    }

    /// Moves to a time.
    pub fn seek(&mut self, _seconds: f64) -> Result<(), MediaError> {
        match self.0 {}
    }

    /// Moves to a time, unless told to stop.
    pub fn seek_unless(&mut self, _seconds: f64, _stop: &dyn Fn() -> bool) -> Result<bool, MediaError> {
        match self.0 {}
    }

    /// Moves forward to a time, unless told to stop.
    pub fn advance_unless(&mut self, _seconds: f64, _stop: &dyn Fn() -> bool) -> Result<bool, MediaError> {
        match self.0 {}
    }

    /// Moves to where decoding can begin.
    pub fn seek_near(&mut self, _seconds: f64) -> Result<Option<TimedPicture>, MediaError> {
        match self.0 {}
    }

    /// Things met while decoding.
    pub fn notices(&self) -> &[String] {
        match self.0 {}
    }
}

/// Never exists in a build without the feature `video`.
#[derive(Debug)]
pub struct SoundReader(std::convert::Infallible);

impl SoundReader {
    /// Always [`MediaError::NeedsVideoFeature`].
    pub fn open(
        path: &Path,
        _rate: u32,
        _channels: Channels,
        _limits: &VideoLimits,
    ) -> Result<Option<Self>, MediaError> {
        Err(MediaError::NeedsVideoFeature { path: path.to_path_buf(), what: "reading sound".into() })
    }

    /// The sound from a sample on.
    pub fn read(&mut self, _from: i64, _out: &mut [f32]) -> Result<(), MediaError> {
        match self.0 {}
    }
}

/// Always [`MediaError::NeedsVideoFeature`].
pub fn loudness(
    path: &Path,
    _per_second: u32,
    _limits: &VideoLimits,
    _stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<f32>>, MediaError> {
    Err(MediaError::NeedsVideoFeature { path: path.to_path_buf(), what: "reading sound".into() })
}
