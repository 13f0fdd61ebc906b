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

mod effect;
mod fanout;
mod members;
mod subscribers;
#[cfg(test)]
mod tests;
mod topics;

pub use effect::{Effect, PublishRequest, SubscribeError};

use std::collections::VecDeque;

use bytes::Bytes;
use foldhash::quality::SeedableRandomState;

use crate::config::{ChannelOptions, Config, Namespace};
use crate::ids::{ShardId, Token, TopicName};
use crate::io::{FRAME_OVERHEAD_BYTES, FrameClass, FrameId, FramePool};
use crate::message::{Ask, PublishOutcome, Publisher, ShardMessage};
use fanout::{Budget, Fanout};
use members::Members;
use subscribers::Inserted;
use topics::{Interest, TopicKey, Topics, Waiting};

/// Visits that one topic gets before the next one has its turn.
const ROUND_VISITS: usize = 64;

/// Bounds of one broker.
#[derive(Debug, Clone, Copy)]
pub struct BrokerLimits {
    pub subscriptions_per_connection_max: u32,
    pub topics_max: usize,
    /// Bytes of publications that wait for their fan-out.
    pub backlog_bytes_max: usize,
}

/// One shard's part of the topic table.
pub struct Broker {
    shard: ShardId,
    limits: BrokerLimits,
    options: ChannelOptions,
    namespaces: Vec<Namespace>,
    topics: Topics,
    members: Members,
    /// Topics with a fan-out under way, in the order of their turns.
    round: VecDeque<TopicKey>,
    /// Idle fan-outs for the next topic that needs one. At most [`SPARE_FANOUTS_MAX`].
    #[allow(clippy::vec_box, reason = "they go to topics and come back as boxes")]
    spare: Vec<Box<Fanout>>,
    /// Bytes of publications in all fan-outs.
    backlog_bytes: usize,
    /// Shards that cannot take more publications from here at the moment.
    congested: Vec<ShardId>,
    /// Other shards' messages wait for room here: they come before what local clients publish.
    giving_way: bool,
    last_ask: u64,
}

const SPARE_FANOUTS_MAX: usize = 64;

