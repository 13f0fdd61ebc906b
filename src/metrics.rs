//! Counters of each shard: written by that shard alone, summed by whoever asks.
//!
//! A shard adds with a plain load and store (no locked instruction); a reader may see a value that
//! is a moment old, never a torn one.

mod counter;
mod histogram;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use counter::Counter;
pub use histogram::{BOUNDS_US, Histogram, Snapshot};

/// What is measured, not counted: a value of now, or since it was last written to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gauge {
    /// Microseconds from the end of a shard's wait for events to the beginning of its next one: the
    /// longest of all shards since [`Metrics::take`] was last asked for it.
    LongestTurn,
    /// Frames that wait for a reader or for their fan-out, of all shards; one for each encoding in use.
    FramesHeld,
    /// Topics in the tables of all shards; one that several shards know counts for each.
    Topics,
    /// 1 while the durable log cannot write, else 0.
    StoreFailing,
}

impl Gauge {
    pub const ALL: &[Gauge] =
        &[Gauge::LongestTurn, Gauge::FramesHeld, Gauge::Topics, Gauge::StoreFailing];

    pub fn name(self) -> &'static str {
        match self {
            Self::LongestTurn => "longest_turn_us",
            Self::FramesHeld => "frames_held",
            Self::Topics => "topics",
            Self::StoreFailing => "store_failing",
        }
    }
}

/// A time at which no turn begins.
const NO_TURN: u64 = u64::MAX;

/// The counters of one shard, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub struct ShardMetrics {
    counters: [AtomicU64; Counter::ALL.len()],
    /// When the shard last began a turn, in milliseconds of the server's clock.
    last_turn: AtomicU64,
    /// Of [`Gauge::LongestTurn`].
    longest_turn: AtomicU64,
    /// Of [`Gauge::FramesHeld`].
    frames: AtomicU64,
    /// Of [`Gauge::Topics`].
    topics: AtomicU64,
    /// Of [`Gauge::StoreFailing`].
    failing: AtomicU64,
    /// From the turn that took a publication in to the end of the one that handed it to the sockets
    /// of the last subscriber here.
    fanout: Histogram,
    /// As in [`Metrics::namespaces`].
    spaces: Box<[SpaceMetrics]>,
}

/// What has happened in one namespace on one shard.
#[derive(Debug, Default)]
pub struct SpaceMetrics {
    publications: AtomicU64,
    deliveries: AtomicU64,
}

impl SpaceMetrics {
    pub fn publications(&self) -> u64 {
        self.publications.load(Ordering::Relaxed)
    }

    pub fn deliveries(&self) -> u64 {
        self.deliveries.load(Ordering::Relaxed)
    }
}

impl Default for ShardMetrics {
    fn default() -> Self {
        Self {
            counters: std::array::from_fn(|_| AtomicU64::new(0)),
            last_turn: AtomicU64::new(NO_TURN),
            longest_turn: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            topics: AtomicU64::new(0),
            failing: AtomicU64::new(0),
            fanout: Histogram::default(),
            spaces: Box::default(),
        }
    }
}

impl ShardMetrics {
    /// Only the shard that owns the counters may call this.
    pub fn add(&self, counter: Counter, count: u64) {
        let cell = &self.counters[counter as usize];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    pub fn value(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    pub fn note_turn(&self, millis: u64) {
        self.last_turn.store(millis, Ordering::Relaxed);
    }

    /// Only the shard that owns them may call this.
    pub fn note_turn_length(&self, length: Duration) {
        let length = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        if length > self.longest_turn.load(Ordering::Relaxed) {
            self.longest_turn.store(length, Ordering::Relaxed);
        }
    }

    pub fn note_frames(&self, count: usize) {
        self.frames.store(count as u64, Ordering::Relaxed);
    }

    pub fn note_topics(&self, count: usize) {
        self.topics.store(count as u64, Ordering::Relaxed);
    }

    /// So many publications and deliveries there were in each namespace so far, in the order of
    /// [`Metrics::namespaces`].
    pub fn note_namespaces(&self, counts: impl Iterator<Item = (u64, u64)>) {
        for (space, (publications, deliveries)) in self.spaces.iter().zip(counts) {
            space.publications.store(publications, Ordering::Relaxed);
            space.deliveries.store(deliveries, Ordering::Relaxed);
        }
    }

    /// In the order of [`Metrics::namespaces`].
    pub fn namespaces(&self) -> &[SpaceMetrics] {
        &self.spaces
    }

    pub fn note_failing(&self, is_failing: bool) {
        self.failing.store(u64::from(is_failing), Ordering::Relaxed);
    }

    /// When the shard last began a turn; `None` before the first one.
    pub fn last_turn(&self) -> Option<u64> {
        Some(self.last_turn.load(Ordering::Relaxed)).filter(|millis| *millis != NO_TURN)
    }

    /// How long fan-outs took. Only the shard that owns it may record.
    pub fn fanout(&self) -> &Histogram {
        &self.fanout
    }

    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    pub fn topics(&self) -> u64 {
        self.topics.load(Ordering::Relaxed)
    }

    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed) != 0
    }
}

