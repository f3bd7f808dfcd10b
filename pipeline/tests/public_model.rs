//! Documents that name a public checkpoint, on a miniature of Stable Diffusion 1.5 with motion modules.
// Test helpers outside #[test] functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "support/tiny_sd.rs"]
mod tiny_sd;

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::Device;
use kinora_pipeline::media::{Mask, Picture, read_picture, write_png};
use kinora_pipeline::progress::{CancelToken, Event, NullProgress, Progress};
use kinora_pipeline::store::cache::Cache;
use kinora_pipeline::store::hub::HubOptions;
use kinora_pipeline::store::model_store::ModelStore;
use kinora_pipeline::systems::follow_your_click::{AnimateError, Animator, Models};
use kinora_pipeline::workflow::{
    Document, DocumentError, Engines, ErrorClass, MaskQuery, ModelName, Plan, ProblemKind, Receipt,
    RunContext, RunError, RunOptions, RunReport, SystemClock, receipt_path, run,
};
use miette::Diagnostic as _;
use tiny_sd::Kind;

/// The real models behind a stand-in for the click: a square in the middle.
struct Middle(Models);

impl Engines for Middle {
    fn animator(&self, model: &ModelName<'_>) -> Result<Arc<dyn Animator>, AnimateError> {
        self.0.open(model.name, model.folder.as_deref())
    }

    fn click(&self, picture: &Picture, _: &MaskQuery<'_>) -> Result<Mask, RunError> {
        let (width, height) = (picture.width(), picture.height());
        let inside = |v: u32, side: u32| (side / 3..side - side / 3).contains(&v);
        let alpha = (0..width * height)
            .map(|i| f32::from(u8::from(inside(i % width, width) && inside(i / width, height))));
        Mask::new(width, height, alpha.collect()).map_err(|error| RunError::input(error.to_string()))
    }

    fn click_digest(&self) -> String {
        "middle".into()
    }

    fn refine(&self, mask: Mask, _: f64, _: f64) -> Result<Mask, RunError> {
        Ok(mask)
    }

    fn numeric_path(&self) -> String {
        "cpu f32".into()
    }
}

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("shots")).unwrap();
        let rgb = (0..48 * 32 * 3).map(|i| (i * 37 % 211) as u8).collect();
        let photo = Picture::new(48, 32, rgb).unwrap();
        write_png(&dir.path().join("shots/photo.png"), &photo, false).unwrap();
        Self { dir }
    }

    fn shots(&self) -> PathBuf {
        self.dir.path().join("shots")
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("models")
    }

    fn options(&self) -> RunOptions {
        let store =
            ModelStore::new(&self.store(), HubOptions { offline: true, ..HubOptions::default() }).unwrap();
        RunOptions {
            folder: self.shots(),
            out: None,
            assets: vec![],
            force: true,
            resume: false,
            targets: None,
            engines: Arc::new(Middle(Models::new(store, &Device::Cpu))),
            cache: Cache::open(&self.dir.path().join("cache")).unwrap(),
        }
    }

    fn plan(&self, fields: &str) -> Result<Plan, DocumentError> {
        Plan::build(&Document::parse(&document(fields), "test.kinora.json").unwrap(), &self.options())
    }

    fn refused(&self, fields: &str) -> DocumentError {
        self.plan(fields).unwrap_err()
    }

    fn run_with(
        &self,
        fields: &str,
        options: &RunOptions,
        progress: &dyn Progress,
    ) -> Result<RunReport, RunError> {
        let document = Document::parse(&document(fields), "test.kinora.json")?;
        let plan = Plan::build(&document, options)?;
        run(&plan, &mut RunContext { progress, clock: &SystemClock::default() })
    }

    fn run(&self, fields: &str) -> RunReport {
        self.run_with(fields, &self.options(), &NullProgress).unwrap()
    }

    fn key(&self, fields: &str) -> String {
        let plan = self.plan(fields).unwrap();
        plan.steps().iter().find(|step| step.node == "shot").unwrap().key.hex().to_owned()
    }
}

