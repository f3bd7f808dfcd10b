//! Turning noise into latents: generators, noise schedules, samplers, guidance and the denoise loop.

pub mod checkpoint;
pub mod denoise;
pub mod guidance;
pub mod noise;
pub mod schedule;
pub mod scheduler;
pub mod schedulers;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use denoise::{
    CheckpointPolicy, DenoiseError, DenoiseOutcome, DenoiseSpec, Denoiser, Hooks, StepReport, Terms,
};
pub use guidance::Guidance;
pub use noise::Philox;
pub use schedule::{BetaKind, NoiseSchedule, ScheduleError, ScheduleSpec, Spacing};
pub use scheduler::{Prediction, Scheduler, SchedulerError, SchedulerState, StepWeights};
pub use schedulers::{SamplerKind, SamplerSpec};
