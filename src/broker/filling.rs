//! How a durable topic is opened at home: the log tells where it is and gives its newest publications, and
//! what comes for the topic meanwhile waits.

use super::Broker;
use super::durable::{FILLING, Stage};
use super::effect::Effect;
use super::inbox::kept_frame;
use super::topics::TopicKey;
use crate::ids::{Epoch, Moment, Position, TopicName};
use crate::io::FramePool;
use crate::message::{LogMessage, LogRecord, LogSlice, ShardMessage, Ticket};
use crate::proto::inbox;

/// Publications, and bytes of them, that one question to the log asks for.
const READ_RECORDS_MAX: u32 = 1024;
const READ_BYTES_MAX: usize = 256 << 10;

/// The oldest publications of a topic are not read to open it: at most so many of the newest, or as
/// many as it remembers message ids.
const FILLED_MAX: u64 = 1024;

/// There is no place for another topic.
pub struct TableFull;

impl Broker {
    /// Keeps a message until the log has told where the topic is, and asks it if nobody has.
    pub(super) fn hold(&mut self, key: TopicKey, message: ShardMessage) {
        if let Some((_, durable)) = self.topics.topic_mut(key).durable_mut() {
            self.log_bytes += held_weight(&message);
            durable.held.push_back(message);
        }
        self.ask_log(key);
    }

    /// Asks the log where a topic is, unless that was done.
    pub(super) fn ask_log(&mut self, key: TopicKey) {
        let ticket = Ticket { shard: self.shard, number: FILLING };
        let topic = self.topics.topic_mut(key);
        let name = topic.name.clone();
        let Some((_, durable)) = topic.durable_mut() else { return };
        if durable.stage != Stage::Unasked {
            return;
        }
        let message = LogMessage::Position { topic: name, ticket };
        if self.log_bytes + LogMessage::SMALL > self.log_bytes_max {
            durable.stage = Stage::Listed;
            self.unasked.push_back(key);
            return;
        }
        durable.stage = Stage::Asked;
        self.log_bytes += LogMessage::SMALL;
        self.to_log.push(message);
    }

    /// The log has told where a topic is.
    pub(super) fn located(
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
    pub(super) fn fill(
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
            let frame =
                kept_frame(&name, history, record.offset, &record.data, &mut self.frame_memory);
            let time = Moment(record.time_ms);
            history.push(frame, None, time, &mut self.frame_memory);
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
    pub(super) fn give_up_filling(
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
            self.log_bytes += LogMessage::SMALL;
            self.to_log.push(message);
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
