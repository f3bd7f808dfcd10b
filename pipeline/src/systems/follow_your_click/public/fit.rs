//! Pictures between the photograph's size and the network's.

use candle_core::{Device, Result, Tensor};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::media::{Mask, Picture};

/// The network's size for a photograph: its aspect, the longer side `long_side`, both sides multiples of `cell`.
pub(super) fn working_size(width: u32, height: u32, long_side: usize, cell: usize) -> (usize, usize) {
    let scale = long_side as f64 / f64::from(width.max(height));
    let side = |v: u32| ((f64::from(v) * scale / cell as f64).round() as usize).max(1) * cell;
    (side(width), side(height))
}

/// A picture at another size, Lanczos.
pub(super) fn resized(picture: &Picture, width: usize, height: usize) -> Option<Picture> {
    let (width, height) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    if (width, height) == (picture.width(), picture.height()) {
        return Some(picture.clone());
    }
    let source = ImageRef::new(picture.width(), picture.height(), picture.rgb(), PixelType::U8x3).ok()?;
    let mut out = Image::new(width, height, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    Resizer::new().resize(&source, &mut out, &options).ok()?;
    Picture::new(width, height, out.into_vec()).ok()
}

/// `[1, height, width, 3]` in −1..1.
pub(super) fn to_tensor(picture: &Picture, device: &Device) -> Result<Tensor> {
    let values: Vec<f32> = picture.rgb().iter().map(|&byte| f32::from(byte) / 127.5 - 1.0).collect();
    let shape = (1, picture.height() as usize, picture.width() as usize, 3);
    Tensor::from_vec(values, shape, device)
}

/// The picture of `[1, height, width, 3]` in −1..1, clamped.
pub(super) fn to_picture(tensor: &Tensor) -> Result<Picture> {
    let (_, height, width, _) = tensor.dims4()?;
    let values = tensor.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let rgb = values.iter().map(|v| ((v.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8).collect();
    Picture::new(width as u32, height as u32, rgb).map_err(candle_core::Error::wrap)
}

/// `inside` where `mask` is 1, `outside` where it is 0; `None` unless all have one size.
pub(super) fn blended(inside: &Picture, outside: &Picture, mask: &Mask) -> Option<Picture> {
    let size = (inside.width(), inside.height());
    if size != (outside.width(), outside.height()) || size != (mask.width(), mask.height()) {
        return None;
    }
    let pixels = inside.rgb().chunks_exact(3).zip(outside.rgb().chunks_exact(3)).zip(mask.alpha());
    let mix = |a: u8, b: u8, alpha: f32| (f32::from(b) + alpha * (f32::from(a) - f32::from(b))).round() as u8;
    let rgb = pixels.flat_map(|((a, b), &alpha)| {
        let (a, b) = (a.to_vec(), b.to_vec());
        a.into_iter().zip(b).map(move |(a, b)| mix(a, b, alpha))
    });
    Picture::new(size.0, size.1, rgb.collect()).ok()
}

/// Size of the frames: as asked, else the photograph's up to 3,840 pixels; even, as encoders want.
pub(super) fn out_size(width: u32, height: u32, asked: Option<u32>) -> (usize, usize) {
    let longer = width.max(height);
    let side = asked.unwrap_or(longer.min(3840));
    let scale = f64::from(side) / f64::from(longer);
    let even = |v: u32| ((f64::from(v) * scale / 2.0).round() as usize).max(1) * 2;
    (even(width), even(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_working_size_keeps_the_aspect_in_whole_cells() {
        assert_eq!(working_size(4000, 3000, 512, 64), (512, 384));
        assert_eq!(working_size(100, 1000, 512, 64), (64, 512));
        assert_eq!(working_size(512, 512, 512, 64), (512, 512));
    }

    #[test]
    fn pictures_survive_the_way_to_the_network_and_back() {
        let picture = Picture::new(2, 1, vec![0, 1, 2, 253, 254, 255]).unwrap();
        let back = to_picture(&to_tensor(&picture, &Device::Cpu).unwrap()).unwrap();
        assert_eq!(back.rgb(), picture.rgb());
        let big = resized(&picture, 6, 5).unwrap();
        assert_eq!((big.width(), big.height()), (6, 5));
        let mask = Mask::new(2, 1, vec![1.0, 0.0]).unwrap();
        let black = Picture::new(2, 1, vec![0; 6]).unwrap();
        assert_eq!(blended(&picture, &black, &mask).unwrap().rgb(), [0, 1, 2, 0, 0, 0]);
        assert!(blended(&picture, &big, &mask).is_none());
    }
}
