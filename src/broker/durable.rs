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
use crate::ids::{Epoch, Moment, Position, TopicName};
use crate::io::FramePool;
use crate::message::{
    LogAnswer, LogAppend, LogMessage, LogRecord, LogSlice, PublishOutcome, Publisher, ShardMessage,
    Ticket,
};
use crate::proto::{encoder, inbox};

/// Publications, and bytes of them, that one question to the log asks for.
const READ_RECORDS_MAX: u32 = 1024;
const READ_BYTES_MAX: usize = 256 << 10;

/// The ticket of what is asked to open a topic; every other question has a number of its own.
const FILLING: u64 = 0;

/// The oldest publications of a topic are not read to open it: at most so many of the newest, or as
/// many as it remembers message ids.
const FILLED_MAX: u64 = 1024;

/// Publishers of one topic who repeat what is pending and wait for the same answer.
const REPEATED_MAX: usize = 64;

/// There is no place for another topic.
pub struct TableFull;

/// What the home of a durable topic waits for.
#[derive(Debug, Default)]
pub struct Durable {
    stage: Stage,
    /// What came for the topic before it was open, in order; see [`held_weight`].
    held: VecDeque<ShardMessage>,
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
enum Stage {
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
        found: Option<TopicKey>,
        effects: &mut Vec<Effect>,
    ) {
        let PublishRequest { token, topic: name, data, echo, receipt } = request;
        let publisher = Publisher { shard: self.shard, token, echo, receipt };
        if self.giving_way {
            let topic = self.name(found, name);
            self.respond(topic, publisher, PublishOutcome::BacklogFull, effects);
            return;
        }
        let topic = self.name(found, name);
        self.append(topic, data, publisher, effects);
    }

