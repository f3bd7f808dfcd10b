//! `video.sequence`: clips over time as one clip.
//!
//! Frames are put together when they are asked for: nothing is kept that the clips do not have.

mod composer;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use composer::{loudness_at, mix};

use composer::{Composer, Laid};

use super::range::begins_late;
use super::{CLIP, CLIP_PORTS, Checks, Input, NodeOp};
use crate::workflow::context::{NodeContext, RunError};
use crate::workflow::error::{Finding, Segment};
use crate::workflow::fields::{Link, PortKind};
use crate::workflow::forecast::{Shape, Work};
use crate::workflow::value::{Clip, Sound, Value, rational_fps};

/// Frames of a sequence at most.
const MAX_FRAMES: f64 = 1e6;
/// Seconds below which two moments are one.
pub const MOMENT: f64 = 1e-4;

/// Lays clips out over time as one clip, with cuts, gaps and fades.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VideoSequence {
    /// The clips; where there are several at one moment, the last of them lies on top.
    #[schemars(length(min = 1, max = 4096))]
    pub clips: Vec<SequenceClip>,
    /// Frames per second; those of the fastest clip when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = 240))]
    pub fps: Option<f64>,
    /// Width of the frames in pixels, together with `height`; those of the first clip when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 16, "maximum" = 7680))]
    pub width: Option<u32>,
    /// Height of the frames in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 16, "maximum" = 7680))]
    pub height: Option<u32>,
    /// How a clip of another shape fills the frames.
    #[serde(default)]
    pub fit: Fit,
}

/// A stretch of a clip at a moment of the sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SequenceClip {
    /// The clip.
    pub video: Link,
    /// Where it begins in the sequence, in seconds; when absent where the clip before it ends, or
    /// `fade_in` seconds earlier, so that one fades into the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "maximum" = 86400))]
    pub at: Option<f64>,
    /// Seconds of the clip that are left out before it.
    #[serde(default)]
    #[schemars(extend("minimum" = 0, "maximum" = 86400))]
    pub from: f64,
    /// The second of the clip where it ends; beyond the clip's end its last frame stays. The end of
    /// the clip when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "maximum" = 86400))]
    pub to: Option<f64>,
    /// Seconds over which it appears from what lies under it, or from black.
    #[serde(default, skip_serializing_if = "is_nothing")]
    #[schemars(extend("minimum" = 0, "maximum" = 60))]
    pub fade_in: f64,
    /// Seconds over which it gives way to what lies under it, or to black.
    #[serde(default, skip_serializing_if = "is_nothing")]
    #[schemars(extend("minimum" = 0, "maximum" = 60))]
    pub fade_out: f64,
    /// Seconds over which its sound alone gives way at its end, where another clip appears out of it.
    #[serde(default, skip_serializing_if = "is_nothing")]
    #[schemars(extend("minimum" = 0, "maximum" = 60))]
    pub sound_out: f64,
    /// How loud its sound is, as a factor; fades take it along. Sounds of clips at one moment add up,
    /// whatever lies on top.
    #[serde(default = "as_it_is", skip_serializing_if = "is_as_it_is")]
    #[schemars(extend("minimum" = 0, "maximum" = 4))]
    pub volume: f64,
}

fn as_it_is() -> f64 {
    1.0
}

fn is_as_it_is(volume: &f64) -> bool {
    *volume == 1.0
}

/// How a picture of one shape fills a frame of another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Whole, with black beside it.
    #[default]
    Contain,
    /// Without black, cut off at two sides.
    Cover,
}

fn is_nothing(seconds: &f64) -> bool {
    *seconds == 0.0
}

/// Opacity at `t` of what begins at `at`, ends at `end` and fades, for a frame of `1 / fps` seconds.
pub fn opacity(t: f64, (at, end): (f64, f64), (fade_in, fade_out): (f64, f64), fps: f64) -> f64 {
    let half = 0.5 / fps.max(1e-3);
    // The middle of the frame counts, so that a fade begins neither with nothing nor with all.
    let part = |seconds: f64, fade: f64| if fade > MOMENT { (seconds / fade).clamp(0.0, 1.0) } else { 1.0 };
    part(t - at + half, fade_in).min(part(end - t - half, fade_out))
}

impl VideoSequence {
    /// Frames and rate, as far as they are known before it runs.
    fn length(&self, inputs: &[(String, Shape)]) -> Shape {
        let sum = inputs.iter().map(|(_, shape)| shape.frames).sum::<u64>().max(1);
        let unknown = Shape { frames: sum, rate: 0, ..Shape::first(inputs) };
        let fastest = inputs.iter().filter_map(|(_, shape)| shape.fps()).fold(0.0, f64::max);
        let fps = self.fps.unwrap_or(fastest);
        let (mut open, mut end) = (0.0f64, 0.0f64);
        for (place, (_, shape)) in self.clips.iter().zip(inputs) {
            let own = || shape.fps().map(|fps| shape.frames as f64 / fps);
            let Some(to) = place.to.or_else(own) else { return unknown };
            open = place.at.unwrap_or_else(|| (open - place.fade_in).max(0.0)) + (to - place.from).max(0.0);
            end = end.max(open);
        }
        if fps <= 0.0 {
            return unknown;
        }
        Shape { frames: sequence_frames(end, fps) as u64, ..unknown }.at_rate(fps)
    }
}

