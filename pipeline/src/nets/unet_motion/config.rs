//! Which parts the network has and how wide they are.

use serde::{Deserialize, Serialize};

use super::error::{Result, UnetError};

/// One value for all resolution levels, or one a level, finest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerLevel<T> {
    /// The same everywhere.
    All(T),
    /// One a level.
    Each(Vec<T>),
}

impl<T: Copy + Default> PerLevel<T> {
    /// The value of `level`; the default value past the end of a list that
    /// [`UnetMotionConfig::validate`] would refuse.
    pub fn at(&self, level: usize) -> T {
        match self {
            Self::All(value) => *value,
            Self::Each(values) => values.get(level).copied().unwrap_or_default(),
        }
    }

    fn check_len(&self, field: &'static str, levels: usize) -> Result<()> {
        match self {
            Self::Each(values) if values.len() != levels => Err(UnetError::Config {
                field,
                problem: format!("has {} values, expected one for each of {levels} levels", values.len()),
            }),
            _ => Ok(()),
        }
    }
}

/// How the time embedding enters a resnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeScaleShift {
    /// Added before the second norm.
    #[default]
    Default,
    /// Projected to twice the width; multiplies by `1 + scale` and adds `shift` after the second
    /// norm.
    ScaleShift,
}

/// Motion-augmented cross-attention to a short motion phrase (Follow-Your-Click §3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PhraseAttentionConfig {
    /// Whether queries get the frame position added, as in the self-attentions.
    pub ma_query_pe: bool,
}

impl Default for PhraseAttentionConfig {
    fn default() -> Self {
        Self { ma_query_pe: true }
    }
}

/// The temporal transformers between the spatial layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MotionConfig {
    /// Levels that have motion modules, in the down and in the up path.
    pub levels: PerLevel<bool>,
    /// Whether the mid block has one (AnimateDiff v2).
    pub mid: bool,
    /// Temporal self-attentions a module, 1 or 2.
    pub self_attentions: usize,
    /// Attention heads.
    pub heads: PerLevel<usize>,
    /// Frames the positional encoding covers (24 in AnimateDiff v1, 32 after).
    pub max_frames: usize,
    /// Groups of the module's norm.
    pub norm_groups: usize,
    /// Inner width of the feed-forward over its outer width.
    pub ff_mult: usize,
    /// The phrase cross-attention, if the module has one.
    pub phrase_attention: Option<PhraseAttentionConfig>,
}

impl Default for MotionConfig {
    /// AnimateDiff v3: no mid module, 32 frames.
    fn default() -> Self {
        Self {
            levels: PerLevel::All(true),
            mid: false,
            self_attentions: 2,
            heads: PerLevel::All(8),
            max_frames: 32,
            norm_groups: 32,
            ff_mult: 4,
            phrase_attention: None,
        }
    }
}

/// Everything that decides the network's parameters and arithmetic.
///
/// The default is SD1.5 with AnimateDiff v3 modules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UnetMotionConfig {
    /// Channels of the input: 4 latents; 9 with mask and first frame.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Width of each resolution level, finest first.
    pub block_out_channels: Vec<usize>,
    /// Resnets a level in the down path; the up path has one more.
    pub layers_per_block: PerLevel<usize>,
    /// Levels of the down path that have spatial transformers.
    pub down_attention: PerLevel<bool>,
    /// Whether the mid block has a spatial transformer.
    pub mid_attention: bool,
    /// Levels (finest first) of the up path that have spatial transformers; as the down path if
    /// absent.
    pub up_attention: Option<PerLevel<bool>>,
    /// Attention heads of the spatial transformers of a level (a count, whatever SD's
    /// `attention_head_dim` is called). The mid block uses the last level's.
    pub heads: PerLevel<usize>,
    /// Width of the time embedding; four times the first level's if absent.
    pub time_embed_dim: Option<usize>,
    /// Width of the text states.
    pub cross_attention_dim: usize,
    /// Inner width of a feed-forward over its outer width.
    pub ff_mult: usize,
    /// Whether the spatial transformers' projections are stored as linear layers rather than
    /// 1×1 convolutions.
    pub use_linear_projection: bool,
    /// Groups of resnet, transformer and output norms.
    pub norm_groups: usize,
    /// Epsilon of resnet and output norms; transformer norms have 1e-6.
    pub norm_eps: f64,
    /// How the time embedding enters resnets.
    pub resnet_time_scale_shift: TimeScaleShift,
    /// Statistics of resnet norms and of `conv_norm_out` over all frames of a clip (AnimateDiff
    /// v1, the released Follow-Your-Click configuration).
    pub resnet_norm_over_frames: bool,
    /// Statistics of the motion modules' norm over all frames of a clip (diffusers).
    pub temporal_norm_over_frames: bool,
    /// Spatial self-attention also sees the keys and values of frame 0.
    pub first_frame_attention: bool,
    /// Whether there is a `motion_embedding` of the motion strength.
    pub strength_embedding: bool,
    /// Whether there is an `fps_embedding`.
    pub fps_embedding: bool,
    /// Motion modules; without them the network denoises each frame alone.
    pub motion: Option<MotionConfig>,
}

