//! Who gets which publication, in which order. Plain single-threaded data: no I/O, no clock; what has
//! to happen elsewhere comes back as [`Effect`]s.
//!
//! Every shard has a broker. A topic has one home among them, which puts its publications in order
//! and knows the shards that have subscribers; the other brokers know their own subscribers only.
//! Between two shards messages keep their order, and that is all the protocol needs:
//!
//! * The home sends publications to a shard from the moment it answers the shard's `Interest`. The
//!   answer takes the same way as they do, so what comes behind it is complete.
//! * A subscription is confirmed when the shard holds the home's interest. From there on its subscriber
//!   sees every publication that the shard takes in, and none that waited there before.
//! * A subscription that is to have something of the history first is a cursor: it gets slices of it
//!   from the home, and nothing of the fan-out. The slice that reaches the head makes it live: what the
//!   home sent before lies behind it, what comes behind it in the mailbox is newer.
//!
//! Files: `subscribing` (how subscriptions begin and end), `interest` (between home and subscribers' shards), `publishing` (order and fan-out), `durable` (what
//! waits for the log), `filling` (what waits to hear from it), `behind`, `chunks` (what is read from it), `recall`
//! (cursors and queries), `outside` (who is no connection), `users`, `inbox` (what is sent to users), `receivers` (what filters know of them), `selections` (filters of subscriptions), `resume`
//! (subscriptions of a session, all at once), `places` (how far a connection has got), `presence` (who is in a topic), `roster` (what its home knows of that), `rooms` (topics with members), `room` (what the home of one knows), `sessions` (those without a
//! connection), `session_log` (what the log has of them), `acking` (what is repeated until it is acknowledged),
//! `history`, `spares`, `retention`, `idempotency` (what the home keeps), `topics`, `members`, `subscribers`, `cursors`, `acks`, `namespaces`, `window` (the tables).

mod acking;
mod acks;
mod behind;
mod chunks;
mod cursors;
mod durable;
mod effect;
mod fanout;
mod filling;
mod history;
mod idempotency;
mod inbox;
mod interest;
mod members;
mod namespaces;
mod outside;
mod places;
mod presence;
mod publishing;
mod recall;
mod receivers;
mod resume;
mod retention;
mod room;
mod rooms;
mod roster;
mod selections;
mod session_log;
mod sessions;
mod spares;
mod subscribers;
mod subscribing;
#[cfg(test)]
mod tests;
mod topics;
mod users;
mod window;

pub use acking::Unacked;
pub use acks::AckError;
pub use effect::{
    Body, Deliver, Effect, Fed, PublishRequest, Resumed, Select, SubscribeError, SubscribeRequest,
};
pub use namespaces::NamespaceCount;
pub use places::Places;
pub use recall::SLICE_COST_MAX;
pub use retention::Tally;
pub use session_log::{SessionLog, SessionLogTally};
pub use sessions::{Ending, Sessions, SessionsTally};
pub use topics::home_of;
pub use users::JoinError;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashMap;

use crate::config::{ChannelOptions, Config};
use crate::ids::{Epoch, Moment, ShardId, Token, TopicName};
use crate::io::FramePool;
use crate::message::{LogBatch, Publisher, ShardMessage};
use crate::proto::{Recovery, Unavailable};
use acks::Acks;
use behind::Questions;
use chunks::Chunks;
use cursors::Cursors;
use fanout::{Fanout, Finished, Stamp};
use history::History;
use members::Members;
use namespaces::Namespaces;
use presence::{Attendance, Tidings};
use resume::Resumption;
use retention::Retention;
use spares::Spares;
use topics::{Past, Record, TopicKey, Topics};
use users::Users;
use window::Terms;

/// Bounds of one broker.
#[derive(Debug, Clone, Copy)]
pub struct BrokerLimits {
    pub subscriptions_per_connection_max: u32,
    pub topics_max: usize,
    /// Rooms at home in it.
    pub rooms_max: usize,
    /// Bytes of publications that wait for their fan-out.
    pub backlog_bytes_max: usize,
    /// Bytes of publications in the answer to one query, if it has more than one.
    pub page_bytes_max: usize,
    /// What one slice costs a queue at most, if it has more than one publication.
    pub slice_cost_max: usize,
}

