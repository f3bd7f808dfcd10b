//! Several prompts in one picture: cross-attention results blended by region masks.
//!
//! The technique is "regional prompting": every region's text is attended to everywhere, and the
//! results are mixed pixel by pixel. Masks are normalised so that the weights of a pixel sum to
//! one; what no region covers goes to the pass's own text.

use candle_core::{DType, Device, Tensor};

use super::error::{Result, UnetError};
use super::layers::{CrossAttention, Pass};

/// One region with its own text.
#[derive(Debug, Clone)]
pub struct Region {
    /// `[batch, tokens, dim]`; repeat the negative prompt in the unconditional batch items.
    pub text: Tensor,
    /// `[batch, tokens, dim]`; the short motion phrase, `text` if absent.
    pub phrase: Option<Tensor>,
    /// Coverage 0..1 at latent resolution, `[height, width]` or `[frames, height, width]`.
    pub mask: Tensor,
}

/// Which text a layer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextKind {
    Prompt,
    Phrase,
}

/// Regions with their weights at every resolution.
#[derive(Debug, Clone)]
pub(super) struct RegionWeights {
    texts: Vec<(Tensor, Tensor)>,
    levels: Vec<LevelWeights>,
}

/// Weights at one resolution: the background's first, then each region's, `[1, frames · pixels, 1]`.
#[derive(Debug, Clone)]
struct LevelWeights {
    size: (usize, usize),
    weights: Vec<Tensor>,
}

/// Coverage of one region, `frames` planes of `height × width`.
#[derive(Debug, Clone)]
struct Planes {
    frames: usize,
    height: usize,
    width: usize,
    values: Vec<f32>,
}

impl RegionWeights {
    /// Halves the masks once a level, as the network halves the picture.
    pub(super) fn new(
        regions: &[Region],
        clip: (usize, usize),
        size: (usize, usize),
        levels: usize,
        text_dim: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let (batch, frames) = clip;
        let mut texts = Vec::with_capacity(regions.len());
        let mut masks = Vec::with_capacity(regions.len());
        for region in regions {
            let phrase = region.phrase.as_ref().unwrap_or(&region.text);
            for text in [&region.text, phrase] {
                if text.rank() != 3 || text.dim(0)? != batch || text.dim(2)? != text_dim {
                    return Err(UnetError::Input {
                        name: "regions.text",
                        expected: format!("[{batch}, tokens, {text_dim}]"),
                        got: text.dims().to_vec(),
                    });
                }
            }
            texts.push((region.text.to_dtype(dtype)?, phrase.to_dtype(dtype)?));
            masks.push(Planes::new(&region.mask, frames, size)?);
        }
        let mut all = Vec::with_capacity(levels);
        for _ in 0..levels {
            all.push(LevelWeights::new(&masks, dtype, device)?);
            masks = masks.iter().map(Planes::halved).collect();
        }
        Ok(Self { texts, levels: all })
    }
}

impl LevelWeights {
    fn new(masks: &[Planes], dtype: DType, device: &Device) -> Result<Self> {
        let (frames, height, width) =
            masks.first().map_or((0, 0, 0), |plane| (plane.frames, plane.height, plane.width));
        let points = frames * height * width;
        let mut weights = vec![vec![0f32; points]; masks.len() + 1];
        for point in 0..points {
            let total: f32 = masks.iter().map(|mask| mask.values[point]).sum();
            let scale = total.max(1.0);
            weights[0][point] = 1.0 - total / scale;
            for (weight, mask) in weights.iter_mut().skip(1).zip(masks) {
                weight[point] = mask.values[point] / scale;
            }
        }
        let place = |weight| Tensor::from_vec(weight, (1, points, 1), device)?.to_dtype(dtype);
        let weights = weights.into_iter().map(place).collect::<candle_core::Result<_>>()?;
        Ok(Self { size: (height, width), weights })
    }
}

