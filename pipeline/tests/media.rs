//! Files in and out: every format, every tag, every kind of bad input.

#[path = "media/bad_input.rs"]
mod bad_input;
#[cfg(feature = "video")]
#[path = "media/clips.rs"]
mod clips;
#[path = "media/images.rs"]
mod images;
#[path = "media/support.rs"]
mod support;
