//! The seam to a network that says which pixels catch the eye.

use crate::media::{Mask, Picture};

/// Why there is no saliency.
#[derive(Debug, thiserror::Error)]
pub enum SaliencyError {
    /// A map of another size.
    #[error("expected a saliency map of {width}x{height} like the picture, got {got_width}x{got_height}")]
    Size { width: u32, height: u32, got_width: u32, got_height: u32 },
    /// The network failed.
    #[error("saliency network: {0}")]
    Network(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Finds what stands out; U²-Net-p is one implementation, a closure another.
pub trait Saliency {
    /// Saliency 0..1 per pixel, in the size of `picture`.
    fn saliency(&self, picture: &Picture) -> Result<Mask, SaliencyError>;
}

impl<F: Fn(&Picture) -> Result<Mask, SaliencyError>> Saliency for F {
    fn saliency(&self, picture: &Picture) -> Result<Mask, SaliencyError> {
        self(picture)
    }
}
