//! Documents end to end: what is refused and how it is said, what runs again and what does not,
//! what survives being stopped.
// Test helpers outside #[test] functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "workflow/support.rs"]
mod support;

use std::sync::atomic::Ordering;

use kinora_pipeline::media::read_recipe;
use kinora_pipeline::store::atomic::{AtomicError, write_file};
use kinora_pipeline::store::cache::Cache;
use kinora_pipeline::workflow::{
    COMMITTED_AT, Document, DocumentError, ErrorClass, Job, JobState, MAX_NODES, Plan, ProblemKind, Receipt,
    RunContext, RunError, RunOptions, SystemClock, receipt_path, schema, schema_text, verify,
};
use miette::Diagnostic;
use serde_json::{Value, json};
use support::{Bench, SHOT, Watch, repository, with};

const LOAD: &str = r#""photo": { "op": "image.load", "path": "photo.png" }"#;
const SAVE: &str = r#""file": { "op": "image.save", "image": "@photo", "path": "out.png" }"#;

fn refused(text: &str) -> DocumentError {
    match Document::parse(text, "test.kinora.json") {
        Err(error) => error,
        Ok(_) => panic!("accepted: {text}"),
    }
}

fn refused_node(node: &str) -> DocumentError {
    refused(&with(&format!("{LOAD},\n    {SAVE},\n    {node}")))
}

/// Message, help and labels as a user sees them.
fn shown(error: &DocumentError) -> String {
    let help = error.help().map(|help| help.to_string()).unwrap_or_default();
    format!("{error} | {help}")
}

#[test]
fn the_committed_schema_is_the_generated_one() {
    let path = repository().join(COMMITTED_AT);
    if std::env::var_os("KINORA_UPDATE").is_some() {
        std::fs::write(&path, schema_text()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == schema_text(),
        "run KINORA_UPDATE=1 cargo nextest run -p kinora-pipeline --test workflow"
    );
}

fn examples() -> Vec<(String, String)> {
    let mut found: Vec<_> = std::fs::read_dir(repository().join("workflows"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".kinora.json"))
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                std::fs::read_to_string(&path).unwrap(),
            )
        })
        .collect();
    found.sort();
    assert!(found.len() >= 6);
    found
}

#[test]
fn every_example_obeys_the_schema_and_reads() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for (name, text) in examples() {
        let value: Value = serde_json::from_str(&text).unwrap();
        let errors: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
        let document =
            Document::parse(&text, &name).unwrap_or_else(|error| panic!("{name}: {}", shown(&error)));
        assert_eq!(
            serde_json::from_str::<Value>(&document.to_text()).unwrap(),
            value,
            "{name}: saved as read"
        );
    }
}

#[test]
fn schema_and_reader_refuse_the_same() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for node in [
        r#""n": { "op": "image.laod", "path": "a.png" }"#,
        r#""n": { "op": "image.load", "path": 3 }"#,
        r#""n": { "op": "image.load" }"#,
        r#""n": { "op": "image.load", "path": "a.png", "pth": 1 }"#,
        r#""n": { "op": "video.load", "path": "a.mp4", "frames": 0 }"#,
        r#""n": { "op": "mask.click", "image": "photo", "points": [{ "x": 0.1, "y": 0.1 }] }"#,
        r#""n": { "op": "mask.click", "image": "@photo", "points": [{ "x": 1.5, "y": 0.1 }] }"#,
        r#""n": { "op": "mask.click", "image": "@photo", "points": [{ "x": 0.5 }] }"#,
        r#""n": { "op": "mask.click", "image": "@photo", "candidate": "biggest" }"#,
        r#""n": 7"#,
    ] {
        let text = with(&format!("{LOAD}, {SAVE}, {node}"));
        assert!(!validator.is_valid(&serde_json::from_str(&text).unwrap()), "schema takes {node}");
        refused(&text);
    }
}

#[test]
fn every_example_runs_with_stand_in_models() {
    for (name, text) in examples() {
        let bench = Bench::new();
        let mut options = bench.options();
        options.folder = repository().join("workflows");
        options.out = Some(bench.dir.path().join("out"));
        let report =
            bench.run(&text, &options, &Watch::new(None)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!report.outputs.is_empty(), "{name}");
        for written in report.outputs.values() {
            assert!(written.path.exists() && written.bytes > 0, "{name}");
            assert!(receipt_path(&written.path).is_file(), "{name}");
            if !written.path.to_string_lossy().ends_with("mask.png") {
                let recipe =
                    read_recipe(&written.path).unwrap().unwrap_or_else(|| panic!("{name} has no recipe"));
                let recipe: Value = serde_json::from_str(&recipe).unwrap();
                assert_eq!(recipe, serde_json::from_str::<Value>(&text).unwrap(), "{name}");
            }
        }
    }
}

