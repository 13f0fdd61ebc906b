//! What is said in both encodings: it means the same to the server, and subscribers of either get it whole,
//! whichever its publisher speaks.

use std::collections::HashMap;

use proptest::prelude::*;
use prost::Message;
use serde_json::{Map, Value, json};

use super::asked::{Asked, asked};
use super::decode;
use super::envelope::chat_message::Payload;
use super::envelope::envelope::Body;
use super::envelope::{
    self, Audience, ChatMessage, CommandPayload, Envelope, Event, FilePayload, ImagePayload,
    Publication, Publish, TextPayload,
};
use crate::proto::encoder::{frame_payload, publication_frame};
use crate::proto::protobuf::{self, Requests, Scratch};
use crate::proto::{Command, Commands, Data, ErrorCode};

/// One message in both encodings. The JSON has the fields that the envelope has.
#[derive(Debug, Clone)]
struct Said {
    json: String,
    envelope: Envelope,
}

impl Said {
    /// `members`: all but the `id`.
    fn new(id: String, mut members: Value, body: Body) -> Self {
        if !id.is_empty() {
            members["id"] = json!(id);
        }
        let envelope = Envelope { id, request_id: String::new(), body: Some(body) };
        Self { json: members.to_string(), envelope }
    }

    /// The JSON with a member that no schema knows, in its payload too.
    fn with_unknown_fields(&self) -> Value {
        let mut members: Value = serde_json::from_str(&self.json).expect("JSON");
        members["unknown"] = json!({"a": [1]});
        members["payload"]["unknown"] = json!([null]);
        members
    }
}

/// What a message in JSON asks for.
fn of_json(json: &str) -> Result<Asked, ErrorCode> {
    let command = Commands::new(json).next().expect("a message");
    command.map(asked).map_err(|rejection| rejection.code)
}

/// What an envelope asks for.
fn of_envelope(envelope: &Envelope) -> Result<Asked, ErrorCode> {
    let frame = envelope.encode_length_delimited_to_vec();
    let (mut requests, mut scratch) = (Requests::new(&frame), Scratch::default());
    let request = requests.next(&mut scratch).expect("a request");
    request.map(asked).map_err(|rejection| rejection.code)
}

/// The frame of JSON in which a message is passed on; the server adds 3 as its time and 4 as its number.
fn passed_on(command: Command<'_>) -> bytes::Bytes {
    let Command::Message(message) = command else { panic!("{command:?}") };
    publication_frame("c", &message.stamped(None, 3, 4))
}

// Boxes, here and below: types of strategies that hold each other take the compiler minutes.
fn text() -> BoxedStrategy<String> {
    prop_oneof![3 => "[a-z:é\"\\\\\n]{1,12}", 1 => "\\PC{1,30}"].boxed()
}

/// Empty: there is none.
fn maybe_text() -> BoxedStrategy<String> {
    prop_oneof![1 => Just(String::new()), 2 => text()].boxed()
}

/// The name of a channel, and what is none.
fn channel() -> BoxedStrategy<String> {
    prop_oneof![8 => "[a-z:é]{1,12}", 1 => text(), 1 => Just("system".to_owned())].boxed()
}

fn value() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Exact, so that it is the same when it is read and written again.
        any::<i16>().prop_map(|number| (f64::from(number) / 4.0).into()),
        text().prop_map(Value::from),
    ];
    let tree = leaf.boxed().prop_recursive(4, 16, 4, |value| {
        prop_oneof![
            prop::collection::vec(value.clone(), 0..4).prop_map(Value::from),
            object(value).prop_map(Value::from),
        ]
        .boxed()
    });
    tree.boxed()
}

fn object(value: BoxedStrategy<Value>) -> BoxedStrategy<Map<String, Value>> {
    let members = prop::collection::vec((text(), value), 0..4);
    members.prop_map(|members| members.into_iter().collect()).boxed()
}

/// Sets what is not empty or 0, as protobuf has it.
fn set(members: &mut Value, name: &str, value: impl Into<Value>) {
    let value = value.into();
    if value != json!("") && value != json!(0) {
        members[name] = value;
    }
}

