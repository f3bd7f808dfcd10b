//! The guide: the photograph warped along the predicted motion, over a painted background.
//!
//! One description serves every resolution: at the network's size it conditions the denoiser, at
//! the photograph's size its pixels become the clip wherever they are valid.
//!
//! Coordinates are *field units*: the picture's circumscribing square is [-1, 1]², x to the right,
//! y down, the picture centred in it. A motion is an inverse map: target point `P` shows the
//! photograph at `q = P + D(P)`. The arithmetic is that of
//! `assets/models/kinora-mini/training/guide.py`, with several regions layered in order.

use crate::media::Raster;

/// Displacement at a point of one frame, in field units.
pub trait Displacement: Sync {
    /// `D(P)` for `P = (x, y)`.
    fn at(&self, x: f32, y: f32) -> [f32; 2];
}

impl<F: Fn(f32, f32) -> [f32; 2] + Sync> Displacement for F {
    fn at(&self, x: f32, y: f32) -> [f32; 2] {
        self(x, y)
    }
}

/// Which part of the plane a raster shows, and how finely.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Half width and half height in field units; the larger is 1.
    pub extent: [f32; 2],
}

impl View {
    /// A picture of this size in its circumscribing square.
    pub fn of(width: usize, height: usize) -> Self {
        let longer = width.max(height) as f32;
        Self { width, height, extent: [width as f32 / longer, height as f32 / longer] }
    }

    /// The same plane at another resolution; the aspect may differ by rounding.
    pub fn resized(self, width: usize, height: usize) -> Self {
        Self { width, height, ..self }
    }

    /// Field units of a pixel's centre.
    #[inline]
    pub fn point(&self, column: usize, row: usize) -> [f32; 2] {
        [
            (2.0 * (column as f32 + 0.5) / self.width as f32 - 1.0) * self.extent[0],
            (2.0 * (row as f32 + 0.5) / self.height as f32 - 1.0) * self.extent[1],
        ]
    }

    /// Pixel-centre coordinates of a point, fractional, possibly outside.
    #[inline]
    pub fn pixel(&self, point: [f32; 2]) -> [f32; 2] {
        [
            (point[0] / self.extent[0] + 1.0) * 0.5 * self.width as f32 - 0.5,
            (point[1] / self.extent[1] + 1.0) * 0.5 * self.height as f32 - 0.5,
        ]
    }

    fn contains(&self, point: [f32; 2]) -> bool {
        point[0].abs() <= self.extent[0] && point[1].abs() <= self.extent[1]
    }
}

/// One region at one resolution.
#[derive(Debug)]
pub struct Layer {
    /// Coverage, one channel.
    pub mask: Raster,
    /// What the plate had to paint: the mask, thresholded and dilated.
    pub hole: Raster,
    /// Texture moves inside a fixed outline (`true`), or the outline moves along (`false`).
    pub gated: bool,
}

/// The still parts of a guide at one resolution.
#[derive(Debug)]
pub struct Scene {
    /// Where the rasters lie.
    pub view: View,
    /// The photograph, three channels, -1..=1.
    pub photo: Raster,
    /// The photograph without its moving things, three channels.
    pub plate: Raster,
    /// What moves, lowest first.
    pub layers: Vec<Layer>,
    /// Read colours with Catmull-Rom (`true`, for final pixels) or bilinearly (as in training).
    pub sharp: bool,
}

/// One frame of the guide.
#[derive(Debug)]
pub struct GuideFrame {
    /// The warped picture, three channels.
    pub picture: Raster,
    /// Where the moving things now are, one channel.
    pub mask: Raster,
    /// 1 where the picture shows what the photograph knows, 0 where it was painted.
    pub valid: Raster,
    /// How much of the plate shows; what is neither valid nor painted is a guess at the edge.
    pub painted: Raster,
}

impl Scene {
    /// Warps the photograph; `motions` has one displacement a layer.
    pub fn frame<D: Displacement>(&self, motions: &[D]) -> GuideFrame {
        let View { width, height, .. } = self.view;
        // Colour, mask and validity are computed together and split afterwards.
        let mut packed = Raster::zeros(width, height, 6);
        packed.par_rows(|row, numbers| {
            for (column, out) in numbers.chunks_exact_mut(6).enumerate() {
                self.pixel(motions, column, row, out);
            }
        });
        let split = |range: std::ops::Range<usize>| Raster {
            width,
            height,
            channels: range.len(),
            data: packed
                .data
                .chunks_exact(6)
                .flat_map(|pixel| pixel[range.clone()].iter().copied())
                .collect(),
        };
        GuideFrame { picture: split(0..3), mask: split(3..4), valid: split(4..5), painted: split(5..6) }
    }