impl Default for UnetMotionConfig {
    fn default() -> Self {
        Self {
            in_channels: 4,
            out_channels: 4,
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: PerLevel::All(2),
            down_attention: PerLevel::Each(vec![true, true, true, false]),
            mid_attention: true,
            up_attention: None,
            heads: PerLevel::All(8),
            time_embed_dim: None,
            cross_attention_dim: 768,
            ff_mult: 4,
            use_linear_projection: false,
            norm_groups: 32,
            norm_eps: 1e-5,
            resnet_time_scale_shift: TimeScaleShift::Default,
            resnet_norm_over_frames: false,
            temporal_norm_over_frames: false,
            first_frame_attention: false,
            strength_embedding: false,
            fps_embedding: false,
            motion: Some(MotionConfig::default()),
        }
    }
}

impl UnetMotionConfig {
    /// SD1.5 alone: no motion modules.
    pub fn sd15() -> Self {
        Self { motion: None, ..Self::default() }
    }

    /// SD1.5 with AnimateDiff v1 modules (`mm_sd_v14`, `mm_sd_v15`): 24 frames, resnet norms over
    /// frames.
    pub fn animatediff_v1() -> Self {
        Self {
            resnet_norm_over_frames: true,
            motion: Some(MotionConfig { max_frames: 24, ..MotionConfig::default() }),
            ..Self::default()
        }
    }

    /// SD1.5 with AnimateDiff v2 modules (`mm_sd_v15_v2`): a mid module, 32 frames.
    pub fn animatediff_v2() -> Self {
        Self { motion: Some(MotionConfig { mid: true, ..MotionConfig::default() }), ..Self::default() }
    }

    /// SD1.5 with AnimateDiff v3 modules (`v3_sd15_mm`).
    pub fn animatediff_v3() -> Self {
        Self::default()
    }

    /// PIA: AnimateDiff v1's arithmetic with 32 frames and 9 input channels.
    pub fn pia() -> Self {
        Self { in_channels: 9, resnet_norm_over_frames: true, ..Self::default() }
    }

    /// The Follow-Your-Click checkpoint as its public configuration describes it; with `phrase`
    /// also the paper's motion-augmented cross-attention.
    pub fn follow_your_click(phrase: bool) -> Self {
        Self {
            in_channels: 9,
            strength_embedding: true,
            fps_embedding: true,
            motion: Some(MotionConfig {
                max_frames: 24,
                phrase_attention: phrase.then(PhraseAttentionConfig::default),
                ..MotionConfig::default()
            }),
            ..Self::animatediff_v1()
        }
    }

    /// Number of resolution levels.
    pub fn levels(&self) -> usize {
        self.block_out_channels.len()
    }

    /// Width of the finest level.
    pub fn base_channels(&self) -> usize {
        self.block_out_channels.first().copied().unwrap_or_default()
    }

    /// Width of the coarsest level and the mid block.
    pub fn mid_channels(&self) -> usize {
        self.block_out_channels.last().copied().unwrap_or_default()
    }

    /// Width of the time embedding.
    pub fn time_dim(&self) -> usize {
        self.time_embed_dim.unwrap_or(4 * self.base_channels())
    }

    /// Whether the up path has spatial transformers at `level`.
    pub fn up_attention_at(&self, level: usize) -> bool {
        self.up_attention.as_ref().unwrap_or(&self.down_attention).at(level)
    }

    /// Motion modules of `level`, if it has them.
    pub fn motion_at(&self, level: usize) -> Option<&MotionConfig> {
        self.motion.as_ref().filter(|motion| motion.levels.at(level))
    }

    /// The mid block's motion module, if it has one.
    pub fn motion_mid(&self) -> Option<&MotionConfig> {
        self.motion.as_ref().filter(|motion| motion.mid)
    }

    /// Most frames a call may have; any number without motion modules.
    pub fn max_frames(&self) -> Option<usize> {
        self.motion.as_ref().map(|motion| motion.max_frames)
    }

    /// Whether [`super::UnetMotionInput::phrase`] is read.
    pub fn reads_phrase(&self) -> bool {
        self.motion.as_ref().is_some_and(|motion| motion.phrase_attention.is_some())
    }

