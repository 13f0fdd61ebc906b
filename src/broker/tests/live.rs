//! Topics without history: whoever is subscribed sees one order, from its confirmation on.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::{Sink, broker, subscribe};
use crate::broker::{Broker, Effect, PublishRequest, SubscribeError};
use crate::config::Config;
use crate::ids::{ShardId, Token};
use crate::io::FramePool;
use crate::message::{PublishOutcome, ShardMessage};

const SHARDS: usize = 3;
const SLOTS: u32 = 4;
const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
const SUBSCRIPTIONS_MAX: u32 = 3;
const BACKLOG_BYTES_MAX: usize = 500;

#[derive(Debug, Clone)]
enum Step {
    Subscribe(usize, u32, usize),
    Unsubscribe(usize, u32, usize),
    Leave(usize, u32),
    Publish(usize, u32, usize, bool),
    /// The next message from one shard to another arrives, if the other has room.
    Arrive(usize, usize),
    Advance(usize, usize),
    /// Whether a shard thinks that another one has no room.
    Congest(usize, usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let (shard, slot, topic) = (0..SHARDS, 0..SLOTS, 0..TOPICS.len());
    prop_oneof![
        4 => (shard.clone(), slot.clone(), topic.clone())
            .prop_map(|(shard, slot, topic)| Step::Subscribe(shard, slot, topic)),
        2 => (shard.clone(), slot.clone(), topic.clone())
            .prop_map(|(shard, slot, topic)| Step::Unsubscribe(shard, slot, topic)),
        1 => (shard.clone(), slot.clone()).prop_map(|(shard, slot)| Step::Leave(shard, slot)),
        8 => (shard.clone(), slot, topic, any::<bool>())
            .prop_map(|(shard, slot, topic, echo)| Step::Publish(shard, slot, topic, echo)),
        12 => (shard.clone(), shard.clone()).prop_map(|(from, to)| Step::Arrive(from, to)),
        4 => (shard.clone(), 1..4usize).prop_map(|(shard, visits)| Step::Advance(shard, visits)),
        1 => (shard.clone(), shard, any::<bool>())
            .prop_map(|(shard, other, full)| Step::Congest(shard, other, full)),
    ]
}

/// One confirmed subscription.
#[derive(Debug)]
struct Stream {
    topic: usize,
    /// Accepted publications of the topic whose publisher asked after the confirmation.
    due_from: usize,
    seen: Vec<usize>,
    over: bool,
}

#[derive(Debug)]
struct Publication {
    token: (usize, Token),
    echo: bool,
    outcome: Option<PublishOutcome>,
}

struct World {
    brokers: Vec<Broker>,
    frames: Vec<FramePool>,
    /// By sender, then receiver.
    links: Vec<Vec<VecDeque<ShardMessage>>>,
    congested: Vec<Vec<bool>>,
    generations: Vec<Vec<u32>>,
    /// The current stream of each shard's slot and topic.
    current: BTreeMap<(usize, u32, usize), usize>,
    streams: Vec<(usize, Token, Stream)>,
    publications: Vec<Publication>,
    /// By topic: what its home accepted, in order.
    orders: Vec<Vec<usize>>,
}

impl World {
    fn new() -> Self {
        let mut config = Config::default();
        config.limits.max_subscriptions = SUBSCRIPTIONS_MAX;
        config.limits.fanout_backlog = BACKLOG_BYTES_MAX;
        let broker = |shard| broker(shard, SHARDS, &config);
        Self {
            brokers: (0..SHARDS as u16).map(broker).collect(),
            frames: (0..SHARDS).map(|_| FramePool::default()).collect(),
            links: (0..SHARDS).map(|_| (0..SHARDS).map(|_| VecDeque::new()).collect()).collect(),
            congested: vec![vec![false; SHARDS]; SHARDS],
            generations: vec![vec![1; SLOTS as usize]; SHARDS],
            current: BTreeMap::new(),
            streams: Vec::new(),
            publications: Vec::new(),
            orders: vec![Vec::new(); TOPICS.len()],
        }
    }

    fn token(&self, shard: usize, slot: u32) -> Token {
        Token { slot, generation: self.generations[shard][slot as usize] }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Subscribe(shard, slot, topic) => self.subscribe(shard, slot, topic),
            Step::Unsubscribe(shard, slot, topic) => {
                let mut effects = Vec::new();
                let token = self.token(shard, slot);
                self.brokers[shard].unsubscribe(token, TOPICS[topic], &mut effects);
                self.apply(shard, effects);
                self.end(shard, slot, topic);
            }
            Step::Leave(shard, slot) => {
                let mut effects = Vec::new();
                let token = self.token(shard, slot);
                self.brokers[shard].leave(token, &mut effects);
                self.apply(shard, effects);
                (0..TOPICS.len()).for_each(|topic| self.end(shard, slot, topic));
                self.generations[shard][slot as usize] += 1;
            }
            Step::Publish(shard, slot, topic, echo) => self.publish(shard, slot, topic, echo),
            Step::Arrive(from, to) => self.arrive(from, to),
            Step::Advance(shard, visits) => self.advance(shard, visits),
            Step::Congest(shard, other, full) => {
                self.congested[shard][other] = full;
                let full = self.congested[shard].iter().enumerate().filter(|(_, full)| **full);
                self.brokers[shard].note_congestion(full.map(|(other, _)| ShardId(other as u16)));
            }
        }
    }

