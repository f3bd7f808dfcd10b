//! Which clips there are to play, and what is known of one.

use std::path::PathBuf;

use kinora_pipeline::media::VideoReader;
use kinora_pipeline::store::cache::CacheKey;
use kinora_pipeline::workflow::{Clip, frame_at};

/// Frame rate where a file does not say.
const USUAL_FPS: f64 = 25.0;

/// Which clip.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Film {
    /// The result of a node.
    Take(CacheKey),
    /// A file.
    File(PathBuf),
}

/// What is known of a clip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FilmInfo {
    /// Pixels.
    pub(crate) width: u32,
    /// Pixels.
    pub(crate) height: u32,
    /// Frames, at least 1.
    pub(crate) frames: usize,
    /// Frames per second.
    pub(crate) fps: f64,
}

impl FilmInfo {
    /// Length in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.frames as f64 / self.fps
    }

    /// The frame shown at a moment.
    pub(crate) fn frame_at(&self, seconds: f64) -> usize {
        frame_at(seconds, self.fps, self.frames)
    }
}

/// What a take says of itself.
pub(super) fn clip_info(clip: &Clip) -> FilmInfo {
    let (rate, base) = clip.fps();
    let fps = f64::from(rate) / f64::from(base.max(1));
    FilmInfo { width: clip.width(), height: clip.height(), frames: clip.frames().max(1), fps: sane(fps) }
}

/// What a file says of itself.
pub(super) fn file_info(reader: &VideoReader) -> FilmInfo {
    let info = reader.info();
    let fps = info.fps.map_or(USUAL_FPS, |(rate, base)| f64::from(rate) / f64::from(base.max(1)));
    let fps = sane(fps);
    let counted = info.frames.and_then(|frames| usize::try_from(frames).ok());
    let timed = info.seconds.map(|seconds| (seconds * fps).round() as usize);
    let frames = counted.or(timed).unwrap_or(1).max(1);
    FilmInfo { width: info.width, height: info.height, frames, fps }
}

fn sane(fps: f64) -> f64 {
    if fps.is_finite() && fps > 0.0 { fps.clamp(0.5, 240.0) } else { USUAL_FPS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_frames_agree() {
        let info = FilmInfo { width: 1, height: 1, frames: 48, fps: 23.976 };
        for frame in 0..48 {
            assert_eq!(info.frame_at(frame as f64 / info.fps), frame);
        }
        assert_eq!((info.frame_at(-1.0), info.frame_at(99.0)), (0, 47));
        assert!((info.seconds() - 2.002).abs() < 1e-3);
        assert_eq!((sane(f64::NAN), sane(0.0), sane(1e9)), (USUAL_FPS, USUAL_FPS, 240.0));
    }
}
