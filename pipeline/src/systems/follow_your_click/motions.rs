//! The motions the embedded model was trained on, as exact formulas: the truth of the evaluation.
//!
//! The definition, with the reasons for its constants, is
//! `assets/models/kinora-mini/training/motions.py`. Coordinates are field units (see
//! [`super::guide`]); a motion is an inverse map, so target point `P` shows the still at `P + D(P)`.

use std::f64::consts::{FRAC_1_SQRT_2, TAU};

use crate::media::Raster;
use crate::systems::follow_your_click::guide::View;

/// What a thing can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Drift left, without turning; the eight directions follow the picture's axes.
    Left,
    /// Drift right.
    Right,
    /// Drift up.
    Up,
    /// Drift down.
    Down,
    /// Drift up and left.
    UpLeft,
    /// Drift up and right.
    UpRight,
    /// Drift down and left.
    DownLeft,
    /// Drift down and right.
    DownRight,
    /// Turn clockwise as seen.
    TurnCw,
    /// Turn counter-clockwise.
    TurnCcw,
    /// Become larger.
    Grow,
    /// Become smaller.
    Shrink,
    /// Bend sideways while the foot stays.
    Sway,
    /// Waves run through the texture inside a fixed outline.
    Ripple,
    /// The texture flows left inside a fixed outline.
    FlowLeft,
    /// The texture flows right.
    FlowRight,
    /// The texture flows up.
    FlowUp,
    /// The texture flows down.
    FlowDown,
    /// Two soft hops.
    Bounce,
    /// Quick small steps left and right.
    Shake,
    /// A pendulum about the top, clockwise first.
    Swing,
    /// Two soft beats of size.
    Pulse,
    /// Nothing moves.
    Still,
}

/// Every kind, in the order of the model's output columns.
pub const KINDS: [Kind; 23] = [
    Kind::Left,
    Kind::Right,
    Kind::Up,
    Kind::Down,
    Kind::UpLeft,
    Kind::UpRight,
    Kind::DownLeft,
    Kind::DownRight,
    Kind::TurnCw,
    Kind::TurnCcw,
    Kind::Grow,
    Kind::Shrink,
    Kind::Sway,
    Kind::Ripple,
    Kind::FlowLeft,
    Kind::FlowRight,
    Kind::FlowUp,
    Kind::FlowDown,
    Kind::Bounce,
    Kind::Shake,
    Kind::Swing,
    Kind::Pulse,
    Kind::Still,
];

impl Kind {
    /// The name in `config.json` and `prompts.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
            Self::Up => "up",
            Self::Down => "down",
            Self::UpLeft => "up_left",
            Self::UpRight => "up_right",
            Self::DownLeft => "down_left",
            Self::DownRight => "down_right",
            Self::TurnCw => "turn_cw",
            Self::TurnCcw => "turn_ccw",
            Self::Grow => "grow",
            Self::Shrink => "shrink",
            Self::Sway => "sway",
            Self::Ripple => "ripple",
            Self::FlowLeft => "flow_left",
            Self::FlowRight => "flow_right",
            Self::FlowUp => "flow_up",
            Self::FlowDown => "flow_down",
            Self::Bounce => "bounce",
            Self::Shake => "shake",
            Self::Swing => "swing",
            Self::Pulse => "pulse",
            Self::Still => "still",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether the texture moves inside a fixed outline.
    pub fn is_gated(self) -> bool {
        matches!(self, Self::Ripple | Self::FlowLeft | Self::FlowRight | Self::FlowUp | Self::FlowDown)
    }

    fn direction(self) -> Option<(f64, f64)> {
        let d = FRAC_1_SQRT_2;
        Some(match self {
            Self::Left => (-1.0, 0.0),
            Self::Right => (1.0, 0.0),
            Self::Up => (0.0, -1.0),
            Self::Down => (0.0, 1.0),
            Self::UpLeft => (-d, -d),
            Self::UpRight => (d, -d),
            Self::DownLeft => (-d, d),
            Self::DownRight => (d, d),
            _ => return None,
        })
    }
}

/// Centre and spread of a mask in field units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Mean x.
    pub cx: f64,
    /// Mean y.
    pub cy: f64,
    /// Radius of the disc of equal area.
    pub radius: f64,
    /// Standard deviation of y.
    pub sy: f64,
}

