//! Telling scenery (sky, sea, ground) from things.
//!
//! A thing that drifts takes its outline along and uncovers what was behind it. A sky cannot: its
//! outline belongs to the roofs before it. Clicked scenery therefore moves inside its outline.

use crate::media::Raster;

/// Share of the picture's top that a sky covers.
const TOP_SHARE: f64 = 0.85;

/// Share of its own bounding box that a band of sea or ground covers.
const BAND_FILL: f64 = 0.8;

/// Whether `mask` (one channel, 0..=1) is scenery: it reaches both sides of the picture and either
/// covers the top, as a sky does, or is a nearly full band along the bottom, as sea or ground is.
///
/// A face or flower that fills one side of a close-up, or a thing that touches all sides, is none.
pub(super) fn is_scenery(mask: &Raster) -> bool {
    let (w, h) = (mask.width, mask.height);
    let covered = |x: usize, y: usize| mask.data[y * w + x] > 0.5;
    if w < 8 || h < 8 {
        return false;
    }
    let reaches = |x: usize| (0..h).any(|y| covered(x, y));
    if !reaches(0) || !reaches(w - 1) {
        return false;
    }
    let rows: Vec<usize> = (0..h).map(|y| (0..w).filter(|&x| covered(x, y)).count()).collect();
    let in_row = |y: usize| rows[y] as f64 / w as f64;
    let (top, bottom) = (in_row(0), in_row(h - 1));
    let (Some(first), Some(last)) = (rows.iter().position(|&n| n > 0), rows.iter().rposition(|&n| n > 0))
    else {
        return false;
    };
    let fill = rows.iter().sum::<usize>() as f64 / ((last + 1 - first) * w) as f64;
    let is_sky = top >= TOP_SHARE && bottom < TOP_SHARE;
    let is_band = bottom >= TOP_SHARE && top == 0.0 && fill >= BAND_FILL;
    is_sky || is_band
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(inside: impl Fn(usize, usize) -> bool) -> Raster {
        let (width, height) = (60, 40);
        let data =
            (0..width * height).map(|at| f32::from(u8::from(inside(at % width, at / width)))).collect();
        Raster { width, height, channels: 1, data }
    }

    #[test]
    fn a_sky_behind_roofs_and_a_sea_are_scenery() {
        assert!(is_scenery(&mask(|x, y| y < if (20..30).contains(&x) { 5 } else { 20 })));
        assert!(is_scenery(&mask(|_, y| y > 25)));
        // The sky with a steeple through the top edge.
        assert!(is_scenery(&mask(|x, y| y < 20 && !(30..33).contains(&x))));
    }

    #[test]
    fn things_are_not() {
        assert!(!is_scenery(&mask(|x, y| (20..30).contains(&x) && (10..20).contains(&y))), "in the middle");
        assert!(!is_scenery(&mask(|x, _| x > 35)), "a flower that fills one side");
        assert!(!is_scenery(&mask(|_, _| true)), "the whole picture");
        assert!(!is_scenery(&mask(|x, y| x.abs_diff(30) < y)), "shoulders that widen to the bottom");
        assert!(!is_scenery(&mask(|_, _| false)), "nothing");
    }
}
