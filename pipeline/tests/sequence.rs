//! Clips cut together: what is seen when, how they fade, what is refused.
// Test helpers outside #[test] functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code, reason = "the stand-ins are shared with other tests")]

#[path = "workflow/support.rs"]
mod support;

use kinora_pipeline::media::{ImageLimits, Picture, read_picture, write_png};
use kinora_pipeline::workflow::{Document, ErrorClass, Plan};
use serde_json::{Value, json};
use support::{Bench, Watch};

/// Two shots of four frames: one of a picture of 32x24 at eight a second, one of 24x24 at four.
fn document(sequence: &Value) -> String {
    json!({ "kinora": 1, "nodes": {
        "photo": { "op": "image.load", "path": "photo.png" },
        "square": { "op": "image.load", "path": "square.png" },
        "thing": { "op": "mask.click", "image": "@photo", "points": [{ "x": 0.5, "y": 0.5 }] },
        "other": { "op": "mask.click", "image": "@square", "points": [{ "x": 0.5, "y": 0.5 }] },
        "a": { "op": "animate.click", "image": "@photo", "mask": "@thing", "prompt": "go", "magnitude": 0.5,
               "frames": 4, "fps": 8 },
        "b": { "op": "animate.click", "image": "@square", "mask": "@other", "prompt": "go", "frames": 4,
               "fps": 4 },
        "a_frames": { "op": "sequence.save", "video": "@a", "path": "out/a" },
        "b_frames": { "op": "sequence.save", "video": "@b", "path": "out/b" },
        "film": sequence,
        "film_frames": { "op": "sequence.save", "video": "@film", "path": "out/film" },
    } })
    .to_string()
}

struct Made {
    a: Vec<Picture>,
    b: Vec<Picture>,
    film: Vec<Picture>,
}

fn frames(bench: &Bench, name: &str) -> Vec<Picture> {
    let folder = bench.shots().join("out").join(name);
    let count = std::fs::read_dir(&folder)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "png"));
    let read = |i| read_picture(&folder.join(format!("frame_{i:05}.png")), &ImageLimits::default()).unwrap();
    (0..count.count()).map(read).collect()
}

fn bench() -> Bench {
    let bench = Bench::new();
    let rgb: Vec<u8> = (0..24 * 24 * 3).map(|i| (i * 11 % 241) as u8).collect();
    let square = Picture::new(24, 24, rgb).unwrap();
    write_png(&bench.shots().join("square.png"), &square, false).unwrap();
    bench
}

fn made(sequence: Value) -> Made {
    let bench = bench();
    bench.run(&document(&sequence), &bench.options(), &Watch::new(None)).unwrap();
    Made { a: frames(&bench, "a"), b: frames(&bench, "b"), film: frames(&bench, "film") }
}

#[test]
fn clips_follow_each_other_frame_by_frame() {
    let sequence = json!({ "op": "video.sequence", "clips": [
        { "video": "@a", "from": 0.125, "to": 0.375 }, { "video": "@a" }, { "video": "@a", "from": 0.375, "to": 1 }
    ] });
    let Made { a, film, .. } = made(sequence);
    let order = [1, 2, 0, 1, 2, 3, 3, 3, 3, 3, 3];
    // What lies beyond the end of a clip is its last frame.
    assert_eq!(film.len(), order.len());
    for (at, index) in order.into_iter().enumerate() {
        assert!(film[at] == a[index], "frame {at} is frame {index} of the clip");
    }
}

#[test]
fn a_slower_clip_of_another_shape_is_repeated_and_framed() {
    let sequence = json!({ "op": "video.sequence", "fps": 8, "width": 24, "height": 24, "fit": "cover",
        "clips": [{ "video": "@b", "at": 0.25 }, { "video": "@a", "at": 1 }] });
    let Made { b, film, .. } = made(sequence);
    assert_eq!(film.len(), 12, "1.5 seconds at eight a second");
    let black = Picture::new(24, 24, vec![0; 24 * 24 * 3]).unwrap();
    assert!(film[0] == black && film[1] == black, "nothing lies there");
    for (at, index) in [(2, 0), (3, 0), (4, 1), (5, 1), (6, 2), (7, 2)] {
        assert!(film[at] == b[index], "frame {at}");
    }
    assert!(film[8] != b[3] && film[8] != black, "the later clip lies on top");
}

