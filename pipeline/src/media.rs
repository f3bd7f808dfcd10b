//! Pictures, masks and clips: reading, writing, colour.
//!
//! Images, GIF and PNG sequences need no system library; everything else goes through FFmpeg and
//! the `video` feature. All pictures inside Kinora are 8-bit sRGB; conversion happens here.

mod error;
mod exr;
#[cfg(feature = "video")]
mod ff;
mod icc;
mod image_in;
mod image_out;
mod jpeg_scan;
mod limits;
mod ops;
mod picture;
mod raster;
mod recipe;
mod video_in;
mod video_out;

pub use error::MediaError;
pub use image_in::{ALPHA_GROUND, read_mask, read_picture, stated_size};
pub use image_out::{write_jpeg, write_mask_png, write_png, write_png_with_recipe};
pub use limits::{ImageLimits, VideoLimits};
pub use ops::{crop, from_planes, resize, resize_mask, to_planes};
pub use picture::{Mask, Picture, PictureError};
pub use raster::{Raster, byte_from_signed};
pub use recipe::read_recipe;
pub use video_in::{
    Channels, Orientation, SOUND_RATE, SoundReader, TimedPicture, VideoInfo, VideoReader, loudness,
};
pub use video_out::{Codec, Colour, EncodeSpec, MediaSink, Quality, WrittenFile, create_sink, foreign_entry};
