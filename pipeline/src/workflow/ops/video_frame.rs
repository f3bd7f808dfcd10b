//! `video.frame`: one frame of a clip as a picture.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CLIP, Checks, Input, NodeOp, PICTURE_PORTS};
use crate::workflow::context::{NodeContext, RunError};
use crate::workflow::fields::{Link, PortKind};
use crate::workflow::forecast::{Shape, Work};
use crate::workflow::value::Value;

/// Takes one frame out of a clip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VideoFrame {
    /// The clip.
    pub video: Link,
    /// Which frame, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "maximum" = 100000))]
    pub index: Option<u32>,
    /// Which moment, in seconds; instead of `index`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "maximum" = 86400))]
    pub at: Option<f64>,
}

impl NodeOp for VideoFrame {
    fn inputs(&self) -> Vec<Input<'_>> {
        vec![Input::new("video", &self.video, CLIP)]
    }

    fn outputs(&self) -> &'static [(&'static str, PortKind)] {
        PICTURE_PORTS
    }

    fn check(&self, checks: &mut Checks<'_>) {
        if self.index.is_some() && self.at.is_some() {
            checks.field("at", "either \"index\" or \"at\"", "both", None);
        }
    }

    fn forecast(&self, inputs: &[(String, Shape)]) -> (Shape, Work) {
        let shape = Shape { frames: 1, ..Shape::first(inputs) };
        (shape, Work::decode(shape))
    }

    fn run(&self, context: &mut NodeContext<'_>) -> Result<Value, RunError> {
        let clip = context.clip_input("video")?;
        let (rate, base) = clip.fps();
        let index = match self.at {
            Some(seconds) => (seconds * f64::from(rate) / f64::from(base)).round() as usize,
            None => self.index.unwrap_or(0) as usize,
        };
        if index >= clip.frames() {
            let message = format!("the clip has frames 0 to {}, got frame {index}", clip.frames() - 1);
            return Err(RunError::input(message));
        }
        Ok(Value::picture(clip.frame(index)?))
    }
}
