//! Users who come and go, messages to them, proofs of what they received, and crashes that leave nothing
//! but the log: whatever was accepted comes, in order, until it is known to have been received.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Appended, Asked, Sink, asked, broker, payload, subscribe};
use crate::broker::{Body, Broker, Effect, Fed, JoinError, PublishRequest};
use crate::config::{ChannelOptions, Config, Namespace};
use crate::ids::{Epoch, Moment, ShardId, Token, TopicName, UserName};
use crate::io::FramePool;
use crate::message::{
    LogAnswer, LogMessage, LogRecord, LogRefusal, LogSlice, Receipt, ShardMessage,
};
use crate::proto::Family;
use crate::proto::inbox::as_mark;

const SHARDS: usize = 2;
const SLOTS: u32 = 3;
const USERS: [&str; 2] = ["ann", "ben"];
const CHANNELS: [&str; 2] = ["mail:x", "chat:x"];
const MAIL: usize = 0;

/// The log as it is on disk, which a crash leaves.
#[derive(Default)]
struct Log {
    /// Records by topic; the first has offset 1.
    topics: BTreeMap<TopicName, Vec<LogRecord>>,
}

impl Log {
    const EPOCH: Epoch = Epoch(7);

    /// Answers as the log does. `fails`: the disk takes nothing now.
    fn answer(&mut self, asked: Asked, fails: bool) -> LogAnswer {
        let message = match asked {
            Asked::Append(append) => return self.append(append, fails),
            Asked::Message(message) => message,
        };
        match message {
            LogMessage::Position { topic, ticket } => {
                let next = self.topics.get(&topic).map_or(1, |records| records.len() as u64 + 1);
                let (epoch, ticket) = (Self::EPOCH, ticket.number);
                LogAnswer::Position { topic, epoch, next, oldest: 1, ticket }
            }
            LogMessage::Read { topic, from, ticket, .. } => {
                let all = self.topics.get(&topic).cloned().unwrap_or_default();
                let next = all.len() as u64 + 1;
                // Few at a time, so that there are several answers.
                let records = all.into_iter().skip(from as usize - 1).take(3).collect();
                let epoch = Self::EPOCH;
                let slice = LogSlice { epoch, oldest: 1, next, missing: None, records };
                LogAnswer::Read { topic, slice: Box::new(slice), ticket: ticket.number }
            }
            LogMessage::Stop | LogMessage::ReadLast { .. } | LogMessage::Locate { .. } => {
                unreachable!("no broker stops the log, and inboxes are read from their beginning")
            }
        }
    }

    fn append(&mut self, append: Appended, fails: bool) -> LogAnswer {
        let Appended { topic, record, ticket } = append;
        let records = self.topics.entry(topic.clone()).or_default();
        let next = records.len() as u64 + 1;
        let ticket = ticket.number;
        let offset = record.offset;
        if fails || offset != next {
            let reason = LogRefusal::Position { epoch: Self::EPOCH, next };
            return LogAnswer::Refused { topic, offset, reason, ticket };
        }
        records.push(record);
        LogAnswer::Stored { topic, epoch: Self::EPOCH, upto: offset, ticket }
    }

    /// What the user is known to have received.
    fn mark(&self, user: usize) -> u64 {
        let records = self.topics.get(&TopicName::inbox("mail", &name(user)));
        let marks = records.into_iter().flatten().filter_map(|record| as_mark(&record.data));
        marks.max().unwrap_or(0)
    }
}

/// A connection of a user, and what it got.
struct Device {
    token: Token,
    user: usize,
    /// Of its mail: the offsets, and numbers of the messages.
    mail: Vec<(u64, u64)>,
    chat: Vec<u64>,
    /// What was known when it came to have been received.
    marked: u64,
}

