//! Sessions over real sockets: what a client gets back on another connection, who loses it, and what is
//! said to whoever has no right to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::open_session as open;
use crate::support::*;

const CONFIGURATION: &str = r#"
[namespaces.kept]
level = "history"
history_size = 100000

[namespaces.short]
level = "history"
history_size = 5
"#;

fn start(flags: &[&str]) -> (TempDir, Server) {
    start_with(CONFIGURATION, flags)
}

/// On that shard: the kernel spreads connections.
#[track_caller]
fn open_on(server: &Server, shard: &str) -> (Peer, Pair) {
    for _ in 0..200 {
        let (peer, pair) = open(server);
        if pair.shard() == shard {
            return (peer, pair);
        }
    }
    panic!("no connection comes to {shard}");
}

#[track_caller]
fn publish(peer: &mut Peer, channel: &str, data: &str) {
    peer.send_text(&format!(
        r#"{{"action":"publish","channel":"{channel}","data":{data},"id":1}}"#
    ));
    assert_eq!(peer.json()["type"], "ack");
}

/// Restores and returns the answer, which comes next.
#[track_caller]
fn restore(peer: &mut Peer, pair: &Pair, more: &str) -> Value {
    peer.send_text(&pair.request(more));
    let answer = peer.json();
    assert_eq!(answer["type"], "session_restored", "{answer}");
    assert_eq!(answer["sessionId"], pair.session);
    answer
}

#[track_caller]
fn expect_error(peer: &mut Peer, request: &str, code: &str) {
    peer.send_text(request);
    let answer = peer.json();
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{request}");
    assert!(answer["id"].is_string() && answer["error"].is_string(), "{answer}");
}

/// Of a channel in the list of a restored session.
#[track_caller]
fn listed<'a>(restored: &'a Value, channel: &str) -> &'a Value {
    let list = restored["subscriptions"].as_array().expect("a list");
    let mut found = list.iter().filter(|one| one["channel"] == channel);
    let one = found.next().unwrap_or_else(|| panic!("{channel} is not in {restored}"));
    assert_eq!(found.next(), None, "once: {restored}");
    one
}

