//! Schemas on the real binary: what clients publish is checked before anybody hears of it.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::*;

const CONFIGURATION: &str = r#"
[limits]
max_checked_size = "1KiB"

[namespaces.chat]
schema = "envelope"

[schemas]
text = "envelope"
order = "FOLDER/order.json"
"query" = "FOLDER/order.json"

[routes]
order = "webhook:http://127.0.0.1:1/"
query = "webhook:http://127.0.0.1:1/"

[namespaces.order]
direct = true
schema = "FOLDER/order.json"
"#;

const ORDER: &str = r##"{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["items"],
    "properties": { "items": { "type": "array", "items": { "$ref": "#/$defs/item" } } },
    "$defs": { "item": { "type": "object", "properties": { "count": { "minimum": 1 } } } }
}"##;

const ALICE: &str = "alice-0123456789abcdef";

fn folder(schema: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name, text: &str| fs::write(folder.path().join(name), text).expect("it is ours");
    let path = folder.path().to_str().expect("text");
    write("stentor.toml", &CONFIGURATION.replace("FOLDER", path));
    write("order.json", schema);
    write("keys", &format!("alice {ALICE}\n"));
    folder
}

fn flags(folder: &Path) -> [String; 4] {
    let path = |name| folder.join(name).to_str().expect("text").to_owned();
    ["--config".to_owned(), path("stentor.toml"), "--auth-keys".to_owned(), path("keys")]
}

fn launch(folder: &Path) -> Server {
    let flags = flags(folder);
    Server::start(&flags.each_ref().map(String::as_str))
}

/// The code and the text of the error that comes next.
fn error(peer: &mut Peer) -> (String, String) {
    let answer = peer.json();
    let data = &answer["data"];
    assert_eq!(
        (&answer["channel"], &data["type"]),
        (&json!("system"), &json!("error")),
        "{answer}"
    );
    let text = |field: &Value| field.as_str().expect("a text").to_owned();
    (text(&data["code"]), text(&data["message"]))
}