struct World {
    brokers: Vec<Broker>,
    frames: Vec<FramePool>,
    /// By sender and receiver.
    links: Vec<Vec<VecDeque<ShardMessage>>>,
    to_log: Vec<VecDeque<Asked>>,
    from_log: Vec<VecDeque<LogAnswer>>,
    log: Log,
    devices: BTreeMap<(usize, u32), Device>,
    ready: Vec<VecDeque<Token>>,
    handed: BTreeMap<(usize, u32), (TopicName, u64)>,
    generation: u32,
    /// Messages are numbered.
    sent: u64,
    mail: BTreeSet<u64>,
    accepted: BTreeSet<u64>,
    /// Mail that any device of its user got.
    seen: BTreeSet<u64>,
}

fn name(user: usize) -> UserName {
    UserName::parse(USERS[user]).unwrap()
}

fn config() -> Config {
    let mut config = Config::default();
    config.store.directory = Some(PathBuf::from("unused"));
    let space = |name: &str, options| Namespace { name: name.to_string(), options };
    let defaults = ChannelOptions::default;
    config.namespaces = vec![
        space("chat", ChannelOptions { direct: true, ..defaults() }),
        space("mail", ChannelOptions { offline_queue: true, ..defaults() }),
    ];
    config
}

impl World {
    fn new(log: Log) -> Self {
        Self::with(log, &config())
    }

    fn with(log: Log, config: &Config) -> Self {
        let mut brokers: Vec<_> =
            (0..SHARDS).map(|shard| broker(shard as u16, SHARDS, config)).collect();
        brokers.iter_mut().for_each(|broker| broker.begin_turn(Moment(1)));
        let queues = || (0..SHARDS).map(|_| VecDeque::new()).collect::<Vec<_>>();
        Self {
            brokers,
            frames: (0..SHARDS).map(|_| FramePool::default()).collect(),
            links: (0..SHARDS).map(|_| queues()).collect(),
            to_log: (0..SHARDS).map(|_| VecDeque::new()).collect(),
            from_log: (0..SHARDS).map(|_| VecDeque::new()).collect(),
            log,
            devices: BTreeMap::new(),
            ready: (0..SHARDS).map(|_| VecDeque::new()).collect(),
            handed: BTreeMap::new(),
            generation: 0,
            sent: 0,
            mail: BTreeSet::new(),
            accepted: BTreeSet::new(),
            seen: BTreeSet::new(),
        }
    }

    /// Everything but the log is gone.
    fn crash(&mut self) {
        let log = std::mem::take(&mut self.log);
        let accepted = std::mem::take(&mut self.accepted);
        let (sent, generation) = (self.sent, self.generation);
        let (mail, seen) = (std::mem::take(&mut self.mail), std::mem::take(&mut self.seen));
        *self = Self { sent, mail, accepted, seen, generation, ..Self::new(log) };
    }

    fn join(&mut self, shard: usize, slot: u32, user: usize) {
        self.leave(shard, slot);
        self.generation += 1;
        let token = Token { slot, generation: self.generation };
        let marked = self.log.mark(user);
        let device = Device { token, user, mail: Vec::new(), chat: Vec::new(), marked };
        self.devices.insert((shard, slot), device);
        let mut effects = Vec::new();
        self.brokers[shard]
            .join(token, (&name(user), &Arc::default()), &mut effects)
            .expect("there is room");
        self.apply(shard, effects);
    }

    fn leave(&mut self, shard: usize, slot: u32) {
        let Some(device) = self.devices.remove(&(shard, slot)) else { return };
        self.handed.remove(&(shard, slot));
        let mut effects = Vec::new();
        self.brokers[shard].leave(device.token, &mut effects);
        self.apply(shard, effects);
    }

    fn send(&mut self, shard: usize, user: usize, channel: usize) {
        let number = self.sent;
        self.sent += 1;
        if channel == MAIL {
            self.mail.insert(number);
        }
        let receipt = Receipt {
            request_id: Some(format!("{number}").into()),
            message_id: None,
            channel: Some(CHANNELS[channel].into()),
            family: Family::Action,
            filter: None,
        };
        let data = number.to_string();
        let request = PublishRequest {
            token: Token { slot: SLOTS, generation: 1 },
            topic: CHANNELS[channel],
            body: Body::Kept(data.as_bytes()),
            echo: true,
            receipt: Some(Box::new(receipt)),
        };
        let mut effects = Vec::new();
        let frames = &mut self.frames[shard];
        self.brokers[shard].publish_to(&name(user), request, frames, &mut effects);
        self.apply(shard, effects);
    }

