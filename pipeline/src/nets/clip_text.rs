//! The CLIP text transformer (Radford et al. 2021), in the layout of `transformers.CLIPTextModel`.

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;
use kinora_kernels::{Activation, AttentionSpec, LayerNorm, Linear, Mask, attention};
use serde::Deserialize;

use super::weights::{self, NetError, Result};

const NET: &str = "CLIP text encoder";

/// The fields of a `text_encoder/config.json` this network reads; the default is Stable
/// Diffusion 1.5's ViT-L/14.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Longest token sequence.
    pub max_position_embeddings: usize,
    /// Feed-forward activation.
    pub hidden_act: TextActivation,
    /// Added to variances.
    pub layer_norm_eps: f64,
    /// The id whose first occurrence is pooled. The historical value 2 means "the highest id of
    /// the sequence", as early configurations named the wrong token.
    pub eos_token_id: u32,
    /// Width of a narrow token table that `embeddings.token_projection` brings to `hidden_size`;
    /// `None` for the usual full table.
    pub table_width: Option<usize>,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            vocab_size: 49408,
            max_position_embeddings: 77,
            hidden_act: TextActivation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: 2,
            table_width: None,
        }
    }
}

/// Activations text encoders are published with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextActivation {
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
    /// `x · Φ(x)`.
    Gelu,
}

/// What the encoder says about a batch of prompts.
#[derive(Debug, Clone)]
pub struct ClipTextOutput {
    /// `[batch, tokens, width]`, after the final layer norm.
    pub hidden: Tensor,
    /// `[batch, width]`: `hidden` at the first end-of-text token.
    pub pooled: Tensor,
}

/// A causal pre-norm transformer over token ids.
#[derive(Debug, Clone)]
pub struct ClipText {
    token_embedding: TokenEmbedding,
    position_embedding: Tensor,
    layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
    config: ClipTextConfig,
}

impl ClipText {
    /// Reads `text_model.…` keys, or the same keys without that prefix as transformers 5 writes
    /// them.
    ///
    /// # Errors
    /// A configuration that contradicts itself, or missing, misshapen or non-finite weights.
    pub fn new(config: &ClipTextConfig, vb: VarBuilder) -> Result<Self> {
        let width = config.hidden_size;
        if config.num_attention_heads == 0 || !width.is_multiple_of(config.num_attention_heads) {
            return Err(NetError::config(
                NET,
                format!(
                    "hidden_size {width} is not a multiple of num_attention_heads {}",
                    config.num_attention_heads
                ),
            ));
        }
        let vb =
            if vb.contains_tensor("embeddings.position_embedding.weight") { vb } else { vb.pp("text_model") };
        let embeddings = vb.pp("embeddings");
        let layers = (0..config.num_hidden_layers)
            .map(|i| Layer::new(config, &vb.pp("encoder.layers").pp(i)))
            .collect::<Result<_>>()?;
        Ok(Self {
            token_embedding: TokenEmbedding::new(config, &embeddings)?,
            position_embedding: weights::tensor(
                &embeddings.pp("position_embedding"),
                &[config.max_position_embeddings, width],
                "weight",
            )?,
            layers,
            final_layer_norm: weights::layer_norm(&vb.pp("final_layer_norm"), width, config.layer_norm_eps)?,
            config: config.clone(),
        })
    }

