//! Who is in a channel, as clients ask for it and hear of it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::vec;

use bytes::Bytes;

use super::State;
use super::connection::Phase;
use super::dispatch::BACKLOG_FULL;
use super::recall::UNREAD;
use crate::config::SlowConsumer;
use crate::ids::{ShardId, Token, TopicName};
use crate::io::{FRAME_OVERHEAD_BYTES, FrameClass, FrameId};
use crate::message::{PresenceMessage, ShardMessage};
use crate::metrics::Counter;
use crate::proto::{
    Encoding, ErrorCode, Family, Presence, PresenceNotice, PresenceQuery, Rejection, RequestId,
    protobuf,
};

/// Connections that get a notice in one turn.
const TOLD_MAX: usize = 1024;

/// Not that of a topic: no publication takes the place of a notice.
const NO_TOPIC: u32 = u32::MAX;

/// Notices on their way to connections here.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// In their order: what one topic says second comes second.
    waiting: VecDeque<Telling>,
}

#[derive(Debug)]
struct Telling {
    json: FrameId,
    /// Made when the first connection needs it.
    protobuf: Option<FrameId>,
    /// Who was subscribed when it came, and has not got it.
    to: vec::IntoIter<Token>,
}

impl State {
    /// Tells the homes of topics and the subscribers of those at home here what is to be told now.
    pub(super) fn advance_presence(&mut self) {
        if self.broker.has_changes() {
            let mut effects = std::mem::take(&mut self.effects);
            for (topic, tokens) in self.broker.take_changed() {
                let named = tokens.into_iter().map(|token| {
                    let identity = self.identity(token);
                    (token, identity.map(|identity| identity.connection_id))
                });
                let named: Vec<_> = named.collect();
                self.broker.tell_home(topic, named.into_iter(), &mut effects);
            }
            self.apply(effects);
        }
        if self.broker.next_notice().is_some_and(|due| due <= self.now) {
            let mut effects = std::mem::take(&mut self.effects);
            self.broker.tell_subscribers(&mut effects);
            self.apply(effects);
        }
        self.advance_notices();
    }

    /// Whether the next turn has something to do for it.
    pub(super) fn has_notices(&self) -> bool {
        !self.notices.waiting.is_empty()
    }

    /// Somebody came or went in a topic at home here.
    pub(super) fn tell_news(
        &mut self,
        topic: &TopicName,
        interested: Vec<ShardId>,
        notice: &PresenceNotice,
    ) {
        self.next_message_id += 1;
        let envelope = (self.settings.unix_start + self.now.0, self.next_message_id);
        let frame = notice.frame(topic, envelope);
        self.count(Counter::PresenceNotices, 1);
        for to in interested {
            let message = Box::new(PresenceMessage::Notice { frame: frame.clone() });
            self.outbox.push((to, ShardMessage::Presence { topic: topic.clone(), message }));
        }
        self.tell_subscribers(topic.clone(), frame);
    }

    /// A notice for whoever is subscribed here now.
    pub(super) fn tell_subscribers(&mut self, topic: TopicName, frame: Bytes) {
        let to = self.broker.listeners(&topic);
        if to.is_empty() {
            return;
        }
        let json = self.frames.insert(frame, NOTICE);
        self.notices.waiting.push_back(Telling { json, protobuf: None, to: to.into_iter() });
    }

    /// Queues notices for a bounded number of connections.
    fn advance_notices(&mut self) {
        let mut left = TOLD_MAX;
        while left > 0
            && let Some(mut telling) = self.notices.waiting.pop_front()
        {
            while left > 0
                && let Some(token) = telling.to.next()
            {
                left -= 1;
                self.tell(token, &mut telling);
            }
            if telling.to.len() == 0 {
                self.frames.release(telling.json);
                if let Some(frame) = telling.protobuf {
                    self.frames.release(frame);
                }
            } else {
                self.notices.waiting.push_front(telling);
            }
        }
    }

    /// A connection that is too slow for it does not get it: the next one has the numbers by which it is
    /// missed.
    fn tell(&mut self, token: Token, telling: &mut Telling) {
        let Some(connection) = self.connections.get(token.index()) else { return };
        if connection.generation != token.generation || connection.phase != Phase::Open {
            return;
        }
        let frame = match connection.encoding {
            Encoding::Json => telling.json,
            Encoding::Protobuf => *telling.protobuf.get_or_insert_with(|| {
                let frame = protobuf::publication_frame(self.frames.bytes(telling.json));
                self.frames.insert(frame, NOTICE)
            }),
        };
        let cost = self.frames.bytes(frame).len() + FRAME_OVERHEAD_BYTES;
        let limit = self.settings.config.limits.send_queue_size;
        if connection.blocked && connection.queue.cost() + cost > limit {
            self.count(Counter::PresenceDropped, 1);
        } else {
            self.queue(token, frame);
        }
    }

    pub(super) fn query_presence(
        &mut self,
        token: Token,
        channel: &str,
        query: PresenceQuery,
        id: Option<RequestId<'_>>,
    ) {
        let refused = if !self.broker.has_presence(channel) {
            Some((ErrorCode::PermissionDenied, "the channel keeps no presence"))
        } else if !self.broker.is_subscribed(token, channel) {
            Some((ErrorCode::NotSubscribed, "only who is in a channel may ask who else is"))
        } else {
            None
        };
        if let Some((code, message)) = refused {
            let message = Cow::Borrowed(message);
            let refused = Rejection { family: Family::Type, code, message, channel: None, id };
            self.reject(token, &refused, 1);
            return;
        }
        let request_id = id.map(|id| id.as_json().into());
        let mut effects = std::mem::take(&mut self.effects);
        let asked = self.broker.ask_presence(token, channel, query, request_id, &mut effects);
        self.apply(effects);
        if asked.is_err() {
            self.refuse_query(token, Cow::Borrowed(BACKLOG_FULL), id);
        }
    }

    /// Answers never fill a queue beyond its bound: who does not read them gets errors.
    pub(super) fn answer_presence(
        &mut self,
        token: Token,
        channel: &str,
        presence: &Presence,
        request_id: Option<&str>,
    ) {
        let id = request_id.and_then(RequestId::parse);
        let payload = presence.payload(channel);
        if self.has_room_for(token, payload.len()) {
            self.respond(token, &payload, id);
        } else {
            self.refuse_query(token, Cow::Borrowed(UNREAD), id);
        }
    }
}

/// It makes room for newer ones where a reader is slow.
const NOTICE: FrameClass =
    FrameClass::Publication { topic: NO_TOPIC, policy: SlowConsumer::DropOldest };