#[test]
fn one_clip_fades_into_the_next_and_out() {
    let sequence = json!({ "op": "video.sequence",
        "clips": [{ "video": "@a" }, { "video": "@a", "fade_in": 0.25, "fade_out": 0.125 }] });
    let Made { a, film, .. } = made(sequence);
    assert_eq!(film.len(), 6, "two frames lie over each other");
    assert!(film[..2] == a[..2] && film[4] == a[2]);
    let mixed = |below: &Picture, above: Option<&Picture>, weight: f64, got: &Picture| {
        for (i, (b, g)) in below.rgb().iter().zip(got.rgb()).enumerate() {
            let a = above.map_or(0.0, |above| f64::from(above.rgb()[i]));
            let want = f64::from(*b) * (1.0 - weight) + a * weight;
            assert!((f64::from(*g) - want).abs() <= 0.51, "{g} is not {want}");
        }
    };
    mixed(&a[2], Some(&a[0]), 0.25, &film[2]);
    mixed(&a[3], Some(&a[1]), 0.75, &film[3]);
    mixed(&a[3], None, 0.5, &film[5]);
}

/// What the film of `clips` sounds like, left and right in turn; none without FFmpeg's command line.
#[cfg(feature = "video")]
fn heard(clips: &Value) -> Option<Vec<f32>> {
    use kinora_pipeline::media::{Channels, SOUND_RATE, SoundReader, VideoLimits};
    let bench = bench();
    // A level of a quarter on the left alone: what is heard is the gain.
    let made = std::process::Command::new("ffmpeg")
        .args([
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            "testsrc=size=64x64:rate=8:duration=2",
            "-f",
            "lavfi",
            "-i",
        ])
        .args(["aevalsrc=0.25|0:s=48000:d=2", "-c:v", "ffv1", "-c:a", "pcm_s16le"])
        .arg(bench.shots().join("level.mkv"))
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: ffmpeg is not installed");
        return None;
    }
    let text = json!({ "kinora": 1, "nodes": {
        "level": { "op": "video.load", "path": "level.mkv" },
        "late": { "op": "video.load", "path": "level.mkv", "start": 1, "frames": 4 },
        "film": { "op": "video.sequence", "fps": 8, "clips": clips },
        "file": { "op": "video.save", "video": "@film", "path": "out/film.mov" },
    } });
    bench.run(&text.to_string(), &bench.options(), &Watch::new(None)).unwrap();
    let path = bench.shots().join("out/film.mov");
    let limits = VideoLimits::default();
    let mut reader = SoundReader::open(&path, SOUND_RATE, Channels::Stereo, &limits).unwrap()?;
    let mut samples = vec![9.0; SOUND_RATE as usize * 8];
    reader.read(0, &mut samples).unwrap();
    Some(samples)
}