impl Broker {
    /// `hasher` is the same in all `shards`: it decides where a topic is at home.
    pub fn new(shard: ShardId, shards: u16, hasher: SeedableRandomState, config: &Config) -> Self {
        Self {
            shard,
            limits: BrokerLimits {
                subscriptions_per_connection_max: config.limits.max_subscriptions,
                topics_max: config.limits.max_topics,
                backlog_bytes_max: config.limits.fanout_backlog,
            },
            options: config.channels.clone(),
            namespaces: config.namespaces.clone(),
            topics: Topics::new(shards, hasher),
            members: Members::default(),
            round: VecDeque::new(),
            spare: Vec::new(),
            backlog_bytes: 0,
            congested: Vec::new(),
            giving_way: false,
            last_ask: 0,
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
        self.backlog_bytes < self.limits.backlog_bytes_max
    }

    /// The shards that can take no more publications from this one at the moment.
    pub fn note_congestion(&mut self, congested: impl Iterator<Item = ShardId>) {
        self.congested.clear();
        self.congested.extend(congested);
    }

    /// Whether room that becomes free is for the messages of other shards first. Otherwise local
    /// publishers, who are heard earlier in a turn, could keep them out for ever.
    pub fn give_way(&mut self, giving_way: bool) {
        self.giving_way = giving_way;
    }

    /// Subscribes a connection; [`Effect::Subscribed`] follows, now or when the home has answered.
    /// Subscribing again is confirmed again. `name` has passed the rules for names.
    pub fn subscribe(
        &mut self,
        token: Token,
        name: &str,
        request_id: Option<Box<str>>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), SubscribeError> {
        let hash = self.topics.hash(name);
        let found = self.topics.find(hash, name);
        if let Some(key) = found
            && self.topics.topic(key).subscribers.contains(token.slot)
        {
            let topic = self.topics.topic(key).name.clone();
            effects.push(Effect::Subscribed { token, topic, request_id });
            return Ok(());
        }
        let limit = self.limits.subscriptions_per_connection_max;
        if self.members.subscriptions(token) >= limit as usize {
            return Err(SubscribeError::TooMany { limit });
        }
        if found.is_none() && self.congested.contains(&self.topics.home(hash)) {
            return Err(SubscribeError::Congested);
        }
        let key = match found {
            Some(key) => key,
            None if self.topics.len() >= self.limits.topics_max => {
                return Err(SubscribeError::TableFull { limit: self.limits.topics_max });
            }
            None => {
                let name = TopicName::new(name);
                let policy = self.options(&name).slow_consumer;
                self.topics.insert(hash, name, policy)
            }
        };
        let topic = self.topics.topic(key);
        if topic.home == self.shard || topic.interest == Interest::Held {
            self.members.insert(token, key);
            self.admit(key, token);
            let topic = self.topics.topic(key).name.clone();
            effects.push(Effect::Subscribed { token, topic, request_id });
        } else {
            self.ask_home(key, token, request_id, effects);
        }
        Ok(())
    }

    /// Ends a subscription, or the wait for it. `false`: there is none.
    pub fn unsubscribe(&mut self, token: Token, name: &str, effects: &mut Vec<Effect>) -> bool {
        let Some(key) = self.topics.find(self.topics.hash(name), name) else { return false };
        let topic = self.topics.topic_mut(key);
        let mut found = topic.subscribers.remove(token.slot);
        // Somebody who waited is answered first, in the order of the requests.
        for waiting in topic.waiting.extract_if(.., |waiting| waiting.token == token) {
            found = true;
            self.members.answered(token);
            let (topic, request_id) = (topic.name.clone(), waiting.request_id);
            effects.push(Effect::Subscribed { token, topic, request_id });
        }
        self.members.remove(token, key);
        self.lose_interest(key, effects);
        found
    }

    /// The connection is gone.
    pub fn leave(&mut self, token: Token, effects: &mut Vec<Effect>) {
        for key in self.members.leave(token) {
            let topic = self.topics.topic_mut(key);
            topic.subscribers.remove(token.slot);
            topic.waiting.retain(|waiting| waiting.token != token);
            self.lose_interest(key, effects);
        }
    }

    /// Every connection has left: what was kept by slot goes.
    pub fn forget_members(&mut self) {
        self.members = Members::default();
    }

    /// A client of this shard publishes. `frame` is called only if somebody may receive it.
    pub fn publish(
        &mut self,
        request: PublishRequest<'_>,
        frame: impl FnOnce() -> Bytes,
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
    ) {
        let PublishRequest { token, topic: name, echo, receipt } = request;
        let hash = self.topics.hash(name);
        let found = self.topics.find(hash, name);
        let home = self.topics.home(hash);
        let publisher = Publisher { shard: self.shard, token, echo, receipt };
        if home == self.shard {
            let outcome = match found {
                Some(_) if self.giving_way => PublishOutcome::BacklogFull,
                Some(key) => self.order(key, &publisher, frame, frames, effects),
                None => PublishOutcome::Accepted,
            };
            if publisher.receipt.is_some() || outcome != PublishOutcome::Accepted {
                let topic = self.name(found, name);
                let receipt = publisher.receipt;
                effects.push(Effect::Published { token, topic, receipt, outcome });
            }
            return;
        }
        let topic = self.name(found, name);
        if self.congested.contains(&home) {
            let (receipt, outcome) = (publisher.receipt, PublishOutcome::BacklogFull);
            effects.push(Effect::Published { token, topic, receipt, outcome });
        } else {
            let message = ShardMessage::Publish { topic, frame: frame(), publisher };
            effects.push(Effect::Send { to: home, message });
        }
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
            ShardMessage::Interested { topic, ask } => self.interested(&topic, ask, effects),
            ShardMessage::Disinterest { topic, from } => self.disinterest(&topic, from, effects),
            ShardMessage::Publish { topic, frame, publisher } => {
                let outcome = match self.find(&topic) {
                    Some(key) => self.order(key, &publisher, || frame, frames, effects),
                    None => PublishOutcome::Accepted,
                };
                if publisher.receipt.is_some() || outcome != PublishOutcome::Accepted {
                    let to = publisher.shard;
                    let message = ShardMessage::Published { topic, publisher, outcome };
                    effects.push(Effect::Send { to, message });
                }
            }
            ShardMessage::Deliver { topic, frame, except } => {
                if let Some(key) = self.find(&topic) {
                    self.enqueue(key, frame, except, frames);
                }
            }
            // No topic asks the log yet, so it has nothing to answer.
            ShardMessage::Log(_) => {}
            ShardMessage::Published { topic, publisher, outcome } => {
                let Publisher { token, receipt, .. } = publisher;
                effects.push(Effect::Published { token, topic, receipt, outcome });
            }
        }
    }

