//! Who is in a channel, as clients ask for it and hear of it.

use std::borrow::Cow;

use bytes::Bytes;

use super::State;
use super::dispatch::BACKLOG_FULL;
use super::recall::UNREAD;
use crate::ids::{ShardId, Token, TopicName};
use crate::message::{PresenceMessage, ShardMessage};
use crate::metrics::Counter;
use crate::proto::{
    ErrorCode, Family, Presence, PresenceNotice, PresenceQuery, Rejection, RequestId,
};

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
        self.tell_listed(frame, to);
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
