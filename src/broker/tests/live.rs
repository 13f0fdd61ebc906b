//! Topics without history: whoever is subscribed sees one order, from its confirmation on; and it becomes
//! known who that is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{Sink, body, broker, published, select, subscribe, tag};
use crate::broker::{Broker, Effect, PublishRequest, Select, SubscribeError, SubscribeRequest};
use crate::config::Config;
use crate::filter::{Attributes, Filter, Interner};
use crate::ids::{ConnectionId, Moment, ShardId, Token, UserName};
use crate::io::FramePool;
use crate::message::{PublishOutcome, ShardMessage};
use crate::proto::{PresenceQuery, PresentMember};

const SHARDS: usize = 3;
const SLOTS: u32 = 4;
const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
const SUBSCRIPTIONS_MAX: u32 = 3;
const BACKLOG_BYTES_MAX: usize = 500;

#[derive(Debug, Clone)]
enum Step {
    /// With `true` or `false` to those publications only whose tag is that.
    Subscribe(usize, u32, usize, Option<bool>),
    Unsubscribe(usize, u32, usize),
    Leave(usize, u32),
    /// With `true` or `false` for those only of whom `odd` is that.
    Publish(usize, u32, usize, bool, Option<bool>),
    /// The next message from one shard to another arrives, if the other has room.
    Arrive(usize, usize),
    Advance(usize, usize),
    /// A shard tells who is there, as far as it may.
    Tell(usize),
    /// Whether a shard thinks that another one has no room.
    Congest(usize, usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let (shard, slot, topic) = (0..SHARDS, 0..SLOTS, 0..TOPICS.len());
    prop_oneof![
        4 => (shard.clone(), slot.clone(), topic.clone(), any::<Option<bool>>())
            .prop_map(|(shard, slot, topic, tag)| Step::Subscribe(shard, slot, topic, tag)),
        2 => (shard.clone(), slot.clone(), topic.clone())
            .prop_map(|(shard, slot, topic)| Step::Unsubscribe(shard, slot, topic)),
        1 => (shard.clone(), slot.clone()).prop_map(|(shard, slot)| Step::Leave(shard, slot)),
        8 => (shard.clone(), slot, topic, any::<bool>(), any::<Option<bool>>())
            .prop_map(|(shard, slot, topic, echo, odd)| Step::Publish(shard, slot, topic, echo, odd)),
        12 => (shard.clone(), shard.clone()).prop_map(|(from, to)| Step::Arrive(from, to)),
        4 => (shard.clone(), 1..4usize).prop_map(|(shard, visits)| Step::Advance(shard, visits)),
        4 => shard.clone().prop_map(Step::Tell),
        1 => (shard.clone(), shard, any::<bool>())
            .prop_map(|(shard, other, full)| Step::Congest(shard, other, full)),
    ]
}

/// One confirmed subscription, until it ends or is confirmed with another filter.
#[derive(Debug)]
struct Stream {
    topic: usize,
    /// The tag of what it is for.
    tag: Option<bool>,
    /// Accepted publications of the topic whose publisher asked after the confirmation.
    due_from: usize,
    seen: Vec<usize>,
    over: bool,
}

#[derive(Debug)]
struct Publication {
    token: (usize, Token),
    echo: bool,
    odd: Option<bool>,
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
    /// The tag that each asked for last.
    selected: BTreeMap<(usize, u32, usize), Option<bool>>,
    streams: Vec<(usize, Token, Stream)>,
    publications: Vec<Publication>,
    /// By topic: what its home accepted, in order.
    orders: Vec<Vec<usize>>,
    /// By topic: who is there, to somebody who hears every notice.
    heard: Vec<Vec<PresentMember>>,
    now: Moment,
}

impl World {
    fn new() -> Self {
        let mut config = Config::default();
        config.limits.max_subscriptions = SUBSCRIPTIONS_MAX;
        config.limits.fanout_backlog = BACKLOG_BYTES_MAX;
        config.channels.join_leave = true;
        config.channels.join_leave_interval = Duration::ZERO;
        let broker = |shard| broker(shard, SHARDS, &config);
        Self {
            brokers: (0..SHARDS as u16).map(broker).collect(),
            frames: (0..SHARDS).map(|_| FramePool::default()).collect(),
            links: (0..SHARDS).map(|_| (0..SHARDS).map(|_| VecDeque::new()).collect()).collect(),
            congested: vec![vec![false; SHARDS]; SHARDS],
            generations: vec![vec![1; SLOTS as usize]; SHARDS],
            current: BTreeMap::new(),
            selected: BTreeMap::new(),
            streams: Vec::new(),
            publications: Vec::new(),
            orders: vec![Vec::new(); TOPICS.len()],
            heard: vec![Vec::new(); TOPICS.len()],
            now: Moment(0),
        }
    }

