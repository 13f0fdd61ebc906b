//! What clients send: the same messages are understood, and the same ones refused.

use std::collections::HashMap;

use proptest::prelude::*;
use prost::Message;

use super::asked::{Asked, asked};
use super::envelope;
use super::envelope::envelope::Body;
use super::envelope::{
    Ack, Auth, ChannelPosition, EndSession, Envelope, Event, Ping, Position, Publish, Query,
    RestoreSession, Subscribe, Unsubscribe,
};
use super::expected::{expected, is_servers};
use crate::ids::{ConnectionId, Epoch, SessionId, ShardId};
use crate::proto::protobuf::wire::WireError;
use crate::proto::protobuf::{Requests, Scratch};
use crate::proto::{Command, ErrorCode};

/// Every request of a frame, or the code of its refusal with the text.
fn read(frame: &[u8]) -> Vec<Result<Asked, (ErrorCode, String)>> {
    let (mut requests, mut scratch) = (Requests::new(frame), Scratch::default());
    let mut read = Vec::new();
    while let Some(request) = requests.next(&mut scratch) {
        read.push(match request {
            // As where nothing has a route.
            Ok(Command::Routed(routed)) => Err((ErrorCode::NoRoute, routed.no_route().message)),
            Ok(command) => Ok(asked(command)),
            Err(rejection) => Err((rejection.code, rejection.message)),
        });
    }
    read.into_iter().map(|it| it.map_err(|(code, text)| (code, text.into_owned()))).collect()
}

fn read_one(envelope: &[u8]) -> Result<Asked, (ErrorCode, String)> {
    let mut frame = Vec::new();
    prost::encode_length_delimiter(envelope.len(), &mut frame).expect("a vector grows");
    frame.extend_from_slice(envelope);
    let mut read = read(&frame);
    assert_eq!(read.len(), 1);
    read.remove(0)
}

fn name() -> BoxedStrategy<String> {
    prop_oneof![
        4 => "[a-z:é]{1,12}",
        1 => Just(String::new()),
        1 => Just("system".to_owned()),
        1 => "[\"\\\\\n a]{1,80}",
        1 => Just("x".repeat(256)),
    ]
    .boxed()
}

fn data() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::sample::select(vec![
            &b"{\"a\":[1, 2]}"[..],
            b"7",
            b" 7",
            b"7\n",
            b"\"\xc3\xa9\"",
            b"\"\xff\"",
            b"{",
            b"null",
        ])
        .prop_map(<[u8]>::to_vec),
    ]
    .boxed()
}

fn message_id() -> BoxedStrategy<String> {
    prop_oneof![
        Just(String::new()),
        name(),
        any::<(u64, u64)>().prop_map(|(epoch, offset)| format!("{}-{offset}", Epoch(epoch))),
    ]
    .boxed()
}

/// Mostly one that can be.
fn audience() -> BoxedStrategy<envelope::Audience> {
    let id = any::<(u16, u32, u128)>().prop_map(|(shard, slot, secret)| {
        ConnectionId { shard: ShardId(shard), slot, secret }.to_string()
    });
    let names = || prop::collection::vec(prop_oneof![8 => "[a-c]", 1 => name()], 0..3);
    let ids = || prop::collection::vec(prop_oneof![id.clone(), name()], 0..3);
    let lists = (names(), names(), ids(), any::<bool>());
    (0..6, lists, names(), ids())
        .prop_map(|(kind, (users, groups, connections, everybody), except_users, except_ids)| {
            let is = |wanted| kind == wanted || kind == 5;
            envelope::Audience {
                users: if is(0) { users } else { Vec::new() },
                groups: if is(1) { groups } else { Vec::new() },
                connections: if is(2) { connections } else { Vec::new() },
                everybody: is(3) && everybody,
                except_users,
                except_connections: except_ids,
            }
        })
        .boxed()
}

fn restore() -> BoxedStrategy<RestoreSession> {
    let session = any::<(u16, u128)>()
        .prop_map(|(shard, secret)| SessionId { shard: ShardId(shard), secret }.to_string());
    let connection = any::<(u16, u32, u128)>().prop_map(|(shard, slot, secret)| {
        ConnectionId { shard: ShardId(shard), slot, secret }.to_string()
    });
    let epoch = any::<u64>().prop_map(|epoch| Epoch(epoch).to_string());
    let epoch = prop::option::of(prop_oneof![epoch, name()]);
    let position = (name(), epoch, any::<u64>())
        .prop_map(|(channel, epoch, offset)| ChannelPosition { channel, epoch, offset });
    let positions = prop::collection::vec(position, 0..4);
    (prop_oneof![session, name()], prop_oneof![connection, name()], positions)
        .prop_map(|(session_id, connection_id, positions)| RestoreSession {
            session_id,
            connection_id,
            positions,
        })
        .boxed()
}

