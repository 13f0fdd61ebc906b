//! Topics that are durable: at home a publication waits for the log before anybody hears of it, and
//! what asks for the topic waits until the log has told where the topic is.
//!
//! Publications go to the log with the offsets behind the newest one that it has, and take their
//! place in the history when the log has them. It stores in order, and refuses whatever comes behind
//! one that it has refused: so those offsets are free again as soon as the first refusal is here, and
//! the refusals that follow tell nothing new.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Broker;
use super::effect::{Effect, PublishRequest};
use super::history::Author;
use super::inbox::kept_frame;
use super::topics::TopicKey;
use crate::ids::{Moment, TopicName};
use crate::io::FramePool;
use crate::message::{
    LogAnswer, LogAppend, LogBatch, LogMessage, PublishOutcome, Publisher, ShardMessage, Ticket,
};

/// The ticket of what is asked to open a topic; every other question has a number of its own.
pub(super) const FILLING: u64 = 0;

/// Publishers of one topic who repeat what is pending and wait for the same answer.
const REPEATED_MAX: usize = 64;

/// What the home of a durable topic waits for.
#[derive(Debug, Default)]
pub struct Durable {
    pub(super) stage: Stage,
    /// What came for the topic before it was open, in order; see [`held_weight`].
    pub(super) held: VecDeque<ShardMessage>,
    /// Publications that the log has not answered for, with the offsets behind the history's.
    pub(super) pending: VecDeque<Pending>,
    /// Those who published again what is pending, with its offset. At most [`REPEATED_MAX`].
    repeated: VecDeque<(u64, Publisher)>,
    /// Ticket and weight of publications that were refused with one before them: the log has yet to say
    /// so itself, and until then they may take its room.
    taken_back: VecDeque<(u64, usize)>,
    /// The log has nothing before this offset; it may have lost more since.
    pub oldest: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The log was not asked: too much waits for it.
    #[default]
    Unasked,
    /// It stands in [`Broker::unasked`] for that.
    Listed,
    /// It was asked where the topic is.
    Asked,
    /// The history is read from it, up to before this offset.
    Filling {
        end: u64,
    },
    Open,
}

#[derive(Debug)]
pub(super) struct Pending {
    /// Empty: a mark in an inbox.
    pub frame: Bytes,
    pub time: Moment,
    pub except: Option<Author>,
    pub publisher: Publisher,
    pub ticket: u64,
    /// What it counts in [`Broker::log_bytes`].
    pub weight: usize,
}

impl Durable {
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Something waits for the log, so the topic must stay.
    pub fn is_busy(&self) -> bool {
        !matches!(self.stage, Stage::Open | Stage::Unasked)
            || !self.pending.is_empty()
            || !self.taken_back.is_empty()
    }

    /// The history was forgotten: the log is to be asked again. Nothing waits for it.
    pub(super) fn close(&mut self) {
        debug_assert!(!self.is_busy() && self.held.is_empty());
        self.stage = Stage::Unasked;
    }
}

impl Broker {
    /// Whether the durable log owes an answer.
    pub fn waits_for_log(&self) -> bool {
        self.log_bytes > 0
    }

    /// Whether the home of a topic still waits to hear from the log where it is.
    pub(super) fn is_loading(&self, key: TopicKey) -> bool {
        let past = self.topics.topic(key).past.as_ref();
        past.and_then(|past| past.durable.as_ref()).is_some_and(|durable| !durable.is_open())
    }

    /// What the durable log, which has room for it, is to hear next.
    pub fn to_log(&mut self) -> &mut LogBatch {
        &mut self.to_log
    }

    /// Whether publications of this name go to the log first.
    pub(super) fn is_durable(&self, found: Option<TopicKey>, name: &str) -> bool {
        // Without a log no channel is, and no name is looked up for it.
        self.log_bytes_max > 0
            && match found {
                Some(key) => {
                    self.topics.topic(key).past.as_ref().is_some_and(|past| past.durable.is_some())
                }
                None => self.options(name).is_durable(),
            }
    }

    /// At home: a client of this shard publishes to a durable topic.
    pub(super) fn publish_durable(
        &mut self,
        request: PublishRequest<'_>,
        place: (u64, Option<TopicKey>),
        effects: &mut Vec<Effect>,
    ) {
        let PublishRequest { token, topic: name, body, echo, receipt } = request;
        let publisher = Publisher { shard: self.shard, token, echo, receipt };
        let topic = self.name(place.1, name);
        if self.giving_way {
            self.respond(topic, publisher, PublishOutcome::BacklogFull, effects);
            return;
        }
        self.append(topic, place, &body.kept(), publisher, effects);
    }

