//! The whole server with its durable log on a simulated disk, killed at random moments and started
//! again on what the disk has: clients come back with `recover`.
//!
//! What was acknowledged or seen stays, under the same offset; nothing comes twice or out of order; no
//! offset is missing without a notice; what was refused is never seen in the life that refused it. Where
//! sessions are durable clients come back with theirs: it is there, with what it was subscribed to, unless
//! that is as new as it may be lost, or the disk failed; and nobody gets another's.
//!
//! `STENTOR_SIM_SEEDS=10000 cargo test lives` runs so many servers, `STENTOR_SIM_SEED=17` replays one.

mod life;
mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use life::{Life, configuration};
use memory::Memory;

use crate::config::Config;
use crate::ids::{Moment, ShardId};
use crate::io::seeds;
use crate::io::sim::{Random, STEADY_CAPACITY};
use crate::log::sim_disk::{Faults, SimDisk};
use crate::metrics::Counter;
use crate::proto::Encoding;
use crate::shard::simulation::client::{Client, Manner, Place};
use crate::shard::simulation::{FIRST_KEPT, Published, TOPICS};

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
    memory: Memory,
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
            memory: Memory::default(),
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
                    let id = self.memory.published.len();
                    let client = &mut self.visitors[index].client;
                    if client.publish(&network, topic, id, true, &mut self.random) {
                        let outcome = None;
                        self.memory.published.push(Published {
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
        self.memory.note(&visitor);
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
            visitor.client.read(&life.network, index, &mut self.memory.published, &mut self.random);
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
            self.memory.note(&visitor);
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
        self.memory.begin_life();
        for (places, session) in places {
            let manner = self.manner();
            self.connect(manner, places, session);
        }
    }

    /// In the end everything is there once, in order, for somebody who was never here.
    fn read_everything(&mut self) {
        self.heal();
        let mut network = Rc::clone(&self.life.network);
        while !(self.visitors.is_empty()) {
            let mut visitor = self.visitors.swap_remove(0);
            visitor.client.reset(&network);
            self.memory.note(&visitor);
        }
        let Some(epoch) = self.memory.epoch(KEPT).cloned() else { return };
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
        self.memory.note(&reader);
        self.memory.judge(&reader);
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

#[test]
fn simulated_lives_keep_what_was_acknowledged() {
    seeds::run((SEEDS, 50), MET, |seed| World::new(seed).run());
}
