//! Clips written, read back by us and looked at by FFmpeg's own tools.

#[path = "clips/animations.rs"]
mod animations;
#[path = "clips/foreign.rs"]
mod foreign;
#[path = "clips/sequences.rs"]
mod sequences;

use std::path::Path;

use kinora_pipeline::media::{
    Codec, EncodeSpec, MediaError, Picture, Quality, VideoLimits, VideoReader, create_sink, read_recipe,
};

use super::support::{names, patch_error, patches, probe, tool};

const RECIPE: &str = r#"{"kinora":1,"nodes":{"a":{"prompt":"drift; = \\ \"left\" – ü\nnext"}}}"#;

fn spec(codec: Codec, width: u32, height: u32) -> EncodeSpec {
    EncodeSpec {
        codec,
        width,
        height,
        fps: (24000, 1001),
        quality: Quality::High,
        colour: None,
        sound: false,
        recipe: Some(RECIPE.to_owned()),
        overwrite: false,
    }
}

fn write(path: &Path, spec: &EncodeSpec, frames: u32) {
    let mut sink = create_sink(path, spec).unwrap();
    for frame in 0..frames {
        sink.write(&patches(spec.width, spec.height, frame)).unwrap();
    }
    let written = sink.finish().unwrap();
    assert_eq!(written.frames, u64::from(frames));
    assert_eq!(written.path, path);
    assert_eq!(written.bytes, std::fs::metadata(path).unwrap().len());
}

fn read_all(path: &Path) -> Vec<(f64, Picture)> {
    let mut reader = VideoReader::open(path, &VideoLimits::default()).unwrap();
    let mut out = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        out.push((frame.seconds, frame.picture));
    }
    out
}

struct Case {
    codec: Codec,
    name: &'static str,
    codec_name: &'static str,
    pixels: &'static str,
    tolerance: u8,
}

const FAMILIES: [Case; 6] = [
    Case { codec: Codec::H264, name: "a.mp4", codec_name: "h264", pixels: "yuv420p", tolerance: 3 },
    Case { codec: Codec::H265, name: "b.mp4", codec_name: "hevc", pixels: "yuv420p", tolerance: 3 },
    Case { codec: Codec::ProRes, name: "c.mov", codec_name: "prores", pixels: "yuv422p10le", tolerance: 3 },
    Case { codec: Codec::Vp9, name: "d.webm", codec_name: "vp9", pixels: "yuv420p", tolerance: 3 },
    Case { codec: Codec::Av1, name: "e.mp4", codec_name: "av1", pixels: "yuv420p", tolerance: 3 },
    Case { codec: Codec::Ffv1, name: "f.mkv", codec_name: "ffv1", pixels: "bgr0", tolerance: 0 },
];

#[test]
fn every_family_round_trips_with_colours_times_tags_and_recipe() {
    let folder = tempfile::tempdir().unwrap();
    for case in &FAMILIES {
        let path = folder.path().join(case.name);
        write(&path, &spec(case.codec, 192, 128), 12);
        let frames = read_all(&path);
        assert_eq!(frames.len(), 12, "{:?}", case.codec);
        for (index, (seconds, picture)) in frames.iter().enumerate() {
            let wanted = patches(192, 128, index as u32);
            let error = patch_error(picture, &wanted);
            assert!(error <= case.tolerance, "{:?} frame {index}: off by {error}", case.codec);
            if case.codec == Codec::Ffv1 {
                assert_eq!(picture, &wanted, "frame {index} is not lossless");
            }
            let due = index as f64 * 1001.0 / 24000.0;
            // WebM and MKV count in milliseconds.
            assert!((seconds - due).abs() < 0.00051, "{:?}: {seconds} for {due}", case.codec);
        }
        assert_eq!(read_recipe(&path).unwrap().as_deref(), Some(RECIPE), "{:?}", case.codec);
        let Some(codec_name) = probe(&path, "codec_name") else { continue };
        assert_eq!(codec_name, case.codec_name);
        let get = |key: &str| probe(&path, key).unwrap();
        assert_eq!(get("pix_fmt"), case.pixels);
        assert_eq!(get("nb_read_frames"), "12");
        assert_eq!(get("r_frame_rate"), "24000/1001", "{:?}", case.codec);
        assert_eq!(get("color_primaries"), "bt709", "{:?}", case.codec);
        if case.codec == Codec::Ffv1 {
            assert_eq!(get("color_space"), "gbr");
        } else {
            assert_eq!(get("color_range"), "tv", "{:?}", case.codec);
            assert_eq!(get("color_space"), "bt709", "{:?}", case.codec);
            assert_eq!(get("color_transfer"), "bt709", "{:?}", case.codec);
        }
        match case.codec {
            Codec::H265 => assert_eq!(get("codec_tag_string"), "hvc1"),
            Codec::ProRes => assert_eq!(get("codec_tag_string"), "apch"),
            _ => {}
        }
    }
    assert_eq!(names(folder.path()), ["a.mp4", "b.mp4", "c.mov", "d.webm", "e.mp4", "f.mkv"]);
}