    fn pixel<D: Displacement>(&self, motions: &[D], column: usize, row: usize, out: &mut [f32]) {
        let here = row * self.view.width + column;
        let point = self.view.point(column, row);
        let stay = &self.photo.data[3 * here..3 * here + 3];
        let displacement = |layer: usize| motions.get(layer).map_or([0.0; 2], |m| m.at(point[0], point[1]));

        // Where any outline has left its place the plate shows.
        let mut gone = 0.0f32;
        for (index, layer) in self.layers.iter().enumerate() {
            let hole = layer.hole.data[here];
            if hole > 0.0 && !layer.gated {
                let [dx, dy] = displacement(index);
                // One unit is 128 px of the 256 px square; what moves less than 2 px leaves no hole.
                gone = gone.max(hole * (dx.hypot(dy) * 64.0).min(1.0));
            }
        }
        let mut colour = [0.0f32; 3];
        for c in 0..3 {
            colour[c] = stay[c] + gone * (self.plate.data[3 * here + c] - stay[c]);
        }
        let (mut covered, mut valid, mut painted) = (0.0f32, 1.0 - gone, gone);

        for (index, layer) in self.layers.iter().enumerate() {
            let [dx, dy] = displacement(index);
            let source = [point[0] + dx, point[1] + dy];
            let [sx, sy] = self.view.pixel(source);
            let mask_there = layer.mask.bilinear_zero(sx, sy);
            let alpha = if layer.gated { layer.mask.data[here] } else { mask_there };
            if alpha <= 0.0 {
                continue;
            }
            let known = if self.view.contains(source) { 1.0 } else { 0.0 };
            let mut moved = [0.0f32; 3];
            if self.sharp {
                self.photo.catmull_rom(sx, sy, &mut moved);
            } else {
                self.photo.bilinear(sx, sy, &mut moved);
            }
            let (share, object_valid) =
                if layer.gated { (mask_there, mask_there * known) } else { (1.0, known) };
            for c in 0..3 {
                let object = share * moved[c] + (1.0 - share) * stay[c];
                colour[c] = alpha * object + (1.0 - alpha) * colour[c];
            }
            valid = alpha * object_valid + (1.0 - alpha) * valid;
            painted *= 1.0 - alpha;
            covered = alpha + (1.0 - alpha) * covered;
        }
        out[..3].copy_from_slice(&colour);
        out[3] = covered;
        out[4] = valid;
        out[5] = painted;
    }
}

/// What the plate must paint for a mask: all within 1/64 of the longer side of it, with a hard
/// edge so that the halo of a soft cut-out is painted too.
pub fn hole_of(mask: &Raster) -> Raster {
    let radius = (mask.width.max(mask.height) as f64 / 64.0).round_ties_even().max(1.0) as usize;
    let hard = mask.data.iter().map(|&alpha| if alpha > 0.05 { 1.0 } else { 0.0 }).collect();
    Raster { data: hard, ..mask.clone() }.dilated(radius)
}

/// Smooth fill by a push-pull pyramid. `weight` is 1 where `picture` is known and 0 where it is to
/// be filled; the result equals `picture` where the weight is 1.
///
/// After Gortler et al., "The Lumigraph" (1996), section 3.4: halve to one pixel averaging what is
/// known, then double and keep what is known at each level.
pub fn push_pull(picture: &Raster, weight: &Raster) -> Raster {
    let (w, h, channels) = (picture.width, picture.height, picture.channels);
    if w == 1 && h == 1 {
        return picture.clone();
    }
    let (half_w, half_h) = (w.div_ceil(2), h.div_ceil(2));
    let mut coarse = Raster::zeros(half_w, half_h, channels);
    let mut coarse_weight = Raster::zeros(half_w, half_h, 1);
    for y in 0..half_h {
        for x in 0..half_w {
            let mut sum = vec![0.0f32; channels];
            let mut total = 0.0f32;
            for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                let (px, py) = ((2 * x + dx) as isize, (2 * y + dy) as isize);
                let known = weight.pixel_clamped(px, py)[0];
                total += 0.25 * known;
                for (s, &value) in sum.iter_mut().zip(picture.pixel_clamped(px, py)) {
                    *s += 0.25 * known * value;
                }
            }
            let at = y * half_w + x;
            for (c, s) in sum.iter().enumerate() {
                coarse.data[at * channels + c] = s / total.max(1e-6);
            }
            coarse_weight.data[at] = (2.0 * total).min(1.0);
        }
    }
    let low = push_pull(&coarse, &coarse_weight);
    let mut out = Raster::zeros(w, h, channels);
    out.par_rows(|y, row| {
        let mut filled = vec![0.0f32; channels];
        for x in 0..w {
            // Half-pixel centres: pixel x of the finer level lies at x/2 - 1/4 of the coarser one.
            low.bilinear(clamped(x, half_w), clamped(y, half_h), &mut filled);
            let at = y * w + x;
            let known = weight.data[at];
            for c in 0..channels {
                row[x * channels + c] = picture.data[at * channels + c] * known + filled[c] * (1.0 - known);
            }
        }
    });
    out
}

