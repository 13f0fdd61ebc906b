//! Acked channels on the real binary: what is not acknowledged is sent again, to whom too much waits
//! nothing more is sent, nobody else notices, and what was never acknowledged comes after a restart.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::*;

/// `ack:` repeats soon, `late:` never within a test, `short:` keeps little.
const CONFIGURATION: &str = r#"
[limits]
max_unacked = 10

[namespaces.ack]
level = "acked"
ack_timeout = "300ms"
ack_retries = 2

[namespaces.late]
level = "acked"
ack_timeout = "1h"

[namespaces.short]
level = "acked"
history_size = 3
ack_timeout = "300ms"

[namespaces.kept]
level = "durable"
"#;

/// Of `max_unacked` and `ack_retries` above.
const UNACKED_MAX: u64 = 10;
const RETRIES: usize = 2;
const TIMEOUT: Duration = Duration::from_millis(300);

/// Whatever the hash, both shards are the home of some of them.
const CHANNELS: [&str; 4] = ["ack:0", "ack:1", "ack:2", "ack:3"];
const LATE: [&str; 4] = ["late:0", "late:1", "late:2", "late:3"];

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("stentor.toml"), CONFIGURATION).expect("it is ours");
    folder
}

fn launch(folder: &Path) -> Server {
    let path = |name| folder.join(name).to_str().expect("text").to_owned();
    Server::start(&["--config", &path("stentor.toml"), "--store", &path("log")])
}

/// Publishes the numbers, which are to be the offsets, and waits until the log has them.
#[track_caller]
fn publish(peer: &mut Peer, channel: &str, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        peer.send_text(&format!(
            r#"{{"action":"publish","channel":"{channel}","data":{number},"id":1}}"#
        ));
        let answer = peer.json();
        assert_eq!((&answer["type"], &answer["offset"]), (&json!("ack"), &json!(number)));
    }
}

/// The next message is this publication; returns its message id.
#[track_caller]
fn expect(peer: &mut Peer, channel: &str, offset: u64) -> String {
    let message = peer.json();
    assert_eq!((&message["channel"], &message["offset"]), (&json!(channel), &json!(offset)));
    assert_eq!(message["data"], offset, "{message}");
    message["messageId"].as_str().expect("a message id").to_owned()
}

