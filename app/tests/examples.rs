//! Every document in `workflows/`, rendered by the real binary with the embedded model at a small
//! size and one step: what comes out is what was asked for, is not made twice, and can be proved.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "support/bench.rs"]
mod bench;

use std::path::{Path, PathBuf};

use bench::{Bench, Run, repository, tool};
use kinora_pipeline::media::{
    ImageLimits, Picture, VideoLimits, VideoReader, read_mask, read_picture, read_recipe,
};
use serde_json::Value;

/// Longer side of the frames, and how many.
const SIDE: u32 = 96;
const FRAMES: usize = 3;

/// What a document is expected to write.
enum Wanted {
    /// A clip of this codec as FFmpeg names it, width, height and rate.
    Clip(&'static str, u32, u32, (u32, u32)),
    /// The same with so many frames, because it was cut together.
    Cut(&'static str, u32, u32, (u32, u32), usize),
    /// Numbered pictures of this size.
    Frames(u32, u32),
    /// One picture of this size.
    Picture(u32, u32),
    /// A mask of this size.
    Mask(u32, u32),
}

struct Example {
    name: &'static str,
    /// The nodes that animate.
    shots: &'static [&'static str],
    /// The nodes whose frames are put together when they are saved, and kept nowhere.
    composed: &'static [&'static str],
    /// Node, path, what it is.
    outputs: &'static [(&'static str, &'static str, Wanted)],
}

const EXAMPLES: &[Example] = &[
    Example {
        name: "single-click",
        shots: &["shot"],
        composed: &[],
        outputs: &[("file", "out/single-click.mp4", Wanted::Clip("h264", 96, 64, (8, 1)))],
    },
    Example {
        name: "two-regions",
        shots: &["shot"],
        composed: &[],
        outputs: &[("file", "out/two-regions.webm", Wanted::Clip("vp9", 96, 64, (8, 1)))],
    },
    Example {
        // As the window saves it: strokes, keyframes, a timeline.
        name: "painted-keys",
        shots: &["shot"],
        composed: &[],
        outputs: &[("file", "out/painted-keys.mkv", Wanted::Clip("ffv1", 96, 64, (8, 1)))],
    },
    Example {
        name: "magnitude-strip",
        shots: &["little", "middle", "much"],
        composed: &[],
        // Five cells of 240x160 and three rows, four pixels between and around them.
        outputs: &[("file", "out/magnitude-strip.png", Wanted::Picture(1224, 496))],
    },
    Example {
        name: "imported-mask",
        shots: &["shot"],
        composed: &[],
        outputs: &[("file", "out/imported-mask.mov", Wanted::Clip("prores", 96, 64, (8, 1)))],
    },
    Example {
        name: "video-first-frame",
        shots: &["shot"],
        composed: &[],
        // The rate is linked to the clip the frame comes from.
        outputs: &[("file", "out/video-first-frame.gif", Wanted::Clip("gif", 96, 64, (12, 1)))],
    },
    Example {
        name: "cut-together",
        shots: &["rise", "ripples"],
        composed: &["film"],
        // Two shots of three frames, of which two lie over each other.
        outputs: &[("file", "out/cut-together.mp4", Wanted::Cut("h264", 96, 64, (8, 1), 4))],
    },
    Example {
        name: "image-sequence",
        shots: &["shot"],
        composed: &[],
        outputs: &[
            ("frames", "out/image-sequence", Wanted::Frames(96, 64)),
            ("matte", "out/image-sequence-mask.png", Wanted::Mask(450, 300)),
        ],
    },
];

fn document(name: &str) -> PathBuf {
    repository().join("workflows").join(format!("{name}.kinora.json"))
}

