//! What a plan will need, and what of it there is not.

use std::path::Path;

use super::PlanStep;
use crate::media::{ImageLimits, VideoLimits, VideoReader, stated_size};
use crate::store::cache::Cache;
use crate::store::disk::free_bytes;
use crate::workflow::error::{FieldPath, Finding, ProblemKind};
use crate::workflow::forecast::{Costs, Forecast, Shape, memory_now};

/// The size of a picture or clip without decoding it; the usual one when that does not work, the
/// real error comes when it is read.
pub(super) fn probe(path: &Path) -> Shape {
    match stated_size(path, &ImageLimits::default()) {
        Ok(Some((width, height))) => Shape { width: width.into(), height: height.into(), frames: 1, rate: 0 },
        _ => probe_clip(path).unwrap_or(Shape { frames: 250, ..Shape::USUAL }),
    }
}

/// What the header of a clip says; none where it does not say how long the clip is.
fn probe_clip(path: &Path) -> Option<Shape> {
    let reader = VideoReader::open(path, &VideoLimits::default()).ok()?;
    let info = reader.info();
    let (rate, base) = info.fps?;
    let fps = f64::from(rate) / f64::from(base.max(1));
    let frames = info.frames.or_else(|| info.seconds.map(|seconds| (seconds * fps).ceil() as u64))?;
    let shape =
        Shape { width: info.width.into(), height: info.height.into(), frames: frames.max(1), rate: 0 };
    Some(shape.at_rate(fps))
}

/// What the steps that run will need together.
pub(super) fn forecast(steps: &[PlanStep], costs: &Costs, cache: &Cache) -> Forecast {
    let running = || steps.iter().filter(|step| step.needed && !step.cached);
    let (memory_free, _) = memory_now();
    Forecast {
        seconds: running().map(|step| step.seconds).sum(),
        measured: running().all(|step| costs.seconds(step.op_name, &step.work).1),
        memory: running().map(|step| step.work.memory).max().unwrap_or_default(),
        disk: running().map(|step| step.work.disk).sum(),
        memory_free,
        disk_free: free_bytes(cache.root()).unwrap_or(u64::MAX),
    }
}

/// Refuses only what cannot work: more disk than is free, more memory than the machine has.
pub(super) fn too_much(forecast: &Forecast) -> Vec<Finding> {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let mut findings = vec![];
    if forecast.disk > forecast.disk_free {
        findings.push(
            Finding::new(
                ProblemKind::Resources,
                FieldPath::default(),
                format!("{} MiB of free disk for frames", mib(forecast.disk)),
                format!("{} MiB free", mib(forecast.disk_free)),
            )
            .help("free some disk, set KINORA_CACHE to a folder on a larger one, or render fewer or smaller frames"),
        );
    }
    let (_, all) = memory_now();
    if all > 0 && forecast.memory > all {
        findings.push(
            Finding::new(
                ProblemKind::Resources,
                FieldPath::default(),
                format!("{} MiB of memory", mib(forecast.memory)),
                format!("a machine with {} MiB", mib(all)),
            )
            .help("set a smaller \"size\", or for a public checkpoint a smaller \"working_size\" or fewer frames"),
        );
    }
    findings
}