/// Mostly none, and some that cannot be.
fn tags() -> BoxedStrategy<HashMap<String, String>> {
    let key = prop_oneof![6 => "[a-c_][a-z0-9.-]{0,3}", 1 => name()];
    let value = prop_oneof![6 => "\\PC{0,9}", 1 => name(), 1 => Just("x".repeat(257))];
    prop_oneof![1 => Just(HashMap::new()), 1 => prop::collection::hash_map(key, value, 0..4)]
        .boxed()
}

/// On the heap: a test's stack is small.
fn body() -> BoxedStrategy<Body> {
    let position = (name(), any::<u64>()).prop_map(|(epoch, offset)| Position { epoch, offset });
    let epoch = any::<(u64, u64)>()
        .prop_map(|(epoch, offset)| Position { epoch: Epoch(epoch).to_string(), offset });
    let recover = prop::option::of(prop_oneof![position, epoch]);
    let since = prop::option::of(any::<u64>());
    let filters = vec!["", "", "a == 'x' && !b", "a =="];
    let filter = prop::sample::select(filters).prop_map(ToOwned::to_owned);
    let limit = any::<Option<u32>>();
    let subscribe = (name(), recover, since, any::<bool>(), limit, filter.clone());
    let to = (prop::option::weighted(0.3, name()), prop::option::weighted(0.3, audience()));
    let publish = (name(), data(), name(), any::<bool>(), to, filter, tags());
    let parameters = vec![&b""[..], b"{}", b"{", b" {\"channel\":\"a:b\"} ", b"\xff"];
    let parameters = prop::sample::select(parameters);
    let resources =
        vec!["history", "presence", "rooms", "groups", "session", "sessions", "time", "stats"];
    let resources = prop::sample::select(resources).prop_map(ToOwned::to_owned);
    let resource = prop_oneof![3 => resources, 1 => name()];
    let query = (resource, parameters);
    let commanded = vec![
        &b""[..],
        b"{}",
        b"{",
        b"7",
        b"\xff",
        br#" {"room":"a:b"} "#,
        br#"{"target":"bob"}"#,
        br#"{"room":"a:b","target":"b\u00f6b","x":[1.50]}"#,
        br#"{"room":"a:b","name":"A","maxUsers":2,"metadata":{"x":1}}"#,
        br#"{"room":"system"}"#,
    ];
    let actions = vec!["create_room", "delete_room", "join", "leave", "mute", "unmute", "kick"];
    let actions = prop::sample::select(actions).prop_map(ToOwned::to_owned);
    let action = prop_oneof![5 => actions, 1 => name()];
    let command = (action, name(), prop::sample::select(commanded));
    prop_oneof![
        subscribe.prop_map(|(channel, recover, since, from_start, limit, filter)| {
            Body::Subscribe(Subscribe { channel, recover, since, from_start, limit, filter })
        }),
        (name(), prop::option::of(any::<u64>())).prop_map(|(channel, subscription_id)| {
            Body::Unsubscribe(Unsubscribe { channel, subscription_id })
        }),
        (message_id(), name(), any::<u64>()).prop_map(|(message_id, channel, offset)| {
            Body::Ack(Ack { message_id, channel, offset })
        }),
        restore().prop_map(Body::RestoreSession),
        restore().prop_map(|RestoreSession { session_id, .. }| {
            Body::EndSession(EndSession { session_id })
        }),
        publish.prop_map(|(channel, data, message_id, no_echo, (to_user, to), filter, tags)| {
            Body::Publish(Publish { channel, data, message_id, no_echo, to_user, to, filter, tags })
        }),
        (name(), data(), name(), any::<i64>()).prop_map(|(event, data, sender, timestamp_ms)| {
            Body::Event(Event { event, data, sender, timestamp_ms, ..Event::default() })
        }),
        name().prop_map(|token| Body::Auth(Auth { token })),
        any::<i64>().prop_map(|timestamp_ms| Body::Ping(Ping { timestamp_ms })),
        any::<i64>().prop_map(|timestamp_ms| Body::Pong(super::envelope::Pong { timestamp_ms })),
        query.prop_map(|(resource, parameters)| {
            Body::Query(Query { resource, parameters: parameters.to_vec() })
        }),
        command.prop_map(|(action, target, parameters)| {
            let parameters = parameters.to_vec();
            Body::Command(envelope::Command { action, target, parameters })
        }),
        name().prop_map(|channel| {
            Body::Gap(super::envelope::Gap { channel, ..Default::default() })
        }),
    ]
    .boxed()
}

