//! Multistep consistency sampling of a latent consistency model (Luo et al., arXiv 2310.04378, algorithm 3).

use candle_core::Tensor;

use crate::sampling::schedule::{NoiseSchedule, ScheduleError};
use crate::sampling::scheduler::{
    Level, Prediction, Scheduler, SchedulerError, at, f32_of, noise_for, same_shape, sum,
};

const NAME: &str = "lcm";
const SIGMA_DATA: f64 = 0.5;

/// The switches of [`Lcm`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LcmOptions {
    pub prediction: Prediction,
    /// Steps of the teacher the model was distilled with.
    pub original_steps: usize,
    /// Factor on the time in the boundary condition.
    pub timestep_scaling: f64,
}

impl Default for LcmOptions {
    fn default() -> Self {
        Self { prediction: Prediction::Epsilon, original_steps: 50, timestep_scaling: 10.0 }
    }
}

/// The consistency sampler set up for a number of steps.
#[derive(Debug, Clone)]
pub struct Lcm {
    timesteps: Vec<f64>,
    alphas_cumprod: Vec<f64>,
    options: LcmOptions,
}

impl Lcm {
    /// # Errors
    /// More steps than the teacher had, or ε prediction where the schedule has no signal.
    pub fn new(schedule: &NoiseSchedule, steps: usize, options: &LcmOptions) -> Result<Self, SchedulerError> {
        let (train, original) = (schedule.train_steps(), options.original_steps);
        if original == 0 || original > train || steps == 0 || steps > original {
            return Err(ScheduleError::Steps { steps, most: original.min(train) }.into());
        }
        let stride = train / original;
        let teacher = |index: usize| (original - index) * stride - 1;
        let visited: Vec<usize> = (0..steps).map(|i| teacher(i * original / steps)).collect();
        let alphas_cumprod: Vec<f64> = visited.iter().map(|&t| schedule.alpha_cumprod(t)).collect();
        let timesteps: Vec<f64> = visited.iter().map(|&t| t as f64).collect();
        if let (Prediction::Epsilon, Some(&0.0), Some(&timestep)) =
            (options.prediction, alphas_cumprod.first(), timesteps.first())
        {
            return Err(ScheduleError::NoSignal { timestep }.into());
        }
        Ok(Self { timesteps, alphas_cumprod, options: *options })
    }

    fn clean(&self, i: usize, output: &Tensor, sample: &Tensor) -> Result<Tensor, SchedulerError> {
        same_shape(NAME, sample, output)?;
        let Level { alpha, sigma } = Level::preserving(at(NAME, &self.alphas_cumprod, i)?);
        let predicted = match self.options.prediction {
            Prediction::Epsilon => sum(&[(1.0 / alpha, sample), (-sigma / alpha, output)])?,
            Prediction::Sample => f32_of(output)?,
            Prediction::Velocity => sum(&[(alpha, sample), (-sigma, output)])?,
        };
        let time = at(NAME, &self.timesteps, i)? * self.options.timestep_scaling;
        let norm = time * time + SIGMA_DATA * SIGMA_DATA;
        Ok(sum(&[(time / norm.sqrt(), &predicted), (SIGMA_DATA * SIGMA_DATA / norm, sample)])?)
    }
}

impl Scheduler for Lcm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn scale_model_input(&self, _i: usize, sample: &Tensor) -> Result<Tensor, SchedulerError> {
        Ok(sample.clone())
    }

    fn wants_noise(&self, i: usize) -> bool {
        i + 1 < self.timesteps.len()
    }

    fn step(
        &mut self,
        i: usize,
        model_output: &Tensor,
        sample: &Tensor,
        noise: Option<&Tensor>,
    ) -> Result<Tensor, SchedulerError> {
        let clean = self.clean(i, model_output, sample)?;
        if !self.wants_noise(i) {
            return Ok(clean);
        }
        let noise = noise_for(NAME, i, sample, noise)?;
        self.noised(i + 1, &clean, noise)
    }

    fn clean_estimate(
        &self,
        i: usize,
        model_output: &Tensor,
        sample: &Tensor,
    ) -> Result<Tensor, SchedulerError> {
        self.clean(i, model_output, sample)
    }

    fn noised(&self, i: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError> {
        let level = if i == self.timesteps.len() { 1.0 } else { at(NAME, &self.alphas_cumprod, i)? };
        Ok(Level::preserving(level).noised(clean, noise)?)
    }
}