    /// Goes on with the fan-outs, a bounded slice. `deliver` gets a slot and the frames for it.
    /// Returns the deliveries.
    pub fn advance(
        &mut self,
        mut visits: usize,
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
        mut deliver: impl FnMut(&mut FramePool, u32, &[FrameId]),
    ) -> usize {
        let mut deliveries = 0;
        while visits > 0
            && let Some(key) = self.round.pop_front()
        {
            let topic = self.topics.topic_mut(key);
            // A topic in the round has a fan-out; see `enqueue`.
            let Some(fanout) = &mut topic.fanout else { continue };
            let share = visits.min(ROUND_VISITS);
            let mut budget = Budget { visits: share };
            if topic.subscribers.is_empty() {
                self.backlog_bytes -= fanout.abandon(frames);
            } else {
                let advanced =
                    fanout.advance(&mut topic.subscribers, frames, &mut budget, &mut deliver);
                deliveries += advanced.deliveries;
                self.backlog_bytes -= advanced.finished_bytes;
            }
            visits -= (share - budget.visits).max(1);
            if fanout.is_idle() {
                if let Some(fanout) = topic.fanout.take()
                    && self.spare.len() < SPARE_FANOUTS_MAX
                    && fanout.is_small()
                {
                    self.spare.push(fanout);
                }
                self.lose_interest(key, effects);
            } else {
                self.round.push_back(key);
            }
        }
        deliveries
    }

    fn find(&self, name: &str) -> Option<TopicKey> {
        self.topics.find(self.topics.hash(name), name)
    }

    fn name(&self, found: Option<TopicKey>, name: &str) -> TopicName {
        found.map_or_else(|| TopicName::new(name), |key| self.topics.topic(key).name.clone())
    }

    fn options(&self, name: &TopicName) -> &ChannelOptions {
        name.namespace()
            .and_then(|wanted| self.namespaces.iter().find(|namespace| namespace.name == wanted))
            .map_or(&self.options, |namespace| &namespace.options)
    }

    /// Makes a connection a subscriber, from the next publication on.
    fn admit(&mut self, key: TopicKey, token: Token) -> Inserted {
        let topic = self.topics.topic_mut(key);
        let inserted = topic.subscribers.insert(token.slot);
        if let Some(fanout) = &mut topic.fanout {
            fanout.subscribed(token.slot, inserted);
        }
        inserted
    }

    fn ask_home(
        &mut self,
        key: TopicKey,
        token: Token,
        request_id: Option<Box<str>>,
        effects: &mut Vec<Effect>,
    ) {
        let topic = self.topics.topic_mut(key);
        if !topic.waiting.iter().any(|waiting| waiting.token == token) {
            self.members.insert(token, key);
        }
        self.members.waiting(token);
        topic.waiting.push(Waiting { token, request_id });
        if topic.interest == Interest::None {
            self.last_ask += 1;
            let ask = Ask(self.last_ask);
            topic.interest = Interest::Asked(ask);
            let (to, topic, from) = (topic.home, topic.name.clone(), self.shard);
            let message = ShardMessage::Interest { topic, from, ask };
            effects.push(Effect::Send { to, message });
        }
    }