/// What tells this server from the next one that runs here.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// A random number, for the epochs of histories.
    pub identity: u128,
    /// Unix time of [`Moment`] zero, in milliseconds.
    pub unix_start: u64,
}

/// One shard's part of the topic table.
pub struct Broker {
    shard: ShardId,
    limits: BrokerLimits,
    namespaces: Namespaces,
    users: Users,
    /// Whether any channel can have a history.
    keeps_histories: bool,
    origin: Origin,
    /// Unix time, in milliseconds: that of histories.
    now: Moment,
    topics: Topics,
    members: Members,
    cursors: Cursors,
    /// Sessions that are being restored, by the slot of their connection: at most one of each.
    resumptions: HashMap<u32, Resumption, foldhash::fast::RandomState>,
    acks: Acks,
    retention: Retention,
    tally: Tally,
    /// See [`Broker::take_compared`].
    compared: usize,
    /// Queries that other shards, or the log, have not answered.
    queries: usize,
    /// Reused: slots that a fan-out left behind, with the offset that each wants next.
    behind: Vec<(u32, u64)>,
    /// Reused: slots to which a fan-out has handed what an inbox has.
    handed: Vec<u32>,
    /// The time of what is taken in now.
    stamp: Stamp,
    /// See [`Broker::finished`].
    finished: Finished,
    last_epoch: u64,
    /// Topics with a fan-out under way, in the order of their turns.
    round: VecDeque<TopicKey>,
    /// Idle fan-outs for the next topic that needs one. At most [`SPARE_FANOUTS_MAX`].
    #[allow(clippy::vec_box, reason = "they go to topics and come back as boxes")]
    spare: Vec<Box<Fanout>>,
    /// Bytes of publications in all fan-outs.
    backlog_bytes: usize,
    /// What their twins in the other encoding take besides.
    twin_bytes: usize,
    /// Shards that cannot take more publications from here at the moment.
    congested: Vec<ShardId>,
    /// Other shards' messages wait for room here: they come before what local clients publish.
    giving_way: bool,
    last_ask: u64,
    /// What waits for the durable log: publications until it has answered for them, questions, and
    /// publications until it is known where their topic is.
    log_bytes: usize,
    /// What the log has yet to be given; in [`Broker::log_bytes`] already.
    to_log: LogBatch,
    frame_memory: Spares,
    /// Its bound; 0: there is no log.
    log_bytes_max: usize,
    last_ticket: u64,
    /// Topics to ask the log for as soon as it has room.
    unasked: VecDeque<TopicKey>,
    /// What is read from the log.
    chunks: Chunks,
    questions: Questions,
    tidings: Tidings,
    /// Topics at home here that are rooms.
    rooms: BTreeSet<TopicName>,
    /// Rooms that connections here are in, by their slots, with their generations.
    memberships: HashMap<u32, (u32, Vec<TopicName>), foldhash::fast::RandomState>,
    /// Whose session comes back to a room, until the home has answered: as many as such questions are under
    /// way, which the backlog of the mesh bounds.
    returning: Vec<(Token, TopicName)>,
}

const SPARE_FANOUTS_MAX: usize = 64;

/// What somebody hears who named a place in a topic without history.
const NO_HISTORY: Recovery = Recovery { outcome: Err(Unavailable::NoHistory), count: 0 };

