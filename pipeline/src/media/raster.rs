//! Pictures as floating-point numbers, for everything between decoding and encoding.

mod resize;

use rayon::prelude::*;

use super::{Mask, Picture};

/// `height × width × channels` numbers, channels interleaved. Pictures are in -1..=1 (sRGB-encoded),
/// masks in 0..=1.
#[derive(Debug, Clone, PartialEq)]
pub struct Raster {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Numbers per pixel.
    pub channels: usize,
    /// `data[(y * width + x) * channels + c]`.
    pub data: Vec<f32>,
}

impl Raster {
    /// All zeros.
    pub fn zeros(width: usize, height: usize, channels: usize) -> Self {
        Self { width, height, channels, data: vec![0.0; width * height * channels] }
    }

    /// A picture in -1..=1.
    pub fn from_picture(picture: &Picture) -> Self {
        let data = picture.rgb().iter().map(|&byte| f32::from(byte) / 127.5 - 1.0).collect();
        Self { width: picture.width() as usize, height: picture.height() as usize, channels: 3, data }
    }

    /// A mask as one channel.
    pub fn from_mask(mask: &Mask) -> Self {
        Self {
            width: mask.width() as usize,
            height: mask.height() as usize,
            channels: 1,
            data: mask.alpha().to_vec(),
        }
    }

    /// Rounds a three-channel raster in -1..=1 to 8 bits; `None` for other channel counts.
    pub fn to_picture(&self) -> Option<Picture> {
        if self.channels != 3 {
            return None;
        }
        let rgb = self.data.iter().map(|&v| byte_from_signed(v)).collect();
        Picture::new(u32::try_from(self.width).ok()?, u32::try_from(self.height).ok()?, rgb).ok()
    }

    /// The numbers of one pixel, the nearest one inside when `x` or `y` lie outside.
    pub fn pixel_clamped(&self, x: isize, y: isize) -> &[f32] {
        let x = x.clamp(0, self.width as isize - 1) as usize;
        let y = y.clamp(0, self.height as isize - 1) as usize;
        let start = (y * self.width + x) * self.channels;
        &self.data[start..start + self.channels]
    }

    /// Calls `row(y, numbers of that row)` for all rows, in parallel.
    pub fn par_rows(&mut self, row: impl Fn(usize, &mut [f32]) + Sync + Send) {
        let stride = self.width * self.channels;
        if stride > 0 {
            self.data.par_chunks_mut(stride).enumerate().for_each(|(y, numbers)| row(y, numbers));
        }
    }

    /// Bilinear reading of channel `c` at pixel-centre coordinates; the edge is held outside.
    #[inline]
    pub fn bilinear(&self, x: f32, y: f32, out: &mut [f32]) {
        let (x0, y0) = (x.floor(), y.floor());
        let (fx, fy) = (x - x0, y - y0);
        let (x0, y0) = (x0 as isize, y0 as isize);
        let (a, b) = (self.pixel_clamped(x0, y0), self.pixel_clamped(x0 + 1, y0));
        let (c, d) = (self.pixel_clamped(x0, y0 + 1), self.pixel_clamped(x0 + 1, y0 + 1));
        for (channel, value) in out.iter_mut().enumerate() {
            let top = a[channel] + fx * (b[channel] - a[channel]);
            let bottom = c[channel] + fx * (d[channel] - c[channel]);
            *value = top + fy * (bottom - top);
        }
    }

    /// Bilinear reading of a one-channel raster that is 0 outside.
    #[inline]
    pub fn bilinear_zero(&self, x: f32, y: f32) -> f32 {
        let (x0, y0) = (x.floor(), y.floor());
        let (fx, fy) = (x - x0, y - y0);
        let at = |x: isize, y: isize| {
            if x < 0 || y < 0 || x >= self.width as isize || y >= self.height as isize {
                0.0
            } else {
                self.data[(y as usize * self.width + x as usize) * self.channels]
            }
        };
        let (x0, y0) = (x0 as isize, y0 as isize);
        let top = at(x0, y0) + fx * (at(x0 + 1, y0) - at(x0, y0));
        let bottom = at(x0, y0 + 1) + fx * (at(x0 + 1, y0 + 1) - at(x0, y0 + 1));
        top + fy * (bottom - top)
    }

