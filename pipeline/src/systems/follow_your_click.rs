//! Follow-Your-Click (arXiv 2403.08268): a clicked region moves as a short prompt says.
//!
//! [`Animator`] is what the rest of Kinora knows: a job in, frames out. The embedded model and
//! public Stable Diffusion checkpoints are two implementations.

mod animation;
mod background;
mod choice;
mod complete;
pub mod detail;
pub mod embedded;
pub mod eval;
pub mod guide;
mod magnitude;
pub mod motions;
mod open;
mod preview;
pub mod public;
mod scenery;

use animation::validate;
pub use animation::{
    AnimateError, AnimationReport, Animator, ClickAnimation, Ease, Effort, FrameSink, Hooks, JobSize, Region,
    frame_phases,
};
pub use choice::{MAX_GUIDANCE, Sampler, SamplingChoice, WORKING_SIZES};
pub use magnitude::Magnitude;
pub use open::Models;
