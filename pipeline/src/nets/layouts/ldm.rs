//! Names of single-file checkpoints (CompVis latent-diffusion) in diffusers' terms.
//!
//! Four levels of two layers, as in SD1.x.

/// Levels of the UNet and of the autoencoder.
const LEVELS: usize = 4;

/// The UNet name of a key below `model.diffusion_model.`; `None` if it is none of SD1.x's.
pub fn single_file_unet(key: &str) -> Option<String> {
    const FIXED: [(&str, &str); 5] = [
        ("time_embed.0.", "time_embedding.linear_1."),
        ("time_embed.2.", "time_embedding.linear_2."),
        ("input_blocks.0.0.", "conv_in."),
        ("out.0.", "conv_norm_out."),
        ("out.2.", "conv_out."),
    ];
    for (old, new) in FIXED {
        if let Some(leaf) = key.strip_prefix(old) {
            return Some(format!("{new}{leaf}"));
        }
    }
    let (section, rest) = key.split_once('.')?;
    let (first, rest) = rest.split_once('.')?;
    let first: usize = first.parse().ok()?;
    match section {
        "middle_block" if first == 1 => Some(format!("mid_block.attentions.0.{rest}")),
        "middle_block" if first <= 2 => Some(format!("mid_block.resnets.{}.{}", first / 2, resnet(rest)?)),
        "input_blocks" if (1..3 * LEVELS).contains(&first) => {
            let (level, layer) = ((first - 1) / 3, (first - 1) % 3);
            let (slot, rest) = rest.split_once('.')?;
            let block = format!("down_blocks.{level}");
            Some(match (slot, layer) {
                ("0", 2) => format!("{block}.downsamplers.0.conv.{}", rest.strip_prefix("op.")?),
                ("0", _) => format!("{block}.resnets.{layer}.{}", resnet(rest)?),
                ("1", 0 | 1) => format!("{block}.attentions.{layer}.{rest}"),
                _ => return None,
            })
        }
        "output_blocks" if first < 3 * LEVELS => {
            let (level, layer) = (first / 3, first % 3);
            let (slot, rest) = rest.split_once('.')?;
            let block = format!("up_blocks.{level}");
            if let Some(leaf) = rest.strip_prefix("conv.").filter(|_| slot != "0" && layer == 2) {
                return Some(format!("{block}.upsamplers.0.conv.{leaf}"));
            }
            Some(match slot {
                "0" => format!("{block}.resnets.{layer}.{}", resnet(rest)?),
                "1" => format!("{block}.attentions.{layer}.{rest}"),
                _ => return None,
            })
        }
        _ => None,
    }
}

fn resnet(rest: &str) -> Option<String> {
    const RENAMES: [(&str, &str); 6] = [
        ("in_layers.0.", "norm1."),
        ("in_layers.2.", "conv1."),
        ("emb_layers.1.", "time_emb_proj."),
        ("out_layers.0.", "norm2."),
        ("out_layers.3.", "conv2."),
        ("skip_connection.", "conv_shortcut."),
    ];
    RENAMES.iter().find_map(|(old, new)| Some(format!("{new}{}", rest.strip_prefix(old)?)))
}

/// The autoencoder name of a key below `first_stage_model.`; `None` if it is none of SD's (a
/// training loss, say).
pub fn single_file_vae(key: &str) -> Option<String> {
    if key.starts_with("quant_conv.") || key.starts_with("post_quant_conv.") {
        return Some(key.to_owned());
    }
    let (half, rest) = key.split_once('.')?;
    if half != "encoder" && half != "decoder" {
        return None;
    }
    let name = if rest.starts_with("conv_in.") || rest.starts_with("conv_out.") {
        rest.to_owned()
    } else if let Some(leaf) = rest.strip_prefix("norm_out.") {
        format!("conv_norm_out.{leaf}")
    } else if let Some(rest) = rest.strip_prefix("mid.") {
        vae_mid(rest)?
    } else {
        let up = rest.starts_with("up.");
        let (level, rest) = rest.strip_prefix(if up { "up." } else { "down." })?.split_once('.')?;
        let level: usize = level.parse().ok().filter(|&level| level < LEVELS)?;
        let (block, sampler) = if up {
            (format!("up_blocks.{}", LEVELS - 1 - level), "upsample")
        } else {
            (format!("down_blocks.{level}"), "downsample")
        };
        match rest.strip_prefix(sampler) {
            Some(rest) => format!("{block}.{sampler}rs.0{rest}"),
            None => format!("{block}.resnets.{}", shortcut(rest.strip_prefix("block.")?)),
        }
    };
    Some(format!("{half}.{name}"))
}

