//! `sequence.save`: a clip into a folder of pictures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::range;
use super::video_save::{is_nothing, save_frames};
use super::{CLIP, Checks, FILE_PORTS, Input, NodeOp, extension_of};
use crate::media::{Codec, EncodeSpec, Quality};
use crate::workflow::context::{NodeContext, RunError};
use crate::workflow::error::Finding;
use crate::workflow::fields::{Link, PortKind};
use crate::workflow::forecast::{Shape, Work};
use crate::workflow::value::Value;

/// Saves a clip as numbered pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SequenceSave {
    /// The clip.
    pub video: Link,
    /// The folder to make.
    #[schemars(length(min = 1))]
    pub path: String,
    /// What each picture is stored as.
    #[serde(default, skip_serializing_if = "is_png")]
    pub format: FrameFormat,
    /// The second of the clip from which on it is saved: frames that begin there or later.
    #[serde(default, skip_serializing_if = "is_nothing")]
    #[schemars(extend("minimum" = 0, "maximum" = 86400))]
    pub from: f64,
    /// The second of the clip before which the last saved frame begins; the clip's end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "maximum" = 86400))]
    pub to: Option<f64>,
}

/// How a picture of a sequence is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FrameFormat {
    /// PNG: 8 bits, sRGB.
    #[default]
    Png,
    /// OpenEXR: half floats in linear light, for compositing.
    Exr,
}

fn is_png(format: &FrameFormat) -> bool {
    *format == FrameFormat::Png
}

impl NodeOp for SequenceSave {
    fn inputs(&self) -> Vec<Input<'_>> {
        vec![Input::new("video", &self.video, CLIP)]
    }

    fn outputs(&self) -> &'static [(&'static str, PortKind)] {
        FILE_PORTS
    }

    fn check(&self, checks: &mut Checks<'_>) {
        if !extension_of(&self.path).is_empty() {
            let found = format!("\"{}\"", crate::workflow::shape::short(&self.path));
            let help = "the pictures are named by their number; video.save writes single files";
            checks.field("path", "the name of a folder, without an extension", &found, Some(help));
        }
        range::check(checks, self.from, self.to);
    }

    fn writes(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn forecast(&self, inputs: &[(String, Shape)]) -> (Shape, Work) {
        let shape = range::shape(Shape::first(inputs), self.from, self.to);
        (shape, Work::encode(shape).keeping_frames(shape))
    }

    fn shape_check(&self, inputs: &[(String, Shape)]) -> Option<Finding> {
        range::shape_check(inputs, self.from)
    }

    fn run(&self, context: &mut NodeContext<'_>) -> Result<Value, RunError> {
        let dest = context.output(&self.path)?;
        let clip = context.clip_input("video")?;
        let frames = range::frames_of(&clip, self.from, self.to)?;
        let spec = EncodeSpec {
            codec: match self.format {
                FrameFormat::Png => Codec::PngSequence,
                FrameFormat::Exr => Codec::ExrSequence,
            },
            width: clip.width(),
            height: clip.height(),
            fps: clip.fps(),
            quality: Quality::High,
            colour: None,
            sound: false,
            recipe: Some(context.recipe().to_owned()),
            overwrite: context.overwrite(),
        };
        save_frames(context, &clip, frames, dest, &spec)
    }
}
