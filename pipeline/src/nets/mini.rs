//! The embedded model's own small networks: what moves where, and what is behind it.

mod caption;
mod motion_field;
mod plate;

pub use caption::{Caption, CaptionConfig, CaptionEncoder};
pub use motion_field::{FieldConfig, FrameField, Motion, MotionField};
pub use plate::{Plate, PlateConfig};
