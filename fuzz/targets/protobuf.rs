//! Binary frames of the subprotocol `stentor.v1.protobuf`: what is an envelope for a generated decoder is
//! one for the server, and the same one; and any bytes come back from a publication as they were sent.

#![no_main]

#[rustfmt::skip]
#[path = "../../tests/server/support/envelope.rs"]
#[allow(clippy::all, dead_code)]
mod envelope;

use std::collections::HashMap;

use envelope::envelope::Body;
use envelope::{Envelope, Publish};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use stentor::proto::encoder::{frame_payload, publication_frame, retained_frame};
use stentor::proto::protobuf::{self, Requests, Scratch, translated};
use stentor::proto::routed::RoutedMessage;
use stentor::proto::{
    Addressee, Among, Command, Data, ErrorCode, Received, Rejection, Subscription,
};
use stentor_fuzz::within_cpu_time;

fuzz_target!(|input: &[u8]| {
    within_cpu_time(input.len(), || {
        check_frame(input);
        check_data(input);
    });
});

fn check_frame(frame: &[u8]) {
    let (mut requests, mut scratch) = (Requests::new(frame), Scratch::default());
    let mut rest = frame;
    let mut count = 0;
    while let Some(request) = requests.next(&mut scratch) {
        count += 1;
        assert!(count <= frame.len().max(1), "every request takes a byte");
        let Some(envelope) = delimited(&mut rest) else {
            assert!(matches!(request, Err(Rejection { code: ErrorCode::InvalidProtobuf, .. })));
            rest = &[];
            continue;
        };
        check_request(&request, Envelope::decode(envelope));
    }
    assert!(rest.is_empty() && count > 0);
}

/// The bytes of the next envelope.
fn delimited<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = prost::decode_length_delimiter(&mut *rest).ok()?;
    let (envelope, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(envelope)
}

fn check_request(
    request: &Result<Command<'_>, Rejection<'_>>,
    reference: Result<Envelope, prost::DecodeError>,
) {
    match (request, reference) {
        (Err(rejection), reference) if rejection.code == ErrorCode::InvalidProtobuf => {
            // Groups are not looked into.
            let is_group = ["wire type 3", "wire type 4"];
            let is_group = is_group.iter().any(|group| rejection.message.starts_with(group));
            assert!(reference.is_err() || is_group, "{rejection:?}");
        }
        // What only the server says is not read.
        (Err(rejection), Err(_)) => assert_eq!(rejection.code, ErrorCode::NoRoute),
        (Ok(command), Err(error)) => panic!("{error}: {command:?}"),
        (Err(rejection), Ok(envelope)) => {
            assert!(!rejection.message.is_empty());
            assert!(rejection.id.is_none() || !envelope.id.is_empty());
        }
        (Ok(command), Ok(envelope)) => check_command(command, &envelope),
    }
}

fn check_command(command: &Command<'_>, envelope: &Envelope) {
    match (command, envelope.body.as_ref().expect("a command has one")) {
        (
            Command::Publish { channel, data, echo, id, message_id, filter: compiled, tags: known },
            Body::Publish(publish),
        ) => {
            let Publish {
                channel: name,
                data: bytes,
                message_id: given,
                no_echo,
                to_user,
                to,
                filter,
                tags,
            } = publish;
            assert_eq!(compiled.is_some(), !filter.is_empty());
            let known =
                known.as_ref().map(|tags| serde_json::from_str(tags.as_json()).expect("JSON"));
            assert_eq!(known.unwrap_or(HashMap::new()), *tags);
            assert_eq!((&**channel, *echo, to_user, to), (&**name, !no_echo, &None, &None));
            assert_eq!(
                (id.is_some(), message_id.is_some()),
                (!envelope.id.is_empty(), !given.is_empty())
            );
            check_sent(*data, channel, bytes);
        }
        (Command::Subscribe { channel, limit, filter, .. }, Body::Subscribe(subscribe)) => {
            assert_eq!(filter.is_some(), !subscribe.filter.is_empty());
            assert_eq!((&**channel, *limit), (&*subscribe.channel, subscribe.limit.map(u64::from)));
        }
        (Command::Direct { to, channel, data, .. }, Body::Publish(publish)) => {
            assert_eq!(**channel, publish.channel);
            match to {
                Addressee::User(user) => assert_eq!(Some(&**user), publish.to_user.as_deref()),
                Addressee::Audience(audience) => {
                    let to = publish.to.as_ref().expect("it names one");
                    assert_eq!(audience.among == Among::Everybody, to.everybody);
                }
            }
            assert!(publish.tags.is_empty());
            check_sent(*data, channel, &publish.data);
        }
        (Command::Unsubscribe { subscription, .. }, Body::Unsubscribe(unsubscribe)) => {
            match subscription {
                Subscription::Channel(channel) => assert_eq!(**channel, unsubscribe.channel),
                Subscription::Id(id) => assert_eq!(Some(*id), unsubscribe.subscription_id),
            }
        }
        (Command::Ack { received: Received::UpTo { channel, offset }, .. }, Body::Ack(ack)) => {
            assert_eq!((&**channel, *offset), (&*ack.channel, ack.offset));
        }
        (Command::Ack { received: Received::One(position), .. }, Body::Ack(ack)) => {
            assert_eq!(position.to_string(), ack.message_id);
        }
        (Command::Auth { token, .. }, Body::Auth(auth)) => assert_eq!(**token, auth.token),
        (Command::RestoreSession { claims, .. }, Body::RestoreSession(restore)) => {
            assert_eq!(claims.len(), restore.positions.len());
        }
        (Command::Message(message), Body::Event(event)) => {
            assert_eq!(message.channel.as_deref(), Some(&*event.event));
        }
        (Command::Message(_), Body::Chat(_)) => {}
        (Command::Presence { .. }, Body::Query(query)) => assert_eq!(query.resource, "presence"),
        (Command::Room { .. }, Body::Chat(chat)) => assert_eq!(chat.r#type, 3),
        (Command::Room { .. }, Body::Command(command)) => {
            let actions = ["create_room", "delete_room", "join", "leave", "mute", "unmute", "kick"];
            assert!(actions.contains(&&*command.action), "{command:?}");
        }
        (Command::Room { .. }, Body::Query(query)) => assert_eq!(query.resource, "room"),
        (Command::Rooms { .. }, Body::Query(query)) => assert_eq!(query.resource, "rooms"),
        (Command::Groups { .. }, Body::Query(query)) => assert_eq!(query.resource, "groups"),
        (Command::Routed(message), Body::Chat(_)) => assert_eq!(message.kind, "command"),
        (Command::Routed(message), Body::Command(command)) => check_routed(message, command),
        (Command::Routed(message), Body::Query(query)) => {
            assert_eq!(message.resource.as_deref(), Some(&*query.resource));
        }
        (Command::Time { .. }, Body::Query(query)) => assert_eq!(query.resource, "time"),
        (Command::Stats { .. }, Body::Query(query)) => assert_eq!(query.resource, "stats"),
        (Command::Session { .. }, Body::Query(query)) => assert_eq!(query.resource, "session"),
        (Command::Sessions { .. }, Body::Query(query)) => assert_eq!(query.resource, "sessions"),
        (Command::EndSession { session, .. }, Body::EndSession(end)) => {
            assert!(!session.is_some_and(|session| session.to_string() != end.session_id));
        }
        (Command::Ping { timestamp, .. }, Body::Ping(ping)) => {
            let timestamp = timestamp.map_or(Ok(0), str::parse::<i64>);
            assert_eq!(timestamp, Ok(ping.timestamp_ms));
        }
        (Command::History { .. }, Body::Query(query)) => assert_eq!(query.resource, "history"),
        (Command::Pong, Body::Pong(_)) => {}
        (command, body) => panic!("{command:?} is not {body:?}"),
    }
}

/// What of a command in JSON is compared.
#[derive(serde::Deserialize)]
struct Payload<'a> {
    #[serde(default)]
    action: String,
    #[serde(default)]
    target: String,
    #[serde(borrow)]
    parameters: Option<&'a serde_json::value::RawValue>,
}

