//! Topics with history: every subscriber sees the offsets from where it was told that it begins, each
//! once and in order, or is told which ones are gone.

mod acks;
mod checks;
mod steps;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::{Sink, body, broker, payload, published, select};
use crate::broker::{Broker, Effect, Fed, PublishRequest, SubscribeError, SubscribeRequest};
use crate::config::{ChannelOptions, Config, Level, Namespace};
use crate::ids::{Epoch, Moment, Position, ShardId, Token};
use crate::io::FramePool;
use crate::message::{Begin, Receipt, ShardMessage};
use crate::proto::{Family, HistoryQuery, Since, Standing, Start, Unavailable};
use acks::Sent;
use checks::parse;
use steps::{From, Step, acked_step, step};

const SHARDS: usize = 3;
const SLOTS: u32 = 3;
/// Two that keep a few publications, one whose new subscribers get the latest, and one whose subscribers
/// acknowledge.
const TOPICS: [&str; 4] = ["h:a", "h:b", "l:c", "k:d"];
const ACKED: usize = 3;
const UNACKED_MAX: usize = 4;
const ACK_TIMEOUT: Duration = Duration::from_secs(3);
const ACK_RETRIES: u32 = 2;
const KEPT: usize = 6;
const TTL: Duration = Duration::from_secs(20);

/// One confirmed subscription.
#[derive(Debug)]
struct Stream {
    reader: (usize, Token),
    topic: usize,
    epoch: Epoch,
    /// The tag of what it is for; and of what it was for before.
    tag: Option<bool>,
    tags_before: Vec<bool>,
    /// It has, or was told that it cannot have, everything before.
    next: u64,
    over: bool,
    /// Of the acked topic: what came last, what waits for its acknowledgement, and what was
    /// acknowledged on an earlier connection.
    delivered: u64,
    unacked: BTreeMap<u64, Sent>,
    known: BTreeSet<u64>,
}

#[derive(Debug)]
struct Publication {
    author: (usize, Token),
    echo: bool,
}

/// What a subscription asked for; confirmations bring its number back.
#[derive(Debug)]
struct Asked {
    reader: (usize, Token),
    start: Start,
    limit: Option<u64>,
    /// The tag of what it is for.
    tag: Option<bool>,
    answered: bool,
}

/// Topic and message id.
type MessageKey = (usize, u8);

struct World {
    brokers: Vec<Broker>,
    frames: Vec<FramePool>,
    links: Vec<Vec<VecDeque<ShardMessage>>>,
    congested: Vec<Vec<bool>>,
    generations: Vec<Vec<u32>>,
    slow: BTreeSet<(usize, u32)>,
    /// Connections that were said to have something to read.
    ready: BTreeSet<(usize, u64)>,
    now: Moment,
    streams: Vec<Stream>,
    current: BTreeMap<(usize, u32, usize), usize>,
    /// Where the last subscription of a slot to a topic came to.
    reached: BTreeMap<(usize, u32, usize), Position>,
    asked: Vec<Asked>,
    publications: Vec<Publication>,
    /// By topic and epoch: the publication at each offset, from 1 on.
    orders: BTreeMap<(usize, u64), Vec<usize>>,
    /// Epoch and offset of what was accepted under a message id, and when.
    accepted: BTreeMap<MessageKey, (u64, u64, Moment)>,
    /// What subscriptions were to know already, by their numbers in `asked`.
    restored: BTreeMap<usize, BTreeSet<u64>>,
    gaps: usize,
    replayed: usize,
    redelivered: usize,
    paused: usize,
}

