//! Sessions in the durable log, on the real binary: they are there after the process was killed, and
//! those that have ended are not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use prost::Message;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::envelope::envelope::Body;
use crate::support::envelope::{Envelope, RestoreSession};
use crate::support::open_session as open;
use crate::support::*;

const CONFIGURATION: &str = r#"
[sessions]
durable = true
durable_interval = "10ms"

[auth]
keys_file = "KEYS"

[namespaces.ack]
level = "acked"
ack_timeout = "1h"

[namespaces.kept]
level = "durable"
"#;

const ALICE: &str = "alice-alice-alice-alice";
const KILLS: usize = 20;

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys");
    fs::write(&keys, format!("alice {ALICE}\n")).expect("it is ours");
    let text = CONFIGURATION.replace("KEYS", keys.to_str().expect("text"));
    fs::write(folder.path().join("stentor.toml"), text).expect("it is ours");
    folder
}

fn launch(folder: &Path, shards: usize) -> Server {
    let path = |name| folder.join(name).to_str().expect("text").to_owned();
    let (config, store, shards) = (path("stentor.toml"), path("log"), shards.to_string());
    Server::start(&["--config", &config, "--store", &store, "--shards", &shards])
}

#[track_caller]
fn end(mut server: Server, signal: Signal) {
    server.signal(signal);
    server.wait_for_exit(PATIENCE);
}

#[track_caller]
fn restore(peer: &mut Peer, pair: &Pair) -> Value {
    peer.send_text(&pair.request(""));
    peer.json()
}