fn publication() -> BoxedStrategy<Said> {
    let to = prop::option::weighted(0.3, (text(), any::<bool>()));
    let tags = prop::collection::hash_map("[a-d][a-z_.-]{0,5}", "\\PC{0,9}", 0..4);
    let tags = prop_oneof![2 => Just(HashMap::new()), 1 => tags];
    (channel(), value(), any::<bool>(), (maybe_text(), maybe_text()), to, tags)
        .prop_map(|(channel, data, no_echo, (message_id, id), to, tags)| {
            let mut members = json!({"action": "publish", "channel": channel, "data": data});
            set(&mut members, "messageId", &*message_id);
            if no_echo {
                members["echo"] = json!(false);
            }
            let (to_user, to) = match to {
                None => (None, None),
                Some((user, true)) => {
                    members["to"] = json!({"user": user});
                    (Some(user), None)
                }
                Some((user, false)) => {
                    members["to"] = json!({"everybody": true, "except": {"users": [user]}});
                    let except_users = vec![user];
                    (None, Some(Audience { everybody: true, except_users, ..Audience::default() }))
                }
            };
            if !tags.is_empty() {
                members["tags"] = json!({});
            }
            let data = data.to_string().into_bytes();
            let filter = String::new();
            let body = Publish {
                channel,
                data,
                message_id,
                no_echo,
                to_user,
                to,
                filter,
                tags: tags.clone(),
            };
            let mut said = Said::new(id, members, Body::Publish(body));
            // In the order in which the map is sent: its tags stand in that.
            let tags = tags.iter().map(|(name, value)| format!("{}:{}", json!(name), json!(value)));
            let tags: Vec<_> = tags.collect();
            said.json = said.json.replacen(
                r#""tags":{}"#,
                &format!(r#""tags":{{{}}}"#, tags.join(",")),
                usize::from(!tags.is_empty()),
            );
            said
        })
        .boxed()
}

fn event() -> BoxedStrategy<Said> {
    (channel(), prop::option::of(value()), maybe_text(), any::<i64>(), maybe_text())
        .prop_map(|(event, data, sender, timestamp_ms, id)| {
            let mut members = json!({"type": "event", "payload": {"event": event}});
            set(&mut members, "sender", &*sender);
            set(&mut members, "timestamp", timestamp_ms);
            if let Some(data) = &data {
                members["payload"]["data"] = data.clone();
            }
            let data = data.map_or(Vec::new(), |data| data.to_string().into_bytes());
            let body = Event { event, data, sender, timestamp_ms, ..Default::default() };
            Said::new(id, members, Body::Event(body))
        })
        .boxed()
}

/// A payload in both encodings, with the number of its type.
fn payload() -> BoxedStrategy<(i32, Value, Payload)> {
    let size = any::<(i32, i32, i64)>();
    (0..4, text(), prop::collection::vec(".{0,5}", 0..3), size, 0..4usize, maybe_text())
        .prop_map(|(kind, text, mentions, (width, height, size), action, target)| match kind {
            0 => {
                let mut json = json!({"content": text});
                if !mentions.is_empty() {
                    json["mentions"] = json!(mentions);
                }
                (kind, json, Payload::Text(TextPayload { content: text, mentions }))
            }
            1 => {
                let json = json!({"url": text, "width": width, "height": height});
                (kind, json, Payload::Image(ImagePayload { url: text, width, height }))
            }
            2 => {
                let json = json!({"url": text, "size": size, "mimeType": target});
                (kind, json, Payload::File(FilePayload { url: text, size, mime_type: target }))
            }
            _ => {
                let actions = ["join", "leave", "mute", "kick"];
                let mut json = json!({"action": actions[action]});
                set(&mut json, "target", &*target);
                (kind, json, Payload::Command(CommandPayload { action: action as i32, target }))
            }
        })
        .boxed()
}

fn chat() -> BoxedStrategy<Said> {
    let key = prop_oneof![1 => Just("channel".to_owned()), 2 => text()];
    let metadata = prop::collection::hash_map(key, ".{0,5}", 0..3);
    let version = prop::sample::select(vec!["", "1.0", "1.9", "2.0"]);
    let texts = (prop_oneof![Just(String::new()), channel()], maybe_text(), maybe_text());
    (payload(), texts, metadata, version, any::<i64>(), maybe_text())
        .prop_map(|((kind, payload, body), texts, metadata, version, timestamp_ms, id)| {
            let (channel, sender, message_id) = texts;
            let kinds = ["text", "image", "file", "command"];
            let kind_name = kinds[kind as usize];
            let mut members = json!({"type": kind_name, "payload": payload});
            set(&mut members, "version", version);
            set(&mut members, "messageId", &*message_id);
            set(&mut members, "timestamp", timestamp_ms);
            set(&mut members, "sender", &*sender);
            set(&mut members, "channel", &*channel);
            if !metadata.is_empty() {
                members["metadata"] = json!(metadata);
            }
            let body = ChatMessage {
                message_id,
                timestamp_ms,
                r#type: kind,
                sender,
                metadata,
                channel,
                version: version.to_owned(),
                payload: Some(body),
                ..Default::default()
            };
            Said::new(id, members, Body::Chat(body))
        })
        .boxed()
}

fn command() -> BoxedStrategy<Said> {
    let actions = vec!["create_room", "delete_room", "join", "leave", "mute", "unmute", "kick"];
    let actions = prop::sample::select(actions).prop_map(ToOwned::to_owned);
    let plan = (channel(), text(), 0..3u32, object(value())).prop_map(
        |(room, name, max, metadata)| json!({"room": room, "name": name, "maxUsers": max, "metadata": metadata}),
    );
    let aimed = (channel(), text()).prop_map(|(room, user)| json!({"room": room, "target": user}));
    let parameters = prop_oneof![plan, aimed, object(value()).prop_map(Value::from), value()];
    (
        prop_oneof![4 => actions, 1 => maybe_text()],
        maybe_text(),
        prop::option::of(parameters),
        maybe_text(),
    )
        .prop_map(|(action, target, parameters, id)| {
            let mut payload = json!({});
            set(&mut payload, "action", &*action);
            set(&mut payload, "target", &*target);
            if let Some(parameters) = &parameters {
                payload["parameters"] = parameters.clone();
            }
            let parameters = parameters.map_or(Vec::new(), |it| it.to_string().into_bytes());
            let body = Body::Command(envelope::Command { action, target, parameters });
            Said::new(id, json!({"type": "command", "payload": payload}), body)
        })
        .boxed()
}

proptest! {
    #[test]
    fn what_is_said_means_the_same(
        said in prop_oneof![publication(), event(), chat(), command()],
    ) {
        prop_assert_eq!(of_json(&said.json), of_envelope(&said.envelope));
    }

    #[test]
    fn messages_reach_both_whichever_their_publisher_speaks(said in prop_oneof![event(), chat()]) {
        let Ok(Asked::Message { json: stamped, .. }) = of_json(&said.json) else { return Ok(()) };
        let mut expected = said.envelope.clone();
        if let Some(Body::Event(event)) = &mut expected.body {
            // What the server adds.
            let added = |text: &mut String| if text.is_empty() { "4".clone_into(text) };
            added(&mut expected.id);
            event.timestamp_ms = if event.timestamp_ms == 0 { 3 } else { event.timestamp_ms };
        }

        let unknown = said.with_unknown_fields();
        let text = unknown.to_string();
        let frame = passed_on(Commands::new(&text).next().expect("a message").expect("it is one"));
        let read: Value = serde_json::from_slice(frame_payload(&frame)).expect("JSON");
        prop_assert_eq!(&read["unknown"], &unknown["unknown"]);
        prop_assert_eq!(&read["payload"], &unknown["payload"]);
        prop_assert_eq!(decode(&protobuf::translated(&frame)), expected.clone());

        let sent = said.envelope.encode_length_delimited_to_vec();
        let (mut requests, mut scratch) = (Requests::new(&sent), Scratch::default());
        let request = requests.next(&mut scratch).expect("a request").expect("it is one");
        let frame = passed_on(request);
        let read: Value = serde_json::from_slice(frame_payload(&frame)).expect("JSON");
        prop_assert_eq!(read, stamped);
        prop_assert_eq!(decode(&protobuf::translated(&frame)), expected);
    }

    #[test]
    fn publications_reach_both_whichever_their_publisher_speaks(said in publication()) {
        let frame = said.envelope.encode_length_delimited_to_vec();
        let (mut requests, mut scratch) = (Requests::new(&frame), Scratch::default());
        let of_envelope = requests.next(&mut scratch).expect("a request");
        let of_json = Commands::new(&said.json).next().expect("a message");
        let Some(Body::Publish(publish)) = &said.envelope.body else { unreachable!() };
        for command in [of_json, of_envelope].into_iter().flatten() {
            let (channel, data, tags) = match command {
                Command::Publish { channel, data, tags, .. } => (channel, data, tags),
                Command::Direct { channel, data, .. } => (channel, data, None),
                command => panic!("{command:?}"),
            };
            // What came in protobuf, without tags, for now alone.
            if let (Data::Bytes(bytes) | Data::Plain { bytes, .. }, None) = (data, &tags) {
                let live = data.live_frame(&channel);
                prop_assert_eq!(&live, &protobuf::publication_frame(&channel, bytes));
                prop_assert_eq!(protobuf::translated(&live), publication_frame(&channel, data.as_json().as_bytes()));
                let expected = Publication { channel: publish.channel.clone(), data: publish.data.clone(), ..Default::default() };
                prop_assert_eq!(decode(&live).body, Some(Body::Publication(expected)));
            }
            let json = data.as_json();
            let body = tags.map_or(json.as_bytes().to_vec(), |tags| tags.before(json.as_bytes()));
            let frame = publication_frame(&channel, &body);
            let json: Value = serde_json::from_slice(frame_payload(&frame)).expect("JSON");
            let written: Value = serde_json::from_slice(&publish.data).expect("JSON");
            let mut expected = json!({"channel": publish.channel, "data": written});
            if !publish.tags.is_empty() {
                expected["tags"] = json!(publish.tags);
            }
            prop_assert_eq!(json, expected);
            let Some(Body::Publication(read)) = decode(&protobuf::translated(&frame)).body
                else { panic!("{frame:?}") };
            prop_assert_eq!((&read.channel, &read.data), (&publish.channel, &publish.data));
            prop_assert_eq!(&read.tags, &publish.tags);
        }
    }
}