    fn subscribe(&mut self, shard: usize, slot: u32, topic: usize) {
        let mut effects = Vec::new();
        let token = self.token(shard, slot);
        let held = (0..TOPICS.len())
            .filter(|topic| self.current.contains_key(&(shard, slot, *topic)))
            .count();
        let known = self.current.contains_key(&(shard, slot, topic));
        let outcome = self.brokers[shard].subscribe(subscribe(token, TOPICS[topic]), &mut effects);
        match outcome {
            Ok(()) => assert!(known || held < SUBSCRIPTIONS_MAX as usize),
            Err(SubscribeError::TooMany { limit }) => assert_eq!(limit, SUBSCRIPTIONS_MAX),
            Err(SubscribeError::Congested) => assert!(self.congested[shard].contains(&true)),
            Err(SubscribeError::TableFull { .. }) => panic!("the table is not full"),
        }
        self.apply(shard, effects);
    }

    fn publish(&mut self, shard: usize, slot: u32, topic: usize, echo: bool) {
        let id = self.publications.len();
        let token = self.token(shard, slot);
        self.publications.push(Publication { token: (shard, token), echo, outcome: None });
        // The receipt carries the id back.
        let receipt = crate::message::Receipt {
            request_id: Some(id.to_string().into()),
            message_id: None,
            channel: None,
            family: crate::proto::Family::Action,
        };
        let name = TOPICS[topic];
        let data = id.to_string();
        let (data, receipt) = (data.as_bytes(), Some(Box::new(receipt)));
        let request = PublishRequest { token, topic: name, data, echo, receipt };
        let mut effects = Vec::new();
        self.brokers[shard].publish(request, &mut self.frames[shard], &mut effects);
        let accepted = effects.iter().any(|effect| {
            matches!(effect, Effect::Published { outcome: PublishOutcome::ACCEPTED, .. })
        });
        if accepted {
            self.orders[topic].push(id);
        }
        self.apply(shard, effects);
    }

    fn arrive(&mut self, from: usize, to: usize) {
        if !self.brokers[to].has_room() {
            return;
        }
        let Some(message) = self.links[from][to].pop_front() else { return };
        let published = match &message {
            ShardMessage::Publish { topic, publisher, .. } => {
                let receipt = publisher.receipt.as_ref().unwrap();
                let id = receipt.request_id.as_ref().unwrap().parse::<usize>().unwrap();
                Some((TOPICS.iter().position(|name| *name == &**topic).unwrap(), id))
            }
            _ => None,
        };
        let mut effects = Vec::new();
        self.brokers[to].receive(message, &mut self.frames[to], &mut effects);
        if let Some((topic, id)) = published {
            let accepted = effects.iter().any(|effect| {
                let Effect::Send { message, .. } = effect else { return false };
                let ShardMessage::Published { outcome, .. } = message else { return false };
                *outcome == PublishOutcome::ACCEPTED
            });
            if accepted {
                self.orders[topic].push(id);
            }
        }
        self.apply(to, effects);
    }

