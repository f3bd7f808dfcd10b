//! The real binary with a public checkpoint: a miniature of Stable Diffusion 1.5 with motion modules.
// Test helpers outside #[test] functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../../pipeline/tests/support/tiny_sd.rs"]
mod tiny_sd;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kinora_pipeline::media::{Picture, write_png};
use serde_json::Value;
use tiny_sd::Kind;

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    /// A folder with a picture of a bright disc, a cache and a model store.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("shots")).unwrap();
        let pixel = |i: u32| {
            let (x, y) = (f64::from(i % 96) - 48.0, f64::from(i / 96) - 32.0);
            if x.hypot(y) < 14.0 { [230, 120, 40] } else { [40, 60, (i % 90) as u8] }
        };
        let photo = Picture::new(96, 64, (0..96 * 64).flat_map(pixel).collect()).unwrap();
        write_png(&dir.path().join("shots/photo.png"), &photo, false).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn kinora(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kinora"))
            .args(args)
            .current_dir(self.path("shots"))
            .env("KINORA_CACHE", self.path("cache"))
            .env("KINORA_MODELS", self.path("models"))
            // The network is nowhere: whoever asks for it fails.
            .env("HTTPS_PROXY", "http://127.0.0.1:9")
            .env_remove("KINORA_LOG")
            .output()
            .unwrap()
    }

    fn animate(&self, model: &str, out: &str, more: &[&str]) -> Output {
        let mut args = vec!["animate", "photo.png", "--click", "0.5,0.5", "--prompt", "drift to the left"];
        args.extend(["--frames", "3", "--steps", "2", "--model", model, "-o", out]);
        args.extend(more);
        self.kinora(&args)
    }

    fn document(&self, model: &str) {
        let text = format!(
            r#"{{ "kinora": 1, "nodes": {{
  "photo": {{ "op": "image.load", "path": "photo.png" }},
  "thing": {{ "op": "mask.click", "image": "@photo", "points": [{{ "x": 0.5, "y": 0.5 }}] }},
  "shot": {{ "op": "animate.click", "image": "@photo", "mask": "@thing", "prompt": "drift to the left",
    "frames": 3, "steps": 2, "working_size": 64, "sampler": "euler", "guidance_scale": 5, "negative_prompt": "blurry",
    "model": "{model}" }},
  "file": {{ "op": "sequence.save", "video": "@shot", "path": "out/frames" }} }} }}"#
        );
        std::fs::write(self.path("shots/shot.kinora.json"), text).unwrap();
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn done(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
}

fn receipt(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn weights_of(receipt: &Value) -> String {
    let nodes = receipt["nodes"].as_array().unwrap();
    let shot = nodes.iter().find(|node| node["node"] == "shot").unwrap();
    shot["model"].as_str().unwrap().to_owned()
}

#[test]
fn a_document_renders_with_an_installed_checkpoint_and_verifies() {
    let bench = Bench::new();
    tiny_sd::install(&bench.path("models"), "pia", Kind::Pia);
    bench.document("pia");
    done(&bench.kinora(&["render", "shot.kinora.json"]));
    let frames = std::fs::read_dir(bench.path("shots/out/frames")).unwrap();
    assert_eq!(
        frames.filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "png")).count(),
        3
    );
    let place = bench.path("shots/out/frames.receipt.json");
    assert_eq!(weights_of(&receipt(&place)).len(), 64);
    let isa = kinora_kernels::Isa::current().name();
    assert_eq!(receipt(&place)["numeric"], format!("cpu f32 {isa}"));
    let verified = bench.kinora(&["verify", place.to_str().unwrap()]);
    done(&verified);
    assert!(
        said(&verified).contains("kernels of shot") && !said(&verified).contains("DIFFERENT"),
        "{}",
        said(&verified)
    );

    let plan = bench.kinora(&["validate", "shot.kinora.json", "--json"]);
    done(&plan);
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    let steps = plan["steps"].as_array().unwrap();
    let work = &steps.iter().find(|step| step["node"] == "shot").unwrap()["work"];
    // The miniature has half a million weights, most of them in CLIP's vocabulary.
    assert!(work["memory"].as_u64().unwrap() > 4 * 49408 * 8, "{work}");
    assert_eq!(work["meter"], "gigaflop");
}

