//! `kinora validate`

use std::path::Path;

use kinora_pipeline::workflow::Plan;

use crate::cli::{DeviceChoice, RunArgs, ValidateArgs};
use crate::commands::render::{print_plan, read};
use crate::failure::{Kind, OrFail as _, Outcome};
use crate::output::say;
use crate::session::{document_failure, options};

pub(crate) fn run(args: &ValidateArgs) -> Outcome {
    let document = read(&args.document, &[])?;
    let folder = args.document.parent().unwrap_or(Path::new("."));
    // Outputs that exist are no fault of a document.
    let run = RunArgs { device: DeviceChoice::Auto, resume: false, force: true, progress: None };
    let plan = Plan::build(&document, &options(folder, None, &run)?).map_err(document_failure)?;
    if args.json {
        let value = serde_json::json!({ "steps": plan.steps(), "forecast": plan.forecast() });
        say(serde_json::to_string_pretty(&value).or_fail(Kind::Bug)?);
    } else {
        print_plan(&plan);
    }
    Ok(())
}
