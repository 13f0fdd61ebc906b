//! The server API over real sockets: every call, what is refused and how, and what clients see of it.

mod access;
mod addressing;
mod channels;
mod connections;
mod groups;
mod metrics;
mod publishing;
mod serving;

use std::fs;

use prost::Message;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::envelope::Envelope;
use crate::support::envelope::envelope::Body;
use crate::support::*;

const KEY: &str = "a-key-for-tests-only";
const HISTORY: [&str; 2] = ["--set", "namespaces.kept.level=history"];

#[test]
fn info_tells_of_every_shard() {
    let api = Api::start(&HISTORY);
    let mut clients = open_on_both_shards(&api.server);
    for (index, (peer, _)) in clients.iter_mut().enumerate() {
        peer.subscribe(&format!("own:{index}"));
    }
    api.call("publish", &json!({"channel": "kept:k", "data": 1}));
    let info = api.call("info", &json!({}));
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    let shards = info["shards"].as_array().expect("a list");
    assert_eq!(shards.len(), 2);
    let sum = |name: &str| shards.iter().map(|shard| shard[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!(info["connections"], sum("connections"));
    assert!(sum("channels") >= 3 && sum("historyBytes") > 0, "{info}");
}

const ALICE: &str = "alice-0123456789abcdef";
const BOB: &str = "bob-0123456789abcdef";

/// A server that knows users, two of whom are in static groups.
fn start_with_users(flags: &[&str]) -> (TempDir, Api) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let (keys, file, store) = (path("keys"), path("stentor.toml"), path("store"));
    let lines = format!("alice {ALICE} groups=staff,on-call\nbob {BOB} groups=staff\n");
    fs::write(&keys, lines).expect("it is ours");
    let text = "[namespaces.chat]\ndirect = true\n[namespaces.mail]\noffline_queue = true\n";
    fs::write(&file, text).expect("it is ours");
    let named = ["--config", &file, "--auth-keys", &keys, "--store", &store];
    let api = Api::start(&[&named, flags].concat());
    (folder, api)
}

fn auth(token: &str) -> String {
    format!(r#"{{"type":"auth","timestamp":1,"payload":{{"token":"{token}"}}}}"#)
}

/// Makes a connection a user's.
#[track_caller]
fn authenticate(peer: &mut Peer, token: &str) {
    peer.send_text(&auth(token));
    assert_eq!(peer.json()["type"], "response");
}

/// What comes next and is no ping.
#[track_caller]
fn message(peer: &mut Peer) -> Value {
    loop {
        let received = peer.frame();
        if received.opcode != OpCode::PING {
            return serde_json::from_str(received.text()).expect("JSON");
        }
    }
}

/// A client of the other subprotocol.
fn open_protobuf(server: &Server) -> Peer {
    let mut peer = Peer::speaking(server, "stentor.v1.protobuf");
    assert!(matches!(body(&mut peer), Body::Welcome(_)));
    peer
}

#[track_caller]
fn body(peer: &mut Peer) -> Body {
    let received = peer.frame();
    assert_eq!(received.opcode, OpCode::BINARY, "{received:?}");
    let envelope = Envelope::decode_length_delimited(&received.payload[..]).expect("an envelope");
    envelope.body.expect("a body")
}
