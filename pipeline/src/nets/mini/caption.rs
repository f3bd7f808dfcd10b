//! The caption encoder: the CLIP text layout with a narrow token table, and a head that names the
//! motion it understood. `assets/models/kinora-mini/training/text.py`.

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;
use kinora_kernels::Linear;
use serde::Deserialize;

use crate::nets::clip_text::{ClipText, ClipTextConfig};
use crate::nets::weights::{self, NetError, Result};

/// Sizes of the caption encoder: those of the text transformer, and how many motions it names.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CaptionConfig {
    /// The text transformer.
    #[serde(flatten)]
    pub text: ClipTextConfig,
    /// Motions, without the "unrecognised" column.
    pub num_kinds: usize,
}

/// What a caption says.
#[derive(Debug, Clone)]
pub struct Caption {
    /// `[batch, tokens, width]`, what cross-attention reads.
    pub hidden: Tensor,
    /// `[batch, width]`, the state at the first end-of-text token.
    pub pooled: Tensor,
    /// Per prompt, a probability for each motion and last for "unrecognised"; several may be high.
    pub kinds: Vec<Vec<f32>>,
}

/// Tokens to conditioning and to the names of motions.
#[derive(Debug, Clone)]
pub struct CaptionEncoder {
    text: ClipText,
    kind_head: Linear,
}

impl CaptionEncoder {
    /// Reads `text_model.…` and `kind_head`.
    ///
    /// # Errors
    /// No end-of-text id, or missing, misshapen or non-finite weights.
    pub fn new(config: &CaptionConfig, vb: VarBuilder) -> Result<Self> {
        if config.num_kinds == 0 {
            return Err(NetError::config("caption encoder", "num_kinds must be at least 1"));
        }
        let columns = config.num_kinds + 1;
        Ok(Self {
            kind_head: weights::linear(&vb.pp("kind_head"), config.text.hidden_size, columns)?,
            text: ClipText::new(&config.text, vb)?,
        })
    }

    /// The configuration of the text transformer.
    pub fn config(&self) -> &ClipTextConfig {
        self.text.config()
    }

    /// `ids` is `[batch, tokens]` of `u32`.
    ///
    /// # Errors
    /// Too many tokens or an id outside the vocabulary.
    pub fn forward(&self, ids: &Tensor) -> Result<Caption> {
        let out = self.text.forward(ids)?;
        let logits = self.kind_head.forward(&out.pooled)?.to_dtype(DType::F32)?;
        let kinds = candle_nn::ops::sigmoid(&logits)?.to_vec2()?;
        Ok(Caption { hidden: out.hidden, pooled: out.pooled, kinds })
    }
}
