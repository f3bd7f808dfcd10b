//! Clips of other makers: turned, odd, tagged otherwise, of another rate, with sound.

use kinora_pipeline::media::{Codec, Orientation, Picture, VideoLimits, VideoReader, loudness};

use super::{read_all, spec, write};
use crate::support::{patch_error, patches, psnr, tool};

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
