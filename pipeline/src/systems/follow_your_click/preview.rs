//! What is seen of a clip before it is there, whatever model makes it.

use candle_core::Tensor;

use super::Hooks;
use crate::media::{Picture, Raster};
use crate::progress::Preview;

/// Frames of a preview at most.
const FRAMES: usize = 8;

/// The frames of `count` that a preview has: at even distances, so that they repeat as the clip would.
pub(super) fn spread(count: usize) -> Vec<u32> {
    let shown = count.min(FRAMES);
    (0..shown).map(|i| (i * count / shown.max(1)) as u32).collect()
}

/// Shows frames with `done` of `total` denoise steps in them, where anybody looks.
pub(super) fn show<'r>(
    hooks: &Hooks<'_>,
    done: usize,
    total: usize,
    frames: impl Iterator<Item = &'r Raster>,
) {
    if !hooks.progress.wants_previews() {
        return;
    }
    let frames: Vec<_> = frames.filter_map(Raster::to_picture).collect();
    if !frames.is_empty() {
        hooks.progress.preview(Preview { node: hooks.node.to_owned(), done, total, frames });
    }
}

/// Colours of latents without a decoder: the linear map that comes nearest to the photograph, whose
/// latents and colours are both known. One cell of the latents is one pixel.
#[derive(Debug)]
pub(super) struct Colours {
    /// One row a channel, and one for what is added.
    rows: Vec<[f64; 3]>,
}

impl Colours {
    /// From the photograph's latents `[h, w, channels]`; none where they say nothing.
    pub(super) fn of(latents: &Tensor, photo: &Picture) -> Option<Self> {
        let (h, w, channels) = latents.dims3().ok()?;
        let values = latents.flatten_all().ok()?.to_dtype(candle_core::DType::F32).ok()?;
        let values = values.to_vec1::<f32>().ok()?;
        let colours = Raster::from_picture(photo).resized(w, h);
        let count = channels + 1;
        // Normal equations, with a little held back so that a flat photograph has an answer too.
        let mut left = vec![vec![0.0f64; count]; count];
        let mut right = vec![[0.0f64; 3]; count];
        for (cell, colour) in values.chunks_exact(channels).zip(colours.data.chunks_exact(3)) {
            let known: Vec<f64> = cell.iter().map(|v| f64::from(*v)).chain([1.0]).collect();
            for (i, a) in known.iter().enumerate() {
                for (j, b) in known.iter().enumerate() {
                    *left.get_mut(i)?.get_mut(j)? += a * b;
                }
                let sums = right.get_mut(i)?;
                sums.iter_mut().zip(colour).for_each(|(sum, c)| *sum += a * f64::from(*c));
            }
        }
        let held = 1e-3 * (h * w) as f64;
        for (i, row) in left.iter_mut().enumerate() {
            *row.get_mut(i)? += held;
        }
        solved(left, right).map(|rows| Self { rows })
    }

    /// Pictures of latents `[frames, h, w, channels]`, at most as many as a preview has.
    pub(super) fn pictures(&self, latents: &Tensor) -> candle_core::Result<Vec<Raster>> {
        let (count, height, width, channels) = latents.dims4()?;
        let (offset, rows) = self.rows.split_last().map_or(([0.0; 3], &[][..]), |(last, rows)| (*last, rows));
        let picture = |frame: u32| {
            let values = latents.get(frame as usize)?.flatten_all()?.to_dtype(candle_core::DType::F32)?;
            let mut data = Vec::with_capacity(height * width * 3);
            for cell in values.to_vec1::<f32>()?.chunks_exact(channels) {
                let mut colour = offset;
                for (value, row) in cell.iter().zip(rows) {
                    colour.iter_mut().zip(row).for_each(|(c, weight)| *c += f64::from(*value) * weight);
                }
                data.extend(colour.map(|c| (c as f32).clamp(-1.0, 1.0)));
            }
            Ok(Raster { width, height, channels: 3, data })
        };
        spread(count).into_iter().map(picture).collect()
    }
}

/// Gauss's elimination with the largest pivot; none for a system without one answer.
fn solved(mut left: Vec<Vec<f64>>, mut right: Vec<[f64; 3]>) -> Option<Vec<[f64; 3]>> {
    let count = left.len();
    for column in 0..count {
        let size = |row: &usize| left.get(*row).and_then(|row| row.get(column)).map_or(0.0, |v| v.abs());
        let pivot = (column..count).max_by(|a, b| size(a).total_cmp(&size(b)))?;
        left.swap(column, pivot);
        right.swap(column, pivot);
        let (line, sums) = (left.get(column)?.clone(), *right.get(column)?);
        let lead = *line.get(column)?;
        if !(lead.abs() > 1e-12 && lead.is_finite()) {
            return None;
        }
        for row in (0..count).filter(|row| *row != column) {
            let factor = left.get(row)?.get(column)? / lead;
            left.get_mut(row)?.iter_mut().zip(&line).for_each(|(v, p)| *v -= factor * p);
            right.get_mut(row)?.iter_mut().zip(sums).for_each(|(v, p)| *v -= factor * p);
        }
    }
    let divided = right.iter().zip(&left).enumerate();
    divided.map(|(i, (sums, row))| Some(sums.map(|v| v / row.get(i).copied().unwrap_or(1.0)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn frames_are_spread_evenly_from_the_first() {
        assert_eq!(spread(16), [0, 2, 4, 6, 8, 10, 12, 14]);
        assert_eq!(spread(3), [0, 1, 2]);
        assert_eq!(spread(10), [0, 1, 2, 3, 5, 6, 7, 8]);
        assert!(spread(0).is_empty());
    }

    #[test]
    fn colours_that_are_a_linear_map_of_the_latents_are_found() {
        let (h, w) = (6usize, 8usize);
        let number = |i: usize, c: usize| (((i * 7 + c * 13) * 37 % 101) as f32 / 50.5) - 1.0;
        let latents: Vec<f32> = (0..h * w).flat_map(|i| [number(i, 0), number(i, 1)]).collect();
        let colour = |i: usize| {
            let (a, b) = (number(i, 0), number(i, 1));
            [0.3 * a - 0.2 * b, 0.5 * b, 0.1 - 0.4 * a]
        };
        let data = (0..h * w).flat_map(colour).collect();
        let photo = Raster { width: w, height: h, channels: 3, data };
        let latents = Tensor::from_vec(latents, (h, w, 2), &Device::Cpu).unwrap();
        let colours = Colours::of(&latents, &photo.to_picture().unwrap()).unwrap();
        let shown = colours.pictures(&latents.unsqueeze(0).unwrap()).unwrap();
        let worst = shown[0].data.iter().zip(&photo.data).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        // The photograph's bytes are rounded, and a little is held back.
        assert!(worst < 0.02, "{worst}");
        let flat = Tensor::zeros((h, w, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(
            Colours::of(&flat, &photo.to_picture().unwrap()).is_some(),
            "a flat photograph has colours too"
        );
    }
}
