//! The headless core of Kinora.
//!
//! Strictly layered; a module may call those below it, never those above:
//! [`workflow`] → [`systems`] → [`control`], [`sampling`], [`nets`] → [`media`] → [`store`].

pub mod control;
pub mod media;
pub mod nets;
pub mod progress;
pub mod sampling;
pub mod store;
pub mod systems;
pub mod workflow;
