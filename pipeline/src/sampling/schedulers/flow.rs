//! Rectified flows: `x = (1−τ)·y + τ·n`, followed from τ = 1 (noise) to τ = 0 along `dx/dτ = n − y`
//! (Liu et al., arXiv 2209.03003), by Euler or Heun steps.

use candle_core::Tensor;

use crate::sampling::schedule::ScheduleError;
use crate::sampling::scheduler::{
    Level, Prediction, Scheduler, SchedulerError, SchedulerState, at, f32_of, same_shape, sum,
};

const MOST_STEPS: usize = 1000;

/// The times a flow sampler visits before the final 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowSpacing {
    /// 1, 1−1/n, … 1/n.
    Uniform,
    /// From 1 to the smallest of 1000 training times, both included, before the shift; the convention of the
    /// public Stable Diffusion 3 sampler.
    Discrete,
}

/// The switches of [`FlowEuler`] and [`FlowHeun`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlowOptions {
    /// [`Prediction::Velocity`] for `n − y` or [`Prediction::Sample`] for `y`; the noise alone says nothing
    /// about `y` at τ = 1, so [`Prediction::Epsilon`] is refused.
    pub prediction: Prediction,
    pub spacing: FlowSpacing,
    /// `τ ← s·τ / (1 + (s−1)·τ)`: above 1 spends more steps on noisy times.
    pub shift: f64,
    /// The network's time input is τ times this.
    pub time_scale: f64,
}

impl Default for FlowOptions {
    fn default() -> Self {
        Self {
            prediction: Prediction::Velocity,
            spacing: FlowSpacing::Uniform,
            shift: 1.0,
            time_scale: 1000.0,
        }
    }
}

/// τ of every step and the final zero.
fn taus(name: &'static str, steps: usize, options: &FlowOptions) -> Result<Vec<f64>, SchedulerError> {
    if steps == 0 || steps > MOST_STEPS {
        return Err(ScheduleError::Steps { steps, most: MOST_STEPS }.into());
    }
    let positive = |value: f64| value.is_finite() && value > 0.0;
    if !positive(options.shift) || !positive(options.time_scale) {
        let what = format!("shift {} and time scale {} must be positive", options.shift, options.time_scale);
        return Err(SchedulerError::Setting { name, what });
    }
    if options.prediction == Prediction::Epsilon {
        let what = "a rectified flow needs velocity or clean-sample prediction, not epsilon".to_owned();
        return Err(SchedulerError::Setting { name, what });
    }
    let n = steps as f64;
    let shifted = |tau: f64| options.shift * tau / (1.0 + (options.shift - 1.0) * tau);
    // The smallest training time is itself a shifted one: such checkpoints are trained on shifted times.
    let least = shifted(1e-3);
    let plain = |i: usize| match options.spacing {
        FlowSpacing::Uniform => 1.0 - i as f64 / n,
        FlowSpacing::Discrete if steps == 1 => 1.0,
        FlowSpacing::Discrete => 1.0 - (1.0 - least) * i as f64 / (n - 1.0),
    };
    Ok((0..steps).map(|i| shifted(plain(i))).chain([0.0]).collect())
}

/// `n − y` at the point `sample` on the path at time `tau > 0`.
fn velocity(
    prediction: Prediction,
    tau: f64,
    output: &Tensor,
    sample: &Tensor,
) -> candle_core::Result<Tensor> {
    match prediction {
        Prediction::Sample => sum(&[(1.0 / tau, sample), (-1.0 / tau, output)]),
        Prediction::Velocity | Prediction::Epsilon => f32_of(output),
    }
}

fn clean(prediction: Prediction, tau: f64, output: &Tensor, sample: &Tensor) -> candle_core::Result<Tensor> {
    match prediction {
        Prediction::Sample => f32_of(output),
        _ => sum(&[(1.0, sample), (-tau, &velocity(prediction, tau, output, sample)?)]),
    }
}

/// Euler steps along a rectified flow.
#[derive(Debug, Clone)]
pub struct FlowEuler {
    timesteps: Vec<f64>,
    taus: Vec<f64>,
    prediction: Prediction,
}

impl FlowEuler {
    const NAME: &str = "flow_euler";

    /// # Errors
    /// Steps outside 1..=1000, or a shift or time scale that is not positive.
    pub fn new(steps: usize, options: &FlowOptions) -> Result<Self, SchedulerError> {
        let taus = taus(Self::NAME, steps, options)?;
        let timesteps = taus.iter().take(steps).map(|tau| tau * options.time_scale).collect();
        Ok(Self { timesteps, taus, prediction: options.prediction })
    }
}

