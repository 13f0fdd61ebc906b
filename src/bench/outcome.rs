//! What a thread has measured and found wrong; put together, what the run has.

use super::cost::Spent;
use super::ledger::Faults;
use super::meter::Meter;

#[derive(Debug, Default)]
pub struct Outcome {
    pub meter: Meter,
    /// By the server over the measured span; the leader's.
    pub spent: Option<Spent>,
    /// Of the server in bytes, behind the measured span; the leader's.
    pub memory: Option<f64>,
    pub faults: Faults,
    /// The first of each thread, in words.
    pub troubles: Vec<String>,
}

impl Outcome {
    /// Adds what another thread has.
    pub fn absorb(&mut self, other: Self) {
        self.meter.absorb(&other.meter);
        self.spent = self.spent.or(other.spent);
        self.memory = self.memory.or(other.memory);
        self.faults += other.faults;
        self.troubles.extend(other.troubles);
    }

    /// Of all threads together.
    pub fn of(outcomes: impl IntoIterator<Item = Self>) -> Self {
        let absorb = |mut all: Self, other| {
            all.absorb(other);
            all
        };
        outcomes.into_iter().reduce(absorb).unwrap_or_default()
    }
}
