//! Hostile and broken files: each gives an error that names the file and what was found.

use std::path::{Path, PathBuf};

use kinora_pipeline::media::{ImageLimits, MediaError, VideoLimits, VideoReader, read_picture, write_png};

use super::support::{names, patches};

fn put(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn picture_error(path: &Path) -> MediaError {
    let error = read_picture(path, &ImageLimits::default()).unwrap_err();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(error.to_string().contains(name), "{error} does not name {name}");
    error
}

#[test]
fn empty_missing_and_foreign_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let error = picture_error(&put(folder.path(), "empty.png", b""));
    assert!(matches!(error, MediaError::Empty { .. }), "{error}");
    let error = picture_error(&put(folder.path(), "text.jpg", b"hello, I am a text"));
    assert!(matches!(error, MediaError::WrongKind { .. }), "{error}");
    let error = picture_error(&folder.path().join("missing.png"));
    assert!(matches!(error, MediaError::Read { .. }), "{error}");
    let error = picture_error(folder.path());
    assert!(error.to_string().contains("folder"), "{error}");
}

#[test]
fn every_truncation_is_an_error_and_never_a_grey_picture() {
    let folder = tempfile::tempdir().unwrap();
    let picture = patches(96, 64, 0);
    let image: image::DynamicImage =
        image::RgbImage::from_raw(96, 64, picture.rgb().to_vec()).unwrap().into();
    for format in
        [image::ImageFormat::Png, image::ImageFormat::Jpeg, image::ImageFormat::WebP, image::ImageFormat::Gif]
    {
        let mut bytes = Vec::new();
        image.write_to(&mut std::io::Cursor::new(&mut bytes), format).unwrap();
        for part in [10, 30, 50, 80] {
            let cut = bytes.len() * part / 100;
            let error = picture_error(&put(folder.path(), "cut.bin", &bytes[..cut]));
            let fits = matches!(error, MediaError::Truncated { .. } | MediaError::Damaged { .. });
            assert!(fits, "{format:?} at {part} %: {error}");
        }
    }
}

#[test]
fn bombs_are_refused_by_their_header() {
    let folder = tempfile::tempdir().unwrap();
    // 20000 x 20000 in a few kilobytes.
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 20_000, 20_000);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let mut writer = encoder.write_header().unwrap();
    writer.write_chunk(png::chunk::IDAT, &[0; 64]).unwrap();
    drop(writer);
    let error = picture_error(&put(folder.path(), "bomb.png", &bytes));
    assert!(matches!(error, MediaError::OverLimit { .. }), "{error}");
    // Within the sides, over the memory.
    let mut bytes = Vec::new();
    let encoder = png::Encoder::new(&mut bytes, 16_000, 16_000);
    let mut writer = encoder.write_header().unwrap();
    writer.write_chunk(png::chunk::IDAT, &[0; 64]).unwrap();
    drop(writer);
    let error = picture_error(&put(folder.path(), "bomb2.png", &bytes));
    assert!(matches!(error, MediaError::OverLimit { .. }), "{error}");
    let small = ImageLimits { max_file: 10, ..ImageLimits::default() };
    let path = put(folder.path(), "long.png", &[0; 11]);
    assert!(matches!(read_picture(&path, &small), Err(MediaError::OverLimit { .. })));
}

#[test]
fn unwritable_folders_say_so_and_stay_clean() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no/such/folder/a.png");
    assert!(write_png(&missing, &patches(8, 8, 0), false).is_err());
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(closed.join("probe"), "x").is_ok() {
        eprintln!("skipped: this user may write anywhere");
        return;
    }
    let error = write_png(&closed.join("a.png"), &patches(8, 8, 0), false).unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
    assert!(names(&closed).is_empty());
}

#[cfg(not(feature = "video"))]
#[test]
fn a_build_without_ffmpeg_names_the_feature() {
    use kinora_pipeline::media::{Codec, EncodeSpec, Quality, create_sink};
    let folder = tempfile::tempdir().unwrap();
    let path = put(folder.path(), "a.mp4", b"\0\0\0\x18ftypmp42");
    let error = VideoReader::open(&path, &VideoLimits::default()).unwrap_err();
    assert!(error.to_string().contains("`video`"), "{error}");
    let spec = EncodeSpec {
        codec: Codec::H264,
        width: 64,
        height: 64,
        fps: (8, 1),
        quality: Quality::Standard,
        colour: None,
        sound: false,
        recipe: None,
        overwrite: true,
    };
    let error = create_sink(&path, &spec).err().unwrap();
    assert!(error.to_string().contains("--features video"), "{error}");
}

#[cfg(feature = "video")]
mod video {
    use super::*;
    use crate::support::tool;
    use kinora_pipeline::media::{Codec, EncodeSpec, Quality, create_sink};

    fn open(path: &Path) -> Result<VideoReader, MediaError> {
        VideoReader::open(path, &VideoLimits::default())
    }