/// A command that goes to its route, and the JSON that it goes there as.
fn check_routed(message: &RoutedMessage<'_>, command: &envelope::Command) {
    #[derive(serde::Deserialize)]
    struct Json<'a> {
        r#type: String,
        #[serde(borrow)]
        payload: Payload<'a>,
    }
    let json: Json = serde_json::from_str(message.text).expect("JSON");
    assert_eq!((&*json.r#type, &*message.kind), ("command", "command"));
    assert_eq!((&json.payload.action, &json.payload.target), (&command.action, &command.target));
    match (json.payload.parameters, command.parameters.trim_ascii()) {
        // An option does not tell them apart.
        (None, bytes) => assert!(bytes.is_empty() || bytes == b"null"),
        (Some(parameters), bytes) => assert_eq!(parameters.get().as_bytes(), bytes),
    }
}

/// A publication of JSON. Its data is not looked into: a number there has no range.
#[derive(serde::Deserialize)]
struct Json<'a> {
    channel: String,
    #[serde(default)]
    offset: u64,
    #[serde(borrow)]
    data: &'a serde_json::value::RawValue,
    encoding: Option<String>,
}

/// That `data` of a publication has these bytes, and is passed on as they are.
fn check_sent(data: Data<'_>, channel: &str, bytes: &[u8]) {
    let (Data::Bytes(read) | Data::Plain { bytes: read, .. }) = data else { panic!("{data:?}") };
    assert_eq!(read, bytes);
    assert_eq!(data.live_frame(channel), protobuf::publication_frame(channel, bytes));
    check_publication(channel, bytes);
}

/// The frame that subscribers get who speak JSON, and what is in that of the others.
fn check_publication(channel: &str, bytes: &[u8]) {
    let data = Data::Bytes(bytes).as_json();
    let live = publication_frame(channel, data.as_bytes());
    assert_eq!(translated(&protobuf::publication_frame(channel, bytes)), live);
    for (offset, frame) in [(0, live), (7, retained_frame(channel, 7, data.as_bytes()))] {
        let json: Json = serde_json::from_slice(frame_payload(&frame)).expect("JSON");
        assert_eq!((&*json.channel, json.offset), (channel, offset));
        assert!(json.encoding.is_some() || json.data.get().as_bytes() == bytes);
        let frame = translated(&frame);
        let mut payload = frame_payload(&frame);
        let envelope = Envelope::decode_length_delimited(&mut payload).expect("an envelope");
        let Some(Body::Publication(publication)) = envelope.body else { panic!("{envelope:?}") };
        assert_eq!((&*publication.channel, publication.offset), (channel, offset));
        assert_eq!(publication.data, bytes);
    }
}

/// The whole input as the data of a publication.
fn check_data(data: &[u8]) {
    let publish = Publish { channel: "a".into(), data: data.to_vec(), ..Default::default() };
    let body = Some(Body::Publish(publish));
    check_frame(&Envelope { body, ..Default::default() }.encode_length_delimited_to_vec());
}
