//! MotionLoRA: `W += scale · up · down` on the temporal attentions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::{LayoutError, Result};
use super::motion::{motion_key, unwrapped};
use super::state_map::{LowRank, StateMap, Stored};
use super::tensor_file::TensorFile;

/// Which factor a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Down,
    Up,
    /// Scale times rank, a scalar.
    Alpha,
}

/// The layer a key belongs to and its part in it; `None` for keys that are no low-rank update.
///
/// Spellings: AnimateDiff's `processor.to_q_lora.down`, diffusers' `to_q.lora.down`, peft's
/// `to_q.lora_A`, kohya's `to_q.lora_down`.
pub(super) fn lora_part(key: &str) -> Option<(&str, Part)> {
    const SUFFIXES: [(&str, Part); 9] = [
        ("_lora.down.weight", Part::Down),
        ("_lora.up.weight", Part::Up),
        (".lora.down.weight", Part::Down),
        (".lora.up.weight", Part::Up),
        (".lora_A.weight", Part::Down),
        (".lora_B.weight", Part::Up),
        (".lora_down.weight", Part::Down),
        (".lora_up.weight", Part::Up),
        (".alpha", Part::Alpha),
    ];
    SUFFIXES.iter().find_map(|(suffix, part)| Some((key.strip_suffix(suffix)?, *part)))
}

/// Adds every update of `file`, times `scale` (1 for full effect), to the motion modules in `map`.
/// Nothing is multiplied until a weight is read.
///
/// # Errors
/// [`LayoutError::Lora`] for an update without its other half or that fits no weight of `map`.
pub fn merge_motion_lora(map: &mut StateMap, file: &Arc<dyn TensorFile>, scale: f64) -> Result<()> {
    let mut layers: BTreeMap<&str, [Option<Stored>; 3]> = BTreeMap::new();
    for (key, entry) in file.entries() {
        let refuse = |problem: &str| LayoutError::Lora { name: key.clone(), problem: problem.to_owned() };
        let (layer, part) =
            lora_part(key).ok_or_else(|| refuse("expected a low-rank update (…lora.down, …lora.up)"))?;
        let stored = Stored {
            file: Arc::clone(file),
            name: key.clone(),
            shape: entry.shape.clone(),
            dtype: entry.dtype,
        };
        layers.entry(layer).or_default()[part as usize] = Some(stored);
    }
    for (layer, [down, up, alpha]) in layers {
        let refuse = |problem: String| LayoutError::Lora { name: layer.to_owned(), problem };
        let (Some(down), Some(up)) = (down, up) else {
            return Err(refuse("has only one of its two factors; the file is incomplete".to_owned()));
        };
        let target = target_of(layer).ok_or_else(|| refuse("names no motion-module layer".to_owned()))?;
        let Some(shape) = map.shape_of(&target) else {
            let problem = format!(
                "updates {target}, which these motion modules do not have; it was made for another version"
            );
            return Err(refuse(problem));
        };
        let (expected, rank) = match (shape, down.shape.as_slice(), up.shape.as_slice()) {
            ([out, inner], [r, i], [o, q]) => ((o, q, i) == (out, r, inner), *r),
            _ => (false, 1),
        };
        if !expected {
            let problem = format!("factors {:?} and {:?} do not make {shape:?}", up.shape, down.shape);
            return Err(refuse(problem));
        }
        let own = match alpha {
            Some(alpha) => {
                let value =
                    alpha.read()?.to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
                value.first().copied().unwrap_or(rank as f64) / rank as f64
            }
            None => 1.0,
        };
        map.update(&target, LowRank { up, down, scale: scale * own });
    }
    Ok(())
}

/// The weight a layer's update belongs to.
fn target_of(layer: &str) -> Option<String> {
    let layer = unwrapped(layer).replacen(".processor.", ".", 1);
    let mut name = motion_key(&layer).filter(|name| name.contains("motion_modules."))?;
    if name.ends_with(".to_out") {
        name.push_str(".0");
    }
    name.push_str(".weight");
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_finds_its_weight() {
        let block = "down_blocks.0.motion_modules.1";
        let spellings = [
            (
                format!(
                    "{block}.temporal_transformer.transformer_blocks.0.attention_blocks.1.processor.to_out_lora.up.weight"
                ),
                Part::Up,
            ),
            (
                format!("unet.{block}.transformer_blocks.0.attn2.processor.to_out_lora.down.weight"),
                Part::Down,
            ),
            (format!("unet.{block}.transformer_blocks.0.attn2.to_out.0.lora_A.weight"), Part::Down),
            (format!("module.{block}.transformer_blocks.0.attn2.to_out.0.lora.up.weight"), Part::Up),
        ];
        for (key, expected) in spellings {
            let (layer, part) = lora_part(&key).unwrap();
            assert_eq!(part, expected);
            assert_eq!(
                target_of(layer).as_deref(),
                Some("down_blocks.0.motion_modules.1.transformer_blocks.0.attn2.to_out.0.weight")
            );
        }
        assert_eq!(target_of("down_blocks.0.resnets.0.conv1"), None);
    }
}
