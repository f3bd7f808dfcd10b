//! Other sizes of the same picture.

use super::Raster;

impl Raster {
    /// Area averaging where the picture shrinks, Catmull-Rom where it grows, the same where it fits.
    pub fn resized(&self, width: usize, height: usize) -> Self {
        if (self.width, self.height) == (width, height) {
            return self.clone();
        }
        if self.width < width || self.height < height {
            return stretched(self, width, height);
        }
        let mut rows = Raster::zeros(self.width, height, self.channels);
        let stride = self.width * self.channels;
        rows.par_rows(|y, out| {
            for (row, weight) in overlaps(y, height, self.height) {
                let line = &self.data[row * stride..(row + 1) * stride];
                out.iter_mut().zip(line).for_each(|(o, v)| *o += weight * v);
            }
        });
        let channels = self.channels;
        let mut out = Raster::zeros(width, height, channels);
        out.par_rows(|y, line| {
            for (x, pixel) in line.chunks_exact_mut(channels).enumerate() {
                for (column, weight) in overlaps(x, width, self.width) {
                    let at = y * stride + column * channels;
                    pixel.iter_mut().zip(&rows.data[at..at + channels]).for_each(|(o, v)| *o += weight * v);
                }
            }
        });
        out
    }
}

/// Source cells under cell `i` of `n`, each with its share.
fn overlaps(i: usize, n: usize, source: usize) -> impl Iterator<Item = (usize, f32)> {
    let scale = source as f64 / n as f64;
    let (start, end) = (i as f64 * scale, (i + 1) as f64 * scale);
    (start as usize..(end.ceil() as usize).min(source)).map(move |cell| {
        let share = (end.min(cell as f64 + 1.0) - start.max(cell as f64)).max(0.0) / scale;
        (cell, share as f32)
    })
}

fn stretched(source: &Raster, width: usize, height: usize) -> Raster {
    if (source.width, source.height) == (width, height) {
        return source.clone();
    }
    let channels = source.channels;
    let scale = [source.width as f32 / width as f32, source.height as f32 / height as f32];
    let mut out = Raster::zeros(width, height, channels);
    out.par_rows(|y, line| {
        for (x, pixel) in line.chunks_exact_mut(channels).enumerate() {
            source.catmull_rom((x as f32 + 0.5) * scale[0] - 0.5, (y as f32 + 0.5) * scale[1] - 0.5, pixel);
        }
    });
    if channels == 1 {
        out.data.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
    }
    out
}