fn vae_mid(rest: &str) -> Option<String> {
    for (old, new) in [("block_1.", "resnets.0."), ("block_2.", "resnets.1.")] {
        if let Some(rest) = rest.strip_prefix(old) {
            return Some(format!("mid_block.{new}{}", shortcut(rest)));
        }
    }
    const RENAMES: [(&str, &str); 5] = [
        ("norm.", "group_norm."),
        ("q.", "to_q."),
        ("k.", "to_k."),
        ("v.", "to_v."),
        ("proj_out.", "to_out.0."),
    ];
    let rest = rest.strip_prefix("attn_1.")?;
    let renamed = RENAMES.iter().find_map(|(old, new)| Some(format!("{new}{}", rest.strip_prefix(old)?)))?;
    Some(format!("mid_block.attentions.0.{renamed}"))
}

fn shortcut(rest: &str) -> String {
    rest.replacen("nin_shortcut.", "conv_shortcut.", 1)
}

/// The newer spelling of a diffusers autoencoder's attention (`query`, `proj_attn` in old files).
pub(super) fn modern_vae(key: &str) -> String {
    const RENAMES: [(&str, &str); 4] =
        [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];
    let mut name = key.to_owned();
    if key.contains(".attentions.") {
        for (old, new) in RENAMES {
            name = name.replacen(old, new, 1);
        }
    }
    name
}

/// The text encoder name of a key below `cond_stage_model.transformer.`; `None` for the index
/// buffer. Some merged files leave out `text_model.`.
pub fn single_file_text(key: &str) -> Option<String> {
    if key.ends_with("position_ids") {
        return None;
    }
    Some(if key.starts_with("text_model.") { key.to_owned() } else { format!("text_model.{key}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_each_kind() {
        let unet = [
            ("input_blocks.3.0.op.bias", Some("down_blocks.0.downsamplers.0.conv.bias")),
            ("input_blocks.4.0.skip_connection.weight", Some("down_blocks.1.resnets.0.conv_shortcut.weight")),
            ("output_blocks.2.1.conv.weight", Some("up_blocks.0.upsamplers.0.conv.weight")),
            ("output_blocks.5.2.conv.weight", Some("up_blocks.1.upsamplers.0.conv.weight")),
            ("middle_block.1.norm.bias", Some("mid_block.attentions.0.norm.bias")),
            ("middle_block.2.in_layers.0.bias", Some("mid_block.resnets.1.norm1.bias")),
            ("label_emb.0.0.weight", None),
        ];
        for (old, new) in unet {
            assert_eq!(single_file_unet(old).as_deref(), new, "{old}");
        }
        let vae = [
            ("decoder.up.3.upsample.conv.bias", Some("decoder.up_blocks.0.upsamplers.0.conv.bias")),
            ("encoder.mid.attn_1.proj_out.weight", Some("encoder.mid_block.attentions.0.to_out.0.weight")),
            (
                "decoder.up.0.block.0.nin_shortcut.bias",
                Some("decoder.up_blocks.3.resnets.0.conv_shortcut.bias"),
            ),
            ("loss.logvar", None),
        ];
        for (old, new) in vae {
            assert_eq!(single_file_vae(old).as_deref(), new, "{old}");
        }
        assert_eq!(
            modern_vae("encoder.mid_block.attentions.0.query.bias"),
            "encoder.mid_block.attentions.0.to_q.bias"
        );
    }
}
