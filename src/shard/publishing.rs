//! Publications of clients: whether they are taken, and what their publisher hears of it.

use std::borrow::Cow;
use std::sync::Arc;

use super::State;
use super::dispatch::BACKLOG_FULL;
use crate::broker::{Body, PublishRequest};
use crate::filter::Filter;
use crate::ids::Token;
use crate::message::{FILTERED_HISTORY, NO_TAGS, PublishOutcome, Receipt};
use crate::metrics::Counter;
use crate::proto::tags::Tags;
use crate::proto::{Answer, Data, ErrorCode, Family, Rejection, RequestId};

/// For people, with `unavailable`. The log has counted it.
const NOT_STORED: &str = "the durable log has not kept it; try again later";

/// For people, with `forbidden`.
const BARRED: &str =
    "the channel is a room: only its members may publish there, if they are not muted";

/// What a client publishes, or sends to a user.
pub(super) struct Message<'a> {
    pub channel: Cow<'a, str>,
    pub data: Data<'a>,
    pub echo: bool,
    pub id: Option<RequestId<'a>>,
    pub message_id: Option<&'a str>,
    pub filter: Option<Arc<Filter>>,
    pub tags: Option<Tags>,
}

impl State {
    /// A client publishes.
    #[inline]
    pub(super) fn publish(&mut self, token: Token, message: Message<'_>) {
        let Message { channel, data, echo, id, message_id, filter, tags } = message;
        if let Err((code, message)) = self.admit_publication(token) {
            // That the server shuts down is no mistake of its client.
            let penalty = u32::from(code == ErrorCode::RateLimited);
            self.refuse_publication(token, (channel, id), (code, message), penalty);
            return;
        }
        if filter.is_some() && self.broker.has_history(&channel) {
            let refused = (ErrorCode::InvalidMessage, FILTERED_HISTORY);
            self.refuse_publication(token, (channel, id), refused, 1);
            return;
        }
        if tags.is_some() && !self.broker.has_tags(&channel) {
            let refused = (ErrorCode::PermissionDenied, NO_TAGS);
            self.refuse_publication(token, (channel, id), refused, 1);
            return;
        }
        if !self.obeys_schema(token, &channel, (Family::Action, data), id) {
            return;
        }
        let is_simple = id.is_none() && message_id.is_none() && filter.is_none();
        let receipt = (!is_simple)
            .then(|| Box::new(Receipt { filter, ..Receipt::new(Family::Action, id, message_id) }));
        let tagged = tags.map(|tags| tags.before(data.as_json().as_bytes()));
        let body = tagged.as_deref().map_or(Body::Sent(data), Body::Kept);
        let request = PublishRequest { token, topic: &channel, body, echo, receipt };
        let mut effects = std::mem::take(&mut self.effects);
        self.broker.publish(request, &mut self.frames, &mut effects);
        self.count(Counter::Publications, 1);
        self.apply(effects);
    }

    /// A message to those who need not be subscribed is refused.
    pub(super) fn refuse_direct(
        &mut self,
        token: Token,
        about: (Cow<'_, str>, Option<RequestId<'_>>),
        refused: (ErrorCode, &'static str),
    ) {
        if refused.0 == ErrorCode::Unauthenticated {
            self.count(Counter::Unauthenticated, 1);
        }
        // That the server shuts down is no mistake of its client.
        let penalty = u32::from(refused.0 != ErrorCode::Unavailable);
        self.refuse_publication(token, about, refused, penalty);
    }

    fn refuse_publication(
        &mut self,
        token: Token,
        (channel, id): (Cow<'_, str>, Option<RequestId<'_>>),
        (code, message): (ErrorCode, &'static str),
        penalty: u32,
    ) {
        let (family, message) = (Family::Action, Cow::Borrowed(message));
        let refused = Rejection { family, code, message, channel: Some(channel), id };
        self.reject(token, &refused, penalty);
    }

    pub(super) fn admit_publication(
        &mut self,
        token: Token,
    ) -> Result<(), (ErrorCode, &'static str)> {
        if self.shutdown.has_begun() && !self.checks.is_timely() {
            return Err((ErrorCode::Unavailable, "the server is shutting down"));
        }
        let now = self.now;
        let limits = &self.settings.config.limits;
        let (rate, burst) = (limits.publish_rate, limits.publish_burst);
        let Some(connection) = self.connection(token) else { return Ok(()) };
        if connection.admit_publication(now, rate, burst) || self.checks.excuses(token, now, rate) {
            return Ok(());
        }
        self.count(Counter::RateLimited, 1);
        Err((ErrorCode::RateLimited, "more publications than limits.publish_rate allows"))
    }

    pub(super) fn answer_publisher(
        &mut self,
        token: Token,
        topic: &str,
        receipt: Option<&Receipt>,
        outcome: PublishOutcome,
    ) {
        // Of a message to a user: nobody is told the name of an inbox, nor an offset in it.
        let to_user = receipt.and_then(|receipt| receipt.channel.as_deref());
        let topic = to_user.unwrap_or(topic);
        let request_id = receipt.and_then(|receipt| receipt.request_id.as_deref());
        let id = request_id.and_then(RequestId::parse);
        let (code, message) = match outcome {
            PublishOutcome::Accepted { offset } => {
                let message_id = receipt.and_then(|receipt| receipt.message_id.as_deref());
                let offset = offset.filter(|_| to_user.is_none());
                if id.is_none() && message_id.is_none() {
                    return;
                }
                let channel = topic;
                self.reply(token, &Answer::PublishAck { id, message_id, channel, offset });
                return;
            }
            PublishOutcome::BacklogFull => {
                self.count(Counter::BacklogFull, 1);
                (ErrorCode::BacklogFull, Cow::Borrowed(BACKLOG_FULL))
            }
            PublishOutcome::NotStored => (ErrorCode::Unavailable, Cow::Borrowed(NOT_STORED)),
            PublishOutcome::Barred => (ErrorCode::Forbidden, Cow::Borrowed(BARRED)),
            PublishOutcome::TableFull { limit } => {
                self.count(Counter::SubscriptionLimit, 1);
                (ErrorCode::Unavailable, table_full(limit))
            }
        };
        let channel = Some(Cow::Borrowed(topic));
        let family = receipt.map_or(Family::Action, |receipt| receipt.family);
        let refused = Rejection { family, code, message, channel, id };
        // The server's want of room, not the client's mistake.
        self.reject(token, &refused, 0);
    }
}

pub(super) fn table_full(limit: usize) -> Cow<'static, str> {
    Cow::Owned(format!("this server holds {limit} channels already"))
}
