//! `image.load`: a picture from a file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NodeOp, PICTURE_PORTS};
use crate::media::{ImageLimits, read_picture};
use crate::workflow::context::{NodeContext, RunError};
use crate::workflow::fields::PortKind;
use crate::workflow::forecast::{Shape, Work};
use crate::workflow::value::Value;

/// Loads a picture, turned as its camera says and converted to sRGB.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageLoad {
    /// The picture: PNG, JPEG, WebP or GIF (and AVIF where FFmpeg has it).
    #[schemars(length(min = 1))]
    pub path: String,
}

impl NodeOp for ImageLoad {
    fn outputs(&self) -> &'static [(&'static str, PortKind)] {
        PICTURE_PORTS
    }

    fn reads(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn forecast(&self, inputs: &[(String, Shape)]) -> (Shape, Work) {
        let shape = Shape::of_file(inputs);
        (shape, Work::decode(shape))
    }

    fn run(&self, context: &mut NodeContext<'_>) -> Result<Value, RunError> {
        let path = context.file(&self.path)?;
        let picture = read_picture(&path, &ImageLimits::default())?;
        Ok(Value::picture(picture))
    }
}
