//! Messages that are passed on whole, and what a connection can ask of the server and of itself.

use std::borrow::Cow;

use super::State;
use crate::broker::{Body, PublishRequest};
use crate::ids::Token;
use crate::message::Receipt;
use crate::metrics::Counter;
use crate::proto::reply::{self, ConnectionFacts};
use crate::proto::typed::TypedMessage;
use crate::proto::{Data, ErrorCode, Family, Rejection, RequestId};

impl State {
    /// A client sends an event, or something in a chat: a publication that is the message itself.
    pub(super) fn pass_on(&mut self, token: Token, message: &TypedMessage<'_>) {
        if !self.obeys_schema_of_type(token, message.kind, message.text, message.id) {
            return;
        }
        if let Some(target) = self.target_of(message) {
            self.route_typed(token, target, message);
            return;
        }
        let Some(channel) = message.channel.clone().or_else(|| self.only_channel(token)) else {
            let text = "the message names no channel, and the connection is not in exactly one";
            self.refuse_message(token, message, None, (ErrorCode::NoTarget, text));
            return;
        };
        if let Err(refused) = self.admit_publication(token) {
            self.refuse_message(token, message, Some(channel), refused);
            return;
        }
        if !self.obeys_schema(token, &channel, (Family::Type, Data::Json(message.text)), message.id)
        {
            return;
        }
        let sender = self.sender_of(token, message);
        self.next_message_id += 1;
        let now_unix_ms = self.settings.unix_start + self.now.0;
        let data = message.stamped(sender.as_deref(), now_unix_ms, self.next_message_id);
        let body = Body::Kept(&data);
        let TypedMessage { id, message_id, echo, .. } = *message;
        let receipt = (id.is_some() || message_id.is_some())
            .then(|| Box::new(Receipt::new(Family::Type, id, message_id)));
        let request = PublishRequest { token, topic: &channel, body, echo, receipt };
        let mut effects = std::mem::take(&mut self.effects);
        self.broker.publish(request, &mut self.frames, &mut effects);
        self.count(Counter::Publications, 1);
        self.count(Counter::TypedMessages, 1);
        self.apply(effects);
    }

    /// The channel of a connection that has one only.
    pub(super) fn only_channel(&self, token: Token) -> Option<Cow<'static, str>> {
        self.broker.only_topic(token).map(|topic| Cow::Owned(topic.to_string()))
    }

    /// Whom everybody is told that a message is from. `None`: whomever it says. Where there are users
    /// nobody can pass for one.
    fn sender_of(&mut self, token: Token, message: &TypedMessage<'_>) -> Option<String> {
        if let Some(user) = self.known_identity(token).and_then(|identity| identity.user.as_ref()) {
            return Some(user[..].to_owned());
        }
        if self.settings.config.auth.keys.is_empty() && message.sender.is_some() {
            return None;
        }
        self.identity(token).map(|identity| identity.connection_id.to_string())
    }

    fn refuse_message(
        &mut self,
        token: Token,
        message: &TypedMessage<'_>,
        channel: Option<Cow<'_, str>>,
        (code, text): (ErrorCode, &'static str),
    ) {
        let (family, id) = (Family::Type, message.id);
        // That the server shuts down is no mistake of its client.
        let penalty = u32::from(code != ErrorCode::Unavailable);
        let refused = Rejection { family, code, message: Cow::Borrowed(text), channel, id };
        self.reject(token, &refused, penalty);
    }

    /// What time it is here.
    pub(super) fn query_time(&mut self, token: Token, id: Option<RequestId<'_>>) {
        let payload = reply::time(self.settings.unix_start + self.now.0);
        self.respond(token, &payload, id);
    }

    /// What went over the connection, and what waits for it.
    pub(super) fn query_stats(&mut self, token: Token, id: Option<RequestId<'_>>) {
        let Some(info) = self.connection_info(token) else { return };
        let facts = ConnectionFacts {
            connected_since: info.state_since_ms,
            messages_received: info.messages_received,
            bytes_received: info.bytes_received,
            messages_sent: info.messages_sent,
            bytes_sent: info.bytes_sent,
            queued_bytes: info.queued_bytes,
            subscriptions: info.subscriptions,
            rtt: info.rtt,
        };
        self.respond(token, &reply::stats(&facts), id);
    }
}
