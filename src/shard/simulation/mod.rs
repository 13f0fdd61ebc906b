//! The whole server on the simulated backend, under a seed: short writes, resets, slow and stopped
//! readers, shards that stop for a while, no descriptors, small bounds everywhere. A third of the clients
//! speak protobuf, and half of what those publish is not JSON.
//!
//! A *witness* per topic subscribes before anything is published and reads without pause: what it saw
//! is the topic's order. Every other subscriber is held against it.
//!
//! `STENTOR_SIM_SEEDS=1000000 cargo test --release simulat` runs a million seeds,
//! `STENTOR_SIM_SEED=17 cargo test simulat` replays one.

mod acks;
mod attendance;
mod check;
pub(crate) mod client;
mod guests;
mod library;
mod outsider;
mod overload;
mod readers;
mod rooms;
mod runs;
mod scenarios;
mod sessions;
mod translate;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

use super::{Settings, Shard};
use crate::config::{ChannelOptions, Config, Level, Namespace, SlowConsumer};
use crate::ids::ShardId;
use crate::io::Backend;
use crate::io::seeds;
use crate::io::sim::{Network, Random, STEADY_CAPACITY, Simulated};
use crate::mesh::{self, Control};
use crate::metrics::{Counter, Metrics};
use crate::proto::Encoding;
use client::{Client, Manner};
use outsider::Outsider;

const SEEDS: u64 = 5000;
const STEPS: usize = 250;
const CLIENTS: usize = 14;
/// One under each policy, two more for topics without a namespace, and three with a history: one that
/// keeps everything, one that keeps little, and one whose subscribers acknowledge.
pub(crate) const TOPICS: [&str; 9] =
    ["old:t", "new:t", "last:t", "strict:t", "plain", "busy", "kept:t", "short:t", "acked:t"];
/// The first of [`TOPICS`] with a history.
pub(crate) const FIRST_KEPT: usize = 6;
const ACKED: usize = 8;

/// What the worlds must meet, else they prove nothing.
const MET: [Counter; 14] = [
    Counter::SessionsRestored,
    Counter::SessionsMoved,
    Counter::SessionsExpired,
    Counter::FellBehind,
    Counter::Replayed,
    Counter::HistoryGaps,
    Counter::NotRecovered,
    Counter::HistoryTrimmed,
    Counter::Acked,
    Counter::Redelivered,
    Counter::AckExpired,
    Counter::AckPaused,
    Counter::PresenceNotices,
    Counter::PresenceDropped,
];

/// What was published, by id: ids are handed out in order.
#[derive(Debug)]
pub(crate) struct Published {
    pub topic: usize,
    /// [`outsider::OUTSIDE`]: none.
    pub client: usize,
    pub echo: bool,
    /// Its data is not JSON.
    pub raw: bool,
    pub outcome: Option<Outcome>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Accepted,
    Refused,
}

