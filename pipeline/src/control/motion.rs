//! What a person asks of a region: words and an amount, checked once.

use crate::media::Mask;

/// Longest motion prompt in characters; the text encoder's limit of 77 tokens is checked there.
pub const LONGEST_PROMPT: usize = 400;

/// A region that moves: where, how, how far. Built by [`MotionRegion::new`].
#[derive(Debug, Clone)]
pub struct MotionRegion {
    /// Coverage in the picture's size.
    pub mask: Mask,
    /// Trimmed, not empty, no line breaks.
    pub prompt: String,
    /// 0..=1 of the largest motion the model knows.
    pub magnitude: f64,
}

/// Why a motion request makes no sense.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum MotionError {
    /// No words.
    #[error("the motion prompt is empty; say how the region moves, e.g. \"drift to the left\"")]
    EmptyPrompt,
    /// Too many characters.
    #[error("the motion prompt has {got} characters, at most {LONGEST_PROMPT} are read; shorten it")]
    LongPrompt { got: usize },
    /// Not a number in 0..=1.
    #[error("expected a magnitude from 0 (still) to 1 (largest motion), got {got}")]
    Magnitude { got: f64 },
    /// A mask without inside.
    #[error(
        "the region covers no pixel of the {width}x{height} picture; click on the thing that should move"
    )]
    EmptyRegion { width: u32, height: u32 },
    /// Nothing at all.
    #[error("expected at least one region, got none")]
    NoRegion,
    /// Region masks of different sizes.
    #[error(
        "region {index}: expected a mask of {width}x{height} pixels like the first region, got {got_width}x{got_height}"
    )]
    Sizes { index: usize, width: u32, height: u32, got_width: u32, got_height: u32 },
}

impl MotionRegion {
    /// Checks and tidies one request.
    pub fn new(mask: Mask, prompt: &str, magnitude: f64) -> Result<Self, MotionError> {
        let prompt = tidy_prompt(prompt)?;
        if !(0.0..=1.0).contains(&magnitude) {
            return Err(MotionError::Magnitude { got: magnitude });
        }
        if !mask.alpha().iter().any(|&a| a >= 0.5) {
            return Err(MotionError::EmptyRegion { width: mask.width(), height: mask.height() });
        }
        Ok(Self { mask, prompt, magnitude })
    }
}

/// Trims, joins runs of white space, refuses empty and overlong text.
pub fn tidy_prompt(prompt: &str) -> Result<String, MotionError> {
    let tidy = prompt.split_whitespace().collect::<Vec<_>>().join(" ");
    match tidy.chars().count() {
        0 => Err(MotionError::EmptyPrompt),
        got if got > LONGEST_PROMPT => Err(MotionError::LongPrompt { got }),
        _ => Ok(tidy),
    }
}

/// Index of the region each pixel moves with, `None` where nothing does; later regions lie on top.
pub fn owners(regions: &[MotionRegion]) -> Result<Vec<Option<usize>>, MotionError> {
    let first = &regions.first().ok_or(MotionError::NoRegion)?.mask;
    let (width, height) = (first.width(), first.height());
    let mut owner = vec![None; first.alpha().len()];
    for (index, region) in regions.iter().enumerate() {
        let mask = &region.mask;
        if (mask.width(), mask.height()) != (width, height) {
            return Err(MotionError::Sizes {
                index,
                width,
                height,
                got_width: mask.width(),
                got_height: mask.height(),
            });
        }
        for (own, &a) in owner.iter_mut().zip(mask.alpha()) {
            if a >= 0.5 {
                *own = Some(index);
            }
        }
    }
    Ok(owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(v: [f32; 3]) -> Mask {
        Mask::new(3, 1, v.to_vec()).unwrap()
    }

    #[test]
    fn prompts_are_tidied_or_refused() {
        assert_eq!(tidy_prompt("  drift \n to the\tleft ").unwrap(), "drift to the left");
        assert_eq!(tidy_prompt(" \n").unwrap_err(), MotionError::EmptyPrompt);
        assert_eq!(tidy_prompt(&"ä".repeat(401)).unwrap_err(), MotionError::LongPrompt { got: 401 });
    }

    #[test]
    fn magnitude_and_mask_are_checked() {
        assert!(MotionRegion::new(mask([0.0, 1.0, 0.0]), "sway", 1.0).is_ok());
        for bad in [-0.1, 1.01, f64::NAN] {
            assert!(matches!(
                MotionRegion::new(mask([1.0; 3]), "sway", bad),
                Err(MotionError::Magnitude { .. })
            ));
        }
        assert!(matches!(
            MotionRegion::new(mask([0.4; 3]), "sway", 0.5),
            Err(MotionError::EmptyRegion { .. })
        ));
    }

    #[test]
    fn later_regions_lie_on_top() {
        let region = |v, p| MotionRegion::new(mask(v), p, 0.5).unwrap();
        let got = owners(&[region([1.0, 1.0, 0.0], "rise"), region([0.0, 1.0, 0.0], "sink")]).unwrap();
        assert_eq!(got, [Some(0), Some(1), None]);
        assert_eq!(owners(&[]).unwrap_err(), MotionError::NoRegion);
    }
}