impl Broker {
    /// `hasher` is the same in all `shards`: it decides where a topic is at home.
    pub fn new(
        shard: ShardId,
        shards: u16,
        hasher: SeedableRandomState,
        origin: Origin,
        config: &Config,
    ) -> Self {
        let namespaces = Namespaces::new(config);
        Self {
            shard,
            limits: BrokerLimits {
                subscriptions_per_connection_max: config.limits.max_subscriptions,
                rooms_max: config.limits.max_rooms,
                topics_max: config.limits.max_topics,
                backlog_bytes_max: config.limits.fanout_backlog,
                page_bytes_max: config.limits.send_queue_size / 4,
                slice_cost_max: SLICE_COST_MAX.min(config.limits.send_queue_size),
            },
            keeps_histories: namespaces.keep_histories(),
            namespaces,
            users: Users::new(config.auth.max_users, config.auth.max_connections_per_user),
            origin,
            now: Moment(origin.unix_start),
            topics: Topics::new(shards, hasher),
            members: Members::default(),
            cursors: Cursors::default(),
            resumptions: HashMap::default(),
            acks: Acks::new(config.limits.max_unacked),
            retention: Retention::new(config.limits.history_memory),
            tally: Tally::default(),
            compared: 0,
            queries: 0,
            behind: Vec::new(),
            handed: Vec::new(),
            stamp: 0,
            finished: Vec::new(),
            last_epoch: 0,
            round: VecDeque::new(),
            spare: Vec::new(),
            backlog_bytes: 0,
            twin_bytes: 0,
            congested: Vec::new(),
            giving_way: false,
            last_ask: 0,
            log_bytes: 0,
            to_log: LogBatch::default(),
            frame_memory: Spares::default(),
            log_bytes_max: config.store.directory.as_ref().map_or(0, |_| config.store.backlog),
            last_ticket: 0,
            unasked: VecDeque::new(),
            chunks: Chunks::new(config.store.read_memory),
            questions: Questions::default(),
            tidings: Tidings::default(),
            rooms: BTreeSet::new(),
            memberships: HashMap::default(),
            returning: Vec::new(),
        }
    }

    /// Topics in this shard's table.
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    /// Whether [`Broker::advance`] has something to do.
    pub fn has_fanouts(&self) -> bool {
        !self.round.is_empty()
    }

    /// Whether publications from elsewhere may be taken in. While not, they wait in the mailbox, and
    /// their publishers' shards refuse new ones before long.
    pub fn has_room(&self) -> bool {
        self.backlog_bytes + self.twin_bytes < self.limits.backlog_bytes_max
    }

    /// The shards that can take no more publications from this one at the moment.
    pub fn note_congestion(&mut self, congested: impl Iterator<Item = ShardId>) {
        self.congested.clear();
        self.congested.extend(congested);
    }

    /// Whether that shard can take no more messages at the moment.
    pub fn is_congested(&self, shard: ShardId) -> bool {
        self.congested.contains(&shard)
    }

    /// Whether room that becomes free is for the messages of other shards first. Otherwise local
    /// publishers, who are heard earlier in a turn, could keep them out for ever.
    pub fn give_way(&mut self, giving_way: bool) {
        self.giving_way = giving_way;
    }

    /// What time it is, until the next call.
    pub fn begin_turn(&mut self, now: Moment) {
        self.now = Moment(self.origin.unix_start + now.0);
    }

    /// The time of what is taken in from now on, in microseconds modulo 2^32.
    pub fn note_time(&mut self, stamp: Stamp) {
        self.stamp = stamp;
    }

    /// Publications that every local subscriber has got since the last call: when each was taken, and
    /// how many at that time.
    pub fn finished(&mut self) -> impl Iterator<Item = (Stamp, u32)> {
        self.finished.drain(..)
    }

    pub fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// Whether any channel can have a history: if not, there is never anything to expire, to feed or
    /// to tally.
    pub fn keeps_histories(&self) -> bool {
        self.keeps_histories
    }

    /// What has happened in each namespace so far, in the order of the configuration behind that of channels
    /// without one; `None`: nothing since the last call.
    pub fn take_namespace_counts(&mut self) -> Option<&[NamespaceCount]> {
        self.namespaces.take_counts()
    }

    /// What has happened since the last call, for the counters.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Every connection has left: what was kept by slot goes.
    pub fn forget_members(&mut self) {
        self.members = Members::default();
    }

