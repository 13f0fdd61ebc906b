//! What the server says in JSON, as complete text frames: one allocation each.

mod session;
mod stats;

use bytes::Bytes;

use crate::ids::{ConnectionId, Position, SessionId};
use crate::proto::command::{Family, Rejection, RequestId};
use crate::proto::encoder::{Part, retained_fields, text_frame};
use crate::proto::error_code::ErrorCode;
use crate::proto::json;
use crate::proto::recall::{Recovery, Standing, Unavailable};
pub use session::{
    LinkQuality, Listed, SessionFacts, session_facts, session_list, session_restored,
};
pub use stats::{ConnectionFacts, groups, stats, time};

/// The version of the protocol this server speaks.
pub const PROTOCOL_VERSION: &str = "1.2";

/// Why publications will not come, in a `gap`.
pub const GAP_REASON: &str = "trimmed";

/// The answer to a `subscribe` that succeeded. `channel` is the name, not yet JSON. `subscription_id`: where
/// the client is told of a history.
pub fn subscription_confirm(
    channel: &str,
    standing: &Standing,
    subscription_id: Option<u64>,
    id: Option<RequestId<'_>>,
) -> Bytes {
    confirm("subscription_confirm", channel, &standing_fields(standing, subscription_id), id)
}

/// The answer to an `unsubscribe` that succeeded.
pub fn unsubscription_confirm(channel: &str, id: Option<RequestId<'_>>) -> Bytes {
    confirm("unsubscription_confirm", channel, "", id)
}

