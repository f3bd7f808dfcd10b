//! Pictures, masks and clips: reading, writing, colour.

mod picture;
mod raster;

pub use picture::{Mask, Picture, PictureError};
pub use raster::{Raster, byte_from_signed};
