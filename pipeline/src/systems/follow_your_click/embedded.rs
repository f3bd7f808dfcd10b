//! The embedded model: a small Follow-Your-Click that needs no download.
//!
//! A motion net turns mask, prompt and magnitude into a displacement field; the photograph is
//! warped along it over a painted background ([`super::guide`]); the video UNet denoises the
//! residual to that guide in latent space; the decoder's picture is used where the photograph
//! knows nothing ([`super::detail`]).

mod config;
mod load;
mod preview;
mod render;

pub use config::EmbeddedConfig;
pub use load::{Embedded, Parts};
pub use render::Rendering;
