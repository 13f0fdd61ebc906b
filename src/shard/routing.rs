//! Messages of clients that go to the route of their type, and what comes back.

use std::borrow::Cow;

use super::State;
use super::dispatch::BACKLOG_FULL;
use super::recall::UNREAD;
use crate::config::Route;
use crate::ids::{TargetId, Token};
use crate::message::{BridgeAnswer, BridgeMessage, BridgeOrigin, BridgeOutcome};
use crate::metrics::Counter;
use crate::proto::routed::RoutedMessage;
use crate::proto::typed::TypedMessage;
use crate::proto::{Answer, ErrorCode, Family, Rejection, RequestId};

/// For people, with `unavailable`.
const NOT_TAKEN: &str = "the route of the message could not be reached, or does not take it";

/// What goes to a target.
struct Outgoing<'a> {
    kind: &'a str,
    text: &'a str,
    channel: Option<Cow<'a, str>>,
    id: Option<RequestId<'a>>,
    message_id: Option<&'a str>,
}

impl State {
    /// A client sends what is not built in.
    pub(super) fn route(&mut self, token: Token, message: &RoutedMessage<'_>) {
        match self.routes.find(&message.kind) {
            Some(Route::Target(target)) => {
                let RoutedMessage { ref kind, text, id, message_id, ref channel, .. } = *message;
                if self.obeys_schema_of_type(token, kind, text, id) {
                    let channel = channel.clone();
                    let message = Outgoing { kind, text, channel, id, message_id };
                    self.hand_out(token, target, message);
                }
            }
            Some(Route::Channel) | None => self.reject(token, &message.no_route(), 1),
        }
    }

    /// The target of an event or a chat message, if its type does not go to channels.
    pub(super) fn target_of(&self, message: &TypedMessage<'_>) -> Option<TargetId> {
        match self.routes.find(message.kind) {
            Some(Route::Target(target)) => Some(target),
            Some(Route::Channel) | None => None,
        }
    }

    /// An event or a chat message goes to a target instead of its channel.
    pub(super) fn route_typed(
        &mut self,
        token: Token,
        target: TargetId,
        message: &TypedMessage<'_>,
    ) {
        let TypedMessage { kind, text, id, message_id, .. } = *message;
        let channel = message.channel.clone().or_else(|| self.only_channel(token));
        self.hand_out(token, target, Outgoing { kind, text, channel, id, message_id });
    }

    fn hand_out(&mut self, token: Token, target: TargetId, message: Outgoing<'_>) {
        let Outgoing { kind, text, channel, id, message_id } = message;
        if let Err((code, text)) = self.admit_publication(token) {
            // That the server shuts down is no mistake of its client.
            let penalty = u32::from(code == ErrorCode::RateLimited);
            self.reject(token, &refusal(code, text, id), penalty);
            return;
        }
        let Some(identity) = self.identity(token) else { return };
        let (connection_id, user) = (identity.connection_id, identity.user.clone());
        let message = BridgeMessage {
            target,
            kind: kind.into(),
            text: text.into(),
            connection_id,
            user,
            channel: channel.map(|channel| channel.into()),
            received_ms: self.settings.unix_start + self.now.0,
            origin: BridgeOrigin {
                shard: self.id,
                token,
                request_id: id.map(|id| id.as_json().into()),
                message_id: message_id.map(Into::into),
            },
        };
        if self.bridge.as_mut().is_some_and(|bridge| bridge.post(message)) {
            self.count(Counter::Routed, 1);
            return;
        }
        self.count(Counter::RouteFull, 1);
        // The target's want of room, not the client's mistake.
        self.reject(token, &refusal(ErrorCode::BacklogFull, BACKLOG_FULL, id), 0);
    }

    /// A target has taken a message, or not. Its client may be gone.
    pub(super) fn answer_routed(&mut self, answer: BridgeAnswer) {
        let BridgeAnswer { origin, outcome } = answer;
        let token = origin.token;
        let id = origin.request_id.as_deref().and_then(RequestId::parse);
        let message_id = origin.message_id.as_deref();
        match outcome {
            BridgeOutcome::Taken if id.is_none() && message_id.is_none() => {}
            BridgeOutcome::Taken => self.reply(token, &Answer::Taken { id, message_id }),
            BridgeOutcome::Replied(payload) => {
                if self.has_room_for(token, payload.len()) {
                    self.respond(token, &payload, id);
                } else {
                    self.refuse_query(token, Cow::Borrowed(UNREAD), id);
                }
            }
            BridgeOutcome::Refused { code, text } => {
                self.count(Counter::MessagesRejected, 1);
                self.next_message_id += 1;
                let envelope = (self.settings.unix_start + self.now.0, self.next_message_id);
                let (code, text) = (&*code, &*text);
                self.reply(token, &Answer::Refused { code, text, id, envelope });
            }
            BridgeOutcome::Unavailable => {
                self.reject(token, &refusal(ErrorCode::Unavailable, NOT_TAKEN, id), 0);
            }
        }
    }
}

fn refusal<'a>(code: ErrorCode, text: &'static str, id: Option<RequestId<'a>>) -> Rejection<'a> {
    Rejection { family: Family::Type, code, message: Cow::Borrowed(text), channel: None, id }
}
