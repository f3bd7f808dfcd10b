//! `video.save`: a clip into a video file.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::range;
use super::{CLIP, Checks, FILE_PORTS, Input, NUMBER, NodeOp};
use crate::media::{Codec, Colour, EncodeSpec, Quality, create_sink, crop};
use crate::workflow::context::{NodeContext, RunError};
use crate::workflow::error::Finding;
use crate::workflow::fields::{Link, Number, PortKind};
use crate::workflow::forecast::{Shape, Work};
use crate::workflow::value::{Digester, Value, rational_fps, sample_at};

/// Saves a clip as one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VideoSave {
    /// The clip.
    pub video: Link,
    /// The file; its extension chooses the format.
    #[schemars(length(min = 1))]
    pub path: String,
    /// The codec; the usual one of the extension when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<SaveCodec>,
    /// How much detail the encoder keeps.
    #[serde(default)]
    pub quality: Quality,
    /// Frames per second; the clip's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = 240))]
    pub fps: Option<Number>,
    /// The second of the clip from which on it is saved: frames that begin there or later.
    #[serde(default, skip_serializing_if = "is_nothing")]
    #[schemars(extend("minimum" = 0, "maximum" = 86400))]
    pub from: f64,
    /// The second of the clip before which the last saved frame begins; the clip's end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "maximum" = 86400))]
    pub to: Option<f64>,
    /// How colours are stored and tagged; as the format usually does when absent: `bt709`, and `srgb` for
    /// FFV1, GIF and WebP. ProRes takes `bt709` and `bt601`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colour: Option<Colour>,
}

pub(super) fn is_nothing(seconds: &f64) -> bool {
    *seconds == 0.0
}

/// The codecs a clip can be saved with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SaveCodec {
    /// H.264, plays everywhere (.mp4, .mov, .mkv).
    H264,
    /// H.265 (.mp4, .mov, .mkv).
    H265,
    /// ProRes 422 HQ for editing (.mov).
    ProRes,
    /// VP9 (.webm, .mkv).
    Vp9,
    /// AV1 (.mp4, .mkv, .webm).
    Av1,
    /// FFV1, lossless (.mkv).
    Ffv1,
    /// GIF (.gif).
    Gif,
    /// Animated WebP (.webp).
    Webp,
}

impl SaveCodec {
    /// The format family.
    pub fn media(self) -> Codec {
        match self {
            Self::H264 => Codec::H264,
            Self::H265 => Codec::H265,
            Self::ProRes => Codec::ProRes,
            Self::Vp9 => Codec::Vp9,
            Self::Av1 => Codec::Av1,
            Self::Ffv1 => Codec::Ffv1,
            Self::Gif => Codec::Gif,
            Self::Webp => Codec::WebpAnimation,
        }
    }
}

impl VideoSave {
    /// The format family it is saved in; none where the extension says none.
    pub fn family(&self) -> Option<Codec> {
        self.codec.map(SaveCodec::media).or_else(|| Codec::from_path(Path::new(&self.path)))
    }
}

