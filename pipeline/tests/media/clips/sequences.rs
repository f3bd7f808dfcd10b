//! Frames as numbered pictures: PNG and EXR.

use kinora_pipeline::media::{Codec, create_sink, read_recipe};

use super::{RECIPE, spec};
use crate::support::{names, patches, tool};

#[test]
fn png_sequences_appear_whole() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("shot");
    let mut sink = create_sink(&whole, &spec(Codec::PngSequence, 31, 17)).unwrap();
    for frame in 0..3 {
        sink.write(&patches(31, 17, frame)).unwrap();
    }
    assert!(!whole.exists());
    assert_eq!(sink.finish().unwrap().frames, 3);
    assert_eq!(names(&whole), ["frame_00000.png", "frame_00001.png", "frame_00002.png"]);
    assert_eq!(read_recipe(&whole).unwrap().as_deref(), Some(RECIPE));
    let second =
        kinora_pipeline::media::read_picture(&whole.join("frame_00001.png"), &Default::default()).unwrap();
    assert_eq!(second, patches(31, 17, 1));
    let pattern = folder.path().join("p_%02d.png");
    let mut sink = create_sink(&pattern, &spec(Codec::PngSequence, 31, 17)).unwrap();
    sink.write(&patches(31, 17, 0)).unwrap();
    sink.finish().unwrap();
    assert!(folder.path().join("p_00.png").exists());
    let error = create_sink(&folder.path().join("x.png"), &spec(Codec::PngSequence, 31, 17)).err().unwrap();
    assert!(error.to_string().contains("%05d"), "{error}");
}

#[test]
fn exr_sequences_are_in_linear_light() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("shot");
    let mut sink = create_sink(&whole, &spec(Codec::ExrSequence, 96, 64)).unwrap();
    for frame in 0..2 {
        sink.write(&patches(96, 64, frame)).unwrap();
    }
    assert_eq!(sink.finish().unwrap().frames, 2);
    assert_eq!(names(&whole), ["frame_00000.exr", "frame_00001.exr"]);
    assert_eq!(read_recipe(&whole).unwrap().as_deref(), Some(RECIPE));
    let first = whole.join("frame_00000.exr");
    let meta = exr::meta::MetaData::read_from_file(&first, true).unwrap();
    let header = &meta.headers[0];
    let kinds: Vec<String> =
        header.channels.list.iter().map(|c| format!("{} {:?}", c.name, c.sample_type)).collect();
    assert_eq!(kinds, ["B F16", "G F16", "R F16"]);
    assert_eq!(header.own_attributes.frames_per_second, Some((24000, 1001)));

    // FFmpeg's own reader: planes of G, B, R.
    let raw = folder.path().join("raw");
    let (from, to) = (first.to_str().unwrap(), raw.to_str().unwrap());
    let args = ["-v", "error", "-i", from, "-f", "rawvideo", "-pix_fmt", "gbrpf32le", to];
    if tool("ffmpeg", &args).is_none() {
        return;
    }
    let planes = std::fs::read(&raw).unwrap();
    let (planes, _) = planes.as_chunks::<4>();
    let wanted = patches(96, 64, 0);
    for (at, pixel) in wanted.rgb().chunks(3).enumerate() {
        for (channel, plane) in [(0, 2), (1, 0), (2, 1)] {
            let found = f64::from(f32::from_le_bytes(planes[plane * 96 * 64 + at]));
            let v = f64::from(pixel[channel]) / 255.0;
            let light = if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) };
            assert!((found - light).abs() <= light * 5e-4 + 1e-7, "pixel {at}: {found} is not {light}");
        }
    }
    let pattern = folder.path().join("p_%03d.exr");
    let mut sink = create_sink(&pattern, &spec(Codec::ExrSequence, 31, 17)).unwrap();
    sink.write(&patches(31, 17, 0)).unwrap();
    sink.finish().unwrap();
    assert_eq!(read_recipe(&folder.path().join("p_000.exr")).unwrap().as_deref(), Some(RECIPE));
}
