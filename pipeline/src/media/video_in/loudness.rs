//! How loud a clip's sound is over time, for drawing it.

use std::path::Path;

use super::{Channels, SoundReader};
use crate::media::error::MediaError;
use crate::media::limits::VideoLimits;

/// Samples a second that loudness is taken from: enough for what a drawing shows.
const RATE: u32 = 8000;

/// The loudest sample, 0..=1, of each of `per_second` stretches of every second of a file's first
/// sound stream; `None` when it has none. Packets are read one at a time and none is kept.
///
/// `stop` is asked now and then; what was read until then is given.
///
/// # Errors
/// The file cannot be opened within `limits`, or its sound cannot be decoded.
pub fn loudness(
    path: &Path,
    per_second: u32,
    limits: &VideoLimits,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<f32>>, MediaError> {
    let Some(mut reader) = SoundReader::open(path, RATE, Channels::Mono, limits)? else { return Ok(None) };
    if stop() {
        return Ok(Some(vec![]));
    }
    let most = (limits.max_seconds * f64::from(per_second)) as usize;
    let stretch = (RATE / per_second.clamp(1, RATE)) as usize;
    let (mut out, mut held, mut loudest) = (vec![], 0, 0.0f32);
    reader.stream(|samples| {
        for &sample in samples {
            loudest = loudest.max(sample.abs().min(1.0));
            held += 1;
            if held >= stretch {
                out.push(loudest);
                (held, loudest) = (0, 0.0);
            }
        }
        out.len() < most && !stop()
    })?;
    if held > 0 {
        out.push(loudest);
    }
    out.truncate(most);
    Ok(Some(out))
}
