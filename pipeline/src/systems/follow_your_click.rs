//! Follow-Your-Click (arXiv 2403.08268): a clicked region moves as a short prompt says.
//!
//! [`Animator`] is what the rest of Kinora knows: a job in, frames out. The embedded model and
//! public Stable Diffusion checkpoints are two implementations.

mod animation;
mod complete;
pub mod detail;
pub mod embedded;
pub mod eval;
pub mod guide;
pub mod motions;
pub mod public;
mod scenery;

pub use animation::{
    AnimateError, AnimationReport, Animator, ClickAnimation, Ease, FrameSink, Hooks, Region, frame_phases,
};