fn document(fields: &str) -> String {
    let steps = if fields.contains("\"steps\"") { "" } else { "\"steps\": 2," };
    format!(
        r#"{{ "kinora": 1, "nodes": {{
  "photo": {{ "op": "image.load", "path": "photo.png" }},
  "thing": {{ "op": "mask.click", "image": "@photo", "points": [{{ "x": 0.5, "y": 0.5 }}] }},
  "shot": {{ "op": "animate.click", "image": "@photo", "mask": "@thing", "prompt": "drift to the left", "frames": 3,
    {steps} {fields} }},
  "file": {{ "op": "sequence.save", "video": "@shot", "path": "out/frames" }} }} }}"#
    )
}

fn shown(error: &DocumentError) -> String {
    format!("{error} | {}", error.help().map(|help| help.to_string()).unwrap_or_default())
}

#[test]
fn a_folder_beside_the_document_renders_and_is_named_in_the_receipt() {
    let bench = Bench::new();
    tiny_sd::write_model(&bench.shots().join("models/tiny"), Kind::AnimateDiff);
    let report = bench.run(r#""model": "models/tiny", "working_size": 64"#);
    let written = &report.outputs["file"];
    assert_eq!(written.frames, 3);
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(&written.path).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|end| end == "png"));
    names.sort();
    let frames: Vec<Picture> =
        names.iter().map(|path| read_picture(path, &Default::default()).unwrap()).collect();
    assert_eq!(frames.len(), 3);
    let photo = read_picture(&bench.shots().join("photo.png"), &Default::default()).unwrap();
    for frame in &frames {
        assert_eq!((frame.width(), frame.height()), (48, 32));
        // A corner is the photograph's, the middle the network's.
        assert_eq!(frame.rgb()[..12], photo.rgb()[..12]);
        let middle = (16 * 48 + 24) * 3;
        assert_ne!(frame.rgb()[middle..middle + 9], photo.rgb()[middle..middle + 9]);
    }
    assert_ne!(frames[0], frames[2], "something moves");

    let receipt = Receipt::read(&receipt_path(&written.path)).unwrap();
    let digest = receipt.nodes.iter().find(|node| node.node == "shot").unwrap().model.clone().unwrap();
    assert_eq!(digest.len(), 64);
    let text = std::fs::read_to_string(receipt_path(&written.path)).unwrap();
    assert!(!text.contains(bench.dir.path().to_str().unwrap()), "no paths of this machine");

    // The kernels that ran, also told by a receipt whose clip came from the cache.
    let kernels =
        |receipt: &Receipt| receipt.nodes.iter().find(|node| node.node == "shot").unwrap().kernels.clone();
    let isa = kinora_kernels::Isa::current().name();
    for kernel in ["attention short", "attention flash", "linear packed", "conv2d packed", "group_norm fused"]
    {
        assert!(kernels(&receipt).contains(&format!("{kernel} {isa}")), "{kernel}: {:?}", kernels(&receipt));
    }
    assert!(receipt.threads >= 1);
    let again = bench.run(r#""model": "models/tiny", "working_size": 64"#);
    assert!(again.nodes.iter().any(|node| node.node == "shot" && node.cached));
    assert_eq!(kernels(&Receipt::read(&receipt_path(&written.path)).unwrap()), kernels(&receipt));

    // The same weights elsewhere are the same model; other weights are not.
    let before = bench.key(r#""model": "models/tiny", "working_size": 64"#);
    tiny_sd::write_model(&bench.shots().join("again"), Kind::AnimateDiff);
    assert_eq!(bench.key(r#""model": "again", "working_size": 64"#), before);
    let file = bench.shots().join("again/unet/diffusion_pytorch_model.safetensors");
    tiny_sd::edit(&file, "conv_out.bias", |bias| bias.affine(1.0, 0.25).unwrap());
    assert_ne!(bench.key(r#""model": "again", "working_size": 64"#), before);
}

#[test]
fn a_pulled_model_renders_by_its_name_with_its_base() {
    for (id, kind) in [("animatediff-v2", Kind::AnimateDiff), ("pia", Kind::Pia)] {
        let bench = Bench::new();
        tiny_sd::install(&bench.store(), id, kind);
        let report = bench.run(&format!(r#""model": "{id}", "working_size": 64"#));
        assert_eq!(report.outputs["file"].frames, 3);
    }
}

#[test]
fn motion_modules_alone_take_the_usual_base() {
    let bench = Bench::new();
    tiny_sd::write_adapter(&bench.shots().join("motion"), Kind::AnimateDiff);
    let error = bench.refused(r#""model": "motion""#);
    assert_eq!((error.kind(), error.class()), (ProblemKind::Model, ErrorClass::Unavailable));
    assert!(shown(&error).contains("`kinora models pull sd15`"), "{}", shown(&error));
    tiny_sd::install(&bench.store(), "pia", Kind::Pia);
    bench.run(r#""model": "motion", "working_size": 64"#);
    // A user's own folder among the models is known by its name.
    std::fs::rename(bench.shots().join("motion"), bench.store().join("motion")).unwrap();
    bench.run(r#""model": "motion", "working_size": 64, "seed": 8"#);
}

#[test]
fn what_is_not_installed_says_what_to_pull() {
    let bench = Bench::new();
    for name in ["animatediff-v2", "pia", "hub:somebody/something@main"] {
        let error = bench.refused(&format!(r#""model": "{name}""#));
        assert_eq!((error.kind(), error.class()), (ProblemKind::Model, ErrorClass::Unavailable), "{error}");
        assert_eq!(error.first().field(), "nodes.shot.model");
        assert!(shown(&error).contains(&format!("`kinora models pull {name}`")), "{}", shown(&error));
    }
    // The adapter is here, its base is not: pulling the adapter fetches both.
    tiny_sd::install(&bench.store(), "pia", Kind::Pia);
    std::fs::remove_dir_all(bench.store().join("sd15")).unwrap();
    assert!(shown(&bench.refused(r#""model": "pia""#)).contains("`kinora models pull pia`"));
    // Cut in the middle of a file.
    tiny_sd::install(&bench.store(), "pia", Kind::Pia);
    std::fs::write(bench.store().join("pia/diffusion_pytorch_model.safetensors"), b"half").unwrap();
    assert!(shown(&bench.refused(r#""model": "pia""#)).contains("`kinora models pull pia`"));
}

#[test]
fn an_unknown_name_is_bad_input_with_its_place_and_the_known_ones() {
    let bench = Bench::new();
    let error = bench.refused(r#""model": "animatedif-v2""#);
    assert_eq!((error.kind(), error.class()), (ProblemKind::Value, ErrorClass::BadInput));
    assert_eq!((error.first().field(), error.first().line()), ("nodes.shot.model".to_owned(), 5));
    assert_eq!(error.labels().unwrap().next().unwrap().len(), "\"animatedif-v2\"".len());
    for known in ["embedded", "sd15", "animatediff-v1", "animatediff-v3", "pia", "hub:OWNER/NAME@REVISION"] {
        assert!(error.first().expected().contains(known), "{error}");
    }
    assert!(shown(&error).contains("did you mean \"animatediff-v2\"?"), "{}", shown(&error));
    for name in ["hub:one", "hub:../x@main", "hub:a/b@..", "\\u0001"] {
        let error = bench.refused(&format!(r#""model": "{name}""#));
        assert_eq!(error.class(), ErrorClass::BadInput, "{error}");
    }
}

#[test]
fn a_folder_outside_the_document_is_refused() {
    let bench = Bench::new();
    tiny_sd::write_model(&bench.dir.path().join("outside"), Kind::AnimateDiff);
    let absolute = bench.dir.path().join("outside").display().to_string();
    for name in ["../outside", absolute.as_str(), "./../outside", "models/none", "~/outside"] {
        let error = bench.refused(&format!(r#""model": "{name}""#));
        assert_eq!(
            (error.kind(), error.class()),
            (ProblemKind::Path, ErrorClass::BadInput),
            "{name}: {error}"
        );
        assert_eq!(error.first().field(), "nodes.shot.model");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../outside", bench.shots().join("link")).unwrap();
        assert_eq!(bench.refused(r#""model": "./link""#).kind(), ProblemKind::Path);
        std::fs::create_dir_all(bench.shots().join("mine/unet")).unwrap();
        let target = bench.dir.path().join("outside/unet/diffusion_pytorch_model.safetensors");
        std::os::unix::fs::symlink(target, bench.shots().join("mine/unet/w.safetensors")).unwrap();
        let error = bench.refused(r#""model": "mine""#);
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }
}

#[test]
fn weights_of_another_shape_are_refused_before_anything_runs() {
    let bench = Bench::new();
    let model = bench.shots().join("tiny");
    tiny_sd::write_model(&model, Kind::AnimateDiff);
    let unet = model.join("unet/diffusion_pytorch_model.safetensors");
    tiny_sd::edit(&unet, "conv_in.bias", |bias| bias.narrow(0, 0, 4).unwrap().contiguous().unwrap());
    let error = bench.refused(r#""model": "tiny""#);
    assert_eq!((error.kind(), error.class()), (ProblemKind::Model, ErrorClass::Unavailable));
    for part in ["conv_in.bias", "expected [8]", "found [4]", "unet/diffusion_pytorch_model.safetensors"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    // A configuration that does not belong to the weights, and one that is none.
    tiny_sd::write_model(&model, Kind::AnimateDiff);
    std::fs::write(
        model.join("unet/config.json"),
        r#"{ "block_out_channels": [8, 8, 8], "norm_num_groups": 2 }"#,
    )
    .unwrap();
    let error = bench.refused(r#""model": "tiny""#).to_string();
    assert!(error.contains("unet/config.json") && error.contains("down_block_types"), "{error}");
    std::fs::write(model.join("unet/config.json"), "{").unwrap();
    assert!(bench.refused(r#""model": "tiny""#).to_string().contains("unet/config.json"));
}

#[test]
fn weights_that_are_no_numbers_are_refused_by_name_and_leave_nothing() {
    let bench = Bench::new();
    let model = bench.shots().join("tiny");
    for (file, ending) in [
        ("unet/diffusion_pytorch_model.safetensors", "conv_out.weight"),
        ("motion_adapter/diffusion_pytorch_model.safetensors", "attn1.to_q.weight"),
        ("vae/diffusion_pytorch_model.safetensors", "decoder.conv_in.weight"),
        ("text_encoder/model.safetensors", "final_layer_norm.weight"),
    ] {
        tiny_sd::write_model(&model, Kind::AnimateDiff);
        tiny_sd::edit(&model.join(file), ending, tiny_sd::poison);
        let error = bench.run_with(r#""model": "tiny""#, &bench.options(), &NullProgress).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unavailable, "{error}");
        let text = error.to_string();
        assert!(text.contains(ending) && text.contains("NaN") && text.contains(file), "{text}");
        assert!(!bench.shots().join("out/frames").exists());
    }
    // A file that ends too early.
    tiny_sd::write_model(&model, Kind::AnimateDiff);
    let file = model.join("vae/diffusion_pytorch_model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 3]).unwrap();
    let error = bench.refused(r#""model": "tiny""#);
    assert!(error.to_string().contains("vae/diffusion_pytorch_model.safetensors"), "{error}");
}

#[test]
fn sampling_is_chosen_by_the_document_and_checked() {
    let bench = Bench::new();
    tiny_sd::write_model(&bench.shots().join("tiny"), Kind::Pia);
    let pixels = |fields: &str| {
        bench.run(&format!(r#""model": "tiny", "working_size": 64{fields}"#)).outputs["file"].pixels.clone()
    };
    let own = pixels("");
    for fields in [
        r#", "negative_prompt": "blurry""#,
        r#", "guidance_scale": 3"#,
        // Euler's steps are those of DDIM, which some processors round to the same picture.
        r#", "sampler": "lcm""#,
        r#", "pin_background": false"#,
        r#", "magnitude": 1"#,
    ] {
        assert_ne!(pixels(fields), own, "{fields}");
    }
    assert_eq!(pixels(r#", "guidance_scale": 7.5, "sampler": "ddim", "pin_background": true"#), own);

    let words = "left ".repeat(80);
    let long = format!(r#""model": "tiny", "negative_prompt": "{words}""#);
    for (fields, field, says) in [
        (long.as_str(), "nodes.shot.negative_prompt", "at most 75 tokens, found 80 tokens"),
        (r#""model": "tiny", "steps": 1000, "sampler": "lcm""#, "nodes.shot.steps", "number of steps"),
    ] {
        let error = bench.refused(fields);
        assert_eq!((error.class(), error.first().field().as_str()), (ErrorClass::BadInput, field), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    for (fields, field) in [
        (r#""guidance_scale": 0.5"#, "nodes.shot.guidance_scale"),
        (r#""guidance_scale": 1e9"#, "nodes.shot.guidance_scale"),
        (r#""working_size": 16"#, "nodes.shot.working_size"),
        (r#""sampler": "flow_euler""#, "nodes.shot.sampler"),
        (r#""pin_background": 1"#, "nodes.shot.pin_background"),
    ] {
        let error = Document::parse(&document(fields), "x").unwrap_err();
        assert_eq!(error.first().field(), field, "{error}");
    }
}

#[test]
fn keyframes_are_followed_by_pia_and_refused_where_nothing_reads_them() {
    let bench = Bench::new();
    tiny_sd::write_model(&bench.shots().join("pia-like"), Kind::Pia);
    tiny_sd::write_model(&bench.shots().join("plain"), Kind::AnimateDiff);
    let keys = r#""magnitude": { "keys": [[0, 1], [0.25, 0]], "ease": "linear" }"#;
    let pixels = |fields: &str| {
        let report = bench.run(&format!(r#""model": "pia-like", "working_size": 64, {fields}"#));
        report.outputs["file"].pixels.clone()
    };
    let keyed = pixels(keys);
    assert_ne!(keyed, pixels(r#""magnitude": 0"#));
    assert_ne!(keyed, pixels(r#""magnitude": 1"#));
    let error = bench.refused(&format!(r#""model": "plain", {keys}"#));
    assert_eq!(
        (error.class(), error.first().field().as_str()),
        (ErrorClass::BadInput, "nodes.shot.magnitude")
    );
    assert!(error.to_string().contains("no control for how far"), "{error}");
}

struct StopAt(CancelToken, usize);

impl Progress for StopAt {
    fn event(&self, event: Event) {
        if let Event::Step { stage: "denoise", done, .. } = event
            && done >= self.1
        {
            self.0.cancel();
        }
    }

    fn cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

#[test]
fn an_interrupted_render_goes_on_to_the_same_frames() {
    let bench = Bench::new();
    tiny_sd::write_model(&bench.shots().join("tiny"), Kind::Pia);
    let fields = r#""model": "tiny", "working_size": 64, "seed": 5"#;
    let whole = bench.run(fields).outputs["file"].pixels.clone();
    let cache = Cache::open(&bench.dir.path().join("other-cache")).unwrap();
    let options = RunOptions { cache, ..bench.options() };
    let stop = StopAt(CancelToken::default(), 1);
    let error = bench.run_with(fields, &options, &stop).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Interrupted, "{error}");
    let resumed = RunOptions { resume: true, ..options };
    let report = bench.run_with(fields, &resumed, &NullProgress).unwrap();
    assert_eq!(report.outputs["file"].pixels, whole);
}

#[test]
fn the_forecast_counts_the_networks() {
    let bench = Bench::new();
    tiny_sd::write_model(&bench.shots().join("tiny"), Kind::AnimateDiff);
    let work = |fields: &str| {
        let plan = bench.plan(&format!(r#""model": "tiny", {fields}"#)).unwrap();
        plan.steps().iter().find(|step| step.node == "shot").unwrap().work
    };
    let (small, large) = (work(r#""working_size": 64"#), work(r#""working_size": 128"#));
    assert_eq!(small.meter, "gigaflop");
    let grew = large.units / small.units;
    assert!((4.0..16.0).contains(&grew), "four times the cells, sixteen the attention: {grew}");
    let unguided = work(r#""working_size": 64, "guidance_scale": 1"#).units / small.units;
    assert!((0.5..0.95).contains(&unguided), "{unguided}");
}
