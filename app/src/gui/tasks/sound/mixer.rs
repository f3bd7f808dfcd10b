//! Puts sound together: files at their places, faded, at any speed of J-K-L.

use std::path::{Path, PathBuf};

use kinora_pipeline::media::{Channels, SoundReader, VideoLimits};
use kinora_pipeline::workflow::ops::{loudness_at, mix};

use super::Score;

/// Moments mixed at once.
const BLOCK: u64 = 2048;
/// Files that stay open.
const OPEN: usize = 8;

/// Reads and mixes.
#[derive(Debug, Default)]
pub(super) struct Mixer {
    /// The latest last; none for files without sound.
    readers: Vec<(PathBuf, u32, Option<SoundReader>)>,
}

impl Mixer {
    /// The block of a run from `begun` at `speed` that comes after `mixed` moments: left and right in turn,
    /// `rate` of each a second. Faster play takes the mean of what it passes over.
    pub(super) fn block(&mut self, score: &Score, begun: f64, speed: f64, mixed: u64, rate: u32) -> Vec<f32> {
        // J and L only ever double: a whole number of moments become one.
        let step = speed.abs().round().max(1.0) as i64;
        let start = (begun * f64::from(rate)).round() as i64;
        let (passed, count) = (mixed as i64 * step, BLOCK as i64 * step);
        let first = if speed < 0.0 { start - passed - count } else { start + passed };
        let whole = self.stretch(score, first, count as usize, rate);
        let mut out = Vec::with_capacity(BLOCK as usize * 2);
        for moments in whole.chunks_exact(step as usize * 2) {
            for channel in 0..2 {
                let sum: f32 = moments.iter().skip(channel).step_by(2).sum();
                out.push(sum / step as f32);
            }
        }
        if speed < 0.0 {
            out = out.chunks_exact(2).rev().flatten().copied().collect();
        }
        out
    }

    /// Everything that sounds from the moment `first` on, `count` moments of it.
    fn stretch(&mut self, score: &Score, first: i64, count: usize, rate: u32) -> Vec<f32> {
        let mut out = vec![0.0; count * 2];
        let mut part = vec![];
        let second = f64::from(rate);
        let place = |seconds: f64| (seconds * second).round() as i64;
        for piece in score {
            let (begin, end) = (place(piece.span.0), place(piece.span.1));
            let (from, to) = (begin.max(first), end.min(first + count as i64));
            if from >= to || piece.volume <= 0.0 {
                continue;
            }
            let Some(reader) = self.reader(&piece.path, rate) else { continue };
            part.clear();
            part.resize((to - from) as usize * 2, 0.0);
            if let Err(error) = reader.read(place(piece.from) + (from - begin), &mut part) {
                tracing::warn!("a sound cannot be played: {error}");
                self.give_up(&piece.path);
                continue;
            }
            let target = out.get_mut((from - first) as usize * 2..).unwrap_or_default();
            mix(target, &part, |index| {
                piece.volume * loudness_at((from + index as i64) as f64 / second, piece.span, piece.fades)
            });
        }
        out
    }

    fn reader(&mut self, path: &Path, rate: u32) -> Option<&mut SoundReader> {
        if let Some(at) = self.readers.iter().position(|(known, of, _)| known == path && *of == rate) {
            let kept = self.readers.remove(at);
            self.readers.push(kept);
        } else {
            let opened = SoundReader::open(path, rate, Channels::Stereo, &VideoLimits::default());
            let reader = opened.unwrap_or_else(|error| {
                tracing::warn!("a sound cannot be played: {error}");
                None
            });
            if self.readers.len() >= OPEN {
                self.readers.remove(0);
            }
            self.readers.push((path.to_path_buf(), rate, reader));
        }
        self.readers.last_mut()?.2.as_mut()
    }

    fn give_up(&mut self, path: &Path) {
        for (known, _, reader) in &mut self.readers {
            if known == path {
                *reader = None;
            }
        }
    }
}
