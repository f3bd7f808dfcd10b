//! Noise schedules and the times at which a sampler visits them, in f64.

use serde::{Deserialize, Serialize};

/// What is wrong with a schedule or with the steps asked of it.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ScheduleError {
    #[error("{steps} denoise steps asked for; this sampler takes 1 to {most}")]
    Steps { steps: usize, most: usize },
    #[error("the noise schedule has {found} training steps; 2 to 100000 are supported")]
    TrainSteps { found: usize },
    #[error("beta_start {start} and beta_end {end}: expected 0 < beta_start <= beta_end < 1")]
    Betas { start: f64, end: f64 },
    #[error(
        "epsilon prediction is undefined at timestep {timestep}, where this zero-terminal-SNR schedule has no signal; \
         use v prediction, or leading spacing"
    )]
    NoSignal { timestep: f64 },
}

/// How the betas grow over the training steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BetaKind {
    /// β from start to end in equal steps (AnimateDiff, PIA, Follow-Your-Click).
    Linear,
    /// √β from start to end in equal steps (Stable Diffusion).
    ScaledLinear,
    /// The cosine schedule of Nichol and Dhariwal, betas at most 0.999; start and end are not used.
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredCosine,
}

/// The description of a discrete variance-preserving schedule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSpec {
    /// Shape of the betas.
    pub kind: BetaKind,
    /// First beta.
    pub beta_start: f64,
    /// Last beta.
    pub beta_end: f64,
    /// Number of training steps, 1000 for every public checkpoint supported.
    pub train_steps: usize,
    /// Rescale so that the last step is pure noise (Lin et al., "Common diffusion noise schedules and
    /// sample steps are flawed", algorithm 1).
    pub zero_terminal_snr: bool,
}

impl ScheduleSpec {
    /// AnimateDiff v1–v3 and PIA: linear betas 0.00085 to 0.012.
    pub const fn animatediff() -> Self {
        Self {
            kind: BetaKind::Linear,
            beta_start: 0.000_85,
            beta_end: 0.012,
            train_steps: 1000,
            zero_terminal_snr: false,
        }
    }

    /// Stable Diffusion 1.x: scaled-linear betas 0.00085 to 0.012.
    pub const fn stable_diffusion() -> Self {
        Self { kind: BetaKind::ScaledLinear, ..Self::animatediff() }
    }

    /// Follow-Your-Click: AnimateDiff's betas with zero terminal SNR.
    pub const fn follow_your_click() -> Self {
        Self { zero_terminal_snr: true, ..Self::animatediff() }
    }
}

/// A discrete variance-preserving schedule: `x_t = √ᾱ_t·x_0 + √(1−ᾱ_t)·ε`.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    alphas_cumprod: Vec<f64>,
    zero_terminal_snr: bool,
}

