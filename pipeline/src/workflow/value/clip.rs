//! Frames with their rate and sound, and how they are kept.

use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Meta, Value, write_meta};
use crate::media::{ImageLimits, Picture, SOUND_RATE, read_picture, write_png};
use crate::store::atomic::AtomicError;
use crate::store::cache::{Cache, CacheKey, Draft, Entry};
use crate::workflow::context::RunError;

const SOUND: &str = "sound.f32";

/// Frames with their rate, on disk or put together on demand; only the frame asked for is in memory.
#[derive(Debug, Clone)]
pub struct Clip {
    frames: Arc<dyn Frames>,
    sound: Option<Arc<dyn Sound>>,
    pub(super) meta: ClipMeta,
}

/// Where the sound of a clip comes from.
pub(in crate::workflow) trait Sound: std::fmt::Debug + Send + Sync {
    /// Fills `out` with the sound from the sample `from` on, counted from the first frame: left and right in
    /// turn, [`SOUND_RATE`] of each a second; silence where there is none.
    fn read(&self, from: u64, out: &mut [f32]) -> Result<(), RunError>;
}

impl Sound for Entry {
    fn read(&self, from: u64, out: &mut [f32]) -> Result<(), RunError> {
        out.fill(0.0);
        let path = self.path().join(SOUND);
        let fail = |source| AtomicError::from_io("read", &path, source);
        let mut file = std::fs::File::open(&path).map_err(fail)?;
        file.seek(SeekFrom::Start(from.saturating_mul(8))).map_err(fail)?;
        let mut bytes = Vec::with_capacity(out.len() * 4);
        file.take(out.len() as u64 * 4).read_to_end(&mut bytes).map_err(fail)?;
        for (to, of) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *to = f32::from_le_bytes(*of);
        }
        Ok(())
    }
}

/// Where the frames of a clip come from.
pub(in crate::workflow) trait Frames: std::fmt::Debug + Send + Sync {
    /// One frame; `index` from 0 to below the clip's count.
    fn frame(&self, index: usize) -> Result<Picture, RunError>;
}

impl Frames for Entry {
    fn frame(&self, index: usize) -> Result<Picture, RunError> {
        Ok(read_picture(&self.path().join(frame_name(index)), &ImageLimits::default())?)
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct ClipMeta {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) frames: usize,
    pub(super) fps: (u32, u32),
    /// Whether its sound lies beside its frames.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    sound: bool,
}

fn frame_name(index: usize) -> String {
    format!("{index:06}.png")
}

impl Clip {
    /// The clip a node of this key made, if the cache still has it whole.
    pub fn open(cache: &Cache, key: &CacheKey) -> Option<Self> {
        match Value::load(&cache.get(key)?)? {
            Value::Clip(clip) => Some(clip),
            _ => None,
        }
    }

    /// The clip of an entry of the cache.
    pub(super) fn kept(entry: &Arc<Entry>, meta: ClipMeta) -> Self {
        let sound: Option<Arc<dyn Sound>> = if meta.sound { Some(Arc::<Entry>::clone(entry)) } else { None };
        Self { frames: Arc::<Entry>::clone(entry), sound, meta }
    }

    /// A clip whose frames, and sound if there is any, are put together when they are asked for.
    pub(in crate::workflow) fn composed(
        frames: Arc<dyn Frames>,
        sound: Option<Arc<dyn Sound>>,
        (width, height): (u32, u32),
        count: usize,
        fps: (u32, u32),
    ) -> Self {
        let meta = ClipMeta { width, height, frames: count.max(1), fps, sound: sound.is_some() };
        Self { frames, sound, meta }
    }

    /// Width of every frame in pixels.
    pub fn width(&self) -> u32 {
        self.meta.width
    }

    /// Height of every frame in pixels.
    pub fn height(&self) -> u32 {
        self.meta.height
    }

    /// How many frames, at least 1.
    pub fn frames(&self) -> usize {
        self.meta.frames
    }

    /// Frames per second as a fraction.
    pub fn fps(&self) -> (u32, u32) {
        self.meta.fps
    }

    /// Reads one frame; `index` from 0 to below [`Self::frames`].
    pub fn frame(&self, index: usize) -> Result<Picture, RunError> {
        self.frames.frame(index)
    }

    /// Whether it has sound.
    pub fn has_sound(&self) -> bool {
        self.sound.is_some()
    }

