//! Publications: their place in the topic's order, and their way to the subscribers.

use std::sync::Arc;

use bytes::Bytes;

use super::effect::{Body, Deliver, Effect, PublishRequest};
use super::fanout::Budget;
use super::idempotency::Fingerprint;
use super::topics::{Record, TopicKey};
use super::{Broker, SPARE_FANOUTS_MAX};
use crate::filter::Filter;
use crate::ids::{Position, Token, TopicName};
use crate::io::{FRAME_OVERHEAD_BYTES, FrameClass, FramePool};
use crate::message::{PublishOutcome, Publisher, ShardMessage};
use crate::proto::{Encoding, encoder};

/// Visits that one topic gets before the next one has its turn.
const ROUND_VISITS: usize = 64;

impl Broker {
    /// A client of this shard publishes.
    pub fn publish(
        &mut self,
        request: PublishRequest<'_>,
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
    ) {
        let hash = self.topics.hash(request.topic);
        let found = self.topics.find(hash, request.topic);
        let home = self.topics.home(hash);
        if home == self.shard && self.is_durable(found, request.topic) {
            self.publish_durable(request, (hash, found), effects);
            return;
        }
        let PublishRequest { token, topic: name, body, echo, receipt } = request;
        let publisher = Publisher { shard: self.shard, token, echo, receipt };
        if home == self.shard {
            let outcome = match found {
                Some(_) if self.is_barred(found, &publisher) => PublishOutcome::Barred,
                Some(_) if self.giving_way => PublishOutcome::BacklogFull,
                Some(key) if self.topics.topic(key).past.is_some() => {
                    self.keep(key, name, &publisher, &body.kept(), frames, effects)
                }
                Some(key) => {
                    let frame = || body.live_frame(name);
                    self.order(key, &publisher, frame, frames, effects)
                }
                None => self.order_first(hash, name, &publisher, body, frames, effects),
            };
            if publisher.receipt.is_some() || !outcome.is_accepted() {
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
            return;
        }
        let has_history = match found {
            Some(key) => self.topics.topic(key).past.is_some(),
            None => self.has_history(name),
        };
        let body =
            if has_history { Bytes::copy_from_slice(&body.kept()) } else { body.live_frame(name) };
        let message = ShardMessage::Publish { topic, body, publisher };
        effects.push(Effect::Send { to: home, message });
    }

    /// At home: a client publishes, of another shard, or of this one to a user; or the server API.
    pub(super) fn receive_publication(
        &mut self,
        topic: TopicName,
        body: Bytes,
        publisher: Publisher,
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
    ) {
        let hash = self.topics.hash(&topic);
        let found = self.topics.find(hash, &topic);
        if self.is_durable(found, &topic) {
            self.append(topic, (hash, found), &body, publisher, effects);
            return;
        }
        let outcome = match found {
            Some(_) if self.is_barred(found, &publisher) => PublishOutcome::Barred,
            Some(key) if self.topics.topic(key).past.is_some() => {
                self.keep(key, &topic, &publisher, &body, frames, effects)
            }
            Some(key) => self.order(key, &publisher, || body, frames, effects),
            None => {
                let body = Body::Kept(&body);
                self.order_first(hash, &topic, &publisher, body, frames, effects)
            }
        };
        self.respond(topic, publisher, outcome, effects);
    }

    /// Goes on with the fan-outs, a bounded slice. Returns the deliveries.
    pub fn advance(
        &mut self,
        mut visits: usize,
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
        sink: &mut impl Deliver,
    ) -> usize {
        let mut deliveries = 0;
        while visits > 0
            && let Some(key) = self.round.pop_front()
        {
            let topic = self.topics.topic_mut(key);
            let epoch = topic.terms().and_then(|_| topic.position()).map(|position| position.epoch);
            // A topic in the round has a fan-out; see `enqueue`.
            let Some(fanout) = &mut topic.fanout else { continue };
            let share = visits.min(ROUND_VISITS);
            let mut budget = Budget { visits: share };
            let mut full = 0;
            let are_json = !fanout.has_binary();
            if topic.subscribers.is_empty() {
                self.backlog_bytes -= fanout.abandon(frames);
            } else {
                let selections = topic.selections.as_deref();
                let subscribers = (&mut topic.subscribers, self.users.receivers(), selections);
                let told = (&mut self.behind, &mut self.finished);
                let advanced = if topic.past.as_ref().is_some_and(|past| past.is_inbox) {
                    let handed = &mut self.handed;
                    fanout.advance(subscribers, frames, &mut budget, told, |frames, slot, ids| {
                        let taken = sink.retained(frames, slot, ids);
                        handed.extend(taken.then_some(slot));
                        taken
                    })
                } else if let (Some(epoch), Some(past)) = (epoch, &topic.past)
                    && let Some(terms) = past.terms
                {
                    let (acks, members, now) = (&mut self.acks, &self.members, self.now);
                    let name = &topic.name;
                    fanout.advance(subscribers, frames, &mut budget, told, |frames, slot, ids| {
                        let Some(token) = members.tenant_of(slot) else { return true };
                        let is_full = acks.room(slot) < ids.len();
                        full += u64::from(is_full);
                        if is_full || !sink.retained(frames, slot, ids) {
                            return false;
                        }
                        for id in ids {
                            let offset = encoder::retained_offset(name, frames.bytes(*id));
                            acks.note_sent(token, (key, epoch), offset, now, terms);
                        }
                        true
                    })
                } else if topic.past.is_some() {
                    fanout.advance(subscribers, frames, &mut budget, told, |frames, slot, ids| {
                        sink.retained(frames, slot, ids)
                    })
                } else {
                    fanout.advance(subscribers, frames, &mut budget, told, |frames, slot, ids| {
                        sink.live(frames, slot, ids, are_json);
                        true
                    })
                };
                deliveries += advanced.deliveries;
                self.namespaces.note_deliveries(topic.space, advanced.deliveries);
                self.backlog_bytes -= advanced.finished_bytes;
                for slot in self.handed.drain(..) {
                    let Some(token) = self.members.tenant_of(slot) else { continue };
                    let (topic, upto) = (topic.name.clone(), advanced.last);
                    effects.push(Effect::Handed { token, topic, upto });
                }
            }
            let is_idle = fanout.is_idle();
            visits -= (share - budget.visits).max(1);
            if !self.behind.is_empty() {
                self.fall_behind(key, full, effects);
            }
            if is_idle {
                if let Some(fanout) = self.topics.topic_mut(key).fanout.take()
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
        self.twin_bytes = frames.twin_bytes();
        deliveries
    }

    /// The home has sent what has this offset.
    pub(super) fn note_offset(&mut self, key: TopicKey, offset: u64) {
        if let Some(past) = &mut self.topics.topic_mut(key).past
            && let Record::Away(Some(Position { offset: known, .. })) = &mut past.record
        {
            *known = offset;
        }
    }

    /// At home: a publication of a topic that is not in the table. Without history nobody wants it.
    fn order_first(
        &mut self,
        hash: u64,
        name: &str,
        publisher: &Publisher,
        body: Body<'_>,
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
    ) -> PublishOutcome {
        if !self.has_history(name) {
            let (_, space) = self.namespaces.of(name);
            self.namespaces.note_publication(space);
            return PublishOutcome::ACCEPTED;
        }
        match self.insert_topic(hash, name) {
            Some(key) => self.keep(key, name, publisher, &body.kept(), frames, effects),
            None => PublishOutcome::TableFull { limit: self.limits.topics_max },
        }
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
        if !self.may_take(key) {
            return PublishOutcome::BacklogFull;
        }
        let topic = self.topics.topic(key);
        self.namespaces.note_publication(topic.space);
        if topic.is_heard() {
            self.distribute(key, publisher, frame(), 0, frames, effects);
        }
        PublishOutcome::ACCEPTED
    }

    /// As [`Broker::order`], with an offset, and kept for those who come later.
    fn keep(
        &mut self,
        key: TopicKey,
        name: &str,
        publisher: &Publisher,
        data: &[u8],
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
    ) -> PublishOutcome {
        let may_take = self.may_take(key);
        let id = self.fingerprint(publisher);
        let now = self.now;
        let topic = self.topics.topic_mut(key);
        let is_heard = topic.is_heard();
        let Some(history) = topic.history_mut() else {
            return PublishOutcome::BacklogFull;
        };
        let before = history.cost();
        let id = id.filter(|_| history.options.idempotency_size > 0);
        if let Some(offset) = id.and_then(|id| history.find_id(id, now)) {
            self.retention.account(before, history.cost());
            self.tally.duplicates += 1;
            return PublishOutcome::Accepted { offset: Some(offset) };
        }
        if !may_take {
            self.retention.account(before, history.cost());
            return PublishOutcome::BacklogFull;
        }
        let offset = history.position().offset + 1;
        let frame = history.frame(name, offset, data, &mut self.frame_memory);
        let except = (!publisher.echo).then_some((publisher.shard, publisher.token));
        let heard = is_heard.then(|| frame.clone());
        self.tally.trimmed += history.push(frame, except, now, &mut self.frame_memory) as u64;
        if let Some(id) = id {
            self.tally.ids_dropped += history.insert_id(id, offset, now) as u64;
        }
        self.retention.account(before, history.cost());
        self.retention.list(key, history);
        self.namespaces.note_publication(self.topics.topic(key).space);
        if let Some(frame) = heard {
            self.distribute(key, publisher, frame, offset, frames, effects);
        }
        if self.retention.is_over() {
            self.evict();
        }
        PublishOutcome::Accepted { offset: Some(offset) }
    }

    /// What tells a publication from all others of its topic: its message id as it was written. Who
    /// publishes does not count: whoever repeats after a lost connection has another one.
    pub(super) fn fingerprint(&self, publisher: &Publisher) -> Option<Fingerprint> {
        publisher.receipt.as_ref()?.message_id.as_ref().map(|id| self.fingerprint_of(id))
    }

    /// As [`Broker::fingerprint`], of a publication that the log has.
    pub(super) fn fingerprint_of(&self, message_id: &str) -> Fingerprint {
        Fingerprint(self.topics.scramble(message_id))
    }

    /// Whether everybody who is to get a publication of this topic can take one more.
    pub(super) fn may_take(&self, key: TopicKey) -> bool {
        let topic = self.topics.topic(key);
        let local = !topic.subscribers.is_empty();
        let blocked = topic.interested.iter().any(|shard| self.congested.contains(shard));
        !blocked && (!local || self.has_room())
    }

    /// At home: sends a publication to the shards with subscribers, this one included.
    pub(super) fn distribute(
        &mut self,
        key: TopicKey,
        publisher: &Publisher,
        frame: Bytes,
        offset: u64,
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
    ) {
        let topic = self.topics.topic(key);
        let except_at =
            |shard| (!publisher.echo && publisher.shard == shard).then_some(publisher.token);
        for &to in &topic.interested {
            let (topic, frame) = (topic.name.clone(), frame.clone());
            let except = except_at(to);
            let message = match publisher.filter().cloned() {
                None => ShardMessage::Deliver { topic, frame, except, offset },
                Some(filter) => ShardMessage::DeliverSome { topic, frame, except, filter },
            };
            effects.push(Effect::Send { to, message });
        }
        let some = (except_at(self.shard), publisher.filter().cloned());
        self.enqueue(key, frame, some, offset, frames);
    }

    /// Puts a publication before the local subscribers, or some of them.
    pub(super) fn enqueue(
        &mut self,
        key: TopicKey,
        frame: Bytes,
        (except, filter): (Option<Token>, Option<Arc<Filter>>),
        offset: u64,
        frames: &mut FramePool,
    ) {
        let topic = self.topics.topic_mut(key);
        if topic.subscribers.is_empty() {
            return;
        }
        // A publisher that has gone since may have left its slot to somebody who wants this.
        let except = except.filter(|token| self.members.is_current(*token)).map(|token| token.slot);
        let filter_bytes = filter.as_ref().map_or(0, |filter| filter.weight());
        let bytes = frame.len() + FRAME_OVERHEAD_BYTES + filter_bytes;
        let class = match &topic.past {
            None => FrameClass::Publication { topic: key.0, policy: topic.policy },
            Some(_) => FrameClass::Retained,
        };
        let is_binary = Encoding::of_frame(&frame) == Encoding::Protobuf;
        let frame = frames.insert(frame, class);
        let fanout = topic.fanout.get_or_insert_with(|| self.spare.pop().unwrap_or_default());
        let was_idle = fanout.is_idle();
        fanout.push((frame, bytes, is_binary), (except, filter), offset, self.stamp);
        self.backlog_bytes += bytes;
        if was_idle {
            self.round.push_back(key);
        }
    }
}
