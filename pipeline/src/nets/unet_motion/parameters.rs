//! The names and shapes of a network's weights, without building it.
//!
//! Lets a loader say everything that is missing, left over or misshapen in a checkpoint before it
//! reads a byte of weights, and a plan forecast memory.

use std::collections::BTreeMap;

use super::config::{MotionConfig, TimeScaleShift, UnetMotionConfig};
use super::error::Result;

/// Weight name to shape.
pub type Parameters = BTreeMap<String, Vec<usize>>;

/// Number of weights in all of `parameters`.
pub fn parameter_count(parameters: &Parameters) -> usize {
    parameters.values().map(|shape| shape.iter().product::<usize>()).sum()
}

/// Collects names below a prefix.
struct Collector<'a> {
    config: &'a UnetMotionConfig,
    all: Parameters,
}

impl UnetMotionConfig {
    /// Every tensor [`super::UnetMotion::new`] asks for.
    pub fn parameters(&self) -> Result<Parameters> {
        self.validate()?;
        let mut to = Collector { config: self, all: Parameters::new() };
        let base = self.base_channels();
        to.conv("conv_in", self.in_channels, base, 3);
        to.scalar_embedding("time_embedding");
        if self.strength_embedding {
            to.scalar_embedding("motion_embedding");
        }
        if self.fps_embedding {
            to.scalar_embedding("fps_embedding");
        }
        let mut skips = vec![base];
        let mut inner = base;
        for (level, &out) in self.block_out_channels.iter().enumerate() {
            let block = format!("down_blocks.{level}");
            for index in 0..self.layers_per_block.at(level) {
                to.layer(&block, level, index, (inner, out), self.down_attention.at(level));
                inner = out;
                skips.push(out);
            }
            if level + 1 < self.levels() {
                to.conv(&format!("{block}.downsamplers.0.conv"), out, out, 3);
                skips.push(out);
            }
        }
        to.resnet("mid_block.resnets.0", inner, inner);
        to.resnet("mid_block.resnets.1", inner, inner);
        if self.mid_attention {
            to.spatial("mid_block.attentions.0", inner);
        }
        if let Some(motion) = self.motion_mid() {
            to.motion("mid_block.motion_modules.0", inner, motion);
        }
        for (block, level) in (0..self.levels()).rev().enumerate() {
            let out = self.block_out_channels[level];
            let block = format!("up_blocks.{block}");
            for index in 0..=self.layers_per_block.at(level) {
                let widths = (inner + skips.pop().unwrap_or_default(), out);
                to.layer(&block, level, index, widths, self.up_attention_at(level));
                inner = out;
            }
            if level > 0 {
                to.conv(&format!("{block}.upsamplers.0.conv"), out, out, 3);
            }
        }
        to.norm("conv_norm_out", base);
        to.conv("conv_out", base, self.out_channels, 3);
        Ok(to.all)
    }
}

