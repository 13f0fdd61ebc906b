//! How long something took, in buckets: written by one thread, read by whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the buckets, in microseconds; one more bucket has what is above.
///
/// Finest where the 99th percentile of a server with little to do is.
pub const BOUNDS_US: [u64; 22] = [
    25, 50, 75, 100, 150, 200, 250, 300, 400, 500, 750, 1_000, 2_500, 5_000, 10_000, 25_000,
    50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
];

/// Plain loads and stores, no locked instruction: a reader may see a value that is a moment old.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// A histogram at a moment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// At most the bound of the same place; the last is the number of all.
    pub at_most: [u64; BOUNDS_US.len() + 1],
    pub sum_us: u64,
}

impl Histogram {
    /// So many took so long. Only the thread that owns it may call this.
    pub fn record(&self, micros: u64, count: u64) {
        let place = BOUNDS_US.partition_point(|bound| *bound < micros);
        let add = |cell: &AtomicU64, more: u64| {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        };
        add(&self.buckets[place], count);
        add(&self.sum_us, micros.wrapping_mul(count));
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let mut so_far = 0;
        for (at_most, bucket) in snapshot.at_most.iter_mut().zip(&self.buckets) {
            so_far += bucket.load(Ordering::Relaxed);
            *at_most = so_far;
        }
        snapshot.sum_us = self.sum_us.load(Ordering::Relaxed);
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_the_first_bucket_that_has_room() {
        let histogram = Histogram::default();
        for (micros, count) in [(0, 1), (25, 2), (26, 3), (1_000, 4), (9_000_000, 5)] {
            histogram.record(micros, count);
        }
        let Snapshot { at_most, sum_us } = histogram.snapshot();
        assert_eq!(at_most[..4], [3, 6, 6, 6]);
        assert_eq!(at_most[10..13], [6, 10, 10]);
        assert_eq!(at_most[20..], [10, 10, 15]);
        assert_eq!(sum_us, 50 + 78 + 4_000 + 45_000_000);
    }
}