impl Scheduler for FlowEuler {
    fn name(&self) -> &'static str {
        Self::NAME
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
        same_shape(Self::NAME, sample, model_output)?;
        at(Self::NAME, &self.timesteps, i)?;
        let (from, to) = (at(Self::NAME, &self.taus, i)?, at(Self::NAME, &self.taus, i + 1)?);
        if self.prediction == Prediction::Sample {
            // The last step returns the prediction itself, to the bit.
            return Ok(sum(&[(1.0 - to / from, model_output), (to / from, sample)])?);
        }
        let velocity = velocity(self.prediction, from, model_output, sample)?;
        Ok(sum(&[(1.0, sample), (to - from, &velocity)])?)
    }

    fn clean_estimate(
        &self,
        i: usize,
        model_output: &Tensor,
        sample: &Tensor,
    ) -> Result<Tensor, SchedulerError> {
        same_shape(Self::NAME, sample, model_output)?;
        at(Self::NAME, &self.timesteps, i)?;
        Ok(clean(self.prediction, at(Self::NAME, &self.taus, i)?, model_output, sample)?)
    }

    fn noised(&self, i: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError> {
        Ok(Level::flow(at(Self::NAME, &self.taus, i)?).noised(clean, noise)?)
    }
}

/// Heun steps along a rectified flow: an Euler step, then the same step again with the mean of the
/// velocities at its two ends. The last step is a plain Euler step, since nothing is left to evaluate at τ = 0.
#[derive(Debug, Clone)]
pub struct FlowHeun {
    /// One entry an evaluation: the first time once, every later one twice.
    timesteps: Vec<f64>,
    taus: Vec<f64>,
    prediction: Prediction,
    /// Sample and velocity at the start of the step whose end is evaluated next.
    half: Option<(Tensor, Tensor)>,
}

impl FlowHeun {
    const NAME: &str = "flow_heun";
    const SAMPLE: &str = "step_sample";
    const VELOCITY: &str = "step_velocity";

    /// # Errors
    /// Steps outside 1..=1000, or a shift or time scale that is not positive.
    pub fn new(steps: usize, options: &FlowOptions) -> Result<Self, SchedulerError> {
        let taus = taus(Self::NAME, steps, options)?;
        let evaluations = 2 * steps - 1;
        let timesteps = (0..evaluations)
            .map(|i| at(Self::NAME, &taus, i.div_ceil(2)).map(|tau| tau * options.time_scale))
            .collect::<Result<_, _>>()?;
        Ok(Self { timesteps, taus, prediction: options.prediction, half: None })
    }

    /// τ at which evaluation `i` takes place.
    fn tau(&self, i: usize) -> Result<f64, SchedulerError> {
        at(Self::NAME, &self.timesteps, i)?;
        at(Self::NAME, &self.taus, i.div_ceil(2))
    }

    /// Even evaluations begin a step, odd ones finish it.
    fn begins(i: usize) -> bool {
        i.is_multiple_of(2)
    }
}

