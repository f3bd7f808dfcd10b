//! Scaling, cropping and plane layouts of pictures.

use fast_image_resize as fir;
use fir::images::Image;
use fir::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::picture::{Mask, Picture, PictureError};

/// Scales to `width` x `height` with an antialiased Lanczos-3 filter; sizes of 0 count as 1.
///
/// Shrinking averages in linear light, so that fine bright detail keeps its brightness; growing
/// works on the encoded values, where the filter's overshoot is even on dark and light sides.
pub fn resize(picture: &Picture, width: u32, height: u32) -> Picture {
    let (width, height) = (width.max(1), height.max(1));
    if (width, height) == (picture.width(), picture.height()) {
        return picture.clone();
    }
    let shrinking = u64::from(width) * u64::from(height) < picture.rgb().len() as u64 / 3;
    let rgb = if shrinking {
        resize_linear(picture, width, height)
    } else {
        let mut out = Image::new(width, height, PixelType::U8x3);
        convolve(picture.rgb().to_vec(), picture, PixelType::U8x3, &mut out).map(|()| out.into_vec())
    };
    // The library refuses only sizes of 0, which cannot come here; nearest keeps this total.
    rgb.and_then(|rgb| Picture::new(width, height, rgb).ok())
        .unwrap_or_else(|| nearest(picture, width, height))
}

fn resize_linear(picture: &Picture, width: u32, height: u32) -> Option<Vec<u8>> {
    let decode: [u16; 256] = std::array::from_fn(|v| (to_linear(v as f32 / 255.0) * 65535.0).round() as u16);
    // 12 bits index the inverse: a step is under one 8-bit level everywhere but the first few.
    let mut linear = Vec::with_capacity(picture.rgb().len() * 2);
    for &value in picture.rgb() {
        linear.extend_from_slice(&decode[usize::from(value)].to_ne_bytes());
    }
    let mut out = Image::new(width, height, PixelType::U16x3);
    convolve(linear, picture, PixelType::U16x3, &mut out)?;
    let encode: Vec<u8> =
        (0..=u16::MAX).map(|v| (to_encoded(f32::from(v) / 65535.0) * 255.0).round() as u8).collect();
    Some(
        out.buffer()
            .chunks_exact(2)
            .map(|pair| encode[usize::from(u16::from_ne_bytes([pair[0], pair[1]]))])
            .collect(),
    )
}

fn convolve(bytes: Vec<u8>, like: &Picture, kind: PixelType, out: &mut Image<'_>) -> Option<()> {
    let source = Image::from_vec_u8(like.width(), like.height(), bytes, kind).ok()?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    Resizer::new().resize(&source, out, &options).ok()
}

fn nearest(picture: &Picture, width: u32, height: u32) -> Picture {
    let mut out = picture.clone();
    let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
    for y in 0..height as usize {
        let from_y = y * picture.height() as usize / height as usize;
        for x in 0..width as usize {
            let from_x = x * picture.width() as usize / width as usize;
            let at = (from_y * picture.width() as usize + from_x) * 3;
            rgb.extend_from_slice(&picture.rgb()[at..at + 3]);
        }
    }
    if let Ok(made) = Picture::new(width, height, rgb) {
        out = made;
    }
    out
}

/// Scales coverage: area average when shrinking, bilinear when growing; never leaves 0..1.
pub fn resize_mask(mask: &Mask, width: u32, height: u32) -> Mask {
    let (width, height) = (width.max(1), height.max(1));
    let rows = axis_weights(mask.height() as usize, height as usize);
    let columns = axis_weights(mask.width() as usize, width as usize);
    let stride = mask.width() as usize;
    let mut narrow = Vec::with_capacity(width as usize * mask.height() as usize);
    for row in mask.alpha().chunks_exact(stride) {
        for (start, weights) in &columns {
            let sum: f32 = weights.iter().zip(&row[*start..]).map(|(w, v)| w * v).sum();
            narrow.push(sum);
        }
    }
    let mut alpha = Vec::with_capacity(width as usize * height as usize);
    for (start, weights) in &rows {
        for x in 0..width as usize {
            let sum: f32 =
                weights.iter().enumerate().map(|(k, w)| w * narrow[(start + k) * width as usize + x]).sum();
            alpha.push(sum.clamp(0.0, 1.0));
        }
    }
    Mask::new(width, height, alpha).unwrap_or_else(|_| mask.clone())
}

