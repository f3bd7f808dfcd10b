//! The `config.json` files that diffusers and transformers put beside weights.
//!
//! Read leniently where a field does not change the network (versions, sample sizes), strictly where it would: a
//! field that asks for parts this UNet does not have is refused by name instead of giving a grey clip. Sizes are
//! bounded, because a file that claims a billion layers must not be believed before its weights are looked at.

use serde::Deserialize;
use serde_json::Value;

use super::error::{LayoutError, Result};
use crate::nets::unet_motion::{MotionConfig, PerLevel, TimeScaleShift, UnetMotionConfig};
use crate::nets::{AutoencoderKlConfig, ClipTextConfig};

/// Widest layer, longest sequence and largest count believed; Stable Diffusion's largest is the vocabulary.
const MAX_WIDTH: usize = 65_536;
/// Most resolution levels and layers of one block; public networks have 4 and 2, text encoders 12 layers.
const MAX_LAYERS: usize = 64;

/// What a `config.json` configures.
#[derive(Debug, Clone, PartialEq)]
pub enum PartConfig {
    /// `UNet2DConditionModel`.
    Unet(UnetMotionConfig),
    /// `UNetMotionModel`: the UNet with its motion modules.
    VideoUnet(UnetMotionConfig),
    /// `MotionAdapter`.
    Motion(MotionConfig),
    /// `AutoencoderKL`.
    Vae(AutoencoderKlConfig),
    /// `CLIPTextModel`.
    Text(ClipTextConfig),
    /// Something rendering does not read: a scheduler, a safety checker, an index of parts.
    Other,
}

/// Reads the content of a `config.json`; `label` names it in messages, `folder` is the name of the folder it lies
/// in, which tells the part where the content does not.
///
/// # Errors
/// [`LayoutError::Malformed`] for a field with a wrong type, beyond any sensible size, or one that asks for a network
/// this program does not have.
pub fn part_config(label: &str, folder: &str, content: &Value) -> Result<PartConfig> {
    let class = content
        .get("_class_name")
        .or_else(|| content.get("architectures").and_then(|list| list.get(0)))
        .and_then(Value::as_str)
        .unwrap_or(match folder {
            "unet" => "UNet2DConditionModel",
            "motion_adapter" => "MotionAdapter",
            "vae" => "AutoencoderKL",
            "text_encoder" => "CLIPTextModel",
            _ => "",
        });
    let wrong = |problem: String| LayoutError::malformed(label, problem);
    Ok(match class {
        "UNet2DConditionModel" => PartConfig::Unet(unet(content, false).map_err(wrong)?),
        "UNetMotionModel" => PartConfig::VideoUnet(unet(content, true).map_err(wrong)?),
        "MotionAdapter" => PartConfig::Motion(adapter(content).map_err(wrong)?),
        "AutoencoderKL" => PartConfig::Vae(vae(content).map_err(wrong)?),
        "CLIPTextModel" => PartConfig::Text(text(content).map_err(wrong)?),
        _ => PartConfig::Other,
    })
}

/// One value or one a level, as diffusers writes both.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(usize),
    Many(Vec<usize>),
}

impl OneOrMany {
    fn per_level(self) -> PerLevel<usize> {
        match self {
            Self::One(value) => PerLevel::All(value),
            Self::Many(values) => PerLevel::Each(values),
        }
    }

