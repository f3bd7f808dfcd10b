//! What a user can hand over that is wrong, through the real command line: the exit code, a message
//! that names the thing, the place and what to do, and nothing left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "support/bench.rs"]
mod bench;

use std::path::PathBuf;

#[cfg(target_os = "linux")]
use bench::Mounted;
use bench::{Bench, Run, image, repository};

const LOAD: &str = r#"    "photo": { "op": "image.load", "path": "photo.png" }"#;
const SAVE: &str = r#"    "file": { "op": "image.save", "image": "@photo", "path": "out.png" }"#;
const SHOT: &str = r#"    "thing": { "op": "mask.import", "path": "mask.png", "image": "@photo" },
    "shot": { "op": "animate.click", "image": "@photo", "mask": "@thing", "prompt": "drift left",
      "frames": 2, "steps": 1, "size": 64 },
    "file": { "op": "image.save", "image": "@photo", "path": "out.png" },
    "clip": { "op": "sequence.save", "video": "@shot", "path": "frames" }"#;

/// Renders a document of these nodes, which must be refused and leave everything as it was.
#[track_caller]
fn refused(bench: &Bench, nodes: &str, more: &[&str], code: i32, says: &[&str]) -> Run {
    bench.document(nodes);
    let before = bench.listing();
    let run = bench.kinora(&[&["render", "shot.kinora.json", "--progress", "none"], more].concat());
    let run = run.refused(code, says);
    assert_eq!(bench.listing(), before, "nothing appears beside the document");
    assert_eq!(bench.temporaries(), Vec::<PathBuf>::new());
    run
}

fn nodes(parts: &[&str]) -> String {
    parts.join(",\n")
}

fn load(path: &str) -> String {
    LOAD.replace("photo.png", path)
}

