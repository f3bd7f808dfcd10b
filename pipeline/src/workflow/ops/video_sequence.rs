//! `video.sequence`: clips over time as one clip.
//!
//! Frames are put together when they are asked for: nothing is kept that the clips do not have.

use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CLIP, CLIP_PORTS, Checks, Input, NodeOp};
use crate::media::{Picture, SOUND_RATE, resize};
use crate::workflow::context::{NodeContext, RunError};
use crate::workflow::error::Segment;
use crate::workflow::fields::{Link, PortKind};
use crate::workflow::forecast::{Shape, Work};
use crate::workflow::value::{Clip, Frames, Sound, Value, frame_at, rational_fps};

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
        let frames = inputs.iter().map(|(_, shape)| shape.frames).sum::<u64>().max(1);
        let shape = Shape { width, height, frames };
        // Frames are put together when they are saved, which counts that work.
        (shape, Work { units: 0.0, ..Work::decode(Shape { frames: 1, ..shape }) })
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
        let source =
            Arc::new(Composer { laid, size, fit: self.fit, fps: rate(fps), kept: Mutex::new(vec![]) });
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

/// A clip at its place.
#[derive(Debug)]
struct Laid {
    clip: Clip,
    at: f64,
    end: f64,
    from: f64,
    fades: (f64, f64),
    /// The fades of its sound.
    sound: (f64, f64),
    volume: f64,
}

/// Puts frames together.
#[derive(Debug)]
struct Composer {
    laid: Vec<Laid>,
    size: (u32, u32),
    fit: Fit,
    fps: f64,
    /// The latest frames as they were fitted: which clip, which frame.
    kept: Mutex<Vec<(usize, usize, Arc<Picture>)>>,
}

/// Fitted frames kept: a frame of a slow clip is shown several times, and two are under a fade.
const KEPT: usize = 3;

impl Composer {
    fn fitted(&self, which: usize, laid: &Laid, t: f64) -> Result<Arc<Picture>, RunError> {
        let index = frame_at(laid.from + (t - laid.at), rate(laid.clip.fps()), laid.clip.frames());
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., picture)) = lock().iter().find(|(clip, frame, _)| (*clip, *frame) == (which, index))
        {
            return Ok(Arc::clone(picture));
        }
        let picture = Arc::new(fitted(laid.clip.frame(index)?, self.size, self.fit)?);
        let mut kept = lock();
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((which, index, Arc::clone(&picture)));
        Ok(picture)
    }
}

impl Frames for Composer {
    fn frame(&self, index: usize) -> Result<Picture, RunError> {
        let t = index as f64 / self.fps;
        // From the top down to the first that lets nothing through.
        let mut layers = vec![];
        for (which, laid) in self.laid.iter().enumerate().rev() {
            if t < laid.at - MOMENT || t >= laid.end - MOMENT {
                continue;
            }
            let opacity = opacity(t, (laid.at, laid.end), laid.fades, self.fps);
            layers.push((self.fitted(which, laid, t)?, opacity));
            if opacity >= 1.0 {
                break;
            }
        }
        let (width, height) = self.size;
        let (mut out, above) = match layers.pop() {
            Some((bottom, opacity)) if opacity >= 1.0 => ((*bottom).clone(), layers),
            bottom => {
                let black = vec![0; width as usize * height as usize * 3];
                let black = Picture::new(width, height, black).map_err(|e| RunError::bug(e.to_string()))?;
                layers.extend(bottom);
                (black, layers)
            }
        };
        for (picture, opacity) in above.iter().rev() {
            lay_over(&mut out, picture, *opacity);
        }
        Ok(out)
    }
}

impl Sound for Composer {
    fn read(&self, from: u64, out: &mut [f32]) -> Result<(), RunError> {
        out.fill(0.0);
        let second = f64::from(SOUND_RATE);
        let mut part = vec![0.0; out.len()];
        for laid in self.laid.iter().filter(|laid| laid.clip.has_sound() && laid.volume > 0.0) {
            // Its first and last sample here, and its sample where its stretch begins.
            let place = |seconds: f64| (seconds * second).round() as u64;
            let (begin, end) = (place(laid.at), place(laid.end));
            let (first, last) = (begin.max(from), end.min(from + out.len() as u64 / 2));
            if first >= last {
                continue;
            }
            let part = part.get_mut(..(last - first) as usize * 2).unwrap_or_default();
            laid.clip.sound(place(laid.from) + (first - begin), part)?;
            let to = out.get_mut((first - from) as usize * 2..).unwrap_or_default();
            mix(to, part, |index| {
                let t = (first + index as u64) as f64 / second;
                laid.volume * loudness_at(t, (laid.at, laid.end), laid.sound)
            });
        }
        Ok(())
    }
}

