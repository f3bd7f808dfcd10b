//! Work that must not hold the window up, each on a thread of its own.

pub(crate) mod dialogs;
pub(crate) mod forecast;
pub(crate) mod images;
pub(crate) mod masks;
pub(crate) mod models;
pub(crate) mod moving;
pub(crate) mod opener;
pub(crate) mod pictures;
pub(crate) mod player;
pub(crate) mod runner;
pub(crate) mod share;
mod shop;
pub(crate) mod sound;
pub(crate) mod waves;
pub(crate) mod worker;

use std::sync::Arc;

pub(crate) use shop::Shop;

/// Tells the window that there is something new to show.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;