#[test]
fn what_breaks_the_schema_of_its_channel_reaches_nobody() {
    let folder = folder(ORDER);
    let server = launch(folder.path());
    let (mut peer, mut reader) = (Peer::open(&server), Peer::open(&server));
    let good = r#"{"items":[{"count":1}, {}],"more":[]}"#;
    reader.subscribe("order:7");
    for (data, expected) in [
        (r#"{"items":[{},{"count":0}]}"#, "`data` at `/items/1/count` breaks `minimum`: "),
        ("{}", "`data` at `` breaks `required`: "),
        ("7", "`data` at `` breaks `type`: "),
        (r#""\ud800""#, "`data` at `` breaks `json`: "),
    ] {
        peer.publish("order:7", data);
        let (code, text) = error(&mut peer);
        assert_eq!(code, "schema_violation");
        assert!(text.starts_with(expected), "{text}");
    }
    let large = format!(r#"{{"items":[],"more":"{}"}}"#, "x".repeat(1024));
    peer.publish("order:7", &large);
    let (code, text) = error(&mut peer);
    let expected =
        format!("`data` of {} bytes exceeds the limit of 1024 for a schema", large.len());
    assert_eq!((&*code, text), ("message_too_large", expected));
    // In its turn, and as it was written.
    peer.publish("order:7", good);
    reader.expect_publication("order:7", good);
    reader.expect_idle();
    peer.expect_idle();
    server.wait_for_counter("schema_violations", 5);
}

#[test]
fn other_channels_are_not_checked() {
    let folder = folder(ORDER);
    let server = launch(folder.path());
    let mut peer = Peer::open(&server);
    for channel in ["order", "other:7", "x"] {
        peer.subscribe(channel);
        for data in ["7", "1e999", r#""\ud800""#] {
            peer.publish(channel, data);
            peer.expect_publication(channel, data);
        }
    }
    peer.expect_idle();
}

#[test]
fn the_envelope_is_built_in() {
    let folder = folder(ORDER);
    let server = launch(folder.path());
    let mut peer = Peer::open(&server);
    peer.subscribe("chat:lobby");
    let message = |content: &str| {
        format!(
            r#"{{"messageId":"0b4c1d3e-6a52-4b0c-9c3e-0a1b2c3d4e5f","timestamp":7,"type":"text","sender":"a","payload":{{"content":{content}}}}}"#
        )
    };
    peer.publish("chat:lobby", &message("7"));
    let (code, text) = error(&mut peer);
    assert_eq!(code, "schema_violation");
    assert!(text.starts_with("`data` at `/payload/content` breaks `type`: "), "{text}");
    peer.publish("chat:lobby", &message(r#""hello""#));
    peer.expect_publication("chat:lobby", &message(r#""hello""#));
}

#[test]
fn messages_to_users_obey_the_schema_too() {
    let folder = folder(ORDER);
    let server = launch(folder.path());
    let mut alice = Peer::open_at(&server, &format!("/?token={ALICE}"));
    let send = |data| {
        format!(
            r#"{{"action":"publish","to":{{"user":"alice"}},"channel":"order:7","data":{data}}}"#
        )
    };
    alice.send_text(&send("7"));
    assert_eq!(error(&mut alice).0, "schema_violation");
    alice.send_text(&send(r#"{"items":[]}"#));
    assert_eq!(alice.json()["data"], json!({"items": []}));
}

#[test]
fn a_schema_that_is_none_stops_the_start_with_its_file_and_place() {
    let folder = folder(r#"{"properties":{"a":{"type":"text"}}}"#);
    let flags = flags(folder.path());
    let output = Launch::new(&flags.each_ref().map(String::as_str)).try_start().err();
    let output = output.expect("it does not start");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for words in ["namespaces.order.schema = ", "order.json", "at `/properties/a/type`: "] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn an_event_or_a_chat_message_obeys_the_schema_itself() {
    let folder = folder(ORDER);
    let server = launch(folder.path());
    let mut peer = Peer::open(&server);
    peer.subscribe("chat:a");
    let text = r#"{"type":"text","id":1,"messageId":"11111111-2222-4333-8444-555555555555","timestamp":5,"sender":"x","channel":"chat:a","payload":{"content":"hi"}}"#;
    for (wrong, place) in [
        (text.replace("11111111-2", "2"), "/messageId"),
        (text.replace(r#""content":"hi""#, r#""content":7"#), "/payload"),
        (text.replace(r#""sender":"x","#, ""), "sender"),
    ] {
        peer.send_text(&wrong);
        let error = peer.json();
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("schema_violation")));
        assert_eq!(error["requestId"], 1);
        assert!(error["error"].as_str().expect("text").contains(place), "{error}");
    }
    peer.send_text(text);
    assert_eq!(peer.json()["type"], "ack");
    assert_eq!(peer.json()["payload"], json!({"content": "hi"}));
}

#[test]
fn messages_obey_the_schema_of_their_type_wherever_they_go() {
    let folder = folder(ORDER);
    let server = launch(folder.path());
    let (mut peer, mut reader) = (Peer::open(&server), Peer::open(&server));
    reader.subscribe("lobby");
    let text = |content: &str| {
        format!(
            r#"{{"id":"x","messageId":"0b4c1d3e-6a52-4b0c-9c3e-0a1b2c3d4e5f","timestamp":7,"type":"text","sender":"a","channel":"lobby","payload":{{"content":{content}}}}}"#
        )
    };
    for (message, expected) in [
        (text("7"), "the message at `/payload/content` breaks `type`: "),
        (
            r#"{"type":"order","id":"x","items":7}"#.into(),
            "the message at `/items` breaks `type`: ",
        ),
        (
            r#"{"type":"query","id":"x","payload":{"resource":"weather"}}"#.into(),
            "the message at `` breaks `required`: ",
        ),
        (
            format!(r#"{{"type":"order","id":"x","items":[],"a":"{}"}}"#, "x".repeat(1024)),
            "the message of 1067 bytes exceeds the limit of 1024",
        ),
    ] {
        peer.send_text(&message);
        let error = peer.json();
        assert_eq!((&error["type"], &error["requestId"]), (&json!("error"), &json!("x")));
        let text = error["error"].as_str().expect("a text");
        assert!(text.starts_with(expected), "{text}");
    }
    peer.send_text(&text(r#""hello""#));
    assert_eq!(peer.json()["type"], "ack");
    assert_eq!(reader.json()["payload"], json!({"content": "hello"}));
    // It goes to its route, which is not there.
    peer.send_text(r#"{"type":"order","id":"x","items":[{"count":1}]}"#);
    assert_eq!(peer.json()["code"], "unavailable");
    // Types without a schema, and what the server itself answers.
    peer.send_text(r#"{"type":"event","payload":{"event":"lobby","data":7}}"#);
    assert_eq!(reader.json()["type"], "event");
    peer.send_text(r#"{"type":"query","payload":{"resource":"time"}}"#);
    assert_eq!(peer.json()["type"], "response");
    server.wait_for_counter("schema_violations", 4);
}
