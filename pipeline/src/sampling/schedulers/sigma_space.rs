//! What the samplers share that keep the signal at scale one and count noise in σ.

use candle_core::Tensor;

use crate::sampling::schedule::Spacing;
use crate::sampling::schedule::{NoiseSchedule, interpolate, karras_sigmas, timestep_of_sigma, timesteps};
use crate::sampling::scheduler::{Level, Prediction, SchedulerError, at, same_shape, sum};

use super::euler::EulerOptions;

/// Times and noise levels of a run: one σ a step and the final zero.
#[derive(Debug, Clone)]
pub(crate) struct SigmaSteps {
    pub(crate) name: &'static str,
    pub(crate) timesteps: Vec<f64>,
    pub(crate) sigmas: Vec<f64>,
    prediction: Prediction,
    spacing: Spacing,
}

impl SigmaSteps {
    pub(crate) fn new(
        name: &'static str,
        schedule: &NoiseSchedule,
        steps: usize,
        options: &EulerOptions,
    ) -> Result<Self, SchedulerError> {
        let mut times = timesteps(options.spacing, schedule.train_steps(), steps, options.steps_offset)?;
        let table = schedule.sigmas();
        let mut sigmas: Vec<f64> = times.iter().map(|&t| interpolate(&table, t)).collect();
        if options.karras
            && let (Some(&high), Some(&low)) = (sigmas.first(), sigmas.last())
        {
            sigmas = karras_sigmas(low, high, steps);
            times = sigmas.iter().map(|&sigma| timestep_of_sigma(&table, sigma)).collect();
        }
        sigmas.push(0.0);
        Ok(Self { name, timesteps: times, sigmas, prediction: options.prediction, spacing: options.spacing })
    }

    pub(crate) fn init_noise_sigma(&self) -> f64 {
        let most = self.sigmas.iter().copied().fold(0.0, f64::max);
        match self.spacing {
            Spacing::Linspace | Spacing::Trailing => most,
            // Leading spacing starts below the last training step, where there is signal left.
            Spacing::Leading => most.hypot(1.0),
        }
    }

    pub(crate) fn scaled(&self, i: usize, sample: &Tensor) -> Result<Tensor, SchedulerError> {
        self.exists(i)?;
        let sigma = at(self.name, &self.sigmas, i)?;
        Ok(sum(&[(1.0 / sigma.hypot(1.0), sample)])?)
    }

    /// The clean sample implied by the output of the network, which saw `sample / √(σ²+1)`.
    pub(crate) fn clean(&self, i: usize, output: &Tensor, sample: &Tensor) -> Result<Tensor, SchedulerError> {
        same_shape(self.name, sample, output)?;
        let (by_sample, by_output) = self.clean_weights(i)?;
        Ok(sum(&[(by_sample, sample), (by_output, output)])?)
    }

    /// What sample and output weigh in the clean sample.
    pub(crate) fn clean_weights(&self, i: usize) -> Result<(f64, f64), SchedulerError> {
        self.exists(i)?;
        let sigma = at(self.name, &self.sigmas, i)?;
        let norm = sigma.hypot(1.0);
        Ok(match self.prediction {
            Prediction::Epsilon => (1.0, -sigma),
            Prediction::Sample => (0.0, 1.0),
            Prediction::Velocity => (1.0 / (norm * norm), -sigma / norm),
        })
    }

    pub(crate) fn noised(&self, i: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError> {
        Ok(Level::exploding(at(self.name, &self.sigmas, i)?).noised(clean, noise)?)
    }

    fn exists(&self, i: usize) -> Result<(), SchedulerError> {
        at(self.name, &self.timesteps, i).map(|_| ())
    }
}