    /// Fills `out` with its sound from the sample `from` on, counted from its first frame: left and right in
    /// turn, [`SOUND_RATE`] of each a second; silence where there is none.
    pub fn sound(&self, from: u64, out: &mut [f32]) -> Result<(), RunError> {
        match &self.sound {
            Some(sound) => sound.read(from, out),
            None => {
                out.fill(0.0);
                Ok(())
            }
        }
    }
}

/// The sample of a clip's sound that begins with a frame, as a clip of that rate has it.
pub fn sample_at(frame: u64, (rate, base): (u32, u32)) -> u64 {
    let (frame, rate) = (u128::from(frame), u128::from(rate.max(1)));
    let samples = (frame * u128::from(SOUND_RATE) * u128::from(base) * 2 + rate) / (rate * 2);
    u64::try_from(samples).unwrap_or(u64::MAX)
}

/// The frame of `count` at `fps` that is seen at a moment of a clip, in seconds.
pub fn frame_at(seconds: f64, fps: f64, count: usize) -> usize {
    // A hair forward, so that a moment computed from a frame, and kept to a hundredth of a
    // millisecond, gives that frame.
    let frame = (seconds.max(0.0) * fps + 2.5e-3) as usize;
    frame.min(count.saturating_sub(1))
}

/// Receives the frames of a clip into the cache.
#[derive(Debug)]
pub struct ClipWriter {
    draft: Draft,
    fps: (u32, u32),
    size: Option<(u32, u32)>,
    frames: usize,
    sound: Option<BufWriter<std::fs::File>>,
}

impl ClipWriter {
    pub(in crate::workflow) fn new(draft: Draft, fps: (u32, u32)) -> Self {
        Self { draft, fps, size: None, frames: 0, sound: None }
    }

    /// Adds sound: left and right in turn, [`SOUND_RATE`] of each a second, from the first frame on.
    pub fn push_sound(&mut self, samples: &[f32]) -> Result<(), RunError> {
        let path = self.draft.path().join(SOUND);
        let fail = |source| AtomicError::from_io("write", &path, source);
        let file = match &mut self.sound {
            Some(file) => file,
            None => {
                let file = std::fs::File::create(&path).map_err(fail)?;
                self.sound.insert(BufWriter::with_capacity(1 << 16, file))
            }
        };
        for sample in samples {
            file.write_all(&sample.to_le_bytes()).map_err(fail)?;
        }
        Ok(())
    }

    /// Frames so far.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Adds a frame; all have the size of the first.
    pub fn push(&mut self, picture: &Picture) -> Result<(), RunError> {
        let got = (picture.width(), picture.height());
        let size = *self.size.get_or_insert(got);
        if size != got {
            return Err(RunError::input(format!(
                "frame {} is {}x{}, expected {}x{} like the first",
                self.frames, got.0, got.1, size.0, size.1
            )));
        }
        write_png(&self.draft.path().join(frame_name(self.frames)), picture, false)?;
        self.frames += 1;
        Ok(())
    }

    /// Seals the clip.
    pub fn finish(self) -> Result<Value, RunError> {
        let Some((width, height)) = self.size else {
            return Err(RunError::bug("a clip without frames was finished".into()));
        };
        let sound = self.sound.is_some();
        if let Some(mut file) = self.sound {
            let path = self.draft.path().join(SOUND);
            file.flush().map_err(|source| AtomicError::from_io("write", &path, source))?;
        }
        let meta = ClipMeta { width, height, frames: self.frames, fps: self.fps, sound };
        write_meta(&self.draft, &Meta::Clip(meta))?;
        Ok(Value::Clip(Clip::kept(&self.draft.commit()?, meta)))
    }
}

/// A rate as the fraction video files use: whole, NTSC's n·1000/1001, or thousandths.
pub fn rational_fps(fps: f64) -> (u32, u32) {
    let fps = fps.clamp(0.001, 1000.0);
    let whole = fps.round();
    let ntsc = (fps * 1.001).round();
    if (fps - whole).abs() < 1e-6 {
        (whole as u32, 1)
    } else if (fps - ntsc / 1.001).abs() < 2e-3 {
        (ntsc as u32 * 1000, 1001)
    } else {
        ((fps * 1000.0).round() as u32, 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_become_the_usual_fractions() {
        assert_eq!(rational_fps(8.0), (8, 1));
        assert_eq!(rational_fps(23.976), (24000, 1001));
        assert_eq!(rational_fps(29.97), (30000, 1001));
        assert_eq!(rational_fps(12.5), (12500, 1000));
    }

    #[test]
    fn a_frame_begins_at_the_nearest_sample() {
        assert_eq!([0, 1, 2, 3].map(|frame| sample_at(frame, (24, 1))), [0, 2000, 4000, 6000]);
        assert_eq!([1, 5, 30_000].map(|frame| sample_at(frame, (30_000, 1001))), [1602, 8008, 48_048_000]);
    }
}
