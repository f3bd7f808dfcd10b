//! From decoded frames at the network's size to the clip at the photograph's size.
//!
//! Where the warped photograph is valid, its own pixels are the picture and the decoder adds only
//! what the denoiser changed beside it; where the background was uncovered, its textured painting
//! takes that place, with the denoiser's change; where nothing moves, the photograph is untouched;
//! elsewhere the decoder's picture shows.
//! A 256-pixel network so makes a sharp 4K clip.

use super::guide::GuideFrame;
use crate::media::Raster;

/// Pixels of the network's size by which validity shrinks before detail is trusted: a decoder
/// smears what lies beside a painted part into it.
const EROSION: usize = 2;

/// Pixels of the network's size around what came into view in which the denoiser's changes count:
/// the seams. Inside a moved thing its own pixels are nearer the truth than any change to them.
const REACH: usize = 3;

/// What the network says about one frame, at its own size.
#[derive(Debug)]
pub struct Decoded<'a> {
    /// The decoded clip frame, three channels, -1..=1.
    pub frame: &'a Raster,
    /// The guide through encoder and decoder, three channels.
    pub guide_decoded: &'a Raster,
    /// The guide itself.
    pub guide: &'a GuideFrame,
    /// How much anything has moved, 0 (nothing) to 1 (two pixels of 256 or more).
    pub motion: f32,
}

/// The final frame at the size of `warped`, the guide sampled again at that size.
pub fn compose(decoded: &Decoded<'_>, warped: &GuideFrame) -> Raster {
    let (width, height) = (warped.picture.width, warped.picture.height);
    let small = &decoded.guide.valid;
    let trusted = sum(small, &decoded.guide.painted).eroded(EROSION);
    let unknown = Raster { data: small.data.iter().map(|v| 1.0 - v).collect(), ..small.clone() };
    let reach = unknown.dilated(REACH).box_blurred(REACH);
    let change = Raster {
        data: decoded.frame.data.iter().zip(&decoded.guide_decoded.data).map(|(f, g)| f - g).collect(),
        ..decoded.frame.clone()
    };

    let scale = [small.width as f32 / width as f32, small.height as f32 / height as f32];
    let mut out = Raster::zeros(width, height, 3);
    out.par_rows(|row, numbers| {
        let y = (row as f32 + 0.5) * scale[1] - 0.5;
        for (column, pixel) in numbers.chunks_exact_mut(3).enumerate() {
            let x = (column as f32 + 0.5) * scale[0] - 0.5;
            let at = row * width + column;
            let (mut trust, mut near) = ([0.0f32], [0.0f32]);
            trusted.bilinear(x, y, &mut trust);
            reach.bilinear(x, y, &mut near);
            let trust = trust[0].min(warped.valid.data[at] + warped.painted.data[at]).clamp(0.0, 1.0);
            let near = near[0].clamp(0.0, 1.0) * decoded.motion;
            let source = &warped.picture.data[3 * at..3 * at + 3];
            if trust >= 1.0 && near <= 0.0 {
                pixel.copy_from_slice(source);
                continue;
            }
            let (mut generated, mut changed) = ([0.0f32; 3], [0.0f32; 3]);
            decoded.frame.catmull_rom(x, y, &mut generated);
            change.bilinear(x, y, &mut changed);
            for c in 0..3 {
                pixel[c] = trust * (source[c] + near * changed[c]) + (1.0 - trust) * generated[c];
            }
        }
    });
    out
}

fn sum(a: &Raster, b: &Raster) -> Raster {
    Raster { data: a.data.iter().zip(&b.data).map(|(x, y)| x + y).collect(), ..a.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constant(width: usize, height: usize, channels: usize, value: f32) -> Raster {
        Raster { width, height, channels, data: vec![value; width * height * channels] }
    }

    fn guide(width: usize, height: usize, valid: f32) -> GuideFrame {
        GuideFrame {
            picture: constant(width, height, 3, 0.25),
            mask: constant(width, height, 1, 0.0),
            valid: constant(width, height, 1, valid),
            painted: constant(width, height, 1, 0.0),
        }
    }

    #[test]
    fn what_stands_still_is_the_photograph_to_the_bit() {
        let small = guide(16, 16, 1.0);
        let mut large = guide(64, 64, 1.0);
        large.picture.data.iter_mut().enumerate().for_each(|(i, v)| *v = (i % 7) as f32 / 7.0);
        let (frame, decoded) = (constant(16, 16, 3, 0.9), constant(16, 16, 3, -0.9));
        let decoded = Decoded { frame: &frame, guide_decoded: &decoded, guide: &small, motion: 1.0 };
        assert_eq!(compose(&decoded, &large).data, large.picture.data);
    }

    #[test]
    fn what_is_not_known_is_the_decoders() {
        let small = guide(16, 16, 0.0);
        let large = guide(64, 64, 0.0);
        let frame = constant(16, 16, 3, 0.5);
        let decoded = Decoded { frame: &frame, guide_decoded: &frame, guide: &small, motion: 1.0 };
        assert!(compose(&decoded, &large).data.iter().all(|v| (v - 0.5).abs() < 1e-6));
    }

    #[test]
    fn uncovered_background_is_its_texture_with_the_denoisers_change() {
        let (mut small, mut large) = (guide(16, 16, 0.0), guide(64, 64, 0.0));
        small.painted.data.fill(1.0);
        large.painted.data.fill(1.0);
        large.picture.data.iter_mut().enumerate().for_each(|(i, v)| *v = (i % 7) as f32 / 10.0);
        let (frame, before) = (constant(16, 16, 3, 0.4), constant(16, 16, 3, 0.3));
        let decoded = Decoded { frame: &frame, guide_decoded: &before, guide: &small, motion: 1.0 };
        for (got, source) in compose(&decoded, &large).data.iter().zip(&large.picture.data) {
            assert!((got - source - 0.1).abs() < 1e-5);
        }
    }

    #[test]
    fn a_moved_thing_keeps_its_own_pixels_and_its_seams_take_the_denoisers_change() {
        let mut small = guide(32, 32, 1.0);
        small.mask.data.fill(1.0);
        for row in 0..32 {
            small.valid.data[row * 32..row * 32 + 4].fill(0.0);
            small.painted.data[row * 32..row * 32 + 4].fill(1.0);
        }
        let large = guide(32, 32, 1.0);
        let (frame, before) = (constant(32, 32, 3, 0.4), constant(32, 32, 3, 0.3));
        let decoded = Decoded { frame: &frame, guide_decoded: &before, guide: &small, motion: 1.0 };
        let out = compose(&decoded, &large);
        let at = |column: usize| out.data[3 * (16 * 32 + column)];
        assert!((at(1) - 0.35).abs() < 0.02, "what came into view: {}", at(1));
        assert!(at(5) > 0.26 && at(5) < 0.35, "the seam: {}", at(5));
        assert_eq!(at(20), 0.25, "the moved thing");
        let still = Decoded { motion: 0.0, ..decoded };
        assert!(
            compose(&still, &large).data.iter().all(|v| (v - 0.25).abs() < 1e-6),
            "frame 0 is the photograph"
        );
    }
}