#[test]
fn the_command_line_decodes_the_same_colours() {
    let folder = tempfile::tempdir().unwrap();
    for case in &FAMILIES {
        let path = folder.path().join(case.name);
        write(&path, &spec(case.codec, 192, 128), 3);
        let raw = folder.path().join("out.rgb");
        let filter =
            "scale=in_color_matrix=bt709:in_range=tv:out_range=pc:flags=accurate_rnd+full_chroma_int";
        let filter = if case.codec == Codec::Ffv1 { "null" } else { filter };
        let args = [
            "-v",
            "error",
            "-y",
            "-i",
            path.to_str().unwrap(),
            "-vf",
            filter,
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            raw.to_str().unwrap(),
        ];
        if tool("ffmpeg", &args).is_none() {
            return;
        }
        let bytes = std::fs::read(&raw).unwrap();
        let size = 192 * 128 * 3;
        assert_eq!(bytes.len(), 3 * size, "{:?}", case.codec);
        for (index, frame) in bytes.chunks_exact(size).enumerate() {
            let found = Picture::new(192, 128, frame.to_vec()).unwrap();
            let error = patch_error(&found, &patches(192, 128, index as u32));
            assert!(error <= case.tolerance, "{:?} frame {index}: off by {error}", case.codec);
        }
    }
}

#[test]
fn mp4_has_its_index_in_front() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    write(&path, &spec(Codec::H264, 64, 64), 5);
    let bytes = std::fs::read(&path).unwrap();
    let at = |name: &[u8]| bytes.windows(4).position(|w| w == name).unwrap();
    assert!(at(b"moov") < at(b"mdat"));
    assert!(bytes.windows(4).any(|w| w == b"colr"));
}

#[test]
fn equal_frames_give_equal_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for case in &FAMILIES {
        let one = folder.path().join(format!("1{}", case.name));
        let two = folder.path().join(format!("2{}", case.name));
        write(&one, &spec(case.codec, 128, 96), 6);
        write(&two, &spec(case.codec, 128, 96), 6);
        assert!(std::fs::read(&one).unwrap() == std::fs::read(&two).unwrap(), "{:?}", case.codec);
    }
}

#[test]
fn seeking_lands_on_the_frame_shown_at_that_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    let spec = EncodeSpec { fps: (25, 1), quality: Quality::Draft, ..spec(Codec::H264, 160, 96) };
    write(&path, &spec, 60);
    let all = read_all(&path);
    let mut reader = VideoReader::open(&path, &VideoLimits::default()).unwrap();
    for wanted in [0usize, 37, 12, 59, 1, 58, 30] {
        for offset in [0.0, 0.019] {
            reader.seek(wanted as f64 / 25.0 + offset).unwrap();
            for later in 0..3.min(60 - wanted) {
                let frame = reader.next_frame().unwrap().unwrap();
                assert_eq!(frame.seconds, all[wanted + later].0, "seek to {wanted}");
                assert_eq!(frame.picture, all[wanted + later].1, "seek to {wanted}");
            }
        }
    }
    reader.seek(99.0).unwrap();
    assert_eq!(reader.next_frame().unwrap().unwrap().seconds, all[59].0);
    assert!(reader.next_frame().unwrap().is_none());
    reader.seek(-5.0).unwrap();
    assert_eq!(reader.next_frame().unwrap().unwrap().seconds, 0.0);
    assert!(reader.seek(f64::NAN).is_err());
}

#[test]
fn impossible_requests_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let refuse = |name: &str, spec: EncodeSpec, says: &str| {
        let error = create_sink(&folder.path().join(name), &spec).err().unwrap();
        assert!(error.to_string().contains(says), "{error}");
    };
    refuse("a.mp4", spec(Codec::H264, 65, 64), "66x64");
    refuse("a.mp4", spec(Codec::H264, 0, 64), "0x64");
    refuse("a.mp4", EncodeSpec { fps: (0, 1), ..spec(Codec::H264, 64, 64) }, "frame rate");
    refuse("a.avi", spec(Codec::H264, 64, 64), ".avi");
    refuse("a.gif", EncodeSpec { fps: (60, 1), ..spec(Codec::Gif, 64, 64) }, "50 frames");
    let path = folder.path().join("b.mp4");
    let mut sink = create_sink(&path, &spec(Codec::H264, 64, 64)).unwrap();
    let error = sink.write(&patches(32, 32, 0)).unwrap_err();
    assert!(matches!(error, MediaError::WrongFrame { .. }), "{error}");
    assert!(sink.finish().is_err());
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_dropped_sink_leaves_nothing_and_old_files_stay() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.mp4", "b.gif", "c.webp", "d", "e_%03d.png", "f.mkv"] {
        let path = folder.path().join(name);
        let codec = Codec::from_path(&path).unwrap();
        let mut sink = create_sink(&path, &EncodeSpec { fps: (10, 1), ..spec(codec, 64, 64) }).unwrap();
        for frame in 0..3 {
            sink.write(&patches(64, 64, frame)).unwrap();
        }
        drop(sink);
        assert!(names(folder.path()).is_empty(), "{name}: {:?}", names(folder.path()));
    }
    let path = folder.path().join("kept.mp4");
    std::fs::write(&path, "mine").unwrap();
    let error = create_sink(&path, &spec(Codec::H264, 64, 64)).err().unwrap();
    assert!(error.to_string().contains("--force"), "{error}");
    let again = EncodeSpec { overwrite: true, ..spec(Codec::H264, 64, 64) };
    drop(create_sink(&path, &again).unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    write(&path, &again, 2);
    assert_eq!(read_all(&path).len(), 2);
}
