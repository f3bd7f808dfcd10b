//! What every rendering command sets up: device, models, cache, signals, progress.

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use kinora_pipeline::store::assets::asset_roots;
use kinora_pipeline::store::cache::Cache;
use kinora_pipeline::store::model_store::ModelStore;
use kinora_pipeline::workflow::{
    DocumentError, ErrorClass, Plan, RunContext, RunError, RunOptions, RunReport, SystemClock, run,
};

use crate::cli::{DeviceChoice, ProgressStyle, RunArgs};
use crate::engines::Machinery;
use crate::failure::{Failure, Kind, OrFail as _};
use crate::progress::watcher;
use crate::signals::Interrupt;

/// Options for documents in `folder`.
pub(crate) fn options(folder: &Path, out: Option<&Path>, args: &RunArgs) -> Result<RunOptions, Failure> {
    options_with(folder, out, args, Machinery::new(device(args.device)?, &ModelStore::default_root())?)
}

/// Options for documents in `folder` with these models.
pub(crate) fn options_with(
    folder: &Path,
    out: Option<&Path>,
    args: &RunArgs,
    machinery: Machinery,
) -> Result<RunOptions, Failure> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    Ok(RunOptions {
        folder: folder.to_path_buf(),
        out: out.map(Path::to_path_buf),
        assets: asset_roots(Some(folder)),
        force: args.force,
        resume: args.resume,
        targets: None,
        engines: Arc::new(machinery),
        cache: Cache::open(&Cache::usual_folder()).or_fail(Kind::Io)?,
    })
}

/// The device asked for; a card only where this build and the machine have one.
pub(crate) fn device(choice: DeviceChoice) -> Result<Device, Failure> {
    match choice {
        DeviceChoice::Auto | DeviceChoice::Cpu => Ok(Device::Cpu),
        #[cfg(feature = "cuda")]
        DeviceChoice::Cuda(ordinal) => kinora_kernels::open_cuda(ordinal)
            .map_err(|error| Failure::message(Kind::Unavailable, format!("cuda:{ordinal}: {error}"))),
        #[cfg(not(feature = "cuda"))]
        DeviceChoice::Cuda(ordinal) => Err(Failure::message(
            Kind::Unavailable,
            format!("cuda:{ordinal}: this Kinora was built for the CPU only; use --device cpu"),
        )),
    }
}

/// Where what is computed on a device lies, without opening the device.
#[cfg(feature = "gui")]
pub(crate) fn location(choice: DeviceChoice) -> candle_core::DeviceLocation {
    match choice {
        DeviceChoice::Auto | DeviceChoice::Cpu => candle_core::DeviceLocation::Cpu,
        DeviceChoice::Cuda(gpu_id) => candle_core::DeviceLocation::Cuda { gpu_id },
    }
}

/// The names of the CUDA cards in the order of their numbers; none where this build or the machine has none.
#[cfg(all(feature = "gui", feature = "cuda"))]
pub(crate) fn cards() -> Vec<String> {
    kinora_kernels::cuda_cards()
}

/// No cards: this build is for the processor only.
#[cfg(all(feature = "gui", not(feature = "cuda")))]
pub(crate) fn cards() -> Vec<String> {
    Vec::new()
}

/// Gives the memory of dropped tensors back to the device, for other programs to use.
#[cfg(feature = "gui")]
pub(crate) fn free_memory(device: &Device) {
    #[cfg(feature = "cuda")]
    if let Err(error) = kinora_kernels::release_cuda_memory(device) {
        tracing::warn!(%error, "the card keeps memory that nothing uses");
    }
    // The processor's memory goes back by itself.
    #[cfg(not(feature = "cuda"))]
    let _ = device;
}

/// Runs a plan under progress and signals.
pub(crate) fn execute(plan: &Plan, style: Option<ProgressStyle>) -> Result<RunReport, Failure> {
    let interrupt = Interrupt::install().or_fail(Kind::Io)?;
    let progress = watcher(style, interrupt.token.clone());
    let mut context = RunContext { progress: progress.as_ref(), clock: &SystemClock::default() };
    let result = run(plan, &mut context);
    drop(progress);
    result.map_err(|error| run_failure(error, interrupt.exit_code()))
}

/// A refused document, pointed into.
pub(crate) fn document_failure(error: DocumentError) -> Failure {
    Failure::diagnostic(kind(error.class(), 130), error)
}

/// A failed run.
pub(crate) fn run_failure(error: RunError, interrupted: u8) -> Failure {
    match error {
        RunError::Document(error) => document_failure(error),
        error => Failure::new(kind(error.class(), interrupted), error),
    }
}

/// The exit code of a class of errors; `interrupted` is that of a stopped job.
pub(crate) fn kind(class: ErrorClass, interrupted: u8) -> Kind {
    match class {
        ErrorClass::BadInput => Kind::BadInput,
        ErrorClass::Unavailable => Kind::Unavailable,
        ErrorClass::Bug => Kind::Bug,
        ErrorClass::Io => Kind::Io,
        ErrorClass::Temporary => Kind::Temporary,
        ErrorClass::Interrupted => Kind::Interrupted(interrupted),
    }
}
