//! Public checkpoints: Stable Diffusion 1.5 with AnimateDiff, PIA or Follow-Your-Click weights.
//!
//! The paper's plain path: text encode, first frame into the autoencoder, mask and first-frame
//! latents beside the noisy ones where the network reads them, guided denoising with the background
//! pinned to the photograph, and decoding frame by frame.

mod condition;
mod decode;
mod effort;
mod files;
mod fit;
mod load;
mod options;
mod render;

pub use condition::{ConditionLayout, image_channels, pia_affinity};
pub use files::CheckpointFiles;
pub use load::{Public, PublicParts, Shelf};
pub use options::PublicOptions;
pub use render::{ClipRequest, Pin};
