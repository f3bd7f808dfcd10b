//! Networks: forward only, generic over their configuration, weights through one `VarBuilder`.
//!
//! Field and weight paths mirror the names of the public checkpoints. Image-shaped tensors are
//! channels-last, `[n, height, width, channels]`. A network never names a device or a file.

pub mod autoencoder_kl;
pub mod autoencoder_tiny;
pub mod clip_text;
pub mod clip_tokenizer;
pub mod layouts;
pub mod mini;
pub mod tiling;
pub mod u2netp;
pub mod unet_motion;
pub mod weights;

pub use autoencoder_kl::{AutoencoderKl, AutoencoderKlConfig};
pub use autoencoder_tiny::{AutoencoderTiny, AutoencoderTinyConfig};
pub use clip_text::{ClipText, ClipTextConfig, ClipTextOutput};
pub use clip_tokenizer::{ClipTokenizer, TokenizedPrompt, TokenizerError};
pub use u2netp::{U2Netp, U2NetpConfig};
pub use unet_motion::{UnetMotion, UnetMotionConfig, UnetMotionInput};
pub use weights::NetError;
