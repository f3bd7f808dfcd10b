//! The machinery behind the ops that needs weights or devices, so that the graph can be planned
//! and tested without either.

use std::sync::Arc;

use super::context::RunError;
use super::fields::{Point, Rectangle};
use super::model_name::ModelName;
use super::ops::Candidate;
use crate::media::{Mask, Picture};
use crate::systems::follow_your_click::{AnimateError, Animator};

/// What `mask.click` asks for.
#[derive(Debug, Clone, Copy)]
pub struct MaskQuery<'a> {
    /// Clicks on the thing and beside it.
    pub points: &'a [Point],
    /// A rectangle around it.
    pub rectangle: Option<Rectangle>,
    /// Which answer to take.
    pub candidate: Candidate,
}

/// Gives ops their models. One per process; planning and running use the same.
pub trait Engines: Send + Sync {
    /// The animator of a `model` field: "embedded", a name of the registry, a hub id with revision, or a folder.
    /// Never uses the network, and reads no more of a large checkpoint than its headers.
    fn animator(&self, model: &ModelName<'_>) -> Result<Arc<dyn Animator>, AnimateError>;

    /// Cuts out the clicked thing; the mask has the picture's size.
    fn click(&self, picture: &Picture, query: &MaskQuery<'_>) -> Result<Mask, RunError>;

    /// Changes when [`Self::click`] answers differently; part of cache keys.
    fn click_digest(&self) -> String;

    /// Grows a mask by `dilate` pixels (shrinks when negative), then softens its edge over
    /// `feather` pixels.
    fn refine(&self, mask: Mask, dilate: f64, feather: f64) -> Result<Mask, RunError>;

    /// The device and arithmetic in use, such as "cpu f32 avx512"; part of cache keys and receipts.
    fn numeric_path(&self) -> String;
}
