//! How far the users at home here have received what was sent to them, where it queues.
//!
//! What waits for a user is the history of its inbox from behind that place. The place is kept in the log
//! as a record among the messages, a mark, which nobody gets: when marks and messages are trimmed, oldest
//! first, what is left is either behind the last mark or was not received. The shard of a connection tells
//! the home what the connection has received; a crash before the mark is kept repeats messages, and loses
//! none.

use bytes::Bytes;

use super::durable::Pending;
use super::effect::Effect;
use super::history::History;
use super::spares::Spares;
use super::topics::TopicKey;
use super::{Broker, Token};
use crate::ids::{ShardId, TopicName};
use crate::message::{LogAppend, Publisher, ShardMessage, Ticket};
use crate::proto::inbox;

/// What the history of an inbox knows of its user.
#[derive(Debug, Default)]
pub struct Inbox {
    /// A connection of the user has received everything up to this offset.
    pub received: u64,
    /// What the last mark in the log says.
    pub marked: u64,
    /// What the mark on its way there says.
    pub marking: Option<u64>,
    /// Messages that were dropped before they were received, since somebody asked.
    pub dropped: u64,
}

impl Broker {
    /// A connection here has received what is in this inbox up to an offset.
    pub fn received(&mut self, topic: TopicName, upto: u64, effects: &mut Vec<Effect>) {
        let home = self.topics.home(self.topics.hash(&topic));
        if home == self.shard {
            self.note_received(&topic, upto);
        } else {
            effects
                .push(Effect::Send { to: home, message: ShardMessage::Received { topic, upto } });
        }
    }

    /// At home: the user has received it, on whichever shard.
    pub(super) fn note_received(&mut self, topic: &TopicName, upto: u64) {
        let Some(key) = self.find(topic) else { return };
        let Some((history, durable)) = self.topics.topic_mut(key).durable_mut() else { return };
        let head = history.position().offset;
        // Of an earlier time of the topic in this table, which has ended since: it comes again.
        if !durable.is_open() || upto > head {
            return;
        }
        if let Some(inbox) = &mut history.inbox {
            inbox.received = inbox.received.max(upto);
            self.mark(key);
        }
    }

    /// Forgets what the inbox of a user who is away has in memory: the log has it, and is asked again when
    /// somebody wants it. `false`: it is no such inbox.
    pub(super) fn unload(&mut self, key: TopicKey) -> bool {
        let topic = self.topics.topic_mut(key);
        if !topic.is_idle() {
            return false;
        }
        let Some((history, durable)) = topic.durable_mut() else { return false };
        let before = history.cost();
        // What is not marked is known here alone.
        let Some(inbox) = history.inbox.take_if(|inbox| inbox.received <= inbox.marked) else {
            return false;
        };
        debug_assert_eq!(inbox.marking, None, "it would be busy");
        history.inbox = Some(Box::default());
        history.unload();
        durable.close();
        self.retention.account(before, history.cost());
        true
    }

    /// Has the log keep how far the user has come, unless it does already. What has no room, or is refused,
    /// is tried again with the next message that is received, and when a connection of the user comes.
    pub(super) fn mark(&mut self, key: TopicKey) {
        let (now, number, shard) = (self.now, self.last_ticket + 1, self.shard);
        let room = self.log_bytes_max.saturating_sub(self.log_bytes);
        let topic = self.topics.topic_mut(key);
        let Some((history, _)) = topic.durable_mut() else { return };
        let Some(inbox) = &history.inbox else { return };
        if inbox.marking.is_some() || inbox.received <= inbox.marked {
            return;
        }
        let name = topic.name.clone();
        let Some((history, durable)) = topic.durable_mut() else { return };
        let head = history.position();
        let Some(inbox) = &mut history.inbox else { return };
        let data = inbox::mark(inbox.received);
        let weight = LogAppend::weight(None, data.len());
        if weight > room {
            return;
        }
        self.to_log.append(LogAppend {
            topic: &name,
            epoch: head.epoch,
            offset: head.offset + durable.pending.len() as u64 + 1,
            time_ms: now.0,
            message_id: None,
            data: &data,
            stored: head.offset,
            ticket: Ticket { shard, number },
        });
        inbox.marking = Some(inbox.received);
        durable.pending.push_back(Pending {
            frame: Bytes::new(),
            time: now,
            except: None,
            publisher: nobody(shard),
            ticket: number,
            weight,
        });
        self.last_ticket = number;
        self.log_bytes += weight;
    }
}

/// Who publishes marks, and hears nothing of them.
fn nobody(shard: ShardId) -> Publisher {
    Publisher { shard, token: Token { slot: 0, generation: 0 }, echo: true, receipt: None }
}

/// A publication as its readers get it; empty for what they do not.
pub(super) fn kept_frame(
    topic: &TopicName,
    history: &History,
    offset: u64,
    data: &[u8],
    spares: &mut Spares,
) -> Bytes {
    if !topic.is_inbox() {
        return history.frame(topic, offset, data, spares);
    }
    match inbox::as_mark(data) {
        Some(_) => Bytes::new(),
        None => inbox::frame(history.position().epoch, offset, data),
    }
}
