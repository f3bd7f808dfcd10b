//! The loop from noise to latents, with events, previews, cancel and checkpoints.

use std::path::PathBuf;
use std::time::Instant;

use candle_core::Tensor;

use super::checkpoint::{Checkpoint, CheckpointError, RunIdentity};
use super::noise::{STEP_STREAM, normal};
use super::scheduler::{Scheduler, SchedulerError, StepWeights, sum};
use crate::progress::{Event, Progress};

/// Name of this loop's [`Event::Step`]s.
pub const STAGE: &str = "denoise";

/// Why the loop ended early.
#[derive(Debug, thiserror::Error)]
pub enum DenoiseError {
    /// The user asked to stop; the checkpoint, if any, continues from here.
    #[error("cancelled after {done} of {total} denoise steps")]
    Cancelled { done: usize, total: usize, checkpoint: Option<PathBuf> },
    /// The network failed.
    #[error("the network failed at denoise step {step}: {source}")]
    Network { step: usize, source: candle_core::Error },
    /// A hook that changes the sample failed.
    #[error("pinning failed at denoise step {step}: {source}")]
    Pin { step: usize, source: candle_core::Error },
    /// The latents are no longer numbers; nothing after this step would be.
    #[error(
        "the latents contain NaN or infinity after denoise step {step}; the weights or their precision are at fault"
    )]
    NotFinite { step: usize },
    #[error("start {start} is beyond the {total} denoise steps")]
    Start { start: usize, total: usize },
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// A network as the loop sees it: guidance and conditions are its own business.
pub trait Denoiser {
    /// The network's (guided) output for the scaled `sample` at `timestep`, of the shape of `sample`.
    ///
    /// # Errors
    /// Whatever the network reports.
    fn predict(&mut self, sample: &Tensor, timestep: f64) -> candle_core::Result<Tensor>;

    /// [`Self::predict`] as a weighted sum that is not added up yet, so that the sampler's step can be in the
    /// same pass; at most four terms.
    ///
    /// # Errors
    /// Whatever the network reports.
    fn predict_terms(&mut self, sample: &Tensor, timestep: f64) -> candle_core::Result<Vec<(f64, Tensor)>> {
        Ok(vec![(1.0, self.predict(sample, timestep)?)])
    }
}

/// A network that gives the terms of its output.
#[derive(Debug)]
pub struct Terms<F>(pub F);

impl<F: FnMut(&Tensor, f64) -> candle_core::Result<Vec<(f64, Tensor)>>> Denoiser for Terms<F> {
    fn predict(&mut self, sample: &Tensor, timestep: f64) -> candle_core::Result<Tensor> {
        added(&(self.0)(sample, timestep)?)
    }

    fn predict_terms(&mut self, sample: &Tensor, timestep: f64) -> candle_core::Result<Vec<(f64, Tensor)>> {
        (self.0)(sample, timestep)
    }
}

/// The output itself where it is the only term.
fn added(terms: &[(f64, Tensor)]) -> candle_core::Result<Tensor> {
    match terms {
        [(1.0, only)] => Ok(only.clone()),
        _ => sum(&terms.iter().map(|(weight, x)| (*weight, x)).collect::<Vec<_>>()),
    }
}

impl<F: FnMut(&Tensor, f64) -> candle_core::Result<Tensor>> Denoiser for F {
    fn predict(&mut self, sample: &Tensor, timestep: f64) -> candle_core::Result<Tensor> {
        self(sample, timestep)
    }
}

/// Where and how often the run is saved.
#[derive(Debug, Clone)]
pub struct CheckpointPolicy {
    pub path: PathBuf,
    /// Save after every so many evaluations, 0 for only at cancel and at the end.
    pub every: usize,
    /// Go on from the file at `path` if it belongs to this run; otherwise an existing one is replaced.
    pub resume: bool,
}

/// What a run is, apart from its tensors.
#[derive(Debug, Clone)]
pub struct DenoiseSpec {
    /// Seed of the noise that samplers add between steps.
    pub seed: u64,
    /// Hash over everything that decides the result; checkpoints of another hash are refused.
    pub job: String,
    /// First evaluation, 0 except when starting from a picture instead of noise.
    pub start: usize,
    pub checkpoint: Option<CheckpointPolicy>,
}