fn envelope() -> impl Strategy<Value = Envelope> {
    let id = prop_oneof![Just(String::new()), name()];
    (id, name(), prop::option::weighted(0.95, body())).prop_map(|(id, request_id, body)| Envelope {
        id,
        request_id,
        body,
    })
}

/// A field that no message of ours has, of each wire type.
fn unknown() -> impl Strategy<Value = Vec<u8>> {
    (100..5000u32, prop::sample::select(vec![0u32, 1, 2, 5])).prop_map(|(number, wire_type)| {
        let mut field = Vec::new();
        prost::encoding::encode_varint(u64::from(number << 3 | wire_type), &mut field);
        field.extend_from_slice(match wire_type {
            0 => b"\xff\x01",
            1 => b"12345678",
            2 => b"\x03\xff\xff\xff",
            _ => b"1234",
        });
        field
    })
}

proptest! {
    #[test]
    fn requests_are_understood_as_they_were_meant(
        envelopes in prop::collection::vec(envelope(), 1..4),
    ) {
        let mut frame = Vec::new();
        for envelope in &envelopes {
            envelope.encode_length_delimited(&mut frame).expect("a vector grows");
        }
        let read: Vec<_> =
            read(&frame).into_iter().map(|asked| asked.map_err(|(code, _)| code)).collect();
        prop_assert_eq!(read, envelopes.iter().map(expected).collect::<Vec<_>>());
    }

    #[test]
    fn unknown_fields_are_passed_over_and_the_last_of_a_field_counts(
        (first, last) in (envelope(), envelope()),
        unknown in unknown(),
    ) {
        // Concatenated, messages are merged: what is in both counts as in the second.
        let (first, last) = (first.encode_to_vec(), last.encode_to_vec());
        let bytes = [&unknown[..], &first, &unknown, &last, &unknown].concat();
        let merged = Envelope::decode(&bytes[..]).expect("unknown fields are no error");
        let is_servers = Envelope::decode(&first[..]).is_ok_and(|first| is_servers(&first));
        let expected = match expected(&merged) {
            // Whatever follows it.
            Ok(_) if is_servers => Some(Err(ErrorCode::NoRoute)),
            Err(_) if is_servers => None,
            // A body that this version does not know is another matter than none.
            Err(_) if merged.body.is_none() && merged.id.len() <= 64 => None,
            expected => Some(expected),
        };
        let read = read_one(&bytes).map_err(|(code, _)| code);
        if let Some(expected) = expected {
            prop_assert_eq!(read, expected);
        } else {
            prop_assert!(matches!(read, Err(ErrorCode::NoRoute | ErrorCode::InvalidMessage)));
        }
    }

    #[test]
    fn what_is_malformed_is_refused_and_nothing_else(
        envelope in envelope(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..4),
    ) {
        let mut bytes = envelope.encode_to_vec();
        for (place, byte, kind) in damage {
            let place = place.index(bytes.len() + 1);
            match kind {
                0 => bytes.truncate(place),
                1 => bytes.insert(place, byte),
                2 if place < bytes.len() => bytes[place] = byte,
                2 => bytes.push(byte),
                _ => drop(bytes.splice(place..place, [0xFF; 10])),
            }
        }
        let read = read_one(&bytes);
        let reference = Envelope::decode(&bytes[..]);
        match (&read, &reference) {
            // Groups, which proto3 has not, are not looked into.
            (Err((ErrorCode::InvalidProtobuf, message)), _)
                if [3, 4].map(|group| WireError::WireType(group).to_string()).contains(message) => {}
            (Err((ErrorCode::InvalidProtobuf, message)), Ok(_)) => {
                prop_assert!(false, "{message}: {reference:?}");
            }
            (Err((ErrorCode::InvalidProtobuf, _)), Err(_)) => {}
            // What only the server says is not read.
            (Err((ErrorCode::NoRoute, _)), Err(_)) => {}
            (_, Err(error)) => prop_assert!(false, "{error}: {read:?}"),
            // Their parameters may be any by now.
            (Ok(_), Ok(Envelope { body: Some(Body::Query(_) | Body::Command(_)), .. })) => {}
            (Ok(asked), Ok(reference)) => {
                prop_assert_eq!(Ok(asked.clone()), expected(reference));
            }
            (_, Ok(_)) => {}
        }
    }

    #[test]
    fn nothing_panics(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        read(&frame);
    }
}