fn ack(peer: &mut Peer, id: &str) {
    peer.send_text(&format!(r#"{{"type":"ack","messageId":"{id}"}}"#));
}

fn ack_to(peer: &mut Peer, channel: &str, offset: u64) {
    peer.send_text(&format!(r#"{{"type":"ack","channel":"{channel}","offset":{offset}}}"#));
}

#[test]
fn what_is_not_acknowledged_is_sent_again_and_then_expires() {
    let folder = folder();
    let server = launch(folder.path());
    for (round, channel) in CHANNELS.iter().enumerate() {
        let mut peer = Peer::open(&server);
        subscribe(&mut peer, channel, "");
        publish(&mut Peer::open(&server), channel, 1..=3);
        let ids: Vec<_> = (1..=3).map(|offset| expect(&mut peer, channel, offset)).collect();
        let begin = Instant::now();
        ack(&mut peer, &ids[1]);
        for _ in 0..RETRIES {
            // In order, the acknowledged one left out, under the same ids.
            let again: Vec<_> = [1, 3].map(|offset| expect(&mut peer, channel, offset)).into();
            assert_eq!(again, [ids[0].clone(), ids[2].clone()]);
        }
        // Never early: the machine may be slow, the server may not be fast.
        assert!(begin.elapsed() >= TIMEOUT * RETRIES as u32 - Duration::from_millis(50));
        server.wait_for_counter("ack_expired", 2 * (round as u64 + 1));
        peer.expect_idle();
        // It may still be acknowledged, and twice.
        ack(&mut peer, &ids[0]);
        ack(&mut peer, &ids[0]);
        ack_to(&mut peer, channel, 3);
        peer.expect_idle();
        publish(&mut Peer::open(&server), channel, 4..=4);
        let id = expect(&mut peer, channel, 4);
        ack(&mut peer, &id);
        peer.expect_idle();
    }
    server.wait_for_counter("acked", 4 * CHANNELS.len() as u64);
    let counters = server.counters();
    assert_eq!(counters["redelivered"], (2 * RETRIES * CHANNELS.len()) as u64);
    assert_eq!(counters["ack_expired"], 2 * CHANNELS.len() as u64);
    assert!(!counters.contains_key("messages_rejected"), "{counters:?}");
}

#[test]
fn delivery_pauses_while_too_much_is_unacknowledged() {
    let folder = folder();
    let server = launch(folder.path());
    for channel in LATE {
        let mut paused = Peer::open(&server);
        let mut brisk = Peer::open(&server);
        subscribe(&mut paused, channel, "");
        // It has live channels too.
        paused.subscribe("live");
        subscribe(&mut brisk, channel, "");
        let mut publisher = Peer::open(&server);
        let (half, all) = (2 * UNACKED_MAX, 4 * UNACKED_MAX);
        publish(&mut publisher, channel, 1..=half);
        // Who acknowledges gets everything.
        for offset in 1..=half {
            let id = expect(&mut brisk, channel, offset);
            ack(&mut brisk, &id);
        }
        let ids: Vec<_> =
            (1..=UNACKED_MAX).map(|offset| expect(&mut paused, channel, offset)).collect();
        publisher.publish("live", "1");
        paused.expect_publication("live", "1");
        paused.expect_idle();
        // One frees the place of one, whichever it is.
        ack(&mut paused, &ids[4]);
        expect(&mut paused, channel, UNACKED_MAX + 1);
        paused.expect_idle();
        publish(&mut publisher, channel, half + 1..=all);
        paused.expect_idle();
        let mut next = UNACKED_MAX + 2;
        while next <= all {
            ack_to(&mut paused, channel, next - 1);
            let end = all.min(next + UNACKED_MAX - 1);
            (next..=end).for_each(|offset| drop(expect(&mut paused, channel, offset)));
            next = end + 1;
        }
        ack_to(&mut paused, channel, all);
        // It is live again.
        publish(&mut publisher, channel, all + 1..=all + 1);
        expect(&mut paused, channel, all + 1);
        paused.expect_idle();
    }
    let counters = server.counters();
    assert!(counters["ack_paused"] >= LATE.len() as u64, "{counters:?}");
    assert!(!counters.contains_key("redelivered"), "{counters:?}");
}

#[test]
fn unacknowledged_deliveries_of_all_channels_count_together() {
    let folder = folder();
    let server = launch(folder.path());
    let mut peer = Peer::open(&server);
    LATE.iter().for_each(|channel| drop(subscribe(&mut peer, channel, "")));
    let mut publisher = Peer::open(&server);
    LATE.iter().for_each(|channel| publish(&mut publisher, channel, 1..=5));
    let mut seen = BTreeSet::new();
    let mut take = |peer: &mut Peer| {
        let message = peer.json();
        assert!(seen.insert(message["messageId"].as_str().expect("an id").to_owned()));
        message["channel"].as_str().expect("a name").to_owned()
    };
    let mut first = Vec::new();
    (0..UNACKED_MAX).for_each(|_| first.push(take(&mut peer)));
    peer.expect_idle();
    // A subscription that ends takes what it has not acknowledged with it.
    let gone = &first[0];
    let freed = first.iter().filter(|channel| *channel == gone).count();
    peer.unsubscribe(gone);
    let left = 5 * LATE.len() - 5 - (UNACKED_MAX as usize - freed);
    (0..freed.min(left)).for_each(|_| assert_ne!(take(&mut peer), *gone));
    peer.expect_idle();
}

#[test]
fn what_is_not_kept_any_more_is_told() {
    let folder = folder();
    let server = launch(folder.path());
    let mut peer = Peer::open(&server);
    subscribe(&mut peer, "short:a", "");
    publish(&mut Peer::open(&server), "short:a", 1..=5);
    for offset in 1..=5 {
        let id = expect(&mut peer, "short:a", offset);
        if offset == 1 || offset == 4 {
            ack(&mut peer, &id);
        }
    }
    let gap = peer.json();
    let expected = json!({"channel": "system", "data": {"type": "gap", "channel": "short:a",
                          "from": 2, "to": 2, "reason": "trimmed"}});
    assert_eq!(gap, expected);
    expect(&mut peer, "short:a", 3);
    expect(&mut peer, "short:a", 5);
    ack_to(&mut peer, "short:a", 5);
    peer.expect_idle();
    assert_eq!(server.counter("ack_expired"), 1);
}

#[test]
fn acks_of_what_was_not_delivered_are_refused() {
    let folder = folder();
    let server = launch(folder.path());
    let mut peer = Peer::open(&server);
    let confirmation = subscribe(&mut peer, "late:a", "");
    let epoch = confirmation["epoch"].as_str().expect("an epoch").to_owned();
    let refused = |peer: &mut Peer, code: &str| {
        let error = peer.json();
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{error}");
        error
    };
    // Nothing was sent yet.
    ack_to(&mut peer, "late:a", 0);
    ack(&mut peer, &format!("{epoch}-1"));
    refused(&mut peer, "not_subscribed");
    publish(&mut Peer::open(&server), "late:a", 1..=2);
    let first = expect(&mut peer, "late:a", 1);
    assert_eq!(first, format!("{epoch}-1"));
    expect(&mut peer, "late:a", 2);
    for (id, code) in [
        (format!("{epoch}-3"), "invalid_message"),
        (format!("{epoch}-0"), "invalid_message"),
        ("m-1".to_owned(), "invalid_message"),
        ("0123456789abcdef-1".to_owned(), "not_subscribed"),
    ] {
        ack(&mut peer, &id);
        refused(&mut peer, code);
    }
    peer.send_text(r#"{"type":"ack","id":"mine"}"#);
    assert_eq!(refused(&mut peer, "invalid_message")["requestId"], "mine");
    ack_to(&mut peer, "late:a", 3);
    refused(&mut peer, "invalid_message");
    // Of nobody's, of another level, of no history.
    subscribe(&mut peer, "kept:a", "");
    peer.subscribe("live");
    for channel in ["late:b", "kept:a", "live"] {
        ack_to(&mut peer, channel, 1);
        refused(&mut peer, "not_subscribed");
    }
    // Another connection's delivery is nothing to this one.
    let mut other = Peer::open(&server);
    ack(&mut other, &first);
    refused(&mut other, "not_subscribed");
    // Several in one frame, one of them wrong.
    let text = format!(r#"{{"type":"ack","messageId":"{first}"}}"#);
    peer.send_text(&format!("{text}\n{text}\n{{\"type\":\"ack\"}}\n{text}"));
    refused(&mut peer, "invalid_message");
    // Those that meet the end of the subscription close nothing, however many they are.
    peer.unsubscribe("late:a");
    for _ in 0..200 {
        ack(&mut peer, &first);
        refused(&mut peer, "not_subscribed");
    }
    peer.expect_idle();
}

#[test]
fn a_subscription_has_a_number() {
    let folder = folder();
    let server = launch(folder.path());
    let mut peer = Peer::open(&server);
    let mut ids = BTreeSet::new();
    for channel in CHANNELS.iter().chain(&["kept:a"]) {
        let id = subscribe(&mut peer, channel, "")["subscriptionId"].as_u64().expect("a number");
        assert!(ids.insert(id), "{id} is taken");
        // Subscribed again, it is the same.
        assert_eq!(subscribe(&mut peer, channel, "")["subscriptionId"], id);
    }
    let id = subscribe(&mut peer, "kept:a", "")["subscriptionId"].clone();
    // Another connection cannot name it.
    let mut other = Peer::open(&server);
    let unsubscribe = format!(r#"{{"action":"unsubscribe","subscriptionId":{id},"id":7}}"#);
    other.send_text(&unsubscribe);
    let error = other.json()["data"].clone();
    assert_eq!((&error["code"], &error["requestId"]), (&json!("not_subscribed"), &json!(7)));
    peer.send_text(&unsubscribe);
    let gone = peer.json()["data"].clone();
    assert_eq!(gone["type"], "unsubscription_confirm");
    assert_eq!((&gone["channel"], &gone["requestId"]), (&json!("kept:a"), &json!(7)));
    peer.send_text(&unsubscribe);
    assert_eq!(peer.json()["data"]["code"], "not_subscribed");
    // On a live channel only who asks for a place is told of a number.
    peer.subscribe("live");
    assert!(subscribe(&mut peer, "live:b", r#","since":1"#)["subscriptionId"].is_u64());
}

#[test]
fn what_was_not_acknowledged_comes_after_a_kill() {
    let folder = folder();
    let mut epoch = Value::Null;
    for round in 0..3u64 {
        let server = launch(folder.path());
        let mut peer = Peer::open(&server);
        // Of each round five were acknowledged, and the five behind them were not.
        let acked = 5 * round;
        let recover = match round {
            0 => String::new(),
            _ => format!(r#","recover":{{"epoch":{epoch},"offset":{acked}}}"#),
        };
        let confirmation = subscribe(&mut peer, "late:a", &recover);
        if round > 0 {
            assert_eq!(confirmation["recovered"], true, "{confirmation}");
            assert_eq!(confirmation["epoch"], epoch);
        }
        epoch = confirmation["epoch"].clone();
        let begin = if round == 0 { 1 } else { 5 * round + 6 };
        publish(&mut Peer::open(&server), "late:a", begin..=5 * round + 10);
        for offset in acked + 1..=acked + 10 {
            let id = expect(&mut peer, "late:a", offset);
            if offset <= acked + 5 {
                ack(&mut peer, &id);
            }
        }
        peer.expect_idle();
        assert_eq!(server.counter("acked"), 5);
        kill(server);
    }
}

#[test]
fn the_commands_acknowledge_and_show_offsets() {
    let folder = folder();
    let server = launch(folder.path());
    let url = server.url();
    for n in ["1", "2", "3"] {
        let output = run(&["publish", "ack:a", n, "--ack", "--url", &url]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{n}\n"), "{output:?}");
    }
    let output = run(&["publish", "live", "1", "--ack", "--url", &url]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "-\n", "{output:?}");
    let arguments = ["subscribe", "ack:a", "--since", "start", "--count", "3", "--url", &url];
    let output = run(&arguments);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n2\n3\n", "{output:?}");
    server.wait_for_counter("acked", 3);
}