impl World {
    fn new(kept: usize) -> Self {
        let mut config = Config::default();
        let options = |last, level| ChannelOptions {
            level,
            ack_timeout: ACK_TIMEOUT,
            ack_retries: ACK_RETRIES,
            history_size: kept,
            history_ttl: TTL,
            idempotency_window: TTL,
            last,
            ..ChannelOptions::default()
        };
        let namespace = |name: &str, last, level| Namespace {
            name: name.to_owned(),
            options: options(last, level),
        };
        // Without a log the acked one is in memory, too.
        config.namespaces = vec![
            namespace("h", false, Level::History),
            namespace("k", false, Level::Acked),
            namespace("l", true, Level::History),
        ];
        config.limits.max_unacked = UNACKED_MAX;
        config.limits.fanout_backlog = 2000;
        let mut brokers: Vec<_> =
            (0..SHARDS as u16).map(|shard| broker(shard, SHARDS, &config)).collect();
        for broker in &mut brokers {
            // One to three publications.
            broker.limits.slice_cost_max = 500;
        }
        Self {
            brokers,
            frames: (0..SHARDS).map(|_| FramePool::default()).collect(),
            links: (0..SHARDS).map(|_| (0..SHARDS).map(|_| VecDeque::new()).collect()).collect(),
            congested: vec![vec![false; SHARDS]; SHARDS],
            generations: vec![vec![1; SLOTS as usize]; SHARDS],
            slow: BTreeSet::new(),
            ready: BTreeSet::new(),
            now: Moment(0),
            streams: Vec::new(),
            current: BTreeMap::new(),
            reached: BTreeMap::new(),
            asked: Vec::new(),
            publications: Vec::new(),
            orders: BTreeMap::new(),
            accepted: BTreeMap::new(),
            restored: BTreeMap::new(),
            gaps: 0,
            replayed: 0,
            redelivered: 0,
            paused: 0,
        }
    }

    fn token(&self, shard: usize, slot: u32) -> Token {
        Token { slot, generation: self.generations[shard][slot as usize] }
    }

    /// Where the topic's history ends, if it has one, and its oldest offset.
    fn history(&self, topic: usize) -> Option<(Position, u64)> {
        let hash = self.brokers[0].topics.hash(TOPICS[topic]);
        let home = &self.brokers[self.brokers[0].topics.home(hash).index()];
        let key = home.topics.find(hash, TOPICS[topic])?;
        let history = home.topics.topic(key).history()?;
        let opening = history.open(Begin { start: Start::Since(Since::Oldest), limit: None });
        Some((history.position(), opening.position.offset + 1))
    }