#[test]
fn an_unknown_op_names_the_nearest() {
    let error = refused_node(r#""m": { "op": "mask.clik", "image": "@photo" }"#);
    assert_eq!(error.kind(), ProblemKind::UnknownOp);
    assert_eq!(error.first().field(), "nodes.m.op");
    assert_eq!(error.first().line(), 5);
    assert!(shown(&error).contains("did you mean \"mask.click\"?"), "{}", shown(&error));
    let labels: Vec<_> = error.labels().unwrap().collect();
    assert_eq!(labels[0].len(), "\"mask.clik\"".len());
}

#[test]
fn an_unknown_field_names_the_nearest_and_points_at_it() {
    let text = with(&format!(
        "{LOAD},\n{SAVE},\n\"m\": {{ \"op\": \"mask.click\", \"image\": \"@photo\", \"pionts\": [] }}"
    ));
    let error = refused(&text);
    assert_eq!(error.kind(), ProblemKind::UnknownField);
    assert_eq!(error.first().field(), "nodes.m.pionts");
    assert!(shown(&error).contains("did you mean \"points\"?"), "{}", shown(&error));
    let label = error.labels().unwrap().next().unwrap();
    assert_eq!(&text[label.offset()..label.offset() + label.len()], "\"pionts\"");
}

#[test]
fn wrong_values_are_named_with_what_was_expected() {
    let cases = [
        (r#""n": { "op": "image.load" }"#, ProblemKind::MissingField, "nodes.n", "add \"path\": a text"),
        (
            r#""n": { "op": "image.load", "path": 3 }"#,
            ProblemKind::Type,
            "nodes.n.path",
            "expected a text, found 3",
        ),
        (r#""n": { "path": "a.png" }"#, ProblemKind::MissingField, "nodes.n", "the field \"op\""),
        (r#""n": "image.load""#, ProblemKind::Type, "nodes.n", "an object with an \"op\""),
        (
            r#""n": { "op": "mask.click", "image": "@photo", "points": [{ "x": 1.25, "y": 0.5 }] }"#,
            ProblemKind::Range,
            "nodes.n.points[0].x",
            "expected a number from 0 to 1, found 1.25",
        ),
        (
            r#""n": { "op": "mask.click", "image": "@photo", "points": [{ "x": -0.1, "y": 0.5 }] }"#,
            ProblemKind::Range,
            "nodes.n.points[0].x",
            "from 0 to 1, found -0.1",
        ),
        (
            r#""n": { "op": "mask.click", "image": "@photo" }"#,
            ProblemKind::Value,
            "nodes.n.points",
            "at least one click on the thing",
        ),
        (
            r#""n": { "op": "mask.click", "image": "@photo", "strokes": [{ "points": [[0.1, 0.2]], "radius": 0.1, "erase": true }] }"#,
            ProblemKind::Value,
            "nodes.n.points",
            "or a stroke that adds",
        ),
        (
            r#""n": { "op": "mask.click", "image": "@photo", "strokes": [{ "points": [[0.1, 0.2]], "radius": 7 }] }"#,
            ProblemKind::Range,
            "nodes.n.strokes[0].radius",
            "found 7",
        ),
        (
            r#""n": { "op": "mask.click", "image": "photo", "points": [{ "x": 0, "y": 0 }] }"#,
            ProblemKind::Value,
            "nodes.n.image",
            "write \"@photo\"",
        ),
        (
            r#""n": { "op": "mask.click", "image": "@photo", "points": [{ "x": 0, "y": 0 }], "candidate": "objct" }"#,
            ProblemKind::Value,
            "nodes.n.candidate",
            "did you mean \"object\"?",
        ),
        (
            r#""n": { "op": "mask.click", "image": "@photo", "box": { "x0": 0.5, "y0": 0, "x1": 0.5, "y1": 1 } }"#,
            ProblemKind::Value,
            "nodes.n.box",
            "a box without area",
        ),
        (
            r#""n": { "op": "image.save", "image": "@photo", "path": "a.bmp" }"#,
            ProblemKind::Value,
            "nodes.n.path",
            "ends in .png",
        ),
        (
            r#""n": { "op": "image.save", "image": "@photo", "path": "a.jpg", "quality": 300 }"#,
            ProblemKind::Range,
            "nodes.n.quality",
            "a whole number from 1 to 100, found 300",
        ),
    ];
    for (node, kind, field, says) in cases {
        let error = refused_node(node);
        assert_eq!(
            (error.kind(), error.first().field().as_str()),
            (kind, field),
            "{node}: {}",
            shown(&error)
        );
        assert!(shown(&error).contains(says), "{node}: {}", shown(&error));
        assert!(error.first().line() == 5 && error.source_code().is_some(), "{node}");
        assert_eq!(error.class(), ErrorClass::BadInput);
    }
}

#[test]
fn animations_are_checked_before_anything_runs() {
    let shot = |fields: &str| {
        with(&format!(
            "{LOAD}, \"m\": {{ \"op\": \"mask.click\", \"image\": \"@photo\", \"points\": [{{ \"x\": 0.5, \"y\": 0.5 }}] }},\n\
             \"n\": {{ \"op\": \"animate.click\", \"image\": \"@photo\", {fields} }},\n\
             \"f\": {{ \"op\": \"video.save\", \"video\": \"@n\", \"path\": \"a.mp4\" }}"
        ))
    };
    for (fields, says) in [
        (
            r#""mask": "@m", "prompt": """#,
            "nodes.n.prompt (line 4): expected a text with words, found an empty text",
        ),
        (r#""mask": "@m", "prompt": " \n ""#, "expected a text with words"),
        (r#""mask": "@m""#, "the field \"prompt\""),
        (r#""prompt": "up""#, "the field \"mask\""),
        (r#""seed": 1"#, "nothing that moves"),
        (r#""mask": "@m", "prompt": "up", "regions": [{ "mask": "@m", "prompt": "up" }]"#, "found both"),
        (r#""regions": [{ "mask": "@m", "prompt": "" }]"#, "nodes.n.regions[0].prompt"),
        (r#""mask": "@m", "prompt": "up", "magnitude": 1.5"#, "a number from 0 to 1, found 1.5"),
        (r#""mask": "@m", "prompt": "up", "magnitude": "NaN""#, "numbers must be finite"),
        (r#""mask": "@m", "prompt": "up", "magnitude": { "keys": [[0, 2]] }"#, "magnitude.keys[0][1]"),
        (
            r#""mask": "@m", "prompt": "up", "magnitude": { "keys": [[0, 0.5], [2, 1], [2, 0]] }"#,
            "nodes.n.magnitude.keys[2][0] (line 4): expected a time after that of the key before",
        ),
        (
            r#""regions": [{ "mask": "@m", "prompt": "up", "magnitude": { "keys": [[0, 0.5], [-1, 1]] } }]"#,
            "nodes.n.regions[0].magnitude.keys[1][0]",
        ),
        (r#""mask": "@m", "prompt": "up", "magnitude": { "keys": [] }"#, "a list of 1 to 4096"),
        (
            r#""mask": "@m", "prompt": "up", "magnitude": { "keys": [[0, 1]], "ease": "bounce" }"#,
            "\"smooth\"",
        ),
        (r#""mask": "@m", "prompt": "up", "frames": 100000"#, "a whole number from 2 to 1024"),
        (
            r#""mask": "@m", "prompt": "up", "frames": 4.5"#,
            "expected a whole number from 2 to 1024, found 4.5",
        ),
        (r#""mask": "@m", "prompt": "up", "seed": -1"#, "of at least 0, found -1"),
        (r#""mask": "@m", "prompt": "up", "ease": "looop""#, "did you mean \"loop\"?"),
    ] {
        let error = refused(&shot(fields));
        assert!(shown(&error).contains(says), "{fields}: {}", shown(&error));
    }
    let bench = Bench::new();
    let planned = |fields: &str| bench.plan(&shot(fields)).unwrap_err();
    let error = planned(&format!(r#""mask": "@m", "prompt": "{}""#, "word ".repeat(80)));
    assert_eq!(error.first().field(), "nodes.n.prompt");
    assert!(shown(&error).contains("at most 77 tokens, found 82 tokens"), "{}", shown(&error));
    let error = planned(r#""mask": "@m", "prompt": "up", "frames": 33"#);
    assert_eq!(error.first().field(), "nodes.n.frames");
    assert!(shown(&error).contains("2 to 16 frames"), "{}", shown(&error));
    let error = planned(r#""mask": "@m", "prompt": "up", "model": "hub:somebody/something@main""#);
    assert_eq!((error.kind(), error.class()), (ProblemKind::Model, ErrorClass::Unavailable));
}

#[test]
fn links_are_checked_for_target_port_and_kind() {
    let clip = r#""c": { "op": "video.load", "path": "a.mp4" }"#;
    for (node, kind, says) in [
        (
            r#""n": { "op": "image.save", "image": "@phto", "path": "a.png" }"#,
            ProblemKind::Link,
            "did you mean \"@photo\"?",
        ),
        (
            r#""n": { "op": "image.save", "image": "@photo.widht", "path": "a.png" }"#,
            ProblemKind::Link,
            "did you mean \"@photo.width\"?",
        ),
        (
            r#""n": { "op": "image.save", "image": "@photo.width", "path": "a.png" }"#,
            ProblemKind::Port,
            "expected a picture or a mask, found \"@photo.width\", which is a number made by image.load",
        ),
        (
            r#""n": { "op": "video.save", "video": "@photo", "path": "a.mp4" }"#,
            ProblemKind::Port,
            "expected a clip",
        ),
        (r#""n": { "op": "mask.combine", "masks": ["@photo"] }"#, ProblemKind::Port, "nodes.n.masks[0]"),
        (r#""n": { "op": "mask.combine", "masks": [] }"#, ProblemKind::Range, "a list of 1 to 64"),
    ] {
        let error = refused(&with(&format!("{LOAD}, {clip}, {SAVE}, {node}")));
        assert_eq!(error.kind(), kind, "{}", shown(&error));
        assert!(shown(&error).contains(says), "{node}: {}", shown(&error));
    }
    // A number port feeds a number field.
    let linked = r#""n": { "op": "video.save", "video": "@c", "path": "a.mp4", "fps": "@c.fps" }"#;
    Document::parse(&with(&format!("{clip}, {linked}")), "x").unwrap();
}

#[test]
fn cycles_are_refused_with_their_nodes() {
    let error = refused(&with(
        r#""a": { "op": "mask.combine", "masks": ["@b"] }, "b": { "op": "mask.combine", "masks": ["@c"] },
           "c": { "op": "mask.combine", "masks": ["@a"] }, "d": { "op": "mask.combine", "masks": ["@a"] },
           "f": { "op": "image.save", "image": "@d", "path": "a.png" }"#,
    ));
    assert_eq!(error.kind(), ProblemKind::Cycle);
    assert!(shown(&error).contains("a → b → c → a"), "{}", shown(&error));
    let error = refused(&with(r#""a": { "op": "mask.combine", "masks": ["@a"] }"#));
    assert!(shown(&error).contains("a → a"), "{}", shown(&error));
}

#[test]
fn texts_that_are_no_document_are_told_apart() {
    let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    for (text, kind, says) in [
        ("", ProblemKind::Syntax, "cut off"),
        ("{ \"kinora\": 1, \"nodes\": {", ProblemKind::Syntax, "cut off"),
        ("// hello\n{}", ProblemKind::Syntax, "no comments"),
        ("{ \"kinora\": 1, \"nodes\": { \"a\": NaN } }", ProblemKind::Syntax, "finite"),
        ("{ \"kinora\": 1, \"nodes\": { \"a\": 1e999 } }", ProblemKind::Range, "a finite number"),
        (deep.as_str(), ProblemKind::Limit, "deep"),
        ("[]", ProblemKind::Type, "an object"),
        ("{ \"nodes\": {} }", ProblemKind::Version, "\"kinora\": 1"),
        (
            "{ \"kinora\": 2, \"nodes\": { \"a\": { \"op\": \"new\" } } }",
            ProblemKind::Version,
            "newer Kinora",
        ),
        ("{ \"kinora\": \"1\", \"nodes\": {} }", ProblemKind::Version, "version 1"),
        ("{ \"kinora\": 1 }", ProblemKind::MissingField, "\"nodes\""),
        ("{ \"kinora\": 1, \"nodes\": [] }", ProblemKind::Type, "an object"),
        (
            "{ \"kinora\": 1, \"nodes\": {}, \"node\": {} }",
            ProblemKind::UnknownField,
            "did you mean \"nodes\"?",
        ),
        ("{ \"kinora\": 1, \"kinora\": 1, \"nodes\": {} }", ProblemKind::Duplicate, "once"),
        ("{ \"kinora\": 1, \"nodes\": { \"a b\": {} } }", ProblemKind::Value, "a node name"),
    ] {
        let error = refused(text);
        assert_eq!(error.kind(), kind, "{text:.60}: {}", shown(&error));
        assert!(shown(&error).contains(says), "{text:.60}: {}", shown(&error));
    }
}

#[test]
fn limits_hold() {
    let node = |i: usize| format!("\"n{i}\": {{ \"op\": \"image.load\", \"path\": \"photo.png\" }}");
    let many = |count: usize| with(&(0..count).map(node).collect::<Vec<_>>().join(","));
    Document::parse(&many(MAX_NODES), "x").unwrap();
    let error = refused(&many(5000));
    assert_eq!(error.kind(), ProblemKind::Limit);
    assert!(shown(&error).contains("at most 4096 nodes, found 5000 nodes"), "{}", shown(&error));

    let long = refused_node(&format!(r#""n": {{ "op": "image.load", "path": "{}" }}"#, "x".repeat(70_000)));
    assert_eq!((long.kind(), long.first().field().as_str()), (ProblemKind::Limit, "nodes.n.path"));
    let big = refused(&format!("{{ \"kinora\": 1, \"ui\": {} }}", " ".repeat(17 << 20)));
    assert_eq!(big.kind(), ProblemKind::Limit);
}

#[test]
fn all_problems_of_a_document_are_listed() {
    let error = refused(&with(
        r#""a": { "op": "image.laod", "path": "x.png" }, "b": { "op": "image.load" }, "c": { "op": "video.load", "path": 1 }"#,
    ));
    let kinds: Vec<_> = error.problems().map(|problem| problem.kind()).collect();
    assert_eq!(kinds, [ProblemKind::UnknownOp, ProblemKind::MissingField, ProblemKind::Type]);
    assert_eq!(error.related().unwrap().count(), 2);
    assert!(error.to_string().ends_with("(and 2 more problems)"));
}

#[test]
fn replaced_parameters_are_typed_like_written_ones() {
    let set = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        Document::parse_with(SHOT, "x", &sets)
    };
    let document = set(&["shot.magnitude=0.25", "shot.prompt=turn slowly", "thing.points[0].x=0.1"]).unwrap();
    let nodes = &document.value()["nodes"];
    assert_eq!(nodes["shot"]["magnitude"], json!(0.25));
    assert_eq!(nodes["shot"]["prompt"], json!("turn slowly"));
    assert_eq!(nodes["thing"]["points"][0]["x"], json!(0.1));
    let error = set(&["shot.magnitude=7"]).unwrap_err();
    assert_eq!((error.kind(), error.first().field().as_str()), (ProblemKind::Range, "nodes.shot.magnitude"));
    assert!(error.labels().is_none(), "a value from the command line has no place in the file");
    assert_eq!(set(&["shot.frmaes=4"]).unwrap_err().kind(), ProblemKind::UnknownField);
    assert!(set(&["shto.frames=4"]).unwrap_err().to_string().contains("shto"));
}

#[test]
fn ui_and_order_survive_a_round_trip() {
    let text = r#"{ "nodes": { "z": { "path": "photo.png", "ui": { "x": [1, {"y": null}] }, "op": "image.load" },
        "a": { "op": "image.save", "image": "@z", "path": "a.png" } }, "kinora": 1, "ui": { "zoom": 2.50 } }"#;
    let saved = Document::parse(text, "x").unwrap().to_text();
    let again = Document::parse(&saved, "x").unwrap();
    assert_eq!(again.to_text(), saved);
    assert_eq!(again.node("z").unwrap().ui, Some(json!({ "x": [1, { "y": null }] })));
    let keys: Vec<_> = again.value().as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["nodes", "kinora", "ui"]);
    assert_eq!(again.nodes().keys().collect::<Vec<_>>(), ["z", "a"]);
}

#[test]
fn paths_stay_inside() {
    let bench = Bench::new();
    std::fs::write(bench.dir.path().join("secret.png"), b"x").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../secret.png", bench.shots().join("link.png")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("..", bench.shots().join("up")).unwrap();
    let load = |path: &str| {
        let path = serde_json::to_string(path).unwrap();
        with(&format!("\"photo\": {{ \"op\": \"image.load\", \"path\": {path} }},\n{SAVE}"))
    };
    let save = |path: &str| {
        let path = serde_json::to_string(path).unwrap();
        with(&format!(
            "{LOAD},\n\"file\": {{ \"op\": \"image.save\", \"image\": \"@photo\", \"path\": {path} }}"
        ))
    };
    for (text, says) in [
        (load("/etc/passwd"), "is absolute"),
        (load("../secret.png"), "climbs out with .."),
        (load("a/../../secret.png"), "climbs out with .."),
        (load("C:\\secret.png"), "colon"),
        (load("http://example.com/a.png"), "colon"),
        (load("a\0.png"), "NUL"),
        (load("nothing.png"), "there is no \"nothing.png\""),
        (load("link.png"), "symbolic link"),
        (load("up/secret.png"), "symbolic link"),
        (load("."), "empty or . part"),
        (save("/tmp/out.png"), "is absolute"),
        (save("../out.png"), "climbs out with .."),
        (save("link.png"), "symbolic link"),
        (save("up/out.png"), "symbolic link"),
        (save("nul.png"), "device"),
        (save("photo.png/out.png"), "a file, expected a folder"),
    ] {
        let error = bench.plan(&text).unwrap_err();
        assert_eq!(error.kind(), ProblemKind::Path, "{}", shown(&error));
        assert!(error.first().field().ends_with(".path"), "{}", shown(&error));
        assert!(shown(&error).contains(says), "{says}: {}", shown(&error));
    }
    assert!(!bench.dir.path().join("out.png").exists());
}

#[test]
fn a_document_that_writes_nothing_or_twice_is_refused() {
    let bench = Bench::new();
    let error = bench.plan(&with(LOAD)).unwrap_err();
    assert_eq!(error.kind(), ProblemKind::NoOutput);
    let second = SAVE.replace("file", "other");
    let error = bench.plan(&with(&format!("{LOAD}, {SAVE}, {second}"))).unwrap_err();
    assert!(shown(&error).contains("the path \"file\" writes to as well"), "{}", shown(&error));
}

#[test]
fn an_existing_output_is_kept_without_force() {
    let bench = Bench::new();
    let text = with(&format!("{LOAD}, {SAVE}"));
    let place = bench.shots().join("out.png");
    std::fs::write(&place, b"precious").unwrap();
    let error = bench.plan(&text).unwrap_err();
    assert_eq!((error.kind(), error.class()), (ProblemKind::Exists, ErrorClass::BadInput));
    assert!(shown(&error).contains("--force"), "{}", shown(&error));
    assert_eq!(std::fs::read(&place).unwrap(), b"precious");
    let options = RunOptions { force: true, ..bench.options() };
    bench.run(&text, &options, &Watch::new(None)).unwrap();
    assert_ne!(std::fs::read(&place).unwrap(), b"precious");
}

#[test]
fn an_output_that_appears_while_rendering_is_kept() {
    let bench = Bench::new();
    let text = with(&format!("{LOAD}, {SAVE}"));
    let plan = bench.plan(&text).unwrap();
    std::fs::write(bench.shots().join("out.png"), b"precious").unwrap();
    let watch = Watch::new(None);
    let error = kinora_pipeline::workflow::run(
        &plan,
        &mut RunContext { progress: &watch, clock: &SystemClock::default() },
    )
    .unwrap_err();
    assert_eq!(error.class(), ErrorClass::BadInput, "{error}");
    assert!(error.to_string().starts_with("file (image.save): "), "{error}");
    assert_eq!(std::fs::read(bench.shots().join("out.png")).unwrap(), b"precious");
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_is_an_io_failure() {
    let bench = Bench::new();
    let text = with(&format!("{LOAD}, {SAVE}"));
    // /proc refuses new files even to root.
    let options = RunOptions { out: Some("/proc/self".into()), ..bench.options() };
    let error = bench.run(&text, &options, &Watch::new(None)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Io, "{error}");
    let options = RunOptions { out: Some(bench.shots().join("photo.png/below")), ..bench.options() };
    let error = bench.run(&text, &options, &Watch::new(None)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Io, "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    // Without the right to mount, the sorting of the error is still checked below.
    let dir = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(dir.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if mounted {
        let error = write_file(&dir.path().join("big.bin"), &vec![1; 1 << 20], false).unwrap_err();
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        let unmounted = std::process::Command::new("umount").arg(dir.path()).status().unwrap();
        assert!(matches!(error, AtomicError::Full { .. }), "{error}");
        assert_eq!(left, 0, "the half-written temporary is gone");
        assert!(unmounted.success());
    }
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    let error = RunError::from(AtomicError::from_io("write", dir.path(), full));
    assert_eq!(error.class(), ErrorClass::Io);
    assert!(error.to_string().contains("no space left"), "{error}");
}

#[test]
fn unchanged_nodes_never_run_again() {
    let bench = Bench::new();
    let options = bench.options();
    let again = RunOptions { force: true, ..options.clone() };
    let counts = &bench.engines.counts;
    let first = bench.run(SHOT, &options, &Watch::new(None)).unwrap();
    assert_eq!(counts.renders.load(Ordering::SeqCst), 1);

    // Another run, as another process would: only the output is written again.
    let watch = Watch::new(None);
    let second = bench.run(SHOT, &again, &watch).unwrap();
    assert_eq!((counts.renders.load(Ordering::SeqCst), counts.clicks.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(watch.cached(), [("shot".into(), true), ("file".into(), false)]);
    assert_eq!(first.outputs["file"].blake3, second.outputs["file"].blake3);

    // A changed parameter runs what depends on it and nothing before it.
    let watch = Watch::new(None);
    bench.run(&SHOT.replace("0.5, \"frames\"", "0.9, \"frames\""), &again, &watch).unwrap();
    assert_eq!((counts.renders.load(Ordering::SeqCst), counts.clicks.load(Ordering::SeqCst)), (2, 1));
    assert!(watch.cached().contains(&("thing".into(), true)));

    // A changed picture runs everything.
    let photo = kinora_pipeline::media::Picture::new(32, 24, vec![9; 32 * 24 * 3]).unwrap();
    kinora_pipeline::media::write_png(&bench.shots().join("photo.png"), &photo, true).unwrap();
    bench.run(SHOT, &again, &Watch::new(None)).unwrap();
    assert_eq!((counts.renders.load(Ordering::SeqCst), counts.clicks.load(Ordering::SeqCst)), (3, 2));
}

#[test]
fn a_damaged_cache_is_made_again() {
    let bench = Bench::new();
    let options = RunOptions { force: true, ..bench.options() };
    let first = bench.run(SHOT, &options, &Watch::new(None)).unwrap();
    fn damage(folder: &std::path::Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                damage(&path);
            } else if path.extension().is_some_and(|end| end == "png" || end == "f32") {
                std::fs::write(&path, b"garbage").unwrap();
            }
        }
    }
    damage(&bench.dir.path().join("cache/v1"));
    let second = bench.run(SHOT, &options, &Watch::new(None)).unwrap();
    assert_eq!(first.outputs["file"].blake3, second.outputs["file"].blake3);
    assert_eq!(bench.engines.counts.renders.load(Ordering::SeqCst), 2);
}

#[test]
fn a_cancelled_job_resumes_to_the_same_frames() {
    let whole = Bench::new();
    let expected = whole.run(SHOT, &whole.options(), &Watch::new(None)).unwrap();

    for stop_after in 1..=3 {
        let bench = Bench::new();
        let error = bench.run(SHOT, &bench.options(), &Watch::new(Some(stop_after))).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Interrupted);
        assert!(!bench.shots().join("out/frames").exists());
        let cache = Cache::open(&bench.dir.path().join("cache")).unwrap();
        let jobs = Job::list(&cache);
        assert_eq!((jobs.len(), jobs[0].state), (1, JobState::Interrupted));

        let options = RunOptions { resume: true, ..bench.options() };
        let report = bench.run(SHOT, &options, &Watch::new(None)).unwrap();
        assert_eq!(bench.engines.counts.steps.load(Ordering::SeqCst), 4, "no step is done twice");
        assert_eq!(report.outputs["file"].pixels, expected.outputs["file"].pixels);
        assert_eq!(report.outputs["file"].blake3, expected.outputs["file"].blake3);
        assert_eq!(Job::list(&cache)[0].state, JobState::Done);

        // Resuming what is done proves it and renders nothing.
        let report = bench.run(SHOT, &options, &Watch::new(None)).unwrap();
        assert_eq!(report.outputs["file"].pixels, expected.outputs["file"].pixels);
        assert!(report.nodes.iter().all(|node| node.cached));
    }
}

#[test]
fn without_resume_an_interrupted_job_begins_anew() {
    let bench = Bench::new();
    bench.run(SHOT, &bench.options(), &Watch::new(Some(2))).unwrap_err();
    bench.run(SHOT, &bench.options(), &Watch::new(None)).unwrap();
    assert_eq!(bench.engines.counts.steps.load(Ordering::SeqCst), 2 + 4);
}

#[test]
fn a_changed_output_is_not_taken_for_ours() {
    let bench = Bench::new();
    let report = bench.run(SHOT, &bench.options(), &Watch::new(None)).unwrap();
    let frame = std::fs::read_dir(&report.outputs["file"].path).unwrap().next().unwrap().unwrap().path();
    std::fs::write(frame, b"edited by hand").unwrap();
    let options = RunOptions { resume: true, ..bench.options() };
    let error = bench.run(SHOT, &options, &Watch::new(None)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::BadInput, "{error}");
}

#[test]
fn a_second_process_at_the_same_job_is_told_to_wait() {
    let bench = Bench::new();
    let plan = bench.plan(SHOT).unwrap();
    let folder = bench.dir.path().join("cache/jobs").join(plan.job());
    std::fs::create_dir_all(&folder).unwrap();
    let lock = std::fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let error = bench.run(SHOT, &bench.options(), &Watch::new(None)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Temporary, "{error}");
    drop(lock);
    bench.run(SHOT, &bench.options(), &Watch::new(None)).unwrap();
}

#[test]
fn a_receipt_is_verified_and_a_difference_is_named() {
    let bench = Bench::new();
    let report = bench.run(SHOT, &bench.options(), &Watch::new(None)).unwrap();
    let place = receipt_path(&report.outputs["file"].path);
    let receipt = Receipt::read(&place).unwrap();
    assert_eq!(receipt.output.frames, 4);
    assert_eq!(receipt.nodes.len(), 4);
    assert_eq!(receipt.nodes.iter().find(|n| n.node == "shot").unwrap().model.as_deref(), Some("shifter-1"));
    let text = std::fs::read_to_string(&place).unwrap();
    assert!(!text.contains(bench.dir.path().to_str().unwrap()), "no machine paths in a receipt");

    let check = || {
        let watch = Watch::new(None);
        verify(&place, &bench.options(), &mut RunContext { progress: &watch, clock: &SystemClock::default() })
    };
    let found = check().unwrap();
    assert!(
        found.holds() && found.encoded.same() && found.surroundings.iter().all(|c| c.same()),
        "{found:?}"
    );

    let photo = kinora_pipeline::media::Picture::new(32, 24, vec![9; 32 * 24 * 3]).unwrap();
    kinora_pipeline::media::write_png(&bench.shots().join("photo.png"), &photo, true).unwrap();
    let found = check().unwrap();
    assert!(!found.holds() && found.file.same() && !found.pixels.same());
    let changed: Vec<_> = found.surroundings.iter().filter(|c| !c.same()).map(|c| c.what.as_str()).collect();
    assert_eq!(changed, ["input of photo"]);

    std::fs::write(&place, text.replace("\"receipt\": 1", "\"receipt\": 9")).unwrap();
    assert!(check().unwrap_err().to_string().contains("update Kinora"));
}

#[test]
fn a_plan_is_made_without_running() {
    let bench = Bench::new();
    let plan = bench.plan(SHOT).unwrap();
    let order: Vec<_> = plan.steps().iter().map(|step| step.node.as_str()).collect();
    assert_eq!(order, ["photo", "thing", "shot", "file"]);
    assert!(plan.steps().iter().all(|step| step.needed && !step.cached));
    let forecast = plan.forecast();
    assert!(forecast.seconds > 0.0 && forecast.memory > 0 && forecast.disk > 0 && !forecast.measured);
    assert!(!bench.shots().join("out").exists());
    bench.run(SHOT, &bench.options(), &Watch::new(None)).unwrap();
    let options = RunOptions { force: true, ..bench.options() };
    let plan = Plan::build(&Document::parse(SHOT, "x").unwrap(), &options).unwrap();
    assert!(plan.forecast().measured, "the second forecast rests on the first run");
    assert_eq!(plan.steps().iter().filter(|step| step.needed).count(), 2);
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    /// A graph of masks: `edges[i]` are the nodes node i takes.
    fn graph(edges: &[Vec<usize>]) -> String {
        let nodes = edges.iter().enumerate().map(|(node, from)| {
            if from.is_empty() {
                return format!("\"n{node}\": {{ \"op\": \"mask.import\", \"path\": \"photo.png\" }}");
            }
            let links: Vec<_> = from.iter().map(|from| format!("\"@n{from}\"")).collect();
            format!("\"n{node}\": {{ \"op\": \"mask.combine\", \"masks\": [{}] }}", links.join(","))
        });
        with(&nodes.collect::<Vec<_>>().join(","))
    }

    fn has_cycle(edges: &[Vec<usize>]) -> bool {
        // Floyd-Warshall reachability: slow, and plainly right.
        let n = edges.len();
        let mut reach = vec![vec![false; n]; n];
        for (node, from) in edges.iter().enumerate() {
            from.iter().for_each(|&from| reach[node][from] = true);
        }
        for k in 0..n {
            for i in 0..n {
                for j in 0..n {
                    reach[i][j] |= reach[i][k] && reach[k][j];
                }
            }
        }
        (0..n).any(|node| reach[node][node])
    }

    fn shuffled(value: &Value, turn: usize) -> Value {
        match value {
            Value::Object(object) => {
                let mut fields: Vec<_> = object.iter().map(|(k, v)| (k.clone(), shuffled(v, turn))).collect();
                let by = turn % fields.len().max(1);
                fields.rotate_left(by);
                Value::Object(fields.into_iter().collect())
            }
            Value::Array(items) => Value::Array(items.iter().map(|item| shuffled(item, turn)).collect()),
            other => other.clone(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn a_cycle_is_never_accepted_and_orders_are_topological(
            edges in prop::collection::vec(prop::collection::vec(0usize..9, 0..3), 9)
        ) {
            match Document::parse(&graph(&edges), "x") {
                Ok(document) => {
                    prop_assert!(!has_cycle(&edges));
                    let place = |name: &str| document.order().iter().position(|n| n == name).unwrap();
                    for (node, from) in edges.iter().enumerate() {
                        for from in from {
                        let (earlier, later) = (place(&format!("n{from}")), place(&format!("n{node}")));
                        prop_assert!(earlier < later);
                        }
                    }
                }
                Err(error) => {
                    prop_assert!(has_cycle(&edges), "{error}");
                    prop_assert_eq!(error.kind(), ProblemKind::Cycle);
                }
            }
        }

        #[test]
        fn keys_do_not_depend_on_order_names_or_ui(turn in 0usize..7, note in "[a-z ]{0,12}") {
            let bench = Bench::new();
            let plain: Value = serde_json::from_str(SHOT).unwrap();
            let mut other = shuffled(&plain, turn);
            other["ui"] = json!({ "note": note });
            other["nodes"]["shot"]["ui"] = json!({ "x": turn });
            // A default written out is the same as one left out.
            other["nodes"]["shot"]["seed"] = json!(7);
            other["nodes"]["shot"]["fps"] = json!(8);
            let keys = |value: &Value| {
                let plan = bench.plan(&value.to_string()).unwrap();
                let mut keys: Vec<_> = plan.steps().iter().map(|s| (s.node.clone(), s.key.clone())).collect();
                keys.sort();
                keys
            };
            prop_assert_eq!(keys(&plain), keys(&other));
            other["nodes"]["shot"]["seed"] = json!(8);
            prop_assert_ne!(keys(&plain), keys(&other));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[\\[\\]{}\":,@a-z0-9. \\\\]{0,80}") {
            let _ = Document::parse(&text, "x");
        }

        #[test]
        fn no_damage_to_a_document_makes_the_reader_panic(at in 0usize..SHOT.len(), byte in 32u8..127) {
            let mut bytes = SHOT.as_bytes().to_vec();
            bytes[at] = byte;
            let text = String::from_utf8(bytes).unwrap();
            if let Err(error) = Document::parse(&text, "x") {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