/// First source index and weights (sum 1) of every output sample along one axis.
fn axis_weights(from: usize, to: usize) -> Vec<(usize, Vec<f32>)> {
    let ratio = from as f64 / to as f64;
    // A box as wide as an output sample when shrinking, a tent one source sample wide when growing.
    let reach = if ratio >= 1.0 { ratio / 2.0 } else { 1.0 };
    (0..to)
        .map(|i| {
            let centre = (i as f64 + 0.5) * ratio;
            let weight = |k: usize| {
                let (low, high) = (k as f64, k as f64 + 1.0);
                if ratio >= 1.0 {
                    (high.min(centre + reach) - low.max(centre - reach)).max(0.0)
                } else {
                    (1.0 - (k as f64 + 0.5 - centre).abs()).max(0.0)
                }
            };
            let first = ((centre - reach - 0.5).floor().max(0.0) as usize).min(from - 1);
            let last = ((centre + reach + 0.5).ceil() as usize).min(from - 1);
            let raw: Vec<f64> = (first..=last).map(weight).collect();
            let sum: f64 = raw.iter().sum();
            (first, raw.iter().map(|w| (w / sum) as f32).collect())
        })
        .collect()
}

/// Cuts out a rectangle, clipped to the picture; an empty one gives the nearest pixel.
pub fn crop(picture: &Picture, x: u32, y: u32, width: u32, height: u32) -> Picture {
    let x = x.min(picture.width() - 1);
    let y = y.min(picture.height() - 1);
    let width = width.clamp(1, picture.width() - x);
    let height = height.clamp(1, picture.height() - y);
    let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
    for row in y..y + height {
        let at = (row as usize * picture.width() as usize + x as usize) * 3;
        rgb.extend_from_slice(&picture.rgb()[at..at + width as usize * 3]);
    }
    Picture::new(width, height, rgb).unwrap_or_else(|_| picture.clone())
}

/// The encoded values as three planes `[3, height, width]`, 0..1.
pub fn to_planes(picture: &Picture) -> Vec<f32> {
    (0..3).flat_map(|c| picture.rgb().iter().skip(c).step_by(3)).map(|&v| f32::from(v) / 255.0).collect()
}

/// The inverse of [`to_planes`]; values are clamped to 0..1, and NaN becomes 0.
///
/// # Errors
/// `planes` is not `3 * width * height` long.
pub fn from_planes(width: u32, height: u32, planes: &[f32]) -> Result<Picture, PictureError> {
    let size = width as usize * height as usize;
    let mut rgb = vec![0; planes.len()];
    if planes.len() == 3 * size {
        for (at, &value) in planes.iter().enumerate() {
            rgb[at % size * 3 + at / size] = (value.clamp(0.0, 1.0) * 255.0).round() as u8;
        }
    }
    Picture::new(width, height, rgb)
}

/// IEC 61966-2-1 decoding, 0..1.
fn to_linear(v: f32) -> f32 {
    if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
}

/// IEC 61966-2-1 encoding, 0..1.
fn to_encoded(v: f32) -> f32 {
    if v <= 0.0031308 { v * 12.92 } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(width: u32, height: u32) -> Picture {
        let rgb = (0..height)
            .flat_map(|y| (0..width).flat_map(move |x| [(x * 5) as u8, (y * 7) as u8, 90]))
            .collect();
        Picture::new(width, height, rgb).unwrap()
    }

    #[test]
    fn flat_colour_survives_both_ways() {
        let flat = Picture::new(20, 10, [10, 128, 250].repeat(200)).unwrap();
        for (w, h) in [(7, 3), (40, 33), (1, 1)] {
            let out = resize(&flat, w, h);
            for pixel in out.rgb().chunks_exact(3) {
                assert_eq!(pixel, [10, 128, 250], "{w}x{h}");
            }
        }
    }

    #[test]
    fn shrinking_a_checkerboard_keeps_its_light() {
        let rgb = (0..64u32).flat_map(|i| [if (i % 8 + i / 8) % 2 == 0 { 255 } else { 0 }; 3]).collect();
        let out = resize(&Picture::new(8, 8, rgb).unwrap(), 1, 1);
        // Half the light of white is 188 in sRGB.
        assert!(out.rgb()[0].abs_diff(188) <= 3, "{:?}", out.rgb());
    }

    #[test]
    fn masks_keep_their_area() {
        let alpha = (0..48 * 36).map(|i| f32::from(u8::from(i % 48 > 20))).collect();
        let mask = Mask::new(48, 36, alpha).unwrap();
        for (w, h) in [(12, 9), (17, 5), (100, 80), (48, 36)] {
            let out = resize_mask(&mask, w, h);
            assert!((out.area_fraction() - mask.area_fraction()).abs() < 0.02, "{w}x{h}");
        }
        assert_eq!(resize_mask(&mask, 48, 36), mask);
    }

    #[test]
    fn crop_is_clipped_and_planes_round_trip() {
        let picture = ramp(9, 5);
        let cut = crop(&picture, 7, 3, 10, 10);
        assert_eq!((cut.width(), cut.height()), (2, 2));
        assert_eq!(&cut.rgb()[..3], [35, 21, 90]);
        let planes = to_planes(&picture);
        assert_eq!(from_planes(9, 5, &planes).unwrap(), picture);
        assert!(from_planes(9, 4, &planes).is_err());
    }
}