    /// At home: gives a publication to the log, or refuses it. Of the topic: its name, the hash of that, and
    /// its place in the table if it has one.
    pub(super) fn append(
        &mut self,
        topic: TopicName,
        (hash, found): (u64, Option<TopicKey>),
        data: &[u8],
        publisher: Publisher,
        effects: &mut Vec<Effect>,
    ) {
        if self.is_barred(found, &publisher) {
            self.respond(topic, publisher, PublishOutcome::Barred, effects);
            return;
        }
        let Some(key) = found.or_else(|| self.insert_topic(hash, &topic)) else {
            let limit = self.limits.topics_max;
            self.respond(topic, publisher, PublishOutcome::TableFull { limit }, effects);
            return;
        };
        let room = self.log_bytes_max.saturating_sub(self.log_bytes);
        if self.is_loading(key) {
            // The first question to the log must find room.
            if LogMessage::SMALL * 2 + data.len() > room {
                self.respond(topic, publisher, PublishOutcome::BacklogFull, effects);
                self.ask_log(key);
                return;
            }
            let body = Bytes::copy_from_slice(data);
            let message = ShardMessage::Publish { topic, body, publisher };
            self.hold(key, message);
            return;
        }
        let may_take = self.may_take(key);
        let id = self.fingerprint(&publisher);
        let now = self.now;
        let Some((history, durable)) = self.topics.topic_mut(key).durable_mut() else { return };
        let before = history.cost();
        let id = id.filter(|_| history.options.idempotency_size > 0);
        let head = history.position();
        if let Some(offset) = id.and_then(|id| history.find_id(id, now)) {
            self.retention.account(before, history.cost());
            self.tally.duplicates += 1;
            let outcome = if offset <= head.offset {
                PublishOutcome::Accepted { offset: Some(offset) }
            } else if durable.repeated.len() < REPEATED_MAX {
                durable.repeated.push_back((offset, publisher));
                return;
            } else {
                PublishOutcome::BacklogFull
            };
            self.respond(topic, publisher, outcome, effects);
            return;
        }
        let receipt = publisher.receipt.as_ref();
        let message_id = receipt.and_then(|receipt| receipt.message_id.as_deref());
        let weight = LogAppend::weight(message_id, data.len());
        if !may_take || weight > room {
            self.retention.account(before, history.cost());
            self.respond(topic, publisher, PublishOutcome::BacklogFull, effects);
            return;
        }
        let offset = head.offset + durable.pending.len() as u64 + 1;
        if let Some(id) = id {
            self.tally.ids_dropped += history.insert_id(id, offset, now) as u64;
        }
        self.retention.account(before, history.cost());
        self.retention.list(key, history);
        self.last_ticket += 1;
        self.log_bytes += weight;
        let ticket = self.last_ticket;
        self.to_log.append(LogAppend {
            topic: &topic,
            epoch: head.epoch,
            offset,
            stored: head.offset,
            time_ms: now.0,
            message_id,
            data,
            ticket: Ticket { shard: self.shard, number: ticket },
        });
        let frame = kept_frame(&topic, history, offset, data, &mut self.frame_memory);
        let except = (!publisher.echo).then_some((publisher.shard, publisher.token));
        let pending = Pending { frame, time: now, except, publisher, ticket, weight };
        durable.pending.push_back(pending);
    }

    /// Whether an answer of the log is for those who read what is old: it can wait for what is live.
    pub fn is_for_readers(answer: &LogAnswer) -> bool {
        matches!(answer, LogAnswer::Read { ticket, .. } if *ticket != FILLING)
    }

    /// The log has answered.
    pub(super) fn log_answered(
        &mut self,
        answer: LogAnswer,
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
    ) {
        match answer {
            LogAnswer::Stored { topic, upto, ticket, .. } => {
                if let Some(key) = self.find(&topic) {
                    self.stored(key, upto, ticket, frames, effects);
                }
            }
            LogAnswer::Refused { topic, ticket, .. } => {
                if let Some(key) = self.find(&topic) {
                    self.not_stored(key, ticket, effects);
                }
            }
            LogAnswer::Position { topic, epoch, next, oldest, .. } => {
                self.log_bytes -= LogMessage::SMALL;
                if let Some(key) = self.find(&topic) {
                    self.located(key, epoch, oldest..next, frames, effects);
                }
            }
            LogAnswer::Located { place, ticket, .. } => {
                self.log_bytes -= LogMessage::SMALL;
                self.located_behind(ticket, Ok(&place), effects);
            }
            LogAnswer::Read { slice, ticket, .. } if ticket != FILLING => {
                self.log_bytes -= LogMessage::SMALL;
                self.read_behind(ticket, *slice, effects);
            }
            LogAnswer::Unreadable { ticket, .. } if ticket != FILLING => {
                self.log_bytes -= LogMessage::SMALL;
                self.unreadable_behind(ticket, effects);
            }
            LogAnswer::Read { topic, slice, .. } => {
                self.log_bytes -= LogMessage::SMALL;
                if let Some(key) = self.find(&topic) {
                    self.fill(key, *slice, frames, effects);
                }
            }
            // What cannot be read is not there; the next publications are.
            LogAnswer::Unreadable { topic, .. } => {
                self.log_bytes -= LogMessage::SMALL;
                if let Some(key) = self.find(&topic) {
                    self.give_up_filling(key, frames, effects);
                }
            }
        }
        // Whenever there is no room an answer is due, so nobody is forgotten here.
        for _ in 0..self.unasked.len() {
            if self.log_bytes + LogMessage::SMALL > self.log_bytes_max {
                break;
            }
            let Some(key) = self.unasked.pop_front() else { break };
            if let Some((_, durable)) = self.topics.topic_mut(key).durable_mut() {
                durable.stage = Stage::Unasked;
            }
            self.ask_log(key);
        }
        self.go_on_asking(effects);
    }

