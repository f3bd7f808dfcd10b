//! How well a model follows clicks, measured where the truth is known.
//!
//! A case pastes a piece of one held-out photograph on another and moves it by an exact formula
//! ([`super::motions`]). The model sees frame 0, the mask and a prompt; its clip is compared with
//! the true one.

mod kept;
mod measure;
mod report;
mod run;
mod scene;

pub use kept::KeptCases;
pub use measure::{CaseResult, Fit};
pub use report::{Bar, Report, Summary};
pub use run::{EvalError, EvalOptions, Phrases, Prompts, evaluate};
pub use scene::{Case, SIDE};
