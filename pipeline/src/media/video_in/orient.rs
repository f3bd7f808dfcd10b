//! The eight ways a stored frame can lie, and how to stand it up.

use crate::media::picture::{Picture, PictureError};

/// How a stored frame is changed to stand upright: mirrored left to right first, then turned
/// clockwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Orientation {
    /// Mirrored left to right before turning.
    pub mirrored: bool,
    /// Clockwise quarter turns, 0..=3.
    pub quarter_turns: u8,
}

impl Orientation {
    /// From the nine numbers of a display matrix (ISO/IEC 14496-12 §6.2.2), 16.16 fixed point,
    /// as native-endian bytes. `None` when it is no whole number of quarter turns.
    #[cfg(feature = "video")]
    pub(super) fn from_display_matrix(bytes: &[u8]) -> Option<Self> {
        let numbers: Vec<i32> =
            bytes.chunks_exact(4).filter_map(|c| c.try_into().ok().map(i32::from_ne_bytes)).collect();
        // Row vectors: (x, y) goes to (a x + c y, b x + d y), y pointing down.
        let &[a, b, _, c, d, ..] = numbers.as_slice() else {
            return None;
        };
        let largest = [a, b, c, d].iter().map(|v| v.unsigned_abs()).max()?;
        // Fixed-point dust of a scaled rotation is not a shear.
        let clean = |v: i32| if v.unsigned_abs() < largest / 64 { 0 } else { v.signum() };
        match [clean(a), clean(b), clean(c), clean(d)] {
            [1, 0, 0, 1] => Some((false, 0)),
            [0, 1, -1, 0] => Some((false, 1)),
            [-1, 0, 0, -1] => Some((false, 2)),
            [0, -1, 1, 0] => Some((false, 3)),
            [-1, 0, 0, 1] => Some((true, 0)),
            [0, -1, -1, 0] => Some((true, 1)),
            [1, 0, 0, -1] => Some((true, 2)),
            [0, 1, 1, 0] => Some((true, 3)),
            _ => None,
        }
        .map(|(mirrored, quarter_turns)| Self { mirrored, quarter_turns })
    }

    /// Whether width and height change places.
    pub fn swaps_sides(self) -> bool {
        self.quarter_turns % 2 == 1
    }

    /// Stands `picture` up.
    ///
    /// # Errors
    /// Never for a valid picture; the type says so because buffers are checked.
    pub fn apply(self, picture: Picture) -> Result<Picture, PictureError> {
        if self == Self::default() {
            return Ok(picture);
        }
        let (w, h) = (picture.width() as usize, picture.height() as usize);
        let (out_w, out_h) = if self.swaps_sides() { (h, w) } else { (w, h) };
        let source = picture.rgb();
        let mut rgb = Vec::with_capacity(source.len());
        for y in 0..out_h {
            for x in 0..out_w {
                let (mut from_x, from_y) = match self.quarter_turns % 4 {
                    0 => (x, y),
                    1 => (y, h - 1 - x),
                    2 => (w - 1 - x, h - 1 - y),
                    _ => (w - 1 - y, x),
                };
                if self.mirrored {
                    from_x = w - 1 - from_x;
                }
                let at = (from_y * w + from_x) * 3;
                rgb.extend_from_slice(&source[at..at + 3]);
            }
        }
        Picture::new(out_w as u32, out_h as u32, rgb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters() -> Picture {
        // a b c / d e f, one value a pixel.
        Picture::new(3, 2, (1..=6u8).flat_map(|v| [v; 3]).collect()).unwrap()
    }

    fn apply(mirrored: bool, quarter_turns: u8) -> Vec<u8> {
        let out = Orientation { mirrored, quarter_turns }.apply(letters()).unwrap();
        out.rgb().iter().step_by(3).copied().collect()
    }

    #[test]
    fn all_eight_are_right() {
        assert_eq!(apply(false, 0), [1, 2, 3, 4, 5, 6]);
        assert_eq!(apply(false, 1), [4, 1, 5, 2, 6, 3]);
        assert_eq!(apply(false, 2), [6, 5, 4, 3, 2, 1]);
        assert_eq!(apply(false, 3), [3, 6, 2, 5, 1, 4]);
        assert_eq!(apply(true, 0), [3, 2, 1, 6, 5, 4]);
        assert_eq!(apply(true, 1), [6, 3, 5, 2, 4, 1]);
        assert_eq!(apply(true, 2), [4, 5, 6, 1, 2, 3]);
        assert_eq!(apply(true, 3), [1, 4, 2, 5, 3, 6]);
    }

    #[cfg(feature = "video")]
    #[test]
    fn matrices_move_corners_as_the_turns_do() {
        let one = 1 << 16;
        for (matrix, mirrored, quarter_turns) in [
            ([one, 0, 0, one], false, 0),
            ([0, one, -one, 0], false, 1),
            ([-one, 0, 0, -one], false, 2),
            ([0, -one, one, 0], false, 3),
            ([-one, 0, 0, one], true, 0),
            ([0, -one, -one, 0], true, 1),
            ([one, 0, 0, -one], true, 2),
            ([0, one, one, 0], true, 3),
        ] {
            let [a, b, c, d] = matrix;
            let bytes: Vec<u8> =
                [a, b, 0, c, d, 0, 0, 0, 1 << 30].iter().flat_map(|v: &i32| v.to_ne_bytes()).collect();
            let found = Orientation::from_display_matrix(&bytes).unwrap();
            assert_eq!(found, Orientation { mirrored, quarter_turns }, "{matrix:?}");
            // The top-left pixel's centre, relative to the picture's, lands where the matrix says.
            let marked = Picture::new(3, 3, {
                let mut v = vec![0; 27];
                v[0] = 9;
                v
            })
            .unwrap();
            let out = found.apply(marked).unwrap();
            let at = out.rgb().iter().step_by(3).position(|&v| v == 9).unwrap();
            let (x, y) = ((-a - c) / one, (-b - d) / one);
            assert_eq!(((at % 3) as i32 - 1, (at / 3) as i32 - 1), (x, y), "{matrix:?}");
        }
        assert_eq!(Orientation::from_display_matrix(&[0; 36]), None);
        assert_eq!(Orientation::from_display_matrix(&[1, 2]), None);
    }
}