    fn clip(folder: &Path, name: &str, codec: Codec, frames: u32) -> PathBuf {
        let path = folder.join(name);
        let spec = EncodeSpec {
            codec,
            width: 128,
            height: 96,
            fps: (10, 1),
            quality: Quality::Standard,
            colour: None,
            sound: false,
            recipe: None,
            overwrite: true,
        };
        let mut sink = create_sink(&path, &spec).unwrap();
        for frame in 0..frames {
            sink.write(&patches(128, 96, frame)).unwrap();
        }
        sink.finish().unwrap();
        path
    }

    #[test]
    fn empty_foreign_and_playlist_files_are_no_clips() {
        let folder = tempfile::tempdir().unwrap();
        let error = open(&put(folder.path(), "empty.mp4", b"")).unwrap_err();
        assert!(matches!(error, MediaError::Empty { .. }), "{error}");
        clip(folder.path(), "real.mp4", Codec::H264, 2);
        let playlists: [(&str, &[u8]); 4] = [
            ("text.mp4", b"just words, and quite a lot of them"),
            ("list.mp4", b"ffconcat version 1.0\nfile real.mp4\n"),
            ("list.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nreal.mp4\n#EXT-X-ENDLIST\n"),
            ("evil.m3u8", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/x.ts\n#EXT-X-ENDLIST\n"),
        ];
        for (name, bytes) in playlists {
            let error = open(&put(folder.path(), name, bytes)).unwrap_err();
            assert!(matches!(error, MediaError::WrongKind { .. }), "{name}: {error}");
        }
        let error = open(folder.path()).unwrap_err();
        assert!(error.to_string().contains("folder"), "{error}");
        assert!(matches!(open(&folder.path().join("none.mp4")), Err(MediaError::Read { .. })));
    }

    #[test]
    fn audio_only_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut wav = b"RIFF\x24\x08\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\x08\0\0".to_vec();
        wav.extend([0; 2048]);
        let error = open(&put(folder.path(), "sound.mp4", &wav)).unwrap_err();
        assert!(matches!(error, MediaError::NoVideo { .. }), "{error}");
        assert!(error.to_string().contains("audio"), "{error}");
    }

    #[test]
    fn truncated_clips_give_what_decodes_then_a_notice_or_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mkv = clip(folder.path(), "a.mkv", Codec::Ffv1, 20);
        let bytes = std::fs::read(&mkv).unwrap();
        let path = put(folder.path(), "cut.mkv", &bytes[..bytes.len() / 2]);
        let mut reader = open(&path).unwrap();
        let mut frames = 0;
        while let Some(frame) = reader.next_frame().unwrap() {
            assert_eq!(frame.picture, patches(128, 96, frames));
            frames += 1;
        }
        assert!((5..15).contains(&frames), "{frames}");
        let mp4 = clip(folder.path(), "b.mp4", Codec::H264, 20);
        let bytes = std::fs::read(&mp4).unwrap();
        let error = open(&put(folder.path(), "head.mp4", &bytes[..200])).unwrap_err();
        assert!(matches!(error, MediaError::Truncated { .. }), "{error}");
    }

    #[test]
    fn noise_in_the_data_never_panics() {
        let folder = tempfile::tempdir().unwrap();
        for (name, codec) in [("a.mp4", Codec::H264), ("a.webm", Codec::Vp9), ("a.gif", Codec::Gif)] {
            let bytes = std::fs::read(clip(folder.path(), name, codec, 6)).unwrap();
            let mut state = 12345u32;
            for round in 0..12 {
                let mut bad = bytes.clone();
                for _ in 0..1 + bad.len() / 200 {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let at = (state >> 8) as usize % bad.len();
                    bad[at] = state as u8;
                }
                let path = put(folder.path(), &format!("bad{round}"), &bad);
                if let Ok(mut reader) = open(&path) {
                    let mut frames = 0;
                    while let Ok(Some(_)) = reader.next_frame() {
                        frames += 1;
                        assert!(frames < 1000);
                    }
                }
            }
        }
    }

    #[test]
    fn limits_hold() {
        let folder = tempfile::tempdir().unwrap();
        let path = clip(folder.path(), "a.mp4", Codec::H264, 20);
        let over = |limits: VideoLimits| {
            let result = VideoReader::open(&path, &limits).and_then(|mut reader| {
                while reader.next_frame()?.is_some() {}
                Ok(())
            });
            let error = result.unwrap_err();
            assert!(matches!(error, MediaError::OverLimit { .. }), "{error}");
        };
        over(VideoLimits { max_frames: 10, ..VideoLimits::default() });
        over(VideoLimits { max_seconds: 1.0, ..VideoLimits::default() });
        over(VideoLimits { max_pixels: 128 * 96 - 1, ..VideoLimits::default() });
        over(VideoLimits { call_deadline: std::time::Duration::ZERO, ..VideoLimits::default() });
        let many = folder.path().join("many.mkv");
        let source = path.to_str().unwrap();
        let args = [
            "-v",
            "error",
            "-y",
            "-i",
            source,
            "-map",
            "0",
            "-map",
            "0",
            "-map",
            "0",
            "-c",
            "copy",
            many.to_str().unwrap(),
        ];
        if tool("ffmpeg", &args).is_some() {
            let limits = VideoLimits { max_streams: 2, ..VideoLimits::default() };
            assert!(VideoReader::open(&many, &limits).is_err());
        }
    }
}
