//! `kinora verify`

use std::path::Path;

use kinora_pipeline::workflow::{Comparison, RunContext, SystemClock, verify};

use crate::cli::{DeviceChoice, RunArgs, VerifyArgs};
use crate::failure::{Failure, Kind, OrFail as _, Outcome};
use crate::output::say;
use crate::progress::watcher;
use crate::session::{options, run_failure};
use crate::signals::Interrupt;

pub(crate) fn run(args: &VerifyArgs) -> Outcome {
    let folder = args.receipt.parent().unwrap_or(Path::new("."));
    let run = RunArgs { device: DeviceChoice::Auto, resume: false, force: true, progress: None };
    let options = options(folder, None, &run)?;
    let interrupt = Interrupt::install().or_fail(Kind::Io)?;
    let progress = watcher(None, interrupt.token.clone());
    let mut context = RunContext { progress: progress.as_ref(), clock: &SystemClock::default() };
    let result = verify(&args.receipt, &options, &mut context);
    drop(progress);
    let report = result.map_err(|error| run_failure(error, interrupt.exit_code()))?;
    let line = |c: &Comparison| {
        let mark = if c.same() { "same     " } else { "DIFFERENT" };
        let detail =
            if c.same() { c.now.clone() } else { format!("{} in the receipt, {} now", c.receipt, c.now) };
        say(format!("{mark}  {:<12} {detail}", c.what));
    };
    for comparison in [&report.file, &report.pixels, &report.encoded].into_iter().chain(&report.surroundings)
    {
        line(comparison);
    }
    if report.holds() {
        return Ok(());
    }
    Err(Failure::message(Kind::Different, "the output is not what its receipt says"))
}
