//! Large messages that have a schema, on the real binary: they are checked beside the event loop, and nobody
//! can tell but by the time.

use std::fs;

use prost::Message;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::envelope::envelope::Body;
use crate::support::envelope::{Envelope, Publish, Subscribe};
use crate::support::*;

const CONFIGURATION: &str = r#"
[limits]
max_message_size = "1MiB"
max_checked_size = "1MiB"

[schemas]
event = "FOLDER/event.json"

[namespaces.order]
schema = "FOLDER/order.json"

[namespaces.slow]
schema = "FOLDER/slow.json"
"#;

const ORDER: &str = r#"{"type":"object","properties":{"count":{"minimum":1}}}"#;

const EVENT: &str = r#"{"properties":{"id":{"type":"integer"}}}"#;

/// Not checked in turn by default, and in one piece on its way.
const LARGE: usize = 5000;

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name, text: &str| fs::write(folder.path().join(name), text).expect("it is ours");
    write("stentor.toml", &CONFIGURATION.replace("FOLDER", folder.path().to_str().expect("text")));
    write("order.json", ORDER);
    write("event.json", EVENT);
    // Each number is looked at as often as there are rules.
    let rules: Vec<_> = (0..400).map(|at| json!({"items": {"not": {"const": -1 - at}}})).collect();
    write("slow.json", &json!({ "allOf": rules }).to_string());
    folder
}

/// A server of one shard. `in_turn`: as `limits.checked_in_turn`.
fn launch(folder: &TempDir, in_turn: &str, flags: &[&str]) -> Server {
    prepare(folder, in_turn, flags).start()
}

fn prepare(folder: &TempDir, in_turn: &str, flags: &[&str]) -> Launch {
    let path = folder.path().join("stentor.toml");
    let in_turn = format!("limits.checked_in_turn={in_turn}");
    let mut all = vec!["--config", path.to_str().expect("text"), "--set", &in_turn];
    all.extend(flags);
    Launch::new(&all).env("STENTOR_SERVER_SHARDS", "1")
}

/// Data that takes long to check: as long as a test needs, and no longer than it waits.
fn slow() -> String {
    json!(vec![7; 100_000]).to_string()
}

