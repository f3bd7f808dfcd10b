//! The window driven as a person would drive it: by the names of what is on the screen.

mod commands;
mod crash;
mod export;
mod film;
mod flow;
mod jobs;
mod journey;
mod keyboard;
mod models;
mod monkey;
mod opening;
mod public;
mod shell;
mod snapshots;
mod sound;
mod source;
pub(crate) mod support;
mod takes;
mod timeline;
