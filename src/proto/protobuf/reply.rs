//! What the server says in protobuf, as complete binary frames: one allocation each, but for texts that
//! JSON writes with escapes.

use std::borrow::Cow;

use bytes::Bytes;

use crate::ids::{ConnectionId, Position, SessionId, UserName};
use crate::proto::command::{Rejection, RequestId};
use crate::proto::json::RawString;
use crate::proto::protobuf::field::{Field, binary_frame};
use crate::proto::protobuf::number;
use crate::proto::protobuf::publication::Publication;
use crate::proto::recall::{Recovery, Restored, Standing, Unavailable};
use crate::proto::reply::{GAP_REASON, PROTOCOL_VERSION};

/// Field of the envelope: the server's number of a message.
const ID: u32 = 1;
/// Field of the envelope: the request that is answered.
const REQUEST_ID: u32 = 2;

/// The answer to a `subscribe` that succeeded.
pub fn subscription_confirm(
    channel: &str,
    standing: &Standing,
    subscription_id: Option<u64>,
    id: Option<RequestId<'_>>,
) -> Bytes {
    let epoch = standing.position.map(|position| position.epoch.to_string());
    let place = standing.position.zip(epoch.as_deref()).map(position_fields);
    let fields = standing_fields(channel, standing, subscription_id, place.as_ref());
    answer(id, number::CONFIRMATION, &fields)
}

/// `place`: the fields of its position.
fn standing_fields<'a>(
    channel: &'a str,
    standing: &Standing,
    subscription_id: Option<u64>,
    place: Option<&'a [Field<'a>; 2]>,
) -> [Field<'a>; 6] {
    let (recovered, count, reason) = match standing.recovery {
        None => (Field::Absent, 0, ""),
        Some(Recovery { outcome, count }) => {
            let reason = outcome.err().map_or("", Unavailable::as_str);
            (Field::Present(4, u64::from(outcome.is_ok())), count, reason)
        }
    };
    [
        Field::Text(1, channel),
        subscription_id.map_or(Field::Absent, |id| Field::Present(2, id)),
        Field::message(3, place.map(|fields| &fields[..])),
        recovered,
        Field::Number(5, count),
        Field::Text(7, reason),
    ]
}

