//! The topic table of one shard: topics with local subscribers, and topics at home here that another
//! shard is interested in or that have a history. A topic that nobody wants has no entry.

use std::hash::BuildHasher;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;
use slab::Slab;

use super::durable::Durable;
use super::fanout::Fanout;
use super::history::History;
use super::namespaces::Space;
use super::presence::Attendance;
use super::room::Room;
use super::selections::Selections;
use super::subscribers::Subscribers;
use super::window::Terms;
use crate::config::SlowConsumer;
use crate::ids::{Position, ShardId, Token, TopicName};
use crate::message::Ask;

/// A topic of this shard's table. Reused after the topic is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicKey(pub u32);

/// A subscription that waits for the home's answer.
#[derive(Debug)]
pub struct Waiting {
    pub token: Token,
    /// Raw JSON of the client, for the confirmation.
    pub request_id: Option<Box<str>>,
    /// It asked for what a topic without history does not have.
    pub wants_history: bool,
    pub hold: Hold,
}

/// Whether a subscription must wait although its home has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    No,
    /// It belongs to a session that is being restored, and waits for the rest of that.
    Session,
    /// The client asks for one that belongs to such a session: it is confirmed behind it.
    Behind,
}

/// What a topic with history has on top of the others.
#[derive(Debug)]
pub struct Past {
    pub record: Record,
    /// Connections here that read from the history, or wait to hear where to begin.
    pub cursors: u32,
    /// A new subscriber gets the latest publication.
    pub last: bool,
    /// Of an inbox: it is noted what each connection was handed.
    pub is_inbox: bool,
    /// Where the level is acked.
    pub terms: Option<Terms>,
    /// At home, where the level is durable.
    pub durable: Option<Box<Durable>>,
}

#[derive(Debug)]
pub enum Record {
    /// The history itself, at home.
    Home(History),
    /// Elsewhere: behind the newest publication that the home has sent here. `None` until it has
    /// answered, and of an earlier interest after that was lost.
    Away(Option<Position>),
}

/// Whether the home of a topic sends its publications to this shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    None,
    /// The home was asked; the answer with the same number counts.
    Asked(Ask),
    /// The home sends everything.
    Held,
}

#[derive(Debug)]
pub struct Topic {
    pub name: TopicName,
    hash: u64,
    pub home: ShardId,
    pub policy: SlowConsumer,
    pub space: Space,
    pub subscribers: Subscribers,
    /// At a remote home's topic only.
    pub interest: Interest,
    pub waiting: Vec<Waiting>,
    /// Other shards with subscribers; at home only.
    pub interested: Vec<ShardId>,
    /// Only while publications wait.
    pub fanout: Option<Box<Fanout>>,
    /// Of topics with history only.
    pub past: Option<Box<Past>>,
    /// Only while a subscription has a filter.
    pub selections: Option<Box<Selections>>,
    /// Only where it is known who is there.
    pub attendance: Option<Box<Attendance>>,
    /// At home, if it is one.
    pub room: Option<Box<Room>>,
}

impl Topic {
    /// Nobody here or elsewhere wants its publications, and neither a round nor the log remembers it.
    pub fn is_idle(&self) -> bool {
        let durable = self.past.as_ref().and_then(|past| past.durable.as_ref());
        !durable.is_some_and(|durable| durable.is_busy())
            && !self.has_listeners()
            && self.interested.is_empty()
            && self.room.is_none()
            && self.attendance.as_ref().is_none_or(|attendance| attendance.roster.is_empty())
            && self.fanout.is_none()
    }

    /// Whether a connection here wants its publications, now or when it has come that far.
    pub fn has_listeners(&self) -> bool {
        let cursors = self.past.as_ref().map_or(0, |past| past.cursors);
        !self.subscribers.is_empty() || !self.waiting.is_empty() || cursors > 0
    }

    /// Takes out what a connection has that waits for the rest of its session.
    pub fn take_held(&mut self, token: Token) -> Vec<Waiting> {
        let is_held = |waiting: &mut Waiting| waiting.hold != Hold::No && waiting.token == token;
        self.waiting.extract_if(.., is_held).collect()
    }

    /// Whether a connection waits for the home to hold its interest.
    pub fn is_waiting(&self, token: Token) -> bool {
        self.waiting.iter().any(|waiting| waiting.token == token)
    }

    pub fn history(&self) -> Option<&History> {
        match &self.past.as_ref()?.record {
            Record::Home(history) => Some(history),
            Record::Away(_) => None,
        }
    }

    pub fn history_mut(&mut self) -> Option<&mut History> {
        match &mut self.past.as_mut()?.record {
            Record::Home(history) => Some(history),
            Record::Away(_) => None,
        }
    }

    /// Whether a publication goes anywhere from here: to subscribers, or to shards that have some.
    pub fn is_heard(&self) -> bool {
        !self.subscribers.is_empty() || !self.interested.is_empty()
    }

