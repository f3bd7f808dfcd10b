//! What a clip costs, counted from the networks' shapes.

use super::load::Blueprint;
use crate::nets::unet_motion::{Parameters, parameter_count};
use crate::nets::{AutoencoderKlConfig, UnetMotionConfig};
use crate::systems::follow_your_click::Effort;

/// Bytes of a number while computing.
const BYTES: u64 = 4;

/// A clip as the networks see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    /// Latent width.
    pub(super) w: usize,
    /// Latent height.
    pub(super) h: usize,
    pub(super) frames: usize,
    /// Evaluations of the UNet, guidance counted.
    pub(super) passes: usize,
}

/// Operations and memory of one clip: `passes` evaluations of the UNet, one frame encoded, all decoded.
pub(super) fn effort(blueprint: &Blueprint, extent: Extent) -> Effort {
    let unet = &blueprint.unet;
    // A configuration that has no parameters has been refused before this is asked.
    let parameters = unet.parameters().unwrap_or_default();
    let tokens = blueprint.text.max_position_embeddings;
    let pass = unet_flop(unet, &parameters, extent, tokens);
    let pixels = (extent.w * extent.h * blueprint.vae.factor().pow(2)) as f64;
    let (encode, decode) = (vae_flop(&blueprint.vae, false, pixels), vae_flop(&blueprint.vae, true, pixels));
    let flop = pass * extent.passes as f64 + encode + decode * extent.frames as f64;

    let weights = match blueprint.parameters {
        0 => parameter_count(&parameters),
        all => all,
    } as u64;
    let working = unet_memory(unet, extent).max(vae_memory(&blueprint.vae, pixels as u64));
    Effort { gigaflop: flop / 1e9, memory: weights.saturating_mul(BYTES).saturating_add(working) }
}

/// The resolution level a weight is used at, 0 the finest; `None` for what is computed once a clip.
fn level_of(name: &str, levels: usize) -> Option<usize> {
    let block = |prefix: &str| {
        let rest = name.strip_prefix(prefix)?;
        rest.split('.').next()?.parse::<usize>().ok()
    };
    if name.contains("time_emb") || name.contains("_embedding.") {
        return None;
    }
    if let Some(level) = block("down_blocks.") {
        return Some(if name.contains(".downsamplers.") { level + 1 } else { level });
    }
    if let Some(index) = block("up_blocks.") {
        let level = levels.saturating_sub(index + 1);
        return Some(if name.contains(".upsamplers.") { level.saturating_sub(1) } else { level });
    }
    Some(if name.starts_with("mid_block.") { levels.saturating_sub(1) } else { 0 })
}

fn unet_flop(config: &UnetMotionConfig, parameters: &Parameters, extent: Extent, tokens: usize) -> f64 {
    let levels = config.levels();
    let cells = |level: usize| ((extent.w >> level).max(1) * (extent.h >> level).max(1)) as f64;
    let frames = extent.frames as f64;
    let mut flop = 0.0;
    for (name, shape) in parameters {
        let (true, Some(level)) = (shape.len() >= 2, level_of(name, levels)) else { continue };
        let products = shape.iter().product::<usize>() as f64;
        let motion = name.contains(".motion_modules.");
        let reads_text = !motion && name.contains(".attn2.") || motion && name.contains(".attn3.");
        let places = if reads_text && (name.contains(".to_k.") || name.contains(".to_v.")) {
            tokens as f64
        } else {
            cells(level) * frames
        };
        // A doubled picture has only 4 different inputs under each 9 taps.
        let share = if name.contains(".upsamplers.") { 4.0 / 9.0 } else { 1.0 };
        flop += 2.0 * products * places * share;
        // Scores and sums of the attention this query projection belongs to.
        if name.ends_with(".to_q.weight") {
            let keys = match (motion, reads_text) {
                (_, true) => tokens as f64,
                (true, _) => frames,
                (false, _) => cells(level),
            };
            let width = shape.first().copied().unwrap_or_default() as f64;
            flop += 4.0 * cells(level) * frames * keys * width;
        }
    }
    flop
}

