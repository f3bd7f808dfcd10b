//! Sinusoids and the small networks that read them.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use kinora_kernels::{Activation, Linear};

use super::error::Result;
use super::layers::linear;

/// `[cos(v ω_0) … cos(v ω_{d/2-1}), sin(v ω_0) …]` with `ω_i = 10000^(-2i/d)`, one row of
/// `width` (even) f32 a value: diffusers' `Timesteps` with `flip_sin_to_cos` and no shift.
pub fn sinusoid(values: &[f64], width: usize, device: &Device) -> candle_core::Result<Tensor> {
    let half = width / 2;
    // In f32 like the reference: at step 999 the angle's own rounding is the larger error, and
    // networks were trained with it.
    let frequencies: Vec<f32> =
        (0..half).map(|i| (-(10000f32.ln()) * i as f32 / half as f32).exp()).collect();
    let mut rows = Vec::with_capacity(values.len() * width);
    for &value in values {
        let angles: Vec<f32> = frequencies.iter().map(|frequency| value as f32 * frequency).collect();
        rows.extend(angles.iter().map(|angle| angle.cos()));
        rows.extend(angles.iter().map(|angle| angle.sin()));
    }
    Tensor::from_vec(rows, (values.len(), 2 * half), device)
}

/// Frame positions `[frames, width]`: `sin` at even and `cos` at odd channels.
pub(super) fn frame_positions(
    frames: usize,
    width: usize,
    dtype: DType,
    device: &Device,
) -> candle_core::Result<Tensor> {
    let frequency = |pair: usize| (-(10000f32.ln()) * (2 * pair) as f32 / width as f32).exp();
    let values: Vec<f32> = (0..frames)
        .flat_map(|frame| {
            (0..width).map(move |channel| {
                let angle = frame as f32 * frequency(channel / 2);
                if channel % 2 == 0 { angle.sin() } else { angle.cos() }
            })
        })
        .collect();
    Tensor::from_vec(values, (frames, width), device)?.to_dtype(dtype)
}

/// `linear_1` → SiLU → `linear_2` of a scalar's sinusoid.
#[derive(Debug, Clone)]
pub(super) struct ScalarEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    width: usize,
}

impl ScalarEmbedding {
    pub(super) fn new(vb: &VarBuilder, width: usize, out: usize) -> Result<Self> {
        Ok(Self {
            linear_1: linear(&vb.pp("linear_1"), width, out, true)?,
            linear_2: linear(&vb.pp("linear_2"), out, out, true)?,
            width,
        })
    }

    /// One row a value.
    pub(super) fn forward(&self, values: &[f64], dtype: DType, device: &Device) -> Result<Tensor> {
        let x = sinusoid(values, self.width, device)?.to_dtype(dtype)?;
        let x = Activation::Silu.apply(&self.linear_1.forward(&x)?)?;
        Ok(self.linear_2.forward(&x)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinusoid_of_eight_matches_the_published_vector() {
        let row: Vec<f32> =
            sinusoid(&[8.0], 320, &Device::Cpu).unwrap().squeeze(0).unwrap().to_vec1().unwrap();
        let expected = [
            (0, -0.1455),
            (1, 0.2969477),
            (80, 0.9968017),
            (159, 0.9999996),
            (160, 0.9893582),
            (161, 0.9548937),
            (240, 0.0799147),
            (319, 0.0008474),
        ];
        for (index, value) in expected {
            assert!((row[index] - value).abs() < 2e-6, "{index}: {} against {value}", row[index]);
        }
    }

    #[test]
    fn frame_zero_is_zeros_and_ones() {
        let rows: Vec<Vec<f32>> = frame_positions(3, 4, DType::F32, &Device::Cpu).unwrap().to_vec2().unwrap();
        assert_eq!(rows[0], [0.0, 1.0, 0.0, 1.0]);
        assert!((rows[2][0] - 2f32.sin()).abs() < 1e-6);
        assert!((rows[2][3] - 0.02f32.cos()).abs() < 1e-6);
    }
}