impl Planes {
    fn new(mask: &Tensor, frames: usize, size: (usize, usize)) -> Result<Self> {
        let refuse = |mask: &Tensor| UnetError::Input {
            name: "regions.mask",
            expected: format!("[{}, {}] or [{frames}, {}, {}]", size.0, size.1, size.0, size.1),
            got: mask.dims().to_vec(),
        };
        let clip = match *mask.dims() {
            [h, w] if (h, w) == size => mask.unsqueeze(0)?.broadcast_as((frames, h, w))?,
            [f, h, w] if f == frames && (h, w) == size => mask.clone(),
            _ => return Err(refuse(mask)),
        };
        let values: Vec<f32> = clip.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let values =
            values.into_iter().map(|v| if v.is_finite() { v.clamp(0.0, 1.0) } else { 0.0 }).collect();
        Ok(Self { frames, height: size.0, width: size.1, values })
    }

    /// Means over 2×2, over what there is at an odd edge.
    fn halved(&self) -> Self {
        let (height, width) = (self.height.div_ceil(2), self.width.div_ceil(2));
        let mut values = Vec::with_capacity(self.frames * height * width);
        for frame in 0..self.frames {
            for y in 0..height {
                for x in 0..width {
                    let rows = 2 * y..(2 * y + 2).min(self.height);
                    let columns = 2 * x..(2 * x + 2).min(self.width);
                    let count = (rows.len() * columns.len()) as f32;
                    let sum: f32 = rows
                        .flat_map(|row| columns.clone().map(move |column| (row, column)))
                        .map(|(row, column)| self.values[(frame * self.height + row) * self.width + column])
                        .sum();
                    values.push(sum / count);
                }
            }
        }
        Self { frames: self.frames, height, width, values }
    }
}

impl Pass<'_> {
    /// Attention of `q` `[batch, frames · pixels, c]` to the pass's text, or to every region's
    /// text blended by its weight; not yet projected out.
    pub(super) fn cross_attention(
        &self,
        layer: &CrossAttention,
        q: &Tensor,
        kind: TextKind,
        size: (usize, usize),
    ) -> Result<Tensor> {
        let text = match kind {
            TextKind::Prompt => &self.text,
            TextKind::Phrase => self.phrase.as_ref().unwrap_or(&self.text),
        };
        let background = layer.attend(q, text)?;
        let Some(regions) = &self.regions else { return Ok(background) };
        let Some(level) = regions.levels.iter().find(|level| level.size == size) else {
            return Err(UnetError::Input {
                name: "regions.mask",
                expected: "a mask that halves with the picture".into(),
                got: vec![size.0, size.1],
            });
        };
        let mut weights = level.weights.iter();
        let mut blended = match weights.next() {
            Some(weight) => background.broadcast_mul(weight)?,
            None => background,
        };
        for (weight, (prompt, phrase)) in weights.zip(&regions.texts) {
            let text = if kind == TextKind::Prompt { prompt } else { phrase };
            blended = (blended + layer.attend(q, text)?.broadcast_mul(weight)?)?;
        }
        Ok(blended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planes(values: &[f32], height: usize, width: usize) -> Planes {
        Planes { frames: 1, height, width, values: values.to_vec() }
    }

    #[test]
    fn weights_of_a_pixel_sum_to_one() {
        let masks = [planes(&[1.0, 0.5, 0.0, 1.0], 2, 2), planes(&[1.0, 0.0, 0.0, 0.0], 2, 2)];
        let level = LevelWeights::new(&masks, DType::F32, &Device::Cpu).unwrap();
        let rows: Vec<Vec<f32>> =
            level.weights.iter().map(|w| w.flatten_all().unwrap().to_vec1().unwrap()).collect();
        assert_eq!(rows[0], [0.0, 0.5, 1.0, 0.0]);
        assert_eq!(rows[1], [0.5, 0.5, 0.0, 1.0]);
        assert_eq!(rows[2], [0.5, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn halving_keeps_the_mean_and_handles_odd_edges() {
        let half = planes(&[1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.5, 0.5, 0.5], 3, 3).halved();
        assert_eq!((half.height, half.width), (2, 2));
        assert_eq!(half.values, [0.25, 1.0, 0.5, 0.5]);
    }
}
