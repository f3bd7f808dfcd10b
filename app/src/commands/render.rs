//! `kinora render`

use std::path::Path;

use kinora_pipeline::workflow::{Document, Forecast, MAX_BYTES, Plan, RunReport};

use crate::cli::RenderArgs;
use crate::failure::{Failure, Kind, Outcome};
use crate::output::{say, table};
use crate::progress::human_bytes;
use crate::session::{document_failure, execute, options};

pub(crate) fn run(args: &RenderArgs) -> Outcome {
    let document = read(&args.document, &args.set)?;
    let folder = args.document.parent().unwrap_or(Path::new("."));
    let options = options(folder, args.out.as_deref(), &args.run)?;
    let plan = Plan::build(&document, &options).map_err(document_failure)?;
    if args.dry_run {
        print_plan(&plan);
        return Ok(());
    }
    let report = execute(&plan, args.run.progress)?;
    print_outputs(&report);
    Ok(())
}

/// Reads and checks a document.
pub(crate) fn read(path: &Path, sets: &[String]) -> Result<Document, Failure> {
    let name = path.display().to_string();
    let cannot = |problem: &dyn std::fmt::Display| format!("cannot read the document {name}: {problem}");
    let size = std::fs::metadata(path).map_err(|error| Failure::message(Kind::Io, cannot(&error)))?.len();
    if size > MAX_BYTES as u64 {
        let problem = format!("it has {}, the limit is {}", human_bytes(size), human_bytes(MAX_BYTES as u64));
        return Err(Failure::message(Kind::BadInput, cannot(&problem)));
    }
    let bytes = std::fs::read(path).map_err(|error| Failure::message(Kind::Io, cannot(&error)))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        let problem = "expected a *.kinora.json text, found bytes that are not text; for a photograph use `kinora animate`";
        Failure::message(Kind::BadInput, cannot(&problem))
    })?;
    Document::parse_with(&text, &name, sets).map_err(document_failure)
}

/// The plan as a table with its forecast below.
pub(crate) fn print_plan(plan: &Plan) {
    let mut rows = vec![["node", "op", "state", "expected", "output"].map(str::to_owned).to_vec()];
    for step in plan.steps() {
        let state = match (step.cached, step.needed) {
            (true, _) => "cached",
            (false, true) => "to run",
            (false, false) => "not needed",
        };
        let output = step.output.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let seconds =
            if step.needed && !step.cached { format!("{:.1} s", step.seconds) } else { "-".to_owned() };
        rows.push(vec![step.node.clone(), step.op_name.to_owned(), state.to_owned(), seconds, output]);
    }
    table(&rows);
    let Forecast { seconds, measured, memory, disk, memory_free, disk_free } = *plan.forecast();
    let basis = if measured { "from earlier runs" } else { "a first guess" };
    say(format!(
        "time {seconds:.1} s ({basis}), memory {} of {} free, disk {} of {} free",
        human_bytes(memory),
        human_bytes(memory_free),
        human_bytes(disk),
        human_bytes(disk_free)
    ));
}

/// The files, one a line.
pub(crate) fn print_outputs(report: &RunReport) {
    for written in report.outputs.values() {
        say(written.path.display());
    }
}