    fn token(&self, shard: usize, slot: u32) -> Token {
        Token { slot, generation: self.generations[shard][slot as usize] }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Subscribe(shard, slot, topic, tag) => self.subscribe(shard, slot, topic, tag),
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
            Step::Publish(shard, slot, topic, echo, odd) => {
                self.publish(shard, slot, topic, (echo, odd));
            }
            Step::Arrive(from, to) => self.arrive(from, to),
            Step::Advance(shard, visits) => self.advance(shard, visits),
            Step::Tell(shard) => self.tell(shard),
            Step::Congest(shard, other, full) => {
                self.congested[shard][other] = full;
                let full = self.congested[shard].iter().enumerate().filter(|(_, full)| **full);
                self.brokers[shard].note_congestion(full.map(|(other, _)| ShardId(other as u16)));
            }
        }
    }

    fn subscribe(&mut self, shard: usize, slot: u32, topic: usize, tag: Option<bool>) {
        let mut effects = Vec::new();
        let token = self.token(shard, slot);
        if let Some(odd) = odd(token)
            && self.brokers[shard].attributes(slot).is_empty()
        {
            let user = UserName::parse(&format!("{shard}.{slot}")).unwrap();
            let attributes = format!("odd={odd},slot={slot}");
            let attributes = Attributes::parse(&attributes, &mut Interner::default()).unwrap();
            let user = (&user, &Arc::new(attributes));
            self.brokers[shard].join(token, user, &mut effects).unwrap();
        }
        let held = (0..TOPICS.len())
            .filter(|topic| self.current.contains_key(&(shard, slot, *topic)))
            .count();
        let known = self.current.contains_key(&(shard, slot, topic));
        let request = SubscribeRequest { select: select(tag), ..subscribe(token, TOPICS[topic]) };
        match self.brokers[shard].subscribe(request, &mut effects) {
            Ok(()) => {
                assert!(known || held < SUBSCRIPTIONS_MAX as usize);
                self.selected.insert((shard, slot, topic), tag);
            }
            Err(SubscribeError::TooMany { limit }) => assert_eq!(limit, SUBSCRIPTIONS_MAX),
            Err(SubscribeError::Congested) => assert!(self.congested[shard].contains(&true)),
            Err(SubscribeError::TableFull { .. }) => panic!("the table is not full"),
        }
        self.apply(shard, effects);
    }