/// What is known after a step.
#[derive(Debug)]
pub struct StepReport<'a> {
    /// Evaluations finished, counted over the whole run also after a resume.
    pub done: usize,
    pub total: usize,
    pub timestep: f64,
    /// The sample after the step.
    pub latents: &'a Tensor,
    /// The clean sample the network now expects; for previews.
    pub clean: &'a Tensor,
    /// Seconds since this call of [`run`] began.
    pub elapsed: f64,
    /// Expected seconds until the loop ends, from the mean of this call's steps.
    pub remaining: f64,
}

/// A callback that sees each step.
pub type StepHook<'a> = dyn FnMut(&StepReport<'_>) + 'a;

/// Changes the sample after a step: it is given the sampler, the index of the next step and the sample.
pub type PinHook<'a> = dyn FnMut(&dyn Scheduler, usize, &Tensor) -> candle_core::Result<Tensor> + 'a;

/// The caller's side of a run.
pub struct Hooks<'a> {
    pub progress: &'a dyn Progress,
    /// Name of the document node in events.
    pub node: &'a str,
    /// Called after every step. The clean estimate is computed only if this is set.
    pub step: Option<&'a mut StepHook<'a>>,
    /// Called after every step, before it is reported and saved.
    pub pin: Option<&'a mut PinHook<'a>>,
}

impl std::fmt::Debug for Hooks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks")
            .field("node", &self.node)
            .field("step", &self.step.is_some())
            .field("pin", &self.pin.is_some())
            .finish_non_exhaustive()
    }
}

impl<'a> Hooks<'a> {
    /// Hooks that only report to `progress`.
    pub fn new(progress: &'a dyn Progress, node: &'a str) -> Self {
        Self { progress, node, step: None, pin: None }
    }
}

/// A finished run.
#[derive(Debug)]
pub struct DenoiseOutcome {
    /// The clean latents, f32.
    pub latents: Tensor,
    /// The step a checkpoint let this call begin with, if one was used.
    pub resumed_from: Option<usize>,
}

/// Runs the sampler from `latents` (already at its initial level, see [`Scheduler::init_noise_sigma`]) to the end.
///
/// Noise of step `i` is stream `STEP_STREAM + i` of the seed, so a resumed run is the uninterrupted one
/// to the bit on the same device. The last checkpoint stays until the caller, having saved its
/// result, removes it.
///
/// # Errors
/// [`DenoiseError::Cancelled`] when asked to stop, after saving a checkpoint if a policy is set; otherwise
/// the failure of the network, the sampler, a hook or the disk.
pub fn run(
    spec: &DenoiseSpec,
    denoiser: &mut dyn Denoiser,
    scheduler: &mut dyn Scheduler,
    latents: &Tensor,
    hooks: &mut Hooks<'_>,
) -> Result<DenoiseOutcome, DenoiseError> {
    let times = scheduler.timesteps().to_vec();
    let total = times.len();
    if spec.start > total {
        return Err(DenoiseError::Start { start: spec.start, total });
    }
    let identity = RunIdentity { job: spec.job.clone(), scheduler: scheduler.name().to_owned(), total };
    let resumed = resume(spec, &identity, scheduler, latents, hooks)?;
    let resumed_from = resumed.as_ref().map(|(done, _)| *done);
    let (first, mut sample) = match resumed {
        Some((done, saved)) => (done, saved),
        None => (spec.start, latents.to_dtype(candle_core::DType::F32).map_err(SchedulerError::from)?),
    };
    let began = Instant::now();
    for (i, &timestep) in times.iter().enumerate().skip(first) {
        if hooks.progress.cancelled() {
            // What was there before the first step is worth nothing, a resumed run has its file already.
            let saved =
                (i > first).then(|| save(spec, &identity, i, &sample, scheduler)).transpose()?.flatten();
            let kept = saved
                .or_else(|| resumed_from.and(spec.checkpoint.as_ref().map(|policy| policy.path.clone())));
            return Err(DenoiseError::Cancelled { done: i, total, checkpoint: kept });
        }
        let input = scheduler.scale_model_input(i, &sample)?;
        let terms = denoiser
            .predict_terms(&input, timestep)
            .map_err(|source| DenoiseError::Network { step: i, source })?;
        let noise = step_noise(spec.seed, i, scheduler, &sample).map_err(SchedulerError::from)?;
        let weights = scheduler.step_weights(i)?;
        let output = || added(&terms).map_err(SchedulerError::from);
        let clean = match hooks.step {
            Some(_) => Some(scheduler.clean_estimate(i, &output()?, &sample)?),
            None => None,
        };
        // Whether someone watches is no part of this, so that a preview does not change the result.
        sample = match weights {
            Some(weights) => guided_step(weights, &terms, &sample, noise.as_ref())?,
            None => scheduler.step(i, &output()?, &sample, noise.as_ref())?,
        };
        if let Some(pin) = hooks.pin.as_mut() {
            sample =
                pin(scheduler, i + 1, &sample).map_err(|source| DenoiseError::Pin { step: i, source })?;
        }
        if !is_finite(&sample).map_err(SchedulerError::from)? {
            return Err(DenoiseError::NotFinite { step: i });
        }
        let done = i + 1;
        if let Some(policy) = &spec.checkpoint
            && (done == total || (policy.every > 0 && done % policy.every == 0))
        {
            save(spec, &identity, done, &sample, scheduler)?;
        }
        hooks.progress.event(Event::Step { node: hooks.node.to_owned(), stage: STAGE, done, total });
        if let (Some(step), Some(clean)) = (hooks.step.as_mut(), &clean) {
            let elapsed = began.elapsed().as_secs_f64();
            let remaining = elapsed / (done - first) as f64 * (total - done) as f64;
            step(&StepReport { done, total, timestep, latents: &sample, clean, elapsed, remaining });
        }
    }
    Ok(DenoiseOutcome { latents: sample, resumed_from })
}

