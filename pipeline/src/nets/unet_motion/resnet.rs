//! The convolutional residual block and the two resamplers.

use candle_core::{D, Tensor};
use candle_nn::VarBuilder;
use kinora_kernels::{Activation, Conv2d, Linear, upsample_nearest2x};

use super::config::{TimeScaleShift, UnetMotionConfig};
use super::error::Result;
use super::layers::{FrameGroupNorm, Pass, conv, linear, pointwise};

/// norm1, SiLU, conv1, time, norm2, SiLU, conv2, added to the (projected) input.
#[derive(Debug, Clone)]
pub(super) struct Resnet {
    norm1: FrameGroupNorm,
    conv1: Conv2d,
    time_emb_proj: Linear,
    norm2: FrameGroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Linear>,
    scale_shift: bool,
}

impl Resnet {
    pub(super) fn new(vb: &VarBuilder, config: &UnetMotionConfig, inner: usize, out: usize) -> Result<Self> {
        let norm = |name: &str, channels| {
            let over_frames = config.resnet_norm_over_frames;
            FrameGroupNorm::new(&vb.pp(name), channels, config.norm_groups, config.norm_eps, over_frames)
        };
        let scale_shift = config.resnet_time_scale_shift == TimeScaleShift::ScaleShift;
        let conv_shortcut =
            if inner == out { None } else { Some(pointwise(&vb.pp("conv_shortcut"), inner, out)?) };
        let time_out = if scale_shift { 2 * out } else { out };
        Ok(Self {
            norm1: norm("norm1", inner)?,
            conv1: conv(&vb.pp("conv1"), inner, out, 1)?,
            time_emb_proj: linear(&vb.pp("time_emb_proj"), config.time_dim(), time_out, true)?,
            norm2: norm("norm2", out)?,
            conv2: conv(&vb.pp("conv2"), out, out, 1)?,
            conv_shortcut,
            scale_shift,
        })
    }

    /// `[batch · frames, h, w, inner]` to `[batch · frames, h, w, out]`.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let normed = self.norm1.forward(x, pass, Activation::Silu)?;
        let shortcut = self.conv_shortcut.as_ref().map(|shortcut| shortcut.forward(x)).transpose()?;
        self.after(&normed, shortcut.as_ref().unwrap_or(x), pass)
    }

    /// [`Self::forward`] of `x` and `skip` side by side, `inner` channels together, which are never joined.
    pub(super) fn forward_joined(&self, x: &Tensor, skip: &Tensor, pass: &Pass) -> Result<Tensor> {
        let Some(shortcut) = &self.conv_shortcut else {
            return self.forward(&Tensor::cat(&[x, skip], D::Minus1)?, pass);
        };
        let normed = self.norm1.forward_joined([x, skip], pass, Activation::Silu)?;
        self.after(&normed, &shortcut.forward_joined([x, skip])?, pass)
    }

    /// What follows the first norm, added to `residual`.
    fn after(&self, normed: &Tensor, residual: &Tensor, pass: &Pass) -> Result<Tensor> {
        let h = self.conv1.forward(normed)?;
        let time = self.time_emb_proj.forward(&pass.time)?;
        let h = if self.scale_shift {
            let h = self.norm2.forward(&h, pass, Activation::None)?;
            let halves = time.chunk(2, D::Minus1)?;
            let scaled = per_clip(&h, &(&halves[0] + 1.0)?, pass, Tensor::broadcast_mul)?;
            Activation::Silu.apply(&per_clip(&scaled, &halves[1], pass, Tensor::broadcast_add)?)?
        } else {
            self.norm2.forward_added(&h, &time, pass, Activation::Silu)?
        };
        Ok(self.conv2.forward_fused(&h, Activation::None, Some(residual))?)
    }
}

/// Combines `[batch · frames, h, w, c]` with `[batch, c]` without repeating the latter.
fn per_clip(
    x: &Tensor,
    row: &Tensor,
    pass: &Pass,
    combine: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let clip = x.reshape((pass.batch, pass.frames * h * w, c))?;
    Ok(combine(&clip, &row.reshape((pass.batch, 1, c))?)?.reshape((n, h, w, c))?)
}

/// `downsamplers.0.conv`: 3×3, stride 2.
#[derive(Debug, Clone)]
pub(super) struct Downsample(Conv2d);

impl Downsample {
    pub(super) fn new(vb: &VarBuilder, channels: usize) -> Result<Self> {
        Ok(Self(conv(&vb.pp("downsamplers.0.conv"), channels, channels, 2)?))
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.0.forward(x)?)
    }
}

/// `upsamplers.0.conv` after doubling by repetition.
#[derive(Debug, Clone)]
pub(super) struct Upsample(Conv2d);

impl Upsample {
    pub(super) fn new(vb: &VarBuilder, channels: usize) -> Result<Self> {
        Ok(Self(conv(&vb.pp("upsamplers.0.conv"), channels, channels, 1)?))
    }

    /// To exactly `size` (height, width): an odd size loses the last repeated row or column,
    /// which is what nearest-neighbour interpolation to that size gives.
    pub(super) fn forward(&self, x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        let (_, h, w, _) = x.dims4()?;
        if size == (2 * h, 2 * w) {
            return Ok(self.0.forward_upsampled(x)?);
        }
        let doubled = upsample_nearest2x(x)?;
        let (_, h, w, _) = doubled.dims4()?;
        let fitted = doubled.narrow(1, 0, size.0.min(h))?.narrow(2, 0, size.1.min(w))?;
        Ok(self.0.forward(&fitted.contiguous()?)?)
    }
}