#[test]
#[cfg(feature = "video")]
fn the_length_of_a_file_is_known_before_anything_runs() {
    let bench = bench();
    let text = |film: Value, save: Value| {
        let mut file = json!({ "op": "sequence.save", "video": "@clip", "path": "out/again" });
        file.as_object_mut().unwrap().extend(save.as_object().unwrap().clone());
        let mut clip = json!({ "op": "video.load", "path": "film.mp4" });
        clip.as_object_mut().unwrap().extend(film.as_object().unwrap().clone());
        json!({ "kinora": 1, "nodes": { "clip": clip, "file": file } }).to_string()
    };
    let mut film: Value =
        serde_json::from_str(&document(&json!({ "op": "video.sequence", "clips": [{ "video": "@a" }] })))
            .unwrap();
    film["nodes"]["file"] = json!({ "op": "video.save", "video": "@film", "path": "film.mp4" });
    let mut options = bench.options();
    options.out = Some(bench.shots());
    bench.run(&film.to_string(), &options, &Watch::new(None)).unwrap();
    for (load, save, frames) in [
        (json!({}), json!({}), 4),
        (json!({ "start": 0.25 }), json!({}), 2),
        (json!({ "frames": 3 }), json!({}), 3),
        (json!({ "frames": 300 }), json!({}), 4),
        (json!({}), json!({ "from": 0.125, "to": 0.375 }), 2),
    ] {
        let plan = bench.plan(&text(load.clone(), save.clone())).unwrap();
        let shape = plan.steps().last().unwrap().shape;
        assert_eq!(
            (shape.width, shape.height, shape.frames, shape.fps()),
            (32, 24, frames, Some(8.0)),
            "{load} {save}"
        );
    }
    let error = bench.plan(&text(json!({}), json!({ "from": 9 }))).unwrap_err();
    assert_eq!(error.first().field(), "nodes.file.from");
    assert!(error.to_string().contains("which is 0.500 s long"), "{error}");
}

#[test]
#[cfg(feature = "video")]
fn sounds_are_cut_mixed_and_faded_with_their_clips() {
    let clips = json!([
        { "video": "@level", "to": 1 },
        { "video": "@level", "at": 0.5, "to": 0.5, "volume": 0.5 },
        { "video": "@late", "at": 1.5, "fade_in": 0.25, "fade_out": 0.25 },
    ]);
    let Some(heard) = heard(&clips) else { return };
    let left = |seconds: f64| f64::from(heard[(seconds * 48_000.0).round() as usize * 2]);
    let quarter = std::f64::consts::FRAC_1_SQRT_2;
    for (at, gain) in [
        (0.0, 1.0),
        (0.499_9, 1.0),
        (0.5, 1.5),
        (0.999_9, 1.5),
        (1.0, 0.0),
        (1.499_9, 0.0),
        (1.5, 0.0),
        (1.625, quarter),
        (1.75, 1.0),
        (1.875, quarter),
        (2.0, 0.0),
    ] {
        assert!((left(at) - gain * 0.25).abs() < 2e-4, "at {at}: {} is not {gain} of it", left(at));
    }
    assert!(heard.iter().skip(1).step_by(2).all(|right| right.abs() < 1e-4), "the other side is silent");

    // A clip that is muted leaves a film without sound.
    assert!(self::heard(&json!([{ "video": "@level", "volume": 0 }])).is_none());
}

#[test]
fn frames_are_kept_nowhere_and_made_once_more_the_same() {
    let bench = bench();
    let text = document(&json!({ "op": "video.sequence", "clips": [{ "video": "@a" }, { "video": "@b" }] }));
    let options = bench.options();
    bench.run(&text, &options, &Watch::new(None)).unwrap();
    let first = frames(&bench, "film");
    assert_eq!(first.len(), 12);
    let mut again = options.clone();
    (again.force, again.targets) = (true, Some(vec!["film_frames".into()]));
    let watch = Watch::new(None);
    bench.run(&text, &again, &watch).unwrap();
    assert!(frames(&bench, "film") == first);
    let ran: Vec<String> = watch.cached().into_iter().filter(|(_, known)| !known).map(|(n, _)| n).collect();
    assert_eq!(ran, ["film", "film_frames"], "the shots are not made again");
}

