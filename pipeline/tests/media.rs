//! Files in and out: every format, every tag, every kind of bad input.
// Test helpers outside #[test] functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "media/bad_input.rs"]
mod bad_input;
#[cfg(feature = "video")]
#[path = "media/clips.rs"]
mod clips;
#[cfg(feature = "video")]
#[path = "media/colours.rs"]
mod colours;
#[path = "media/images.rs"]
mod images;
#[cfg(feature = "video")]
#[path = "media/memory.rs"]
mod memory;
#[cfg(feature = "video")]
#[path = "media/sound.rs"]
mod sound;
#[path = "media/support.rs"]
mod support;
