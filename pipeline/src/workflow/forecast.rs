//! How long a plan will take and what it will need, before it starts.
//!
//! Work is counted in units (megapixels, megapixel-steps) with a cost per unit. The costs below
//! are a first guess; every run writes what its nodes really took beside the cache, and the next
//! forecast uses that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::store::cache::Cache;
use crate::systems::follow_your_click::Effort;

/// Where measured costs are kept in the cache folder.
const COSTS: &str = "costs.json";
/// Weight of the newest measurement in the running mean.
const NEWEST: f64 = 0.3;
/// Denoise steps assumed when a document names none.
const USUAL_STEPS: u64 = 12;
/// Bytes of a frame kept as PNG, per pixel; photographs come out a little below.
const KEPT_BYTES: u64 = 3;

/// The size of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Width in pixels.
    pub width: u64,
    /// Height in pixels.
    pub height: u64,
    /// Frames, 1 for a picture.
    pub frames: u64,
    /// Frames per 1000 seconds; 0 for a picture and where it is not known.
    pub rate: u64,
}

impl Shape {
    /// A picture of usual size, for what cannot be known before running.
    pub const USUAL: Self = Self { width: 1920, height: 1080, frames: 1, rate: 0 };

    /// Frames per second; none where they are not known.
    pub fn fps(self) -> Option<f64> {
        (self.rate > 0).then_some(self.rate as f64 / 1e3)
    }

    /// With so many frames per second.
    #[must_use]
    pub fn at_rate(self, fps: f64) -> Self {
        Self { rate: (fps * 1e3).round().max(0.0) as u64, ..self }
    }

    /// The shape of the first input.
    pub fn first(inputs: &[(String, Self)]) -> Self {
        inputs.first().map_or(Self::USUAL, |(_, shape)| *shape)
    }

    /// The shape of the file that is read.
    pub fn of_file(inputs: &[(String, Self)]) -> Self {
        inputs.iter().find(|(name, _)| name == "path").map_or(Self::USUAL, |(_, shape)| *shape)
    }

    fn pixels(self) -> u64 {
        self.width.saturating_mul(self.height)
    }

    fn megapixels(self) -> f64 {
        self.pixels() as f64 * self.frames as f64 / 1e6
    }
}

/// What a node will cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Work {
    /// Units of work.
    pub units: f64,
    /// Seconds per unit unless measured.
    pub guess: f64,
    /// What the units count where an op has several kinds of work; measurements are kept apart by it.
    pub meter: &'static str,
    /// Memory while it runs, in bytes.
    pub memory: u64,
    /// Disk it will fill, in bytes.
    pub disk: u64,
}

impl Work {
    /// Reading pictures.
    pub fn decode(shape: Shape) -> Self {
        Self {
            units: shape.megapixels(),
            guess: 0.05,
            meter: "",
            memory: shape.pixels() * 8,
            disk: shape.pixels() * KEPT_BYTES,
        }
    }

    /// Writing pictures or a clip.
    pub fn encode(shape: Shape) -> Self {
        let disk = (shape.megapixels() * 1e6) as u64;
        Self { units: shape.megapixels(), guess: 0.15, meter: "", memory: shape.pixels() * 32, disk }
    }

    /// Cutting a clicked thing out; done at a working size whatever the picture's.
    pub fn select(shape: Shape) -> Self {
        Self {
            units: 1.0,
            guess: 2.0,
            meter: "",
            memory: (64 << 20) + shape.pixels() * 16,
            disk: shape.pixels() * 4,
        }
    }

    /// Animating: steps at the model's own size, then compositing at full size.
    pub fn animate(shape: Shape, steps: Option<u64>) -> Self {
        let model_units = shape.frames as f64 * steps.unwrap_or(USUAL_STEPS) as f64;
        Self {
            units: model_units + 4.0 * shape.megapixels(),
            guess: 0.15,
            meter: "",
            memory: (700 << 20) + shape.pixels() * 64,
            disk: 0,
        }
    }

    /// Animating with a model that knows its own cost, then compositing at full size.
    pub fn compute(shape: Shape, effort: &Effort) -> Self {
        Self {
            units: effort.gigaflop,
            guess: 1.0 / gigaflop_per_second(),
            meter: "gigaflop",
            memory: effort.memory.saturating_add(shape.pixels() * 64),
            disk: 0,
        }
    }

