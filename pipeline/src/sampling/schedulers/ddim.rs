//! DDIM (Song, Meng, Ermon, arXiv 2010.02502, equations 12 and 16).

use candle_core::Tensor;

use crate::sampling::schedule::{NoiseSchedule, ScheduleError, Spacing, timesteps};
use crate::sampling::scheduler::{
    Level, Prediction, Scheduler, SchedulerError, StepWeights, at, noise_for, same_shape, sum,
};

const NAME: &str = "ddim";

/// The switches of [`Ddim`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DdimOptions {
    pub prediction: Prediction,
    pub spacing: Spacing,
    /// Added to every timestep of [`Spacing::Leading`].
    pub steps_offset: usize,
    /// 0 deterministic … 1 as noisy as DDPM.
    pub eta: f64,
    /// The level after the last step: ᾱ = 1 (true) or the ᾱ of training step 0 (false).
    pub set_alpha_to_one: bool,
    /// Clamp the predicted clean sample to ± this value.
    pub clip_sample: Option<f64>,
}

impl Default for DdimOptions {
    fn default() -> Self {
        Self {
            prediction: Prediction::Epsilon,
            spacing: Spacing::Leading,
            steps_offset: 1,
            eta: 0.0,
            set_alpha_to_one: true,
            clip_sample: None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Jump {
    from: f64,
    to: f64,
    /// Standard deviation of the noise put back.
    fresh: f64,
}

/// DDIM set up for a number of steps.
#[derive(Debug, Clone)]
pub struct Ddim {
    timesteps: Vec<f64>,
    jumps: Vec<Jump>,
    options: DdimOptions,
}

impl Ddim {
    /// # Errors
    /// Steps out of range, η outside 0..=1, or ε prediction where the schedule has no signal.
    pub fn new(
        schedule: &NoiseSchedule,
        steps: usize,
        options: &DdimOptions,
    ) -> Result<Self, SchedulerError> {
        if !(0.0..=1.0).contains(&options.eta) {
            return Err(SchedulerError::Setting {
                name: NAME,
                what: format!("eta {} is not in 0..=1", options.eta),
            });
        }
        let train = schedule.train_steps();
        let times: Vec<f64> = timesteps(options.spacing, train, steps, options.steps_offset)?
            .into_iter()
            .map(f64::round_ties_even)
            .collect();
        let stride = (train / steps) as f64;
        let last = if options.set_alpha_to_one { 1.0 } else { schedule.alpha_cumprod(0) };
        let mut jumps = Vec::with_capacity(times.len());
        for &t in &times {
            let from = schedule.alpha_cumprod(t as usize);
            if from == 0.0 && options.prediction == Prediction::Epsilon {
                return Err(ScheduleError::NoSignal { timestep: t }.into());
            }
            // The step is always the training stride, also where the spacing is not: the public
            // implementations do so and checkpoints are judged with them.
            let to = if t >= stride { schedule.alpha_cumprod((t - stride) as usize) } else { last };
            let variance = (1.0 - to) / (1.0 - from) * (1.0 - from / to);
            jumps.push(Jump { from, to, fresh: options.eta * variance.max(0.0).sqrt() });
        }
        Ok(Self { timesteps: times, jumps, options: *options })
    }

    /// What sample and output weigh in the clean sample and in the noise that the output implies.
    fn implied(&self, i: usize) -> Result<[(f64, f64); 2], SchedulerError> {
        let Level { alpha, sigma } = Level::preserving(at(NAME, &self.jumps, i)?.from);
        Ok(match self.options.prediction {
            Prediction::Epsilon => [(1.0 / alpha, -sigma / alpha), (0.0, 1.0)],
            Prediction::Sample => [(0.0, 1.0), (1.0 / sigma, -alpha / sigma)],
            Prediction::Velocity => [(alpha, -sigma), (sigma, alpha)],
        })
    }

    fn clean(&self, i: usize, output: &Tensor, sample: &Tensor) -> Result<Tensor, SchedulerError> {
        same_shape(NAME, sample, output)?;
        let [(by_sample, by_output), _] = self.implied(i)?;
        let clean = sum(&[(by_sample, sample), (by_output, output)])?;
        Ok(match self.options.clip_sample {
            Some(range) => clean.clamp(-range, range)?,
            None => clean,
        })
    }
}

impl Jump {
    /// What of the implied noise is left after the jump.
    fn kept(self) -> f64 {
        (1.0 - self.to - self.fresh * self.fresh).max(0.0).sqrt()
    }
}

impl Scheduler for Ddim {
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
        self.jumps.get(i).is_some_and(|jump| jump.fresh > 0.0)
    }

    fn step(
        &mut self,
        i: usize,
        model_output: &Tensor,
        sample: &Tensor,
        noise: Option<&Tensor>,
    ) -> Result<Tensor, SchedulerError> {
        let jump = at(NAME, &self.jumps, i)?;
        same_shape(NAME, sample, model_output)?;
        let fresh = (jump.fresh > 0.0).then(|| noise_for(NAME, i, sample, noise)).transpose()?;
        let clamped;
        let mut terms = match self.step_weights(i)? {
            Some(weights) => vec![(weights.sample, sample), (weights.output, model_output)],
            None => {
                clamped = self.clean(i, model_output, sample)?;
                let ((by_sample, by_output), kept) = (self.implied(i)?[1], jump.kept());
                vec![(jump.to.sqrt(), &clamped), (kept * by_sample, sample), (kept * by_output, model_output)]
            }
        };
        terms.extend(fresh.map(|noise| (jump.fresh, noise)));
        Ok(sum(&terms)?)
    }

    fn step_weights(&self, i: usize) -> Result<Option<StepWeights>, SchedulerError> {
        let jump = at(NAME, &self.jumps, i)?;
        if self.options.clip_sample.is_some() {
            return Ok(None);
        }
        let ([clean, noise], to, kept) = (self.implied(i)?, jump.to.sqrt(), jump.kept());
        Ok(Some(StepWeights {
            sample: to * clean.0 + kept * noise.0,
            output: to * clean.1 + kept * noise.1,
            noise: jump.fresh,
        }))
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
        let level = match self.jumps.len().checked_sub(1) {
            Some(last) if i == last + 1 => at(NAME, &self.jumps, last)?.to,
            _ => at(NAME, &self.jumps, i)?.from,
        };
        Ok(Level::preserving(level).noised(clean, noise)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::schedule::ScheduleSpec;
    use candle_core::Device;

    fn value(t: &Tensor) -> f64 {
        f64::from(t.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0])
    }

    /// A network that knows the noise brings the sample back to the clean value in any number of steps.
    #[test]
    fn a_perfect_network_recovers_the_clean_sample() {
        let schedule = NoiseSchedule::new(&ScheduleSpec::follow_your_click()).unwrap();
        let clean = Tensor::new(&[0.7f32], &Device::Cpu).unwrap();
        let noise = Tensor::new(&[-1.3f32], &Device::Cpu).unwrap();
        for prediction in [Prediction::Epsilon, Prediction::Sample, Prediction::Velocity] {
            let options = DdimOptions { prediction, ..DdimOptions::default() };
            let mut ddim = Ddim::new(&schedule, 7, &options).unwrap();
            let mut x = ddim.noised(0, &clean, &noise).unwrap();
            for i in 0..7 {
                let level = Level::preserving(ddim.jumps[i].from);
                let output = match prediction {
                    Prediction::Epsilon => noise.clone(),
                    Prediction::Sample => clean.clone(),
                    Prediction::Velocity => sum(&[(level.alpha, &noise), (-level.sigma, &clean)]).unwrap(),
                };
                assert!((value(&ddim.clean_estimate(i, &output, &x).unwrap()) - 0.7).abs() < 1e-2);
                x = ddim.step(i, &output, &x, None).unwrap();
                assert!((value(&x) - value(&ddim.noised(i + 1, &clean, &noise).unwrap())).abs() < 1e-3);
            }
            assert!((value(&x) - 0.7).abs() < 1e-3, "{prediction:?}: {}", value(&x));
        }
    }

    #[test]
    fn epsilon_without_signal_is_refused() {
        let schedule = NoiseSchedule::new(&ScheduleSpec::follow_your_click()).unwrap();
        let options = DdimOptions { spacing: Spacing::Trailing, ..DdimOptions::default() };
        let refused = Ddim::new(&schedule, 4, &options);
        assert!(matches!(
            refused,
            Err(SchedulerError::Schedule(ScheduleError::NoSignal { timestep: 999.0 }))
        ));
    }

    #[test]
    fn wrong_calls_are_refused() {
        let schedule = NoiseSchedule::new(&ScheduleSpec::animatediff()).unwrap();
        let mut ddim = Ddim::new(&schedule, 4, &DdimOptions { eta: 1.0, ..DdimOptions::default() }).unwrap();
        let x = Tensor::new(&[0.7f32, 1.0], &Device::Cpu).unwrap();
        let short = x.narrow(0, 0, 1).unwrap();
        assert!(matches!(ddim.step(4, &x, &x, None), Err(SchedulerError::NoSuchStep { step: 4, .. })));
        assert!(matches!(ddim.step(0, &short, &x, Some(&x)), Err(SchedulerError::Shape { .. })));
        assert!(matches!(ddim.step(0, &x, &x, None), Err(SchedulerError::NoNoise { step: 0, .. })));
        assert!(matches!(ddim.step(0, &x, &x, Some(&short)), Err(SchedulerError::Shape { .. })));
        assert!(Ddim::new(&schedule, 4, &DdimOptions { eta: 1.1, ..DdimOptions::default() }).is_err());
    }
}
