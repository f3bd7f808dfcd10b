//! The motion field: caption, magnitude and mask to a displacement of every point over time.
//!
//! `D(P; s) = Σ_k C_k(s)·basis_k(P) + free(P; s)` in field units (see
//! `systems::follow_your_click::guide`). The caption chooses weights; time and magnitude enter
//! through fixed functions that vanish at rest, so frame 0 is exact and the answer to the
//! magnitude is monotone by construction. `assets/models/kinora-mini/training/field.py`.

use std::f32::consts::{PI, TAU};

use candle_core::{Device, Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, Module, VarBuilder};

use crate::media::Raster;
use crate::nets::weights;

/// Cells a side of the grid on which the net sees the mask.
const GRID: usize = 20;
/// Half the width of that grid in field units.
const SPAN: f32 = 1.25;
const NUM_BASIS: usize = 10;
const NUM_TIME: usize = 12;
/// Wave lengths of the ripple basis in field units.
const WAVE_Y: f32 = 0.32;
const WAVE_X: f32 = 0.40;

/// Sizes of the motion-field net.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldConfig {
    /// Width of the pooled caption.
    pub text_dim: usize,
    /// Width of the fully connected layers.
    pub hidden: usize,
    /// Width of the convolutions.
    pub conv_width: usize,
    /// FiLM blocks.
    pub conv_blocks: usize,
}

/// Where the mask is and how large, in field units: centre, radius of the disc of equal area,
/// standard deviations.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shape {
    cx: f32,
    cy: f32,
    r: f32,
    sx: f32,
    sy: f32,
}

/// The displacement of one frame.
#[derive(Debug, Clone)]
pub struct FrameField {
    shape: Shape,
    coefficients: [[f32; 2]; NUM_BASIS],
    /// Two channels over the grid.
    free: Raster,
}

/// What a region does over a clip.
#[derive(Debug, Clone)]
pub struct Motion {
    /// One displacement a frame.
    pub frames: Vec<FrameField>,
    /// Probability that the texture moves inside a fixed outline.
    pub gate: f32,
}

/// The net.
#[derive(Debug, Clone)]
pub struct MotionField {
    cond_1: Linear,
    cond_2: Linear,
    head_1: Linear,
    weights: Linear,
    gate: Linear,
    conv_in: Conv2d,
    blocks: Vec<FilmBlock>,
    conv_out: Conv2d,
    device: Device,
}

#[derive(Debug, Clone)]
struct FilmBlock {
    conv1: Conv2d,
    film: Linear,
    conv2: Conv2d,
}

fn conv(inner: usize, out: usize, vb: VarBuilder) -> Result<Conv2d> {
    let weight = weights::tensor(&vb, &[out, inner, 3, 3], "weight")?;
    let bias = weights::tensor(&vb, &[out], "bias")?;
    Ok(Conv2d::new(weight, Some(bias), Conv2dConfig { padding: 1, ..Default::default() }))
}

fn linear(inner: usize, out: usize, vb: VarBuilder) -> Result<Linear> {
    let weight = weights::tensor(&vb, &[out, inner], "weight")?;
    Ok(Linear::new(weight, Some(weights::tensor(&vb, &[out], "bias")?)))
}

impl MotionField {
    /// Reads `cond_1`, `cond_2`, `head_1`, `weights`, `gate`, `conv_in`, `blocks.N`, `conv_out`.
    pub fn new(config: &FieldConfig, vb: VarBuilder) -> Result<Self> {
        let (hidden, width) = (config.hidden, config.conv_width);
        let linear_of = |inner, out, name: &str| linear(inner, out, vb.pp(name));
        let blocks = (0..config.conv_blocks).map(|i| {
            let vb = vb.pp("blocks").pp(i);
            Ok(FilmBlock {
                conv1: conv(width, width, vb.pp("conv1"))?,
                film: linear(hidden, 2 * width, vb.pp("film"))?,
                conv2: conv(width, width, vb.pp("conv2"))?,
            })
        });
        Ok(Self {
            cond_1: linear_of(config.text_dim + 3, hidden, "cond_1")?,
            cond_2: linear_of(hidden, hidden, "cond_2")?,
            head_1: linear_of(hidden, hidden, "head_1")?,
            weights: linear_of(hidden, NUM_TIME * NUM_BASIS * 2, "weights")?,
            gate: linear_of(hidden, 1, "gate")?,
            conv_in: conv(1 + NUM_BASIS, width, vb.pp("conv_in"))?,
            blocks: blocks.collect::<Result<_>>()?,
            conv_out: conv(width, NUM_TIME * 2, vb.pp("conv_out"))?,
            device: vb.device().clone(),
        })
    }

