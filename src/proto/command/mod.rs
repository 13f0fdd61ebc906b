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

#[cfg(test)]
mod tests {
    use super::*;

    fn all(frame: &str) -> Vec<Result<Command<'_>, Rejection<'_>>> {
        Commands::new(frame).collect()
    }

    fn one(frame: &str) -> Result<Command<'_>, Rejection<'_>> {
        let mut commands = all(frame);
        assert_eq!(commands.len(), 1, "{frame}");
        commands.remove(0)
    }

    fn rejected(frame: &str) -> (ErrorCode, String) {
        let rejection = one(frame).expect_err(frame);
        (rejection.code, rejection.message.into_owned())
    }

    fn subscribe(channel: &str) -> Command<'_> {
        Command::Subscribe {
            channel: channel.into(),
            start: Start::Now,
            limit: None,
            id: None,
            filter: None,
        }
    }

    #[test]
    fn the_three_actions() {
        assert_eq!(one(r#"{"action":"subscribe","channel":"a"}"#), Ok(subscribe("a")));
        assert_eq!(
            one(r#"{"id":-7,"channel":"a:b","action":"unsubscribe"}"#),
            Ok(Command::Unsubscribe {
                subscription: Subscription::Channel("a:b".into()),
                id: Some(RequestId("-7"))
            })
        );
        assert_eq!(
            one(r#" { "data" : { "a" : [1, "x\n"] } , "channel":"news","action":"publish"} "#),
            Ok(Command::Publish {
                channel: "news".into(),
                data: Data::Json(r#"{ "a" : [1, "x\n"] }"#),
                echo: true,
                id: None,
                message_id: None,
                filter: None,
                tags: None,
            })
        );
        assert_eq!(
            one(
                r#"{"action":"publish","channel":"c","data":null,"echo":false,"id":"x","messageId":"m\u0031","more":[{}]}"#
            ),
            Ok(Command::Publish {
                channel: "c".into(),
                data: Data::Json("null"),
                echo: false,
                id: Some(RequestId("\"x\"")),
                message_id: Some(r#""m\u0031""#),
                filter: None,
                tags: None,
            })
        );
    }

    #[test]
    fn tags_and_the_filters_over_them() {
        let frame = r#"{"action":"publish","tags":{ "a":"\u0062"},"channel":"c","data":1}"#;
        let Ok(Command::Publish { tags: Some(tags), data: Data::Json("1"), .. }) = one(frame)
        else {
            panic!("{frame}")
        };
        assert_eq!(tags.as_json(), r#"{"a":"b"}"#);
        let none = one(r#"{"action":"publish","tags":{},"channel":"c","data":1}"#);
        assert!(matches!(none, Ok(Command::Publish { tags: None, .. })));
        let frame = r#"{"action":"subscribe","channel":"c","filter":"a == '\u0062'"}"#;
        let Ok(Command::Subscribe { filter: Some(filter), .. }) = one(frame) else {
            panic!("{frame}")
        };
        assert_eq!(filter.text(), "a == 'b'");
    }

    #[test]
    fn pings_and_pongs() {
        assert_eq!(one(r#"{"type":"ping"}"#), Ok(Command::Ping { id: None, timestamp: None }));
        assert_eq!(
            one(r#"{"type":"ping","id":1,"timestamp":1.5e3}"#),
            Ok(Command::Ping { id: Some(RequestId("1")), timestamp: Some("1.5e3") })
        );
        assert_eq!(
            one(r#"{"type":"ping","timestamp":"2026-01-01"}"#),
            Ok(Command::Ping { id: None, timestamp: Some("\"2026-01-01\"") })
        );
        assert_eq!(one(r#"{"type":"pong","timestamp":[]}"#), Ok(Command::Pong));
    }

    #[test]
    fn escapes_in_keys_actions_and_channels_are_decoded() {
        assert_eq!(
            one(r#"{"\u0061ction":"sub\u0073cribe","channel":"\u00fc\/x"}"#),
            Ok(subscribe("ü/x"))
        );
        assert_eq!(one(r#"{"\ud800":1,"action":"subscribe","channel":"a"}"#), Ok(subscribe("a")));
        let (code, message) = rejected(r#"{"action":"subscribe","channel":"\ud800"}"#);
        assert_eq!(
            (code, &*message),
            (ErrorCode::InvalidMessage, "`channel` must be a string of Unicode text")
        );
    }

    #[test]
    fn several_messages_are_separated_by_newlines() {
        let frame = "\n{\"action\":\"subscribe\",\n \"channel\":\"a\"}\r\n \n{\"type\":\"pong\"}\n7\n{\"type\":\"pong\"}\n\n";
        let commands = all(frame);
        assert_eq!(commands.len(), 4);
        assert_eq!(commands[0], Ok(subscribe("a")));
        assert_eq!(commands[1], Ok(Command::Pong));
        assert_eq!(commands[2].as_ref().unwrap_err().code, ErrorCode::InvalidMessage);
        assert_eq!(commands[3], Ok(Command::Pong));
    }

    #[test]
    fn invalid_json_drops_the_rest_of_the_frame() {
        let pong = r#"{"type":"pong"}"#;
        let frame = format!("{pong}\n{{\"type\" \"pong\"}}\n{pong}");
        let commands = all(&frame);
        assert_eq!(commands.len(), 2);
        assert_eq!(commands[1].as_ref().unwrap_err().code, ErrorCode::InvalidJson);
        // Not separated by a newline: not even the first is obeyed.
        for frame in [format!("{pong} {pong}"), format!("{pong}{pong}"), format!("{pong}x")] {
            assert_eq!(rejected(&frame).0, ErrorCode::InvalidJson);
        }
    }

    #[test]
    fn frames_without_a_message_are_invalid() {
        for frame in ["", " ", "\n\r\n\t"] {
            assert_eq!(rejected(frame).0, ErrorCode::InvalidJson);
        }
        let deep = "[".repeat(100);
        let (code, message) = rejected(&deep);
        assert_eq!(code, ErrorCode::InvalidJson);
        assert_eq!(message, "the message is nested deeper than 64");
    }

    #[test]
    fn fields_are_named_when_they_are_wrong() {
        let long = format!(r#"{{"type":"ping","id":"{}"}}"#, "x".repeat(65));
        let cases = [
            ("[]", "a message must be an object"),
            ("{}", "a message needs `action` or `type`"),
            (r#"{"action":1}"#, "`action` must be a string of Unicode text"),
            (r#"{"type":null}"#, "`type` must be a string of Unicode text"),
            (r#"{"action":"subscribe"}"#, "`channel` is missing"),
            (r#"{"action":"subscribe","channel":1}"#, "`channel` must be a string of Unicode text"),
            (r#"{"action":"publish","channel":"a"}"#, "`data` is missing"),
            (
                r#"{"action":"publish","channel":"a","data":1,"echo":0}"#,
                "`echo` must be true or false",
            ),
            (
                r#"{"action":"publish","channel":"a","data":1,"messageId":7}"#,
                "`messageId` must be a string of 1 to 128 bytes",
            ),
            (
                r#"{"action":"publish","channel":"a","data":1,"filter":["a"]}"#,
                "`filter` must be a string of Unicode text",
            ),
            (
                r#"{"action":"publish","channel":"a","data":1,"filter":"a == "}"#,
                "`filter`: expected a value: a number, true, false or a text in quotes at byte 5",
            ),
            (
                r#"{"action":"publish","channel":"a","data":1,"tags":[]}"#,
                "`tags` must be an object",
            ),
            (
                r#"{"action":"publish","channel":"a","data":1,"tags":{"a":"b"},"to":{"user":"b"}}"#,
                "`tags` and `to` exclude each other",
            ),
            (
                r#"{"action":"subscribe","channel":"a","filter":"a >"}"#,
                "`filter`: expected a value: a number, true, false or a text in quotes at byte 3",
            ),
            (r#"{"type":"ping","id":1.5}"#, "`id` must be an integer or a string of 1 to 64 bytes"),
            (r#"{"type":"ping","id":""}"#, "`id` must be an integer or a string of 1 to 64 bytes"),
            (&long, "`id` must be an integer or a string of 1 to 64 bytes"),
            (
                r#"{"type":"ping","timestamp":{}}"#,
                "`timestamp` must be a number or a string, of at most 64 bytes",
            ),
            (
                r#"{"action":"subscribe","channel":"a","channel":"b"}"#,
                "`channel` appears more than once",
            ),
            (r#"{"type":"pong","i\u0064":1,"id":2}"#, "`id` appears more than once"),
        ];
        for (frame, expected) in cases {
            assert_eq!(
                rejected(frame),
                (ErrorCode::InvalidMessage, expected.to_owned()),
                "{frame}"
            );
        }
    }

    #[test]
    fn unknown_names_are_shown_short_and_escaped() {
        let frame = format!(r#"{{"action":"a\n{}"}}"#, "x".repeat(1000));
        let (code, message) = rejected(&frame);
        assert_eq!(code, ErrorCode::UnknownAction);
        assert_eq!(message, format!("unknown action `a\\n{}`", "x".repeat(62)));
        let long = "x".repeat(65);
        let (code, message) = rejected(&format!(r#"{{"type":"{long}"}}"#));
        assert_eq!(code, ErrorCode::NoRoute);
        assert_eq!(message, format!("no route for type `{}`", &long[1..]));
    }

    #[test]
    fn what_is_not_built_in_goes_to_its_route() {
        let frame = r#" {"type":"d\u0061nce","id":7,"messageId":"m","channel":"a","x":[ ]} "#;
        let Ok(Command::Routed(message)) = one(frame) else { panic!("{frame}") };
        assert_eq!((&*message.kind, message.text), ("dance", frame.trim()));
        assert_eq!((message.id, message.message_id), (Some(RequestId("7")), Some("\"m\"")));
        assert_eq!((message.channel.as_deref(), &message.resource), (Some("a"), &None));
        let refused = message.no_route();
        assert_eq!((refused.code, refused.family), (ErrorCode::NoRoute, Family::Type));
        assert_eq!(refused.message, "no route for type `dance`");
        // What its other fields must be is not ours to know.
        let frame = r#"{"type":"command","messageId":7,"channel":{},"data":null}"#;
        let Ok(Command::Routed(message)) = one(frame) else { panic!("{frame}") };
        assert_eq!((message.message_id, &message.channel), (None, &None));
        assert_eq!(rejected(r#"{"type":"dance","id":{}}"#).0, ErrorCode::InvalidMessage);
        let frame = r#"{"type":"query","payload":{"resource":"weather"}}"#;
        let Ok(Command::Routed(message)) = one(frame) else { panic!("{frame}") };
        assert_eq!(message.no_route().message, "no route for query `weather`");
    }

    #[test]
    fn channel_names_are_checked() {
        let subscribe =
            |channel: &str| format!(r#"{{"action":"subscribe","channel":"{channel}"}}"#);
        assert_eq!(rejected(&subscribe("system")).0, ErrorCode::ChannelReserved);
        assert_eq!(rejected(&subscribe("")).0, ErrorCode::ChannelInvalid);
        assert_eq!(rejected(&subscribe("a\\u0000")).0, ErrorCode::ChannelInvalid);
        assert_eq!(rejected(&subscribe(&"x".repeat(256))).0, ErrorCode::ChannelInvalid);
    }

    #[test]
    fn a_rejection_knows_its_family_channel_and_id() {
        let frame = r#"{"action":"publish","type":"ping","channel":"a","id":"x"}"#;
        let rejection = one(frame).unwrap_err();
        assert_eq!(rejection.family, Family::Action);
        assert_eq!(rejection.channel.as_deref(), Some("a"));
        assert_eq!(rejection.id, Some(RequestId("\"x\"")));

        let frame = r#"{"type":"ping","id":7,"timestamp":[]}"#;
        let rejection = one(frame).unwrap_err();
        assert_eq!((rejection.family, rejection.id), (Family::Type, Some(RequestId("7"))));

        let frame = r#"{"action":"dance","id":7,"id":8}"#;
        assert_eq!(one(frame).unwrap_err().id, None);
        let frame = format!(r#"{{"action":"subscribe","channel":"{}"}}"#, "x".repeat(256));
        assert_eq!(one(&frame).unwrap_err().channel, None);
    }
}
