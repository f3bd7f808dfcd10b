//! `image.save`: a picture or mask into a PNG or JPEG file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Checks, FILE_PORTS, Input, NodeOp, RASTER, extension_of};
use crate::media::{write_jpeg, write_mask_png, write_png_with_recipe};
use crate::workflow::context::{NodeContext, RunError};
use crate::workflow::fields::{Link, PortKind};
use crate::workflow::forecast::{Shape, Work};
use crate::workflow::value::{Digester, Value};

/// Saves a picture or a mask as one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSave {
    /// The picture or mask.
    pub image: Link,
    /// The file: .png (whole, with its recipe) or .jpg.
    #[schemars(length(min = 1))]
    pub path: String,
    /// JPEG quality.
    #[serde(default = "quality")]
    #[schemars(extend("minimum" = 1, "maximum" = 100))]
    pub quality: u8,
}

fn quality() -> u8 {
    92
}

impl NodeOp for ImageSave {
    fn inputs(&self) -> Vec<Input<'_>> {
        vec![Input::new("image", &self.image, RASTER)]
    }

    fn outputs(&self) -> &'static [(&'static str, PortKind)] {
        FILE_PORTS
    }

    fn check(&self, checks: &mut Checks<'_>) {
        checks.extension(&self.path, &["png", "jpg", "jpeg"]);
    }

    fn writes(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn forecast(&self, inputs: &[(String, Shape)]) -> (Shape, Work) {
        let shape = Shape::first(inputs);
        (shape, Work::encode(shape))
    }

    fn run(&self, context: &mut NodeContext<'_>) -> Result<Value, RunError> {
        let dest = context.output(&self.path)?;
        let mut digest = Digester::default();
        match context.input("image")? {
            Value::Picture(picture) => {
                digest.picture(&picture);
                if extension_of(&self.path) == "png" {
                    write_png_with_recipe(&dest, &picture, Some(context.recipe()), context.overwrite())?;
                } else {
                    write_jpeg(&dest, &picture, self.quality, context.overwrite())?;
                }
            }
            Value::Mask(mask) => {
                digest.mask(&mask);
                if extension_of(&self.path) != "png" {
                    return Err(RunError::input(format!("a mask is saved as .png, got {:?}", self.path)));
                }
                write_mask_png(&dest, &mask, context.overwrite())?;
            }
            other => return Err(other.unexpected("a picture or a mask")),
        }
        context.wrote(dest, 1, digest.finish())
    }
}
