//! Masks on the grid a network works at.

use super::{dilate, rewritten};
use crate::media::Mask;

/// What a cell of the coarse grid says about the pixels under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LatentMode {
    /// Mean coverage: soft edges, right for blending.
    Area,
    /// Largest coverage: no thin part is lost, right for "must be inside".
    Max,
    /// Coverage of the pixel at the cell's centre, as public code often does; loses thin parts.
    Nearest,
}

/// `mask` on a `columns` × `rows` grid, row-major coverages 0..1. Grids finer than the mask repeat
/// its pixels. Empty when either count is 0.
pub fn to_latent(mask: &Mask, columns: usize, rows: usize, mode: LatentMode) -> Vec<f32> {
    let (width, height) = (mask.width() as usize, mask.height() as usize);
    let mut out = Vec::with_capacity(columns * rows);
    for r in 0..rows {
        let (y0, y1) = (r as f64 * height as f64 / rows as f64, (r + 1) as f64 * height as f64 / rows as f64);
        for c in 0..columns {
            let (x0, x1) =
                (c as f64 * width as f64 / columns as f64, (c + 1) as f64 * width as f64 / columns as f64);
            if mode == LatentMode::Nearest {
                let (x, y) = ((0.5 * (x0 + x1)) as usize, (0.5 * (y0 + y1)) as usize);
                out.push(mask.alpha()[y.min(height - 1) * width + x.min(width - 1)]);
                continue;
            }
            let (mut sum, mut weight, mut most) = (0.0f64, 0.0f64, 0.0f32);
            for y in y0 as usize..(y1.ceil() as usize).min(height) {
                let tall = (y1.min((y + 1) as f64) - y0.max(y as f64)).max(0.0);
                for x in x0 as usize..(x1.ceil() as usize).min(width) {
                    let part = tall * (x1.min((x + 1) as f64) - x0.max(x as f64)).max(0.0);
                    let value = mask.alpha()[y * width + x];
                    if part > 0.0 {
                        most = most.max(value);
                    }
                    sum += part * f64::from(value);
                    weight += part;
                }
            }
            out.push(if mode == LatentMode::Max { most } else { (sum / weight.max(1e-12)) as f32 });
        }
    }
    out
}

/// The mask an animation is driven by: 0 or 1, grown by a 64th of the width, at least 3 px, so
/// that the thing's own contour moves with it.
pub fn animation_mask(mask: &Mask) -> Mask {
    let grown = dilate(mask, (mask.width() as f32 / 64.0).max(3.0));
    rewritten(&grown, |i| f32::from(u8::from(grown.alpha()[i] >= 0.5)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_modes() {
        let mut alpha = vec![0.0; 16];
        alpha[1] = 1.0;
        let mask = Mask::new(4, 4, alpha).unwrap();
        assert_eq!(to_latent(&mask, 2, 2, LatentMode::Area), [0.25, 0.0, 0.0, 0.0]);
        assert_eq!(to_latent(&mask, 2, 2, LatentMode::Max), [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(to_latent(&mask, 2, 2, LatentMode::Nearest), [0.0; 4]);
        let odd = Mask::new(3, 1, vec![0.0, 1.0, 0.0]).unwrap();
        let halves = to_latent(&odd, 2, 1, LatentMode::Area);
        assert!(halves.iter().all(|v| (v - 1.0 / 3.0).abs() < 1e-6));
        assert_eq!(to_latent(&odd, 6, 1, LatentMode::Area), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn animation_masks_are_binary_and_wider() {
        let mask = Mask::new(20, 1, (0..20).map(|x| if x == 10 { 0.7 } else { 0.1 }).collect()).unwrap();
        let out = animation_mask(&mask);
        assert!(out.alpha().iter().all(|&a| a == 0.0 || a == 1.0));
        assert_eq!(out.alpha().iter().sum::<f32>(), 7.0);
    }
}
