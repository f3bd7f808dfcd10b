//! `mask.combine`: one mask out of several.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Input, MASK, MASK_PORTS, NodeOp};
use crate::workflow::context::{NodeContext, RunError};
use crate::workflow::fields::{Link, PortKind};
use crate::workflow::forecast::{Shape, Work};
use crate::workflow::value::Value;

/// Combines masks of one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaskCombine {
    /// The masks, in order.
    #[schemars(length(min = 1, max = 64))]
    pub masks: Vec<Link>,
    /// How they are combined.
    #[serde(default)]
    pub mode: CombineMode,
    /// Softens the edge over this many pixels.
    #[serde(default)]
    #[schemars(extend("minimum" = 0, "maximum" = 512))]
    pub feather: f64,
    /// Grows the mask by this many pixels; shrinks it when negative.
    #[serde(default)]
    #[schemars(extend("minimum" = -512, "maximum" = 512))]
    pub dilate: f64,
}

/// How masks are combined, per pixel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CombineMode {
    /// In any of them.
    #[default]
    Union,
    /// In all of them.
    Intersect,
    /// In the first and in none of the others.
    Subtract,
    /// In an odd number of them.
    Exclude,
}

impl CombineMode {
    fn apply(self, a: f32, b: f32) -> f32 {
        match self {
            Self::Union => a.max(b),
            Self::Intersect => a.min(b),
            Self::Subtract => a.min(1.0 - b),
            Self::Exclude => a + b - 2.0 * a * b,
        }
    }
}

impl NodeOp for MaskCombine {
    fn inputs(&self) -> Vec<Input<'_>> {
        self.masks.iter().enumerate().map(|(i, link)| Input::item("masks", i, link, MASK)).collect()
    }

    fn outputs(&self) -> &'static [(&'static str, PortKind)] {
        MASK_PORTS
    }

    fn forecast(&self, inputs: &[(String, Shape)]) -> (Shape, Work) {
        let shape = Shape::first(inputs);
        (shape, Work::decode(shape))
    }

    fn run(&self, context: &mut NodeContext<'_>) -> Result<Value, RunError> {
        let mut mask = (*context.mask_input("masks[0]")?).clone();
        for index in 1..self.masks.len() {
            let other = context.mask_input(&format!("masks[{index}]"))?;
            if (other.width(), other.height()) != (mask.width(), mask.height()) {
                return Err(RunError::input(format!(
                    "masks[{index}] has {}x{} pixels, expected {}x{} like masks[0]; give mask.import the \"image\" it belongs to",
                    other.width(),
                    other.height(),
                    mask.width(),
                    mask.height()
                )));
            }
            for (a, &b) in mask.alpha_mut().iter_mut().zip(other.alpha()) {
                *a = self.mode.apply(*a, b);
            }
        }
        let mask = context.engines().refine(mask, self.dilate, self.feather)?;
        Ok(Value::mask(mask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_masks_combine_as_sets() {
        let table =
            |mode: CombineMode| [(0., 0.), (1., 0.), (0., 1.), (1., 1.)].map(|(a, b)| mode.apply(a, b));
        assert_eq!(table(CombineMode::Union), [0., 1., 1., 1.]);
        assert_eq!(table(CombineMode::Intersect), [0., 0., 0., 1.]);
        assert_eq!(table(CombineMode::Subtract), [0., 1., 0., 0.]);
        assert_eq!(table(CombineMode::Exclude), [0., 1., 1., 0.]);
    }
}