struct World {
    random: Random,
    network: Rc<RefCell<Network>>,
    shards: Vec<Shard<Simulated>>,
    /// Steps until a stopped shard goes on.
    stopped: Vec<usize>,
    control: Control,
    settings: Arc<Settings>,
    /// The first [`TOPICS`]`.len()` are the witnesses.
    clients: Vec<Client>,
    published: Vec<Published>,
    /// Sessions that more than one connection has wanted.
    doubled: BTreeSet<String>,
    /// Sessions outlive the world.
    sessions_last: bool,
    outsider: Outsider,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = 1 + random.below(4);
        Self::configured(seed, count, |config| *config = small_bounds(&mut random))
    }

    fn configured(seed: u64, count: usize, configure: impl FnOnce(&mut Config)) -> Self {
        let mut random = Random::new(seed);
        let mut config = Config::default();
        configure(&mut config);
        let settings = Arc::new(Settings {
            config,
            metrics: Metrics::new(count),
            connections_max: 1000,
            unix_start: 1_700_000_000_000,
            hasher: SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()),
            session_shards: 0,
            identity: distinct,
        });
        let network = Network::new(random.number());
        let backends = Simulated::for_shards(count, &network);
        let wakers = backends.iter().map(Backend::waker).collect();
        let (ports, control) = mesh::connect(wakers, settings.config.limits.mesh_backlog);
        let (answers, inbox) = mesh::connect_sidecar().expect("descriptors");
        let outsider = Outsider::new(control.mailer(settings.config.limits.mesh_backlog), inbox);
        let shards: Vec<_> = backends
            .into_iter()
            .zip(ports)
            .map(|(backend, port)| {
                Shard::new(backend, port, None, Arc::clone(&settings))
                    .with_admin(Some(answers.port()))
            })
            .collect();
        let stopped = vec![0; count];
        let sessions_last = settings.config.sessions.ttl > Duration::from_hours(1);
        Self {
            random,
            network,
            shards,
            stopped,
            control,
            settings,
            clients: Vec::new(),
            published: Vec::new(),
            doubled: BTreeSet::new(),
            sessions_last,
            outsider,
        }
    }

    /// Returns how often each of [`MET`] was counted.
    fn run(mut self) -> [u64; MET.len()] {
        for topic in 0..TOPICS.len() {
            let witness = self.connect(Manner::Witness);
            self.clients[witness].subscribe(&self.network, topic, &mut self.random);
        }
        while !(0..TOPICS.len()).all(|topic| self.clients[topic].is_subscribed(topic)) {
            self.step();
        }
        for _ in 0..STEPS {
            self.act();
            if self.random.one_in(3) {
                self.act_from_outside();
            }
            self.step();
            self.check_bounds();
            self.check_windows();
        }
        self.settle();
        self.check_streams();
        self.check_offsets();
        self.check_sessions();
        self.check_attendance();
        self.shut_down();
        MET.map(|counter| self.settings.metrics.total(counter))
    }

    fn connect(&mut self, manner: Manner) -> usize {
        let is_binary = self.random.one_in(3);
        let index = self.dial(manner, if is_binary { Encoding::Protobuf } else { Encoding::Json });
        self.clients[index].upgrade(&self.network);
        index
    }

    fn connect_named(&mut self, manner: Manner) -> usize {
        let index = self.dial(manner, Encoding::Json);
        self.clients[index].upgrade_named(&self.network);
        index
    }

    fn dial(&mut self, manner: Manner, encoding: Encoding) -> usize {
        let shard = ShardId(self.random.below(self.shards.len()) as u16);
        let capacity = match manner {
            Manner::Witness => STEADY_CAPACITY,
            Manner::Brisk | Manner::Slow | Manner::Stopped | Manner::Mute => {
                64 + self.random.below(4000)
            }
        };
        let socket = self.network.borrow_mut().connect(shard, capacity);
        let client = Client::new(socket, manner, encoding);
        self.clients.push(client);
        self.clients.len() - 1
    }

    /// One thing that a client, or the machine, does.
    fn act(&mut self) {
        let live: Vec<_> = (TOPICS.len()..self.clients.len())
            .filter(|index| !self.clients[*index].is_closed())
            .collect();
        if live.len() < CLIENTS && self.random.one_in(3) {
            let manner = match self.random.below(10) {
                0 => Manner::Stopped,
                1 | 2 => Manner::Slow,
                3 => Manner::Mute,
                _ => Manner::Brisk,
            };
            if self.random.one_in(2) {
                self.connect_named(manner);
            } else {
                self.connect(manner);
            }
            return;
        }
        if live.is_empty() {
            return;
        }
        let index = live[self.random.below(live.len())];
        let topic = self.random.below(TOPICS.len());
        let client = &mut self.clients[index];
        match self.random.below(24) {
            0..=4 => client.subscribe(&self.network, topic, &mut self.random),
            13 => self.come_back(index),
            14 | 15 => self.restore_session(index),
            16 => client.ask_everybody(&self.network, topic, &mut self.random),
            5 => client.unsubscribe(&self.network, topic, &mut self.random),
            6 => client.ping(&self.network, &mut self.random),
            7 if self.random.one_in(6) => client.reset(&self.network),
            8 if self.random.one_in(6) => client.end(&self.network),
            9 if self.random.one_in(4) => client.close(&self.network, &mut self.random),
            10 if self.random.one_in(8) => client.garbage(&self.network, &mut self.random),
            11 if self.random.one_in(4) => {
                let shard = self.random.below(self.shards.len());
                self.stopped[shard] = 1 + self.random.below(30);
            }
            12 if self.random.one_in(4) => {
                let mut network = self.network.borrow_mut();
                network.descriptors_exhausted = !network.descriptors_exhausted;
            }
            _ => {
                let burst = if self.random.one_in(6) { 20 } else { 2 };
                for _ in 0..1 + self.random.below(burst) {
                    self.publish(index, topic);
                }
            }
        }
    }

    /// The client breaks off, and its successor goes on where it was.
    fn come_back(&mut self, index: usize) {
        let reached = self.clients[index].reached();
        self.clients[index].reset(&self.network);
        let manner = if self.random.one_in(3) { Manner::Slow } else { Manner::Brisk };
        let successor = self.connect(manner);
        for (topic, position) in reached {
            let client = &mut self.clients[successor];
            client.recover(&self.network, topic, position, &mut self.random);
        }
    }

    fn publish(&mut self, index: usize, topic: usize) {
        let echo = !self.random.one_in(4);
        let id = self.published.len();
        if self.clients[index].publish(&self.network, topic, id, echo, &mut self.random) {
            let raw = self.clients[index].publishes_raw(id);
            self.published.push(Published { topic, client: index, echo, raw, outcome: None });
        }
    }

    /// Every shard that is not stopped turns once, in any order; time passes; clients read.
    fn step(&mut self) {
        let pause = [0, 1, 5, 40][self.random.below(4)];
        self.network.borrow_mut().advance(Duration::from_millis(pause));
        let mut order: Vec<_> = (0..self.shards.len()).collect();
        for index in (1..order.len()).rev() {
            order.swap(index, self.random.below(index + 1));
        }
        for shard in order {
            if self.stopped[shard] > 0 {
                self.stopped[shard] -= 1;
            } else {
                self.shards[shard].turn().expect("the simulated backend does not fail");
            }
        }
        for (index, client) in self.clients.iter_mut().enumerate() {
            client.read(&self.network, index, &mut self.published, &mut self.random);
        }
        self.judge_restored();
        self.outsider.step(&mut self.published);
    }

    /// Everybody reads, nobody publishes, until nothing moves any more.
    fn settle(&mut self) {
        self.stopped.fill(0);
        self.network.borrow_mut().descriptors_exhausted = false;
        for client in &mut self.clients {
            client.hurry();
            client.acknowledge_all(&self.network, &mut self.random);
        }
        let mut quiet = 0;
        let mut steps = 0;
        while quiet < 60 {
            let before: u64 = self.clients.iter().map(|client| client.messages).sum();
            self.step();
            let after: u64 = self.clients.iter().map(|client| client.messages).sum();
            quiet = if before == after { quiet + 1 } else { 0 };
            steps += 1;
            assert!(steps < 20_000, "the server does not come to rest");
        }
        assert!(self.outsider.is_answered(), "calls from outside are left");
    }

    fn shut_down(&mut self) {
        let open: Vec<_> =
            (0..self.clients.len()).filter(|index| self.clients[*index].is_open()).collect();
        self.control.shutdown();
        for _ in 0..5000 {
            if self.shards.iter().all(|shard| shard.state().has_ended()) {
                break;
            }
            self.step();
        }
        for _ in 0..50 {
            self.step();
        }
        for index in open {
            self.clients[index].check_farewell();
        }
        self.check_nothing_held();
    }
}

