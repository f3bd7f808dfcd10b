//! `kinora eval follow-your-click`

use std::path::{Path, PathBuf};

use kinora_pipeline::media::{ImageLimits, Picture, read_picture};
use kinora_pipeline::store::assets::asset_roots;
use kinora_pipeline::store::atomic::AtomicFile;
use kinora_pipeline::store::model_source::ModelSource as _;
use kinora_pipeline::store::model_store::ModelStore;
use kinora_pipeline::systems::follow_your_click::AnimateError;
use kinora_pipeline::systems::follow_your_click::eval::{
    CaseResult, EvalError, EvalOptions, KeptCases, Prompts, Report, evaluate,
};

use crate::cli::{DeviceChoice, EvalCommand};
use crate::embedded::KINORA_MINI;
use crate::engines::Machinery;
use crate::failure::{Failure, Kind, OrFail as _, Outcome};
use crate::output::{say, table};
use crate::progress::watcher;
use crate::session::device;
use crate::signals::Interrupt;

/// Where the bundled held-out photographs lie below an asset root.
const HELD_OUT: &str = "samples/held-out";

pub(crate) fn run(command: &EvalCommand) -> Outcome {
    let EvalCommand::FollowYourClick(args) = command;
    let folder = match &args.photos {
        Some(folder) => folder.clone(),
        None => bundled()?,
    };
    let photos = load(&folder)?;
    // Opened before the long work: a place that cannot be written is no news to have after it.
    let json = args.json.as_deref().map(AtomicFile::create).transpose().or_fail(Kind::Io)?;
    let machinery = Machinery::new(device(DeviceChoice::Auto)?, &ModelStore::default_root())?;
    let model = machinery.embedded().or_fail(Kind::Unavailable)?;
    let prompts = KINORA_MINI.read("prompts.json").or_fail(Kind::Unavailable)?;
    let prompts: Prompts = serde_json::from_slice(&prompts).or_fail(Kind::Unavailable)?;

    let interrupt = Interrupt::install().or_fail(Kind::Io)?;
    let progress = watcher(None, interrupt.token.clone());
    let options = EvalOptions {
        photos: &photos,
        prompts: &prompts,
        cases: args.cases,
        steps: args.steps.map(|s| s as usize),
    };
    let (mut kept, done) = match &args.json {
        Some(json) => {
            let path = cases_beside(json);
            let kept = KeptCases::open(&path, &options.identity(&model), args.resume);
            let (kept, done) = kept.map_err(|error| {
                Failure::message(Kind::Io, format!("cannot keep cases in {}: {error}", path.display()))
            })?;
            (Some(kept), done)
        }
        None => (None, Vec::new()),
    };
    let mut keep = |case: &CaseResult| kept.as_mut().map_or(Ok(()), |kept| kept.keep(case));
    let result = evaluate(&model, &options, done, &mut keep, progress.as_ref());
    drop(progress);
    let report = result.map_err(|error| match error {
        EvalError::Animate(AnimateError::Cancelled) => Failure::message(
            Kind::Interrupted(interrupt.exit_code()),
            match &args.json {
                Some(json) => format!("interrupted; `--json {} --resume` goes on", json.display()),
                None => "interrupted; with --json the cases would have been kept".to_owned(),
            },
        ),
        EvalError::Keep(_) => Failure::new(Kind::Io, error),
        other => Failure::new(Kind::BadInput, other),
    })?;
    print(&report);
    save(&report, json)?;
    kept.map_or(Ok(()), KeptCases::remove).or_fail(Kind::Io)
}

/// Where the cases of a report are kept until it is whole.
fn cases_beside(json: &Path) -> PathBuf {
    let mut name = json.as_os_str().to_owned();
    name.push(".cases");
    name.into()
}

fn bundled() -> Result<PathBuf, Failure> {
    asset_roots(None).into_iter().map(|root| root.join(HELD_OUT)).find(|path| path.is_dir()).ok_or_else(
        || {
            Failure::message(
                Kind::Unavailable,
                "the bundled photographs are not here; name a folder with --photos",
            )
        },
    )
}

fn load(folder: &Path) -> Result<Vec<(String, Picture)>, Failure> {
    let entries = std::fs::read_dir(folder).map_err(|error| {
        Failure::message(Kind::Io, format!("cannot read the folder {}: {error}", folder.display()))
    })?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let is_picture = |path: &PathBuf| {
        path.extension()
            .is_some_and(|e| ["jpg", "jpeg", "png", "webp"].iter().any(|known| e.eq_ignore_ascii_case(known)))
    };
    paths
        .into_iter()
        .filter(is_picture)
        .map(|path| {
            let picture = read_picture(&path, &ImageLimits::default()).or_fail(Kind::BadInput)?;
            Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), picture))
        })
        .collect()
}

fn print(report: &Report) {
    let mut rows = vec![
        ["kind", "cases", "right", "factor", "inside gain", "uncovered gain"].map(str::to_owned).to_vec(),
    ];
    let number = |v: Option<f64>, digits: usize| v.map(|v| format!("{v:.digits$}")).unwrap_or_default();
    for (kind, s) in &report.by_kind {
        rows.push(vec![
            kind.clone(),
            s.cases.to_string(),
            format!("{:.0} %", 100.0 * s.direction_right),
            number(s.factor_mean, 2),
            number(s.inside_gain_db, 2),
            number(s.uncovered_gain_db, 2),
        ]);
    }
    table(&rows);
    say("");
    let mut rows = vec![["bar", "measured", "required", ""].map(str::to_owned).to_vec()];
    for bar in &report.bars {
        let held = if bar.held { "held" } else { "MISSED" };
        rows.push(vec![
            bar.name.clone(),
            format!("{:.3}", bar.measured),
            bar.required.clone(),
            held.to_owned(),
        ]);
    }
    table(&rows);
}

fn save(report: &Report, json: Option<AtomicFile>) -> Outcome {
    let Some(mut file) = json else { return Ok(()) };
    let text = serde_json::to_string_pretty(report).or_fail(Kind::Bug)?;
    std::io::Write::write_all(file.file_mut(), format!("{text}\n").as_bytes()).or_fail(Kind::Io)?;
    file.commit(true).or_fail(Kind::Io)
}
