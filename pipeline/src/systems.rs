//! One folder a system: turns user controls into tensors, drives networks and sampling.

pub mod follow_your_click;