impl Scheduler for FlowHeun {
    fn name(&self) -> &'static str {
        Self::NAME
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
        same_shape(Self::NAME, sample, model_output)?;
        let tau = self.tau(i)?;
        let here = velocity(self.prediction, tau, model_output, sample)?;
        if Self::begins(i) {
            let to = at(Self::NAME, &self.taus, i / 2 + 1)?;
            let next = sum(&[(1.0, sample), (to - tau, &here)])?;
            self.half = Some((f32_of(sample)?, here));
            return Ok(next);
        }
        let missing = SchedulerError::State { name: Self::NAME, key: Self::VELOCITY, step: i };
        let (start, before) = self.half.take().ok_or(missing)?;
        let width = tau - self.tau(i - 1)?;
        Ok(sum(&[(1.0, &start), (0.5 * width, &before), (0.5 * width, &here)])?)
    }

    fn clean_estimate(
        &self,
        i: usize,
        model_output: &Tensor,
        sample: &Tensor,
    ) -> Result<Tensor, SchedulerError> {
        same_shape(Self::NAME, sample, model_output)?;
        Ok(clean(self.prediction, self.tau(i)?, model_output, sample)?)
    }

    fn noised(&self, i: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError> {
        let tau = if i == self.timesteps.len() { 0.0 } else { self.tau(i)? };
        Ok(Level::flow(tau).noised(clean, noise)?)
    }

    fn state(&self) -> SchedulerState {
        let mut state = SchedulerState::new();
        if let Some((sample, velocity)) = &self.half {
            state.insert(Self::SAMPLE.to_owned(), sample.clone());
            state.insert(Self::VELOCITY.to_owned(), velocity.clone());
        }
        state
    }

    fn restore(&mut self, next: usize, mut state: SchedulerState) -> Result<(), SchedulerError> {
        self.half = state.remove(Self::SAMPLE).zip(state.remove(Self::VELOCITY));
        if !Self::begins(next) && self.half.is_none() {
            return Err(SchedulerError::State { name: Self::NAME, key: Self::VELOCITY, step: next });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn scalar(value: f32) -> Tensor {
        Tensor::new(&[value], &Device::Cpu).unwrap()
    }

    fn value(t: &Tensor) -> f64 {
        f64::from(t.to_vec1::<f32>().unwrap()[0])
    }

    fn outputs(prediction: Prediction, y: f32, n: f32) -> Tensor {
        match prediction {
            Prediction::Sample => scalar(y),
            _ => scalar(n - y),
        }
    }

    /// A straight path is followed without error whatever the steps.
    #[test]
    fn straight_paths_are_exact() {
        for spacing in [FlowSpacing::Uniform, FlowSpacing::Discrete] {
            for prediction in [Prediction::Velocity, Prediction::Sample] {
                let options = FlowOptions { prediction, spacing, shift: 3.0, ..FlowOptions::default() };
                let both: [Box<dyn Scheduler>; 2] = [
                    Box::new(FlowEuler::new(5, &options).unwrap()),
                    Box::new(FlowHeun::new(5, &options).unwrap()),
                ];
                for mut flow in both {
                    let (y, n) = (scalar(0.4), scalar(-1.1));
                    let mut x = n.clone();
                    for i in 0..flow.timesteps().len() {
                        let output = outputs(prediction, 0.4, -1.1);
                        assert!((value(&flow.clean_estimate(i, &output, &x).unwrap()) - 0.4).abs() < 1e-5);
                        x = flow.step(i, &output, &x, None).unwrap();
                    }
                    assert!((value(&x) - 0.4).abs() < 1e-5, "{} {prediction:?}", flow.name());
                    let end = flow.noised(flow.timesteps().len(), &y, &n).unwrap();
                    assert_eq!(value(&end), value(&y));
                }
            }
        }
    }

    /// On dx/dτ = x the error of Heun falls with the square of the step, that of Euler with the step.
    #[test]
    fn orders_of_convergence() {
        let error = |mut flow: Box<dyn Scheduler>| {
            let mut x = scalar(1.0);
            for i in 0..flow.timesteps().len() {
                let output = x.clone();
                x = flow.step(i, &output, &x, None).unwrap();
            }
            (value(&x) - (-1f64).exp()).abs()
        };
        let options = FlowOptions::default();
        let euler = |n| error(Box::new(FlowEuler::new(n, &options).unwrap()));
        let heun = |n| error(Box::new(FlowHeun::new(n, &options).unwrap()));
        assert!((euler(20) / euler(40) - 2.0).abs() < 0.1, "{}", euler(20) / euler(40));
        // The Euler step at the end costs h²/2 once, the same order as the rest.
        assert!((heun(20) / heun(40) - 4.0).abs() < 0.4, "{}", heun(20) / heun(40));
    }

    #[test]
    fn heun_cannot_resume_in_the_middle_of_a_step_without_its_state() {
        let mut flow = FlowHeun::new(3, &FlowOptions::default()).unwrap();
        assert!(matches!(flow.restore(1, SchedulerState::new()), Err(SchedulerError::State { .. })));
        assert!(flow.restore(2, SchedulerState::new()).is_ok());
        assert!(matches!(flow.step(1, &scalar(0.0), &scalar(0.0), None), Err(SchedulerError::State { .. })));
    }

    #[test]
    fn bad_settings_are_refused() {
        for shift in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(FlowEuler::new(3, &FlowOptions { shift, ..FlowOptions::default() }).is_err());
        }
        assert!(FlowHeun::new(0, &FlowOptions::default()).is_err());
        let epsilon = FlowOptions { prediction: Prediction::Epsilon, ..FlowOptions::default() };
        assert!(matches!(FlowEuler::new(3, &epsilon), Err(SchedulerError::Setting { .. })));
    }
}
