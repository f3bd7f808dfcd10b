//! Clips written, read back by us and looked at by FFmpeg's own tools.

use std::path::Path;

use kinora_pipeline::media::{
    Codec, EncodeSpec, MediaError, Orientation, Picture, Quality, VideoLimits, VideoReader, create_sink,
    loudness, read_recipe,
};

use super::support::{names, patch_error, patches, probe, psnr, tool};

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
fn rotation_metadata_stands_frames_up() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("a.mp4");
    write(&plain, &spec(Codec::H264, 192, 128), 2);
    let upright = read_all(&plain).remove(0).1;
    for degrees in ["90", "180", "270"] {
        let turned = folder.path().join(format!("r{degrees}.mp4"));
        // FFmpeg 5.1 names the counter-clockwise turn a player undoes.
        let tag = format!("rotate={degrees}");
        let args = [
            "-v",
            "error",
            "-y",
            "-i",
            plain.to_str().unwrap(),
            "-c",
            "copy",
            "-metadata:s:v:0",
            &tag,
            turned.to_str().unwrap(),
        ];
        if tool("ffmpeg", &args).is_none() {
            return;
        }
        let mut reader = VideoReader::open(&turned, &VideoLimits::default()).unwrap();
        let shown = reader.info().orientation;
        let frame = reader.next_frame().unwrap().unwrap().picture;
        assert_eq!(frame, shown.apply(upright.clone()).unwrap());
        assert_eq!((reader.info().width, reader.info().height), (frame.width(), frame.height()));
        // The command line, which turns by itself, is the judge.
        let raw = folder.path().join("r.rgb");
        let args = [
            "-v",
            "error",
            "-y",
            "-i",
            turned.to_str().unwrap(),
            "-frames:v",
            "1",
            "-f",
            "rawvideo",
            "-sws_flags",
            "accurate_rnd+full_chroma_int+bitexact",
            "-pix_fmt",
            "rgb24",
            raw.to_str().unwrap(),
        ];
        tool("ffmpeg", &args);
        let judged = Picture::new(frame.width(), frame.height(), std::fs::read(&raw).unwrap()).unwrap();
        assert!(psnr(&judged, &frame) > 22.0, "{degrees}: {}", psnr(&judged, &frame));
        assert!(!shown.mirrored);
    }
}

#[test]
fn odd_sizes_ranges_depths_and_matrices_read_right() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("in.png");
    kinora_pipeline::media::write_png(&source, &patches(99, 77, 0), false).unwrap();
    let png = source.to_str().unwrap();
    for (name, args) in [
        (
            "limited601.mkv",
            vec![
                "-vf",
                "scale=out_color_matrix=bt601:out_range=tv:flags=accurate_rnd",
                "-pix_fmt",
                "yuv444p",
                "-colorspace",
                "smpte170m",
                "-color_range",
                "tv",
            ],
        ),
        (
            "full601.mkv",
            vec![
                "-vf",
                "scale=out_color_matrix=bt601:out_range=pc:flags=accurate_rnd",
                "-pix_fmt",
                "yuvj444p",
                "-colorspace",
                "smpte170m",
            ],
        ),
        (
            "ten709.mkv",
            vec![
                "-vf",
                "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd",
                "-pix_fmt",
                "yuv422p10le",
                "-colorspace",
                "bt709",
                "-color_range",
                "tv",
            ],
        ),
        (
            "ten2020.mkv",
            vec![
                "-vf",
                "scale=out_color_matrix=bt2020:out_range=tv:flags=accurate_rnd",
                "-pix_fmt",
                "yuv444p10le",
                "-colorspace",
                "bt2020nc",
                "-color_range",
                "tv",
            ],
        ),
        (
            "untagged.mkv",
            vec![
                "-vf",
                "scale=out_color_matrix=bt601:out_range=tv:flags=accurate_rnd",
                "-pix_fmt",
                "yuv444p",
            ],
        ),
    ] {
        let path = folder.path().join(name);
        let mut all = vec!["-v", "error", "-y", "-i", png];
        all.extend(args);
        all.extend(["-c:v", "ffv1", path.to_str().unwrap()]);
        if tool("ffmpeg", &all).is_none() {
            return;
        }
        let frames = read_all(&path);
        assert_eq!(frames.len(), 1);
        let error = patch_error(&frames[0].1, &patches(99, 77, 0));
        assert!(error <= 3, "{name}: off by {error}");
    }
}

