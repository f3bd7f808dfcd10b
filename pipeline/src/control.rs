//! What people do to pictures, as plain data: clicks, boxes and strokes, the masks they mean, and
//! the motion asked of them.

pub mod click;
pub mod mask;
pub mod motion;
pub mod salient;
