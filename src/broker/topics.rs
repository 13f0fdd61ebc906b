//! The topic table of one shard: topics with local subscribers, and topics at home here that another
//! shard is interested in. A topic that nobody wants has no entry.

use std::hash::BuildHasher;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;
use slab::Slab;

use super::fanout::Fanout;
use super::subscribers::Subscribers;
use crate::config::SlowConsumer;
use crate::ids::{ShardId, Token, TopicName};
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
    pub subscribers: Subscribers,
    /// At a remote home's topic only.
    pub interest: Interest,
    pub waiting: Vec<Waiting>,
    /// Other shards with subscribers; at home only.
    pub interested: Vec<ShardId>,
    /// Only while publications wait.
    pub fanout: Option<Box<Fanout>>,
}

impl Topic {
    /// Nobody here or elsewhere wants it, and no round remembers it.
    fn is_unused(&self) -> bool {
        self.subscribers.is_empty()
            && self.waiting.is_empty()
            && self.interested.is_empty()
            && self.fanout.is_none()
    }
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

    pub fn home(&self, hash: u64) -> ShardId {
        // The high half, scaled: the table uses the low bits.
        ShardId((((hash >> 32) * u64::from(self.shards)) >> 32) as u16)
    }

    pub fn find(&self, hash: u64, name: &str) -> Option<TopicKey> {
        self.table.find(hash, |key| *self.topics[key.0 as usize].name == *name).copied()
    }

    pub fn insert(&mut self, hash: u64, name: TopicName, policy: SlowConsumer) -> TopicKey {
        let key = TopicKey(self.topics.insert(Topic {
            name,
            hash,
            home: self.home(hash),
            policy,
            subscribers: Subscribers::default(),
            interest: Interest::None,
            waiting: Vec::new(),
            interested: Vec::new(),
            fanout: None,
        }) as u32);
        self.table.insert_unique(hash, key, |key| self.topics[key.0 as usize].hash);
        key
    }

    pub fn topic(&self, key: TopicKey) -> &Topic {
        &self.topics[key.0 as usize]
    }

    pub fn topic_mut(&mut self, key: TopicKey) -> &mut Topic {
        &mut self.topics[key.0 as usize]
    }

    pub fn remove_unused(&mut self, key: TopicKey) {
        if !self.topic(key).is_unused() {
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