    fn values(&self) -> Vec<usize> {
        match self {
            Self::One(value) => vec![*value],
            Self::Many(values) => values.clone(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Unet {
    in_channels: usize,
    out_channels: usize,
    block_out_channels: Vec<usize>,
    layers_per_block: OneOrMany,
    down_block_types: Vec<String>,
    up_block_types: Option<Vec<String>>,
    mid_block_type: Option<String>,
    cross_attention_dim: usize,
    norm_num_groups: usize,
    norm_eps: f64,
    attention_head_dim: Option<OneOrMany>,
    num_attention_heads: Option<OneOrMany>,
    use_linear_projection: bool,
    resnet_time_scale_shift: String,
    transformer_layers_per_block: Option<Value>,
    addition_embed_type: Option<Value>,
    class_embed_type: Option<Value>,
    motion_max_seq_length: usize,
    motion_num_attention_heads: OneOrMany,
    motion_norm_num_groups: usize,
    use_motion_mid_block: bool,
}

impl Default for Unet {
    /// What diffusers fills in for Stable Diffusion 1.5.
    fn default() -> Self {
        let names = |first: &str, rest: &str| {
            let mut all = vec![rest.to_owned(); 3];
            all.push(first.to_owned());
            all
        };
        Self {
            in_channels: 4,
            out_channels: 4,
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: OneOrMany::One(2),
            down_block_types: names("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types: None,
            mid_block_type: Some("UNetMidBlock2DCrossAttn".to_owned()),
            cross_attention_dim: 768,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            attention_head_dim: None,
            num_attention_heads: None,
            use_linear_projection: false,
            resnet_time_scale_shift: "default".to_owned(),
            transformer_layers_per_block: None,
            addition_embed_type: None,
            class_embed_type: None,
            motion_max_seq_length: 32,
            motion_num_attention_heads: OneOrMany::One(8),
            motion_norm_num_groups: 32,
            use_motion_mid_block: true,
        }
    }
}

type Problem = std::result::Result<(), String>;

fn read<T: serde::de::DeserializeOwned>(content: &Value) -> std::result::Result<T, String> {
    serde_path_to_error::deserialize(content)
        .map_err(|error| format!("at {}: {}", error.path(), error.inner()))
}

fn within(field: &str, values: &[usize], most: usize) -> Problem {
    match values.iter().find(|value| !(1..=most).contains(*value)) {
        Some(value) => Err(format!("expected {field} from 1 to {most}, found {value}")),
        None if values.is_empty() || values.len() > MAX_LAYERS => {
            Err(format!("expected 1 to {MAX_LAYERS} values in {field}, found {}", values.len()))
        }
        None => Ok(()),
    }
}

/// `None`, `null` and, in a list, the same all over count as not asked for.
fn plain(field: &str, value: Option<&Value>, allowed: &Value) -> Problem {
    let fits = |value: &Value| value.is_null() || value == allowed;
    let ok = match value {
        None => true,
        Some(Value::Array(list)) => list.iter().all(fits),
        Some(value) => fits(value),
    };
    if ok {
        return Ok(());
    }
    let found = value.map(Value::to_string).unwrap_or_default();
    Err(format!(
        "{field} is {found}, which asks for another network; only those of the Stable Diffusion 1.5 kind are rendered"
    ))
}

/// Which levels attend, from the names of their blocks.
fn attends(field: &str, blocks: &[String], levels: usize) -> std::result::Result<Vec<bool>, String> {
    if blocks.len() != levels {
        return Err(format!("expected {levels} names in {field}, one a level, found {}", blocks.len()));
    }
    let kind = |name: &String| match name.as_str() {
        "CrossAttnDownBlock2D"
        | "CrossAttnUpBlock2D"
        | "CrossAttnDownBlockMotion"
        | "CrossAttnUpBlockMotion" => Ok(true),
        "DownBlock2D" | "UpBlock2D" | "DownBlockMotion" | "UpBlockMotion" => Ok(false),
        other => Err(format!("{field} names {other:?}, which this program does not have")),
    };
    blocks.iter().map(kind).collect()
}

fn unet(content: &Value, video: bool) -> std::result::Result<UnetMotionConfig, String> {
    let raw: Unet = read(content)?;
    let levels = raw.block_out_channels.len();
    within("block_out_channels", &raw.block_out_channels, MAX_WIDTH)?;
    if levels > 8 {
        return Err(format!("expected at most 8 levels in block_out_channels, found {levels}"));
    }
    within("layers_per_block", &raw.layers_per_block.values(), MAX_LAYERS)?;
    // The field that diffusers calls a dimension has always held the number of heads.
    let heads = raw.num_attention_heads.or(raw.attention_head_dim).unwrap_or(OneOrMany::One(8));
    within("attention_head_dim", &heads.values(), MAX_WIDTH)?;
    within("motion_num_attention_heads", &raw.motion_num_attention_heads.values(), MAX_WIDTH)?;
    let numbers = [
        ("in_channels", raw.in_channels),
        ("out_channels", raw.out_channels),
        ("cross_attention_dim", raw.cross_attention_dim),
        ("norm_num_groups", raw.norm_num_groups),
        ("motion_norm_num_groups", raw.motion_norm_num_groups),
        ("motion_max_seq_length", raw.motion_max_seq_length),
    ];
    for (field, value) in numbers {
        within(field, &[value], MAX_WIDTH)?;
    }
    plain("transformer_layers_per_block", raw.transformer_layers_per_block.as_ref(), &Value::from(1))?;
    plain("addition_embed_type", raw.addition_embed_type.as_ref(), &Value::Null)?;
    plain("class_embed_type", raw.class_embed_type.as_ref(), &Value::Null)?;
    let resnet_time_scale_shift = match raw.resnet_time_scale_shift.as_str() {
        "default" => TimeScaleShift::Default,
        "scale_shift" => TimeScaleShift::ScaleShift,
        other => {
            return Err(format!(
                "expected resnet_time_scale_shift \"default\" or \"scale_shift\", found {other:?}"
            ));
        }
    };
    let down = attends("down_block_types", &raw.down_block_types, levels)?;
    let up = match &raw.up_block_types {
        None => None,
        Some(names) => {
            let mut finest_first = attends("up_block_types", names, levels)?;
            finest_first.reverse();
            (finest_first != down).then_some(PerLevel::Each(finest_first))
        }
    };
    let mid_attention = match raw.mid_block_type.as_deref() {
        None | Some("UNetMidBlock2DCrossAttn" | "UNetMidBlockCrossAttnMotion") => true,
        Some("UNetMidBlock2D") => false,
        Some(other) => return Err(format!("mid_block_type is {other:?}, which this program does not have")),
    };
    let motion = MotionConfig {
        mid: raw.use_motion_mid_block,
        heads: raw.motion_num_attention_heads.per_level(),
        max_frames: raw.motion_max_seq_length,
        norm_groups: raw.motion_norm_num_groups,
        ..MotionConfig::default()
    };
    let config = UnetMotionConfig {
        in_channels: raw.in_channels,
        out_channels: raw.out_channels,
        block_out_channels: raw.block_out_channels,
        layers_per_block: raw.layers_per_block.per_level(),
        down_attention: PerLevel::Each(down),
        mid_attention,
        up_attention: up,
        heads: heads.per_level(),
        cross_attention_dim: raw.cross_attention_dim,
        use_linear_projection: raw.use_linear_projection,
        norm_groups: raw.norm_num_groups,
        norm_eps: raw.norm_eps,
        resnet_time_scale_shift,
        motion: video.then_some(motion),
        ..UnetMotionConfig::sd15()
    };
    config.validate().map_err(|error| error.to_string())?;
    Ok(config)
}

fn adapter(content: &Value) -> std::result::Result<MotionConfig, String> {
    let raw: Unet = read(content)?;
    within("motion_num_attention_heads", &raw.motion_num_attention_heads.values(), MAX_WIDTH)?;
    within("motion_norm_num_groups", &[raw.motion_norm_num_groups], MAX_WIDTH)?;
    within("motion_max_seq_length", &[raw.motion_max_seq_length], MAX_WIDTH)?;
    plain(
        "motion_transformer_layers_per_block",
        content.get("motion_transformer_layers_per_block"),
        &Value::from(1),
    )?;
    Ok(MotionConfig {
        mid: raw.use_motion_mid_block,
        heads: raw.motion_num_attention_heads.per_level(),
        max_frames: raw.motion_max_seq_length,
        norm_groups: raw.motion_norm_num_groups,
        ..MotionConfig::default()
    })
}

fn vae(content: &Value) -> std::result::Result<AutoencoderKlConfig, String> {
    let config: AutoencoderKlConfig = read(content)?;
    within("block_out_channels", &config.block_out_channels, MAX_WIDTH)?;
    if config.block_out_channels.len() > 8 {
        return Err(format!("expected at most 8 levels, found {}", config.block_out_channels.len()));
    }
    within("layers_per_block", &[config.layers_per_block], MAX_LAYERS)?;
    within("latent_channels", &[config.latent_channels], MAX_WIDTH)?;
    within("norm_num_groups", &[config.norm_num_groups], MAX_WIDTH)?;
    let scale = config.scaling_factor;
    if !scale.is_finite() || scale == 0.0 {
        return Err(format!("expected a scaling_factor that is a number other than 0, found {scale}"));
    }
    Ok(config)
}

fn text(content: &Value) -> std::result::Result<ClipTextConfig, String> {
    let config: ClipTextConfig = read(content)?;
    let numbers = [
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("num_attention_heads", config.num_attention_heads),
        ("max_position_embeddings", config.max_position_embeddings),
        ("vocab_size", config.vocab_size),
    ];
    for (field, value) in numbers {
        within(field, &[value], MAX_WIDTH)?;
    }
    within("num_hidden_layers", &[config.num_hidden_layers], MAX_LAYERS)?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sd15() -> Value {
        json!({
            "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu",
            "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": false,
            "cross_attention_dim": 768, "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D", "DownBlock2D"], "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0,
            "in_channels": 4, "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05,
            "norm_num_groups": 32, "out_channels": 4, "sample_size": 64, "up_block_types": ["UpBlock2D",
            "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]
        })
    }

    fn read_unet(content: &Value) -> std::result::Result<UnetMotionConfig, String> {
        match part_config("unet/config.json", "unet", content) {
            Ok(PartConfig::Unet(config)) => Ok(config),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_published_sd15_configuration_is_the_default() {
        let mut expected = UnetMotionConfig::sd15();
        expected.down_attention = PerLevel::Each(vec![true, true, true, false]);
        assert_eq!(read_unet(&sd15()).unwrap(), expected);
        assert_eq!(read_unet(&json!({})).unwrap(), expected, "the folder names the part");
    }

    #[test]
    fn an_adapter_tells_its_heads_and_frames() {
        let content = json!({ "_class_name": "MotionAdapter", "motion_num_attention_heads": 2,
            "motion_norm_num_groups": 4, "motion_max_seq_length": 24, "use_motion_mid_block": false });
        let PartConfig::Motion(config) = part_config("config.json", "", &content).unwrap() else { panic!() };
        assert_eq!(
            (config.heads.at(0), config.norm_groups, config.max_frames, config.mid),
            (2, 4, 24, false)
        );
    }

    #[test]
    fn other_networks_are_refused_by_the_field_that_tells_them() {
        let with = |field: &str, value: Value| {
            let mut content = sd15();
            content[field] = value;
            read_unet(&content).unwrap_err()
        };
        for (field, value) in [
            ("addition_embed_type", json!("text_time")),
            ("transformer_layers_per_block", json!([1, 2, 10, 10])),
            ("down_block_types", json!(["DownBlock2D", "CrossAttnDownBlock2D"])),
            ("down_block_types", json!(["K", "DownBlock2D", "DownBlock2D", "DownBlock2D"])),
            ("mid_block_type", json!("UNetMidBlock3D")),
            ("layers_per_block", json!(4_000_000_000_u64)),
            ("block_out_channels", json!([])),
            ("norm_num_groups", json!(0)),
            ("cross_attention_dim", json!("wide")),
            ("norm_num_groups", json!(7)),
        ] {
            let error = with(field, value);
            assert!(error.contains("unet/config.json"), "{error}");
            let named = if field == "norm_num_groups" { "groups" } else { field };
            assert!(error.contains(named), "{field}: {error}");
        }
    }

    #[test]
    fn sizes_of_the_other_parts_are_bounded() {
        let refuse = |folder: &str, content: Value| {
            part_config("config.json", folder, &content).unwrap_err().to_string()
        };
        assert!(refuse("vae", json!({ "layers_per_block": 1_000_000 })).contains("layers_per_block"));
        assert!(refuse("vae", json!({ "block_out_channels": vec![8; 40] })).contains("at most 8 levels"));
        assert!(refuse("vae", json!({ "scaling_factor": 0.0 })).contains("scaling_factor"));
        assert!(
            refuse("text_encoder", json!({ "num_hidden_layers": 1_000_000 })).contains("num_hidden_layers")
        );
        let other =
            part_config("config.json", "scheduler", &json!({ "_class_name": "DDIMScheduler" })).unwrap();
        assert_eq!(other, PartConfig::Other);
    }
}
