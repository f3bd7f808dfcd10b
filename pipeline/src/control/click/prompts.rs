//! Clicks, boxes and strokes, and what they fix at each scale.

use super::ClickError;
use super::candidates::RegionSeeds;
use super::lab::Working;
use super::refine::PixelSeed;
use super::regions::RegionGraph;

/// A click at a fraction 0..=1 of the picture's width and height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClickPoint {
    /// From the left.
    pub x: f32,
    /// From the top.
    pub y: f32,
    /// Whether this belongs to the thing (`true`) or must stay out.
    pub keep: bool,
}

/// A box the thing lies in, fractions 0..=1 with x0 < x1 and y0 < y1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoxPrompt {
    /// Left.
    pub x0: f32,
    /// Top.
    pub y0: f32,
    /// Right.
    pub x1: f32,
    /// Bottom.
    pub y1: f32,
}

/// A brush stroke: every pixel within `radius` of the line holds like a click.
#[derive(Debug, Clone, PartialEq)]
pub struct Stroke {
    /// Corners of the line in fractions 0..=1.
    pub points: Vec<[f32; 2]>,
    /// Half the brush's width as a fraction of the picture's longer side, 0..=0.5.
    pub radius: f32,
    /// As for a click.
    pub keep: bool,
}

/// Everything a person said about one thing. Where prompts contradict, the later stroke wins over
/// the earlier one and clicks win over strokes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prompts {
    /// Clicks.
    pub points: Vec<ClickPoint>,
    /// At most one box; everything outside of it is outside, except positive clicks.
    pub area: Option<BoxPrompt>,
    /// Brush strokes.
    pub strokes: Vec<Stroke>,
}

/// Pixel of a fraction; 1.0 is the last one.
pub(super) fn pixel(fraction: f32, side: usize) -> usize {
    ((fraction * side as f32) as usize).min(side - 1)
}

impl Prompts {
    /// Refuses what lies outside the picture, says nothing, or says yes and no to one pixel.
    pub(super) fn check(&self, width: usize, height: usize) -> Result<(), ClickError> {
        let within = |v: f32| (0.0..=1.0).contains(&v);
        for (index, p) in self.points.iter().enumerate() {
            if !within(p.x) || !within(p.y) {
                return Err(ClickError::OutsidePicture { index, x: p.x, y: p.y });
            }
            let place = |p: &ClickPoint| (pixel(p.x, width), pixel(p.y, height));
            if let Some(other) =
                self.points[..index].iter().position(|q| q.keep != p.keep && place(q) == place(p))
            {
                return Err(ClickError::Contradiction { first: other, second: index });
            }
        }
        if let Some(b) = self.area {
            let sane = [b.x0, b.y0, b.x1, b.y1].into_iter().all(within) && b.x0 < b.x1 && b.y0 < b.y1;
            if !sane {
                return Err(ClickError::BadBox { x0: b.x0, y0: b.y0, x1: b.x1, y1: b.y1 });
            }
        }
        for (index, stroke) in self.strokes.iter().enumerate() {
            let bad = stroke.points.iter().flatten().any(|&v| !within(v));
            if bad || stroke.points.is_empty() || !(0.0..=0.5).contains(&stroke.radius) {
                return Err(ClickError::BadStroke { index });
            }
        }
        let positive = self.points.iter().any(|p| p.keep) || self.strokes.iter().any(|s| s.keep);
        if !positive && self.area.is_none() {
            return Err(ClickError::NothingWanted);
        }
        Ok(())
    }

    /// The pixels fixed on a `width` × `height` raster, later entries over earlier ones.
    pub(super) fn pixels(&self, width: usize, height: usize) -> Vec<PixelSeed> {
        let mut fixed = Vec::new();
        for stroke in &self.strokes {
            let radius = (stroke.radius * width.max(height) as f32).max(0.5);
            let place = |p: [f32; 2]| [p[0] * width as f32 - 0.5, p[1] * height as f32 - 0.5];
            let last = stroke.points.len().saturating_sub(1);
            for (k, &from) in stroke.points.iter().enumerate() {
                let (a, b) = (place(from), place(stroke.points[(k + 1).min(last)]));
                let range = |axis: usize, side: usize| {
                    let low = (a[axis].min(b[axis]) - radius).floor().max(0.0) as usize;
                    low..((a[axis].max(b[axis]) + radius).ceil() as usize + 1).min(side)
                };
                for y in range(1, height) {
                    for x in range(0, width) {
                        if segment_distance([x as f32, y as f32], a, b) <= radius {
                            fixed.push(PixelSeed { index: y * width + x, keep: stroke.keep });
                        }
                    }
                }
            }
            for &[x, y] in &stroke.points {
                fixed
                    .push(PixelSeed { index: pixel(y, height) * width + pixel(x, width), keep: stroke.keep });
            }
        }
        for p in &self.points {
            fixed.push(PixelSeed { index: pixel(p.y, height) * width + pixel(p.x, width), keep: p.keep });
        }
        fixed
    }

    /// The box in pixels of a raster, ends exclusive, never empty.
    pub(super) fn pixel_box(&self, width: usize, height: usize) -> Option<[usize; 4]> {
        self.area.map(|b| {
            let span = |a: f32, b: f32, side: usize| {
                let low = pixel(a, side);
                (low, ((b * side as f32).ceil() as usize).clamp(low + 1, side))
            };
            let ((x0, x1), (y0, y1)) = (span(b.x0, b.x1, width), span(b.y0, b.y1, height));
            [x0, y0, x1, y1]
        })
    }

    /// What holds for superpixels.
    pub(super) fn regions(&self, work: &Working, graph: &RegionGraph) -> RegionSeeds {
        let mut marks = vec![[false; 2]; graph.count];
        for seed in self.pixels(work.width, work.height) {
            marks[graph.labels[seed.index] as usize][usize::from(seed.keep)] = true;
        }
        let boxed = self.pixel_box(work.width, work.height).map(|[x0, y0, x1, y1]| {
            let mut share = vec![0.0f32; graph.count];
            for y in y0..y1 {
                for &label in &graph.labels[y * work.width + x0..y * work.width + x1] {
                    share[label as usize] += 1.0;
                }
            }
            share.iter().zip(&graph.area).map(|(s, a)| s / a).collect::<Vec<f32>>()
        });
        let fixed = (0..graph.count)
            .map(|id| match marks[id] {
                [false, true] => 1,
                [true, false] => -1,
                [false, false] if boxed.as_ref().is_some_and(|b| b[id] <= 0.0) => -1,
                _ => 0,
            })
            .collect();
        let holding = |side: usize| (0..graph.count as u32).filter(|&id| marks[id as usize][side]).collect();
        RegionSeeds { fixed, wanted: holding(1), refused: holding(0), boxed }
    }
}

fn segment_distance(p: [f32; 2], a: [f32; 2], b: [f32; 2]) -> f32 {
    let (ab, ap) = ([b[0] - a[0], b[1] - a[1]], [p[0] - a[0], p[1] - a[1]]);
    let long = ab[0] * ab[0] + ab[1] * ab[1];
    let t = if long > 0.0 { ((ap[0] * ab[0] + ap[1] * ab[1]) / long).clamp(0.0, 1.0) } else { 0.0 };
    (ap[0] - t * ab[0]).hypot(ap[1] - t * ab[1])
}