impl NoiseSchedule {
    /// Computes the schedule.
    ///
    /// # Errors
    /// [`ScheduleError::TrainSteps`] or [`ScheduleError::Betas`] for values out of range.
    pub fn new(spec: &ScheduleSpec) -> Result<Self, ScheduleError> {
        let n = spec.train_steps;
        if !(2..=100_000).contains(&n) {
            return Err(ScheduleError::TrainSteps { found: n });
        }
        let (start, end) = (spec.beta_start, spec.beta_end);
        if spec.kind != BetaKind::SquaredCosine && !(0.0 < start && start <= end && end < 1.0) {
            return Err(ScheduleError::Betas { start, end });
        }
        let beta = |i: usize| match spec.kind {
            BetaKind::Linear => lerp(start, end, i, n),
            BetaKind::ScaledLinear => lerp(start.sqrt(), end.sqrt(), i, n).powi(2),
            BetaKind::SquaredCosine => {
                let signal = |t: usize| {
                    let u = t as f64 / n as f64;
                    ((u + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2)
                };
                (1.0 - signal(i + 1) / signal(i)).min(0.999)
            }
        };
        let mut alphas_cumprod: Vec<f64> = (0..n)
            .scan(1.0, |product, i| {
                *product *= 1.0 - beta(i);
                Some(*product)
            })
            .collect();
        if spec.zero_terminal_snr {
            rescale_to_zero_terminal_snr(&mut alphas_cumprod);
        }
        Ok(Self { alphas_cumprod, zero_terminal_snr: spec.zero_terminal_snr })
    }

    /// Number of training steps.
    pub fn train_steps(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// ᾱ of every training step, first to last.
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas_cumprod
    }

    /// ᾱ at a training step; steps beyond the last give the last.
    pub fn alpha_cumprod(&self, timestep: usize) -> f64 {
        let last = self.alphas_cumprod.len().saturating_sub(1);
        self.alphas_cumprod.get(timestep.min(last)).copied().unwrap_or(1.0)
    }

    /// `σ = √((1−ᾱ)/ᾱ)` of every training step, the noise level of the samplers that keep the signal
    /// at scale one. A zero-terminal-SNR schedule has its last ᾱ lifted to 2⁻²⁴ so that σ is finite.
    pub fn sigmas(&self) -> Vec<f64> {
        let lifted = |i: usize, alpha: f64| {
            if self.zero_terminal_snr && i + 1 == self.alphas_cumprod.len() { 2f64.powi(-24) } else { alpha }
        };
        let sigma = |alpha: f64| ((1.0 - alpha) / alpha).sqrt();
        self.alphas_cumprod.iter().enumerate().map(|(i, &a)| sigma(lifted(i, a))).collect()
    }
}

fn lerp(start: f64, end: f64, i: usize, n: usize) -> f64 {
    start + (end - start) * i as f64 / (n - 1) as f64
}

fn rescale_to_zero_terminal_snr(alphas_cumprod: &mut [f64]) {
    let (Some(&first), Some(&last)) = (alphas_cumprod.first(), alphas_cumprod.last()) else {
        return;
    };
    let (first, last) = (first.sqrt(), last.sqrt());
    for alpha in alphas_cumprod.iter_mut() {
        *alpha = ((alpha.sqrt() - last) * first / (first - last)).powi(2);
    }
}

/// Which training steps a sampler with fewer steps visits (Lin et al., table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// Multiples of ⌊T/n⌋ plus an offset; the last training step is not visited.
    Leading,
    /// Counted back from the last training step in steps of T/n.
    Trailing,
    /// From the first to the last training step, both included.
    Linspace,
}

/// The visited training steps, noisiest first; not rounded for [`Spacing::Linspace`].
///
/// # Errors
/// [`ScheduleError::Steps`] unless `1 <= steps <= train_steps` and every visited step exists.
pub fn timesteps(
    spacing: Spacing,
    train_steps: usize,
    steps: usize,
    offset: usize,
) -> Result<Vec<f64>, ScheduleError> {
    if steps == 0 || steps > train_steps {
        return Err(ScheduleError::Steps { steps, most: train_steps });
    }
    let train = train_steps as f64;
    let times: Vec<f64> = match spacing {
        Spacing::Linspace if steps == 1 => vec![train - 1.0],
        Spacing::Linspace => {
            (0..steps).rev().map(|i| (train - 1.0) * i as f64 / (steps - 1) as f64).collect()
        }
        Spacing::Leading => {
            let ratio = train_steps / steps;
            (0..steps).rev().map(|i| (i * ratio + offset) as f64).collect()
        }
        Spacing::Trailing => trailing(train, train, steps),
    };
    inside(times, train_steps, steps)
}