/// The example at test size, with what a test adds.
fn render(bench: &Bench, example: &Example, more: &[&str]) -> Run {
    let path = document(example.name);
    let mut args = vec!["render".to_owned(), path.to_str().unwrap().to_owned()];
    args.extend(["--out".to_owned(), bench.at("").to_str().unwrap().to_owned()]);
    args.extend(["--progress".to_owned(), "jsonl".to_owned()]);
    for shot in example.shots {
        for set in ["steps=1".to_owned(), format!("size={SIDE}"), format!("frames={FRAMES}")] {
            args.extend(["--set".to_owned(), format!("{shot}.{set}")]);
        }
    }
    args.extend(more.iter().map(|&arg| arg.to_owned()));
    bench.kinora(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn check(name: &str) {
    let example = EXAMPLES.iter().find(|example| example.name == name).unwrap();
    let bench = Bench::new();
    let before = bench.listing();

    let plan = bench.kinora(&["validate", "--json", document(name).to_str().unwrap()]).ok();
    let plan: Value = serde_json::from_str(&plan.out).unwrap();
    for (node, ..) in example.outputs {
        let step = plan["steps"].as_array().unwrap().iter().find(|step| step["node"] == *node);
        assert_eq!(step.unwrap()["needed"], true, "{name}: {node}");
    }
    let dry = render(&bench, example, &["--dry-run"]).ok();
    assert!(dry.out.lines().last().unwrap().starts_with("time "), "{}", dry.out);
    assert_eq!(bench.listing(), before, "a dry run writes nothing");

    let first = render(&bench, example, &[]).ok();
    let places: Vec<PathBuf> = example.outputs.iter().map(|(_, path, _)| bench.at(path)).collect();
    let printed: Vec<&Path> = first.out.lines().map(Path::new).collect();
    assert_eq!(printed, places, "the outputs are printed, one a line");
    let ran = first.finished();
    assert!(ran.iter().all(|(_, cached)| !cached), "nothing was known: {ran:?}");
    assert_eq!(first.denoised().len(), example.shots.len(), "one step for each shot");
    for (_, path, wanted) in example.outputs {
        inspect(&bench.at(path), wanted);
    }
    recipe(&places[0], name);

    proved_and_not_made_twice(&bench, example, &places);
}

/// A second run with `--resume` finds everything, one with `--force` only writes the files again,
/// and each receipt holds.
fn proved_and_not_made_twice(bench: &Bench, example: &Example, places: &[PathBuf]) {
    let digests: Vec<Value> = places.iter().map(|place| receipt(place)["output"].clone()).collect();
    let again = render(bench, example, &["--resume"]).ok();
    assert!(again.finished().iter().all(|(_, cached)| *cached), "{:?}", again.finished());
    assert!(again.events().iter().all(|event| event["event"] != "step"), "no unit of work was done");

    render(bench, example, &[]).refused(65, &["exists already", "--force"]);

    let forced = render(bench, example, &["--force"]).ok();
    let ran: Vec<String> =
        forced.finished().into_iter().filter_map(|(node, cached)| (!cached).then_some(node)).collect();
    let written = example.outputs.iter().map(|(node, ..)| *node);
    let writers: Vec<&str> = example.composed.iter().copied().chain(written).collect();
    assert_eq!(ran, writers, "only the files are written again");
    for (place, digest) in places.iter().zip(&digests) {
        assert_eq!(receipt(place)["output"], *digest, "the same bytes again");
    }
    assert_eq!(bench.temporaries(), Vec::<PathBuf>::new());

    let place = format!("{}.receipt.json", places[0].display());
    let verified = bench.kinora(&["verify", &place]).ok();
    let same = verified.out.lines().filter(|line| line.starts_with("same")).count();
    assert!(same >= 6 && same == verified.out.lines().count(), "{}", verified.out);
    assert!(verified.denoised().len() == example.shots.len(), "it was rendered again, not looked up");
}

fn receipt(output: &Path) -> Value {
    let path = format!("{}.receipt.json", output.display());
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The output carries the document that made it, with its replaced parameters.
fn recipe(output: &Path, name: &str) {
    let found = read_recipe(output).unwrap().unwrap_or_else(|| panic!("{name} has no recipe"));
    let found: Value = serde_json::from_str(&found).unwrap();
    let mut wanted: Value = serde_json::from_str(&std::fs::read_to_string(document(name)).unwrap()).unwrap();
    let example = EXAMPLES.iter().find(|example| example.name == name).unwrap();
    for shot in example.shots {
        wanted["nodes"][shot]["steps"] = 1.into();
        wanted["nodes"][shot]["size"] = SIDE.into();
        wanted["nodes"][shot]["frames"] = FRAMES.into();
    }
    assert_eq!(found, wanted, "{name}");
}

fn inspect(path: &Path, wanted: &Wanted) {
    match wanted {
        Wanted::Clip(codec, width, height, fps) => clip(path, codec, (*width, *height), *fps, FRAMES),
        Wanted::Cut(codec, width, height, fps, frames) => {
            clip(path, codec, (*width, *height), *fps, *frames);
        }
        Wanted::Frames(width, height) => {
            let frame = |index| path.join(format!("frame_{index:05}.png"));
            let frames: Vec<Picture> =
                (0..FRAMES).map(|i| read_picture(&frame(i), &ImageLimits::default()).unwrap()).collect();
            assert_eq!(std::fs::read_dir(path).unwrap().count(), FRAMES);
            assert!(frames.iter().all(|frame| (frame.width(), frame.height()) == (*width, *height)));
            assert!(frames.windows(2).any(|pair| pair[0] != pair[1]), "something moves");
        }
        Wanted::Picture(width, height) => {
            let picture = read_picture(path, &ImageLimits::default()).unwrap();
            assert_eq!((picture.width(), picture.height()), (*width, *height));
        }
        Wanted::Mask(width, height) => {
            let mask = read_mask(path, &ImageLimits::default()).unwrap();
            assert_eq!((mask.width(), mask.height()), (*width, *height));
            let area = mask.area_fraction();
            assert!((0.001..0.5).contains(&area), "a part of the picture is selected, {area}");
        }
    }
}

fn clip(path: &Path, codec: &str, size: (u32, u32), fps: (u32, u32), count: usize) {
    let mut reader = VideoReader::open(path, &VideoLimits::default()).unwrap();
    let info = reader.info().clone();
    assert_eq!((info.codec.as_str(), info.width, info.height), (codec, size.0, size.1), "{path:?}");
    let mut frames = vec![];
    while let Some(frame) = reader.next_frame().unwrap() {
        frames.push(frame);
    }
    assert_eq!(frames.len(), count, "{path:?}");
    assert!(frames.windows(2).any(|pair| pair[0].picture != pair[1].picture), "something moves in {path:?}");
    let seconds = f64::from(fps.1) / f64::from(fps.0);
    for (index, frame) in frames.iter().enumerate() {
        // WebM keeps milliseconds, GIF hundredths.
        let expected = index as f64 * seconds;
        assert!((frame.seconds - expected).abs() < 0.0101, "frame {index} of {path:?} at {}", frame.seconds);
    }
    let entries = "stream=codec_name,width,height,nb_read_frames";
    let name = path.to_str().unwrap();
    let args =
        ["-v", "error", "-count_frames", "-select_streams", "v", "-show_entries", entries, "-of", "csv=p=0"];
    if let Some(said) = tool("ffprobe", &[&args[..], &[name]].concat()) {
        assert_eq!(said.trim(), format!("{codec},{},{},{count}", size.0, size.1), "{path:?}");
    }
}

#[test]
fn every_document_is_expected_here_and_obeys_the_committed_schema() {
    let mut found: Vec<String> = std::fs::read_dir(repository().join("workflows"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".kinora.json").map(str::to_owned))
        .collect();
    found.sort();
    let mut known: Vec<&str> = EXAMPLES.iter().map(|example| example.name).collect();
    known.sort();
    assert!(found.len() >= 6);
    assert_eq!(found, known, "a new example also needs its expectations and a test in this file");

    let schema = std::fs::read_to_string(repository().join("pipeline/schema/kinora.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    for name in found {
        let value: Value = serde_json::from_str(&std::fs::read_to_string(document(&name)).unwrap()).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}

#[test]
fn single_click() {
    check("single-click");
}

#[test]
fn two_regions() {
    check("two-regions");
}

#[test]
fn painted_keys() {
    check("painted-keys");
}

#[test]
fn magnitude_strip() {
    check("magnitude-strip");
}

#[test]
fn imported_mask() {
    check("imported-mask");
}

#[test]
fn video_first_frame() {
    check("video-first-frame");
}

#[test]
fn cut_together() {
    check("cut-together");
}

#[test]
fn image_sequence() {
    check("image-sequence");
}