#[test]
fn variable_rates_keep_their_times() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vfr.mkv");
    let args = [
        "-v",
        "error",
        "-y",
        "-f",
        "lavfi",
        "-i",
        "testsrc=s=64x64:r=10:d=1",
        "-vf",
        "settb=1/1000,setpts='N*N/(40*TB)'",
        "-vsync",
        "vfr",
        "-enc_time_base",
        "1:1000",
        "-c:v",
        "ffv1",
        path.to_str().unwrap(),
    ];
    if tool("ffmpeg", &args).is_none() {
        return;
    }
    let frames = read_all(&path);
    assert!(frames.len() >= 9);
    for (n, (seconds, _)) in frames.iter().enumerate().skip(1) {
        let due = (n * n) as f64 / 40.0;
        assert!((seconds - due).abs() < 0.002, "frame {n}: {seconds} for {due}");
    }
}

#[test]
fn interlaced_clips_are_flagged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("i.mpg");
    let args = [
        "-v",
        "error",
        "-y",
        "-f",
        "lavfi",
        "-i",
        "testsrc=s=64x64:r=25:d=0.4",
        "-vf",
        "setfield=tff",
        "-flags",
        "+ildct+ilme",
        "-c:v",
        "mpeg2video",
        path.to_str().unwrap(),
    ];
    if tool("ffmpeg", &args).is_none() {
        return;
    }
    let mut reader = VideoReader::open(&path, &VideoLimits::default()).unwrap();
    while reader.next_frame().unwrap().is_some() {}
    assert!(reader.info().interlaced);
    assert!(reader.notices().iter().any(|n| n.contains("interlaced")));
}

#[test]
fn avif_is_read_where_ffmpeg_decodes_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("in.png");
    let path = folder.path().join("a.jpg");
    kinora_pipeline::media::write_png(&source, &patches(96, 64, 0), false).unwrap();
    let made = folder.path().join("a.avif");
    let args = [
        "-v",
        "error",
        "-y",
        "-i",
        source.to_str().unwrap(),
        "-vf",
        "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd",
        "-colorspace",
        "bt709",
        "-color_range",
        "tv",
        "-c:v",
        "libaom-av1",
        "-still-picture",
        "1",
        "-crf",
        "5",
        "-cpu-used",
        "8",
        made.to_str().unwrap(),
    ];
    if tool("ffmpeg", &args).is_none() {
        return;
    }
    // The wrong extension on purpose: content decides.
    std::fs::rename(&made, &path).unwrap();
    let found = kinora_pipeline::media::read_picture(&path, &Default::default()).unwrap();
    assert!(patch_error(&found, &patches(96, 64, 0)) <= 4);
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

#[test]
fn orientation_is_public_and_total() {
    let turned = Orientation { mirrored: true, quarter_turns: 3 };
    assert!(turned.swaps_sides());
    let out = turned.apply(patches(30, 20, 0)).unwrap();
    assert_eq!((out.width(), out.height()), (20, 30));
}

#[test]
fn loudness_follows_the_sound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tone.mkv");
    let tone = "sine=frequency=440:sample_rate=44100:duration=2,volume='if(lt(t,1),0,8)':eval=frame";
    let args =
        ["-v", "error", "-f", "lavfi", "-i", "color=size=64x64:rate=10:duration=2", "-f", "lavfi", "-i"];
    let rest = [tone, "-ac", "2", "-c:a", "pcm_s16le", path.to_str().unwrap()];
    if tool("ffmpeg", &[&args[..], &rest].concat()).is_none() {
        return;
    }
    let limits = VideoLimits::default();
    let peaks = loudness(&path, 20, &limits, &|| false).unwrap().expect("it has sound");
    assert!((38..=41).contains(&peaks.len()), "{}", peaks.len());
    assert!(peaks[..18].iter().all(|&p| p < 0.01), "silent at first: {peaks:?}");
    assert!(peaks[22..38].iter().all(|&p| (0.5..=1.0).contains(&p)), "then loud: {peaks:?}");
    assert!(loudness(&path, 20, &limits, &|| true).unwrap().unwrap().is_empty(), "it stops when told to");

    let silent = dir.path().join("silent.mp4");
    write(&silent, &spec(Codec::H264, 64, 48), 3);
    assert_eq!(loudness(&silent, 20, &limits, &|| false).unwrap(), None, "no sound at all");
}