    /// The log has the publications up to this offset: they take their place.
    fn stored(
        &mut self,
        key: TopicKey,
        upto: u64,
        ticket: u64,
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
    ) {
        let name = self.topics.topic(key).name.clone();
        loop {
            let topic = self.topics.topic_mut(key);
            let is_heard = topic.is_heard();
            let Some((history, durable)) = topic.durable_mut() else { break };
            let offset = history.position().offset + 1;
            let stored = |pending: &mut Pending| offset <= upto && pending.ticket <= ticket;
            let Some(pending) = durable.pending.pop_front_if(stored) else { break };
            let Pending { frame, time, except, publisher, weight, .. } = pending;
            let before = history.cost();
            let is_mark = frame.is_empty();
            let heard = (!is_mark && is_heard).then(|| frame.clone());
            let trimmed = history.push(frame, except, time, &mut self.frame_memory);
            self.tally.trimmed += trimmed as u64;
            self.tally.queue_dropped += history.take_dropped();
            self.retention.account(before, history.cost());
            self.retention.list(key, history);
            self.log_bytes -= weight;
            if is_mark {
                if let Some(inbox) = &mut history.inbox {
                    inbox.marked = inbox.marking.take().unwrap_or(inbox.marked);
                }
                self.mark(key);
                continue;
            }
            self.namespaces.note_publication(self.topics.topic(key).space);
            if let Some(frame) = heard {
                self.distribute(key, &publisher, frame, offset, frames, effects);
            }
            if self.retention.is_over() {
                self.evict();
            }
            let outcome = PublishOutcome::Accepted { offset: Some(offset) };
            self.respond(name.clone(), publisher, outcome, effects);
            self.respond_repeated(key, offset, outcome, effects);
        }
    }

    /// The log has refused a publication, and with it those behind.
    fn not_stored(&mut self, key: TopicKey, ticket: u64, effects: &mut Vec<Effect>) {
        let name = self.topics.topic(key).name.clone();
        let Some((history, durable)) = self.topics.topic_mut(key).durable_mut() else { return };
        let Some(first) = durable.pending.iter().position(|pending| pending.ticket == ticket)
        else {
            let place = durable.taken_back.iter().position(|(other, _)| *other == ticket);
            if let Some((_, weight)) = place.and_then(|place| durable.taken_back.remove(place)) {
                self.log_bytes -= weight;
            }
            self.lose_interest(key, effects);
            return;
        };
        // Those before it may be in a batch that is under way.
        let refused = durable.pending.split_off(first);
        let before = history.cost();
        let head = history.position().offset + first as u64;
        history.forget_ids_behind(head);
        self.retention.account(before, history.cost());
        let behind = refused.iter().skip(1).map(|pending| (pending.ticket, pending.weight));
        durable.taken_back.extend(behind);
        self.log_bytes -= refused.front().map_or(0, |pending| pending.weight);
        if refused.iter().any(|pending| pending.frame.is_empty())
            && let Some(inbox) = &mut history.inbox
        {
            inbox.marking = None;
        }
        for (place, Pending { frame, publisher, .. }) in refused.into_iter().enumerate() {
            if frame.is_empty() {
                continue;
            }
            self.respond(name.clone(), publisher, PublishOutcome::NotStored, effects);
            let offset = head + 1 + place as u64;
            self.respond_repeated(key, offset, PublishOutcome::NotStored, effects);
        }
    }

    fn respond_repeated(
        &mut self,
        key: TopicKey,
        offset: u64,
        outcome: PublishOutcome,
        effects: &mut Vec<Effect>,
    ) {
        let name = self.topics.topic(key).name.clone();
        while let Some((_, durable)) = self.topics.topic_mut(key).durable_mut()
            && let Some(place) = durable.repeated.iter().position(|(other, _)| *other == offset)
            && let Some((_, publisher)) = durable.repeated.remove(place)
        {
            self.respond(name.clone(), publisher, outcome, effects);
        }
    }

    /// Tells a publisher what became of it, if it wants to hear of that.
    pub(super) fn respond(
        &self,
        topic: TopicName,
        publisher: Publisher,
        outcome: PublishOutcome,
        effects: &mut Vec<Effect>,
    ) {
        if publisher.receipt.is_none() && outcome.is_accepted() {
            return;
        }
        if publisher.shard == self.shard {
            let Publisher { token, receipt, .. } = publisher;
            effects.push(Effect::Published { token, topic, receipt, outcome });
        } else {
            let to = publisher.shard;
            let message = ShardMessage::Published { topic, publisher, outcome };
            effects.push(Effect::Send { to, message });
        }
    }
}