impl NodeOp for VideoSequence {
    fn inputs(&self) -> Vec<Input<'_>> {
        let clips = self.clips.iter().enumerate();
        clips.map(|(index, clip)| Input::item("clips", index, &clip.video, CLIP).then("video")).collect()
    }

    fn outputs(&self) -> &'static [(&'static str, PortKind)] {
        CLIP_PORTS
    }

    fn check(&self, checks: &mut Checks<'_>) {
        for (index, clip) in self.clips.iter().enumerate() {
            if clip.to.is_some_and(|to| to <= clip.from) {
                let at = [Segment::Key("clips".into()), Segment::Index(index), Segment::Key("to".into())];
                let found = clip.to.unwrap_or_default().to_string();
                checks.refuse(&at, &format!("a moment after \"from\", which is {}", clip.from), &found, None);
            }
        }
        if self.width.is_some() != self.height.is_some() {
            let (missing, there) =
                if self.width.is_some() { ("height", "width") } else { ("width", "height") };
            let help = "leave both out for the size of the first clip";
            checks.field(missing, &format!("a {missing}, as there is a {there}"), "none", Some(help));
        }
    }

    fn forecast(&self, inputs: &[(String, Shape)]) -> (Shape, Work) {
        let first = Shape::first(inputs);
        let (width, height) = match (self.width, self.height) {
            (Some(width), Some(height)) => (u64::from(width), u64::from(height)),
            _ => (first.width, first.height),
        };
        let shape = Shape { width, height, ..self.length(inputs) };
        // Frames are put together when they are saved, which counts that work.
        (shape, Work { units: 0.0, ..Work::decode(Shape { frames: 1, ..shape }) })
    }

    fn shape_check(&self, inputs: &[(String, Shape)]) -> Option<Finding> {
        self.clips.iter().zip(inputs).enumerate().find_map(|(index, (clip, (_, shape)))| {
            let at = [Segment::Key("clips".into()), Segment::Index(index), Segment::Key("from".into())];
            begins_late(*shape, clip.from, &at)
        })
    }

    fn run(&self, context: &mut NodeContext<'_>) -> Result<Value, RunError> {
        let mut laid: Vec<Laid> = vec![];
        let mut open = 0.0f64;
        for (index, place) in self.clips.iter().enumerate() {
            let clip = context.clip_input(&format!("clips[{index}].video"))?;
            let seconds = clip.frames() as f64 / rate(clip.fps());
            let to = place.to.unwrap_or(seconds);
            if place.from > seconds - MOMENT || to <= place.from {
                let name = &place.video;
                let message = format!(
                    "clips[{index}]: {name} is {seconds:.3} s long; expected \"from\" before its end, got {}",
                    place.from
                );
                return Err(RunError::input(message));
            }
            let at = place.at.unwrap_or_else(|| (open - place.fade_in).max(0.0));
            open = at + to - place.from;
            let fades = (place.fade_in, place.fade_out);
            let sound = (place.fade_in, place.fade_out.max(place.sound_out));
            laid.push(Laid { clip, at, end: open, from: place.from, fades, sound, volume: place.volume });
        }
        let Some(first) = laid.first() else { return Err(RunError::input("a sequence without clips")) };
        let fastest = laid.iter().map(|laid| laid.clip.fps()).max_by(|a, b| rate(*a).total_cmp(&rate(*b)));
        let fps = self.fps.map(rational_fps).or(fastest).unwrap_or((24, 1));
        let size = match (self.width, self.height) {
            (Some(width), Some(height)) => (width, height),
            _ => (first.clip.width(), first.clip.height()),
        };
        let end = laid.iter().fold(0.0f64, |end, laid| end.max(laid.end));
        let frames = sequence_frames(end, rate(fps));
        if frames as f64 > MAX_FRAMES {
            let message = format!("the sequence has {frames} frames; expected at most {MAX_FRAMES:.0}");
            return Err(RunError::input(message));
        }
        let sounding = laid.iter().any(|laid| laid.clip.has_sound() && laid.volume > 0.0);
        let source = Arc::new(Composer::new(laid, size, self.fit, rate(fps)));
        let sound: Option<Arc<dyn Sound>> =
            if sounding { Some(Arc::<Composer>::clone(&source)) } else { None };
        Ok(Value::Clip(Clip::composed(source, sound, size, frames, fps)))
    }
}

/// Frames of a sequence that ends at a moment: a frame for every begun one.
pub fn sequence_frames(end: f64, fps: f64) -> usize {
    ((end * fps - 1e-6).ceil().max(1.0)) as usize
}

fn rate((rate, base): (u32, u32)) -> f64 {
    f64::from(rate) / f64::from(base.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fade_is_even_about_its_middle() {
        // Half a second at eight frames a second: four frames.
        let at = |frame: u32| opacity(f64::from(frame) / 8.0, (0.0, 2.0), (0.5, 0.25), 8.0);
        let seen: Vec<f64> = (0..16).map(at).collect();
        assert_eq!(seen[..5], [0.125, 0.375, 0.625, 0.875, 1.0]);
        assert_eq!(seen[13..], [1.0, 0.75, 0.25]);
        assert!((opacity(0.0, (0.0, 1.0), (0.0, 0.0), 8.0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_sequence_has_a_frame_for_every_begun_one() {
        assert_eq!(
            [0.0, 0.125, 0.126, 2.0, 1.0 / 3.0].map(|end| sequence_frames(end, 8.0)),
            [1, 1, 2, 16, 3]
        );
    }
}
