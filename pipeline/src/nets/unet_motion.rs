//! The Stable Diffusion UNet inflated to video with AnimateDiff motion modules.
//!
//! One class serves SD1.5, AnimateDiff v1–v3, PIA, Follow-Your-Click and the embedded model:
//! [`UnetMotionConfig`] says which parts exist. Field and weight paths are those of diffusers'
//! `UNet2DConditionModel` and `UNetMotionModel`. Activations are channels-last inside,
//! `[batch · frames, height, width, channels]`, frames of one clip next to each other.
//!
//! Sources: Rombach et al. 2022 (UNet), Guo et al. 2023 (motion modules), Ma et al. 2024
//! (Follow-Your-Click: 9-channel input, motion-augmented cross-attention, motion strength).

mod blocks;
mod conditioning;
mod config;
mod embedding;
mod error;
mod layers;
mod model;
mod motion;
mod parameters;
mod regions;
mod resnet;
mod spatial;

pub use conditioning::{
    InputLayout, MaskInput, MotionSize, NINE_CHANNELS, latent_mask, nine_channels, pia_affinity,
};
pub use config::{MotionConfig, PerLevel, PhraseAttentionConfig, TimeScaleShift, UnetMotionConfig};
pub use embedding::sinusoid;
pub use error::UnetError;
pub use layers::Probe;
pub use model::{UnetMotion, UnetMotionInput};
pub use parameters::{Parameters, parameter_count};
pub use regions::Region;
