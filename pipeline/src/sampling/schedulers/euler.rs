//! Euler steps in σ (Karras et al., arXiv 2206.00364, algorithm 1 without churn).

use candle_core::Tensor;

use super::sigma_space::SigmaSteps;
use crate::sampling::schedule::{NoiseSchedule, Spacing};
use crate::sampling::scheduler::{Prediction, Scheduler, SchedulerError, StepWeights, at, same_shape, sum};

/// The switches of [`Euler`] and [`super::EulerAncestral`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EulerOptions {
    pub prediction: Prediction,
    pub spacing: Spacing,
    /// Added to every timestep of [`Spacing::Leading`].
    pub steps_offset: usize,
    /// Space σ between the first and the last level as Karras et al. do.
    pub karras: bool,
}

/// The Euler sampler set up for a number of steps.
#[derive(Debug, Clone)]
pub struct Euler(SigmaSteps);

impl Euler {
    /// # Errors
    /// Steps out of range.
    pub fn new(
        schedule: &NoiseSchedule,
        steps: usize,
        options: &EulerOptions,
    ) -> Result<Self, SchedulerError> {
        Ok(Self(SigmaSteps::new("euler", schedule, steps, options)?))
    }

    /// x + (x − x0)·(to − from)/from, with the shares of sample and output gathered.
    fn weights(&self, i: usize) -> Result<StepWeights, SchedulerError> {
        let (by_sample, by_output) = self.0.clean_weights(i)?;
        let (from, to) = (at(self.0.name, &self.0.sigmas, i)?, at(self.0.name, &self.0.sigmas, i + 1)?);
        let (kept, clean) = (to / from, 1.0 - to / from);
        Ok(StepWeights { sample: kept + clean * by_sample, output: clean * by_output, noise: 0.0 })
    }

    /// The noise level before each step, and the final zero.
    pub fn sigmas(&self) -> &[f64] {
        &self.0.sigmas
    }
}

impl Scheduler for Euler {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn timesteps(&self) -> &[f64] {
        &self.0.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        self.0.init_noise_sigma()
    }

    fn scale_model_input(&self, i: usize, sample: &Tensor) -> Result<Tensor, SchedulerError> {
        self.0.scaled(i, sample)
    }

    fn wants_noise(&self, _i: usize) -> bool {
        false
    }

    fn step(
        &mut self,
        i: usize,
        model_output: &Tensor,
        sample: &Tensor,
        _noise: Option<&Tensor>,
    ) -> Result<Tensor, SchedulerError> {
        same_shape(self.0.name, sample, model_output)?;
        let weights = self.weights(i)?;
        Ok(sum(&[(weights.sample, sample), (weights.output, model_output)])?)
    }

    fn step_weights(&self, i: usize) -> Result<Option<StepWeights>, SchedulerError> {
        self.weights(i).map(Some)
    }

    fn clean_estimate(
        &self,
        i: usize,
        model_output: &Tensor,
        sample: &Tensor,
    ) -> Result<Tensor, SchedulerError> {
        self.0.clean(i, model_output, sample)
    }

    fn noised(&self, i: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError> {
        self.0.noised(i, clean, noise)
    }
}
