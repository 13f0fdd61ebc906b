//! What the server says: each message is as the schema has it.

use bytes::Bytes;
use proptest::prelude::*;

use super::decode;
use super::envelope::envelope::Body;
use super::envelope::{
    Ack, Confirmation, Envelope, Error, Gap, History, Pong, Position, Publication, Response,
    SessionRestored, Welcome,
};
use crate::ids::{self, ConnectionId, Epoch, SessionId, ShardId, UserName};
use crate::proto::encoder::{publication_frame, retained_frame};
use crate::proto::protobuf::{self, bytes_as_json};
use crate::proto::{
    Answer, Data, Encoding, ErrorCode, Family, Recovery, Rejection, RequestId, Restored, Standing,
    Unavailable, json,
};

fn said(answer: &Answer<'_>) -> Envelope {
    decode(&answer.frame(Encoding::Protobuf))
}

fn answered(request_id: &str, body: Body) -> Envelope {
    Envelope { id: String::new(), request_id: request_id.to_owned(), body: Some(body) }
}

const PLACE: ids::Position = ids::Position { epoch: Epoch(0xE), offset: 7 };

fn place() -> Option<Position> {
    Some(Position { epoch: "000000000000000e".into(), offset: 7 })
}

#[test]
fn confirmations_say_where_a_subscription_stands() {
    let id = RequestId::parse(r#""q\n""#);
    let confirmed = |standing: &Standing| {
        let (channel, subscription_id) = ("a", standing.position.map(|_| 3));
        said(&Answer::SubscriptionConfirm { channel, standing, subscription_id, id })
    };
    let confirmation = Confirmation { channel: "a".into(), ..Default::default() };
    assert_eq!(
        confirmed(&Standing::default()),
        answered("q\n", Body::Confirmation(confirmation.clone()))
    );
    let recovery = Some(Recovery { outcome: Ok(()), count: 3 });
    let recovered = Confirmation {
        subscription_id: Some(3),
        position: place(),
        recovered: Some(true),
        recovered_count: 3,
        ..confirmation.clone()
    };
    assert_eq!(
        confirmed(&Standing { position: Some(PLACE), recovery }),
        answered("q\n", Body::Confirmation(recovered))
    );
    let recovery = Some(Recovery { outcome: Err(Unavailable::NoHistory), count: 0 });
    let lost = Confirmation {
        recovered: Some(false),
        reason: "no_history".into(),
        ..confirmation.clone()
    };
    assert_eq!(
        confirmed(&Standing { position: None, recovery }),
        answered("q\n", Body::Confirmation(lost))
    );
    let left = Confirmation { unsubscribed: true, ..confirmation };
    assert_eq!(
        said(&Answer::UnsubscriptionConfirm { channel: "a", id }),
        answered("q\n", Body::Confirmation(left))
    );
}

#[test]
fn a_page_has_publications_without_their_channel() {
    let bytes = bytes_as_json(b"\xff\x00");
    let frames = [retained_frame("a:b", 4, b"{}"), retained_frame("a:b", 5, bytes.as_bytes())];
    let page = |position, frames, complete, more| {
        let envelope = (1, 2);
        let (channel, id) = ("a:b", RequestId::parse("\"q\""));
        said(&Answer::HistoryPage { channel, position, frames, complete, more, id, envelope })
    };
    let publication =
        |offset, data: &[u8]| Publication { offset, data: data.to_vec(), ..Default::default() };
    let history = History {
        channel: "a:b".into(),
        position: place(),
        publications: vec![publication(4, b"{}"), publication(5, b"\xff\x00")],
        complete: true,
        more: true,
        reason: String::new(),
    };
    let expected = |history| {
        let history = Some(history);
        let body = Body::Response(Response { timestamp_ms: 1, history, payload: Vec::new() });
        Envelope { id: "2".into(), ..answered("q", body) }
    };
    assert_eq!(page(Some(PLACE), &frames, Ok(()), true), expected(history));
    let nothing = History { channel: "a:b".into(), reason: "trimmed".into(), ..Default::default() };
    assert_eq!(page(None, &[], Err(Unavailable::Trimmed), false), expected(nothing));
}

#[test]
fn the_other_answers_have_what_is_known() {
    let id = RequestId::parse("\"q\"");
    let rejection = Rejection {
        family: Family::Action,
        code: ErrorCode::InvalidMessage,
        message: "why".into(),
        channel: Some("c".into()),
        id,
    };
    let error = Error {
        code: "invalid_message".into(),
        message: "why".into(),
        channel: "c".into(),
        timestamp_ms: 5,
    };
    assert_eq!(
        said(&Answer::Error { rejection: &rejection, now_unix_ms: 5, message_id: 9 }),
        Envelope { id: "9".into(), ..answered("q", Body::Error(error)) }
    );
    let payload = r#"{"a":1}"#;
    let response = Response { payload: payload.into(), timestamp_ms: 5, history: None };
    assert_eq!(
        said(&Answer::Response { payload, id, envelope: (5, 9) }),
        Envelope { id: "9".into(), ..answered("q", Body::Response(response)) }
    );
    let queue_gap = Gap { namespace: "n".into(), reason: "trimmed".into(), ..Default::default() };
    assert_eq!(said(&Answer::QueueGap { namespace: "n" }), answered("", Body::Gap(queue_gap)));
    assert_eq!(
        said(&Answer::Gap { channel: "c", from: 3, to: 5 }),
        answered(
            "",
            Body::Gap(Gap {
                channel: "c".into(),
                from: 3,
                to: 5,
                reason: "trimmed".into(),
                ..Default::default()
            })
        )
    );
    let ack = |message_id: &str, offset| {
        Body::Ack(Ack { message_id: message_id.into(), channel: "c".into(), offset })
    };
    let (channel, message_id) = ("c", Some("\"m\\\\\""));
    assert_eq!(
        said(&Answer::PublishAck { id, message_id, channel, offset: Some(17) }),
        answered("q", ack("m\\", 17))
    );
    assert_eq!(
        said(&Answer::PublishAck { id, message_id: None, channel, offset: None }),
        answered("q", ack("", 0))
    );
    for (timestamp, timestamp_ms) in
        [(None, 0), (Some("-5"), -5), (Some("1764287999000"), 1_764_287_999_000)]
    {
        assert_eq!(
            said(&Answer::Pong { id, timestamp }),
            answered("q", Body::Pong(Pong { timestamp_ms }))
        );
    }
    let welcome = Answer::Welcome {
        connection_id: ConnectionId { shard: ShardId(1), slot: 5, secret: 0xABC },
        session_id: SessionId { shard: ShardId(1), secret: u128::MAX },
        message_id: 1,
        heartbeat_ms: 25000,
        message_bytes_max: 1 << 20,
    };
    let body = Body::Welcome(Welcome {
        connection_id: "00010000000500000000000000000000000000000abc".into(),
        session_id: "0001ffffffffffffffffffffffffffffffff".into(),
        version: "1.2".into(),
        heartbeat_ms: 25000,
        max_message_size: 1 << 20,
    });
    assert_eq!(said(&welcome), Envelope { id: "1".into(), ..answered("", body) });
}

/// The publication that is in a frame of JSON, as a subscriber gets it who speaks protobuf.
fn translated(json_frame: &Bytes) -> (String, u64, Vec<u8>) {
    read(&protobuf::translated(json_frame))
}

fn read(frame: &Bytes) -> (String, u64, Vec<u8>) {
    let envelope = decode(frame);
    let Some(Body::Publication(Publication { channel, offset, data, .. })) = envelope.body else {
        panic!("{envelope:?}");
    };
    assert_eq!((&*envelope.id, &*envelope.request_id), ("", ""));
    (channel, offset, data)
}

proptest! {
    #[test]
    fn bytes_come_back_as_they_were_sent(
        channel in "\\PC{1,40}",
        offset in 1..u64::MAX,
        data in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let json = bytes_as_json(&data);
        let live = publication_frame(&channel, json.as_bytes());
        prop_assert_eq!(translated(&live), (channel.clone(), 0, data.clone()));
        let retained = retained_frame(&channel, offset, json.as_bytes());
        prop_assert_eq!(translated(&retained), (channel.clone(), offset, data.clone()));
        let passed_on = protobuf::publication_frame(&channel, &data);
        let json = Data::Bytes(&data).as_json();
        let expected = publication_frame(&channel, json.as_bytes());
        prop_assert_eq!(protobuf::translated(&passed_on), expected);
        prop_assert_eq!(read(&passed_on), (channel, 0, data));
    }

    #[test]
    fn json_comes_as_it_was_written(text in any::<String>(), length in 0..70_000usize) {
        let padding = "x".repeat(length);
        let data = format!(r#"{{ "encoding" : {}, "x":"{padding}" }}"#, json::quote(&text));
        prop_assert!(json::member_value(data.as_bytes()).is_some());
        let frame = retained_frame("a\"b", 3, data.as_bytes());
        prop_assert_eq!(translated(&frame), ("a\"b".to_owned(), 3, data.into_bytes()));
    }
}

#[test]
fn a_publication_takes_no_more_than_one_frame() {
    let frame = protobuf::translated(&publication_frame("a", b"7"));
    assert_eq!(&frame[..], b"\x82\x09\x08\x6a\x06\x0a\x01a\x12\x017");
}

#[test]
fn bytes_that_are_no_json_are_marked() {
    let frame = publication_frame("a", bytes_as_json(b"\xff").as_bytes());
    let payload = br#"{"channel":"a","data":"/w==","encoding":"base64"}"#;
    assert_eq!(&frame[2..], payload);
}

#[test]
fn a_restored_session_has_its_ids_its_user_and_its_subscriptions() {
    let ids = (
        SessionId { shard: ShardId(1), secret: 10 },
        ConnectionId { shard: ShardId(2), slot: 3, secret: 0 },
    );
    let recovery = Some(Recovery { outcome: Ok(()), count: 3 });
    let standing = Standing { position: Some(PLACE), recovery };
    let list = [Restored { channel: "a", subscription_id: Some(3), outcome: Ok(standing) }];
    let confirmation = Confirmation {
        channel: "a".into(),
        subscription_id: Some(3),
        position: place(),
        recovered: Some(true),
        recovered_count: 3,
        ..Default::default()
    };
    for user in [None, UserName::parse("bob")] {
        let restored = said(&Answer::SessionRestored {
            session_id: ids.0,
            connection_id: ids.1,
            user: user.as_ref(),
            subscriptions: &list,
            id: None,
            message_id: 5,
        });
        let expected = SessionRestored {
            session_id: ids.0.to_string(),
            connection_id: ids.1.to_string(),
            subscriptions: vec![confirmation.clone()],
            user_id: user.map(|user| user.to_string()),
        };
        assert_eq!(restored.body, Some(Body::SessionRestored(expected)));
    }
}
