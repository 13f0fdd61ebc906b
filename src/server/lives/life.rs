//! A server between its start and its end, and what it is configured with.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

use super::SHORT;
use crate::config::{ChannelOptions, Config, Level, Namespace};
use crate::io::Backend;
use crate::io::sim::{Network, Random, Simulated};
use crate::log::sim_disk::SimDisk;
use crate::log::simulated::SimulatedLog;
use crate::mesh;
use crate::metrics::Metrics;
use crate::shard::simulation::{TOPICS, distinct};
use crate::shard::{Settings, Shard};

/// Runs on a network of its own.
pub struct Life {
    pub network: Rc<RefCell<Network>>,
    pub shards: Vec<Shard<Simulated>>,
    pub log: SimulatedLog,
    pub settings: Arc<Settings>,
}

impl Life {
    pub fn new(
        random: &mut Random,
        config: &Config,
        disk: &SimDisk,
        unix_start: u64,
        session_shards: u16,
    ) -> Self {
        let count = 1 + random.below(3);
        let settings = Arc::new(Settings {
            config: config.clone(),
            metrics: Metrics::new(count),
            connections_max: 1000,
            unix_start,
            hasher: SeedableRandomState::with_seed(random.number(), SharedSeed::global_fixed()),
            session_shards,
            identity: distinct,
        });
        let network = Network::new(random.number());
        let backends = Simulated::for_shards(count, &network);
        let wakers = backends.iter().map(Backend::waker).collect();
        let (ports, control) = mesh::connect(wakers, config.limits.mesh_backlog);
        let (sender, inbox) = mesh::connect_log();
        let shards = backends
            .into_iter()
            .zip(ports)
            .map(|(backend, port)| {
                Shard::new(backend, port, Some(sender.port()), Arc::clone(&settings))
            })
            .collect();
        let mailer = control.mailer(config.limits.mesh_backlog);
        let metrics = settings.metrics.clone();
        let log = SimulatedLog::open(disk, config, inbox, mailer, metrics, unix_start);
        Self { network, shards, log, settings }
    }
}

/// Small bounds, so that they are met.
pub fn configuration(random: &mut Random) -> Config {
    let mut config = Config::default();
    config.limits.send_queue_size = 1000 + random.below(4000);
    config.limits.slow_consumer_timeout = Duration::from_secs(20);
    config.heartbeat.interval = Duration::from_secs(20);
    config.store.directory = Some("simulated".into());
    config.sessions.durable = random.one_in(2);
    config.sessions.durable_interval = Duration::from_millis(1 + random.below(500) as u64);
    config.store.segment_size = 1000 + random.below(8000);
    config.store.backlog = if random.one_in(3) { 3000 } else { 1 << 20 };
    config.store.cache_size = 1 + random.below(5000);
    config.store.read_memory = 2000 + random.below(30_000);
    let durable = |name: &str, history_size| Namespace {
        name: name.to_owned(),
        options: ChannelOptions {
            level: Level::Durable,
            history_size,
            history_bytes: 1 << 30,
            history_ttl: Duration::from_secs(1_000_000),
            ..ChannelOptions::default()
        },
    };
    config.namespaces = vec![durable("kept", 1_000_000), durable("short", 3 + random.below(60))];
    assert_eq!(TOPICS[SHORT], "short:t");
    config
}
