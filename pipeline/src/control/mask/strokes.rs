//! Brush and eraser on a mask.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::media::Mask;

/// A line drawn with a round brush.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stroke {
    /// Where the brush went: pairs of x and y, 0..1 of the picture. One is a dot.
    #[schemars(length(min = 1, max = 4096))]
    pub points: Vec<(f64, f64)>,
    /// Half the width of the line, of the picture's longer side.
    #[schemars(extend("minimum" = 0.0001, "maximum" = 1))]
    pub radius: f64,
    /// Takes away instead of adding.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub erase: bool,
}

/// Draws strokes on a mask one after the other, with edges one pixel soft.
///
/// Points that are no numbers are passed over.
pub fn paint(mask: &mut Mask, strokes: &[Stroke]) {
    let (width, height) = (mask.width(), mask.height());
    let longer = f64::from(width.max(height));
    for stroke in strokes {
        let radius = (stroke.radius * longer) as f32;
        if !radius.is_finite() || radius <= 0.0 {
            continue;
        }
        let points: Vec<[f32; 2]> = stroke
            .points
            .iter()
            .map(|&(x, y)| [(x * f64::from(width)) as f32, (y * f64::from(height)) as f32])
            .filter(|point| point.iter().all(|v| v.is_finite()))
            .collect();
        if let [only] = points.as_slice() {
            segment(mask, *only, *only, radius, stroke.erase);
        }
        for pair in points.windows(2) {
            if let [a, b] = pair {
                segment(mask, *a, *b, radius, stroke.erase);
            }
        }
    }
}

/// Draws a line with round ends. Coverage is a maximum, so that lines that meet leave no seam.
fn segment(mask: &mut Mask, a: [f32; 2], b: [f32; 2], radius: f32, erase: bool) {
    let (width, height) = (mask.width() as usize, mask.height() as usize);
    let reach = radius + 1.0;
    let range = |low: f32, high: f32, size: usize| {
        let end = (high + reach).ceil().clamp(0.0, size as f32) as usize;
        ((low - reach).floor().clamp(0.0, size as f32) as usize)..end
    };
    let rows = range(a[1].min(b[1]), a[1].max(b[1]), height);
    let columns = range(a[0].min(b[0]), a[0].max(b[0]), width);
    let along = [b[0] - a[0], b[1] - a[1]];
    let square = along[0] * along[0] + along[1] * along[1];
    let alpha = mask.alpha_mut();
    for y in rows {
        let Some(line) = alpha.get_mut(y * width..(y + 1) * width) else { continue };
        for x in columns.clone() {
            let from = [x as f32 + 0.5 - a[0], y as f32 + 0.5 - a[1]];
            let t = if square > 0.0 { (from[0] * along[0] + from[1] * along[1]) / square } else { 0.0 };
            let t = t.clamp(0.0, 1.0);
            let (dx, dy) = (from[0] - t * along[0], from[1] - t * along[1]);
            let cover = (radius + 0.5 - (dx * dx + dy * dy).sqrt()).clamp(0.0, 1.0);
            if let Some(value) = line.get_mut(x) {
                *value = if erase { value.min(1.0 - cover) } else { value.max(cover) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stroke(points: &[(f64, f64)], radius: f64, erase: bool) -> Stroke {
        Stroke { points: points.to_vec(), radius, erase }
    }

    fn empty(width: u32, height: u32) -> Mask {
        Mask::new(width, height, vec![0.0; (width * height) as usize]).unwrap()
    }

    #[test]
    fn a_dot_is_a_disc_and_an_eraser_takes_it_away() {
        let mut mask = empty(20, 10);
        paint(&mut mask, &[stroke(&[(0.5, 0.5)], 0.2, false)]);
        let area: f32 = mask.alpha().iter().sum();
        assert!((area - std::f32::consts::PI * 16.0).abs() < 1.5, "{area}");
        assert_eq!((mask.alpha()[5 * 20 + 10], mask.alpha()[0]), (1.0, 0.0));
        paint(&mut mask, &[stroke(&[(0.5, 0.5)], 0.25, true)]);
        assert!(mask.alpha().iter().all(|&a| a < 0.01));
    }

    #[test]
    fn a_line_has_no_seams_and_later_strokes_lie_over_earlier_ones() {
        let mut mask = empty(40, 8);
        let line = stroke(&[(0.1, 0.5), (0.4, 0.5), (0.4, 0.5), (0.9, 0.5)], 0.05, false);
        paint(&mut mask, std::slice::from_ref(&line));
        for x in 4..36 {
            assert_eq!(mask.alpha()[4 * 40 + x], 1.0, "{x}");
        }
        paint(&mut mask, &[stroke(&[(0.5, 0.5)], 0.1, true), line]);
        assert_eq!(mask.alpha()[4 * 40 + 20], 1.0);
    }

    proptest! {
        #[test]
        fn no_stroke_leaves_the_range(
            points in prop::collection::vec((-1e6f64..1e6, -3.0f64..3.0), 0..6),
            radius in -1.0f64..2.0,
            erase in any::<bool>(),
        ) {
            let mut mask = empty(7, 5);
            paint(&mut mask, &[Stroke { points, radius, erase }]);
            prop_assert!(mask.alpha().iter().all(|a| (0.0..=1.0).contains(a)));
        }
    }
}