    fn take(&mut self, step: Step) {
        let mut effects = Vec::new();
        match step {
            Step::Subscribe(shard, slot, topic, begin, (limit, tag)) => {
                self.subscribe(shard, slot, topic, begin, (limit, tag));
            }
            Step::Unsubscribe(shard, slot, topic) => {
                let token = self.token(shard, slot);
                self.brokers[shard].unsubscribe(token, TOPICS[topic], &mut effects);
                self.apply(shard, effects);
                self.end(shard, slot, topic);
            }
            Step::Leave(shard, slot) => {
                let token = self.token(shard, slot);
                self.brokers[shard].leave(token, &mut effects);
                self.apply(shard, effects);
                (0..TOPICS.len()).for_each(|topic| self.end(shard, slot, topic));
                self.generations[shard][slot as usize] += 1;
                self.slow.remove(&(shard, slot));
            }
            Step::Publish(shard, slot, topic, echo, id) => {
                self.publish(shard, slot, topic, echo, id);
            }
            Step::Query(shard, slot, topic, query) => self.query(shard, slot, topic, query),
            Step::Arrive(from, to) => self.arrive(from, to),
            Step::Advance(shard, visits) => self.advance(shard, visits),
            Step::Feed(shard, slot) => {
                self.feed(shard, slot);
            }
            Step::Slow(shard, slot, true) => drop(self.slow.insert((shard, slot))),
            Step::Slow(shard, slot, false) => drop(self.slow.remove(&(shard, slot))),
            Step::Congest(shard, other, full) => {
                self.congested[shard][other] = full;
                let full = self.congested[shard].iter().enumerate().filter(|(_, full)| **full);
                self.brokers[shard].note_congestion(full.map(|(other, _)| ShardId(other as u16)));
            }
            Step::Wait(seconds) => self.wait(seconds),
            Step::Ack(shard, slot, pick) => self.acknowledge(shard, slot, pick),
            Step::Resume(shard, slot) => self.resume(shard, slot),
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now = Moment(self.now.0 + seconds * 1000);
        for broker in &mut self.brokers {
            broker.begin_turn(self.now);
            broker.expire();
        }
        self.expire_acks();
    }

    fn subscribe(
        &mut self,
        shard: usize,
        slot: u32,
        topic: usize,
        begin: From,
        (limit, tag): (Option<u64>, Option<bool>),
    ) {
        let token = self.token(shard, slot);
        let start = match begin {
            From::Now => Start::Now,
            From::Recover => match self.reached.get(&(shard, slot, topic)) {
                Some(Position { epoch, offset }) => {
                    Start::Recover { epoch: Some(*epoch), offset: *offset }
                }
                None => Start::Now,
            },
            From::RecoverForeign => Start::Recover { epoch: None, offset: 1 },
            From::Since(since) => Start::Since(since),
        };
        let id = self.asked.len();
        self.asked.push(Asked { reader: (shard, token), start, limit, tag, answered: false });
        let (topic, request_id) = (TOPICS[topic], Some(id.to_string().into()));
        let begin = Begin { start, limit };
        let select = select(tag);
        let request = SubscribeRequest { token, topic, begin, request_id, select };
        let mut effects = Vec::new();
        match self.brokers[shard].subscribe(request, &mut effects) {
            Ok(()) => {}
            Err(SubscribeError::Congested) => {
                assert!(self.congested[shard].contains(&true));
                self.asked[id].answered = true;
            }
            Err(error) => panic!("{error:?}"),
        }
        self.apply(shard, effects);
    }

    fn publish(&mut self, shard: usize, slot: u32, topic: usize, echo: bool, id: Option<u8>) {
        let number = self.publications.len();
        let token = self.token(shard, slot);
        self.publications.push(Publication { author: (shard, token), echo });
        let receipt = Receipt {
            request_id: Some(number.to_string().into()),
            message_id: id.map(|id| format!("\"{id}\"").into()),
            channel: None,
            family: Family::Action,
            filter: None,
        };
        let before = self.history(topic);
        let data = body(number);
        let (body, receipt) = (published(number, &data), Some(Box::new(receipt)));
        let request = PublishRequest { token, topic: TOPICS[topic], body, echo, receipt };
        let mut effects = Vec::new();
        self.brokers[shard].publish(request, &mut self.frames[shard], &mut effects);
        let outcome = effects.iter().find_map(|effect| match effect {
            Effect::Published { outcome, .. } => Some(*outcome),
            _ => None,
        });
        if let Some(outcome) = outcome {
            self.note_outcome(topic, number, id, before.map(|(position, _)| position), outcome);
        }
        self.apply(shard, effects);
    }

    fn query(&mut self, shard: usize, slot: u32, topic: usize, query: HistoryQuery) {
        let token = self.token(shard, slot);
        let mut effects = Vec::new();
        // Where it comes from is of no interest: it is held against the home when it is answered.
        let hash = self.brokers[0].topics.hash(TOPICS[topic]);
        let home = self.brokers[0].topics.home(hash).index();
        let asked = self.brokers[shard].query(token, TOPICS[topic], &query, None, &mut effects);
        assert!(asked.is_ok() || self.congested[shard][home]);
        self.apply(shard, effects);
        let mut effects = Vec::new();
        let asked = self.brokers[home].query(token, TOPICS[topic], &query, None, &mut effects);
        assert_eq!(asked, Ok(()));
        let [Effect::Page { page, .. }] = &effects[..] else { panic!("{effects:?}") };
        let Some((position, first)) = self.history(topic) else {
            assert!(page.position.is_none() && page.frames.is_empty() && !page.more);
            return;
        };
        assert_eq!(page.position, Some(position));
        let offsets: Vec<u64> = page.frames.iter().map(|frame| parse(&payload(frame)).1).collect();
        let mut wanted: Vec<u64> = (first..=position.offset).collect();
        if let Since::Offset(since) = query.since {
            wanted.retain(|offset| *offset > since);
            let expected = match since {
                since if since > position.offset => Err(Unavailable::Future),
                since if since + 1 < first => Err(Unavailable::Trimmed),
                _ => Ok(()),
            };
            assert_eq!(page.complete, expected);
        }
        if let Some(Since::Offset(until)) = query.until {
            wanted.retain(|offset| *offset <= until);
        }
        if query.reverse {
            wanted.reverse();
        }
        let by_time = |at: Option<Since>| matches!(at, Some(Since::Time(_)));
        if !by_time(Some(query.since)) && !by_time(query.until) {
            assert_eq!(page.more, wanted.len() > query.limit);
            wanted.truncate(query.limit);
            assert_eq!(offsets, wanted, "{query:?}");
        }
        assert!(offsets.len() <= query.limit);
    }

    fn arrive(&mut self, from: usize, to: usize) {
        if !self.brokers[to].has_room() {
            return;
        }
        let Some(message) = self.links[from][to].pop_front() else { return };
        let published = match &message {
            ShardMessage::Publish { topic, publisher, .. } => {
                let receipt = publisher.receipt.as_ref().unwrap();
                let number = receipt.request_id.as_ref().unwrap().parse::<usize>().unwrap();
                let id = receipt.message_id.as_ref().map(|id| id.as_bytes()[1] - b'0');
                let topic = position(topic);
                Some((topic, number, id, self.history(topic).map(|(position, _)| position)))
            }
            _ => None,
        };
        let mut effects = Vec::new();
        self.brokers[to].receive(message, &mut self.frames[to], &mut effects);
        if let Some((topic, number, id, before)) = published {
            let outcome = effects.iter().find_map(|effect| match effect {
                Effect::Send { message: ShardMessage::Published { outcome, .. }, .. } => {
                    Some(*outcome)
                }
                _ => None,
            });
            let outcome = outcome.expect("it asked for an acknowledgement");
            self.note_outcome(topic, number, id, before, outcome);
        }
        self.apply(to, effects);
    }

    fn advance(&mut self, shard: usize, visits: usize) {
        let mut effects = Vec::new();
        let slow = &self.slow;
        let is_slow = |slot| slow.contains(&(shard, slot));
        let mut sink = Sink { delivered: Vec::new(), is_slow: &is_slow };
        self.brokers[shard].advance(visits, &mut self.frames[shard], &mut effects, &mut sink);
        for (slot, text) in sink.delivered {
            self.see(shard, slot, &text);
        }
        self.apply(shard, effects);
    }

    /// Whether the connection has more to read.
    fn feed(&mut self, shard: usize, slot: u32) -> bool {
        if self.slow.contains(&(shard, slot)) {
            return true;
        }
        let token = self.token(shard, slot);
        let ready = (shard, token.pack());
        if !self.ready.contains(&ready) {
            return false;
        }
        let mut effects = Vec::new();
        let fed = self.brokers[shard].feed(token, &mut effects);
        if matches!(fed, Fed::Nothing | Fed::Waiting) {
            self.ready.remove(&ready);
        }
        self.apply(shard, effects);
        fed != Fed::Nothing
    }

    fn apply(&mut self, shard: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.links[shard][to.index()].push_back(message),
                Effect::Subscribed { token, topic, request_id, standing } => {
                    let id = request_id.unwrap().parse::<usize>().unwrap();
                    self.confirm(shard, token, position(&topic), id, standing);
                }
                Effect::Replay { token, topic, gap, frames } => {
                    let topic = position(&topic);
                    if let Some((from, to)) = gap {
                        self.see_gap(shard, token.slot, topic, from, to);
                    }
                    for frame in frames {
                        self.replayed += 1;
                        self.see(shard, token.slot, &payload(&frame));
                    }
                }
                Effect::Handed { .. } => panic!("nobody has an inbox: {effect:?}"),
                Effect::Resumed { .. } | Effect::Session(_) => panic!("nobody has a session"),
                Effect::News { .. }
                | Effect::Notice { .. }
                | Effect::Presence { .. }
                | Effect::Room { .. }
                | Effect::Removed { .. } => {
                    panic!("nobody asked for that: {effect:?}")
                }
                Effect::Unreadable { .. } => panic!("nothing is durable here: {effect:?}"),
                Effect::Ready { token } => drop(self.ready.insert((shard, token.pack()))),
                Effect::Published { .. } | Effect::Page { .. } => {}
            }
        }
    }

    fn confirm(&mut self, shard: usize, token: Token, topic: usize, id: usize, standing: Standing) {
        assert_eq!(token, self.token(shard, token.slot), "confirmed to somebody else");
        let Asked { start, limit, tag, answered, .. } = &mut self.asked[id];
        let tag = *tag;
        assert!(!std::mem::replace(answered, true), "confirmed twice");
        let key = (shard, token.slot, topic);
        // Withdrawn before it was answered.
        let Some(at) = standing.position else { return };
        if let Some(&stream) = self.current.get(&key) {
            assert!(at.offset + 1 >= self.streams[stream].next, "it names a place that was passed");
            self.pass_own(stream, at.offset + 1);
            let stream = &mut self.streams[stream];
            assert_eq!((at.epoch, standing.recovery), (stream.epoch, None), "subscribed already");
            assert!(at.offset < stream.next, "{at:?} has not come to {stream:?}");
            stream.tags_before.extend(std::mem::replace(&mut stream.tag, tag));
            return;
        }
        if let Some(recovery) = standing.recovery {
            let from = match *start {
                Start::Recover { offset, .. } | Start::Since(Since::Offset(offset)) => Some(offset),
                _ => None,
            };
            match recovery.outcome {
                Ok(()) => {
                    assert!(from.is_none_or(|from| from == at.offset));
                    assert!(limit.is_none_or(|limit| recovery.count <= limit));
                    if let Start::Recover { epoch, .. } = start {
                        assert_eq!(*epoch, Some(at.epoch));
                    }
                }
                Err(Unavailable::Limit) => assert_eq!(Some(recovery.count), *limit),
                Err(Unavailable::Epoch) => assert_ne!(
                    Some(Some(at.epoch)),
                    match start {
                        Start::Recover { epoch, .. } => Some(*epoch),
                        _ => None,
                    }
                ),
                Err(Unavailable::Trimmed | Unavailable::Future) => assert_eq!(recovery.count, 0),
                Err(
                    reason @ (Unavailable::NoHistory
                    | Unavailable::Unreadable
                    | Unavailable::Subscribed),
                ) => panic!("{reason:?}"),
            }
        }
        let (reader, next, epoch) = ((shard, token), at.offset + 1, at.epoch);
        let known = self.take_restored(id);
        let recovered = standing.recovery.is_some_and(|recovery| recovery.outcome.is_ok());
        let known = if recovered { known } else { BTreeSet::new() };
        self.current.insert(key, self.streams.len());
        let (delivered, unacked) = (0, BTreeMap::new());
        let (over, tags_before) = (false, Vec::new());
        self.streams.push(Stream {
            reader,
            topic,
            epoch,
            tag,
            tags_before,
            next,
            over,
            delivered,
            unacked,
            known,
        });
    }
}

fn position(topic: &str) -> usize {
    TOPICS.iter().position(|name| *name == topic).unwrap()
}

fn run(kept: usize, steps: Vec<Step>) -> World {
    let mut world = World::new(kept);
    for step in steps {
        world.take(step);
    }
    world.settle();
    world.check();
    world.leave_all();
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn subscribers_see_every_offset_once_or_are_told(
        steps in prop::collection::vec(step(), 0..250),
    ) {
        run(KEPT, steps);
    }

    #[test]
    fn deliveries_come_again_until_they_are_acknowledged(
        kept in prop_oneof![Just(KEPT), Just(100_000)],
        steps in prop::collection::vec(acked_step(), 0..250),
    ) {
        run(kept, steps);
    }

    #[test]
    fn subscribers_of_long_histories_see_every_offset(
        steps in prop::collection::vec(step(), 0..250),
    ) {
        let keep = |step: &Step| !matches!(step, Step::Wait(_));
        let world = run(100_000, steps.into_iter().filter(keep).collect());
        prop_assert_eq!(world.gaps, 0);
    }
}
