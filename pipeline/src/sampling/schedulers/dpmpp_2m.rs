//! DPM-Solver++ (2M): second-order multistep in the log signal-to-noise ratio
//! (Lu et al., arXiv 2211.01095, algorithm 2 with the midpoint rule).

use candle_core::Tensor;

use crate::sampling::schedule::{
    NoiseSchedule, Spacing, interpolate, karras_sigmas, solver_timesteps, timestep_of_sigma,
};
use crate::sampling::scheduler::{
    Level, Prediction, Scheduler, SchedulerError, SchedulerState, at, f32_of, same_shape, sum,
};

const NAME: &str = "dpmpp_2m";
const PREVIOUS: &str = "previous_clean";

/// The switches of [`Dpmpp2m`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dpmpp2mOptions {
    pub prediction: Prediction,
    pub spacing: Spacing,
    /// Added to every timestep of [`Spacing::Leading`].
    pub steps_offset: usize,
    /// Space σ over the whole training range as Karras et al. do.
    pub karras: bool,
}

/// DPM-Solver++ (2M) set up for a number of steps.
#[derive(Debug, Clone)]
pub struct Dpmpp2m {
    timesteps: Vec<f64>,
    /// σ/α before each step, and the final zero.
    sigmas: Vec<f64>,
    prediction: Prediction,
    previous: Option<Tensor>,
}

impl Dpmpp2m {
    /// # Errors
    /// Steps out of range.
    pub fn new(
        schedule: &NoiseSchedule,
        steps: usize,
        options: &Dpmpp2mOptions,
    ) -> Result<Self, SchedulerError> {
        let train = schedule.train_steps();
        let mut times = solver_timesteps(options.spacing, train, steps, options.steps_offset)?;
        let table = schedule.sigmas();
        let mut sigmas: Vec<f64> = times.iter().map(|&t| interpolate(&table, t)).collect();
        if options.karras
            && let (Some(&low), Some(&high)) = (table.first(), table.last())
        {
            sigmas = karras_sigmas(low, high, steps);
            times = sigmas.iter().map(|&sigma| timestep_of_sigma(&table, sigma).round_ties_even()).collect();
        }
        sigmas.push(0.0);
        Ok(Self { timesteps: times, sigmas, prediction: options.prediction, previous: None })
    }

    fn level(&self, i: usize) -> Result<Level, SchedulerError> {
        let ratio = at(NAME, &self.sigmas, i)?;
        let alpha = 1.0 / ratio.hypot(1.0);
        Ok(Level { alpha, sigma: ratio * alpha })
    }

    /// Half the log signal-to-noise ratio before step `i`; infinite at the end.
    fn lambda(&self, i: usize) -> Result<f64, SchedulerError> {
        Ok(-at(NAME, &self.sigmas, i)?.ln())
    }

    fn clean(&self, i: usize, output: &Tensor, sample: &Tensor) -> Result<Tensor, SchedulerError> {
        at(NAME, &self.timesteps, i)?;
        same_shape(NAME, sample, output)?;
        let Level { alpha, sigma } = self.level(i)?;
        Ok(match self.prediction {
            Prediction::Epsilon => sum(&[(1.0 / alpha, sample), (-sigma / alpha, output)])?,
            Prediction::Sample => f32_of(output)?,
            Prediction::Velocity => sum(&[(alpha, sample), (-sigma, output)])?,
        })
    }
}

impl Scheduler for Dpmpp2m {
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
        let clean = self.clean(i, model_output, sample)?;
        let (from, to) = (self.level(i)?, self.level(i + 1)?);
        let h = self.lambda(i + 1)? - self.lambda(i)?;
        let gain = to.alpha * -(-h).exp_m1();
        let keep = to.sigma / from.sigma;
        // The last step lands on σ = 0, where h is infinite and only first order is defined.
        let next = match self.previous.take() {
            Some(previous) if i > 0 && i + 1 < self.timesteps.len() => {
                same_shape(NAME, sample, &previous)?;
                let r = (self.lambda(i)? - self.lambda(i - 1)?) / h;
                let lean = 0.5 / r;
                sum(&[(keep, sample), (gain * (1.0 + lean), &clean), (-gain * lean, &previous)])?
            }
            _ => sum(&[(keep, sample), (gain, &clean)])?,
        };
        self.previous = Some(clean);
        Ok(next)
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
        Ok(self.level(i)?.noised(clean, noise)?)
    }

    fn state(&self) -> SchedulerState {
        self.previous.iter().map(|previous| (PREVIOUS.to_owned(), previous.clone())).collect()
    }

    fn restore(&mut self, next: usize, mut state: SchedulerState) -> Result<(), SchedulerError> {
        self.previous = state.remove(PREVIOUS);
        if next > 0 && self.previous.is_none() {
            return Err(SchedulerError::State { name: NAME, key: PREVIOUS, step: next });
        }
        Ok(())
    }
}