#[test]
fn pictures_that_are_none() {
    let bench = Bench::new();
    let whole = std::fs::read(bench.at("photo.png")).unwrap();
    bench.write("empty.png", b"");
    bench.write("cut.png", &whole[..whole.len() / 2]);
    bench.write("text.jpg", b"dear diary");
    for (name, says) in [
        (
            "empty.png",
            "empty.png is empty: expected a picture (PNG, JPEG, WebP, GIF or AVIF), found 0 bytes; copy",
        ),
        ("cut.png", "cut.png is truncated: expected the whole picture"),
        ("text.jpg", "text.jpg is not a picture (PNG, JPEG, WebP, GIF or AVIF): found 10 bytes"),
    ] {
        refused(&bench, &nodes(&[&load(name), SAVE]), &[], 65, &["photo (image.load): ", says]);
        let mask = format!(r#""m": {{ "op": "mask.import", "path": "{name}" }}"#);
        let save = r#""file": { "op": "image.save", "image": "@m", "path": "out.png" }"#;
        refused(&bench, &nodes(&[&mask, save]), &[], 65, &["m (mask.import): ", says]);
    }
    let gone = refused(
        &bench,
        &nodes(&[&load("gone.png"), SAVE]),
        &[],
        65,
        &["there is no \"gone.png\" in", "help: "],
    );
    assert!(gone.message().contains("nodes.photo.path (line 4)"), "{}", gone.err);
}

#[test]
fn huge_pictures_are_refused_by_their_header() {
    let bench = Bench::new();
    for (name, width, height, says) in [
        ("wide.png", 60_000, 60_000, "a picture of at most 16384x16384 pixels, found 60000x60000 pixels"),
        ("many.png", 16_000, 16_000, "a picture of at most 67 megapixels, found 16000x16000 pixels"),
    ] {
        let mut bytes = vec![];
        let encoder = png::Encoder::new(&mut bytes, width, height);
        let mut writer = encoder.write_header().unwrap();
        writer.write_chunk(png::chunk::IDAT, &[0; 64]).unwrap();
        drop(writer);
        bench.write(name, &bytes);
        refused(
            &bench,
            &nodes(&[&load(name), SAVE]),
            &[],
            65,
            &["nodes.photo.path (line 4)", says, name, "smaller"],
        );
    }
}

#[cfg(feature = "video")]
#[test]
fn clips_that_are_none() {
    let bench = Bench::new();
    let whole = std::fs::read(repository().join("assets/samples/coffee-pan.mp4")).unwrap();
    bench.write("empty.mp4", b"");
    bench.write("head.mp4", &whole[..200]);
    bench.write("huge.y4m", b"YUV4MPEG2 W60000 H60000 F25:1 Ip A1:1 C420jpeg\nFRAME\nrest");
    let mut sound =
        b"RIFF\x24\x08\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\x08\0\0"
            .to_vec();
    sound.extend([0; 2048]);
    bench.write("sound.mp4", &sound);
    for (name, says) in [
        ("empty.mp4", "empty.mp4 is empty: expected a clip"),
        ("head.mp4", "head.mp4 is truncated: expected a clip with its index"),
        ("sound.mp4", "sound.mp4 has no video: expected at least one video stream, found only audio"),
        ("huge.y4m", "huge.y4m"),
    ] {
        let clip = format!(r#"    "clip": {{ "op": "video.load", "path": "{name}" }}"#);
        let save = r#"    "file": { "op": "sequence.save", "video": "@clip", "path": "frames" }"#;
        refused(&bench, &nodes(&[&clip, save]), &[], 65, &["clip (video.load): ", says]);
    }
}

/// Half a clip is used as far as it goes, and both the user and the receipt are told.
#[cfg(feature = "video")]
#[test]
fn a_clip_cut_short_is_used_and_said() {
    let bench = Bench::new();
    let whole = std::fs::read(repository().join("assets/samples/coffee-pan.mp4")).unwrap();
    bench.write("half.mp4", &whole[..45_000]);
    bench.document(
        r#""clip": { "op": "video.load", "path": "half.mp4" },
        "file": { "op": "sequence.save", "video": "@clip", "path": "frames" }"#,
    );
    let run = bench.kinora(&["render", "shot.kinora.json", "--progress", "jsonl"]).ok();
    let frames = std::fs::read_dir(bench.at("frames")).unwrap().count();
    assert!((1..24).contains(&frames), "{frames}");
    let events = run.events();
    let notice = events.iter().find(|event| event["event"] == "notice" && event["node"] == "clip");
    let notice = notice.expect("a notice").get("message").unwrap().as_str().unwrap().to_owned();
    assert!(notice.contains("cut short") || notice.contains("damaged"), "{notice}");
    let receipt = std::fs::read_to_string(bench.at("frames.receipt.json")).unwrap();
    assert!(receipt.contains(&notice), "{receipt}");
}

#[test]
fn damaged_weights() {
    let bench = Bench::new();
    let header = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    type Change = fn(&mut Vec<u8>, usize);
    let cases: [(&str, Change, &str); 5] = [
        // Half precision 0x7e00 is NaN; every weight is f16.
        (
            "NaN",
            |bytes, end| bytes[end..end + 64].as_chunks_mut::<2>().0.fill([0x00, 0x7e]),
            "has NaN at element",
        ),
        ("another shape", |bytes, end| swap_sides(&mut bytes[8..end]), "shape"),
        ("a header of 100 MB", |bytes, _| bytes[..8].copy_from_slice(&100_000_001u64.to_le_bytes()), "eader"),
        ("an endless header", |bytes, _| bytes[..8].fill(0xff), "eader"),
        ("a cut", |bytes, end| bytes.truncate(end + 1000), ""),
    ];
    for (what, change, says) in cases {
        bench.weights("weights", |file, bytes| {
            if file == "text.safetensors" {
                let end = 8 + header(bytes);
                change(bytes, end);
            }
        });
        let shot = SHOT.replace("\"size\"", "\"model\": \"weights\", \"size\"");
        let run = refused(&bench, &nodes(&[LOAD, &shot]), &[], 69, &["nodes.shot.model", "text", says]);
        assert!(run.message().contains("weights"), "{what}: {}", run.err);
    }
}

/// Turns the first two-sided shape of a header round: as many numbers, another shape.
fn swap_sides(header: &mut [u8]) {
    let text = String::from_utf8(header.to_vec()).unwrap();
    let mut at = 0;
    while let Some(start) = text[at..].find("\"shape\":[") {
        let start = at + start + "\"shape\":[".len();
        let end = start + text[start..].find(']').unwrap();
        let sides: Vec<&str> = text[start..end].split(',').collect();
        if let [a, b] = sides[..]
            && a != b
        {
            header[start..end].copy_from_slice(format!("{b},{a}").as_bytes());
            return;
        }
        at = end;
    }
    panic!("no matrix in the file");
}

#[test]
fn graphs_that_are_none() {
    let bench = Bench::new();
    let with = |node: &str| nodes(&[LOAD, SAVE, node]);
    for (node, says) in [
        (
            r#""m": { "op": "mask.clik", "image": "@photo" }"#,
            ["nodes.m.op (line 6)", "did you mean \"mask.click\"?"],
        ),
        (
            r#""a": { "op": "mask.combine", "masks": ["@b"] }, "b": { "op": "mask.combine", "masks": ["@a"] }"#,
            ["a cycle: a → b → a", "break one of these links"],
        ),
        (
            r#""s": { "op": "image.save", "image": "@phto", "path": "a.png" }"#,
            ["nodes.s.image (line 6)", "did you mean \"@photo\"?"],
        ),
        (
            r#""s": { "op": "image.save", "image": "@photo", "path": 7 }"#,
            ["nodes.s.path (line 6): expected a text, found 7", "line 6"],
        ),
        (
            r#""s": { "op": "image.save", "image": "@photo", "path": "a.jpg", "quality": 101 }"#,
            ["nodes.s.quality (line 6): expected a whole number from 1 to 100, found 101", "line 6"],
        ),
    ] {
        refused(&bench, &with(node), &[], 65, &says);
    }
    let many: Vec<String> = (0..5000)
        .map(|i| format!("\"n{i}\": {{ \"op\": \"image.load\", \"path\": \"photo.png\" }}"))
        .collect();
    refused(
        &bench,
        &many.join(",\n"),
        &[],
        65,
        &["expected at most 4096 nodes, found 5000 nodes", "divide it"],
    );
    refused(&bench, LOAD, &[], 65, &["a node that writes something", "add a video.save"]);
    bench.write("broken.kinora.json", "{ \"kinora\": 1,\n  \"nodes\": {");
    bench
        .kinora(&["render", "broken.kinora.json"])
        .refused(65, &["(line 2): expected JSON", "the file may be cut off"]);
    bench.kinora(&["render", "photo.png"]).refused(65, &["photo.png", "not text", "kinora animate"]);
}

#[test]
fn paths_that_lead_out() {
    let bench = Bench::new();
    std::fs::write(bench.outside().join("secret.png"), image(8, 8, |_, _| [1; 3])).unwrap();
    let absolute = bench.outside().join("secret.png").to_str().unwrap().to_owned();
    let save = |path: &str| SAVE.replace("out.png", path);
    let mut cases = vec![
        (nodes(&[&load(&absolute), SAVE]), "nodes.photo.path (line 4)", "is absolute"),
        (nodes(&[&load("../secret.png"), SAVE]), "nodes.photo.path (line 4)", "climbs out with .."),
        (nodes(&[LOAD, &save(&absolute)]), "nodes.file.path (line 5)", "is absolute"),
        (nodes(&[LOAD, &save("../out.png")]), "nodes.file.path (line 5)", "climbs out with .."),
        (
            nodes(&[LOAD, &save("photo.png/out.png")]),
            "nodes.file.path (line 5)",
            "is a file, expected a folder",
        ),
    ];
    if cfg!(unix) {
        #[cfg(unix)]
        for (to, name) in [("../secret.png", "link.png"), ("..", "up")] {
            std::os::unix::fs::symlink(to, bench.at(name)).unwrap();
        }
        let out = "a symbolic link that leads out of";
        let through = "goes through a symbolic link";
        cases.push((nodes(&[&load("link.png"), SAVE]), "nodes.photo.path (line 4)", out));
        cases.push((nodes(&[&load("up/secret.png"), SAVE]), "nodes.photo.path (line 4)", out));
        cases.push((nodes(&[LOAD, &save("link.png")]), "nodes.file.path (line 5)", through));
        cases.push((nodes(&[LOAD, &save("up/out.png")]), "nodes.file.path (line 5)", through));
    }
    let secret = std::fs::read(&absolute).unwrap();
    for (nodes, field, says) in cases {
        refused(&bench, &nodes, &["--force"], 65, &[field, says]);
    }
    assert_eq!(std::fs::read(&absolute).unwrap(), secret);
    let above: Vec<_> = std::fs::read_dir(bench.outside()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!above.iter().any(|name| name == "out.png"), "{above:?}");
}

#[test]
fn outputs_that_are_there_are_kept() {
    let bench = Bench::new();
    bench.write("out.png", b"precious");
    let text = nodes(&[LOAD, SAVE]);
    refused(
        &bench,
        &text,
        &[],
        65,
        &["nodes.file.path (line 5)", "out.png, which exists already", "--force"],
    );
    refused(&bench, &text, &["--resume"], 65, &["which exists already"]);
    assert_eq!(std::fs::read(bench.at("out.png")).unwrap(), b"precious");
    bench.kinora(&["render", "shot.kinora.json", "--force"]).ok();
    assert_ne!(std::fs::read(bench.at("out.png")).unwrap(), b"precious");
}

/// `--force` replaces what Kinora wrote, never a folder of other things.
#[test]
fn force_never_takes_a_folder_of_other_files() {
    let bench = Bench::new();
    bench.write("holiday/beach.png", b"precious");
    let text = nodes(&[LOAD, &SHOT.replace("\"frames\" }", "\"holiday\" }")]);
    refused(
        &bench,
        &text,
        &["--force"],
        65,
        &["nodes.clip.path (line 9)", "beach.png", "name another folder"],
    );
    let text = nodes(&[LOAD, &SAVE.replace("out.png", "holiday.png")]);
    bench.write("holiday.png/beach.png", b"precious");
    refused(&bench, &text, &["--force"], 65, &["nodes.file.path (line 5)", "a file", "holiday.png"]);
    assert_eq!(std::fs::read(bench.at("holiday/beach.png")).unwrap(), b"precious");
    assert_eq!(std::fs::read(bench.at("holiday.png/beach.png")).unwrap(), b"precious");
}

#[cfg(target_os = "linux")]
#[test]
fn a_read_only_folder() {
    let bench = Bench::new();
    bench.document(&nodes(&[LOAD, SAVE]));
    let place = bench.outside().join("closed");
    let Some(_mounted) = Mounted::new(&place, "ro,size=64k") else { return };
    let run = bench.kinora(&["render", "shot.kinora.json", "--out", place.to_str().unwrap()]);
    run.refused(74, &["file (image.save): ", "closed/out.png may not be written: the folder is read-only"]);
    assert_eq!(bench.temporaries(), Vec::<PathBuf>::new());
    let file = bench.kinora(&["render", "shot.kinora.json", "--out", "photo.png"]);
    file.refused(74, &["photo.png", "not a directory"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let bench = Bench::new();
    bench.write("photo.png", image(256, 256, |x, y| [(x * 7 + y * 13) as u8, (x * y) as u8, (x ^ y) as u8]));
    bench.document(&nodes(&[
        LOAD,
        SAVE,
        r#""small": { "op": "image.save", "image": "@photo", "path": "small.jpg", "quality": 1 }"#,
    ]));
    let place = bench.outside().join("full");
    let Some(_mounted) = Mounted::new(&place, "size=32k") else { return };
    let run = bench.kinora(&["render", "shot.kinora.json", "--out", place.to_str().unwrap()]);
    run.refused(
        74,
        &["file (image.save): no space left while writing", "full/out.png", "free some disk space"],
    );
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0, "nothing half written stays");
    assert_eq!(bench.temporaries(), Vec::<PathBuf>::new());

    // A cache that cannot hold the frames is refused before anything is computed.
    let mut command = bench.command(&["render", "shot.kinora.json", "--progress", "none"]);
    let args = ["render"];
    let run = Run::of(&args, command.env("KINORA_CACHE", &place).output().unwrap());
    run.refused(75, &["of free disk", "KINORA_CACHE"]);
    assert!(!bench.at("out.png").exists() && !bench.at("small.jpg").exists());
}

#[test]
fn clicks_prompts_and_frames_no_model_can_use() {
    let bench = Bench::new();
    let long = "drift slowly ".repeat(50);
    let with = |from: &str, to: &str| nodes(&[LOAD, &SHOT.replace(from, to)]);
    let click = r#""m": { "op": "mask.click", "image": "@photo", "points": [{ "x": 1.25, "y": 0.5 }] }"#;
    for (text, says) in [
        (nodes(&[LOAD, SAVE, click]), ["nodes.m.points[0].x (line 6)", "from 0 to 1, found 1.25"]),
        (with("drift left", ""), ["nodes.shot.prompt (line 6)", "for example \"drift to the left\""]),
        (
            with("drift left", &long),
            ["nodes.shot.prompt (line 6): expected a prompt of at most", "shorten it"],
        ),
        (
            with("\"frames\": 2", "\"frames\": 17"),
            ["nodes.shot.frames (line 7): expected 2 to 16 frames", "found 17"],
        ),
        (with("\"frames\": 2", "\"frames\": 5000"), ["nodes.shot.frames (line 7)", "found 5000"]),
        (with("\"size\"", "\"magnitude\": -1, \"size\""), ["nodes.shot.magnitude", "from 0 to 1, found -1"]),
    ] {
        refused(&bench, &text, &[], 65, &says);
        // A dry run refuses the same.
        bench.kinora(&["render", "shot.kinora.json", "--dry-run"]).refused(65, &says);
    }

    // The short form speaks of its own arguments.
    let before = bench.listing();
    let animate = |click: &str, prompt: &str, more: &[&str]| {
        bench.kinora(&[&["animate", "photo.png", "--click", click, "--prompt", prompt], more].concat())
    };
    animate("1.2,0.5", "left", &[])
        .refused(65, &["--click 1.2,0.5: expected a number from 0 to 1, found 1.2"]);
    animate("0.5,-3", "left", &[]).refused(65, &["--click 0.5,-3: expected a number from 0 to 1, found -3"]);
    animate("0.5,0.5", " ", &[]).refused(65, &["--prompt: expected a text with words", "drift to the left"]);
    animate("0.5,0.5", &long, &[]).refused(65, &["--prompt: expected a prompt of at most", "shorten it"]);
    animate("0.5,0.5", "left", &["--frames", "17"])
        .refused(65, &["--frames: expected 2 to 16 frames", "found 17"]);
    animate("0.5,0.5", "left", &["-o", "a.avi"])
        .refused(65, &["--output a.avi: expected a name that ends in .mp4"]);
    let both = animate("0.5,2", "", &[]).refused(65, &["--click 0.5,2", "--prompt"]);
    assert_eq!(both.err.matches("error: ").count(), 2, "each problem has its line: {}", both.err);
    let gone = bench.kinora(&["animate", "gone.png", "--click", "0.5,0.5", "--prompt", "left"]);
    gone.refused(65, &["there is no photograph gone.png; check the spelling"]);
    assert_eq!(bench.listing(), before);
}
