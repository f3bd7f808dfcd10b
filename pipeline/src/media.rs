//! Pictures, masks and clips: reading, writing, colour.

mod picture;

pub use picture::{Mask, Picture, PictureError};