/// Guidance and step in one pass over the latents.
fn guided_step(
    weights: StepWeights,
    terms: &[(f64, Tensor)],
    sample: &Tensor,
    noise: Option<&Tensor>,
) -> Result<Tensor, SchedulerError> {
    let mut all = vec![(weights.sample, sample)];
    all.extend(terms.iter().map(|(weight, x)| (weights.output * weight, x)));
    all.extend(noise.map(|noise| (weights.noise, noise)));
    Ok(sum(&all)?)
}

fn resume(
    spec: &DenoiseSpec,
    identity: &RunIdentity,
    scheduler: &mut dyn Scheduler,
    latents: &Tensor,
    hooks: &Hooks<'_>,
) -> Result<Option<(usize, Tensor)>, DenoiseError> {
    let Some(policy) = spec.checkpoint.as_ref().filter(|policy| policy.resume) else { return Ok(None) };
    let usable = Checkpoint::load(&policy.path, identity).and_then(|checkpoint| match checkpoint {
        Some(checkpoint) if checkpoint.latents.dims() != latents.dims() => Err(CheckpointError::Damaged {
            path: policy.path.clone(),
            what: format!("its latents are {:?}, expected {:?}", checkpoint.latents.dims(), latents.dims()),
        }),
        other => Ok(other),
    });
    let checkpoint = match usable {
        Ok(Some(checkpoint)) => checkpoint,
        Ok(None) => return Ok(None),
        Err(error @ CheckpointError::Damaged { .. }) => {
            let message = format!("{error}; starting from the first step");
            hooks.progress.event(Event::Notice { node: hooks.node.to_owned(), message });
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let device = latents.device();
    let on_device = |tensor: &Tensor| tensor.to_device(device).map_err(SchedulerError::from);
    let mut state = super::scheduler::SchedulerState::new();
    for (name, tensor) in &checkpoint.state {
        state.insert(name.clone(), on_device(tensor)?);
    }
    if checkpoint.done < identity.total {
        scheduler.restore(checkpoint.done, state)?;
    }
    Ok(Some((checkpoint.done, on_device(&checkpoint.latents)?)))
}

fn save(
    spec: &DenoiseSpec,
    identity: &RunIdentity,
    done: usize,
    latents: &Tensor,
    scheduler: &dyn Scheduler,
) -> Result<Option<PathBuf>, DenoiseError> {
    let Some(policy) = &spec.checkpoint else { return Ok(None) };
    let checkpoint =
        Checkpoint { identity: identity.clone(), done, latents: latents.clone(), state: scheduler.state() };
    checkpoint.save(&policy.path)?;
    Ok(Some(policy.path.clone()))
}

fn step_noise(
    seed: u64,
    i: usize,
    scheduler: &dyn Scheduler,
    sample: &Tensor,
) -> candle_core::Result<Option<Tensor>> {
    if !scheduler.wants_noise(i) {
        return Ok(None);
    }
    normal(seed, STEP_STREAM + i as u64, sample.dims())?.to_device(sample.device()).map(Some)
}

fn is_finite(sample: &Tensor) -> candle_core::Result<bool> {
    // 0·x is 0 for numbers and NaN for infinity and NaN; one scalar leaves the device.
    let spread = (sample * 0.0)?.sum_all()?.to_scalar::<f32>()?;
    Ok(spread == 0.0)
}
