//! What files say of their colours, and whether it is true.

use kinora_pipeline::media::{Codec, Colour, EncodeSpec, Quality, VideoLimits, VideoReader, create_sink};

use super::support::{patch_error, patches, probe, tool};

const FAMILIES: [(Codec, &str); 6] = [
    (Codec::H264, "mp4"),
    (Codec::H265, "mp4"),
    (Codec::ProRes, "mov"),
    (Codec::Vp9, "webm"),
    (Codec::Av1, "mp4"),
    (Codec::Ffv1, "mkv"),
];

fn spec(codec: Codec, colour: Option<Colour>) -> EncodeSpec {
    EncodeSpec {
        codec,
        width: 192,
        height: 128,
        fps: (25, 1),
        quality: Quality::High,
        colour,
        sound: false,
        recipe: None,
        overwrite: false,
    }
}

/// Range, matrix, curve and primaries as ffprobe names them.
fn tags(codec: Codec, colour: Colour) -> [&'static str; 4] {
    match colour {
        _ if codec == Codec::Ffv1 => ["pc", "gbr", "iec61966-2-1", "bt709"],
        Colour::Bt709 => ["tv", "bt709", "bt709", "bt709"],
        Colour::Bt709Full => ["pc", "bt709", "bt709", "bt709"],
        Colour::Bt601 => ["tv", "smpte170m", "bt709", "bt709"],
        Colour::Srgb => ["tv", "bt709", "iec61966-2-1", "bt709"],
    }
}

#[test]
fn every_family_says_how_its_colours_are_stored_and_stores_them_so() {
    let folder = tempfile::tempdir().unwrap();
    for (codec, ending) in FAMILIES {
        for colour in codec.colours() {
            let what = format!("{codec:?} as {}", colour.name());
            let path = folder.path().join(format!("{}-{codec:?}.{ending}", colour.name()));
            let mut sink = create_sink(&path, &spec(codec, Some(*colour))).unwrap();
            for frame in 0..3 {
                sink.write(&patches(192, 128, frame)).unwrap();
            }
            assert_eq!(sink.finish().unwrap().frames, 3);
            // Read by what it says, it is what was written.
            let mut reader = VideoReader::open(&path, &VideoLimits::default()).unwrap();
            let frame = reader.next_frame().unwrap().unwrap();
            let error = patch_error(&frame.picture, &patches(192, 128, 0));
            assert!(error <= 3, "{what}: off by {error}");
            let keys = ["color_range", "color_space", "color_transfer", "color_primaries"];
            let Some(range) = probe(&path, keys[0]) else { continue };
            let rest = keys[1..].iter().map(|key| probe(&path, key).unwrap());
            let found: Vec<String> = [range].into_iter().chain(rest).collect();
            let mut wanted: [&str; 4] = tags(codec, *colour);
            if codec == Codec::Ffv1 {
                // Its stream has no place for a range; RGB is full.
                wanted[0] = found[0].as_str();
                assert!(["pc", "unknown"].contains(&wanted[0]), "{what}: {}", wanted[0]);
            }
            assert_eq!(found, wanted, "{what}");
            independent(&path, colour, codec, &what);
        }
    }
}

/// The `ffmpeg` command sees the same colours when it is told nothing but the file.
fn independent(path: &std::path::Path, colour: &Colour, codec: Codec, what: &str) {
    let (matrix, range) = match colour {
        Colour::Bt601 => ("bt601", "tv"),
        Colour::Bt709Full => ("bt709", "pc"),
        _ => ("bt709", "tv"),
    };
    let rgb = "out_range=pc:flags=accurate_rnd+full_chroma_int";
    let filter = match codec {
        Codec::Ffv1 => "null".to_owned(),
        _ => format!("scale=in_color_matrix={matrix}:in_range={range}:{rgb}"),
    };
    let raw = path.with_extension("rgb");
    let (from, to) = (path.to_str().unwrap(), raw.to_str().unwrap());
    let args = ["-v", "error", "-y", "-i", from, "-frames:v", "1", "-vf", &filter, "-f", "rawvideo"];
    if tool("ffmpeg", &[&args[..], &["-pix_fmt", "rgb24", to]].concat()).is_none() {
        return;
    }
    let bytes = std::fs::read(&raw).unwrap();
    let frame = kinora_pipeline::media::Picture::new(192, 128, bytes).unwrap();
    let error = patch_error(&frame, &patches(192, 128, 0));
    assert!(error <= 4, "{what}: ffmpeg is off by {error}");
}

#[test]
fn a_family_refuses_colours_it_has_no_place_for() {
    let folder = tempfile::tempdir().unwrap();
    for (codec, colour, name, said) in [
        (Codec::ProRes, Colour::Srgb, "a.mov", "bt709, bt601"),
        (Codec::Ffv1, Colour::Bt709, "a.mkv", "colours of Ffv1 as srgb"),
        (Codec::Gif, Colour::Bt601, "a.gif", "srgb"),
        (Codec::PngSequence, Colour::Bt709Full, "frames", "srgb"),
    ] {
        let Err(error) = create_sink(&folder.path().join(name), &spec(codec, Some(colour))) else {
            panic!("{codec:?} took {colour:?}");
        };
        assert!(error.to_string().contains(said), "{error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