    /// `mask` is one channel in the picture's aspect; `pooled` is `[1, text_dim]`; `magnitudes` and
    /// `phases` have the magnitude and the motion's phase, both 0..=1, of each frame; frames without one of the two
    /// are left out.
    pub fn predict(
        &self,
        mask: &Raster,
        pooled: &Tensor,
        magnitudes: &[f64],
        phases: &[f64],
    ) -> Result<Motion> {
        let shape = Shape::of(mask);
        let geometry = Tensor::new(&[[shape.r, shape.sx, shape.sy]], &self.device)?;
        let e = self.cond_1.forward(&Tensor::cat(&[pooled, &geometry], 1)?)?.silu()?;
        let e = self.cond_2.forward(&e)?.silu()?;
        let weights = self.weights.forward(&self.head_1.forward(&e)?.silu()?)?;
        let weights = weights.reshape((NUM_TIME, NUM_BASIS * 2))?;
        let gate = candle_nn::ops::sigmoid(&self.gate.forward(&e)?)?.flatten_all()?.to_vec1::<f32>()?;

        let mut x = self.conv_in.forward(&self.features(mask, shape)?)?;
        for block in &self.blocks {
            let film = block.film.forward(&e)?.chunk(2, 1)?;
            let [scale, shift] = [&film[0], &film[1]].map(|t| t.unsqueeze(2).and_then(|t| t.unsqueeze(3)));
            let inner = block.conv1.forward(&x.silu()?)?;
            let inner = inner.broadcast_mul(&(scale? + 1.0)?)?.broadcast_add(&shift?)?;
            x = (x + block.conv2.forward(&inner.silu()?)?)?;
        }
        let free = self.conv_out.forward(&x.silu()?)?.reshape((NUM_TIME, 2 * GRID * GRID))?;

        let moments = phases.iter().zip(magnitudes);
        let times: Vec<f32> = moments.flat_map(|(&s, &m)| time_functions(s as f32, m as f32)).collect();
        let times = Tensor::from_vec(times, (phases.len().min(magnitudes.len()), NUM_TIME), &self.device)?;
        let coefficients: Vec<Vec<f32>> = times.matmul(&weights)?.to_vec2()?;
        let free: Vec<Vec<f32>> = (times.matmul(&free)? * 0.1)?.to_vec2()?;
        let frames = coefficients
            .into_iter()
            .zip(free)
            .map(|(coefficients, free)| FrameField::new(shape, &coefficients, &free))
            .collect();
        Ok(Motion { frames, gate: gate.first().copied().unwrap_or(0.0) })
    }

    /// The mask and the basis functions over the grid, `[1, 11, 20, 20]`.
    fn features(&self, mask: &Raster, shape: Shape) -> Result<Tensor> {
        let grid = mask_grid(mask);
        let mut features = vec![0.0f32; (1 + NUM_BASIS) * GRID * GRID];
        for row in 0..GRID {
            for column in 0..GRID {
                let at = row * GRID + column;
                let cell = |i: usize| (i as f32 + 0.5) * (2.0 * SPAN / GRID as f32) - SPAN;
                features[at] = grid[at] * 2.0 - 1.0;
                for (k, value) in basis(shape, cell(column), cell(row)).into_iter().enumerate() {
                    features[(1 + k) * GRID * GRID + at] = value;
                }
            }
        }
        Tensor::from_vec(features, (1, 1 + NUM_BASIS, GRID, GRID), &self.device)
    }
}

impl FrameField {
    fn new(shape: Shape, coefficients: &[f32], free: &[f32]) -> Self {
        let mut table = [[0.0; 2]; NUM_BASIS];
        for (entry, pair) in table.iter_mut().zip(coefficients.chunks_exact(2)) {
            entry.copy_from_slice(pair);
        }
        let (x, y) = free.split_at(GRID * GRID);
        let data = x.iter().zip(y).flat_map(|(&x, &y)| [x, y]).collect();
        Self { shape, coefficients: table, free: Raster { width: GRID, height: GRID, channels: 2, data } }
    }