/// The visited training steps of the DPM-Solver family, which spaces `n + 1` steps and leaves out the
/// last; all are whole numbers.
///
/// # Errors
/// As [`timesteps`].
pub fn solver_timesteps(
    spacing: Spacing,
    train_steps: usize,
    steps: usize,
    offset: usize,
) -> Result<Vec<f64>, ScheduleError> {
    if steps == 0 || steps >= train_steps {
        return Err(ScheduleError::Steps { steps, most: train_steps.saturating_sub(1) });
    }
    let train = train_steps as f64;
    let times: Vec<f64> = match spacing {
        Spacing::Linspace => {
            (1..=steps).rev().map(|i| ((train - 1.0) * i as f64 / steps as f64).round_ties_even()).collect()
        }
        Spacing::Leading => {
            let ratio = train_steps / (steps + 1);
            (1..=steps).rev().map(|i| (i * ratio + offset) as f64).collect()
        }
        Spacing::Trailing => trailing(train, train, steps),
    };
    inside(times, train_steps, steps)
}

fn trailing(train: f64, last: f64, steps: usize) -> Vec<f64> {
    let ratio = train / steps as f64;
    (0..steps).map(|i| (last - i as f64 * ratio).round_ties_even() - 1.0).collect()
}

fn inside(times: Vec<f64>, train_steps: usize, steps: usize) -> Result<Vec<f64>, ScheduleError> {
    let last = train_steps as f64 - 1.0;
    if times.iter().all(|t| (0.0..=last).contains(t)) {
        Ok(times)
    } else {
        Err(ScheduleError::Steps { steps, most: train_steps - 1 })
    }
}

/// Linear interpolation in a table indexed by training step.
pub fn interpolate(table: &[f64], at: f64) -> f64 {
    let last = table.len().saturating_sub(1);
    let at = at.clamp(0.0, last as f64);
    let low = at.floor() as usize;
    let value = |i: usize| table.get(i.min(last)).copied().unwrap_or(0.0);
    let (a, b) = (value(low), value(low + 1));
    a + (b - a) * (at - low as f64)
}

/// The noise levels of Karras et al. ("Elucidating the design space of diffusion-based generative
/// models", equation 5, ρ = 7), from `sigma_max` down to `sigma_min`, without the final zero.
pub fn karras_sigmas(sigma_min: f64, sigma_max: f64, steps: usize) -> Vec<f64> {
    const RHO: f64 = 7.0;
    let (low, high) = (sigma_min.powf(1.0 / RHO), sigma_max.powf(1.0 / RHO));
    let ramp = |i: usize| if steps < 2 { 0.0 } else { i as f64 / (steps - 1) as f64 };
    (0..steps).map(|i| (high + ramp(i) * (low - high)).powf(RHO)).collect()
}

