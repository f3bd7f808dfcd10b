//! Files in and out: every format, every tag, every kind of bad input.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test they serve")]

#[path = "media/bad_input.rs"]
mod bad_input;
#[cfg(feature = "video")]
#[path = "media/clips.rs"]
mod clips;
#[path = "media/images.rs"]
mod images;
#[cfg(feature = "video")]
#[path = "media/memory.rs"]
mod memory;
#[path = "media/support.rs"]
mod support;