    fn publish(
        &mut self,
        shard: usize,
        slot: u32,
        topic: usize,
        (echo, odd): (bool, Option<bool>),
    ) {
        let id = self.publications.len();
        let token = self.token(shard, slot);
        self.publications.push(Publication { token: (shard, token), echo, odd, outcome: None });
        // The receipt carries the id back.
        let receipt = crate::message::Receipt {
            request_id: Some(id.to_string().into()),
            message_id: None,
            channel: None,
            family: crate::proto::Family::Action,
            filter: odd.map(|odd| Arc::new(Filter::parse(&format!("odd == {odd}")).unwrap())),
        };
        let name = TOPICS[topic];
        let data = body(id);
        let (body, receipt) = (published(id, &data), Some(Box::new(receipt)));
        let request = PublishRequest { token, topic: name, body, echo, receipt };
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
            let stream = &mut self.streams[stream].2;
            assert!(stream.tag.is_none() || stream.tag == tag(id), "{id} is not for {stream:?}");
            stream.seen.push(id);
        }
        self.apply(shard, effects);
    }

    fn tell(&mut self, shard: usize) {
        let mut effects = Vec::new();
        for (topic, tokens) in self.brokers[shard].take_changed() {
            let named = tokens.into_iter().map(|token| {
                let is_there = self.token(shard, token.slot) == token;
                (token, is_there.then(|| connection_id(shard, token)))
            });
            let named: Vec<_> = named.collect();
            self.brokers[shard].tell_home(topic, named.into_iter(), &mut effects);
        }
        self.brokers[shard].tell_subscribers(&mut effects);
        self.apply(shard, effects);
    }

    /// Who is there, as the home knows it and as a listener has heard it.
    fn check_presence(&mut self) {
        for (topic, name) in TOPICS.iter().enumerate() {
            let present = self.current.keys().filter(|(_, _, of)| *of == topic);
            let mut present: Vec<_> = present
                .map(|(shard, slot, _)| connection_id(*shard, self.token(*shard, *slot)))
                .collect();
            let home = self.brokers[0].topics.home(self.brokers[0].topics.hash(name));
            let query = PresenceQuery { after: 0, limit: 100 };
            let known = self.brokers[home.index()].presence_of(name, query);
            assert_eq!((known.next, known.count.clients), (None, known.members.len()));
            // Who goes as the last one goes unheard.
            assert!(known.members.is_empty() || known.members == self.heard[topic]);
            let mut known: Vec<_> = known.members.iter().map(|it| it.connection_id).collect();
            let order = |id: &ConnectionId| (id.shard, id.slot, id.secret);
            known.sort_by_key(order);
            present.sort_by_key(order);
            assert_eq!(known, present, "in {name}");
        }
    }

    fn apply(&mut self, shard: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Resumed { .. } | Effect::Session(_) => panic!("nobody has a session"),
                Effect::Send { to, message } => self.links[shard][to.index()].push_back(message),
                Effect::Subscribed { token, topic, .. } => {
                    assert_eq!(token, self.token(shard, token.slot), "confirmed to somebody else");
                    let topic = TOPICS.iter().position(|name| *name == &*topic).unwrap();
                    let due_from = self.publications.len();
                    let next = self.streams.len();
                    let key = (shard, token.slot, topic);
                    let tag = self.selected.get(&key).copied().flatten();
                    if let Some(stream) = self.current.get(&key)
                        && self.streams[*stream].2.tag != tag
                    {
                        // From here on it is as another one.
                        self.streams[*stream].2.over = true;
                        self.current.remove(&key);
                    }
                    let stream = *self.current.entry(key).or_insert(next);
                    if stream == next {
                        let (seen, over) = (Vec::new(), false);
                        let stream = Stream { topic, tag, due_from, seen, over };
                        self.streams.push((shard, token, stream));
                    }
                }
                Effect::News { topic, interested, notice } => {
                    assert!(!interested.contains(&ShardId(shard as u16)));
                    let topic = TOPICS.iter().position(|name| *name == &*topic).unwrap();
                    let heard = &mut self.heard[topic];
                    if notice.count.clients == notice.joined.len() {
                        // Nobody else is there, so nobody has heard of those before.
                        heard.clear();
                    } else {
                        for left in &notice.left {
                            let place = heard.iter().position(|member| member == left);
                            heard.remove(place.expect("who leaves was there"));
                        }
                    }
                    heard.extend(notice.joined);
                    assert!(notice.more || notice.count.clients == heard.len());
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
                | Effect::Presence { .. }
                | Effect::Notice { .. }
                | Effect::Room { .. }
                | Effect::Removed { .. }
                | Effect::Unreadable { .. } => {
                    panic!("nobody asked for that: {effect:?}")
                }
            }
        }
    }

    fn end(&mut self, shard: usize, slot: u32, topic: usize) {
        self.selected.remove(&(shard, slot, topic));
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
                // No congestion lasts.
                self.now = self.now.after(Duration::from_secs(1));
                self.brokers[shard].begin_turn(self.now);
                self.brokers[shard].note_congestion(std::iter::empty());
                self.tell(shard);
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
                (stream.tag.is_none() || stream.tag == tag(*id))
                    && (publication.echo || publication.token != (*shard, *token))
                    && (publication.odd.is_none() || publication.odd == odd(*token))
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
        self.check_presence();
        for (broker, frames) in self.brokers.iter().zip(&self.frames) {
            assert_eq!(broker.topics(), 0);
            assert_eq!(broker.backlog_bytes, 0);
            assert!(frames.is_empty());
        }
    }
}