    /// Adds the disk its frames take in the cache.
    pub fn keeping_frames(mut self, shape: Shape) -> Self {
        self.disk = shape.pixels().saturating_mul(shape.frames).saturating_mul(KEPT_BYTES);
        self
    }
}

/// What the processor is guessed to do until a run has measured it.
///
/// Per thread, whole networks of `kernels/benches/RESULTS.md`'s shapes: convolutions and linear layers reach twice
/// this, attention and norms less.
fn gigaflop_per_second() -> f64 {
    let thread = match kinora_kernels::Isa::current() {
        kinora_kernels::Isa::Avx512 => 100.0,
        kinora_kernels::Isa::Avx2 => 35.0,
        kinora_kernels::Isa::Portable => 15.0,
    };
    thread * kinora_kernels::threads() as f64
}

/// The name under which the cost of `work` of `op` is kept.
fn kept_as(op: &str, work: &Work) -> String {
    if work.meter.is_empty() { op.to_owned() } else { format!("{op} {}", work.meter) }
}

/// Measured seconds per unit of each op, shared by all processes that use a cache.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Costs {
    ops: BTreeMap<String, f64>,
}

impl Costs {
    /// What earlier runs measured.
    pub(super) fn read(cache: &Cache) -> Self {
        cache.record(COSTS).unwrap_or_default()
    }

    /// Seconds `work` of `op` will take, and whether that is measured.
    pub(super) fn seconds(&self, op: &str, work: &Work) -> (f64, bool) {
        match self.ops.get(&kept_as(op, work)).filter(|cost| cost.is_finite() && **cost >= 0.0) {
            Some(cost) => (cost * work.units, true),
            None => (work.guess * work.units, false),
        }
    }

    /// Takes a measurement in.
    pub(super) fn learn(&mut self, op: &str, work: &Work, seconds: f64) {
        if work.units <= 0.0 || !seconds.is_finite() {
            return;
        }
        let cost = seconds / work.units;
        let mean = self.ops.entry(kept_as(op, work)).or_insert(cost);
        *mean += NEWEST * (cost - *mean);
    }

    /// Keeps the measurements; losing them only makes the next forecast a guess.
    pub(super) fn write(&self, cache: &Cache) {
        if let Err(error) = cache.set_record(COSTS, self) {
            tracing::debug!(%error, "measured costs were not kept");
        }
    }
}

/// What a whole plan will need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Forecast {
    /// Seconds.
    pub seconds: f64,
    /// Whether every part of `seconds` rests on a measurement.
    pub measured: bool,
    /// Peak memory in bytes.
    pub memory: u64,
    /// Disk in bytes.
    pub disk: u64,
    /// Memory free now, in bytes.
    pub memory_free: u64,
    /// Disk free now where the cache lies, in bytes.
    pub disk_free: u64,
}

/// Memory of the machine: free and all, in bytes; the second is 0 where it cannot be told.
pub(super) fn memory_now() -> (u64, u64) {
    let Ok(mut system) = sysinfo::System::new() else { return (u64::MAX, 0) };
    system.refresh_memory();
    (system.available_memory(), system.total_memory())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forecast_turns_from_guess_to_measurement() {
        let work = Work::encode(Shape { width: 1000, height: 1000, frames: 10, rate: 0 });
        let mut costs = Costs::default();
        assert_eq!(costs.seconds("video.save", &work), (1.5, false));
        costs.learn("video.save", &work, 4.0);
        assert_eq!(costs.seconds("video.save", &work), (4.0, true));
        costs.learn("video.save", &work, 2.0);
        let (seconds, _) = costs.seconds("video.save", &work);
        assert!((seconds - 3.4).abs() < 1e-9, "{seconds}");
        // Another kind of work of the same op has a cost of its own.
        let other = Work { meter: "gigaflop", ..work };
        costs.learn("video.save", &other, 100.0);
        assert_eq!(costs.seconds("video.save", &work).0, seconds);
        assert_eq!(costs.seconds("video.save", &other), (100.0, true));
        costs.learn("video.save", &work, f64::NAN);
        assert_eq!(costs.seconds("video.save", &work).0, seconds);
    }
}
