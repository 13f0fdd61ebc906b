//! Events and chat messages on the real binary: passed on whole, from whom they really are, kept as any
//! publication is, in both encodings; and the queries `time` and `stats`.

use std::fs;

use prost::Message;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::envelope::envelope::Body;
use crate::support::envelope::{
    ChatMessage, Envelope, Event, Subscribe, TextPayload, chat_message,
};
use crate::support::*;

const CONFIGURATION: &str = r#"
[limits]
max_errors = 1000

[namespaces.kept]
level = "history"

[namespaces.disk]
level = "durable"

[namespaces.sure]
level = "acked"
"#;

struct Place {
    folder: TempDir,
    server: Server,
}

impl Place {
    /// `keys`: with users, of whom one is bob.
    fn new(keys: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("stentor.toml"), CONFIGURATION).expect("it is ours");
        fs::write(folder.path().join("keys"), "bob bob-0123456789abcdef\n").expect("it is ours");
        let server = Self::launch(&folder, keys);
        Self { folder, server }
    }

    fn launch(folder: &TempDir, keys: bool) -> Server {
        let path = |name| folder.path().join(name).to_str().expect("text").to_owned();
        let mut flags = vec!["--config".to_owned(), path("stentor.toml")];
        flags.extend(["--store".to_owned(), path("log")]);
        if keys {
            flags.extend(["--auth-keys".to_owned(), path("keys")]);
        }
        Server::start(&flags.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// The message of the server as JSON, with the fields that differ each time put at rest.
#[track_caller]
fn next(peer: &mut Peer) -> Value {
    let mut message = peer.json();
    for field in ["timestamp", "id"] {
        if message.get(field).is_some_and(|value| !value.is_null()) && message["type"] == "error" {
            message[field] = json!("*");
        }
    }
    message
}

#[track_caller]
fn refused(peer: &mut Peer, message: &str) -> (Value, Value) {
    peer.send_text(message);
    let error = next(peer);
    assert_eq!(error["type"], "error", "{error}");
    // The connection goes on.
    peer.send_text(r#"{"type":"ping"}"#);
    peer.expect_text(r#"{"type":"pong"}"#);
    (error["code"].clone(), error["requestId"].clone())
}

#[test]
fn an_event_reaches_the_channel_of_its_name_as_it_is() {
    let place = Place::new(false);
    let (mut sender, mut reader) = (Peer::open(&place.server), Peer::open(&place.server));
    reader.subscribe("user:moved");
    let event = r#"{"id":"e1","type":"event","timestamp":5,"sender":"anna","payload":{"event":"user:moved","data":{"x": 1.50}},"more":["\u00e9"]}"#;
    sender.send_text(event);
    reader.expect_text(event);
    // It has an id, so it is acknowledged.
    assert_eq!(sender.json(), json!({"type": "ack", "requestId": "e1", "channel": "user:moved"}));
    // What everybody gets is added.
    sender.send_text(r#"{"type":"event","payload":{"event":"user:moved"}}"#);
    let added = reader.json();
    assert!(added["id"].is_string() && added["timestamp"].as_u64() > Some(1_700_000_000_000));
    assert_eq!(added["sender"].as_str().map(str::len), Some(44), "the connection: {added}");
    assert_eq!(added["payload"], json!({"event": "user:moved"}));
}

#[test]
fn what_is_said_in_a_chat_goes_where_it_says_or_where_its_sender_is() {
    let place = Place::new(false);
    let (mut sender, mut reader) = (Peer::open(&place.server), Peer::open(&place.server));
    reader.subscribe("chat:a");
    let says = |fields: &str| {
        format!(
            r#"{{"version":"1.9","messageId":"m1","timestamp":5,"type":"text","sender":"anna",{fields}"payload":{{"content":"hi","mentions":["bob"],"new":1}},"metadata":{{"a":"b"}}}}"#
        )
    };
    sender.send_text(&says(r#""channel":"chat:a","#));
    reader.expect_text(&says(r#""channel":"chat:a","#));
    let ack = json!({"type": "ack", "messageId": "m1", "channel": "chat:a"});
    assert_eq!(sender.json(), ack);
    assert_eq!(refused(&mut sender, &says("")).0, "no_target");
    sender.subscribe("chat:a");
    sender.send_text(&says(r#""echo":false,"#));
    reader.expect_text(&says(r#""echo":false,"#));
    assert_eq!(sender.json()["type"], "ack");
    sender.subscribe("chat:b");
    assert_eq!(refused(&mut sender, &says("")).0, "no_target", "in two channels");
}

#[test]
fn nobody_passes_for_a_user() {
    let place = Place::new(true);
    let mut reader = Peer::open(&place.server);
    reader.subscribe("chat:a");
    let forged = r#"{"type":"text","sender":"bob","channel":"chat:a","payload":{"content":"x"}}"#;
    let mut stranger = Peer::open(&place.server);
    stranger.send_text(forged);
    let got = reader.json();
    assert_eq!(got["sender"].as_str().map(str::len), Some(44), "{got}");
    let mut bob = Peer::open_at(&place.server, "/?token=bob-0123456789abcdef");
    bob.send_text(&forged.replace("bob", "anna"));
    assert_eq!(reader.json()["sender"], "bob");
    bob.send_text(r#"{"type":"event","payload":{"event":"chat:a"}}"#);
    assert_eq!(reader.json()["sender"], "bob");
    let mut binary = binary(&place.server);
    let event = Event { event: "chat:a".into(), sender: "bob".into(), ..Default::default() };
    send(&mut binary, "", Body::Event(event));
    let got = reader.json();
    assert_eq!(got["sender"].as_str().map(str::len), Some(44), "{got}");
    let chat = ChatMessage { channel: "chat:a".into(), sender: "bob".into(), ..Default::default() };
    let payload = Some(chat_message::Payload::Text(TextPayload::default()));
    send(&mut binary, "", Body::Chat(ChatMessage { payload, ..chat }));
    let got = reader.json();
    assert_eq!(got["sender"].as_str().map(str::len), Some(44), "{got}");
}

#[test]
fn messages_are_kept_as_publications_are() {
    let mut place = Place::new(false);
    for channel in ["kept:a", "disk:a"] {
        let mut sender = Peer::open(&place.server);
        for number in 1..=3 {
            sender.send_text(&format!(
                r#"{{"type":"text","messageId":"m{number}","channel":"{channel}","payload":{{"content":"{number}"}}}}"#
            ));
            assert_eq!(sender.json()["offset"], number);
        }
        // Published once, whoever repeats it.
        sender.send_text(&format!(
            r#"{{"type":"text","messageId":"m2","channel":"{channel}","payload":{{"content":"again"}}}}"#
        ));
        assert_eq!(sender.json()["offset"], 2);
        sender.send_text(&format!(r#"{{"action":"publish","channel":"{channel}","data":4}}"#));
        expect_kept(&place.server, channel);
    }
    place.server.signal(Signal::KILL);
    place.server.wait_for_exit(PATIENCE);
    place.server = Place::launch(&place.folder, false);
    expect_kept(&place.server, "disk:a");
}

/// Three messages and a publication, to a subscriber and to a query.
#[track_caller]
fn expect_kept(server: &Server, channel: &str) {
    let mut reader = Peer::open(server);
    reader.send_text(&format!(r#"{{"action":"subscribe","channel":"{channel}","since":"start"}}"#));
    assert_eq!(reader.json()["data"]["type"], "subscription_confirm");
    for number in 1..=3 {
        let message = reader.json();
        assert_eq!((&message["offset"], &message["type"]), (&json!(number), &json!("text")));
        assert_eq!(message["payload"]["content"], number.to_string());
    }
    assert_eq!(reader.json(), json!({"channel": channel, "offset": 4, "data": 4}));
    reader.send_text(&format!(
        r#"{{"type":"query","payload":{{"resource":"history","parameters":{{"channel":"{channel}"}}}}}}"#
    ));
    let page = reader.json();
    let publications = page["payload"]["publications"].as_array().expect("a list").clone();
    assert_eq!(publications.len(), 4, "{page}");
    assert_eq!(
        (&publications[1]["offset"], &publications[1]["messageId"]),
        (&json!(2), &json!("m2"))
    );
    assert_eq!(publications[3], json!({"offset": 4, "data": 4}));
}

#[test]
fn on_an_acked_channel_a_message_is_acknowledged_by_its_delivery_id() {
    let place = Place::new(false);
    let (mut sender, mut reader) = (Peer::open(&place.server), Peer::open(&place.server));
    reader.send_text(r#"{"action":"subscribe","channel":"sure:a"}"#);
    assert_eq!(reader.json()["data"]["type"], "subscription_confirm");
    sender.send_text(
        r#"{"type":"text","messageId":"m","channel":"sure:a","payload":{"content":"x"}}"#,
    );
    let message = reader.json();
    let id = message["deliveryId"].as_str().expect("an id").to_owned();
    assert_eq!((&message["offset"], &message["messageId"]), (&json!(1), &json!("m")));
    reader.send_text(&format!(r#"{{"type":"ack","messageId":"{id}"}}"#));
    place.server.wait_for_counter("acked", 1);
}

#[test]
fn what_is_wrong_is_said_and_the_connection_goes_on() {
    let place = Place::new(false);
    let mut peer = Peer::open(&place.server);
    let text =
        |fields: &str| format!(r#"{{"type":"text","id":9,"channel":"a","payload":{{}}{fields}}}"#);
    for version in [r#""2.0""#, r#""x""#, "7", "null"] {
        let (code, id) = refused(&mut peer, &text(&format!(r#","version":{version}"#)));
        assert_eq!((code, id), (json!("unsupported_version"), json!(9)), "{version}");
    }
    for (message, code) in [
        (text(r#","sender":[]"#), "invalid_message"),
        (text(r#","messageId":1"#), "invalid_message"),
        (text(r#","timestamp":{}"#), "invalid_message"),
        (text(r#","type":"text""#), "invalid_message"),
        (r#"{"type":"text","channel":"a"}"#.into(), "invalid_message"),
        (r#"{"type":"text","channel":"system","payload":{}}"#.into(), "channel_reserved"),
        (r#"{"type":"event","payload":{"event":""}}"#.into(), "channel_invalid"),
        (r#"{"type":"event","payload":{"event":"a\u0000"}}"#.into(), "channel_invalid"),
        (r#"{"type":"dance","payload":{}}"#.into(), "no_route"),
        (r#"{"type":"query","payload":{"resource":"weather"}}"#.into(), "no_route"),
        (
            format!(r#"{{"type":"event","payload":{}{}}}"#, "[".repeat(70), "]".repeat(70)),
            "invalid_json",
        ),
    ] {
        peer.send_text(&message);
        let error = peer.json();
        let code_of =
            if error["type"] == "error" { &error["code"] } else { &error["data"]["code"] };
        assert_eq!(code_of, code, "{message}: {error}");
    }
    peer.send_text(r#"{"type":"ping"}"#);
    peer.expect_text(r#"{"type":"pong"}"#);
}

#[test]
fn a_client_can_ask_for_the_time_and_for_what_went_over_its_connection() {
    let place = Place::new(false);
    let mut peer = Peer::open(&place.server);
    peer.send_text(r#"{"type":"query","id":1,"payload":{"resource":"time"}}"#);
    let time = peer.json();
    assert_eq!((&time["type"], &time["requestId"]), (&json!("response"), &json!(1)));
    assert!(time["payload"]["time"].as_u64() > Some(1_700_000_000_000), "{time}");
    peer.subscribe("a");
    // The message that asks is not counted yet.
    peer.send_text(r#"{"type":"query","id":2,"payload":{"resource":"stats"}}"#);
    let stats = peer.json()["payload"].clone();
    assert_eq!(
        (&stats["messagesReceived"], &stats["subscriptions"]),
        (&json!(2), &json!(1)),
        "{stats}"
    );
    assert!(stats["bytesSent"].as_u64() > Some(100) && stats["linkQuality"].is_string());
}

#[test]
fn a_message_of_odd_form_reaches_the_other_encoding_too() {
    let place = Place::new(false);
    let (mut binary, mut json) = (binary(&place.server), Peer::open(&place.server));
    for channel in ["chat:a", "deep"] {
        let subscribe = Subscribe { channel: channel.into(), ..Default::default() };
        send(&mut binary, "s", Body::Subscribe(subscribe));
        assert!(matches!(receive(&mut binary).body, Some(Body::Confirmation(_))));
    }
    json.send_text(
        r#"{"\u0074ype":"text","channel":"chat:a","sender":"x","\ud800":1,"payload":{"content":"hi"}}"#,
    );
    let Some(Body::Chat(chat)) = receive(&mut binary).body else { panic!("no chat message") };
    assert_eq!(chat.sender, "x");
    // Whatever its depth, data arrives as it was sent.
    for depth in 61..66 {
        let data = ["[".repeat(depth), "]".repeat(depth)].concat().into_bytes();
        let event = Event { event: "deep".into(), data: data.clone(), ..Default::default() };
        send(&mut binary, "", Body::Event(event));
        let Some(Body::Event(event)) = receive(&mut binary).body else { panic!("{depth}") };
        assert_eq!(event.data, data, "{depth}");
    }
}

/// A client of the binary subprotocol, welcomed.
fn binary(server: &Server) -> Peer {
    let mut peer = Peer::speaking(server, "stentor.v1.protobuf");
    assert!(matches!(receive(&mut peer).body, Some(Body::Welcome(_))));
    peer
}

fn send(peer: &mut Peer, id: &str, body: Body) {
    let envelope = Envelope { id: id.into(), request_id: String::new(), body: Some(body) };
    peer.send(&frame(OpCode::BINARY, &envelope.encode_length_delimited_to_vec()));
}

#[track_caller]
fn receive(peer: &mut Peer) -> Envelope {
    let frame = peer.frame();
    Envelope::decode_length_delimited(&frame.payload[..]).expect("an envelope")
}

#[test]
fn both_encodings_understand_each_other() {
    let place = Place::new(false);
    let (mut binary, mut json) = (binary(&place.server), Peer::open(&place.server));
    for channel in ["kept:a", "chat:a"] {
        send(
            &mut binary,
            "s",
            Body::Subscribe(Subscribe { channel: channel.into(), ..Default::default() }),
        );
        assert!(matches!(receive(&mut binary).body, Some(Body::Confirmation(_))));
    }
    json.subscribe("chat:a");
    json.send_text(
        r#"{"type":"event","id":7,"timestamp":5,"sender":"anna","payload":{"event":"kept:a","data":{"n":1}}}"#,
    );
    let envelope = receive(&mut binary);
    let event = Event {
        event: "kept:a".into(),
        data: br#"{"n":1}"#.to_vec(),
        sender: "anna".into(),
        timestamp_ms: 5,
        offset: 1,
        ..Default::default()
    };
    assert_eq!((envelope.id.as_str(), envelope.body), ("7", Some(Body::Event(event))));
    assert_eq!(json.json()["type"], "ack");
    let chat = ChatMessage {
        message_id: "m".into(),
        timestamp_ms: 5,
        sender: "be\"n".into(),
        payload: Some(chat_message::Payload::Text(TextPayload {
            content: "hi ✓".into(),
            mentions: vec!["bob".into(), "eve".into()],
        })),
        metadata: [("a".to_owned(), "b\n".to_owned())].into(),
        channel: "chat:a".into(),
        version: "1.1".into(),
        ..Default::default()
    };
    send(&mut binary, "", Body::Chat(chat.clone()));
    // To its publisher as well, in the encoding it has sent it in.
    let mut bodies = [receive(&mut binary).body, receive(&mut binary).body];
    bodies.sort_by_key(|body| matches!(body, Some(Body::Ack(_))));
    assert_eq!(bodies[0], Some(Body::Chat(chat)));
    assert_eq!(
        json.json(),
        json!({
            "type": "text", "version": "1.1", "messageId": "m", "timestamp": 5, "sender": "be\"n",
            "channel": "chat:a", "payload": {"content": "hi ✓", "mentions": ["bob", "eve"]},
            "metadata": {"a": "b\n"},
        })
    );
}