/// The counters of all shards, of the durable log, of the server API and of the bridge.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    shards: Arc<[ShardMetrics]>,
    log: Arc<ShardMetrics>,
    admin: Arc<ShardMetrics>,
    bridge: Arc<ShardMetrics>,
    namespaces: Arc<[Box<str>]>,
}

impl Metrics {
    /// What channels without a namespace are counted under; no namespace has such a name.
    const SHARED: &str = "(none)";

    pub fn new(shards: usize) -> Self {
        Self::with_namespaces(shards, std::iter::empty())
    }

    /// Tells apart what happens in these namespaces, and in none of them.
    pub fn with_namespaces<'a>(shards: usize, names: impl Iterator<Item = &'a str>) -> Self {
        let namespaces: Arc<[Box<str>]> =
            std::iter::once(Self::SHARED).chain(names).map(Into::into).collect();
        let spaces = || namespaces.iter().map(|_| SpaceMetrics::default()).collect();
        let shard = |_| ShardMetrics { spaces: spaces(), ..ShardMetrics::default() };
        Self { shards: (0..shards).map(shard).collect(), namespaces, ..Self::default() }
    }

    /// The names that [`ShardMetrics::namespaces`] is in the order of.
    pub fn namespaces(&self) -> &[Box<str>] {
        &self.namespaces
    }

    pub fn shards(&self) -> &[ShardMetrics] {
        &self.shards
    }

    /// Of the thread of the durable log, which alone adds to them.
    pub fn log(&self) -> &ShardMetrics {
        &self.log
    }

    /// Of the thread of the server API, which alone adds to them.
    pub fn admin(&self) -> &ShardMetrics {
        &self.admin
    }

    /// Of the thread of the bridge, which alone adds to them.
    pub fn bridge(&self) -> &ShardMetrics {
        &self.bridge
    }

    pub fn total(&self, counter: Counter) -> u64 {
        let shards: u64 = self.shards.iter().map(|shard| shard.value(counter)).sum();
        let others = [&self.log, &self.admin, &self.bridge];
        shards + others.into_iter().map(|metrics| metrics.value(counter)).sum::<u64>()
    }

    /// The value of a gauge, which for [`Gauge::LongestTurn`] begins anew with this.
    pub fn take(&self, gauge: Gauge) -> u64 {
        let shards = self.shards.iter();
        match gauge {
            Gauge::LongestTurn => {
                let longest = shards.map(|shard| shard.longest_turn.swap(0, Ordering::Relaxed));
                longest.max().unwrap_or(0)
            }
            Gauge::FramesHeld => shards.map(ShardMetrics::frames).sum(),
            Gauge::Topics => shards.map(ShardMetrics::topics).sum(),
            Gauge::StoreFailing => u64::from(self.log.is_failing()),
        }
    }

    /// Open connections, as far as the shards have told.
    pub fn connections(&self) -> u64 {
        let closed = self.total(Counter::ConnectionsClosed);
        self.total(Counter::ConnectionsAccepted).saturating_sub(closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_sum_the_shards() {
        let metrics = Metrics::new(2);
        metrics.shards()[0].add(Counter::Deliveries, 3);
        metrics.shards()[1].add(Counter::Deliveries, 4);
        assert_eq!(metrics.total(Counter::Deliveries), 7);
        metrics.log().add(Counter::StoreKept, 2);
        assert_eq!(metrics.total(Counter::StoreKept), 2);
        assert_eq!(metrics.total(Counter::Publications), 0);
    }

    #[test]
    fn the_longest_turn_is_that_of_any_shard_and_begins_anew() {
        let metrics = Metrics::new(2);
        metrics.shards()[0].note_turn_length(Duration::from_micros(7));
        metrics.shards()[1].note_turn_length(Duration::from_millis(3));
        metrics.shards()[1].note_turn_length(Duration::from_micros(9));
        assert_eq!(metrics.take(Gauge::LongestTurn), 3000);
        metrics.shards()[0].note_turn_length(Duration::from_micros(8));
        assert_eq!(metrics.take(Gauge::LongestTurn), 8);
        metrics.shards()[0].note_frames(4);
        metrics.shards()[1].note_frames(5);
        assert_eq!((metrics.take(Gauge::FramesHeld), metrics.take(Gauge::FramesHeld)), (9, 9));
    }

    #[test]
    fn every_counter_is_found_by_its_name() {
        for &counter in Counter::ALL {
            assert_eq!(Counter::named(counter.name()), Some(counter));
        }
    }

    #[test]
    fn the_documentation_has_every_counter_and_no_other() {
        let text = include_str!("../docs/operating.md");
        let (_, table) = text.split_once("## Counters").unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let mut documented: Vec<_> = rows.map(|(name, _)| name).collect();
        let counters = Counter::ALL.iter().map(|counter| counter.name());
        let gauges = Gauge::ALL.iter().map(|gauge| gauge.name());
        let mut names: Vec<_> = counters.chain(gauges).collect();
        documented.sort_unstable();
        names.sort_unstable();
        assert_eq!(documented, names);
    }
}