#[test]
fn the_short_form_takes_a_name_a_folder_beside_the_photograph_and_one_elsewhere() {
    let bench = Bench::new();
    tiny_sd::install(&bench.path("models"), "animatediff-v2", Kind::AnimateDiff);
    done(&bench.animate("animatediff-v2", "name.mkv", &["--working-size", "64", "--sampler", "dpmpp-2m"]));
    let by_name = weights_of(&receipt(&bench.path("shots/name.mkv.receipt.json")));

    tiny_sd::write_model(&bench.path("shots/mine"), Kind::AnimateDiff);
    let args =
        ["--working-size", "64", "--guidance-scale", "3", "--negative-prompt", "text", "--save-document"];
    done(&bench.animate("./mine", "folder.mkv", &[args.as_slice(), &["saved.kinora.json"]].concat()));
    let inside = receipt(&bench.path("shots/folder.mkv.receipt.json"));
    assert_eq!(inside["document"]["nodes"]["shot"]["model"], "mine");
    assert_ne!(weights_of(&inside), by_name, "the files differ in name and place");
    done(&bench.kinora(&["validate", "saved.kinora.json"]));

    tiny_sd::write_model(&bench.path("elsewhere/tiny"), Kind::AnimateDiff);
    done(&bench.animate("../elsewhere/tiny", "outside.mkv", &["--working-size", "64"]));
    let text = std::fs::read_to_string(bench.path("shots/outside.mkv.receipt.json")).unwrap();
    assert!(!text.contains("elsewhere"), "no path of this machine in a receipt: {text}");
    assert_eq!(weights_of(&receipt(&bench.path("shots/outside.mkv.receipt.json"))), weights_of(&inside));

    let refused = bench.animate("./nowhere", "x.mkv", &[]);
    assert_eq!(refused.status.code(), Some(65), "{}", said(&refused));
    assert!(said(&refused).contains("./nowhere"));
}

#[test]
fn a_model_that_is_not_installed_ends_with_69_and_the_command_to_fetch_it() {
    let bench = Bench::new();
    for name in
        ["animatediff-v2", "pia", "hub:somebody/with-a-rather-long-name-of-a-repository@0123456789abcdef"]
    {
        let output = bench.animate(name, "x.mkv", &[]);
        assert_eq!(output.status.code(), Some(69), "{}", said(&output));
        assert!(said(&output).contains(&format!("`kinora models pull {name}`")), "{}", said(&output));
        assert!(!bench.path("shots/x.mkv").exists());
        bench.document(name);
        for command in [["render", "shot.kinora.json"], ["validate", "shot.kinora.json"]] {
            let output = bench.kinora(&command);
            assert_eq!(output.status.code(), Some(69), "{}", said(&output));
            assert!(said(&output).contains(&format!("`kinora models pull {name}`")), "{}", said(&output));
        }
    }
}

#[test]
fn an_unknown_model_ends_with_65_its_place_and_the_known_names() {
    let bench = Bench::new();
    bench.document("animatediff-v9");
    let output = bench.kinora(&["render", "shot.kinora.json"]);
    assert_eq!(output.status.code(), Some(65), "{}", said(&output));
    for part in
        ["nodes.shot.model", "shot.kinora.json:6:14", "animatediff-v1", "pia", "embedded", "did you mean"]
    {
        assert!(said(&output).contains(part), "{part}: {}", said(&output));
    }
    assert_eq!(bench.animate("nonsense", "x.mkv", &[]).status.code(), Some(65));
}

#[test]
fn damaged_weights_end_with_69_and_name_the_file() {
    let bench = Bench::new();
    let model = bench.path("shots/mine");
    let unet = model.join("unet/diffusion_pytorch_model.safetensors");
    tiny_sd::write_model(&model, Kind::AnimateDiff);
    tiny_sd::edit(&unet, "conv_out.weight", tiny_sd::poison);
    let nan = bench.animate("mine", "nan.mkv", &[]);
    tiny_sd::write_model(&model, Kind::AnimateDiff);
    tiny_sd::edit(&unet, "conv_in.bias", |bias| bias.narrow(0, 0, 4).unwrap().contiguous().unwrap());
    let shape = bench.animate("mine", "shape.mkv", &[]);
    for (output, says) in [(nan, "NaN"), (shape, "expected [8] at conv_in.bias, found [4]")] {
        assert_eq!(output.status.code(), Some(69), "{}", said(&output));
        assert!(said(&output).contains(says), "{}", said(&output));
        assert!(said(&output).contains("unet/diffusion_pytorch_model.safetensors"), "{}", said(&output));
    }
    assert!(!bench.path("shots/nan.mkv").exists() && !bench.path("shots/shape.mkv").exists());
}

#[test]
fn the_embedded_model_refuses_what_it_has_no_use_for() {
    let bench = Bench::new();
    for (flag, value) in [
        ("--negative-prompt", "blurry"),
        ("--guidance-scale", "3"),
        ("--sampler", "euler"),
        ("--working-size", "256"),
    ] {
        let output = bench.animate("embedded", "x.mkv", &[flag, value]);
        assert_eq!(output.status.code(), Some(65), "{}", said(&output));
        assert!(said(&output).contains(&format!("{flag}: expected no")), "{}", said(&output));
    }
}
