//! `kinora animate`: the short form, a document made from arguments.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use kinora_pipeline::store::atomic::{AtomicError, write_file};
use kinora_pipeline::store::model_store::ModelStore;
use kinora_pipeline::systems::follow_your_click::Models;
use kinora_pipeline::workflow::{Document, DocumentError, ModelName, Plan, Problem, RunError};
use miette::Diagnostic as _;
use serde_json::json;

use crate::cli::{AnimateArgs, EaseChoice, ModelArgs, SamplerChoice};
use crate::commands::render::print_outputs;
use crate::engines::Machinery;
use crate::failure::{Failure, Kind, OrFail as _, Outcome};
use crate::session::{device, execute, kind, options_with, run_failure};

pub(crate) fn run(args: &AnimateArgs) -> Outcome {
    let (folder, photo) = match &args.save_document {
        Some(document) => seen_from(document, &args.photo)?,
        None => split(&args.photo, "photograph")?,
    };
    let (out, output) = split(&args.output, "output")?;
    let mut machinery = Machinery::new(device(args.run.device)?, &ModelStore::default_root())?;
    let model = model_name(&args.model.model, &folder, machinery.models_mut())?;
    let document = document(args, &photo, &output, &model);
    let text = serde_json::to_string_pretty(&document).or_fail(Kind::Bug)? + "\n";
    let document = Document::parse(&text, "animate").map_err(|error| refused(&error, args))?;
    let options = options_with(&folder, Some(&out), &args.run, machinery)?;
    let plan = Plan::build(&document, &options).map_err(|error| refused(&error, args))?;
    if let Some(path) = &args.save_document {
        save(path, &text, args.run.force).map_err(|error| run_failure(RunError::from(error), 130))?;
    }
    print_outputs(&execute(&plan, args.run.progress)?);
    Ok(())
}

fn document(args: &AnimateArgs, photo: &str, output: &str, model: &str) -> serde_json::Value {
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
    json!({
        "kinora": 1,
        "nodes": {
            "photo": { "op": "image.load", "path": photo },
            "thing": { "op": "mask.click", "image": "@photo", "points": points },
            "shot": shot,
            "file": { "op": "video.save", "video": "@shot", "path": output },
        }
    })
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
    Ok((parent(path).to_path_buf(), name.to_owned()))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The folder of a document that is to be saved and the photograph's name in it.
fn seen_from(document: &Path, photo: &Path) -> Result<(PathBuf, String), Failure> {
    let folder = parent(document);
    let (Ok(home), Ok(there)) = (folder.canonicalize(), photo.canonicalize()) else {
        // What is missing is said where it is looked for.
        return split(photo, "photograph");
    };
    let inside = there.strip_prefix(&home).ok().and_then(|inside| {
        let parts = inside.components().map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        });
        parts.collect::<Option<Vec<_>>>()
    });
    inside.map(|parts| (folder.to_path_buf(), parts.join("/"))).ok_or_else(|| {
        let message = format!(
            "--save-document {}: expected a place in the photograph's folder or above it, because a document \
             finds its files only in its own folder; save it as {}",
            document.display(),
            photo.with_extension("kinora.json").display()
        );
        Failure::message(Kind::BadInput, message)
    })
}

/// Saves the document unless it lies there already, as after an interruption.
fn save(path: &Path, text: &str, force: bool) -> Result<(), AtomicError> {
    if std::fs::read(path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    write_file(path, text.as_bytes(), force)
}

/// What is wrong in terms of the arguments: nobody has written the document it was found in.
fn refused(error: &DocumentError, args: &AnimateArgs) -> Failure {
    let mut lines: Vec<String> = error.problems().map(|problem| line(problem, args)).collect();
    lines.dedup();
    Failure::message(kind(error.class(), 130), lines.join("\nerror: "))
}

fn line(problem: &Problem, args: &AnimateArgs) -> String {
    let field = problem.field();
    let field = field.strip_prefix("nodes.").unwrap_or(&field);
    let said = format!("expected {}, found {}", problem.expected(), problem.found());
    let help = match field {
        "file.path" => None,
        _ => problem.help().map(|help| format!("; {help}")),
    };
    let help = help.unwrap_or_default();
    match field {
        "photo.path" if !args.photo.exists() => {
            format!("there is no photograph {}; check the spelling", args.photo.display())
        }
        "photo.path" => format!("the photograph {}: {said}{help}", args.photo.display()),
        "file.path" if args.output.exists() => {
            format!(
                "{} exists already; pass --force to replace it, or name another file with --output",
                args.output.display()
            )
        }
        "file.path" => format!("--output {}: {said}", args.output.display()),
        _ => match (click(field, args), field.strip_prefix("shot.")) {
            (Some(click), _) => format!("{click}: {said}{help}"),
            (None, Some(option)) => format!("--{}: {said}{help}", option.replace('_', "-")),
            (None, None) => format!("{said}{help}"),
        },
    }
}

/// The argument behind `thing.points[INDEX].…`.
fn click(field: &str, args: &AnimateArgs) -> Option<String> {
    let (index, _) = field.strip_prefix("thing.points[")?.split_once(']')?;
    let index: usize = index.parse().ok()?;
    let wanted = args.click.get(index).map(|point| ("--click", point));
    let (option, (x, y)) = wanted
        .or_else(|| args.not.get(index.checked_sub(args.click.len())?).map(|point| ("--not", point)))?;
    Some(format!("{option} {x},{y}"))
}
