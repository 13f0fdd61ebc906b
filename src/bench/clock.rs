//! The time of a run.

use std::time::{Duration, Instant};

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// Nanoseconds since the run began: what stamps carry and histograms hold.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn now_ns(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// A span of the clock.
pub fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