fn refusal(frame: &[u8]) -> String {
    let read = read(frame);
    let [Err((code, message))] = &read[..] else { panic!("{read:?}") };
    format!("{code}: {message}")
}

#[test]
fn frames_are_refused_with_a_reason() {
    for (frame, reason) in [
        (&b""[..], "invalid_protobuf: the frame is empty"),
        (b"\x05\x0a\x01a", "invalid_protobuf: the frame ends within an envelope"),
        (b"\xff", "invalid_protobuf: the frame ends within an envelope"),
        (
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            "invalid_protobuf: a varint has more than 64 bits",
        ),
        (b"\x02\x0a\x05", "invalid_protobuf: the message ends within a field"),
        (b"\x03\x0a\x01\xff", "invalid_protobuf: `id` is not UTF-8"),
        (b"\x02\x60\x01", "invalid_protobuf: `publish` has the wrong wire type"),
        (b"\x04\x62\x02\x10\x01", "invalid_protobuf: `data` has the wrong wire type"),
        (b"\x05\xd2\x01\x02\x2a\x00", "invalid_protobuf: `offset` has the wrong wire type"),
        (b"\x05\xda\x01\x02\x68\x01", "invalid_protobuf: `delivery_id` has the wrong wire type"),
        (b"\x01\x0b", "invalid_protobuf: wire type 3 is not spoken"),
        (b"\x02\x00\x00", "invalid_protobuf: a field number is out of range"),
        (b"\x00", "invalid_message: an envelope needs a body"),
        (b"\x03\xca\x01\x00", "no_route: no route for body 25"),
        (b"\x03\xe2\x01\x00", "no_route: no route for type `command`"),
        (b"\x07\xe2\x01\x04\x1a\x02[1", "invalid_json: `parameters` is not valid JSON"),
        (b"\x05\xe2\x01\x02\x18\x01", "invalid_protobuf: `parameters` has the wrong wire type"),
        (b"\x05\xda\x01\x02\x18\x04", "no_route: no route for type 4"),
        (b"\x03\xaa\x01\x00", "channel_invalid: a channel name must not be empty"),
        (b"\x02\x62\x00", "channel_invalid: a channel name must not be empty"),
        (b"\x03\x9a\x01\x00", "no_route: no route for query ``"),
    ] {
        let refusal = refusal(frame);
        if reason.starts_with("channel_invalid") {
            assert!(refusal.starts_with("channel_invalid: "), "{refusal}");
        } else {
            assert_eq!(refusal, reason);
        }
    }
}

#[test]
fn an_envelope_that_is_malformed_does_not_touch_the_next() {
    let pong = Envelope { body: Some(Body::Pong(Default::default())), ..Default::default() };
    let pong = pong.encode_length_delimited_to_vec();
    let frame = [&pong[..], b"\x01\x0b", &pong, b"\x09half"].concat();
    let read = read(&frame);
    assert!(matches!(
        &read[..],
        [
            Ok(Asked::Pong),
            Err((ErrorCode::InvalidProtobuf, _)),
            Ok(Asked::Pong),
            Err((ErrorCode::InvalidProtobuf, _)),
        ]
    ));
}

#[test]
fn ids_are_as_long_as_in_json() {
    let ping = |id: String| {
        let body = Some(Body::Ping(Ping::default()));
        read_one(&Envelope { id, body, ..Default::default() }.encode_to_vec())
    };
    assert!(ping("x".repeat(64)).is_ok() && ping("\n".repeat(32)).is_ok());
    for id in ["x".repeat(65), "\n".repeat(33)] {
        let (code, message) = ping(id).expect_err("it is too long");
        assert_eq!((code, &*message), (ErrorCode::InvalidMessage, "`id` must have 1 to 64 bytes"));
    }
}
