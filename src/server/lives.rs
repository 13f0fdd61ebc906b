//! The whole server with its durable log on a simulated disk, killed at random moments and started
//! again on what the disk has: clients come back with `recover`.
//!
//! What was acknowledged or seen stays, under the same offset; nothing comes twice or out of order; no
//! offset is missing without a notice; what was refused is never seen in the life that refused it. Where
//! sessions are durable clients come back with theirs: it is there, with what it was subscribed to, unless
//! that is as new as it may be lost, or the disk failed; and nobody gets another's.
//!
//! `STENTOR_SIM_SEEDS=10000 cargo test lives` runs so many servers, `STENTOR_SIM_SEED=17` replays one.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

use crate::config::{ChannelOptions, Config, Level, Namespace};
use crate::ids::{Moment, ShardId};
use crate::io::Backend;
use crate::io::seeds;
use crate::io::sim::{Network, Random, STEADY_CAPACITY, Simulated};
use crate::log::sim_disk::{Faults, SimDisk};
use crate::log::simulated::SimulatedLog;
use crate::mesh;
use crate::metrics::{Counter, Metrics};
use crate::proto::Encoding;
use crate::shard::simulation::client::{Client, Manner, Place};
use crate::shard::simulation::{FIRST_KEPT, Outcome, Published, TOPICS, distinct};
use crate::shard::{Settings, Shard};

const SEEDS: u64 = 1000;
const LIVES: usize = 4;
const STEPS: usize = 120;
const CLIENTS: usize = 8;
/// The topic that keeps everything, and the one that keeps little.
const KEPT: usize = FIRST_KEPT;
const SHORT: usize = FIRST_KEPT + 1;

/// A session that has been as it is for so many steps, and its interval, is on disk.
const FIRM_STEPS: u64 = 40;

/// What the worlds must meet, else they prove nothing.
const MET: [Counter; 9] = [
    Counter::SessionsLoaded,
    Counter::SessionsRestored,
    Counter::SessionsUnwritten,
    Counter::FellBehind,
    Counter::Replayed,
    Counter::HistoryGaps,
    Counter::StoreRead,
    Counter::StoreRefused,
    Counter::LogUnreadable,
];

/// A server between its start and its end.
struct Life {
    network: Rc<RefCell<Network>>,
    shards: Vec<Shard<Simulated>>,
    log: SimulatedLog,
    settings: Arc<Settings>,
}

/// A client, and where it was on each topic before its server went.
struct Visitor {
    client: Client,
    came_from: Vec<(usize, Place)>,
    /// Its pair of ids, and since which step and time it knows them.
    pair: Option<((String, String), Since)>,
    /// Since when it is subscribed to these topics.
    subscribed: BTreeMap<usize, Since>,
    /// What its session must have.
    firm: BTreeSet<usize>,
}

/// The ids of a client and, if its session must be there, the topics that it must have.
type Returning = ((String, String), Option<BTreeSet<usize>>);

/// A step, and its time.
type Since = (u64, Moment);