impl NodeOp for VideoSave {
    fn inputs(&self) -> Vec<Input<'_>> {
        let mut inputs = vec![Input::new("video", &self.video, CLIP)];
        let fps = self.fps.as_ref().and_then(Number::link);
        inputs.extend(fps.map(|link| Input::new("fps", link, NUMBER)));
        inputs
    }

    fn outputs(&self) -> &'static [(&'static str, PortKind)] {
        FILE_PORTS
    }

    fn check(&self, checks: &mut Checks<'_>) {
        match self.family() {
            None | Some(Codec::PngSequence | Codec::ExrSequence) => {
                checks.extension(&self.path, &["mp4", "mov", "mkv", "webm", "gif", "webp"]);
            }
            Some(codec) => checks.extension(&self.path, codec.extensions()),
        }
        range::check(checks, self.from, self.to);
        if let (Some(colour), Some(codec)) = (self.colour, self.family())
            && !codec.colours().contains(&colour)
        {
            let names: Vec<String> = codec.colours().iter().map(|c| format!("\"{}\"", c.name())).collect();
            let expected = format!("one of {}, as this format stores colours", names.join(", "));
            let help = "leave it out for the usual way of the format";
            checks.field("colour", &expected, &format!("\"{}\"", colour.name()), Some(help));
        }
        if matches!(self.fps, Some(Number::Keyed(_))) {
            checks.field("fps", "one rate for the whole clip", "keyframes", None);
        }
    }

    fn writes(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn forecast(&self, inputs: &[(String, Shape)]) -> (Shape, Work) {
        let shape = range::shape(Shape::first(inputs), self.from, self.to);
        (shape, Work::encode(shape))
    }

    fn shape_check(&self, inputs: &[(String, Shape)]) -> Option<Finding> {
        range::shape_check(inputs, self.from)
    }

    fn run(&self, context: &mut NodeContext<'_>) -> Result<Value, RunError> {
        let dest = context.output(&self.path)?;
        let clip = context.clip_input("video")?;
        let frames = range::frames_of(&clip, self.from, self.to)?;
        let fps = match &self.fps {
            Some(number) => {
                let linked = number.link().map(|_| context.number_input("fps")).transpose()?;
                rational_fps(number.at(0.0, linked))
            }
            None => clip.fps(),
        };
        let codec = self
            .family()
            .ok_or_else(|| RunError::input(format!("{:?} has no known video extension", self.path)))?;
        let (width, height) = storable(codec, clip.width(), clip.height());
        if (width, height) != (clip.width(), clip.height()) {
            context.notice(format!(
                "the clip is {}x{} and this codec needs even sides; saved as {width}x{height}",
                clip.width(),
                clip.height()
            ));
        }
        let sound = clip.has_sound() && codec.has_sound();
        if sound && fps != clip.fps() {
            context.notice("the clip is saved at another rate than its own, so its sound is left out".into());
        }
        let spec = EncodeSpec {
            codec,
            width,
            height,
            fps,
            quality: self.quality,
            colour: self.colour,
            sound: sound && fps == clip.fps(),
            recipe: Some(context.recipe().to_owned()),
            overwrite: context.overwrite(),
        };
        save_frames(context, &clip, frames, dest, &spec)
    }
}

/// The size a codec that keeps colour at half size can take: odd sides lose their last line.
fn storable(codec: Codec, width: u32, height: u32) -> (u32, u32) {
    let even = |side: u32| if side > 1 { side & !1 } else { side };
    match codec {
        Codec::H264 | Codec::H265 | Codec::Vp9 | Codec::Av1 => (even(width), even(height)),
        Codec::ProRes => (even(width), height),
        _ => (width, height),
    }
}

/// Streams frames of a clip into a sink; shared with `sequence.save`.
pub(super) fn save_frames(
    context: &mut NodeContext<'_>,
    clip: &crate::workflow::value::Clip,
    frames: std::ops::Range<usize>,
    dest: std::path::PathBuf,
    spec: &EncodeSpec,
) -> Result<Value, RunError> {
    let mut digest = Digester::default();
    let mut sink = create_sink(&dest, spec)?;
    let mut sound = vec![];
    let (first, count) = (frames.start, frames.len());
    for index in frames {
        context.poll()?;
        let mut frame = clip.frame(index)?;
        if (frame.width(), frame.height()) != (spec.width, spec.height) {
            frame = crop(&frame, 0, 0, spec.width, spec.height);
        }
        digest.picture(&frame);
        sink.write(&frame)?;
        if spec.sound {
            let (from, to) = (sample_at(index as u64, spec.fps), sample_at(index as u64 + 1, spec.fps));
            sound.resize(to.saturating_sub(from) as usize * 2, 0.0);
            clip.sound(from, &mut sound)?;
            digest.sound(&sound);
            sink.sound(&sound)?;
        }
        context.step("encode", index - first + 1, count);
    }
    let written = sink.finish()?;
    if written.frames != count as u64 {
        return Err(RunError::bug(format!("{} of {count} frames were written", written.frames)));
    }
    context.wrote(dest, count, digest.finish())
}