/// Tells a connection that it is not in a room, nor subscribed to it, any more.
pub fn removed(channel: &str, reason: &'static str) -> Bytes {
    confirm("unsubscription_confirm", channel, &format!(r#","reason":"{reason}""#), None)
}

/// `fields` is JSON: more members, each behind a comma.
fn confirm(kind: &str, channel: &str, fields: &str, id: Option<RequestId<'_>>) -> Bytes {
    let [id_name, id] = optional(r#","requestId":"#, id.map(RequestId::as_json));
    text_frame(&[
        Part::raw(r#"{"channel":"system","data":{"type":"#),
        Part::String(kind),
        Part::raw(r#","channel":"#),
        Part::String(channel),
        Part::raw(fields),
        id_name,
        id,
        Part::raw("}}"),
    ])
}

/// Allocates nothing without a history.
fn standing_fields(standing: &Standing, subscription_id: Option<u64>) -> String {
    let mut fields = String::new();
    if let Some(subscription_id) = subscription_id {
        fields.push_str(&format!(r#","subscriptionId":{subscription_id}"#));
    }
    if let Some(Position { epoch, offset }) = standing.position {
        fields.push_str(&format!(r#","epoch":"{epoch}","offset":{offset}"#));
    }
    if let Some(Recovery { outcome, count }) = standing.recovery {
        let recovered = outcome.is_ok();
        fields.push_str(&format!(r#","recovered":{recovered},"recoveredCount":{count}"#));
        if let Err(reason) = outcome {
            let code = ErrorCode::PositionUnavailable;
            fields.push_str(&format!(r#","reason":"{}","code":"{code}""#, reason.as_str()));
        }
    }
    fields
}

/// Tells a subscriber that it cannot have the publications from offset `from` to `to`, both included:
/// they are not kept any more.
pub fn gap(channel: &str, from: u64, to: u64) -> Bytes {
    text_frame(&[
        Part::raw(r#"{"channel":"system","data":{"type":"gap","channel":"#),
        Part::String(channel),
        Part::raw(&format!(r#","from":{from},"to":{to},"reason":"{GAP_REASON}"}}}}"#)),
    ])
}

/// The answer to a query for a history.
///
/// `frames` are those of [`retained_frame`](crate::proto::encoder::retained_frame) for this channel.
/// `complete`: whether the history still reaches back to where the query begins; `more`: whether the
/// range has more than these. `now_unix_ms` and `message_id`, the number of this message, are as in
/// [`error`].
pub fn history_page(
    channel: &str,
    position: Option<Position>,
    frames: &[Bytes],
    complete: Result<(), Unavailable>,
    more: bool,
    id: Option<RequestId<'_>>,
    (now_unix_ms, message_id): (u64, u64),
) -> Bytes {
    let [id_name, id] = optional(r#","requestId":"#, id.map(RequestId::as_json));
    let epoch = position.map_or("null".to_owned(), |position| format!("\"{}\"", position.epoch));
    let offset = position.map_or(0, |position| position.offset);
    let head = format!(r#"{{"id":"{message_id}","type":"response""#);
    let time = format!(r#","timestamp":{now_unix_ms},"payload":{{"channel":"#);
    let place = format!(r#","epoch":{epoch},"offset":{offset},"publications":["#);
    let end = match complete {
        Ok(()) => format!(r#"],"complete":true,"more":{more}}}}}"#),
        Err(reason) => {
            let reason = reason.as_str();
            format!(r#"],"complete":false,"reason":"{reason}","more":{more}}}}}"#)
        }
    };
    let mut parts = vec![Part::raw(&head), id_name, id, Part::raw(&time), Part::String(channel)];
    parts.push(Part::raw(&place));
    for (index, frame) in frames.iter().enumerate() {
        parts.push(Part::raw(if index == 0 { "{" } else { ",{" }));
        parts.push(Part::Raw(retained_fields(channel, frame)));
    }
    parts.push(Part::raw(&end));
    text_frame(&parts)
}

/// The answer to a request that is refused, in the family of the request.
///
/// `now_unix_ms` and `message_id`, the number of this message, are used in the `type` family.
pub fn error(rejection: &Rejection<'_>, now_unix_ms: u64, message_id: u64) -> Bytes {
    let [id_name, id] = optional(r#","requestId":"#, rejection.id.map(RequestId::as_json));
    match rejection.family {
        Family::Action => {
            let [channel_name, channel] = match &rejection.channel {
                Some(channel) => [Part::raw(r#","channel":"#), Part::String(channel)],
                None => [Part::raw(""); 2],
            };
            text_frame(&[
                Part::raw(r#"{"channel":"system","data":{"type":"error","message":"#),
                Part::String(&rejection.message),
                Part::raw(r#","code":"#),
                Part::String(rejection.code.as_str()),
                channel_name,
                channel,
                id_name,
                id,
                Part::raw("}}"),
            ])
        }
        Family::Type => text_frame(&[
            Part::raw(r#"{"id":"#),
            Part::String(&message_id.to_string()),
            Part::raw(r#","type":"error""#),
            id_name,
            id,
            Part::raw(r#","timestamp":"#),
            Part::raw(&now_unix_ms.to_string()),
            Part::raw(r#","error":"#),
            Part::String(&rejection.message),
            Part::raw(r#","code":"#),
            Part::String(rejection.code.as_str()),
            Part::raw("}"),
        ]),
    }
}

/// The acknowledgement of a publication that asked for one: by `id`, by `messageId`, or by both.
///
/// `message_id` is JSON, as [`Command::Publish`](crate::proto::Command) has it.
/// `offset`: of the publication, on a channel with history.
pub fn publish_ack(
    id: Option<RequestId<'_>>,
    message_id: Option<&str>,
    channel: &str,
    offset: Option<u64>,
) -> Bytes {
    let mut digits = itoa::Buffer::new();
    let offset = offset.map(|offset| digits.format(offset));
    let [offset_name, offset] = optional(r#","offset":"#, offset);
    let [message_id_name, message_id] = optional(r#","messageId":"#, message_id);
    let [id_name, id] = optional(r#","requestId":"#, id.map(RequestId::as_json));
    text_frame(&[
        Part::raw(r#"{"type":"ack""#),
        message_id_name,
        message_id,
        id_name,
        id,
        Part::raw(r#","channel":"#),
        Part::String(channel),
        offset_name,
        offset,
        Part::raw("}"),
    ])
}

/// The acknowledgement of a message that a route has taken. `message_id` is as in [`publish_ack`].
pub fn taken(id: Option<RequestId<'_>>, message_id: Option<&str>) -> Bytes {
    let [message_id_name, message_id] = optional(r#","messageId":"#, message_id);
    let [id_name, id] = optional(r#","requestId":"#, id.map(RequestId::as_json));
    let begin = Part::raw(r#"{"type":"ack""#);
    text_frame(&[begin, message_id_name, message_id, id_name, id, Part::raw("}")])
}

/// The answer to a message that a route does not want. `now_unix_ms` and `message_id` are as in [`error`].
pub fn refused(
    code: &str,
    text: &str,
    id: Option<RequestId<'_>>,
    (now_unix_ms, message_id): (u64, u64),
) -> Bytes {
    let [id_name, id] = optional(r#","requestId":"#, id.map(RequestId::as_json));
    text_frame(&[
        Part::raw(&format!(r#"{{"id":"{message_id}","type":"error""#)),
        id_name,
        id,
        Part::raw(&format!(r#","timestamp":{now_unix_ms},"error":"#)),
        Part::String(text),
        Part::raw(r#","code":"#),
        Part::String(code),
        Part::raw("}"),
    ])
}

/// The answer to a `ping` message. `timestamp` is JSON, as
/// [`Command::Ping`](crate::proto::Command) has it.
pub fn pong(id: Option<RequestId<'_>>, timestamp: Option<&str>) -> Bytes {
    let id = id.map(RequestId::as_json);
    let [id_name, id_value] = optional(r#","id":"#, id);
    let [request_id_name, request_id] = optional(r#","requestId":"#, id);
    let [timestamp_name, timestamp] = optional(r#","timestamp":"#, timestamp);
    text_frame(&[
        Part::raw(r#"{"type":"pong""#),
        id_name,
        id_value,
        request_id_name,
        request_id,
        timestamp_name,
        timestamp,
        Part::raw("}"),
    ])
}

/// The answer to a request of the `type` family. `payload` is JSON; `now_unix_ms` and `message_id` are as in
/// [`error`].
pub fn response(
    payload: &str,
    id: Option<RequestId<'_>>,
    (now_unix_ms, message_id): (u64, u64),
) -> Bytes {
    let [id_name, id] = optional(r#","requestId":"#, id.map(RequestId::as_json));
    text_frame(&[
        Part::raw(&format!(r#"{{"id":"{message_id}","type":"response""#)),
        id_name,
        id,
        Part::raw(&format!(r#","timestamp":{now_unix_ms},"payload":"#)),
        Part::raw(payload),
        Part::raw("}"),
    ])
}

/// The payload of the [`response`] to credentials that are right.
pub fn authenticated(user: &str, connection_id: ConnectionId, session_id: SessionId) -> String {
    let user = json::quote(user);
    format!(
        r#"{{"userId":{user},"connectionId":"{connection_id}","sessionId":"{session_id}","expiresAt":null}}"#
    )
}

/// Tells a user that messages which waited under this namespace are not kept any more.
pub fn queue_gap(namespace: &str) -> Bytes {
    text_frame(&[
        Part::raw(r#"{"channel":"system","data":{"type":"queue_gap","namespace":"#),
        Part::String(namespace),
        Part::raw(r#","reason":"trimmed"}}"#),
    ])
}

/// The first message on a connection that asked for a `stentor.v1.*` subprotocol.
///
/// `message_id` is the number of this message, `heartbeat_ms` the time between two pings.
pub fn welcome(
    connection_id: ConnectionId,
    session_id: SessionId,
    message_id: u64,
    heartbeat_ms: u64,
    message_bytes_max: usize,
) -> Bytes {
    text_frame(&[
        Part::raw(r#"{"type":"welcome","id":"#),
        Part::String(&message_id.to_string()),
        Part::raw(r#","connectionId":"#),
        Part::String(&connection_id.to_string()),
        Part::raw(r#","sessionId":"#),
        Part::String(&session_id.to_string()),
        Part::raw(r#","version":"#),
        Part::String(PROTOCOL_VERSION),
        Part::raw(r#","heartbeat":"#),
        Part::raw(&heartbeat_ms.to_string()),
        Part::raw(r#","maxMessageSize":"#),
        Part::raw(&message_bytes_max.to_string()),
        Part::raw("}"),
    ])
}

/// A member whose value is JSON already; nothing at all without a value.
fn optional<'a>(name: &'a str, json: Option<&'a str>) -> [Part<'a>; 2] {
    match json {
        Some(json) => [Part::raw(name), Part::raw(json)],
        None => [Part::raw(""); 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, ShardId};
    use crate::proto::command::{Command, Commands};
    use crate::proto::encoder::retained_frame;

    /// The payload of a text frame.
    fn payload(frame: Bytes) -> String {
        assert_eq!(frame[0], 0x81);
        let header_len = if frame[1] < 126 { 2 } else { 4 };
        String::from_utf8(frame[header_len..].to_vec()).unwrap()
    }

    fn rejection(frame: &str) -> Rejection<'_> {
        Commands::new(frame).next().unwrap().unwrap_err()
    }

    fn id(frame: &str) -> Option<RequestId<'_>> {
        match Commands::new(frame).next() {
            Some(Ok(Command::Ping { id, .. })) => id,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn confirmations_are_byte_exact() {
        assert_eq!(
            payload(subscription_confirm("chat:1", &Standing::default(), None, None)),
            r#"{"channel":"system","data":{"type":"subscription_confirm","channel":"chat:1"}}"#
        );
        assert_eq!(
            payload(unsubscription_confirm("a\"b", id(r#"{"type":"ping","id":"x\n"}"#))),
            r#"{"channel":"system","data":{"type":"unsubscription_confirm","channel":"a\"b","requestId":"x\n"}}"#
        );
    }

    #[test]
    fn a_confirmation_says_where_the_subscription_stands() {
        let position = Some(Position { epoch: Epoch(0xE), offset: 7 });
        let plain = Standing { position, recovery: None };
        let start = r#"{"channel":"system","data":{"type":"subscription_confirm","channel":"a""#;
        assert_eq!(
            payload(subscription_confirm("a", &plain, Some(7), None)),
            format!(r#"{start},"subscriptionId":7,"epoch":"000000000000000e","offset":7}}}}"#)
        );
        let recovery = Some(Recovery { outcome: Ok(()), count: 3 });
        assert_eq!(
            payload(subscription_confirm("a", &Standing { position, recovery }, None, None)),
            format!(
                r#"{start},"epoch":"000000000000000e","offset":7,"recovered":true,"recoveredCount":3}}}}"#
            )
        );
        let recovery = Some(Recovery { outcome: Err(Unavailable::NoHistory), count: 0 });
        assert_eq!(
            payload(subscription_confirm("a", &Standing { position: None, recovery }, None, None)),
            format!(
                r#"{start},"recovered":false,"recoveredCount":0,"reason":"no_history","code":"position_unavailable"}}}}"#
            )
        );
        assert_eq!(
            payload(gap("a", 3, 5)),
            r#"{"channel":"system","data":{"type":"gap","channel":"a","from":3,"to":5,"reason":"trimmed"}}"#
        );
    }

    #[test]
    fn a_page_has_publications_without_their_channel() {
        let frames = [retained_frame("a:b", 4, b"{}"), retained_frame("a:b", 5, b"\"x\"")];
        let position = Some(Position { epoch: Epoch(0xE), offset: 9 });
        let query = id(r#"{"type":"ping","id":"q"}"#);
        assert_eq!(
            payload(history_page("a:b", position, &frames, Ok(()), true, query, (1, 2))),
            r#"{"id":"2","type":"response","requestId":"q","timestamp":1,"payload":{"channel":"a:b","epoch":"000000000000000e","offset":9,"publications":[{"offset":4,"data":{}},{"offset":5,"data":"x"}],"complete":true,"more":true}}"#
        );
        let trimmed = Err(Unavailable::Trimmed);
        assert_eq!(
            payload(history_page("a:b", None, &[], trimmed, false, None, (1, 2))),
            r#"{"id":"2","type":"response","timestamp":1,"payload":{"channel":"a:b","epoch":null,"offset":0,"publications":[],"complete":false,"reason":"trimmed","more":false}}"#
        );
    }

    #[test]
    fn errors_are_in_the_family_of_the_request() {
        let refused = rejection(r#"{"action":"publish","channel":"a","id":7}"#);
        assert_eq!(
            payload(error(&refused, 1, 2)),
            r#"{"channel":"system","data":{"type":"error","message":"`data` is missing","code":"invalid_message","channel":"a","requestId":7}}"#
        );
        let refused = rejection("nonsense");
        assert_eq!(
            payload(error(&refused, 1, 2)),
            r#"{"channel":"system","data":{"type":"error","message":"the message is not valid JSON","code":"invalid_json"}}"#
        );
        let frame = r#"{"type":"dance","id":"q"}"#;
        let Some(Ok(Command::Routed(message))) = Commands::new(frame).next() else {
            panic!("{frame}");
        };
        let refused = message.no_route();
        assert_eq!(
            payload(error(&refused, 1700000000000, 5)),
            r#"{"id":"5","type":"error","requestId":"q","timestamp":1700000000000,"error":"no route for type `dance`","code":"no_route"}"#
        );
    }

    #[test]
    fn acknowledgements_name_what_is_known() {
        let id = id(r#"{"type":"ping","id":9}"#);
        assert_eq!(
            payload(publish_ack(id, Some("\"m\""), "c", None)),
            r#"{"type":"ack","messageId":"m","requestId":9,"channel":"c"}"#
        );
        assert_eq!(
            payload(publish_ack(id, None, "c", Some(17))),
            r#"{"type":"ack","requestId":9,"channel":"c","offset":17}"#
        );
    }

    #[test]
    fn what_a_route_says_of_a_message_is_told() {
        let id = id(r#"{"type":"ping","id":9}"#);
        assert_eq!(
            payload(taken(id, Some("\"m\""))),
            r#"{"type":"ack","messageId":"m","requestId":9}"#
        );
        assert_eq!(
            payload(refused("too_late", "no \"more\"", id, (1, 2))),
            r#"{"id":"2","type":"error","requestId":9,"timestamp":1,"error":"no \"more\"","code":"too_late"}"#
        );
    }

    #[test]
    fn who_is_authenticated_is_told_its_names() {
        let connection = ConnectionId { shard: ShardId(1), slot: 5, secret: 0xABC };
        let session = SessionId { shard: ShardId(1), secret: 0 };
        let id = id(r#"{"type":"ping","id":9}"#);
        assert_eq!(
            payload(response(&authenticated("b\"b", connection, session), id, (1, 2))),
            r#"{"id":"2","type":"response","requestId":9,"timestamp":1,"payload":{"userId":"b\"b","connectionId":"00010000000500000000000000000000000000000abc","sessionId":"000100000000000000000000000000000000","expiresAt":null}}"#
        );
        assert_eq!(
            payload(queue_gap("chat")),
            r#"{"channel":"system","data":{"type":"queue_gap","namespace":"chat","reason":"trimmed"}}"#
        );
    }

    #[test]
    fn a_pong_echoes_what_the_ping_had() {
        assert_eq!(payload(pong(None, None)), r#"{"type":"pong"}"#);
        assert_eq!(
            payload(pong(id(r#"{"type":"ping","id":"a"}"#), Some("1.50"))),
            r#"{"type":"pong","id":"a","requestId":"a","timestamp":1.50}"#
        );
    }

    #[test]
    fn a_welcome_has_the_names_of_the_connection() {
        let connection = ConnectionId { shard: ShardId(1), slot: 5, secret: 0xABC };
        let session = SessionId { shard: ShardId(1), secret: u128::MAX };
        assert_eq!(
            payload(welcome(connection, session, 1, 25000, 1 << 20)),
            r#"{"type":"welcome","id":"1","connectionId":"00010000000500000000000000000000000000000abc","sessionId":"0001ffffffffffffffffffffffffffffffff","version":"1.2","heartbeat":25000,"maxMessageSize":1048576}"#
        );
    }
}
