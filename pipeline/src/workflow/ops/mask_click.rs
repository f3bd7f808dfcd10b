//! `mask.click`: the thing at a click.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Checks, Input, MASK_PORTS, NodeOp, PICTURE};
use crate::control::mask::{Stroke, paint};
use crate::media::{Mask, PictureError};
use crate::workflow::context::{NodeContext, RunError};
use crate::workflow::engines::MaskQuery;
use crate::workflow::fields::{Link, Point, PortKind, Rectangle};
use crate::workflow::forecast::{Shape, Work};
use crate::workflow::value::Value;

/// Finds the thing that was clicked on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaskClick {
    /// The picture.
    pub image: Link,
    /// Clicks on the thing (`keep`: true) and beside it (`keep`: false).
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub points: Vec<Point>,
    /// A rectangle around the thing.
    #[serde(default, rename = "box", skip_serializing_if = "Option::is_none")]
    pub rectangle: Option<Rectangle>,
    /// Brush and eraser over what the clicks found, or over nothing where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub strokes: Vec<Stroke>,
    /// Which answer to take when a click could mean several things.
    #[serde(default)]
    pub candidate: Candidate,
    /// Softens the edge over this many pixels.
    #[serde(default)]
    #[schemars(extend("minimum" = 0, "maximum" = 512))]
    pub feather: f64,
    /// Grows the mask by this many pixels; shrinks it when negative.
    #[serde(default)]
    #[schemars(extend("minimum" = -512, "maximum" = 512))]
    pub dilate: f64,
}

/// Which of the answers of a click.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Candidate {
    /// The one that scores best.
    #[default]
    Best,
    /// The smallest: a part of the thing.
    Part,
    /// The thing.
    Object,
    /// The thing and what belongs to it.
    Whole,
    /// What stands out in the picture at that place.
    Salient,
}

impl MaskClick {
    /// What the clicks and the box ask for; `None` where only strokes give the shape.
    pub fn query(&self) -> Option<MaskQuery<'_>> {
        let asked = self.rectangle.is_some() || self.points.iter().any(|point| point.keep);
        asked.then(|| MaskQuery {
            points: &self.points,
            rectangle: self.rectangle,
            candidate: self.candidate,
        })
    }

    /// The shape with the strokes over it. Without `found` they are drawn on an empty mask of that
    /// size.
    ///
    /// # Errors
    /// A size without pixels.
    pub fn painted(&self, found: Option<Mask>, width: u32, height: u32) -> Result<Mask, PictureError> {
        let empty = || Mask::new(width, height, vec![0.0; width as usize * height as usize]);
        let mut mask = found.map_or_else(empty, Ok)?;
        paint(&mut mask, &self.strokes);
        Ok(mask)
    }
}

impl NodeOp for MaskClick {
    /// 2: strokes.
    fn version(&self) -> u32 {
        2
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        vec![Input::new("image", &self.image, PICTURE)]
    }

    fn outputs(&self) -> &'static [(&'static str, PortKind)] {
        MASK_PORTS
    }

    fn check(&self, checks: &mut Checks<'_>) {
        if self.query().is_none() && self.strokes.iter().all(|stroke| stroke.erase) {
            let found = if self.points.is_empty() { "no click" } else { "only clicks beside it" };
            let expected = "at least one click on the thing, a \"box\", or a stroke that adds";
            checks.field("points", expected, found, None);
        }
        if let Some(r) = self.rectangle
            && (r.x1 <= r.x0 || r.y1 <= r.y0)
        {
            checks.field("box", "x0 < x1 and y0 < y1", "a box without area", None);
        }
    }

    fn forecast(&self, inputs: &[(String, Shape)]) -> (Shape, Work) {
        let shape = Shape::first(inputs);
        (shape, Work::select(shape))
    }

    fn run(&self, context: &mut NodeContext<'_>) -> Result<Value, RunError> {
        let picture = context.picture_input("image")?;
        context.poll()?;
        let found = self.query().map(|query| context.engines().click(&picture, &query)).transpose()?;
        let mask = self.painted(found, picture.width(), picture.height());
        let mask = mask.map_err(|error| RunError::input(error.to_string()))?;
        context.poll()?;
        let mask = context.engines().refine(mask, self.dilate, self.feather)?;
        Ok(Value::mask(mask))
    }
}
