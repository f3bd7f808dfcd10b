//! The command line itself: exit codes, help, progress for programs, the short form, the schema.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "support/bench.rs"]
mod bench;

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use bench::{Bench, repository};
use serde_json::Value;

const STILL: &str = r#"    "photo": { "op": "image.load", "path": "photo.png" },
    "file": { "op": "image.save", "image": "@photo", "path": "out/still.png" }"#;
const SHOT: &str = r#"    "photo": { "op": "image.load", "path": "photo.png" },
    "thing": { "op": "mask.import", "path": "mask.png", "image": "@photo" },
    "shot": { "op": "animate.click", "image": "@photo", "mask": "@thing", "prompt": "drift left",
      "frames": 3, "steps": 2, "size": 64, "model": "weights" },
    "file": { "op": "sequence.save", "video": "@shot", "path": "frames" }"#;

const COMMANDS: [&str; 8] = ["render", "animate", "validate", "schema", "models", "eval", "bench", "verify"];

#[test]
fn help_names_every_command_and_every_exit_code() {
    let bench = Bench::new();
    let help = bench.kinora(&["--help"]).ok();
    for command in COMMANDS {
        assert!(
            help.out.lines().any(|line| line.trim_start().starts_with(command)),
            "{command}: {}",
            help.out
        );
        let own = bench.kinora(&[command, "--help"]).ok();
        assert!(own.out.contains(&format!("Usage: kinora {command}")), "{}", own.out);
    }
    let codes = help.out.split("Exit codes:").nth(1).unwrap();
    for code in ["0 ", "1 ", "2 ", "65 ", "69 ", "70 ", "74 ", "75 ", "130/143 "] {
        assert!(codes.contains(code), "{code}: {codes}");
    }
    let version = bench.kinora(&["--version"]).ok();
    assert_eq!(version.out, format!("kinora {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_is_2_and_says_what_is_expected() {
    let bench = Bench::new();
    let click = ["animate", "photo.png", "--prompt", "left", "--click"];
    for (args, says) in [
        (vec![], "Usage: kinora"),
        (vec!["rendr"], "similar subcommand exists: 'render'"),
        (vec!["render"], "<DOCUMENT>"),
        (vec!["render", "a.kinora.json", "--frce"], "similar argument exists: '--force'"),
        (vec!["render", "a.kinora.json", "--device", "gpu"], "expected auto, cpu, or cuda:N"),
        (vec!["animate", "photo.png", "--click", "0.5,0.5"], "--prompt"),
        ([&click[..], &["0.5"]].concat(), "expected X,Y such as 0.41,0.63"),
        ([&click[..], &["nan,0.5"]].concat(), "expected X,Y such as 0.41,0.63"),
        ([&click[..], &["0.5,0.5", "--magnitude", "inf"]].concat(), "expected a number such as 0.6"),
    ] {
        let run = bench.kinora(&args).refused(2, &[says]);
        assert_eq!(run.out, "", "nothing on standard output");
    }
}

#[test]
fn exit_codes_say_what_to_do() {
    let bench = Bench::new();
    bench.document(STILL);
    let render = |more: &[&str]| bench.kinora(&[&["render", "shot.kinora.json"], more].concat());
    render(&["--set", "file.path=a.bmp"]).refused(65, &["nodes.file.path: expected a name that ends in"]);
    render(&["--set", "flie.path=a.png"]).refused(65, &["--set", "did you mean \"file\"?"]);
    render(&["--device", "cuda:3"]).refused(69, &["cuda:3", "--device cpu"]);
    bench.kinora(&["render", "gone.kinora.json"]).refused(74, &["gone.kinora.json"]);
    bench.kinora(&["render", "."]).refused(74, &["cannot read the document ."]);
    bench.kinora(&["verify", "gone.receipt.json"]).refused(74, &["cannot read gone.receipt.json"]);
    bench.kinora(&["verify", "shot.kinora.json"]).refused(65, &["shot.kinora.json: expected a receipt"]);
    bench
        .kinora(&["eval", "follow-your-click", "--photos", "gone"])
        .refused(74, &["cannot read the folder gone"]);

    render(&[]).ok();
    bench.kinora(&["verify", "out/still.png.receipt.json"]).ok();
    bench.write("photo.png", bench::image(96, 64, |x, _| [x as u8; 3]));
    let run =
        bench.kinora(&["verify", "out/still.png.receipt.json"]).refused(1, &["not what its receipt says"]);
    let different: Vec<&str> = run.out.lines().filter(|line| line.starts_with("DIFFERENT")).collect();
    assert!(different.len() == 3 && different[2].contains("input of photo"), "{}", run.out);
}

/// A second process at the same job is told to wait (75); SIGTERM ends the first with 143.
#[cfg(unix)]
#[test]
fn one_job_has_one_process() {
    let bench = Bench::new();
    bench.small_weights("weights");
    bench.document(&SHOT.replace("\"steps\": 2", "\"steps\": 1000"));
    let args = ["render", "shot.kinora.json", "--progress", "jsonl"];
    let mut first = bench.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(first.stderr.take().unwrap()).lines();
    let step = lines.by_ref().find(|line| line.as_ref().is_ok_and(|line| line.contains("\"denoise\"")));
    let second = bench.kinora(&args);
    bench::signal(&first, "TERM");
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(first.wait().unwrap().code(), Some(143), "{rest:?}");
    assert!(step.is_some(), "the first one was at work");
    assert!(rest.last().unwrap().contains("--resume continues"), "{rest:?}");
    second.refused(75, &["another process is rendering this document", "wait for it or stop it"]);
    assert!(!bench.at("frames").exists());
    assert_eq!(bench.temporaries(), Vec::<PathBuf>::new());
}

#[test]
fn progress_for_programs_is_one_event_a_line() {
    let bench = Bench::new();
    bench.small_weights("weights");
    bench.document(SHOT);
    // Standard error is no terminal here, so this is the default as well.
    let run = bench.kinora(&["render", "shot.kinora.json"]).ok();
    let events = run.events();
    assert_eq!(events.len(), run.err.lines().count(), "events and nothing else: {}", run.err);
    let of = |kind: &str| events.iter().filter(move |event| event["event"] == kind).collect::<Vec<&Value>>();
    let nodes = |kind: &str| of(kind).iter().map(|e| e["node"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(nodes("node_started"), ["photo", "thing", "shot", "file"]);
    assert_eq!(nodes("node_finished"), nodes("node_started"));
    assert!(
        of("node_finished").iter().all(|e| e["seconds"].as_f64().unwrap() >= 0.0 && e["cached"] == false)
    );
    assert_eq!(run.denoised(), [1, 2]);
    for step in of("step") {
        let (done, total) = (step["done"].as_u64().unwrap(), step["total"].as_u64().unwrap());
        assert!((1..=total).contains(&done) && step["stage"].is_string(), "{step}");
    }
    let times: Vec<f64> = events.iter().map(|event| event["t"].as_f64().unwrap()).collect();
    assert!(times.is_sorted() && times[0] >= 0.0, "{times:?}");
    assert_eq!(of("notice")[0]["message"], "understood as: left");
    let wrote = of("wrote");
    assert_eq!((wrote.len(), wrote[0]["path"].as_str()), (1, bench.at("frames").to_str()));
    let size = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().metadata().unwrap().len();
    let bytes: u64 = std::fs::read_dir(bench.at("frames")).unwrap().map(size).sum();
    assert_eq!(wrote[0]["bytes"].as_u64(), Some(bytes));
    assert_eq!(run.out, format!("{}\n", bench.at("frames").display()), "standard output is for the files");

    let silent = bench.kinora(&["render", "shot.kinora.json", "--force", "--progress", "none"]).ok();
    assert_eq!(silent.err, "");
    let bar = bench.kinora(&["render", "shot.kinora.json", "--force", "--progress", "bar"]).ok();
    assert!(bar.err.contains("shot         animate.click    unchanged, from the cache"), "{}", bar.err);
    assert!(bar.err.contains("wrote ") && bar.events().is_empty(), "{}", bar.err);
}

#[test]
fn a_plan_is_for_people_and_for_programs() {
    let bench = Bench::new();
    let document = bench.document(STILL);
    let plan = bench.kinora(&["validate", "shot.kinora.json"]).ok();
    let rows: Vec<Vec<&str>> = plan.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["node", "op", "state", "expected", "output"]);
    assert_eq!(rows[1][..4], ["photo", "image.load", "to", "run"]);
    assert!(rows[2][0] == "file" && rows[2].last().unwrap().ends_with("out/still.png"), "{}", plan.out);
    let table = |text: &str| text.lines().filter(|line| !line.starts_with("time ")).collect::<String>();
    let dry = bench.kinora(&["render", "shot.kinora.json", "--dry-run"]).ok();
    assert_eq!(table(&dry.out), table(&plan.out));
    let json = bench.kinora(&["validate", "--json", document.to_str().unwrap()]).ok();
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&json["steps"][0]["node"], &json["steps"][1]["op"]), (&"photo".into(), &"image.save".into()));
    assert!(json["forecast"]["seconds"].as_f64().unwrap() > 0.0);
    assert!(!bench.at("out").exists(), "nothing was written");
    // What is there already is no fault of the document.
    bench.kinora(&["render", "shot.kinora.json"]).ok();
    bench.kinora(&["validate", "shot.kinora.json"]).ok();
}

/// The saved document of the short form renders to the same bytes, and saving it again is no conflict.
#[test]
fn animate_saves_the_document_that_makes_its_clip() {
    let bench = Bench::new();
    let format = if cfg!(feature = "video") { "clip.mp4" } else { "clip.gif" };
    std::fs::create_dir(bench.at("photos")).unwrap();
    std::fs::rename(bench.at("photo.png"), bench.at("photos/photo.png")).unwrap();
    let animate = |save: &str, more: &[&str]| {
        let args = [
            "animate",
            "photos/photo.png",
            "--click",
            "0.41,0.5",
            "--not",
            "0.9,0.1",
            "--prompt",
            "drift left",
        ];
        let size = ["--frames", "2", "--steps", "1", "--size", "64", "--ease", "smooth", "--seed", "3"];
        bench.kinora(&[&args[..], &size, &["-o", format, "--save-document", save], more].concat())
    };
    animate("gone/saved.kinora.json", &[]).refused(74, &["gone/saved.kinora.json"]);
    animate("../saved.kinora.json", &["--magnitude", "7"])
        .refused(65, &["--magnitude: expected a number from 0 to 1"]);
    assert!(!bench.outside().join("saved.kinora.json").exists(), "a refused job saves nothing");

    let first = animate("saved.kinora.json", &[]).ok();
    assert_eq!(first.out.trim_end(), bench.at(format).to_str().unwrap());
    let saved = bench.at("saved.kinora.json");
    let value: Value = serde_json::from_str(&std::fs::read_to_string(&saved).unwrap()).unwrap();
    assert_eq!(value["nodes"]["photo"]["path"], "photos/photo.png");
    assert_eq!(value["nodes"]["thing"]["points"][0]["x"], 0.41, "as it was typed");
    assert_eq!(value["nodes"]["thing"]["points"][1]["keep"], false);
    assert_eq!(value["nodes"]["shot"]["ease"], "smooth");

    // From nothing: the cache must not be what makes them equal.
    std::fs::remove_dir_all(bench.cache()).unwrap();
    let again = bench.kinora(&["render", "saved.kinora.json", "--out", "again"]).ok();
    assert_eq!(again.denoised(), [1]);
    let bytes = std::fs::read(bench.at(format)).unwrap();
    assert!(bytes == std::fs::read(bench.at("again").join(format)).unwrap(), "the same bytes");

    animate("saved.kinora.json", &["--resume"]).ok();
    animate("photos/sub/saved.kinora.json", &["--force"]).refused(74, &["photos/sub"]);
    std::fs::create_dir(bench.at("elsewhere")).unwrap();
    let says = ["--save-document elsewhere/a.kinora.json", "save it as photos/photo.kinora.json"];
    animate("elsewhere/a.kinora.json", &["--force"]).refused(65, &says);
    let other = animate("saved.kinora.json", &["--resume", "--fps", "9"]);
    other.refused(65, &["exists already"]);
}

/// The same frames give the same bytes in every process, whatever its memory held before: receipts and
/// `verify` rest on that. Some code of encoders reads memory that nothing has written.
#[cfg(feature = "video")]
#[test]
fn every_format_gives_the_same_bytes_again() {
    let bench = Bench::new();
    let names = ["a.mp4", "b.mp4", "c.mov", "d.webm", "e.mkv", "f.gif", "g.webp"];
    let save = |name: &str| {
        let codec = if name == "b.mp4" { r#", "codec": "h265""# } else { "" };
        format!(r#""n{}": {{ "op": "video.save", "video": "@clip", "path": "{name}"{codec} }}"#, &name[..1])
    };
    // 480 pixels are 30 macroblocks, which no vector register divides.
    let load = r#""clip": { "op": "video.load", "path": "assets/samples/coffee-pan.mp4", "frames": 4 }"#;
    let nodes: Vec<String> = std::iter::once(load.to_owned()).chain(names.map(save)).collect();
    bench.document(&nodes.join(",\n"));
    // glibc fills what it gives out with the complement of this byte.
    for perturb in ["1", "165"] {
        let mut command = bench.command(&["render", "shot.kinora.json", "--out", perturb]);
        let output = command.env("MALLOC_PERTURB_", perturb).output().unwrap();
        bench::Run::of(&["render"], output).ok();
    }
    for name in names {
        let bytes = |folder: &str| std::fs::read(bench.at(folder).join(name)).unwrap();
        assert!(bytes("1") == bytes("165"), "{name}");
    }
}

#[test]
fn the_schema_is_the_committed_one() {
    let bench = Bench::new();
    let committed = std::fs::read_to_string(repository().join("pipeline/schema/kinora.schema.json")).unwrap();
    assert!(bench.kinora(&["schema"]).ok().out == committed, "run `make schema` and commit the result");

    // A reader that goes away, as `head` does, is no failure.
    let mut process =
        bench.command(&["schema"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(process.stdout.take());
    let output = process.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
}

#[test]
fn models_are_listed_and_none_is_fetched_unasked() {
    let bench = Bench::new();
    let list = bench.kinora(&["models", "list"]).ok();
    let rows: Vec<Vec<&str>> =
        list.out.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
    let state = |id: &str| {
        let row = rows.iter().find(|row| row[0] == id).unwrap_or_else(|| panic!("{id}: {}", list.out));
        row[1..].iter().find(|cell| !cell.is_empty()).copied().unwrap()
    };
    assert_eq!(state("embedded"), "built in");
    for id in ["sd15", "animatediff-v1", "animatediff-v2", "animatediff-v3", "pia"] {
        assert_eq!(state(id), "not here");
    }
    bench
        .kinora(&["models", "pull", "sd15", "--offline"])
        .refused(69, &["network is switched off", "--offline"]);
    bench.kinora(&["models", "pull", "sd16"]).refused(69, &["no model \"sd16\"; known are sd15"]);
    bench.kinora(&["models", "verify", "pia"]).refused(69, &["kinora models pull pia"]);
    bench.kinora(&["models", "rm", "pia"]).refused(69, &["pia is not on this machine"]);
}