    /// The configuration it was built with.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// `ids` is `[batch, tokens]` of `u32` below `vocab_size`, at most `max_position_embeddings`
    /// tokens. Padding is not masked: the causal mask already hides what follows end-of-text
    /// from it, and diffusion models read the padding positions too.
    ///
    /// # Errors
    /// Too many tokens or an id outside the vocabulary.
    pub fn forward(&self, ids: &Tensor) -> Result<ClipTextOutput> {
        let (batch, tokens) = ids.dims2()?;
        if tokens == 0 || tokens > self.config.max_position_embeddings {
            return Err(NetError::input(
                NET,
                format!("1 to {} tokens a prompt", self.config.max_position_embeddings),
                ids.dims(),
            ));
        }
        let rows = ids.to_dtype(DType::U32)?.to_vec2::<u32>()?;
        if let Some(id) = rows.iter().flatten().find(|&&id| id as usize >= self.config.vocab_size) {
            return Err(NetError::input(NET, format!("token ids below {}", self.config.vocab_size), id));
        }
        let positions = self.position_embedding.narrow(0, 0, tokens)?;
        let mut x = self.token_embedding.forward(&ids.flatten_all()?)?;
        x = x.reshape((batch, tokens, self.config.hidden_size))?.broadcast_add(&positions)?;
        for layer in &self.layers {
            x = layer.forward(&x)?;
        }
        let hidden = self.final_layer_norm.forward(&x)?;
        let ends =
            rows.iter().enumerate().map(|(row, ids)| (row * tokens + self.pooled_position(ids)) as u32);
        let ends = Tensor::from_iter(ends, ids.device())?;
        let pooled = hidden.reshape((batch * tokens, self.config.hidden_size))?.index_select(&ends, 0)?;
        Ok(ClipTextOutput { hidden, pooled })
    }

    fn pooled_position(&self, ids: &[u32]) -> usize {
        let wanted = match self.config.eos_token_id {
            2 => ids.iter().copied().max().unwrap_or(0),
            eos => eos,
        };
        ids.iter().position(|&id| id == wanted).unwrap_or(0)
    }
}

#[derive(Debug, Clone)]
struct TokenEmbedding {
    table: Tensor,
    projection: Option<Linear>,
}

impl TokenEmbedding {
    fn new(config: &ClipTextConfig, vb: &VarBuilder) -> Result<Self> {
        let width = config.hidden_size;
        let columns = config.table_width.unwrap_or(width);
        let project = |inner| weights::linear_no_bias(&vb.pp("token_projection"), inner, width);
        Ok(Self {
            table: weights::tensor(&vb.pp("token_embedding"), &[config.vocab_size, columns], "weight")?,
            projection: config.table_width.map(project).transpose()?,
        })
    }

    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let rows = self.table.index_select(&ids.to_dtype(DType::U32)?.contiguous()?, 0)?;
        Ok(match &self.projection {
            None => rows,
            Some(projection) => projection.forward(&rows)?,
        })
    }
}

#[derive(Debug, Clone)]
struct Layer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    activation: Activation,
}

impl Layer {
    fn new(config: &ClipTextConfig, vb: &VarBuilder) -> Result<Self> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let attn = vb.pp("self_attn");
        Ok(Self {
            layer_norm1: weights::layer_norm(&vb.pp("layer_norm1"), width, config.layer_norm_eps)?,
            q_proj: weights::linear(&attn.pp("q_proj"), width, width)?,
            k_proj: weights::linear(&attn.pp("k_proj"), width, width)?,
            v_proj: weights::linear(&attn.pp("v_proj"), width, width)?,
            out_proj: weights::linear(&attn.pp("out_proj"), width, width)?,
            layer_norm2: weights::layer_norm(&vb.pp("layer_norm2"), width, config.layer_norm_eps)?,
            fc1: weights::linear(&vb.pp("mlp.fc1"), width, inner)?,
            fc2: weights::linear(&vb.pp("mlp.fc2"), inner, width)?,
            heads: config.num_attention_heads,
            activation: match config.hidden_act {
                TextActivation::QuickGelu => Activation::QuickGelu,
                TextActivation::Gelu => Activation::GeluErf,
            },
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let dim = width / self.heads;
        let split = |t: Tensor| t.reshape((batch, tokens, self.heads, dim))?.transpose(1, 2);
        let normed = self.layer_norm1.forward(x)?;
        let mixed = attention(
            &split(self.q_proj.forward(&normed)?)?,
            &split(self.k_proj.forward(&normed)?)?,
            &split(self.v_proj.forward(&normed)?)?,
            &AttentionSpec::new(dim).with_mask(Mask::Causal),
        )?;
        let mixed = mixed.transpose(1, 2)?.reshape((batch, tokens, width))?;
        let x = self.out_proj.forward_fused(&mixed, Activation::None, Some(x))?;
        let inner = self.fc1.forward_fused(&self.layer_norm2.forward(&x)?, self.activation, None)?;
        Ok(self.fc2.forward_fused(&inner, Activation::None, Some(&x))?)
    }
}