impl Collector<'_> {
    fn add(&mut self, name: String, shape: &[usize]) {
        self.all.insert(name, shape.to_vec());
    }

    fn conv(&mut self, name: &str, inner: usize, out: usize, kernel: usize) {
        self.add(format!("{name}.weight"), &[out, inner, kernel, kernel]);
        self.add(format!("{name}.bias"), &[out]);
    }

    fn linear(&mut self, name: &str, inner: usize, out: usize) {
        self.add(format!("{name}.weight"), &[out, inner]);
        self.add(format!("{name}.bias"), &[out]);
    }

    fn norm(&mut self, name: &str, channels: usize) {
        self.add(format!("{name}.weight"), &[channels]);
        self.add(format!("{name}.bias"), &[channels]);
    }

    fn scalar_embedding(&mut self, name: &str) {
        let out = self.config.time_dim();
        self.linear(&format!("{name}.linear_1"), self.config.base_channels(), out);
        self.linear(&format!("{name}.linear_2"), out, out);
    }

    fn layer(&mut self, block: &str, level: usize, index: usize, widths: (usize, usize), attends: bool) {
        let (inner, out) = widths;
        self.resnet(&format!("{block}.resnets.{index}"), inner, out);
        if attends {
            self.spatial(&format!("{block}.attentions.{index}"), out);
        }
        if let Some(motion) = self.config.motion_at(level) {
            self.motion(&format!("{block}.motion_modules.{index}"), out, motion);
        }
    }

    fn resnet(&mut self, name: &str, inner: usize, out: usize) {
        let doubled = self.config.resnet_time_scale_shift == TimeScaleShift::ScaleShift;
        self.norm(&format!("{name}.norm1"), inner);
        self.conv(&format!("{name}.conv1"), inner, out, 3);
        self.linear(
            &format!("{name}.time_emb_proj"),
            self.config.time_dim(),
            if doubled { 2 * out } else { out },
        );
        self.norm(&format!("{name}.norm2"), out);
        self.conv(&format!("{name}.conv2"), out, out, 3);
        if inner != out {
            self.conv(&format!("{name}.conv_shortcut"), inner, out, 1);
        }
    }

    fn attention(&mut self, name: &str, channels: usize, context: usize) {
        self.add(format!("{name}.to_q.weight"), &[channels, channels]);
        self.add(format!("{name}.to_k.weight"), &[channels, context]);
        self.add(format!("{name}.to_v.weight"), &[channels, context]);
        self.linear(&format!("{name}.to_out.0"), channels, channels);
    }

    fn feed_forward(&mut self, name: &str, channels: usize, mult: usize) {
        self.linear(&format!("{name}.net.0.proj"), channels, 2 * mult * channels);
        self.linear(&format!("{name}.net.2"), mult * channels, channels);
    }

    fn spatial(&mut self, name: &str, channels: usize) {
        let block = format!("{name}.transformer_blocks.0");
        self.norm(&format!("{name}.norm"), channels);
        for projection in ["proj_in", "proj_out"] {
            if self.config.use_linear_projection {
                self.linear(&format!("{name}.{projection}"), channels, channels);
            } else {
                self.conv(&format!("{name}.{projection}"), channels, channels, 1);
            }
        }
        for norm in ["norm1", "norm2", "norm3"] {
            self.norm(&format!("{block}.{norm}"), channels);
        }
        self.attention(&format!("{block}.attn1"), channels, channels);
        self.attention(&format!("{block}.attn2"), channels, self.config.cross_attention_dim);
        self.feed_forward(&format!("{block}.ff"), channels, self.config.ff_mult);
    }

    fn motion(&mut self, name: &str, channels: usize, motion: &MotionConfig) {
        let block = format!("{name}.transformer_blocks.0");
        self.norm(&format!("{name}.norm"), channels);
        self.linear(&format!("{name}.proj_in"), channels, channels);
        self.linear(&format!("{name}.proj_out"), channels, channels);
        for index in 1..=motion.self_attentions {
            self.norm(&format!("{block}.norm{index}"), channels);
            self.attention(&format!("{block}.attn{index}"), channels, channels);
        }
        if motion.phrase_attention.is_some() {
            self.norm(&format!("{block}.norm_ma"), channels);
            self.attention(&format!("{block}.attn3"), channels, self.config.cross_attention_dim);
        }
        self.norm(&format!("{block}.norm3"), channels);
        self.feed_forward(&format!("{block}.ff"), channels, motion.ff_mult);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(config: &UnetMotionConfig) -> usize {
        parameter_count(&config.parameters().unwrap())
    }

    #[test]
    fn sizes_are_the_published_ones() {
        let plain = count(&UnetMotionConfig::sd15());
        assert_eq!(plain, 859_520_964);
        assert_eq!(count(&UnetMotionConfig::animatediff_v3()) - plain, 417_137_600);
        assert_eq!(count(&UnetMotionConfig::animatediff_v2()) - plain, 453_209_280);
        let phrase = count(&UnetMotionConfig::follow_your_click(true));
        assert_eq!(phrase - count(&UnetMotionConfig::follow_your_click(false)), 64_974_400);
    }

    #[test]
    fn each_scalar_embedding_adds_two_million() {
        let with = UnetMotionConfig { strength_embedding: true, ..UnetMotionConfig::sd15() };
        assert_eq!(count(&with) - count(&UnetMotionConfig::sd15()), 2_050_560);
    }
}
