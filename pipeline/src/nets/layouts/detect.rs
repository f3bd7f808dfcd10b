//! Which layout a file's names belong to.

use super::error::{LayoutError, Result};
use super::lora::lora_part;
use super::motion::unwrapped;
use super::tensor_file::TensorFile;
use crate::nets::unet_motion::{MotionConfig, UnetMotionConfig};

/// What the keys of a motion module tell about its training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MotionVersion {
    /// Whether the mid block has a module: AnimateDiff v2.
    pub mid: bool,
    /// Frames its positional buffer covers; 32 if the file has none.
    pub max_frames: usize,
    /// Whether there is a third, phrase-reading attention.
    pub phrase: bool,
    /// Whether norms of resnets pool over frames: true for v1, told by 24 positions and no mid
    /// module.
    pub resnet_norm_over_frames: bool,
}

impl MotionVersion {
    /// `base` with these motion modules.
    pub fn apply(&self, base: &UnetMotionConfig) -> UnetMotionConfig {
        UnetMotionConfig {
            resnet_norm_over_frames: self.resnet_norm_over_frames,
            temporal_norm_over_frames: false,
            motion: Some(MotionConfig {
                mid: self.mid,
                max_frames: self.max_frames,
                phrase_attention: self.phrase.then(Default::default),
                ..base.motion.clone().unwrap_or_default()
            }),
            ..base.clone()
        }
    }
}

/// A recognised set of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// diffusers' `UNet2DConditionModel`.
    DiffusersUnet,
    /// diffusers' `AutoencoderKL`.
    DiffusersVae,
    /// transformers' `CLIPTextModel`.
    Text,
    /// One file for UNet, autoencoder and text encoder.
    SingleFile,
    /// Motion modules alone, either spelling.
    Motion(MotionVersion),
    /// Motion modules and a wider `conv_in`.
    Pia(MotionVersion),
    /// A UNet with its motion modules: diffusers' `UNetMotionModel` or a Follow-Your-Click
    /// checkpoint, which adds `motion_embedding` and `fps_embedding`.
    VideoUnet {
        /// Its motion modules.
        motion: MotionVersion,
        /// Channels `conv_in` reads.
        in_channels: usize,
        /// Whether there is a motion-strength embedding.
        strength: bool,
        /// Whether there is an fps embedding.
        fps: bool,
    },
    /// Low-rank updates of motion modules.
    MotionLora,
}

/// Recognises the layout of `file` from its names.
///
/// # Errors
/// [`LayoutError::Unknown`].
pub fn detect(file: &dyn TensorFile) -> Result<Layout> {
    let entries = file.entries();
    let has = |test: &dyn Fn(&str) -> bool| entries.keys().any(|key| test(unwrapped(key)));
    let motion = has(&|key| key.contains("motion_modules."));
    if has(&|key| key.starts_with("model.diffusion_model.")) {
        return Ok(Layout::SingleFile);
    }
    if motion && has(&|key| lora_part(key).is_some()) {
        return Ok(Layout::MotionLora);
    }
    if motion {
        let version = motion_version(file);
        let input = |key: &str| {
            entries
                .iter()
                .find(|(name, _)| unwrapped(name) == key)
                .and_then(|(_, entry)| entry.shape.get(1).copied())
        };
        let in_channels = input("conv_in.weight");
        if has(&|key| key.contains(".resnets.")) {
            return Ok(Layout::VideoUnet {
                motion: version,
                in_channels: in_channels.unwrap_or(4),
                strength: has(&|key| key.starts_with("motion_embedding.")),
                fps: has(&|key| key.starts_with("fps_embedding.")),
            });
        }
        return Ok(if in_channels.is_some() {
            Layout::Pia(pia_norms(version))
        } else {
            Layout::Motion(version)
        });
    }
    if has(&|key| key.starts_with("down_blocks.") && key.contains(".resnets.")) {
        return Ok(Layout::DiffusersUnet);
    }
    if has(&|key| key.starts_with("decoder.up_blocks.")) {
        return Ok(Layout::DiffusersVae);
    }
    if has(&|key| key.ends_with("embeddings.token_embedding.weight")) {
        return Ok(Layout::Text);
    }
    let first = entries.keys().next().cloned().unwrap_or_default();
    Err(LayoutError::Unknown { file: file.label().to_owned(), first })
}

fn motion_version(file: &dyn TensorFile) -> MotionVersion {
    let keys = || file.entries().keys();
    let positions = file.entries().iter().find(|(key, _)| key.ends_with(".pe"));
    let max_frames = positions.and_then(|(_, entry)| entry.shape.get(1).copied()).unwrap_or(32);
    let mid = keys().any(|key| key.contains("mid_block.motion_modules."));
    MotionVersion {
        mid,
        max_frames,
        phrase: keys().any(|key| key.contains(".attention_blocks.2.") || key.contains(".attn3.")),
        resnet_norm_over_frames: !mid && max_frames == 24,
    }
}

/// PIA's own code pools resnet norms over frames although its modules have 32 positions.
fn pia_norms(version: MotionVersion) -> MotionVersion {
    MotionVersion { resnet_norm_over_frames: true, ..version }
}
