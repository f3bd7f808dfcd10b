//! The down, mid and up blocks.

use candle_core::Tensor;
use candle_nn::VarBuilder;

use super::config::UnetMotionConfig;
use super::error::{Result, UnetError};
use super::layers::Pass;
use super::motion::MotionModule;
use super::resnet::{Downsample, Resnet, Upsample};
use super::spatial::SpatialTransformer;

/// A resnet and the transformers behind it.
#[derive(Debug, Clone)]
struct Layer {
    resnet: Resnet,
    attention: Option<SpatialTransformer>,
    motion: Option<MotionModule>,
}

impl Layer {
    fn new(
        vb: &VarBuilder,
        config: &UnetMotionConfig,
        level: usize,
        index: usize,
        widths: (usize, usize),
        attends: bool,
    ) -> Result<Self> {
        let (inner, out) = widths;
        let attention = if attends {
            let vb = vb.pp(format!("attentions.{index}"));
            Some(SpatialTransformer::new(&vb, config, out, config.heads.at(level))?)
        } else {
            None
        };
        let motion = match config.motion_at(level) {
            Some(motion) => {
                let vb = vb.pp(format!("motion_modules.{index}"));
                Some(MotionModule::new(&vb, config, motion, out, motion.heads.at(level))?)
            }
            None => None,
        };
        Ok(Self {
            resnet: Resnet::new(&vb.pp(format!("resnets.{index}")), config, inner, out)?,
            attention,
            motion,
        })
    }

    /// `skip` holds the channels behind those of `x`.
    fn forward(
        &self,
        x: &Tensor,
        skip: Option<&Tensor>,
        pass: &Pass,
        (block, index): (&str, usize),
    ) -> Result<Tensor> {
        let mut x = match skip {
            Some(skip) => self.resnet.forward_joined(x, skip, pass)?,
            None => self.resnet.forward(x, pass)?,
        };
        pass.report(block, "resnets", index, &x);
        if let Some(attention) = &self.attention {
            x = attention.forward(&x, pass)?;
            pass.report(block, "attentions", index, &x);
        }
        if let Some(motion) = &self.motion {
            x = motion.forward(&x, pass)?;
            pass.report(block, "motion_modules", index, &x);
        }
        Ok(x)
    }
}

/// One level on the way down.
#[derive(Debug, Clone)]
pub(super) struct DownBlock {
    name: String,
    layers: Vec<Layer>,
    downsampler: Option<Downsample>,
}

impl DownBlock {
    /// Pushes the width of every skip tensor it will store.
    pub(super) fn new(
        vb: &VarBuilder,
        config: &UnetMotionConfig,
        level: usize,
        inner: usize,
        skips: &mut Vec<usize>,
    ) -> Result<Self> {
        let name = format!("down_blocks.{level}");
        let vb = vb.pp(&name);
        let out = config.block_out_channels[level];
        let mut layers = Vec::new();
        for index in 0..config.layers_per_block.at(level) {
            let inner = if index == 0 { inner } else { out };
            layers.push(Layer::new(
                &vb,
                config,
                level,
                index,
                (inner, out),
                config.down_attention.at(level),
            )?);
            skips.push(out);
        }
        let downsampler = if level + 1 < config.levels() {
            skips.push(out);
            Some(Downsample::new(&vb, out)?)
        } else {
            None
        };
        Ok(Self { name, layers, downsampler })
    }

    pub(super) fn forward(&self, x: &Tensor, pass: &Pass, skips: &mut Vec<Tensor>) -> Result<Tensor> {
        let mut x = x.clone();
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, None, pass, (&self.name, index))?;
            skips.push(x.clone());
        }
        if let Some(downsampler) = &self.downsampler {
            x = downsampler.forward(&x)?;
            pass.report(&self.name, "downsamplers", 0, &x);
            skips.push(x.clone());
        }
        Ok(x)
    }
}

/// The coarsest resolution.
#[derive(Debug, Clone)]
pub(super) struct MidBlock {
    first: Layer,
    last: Resnet,
}

impl MidBlock {
    pub(super) fn new(vb: &VarBuilder, config: &UnetMotionConfig) -> Result<Self> {
        let vb = vb.pp("mid_block");
        let (level, c) = (config.levels().saturating_sub(1), config.mid_channels());
        let resnet = |index: usize| Resnet::new(&vb.pp(format!("resnets.{index}")), config, c, c);
        let attention = if config.mid_attention {
            Some(SpatialTransformer::new(&vb.pp("attentions.0"), config, c, config.heads.at(level))?)
        } else {
            None
        };
        let motion = match config.motion_mid() {
            Some(motion) => Some(MotionModule::new(
                &vb.pp("motion_modules.0"),
                config,
                motion,
                c,
                motion.heads.at(level),
            )?),
            None => None,
        };
        Ok(Self { first: Layer { resnet: resnet(0)?, attention, motion }, last: resnet(1)? })
    }

    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let x = self.first.forward(x, None, pass, ("mid_block", 0))?;
        let x = self.last.forward(&x, pass)?;
        pass.report("mid_block", "resnets", 1, &x);
        Ok(x)
    }
}

/// One level on the way up.
#[derive(Debug, Clone)]
pub(super) struct UpBlock {
    name: String,
    layers: Vec<Layer>,
    upsampler: Option<Upsample>,
}

impl UpBlock {
    /// Pops the width of every skip tensor it will read; `inner` is what arrives from below.
    pub(super) fn new(
        vb: &VarBuilder,
        config: &UnetMotionConfig,
        block: usize,
        inner: usize,
        skips: &mut Vec<usize>,
    ) -> Result<Self> {
        let level = config.levels() - 1 - block;
        let name = format!("up_blocks.{block}");
        let vb = vb.pp(&name);
        let out = config.block_out_channels[level];
        let mut layers = Vec::new();
        for index in 0..=config.layers_per_block.at(level) {
            let inner = if index == 0 { inner } else { out };
            let widths = (inner + skips.pop().unwrap_or_default(), out);
            layers.push(Layer::new(&vb, config, level, index, widths, config.up_attention_at(level))?);
        }
        let upsampler = if level > 0 { Some(Upsample::new(&vb, out)?) } else { None };
        Ok(Self { name, layers, upsampler })
    }

    pub(super) fn forward(&self, x: &Tensor, pass: &Pass, skips: &mut Vec<Tensor>) -> Result<Tensor> {
        let mut x = x.clone();
        for (index, layer) in self.layers.iter().enumerate() {
            let skip = skips.pop().ok_or(UnetError::Conditioning {
                name: "skip connections",
                problem: "the down path stored fewer tensors than the up path reads",
            })?;
            x = layer.forward(&x, Some(&skip), pass, (&self.name, index))?;
        }
        if let (Some(upsampler), Some(next)) = (&self.upsampler, skips.last()) {
            let (_, h, w, _) = next.dims4()?;
            x = upsampler.forward(&x, (h, w))?;
            pass.report(&self.name, "upsamplers", 0, &x);
        }
        Ok(x)
    }
}
