//! The part of a clip that is saved.

use std::ops::Range;

use super::Checks;
use crate::workflow::context::RunError;
use crate::workflow::error::{FieldPath, Finding, ProblemKind, Segment};
use crate::workflow::forecast::Shape;
use crate::workflow::value::Clip;

/// Frames a moment may lie beside the beginning of one, and still be taken for it: moments are kept to a
/// hundredth of a millisecond.
const BESIDE: f64 = 2.5e-3;

/// The frames, of `count` at `fps`, that begin at or after `from` and before `to`, in seconds; to the end
/// of the clip without `to`. Empty where there is none.
///
/// Two ranges of which one begins where the other ends share no frame and leave none out.
pub fn saved_frames(from: f64, to: Option<f64>, fps: f64, count: usize) -> Range<usize> {
    let index = |seconds: f64| ((seconds * fps - BESIDE).ceil().max(0.0) as usize).min(count);
    let first = index(from);
    first..to.map_or(count, index).max(first)
}

/// Refuses a range that ends before it begins.
pub(super) fn check(checks: &mut Checks<'_>, from: f64, to: Option<f64>) {
    if let Some(to) = to.filter(|to| *to <= from) {
        let at = [Segment::Key("to".into())];
        checks.refuse(&at, &format!("a moment after \"from\", which is {from}"), &to.to_string(), None);
    }
}

/// Refuses a range that begins after the clip's end, as far as that can be known before the clip is there.
/// The length of a file may be a guess from its header, so less than a second after it is left to
/// [`frames_of`].
pub(super) fn shape_check(inputs: &[(String, Shape)], from: f64) -> Option<Finding> {
    let (_, shape) = inputs.first()?;
    begins_late(*shape, from, &[Segment::Key("from".into())])
}

/// What is wrong where a clip of `shape` is used from a moment on, said in the field `at`.
pub(super) fn begins_late(shape: Shape, from: f64, at: &[Segment]) -> Option<Finding> {
    let length = shape.frames as f64 / shape.fps()?;
    if from < length + 1.0 {
        return None;
    }
    let expected = format!("a moment before the end of the clip, which is {length:.3} s long");
    Some(Finding::new(ProblemKind::Range, FieldPath(at.to_vec()), expected, from.to_string()))
}

/// The frames of `clip` to save.
pub(super) fn frames_of(clip: &Clip, from: f64, to: Option<f64>) -> Result<Range<usize>, RunError> {
    let (rate, base) = clip.fps();
    let fps = f64::from(rate) / f64::from(base.max(1));
    let frames = saved_frames(from, to, fps, clip.frames());
    if !frames.is_empty() {
        return Ok(frames);
    }
    let length = clip.frames() as f64 / fps;
    let until = to.map_or_else(|| "its end".to_owned(), |to| format!("{to} s"));
    Err(RunError::input(format!(
        "the clip is {length:.3} s long at {fps:.3} frames a second; expected a range in which at least one \
         of its frames begins, got {from} s to {until}"
    )))
}

/// The shape of what is saved of a clip of `shape`.
pub(super) fn shape(shape: Shape, from: f64, to: Option<f64>) -> Shape {
    let Some(fps) = shape.fps() else { return shape };
    let count = usize::try_from(shape.frames).unwrap_or(usize::MAX);
    Shape { frames: saved_frames(from, to, fps, count).len().max(1) as u64, ..shape }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_the_frames_that_begin_in_it() {
        assert_eq!(saved_frames(0.0, None, 8.0, 16), 0..16);
        assert_eq!(saved_frames(0.5, Some(1.0), 8.0, 16), 4..8);
        assert_eq!(saved_frames(0.51, Some(1.01), 8.0, 16), 5..9, "off the grid: what begins within");
        assert_eq!(saved_frames(1.5, Some(9.0), 8.0, 16), 12..16, "no further than the clip");
        assert!(
            saved_frames(2.0, None, 8.0, 16).is_empty() && saved_frames(0.51, Some(0.6), 8.0, 16).is_empty()
        );
    }

    #[test]
    fn neighbouring_ranges_share_no_frame_at_any_rate() {
        for fps in [8.0, 12.0, 24000.0 / 1001.0, 25.0, 30000.0 / 1001.0, 60.0, 240.0] {
            for frame in 0..=480usize {
                // As a document keeps the beginning of a frame.
                let cut = (frame as f64 / fps * 1e5).round() / 1e5;
                assert_eq!(saved_frames(0.0, Some(cut), fps, 480), 0..frame, "{fps}");
                assert_eq!(saved_frames(cut, None, fps, 480), frame..480, "{fps}");
            }
        }
    }
}