    /// The connection proves what it was handed.
    fn prove(&mut self, shard: usize, slot: u32) {
        let Some((topic, upto)) = self.handed.remove(&(shard, slot)) else { return };
        let mut effects = Vec::new();
        self.brokers[shard].received(topic, upto, &mut effects);
        self.apply(shard, effects);
    }

    fn arrive(&mut self, from: usize, to: usize) {
        let Some(message) = self.links[from][to].pop_front() else { return };
        self.receive(to, message);
    }

    fn receive(&mut self, shard: usize, message: ShardMessage) {
        let mut effects = Vec::new();
        self.brokers[shard].receive(message, &mut self.frames[shard], &mut effects);
        self.apply(shard, effects);
    }

    fn log_takes(&mut self, shard: usize, fails: bool) {
        if let Some(message) = self.to_log[shard].pop_front() {
            let answer = self.log.answer(message, fails);
            self.from_log[shard].push_back(answer);
        }
    }

    fn log_answers(&mut self, shard: usize) {
        if let Some(answer) = self.from_log[shard].pop_front() {
            self.receive(shard, ShardMessage::Log(answer));
        }
    }

    fn advance(&mut self, shard: usize, slow: Option<u32>) {
        let is_slow = |slot| Some(slot) == slow;
        let mut sink = Sink { delivered: Vec::new(), is_slow: &is_slow };
        let mut effects = Vec::new();
        let frames = &mut self.frames[shard];
        self.brokers[shard].advance(2, frames, &mut effects, &mut sink);
        for (slot, text) in sink.delivered {
            self.see(shard, slot, &text);
        }
        self.apply(shard, effects);
    }

    fn feed(&mut self, shard: usize) {
        let Some(token) = self.ready[shard].pop_front() else { return };
        let mut effects = Vec::new();
        if self.brokers[shard].feed(token, &mut effects) == Fed::Something {
            self.ready[shard].push_back(token);
        }
        self.apply(shard, effects);
    }

    fn apply(&mut self, shard: usize, effects: Vec<Effect>) {
        self.to_log[shard].extend(asked(self.brokers[shard].to_log()));
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    assert_ne!(to, ShardId(shard as u16), "to itself");
                    self.links[shard][to.index()].push_back(message);
                }
                Effect::Resumed { .. } | Effect::Session(_) | Effect::Unreadable { .. } => {
                    panic!("nobody has a session, and the log reads: {effect:?}")
                }
                Effect::Published { receipt, outcome, .. } => {
                    let receipt = receipt.unwrap();
                    let number = receipt.request_id.unwrap().parse().unwrap();
                    if outcome.is_accepted() {
                        assert!(self.accepted.insert(number), "answered twice");
                    }
                }
                Effect::Ready { token } => self.ready[shard].push_back(token),
                Effect::Replay { token, gap, frames, .. } => {
                    assert_eq!(gap, None);
                    if self.devices.get(&(shard, token.slot)).is_some_and(|it| it.token == token) {
                        for frame in frames {
                            self.see(shard, token.slot, &payload(&frame));
                        }
                    }
                }
                Effect::Handed { token, topic, upto } => {
                    let device = &self.devices[&(shard, token.slot)];
                    assert_eq!(device.token, token, "handed to somebody else");
                    self.handed.insert((shard, token.slot), (topic, upto));
                }
                Effect::Subscribed { .. } => {}
                Effect::Page { .. } | Effect::Presence { .. } => panic!("nobody asks"),
                Effect::News { .. }
                | Effect::Notice { .. }
                | Effect::Room { .. }
                | Effect::Removed { .. } => {
                    panic!("nobody asked for that: {effect:?}")
                }
            }
        }
    }

    fn see(&mut self, shard: usize, slot: u32, text: &str) {
        let message: serde_json::Value = serde_json::from_str(text).unwrap();
        let device = self.devices.get_mut(&(shard, slot)).expect("nobody else gets it");
        let number = message["data"].as_u64().unwrap();
        if message["channel"] == "chat:x" {
            device.chat.push(number);
            return;
        }
        let id = message["messageId"].as_str().unwrap();
        let offset: u64 = id.strip_prefix("0000000000000007-").unwrap().parse().unwrap();
        assert!(offset > device.marked, "{id} was received: {}", device.marked);
        assert!(device.mail.last().is_none_or(|(last, _)| offset > *last), "order");
        device.mail.push((offset, number));
        self.seen.insert(number);
        // Nothing is left out: what is behind the last one is this one, or marks.
        let records = &self.log.topics[&TopicName::inbox("mail", &name(device.user))];
        if let [.., (last, _), _] = device.mail[..] {
            let between = &records[last as usize..offset as usize - 1];
            assert!(between.iter().all(|record| as_mark(&record.data).is_some()), "a hole");
        }
    }

    /// Everything goes on by a step.
    fn pump(&mut self) {
        for shard in 0..SHARDS {
            for from in 0..SHARDS {
                self.arrive(from, shard);
            }
            self.log_takes(shard, false);
            self.log_answers(shard);
            self.advance(shard, None);
            self.feed(shard);
        }
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            self.pump();
        }
        let queues = self.links.iter().flatten().map(VecDeque::len).sum::<usize>();
        assert_eq!(queues + self.to_log.iter().map(VecDeque::len).sum::<usize>(), 0);
    }
}