    /// At home: another shard has subscribers.
    fn interest(&mut self, topic: TopicName, from: ShardId, ask: Ask, effects: &mut Vec<Effect>) {
        let hash = self.topics.hash(&topic);
        let key = self.topics.find(hash, &topic).unwrap_or_else(|| {
            // The asking shard has counted it against its own table already.
            let policy = self.options(&topic).slow_consumer;
            self.topics.insert(hash, topic.clone(), policy)
        });
        let interested = &mut self.topics.topic_mut(key).interested;
        if !interested.contains(&from) {
            interested.push(from);
        }
        let message = ShardMessage::Interested { topic, ask };
        effects.push(Effect::Send { to: from, message });
    }

    /// The home has answered: whoever waited is subscribed.
    fn interested(&mut self, name: &TopicName, ask: Ask, effects: &mut Vec<Effect>) {
        let Some(key) = self.find(name) else { return };
        let topic = self.topics.topic_mut(key);
        if topic.interest != Interest::Asked(ask) {
            // The question was withdrawn, and asked again perhaps; that answer is on its way.
            return;
        }
        topic.interest = Interest::Held;
        for Waiting { token, request_id } in std::mem::take(&mut topic.waiting) {
            self.members.answered(token);
            self.admit(key, token);
            effects.push(Effect::Subscribed { token, topic: name.clone(), request_id });
        }
    }

    fn disinterest(&mut self, name: &TopicName, from: ShardId, effects: &mut Vec<Effect>) {
        if let Some(key) = self.find(name) {
            self.topics.topic_mut(key).interested.retain(|shard| *shard != from);
            self.lose_interest(key, effects);
        }
    }

    /// Tells the home when the last subscriber has left, and forgets topics that nobody wants.
    fn lose_interest(&mut self, key: TopicKey, effects: &mut Vec<Effect>) {
        let topic = self.topics.topic_mut(key);
        if topic.subscribers.is_empty()
            && topic.waiting.is_empty()
            && topic.interest != Interest::None
        {
            topic.interest = Interest::None;
            let (to, topic, from) = (topic.home, topic.name.clone(), self.shard);
            let message = ShardMessage::Disinterest { topic, from };
            effects.push(Effect::Send { to, message });
        }
        self.topics.remove_unused(key);
    }

    /// At home: gives a publication its place in the topic's order, or refuses it as a whole.
    fn order(
        &mut self,
        key: TopicKey,
        publisher: &Publisher,
        frame: impl FnOnce() -> Bytes,
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
    ) -> PublishOutcome {
        let topic = self.topics.topic(key);
        let local = !topic.subscribers.is_empty();
        let blocked = topic.interested.iter().any(|shard| self.congested.contains(shard));
        if blocked || (local && !self.has_room()) {
            return PublishOutcome::BacklogFull;
        }
        if !local && topic.interested.is_empty() {
            return PublishOutcome::Accepted;
        }
        let frame = frame();
        let except_at =
            |shard| (!publisher.echo && publisher.shard == shard).then_some(publisher.token);
        for &to in &topic.interested {
            let (topic, frame) = (topic.name.clone(), frame.clone());
            let message = ShardMessage::Deliver { topic, frame, except: except_at(to) };
            effects.push(Effect::Send { to, message });
        }
        if local {
            self.enqueue(key, frame, except_at(self.shard), frames);
        }
        PublishOutcome::Accepted
    }

    /// Puts a publication before the local subscribers.
    fn enqueue(
        &mut self,
        key: TopicKey,
        frame: Bytes,
        except: Option<Token>,
        frames: &mut FramePool,
    ) {
        let topic = self.topics.topic_mut(key);
        if topic.subscribers.is_empty() {
            return;
        }
        // A publisher that has gone since may have left its slot to somebody who wants this.
        let except = except.filter(|token| self.members.is_current(*token)).map(|token| token.slot);
        let bytes = frame.len() + FRAME_OVERHEAD_BYTES;
        let class = FrameClass::Publication { topic: key.0, policy: topic.policy };
        let frame = frames.insert(frame, class);
        let fanout = topic.fanout.get_or_insert_with(|| self.spare.pop().unwrap_or_default());
        let was_idle = fanout.is_idle();
        fanout.push(frame, bytes, except);
        self.backlog_bytes += bytes;
        if was_idle {
            self.round.push_back(key);
        }
    }
}
