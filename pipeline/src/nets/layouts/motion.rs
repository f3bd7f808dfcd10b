//! Names of motion modules: the AnimateDiff repository's and diffusers'.

/// The diffusers name of a motion-module key in either spelling; `None` for buffers that are
/// recomputed (`pos_encoder.pe`, `pos_embed.pe`). Keys of other layers come back as they are.
///
/// Renames: `.temporal_transformer` dropped; `attention_blocks.{0,1}` to `attn{1,2}`; `norms.{0,1}`
/// to `norm{1,2}`; `ff_norm` to `norm3`; a third attention, the phrase's, to `attn3` and `norm_ma`.
pub fn motion_key(key: &str) -> Option<String> {
    if key.contains("pos_encoder.") || key.contains("pos_embed.") {
        return None;
    }
    if !key.contains("motion_modules.") {
        return Some(key.to_owned());
    }
    let mut renamed = key.replacen(".temporal_transformer", "", 1);
    const RENAMES: [(&str, &str); 7] = [
        (".attention_blocks.0.", ".attn1."),
        (".attention_blocks.1.", ".attn2."),
        (".attention_blocks.2.", ".attn3."),
        (".norms.0.", ".norm1."),
        (".norms.1.", ".norm2."),
        (".norms.2.", ".norm_ma."),
        (".ff_norm.", ".norm3."),
    ];
    for (from, to) in RENAMES {
        renamed = renamed.replacen(from, to, 1);
    }
    Some(renamed)
}

/// Without the wrappers training scripts leave: `state_dict.`, `module.`, `unet.`.
pub(super) fn unwrapped(key: &str) -> &str {
    let mut key = key;
    while let Some(rest) = ["state_dict.", "module.", "unet."].iter().find_map(|p| key.strip_prefix(p)) {
        key = rest;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn original_names_become_diffusers_names() {
        let block = "up_blocks.1.motion_modules.2.temporal_transformer.transformer_blocks.0";
        let cases = [
            ("attention_blocks.1.to_out.0.bias", Some("attn2.to_out.0.bias")),
            ("attention_blocks.2.to_k.weight", Some("attn3.to_k.weight")),
            ("norms.2.weight", Some("norm_ma.weight")),
            ("ff_norm.bias", Some("norm3.bias")),
            ("ff.net.0.proj.weight", Some("ff.net.0.proj.weight")),
            ("attention_blocks.0.pos_encoder.pe", None),
        ];
        for (old, new) in cases {
            let expected = new.map(|new| format!("up_blocks.1.motion_modules.2.transformer_blocks.0.{new}"));
            assert_eq!(motion_key(&format!("{block}.{old}")), expected);
        }
        assert_eq!(unwrapped("state_dict.module.conv_in.weight"), "conv_in.weight");
    }
}