struct World {
    random: Random,
    config: Config,
    disk: SimDisk,
    unix_ms: u64,
    life: Life,
    visitors: Vec<Visitor>,
    published: Vec<Published>,
    /// By topic and offset.
    seen: BTreeMap<(usize, u64), usize>,
    epochs: BTreeMap<usize, String>,
    /// From this number on publications are of this life.
    born: usize,
    steps: u64,
    /// The disk has not failed in this life.
    is_sound: bool,
    /// Shards that there ever were.
    shards_max: usize,
    met: [u64; MET.len()],
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let config = configuration(&mut random);
        let disk = SimDisk::new(random.number());
        let unix_ms = 1_700_000_000_000;
        let life = Life::new(&mut random, &config, &disk, unix_ms, 0);
        let shards_max = life.shards.len();
        Self {
            random,
            config,
            disk,
            unix_ms,
            life,
            visitors: Vec::new(),
            published: Vec::new(),
            seen: BTreeMap::new(),
            epochs: BTreeMap::new(),
            born: 0,
            steps: 0,
            is_sound: true,
            shards_max,
            met: [0; MET.len()],
        }
    }

    fn run(mut self) -> [u64; MET.len()] {
        for _ in 0..LIVES {
            for _ in 0..self.random.below(STEPS) + 20 {
                self.act();
                self.step();
            }
            self.end_life();
        }
        self.read_everything();
        self.met
    }

    /// `session`: it wants the one that it had before.
    fn connect(
        &mut self,
        manner: Manner,
        came_from: Vec<(usize, Place)>,
        session: Option<Returning>,
    ) {
        let shard = ShardId(self.random.below(self.life.shards.len()) as u16);
        let capacity = match manner {
            Manner::Witness => STEADY_CAPACITY,
            _ => 64 + self.random.below(4000),
        };
        let socket = self.life.network.borrow_mut().connect(shard, capacity);
        let mut client = Client::new(socket, manner, Encoding::Json);
        let mut firm = BTreeSet::new();
        if self.config.sessions.durable {
            client.upgrade_named(&self.life.network);
        } else {
            client.upgrade(&self.life.network);
        }
        if let Some((pair, must)) = session {
            let (network, random) = (&self.life.network, &mut self.random);
            client.restore_kept(network, &pair, came_from.clone(), must.is_some(), random);
            firm = must.unwrap_or_default();
        } else {
            for (topic, place) in came_from.clone() {
                client.recover(&self.life.network, topic, place, &mut self.random);
            }
        }
        let (pair, subscribed) = (None, BTreeMap::new());
        self.visitors.push(Visitor { client, came_from, pair, subscribed, firm });
    }

    fn manner(&mut self) -> Manner {
        match self.random.below(4) {
            0 => Manner::Slow,
            1 => Manner::Witness,
            _ => Manner::Brisk,
        }
    }

    /// One thing that a client, or the disk, does.
    fn act(&mut self) {
        if self.visitors.len() < CLIENTS && self.random.one_in(3) {
            let manner = self.manner();
            self.connect(manner, Vec::new(), None);
            return;
        }
        if self.visitors.is_empty() {
            return;
        }
        let index = self.random.below(self.visitors.len());
        let topic = KEPT + self.random.below(2);
        let network = Rc::clone(&self.life.network);
        match self.random.below(16) {
            0..=2 => {
                let client = &mut self.visitors[index].client;
                client.subscribe(&network, topic, &mut self.random);
            }
            3 => self.come_back(index),
            4 if self.random.one_in(3) => {
                let one_in = |chance: usize, random: &mut Random| {
                    if random.one_in(2) { 0 } else { 2 + random.below(chance) as u32 }
                };
                self.is_sound = false;
                self.disk.set_faults(Faults {
                    write: one_in(30, &mut self.random),
                    sync: one_in(30, &mut self.random),
                    read: one_in(60, &mut self.random),
                });
            }
            5 if self.random.one_in(4) => {
                let room = self.disk.used() + self.random.below(2000);
                self.is_sound = false;
                self.disk.set_room(Some(room));
            }
            6 => self.heal(),
            _ => {
                let burst = if self.random.one_in(4) { 40 } else { 3 };
                for _ in 0..1 + self.random.below(burst) {
                    let id = self.published.len();
                    let client = &mut self.visitors[index].client;
                    if client.publish(&network, topic, id, true, &mut self.random) {
                        let outcome = None;
                        self.published.push(Published {
                            topic,
                            client: index,
                            echo: true,
                            raw: false,
                            outcome,
                        });
                    }
                }
            }
        }
    }

    fn heal(&mut self) {
        self.disk.set_faults(Faults::default());
        self.disk.set_room(None);
    }

    /// The client breaks off, and its successor goes on where it was.
    fn come_back(&mut self, index: usize) {
        let mut visitor = self.visitors.swap_remove(index);
        let places = visitor.places();
        visitor.client.reset(&self.life.network);
        self.note(&visitor);
        let manner = self.manner();
        self.connect(manner, places, None);
    }

    /// Every shard turns once and the log most of the time, in any order; clients read.
    fn step(&mut self) {
        let pause = [0, 1, 5, 40, 200][self.random.below(5)];
        let life = &mut self.life;
        life.network.borrow_mut().advance(Duration::from_millis(pause));
        let elapsed = Duration::from_millis(life.network.borrow().now().0);
        let first = self.random.below(life.shards.len() + 1);
        for place in 0..=life.shards.len() {
            let place = (first + place) % (life.shards.len() + 1);
            match life.shards.get_mut(place) {
                Some(shard) => shard.turn().expect("the simulated backend does not fail"),
                // A sync takes its time.
                None if self.random.one_in(3) => {}
                None => life.log.turn(elapsed),
            }
        }
        for (index, visitor) in self.visitors.iter_mut().enumerate() {
            visitor.client.read(&life.network, index, &mut self.published, &mut self.random);
        }
        self.note_sessions();
        // Who was closed by the server has something to tell too.
        while let Some(index) = self.visitors.iter().position(|each| each.client.is_closed()) {
            self.come_back(index);
        }
    }

    /// What clients know of their sessions, and what they were told of those of before.
    fn note_sessions(&mut self) {
        self.steps += 1;
        let since = (self.steps, self.life.network.borrow().now());
        for Visitor { client, pair, subscribed, firm, .. } in &mut self.visitors {
            if let Some((session, told)) = client.take_told() {
                assert_eq!(told["sessionId"], session, "another's: {told}");
                let list = told["subscriptions"].as_array().expect("a list");
                for topic in std::mem::take(firm) {
                    let is_there = list.iter().any(|one| one["channel"] == TOPICS[topic]);
                    assert!(is_there, "{} is lost: {told}", TOPICS[topic]);
                }
            }
            let known = client.session.pair.clone();
            if known.as_ref() != pair.as_ref().map(|(pair, _)| pair) {
                *pair = known.map(|known| (known, since));
                subscribed.clear();
            }
            for topic in [KEPT, SHORT] {
                if client.is_subscribed(topic) {
                    subscribed.entry(topic).or_insert(since);
                }
            }
        }
    }

    /// The ids of a client, and, if its session must be on disk, the topics that it must have.
    fn session_of(&self, visitor: &Visitor) -> Option<Returning> {
        let (pair, known) = visitor.pair.clone()?;
        if visitor.client.is_restoring() {
            // Perhaps it has given this one up, and has not read so.
            return Some((pair, None));
        }
        let now = self.life.network.borrow().now();
        let interval = self.config.sessions.durable_interval;
        let is_firm = |(step, time): Since| {
            let aged = now.since(time) > interval * 2 + Duration::from_secs(1);
            self.is_sound && aged && self.steps - step >= FIRM_STEPS
        };
        let topics = visitor.subscribed.iter().filter(|(_, since)| is_firm(**since));
        let topics = topics.map(|(topic, _)| *topic).collect();
        Some((pair, is_firm(known).then_some(topics)))
    }

    /// The server is killed, or the power goes; the next one starts on what is there.
    fn end_life(&mut self) {
        let visitors = std::mem::take(&mut self.visitors);
        let mut places = Vec::new();
        for mut visitor in visitors {
            places.push((visitor.places(), self.session_of(&visitor)));
            visitor.client.reset(&self.life.network);
            self.note(&visitor);
        }
        for (met, counter) in self.met.iter_mut().zip(MET) {
            *met += self.life.settings.metrics.total(counter);
        }
        self.heal();
        if self.random.one_in(2) {
            self.disk.lose_power();
        }
        self.unix_ms += self.life.network.borrow().now().0 + 1;
        let known = self.shards_max as u16;
        self.life = Life::new(&mut self.random, &self.config, &self.disk, self.unix_ms, known);
        self.shards_max = self.shards_max.max(self.life.shards.len());
        self.is_sound = true;
        self.born = self.published.len();
        for (places, session) in places {
            let manner = self.manner();
            self.connect(manner, places, session);
        }
    }

    /// What a client saw, when it is over.
    fn note(&mut self, visitor: &Visitor) {
        for segment in &visitor.client.segments {
            let topic = segment.topic;
            // A channel to which nothing was published has no epoch that would last.
            let Some(place) = segment.place.as_ref().filter(|place| place.offset > 0) else {
                continue;
            };
            let epoch = self.epochs.entry(topic).or_insert_with(|| place.epoch.clone());
            assert_eq!(*epoch, place.epoch, "the epoch of {} is another", TOPICS[topic]);
            for (offset, id) in &place.seen {
                let first = *self.seen.entry((topic, *offset)).or_insert(*id);
                assert_eq!(first, *id, "{} has two publications at {offset}", TOPICS[topic]);
                let refused = self.published[*id].outcome == Some(Outcome::Refused);
                assert!(*id < self.born || !refused, "{id} was refused, and is at {offset}");
            }
            let gone: u64 = place.gaps.iter().map(|(from, to)| to - from + 1).sum();
            let got = place.seen.len() as u64 + gone;
            assert_eq!(got, place.offset - place.begin, "{}: {segment:?}", TOPICS[topic]);
            assert!(topic != KEPT || gone == 0, "a gap where all is kept: {segment:?}");
            let before = visitor.came_from.iter().find(|(other, _)| *other == topic);
            if topic == KEPT
                && let Some((_, before)) = before
            {
                assert!(place.begin >= before.offset, "{segment:?} behind {before:?}");
            }
        }
    }

    /// In the end everything is there once, in order, for somebody who was never here.
    fn read_everything(&mut self) {
        self.heal();
        let mut network = Rc::clone(&self.life.network);
        while !(self.visitors.is_empty()) {
            let mut visitor = self.visitors.swap_remove(0);
            visitor.client.reset(&network);
            self.note(&visitor);
        }
        let Some(epoch) = self.epochs.get(&KEPT).cloned() else { return };
        let (seen, gaps) = (Vec::new(), Vec::new());
        let place = Place { epoch, offset: 0, seen, gaps, begin: 0, unacked: BTreeSet::new() };
        self.connect(Manner::Witness, vec![(KEPT, place)], None);
        let mut quiet = 0;
        while quiet < 100 {
            let before = self.visitors[0].client.messages;
            self.step();
            quiet = if self.visitors[0].client.messages == before { quiet + 1 } else { 0 };
        }
        network = Rc::clone(&self.life.network);
        let mut reader = self.visitors.swap_remove(0);
        reader.client.reset(&network);
        self.note(&reader);
        let [segment] = &reader.client.segments[..] else {
            panic!("one subscription: {:?}", reader.client.segments)
        };
        let place = segment.place.as_ref().expect("it has a history");
        assert_eq!(place.begin, 0, "recovered from the start");
        let mut count = vec![0; self.published.len()];
        place.seen.iter().for_each(|(_, id)| count[*id] += 1);
        assert!(count.iter().all(|count| *count <= 1), "something is there twice");
        for (id, publication) in self.published.iter().enumerate() {
            if publication.topic == KEPT && publication.outcome == Some(Outcome::Accepted) {
                assert_eq!(count[id], 1, "{id} was acknowledged");
            }
        }
        let last = |topic| self.seen.range((topic, 0)..=(topic, u64::MAX)).count() as u64;
        assert_eq!(last(KEPT), place.offset, "whoever saw something saw what is there");
    }
}

impl Visitor {
    /// Where it is on each topic: as far as this connection came, or the one before.
    fn places(&self) -> Vec<(usize, Place)> {
        let mut places = self.client.reached();
        for (topic, place) in &self.came_from {
            if !places.iter().any(|(other, _)| other == topic) {
                let last = self.client.segments.iter().rfind(|segment| segment.topic == *topic);
                let place = last.and_then(|segment| segment.place.clone()).unwrap_or(place.clone());
                places.push((*topic, place));
            }
        }
        places
    }
}

impl Life {
    fn new(
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
        let backends: Vec<_> = (0..count as u16)
            .map(|shard| Simulated::new(ShardId(shard), Rc::clone(&network)))
            .collect();
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
fn configuration(random: &mut Random) -> Config {
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

#[test]
fn simulated_lives_keep_what_was_acknowledged() {
    seeds::run((SEEDS, 50), MET, |seed| World::new(seed).run());
}
