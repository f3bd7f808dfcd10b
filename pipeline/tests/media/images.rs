//! Stills: formats, orientation, colour profiles, depths, alpha.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageEncoder, ImageFormat};
use kinora_pipeline::media::{
    ALPHA_GROUND, ImageLimits, Mask, Picture, read_mask, read_picture, read_recipe, write_jpeg,
    write_mask_png, write_png, write_png_with_recipe,
};

use super::support::{patch_error, patches, psnr};

fn read(path: &Path) -> Picture {
    read_picture(path, &ImageLimits::default()).unwrap()
}

fn dynamic(picture: &Picture) -> DynamicImage {
    image::RgbImage::from_raw(picture.width(), picture.height(), picture.rgb().to_vec()).unwrap().into()
}

fn save(folder: &Path, name: &str, image: &DynamicImage, format: ImageFormat) -> PathBuf {
    let mut bytes = Vec::new();
    image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn formats_are_told_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = patches(96, 64, 0);
    for (format, name, exact) in [
        (ImageFormat::Png, "png.jpg", true),
        (ImageFormat::WebP, "webp.png", true),
        (ImageFormat::Gif, "gif", false),
        (ImageFormat::Jpeg, "jpeg.gif", false),
    ] {
        let path = save(folder.path(), name, &dynamic(&wanted), format);
        let found = read(&path);
        if exact {
            assert_eq!(found, wanted, "{format:?}");
        } else {
            assert!(patch_error(&found, &wanted) <= 8, "{format:?}");
        }
    }
}

#[test]
fn png_and_jpeg_round_trip_with_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = patches(97, 63, 1);
    let png = folder.path().join("a.png");
    write_png_with_recipe(&png, &wanted, Some("{\"é\": 1}"), false).unwrap();
    assert_eq!(read(&png), wanted);
    assert_eq!(read_recipe(&png).unwrap().as_deref(), Some("{\"é\": 1}"));
    assert!(write_png(&png, &wanted, false).unwrap_err().to_string().contains("--force"));
    write_png(&png, &wanted, true).unwrap();
    assert_eq!(read_recipe(&png).unwrap(), None);
    let jpeg = folder.path().join("a.jpg");
    write_jpeg(&jpeg, &wanted, 95, false).unwrap();
    assert!(psnr(&read(&jpeg), &wanted) > 28.0);
    assert!(write_jpeg(&folder.path().join("b.jpg"), &wanted, 0, false).is_err());
}

/// An APP1 segment with one tag: orientation.
fn with_exif(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let mut out = jpeg[..2].to_vec();
    out.extend([0xFF, 0xE1]);
    out.extend((exif.len() as u16 + 2).to_be_bytes());
    out.extend(exif);
    out.extend(&jpeg[2..]);
    out
}

#[test]
fn all_eight_exif_orientations_stand_up() {
    let folder = tempfile::tempdir().unwrap();
    let upright = dynamic(&patches(96, 64, 0));
    for orientation in 1..=8u8 {
        // What a camera stores: the inverse of what a viewer does.
        let stored = match orientation {
            2 => upright.fliph(),
            3 => upright.rotate180(),
            4 => upright.flipv(),
            5 => upright.rotate90().fliph(),
            6 => upright.rotate270(),
            7 => upright.rotate270().fliph(),
            8 => upright.rotate90(),
            _ => upright.clone(),
        };
        let mut bytes = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95).encode_image(&stored).unwrap();
        let path = folder.path().join("a.jpg");
        std::fs::write(&path, with_exif(&bytes, orientation)).unwrap();
        let found = read(&path);
        assert!(patch_error(&found, &patches(96, 64, 0)) <= 6, "orientation {orientation}");
    }
}

#[test]
fn wide_gamut_profiles_become_srgb() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p3.png");
    let srgb = patches(96, 64, 0);
    // The same colours said in Display P3.
    let p3 = moxcms::ColorProfile::new_display_p3();
    let to_p3 = moxcms::ColorProfile::new_srgb()
        .create_transform_8bit(moxcms::Layout::Rgb, &p3, moxcms::Layout::Rgb, Default::default())
        .unwrap();
    let mut stored = vec![0; srgb.rgb().len()];
    to_p3.transform(srgb.rgb(), &mut stored).unwrap();
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder.set_icc_profile(p3.encode().unwrap()).unwrap();
    encoder.write_image(&stored, 96, 64, image::ExtendedColorType::Rgb8).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let raw = Picture::new(96, 64, stored).unwrap();
    assert!(patch_error(&raw, &srgb) > 10, "the profile must matter for this test");
    let found = read(&path);
    assert!(patch_error(&found, &srgb) <= 1, "{}", patch_error(&found, &srgb));
}

#[test]
fn grey_profiles_are_applied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("grey.png");
    let profile = moxcms::ColorProfile::new_gray_with_gamma(1.0);
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder.set_icc_profile(profile.encode().unwrap()).unwrap();
    encoder.write_image(&[128; 64], 8, 8, image::ExtendedColorType::L8).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    // Half the light of white is 188 in sRGB.
    for &value in read(&path).rgb() {
        assert!(value.abs_diff(188) <= 2, "{value}");
    }
}

#[test]
fn deep_grey_and_transparent_pictures_become_rgb() {
    let folder = tempfile::tempdir().unwrap();
    let deep = DynamicImage::ImageRgb16(image::ImageBuffer::from_pixel(
        9,
        5,
        image::Rgb([0x8000u16, 0x1234, 0xFFFF]),
    ));
    let path = save(folder.path(), "deep.png", &deep, ImageFormat::Png);
    assert_eq!(&read(&path).rgb()[..3], [128, 18, 255]);
    let grey = DynamicImage::ImageLuma8(image::GrayImage::from_pixel(4, 4, image::Luma([77])));
    assert_eq!(&read(&save(folder.path(), "g.png", &grey, ImageFormat::Png)).rgb()[..3], [77, 77, 77]);
    assert!(read(&save(folder.path(), "g.jpg", &grey, ImageFormat::Jpeg)).rgb()[0].abs_diff(77) <= 1);
    let clear = DynamicImage::ImageRgba8(image::RgbaImage::from_fn(2, 1, |x, _| {
        image::Rgba(if x == 0 { [255, 0, 0, 0] } else { [255, 0, 0, 51] })
    }));
    let found = read(&save(folder.path(), "a.png", &clear, ImageFormat::Png));
    assert_eq!(&found.rgb()[..3], [ALPHA_GROUND; 3]);
    assert_eq!(&found.rgb()[3..], [153, 102, 102]);
}

#[test]
fn masks_come_from_alpha_or_luminance() {
    let folder = tempfile::tempdir().unwrap();
    let limits = ImageLimits::default();
    let mask = Mask::new(3, 1, vec![0.0, 0.5, 1.0]).unwrap();
    let path = folder.path().join("m.png");
    write_mask_png(&path, &mask, false).unwrap();
    let back = read_mask(&path, &limits).unwrap();
    for (a, b) in mask.alpha().iter().zip(back.alpha()) {
        assert!((a - b).abs() < 0.003);
    }
    let cut_out = DynamicImage::ImageRgba8(image::RgbaImage::from_fn(2, 1, |x, _| {
        image::Rgba([0, 0, 0, if x == 0 { 255 } else { 0 }])
    }));
    let path = save(folder.path(), "c.png", &cut_out, ImageFormat::Png);
    assert_eq!(read_mask(&path, &limits).unwrap().alpha(), [1.0, 0.0]);
}
