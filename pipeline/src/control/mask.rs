//! Masks as plain data: morphology with exact distances, set operations, outlines, latent grids.
//!
//! Everything that needs a yes or no takes coverage ≥ 0.5 as inside.

mod distance;
mod latent;
mod shapes;
mod strokes;

pub use distance::{dilate, distance_to, erode, feather};
pub use latent::{LatentMode, animation_mask, to_latent};
pub(super) use shapes::filled;
pub use shapes::{fill_holes, from_box, from_polygons, keep_components, keep_touching};
pub use strokes::{Stroke, paint};

use crate::media::{Mask, PictureError};

/// Why a mask could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MaskError {
    /// Two masks of different sizes.
    #[error(
        "expected two masks of the same size, got {a_width}x{a_height} and {b_width}x{b_height}; resize one first"
    )]
    Sizes { a_width: u32, a_height: u32, b_width: u32, b_height: u32 },
    /// A polygon or box that is not one.
    #[error("{what}: {message}")]
    Shape { what: &'static str, message: String },
    /// A raster of no size.
    #[error(transparent)]
    Raster(#[from] PictureError),
}

/// How two masks are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// In either: max(a, b).
    Union,
    /// In the first and not in the second: min(a, 1 − b).
    Subtract,
    /// In both: min(a, b).
    Intersect,
}

/// Combines two masks of one size, per pixel.
pub fn combine(a: &Mask, b: &Mask, how: Combine) -> Result<Mask, MaskError> {
    if (a.width(), a.height()) != (b.width(), b.height()) {
        return Err(MaskError::Sizes {
            a_width: a.width(),
            a_height: a.height(),
            b_width: b.width(),
            b_height: b.height(),
        });
    }
    let mut out = a.clone();
    for (value, &other) in out.alpha_mut().iter_mut().zip(b.alpha()) {
        *value = match how {
            Combine::Union => value.max(other),
            Combine::Subtract => value.min(1.0 - other),
            Combine::Intersect => value.min(other),
        };
    }
    Ok(out)
}

/// Coverage 1 − a.
pub fn invert(mask: &Mask) -> Mask {
    let mut out = mask.clone();
    for value in out.alpha_mut() {
        *value = 1.0 - *value;
    }
    out
}

fn inside(mask: &Mask) -> Vec<bool> {
    mask.alpha().iter().map(|&a| a >= 0.5).collect()
}

/// A copy of `like` with every coverage replaced.
fn rewritten(like: &Mask, value: impl Fn(usize) -> f32) -> Mask {
    let mut out = like.clone();
    for (i, a) in out.alpha_mut().iter_mut().enumerate() {
        *a = value(i);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_operations_and_size_check() {
        let mask = |v: [f32; 2]| Mask::new(2, 1, v.to_vec()).unwrap();
        let (a, b) = (mask([0.2, 1.0]), mask([0.7, 0.4]));
        let run = |how| combine(&a, &b, how).unwrap().alpha().to_vec();
        assert_eq!(run(Combine::Union), [0.7, 1.0]);
        assert_eq!(run(Combine::Intersect), [0.2, 0.4]);
        assert_eq!(run(Combine::Subtract), [0.2, 0.6]);
        assert_eq!(invert(&a).alpha(), [0.8, 0.0]);
        let other = Mask::new(1, 2, vec![0.0; 2]).unwrap();
        assert!(combine(&a, &other, Combine::Union).unwrap_err().to_string().contains("2x1 and 1x2"));
    }
}
