//! `video.load`: frames of a clip from a file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CLIP_PORTS, NodeOp};
use crate::media::{VideoLimits, VideoReader};
use crate::workflow::context::{NodeContext, RunError};
use crate::workflow::fields::PortKind;
use crate::workflow::forecast::{Shape, Work};
use crate::workflow::value::Value;

/// Frames per second when the file does not say.
const FALLBACK_FPS: (u32, u32) = (25, 1);

/// Loads a clip, or a stretch of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VideoLoad {
    /// The clip: anything FFmpeg reads from a file.
    #[schemars(length(min = 1))]
    pub path: String,
    /// Where to begin, in seconds.
    #[serde(default)]
    #[schemars(extend("minimum" = 0, "maximum" = 86400))]
    pub start: f64,
    /// How many frames; to the end (at most 100,000) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = 100000))]
    pub frames: Option<u32>,
}

impl NodeOp for VideoLoad {
    fn outputs(&self) -> &'static [(&'static str, PortKind)] {
        CLIP_PORTS
    }

    fn reads(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn forecast(&self, inputs: &[(String, Shape)]) -> (Shape, Work) {
        let file = Shape::of_file(inputs);
        let shape = Shape { frames: self.frames.map_or(file.frames, u64::from), ..file };
        (shape, Work::decode(shape).keeping_frames(shape))
    }

    fn run(&self, context: &mut NodeContext<'_>) -> Result<Value, RunError> {
        let path = context.file(&self.path)?;
        let mut reader = VideoReader::open(&path, &VideoLimits::default())?;
        let fps = reader.info().fps.unwrap_or(FALLBACK_FPS);
        for notice in reader.info().notices.clone() {
            context.notice(notice);
        }
        if self.start > 0.0 {
            reader.seek(self.start)?;
        }
        let wanted = self.frames.unwrap_or(100_000) as usize;
        let mut writer = context.clip(fps)?;
        while writer.frames() < wanted {
            context.poll()?;
            let Some(frame) = reader.next_frame()? else { break };
            writer.push(&frame.picture)?;
            context.step("frames", writer.frames(), self.frames.map_or(0, |frames| frames as usize));
        }
        let met = reader.info().notices.clone();
        for notice in reader.notices().iter().filter(|notice| !met.contains(notice)) {
            context.notice(notice.clone());
        }
        if writer.frames() == 0 {
            let message = format!("{:?} has no frame at {} seconds; begin earlier", self.path, self.start);
            return Err(RunError::input(message));
        }
        writer.finish()
    }
}