/// A kind of step, and its choices.
type Step = (u8, usize, u32, usize, usize);

fn run(steps: Vec<Step>) {
    let mut world = World::new(Log::default());
    for (kind, shard, slot, user, choice) in steps {
        match kind {
            0 => world.join(shard, slot, user),
            1 if choice == 0 => world.leave(shard, slot),
            2 if choice == 0 => world.crash(),
            1..=8 => world.send(shard, user, choice % 4 % 3 % 2),
            9..=12 => world.log_takes(shard, choice == 5),
            13..=16 => world.log_answers(shard),
            17..=20 => world.arrive(choice % SHARDS, shard),
            21..=24 => world.advance(shard, (choice == 0).then_some(slot)),
            25..=28 => world.feed(shard),
            29..=34 => world.prove(shard, slot),
            _ => world.pump(),
        }
    }
    world.settle();
    for shard in 0..SHARDS {
        for slot in 0..SLOTS {
            world.leave(shard, slot);
        }
    }
    world.settle();
    for user in 0..USERS.len() {
        world.join(user % SHARDS, 0, user);
    }
    world.settle();
    let kept: BTreeSet<u64> = world.log.topics.values().flatten().filter_map(number).collect();
    assert_eq!(world.seen, kept, "what was kept came, and nothing else");
    let accepted: BTreeSet<u64> = world.accepted.intersection(&world.mail).copied().collect();
    assert!(accepted.is_subset(&kept), "{:?}", accepted.difference(&kept));
    // Proven, nothing of it waits any more.
    for user in 0..USERS.len() {
        world.prove(user % SHARDS, 0);
    }
    world.settle();
    world.crash();
    for user in 0..USERS.len() {
        world.join((user + 1) % SHARDS, 1, user);
    }
    world.settle();
    for device in world.devices.values() {
        assert_eq!(device.mail, [], "it was received");
    }
}

fn number(record: &LogRecord) -> Option<u64> {
    let message: serde_json::Value = serde_json::from_slice(&record.data).ok()?;
    message["data"].as_u64()
}

proptest! {
    #[test]
    fn mail_comes_in_order_until_it_is_received(
        steps in prop::collection::vec(
            (0..40u8, 0..SHARDS, 0..SLOTS, 0..USERS.len(), 0..6usize),
            0..600,
        ),
    ) {
        run(steps);
    }
}

