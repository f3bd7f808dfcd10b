//! Documents end to end: what is refused and how it is said, what runs again and what does not,
//! what survives being stopped.
// Test helpers outside #[test] functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "workflow/again.rs"]
mod again;
#[path = "workflow/outputs.rs"]
mod outputs;
#[path = "workflow/properties.rs"]
mod properties;
#[path = "workflow/refusals.rs"]
mod refusals;
#[path = "workflow/support.rs"]
mod support;

use kinora_pipeline::media::read_recipe;
use kinora_pipeline::workflow::{
    COMMITTED_AT, Document, DocumentError, Plan, ProblemKind, RunOptions, receipt_path, schema, schema_text,
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
