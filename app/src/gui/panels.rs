//! The panels, one file each. They draw the state and push commands; the model does the work.

pub(crate) mod canvas;
pub(crate) mod inspector;
pub(crate) mod jobs;
pub(crate) mod making;
pub(crate) mod media;
pub(crate) mod models;
pub(crate) mod program;
mod prompt;
pub(crate) mod takes;
pub(crate) mod timeline;
