//! Classifier-free guidance.

use candle_core::{DType, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::scheduler::{f32_of, sum};

/// How the conditional and unconditional outputs of a network are combined.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Guidance {
    /// 1 switches guidance off; 7.5 to 8 for public checkpoints.
    pub scale: f64,
    /// 0..=1: how far the result is brought back to the contrast of the conditional output (Lin et al., "Common
    /// diffusion noise schedules and sample steps are flawed", §3.4); 0.7 suits zero-terminal-SNR models.
    pub rescale: f64,
    /// Three-term guidance of video: weight of the unconditional output over one computed frame by frame, without
    /// temporal layers. `None` for the usual two terms.
    pub temporal: Option<f64>,
}

impl Guidance {
    /// Two-term guidance without rescale.
    pub const fn plain(scale: f64) -> Self {
        Self { scale, rescale: 0.0, temporal: None }
    }

    /// Whether the unconditional pass is needed at all.
    pub fn needs_unconditional(&self) -> bool {
        self.scale != 1.0 || self.temporal.is_some_and(|weight| weight != 1.0)
    }

    /// The guided output `u + scale·(c − u)`, or `f + temporal·(u − f) + scale·(c − u)` with three terms, as
    /// weights of `c`, `u` and `f`; without rescale, which is no sum.
    pub fn weights(&self) -> [f64; 3] {
        match self.temporal {
            None => [self.scale, 1.0 - self.scale, 0.0],
            Some(weight) => [self.scale, weight - self.scale, 1.0 - weight],
        }
    }

    /// [`Self::weights`] applied, then rescaled.
    ///
    /// All outputs are `[batch, …]` of one shape; contrast is measured per batch item over all other axes.
    /// `frame_wise` is `f`, read only with [`Guidance::temporal`].
    ///
    /// # Errors
    /// Shapes that differ, or a missing frame-wise output.
    pub fn combine(
        &self,
        conditional: &Tensor,
        unconditional: &Tensor,
        frame_wise: Option<&Tensor>,
    ) -> Result<Tensor> {
        let [c, u, f] = self.weights();
        let guided = match (self.temporal, frame_wise) {
            (None, _) => sum(&[(c, conditional), (u, unconditional)])?,
            (Some(_), Some(frames)) => sum(&[(c, conditional), (u, unconditional), (f, frames)])?,
            (Some(_), None) => {
                candle_core::bail!("three-term guidance needs the output without temporal layers")
            }
        };
        if self.rescale == 0.0 {
            return Ok(guided);
        }
        let contrast = (deviation(conditional)? / deviation(&guided)?)?;
        let factor = contrast.affine(self.rescale, 1.0 - self.rescale)?;
        guided.broadcast_mul(&factor)
    }

    /// The guided output of two terms, not yet added up unless a rescale needs it.
    ///
    /// # Errors
    /// As [`Self::combine`].
    pub fn terms(&self, conditional: Tensor, unconditional: Tensor) -> Result<Vec<(f64, Tensor)>> {
        if self.rescale != 0.0 || self.temporal.is_some() {
            return Ok(vec![(1.0, self.combine(&conditional, &unconditional, None)?)]);
        }
        let [c, u, _] = self.weights();
        Ok(vec![(c, conditional), (u, unconditional)])
    }
}

/// Standard deviation of each batch item, shaped to broadcast over `[batch, …]`.
fn deviation(tensor: &Tensor) -> Result<Tensor> {
    let batch = tensor.dim(0)?;
    let flat = f32_of(tensor)?.reshape((batch, ()))?;
    let centred = flat.broadcast_sub(&flat.mean_keepdim(1)?)?;
    // A constant output has no contrast to restore; the floor keeps the ratio finite.
    let deviation = centred.sqr()?.mean_keepdim(1)?.sqrt()?.maximum(1e-12f64)?;
    let mut shape = vec![1; tensor.rank()];
    if let Some(first) = shape.first_mut() {
        *first = batch;
    }
    deviation.to_dtype(DType::F32)?.reshape(shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::noise::normal;

    fn flat(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn spread(t: &Tensor) -> Vec<f32> {
        flat(&deviation(t).unwrap())
    }

    #[test]
    fn scale_one_returns_the_conditional_output() -> Result<()> {
        let (c, u) = (normal(1, 0, &[2, 3, 4])?, normal(1, 1, &[2, 3, 4])?);
        assert_eq!(flat(&Guidance::plain(1.0).combine(&c, &u, None)?), flat(&c));
        assert!(!Guidance::plain(1.0).needs_unconditional());
        let guided = flat(&Guidance::plain(7.5).combine(&c, &u, None)?);
        for ((g, c), u) in guided.iter().zip(flat(&c)).zip(flat(&u)) {
            assert!((g - (u + 7.5 * (c - u))).abs() < 1e-5);
        }
        Ok(())
    }

    #[test]
    fn full_rescale_restores_the_contrast_of_each_item() -> Result<()> {
        let c = normal(1, 0, &[2, 40, 5])?
            .broadcast_mul(&Tensor::new(&[1f32, 3.0], &candle_core::Device::Cpu)?.reshape((2, 1, 1))?)?;
        let u = normal(1, 1, &[2, 40, 5])?;
        let full = Guidance { rescale: 1.0, ..Guidance::plain(9.0) };
        for (got, want) in spread(&full.combine(&c, &u, None)?).iter().zip(spread(&c)) {
            assert!((got - want).abs() < 1e-4 * want);
        }
        let none = spread(&Guidance::plain(9.0).combine(&c, &u, None)?);
        let half = spread(&Guidance { rescale: 0.5, ..Guidance::plain(9.0) }.combine(&c, &u, None)?);
        for ((half, none), want) in half.iter().zip(none).zip(spread(&c)) {
            assert!((half - 0.5 * (none + want)).abs() < 1e-3);
        }
        Ok(())
    }

    #[test]
    fn three_terms_reduce_to_two_when_the_frames_agree() -> Result<()> {
        let (c, u) = (normal(1, 0, &[1, 8])?, normal(1, 1, &[1, 8])?);
        let three = Guidance { temporal: Some(2.5), ..Guidance::plain(4.0) };
        let with = flat(&three.combine(&c, &u, Some(&u))?);
        for (a, b) in with.iter().zip(flat(&Guidance::plain(4.0).combine(&c, &u, None)?)) {
            assert!((a - b).abs() < 1e-5);
        }
        assert!(three.combine(&c, &u, None).is_err());
        Ok(())
    }

    #[test]
    fn a_constant_output_stays_finite() -> Result<()> {
        let flat_output = Tensor::ones((1, 6), DType::F32, &candle_core::Device::Cpu)?;
        let guidance = Guidance { rescale: 0.7, ..Guidance::plain(3.0) };
        assert!(flat(&guidance.combine(&flat_output, &flat_output, None)?).iter().all(|v| v.is_finite()));
        Ok(())
    }
}
