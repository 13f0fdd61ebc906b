//! What a client asks for: JSON text in, commands out (`protobuf` makes the same ones of its envelopes).
//! Checks form only; whether a command is
//! allowed, and what it does, is decided elsewhere.

mod ack;
mod addressees;
mod auth;
mod fields;
mod plain;
mod recall;
mod room;
mod session;
#[cfg(test)]
mod tests;
mod typed;

pub use ack::{Received, Subscription};

use std::borrow::Cow;
use std::mem;
use std::sync::Arc;

use crate::filter::Filter;
use crate::ids::{ConnectionId, SessionId};
use crate::proto::audience::Addressee;
pub(in crate::proto) use crate::proto::command::addressees::{Addressees, addressee};
use crate::proto::command::fields::{Fields, is_integer, is_short_string};
pub(in crate::proto) use crate::proto::command::fields::{
    Refused, compiled, displayed_name, invalid, no_tags,
};
use crate::proto::command::plain::Opening;
pub(in crate::proto) use crate::proto::command::recall::{history, presence};
pub(in crate::proto) use crate::proto::command::room::room;
pub(in crate::proto) use crate::proto::command::session::sorted_claims;
use crate::proto::data::Data;
use crate::proto::error_code::ErrorCode;
use crate::proto::json::{JsonError, Scanner};
use crate::proto::presence::PresenceQuery;
use crate::proto::recall::{Claim, HistoryQuery, Start};
use crate::proto::room::RoomAction;
use crate::proto::routed::RoutedMessage;
use crate::proto::tags::Tags;
use crate::proto::typed::TypedMessage;

/// Longest `id` and `timestamp`, in bytes as they were written between the quotes: they are echoed.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

/// Longest `messageId`, in bytes as it was written between the quotes.
pub const MESSAGE_ID_BYTES_MAX: usize = 128;

/// One request of a client. Channel names in it have passed
/// [`check_topic_name`](crate::ids::check_topic_name).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    Subscribe {
        channel: Cow<'a, str>,
        start: Start,
        /// Publications that the history may give at most.
        limit: Option<u64>,
        id: Option<RequestId<'a>>,
        /// Which publications it is for, by their tags.
        filter: Option<Arc<Filter>>,
    },
    Unsubscribe {
        subscription: Subscription<'a>,
        id: Option<RequestId<'a>>,
    },
    Publish {
        channel: Cow<'a, str>,
        data: Data<'a>,
        /// Whether the publisher receives its own publication, if it is subscribed.
        echo: bool,
        id: Option<RequestId<'a>>,
        /// A JSON string with its quotes, of 1 to [`MESSAGE_ID_BYTES_MAX`] bytes between them.
        message_id: Option<&'a str>,
        /// Which of the subscribers it is for.
        filter: Option<Arc<Filter>>,
        tags: Option<Tags>,
    },
    /// A message to a user, or to many connections, under the options of a channel.
    Direct {
        to: Addressee,
        channel: Cow<'a, str>,
        /// As in [`Command::Publish`], and the rest too.
        data: Data<'a>,
        echo: bool,
        id: Option<RequestId<'a>>,
        message_id: Option<&'a str>,
        filter: Option<Arc<Filter>>,
    },
    /// An event or a chat message, passed on whole.
    Message(Box<TypedMessage<'a>>),
    /// What is not built in here.
    Routed(Box<RoutedMessage<'a>>),
    /// Credentials. The token is a secret.
    Auth {
        token: Cow<'a, str>,
        id: Option<RequestId<'a>>,
    },
    /// A query for a part of a history.
    History {
        channel: Cow<'a, str>,
        query: HistoryQuery,
        id: Option<RequestId<'a>>,
    },
    /// A query for who is in a channel.
    Presence {
        channel: Cow<'a, str>,
        query: PresenceQuery,
        id: Option<RequestId<'a>>,
    },
    /// Of a room.
    Room {
        /// `None`: the only one that the connection is in.
        room: Option<Cow<'a, str>>,
        action: RoomAction,
        id: Option<RequestId<'a>>,
    },
    /// A query for the rooms of the connection.
    Rooms {
        id: Option<RequestId<'a>>,
    },
    /// A query for the groups of the connection's user.
    Groups {
        id: Option<RequestId<'a>>,
    },
    /// A query for the time of the server.
    Time {
        id: Option<RequestId<'a>>,
    },
    /// A query for what went over the connection.
    Stats {
        id: Option<RequestId<'a>>,
    },
    /// A query for what the server knows of the connection and its session.
    Session {
        id: Option<RequestId<'a>>,
    },
    /// A query for the sessions of the connection's user.
    Sessions {
        id: Option<RequestId<'a>>,
    },
    /// A session of the connection's user is to end.
    EndSession {
        /// `None`: a text that is no id of ours.
        session: Option<SessionId>,
        id: Option<RequestId<'a>>,
    },
    /// A session that another connection had is to go on here.
    RestoreSession {
        /// `None`: texts that are no ids of ours.
        pair: Option<(SessionId, ConnectionId)>,
        /// In the order of their channels, each once.
        claims: Vec<Claim>,
        id: Option<RequestId<'a>>,
    },
    /// The client has received something of an acked channel.
    Ack {
        received: Received<'a>,
        id: Option<RequestId<'a>>,
    },
    Ping {
        id: Option<RequestId<'a>>,
        /// A JSON number or string, as it was written.
        timestamp: Option<&'a str>,
    },
    Pong,
}

/// The `id` of a request: JSON as it was written, either a string of 1 to
/// [`REQUEST_ID_BYTES_MAX`] bytes between its quotes, or an integer of at most as many digits.
/// Replies carry it verbatim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId<'a>(&'a str);

impl<'a> RequestId<'a> {
    /// As JSON: with quotes if it is a string.
    pub fn as_json(self) -> &'a str {
        self.0
    }

    /// The id that this JSON value is; `None` if it is of another kind or too long. That `value`
    /// is JSON, and nothing around it, is the caller's to know.
    pub fn parse(value: &'a str) -> Option<Self> {
        let valid = is_short_string(value, REQUEST_ID_BYTES_MAX) || is_integer(value);
        valid.then_some(Self(value))
    }
}