    fn advance(&mut self, shard: usize, visits: usize) {
        let mut effects = Vec::new();
        let mut sink = Sink { delivered: Vec::new(), is_slow: &|_| false };
        self.brokers[shard].advance(visits, &mut self.frames[shard], &mut effects, &mut sink);
        for (slot, text) in sink.delivered {
            let data = text.split_once(r#""data":"#).and_then(|(_, data)| data.strip_suffix('}'));
            let id = data.and_then(|data| data.parse().ok()).expect("our id");
            let topic = self.orders.iter().position(|order| order.contains(&id));
            let topic = topic.expect("only accepted publications are delivered");
            let stream = self.current.get(&(shard, slot, topic));
            let stream = *stream.unwrap_or_else(|| panic!("{slot} of {shard} does not want {id}"));
            self.streams[stream].2.seen.push(id);
        }
        self.apply(shard, effects);
    }

    fn apply(&mut self, shard: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Log(message) => panic!("nothing is durable here: {message:?}"),
                Effect::Resumed { .. } | Effect::Session(_) => panic!("nobody has a session"),
                Effect::Send { to, message } => self.links[shard][to.index()].push_back(message),
                Effect::Subscribed { token, topic, .. } => {
                    assert_eq!(token, self.token(shard, token.slot), "confirmed to somebody else");
                    let topic = TOPICS.iter().position(|name| *name == &*topic).unwrap();
                    let due_from = self.publications.len();
                    let next = self.streams.len();
                    let stream = *self.current.entry((shard, token.slot, topic)).or_insert(next);
                    if stream == next {
                        let stream = Stream { topic, due_from, seen: Vec::new(), over: false };
                        self.streams.push((shard, token, stream));
                    }
                }
                Effect::Published { receipt, outcome, .. } => {
                    let id = receipt.unwrap().request_id.unwrap().parse::<usize>().unwrap();
                    assert_eq!(self.publications[id].outcome, None, "answered twice");
                    self.publications[id].outcome = Some(outcome);
                }
                Effect::Ready { .. }
                | Effect::Replay { .. }
                | Effect::Handed { .. }
                | Effect::Page { .. }
                | Effect::Unreadable { .. } => {
                    panic!("nothing has a history: {effect:?}")
                }
            }
        }
    }

    fn end(&mut self, shard: usize, slot: u32, topic: usize) {
        if let Some(stream) = self.current.remove(&(shard, slot, topic)) {
            self.streams[stream].2.over = true;
        }
    }

    /// Everything on its way arrives, every fan-out ends.
    fn settle(&mut self) {
        loop {
            let before: usize = self.links.iter().flatten().map(VecDeque::len).sum();
            for shard in 0..SHARDS {
                for from in 0..SHARDS {
                    self.arrive(from, shard);
                }
                self.advance(shard, usize::MAX);
            }
            let fanouts = self.brokers.iter().any(Broker::has_fanouts);
            if before == 0 && !fanouts && self.links.iter().flatten().all(VecDeque::is_empty) {
                return;
            }
        }
    }

    fn check(&self) {
        for (id, publication) in self.publications.iter().enumerate() {
            let times = self.orders.iter().flatten().filter(|other| **other == id).count();
            let accepted = publication.outcome == Some(PublishOutcome::ACCEPTED);
            assert_eq!(times, usize::from(accepted), "publication {id}: {publication:?}");
        }
        for (shard, token, stream) in &self.streams {
            let wants = |id: &usize| {
                let publication = &self.publications[*id];
                publication.echo || publication.token != (*shard, *token)
            };
            let wanted: Vec<_> = self.orders[stream.topic].iter().copied().filter(wants).collect();
            let due = wanted.iter().position(|id| *id >= stream.due_from);
            let begin =
                stream.seen.first().and_then(|first| wanted.iter().position(|id| id == first));
            let begin = begin.or(due).unwrap_or(wanted.len());
            assert!(stream.over || due.is_none_or(|due| begin <= due), "{stream:?} of {wanted:?}");
            let rest = &wanted[begin..];
            assert!(rest.starts_with(&stream.seen), "{stream:?} of {wanted:?}");
            assert!(stream.over || rest.len() == stream.seen.len(), "{stream:?} of {wanted:?}");
        }
    }

    /// Nothing is left when everybody has gone.
    fn leave_all(&mut self) {
        for shard in 0..SHARDS {
            for slot in 0..SLOTS {
                self.take(Step::Leave(shard, slot));
            }
        }
        self.settle();
        for (broker, frames) in self.brokers.iter().zip(&self.frames) {
            assert_eq!(broker.topics(), 0);
            assert_eq!(broker.backlog_bytes, 0);
            assert!(frames.is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn subscribers_see_one_order_without_gap_or_repeat(
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.settle();
        world.check();
        world.leave_all();
    }
}

#[test]
fn a_topic_table_has_its_bound() {
    let mut config = Config::default();
    config.limits.max_topics = 2;
    let mut broker = broker(0, 1, &config);
    let token = Token { slot: 0, generation: 1 };
    let mut effects = Vec::new();
    assert_eq!(broker.subscribe(subscribe(token, "a"), &mut effects), Ok(()));
    assert_eq!(broker.subscribe(subscribe(token, "b"), &mut effects), Ok(()));
    let full = Err(SubscribeError::TableFull { limit: 2 });
    assert_eq!(broker.subscribe(subscribe(token, "c"), &mut effects), full);
    assert!(broker.unsubscribe(token, "a", &mut effects));
    assert_eq!(broker.subscribe(subscribe(token, "c"), &mut effects), Ok(()));
}

#[test]
fn subscriptions_that_wait_for_their_home_count_once() {
    let mut config = Config::default();
    config.limits.max_subscriptions = 100;
    let mut broker = broker(0, 2, &config);
    let token = Token { slot: 0, generation: 1 };
    let mut effects = Vec::new();
    for number in 0..100 {
        let name = format!("t{number}");
        assert_eq!(broker.subscribe(subscribe(token, &name), &mut effects), Ok(()));
    }
    let full = Err(SubscribeError::TooMany { limit: 100 });
    assert_eq!(broker.subscribe(subscribe(token, "one more"), &mut effects), full);
}