/// The training step, with fraction, whose noise level is `sigma`, by interpolation in log σ.
/// `sigmas` must increase.
pub fn timestep_of_sigma(sigmas: &[f64], sigma: f64) -> f64 {
    let last = sigmas.len().saturating_sub(1);
    let low = sigmas.partition_point(|&s| s <= sigma).saturating_sub(1).min(last.saturating_sub(1));
    let level = |i: usize| sigmas.get(i.min(last)).copied().unwrap_or(1.0).max(1e-10).ln();
    let (a, b) = (level(low), level(low + 1));
    let weight = if b > a { (sigma.max(1e-10).ln() - a) / (b - a) } else { 0.0 };
    low as f64 + weight.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBES: [usize; 6] = [0, 250, 500, 750, 991, 999];

    fn check(spec: ScheduleSpec, expected: [f64; 6]) {
        let schedule = NoiseSchedule::new(&spec).unwrap();
        for (t, want) in PROBES.into_iter().zip(expected) {
            let got = schedule.alpha_cumprod(t);
            assert!((got - want).abs() <= 6e-9 * want.max(1e-6), "{spec:?} at {t}: {got} != {want}");
        }
    }

    #[test]
    fn alphas_equal_the_reference_values() {
        check(
            ScheduleSpec::animatediff(),
            [0.99915, 0.568_788_038, 0.160_771_6, 0.022_519_223_7, 0.001_738_517_27, 0.001_578_962_93],
        );
        check(
            ScheduleSpec::follow_your_click(),
            [0.99915, 0.553_567_75, 0.141_512_553, 0.013_200_939_3, 4.163_556_24e-6, 0.0],
        );
        check(
            ScheduleSpec::stable_diffusion(),
            [0.99915, 0.673_792_625, 0.276_332_684, 0.056_169_848, 0.005_130_066_07, 0.004_660_098_51],
        );
    }

    #[test]
    fn leading_with_offset_matches_the_released_setting() {
        let times = timesteps(Spacing::Leading, 1000, 100, 1).unwrap();
        assert_eq!((times[0], times[1], times[99]), (991.0, 981.0, 1.0));
    }

    #[test]
    fn trailing_and_linspace_reach_the_last_step() {
        assert_eq!(timesteps(Spacing::Trailing, 1000, 4, 0).unwrap(), [999.0, 749.0, 499.0, 249.0]);
        assert_eq!(timesteps(Spacing::Linspace, 1000, 3, 0).unwrap(), [999.0, 499.5, 0.0]);
        assert_eq!(solver_timesteps(Spacing::Linspace, 1000, 3, 0).unwrap(), [999.0, 666.0, 333.0]);
    }

    #[test]
    fn steps_out_of_range_are_refused() {
        for spacing in [Spacing::Leading, Spacing::Trailing, Spacing::Linspace] {
            assert!(timesteps(spacing, 1000, 0, 0).is_err());
            assert!(timesteps(spacing, 1000, 1001, 0).is_err());
            assert!(solver_timesteps(spacing, 1000, 0, 0).is_err());
        }
        assert!(timesteps(Spacing::Leading, 1000, 1000, 1).is_err());
    }

    #[test]
    fn bad_schedules_are_refused() {
        let spec = ScheduleSpec { beta_end: 1.5, ..ScheduleSpec::animatediff() };
        assert!(matches!(NoiseSchedule::new(&spec), Err(ScheduleError::Betas { .. })));
        let spec = ScheduleSpec { train_steps: 1, ..ScheduleSpec::animatediff() };
        assert!(matches!(NoiseSchedule::new(&spec), Err(ScheduleError::TrainSteps { .. })));
        let spec = ScheduleSpec { beta_start: f64::NAN, ..ScheduleSpec::animatediff() };
        assert!(NoiseSchedule::new(&spec).is_err());
    }

    #[test]
    fn karras_levels_run_between_their_ends_and_invert() {
        let schedule = NoiseSchedule::new(&ScheduleSpec::stable_diffusion()).unwrap();
        let table = schedule.sigmas();
        let levels = karras_sigmas(table[0], table[999], 7);
        assert!((levels[0] - table[999]).abs() < 1e-9 && (levels[6] - table[0]).abs() < 1e-9);
        assert!(levels.windows(2).all(|w| w[0] > w[1]));
        for t in [0.0, 0.25, 10.5, 998.9, 999.0] {
            let sigma = interpolate(&table, t);
            assert!((timestep_of_sigma(&table, sigma) - t).abs() < 0.2, "{t}");
        }
        assert_eq!(timestep_of_sigma(&table, table[500]), 500.0);
        assert_eq!(timestep_of_sigma(&table, 1e9), 999.0);
        assert_eq!(timestep_of_sigma(&table, 0.0), 0.0);
    }

    #[test]
    fn cosine_betas_are_capped() {
        let spec = ScheduleSpec { kind: BetaKind::SquaredCosine, ..ScheduleSpec::animatediff() };
        let schedule = NoiseSchedule::new(&spec).unwrap();
        let ratio = schedule.alpha_cumprod(999) / schedule.alpha_cumprod(998);
        assert!((ratio - 0.001).abs() < 1e-12, "{ratio}");
        assert!(schedule.alphas_cumprod().windows(2).all(|w| w[0] > w[1] && w[1] > 0.0));
    }
}