#[test]
fn of_a_range_exactly_the_frames_that_begin_in_it_are_saved() {
    let bench = bench();
    let film = json!({ "op": "video.sequence", "clips": [{ "video": "@a" }, { "video": "@b" }] });
    let with = |range: Value, force: bool| {
        let mut text: Value = serde_json::from_str(&document(&film)).unwrap();
        text["nodes"]["film_frames"].as_object_mut().unwrap().extend(range.as_object().unwrap().clone());
        let mut options = bench.options();
        (options.force, options.targets) = (force, Some(vec!["film_frames".into()]));
        let document = Document::parse(&text.to_string(), "test").unwrap();
        let planned = Plan::build(&document, &options).unwrap().steps().last().unwrap().shape.frames;
        (planned, bench.run(&text.to_string(), &options, &Watch::new(None)))
    };
    let (planned, report) = with(json!({}), false);
    report.unwrap();
    let whole = frames(&bench, "film");
    assert_eq!(whole.len(), 12);
    assert_eq!(planned, 12, "known before it runs");
    for (range, wanted) in [
        (json!({ "from": 0.25, "to": 0.75 }), 2..6),
        (json!({ "to": 0.125 }), 0..1),
        (json!({ "from": 1.25 }), 10..12),
        (json!({ "from": 1.26, "to": 99 }), 11..12),
    ] {
        let (planned, report) = with(range.clone(), true);
        report.unwrap();
        let saved = frames(&bench, "film");
        assert_eq!(saved.len(), wanted.len(), "{range}");
        assert!(saved[..] == whole[wanted.clone()], "{range}");
        assert_eq!(planned, wanted.len() as u64, "{range}");
    }
    let (_, report) = with(json!({ "from": 1.5 }), true);
    let error = report.unwrap_err();
    assert_eq!(error.class(), ErrorClass::BadInput);
    assert!(error.to_string().contains("1.500 s long at 8.000 frames a second"), "{error}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let bench = bench();
    let plan = |sequence: Value| bench.plan(&document(&sequence)).map(|_: Plan| ()).unwrap_err().to_string();
    let clips = |clip: Value| json!({ "op": "video.sequence", "clips": [clip] });
    for (sequence, said) in [
        (json!({ "op": "video.sequence", "clips": [] }), "clips"),
        (clips(json!({ "video": "@photo" })), "a clip"),
        (clips(json!({ "video": "@a", "from": 0.3, "to": 0.2 })), "after \"from\""),
        (clips(json!({ "video": "@a", "fade_in": -1 })), "fade_in"),
        (clips(json!({ "video": "@a", "volume": 9 })), "volume"),
        (clips(json!({ "video": "@film" })), "film"),
        (clips(json!({ "video": "@a", "from": 60 })), "which is 0.500 s long"),
        (json!({ "op": "video.sequence", "clips": [{ "video": "@a" }], "width": 64 }), "height"),
        (json!({ "op": "video.sequence", "clips": [{ "video": "@a" }], "fps": 1000 }), "fps"),
    ] {
        let error = plan(sequence.clone());
        assert!(error.contains(said), "{sequence}: {error}");
    }
    let saved = |name: &str, fields: Value| {
        let mut text: Value = serde_json::from_str(&document(&clips(json!({ "video": "@a" })))).unwrap();
        let mut node = json!({ "op": "video.save", "video": "@film", "path": name });
        node.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        text["nodes"]["file"] = node;
        bench.plan(&text.to_string()).map(|_: Plan| ()).unwrap_err().to_string()
    };
    for (name, fields, said) in [
        ("a.mp4", json!({ "from": 0.3, "to": 0.3 }), "a moment after \"from\", which is 0.3"),
        ("a.mp4", json!({ "from": -1 }), "from 0 to 86400"),
        ("a.mp4", json!({ "from": 500 }), "a moment before the end of the clip, which is 0.500 s long"),
        ("a.mp4", json!({ "colour": "hdr" }), "colour"),
        ("a.mov", json!({ "colour": "srgb" }), "one of \"bt709\", \"bt601\""),
        ("a.gif", json!({ "colour": "bt709" }), "one of \"srgb\""),
        (
            "a.mkv",
            json!({ "codec": "h264", "colour": "bt7090" }),
            "one of \"bt709\", \"bt709-full\", \"bt601\", \"srgb\"",
        ),
    ] {
        let error = saved(name, fields.clone());
        assert!(error.contains(said), "{fields}: {error}");
    }
    let late = document(&clips(json!({ "video": "@a", "from": 0.5 })));
    let error = bench.run(&late, &bench.options(), &Watch::new(None)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::BadInput);
    assert!(error.to_string().contains("@a is 0.500 s long"), "{error}");
}