    /// As [`Topic::durable_mut`], to look at.
    pub fn durable(&self) -> Option<(&History, &Durable)> {
        let past = self.past.as_ref()?;
        match (&past.record, &past.durable) {
            (Record::Home(history), Some(durable)) => Some((history, durable)),
            _ => None,
        }
    }

    /// The history of a durable topic, at home, and what waits for the log.
    pub fn durable_mut(&mut self) -> Option<(&mut History, &mut Durable)> {
        let past = self.past.as_mut()?;
        match (&mut past.record, &mut past.durable) {
            (Record::Home(history), Some(durable)) => Some((history, durable)),
            _ => None,
        }
    }

    /// How deliveries are repeated until they are acknowledged; `None`: they are not.
    pub fn terms(&self) -> Option<Terms> {
        self.past.as_ref()?.terms
    }

    /// Behind the newest publication that has come to this shard.
    pub fn position(&self) -> Option<Position> {
        match &self.past.as_ref()?.record {
            Record::Home(history) => Some(history.position()),
            Record::Away(position) => *position,
        }
    }

    /// Behind the newest publication that is in the queue of the subscriber in this slot, who is at that place:
    /// what the fan-out still has for it comes behind this.
    pub fn reached(&self, slot: u32, place: usize) -> Option<Position> {
        let Position { epoch, offset } = self.position()?;
        let next = self.fanout.as_ref().and_then(|fanout| fanout.next_for(slot, place));
        let offset = next.map_or(offset, |next| next.saturating_sub(1));
        Some(Position { epoch, offset })
    }
}

/// The home of a topic, for whoever has no table: the same as all brokers say.
pub fn home_of(hasher: &SeedableRandomState, shards: u16, name: &str) -> ShardId {
    home(hasher.hash_one(name), shards)
}

fn home(hash: u64, shards: u16) -> ShardId {
    // The high half, scaled: the tables use the low bits.
    ShardId((((hash >> 32) * u64::from(shards)) >> 32) as u16)
}

/// Finds topics by name, and the home of any name.
pub struct Topics {
    table: HashTable<TopicKey>,
    topics: Slab<Topic>,
    /// Seeded per process, the same in all shards: a client cannot choose names that collide.
    hasher: SeedableRandomState,
    shards: u16,
}

impl Topics {
    pub fn new(shards: u16, hasher: SeedableRandomState) -> Self {
        Self { table: HashTable::new(), topics: Slab::new(), hasher, shards }
    }

    pub fn len(&self) -> usize {
        self.topics.len()
    }

    pub fn hash(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }

    /// A number that nobody outside of this process can foresee.
    pub fn scramble(&self, value: impl std::hash::Hash) -> u64 {
        self.hasher.hash_one(value)
    }

    pub fn home(&self, hash: u64) -> ShardId {
        home(hash, self.shards)
    }

    pub fn find(&self, hash: u64, name: &str) -> Option<TopicKey> {
        self.table.find(hash, |key| *self.topics[key.0 as usize].name == *name).copied()
    }

    pub fn insert(
        &mut self,
        hash: u64,
        name: TopicName,
        policy: SlowConsumer,
        space: Space,
    ) -> TopicKey {
        let key = TopicKey(self.topics.insert(Topic {
            name,
            hash,
            home: self.home(hash),
            policy,
            space,
            subscribers: Subscribers::default(),
            interest: Interest::None,
            waiting: Vec::new(),
            interested: Vec::new(),
            fanout: None,
            past: None,
            selections: None,
            attendance: None,
            room: None,
        }) as u32);
        self.table.insert_unique(hash, key, |key| self.topics[key.0 as usize].hash);
        key
    }

    /// Keys are below this.
    pub fn places(&self) -> u32 {
        self.topics.capacity() as u32
    }

    /// The topic in a place that need not have one.
    pub fn get(&self, key: TopicKey) -> Option<&Topic> {
        self.topics.get(key.0 as usize)
    }

    pub fn topic(&self, key: TopicKey) -> &Topic {
        &self.topics[key.0 as usize]
    }

    pub fn topic_mut(&mut self, key: TopicKey) -> &mut Topic {
        &mut self.topics[key.0 as usize]
    }

    /// Forgets a topic that nobody wants. A history at home is not forgotten with it: it ends by time.
    pub fn remove_unused(&mut self, key: TopicKey) {
        let topic = self.topic(key);
        if !topic.is_idle() || topic.history().is_some() {
            return;
        }
        let hash = self.topic(key).hash;
        if let Ok(entry) = self.table.find_entry(hash, |found| *found == key) {
            entry.remove();
        }
        self.topics.remove(key.0 as usize);
        if self.topics.is_empty() {
            // Gives the memory of a past crowd back.
            self.topics = Slab::new();
            self.table = HashTable::new();
        }
    }
}
