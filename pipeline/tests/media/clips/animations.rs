//! Animations of the web: GIF and WebP.

use kinora_pipeline::media::{Codec, EncodeSpec, Picture, create_sink, read_recipe};

use super::{RECIPE, read_all, spec, write};
use crate::support::{patch_error, patches, psnr};

#[test]
fn gif_keeps_colours_delays_and_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gif");
    let spec = EncodeSpec { fps: (12, 1), ..spec(Codec::Gif, 97, 61) };
    write(&path, &spec, 9);
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::RGBA);
    let mut decoder = options.read_info(std::fs::File::open(&path).unwrap()).unwrap();
    let mut delays = Vec::new();
    while let Some(frame) = decoder.read_next_frame().unwrap() {
        delays.push(frame.delay);
    }
    assert_eq!(delays.len(), 9);
    assert_eq!(delays.iter().sum::<u16>(), 75);
    assert!(delays.iter().all(|d| (8..=9).contains(d)), "{delays:?}");
    assert_eq!(read_recipe(&path).unwrap().as_deref(), Some(RECIPE));
    for (index, (_, picture)) in read_all(&path).iter().enumerate() {
        assert_eq!(picture, &patches(97, 61, index as u32), "frame {index}");
    }
}

#[test]
fn gif_of_a_photograph_like_picture_is_close() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gif");
    let rgb = (0..96u32 * 128)
        .flat_map(|i| {
            let (x, y) = ((i % 128) as f32, (i / 128) as f32);
            [120.0 + 90.0 * (x / 17.0).sin(), y * 2.4, 128.0 + 100.0 * ((x + y) / 40.0).cos()]
                .map(|v| v as u8)
        })
        .collect();
    let picture = Picture::new(128, 96, rgb).unwrap();
    let spec = EncodeSpec { fps: (10, 1), ..spec(Codec::Gif, 128, 96) };
    let mut sink = create_sink(&path, &spec).unwrap();
    sink.write(&picture).unwrap();
    sink.finish().unwrap();
    let found = psnr(&read_all(&path)[0].1, &picture);
    assert!(found > 29.0, "{found:.1} dB");
}

#[test]
fn animated_webp_decodes_elsewhere_and_carries_its_recipe() {
    use image::AnimationDecoder;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.webp");
    let spec = EncodeSpec { fps: (10, 1), ..spec(Codec::WebpAnimation, 96, 64) };
    write(&path, &spec, 7);
    let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
    let decoder = image::codecs::webp::WebPDecoder::new(file).unwrap();
    let frames = decoder.into_frames().collect_frames().unwrap();
    assert_eq!(frames.len(), 7);
    for (index, frame) in frames.iter().enumerate() {
        let (n, d) = frame.delay().numer_denom_ms();
        assert_eq!(n / d, 100, "frame {index}");
        let rgb = image::DynamicImage::from(frame.buffer().clone()).into_rgb8().into_raw();
        let found = Picture::new(96, 64, rgb).unwrap();
        let error = patch_error(&found, &patches(96, 64, index as u32));
        assert!(error <= 4, "frame {index}: off by {error}");
    }
    assert_eq!(read_recipe(&path).unwrap().as_deref(), Some(RECIPE));
    // The reader of stills must stand the private chunk and shows the first frame.
    let still = kinora_pipeline::media::read_picture(&path, &Default::default()).unwrap();
    assert!(patch_error(&still, &patches(96, 64, 0)) <= 4);
}
