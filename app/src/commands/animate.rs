//! `kinora animate`: the short form, a document made from arguments.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use kinora_pipeline::store::atomic::AtomicFile;
use kinora_pipeline::store::model_store::ModelStore;
use kinora_pipeline::systems::follow_your_click::Models;
use kinora_pipeline::workflow::{Document, ModelName, Plan};
use serde_json::json;

use crate::cli::{AnimateArgs, EaseChoice, ModelArgs, SamplerChoice};
use crate::commands::render::print_outputs;
use crate::engines::Machinery;
use crate::failure::{Failure, Kind, OrFail as _, Outcome};
use crate::session::{device, document_failure, execute, options_with};

pub(crate) fn run(args: &AnimateArgs) -> Outcome {
    let (folder, photo) = split(&args.photo, "photograph")?;
    let (out, output) = split(&args.output, "output")?;
    let points: Vec<_> = args
        .click
        .iter()
        .map(|&(x, y)| json!({ "x": decimal(x), "y": decimal(y), "keep": true }))
        .chain(args.not.iter().map(|&(x, y)| json!({ "x": decimal(x), "y": decimal(y), "keep": false })))
        .collect();
    let ease = match args.ease {
        EaseChoice::Linear => "linear",
        EaseChoice::Smooth => "smooth",
        EaseChoice::Loop => "loop",
    };
    let mut shot = json!({
        "op": "animate.click", "image": "@photo", "mask": "@thing", "prompt": args.prompt,
        "magnitude": args.magnitude, "frames": args.frames, "fps": args.fps, "seed": args.seed,
        "ease": ease,
    });
    let mut machinery = Machinery::new(device(args.run.device)?, &ModelStore::default_root())?;
    let model = model_name(&args.model.model, &folder, machinery.models_mut())?;
    if let Some(object) = shot.as_object_mut() {
        if let Some(steps) = args.steps {
            object.insert("steps".to_owned(), json!(steps));
        }
        if let Some(size) = args.size {
            object.insert("size".to_owned(), json!(size));
        }
        object.insert("model".to_owned(), json!(model));
        let ModelArgs { model: _, negative_prompt, guidance_scale, sampler, working_size } = &args.model;
        let sampler = sampler.map(SamplerChoice::sampler);
        for (field, value) in [
            ("negative_prompt", json!(negative_prompt)),
            ("guidance_scale", json!(guidance_scale)),
            ("sampler", json!(sampler)),
            ("working_size", json!(working_size)),
        ] {
            if !value.is_null() {
                object.insert(field.to_owned(), value);
            }
        }
    }
    let document = json!({
        "kinora": 1,
        "nodes": {
            "photo": { "op": "image.load", "path": photo },
            "thing": { "op": "mask.click", "image": "@photo", "points": points },
            "shot": shot,
            "file": { "op": "video.save", "video": "@shot", "path": output },
        }
    });
    let text = serde_json::to_string_pretty(&document).or_fail(Kind::Bug)?;
    let document = Document::parse(&text, "animate").map_err(document_failure)?;
    if let Some(path) = &args.save_document {
        let mut file = AtomicFile::create(path).or_fail(Kind::Io)?;
        std::io::Write::write_all(file.file_mut(), text.as_bytes()).or_fail(Kind::Io)?;
        file.commit(args.run.force).or_fail(Kind::Io)?;
    }
    let options = options_with(&folder, Some(&out), &args.run, machinery)?;
    let plan = Plan::build(&document, &options).map_err(document_failure)?;
    print_outputs(&execute(&plan, args.run.progress)?);
    Ok(())
}

/// What the document calls the model: the name given, or for a folder of weights its path from the photograph's folder.
/// A folder elsewhere is called by its last part, so that no document or receipt holds a path of this machine.
fn model_name(given: &str, home: &Path, models: &mut Models) -> Result<String, Failure> {
    let is_path = given.contains(['/', std::path::MAIN_SEPARATOR]) || given.starts_with('.');
    let path = Path::new(given);
    if given == ModelName::EMBEDDED || given.starts_with("hub:") || models.knows(given) {
        return Ok(given.to_owned());
    }
    if !path.is_dir() {
        if !is_path {
            return Ok(given.to_owned());
        }
        let problem = format!("--model: expected a folder of weights, found nothing at {given}");
        return Err(Failure::message(Kind::BadInput, problem));
    }
    let real = path.canonicalize().or_fail(Kind::Io)?;
    let home = home.canonicalize().or_fail(Kind::Io)?;
    if let Some(inner) =
        real.strip_prefix(&home).ok().and_then(Path::to_str).filter(|inner| !inner.is_empty())
        && !models.knows(inner)
    {
        return Ok(inner.replace(std::path::MAIN_SEPARATOR, "/"));
    }
    let name = real.file_name().and_then(OsStr::to_str).ok_or_else(|| {
        Failure::message(Kind::BadInput, format!("--model: {given} does not end in the name of a folder"))
    })?;
    models.grant(name, &real).or_fail(Kind::BadInput)?;
    Ok(name.to_owned())
}

/// The number as the user typed it, without the tail that widening an `f32` shows.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// Folder and file name: a document's names resolve inside its folder, and the user chose both.
fn split(path: &Path, what: &str) -> Result<(PathBuf, String), Failure> {
    let name = path.file_name().and_then(OsStr::to_str);
    let name = name.ok_or_else(|| {
        Failure::message(Kind::BadInput, format!("the {what} {} does not end in a file name", path.display()))
    })?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((folder.to_path_buf(), name.to_owned()))
}
