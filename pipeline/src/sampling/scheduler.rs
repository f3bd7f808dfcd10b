//! The seam between the denoise loop and a sampler, and the arithmetic all samplers share.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use kinora_kernels::weighted_sum;
use serde::{Deserialize, Serialize};

use super::schedule::ScheduleError;

/// Why a sampler refused.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error("{name}: step {step} asked for, this run has steps 0 to {last}")]
    NoSuchStep { name: &'static str, step: usize, last: usize },
    #[error("{name}: step {step} needs noise of the shape of the sample, none was given")]
    NoNoise { name: &'static str, step: usize },
    #[error("{name}: sample {sample:?}, model output {output:?}: the shapes must be equal")]
    Shape { name: &'static str, sample: Vec<usize>, output: Vec<usize> },
    #[error(
        "{name}: the saved state has no {key:?} but step {step} needs it; start the run again from its first step"
    )]
    State { name: &'static str, key: &'static str, step: usize },
    #[error("{name}: {what}")]
    Setting { name: &'static str, what: String },
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// What a network predicts for `x = α·x0 + σ·n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise `n`.
    Epsilon,
    /// The clean sample `x0`.
    Sample,
    /// `v = α·n − σ·x0`; for a rectified flow the velocity `n − x0`.
    #[serde(rename = "v_prediction")]
    Velocity,
}

/// The tensors a sampler carries from one step to the next, by name.
pub type SchedulerState = BTreeMap<String, Tensor>;

/// A step as a weighted sum of the sample, the network's output and fresh noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepWeights {
    /// Of the sample before the step.
    pub sample: f64,
    /// Of the network's output for it.
    pub output: f64,
    /// Of standard normal noise; 0 where the step takes none.
    pub noise: f64,
}

/// A sampler set up for a number of steps. Steps are named by their index into [`Scheduler::timesteps`].
///
/// All tensors of one run have one shape, of any rank; arithmetic is f32 with coefficients in f64.
pub trait Scheduler: Send {
    /// Name in messages and checkpoints.
    fn name(&self) -> &'static str;

    /// The time given to the network at each of its evaluations, noisiest first. A second-order
    /// sampler lists every evaluation, so its list is longer than its number of steps.
    fn timesteps(&self) -> &[f64];

    /// Standard deviation of the sample before the first step.
    fn init_noise_sigma(&self) -> f64;

    /// The sample as the network wants to see it at step `i`.
    ///
    /// # Errors
    /// Unknown step, or a tensor operation that failed.
    fn scale_model_input(&self, i: usize, sample: &Tensor) -> Result<Tensor, SchedulerError>;

    /// Whether [`Scheduler::step`] wants standard normal noise at step `i`.
    fn wants_noise(&self, i: usize) -> bool;

    /// The sample after step `i`, given the network's output for the scaled sample before it.
    ///
    /// # Errors
    /// Unknown step, shapes that differ, noise that is wanted and missing, a tensor operation that failed.
    fn step(
        &mut self,
        i: usize,
        model_output: &Tensor,
        sample: &Tensor,
        noise: Option<&Tensor>,
    ) -> Result<Tensor, SchedulerError>;

    /// Step `i` as a plain sum, which [`Scheduler::step`] then equals: guidance and step can be one pass over
    /// the latents. `None` where the step clamps or remembers.
    ///
    /// # Errors
    /// Unknown step.
    fn step_weights(&self, i: usize) -> Result<Option<StepWeights>, SchedulerError> {
        let _ = i;
        Ok(None)
    }

    /// The clean sample that the network's output at step `i` implies; for previews.
    ///
    /// # Errors
    /// As [`Scheduler::step`].
    fn clean_estimate(
        &self,
        i: usize,
        model_output: &Tensor,
        sample: &Tensor,
    ) -> Result<Tensor, SchedulerError>;

    /// A known clean sample brought to the noise level the sample has before step `i`; with
    /// `i = timesteps().len()` to the level it has at the end.
    ///
    /// # Errors
    /// Unknown step, or a tensor operation that failed.
    fn noised(&self, i: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError>;

    /// What must be kept to go on from the present step in another process.
    fn state(&self) -> SchedulerState {
        SchedulerState::new()
    }

    /// Takes back what [`Scheduler::state`] gave before step `next`.
    ///
    /// # Errors
    /// [`SchedulerError::State`] if a tensor that step needs is missing.
    fn restore(&mut self, next: usize, state: SchedulerState) -> Result<(), SchedulerError> {
        let (_, _) = (next, state);
        Ok(())
    }
}

/// Signal and noise scale of a sample: `x = α·x0 + σ·n`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Level {
    pub(crate) alpha: f64,
    pub(crate) sigma: f64,
}

impl Level {
    /// A variance-preserving level, α² + σ² = 1.
    pub(crate) fn preserving(alpha_cumprod: f64) -> Self {
        Self { alpha: alpha_cumprod.sqrt(), sigma: (1.0 - alpha_cumprod).max(0.0).sqrt() }
    }

    /// A level with the signal at scale one.
    pub(crate) fn exploding(sigma: f64) -> Self {
        Self { alpha: 1.0, sigma }
    }

    /// A rectified-flow level, α + σ = 1.
    pub(crate) fn flow(tau: f64) -> Self {
        Self { alpha: 1.0 - tau, sigma: tau }
    }

    pub(crate) fn noised(self, clean: &Tensor, noise: &Tensor) -> candle_core::Result<Tensor> {
        sum(&[(self.alpha, clean), (self.sigma, noise)])
    }
}

/// `Σ coefficient·tensor` in f32, in one pass.
pub(crate) fn sum(terms: &[(f64, &Tensor)]) -> candle_core::Result<Tensor> {
    Ok(weighted_sum(terms)?)
}

pub(crate) fn f32_of(tensor: &Tensor) -> candle_core::Result<Tensor> {
    tensor.to_dtype(DType::F32)
}

/// Looks up step `i` of a table with one entry a step.
pub(crate) fn at<T: Copy>(name: &'static str, table: &[T], i: usize) -> Result<T, SchedulerError> {
    table.get(i).copied().ok_or(SchedulerError::NoSuchStep {
        name,
        step: i,
        last: table.len().saturating_sub(1),
    })
}

pub(crate) fn same_shape(name: &'static str, sample: &Tensor, output: &Tensor) -> Result<(), SchedulerError> {
    if sample.dims() == output.dims() {
        return Ok(());
    }
    Err(SchedulerError::Shape { name, sample: sample.dims().to_vec(), output: output.dims().to_vec() })
}

pub(crate) fn noise_for<'a>(
    name: &'static str,
    step: usize,
    sample: &Tensor,
    noise: Option<&'a Tensor>,
) -> Result<&'a Tensor, SchedulerError> {
    let noise = noise.ok_or(SchedulerError::NoNoise { name, step })?;
    same_shape(name, sample, noise)?;
    Ok(noise)
}
