//! `video.load`: frames of a clip from a file.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CLIP_PORTS, NodeOp};
use crate::media::{Channels, SOUND_RATE, SoundReader, VideoLimits, VideoReader};
use crate::workflow::context::{NodeContext, RunError};
use crate::workflow::fields::PortKind;
use crate::workflow::forecast::{Shape, Work};
use crate::workflow::value::{ClipWriter, Value, sample_at};

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
    fn version(&self) -> u32 {
        2
    }

    fn outputs(&self) -> &'static [(&'static str, PortKind)] {
        CLIP_PORTS
    }

    fn reads(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn forecast(&self, inputs: &[(String, Shape)]) -> (Shape, Work) {
        let file = Shape::of_file(inputs);
        let before = file.fps().map_or(0, |fps| (self.start * fps) as u64);
        let left = file.frames.saturating_sub(before).max(1);
        // A file whose length is not known may well have as many as are asked for.
        let frames = match (self.frames.map(u64::from), file.rate) {
            (Some(wanted), 0) => wanted,
            (Some(wanted), _) => wanted.min(left),
            (None, _) => left,
        };
        let shape = Shape { frames, ..file };
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
        let mut first = None;
        while writer.frames() < wanted {
            context.poll()?;
            let Some(frame) = reader.next_frame()? else { break };
            writer.push(&frame.picture)?;
            first.get_or_insert(frame.seconds);
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
        take_sound(context, &path, first.unwrap_or(self.start), &mut writer, fps)?;
        writer.finish()
    }
}

/// Puts the sound of a file, from a second on and as long as the frames last, beside them. Sound that cannot
/// be read is said and left out: the frames are there.
fn take_sound(
    context: &mut NodeContext<'_>,
    path: &Path,
    start: f64,
    writer: &mut ClipWriter,
    fps: (u32, u32),
) -> Result<(), RunError> {
    let opened = SoundReader::open(path, SOUND_RATE, Channels::Stereo, &VideoLimits::default());
    let mut reader = match opened {
        Ok(Some(reader)) => reader,
        Ok(None) => return Ok(()),
        Err(error) => {
            context.notice(format!("its sound is left out: {error}"));
            return Ok(());
        }
    };
    let from = (start * f64::from(SOUND_RATE)).round() as i64;
    let count = sample_at(writer.frames() as u64, fps);
    let mut block = vec![0.0; SOUND_RATE as usize * 2];
    let mut done = 0;
    while done < count {
        context.poll()?;
        let now = (count - done).min(u64::from(SOUND_RATE));
        let part = block.get_mut(..now as usize * 2).unwrap_or_default();
        if let Err(error) = reader.read(from + done as i64, part) {
            context.notice(format!(
                "its sound is silent from second {:.1}: {error}",
                done as f64 / f64::from(SOUND_RATE)
            ));
            return Ok(());
        }
        writer.push_sound(part)?;
        done += now;
    }
    Ok(())
}
