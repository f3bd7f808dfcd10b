//! The samplers, and the plain-data description a document uses to choose one.

pub mod ddim;
pub mod dpmpp_2m;
pub mod euler;
pub mod euler_ancestral;
pub mod flow;
pub mod lcm;

mod sigma_space;

use serde::{Deserialize, Serialize};

use super::schedule::{NoiseSchedule, ScheduleSpec, Spacing};
use super::scheduler::{Prediction, Scheduler, SchedulerError};

pub use ddim::{Ddim, DdimOptions};
pub use dpmpp_2m::{Dpmpp2m, Dpmpp2mOptions};
pub use euler::{Euler, EulerOptions};
pub use euler_ancestral::EulerAncestral;
pub use flow::{FlowEuler, FlowHeun, FlowOptions, FlowSpacing};
pub use lcm::{Lcm, LcmOptions};

/// The samplers by the names users know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    /// Song et al., "Denoising diffusion implicit models".
    Ddim,
    /// Euler steps in σ.
    Euler,
    /// Euler steps in σ on training-step levels spaced as Karras et al.
    EulerKarras,
    /// Euler steps that put fresh noise back.
    EulerAncestral,
    /// Lu et al., DPM-Solver++, second-order multistep.
    #[serde(rename = "dpmpp_2m")]
    Dpmpp2m,
    /// DPM-Solver++ (2M) on the levels of Karras et al.
    #[serde(rename = "dpmpp_2m_karras")]
    Dpmpp2mKarras,
    /// Luo et al., "Latent consistency models".
    Lcm,
    /// Euler steps along a rectified flow.
    FlowEuler,
    /// Heun steps along a rectified flow, two evaluations a step.
    FlowHeun,
}

/// A sampler as a checkpoint's training demands it; [`SamplerSpec::build`] sets it up for a number of steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SamplerSpec {
    pub kind: SamplerKind,
    pub schedule: ScheduleSpec,
    pub prediction: Prediction,
    pub spacing: Spacing,
    pub steps_offset: usize,
    /// DDIM's η, 0 for the deterministic sampler.
    pub eta: f64,
}

impl SamplerSpec {
    /// AnimateDiff and PIA: DDIM, ε, linear betas, leading spacing with offset 1.
    pub fn animatediff() -> Self {
        Self {
            kind: SamplerKind::Ddim,
            schedule: ScheduleSpec::animatediff(),
            prediction: Prediction::Epsilon,
            spacing: Spacing::Leading,
            steps_offset: 1,
            eta: 0.0,
        }
    }

    /// Follow-Your-Click: DDIM, v, linear betas with zero terminal SNR, leading spacing with offset 1.
    pub fn follow_your_click() -> Self {
        Self {
            schedule: ScheduleSpec::follow_your_click(),
            prediction: Prediction::Velocity,
            ..Self::animatediff()
        }
    }

    /// Sets the sampler up for `steps` steps.
    ///
    /// # Errors
    /// A schedule, number of steps or combination that does not exist.
    pub fn build(&self, steps: usize) -> Result<Box<dyn Scheduler>, SchedulerError> {
        let (prediction, spacing, steps_offset) = (self.prediction, self.spacing, self.steps_offset);
        let flow = FlowOptions { prediction, ..FlowOptions::default() };
        match self.kind {
            SamplerKind::FlowEuler => return Ok(Box::new(FlowEuler::new(steps, &flow)?)),
            SamplerKind::FlowHeun => return Ok(Box::new(FlowHeun::new(steps, &flow)?)),
            _ => {}
        }
        let schedule = NoiseSchedule::new(&self.schedule)?;
        let euler = EulerOptions { prediction, spacing, steps_offset, karras: false };
        let solver = Dpmpp2mOptions { prediction, spacing, steps_offset, karras: false };
        Ok(match self.kind {
            SamplerKind::Ddim => {
                let options = DdimOptions {
                    prediction,
                    spacing,
                    steps_offset,
                    eta: self.eta,
                    ..DdimOptions::default()
                };
                Box::new(Ddim::new(&schedule, steps, &options)?)
            }
            SamplerKind::Euler => Box::new(Euler::new(&schedule, steps, &euler)?),
            SamplerKind::EulerKarras => {
                Box::new(Euler::new(&schedule, steps, &EulerOptions { karras: true, ..euler })?)
            }
            SamplerKind::EulerAncestral => Box::new(EulerAncestral::new(&schedule, steps, &euler)?),
            SamplerKind::Dpmpp2m => Box::new(Dpmpp2m::new(&schedule, steps, &solver)?),
            SamplerKind::Dpmpp2mKarras => {
                Box::new(Dpmpp2m::new(&schedule, steps, &Dpmpp2mOptions { karras: true, ..solver })?)
            }
            SamplerKind::Lcm => {
                Box::new(Lcm::new(&schedule, steps, &LcmOptions { prediction, ..LcmOptions::default() })?)
            }
            SamplerKind::FlowEuler | SamplerKind::FlowHeun => {
                return Err(SchedulerError::Setting {
                    name: "flow",
                    what: "a rectified flow has no beta schedule".to_owned(),
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_builds_and_counts_its_evaluations() {
        for (kind, evaluations) in [
            (SamplerKind::Ddim, 5),
            (SamplerKind::Euler, 5),
            (SamplerKind::EulerKarras, 5),
            (SamplerKind::EulerAncestral, 5),
            (SamplerKind::Dpmpp2m, 5),
            (SamplerKind::Dpmpp2mKarras, 5),
            (SamplerKind::Lcm, 5),
            (SamplerKind::FlowEuler, 5),
            (SamplerKind::FlowHeun, 9),
        ] {
            let spec = SamplerSpec { kind, ..SamplerSpec::follow_your_click() };
            let scheduler = spec.build(5).unwrap();
            assert_eq!(scheduler.timesteps().len(), evaluations, "{kind:?}");
            assert!(scheduler.timesteps().windows(2).all(|w| w[0] >= w[1]), "{kind:?}");
            assert!(spec.build(0).is_err(), "{kind:?}");
        }
    }
}