/// Small bounds, so that they are met.
fn small_bounds(random: &mut Random) -> Config {
    let mut config = Config::default();
    config.limits.send_queue_size = 1000 + random.below(8000);
    config.limits.mesh_backlog = if random.one_in(3) { 2000 } else { 1 << 20 };
    config.limits.fanout_backlog = if random.one_in(3) { 1000 } else { 1 << 20 };
    config.limits.max_subscriptions = 2 + random.below(6) as u32;
    config.limits.max_errors = 1000;
    config.limits.max_unacked = 3 + random.below(40);
    config.limits.slow_consumer_timeout = Duration::from_secs(2);
    config.limits.close_timeout = Duration::from_secs(1);
    // Often enough that what clients have got is asked for, and not so often that a shard that stops for a
    // while loses its witnesses.
    let intervals = [400, 400, 1000, 2000, 3000];
    config.heartbeat.interval = Duration::from_millis(intervals[random.below(intervals.len())]);
    config.sessions.ttl = Duration::from_secs(if random.one_in(3) { 1 } else { 1_000_000 });
    let namespace = |name: &str, slow_consumer| Namespace {
        name: name.to_owned(),
        options: ChannelOptions { slow_consumer, ..ChannelOptions::default() },
    };
    let history = |name: &str, history_size, seconds| Namespace {
        name: name.to_owned(),
        options: ChannelOptions {
            level: Level::History,
            history_size,
            history_ttl: Duration::from_secs(seconds),
            ..ChannelOptions::default()
        },
    };
    // Without a log it is in memory, as the others are.
    let mut acked = history("acked", 1_000_000, 1_000_000);
    acked.options.level = Level::Acked;
    acked.options.ack_timeout = Duration::from_millis(50 + random.below(1000) as u64);
    acked.options.ack_retries = random.below(4) as u32;
    let mut kept = history("kept", 1_000_000, 1_000_000);
    let [mut new, mut old] =
        [namespace("new", SlowConsumer::DropNewest), namespace("old", SlowConsumer::DropOldest)];
    new.options.presence = true;
    for told in [&mut old.options, &mut config.channels, &mut kept.options, &mut acked.options] {
        told.join_leave = true;
        told.join_leave_interval = Duration::from_millis(random.below(60) as u64);
    }
    config.namespaces = vec![
        acked,
        kept,
        history("short", 3 + random.below(60), 1 + random.below(20) as u64),
        namespace("last", SlowConsumer::Conflate),
        new,
        old,
    ];
    config
}

/// A number that this thread has not had; epochs and ids need no more.
pub fn distinct() -> u128 {
    thread_local!(static LAST: Cell<u128> = const { Cell::new(7) });
    LAST.with(|last| {
        last.set(last.get() + 1);
        last.get()
    })
}

#[test]
fn simulated_servers_keep_their_promises() {
    seeds::run((SEEDS, 100), MET, |seed| World::new(seed).run());
}