    /// Refuses what no network can be built from, naming the field.
    pub fn validate(&self) -> Result<()> {
        let levels = self.levels();
        let positive = [
            ("block_out_channels", self.block_out_channels.iter().copied().min().unwrap_or(0)),
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("cross_attention_dim", self.cross_attention_dim),
            ("ff_mult", self.ff_mult),
            ("norm_groups", self.norm_groups),
            ("time_embed_dim", self.time_dim()),
        ];
        for (field, value) in positive {
            if value == 0 {
                return Err(UnetError::Config {
                    field,
                    problem: "must be at least 1, got 0 or nothing".into(),
                });
            }
        }
        if !self.base_channels().is_multiple_of(2) {
            return Err(UnetError::Config {
                field: "block_out_channels",
                problem: format!("must begin with an even width, got {}", self.base_channels()),
            });
        }
        self.layers_per_block.check_len("layers_per_block", levels)?;
        self.down_attention.check_len("down_attention", levels)?;
        self.heads.check_len("heads", levels)?;
        if let Some(up) = &self.up_attention {
            up.check_len("up_attention", levels)?;
        }
        for (level, &channels) in self.block_out_channels.iter().enumerate() {
            if self.layers_per_block.at(level) == 0 {
                return Err(UnetError::Config {
                    field: "layers_per_block",
                    problem: "must be at least 1, got 0".into(),
                });
            }
            divides("norm_groups", self.norm_groups, channels)?;
            let attends = self.down_attention.at(level)
                || self.up_attention_at(level)
                || (self.mid_attention && level + 1 == levels);
            if attends {
                divides("heads", self.heads.at(level), channels)?;
            }
        }
        self.motion.as_ref().map_or(Ok(()), |motion| self.validate_motion(motion))
    }

    fn validate_motion(&self, motion: &MotionConfig) -> Result<()> {
        motion.levels.check_len("motion.levels", self.levels())?;
        motion.heads.check_len("motion.heads", self.levels())?;
        for (level, &channels) in self.block_out_channels.iter().enumerate() {
            let last = level + 1 == self.levels();
            if motion.levels.at(level) || (motion.mid && last) {
                divides("motion.heads", motion.heads.at(level), channels)?;
                divides("motion.norm_groups", motion.norm_groups, channels)?;
                divides("block_out_channels", 2, channels)?;
            }
        }
        if !(1..=2).contains(&motion.self_attentions) {
            return Err(UnetError::Config {
                field: "motion.self_attentions",
                problem: format!("must be 1 or 2, got {}", motion.self_attentions),
            });
        }
        for (field, value) in [("motion.max_frames", motion.max_frames), ("motion.ff_mult", motion.ff_mult)] {
            if value == 0 {
                return Err(UnetError::Config { field, problem: "must be at least 1, got 0".into() });
            }
        }
        Ok(())
    }
}

fn divides(field: &'static str, divisor: usize, channels: usize) -> Result<()> {
    if divisor == 0 || !channels.is_multiple_of(divisor) {
        return Err(UnetError::Config {
            field,
            problem: format!("must divide the width {channels} of its level, got {divisor}"),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid() {
        for config in [
            UnetMotionConfig::sd15(),
            UnetMotionConfig::animatediff_v1(),
            UnetMotionConfig::animatediff_v2(),
            UnetMotionConfig::animatediff_v3(),
            UnetMotionConfig::pia(),
            UnetMotionConfig::follow_your_click(true),
        ] {
            config.validate().unwrap();
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<UnetMotionConfig>(&text).unwrap(), config);
        }
    }

    #[test]
    fn json_takes_one_value_or_one_a_level_and_refuses_unknown_fields() {
        let config: UnetMotionConfig =
            serde_json::from_str(r#"{"block_out_channels":[32,64],"down_attention":[false,true],"heads":2}"#)
                .unwrap();
        assert_eq!(config.heads.at(1), 2);
        assert!(!config.up_attention_at(0) && config.up_attention_at(1));
        assert!(serde_json::from_str::<UnetMotionConfig>(r#"{"widths":[32]}"#).is_err());
    }

    #[test]
    fn wrong_sizes_name_their_field() {
        let base = UnetMotionConfig::default();
        let cases = [
            (UnetMotionConfig { block_out_channels: vec![], ..base.clone() }, "block_out_channels"),
            (UnetMotionConfig { heads: PerLevel::Each(vec![8, 8]), ..base.clone() }, "heads"),
            (UnetMotionConfig { heads: PerLevel::All(7), ..base.clone() }, "heads"),
            (UnetMotionConfig { norm_groups: 33, ..base.clone() }, "norm_groups"),
            (
                UnetMotionConfig {
                    motion: Some(MotionConfig { self_attentions: 3, ..MotionConfig::default() }),
                    ..base.clone()
                },
                "motion.self_attentions",
            ),
        ];
        for (config, expected) in cases {
            match config.validate() {
                Err(UnetError::Config { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
}