#[track_caller]
fn query_session(peer: &mut Peer) -> Value {
    peer.send_text(r#"{"type":"query","id":5,"payload":{"resource":"session"}}"#);
    let answer = peer.json();
    assert_eq!((&answer["type"], &answer["requestId"]), (&json!("response"), &json!(5)));
    answer["payload"].clone()
}

#[test]
fn a_session_comes_back_with_all_its_subscriptions_in_one_message() {
    let (_folder, server) = start(&[]);
    let mut publisher = Peer::open(&server);
    let channels: Vec<_> = (0..6).map(|number| format!("kept:{number}")).collect();
    // From each shard to each.
    for (from, to) in [("0000", "0000"), ("0000", "0001"), ("0001", "0000"), ("0001", "0001")] {
        let (mut peer, pair) = open_on(&server, from);
        for channel in &channels {
            subscribe(&mut peer, channel, "");
        }
        subscribe(&mut peer, "live", "");
        let mut offsets = Vec::new();
        for channel in &channels {
            publish(&mut publisher, channel, "1");
            offsets.push(peer.json()["offset"].as_u64().expect("an offset"));
        }
        peer.close();
        for channel in &channels {
            publish(&mut publisher, channel, "2");
        }
        let (mut peer, fresh) = open_on(&server, to);
        let positions: Vec<_> = channels
            .iter()
            .zip(&offsets)
            .map(|(channel, at)| format!(r#""{channel}":{at}"#))
            .collect();
        let more = format!(r#","id":"r","positions":{{{}}}"#, positions.join(","));
        let restored = restore(&mut peer, &pair, &more);
        assert_eq!(restored["requestId"], "r");
        assert_eq!(restored["connectionId"], fresh.connection, "the new one");
        for (channel, offset) in channels.iter().zip(&offsets) {
            let one = listed(&restored, channel);
            assert_eq!((&one["recovered"], &one["recoveredCount"]), (&json!(true), &json!(1)));
            assert_eq!(one["offset"], *offset);
            assert!(one["epoch"].is_string());
        }
        let live = listed(&restored, "live");
        assert_eq!((&live["recovered"], &live["reason"]), (&json!(false), &json!("no_history")));
        assert_eq!(live.get("offset"), None);
        // What was missed, each once, in any order of the channels.
        let mut missed = BTreeSet::new();
        for _ in &channels {
            let publication = peer.json();
            assert_eq!(publication["data"], 2);
            assert!(missed.insert(publication["channel"].as_str().expect("a name").to_owned()));
        }
        // Then what comes.
        for channel in channels.iter().map(String::as_str).chain(["live"]) {
            publish(&mut publisher, channel, "3");
            let publication = peer.json();
            assert_eq!(
                (&publication["channel"], &publication["data"]),
                (&json!(channel), &json!(3))
            );
        }
        peer.close();
    }
    let counters = server.counters();
    assert_eq!(counters["sessions_restored"], 4);
    assert!(!counters.contains_key("sessions_moved"), "{counters:?}");
}

#[test]
fn without_positions_nothing_is_missing() {
    let (_folder, server) = start(&["--heartbeat", "500ms"]);
    let mut publisher = Peer::open(&server);
    let (mut peer, pair) = open(&server);
    subscribe(&mut peer, "kept:a", "");
    for n in 1..=3 {
        publish(&mut publisher, "kept:a", &n.to_string());
        assert_eq!(peer.json()["offset"], n);
    }
    // It answers a ping, so it has what came before.
    peer.expect_frame(OpCode::PING, b"probe");
    peer.send(&frame(OpCode::PONG, b"probe"));
    assert_eq!(query_session(&mut peer)["linkQuality"], "good");
    // The other one was as silent, and would meet a ping where it waits for its acknowledgement.
    let mut publisher = Peer::open(&server);
    for n in 4..=5 {
        publish(&mut publisher, "kept:a", &n.to_string());
        assert_eq!(peer.json()["offset"], n);
    }
    peer.abort();
    publish(&mut publisher, "kept:a", "6");
    let (mut peer, _) = open(&server);
    let restored = restore(&mut peer, &pair, "");
    let one = listed(&restored, "kept:a");
    assert_eq!((&one["offset"], &one["recoveredCount"]), (&json!(3), &json!(3)));
    for n in 4..=6 {
        assert_eq!(peer.json()["offset"], n);
    }
}

#[test]
fn a_pong_that_nobody_asked_for_proves_nothing() {
    let (_folder, server) = start(&["--heartbeat", "500ms"]);
    let mut publisher = Peer::open(&server);
    let (mut peer, pair) = open(&server);
    subscribe(&mut peer, "kept:a", "");
    publish(&mut publisher, "kept:a", "1");
    assert_eq!(peer.json()["offset"], 1);
    peer.expect_frame(OpCode::PING, b"probe");
    peer.send(&frame(OpCode::PONG, b""));
    peer.expect_idle();
    peer.abort();
    let (mut peer, _) = open(&server);
    let restored = restore(&mut peer, &pair, "");
    assert_eq!(listed(&restored, "kept:a")["offset"], 0);
    assert_eq!(peer.json()["offset"], 1);
}

#[test]
fn a_session_that_is_restored_elsewhere_leaves_its_connection_with_4005() {
    let (_folder, server) = start(&[]);
    let mut publisher = Peer::open(&server);
    let (mut first, mut pair) = open_on(&server, "0000");
    subscribe(&mut first, "kept:a", "");
    let mut holder = first;
    for (number, shard) in ["0001", "0000", "0000", "0001", "0001"].into_iter().enumerate() {
        let (mut next, fresh) = open_on(&server, shard);
        subscribe(&mut next, "other", "");
        let restored = restore(&mut next, &pair, "");
        listed(&restored, "kept:a");
        holder.expect_close(4005, "session_moved");
        holder.send(&frame(OpCode::CLOSE, &close_payload(4005, b"")));
        holder.expect_end();
        for offset in 1..=number {
            assert_eq!(next.json()["offset"], offset, "no ping was answered");
        }
        publish(&mut publisher, "kept:a", "1");
        assert_eq!(next.json()["channel"], "kept:a");
        publish(&mut publisher, "other", "1");
        assert_eq!(next.json()["channel"], "other", "it keeps its own");
        pair.connection = fresh.connection;
        holder = next;
    }
    assert_eq!(query_session(&mut holder)["sessionId"], pair.session);
    assert_eq!(server.counter("sessions_moved"), 5);
    // Once more where it is.
    let restored = restore(&mut holder, &pair, r#","id":1"#);
    assert_eq!(listed(&restored, "kept:a")["recovered"], true);
    publish(&mut publisher, "kept:a", "1");
    assert_eq!(holder.json()["channel"], "kept:a");
    assert_eq!(server.counter("sessions_moved"), 5);
}

#[test]
fn who_did_not_hear_that_it_was_restored_comes_back_with_the_old_pair() {
    let (_folder, server) = start(&[]);
    let (mut peer, pair) = open(&server);
    subscribe(&mut peer, "kept:a", "");
    peer.abort();
    for _ in 0..5 {
        let (mut peer, _) = open(&server);
        let restored = restore(&mut peer, &pair, "");
        listed(&restored, "kept:a");
        peer.abort();
    }
    let (mut peer, fresh) = open(&server);
    restore(&mut peer, &pair, "");
    peer.abort();
    let (mut peer, _) = open(&server);
    let new = Pair { connection: fresh.connection, ..pair.clone() };
    restore(&mut peer, &new, "");
    // Whoever has heard of the new pair has no use for the old one.
    let (mut other, _) = open(&server);
    expect_error(&mut other, &pair.request(""), "session_not_found");
}

#[test]
fn who_has_the_session_does_not_lose_it_by_asking_again() {
    let (_folder, server) = start(&[]);
    let (mut peer, pair) = open(&server);
    subscribe(&mut peer, "kept:a", "");
    peer.abort();
    let (mut peer, older) = open(&server);
    restore(&mut peer, &pair, "");
    peer.abort();
    let (mut peer, own) = open(&server);
    restore(&mut peer, &pair, "");
    // Another connection might still have it with this pair.
    let older = Pair { connection: older.connection, ..pair.clone() };
    expect_error(&mut peer, &older.request(""), "session_not_found");
    for named in [pair.connection, own.connection] {
        let named = Pair { session: pair.session.clone(), connection: named };
        restore(&mut peer, &named, "");
    }
    let (mut publisher, _) = open(&server);
    publish(&mut publisher, "kept:a", "1");
    assert_eq!(peer.json()["channel"], "kept:a");
    assert_eq!(server.counter("sessions_moved"), 0);
}

#[test]
fn a_session_ends_with_its_time() {
    let (_folder, server) = start(&["--set", "sessions.ttl=1s"]);
    let (mut peer, pair) = open(&server);
    subscribe(&mut peer, "kept:a", "");
    peer.close();
    server.wait_for_counter("sessions_expired", 1);
    let (mut peer, _) = open(&server);
    expect_error(&mut peer, &pair.request(r#","id":1"#), "session_not_found");
    fresh_client_works(&server);
}

#[test]
fn the_oldest_sessions_make_room() {
    let (_folder, server) = start(&["--shards", "1", "--set", "sessions.max_parked=2"]);
    let mut pairs = Vec::new();
    for number in 1..=3 {
        let (peer, pair) = open(&server);
        peer.close();
        server.wait_for_counter("sessions_parked", number);
        pairs.push(pair);
    }
    server.wait_for_counter("sessions_dropped", 1);
    let (mut peer, _) = open(&server);
    expect_error(&mut peer, &pairs[0].request(""), "session_not_found");
    for pair in &pairs[1..] {
        let restored = restore(&mut peer, pair, "");
        assert_eq!(restored["subscriptions"], json!([]));
    }
}

#[test]
fn an_offender_has_nothing_to_come_back_to() {
    let (_folder, server) = start(&["--set", "limits.max_errors=5"]);
    let (mut peer, pair) = open(&server);
    for _ in 0..5 {
        peer.send_text("nonsense");
    }
    assert_eq!(peer.skip_to_close(), (1008, "too_many_errors".to_owned()));
    let (mut peer, _) = open(&server);
    expect_error(&mut peer, &pair.request(""), "session_not_found");
}

#[test]
fn nobody_gets_a_session_without_its_pair() {
    let (_folder, server) = start(&["--set", "limits.max_errors=1000"]);
    let (mut owner, pair) = open(&server);
    subscribe(&mut owner, "kept:a", "");
    let (mut other, own) = open(&server);
    let zeros = |text: &str| "0".repeat(text.len());
    let foreign = [
        Pair { session: own.session.clone(), ..pair.clone() },
        Pair { connection: own.connection.clone(), ..pair.clone() },
        Pair { connection: zeros(&pair.connection), ..pair.clone() },
        Pair { session: zeros(&pair.session), ..pair.clone() },
        Pair { session: format!("ffff{}", &pair.session[4..]), ..pair.clone() },
        Pair { connection: format!("{}f", &pair.connection[1..]), ..pair.clone() },
        Pair { session: pair.session.to_uppercase() + "x", ..pair.clone() },
        Pair { session: String::new(), connection: "é".repeat(300) },
    ];
    for pair in &foreign {
        expect_error(&mut other, &pair.request(""), "session_not_found");
    }
    for more in [
        r#","positions":7"#,
        r#","positions":{"kept:a":-1}"#,
        r#","positions":{"kept:a":1e3}"#,
        r#","positions":{"kept:a":18446744073709551616}"#,
        r#","positions":{"kept:a":"1"}"#,
        r#","positions":{"kept:a":{"epoch":7,"offset":1}}"#,
        r#","positions":{"kept:a":1,"kept:a":1}"#,
        r#","positions":{"kept:a":1},"positions":{}"#,
        r#","id":1.5"#,
    ] {
        expect_error(&mut other, &pair.request(more), "invalid_message");
    }
    for request in [
        r#"{"type":"restore_session"}"#.to_owned(),
        format!(r#"{{"type":"restore_session","sessionId":"{}"}}"#, pair.session),
        r#"{"type":"restore_session","sessionId":7,"connectionId":null}"#.to_owned(),
        r#"{"type":"restore_session","sessionId":"\ud800","connectionId":"x"}"#.to_owned(),
    ] {
        expect_error(&mut other, &request, "invalid_message");
    }
    owner.expect_idle();
    other.expect_idle();
    restore(&mut other, &pair, "");
    owner.expect_close(4005, "session_moved");
}

#[test]
fn positions_that_lead_nowhere_are_told() {
    let (_folder, server) = start(&[]);
    let mut publisher = Peer::open(&server);
    let (mut peer, mut pair) = open(&server);
    let begin = subscribe(&mut peer, "short:a", "");
    let epoch = begin["epoch"].as_str().expect("an epoch");
    for n in 1..=9 {
        publish(&mut publisher, "short:a", &n.to_string());
    }
    let position = |place: &str| format!(r#","positions":{{"short:a":{place},"foreign":1}}"#);
    let at =
        |epoch: &str, offset: u64| position(&format!(r#"{{"epoch":"{epoch}","offset":{offset}}}"#));
    for (more, reason, offset) in [
        (position("10"), "future", 9),
        (position("18446744073709551615"), "future", 9),
        (position("3"), "trimmed", 9),
        (String::new(), "trimmed", 9),
        (at("0000000000000000", 9), "epoch", 9),
        (at("another server", 9), "epoch", 9),
    ] {
        let (mut next, fresh) = open(&server);
        let restored = restore(&mut next, &pair, &more);
        let one = listed(&restored, "short:a");
        assert_eq!((&one["recovered"], &one["reason"]), (&json!(false), &json!(reason)), "{more}");
        assert_eq!(
            (&one["offset"], &one["code"]),
            (&json!(offset), &json!("position_unavailable"))
        );
        assert_eq!(restored["subscriptions"].as_array().map(Vec::len), Some(1));
        next.expect_idle();
        pair.connection = fresh.connection;
        peer = next;
    }
    // It was told so once, but nobody knows that it heard it.
    let (mut next, _) = open(&server);
    let restored = restore(&mut next, &pair, &at(epoch, 7));
    assert_eq!(listed(&restored, "short:a")["recoveredCount"], 2);
    assert_eq!([next.json()["data"].clone(), next.json()["data"].clone()], [8, 9]);
    drop(peer);
}

#[test]
fn a_session_can_be_asked_about() {
    let (_folder, server) = start(&["--heartbeat", "500ms"]);
    // Without a subprotocol nobody is told its ids until it asks.
    let mut peer = Peer::open(&server);
    subscribe(&mut peer, "kept:a", "");
    subscribe(&mut peer, "live", "");
    let facts = query_session(&mut peer);
    assert_eq!((&facts["userId"], &facts["subscriptions"]), (&Value::Null, &json!(2)));
    assert_eq!((&facts["linkQuality"], &facts["rtt"]), (&json!("unknown"), &Value::Null));
    assert_eq!(facts["sessionTtl"], 3_600_000);
    let pair = Pair::of(&facts);
    assert_eq!(Pair::of(&query_session(&mut peer)), pair, "they stay");
    peer.expect_frame(OpCode::PING, b"probe");
    std::thread::sleep(Duration::from_millis(150));
    peer.send(&frame(OpCode::PONG, b"probe"));
    let facts = query_session(&mut peer);
    assert!(facts["rtt"].as_u64().expect("a number") >= 140, "{facts}");
    assert_ne!(facts["linkQuality"], "good");
    peer.abort();
    let mut peer = Peer::open(&server);
    let restored = restore(&mut peer, &pair, "");
    assert_eq!(restored["subscriptions"].as_array().map(Vec::len), Some(2));
}

/// `kept:` as in the configuration, and `acked:` in a log.
fn start_acked(folder: &Path) -> Server {
    let path = |name: &str| folder.join(name).to_str().expect("text").to_owned();
    let text =
        format!("{CONFIGURATION}\n[namespaces.acked]\nlevel = \"acked\"\nack_timeout = \"1h\"\n");
    fs::write(folder.join("stentor.toml"), text).expect("it is ours");
    Server::start(&["--config", &path("stentor.toml"), "--store", &path("log")])
}

#[test]
fn what_was_not_acknowledged_comes_again_with_the_session() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start_acked(folder.path());
    let mut publisher = Peer::open(&server);
    // Whatever the hash, both shards are the home of some of them, and of the sessions.
    for round in 0..8 {
        let channel = format!("acked:{round}");
        let (mut peer, pair) = open(&server);
        subscribe(&mut peer, &channel, "");
        for n in 1..=8 {
            publish(&mut publisher, &channel, &n.to_string());
        }
        let take = |peer: &mut Peer, offsets: &[u64]| -> Vec<String> {
            let expected = offsets.iter().map(|offset| {
                let message = peer.json();
                assert_eq!(
                    (&message["data"], &message["offset"]),
                    (&json!(offset), &json!(offset))
                );
                message["messageId"].as_str().expect("an id").to_owned()
            });
            expected.collect()
        };
        let ids = take(&mut peer, &[1, 2, 3, 4, 5, 6, 7, 8]);
        for offset in [1, 2, 4, 5, 7] {
            peer.send_text(&format!(r#"{{"type":"ack","messageId":"{}"}}"#, ids[offset - 1]));
        }
        peer.expect_idle();
        peer.abort();
        publish(&mut publisher, &channel, "9");
        let (mut peer, second) = open(&server);
        let restored = restore(&mut peer, &pair, "");
        assert_eq!(listed(&restored, &channel)["offset"], 2);
        assert_eq!(take(&mut peer, &[3, 6, 8, 9])[..2], [ids[2].clone(), ids[5].clone()]);
        peer.expect_idle();
        // Once more, from a place that the client names: an acknowledgement up to there.
        peer.send_text(&format!(r#"{{"type":"ack","messageId":"{}"}}"#, ids[7]));
        peer.expect_idle();
        peer.abort();
        let pair = Pair { connection: second.connection, ..pair };
        let (mut peer, third) = open(&server);
        let restored = restore(&mut peer, &pair, &format!(r#","positions":{{"{channel}":4}}"#));
        assert_eq!(listed(&restored, &channel)["offset"], 4);
        take(&mut peer, &[6, 9]);
        peer.expect_idle();
        peer.abort();
        // It never goes back, and a place that is not there is told.
        let pair = Pair { connection: third.connection, ..pair };
        let (mut peer, fourth) = open(&server);
        let restored = restore(&mut peer, &pair, &format!(r#","positions":{{"{channel}":1}}"#));
        assert_eq!(listed(&restored, &channel)["offset"], 5);
        take(&mut peer, &[6, 9]);
        peer.abort();
        let pair = Pair { connection: fourth.connection, ..pair };
        let (mut peer, fifth) = open(&server);
        let restored = restore(&mut peer, &pair, &format!(r#","positions":{{"{channel}":99}}"#));
        assert_eq!(listed(&restored, &channel)["reason"], "future");
        peer.expect_idle();
        peer.abort();
        // Nothing was acknowledged by that.
        let pair = Pair { connection: fifth.connection, ..pair };
        let (mut peer, _) = open(&server);
        restore(&mut peer, &pair, "");
        take(&mut peer, &[6]);
    }
}

const KEYS: &str = "alice alice-0123456789abcdef\nbob bob-0123456789abcdef\n";
const ALICE: &str = "alice-0123456789abcdef";
const BOB: &str = "bob-0123456789abcdef";

fn start_with_users(flags: &[&str]) -> (TempDir, Server) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let text = format!("{CONFIGURATION}\n[namespaces.chat]\ndirect = true\n");
    fs::write(path("stentor.toml"), text).expect("it is ours");
    fs::write(path("keys"), KEYS).expect("it is ours");
    let named = ["--config", &path("stentor.toml"), "--auth-keys", &path("keys")];
    let server = Server::start(&[&named, flags].concat());
    (folder, server)
}

#[track_caller]
fn authenticate(peer: &mut Peer, token: &str) -> Value {
    peer.send_text(&format!(r#"{{"type":"auth","id":"a","payload":{{"token":"{token}"}}}}"#));
    let answer = peer.json();
    assert_eq!(answer["requestId"], "a", "{answer}");
    answer
}

#[test]
fn a_session_keeps_its_user() {
    let (_folder, server) = start_with_users(&["--set", "auth.required=true"]);
    // Whatever the shards.
    for round in 0..8 {
        let (mut peer, pair) = open(&server);
        authenticate(&mut peer, ALICE);
        subscribe(&mut peer, "kept:a", "");
        if round % 2 == 0 {
            peer.abort();
        }
        // Another user has no use for it, wherever it is.
        let (mut other, _) = open(&server);
        authenticate(&mut other, BOB);
        expect_error(&mut other, &pair.request(""), "session_not_found");
        // Who names the pair is authenticated by that.
        let (mut next, second) = open(&server);
        expect_error(
            &mut next,
            r#"{"type":"query","payload":{"resource":"session"}}"#,
            "unauthenticated",
        );
        let restored = restore(&mut next, &pair, "");
        assert_eq!(restored["userId"], "alice", "{restored}");
        assert_eq!(listed(&restored, "kept:a")["recovered"], true);
        assert_eq!(query_session(&mut next)["userId"], "alice");
        // Behind the answer nothing can miss it.
        authenticate(&mut next, ALICE);
        other.send_text(
            r#"{"action":"publish","to":{"user":"alice"},"channel":"chat:x","data":7,"id":1}"#,
        );
        assert_eq!(other.json()["type"], "ack");
        assert_eq!(next.json()["data"], 7);
        // The same user, on a connection that is that user's already.
        let (mut last, _) = open(&server);
        authenticate(&mut last, ALICE);
        let pair = Pair { connection: second.connection, ..pair };
        assert_eq!(restore(&mut last, &pair, "")["userId"], "alice");
        next.expect_close(4005, "session_moved");
    }
}

#[test]
fn a_session_of_nobody_becomes_a_users_but_authenticates_nobody() {
    let (_folder, server) = start_with_users(&[]);
    let (mut peer, pair) = open(&server);
    subscribe(&mut peer, "kept:a", "");
    peer.abort();
    let (mut peer, second) = open(&server);
    authenticate(&mut peer, ALICE);
    assert_eq!(restore(&mut peer, &pair, "")["userId"], "alice");
    peer.abort();
    let (mut peer, third) = open(&server);
    let pair = Pair { connection: second.connection, ..pair };
    assert_eq!(restore(&mut peer, &pair, "")["userId"], "alice");
    assert_eq!(authenticate(&mut peer, BOB)["code"], "permission_denied");
    peer.abort();
    let (mut peer, _) = open(&server);
    authenticate(&mut peer, BOB);
    let pair = Pair { connection: third.connection, ..pair };
    expect_error(&mut peer, &pair.request(""), "session_not_found");
    let (_folder, server) = start_with_users(&["--set", "auth.required=true"]);
    let (peer, pair) = open(&server);
    peer.abort();
    server.wait_for_counter("sessions_parked", 1);
    let (mut peer, _) = open(&server);
    expect_error(&mut peer, &pair.request(""), "unauthenticated");
    authenticate(&mut peer, ALICE);
    assert_eq!(restore(&mut peer, &pair, "")["userId"], "alice");
}

/// A request that is answered by a response, with its payload.
#[track_caller]
fn respond(peer: &mut Peer, request: &str) -> Value {
    peer.send_text(request);
    let answer = peer.json();
    assert_eq!(
        (&answer["type"], &answer["requestId"]),
        (&json!("response"), &json!(3)),
        "{answer}"
    );
    answer["payload"].clone()
}

const LIST: &str = r#"{"type":"query","id":3,"payload":{"resource":"sessions"}}"#;

fn end(session: &str) -> String {
    format!(r#"{{"type":"end_session","id":3,"sessionId":"{session}"}}"#)
}

#[test]
fn users_list_and_end_their_sessions() {
    let (_folder, server) = start_with_users(&["--shards", "2"]);
    let (mut nobody, own) = open(&server);
    expect_error(&mut nobody, LIST, "unauthenticated");
    expect_error(&mut nobody, &end(&own.session), "unauthenticated");
    for shard in ["0000", "0001", "0000", "0001"] {
        let (mut first, own) = open_on(&server, shard);
        authenticate(&mut first, ALICE);
        let only = respond(&mut first, LIST);
        assert_eq!(
            (only["sessions"].as_array().map(Vec::len), &only["more"]),
            (Some(1), &json!(false))
        );
        assert_eq!(only["sessions"][0]["sessionId"], own.session);
        // One that stays on its connection, one that has moved, one that is parked, on either shard.
        let mut kept = Vec::new();
        let mut parked = Vec::new();
        for shard in ["0000", "0001"] {
            let (mut fresh, pair) = open_on(&server, shard);
            authenticate(&mut fresh, ALICE);
            kept.push((fresh, pair.session));
            let (mut moving, pair) = open_on(&server, shard);
            authenticate(&mut moving, ALICE);
            subscribe(&mut moving, "kept:a", "");
            let (mut moved, _) = open(&server);
            restore(&mut moved, &pair, "");
            kept.push((moved, pair.session));
            let (mut leaving, pair) = open_on(&server, shard);
            authenticate(&mut leaving, ALICE);
            subscribe(&mut leaving, "kept:a", "");
            subscribe(&mut leaving, "kept:b", "");
            let before = server.counter("sessions_parked");
            leaving.close();
            server.wait_for_counter("sessions_parked", before + 1);
            parked.push(pair);
        }
        let listed = respond(&mut first, LIST);
        let lines = listed["sessions"].as_array().expect("a list");
        assert_eq!(lines.len(), 7, "{listed}");
        let of = |session: &str| {
            let found = lines.iter().find(|line| line["sessionId"] == session);
            found.unwrap_or_else(|| panic!("{session} is not in {listed}"))
        };
        for (number, (_, session)) in kept.iter().enumerate() {
            let line = of(session);
            assert_eq!(
                (&line["connected"], &line["subscriptions"]),
                (&json!(true), &json!(number % 2))
            );
            assert!(line["since"].as_u64().is_some_and(|since| since > 1_500_000_000_000));
        }
        for pair in &parked {
            let line = of(&pair.session);
            assert_eq!((&line["connected"], &line["subscriptions"]), (&json!(false), &json!(2)));
            assert!(line["since"].as_u64().is_some_and(|since| since > 1_500_000_000_000));
        }
        // They are nobody else's.
        let (mut other, _) = open(&server);
        authenticate(&mut other, BOB);
        let theirs = respond(&mut other, LIST).to_string();
        for session in kept.iter().map(|(_, session)| session).chain([&parked[0].session]) {
            assert!(!theirs.contains(session.as_str()), "{theirs}");
            expect_error(&mut other, &end(session), "session_not_found");
        }
        for (mut peer, session) in kept {
            peer.expect_idle();
            assert_eq!(respond(&mut first, &end(&session)), json!({"ended": true}));
            peer.expect_close(4003, "session_ended");
            expect_error(&mut first, &end(&session), "session_not_found");
        }
        for pair in parked {
            assert_eq!(respond(&mut first, &end(&pair.session)), json!({"ended": true}));
            expect_error(&mut first, &pair.request(""), "session_not_found");
        }
        for unknown in ["", "x", &format!("ffff{}", &own.session[4..])] {
            expect_error(&mut first, &end(unknown), "session_not_found");
        }
        // Its own, with the answer before the end; it leaves nothing.
        assert_eq!(respond(&mut first, LIST), only);
        assert_eq!(respond(&mut first, &end(&own.session)), json!({"ended": true}));
        first.expect_close(4003, "session_ended");
        let (mut next, _) = open(&server);
        expect_error(&mut next, &own.request(""), "session_not_found");
    }
    assert_eq!(server.counter("sessions_ended"), 4 * 7);
}

#[test]
fn a_list_of_sessions_is_bounded() {
    let (_folder, server) = start_with_users(&["--shards", "2"]);
    for _ in 0..103 {
        let (mut peer, _) = open(&server);
        authenticate(&mut peer, ALICE);
        peer.close();
    }
    server.wait_for_counter("sessions_parked", 103);
    let (mut peer, own) = open(&server);
    authenticate(&mut peer, ALICE);
    let listed = respond(&mut peer, LIST);
    assert_eq!(
        (listed["sessions"].as_array().map(Vec::len), &listed["more"]),
        (Some(100), &json!(true))
    );
    assert_eq!(listed["sessions"][0]["sessionId"], own.session);
}

#[test]
fn without_room_for_its_user_a_session_waits() {
    let flags = ["--shards", "1", "--set", "auth.max_connections_per_user=1"];
    let (_folder, server) = start_with_users(&flags);
    let (mut peer, pair) = open(&server);
    authenticate(&mut peer, ALICE);
    subscribe(&mut peer, "kept:a", "");
    peer.abort();
    server.wait_for_counter("sessions_parked", 1);
    let (mut peer, _) = open(&server);
    authenticate(&mut peer, ALICE);
    let (mut next, _) = open(&server);
    subscribe(&mut next, "kept:own", "");
    expect_error(&mut next, &pair.request(""), "unavailable");
    peer.close();
    server.wait_for_counter("sessions_parked", 3);
    assert_eq!(restore(&mut next, &pair, "")["userId"], "alice");
    publish(&mut Peer::open(&server), "kept:own", "1");
    assert_eq!(next.json()["data"], 1);
}

#[test]
fn a_parked_session_takes_little_memory() {
    const COUNT: usize = 5000;
    const AT_ONCE: usize = 250;
    let (_folder, server) = start(&["--shards", "1"]);
    let park = |count: usize| {
        for _ in 0..count / AT_ONCE {
            let mut peers: Vec<_> = (0..AT_ONCE).map(|_| open(&server).0).collect();
            for peer in &mut peers {
                for number in 0..5 {
                    subscribe(peer, &format!("kept:channel-{number}"), "");
                }
            }
            let before = server.connections();
            peers.into_iter().for_each(Peer::abort);
            server.wait_for_connections(before - AT_ONCE as u64);
        }
    };
    // The tables of connections are there then.
    park(AT_ONCE);
    let before = server.rss();
    park(COUNT);
    let grown = server.rss().saturating_sub(before);
    assert_eq!(server.counter("sessions_parked"), (COUNT + AT_ONCE) as u64);
    println!("{} bytes for a parked session", grown / COUNT as u64);
    assert!(grown <= (COUNT * 1024) as u64, "{grown} bytes for {COUNT} sessions");
}