    /// Displacement of the inverse map at a point, both in field units.
    pub fn at(&self, x: f32, y: f32) -> [f32; 2] {
        let mut out = [0.0f32; 2];
        let cell = |v: f32| (v / SPAN + 1.0) * 0.5 * GRID as f32 - 0.5;
        let edge = GRID as f32 - 1.0;
        self.free.bilinear(cell(x).clamp(0.0, edge), cell(y).clamp(0.0, edge), &mut out);
        for (value, [cx, cy]) in basis(self.shape, x, y).into_iter().zip(self.coefficients) {
            out[0] += value * cx;
            out[1] += value * cy;
        }
        out
    }
}

impl Shape {
    /// An empty mask has its centre in the middle and almost no extent.
    fn of(mask: &Raster) -> Self {
        let longer = mask.width.max(mask.height) as f64;
        let (mut total, mut x1, mut y1, mut x2, mut y2) = (0.0f64, 0.0f64, 0.0f64, 0.0f64, 0.0f64);
        for row in 0..mask.height {
            let y = (2.0 * (row as f64 + 0.5) - mask.height as f64) / longer;
            for column in 0..mask.width {
                let x = (2.0 * (column as f64 + 0.5) - mask.width as f64) / longer;
                let weight = f64::from(mask.data[row * mask.width + column]);
                total += weight;
                x1 += weight * x;
                y1 += weight * y;
                x2 += weight * x * x;
                y2 += weight * y * y;
            }
        }
        let total = total.max(1e-3);
        let (cx, cy) = (x1 / total, y1 / total);
        let spread = |second: f64, mean: f64| (second / total - mean * mean).max(1e-6).sqrt() as f32;
        let area = total * (2.0 / longer) * (2.0 / longer);
        Self {
            cx: cx as f32,
            cy: cy as f32,
            r: (area / std::f64::consts::PI).sqrt() as f32,
            sx: spread(x2, cx),
            sy: spread(y2, cy),
        }
    }
}

/// Mean coverage of each of 16×16 cells of the circumscribing square, with two cells of nothing
/// around.
fn mask_grid(mask: &Raster) -> Vec<f32> {
    const CELLS: usize = 16;
    let side = mask.width.max(mask.height);
    let (top, left) = ((side - mask.height) / 2, (side - mask.width) / 2);
    let mut grid = vec![0.0f32; GRID * GRID];
    // Cell i covers rows floor(i·side/16) to ceil((i+1)·side/16), as adaptive average pooling does.
    let range = |i: usize| (i * side / CELLS)..((i + 1) * side).div_ceil(CELLS);
    for row in 0..CELLS {
        for column in 0..CELLS {
            let (rows, columns) = (range(row), range(column));
            let count = (rows.len() * columns.len()) as f32;
            let mut sum = 0.0f32;
            for y in rows {
                for x in columns.clone() {
                    if let (Some(y), Some(x)) = (y.checked_sub(top), x.checked_sub(left))
                        && y < mask.height
                        && x < mask.width
                    {
                        sum += mask.data[y * mask.width + x];
                    }
                }
            }
            grid[(row + 2) * GRID + column + 2] = sum / count.max(1.0);
        }
    }
    grid
}

fn basis(shape: Shape, x: f32, y: f32) -> [f32; NUM_BASIS] {
    let Shape { cx, cy, r, sy, .. } = shape;
    let (x, y) = (x - cx, y - cy);
    let height = ((1.7 * sy - y) / (3.4 * sy).max(1e-3)).clamp(0.0, 1.5);
    let (wave_y, wave_x) = (TAU / WAVE_Y * y, TAU / WAVE_X * x);
    [1.0, x, y, sy, r, height * height, wave_y.sin(), wave_y.cos(), wave_x.sin(), wave_x.cos()]
}

fn time_functions(s: f32, m: f32) -> [f32; NUM_TIME] {
    let wave = |k: f32| (TAU * k * s).sin();
    let ramp = (4.0 * s).min(1.0);
    let (a, b) = (m * s, m * wave(1.0));
    let c = m * wave(1.0) * wave(1.0);
    [
        a,
        a * a,
        a * a * a,
        b,
        b * b,
        b * b * b,
        m * wave(2.0),
        m * wave(3.0),
        c,
        c * c,
        m * ramp * wave(2.0),
        m * ramp * (4.0 * PI * s).cos(),
    ]
}