#[test]
fn a_message_of_the_moment_comes_to_whoever_is_there_and_to_nobody_later() {
    let mut world = World::new(Log::default());
    world.join(0, 0, 0);
    world.join(1, 1, 0);
    world.join(1, 2, 1);
    world.settle();
    for shard in [0, 1, 1, 0] {
        world.send(shard, 0, 1);
        world.settle();
    }
    world.join(0, 1, 0);
    world.settle();
    let chats: Vec<_> = world.devices.values().map(|device| device.chat.clone()).collect();
    assert_eq!(chats, [vec![0, 1, 2, 3], vec![], vec![0, 1, 2, 3], vec![]]);
    assert_eq!(world.accepted.len(), 4);
}

#[test]
fn a_connection_that_left_hears_nothing_and_counts_no_more() {
    let mut world = World::new(Log::default());
    world.send(0, 0, MAIL);
    for slot in 0..SLOTS {
        world.join(0, slot, 0);
    }
    world.leave(0, 1);
    world.settle();
    assert!(world.devices.values().all(|device| device.mail.len() == 1));
    let join = |world: &mut World, user: &str, slot| {
        let token = Token { slot, generation: 99 };
        world.brokers[0].join(
            token,
            (&UserName::parse(user).unwrap(), &Arc::default()),
            &mut Vec::new(),
        )
    };
    for slot in 10..108 {
        assert_eq!(join(&mut world, USERS[0], slot), Ok(()), "two are there: {slot}");
    }
    assert!(join(&mut world, USERS[0], 108).is_err());
    assert_eq!(join(&mut world, USERS[1], 108), Ok(()));
}

#[test]
fn a_mark_that_the_log_refused_is_tried_again_when_a_connection_comes() {
    let mut world = World::new(Log::default());
    world.send(0, 0, MAIL);
    world.join(0, 0, 0);
    world.settle();
    world.prove(0, 0);
    for shard in 0..SHARDS {
        world.arrive(0, shard);
        world.log_takes(shard, true);
    }
    world.settle();
    assert_eq!(world.log.mark(0), 0);
    world.join(1, 1, 0);
    world.settle();
    assert_eq!(world.devices[&(1, 1)].mail, [], "it is known here");
    assert_eq!(world.log.mark(0), 1);
}

#[test]
fn what_waits_for_those_who_are_away_needs_no_memory() {
    let mut config = config();
    config.limits.history_memory = 2000;
    let mut world = World::with(Log::default(), &config);
    for round in 0..3 {
        // Each has more than a quarter of the memory, and both are at home on either shard.
        for _ in 0..5 {
            for user in 0..USERS.len() {
                world.send(user % SHARDS, user, MAIL);
                world.settle();
            }
        }
        for user in 0..USERS.len() {
            world.join(1, 1, user);
            world.settle();
            let device = &world.devices[&(1, 1)];
            assert_eq!(device.mail.len(), 5, "round {round}, user {user}: {:?}", device.mail);
            world.prove(1, 1);
            world.settle();
            world.leave(1, 1);
            world.settle();
        }
    }
    assert_eq!(world.accepted.len(), 30);
}

#[test]
fn without_room_for_an_inbox_a_connection_keeps_what_it_has() {
    let direct = |name: &str| Namespace {
        name: name.into(),
        options: ChannelOptions { direct: true, ..ChannelOptions::default() },
    };
    let namespaces = vec![direct("one"), direct("two")];
    let mut config = Config { namespaces, ..Config::default() };
    config.limits.max_topics = 2;
    let mut only = broker(0, 1, &config);
    let (token, mut effects) = (Token { slot: 0, generation: 1 }, Vec::new());
    only.subscribe(subscribe(token, "own"), &mut effects).expect("there is room");
    let user = UserName::parse("alice").expect("a name");
    let refused = only.join(token, (&user, &Arc::default()), &mut effects);
    assert_eq!(refused, Err(JoinError::TableFull { limit: 2 }));
    assert_eq!((only.subscriptions(token), only.connections_of(&user, 9)), (1, Vec::new()));
    assert!(only.unsubscribe(token, "own", &mut effects), "it is subscribed still");
    assert_eq!(only.topics(), 0, "the first inbox is closed again");
    only.subscribe(subscribe(token, "own"), &mut effects).expect("there is room");
}
