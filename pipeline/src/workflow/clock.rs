//! Time, so that tests can hold it still.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time of day and how long something took.
pub trait Clock: Send + Sync {
    /// Seconds since 1970, UTC.
    fn unix_seconds(&self) -> u64;

    /// Time since some fixed moment; never goes back.
    fn elapsed(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn unix_seconds(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock that stands still.
#[derive(Debug, Clone, Copy, Default)]
pub struct FixedClock(pub u64);

impl Clock for FixedClock {
    fn unix_seconds(&self) -> u64 {
        self.0
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}