impl Geometry {
    /// Measures a one-channel mask; `None` when it covers nothing.
    pub fn of(mask: &Raster) -> Option<Self> {
        let view = View::of(mask.width, mask.height);
        let (mut total, mut sx, mut sy, mut syy) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
        for row in 0..mask.height {
            for column in 0..mask.width {
                let weight = f64::from(mask.data[row * mask.width + column]);
                let [x, y] = view.point(column, row).map(f64::from);
                total += weight;
                sx += weight * x;
                sy += weight * y;
                syy += weight * y * y;
            }
        }
        if total < 1e-3 {
            return None;
        }
        let (cx, cy) = (sx / total, sy / total);
        let area = total * (2.0 / mask.width.max(mask.height) as f64).powi(2);
        Some(Self {
            cx,
            cy,
            radius: (area / std::f64::consts::PI).sqrt(),
            sy: (syy / total - cy * cy).max(1e-6).sqrt(),
        })
    }
}

/// A motion at one phase: `P ↦ D(P)`.
#[derive(Debug, Clone, Copy)]
pub struct Truth {
    kinds: [Kind; 2],
    geometry: Geometry,
    magnitude: f64,
    phase: f64,
}

impl Truth {
    /// `kind` at `phase` 0..=1 with `magnitude` 0..=1 (beyond is extrapolation, negative is the
    /// opposite motion; the evaluation searches both).
    pub fn new(kind: Kind, geometry: Geometry, magnitude: f64, phase: f64) -> Self {
        Self { kinds: [kind, Kind::Still], geometry, magnitude, phase }
    }

    /// A direction together with a turn or a change of size.
    pub fn pair(kinds: [Kind; 2], geometry: Geometry, magnitude: f64, phase: f64) -> Self {
        Self { kinds, geometry, magnitude, phase }
    }

    /// `D(P)` in field units.
    pub fn at(&self, point: [f64; 2]) -> [f64; 2] {
        let (m, s) = (self.magnitude, self.phase);
        let Geometry { cx, cy, sy, .. } = self.geometry;
        let wave = |k: f64| (TAU * k * s).sin();
        let beat = wave(1.0) * wave(1.0);
        let (mut dx, mut dy, mut angle, mut growth) = (0.0, 0.0, 0.0, 0.0);
        let (mut pivot_y, mut bend, mut ripple) = (cy, 0.0, 0.0);
        for kind in self.kinds {
            if let Some((x, y)) = kind.direction() {
                dx += 0.40 * m * s * x;
                dy += 0.40 * m * s * y;
            }
            match kind {
                Kind::TurnCw => angle += 1.2 * m * s,
                Kind::TurnCcw => angle -= 1.2 * m * s,
                Kind::Grow => growth += 0.50 * m * s,
                Kind::Shrink => growth -= 0.60 * m * s,
                Kind::Sway => bend = 0.16 * m * wave(1.0),
                Kind::Ripple => ripple = m * (4.0 * s).min(1.0),
                Kind::FlowLeft => dx -= 0.25 * m * s,
                Kind::FlowRight => dx += 0.25 * m * s,
                Kind::FlowUp => dy -= 0.25 * m * s,
                Kind::FlowDown => dy += 0.25 * m * s,
                Kind::Bounce => dy -= 0.24 * m * beat,
                Kind::Shake => dx += 0.07 * m * wave(3.0),
                Kind::Swing => {
                    angle += 0.5 * m * wave(1.0);
                    pivot_y = cy - 1.7 * sy;
                }
                Kind::Pulse => growth += 0.22 * m * beat,
                _ => {}
            }
        }
        let [x, y] = point;
        let (rx, ry) = (x - dx - cx, y - dy - pivot_y);
        let (sin, cos) = angle.sin_cos();
        let scale = (-growth).exp();
        let mut qx = cx + scale * (cos * rx + sin * ry);
        let mut qy = pivot_y + scale * (cos * ry - sin * rx);
        let height = ((cy + 1.7 * sy - y) / (3.4 * sy).max(1e-3)).clamp(0.0, 1.5);
        qx -= bend * height * height;
        qx -= ripple * 0.035 * (TAU * ((y - cy) / 0.32 - 2.0 * s)).sin();
        qy -= ripple * 0.020 * (TAU * ((x - cx) / 0.40 - 2.0 * s)).sin();
        [qx - x, qy - y]
    }
}

impl super::guide::Displacement for Truth {
    fn at(&self, x: f32, y: f32) -> [f32; 2] {
        Truth::at(self, [f64::from(x), f64::from(y)]).map(|v| v as f32)
    }
}