/// Adds sound, left and right in turn, with the factor of each moment.
pub fn mix(to: &mut [f32], of: &[f32], factor: impl Fn(usize) -> f64) {
    for (index, (to, of)) in to.chunks_exact_mut(2).zip(of.chunks_exact(2)).enumerate() {
        let factor = factor(index) as f32;
        for (to, of) in to.iter_mut().zip(of) {
            *to += of * factor;
        }
    }
}

/// The factor of a clip's sound at `t` where it begins at `at`, ends at `end` and fades: a quarter of a sine,
/// so that two clips of which one fades in as the other fades out stay equally loud together.
pub fn loudness_at(t: f64, (at, end): (f64, f64), (fade_in, fade_out): (f64, f64)) -> f64 {
    let part = |seconds: f64, fade: f64| {
        if fade > MOMENT {
            ((seconds / fade).clamp(0.0, 1.0) * std::f64::consts::FRAC_PI_2).sin()
        } else {
            1.0
        }
    };
    part(t - at, fade_in).min(part(end - t, fade_out))
}

/// Mixes encoded values, as editors do for a dissolve.
fn lay_over(below: &mut Picture, above: &Picture, opacity: f64) {
    let weight = (opacity.clamp(0.0, 1.0) * 65536.0).round() as u32;
    for (b, a) in below.rgb_mut().iter_mut().zip(above.rgb()) {
        let mixed = (u32::from(*b) * (65536 - weight) + u32::from(*a) * weight + 32768) >> 16;
        *b = mixed.min(255) as u8;
    }
}

/// A picture as a frame of that size.
fn fitted(picture: Picture, (width, height): (u32, u32), fit: Fit) -> Result<Picture, RunError> {
    if (picture.width(), picture.height()) == (width, height) {
        return Ok(picture);
    }
    let across = f64::from(width) / f64::from(picture.width());
    let down = f64::from(height) / f64::from(picture.height());
    let scale = if fit == Fit::Contain { across.min(down) } else { across.max(down) };
    let side = |v: u32| ((f64::from(v) * scale).round() as u32).max(1);
    let scaled = resize(&picture, side(picture.width()), side(picture.height()));
    let (w, h) = (scaled.width().min(width), scaled.height().min(height));
    // Where the scaled picture is wider its middle is taken, else it is put in the middle.
    let take = ((scaled.width() - w) / 2, (scaled.height() - h) / 2);
    let put = ((width - w) / 2, (height - h) / 2);
    let mut rgb = vec![0; width as usize * height as usize * 3];
    for y in 0..h {
        let from = ((take.1 + y) as usize * scaled.width() as usize + take.0 as usize) * 3;
        let to = ((put.1 + y) as usize * width as usize + put.0 as usize) * 3;
        let count = w as usize * 3;
        if let (Some(source), Some(target)) =
            (scaled.rgb().get(from..from + count), rgb.get_mut(to..to + count))
        {
            target.copy_from_slice(source);
        }
    }
    Picture::new(width, height, rgb).map_err(|error| RunError::bug(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: u32, height: u32, value: u8) -> Picture {
        Picture::new(width, height, vec![value; (width * height * 3) as usize]).unwrap()
    }

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
    fn mixing_reaches_both_ends_exactly() {
        for (opacity, want) in [(0.0, 10), (1.0, 250), (0.5, 130)] {
            let mut below = grey(2, 1, 10);
            lay_over(&mut below, &grey(2, 1, 250), opacity);
            assert_eq!(below, grey(2, 1, want), "{opacity}");
        }
    }

    #[test]
    fn pictures_are_fitted_with_black_or_cut() {
        let wide = grey(40, 20, 200);
        let contained = fitted(wide.clone(), (20, 20), Fit::Contain).unwrap();
        let row = |picture: &Picture, y: usize| picture.rgb()[y * 20 * 3];
        assert_eq!([0, 4, 5, 14, 15].map(|y| row(&contained, y)), [0, 0, 200, 200, 0]);
        assert_eq!(fitted(wide.clone(), (20, 20), Fit::Cover).unwrap(), grey(20, 20, 200));
        assert_eq!(fitted(wide.clone(), (40, 20), Fit::Cover).unwrap(), wide);
        assert_eq!(fitted(grey(1, 1, 9), (3, 2), Fit::Cover).unwrap(), grey(3, 2, 9));
    }

    #[test]
    fn a_sequence_has_a_frame_for_every_begun_one() {
        assert_eq!(
            [0.0, 0.125, 0.126, 2.0, 1.0 / 3.0].map(|end| sequence_frames(end, 8.0)),
            [1, 1, 2, 16, 3]
        );
    }
}