fn publish(channel: &str, data: &str, id: u32) -> String {
    format!(r#"{{"action":"publish","channel":"{channel}","data":{data},"id":{id}}}"#)
}

fn order(count: u32, bytes: usize) -> String {
    format!(r#"{{"count":{count},"more":"{}"}}"#, "x".repeat(bytes))
}

/// Small and large, right and wrong, of each kind, among others that are not checked.
fn messages() -> Vec<String> {
    let event = |id: &str, bytes| {
        let more = "x".repeat(bytes);
        format!(
            r#"{{"type":"event","id":{id},"payload":{{"event":"order:7","count":0,"data":"{more}"}}}}"#
        )
    };
    vec![
        publish("order:7", &order(1, 0), 1),
        publish("order:7", &order(2, LARGE), 2),
        r#"{"type":"ping","id":3}"#.to_owned(),
        publish("order:7", &order(0, LARGE), 4),
        publish("order:7", &order(3, LARGE), 5),
        publish("free", "7", 6),
        publish("order:7", &order(0, 0), 7),
        event("8", LARGE),
        event(r#""9""#, LARGE),
        publish("order:7", &order(4, LARGE), 10),
        "no JSON".to_owned(),
    ]
}

/// What a message is the answer to, and whether it is an error. Nothing of it depends on the time.
fn summary(answer: &Value) -> String {
    let data = &answer["data"];
    let field = |name| [&answer[name], &data[name]].map(ToString::to_string).join("|");
    ["requestId", "type", "code", "message", "error", "channel"].map(field).join(" ")
}

/// What a publisher and a subscriber get when these frames are sent at once.
fn transcript(server: &Server, frames: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut peer, mut reader) = (Peer::open(server), Peer::open(server));
    reader.subscribe("order:7");
    let bytes: Vec<_> =
        frames.iter().flat_map(|text| frame(OpCode::TEXT, text.as_bytes())).collect();
    peer.send(&bytes);
    let mut answers = Vec::new();
    loop {
        let answer = peer.json();
        answers.push(summary(&answer));
        if answer["data"]["code"] == "invalid_json" {
            break;
        }
    }
    peer.expect_idle();
    reader.send_text(r#"{"type":"ping","id":"end"}"#);
    let mut heard = Vec::new();
    loop {
        let message = reader.json();
        if message["requestId"] == "end" {
            return (answers, heard);
        }
        let [count, data] = [&message["data"]["count"], &message["payload"]["event"]];
        heard.push(format!("{count} {data}"));
    }
}

#[test]
fn the_order_is_that_of_a_server_that_checks_in_turn() {
    let folder = folder();
    let (aside, in_turn) = (launch(&folder, "2KiB", &[]), launch(&folder, "1MiB", &[]));
    let everything = launch(&folder, "0", &[]);
    let messages = messages();
    let one_frame = [messages.join("\n")];
    let two_frames = [messages[..4].join("\n"), messages[4..].join("\n")];
    for frames in [&one_frame[..], &two_frames, &messages] {
        let expected = transcript(&in_turn, frames);
        assert_eq!((expected.0.len(), expected.1.len()), (11, 5), "{expected:?}");
        assert_eq!(transcript(&aside, frames), expected);
        assert_eq!(transcript(&everything, frames), expected);
    }
    assert_eq!(in_turn.counter("checked_aside"), 0);
    assert_eq!(aside.counter("checked_aside"), 3 * 7);
    assert_eq!(aside.counter("schema_violations"), in_turn.counter("schema_violations"));
    assert!(everything.counter("checked_aside") > 3 * 7);
}

#[test]
fn envelopes_keep_their_order_too() {
    let folder = folder();
    let server = launch(&folder, "2KiB", &[]);
    let mut reader = Peer::open(&server);
    reader.subscribe("order:7");
    let mut peer = Peer::speaking(&server, "stentor.v1.protobuf");
    let mut payload = Vec::new();
    let publish = |data: String| {
        Body::Publish(Publish {
            channel: "order:7".to_owned(),
            data: data.into_bytes(),
            ..Publish::default()
        })
    };
    let subscribe = Subscribe { channel: "free".to_owned(), ..Subscribe::default() };
    for (id, body) in [
        ("1", publish(order(1, 0))),
        ("2", publish(order(2, LARGE))),
        ("3", Body::Subscribe(subscribe)),
        ("4", publish(order(0, LARGE))),
        ("5", publish(order(3, LARGE))),
        ("6", publish(order(4, 0))),
    ] {
        let (id, body) = (id.to_owned(), Some(body));
        let envelope = Envelope { id, request_id: String::new(), body };
        envelope.encode_length_delimited(&mut payload).expect("a vector grows");
    }
    peer.send(&[frame(OpCode::BINARY, &payload), frame(OpCode::BINARY, &payload)].concat());
    let mut answers = Vec::new();
    while answers.len() < 12 {
        let payload = peer.frame().payload;
        let mut rest = &payload[..];
        while !rest.is_empty() {
            let answer = Envelope::decode_length_delimited(&mut rest).expect("an envelope");
            if !answer.request_id.is_empty() {
                let is_error = matches!(answer.body, Some(Body::Error(_)));
                answers.push(format!("{}{}", answer.request_id, if is_error { "!" } else { "" }));
            }
        }
    }
    assert_eq!(answers, ["1", "2", "3", "4!", "5", "6"].repeat(2));
    let heard: Vec<_> = (0..8).map(|_| reader.json()["data"]["count"].clone()).collect();
    assert_eq!(heard, [1, 2, 3, 4, 1, 2, 3, 4]);
}

#[test]
fn others_are_served_while_a_check_takes_long() {
    let folder = folder();
    let server = launch(&folder, "2KiB", &[]);
    let (mut peer, mut other) = (Peer::open(&server), Peer::open(&server));
    other.subscribe("slow:1");
    peer.send_text(&publish("slow:1", &slow(), 1));
    peer.send_text(&publish("slow:1", "2", 2));
    server.wait_for_counter("checked_aside", 1);
    for _ in 0..20 {
        // Nothing was published yet.
        other.expect_idle();
    }
    other.expect_publication("slow:1", &slow());
    other.expect_publication("slow:1", "2");
    assert_eq!([peer.json()["requestId"].clone(), peer.json()["requestId"].clone()], [1, 2]);
}

#[test]
fn who_leaves_while_a_check_is_under_way_is_heard_nevertheless() {
    let folder = folder();
    let mut server = launch(&folder, "2KiB", &[]);
    let mut reader = Peer::open(&server);
    reader.subscribe("slow:1");
    // With a Close behind it.
    let mut peer = Peer::open(&server);
    let message = frame(OpCode::TEXT, publish("slow:1", &slow(), 1).as_bytes());
    peer.send(&[message.clone(), frame(OpCode::CLOSE, &close_payload(1000, b""))].concat());
    reader.expect_publication("slow:1", &slow());
    assert_eq!(peer.json()["requestId"], 1);
    peer.expect_close(1000, "");
    // With the end of the stream behind it, and without an end.
    for ends in [true, false] {
        let mut peer = Peer::open(&server);
        peer.send(&message);
        if ends {
            peer.finish();
        } else {
            server.wait_for_counter("checked_aside", 3);
            peer.hang_up();
        }
        reader.expect_publication("slow:1", &slow());
    }
    // The server ends.
    let mut peer = Peer::open(&server);
    peer.send(&message);
    server.wait_for_counter("checked_aside", 4);
    server.signal(Signal::TERM);
    reader.expect_publication("slow:1", &slow());
    assert_eq!(peer.json()["requestId"], 1);
    assert_eq!(peer.skip_to_close().0, 1001);
    drop((peer, reader));
    assert!(server.wait_for_exit(PATIENCE).success());
}

#[test]
fn a_heartbeat_does_not_mind_the_wait() {
    let folder = folder();
    let server = launch(&folder, "2KiB", &["--heartbeat", "100ms"]);
    let mut peer = Peer::open(&server);
    peer.send_text(&publish("slow:1", &slow(), 1));
    loop {
        let next = peer.frame();
        match next.opcode {
            OpCode::PING => peer.send(&frame(OpCode::PONG, &next.payload)),
            _ => {
                assert!(next.text().contains(r#""requestId":1"#), "{next:?}");
                break;
            }
        }
    }
    peer.send_text(r#"{"type":"ping"}"#);
    while peer.frame().opcode == OpCode::PING {}
}

#[test]
fn a_shard_that_finds_no_room_checks_in_its_turn() {
    let folder = folder();
    // Of the two texts that are under way the first takes long, and both are more than may wait.
    let server = launch(&folder, "2KiB", &["--set", "limits.mesh_backlog=1MiB"]);
    let [mut first, mut second, mut other] = [(); 3].map(|()| Peer::open(&server));
    first.send_text(&publish("slow:1", &json!(vec![7; 500_000]).to_string(), 1));
    server.wait_for_counter("checked_aside", 1);
    second.send_text(&publish("slow:1", &slow(), 1));
    server.wait_for_counter("checked_aside", 2);
    other.send_text(&publish("order:7", &order(0, LARGE), 2));
    assert_eq!(other.json()["data"]["code"], "schema_violation");
    assert_eq!([server.counter("check_queue_full"), server.counter("checked_aside")], [1, 2]);
}

#[test]
fn who_is_kept_waiting_may_publish_what_it_might_have_published_meanwhile() {
    let folder = folder();
    let rate = ["--set", "limits.publish_rate=100", "--set", "limits.publish_burst=1"];
    let server = launch(&folder, "2KiB", &rate);
    let mut peer = Peer::open(&server);
    // The check takes longer than three more would at that rate.
    for id in 1..5 {
        let data = if id == 1 { slow() } else { "1".to_owned() };
        peer.send_text(&publish("slow:1", &data, id));
    }
    for id in 1..5 {
        let ack = peer.json();
        assert_eq!((&ack["type"], &ack["requestId"]), (&json!("ack"), &json!(id)), "{ack}");
    }
    assert_eq!(server.counter("rate_limited"), 0);
}

#[test]
fn who_is_disconnected_while_a_check_is_under_way_is_heard_before() {
    let folder = folder();
    let api = Api::launch(prepare(&folder, "2KiB", &["--admin", "127.0.0.1:0"]));
    let mut reader = Peer::open(&api.server);
    reader.subscribe("slow:1");
    let (mut peer, id) = open_named(&api.server);
    peer.send_text(&publish("slow:1", &slow(), 1));
    api.server.wait_for_counter("checked_aside", 1);
    api.call("disconnect", &json!({"connection": id}));
    reader.expect_publication("slow:1", &slow());
    assert_eq!(peer.json()["requestId"], 1);
    peer.skip_to_close();
    // The verdict finds nobody.
    reader.expect_idle();
}
