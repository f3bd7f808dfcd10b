//! `kinora animate`: the short form, a document made from arguments.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use kinora_pipeline::store::atomic::AtomicFile;
use kinora_pipeline::workflow::{Document, Plan};
use serde_json::json;

use crate::cli::{AnimateArgs, EaseChoice};
use crate::commands::render::print_outputs;
use crate::failure::{Failure, Kind, OrFail as _, Outcome};
use crate::session::{document_failure, execute, options};

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
        "ease": ease, "model": "embedded",
    });
    if let Some(object) = shot.as_object_mut() {
        if let Some(steps) = args.steps {
            object.insert("steps".to_owned(), json!(steps));
        }
        if let Some(size) = args.size {
            object.insert("size".to_owned(), json!(size));
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
    let options = options(&folder, Some(&out), &args.run)?;
    let plan = Plan::build(&document, &options).map_err(document_failure)?;
    print_outputs(&execute(&plan, args.run.progress)?);
    Ok(())
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
