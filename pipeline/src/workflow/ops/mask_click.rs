//! `mask.click`: the thing at a click.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Checks, Input, MASK_PORTS, NodeOp, PICTURE};
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

impl NodeOp for MaskClick {
    fn inputs(&self) -> Vec<Input<'_>> {
        vec![Input::new("image", &self.image, PICTURE)]
    }

    fn outputs(&self) -> &'static [(&'static str, PortKind)] {
        MASK_PORTS
    }

    fn check(&self, checks: &mut Checks<'_>) {
        if self.rectangle.is_none() && !self.points.iter().any(|point| point.keep) {
            let found = if self.points.is_empty() { "no click" } else { "only clicks beside it" };
            checks.field("points", "at least one click on the thing, or a \"box\"", found, None);
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
        let query = MaskQuery { points: &self.points, rectangle: self.rectangle, candidate: self.candidate };
        let mask = context.engines().click(&picture, &query)?;
        context.poll()?;
        let mask = context.engines().refine(mask, self.dilate, self.feather)?;
        Ok(Value::mask(mask))
    }
}