    /// At home: gives a publication to the log, or refuses it.
    pub(super) fn append(
        &mut self,
        topic: TopicName,
        data: &[u8],
        publisher: Publisher,
        effects: &mut Vec<Effect>,
    ) {
        let hash = self.topics.hash(&topic);
        let found = self.topics.find(hash, &topic);
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
                self.ask_log(key, effects);
                return;
            }
            let body = Bytes::copy_from_slice(data);
            let message = ShardMessage::Publish { topic, body, publisher };
            self.hold(key, message, effects);
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
        let offset = head.offset + durable.pending.len() as u64 + 1;
        let frame = kept_frame(&topic, history, offset, data);
        let message_id = publisher.receipt.as_ref().and_then(|receipt| receipt.message_id.clone());
        let number = self.last_ticket + 1;
        let message = LogMessage::Append(LogAppend {
            topic: topic.clone(),
            epoch: head.epoch,
            offset,
            stored: head.offset,
            time_ms: now.0,
            message_id,
            data: encoder::kept_data(&frame, data),
            ticket: Ticket { shard: self.shard, number },
        });
        let weight = message.weight();
        if !may_take || weight > room {
            self.retention.account(before, history.cost());
            self.respond(topic, publisher, PublishOutcome::BacklogFull, effects);
            return;
        }
        if let Some(id) = id {
            self.tally.ids_dropped += history.insert_id(id, offset, now) as u64;
        }
        self.retention.account(before, history.cost());
        self.retention.list(key, history);
        self.last_ticket = number;
        self.log_bytes += weight;
        let except = (!publisher.echo).then_some((publisher.shard, publisher.token));
        let ticket = number;
        let pending = Pending { frame, time: now, except, publisher, ticket, weight };
        durable.pending.push_back(pending);
        effects.push(Effect::Log(message));
    }

    /// Keeps a message until the log has told where the topic is, and asks it if nobody has.
    pub(super) fn hold(&mut self, key: TopicKey, message: ShardMessage, effects: &mut Vec<Effect>) {
        if let Some((_, durable)) = self.topics.topic_mut(key).durable_mut() {
            self.log_bytes += held_weight(&message);
            durable.held.push_back(message);
        }
        self.ask_log(key, effects);
    }

    /// Asks the log where a topic is, unless that was done.
    pub(super) fn ask_log(&mut self, key: TopicKey, effects: &mut Vec<Effect>) {
        let ticket = Ticket { shard: self.shard, number: FILLING };
        let topic = self.topics.topic_mut(key);
        let name = topic.name.clone();
        let Some((_, durable)) = topic.durable_mut() else { return };
        if durable.stage != Stage::Unasked {
            return;
        }
        let message = LogMessage::Position { topic: name, ticket };
        if self.log_bytes + message.weight() > self.log_bytes_max {
            durable.stage = Stage::Listed;
            self.unasked.push_back(key);
            return;
        }
        durable.stage = Stage::Asked;
        self.log_bytes += message.weight();
        effects.push(Effect::Log(message));
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
            self.ask_log(key, effects);
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
        while let Some((history, durable)) = self.topics.topic_mut(key).durable_mut() {
            let offset = history.position().offset + 1;
            let stored = |pending: &mut Pending| offset <= upto && pending.ticket <= ticket;
            let Some(pending) = durable.pending.pop_front_if(stored) else { break };
            let Pending { frame, time, except, publisher, weight, .. } = pending;
            let before = history.cost();
            self.tally.trimmed += history.push(frame.clone(), except, time) as u64;
            self.tally.queue_dropped += history.take_dropped();
            self.retention.account(before, history.cost());
            self.retention.list(key, history);
            self.log_bytes -= weight;
            if frame.is_empty() {
                if let Some(inbox) = &mut history.inbox {
                    inbox.marked = inbox.marking.take().unwrap_or(inbox.marked);
                }
                self.mark(key, effects);
                continue;
            }
            self.distribute(key, &publisher, frame, offset, frames, effects);
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

    /// The log has told where a topic is.
    fn located(
        &mut self,
        key: TopicKey,
        epoch: Epoch,
        kept: std::ops::Range<u64>,
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
    ) {
        let Some((history, durable)) = self.topics.topic_mut(key).durable_mut() else { return };
        let wanted = FILLED_MAX.max(history.options.idempotency_size as u64);
        let wanted = kept.end.saturating_sub(wanted).max(1);
        let first = kept.start.max(wanted).min(kept.end);
        let before = history.cost();
        history.restore(epoch, first);
        self.retention.account(before, history.cost());
        durable.oldest = kept.start;
        durable.stage = Stage::Filling { end: kept.end };
        self.go_on_filling(key, frames, effects);
    }

    /// A piece of what the log has.
    fn fill(
        &mut self,
        key: TopicKey,
        slice: LogSlice,
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
    ) {
        let id_of = |record: &LogRecord| Some(self.fingerprint_of(record.message_id.as_ref()?));
        let ids: Vec<_> = slice.records.iter().map(id_of).collect();
        let now = self.now;
        let topic = self.topics.topic_mut(key);
        let name = topic.name.clone();
        let Some((history, _)) = topic.durable_mut() else { return };
        let before = history.cost();
        let epoch = history.position().epoch;
        if let Some(missing) = slice.missing {
            // A history has no hole: what is behind it counts.
            history.restore(epoch, missing.to + 1);
        }
        let was_empty = slice.records.is_empty();
        for (record, id) in slice.records.into_iter().zip(ids) {
            if let Some(inbox) = &mut history.inbox
                && let Some(upto) = inbox::as_mark(&record.data)
            {
                inbox.received = inbox.received.max(upto);
                inbox.marked = inbox.received;
            }
            let frame = kept_frame(&name, history, record.offset, &record.data);
            let time = Moment(record.time_ms);
            history.push(frame, None, time);
            if let Some(id) = id {
                history.restore_id(id, record.offset, time, now);
            }
        }
        self.retention.account(before, history.cost());
        self.retention.list(key, history);
        if self.retention.is_over() {
            self.evict();
        }
        if was_empty {
            self.give_up_filling(key, frames, effects);
        } else {
            self.go_on_filling(key, frames, effects);
        }
    }

    /// The rest cannot be had.
    fn give_up_filling(
        &mut self,
        key: TopicKey,
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
    ) {
        let Some((history, durable)) = self.topics.topic_mut(key).durable_mut() else { return };
        if let Stage::Filling { end } = durable.stage {
            let (before, Position { epoch, offset }) = (history.cost(), history.position());
            if offset + 1 < end {
                history.restore(epoch, end);
            }
            self.retention.account(before, history.cost());
            self.go_on_filling(key, frames, effects);
        }
    }

    /// Asks the log for more of a history, or opens the topic if there is no more.
    fn go_on_filling(&mut self, key: TopicKey, frames: &mut FramePool, effects: &mut Vec<Effect>) {
        let ticket = Ticket { shard: self.shard, number: FILLING };
        let topic = self.topics.topic_mut(key);
        let name = topic.name.clone();
        let Some((history, durable)) = topic.durable_mut() else { return };
        let Stage::Filling { end } = durable.stage else { return };
        let from = history.position().offset + 1;
        if from < end {
            let message = LogMessage::Read {
                topic: name,
                from,
                records_max: READ_RECORDS_MAX,
                bytes_max: READ_BYTES_MAX,
                ticket,
            };
            // In place of the question that was just answered, so there is room for it.
            self.log_bytes += message.weight();
            effects.push(Effect::Log(message));
            return;
        }
        durable.stage = Stage::Open;
        if history.inbox.is_some() {
            // What went before it was known whether it waited does not count, what is too old now does.
            history.take_dropped();
            let before = history.cost();
            history.expire(self.now, usize::MAX);
            self.tally.queue_dropped += history.take_dropped();
            self.retention.account(before, history.cost());
        }
        let held = std::mem::take(&mut durable.held);
        self.confirm_waiting(key, effects);
        for message in held {
            self.log_bytes -= held_weight(&message);
            self.receive(message, frames, effects);
        }
        self.lose_interest(key, effects);
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

    /// At home: the topic of a query, if the log has to tell first where it is. `Err`: the table of
    /// topics is full.
    pub(super) fn find_loading(
        &mut self,
        topic: &TopicName,
    ) -> Result<Option<TopicKey>, TableFull> {
        let hash = self.topics.hash(topic);
        let found = self.topics.find(hash, topic);
        if !self.is_durable(found, topic) {
            return Ok(None);
        }
        let key = found.or_else(|| self.insert_topic(hash, topic)).ok_or(TableFull)?;
        Ok(self.is_loading(key).then_some(key))
    }
}

/// What a message that is held counts in [`Broker::log_bytes`]: the others are bounded by the number
/// of shards, of subscriptions or of queries.
fn held_weight(message: &ShardMessage) -> usize {
    match message {
        ShardMessage::Publish { body, .. } => LogMessage::SMALL + body.len(),
        _ => 0,
    }
}