fn clamped(fine: usize, coarse: usize) -> f32 {
    ((fine as f32 + 0.5) * 0.5 - 0.5).clamp(0.0, coarse as f32 - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(gated: bool) -> Scene {
        let (w, h) = (16, 8);
        let view = View::of(w, h);
        let mut photo = Raster::zeros(w, h, 3);
        photo.par_rows(|y, row| {
            row.iter_mut().enumerate().for_each(|(i, v)| *v = (i + y) as f32 / 60.0 - 0.5)
        });
        let mut mask = Raster::zeros(w, h, 1);
        mask.par_rows(|y, row| {
            row.iter_mut()
                .enumerate()
                .for_each(|(x, v)| *v = f32::from((2..5).contains(&y) && (4..8).contains(&x)))
        });
        let hole = hole_of(&mask);
        let plate = Raster { data: vec![0.9; w * h * 3], ..photo.clone() };
        Scene { view, photo, plate, layers: vec![Layer { mask, hole, gated }], sharp: false }
    }

    #[test]
    fn without_motion_the_guide_is_the_photograph() {
        for gated in [false, true] {
            for sharp in [false, true] {
                let scene = Scene { sharp, ..scene(gated) };
                let frame = scene.frame(&[|_: f32, _: f32| [0.0, 0.0]]);
                for (got, want) in frame.picture.data.iter().zip(&scene.photo.data) {
                    assert!((got - want).abs() < 1e-5);
                }
                assert!(frame.valid.data.iter().all(|&v| (v - 1.0).abs() < 1e-6));
            }
        }
    }

    #[test]
    fn content_goes_against_the_inverse_map_and_uncovers_the_plate() {
        let scene = scene(false);
        // Two pixels to the right: one pixel is 2/16 units, q = P - shift.
        let frame = scene.frame(&[|_: f32, _: f32| [-4.0 / 16.0, 0.0]]);
        let at = |x: usize, y: usize| (y * 16 + x) * 3;
        assert!((frame.picture.data[at(7, 3)] - scene.photo.data[at(5, 3)]).abs() < 1e-5);
        assert_eq!(frame.mask.data[3 * 16 + 9], 1.0);
        assert!((frame.picture.data[at(4, 3)] - 0.9).abs() < 1e-5, "the plate shows where the thing was");
        assert_eq!(frame.valid.data[3 * 16 + 4], 0.0);
        assert_eq!(frame.painted.data[3 * 16 + 4], 1.0);
        assert_eq!(frame.painted.data[3 * 16 + 7], 0.0, "the thing itself is not painted");
        assert_eq!(frame.picture.data[at(14, 6)], scene.photo.data[at(14, 6)]);
    }

    #[test]
    fn a_gated_region_keeps_its_outline() {
        let frame = scene(true).frame(&[|_: f32, _: f32| [-4.0 / 16.0, 0.0]]);
        assert_eq!(frame.mask.data, scene(true).layers[0].mask.data);
        assert_eq!(frame.valid.data[3 * 16 + 7], 1.0);
        assert_eq!(frame.valid.data[3 * 16 + 4], 0.0, "what flowed in from outside the mask is unknown");
    }

    #[test]
    fn push_pull_keeps_what_is_known_and_fills_a_constant_exactly() {
        let picture = Raster { width: 5, height: 7, channels: 1, data: vec![0.25; 35] };
        let mut weight = Raster { data: vec![1.0; 35], ..picture.clone() };
        weight.data[8..20].fill(0.0);
        let mut holed = picture.clone();
        holed.data[8..20].fill(9.0);
        let filled = push_pull(&holed, &weight);
        assert!(filled.data.iter().all(|v| (v - 0.25).abs() < 1e-5), "{:?}", filled.data);
    }
}
