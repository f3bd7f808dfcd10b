//! The window driven as a person would drive it: by the names of what is on the screen.

mod crash;
mod export;
mod film;
mod flow;
mod jobs;
mod models;
mod monkey;
mod opening;
mod shell;
mod snapshots;
mod sound;
pub(crate) mod support;
mod takes;
mod timeline;
