//! Ancestral Euler: a step goes below the wanted level and fresh noise brings it back up.

use candle_core::Tensor;

use super::euler::EulerOptions;
use super::sigma_space::SigmaSteps;
use crate::sampling::schedule::NoiseSchedule;
use crate::sampling::scheduler::{Scheduler, SchedulerError, at, noise_for, sum};

/// The ancestral Euler sampler (k-diffusion's `euler_ancestral`, η = 1) set up for a number of steps.
#[derive(Debug, Clone)]
pub struct EulerAncestral(SigmaSteps);

impl EulerAncestral {
    /// # Errors
    /// Steps out of range.
    pub fn new(
        schedule: &NoiseSchedule,
        steps: usize,
        options: &EulerOptions,
    ) -> Result<Self, SchedulerError> {
        Ok(Self(SigmaSteps::new("euler_ancestral", schedule, steps, options)?))
    }

    fn levels(&self, i: usize) -> Result<(f64, f64), SchedulerError> {
        Ok((at(self.0.name, &self.0.sigmas, i)?, at(self.0.name, &self.0.sigmas, i + 1)?))
    }
}

impl Scheduler for EulerAncestral {
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

    fn wants_noise(&self, i: usize) -> bool {
        self.levels(i).is_ok_and(|(_, to)| to > 0.0)
    }

    fn step(
        &mut self,
        i: usize,
        model_output: &Tensor,
        sample: &Tensor,
        noise: Option<&Tensor>,
    ) -> Result<Tensor, SchedulerError> {
        let clean = self.0.clean(i, model_output, sample)?;
        let (from, to) = self.levels(i)?;
        let up = (to * to * (from * from - to * to) / (from * from)).max(0.0).sqrt();
        let down = (to * to - up * up).max(0.0).sqrt();
        let moved = sum(&[(down / from, sample), (1.0 - down / from, &clean)])?;
        if to == 0.0 {
            return Ok(moved);
        }
        let noise = noise_for(self.0.name, i, sample, noise)?;
        Ok(sum(&[(1.0, &moved), (up, noise)])?)
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