/// What is known of whoever has this token, if it is anybody.
fn odd(token: Token) -> Option<bool> {
    (!token.generation.is_multiple_of(3)).then_some(token.generation % 2 == 1)
}

fn connection_id(shard: usize, token: Token) -> ConnectionId {
    let secret = u128::from(token.generation);
    ConnectionId { shard: ShardId(shard as u16), slot: token.slot, secret }
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
        world.check_presence();
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

#[test]
fn a_crowd_is_told_less_often() {
    for (count, expected) in [(20, 10), (5001, 1000)] {
        let mut config = Config::default();
        config.channels.join_leave = true;
        config.channels.join_leave_interval = Duration::from_millis(10);
        let mut broker = broker(0, 1, &config);
        let mut effects = Vec::new();
        let mut tell = |broker: &mut Broker, now: Moment| {
            broker.begin_turn(now);
            for (topic, tokens) in broker.take_changed() {
                let named = tokens.into_iter().map(|token| (token, Some(connection_id(0, token))));
                broker.tell_home(topic, named, &mut effects);
            }
            let due = broker.next_notice();
            broker.tell_subscribers(&mut effects);
            due
        };
        let now = Moment(100);
        for slot in 0..count {
            let token = Token { slot, generation: 1 };
            broker.subscribe(subscribe(token, "a"), &mut Vec::new()).unwrap();
        }
        assert_eq!(tell(&mut broker, now), Some(now), "nobody was told anything before");
        broker.leave(Token { slot: 0, generation: 1 }, &mut Vec::new());
        assert_eq!(tell(&mut broker, now), Some(now.after(Duration::from_millis(expected))));
    }
}

#[test]
fn filters_of_subscriptions_count_for_the_budget_of_visits() {
    const SUBSCRIBERS: usize = 200;
    const PUBLICATIONS: usize = 64;
    // Takes everything, and compares with as much as a filter may.
    let numbers: Vec<_> = (0..128).map(|number| number.to_string()).collect();
    let text = format!("a not in [{}]", numbers.join(","));
    let filter = Arc::new(Filter::parse(&text).unwrap());
    for (select, visits) in [(Select::All, 1..65), (Select::Matching(filter), 1..4)] {
        let (mut broker, mut frames) = (broker(0, 1, &Config::default()), FramePool::default());
        for slot in 0..SUBSCRIBERS as u32 {
            let token = Token { slot, generation: 1 };
            let request = SubscribeRequest { select: select.clone(), ..subscribe(token, "a") };
            broker.subscribe(request, &mut Vec::new()).unwrap();
        }
        for number in 0..PUBLICATIONS {
            let (token, data, receipt) = (Token { slot: 0, generation: 1 }, body(number), None);
            let body = published(number, &data);
            let request = PublishRequest { token, topic: "a", body, echo: true, receipt };
            broker.publish(request, &mut frames, &mut Vec::new());
        }
        let mut sink = Sink { delivered: Vec::new(), is_slow: &|_| false };
        let mut deliveries = Vec::new();
        while broker.has_fanouts() {
            deliveries.push(broker.advance(64, &mut frames, &mut Vec::new(), &mut sink));
        }
        assert_eq!(sink.delivered.len(), SUBSCRIBERS * PUBLICATIONS);
        let most = deliveries.into_iter().max().unwrap_or_default();
        assert!(visits.contains(&(most / PUBLICATIONS)), "{most} at a time");
    }
}