#[track_caller]
fn subscribe(peer: &mut Peer, channel: &str) {
    peer.send_text(&format!(r#"{{"action":"subscribe","channel":"{channel}"}}"#));
    let confirmation = peer.json();
    assert_eq!(confirmation["data"]["type"], "subscription_confirm", "{confirmation}");
}

/// Somebody else does.
#[track_caller]
fn publish(server: &Server, channel: &str) {
    let mut peer = Peer::open(server);
    peer.send_text(&format!(r#"{{"action":"publish","channel":"{channel}","data":1,"id":1}}"#));
    assert_eq!(peer.json()["type"], "ack");
}

#[track_caller]
fn authenticate(peer: &mut Peer) {
    peer.send_text(&format!(r#"{{"type":"auth","payload":{{"token":"{ALICE}"}}}}"#));
    let answer = peer.json();
    assert_eq!(answer["payload"]["userId"], "alice", "{answer}");
}

/// Until what the session was before this is on disk: one write may be under way, two are not.
fn wait_until_kept(peer: &mut Peer, server: &Server) {
    wait_until_written(peer, server, &["some", "more"]);
}

/// Waits behind each of these subscriptions until a session is written.
fn wait_until_written(peer: &mut Peer, server: &Server, channels: &[&str]) {
    for channel in channels {
        let before = server.counter("sessions_written");
        subscribe(peer, channel);
        wait_until("the session is written", || server.counter("sessions_written") > before);
    }
}

/// What it says of each channel that has a history: the name, and where it goes on.
fn places(restored: &Value) -> Vec<(String, u64)> {
    assert_eq!(restored["type"], "session_restored", "{restored}");
    let list = restored["subscriptions"].as_array().expect("a list").iter();
    let mut places: Vec<_> = list
        .filter(|one| one["recovered"] == true)
        .map(|one| {
            let name = one["channel"].as_str().expect("a name").to_owned();
            (name, one["offset"].as_u64().expect("an offset"))
        })
        .collect();
    places.sort();
    places
}

#[test]
fn a_session_survives_many_kills_and_other_numbers_of_shards() {
    let folder = folder();
    let mut server = launch(folder.path(), 3);
    let (mut peer, mut pair) = open(&server);
    let session = pair.session.clone();
    authenticate(&mut peer);
    for channel in ["ack:a", "kept:a", "live"] {
        subscribe(&mut peer, channel);
    }
    // So that its epoch lasts: the acked one has its first publication after a kill.
    publish(&server, "kept:a");
    assert_eq!(peer.json()["channel"], "kept:a");
    wait_until_kept(&mut peer, &server);
    let mut published = 0;
    for kill in 0..KILLS {
        end(server, Signal::KILL);
        server = launch(folder.path(), 1 + kill % 3);
        let (mut next, _) = open(&server);
        let restored = restore(&mut next, &pair);
        assert_eq!(restored["sessionId"], session, "{restored}");
        assert_eq!(restored["userId"], "alice", "{restored}");
        let channels: Vec<_> = places(&restored).into_iter().map(|(name, _)| name).collect();
        assert_eq!(channels, ["ack:a", "kept:a"], "{restored}");
        let all = restored["subscriptions"].as_array().expect("a list");
        let names = all.iter().map(|one| one["channel"].as_str().expect("a name"));
        // The last ones of those that were waited for may not be written.
        let names = names.filter(|name| *name != "more" && !name.starts_with("since"));
        let names: BTreeSet<_> = names.collect();
        assert_eq!(names, BTreeSet::from(["ack:a", "kept:a", "live", "some"]), "{restored}");
        pair = Pair::of(&restored);
        // What nobody has acknowledged comes, all of it and in order.
        let mut come = Vec::new();
        while come.len() < published {
            let publication = next.json();
            if publication["channel"] == "ack:a" {
                come.push(publication["offset"].as_u64().expect("an offset"));
            }
        }
        assert_eq!(come, (1..=published as u64).collect::<Vec<_>>());
        publish(&server, "ack:a");
        published += 1;
        let mut last = next.json();
        while last["channel"] != "ack:a" {
            last = next.json();
        }
        assert_eq!(last["offset"], published);
        // The session that the connection began with may be written too, and that it has ended.
        let channels = [1, 2, 3, 4].map(|number| format!("since-{kill}-{number}"));
        let channels = channels.each_ref().map(|channel| &**channel);
        wait_until_written(&mut next, &server, &channels);
    }
    end(server, Signal::TERM);
}

#[test]
fn an_orderly_stop_writes_what_is_due() {
    let folder = folder();
    let server = launch(folder.path(), 2);
    let (mut peer, pair) = open(&server);
    subscribe(&mut peer, "kept:a");
    end(server, Signal::TERM);
    let server = launch(folder.path(), 2);
    // Before a new connection has a session in the log, too.
    wait_until("it is loaded", || server.counter("sessions_loaded") > 0);
    let (mut peer, _) = open(&server);
    let restored = restore(&mut peer, &pair);
    // Nothing was ever published, so the channel may have another epoch.
    assert_eq!(restored["type"], "session_restored", "{restored}");
    assert_eq!(restored["subscriptions"][0]["channel"], "kept:a", "{restored}");
    // The pair of somebody else is none.
    let (mut other, own) = open(&server);
    let wrong = Pair { session: pair.session, connection: own.connection };
    assert_eq!(restore(&mut other, &wrong)["code"], "session_not_found");
}

#[test]
fn ended_sessions_stay_ended() {
    let folder = folder();
    let server = launch(folder.path(), 2);
    let (mut ended, first) = open(&server);
    authenticate(&mut ended);
    wait_until_kept(&mut ended, &server);
    let (mut peer, second) = open(&server);
    authenticate(&mut peer);
    let before = server.counter("sessions_written");
    peer.send_text(&format!(r#"{{"type":"end_session","sessionId":"{}"}}"#, first.session));
    assert_eq!(peer.json()["payload"], json!({"ended": true}));
    ended.skip_to_close();
    wait_until("its end is written", || server.counter("sessions_written") > before);
    wait_until_kept(&mut peer, &server);
    end(server, Signal::KILL);
    let server = launch(folder.path(), 2);
    let (mut peer, _) = open(&server);
    assert_eq!(restore(&mut peer, &first)["code"], "session_not_found");
    assert_eq!(restore(&mut peer, &second)["userId"], "alice");
}

#[test]
fn a_session_is_restored_in_protobuf_too() {
    let folder = folder();
    let server = launch(folder.path(), 2);
    let (mut peer, pair) = open(&server);
    subscribe(&mut peer, "kept:a");
    wait_until_kept(&mut peer, &server);
    end(server, Signal::KILL);
    let server = launch(folder.path(), 1);
    let mut peer = Peer::speaking(&server, "stentor.v1.protobuf");
    peer.frame();
    let restore = RestoreSession {
        session_id: pair.session.clone(),
        connection_id: pair.connection,
        ..RestoreSession::default()
    };
    let request = Envelope { body: Some(Body::RestoreSession(restore)), ..Envelope::default() };
    peer.send(&frame(OpCode::BINARY, &request.encode_length_delimited_to_vec()));
    let answer = peer.frame();
    let answer = Envelope::decode_length_delimited(&answer.payload[..]).expect("an envelope");
    let Some(Body::SessionRestored(restored)) = answer.body else { panic!("{answer:?}") };
    assert_eq!(restored.session_id, pair.session);
    let names = restored.subscriptions.iter().map(|one| one.channel.as_str());
    // The last one of those that were waited for may not be written.
    let names: BTreeSet<_> = names.filter(|name| *name != "more").collect();
    assert_eq!(names, BTreeSet::from(["kept:a", "some"]), "{restored:?}");
}

#[test]
fn sessions_need_a_folder() {
    let output = Launch::new(&["--set", "sessions.durable=true"]).try_start();
    let output = output.err().expect("it does not start");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("sessions.durable = true: needs a folder"), "{text}");
}