    /// A message of another shard.
    pub fn receive(
        &mut self,
        message: ShardMessage,
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
    ) {
        match message {
            ShardMessage::Interest { topic, from, ask } => self.interest(topic, from, ask, effects),
            ShardMessage::Interested { topic, ask, position } => {
                self.interested(&topic, ask, position, effects);
            }
            ShardMessage::Disinterest { topic, from } => self.disinterest(&topic, from, effects),
            ShardMessage::Publish { topic, body, publisher } => {
                self.receive_publication(topic, body, publisher, frames, effects);
            }
            ShardMessage::Deliver { topic, frame, except, offset } => {
                if let Some(key) = self.find(&topic) {
                    self.note_offset(key, offset);
                    self.enqueue(key, frame, (except, None), offset, frames);
                }
            }
            ShardMessage::DeliverSome { topic, frame, except, filter } => {
                if let Some(key) = self.find(&topic) {
                    self.enqueue(key, frame, (except, Some(filter)), 0, frames);
                }
            }
            ShardMessage::Received { topic, upto } => self.note_received(&topic, upto),
            ShardMessage::Log(answer) => self.log_answered(answer, frames, effects),
            ShardMessage::Room { topic, message } => self.receive_room(topic, *message, effects),
            ShardMessage::Presence { topic, message } => {
                self.receive_presence(topic, *message, effects);
            }
            ShardMessage::Session(message) => effects.push(Effect::Session(message)),
            ShardMessage::Published { topic, publisher, outcome } => {
                let Publisher { token, receipt, .. } = publisher;
                effects.push(Effect::Published { token, topic, receipt, outcome });
            }
            ShardMessage::Open { topic, reader, begin } => {
                self.answer_open(topic, reader, *begin, effects);
            }
            ShardMessage::Opened { topic, reader, opening } => {
                self.opened(&topic, reader, &opening, effects);
            }
            ShardMessage::Read { topic, reader, next } => {
                self.answer_read(topic, reader, next, effects);
            }
            ShardMessage::Slice { topic, reader, slice } => {
                self.sliced(&topic, reader, *slice, effects);
            }
            ShardMessage::Query { topic, reader, query, receipt } => {
                self.answer_query(topic, reader, query, receipt, effects);
            }
            ShardMessage::Page { topic, reader, page, receipt } => {
                self.queries -= 1;
                let token = reader.token;
                effects.push(Effect::Page { token, topic, page, request_id: receipt });
            }
            // The shard keeps it to itself: much of what it asks is no concern of the broker.
            ShardMessage::Admin(_)
            | ShardMessage::Bridge(_)
            | ShardMessage::Verdict(_)
            | ShardMessage::Announce { .. } => {}
        }
    }

    fn find(&self, name: &str) -> Option<TopicKey> {
        self.topics.find(self.topics.hash(name), name)
    }

    fn name(&self, found: Option<TopicKey>, name: &str) -> TopicName {
        found.map_or_else(|| TopicName::new(name), |key| self.topics.topic(key).name.clone())
    }

    /// The options of a topic with this name, whether it is in the table or not.
    fn options(&self, name: &str) -> &Arc<ChannelOptions> {
        self.namespaces.of(name).0
    }

    /// A topic that is not in the table yet; `None`: the table is full.
    fn insert_topic(&mut self, hash: u64, name: &str) -> Option<TopicKey> {
        let has_room = self.topics.len() < self.limits.topics_max;
        has_room.then(|| self.insert_unbounded(hash, TopicName::new(name)))
    }

    fn insert_unbounded(&mut self, hash: u64, name: TopicName) -> TopicKey {
        let (options, space) = self.namespaces.of(&name);
        let options = Arc::clone(options);
        let is_inbox = name.is_inbox();
        let key = self.topics.insert(hash, name, options.slow_consumer, space);
        if options.has_presence() {
            let interval = options.join_leave.then_some(options.join_leave_interval);
            self.topics.topic_mut(key).attendance = Some(Box::new(Attendance::new(interval)));
        }
        if options.has_history() {
            let last = options.last;
            let at_home = self.topics.topic(key).home == self.shard;
            let terms = options
                .is_acked()
                .then(|| Terms { timeout: options.ack_timeout, repeats_max: options.ack_retries });
            let durable = at_home && self.log_bytes_max > 0 && options.is_durable();
            let durable = durable.then(Box::default);
            let record = if at_home {
                self.last_epoch += 1;
                let seed = (self.origin.identity, self.shard.0, self.last_epoch);
                let epoch = Epoch(self.topics.scramble(seed));
                let mut history = History::new(epoch, options, self.now);
                history.inbox = is_inbox.then(Box::default);
                self.retention.list(key, &mut history);
                Record::Home(history)
            } else {
                Record::Away(None)
            };
            self.topics.topic_mut(key).past =
                Some(Box::new(Past { record, cursors: 0, last, is_inbox, terms, durable }));
        }
        key
    }
}
