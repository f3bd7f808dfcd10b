//! Networks: forward passes only, named after the public checkpoints.

pub mod mini;