/// The family of messages that a request belongs to, and is answered in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `{"action":…}`, answered on the system channel.
    Action,
    /// `{"type":…}`, answered by `{"type":…}`.
    Type,
}

/// A request that is refused, and what of it is known for the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection<'a> {
    pub family: Family,
    pub code: ErrorCode,
    /// For people; names the field.
    pub message: Cow<'static, str>,
    /// As the client wrote it, valid or not; of at most
    /// [`TOPIC_NAME_BYTES_MAX`](crate::ids::TOPIC_NAME_BYTES_MAX) bytes.
    pub channel: Option<Cow<'a, str>>,
    pub id: Option<RequestId<'a>>,
}

impl Rejection<'_> {
    /// Text in which no request can be told from the next.
    fn invalid_json(message: String) -> Self {
        Self {
            family: Family::Action,
            code: ErrorCode::InvalidJson,
            message: Cow::Owned(message),
            channel: None,
            id: None,
        }
    }
}

/// The messages of one text frame, in order; at least one item, even for an empty frame.
///
/// A frame may hold several messages with a newline in the white space between them. Newlines
/// inside a message do not separate. After invalid JSON the rest of the frame is dropped.
///
/// A frame of a megabyte can hold half a million tiny messages, each with its answer: how many are
/// taken is the caller's to bound.
#[derive(Debug, Clone)]
pub struct Commands<'a> {
    rest: &'a str,
    is_first: bool,
}

impl<'a> Commands<'a> {
    pub fn new(frame: &'a str) -> Self {
        Self { rest: frame, is_first: true }
    }

    /// What was not taken yet.
    pub fn rest(&self) -> &'a str {
        self.rest
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, Rejection<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let is_first = mem::replace(&mut self.is_first, false);
        match next_command(&mut self.rest) {
            None if is_first => Some(Err(Rejection::invalid_json("the frame is empty".into()))),
            next => next,
        }
    }
}

/// Takes the next message off `text`. `None` when it is empty; see [`Commands`] for the rules, and
/// for frames that hold nothing at all.
pub fn next_command<'a>(text: &mut &'a str) -> Option<Result<Command<'a>, Rejection<'a>>> {
    if text.is_empty() {
        return None;
    }
    let opening = Opening::read(text);
    if let Some((publish, rest)) = opening.as_ref().and_then(Opening::publication) {
        *text = rest;
        return Some(Ok(publish));
    }
    let mut fields = Fields::default();
    match fields.read(text, opening).and_then(|mut behind| next_message(&mut behind)) {
        Ok(rest) => {
            *text = rest;
            Some(fields.command())
        }
        Err(error) => {
            *text = "";
            Some(Err(Rejection::invalid_json(error.to_string())))
        }
    }
}

/// Goes to the message behind the one just read, or to the end of the frame.
fn next_message<'a>(scanner: &mut Scanner<'a>) -> Result<&'a str, JsonError> {
    let between = scanner.whitespace();
    let rest = scanner.rest();
    if rest.is_empty() || between.contains('\n') { Ok(rest) } else { Err(JsonError::Syntax) }
}