/// As [`session_restored`](crate::proto::reply::session_restored).
pub fn session_restored(
    (session_id, connection_id): (SessionId, ConnectionId),
    user: Option<&UserName>,
    subscriptions: &[Restored<'_>],
    id: Option<RequestId<'_>>,
    message_id: u64,
) -> Bytes {
    let (session, connection) = (session_id.to_string(), connection_id.to_string());
    let position = |restored: &Restored<'_>| restored.outcome.ok()?.position;
    let epochs: Vec<_> = subscriptions
        .iter()
        .map(|restored| position(restored).map(|position| position.epoch.to_string()))
        .collect();
    let places: Vec<_> = subscriptions
        .iter()
        .zip(&epochs)
        .map(|(restored, epoch)| position(restored).zip(epoch.as_deref()).map(position_fields))
        .collect();
    let listed: Vec<_> = subscriptions
        .iter()
        .zip(&places)
        .map(|(Restored { channel, subscription_id, outcome }, place)| match outcome {
            Ok(standing) => standing_fields(channel, standing, *subscription_id, place.as_ref()),
            Err(code) => [
                Field::Text(1, channel),
                Field::Present(4, 0),
                Field::Text(7, code.as_str()),
                Field::Text(8, code.as_str()),
                Field::Absent,
                Field::Absent,
            ],
        })
        .collect();
    let mut fields = vec![Field::Text(1, &session), Field::Text(2, &connection)];
    fields.extend(listed.iter().map(|confirmation| Field::Message(3, confirmation)));
    fields.extend(user.map(|user| Field::Text(4, user)));
    numbered(message_id, id, number::SESSION_RESTORED, &fields)
}

/// The answer to an `unsubscribe` that succeeded.
pub fn unsubscription_confirm(channel: &str, id: Option<RequestId<'_>>) -> Bytes {
    answer(id, number::CONFIRMATION, &[Field::Text(1, channel), Field::flag(6, true)])
}

/// As [`removed`](crate::proto::reply::removed).
pub fn removed(channel: &str, reason: &str) -> Bytes {
    let fields = [Field::Text(1, channel), Field::flag(6, true), Field::Text(7, reason)];
    answer(None, number::CONFIRMATION, &fields)
}

/// As [`gap`](crate::proto::reply::gap).
pub fn gap(channel: &str, from: u64, to: u64) -> Bytes {
    let reason = Field::Text(4, GAP_REASON);
    let fields = [Field::Text(1, channel), Field::Number(2, from), Field::Number(3, to), reason];
    answer(None, number::GAP, &fields)
}

/// As [`queue_gap`](crate::proto::reply::queue_gap).
pub fn queue_gap(namespace: &str) -> Bytes {
    answer(None, number::GAP, &[Field::Text(4, GAP_REASON), Field::Text(5, namespace)])
}

/// As [`response`](crate::proto::reply::response).
pub fn response(
    payload: &str,
    id: Option<RequestId<'_>>,
    (now_unix_ms, message_id): (u64, u64),
) -> Bytes {
    let fields = [Field::Text(1, payload), Field::Number(2, now_unix_ms)];
    numbered(message_id, id, number::RESPONSE, &fields)
}

/// As [`history_page`](crate::proto::reply::history_page), from the same frames.
pub fn history_page(
    channel: &str,
    position: Option<Position>,
    frames: &[Bytes],
    complete: Result<(), Unavailable>,
    more: bool,
    id: Option<RequestId<'_>>,
    (now_unix_ms, message_id): (u64, u64),
) -> Bytes {
    let epoch = position.map(|position| position.epoch.to_string());
    let place = position.zip(epoch.as_deref()).map(position_fields);
    let publications: Vec<_> = frames.iter().map(|frame| Publication::read(frame)).collect();
    let publications: Vec<_> = publications.iter().map(Publication::fields).collect();
    let mut history = Vec::with_capacity(publications.len() + 5);
    history.push(Field::Text(1, channel));
    history.push(Field::message(2, place.as_ref().map(|fields| &fields[..])));
    history.extend(publications.iter().map(|fields| Field::Message(3, fields)));
    history.push(Field::flag(4, complete.is_ok()));
    history.push(Field::Text(5, complete.err().map_or("", Unavailable::as_str)));
    history.push(Field::flag(6, more));
    let response = [Field::Number(2, now_unix_ms), Field::Message(3, &history)];
    numbered(message_id, id, number::RESPONSE, &response)
}

/// The answer to a request that is refused, in whichever family it was.
pub fn error(rejection: &Rejection<'_>, now_unix_ms: u64, message_id: u64) -> Bytes {
    let fields = [
        Field::Text(1, rejection.code.as_str()),
        Field::Text(2, &rejection.message),
        Field::Text(3, rejection.channel.as_deref().unwrap_or_default()),
        Field::Number(4, now_unix_ms),
    ];
    numbered(message_id, rejection.id, number::ERROR, &fields)
}

/// The acknowledgement of a publication that asked for one. `message_id` is JSON, as
/// [`Command::Publish`](crate::proto::Command) has it.
pub fn publish_ack(
    id: Option<RequestId<'_>>,
    message_id: Option<&str>,
    channel: &str,
    offset: Option<u64>,
) -> Bytes {
    let message_id = message_id.map(plain).unwrap_or_default();
    let fields = [
        Field::Text(1, &message_id),
        Field::Text(2, channel),
        Field::Number(3, offset.unwrap_or_default()),
    ];
    answer(id, number::ACK, &fields)
}

/// As [`taken`](crate::proto::reply::taken).
pub fn taken(id: Option<RequestId<'_>>, message_id: Option<&str>) -> Bytes {
    publish_ack(id, message_id, "", None)
}

/// As [`refused`](crate::proto::reply::refused).
pub fn refused(
    code: &str,
    text: &str,
    id: Option<RequestId<'_>>,
    (now_unix_ms, message_id): (u64, u64),
) -> Bytes {
    let fields = [Field::Text(1, code), Field::Text(2, text), Field::Number(4, now_unix_ms)];
    numbered(message_id, id, number::ERROR, &fields)
}

/// The answer to a `ping`. `timestamp` is JSON, as [`Command::Ping`](crate::proto::Command) has it.
pub fn pong(id: Option<RequestId<'_>>, timestamp: Option<&str>) -> Bytes {
    let timestamp: i64 = timestamp.and_then(|text| text.parse().ok()).unwrap_or_default();
    answer(id, number::PONG, &[Field::Number(1, timestamp as u64)])
}

/// The first message on a connection.
pub fn welcome(
    connection_id: ConnectionId,
    session_id: SessionId,
    message_id: u64,
    heartbeat_ms: u64,
    message_bytes_max: usize,
) -> Bytes {
    let fields = [
        Field::Text(1, &connection_id.to_string()),
        Field::Text(2, &session_id.to_string()),
        Field::Text(3, PROTOCOL_VERSION),
        Field::Number(4, heartbeat_ms),
        Field::Number(5, message_bytes_max as u64),
    ];
    numbered(message_id, None, number::WELCOME, &fields)
}

/// An envelope with an answer to the request of that id.
fn answer(id: Option<RequestId<'_>>, body: u32, fields: &[Field<'_>]) -> Bytes {
    let id = id.map(|id| plain(id.as_json())).unwrap_or_default();
    binary_frame(&[Field::Text(REQUEST_ID, &id), Field::Message(body, fields)])
}

/// As [`answer`], and the server's number of the message.
fn numbered(message_id: u64, id: Option<RequestId<'_>>, body: u32, fields: &[Field<'_>]) -> Bytes {
    let id = id.map(|id| plain(id.as_json())).unwrap_or_default();
    binary_frame(&[
        Field::Text(ID, &message_id.to_string()),
        Field::Text(REQUEST_ID, &id),
        Field::Message(body, fields),
    ])
}

fn position_fields<'a>((position, epoch): (Position, &'a str)) -> [Field<'a>; 2] {
    [Field::Text(1, epoch), Field::Number(2, position.offset)]
}

/// The text that a JSON string says, or a JSON number as it is.
fn plain(json: &str) -> Cow<'_, str> {
    RawString::of_value(json).and_then(RawString::decode).unwrap_or(Cow::Borrowed(json))
}
