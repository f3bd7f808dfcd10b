//! `mask.import`: a mask painted elsewhere.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Input, MASK_PORTS, NodeOp, PICTURE};
use crate::media::{ImageLimits, Mask, read_mask, resize_mask};
use crate::workflow::context::{NodeContext, RunError};
use crate::workflow::fields::{Link, PortKind};
use crate::workflow::forecast::{Shape, Work};
use crate::workflow::value::Value;

/// Loads a mask: white moves, black stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaskImport {
    /// The mask file; its alpha when it has one, else its brightness.
    #[schemars(length(min = 1))]
    pub path: String,
    /// The picture it belongs to; the mask is brought to its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Link>,
    /// Swaps inside and outside.
    #[serde(default)]
    pub invert: bool,
    /// Softens the edge over this many pixels.
    #[serde(default)]
    #[schemars(extend("minimum" = 0, "maximum" = 512))]
    pub feather: f64,
    /// Grows the mask by this many pixels; shrinks it when negative.
    #[serde(default)]
    #[schemars(extend("minimum" = -512, "maximum" = 512))]
    pub dilate: f64,
}

impl NodeOp for MaskImport {
    fn inputs(&self) -> Vec<Input<'_>> {
        self.image.iter().map(|link| Input::new("image", link, PICTURE)).collect()
    }

    fn outputs(&self) -> &'static [(&'static str, PortKind)] {
        MASK_PORTS
    }

    fn reads(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn forecast(&self, inputs: &[(String, Shape)]) -> (Shape, Work) {
        let shape = Shape::first(inputs);
        (shape, Work::decode(shape))
    }

    fn run(&self, context: &mut NodeContext<'_>) -> Result<Value, RunError> {
        let path = context.file(&self.path)?;
        let mut mask: Mask = read_mask(&path, &ImageLimits::default())?;
        if self.image.is_some() {
            let picture = context.picture_input("image")?;
            if (mask.width(), mask.height()) != (picture.width(), picture.height()) {
                let (ours, theirs) =
                    (aspect(mask.width(), mask.height()), aspect(picture.width(), picture.height()));
                if (ours / theirs).ln().abs() > 0.02 {
                    context.notice(format!(
                        "the mask is {}x{} and the picture {}x{}; the mask is stretched",
                        mask.width(),
                        mask.height(),
                        picture.width(),
                        picture.height()
                    ));
                }
                mask = resize_mask(&mask, picture.width(), picture.height());
            }
        }
        if self.invert {
            mask.alpha_mut().iter_mut().for_each(|alpha| *alpha = 1.0 - *alpha);
        }
        let mask = context.engines().refine(mask, self.dilate, self.feather)?;
        Ok(Value::mask(mask))
    }
}

fn aspect(width: u32, height: u32) -> f64 {
    f64::from(width) / f64::from(height)
}
