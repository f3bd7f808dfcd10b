//! `sequence.save`: a clip into a folder of pictures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::video_save::save_frames;
use super::{CLIP, Checks, FILE_PORTS, Input, NodeOp, extension_of};
use crate::media::{Codec, EncodeSpec, Quality};
use crate::workflow::context::{NodeContext, RunError};
use crate::workflow::fields::{Link, PortKind};
use crate::workflow::forecast::{Shape, Work};
use crate::workflow::value::Value;

/// Saves a clip as numbered PNG pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SequenceSave {
    /// The clip.
    pub video: Link,
    /// The folder to make.
    #[schemars(length(min = 1))]
    pub path: String,
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
    }

    fn writes(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn forecast(&self, inputs: &[(String, Shape)]) -> (Shape, Work) {
        let shape = Shape::first(inputs);
        (shape, Work::encode(shape).keeping_frames(shape))
    }

    fn run(&self, context: &mut NodeContext<'_>) -> Result<Value, RunError> {
        let dest = context.output(&self.path)?;
        let clip = context.clip_input("video")?;
        let spec = EncodeSpec {
            codec: Codec::PngSequence,
            width: clip.width(),
            height: clip.height(),
            fps: clip.fps(),
            quality: Quality::High,
            recipe: Some(context.recipe().to_owned()),
            overwrite: context.overwrite(),
        };
        save_frames(context, &clip, dest, &spec)
    }
}