    /// Catmull-Rom reading; sharper than bilinear and exact at pixel centres. The edge is held.
    #[inline]
    pub fn catmull_rom(&self, x: f32, y: f32, out: &mut [f32]) {
        let (x0, y0) = (x.floor(), y.floor());
        let (wx, wy) = (catmull_rom_weights(x - x0), catmull_rom_weights(y - y0));
        let (x0, y0) = (x0 as isize, y0 as isize);
        out.fill(0.0);
        for (j, &row_weight) in wy.iter().enumerate() {
            for (i, &column_weight) in wx.iter().enumerate() {
                let pixel = self.pixel_clamped(x0 + i as isize - 1, y0 + j as isize - 1);
                for (value, &sample) in out.iter_mut().zip(pixel) {
                    *value += row_weight * column_weight * sample;
                }
            }
        }
    }

    /// Largest value in a square of `radius` pixels to each side (a dilation); one channel.
    pub fn dilated(&self, radius: usize) -> Self {
        self.windowed(radius, f32::max)
    }

    /// Smallest value in a square of `radius` pixels to each side (an erosion); one channel.
    pub fn eroded(&self, radius: usize) -> Self {
        self.windowed(radius, f32::min)
    }

    fn windowed(&self, radius: usize, pick: fn(f32, f32) -> f32) -> Self {
        let (w, h) = (self.width, self.height);
        let window = |i: usize, n: usize| i.saturating_sub(radius)..(i + radius + 1).min(n);
        let mut rows = self.clone();
        rows.par_rows(|y, row| {
            for x in 0..w {
                row[x] =
                    self.data[y * w..(y + 1) * w][window(x, w)].iter().copied().reduce(pick).unwrap_or(0.0);
            }
        });
        let mut out = self.clone();
        out.par_rows(|y, row| {
            for x in 0..w {
                row[x] = window(y, h).map(|yy| rows.data[yy * w + x]).reduce(pick).unwrap_or(0.0);
            }
        });
        out
    }

    /// Mean over a square of `radius` pixels to each side, smaller at the edges; one channel.
    pub fn box_blurred(&self, radius: usize) -> Self {
        let (w, h) = (self.width, self.height);
        let mean = |line: &dyn Fn(usize) -> f32, i: usize, n: usize| {
            let window = i.saturating_sub(radius)..(i + radius + 1).min(n);
            let count = window.len() as f32;
            window.map(line).sum::<f32>() / count
        };
        let mut rows = self.clone();
        rows.par_rows(|y, row| {
            for x in 0..w {
                row[x] = mean(&|i| self.data[y * w + i], x, w);
            }
        });
        let mut out = self.clone();
        out.par_rows(|y, row| {
            for x in 0..w {
                row[x] = mean(&|i| rows.data[i * w + x], y, h);
            }
        });
        out
    }
}

/// -1..=1 to 0..=255, rounded.
pub fn byte_from_signed(value: f32) -> u8 {
    ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8
}

fn catmull_rom_weights(t: f32) -> [f32; 4] {
    let (t2, t3) = (t * t, t * t * t);
    [
        0.5 * (-t3 + 2.0 * t2 - t),
        0.5 * (3.0 * t3 - 5.0 * t2 + 2.0),
        0.5 * (-3.0 * t3 + 4.0 * t2 + t),
        0.5 * (t3 - t2),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp() -> Raster {
        Raster { width: 4, height: 3, channels: 1, data: (0..12).map(|i| i as f32).collect() }
    }

    #[test]
    fn readings_agree_at_pixel_centres_and_follow_a_plane() {
        let raster = ramp();
        let mut out = [0.0];
        for (x, y) in [(0.0, 0.0), (3.0, 2.0), (1.0, 1.0)] {
            raster.bilinear(x, y, &mut out);
            assert_eq!(out[0], y * 4.0 + x);
            raster.catmull_rom(x, y, &mut out);
            assert!((out[0] - (y * 4.0 + x)).abs() < 1e-5);
        }
        raster.bilinear(1.25, 0.5, &mut out);
        assert_eq!(out[0], 3.25);
        assert_eq!(raster.bilinear_zero(-2.0, 0.0), 0.0);
        assert_eq!(raster.bilinear_zero(0.0, 1.0), 4.0);
    }

    #[test]
    fn windows_are_square_and_stop_at_the_edge() {
        let mut point = Raster::zeros(5, 5, 1);
        point.data[12] = 1.0;
        assert_eq!(point.dilated(1).data.iter().sum::<f32>(), 9.0);
        assert_eq!(point.dilated(1).eroded(1), point);
        assert_eq!(Raster { data: vec![2.0; 25], ..point.clone() }.box_blurred(3).data, vec![2.0; 25]);
    }

    #[test]
    fn bytes_survive_the_round_trip() {
        let picture = Picture::new(16, 16, (0..=255).flat_map(|b| [b, b, b]).collect()).unwrap();
        assert_eq!(Raster::from_picture(&picture).to_picture().unwrap(), picture);
    }
}
