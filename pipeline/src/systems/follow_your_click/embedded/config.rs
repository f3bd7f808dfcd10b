//! `config.json` of an embedded model.

use serde::Deserialize;

use crate::nets::AutoencoderTinyConfig;
use crate::nets::mini::{CaptionConfig, FieldConfig, PlateConfig};
use crate::nets::unet_motion::{MotionConfig, PerLevel, TimeScaleShift, UnetMotionConfig};

/// Everything that is not a weight.
#[derive(Debug, Clone, Deserialize)]
pub struct EmbeddedConfig {
    /// Name of the model.
    pub model: String,
    /// Version of the layout; this reader knows 1.
    pub version: u32,
    /// Frames a clip was trained with.
    pub frames: usize,
    /// Pixels a frame was trained with.
    pub area: usize,
    /// Denoise steps when none are asked for.
    pub default_steps: usize,
    /// The UNet's time input is the noise level times this.
    pub timestep_scale: f64,
    /// The UNet's strength input is the magnitude times this.
    pub strength_scale: f64,
    /// File names.
    pub files: Files,
    /// Names of the motions, in the order of the kind head's columns.
    pub kinds: Vec<String>,
    /// Column of the kind head that says "no motion".
    pub unrecognised_column: usize,
    /// Probability from which a motion counts as named.
    pub kind_threshold: f32,
    /// The denoiser.
    pub unet: MiniUnet,
    /// The autoencoder.
    pub autoencoder: AutoencoderTinyConfig,
    /// The text encoder.
    pub text: CaptionConfig,
    /// The motion field.
    pub field: FieldConfig,
    /// The background plate.
    pub plate: PlateConfig,
}

/// Files of the model, all in its folder.
#[derive(Debug, Clone, Deserialize)]
pub struct Files {
    /// Shards of the UNet.
    pub unet: Vec<String>,
    /// The autoencoder.
    pub autoencoder: Vec<String>,
    /// The text encoder and kind head.
    pub text: Vec<String>,
    /// The motion field.
    pub field: Vec<String>,
    /// The plate.
    pub plate: Vec<String>,
    /// Merges of the tokenizer.
    pub tokenizer: String,
    /// Prompts of training and evaluation.
    pub prompts: String,
}

/// The UNet as the training code names its switches.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MiniUnet {
    in_channels: usize,
    out_channels: usize,
    block_out_channels: Vec<usize>,
    layers_per_block: Vec<usize>,
    attention_levels: Vec<bool>,
    motion_levels: Vec<bool>,
    mid_attention: bool,
    mid_motion: bool,
    num_attention_heads: Vec<usize>,
    motion_num_attention_heads: Vec<usize>,
    norm_num_groups: usize,
    norm_eps: f64,
    cross_attention_dim: usize,
    ff_mult: usize,
    motion_num_self_attention: usize,
    motion_max_seq_length: usize,
    resnet_time_scale_shift: TimeScaleShift,
    first_frame_attention: bool,
    resnet_norm_over_frames: bool,
    temporal_norm_over_frames: bool,
    use_linear_projection: bool,
    time_embed_dim: usize,
}

impl MiniUnet {
    /// Latent channels the network denoises.
    pub fn latent_channels(&self) -> usize {
        self.out_channels
    }

    /// Pixels of the latent grid that the coarsest level halves down to one.
    pub fn latent_multiple(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    /// The general network's configuration.
    pub fn to_config(&self) -> UnetMotionConfig {
        UnetMotionConfig {
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            block_out_channels: self.block_out_channels.clone(),
            layers_per_block: PerLevel::Each(self.layers_per_block.clone()),
            down_attention: PerLevel::Each(self.attention_levels.clone()),
            mid_attention: self.mid_attention,
            up_attention: None,
            heads: PerLevel::Each(self.num_attention_heads.clone()),
            time_embed_dim: Some(self.time_embed_dim),
            cross_attention_dim: self.cross_attention_dim,
            ff_mult: self.ff_mult,
            use_linear_projection: self.use_linear_projection,
            norm_groups: self.norm_num_groups,
            norm_eps: self.norm_eps,
            resnet_time_scale_shift: self.resnet_time_scale_shift,
            resnet_norm_over_frames: self.resnet_norm_over_frames,
            temporal_norm_over_frames: self.temporal_norm_over_frames,
            first_frame_attention: self.first_frame_attention,
            strength_embedding: true,
            fps_embedding: false,
            motion: Some(MotionConfig {
                levels: PerLevel::Each(self.motion_levels.clone()),
                mid: self.mid_motion,
                self_attentions: self.motion_num_self_attention,
                heads: PerLevel::Each(self.motion_num_attention_heads.clone()),
                max_frames: self.motion_max_seq_length,
                norm_groups: self.norm_num_groups,
                ff_mult: self.ff_mult,
                phrase_attention: None,
            }),
        }
    }
}
