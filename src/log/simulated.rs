//! The log of a simulated server: on a simulated disk, a turn at a time, by the server's clock.

use std::time::{Duration, Instant};

use super::Options;
use super::sim_disk::SimDisk;
use super::store::{Store, StoreLimits};
use super::thread::{Clock, Log};
use crate::config::Config;
use crate::mesh::{LogInbox, Mailer};
use crate::metrics::Metrics;

pub struct SimulatedLog(Log<SimDisk>);

impl SimulatedLog {
    /// On a disk without faults; after a power loss too it must open.
    pub fn open(
        disk: &SimDisk,
        config: &Config,
        inbox: LogInbox,
        mailer: Mailer,
        metrics: Metrics,
        unix_start: u64,
    ) -> Self {
        let limits = StoreLimits {
            segment_bytes: config.store.segment_size as u64,
            store_bytes: config.store.max_size,
            topics_max: config.store.max_channels,
            forget_after_ms: config.store.forget_after.as_millis() as u64,
        };
        let options = Options::new(config);
        let retention_of = Box::new(move |topic: &_| options.retention(topic));
        let opened = Store::open(disk.clone(), 42, limits, retention_of);
        let (store, _) = opened.unwrap_or_else(|error| panic!("{error}"));
        let clock = Clock { started: Instant::now(), unix_start };
        Self(Log::new(store, inbox, mailer, metrics, config.store.sync, clock))
    }

    pub fn turn(&mut self, elapsed: Duration) {
        self.0.turn_at(elapsed);
    }
}
