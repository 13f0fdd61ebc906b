//! What is measured over a span of a run: latencies, throughput over time, the client's own load.

use super::clock::SECOND_NS;
use hdrhistogram::Histogram;

/// One point of the throughput.
const BUCKET_NS: u64 = SECOND_NS / 10;
/// Longest latency that is told apart, ten minutes.
const LATENCY_NS_MAX: u64 = 600 * SECOND_NS;
const SIGNIFICANT_DIGITS: u8 = 3;

/// An empty histogram of nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, SIGNIFICANT_DIGITS)
        .expect("the bounds are constants that fit together")
}

/// Adds one of [`histogram`]'s to another.
pub fn add(histogram: &mut Histogram<u64>, other: &Histogram<u64>) {
    histogram.add(other).expect("all have the same bounds");
}

/// Counts while it runs; what happens outside leaves no trace.
#[derive(Debug)]
pub struct Meter {
    /// While the span lasts.
    running: bool,
    begin_ns: u64,
    end_ns: u64,
    /// Deliveries, round trips or handshakes.
    pub count: u64,
    /// From sending, or in an open loop from when it should have been sent, to the receipt.
    pub latency: Histogram<u64>,
    /// Counts by [`BUCKET_NS`].
    buckets: Vec<u64>,
    /// Time that the client was at work, not waiting; of several threads the busiest.
    busy_ns: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            running: false,
            begin_ns: 0,
            end_ns: 0,
            count: 0,
            latency: histogram(),
            buckets: Vec::new(),
            busy_ns: 0,
        }
    }
}

impl Meter {
    /// Starts a new span.
    pub fn start(&mut self, now_ns: u64) {
        *self = Self { running: true, begin_ns: now_ns, ..Self::default() };
    }

    pub fn stop(&mut self, now_ns: u64) {
        self.running = false;
        self.end_ns = now_ns;
    }

    pub fn is_running(&self) -> bool {
        self.running
    }

    /// One more, which took from `sent_ns` until now.
    pub fn note(&mut self, sent_ns: u64, now_ns: u64) {
        if self.running {
            self.latency.saturating_record(now_ns.saturating_sub(sent_ns).max(1));
            self.tally(now_ns);
        }
    }

    /// One more, whose latency means nothing.
    pub fn tally(&mut self, now_ns: u64) {
        if !self.running {
            return;
        }
        self.count += 1;
        let bucket = (now_ns.saturating_sub(self.begin_ns) / BUCKET_NS) as usize;
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
    }

    pub fn note_work(&mut self, nanoseconds: u64) {
        if self.running {
            self.busy_ns += nanoseconds;
        }
    }

    /// Adds what another thread measured over the same span.
    pub fn absorb(&mut self, other: &Self) {
        self.begin_ns = self.begin_ns.min(other.begin_ns);
        self.end_ns = self.end_ns.max(other.end_ns);
        self.count += other.count;
        add(&mut self.latency, &other.latency);
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (own, other) in self.buckets.iter_mut().zip(&other.buckets) {
            *own += other;
        }
        // One thread at its limit is enough to bend what all of them see.
        self.busy_ns = self.busy_ns.max(other.busy_ns);
    }

    pub fn seconds(&self) -> f64 {
        self.end_ns.saturating_sub(self.begin_ns) as f64 / SECOND_NS as f64
    }

    pub fn per_second(&self) -> f64 {
        self.count as f64 / self.seconds()
    }

    /// Share of the time that the client, or its busiest thread, was at work.
    pub fn busy(&self) -> f64 {
        self.busy_ns as f64 / SECOND_NS as f64 / self.seconds()
    }

    /// Seconds since the start, and what a second had then.
    pub fn throughput(&self) -> Vec<(f64, f64)> {
        let width = BUCKET_NS as f64 / SECOND_NS as f64;
        let whole = (self.seconds() / width) as usize;
        let points = self.buckets.iter().take(whole).enumerate();
        points.map(|(index, count)| ((index as f64 + 0.5) * width, *count as f64 / width)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_span_counts() {
        let mut meter = Meter::default();
        meter.note(0, 5);
        assert_eq!(meter.count, 0);
        meter.start(SECOND_NS);
        for index in 0..20 {
            let now_ns = SECOND_NS + index * BUCKET_NS / 2;
            meter.note(now_ns - 1000, now_ns);
        }
        meter.note_work(SECOND_NS / 4);
        meter.stop(2 * SECOND_NS);
        meter.note(0, 5);
        assert_eq!((meter.count, meter.per_second(), meter.busy()), (20, 20.0, 0.25));
        assert_eq!(meter.throughput()[..2], [(0.05, 20.0), (0.15000000000000002, 20.0)]);
        assert_eq!(meter.latency.value_at_quantile(0.99), 1000);
    }

    #[test]
    fn the_span_of_several_threads_is_one() {
        let meter = |count: u64, busy_ns, late_ns| {
            let mut meter = Meter::default();
            meter.start(SECOND_NS + late_ns);
            for index in 0..count {
                let now_ns = SECOND_NS + late_ns + index * BUCKET_NS;
                meter.note(now_ns - 1000 * count, now_ns);
            }
            meter.note_work(busy_ns);
            meter.stop(2 * SECOND_NS + late_ns);
            meter
        };
        let mut all = meter(2, SECOND_NS / 2, 0);
        all.absorb(&meter(5, SECOND_NS / 4, 0));
        assert_eq!((all.count, all.seconds(), all.busy()), (7, 1.0, 0.5));
        assert_eq!(all.buckets, [2, 2, 1, 1, 1]);
        assert_eq!((all.latency.len(), all.latency.max() / 100), (7, 50));
        all.absorb(&meter(0, SECOND_NS, SECOND_NS));
        assert_eq!(all.seconds(), 2.0);
    }
}
