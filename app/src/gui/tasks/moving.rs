//! The moving picture of a clip that is being made.

use std::sync::Arc;

use eframe::egui::ColorImage;
use kinora_pipeline::progress::Preview;
use kinora_pipeline::workflow::Document;

use super::images::preview as shown;
use crate::gui::model::timeline::source_length;

/// Longest side of a frame, in pixels; the model works at less.
const LONGEST: u32 = 640;
/// Seconds a clip of unknown length is shown in.
const USUAL_SECONDS: f64 = 2.0;

/// A few frames of a clip that is being made, to be shown over and over.
#[derive(Debug)]
pub(crate) struct Moving {
    /// Denoise steps that are in it.
    pub(crate) done: usize,
    /// Denoise steps in all.
    pub(crate) total: usize,
    frames: Vec<Arc<ColorImage>>,
    /// How long the clip will be.
    seconds: f64,
}

impl Moving {
    /// A preview as the screen wants it; none where it has no frames.
    pub(crate) fn of(preview: &Preview, document: &Document) -> Option<Self> {
        let frames: Vec<_> = preview.frames.iter().map(|frame| Arc::new(shown(frame, LONGEST))).collect();
        let seconds = source_length(document, &preview.node).unwrap_or(USUAL_SECONDS).max(0.1);
        (!frames.is_empty()).then_some(Self { done: preview.done, total: preview.total, frames, seconds })
    }

    /// The frame at a moment of the clock, with its place among the others.
    pub(crate) fn at(&self, time: f64) -> Option<(usize, &Arc<ColorImage>)> {
        let turn = (time / self.seconds).rem_euclid(1.0);
        let index = ((turn * self.frames.len() as f64) as usize).min(self.frames.len().saturating_sub(1));
        Some((index, self.frames.get(index)?))
    }

    /// Seconds until the next frame is due.
    pub(crate) fn pace(&self) -> f64 {
        (self.seconds / self.frames.len().max(1) as f64).clamp(0.02, 1.0)
    }

    /// How far it is, for people.
    pub(crate) fn words(&self) -> String {
        match self.done {
            0 => "first outline".to_owned(),
            done => format!("step {done} of {}", self.total),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinora_pipeline::media::Picture;

    #[test]
    fn frames_take_turns_over_the_length_of_the_clip() {
        let text = crate::gui::tests::support::SMALL;
        let document = Document::parse(text, "small").unwrap();
        let frame = |value: u8| Picture::new(2, 1, vec![value; 6]).unwrap();
        let preview =
            Preview { node: "shot".into(), done: 0, total: 4, frames: vec![frame(1), frame(2), frame(3)] };
        let moving = Moving::of(&preview, &document).unwrap();
        // Three frames at eight a second.
        assert_eq!((moving.seconds, moving.pace()), (0.375, 0.125));
        let order: Vec<usize> =
            [0.0, 0.13, 0.26, 0.38, 1e9].iter().map(|t| moving.at(*t).unwrap().0).take(4).collect();
        assert_eq!(order, [0, 1, 2, 0]);
        assert_eq!(moving.words(), "first outline");
        let nothing = Preview { frames: vec![], ..preview };
        assert!(Moving::of(&nothing, &document).is_none());
    }
}