/// What lives at once in the widest place: every skip, and the feed-forward part of the finest level.
fn unet_memory(config: &UnetMotionConfig, extent: Extent) -> u64 {
    let cells =
        |level: usize| ((extent.w >> level).max(1) * (extent.h >> level).max(1) * extent.frames) as u64;
    let width = |level: usize| config.block_out_channels.get(level).copied().unwrap_or_default() as u64;
    let mut skips = cells(0) * width(0);
    for level in 0..config.levels() {
        let layers = config.layers_per_block.at(level) as u64;
        skips = skips.saturating_add(cells(level) * width(level) * layers);
        if level + 1 < config.levels() {
            skips = skips.saturating_add(cells(level + 1) * width(level));
        }
    }
    // Residual and normed input, two gated halves, their product; or a resnet that reads two widths.
    let transformer = (2 + 3 * config.ff_mult as u64) * width(0);
    let resnet = 4 * (width(0) + width(1.min(config.levels().saturating_sub(1))));
    skips.saturating_add(cells(0) * transformer.max(resnet)).saturating_mul(BYTES)
}

fn vae_flop(config: &AutoencoderKlConfig, decoder: bool, pixels: f64) -> f64 {
    let widths: Vec<f64> = config.block_out_channels.iter().map(|&width| width as f64).collect();
    let layers = config.layers_per_block as f64 + if decoder { 1.0 } else { 0.0 };
    let places = |level: usize| pixels / 4f64.powi(level as i32);
    let mut products = 0.0;
    for (level, &width) in widths.iter().enumerate() {
        let neighbour = if decoder { level + 1 } else { level.wrapping_sub(1) };
        let from = widths.get(neighbour).copied().unwrap_or(width);
        // The first resnet changes the width, the others keep it; 9 taps each, two convolutions.
        let shortcut = if from == width { 0.0 } else { from * width };
        products += places(level) * (9.0 * from * width + 9.0 * width * width + shortcut);
        products += places(level) * (layers - 1.0) * 18.0 * width * width;
        if level + 1 < widths.len() {
            let (at, width) = if decoder { (level, from) } else { (level + 1, width) };
            products += places(at) * 9.0 * width * width;
        }
    }
    if let (Some(&first), Some(&top)) = (widths.first(), widths.last()) {
        let lowest = places(widths.len() - 1);
        products += places(0) * 9.0 * first * config.out_channels as f64 + lowest * 36.0 * top * top;
        if config.mid_block_add_attention {
            products += lowest * 4.0 * top * top + 2.0 * lowest * lowest * top;
        }
    }
    2.0 * products
}

fn vae_memory(config: &AutoencoderKlConfig, pixels: u64) -> u64 {
    // Input, normed input, output and shortcut of the finest resnets.
    let widest = config.block_out_channels.iter().take(2).max().copied().unwrap_or_default() as u64;
    pixels.saturating_mul(4 * widest).saturating_mul(BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nets::ClipTextConfig;

    fn blueprint(unet: UnetMotionConfig) -> Blueprint {
        let (text, vae) = (ClipTextConfig::default(), AutoencoderKlConfig::default());
        Blueprint { text, vae, unet, parameters: 0 }
    }

    #[test]
    fn the_count_is_the_published_one_for_stable_diffusion() {
        // 512x512, one frame, one pass: fvcore and DeepSpeed profiles report 339 to 401 G multiply-adds, by whether
        // the attention's products are counted; the autoencoder's decoder 1.24 T.
        let extent = Extent { w: 64, h: 64, frames: 1, passes: 1 };
        let parameters = UnetMotionConfig::sd15().parameters().unwrap();
        let flop = unet_flop(&UnetMotionConfig::sd15(), &parameters, extent, 77);
        assert!((0.60e12..0.82e12).contains(&flop), "{flop:e}");
        let decode = vae_flop(&AutoencoderKlConfig::default(), true, 512.0 * 512.0);
        assert!((2.3e12..2.7e12).contains(&decode), "{decode:e}");
    }

    #[test]
    fn work_grows_with_frames_and_passes_and_memory_with_frames_only() {
        let blueprint = blueprint(UnetMotionConfig::animatediff_v2());
        let at = |frames, passes| effort(&blueprint, Extent { w: 64, h: 64, frames, passes });
        let (one, more) = (at(16, 50), at(16, 100));
        assert!(more.gigaflop > 1.8 * one.gigaflop && more.gigaflop < 2.0 * one.gigaflop);
        assert_eq!(one.memory, more.memory);
        assert!(at(8, 50).memory < one.memory);
        // 1.31 G weights in f32 and the working memory of sixteen 64x64 latents.
        assert!((6 << 30..9 << 30).contains(&one.memory), "{}", one.memory >> 20);
    }
}
