//! Tags of publications, and filters of subscriptions over them, on the real binary: in both encodings, on
//! both shards, live and from histories.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use prost::Message;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::envelope::envelope::Body;
use crate::support::envelope::{Envelope, Publication, Publish, Subscribe};
use crate::support::*;

const CONFIGURATION: &str = r#"
[sessions]
durable = true
durable_interval = "10ms"

[channels]
tags = true

[namespaces.plain]
tags = false

[namespaces.kept]
level = "history"

[namespaces.disk]
level = "durable"
history_size = 1000000
history_bytes = "1GiB"

[namespaces.ack]
level = "acked"
ack_timeout = "1h"
"#;

/// Of each level.
const CHANNELS: [&str; 4] = ["deals", "kept:deals", "disk:deals", "ack:deals"];

fn launch(folder: &Path, flags: &[&str]) -> Api {
    let path = |name: &str| folder.join(name).to_str().expect("text").to_owned();
    fs::write(path("stentor.toml"), CONFIGURATION).expect("it is ours");
    fs::write(path("keys"), format!("alice {}\n", key_of("alice"))).expect("it is ours");
    let (file, log, keys) = (path("stentor.toml"), path("log"), path("keys"));
    let set = ["--config", &file, "--store", &log, "--auth-keys", &keys];
    Api::start(&[&set, flags].concat())
}

/// Asks, and takes the confirmation. `fields`: each behind a comma.
fn filter(text: &str) -> String {
    format!(r#","filter":{}"#, json!(text))
}

/// Publishes with these tags, and waits until that is acknowledged. `{}`: none.
#[track_caller]
fn publish(peer: &mut Peer, channel: &str, tags: &str, data: u32) {
    peer.send_text(&format!(
        r#"{{"action":"publish","channel":"{channel}","tags":{tags},"data":{data},"id":1}}"#
    ));
    assert_eq!(peer.json()["type"], "ack");
}

#[track_caller]
fn expect_data(peer: &mut Peer, data: u32) -> Value {
    let publication = peer.json();
    assert_eq!(publication["data"], data, "{publication}");
    publication
}

#[track_caller]
fn expect_nothing(peer: &mut Peer) {
    peer.send_text(r#"{"type":"ping"}"#);
    peer.expect_text(r#"{"type":"pong"}"#);
}

fn send_envelope(peer: &mut Peer, body: Body) {
    let envelope = Envelope { body: Some(body), ..Envelope::default() };
    peer.send(&frame(OpCode::BINARY, &envelope.encode_length_delimited_to_vec()));
}

#[track_caller]
fn publication(peer: &mut Peer) -> Publication {
    let frame = peer.frame();
    let envelope = Envelope::decode_length_delimited(&frame.payload[..]).expect("an envelope");
    let Some(Body::Publication(publication)) = envelope.body else { panic!("{envelope:?}") };
    publication
}

/// A client that speaks protobuf, and is subscribed.
#[track_caller]
fn open_binary(server: &Server, channel: &str, filter: &str) -> Peer {
    let mut peer = Peer::speaking(server, "stentor.v1.protobuf");
    peer.frame();
    let (channel, filter) = (channel.into(), filter.into());
    send_envelope(&mut peer, Body::Subscribe(Subscribe { channel, filter, ..Default::default() }));
    peer.frame();
    peer
}

#[test]
fn tags_reach_everybody_with_the_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = launch(folder.path(), &[]);
    for channel in CHANNELS {
        let mut peers = open_on_both_shards(&api.server).map(|(peer, _)| peer);
        let epochs = peers.each_mut().map(|peer| subscribe(peer, channel, "")["epoch"].clone());
        let mut binary = open_binary(&api.server, channel, "");
        let mut publisher = Peer::open(&api.server);
        publisher.send_text(&format!(
            r#"{{"action":"publish","tags":{{ "plan":"pr\u006f", "level" : "7"}},"channel":"{channel}","data":{{"n": 1.50}}}}"#
        ));
        let epoch = epochs[0].as_str().unwrap_or_default();
        let place = match channel.split_once(':') {
            None => String::new(),
            Some(("ack", _)) => format!(r#","offset":1,"messageId":"{epoch}-1""#),
            Some(_) => r#","offset":1"#.to_owned(),
        };
        let text = format!(
            r#"{{"channel":"{channel}"{place},"tags":{{"plan":"pro","level":"7"}},"data":{{"n": 1.50}}}}"#
        );
        for peer in &mut peers {
            peer.expect_text(&text);
        }
        let read = publication(&mut binary);
        assert_eq!((&*read.channel, &read.data[..]), (channel, &br#"{"n": 1.50}"#[..]));
        assert_eq!(json!(read.tags), json!({"plan": "pro", "level": "7"}));
        if channel != "deals" {
            let mut late = Peer::open(&api.server);
            subscribe(&mut late, channel, r#","since":"start""#);
            late.expect_text(&text);
            late.send_text(&format!(
                r#"{{"type":"query","payload":{{"resource":"history","parameters":{{"channel":"{channel}"}}}}}}"#
            ));
            let page = late.json();
            assert_eq!(page["payload"]["publications"][0]["tags"]["plan"], "pro", "{page}");
            let page = api.call("history", &json!({"channel": channel}));
            assert_eq!(page["publications"][0]["tags"], json!({"plan": "pro", "level": "7"}));
        }
        // From protobuf to JSON.
        let tags = [("a.b".to_owned(), "\u{1}\"x".to_owned())].into();
        let (channel, data) = (channel.to_owned(), b"2".to_vec());
        let sent = Publish { channel, data, tags, ..Publish::default() };
        send_envelope(&mut binary, Body::Publish(sent));
        assert_eq!(expect_data(&mut peers[0], 2)["tags"], json!({"a.b": "\u{1}\"x"}));
        assert_eq!(json!(publication(&mut binary).tags), json!({"a.b": "\u{1}\"x"}));
    }
}

/// What is published with which tags, and for whom of `FILTERS` it is.
const CASES: [(&str, [bool; 5]); 5] = [
    (r#"{"plan":"pro","level":"7"}"#, [true, true, false, false, true]),
    (r#"{"plan":"pro","level":"3"}"#, [true, false, false, false, true]),
    (r#"{"plan":"free","level":"high"}"#, [false, false, true, false, true]),
    (r#"{"beta":"true"}"#, [false, false, true, true, true]),
    ("{}", [false, false, true, false, true]),
];
const FILTERS: [&str; 5] =
    ["plan == 'pro'", "plan == 'pro' && level > 3", "plan != 'pro'", "beta", "a not in [1]"];

#[test]
fn a_subscription_gets_what_its_filter_takes() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = launch(folder.path(), &[]);
    for channel in CHANNELS {
        let mut listeners = Vec::new();
        for (place, text) in FILTERS.iter().enumerate() {
            for (mut peer, _) in open_on_both_shards(&api.server) {
                subscribe(&mut peer, channel, &filter(text));
                listeners.push((place, peer));
            }
        }
        let mut everybody = open_binary(&api.server, channel, "");
        let mut binary = open_binary(&api.server, channel, FILTERS[1]);
        let mut publisher = Peer::open(&api.server);
        for (number, (tags, takes)) in (1..).zip(CASES) {
            publish(&mut publisher, channel, tags, number);
            for (place, peer) in &mut listeners {
                if takes[*place] {
                    expect_data(peer, number);
                }
                expect_nothing(peer);
            }
            assert_eq!(publication(&mut everybody).data, number.to_string().into_bytes());
        }
        publish(&mut publisher, channel, CASES[0].0, 9);
        for data in ["1", "9"] {
            assert_eq!(publication(&mut binary).data, data.as_bytes());
        }
        // An event has no tags, whatever it looks like.
        publisher.send_text(&format!(
            r#"{{"channel":"{channel}","tags":{{"plan":"pro","level":"9"}},"data":1,"type":"event","payload":{{"event":"{channel}"}}}}"#
        ));
        for (place, peer) in &mut listeners {
            if FILTERS[*place] == "plan == 'pro'" {
                expect_data(peer, 9);
                expect_nothing(peer);
            } else if FILTERS[*place] == "plan != 'pro'" {
                assert_eq!(peer.json()["type"], "event");
            }
        }
    }
}

#[test]
fn a_filter_lasts_as_long_as_its_subscription() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = launch(folder.path(), &["--shards", "1"]);
    let mut publisher = Peer::open(&api.server);
    let mut number = 0;
    for channel in CHANNELS {
        let mut say = |tag: &str| {
            number += 1;
            publish(&mut publisher, channel, &format!(r#"{{"t":"{tag}"}}"#), number);
            number
        };
        let mut peer = Peer::open(&api.server);
        subscribe(&mut peer, channel, &filter("t == 'a'"));
        let (a, _) = (say("a"), say("b"));
        expect_data(&mut peer, a);
        // Another filter, and none.
        subscribe(&mut peer, channel, &filter("t == 'b'"));
        let (_, b) = (say("a"), say("b"));
        expect_data(&mut peer, b);
        subscribe(&mut peer, channel, "");
        let (a, b) = (say("a"), say("b"));
        expect_data(&mut peer, a);
        expect_data(&mut peer, b);
        subscribe(&mut peer, channel, &filter("t == 'a'"));
        // A refused one changes nothing.
        peer.send_text(&format!(
            r#"{{"action":"subscribe","channel":"{channel}","filter":"t =="}}"#
        ));
        assert_eq!(peer.json()["data"]["code"], "invalid_message");
        say("b");
        expect_nothing(&mut peer);
        // Whoever comes back without a filter has none.
        peer.send_text(&format!(r#"{{"action":"unsubscribe","channel":"{channel}"}}"#));
        assert_eq!(peer.json()["data"]["type"], "unsubscription_confirm");
        subscribe(&mut peer, channel, "");
        let b = say("b");
        expect_data(&mut peer, b);
        // Neither has whoever gets the slot.
        subscribe(&mut peer, channel, &filter("t == 'a'"));
        peer.close();
        api.server.wait_for_connections(1);
        let mut other = Peer::open(&api.server);
        subscribe(&mut other, channel, "");
        let b = say("b");
        expect_data(&mut other, b);
        other.close();
        api.server.wait_for_connections(1);
    }
}

#[test]
fn whoever_joins_a_room_keeps_its_filter_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = launch(folder.path(), &["--shards", "1"]);
    let ask = |peer: &mut Peer, action: &str| {
        peer.send_text(&format!(
            r#"{{"type":"command","id":1,"payload":{{"action":"{action}","parameters":{{"room":"hall"}}}}}}"#
        ));
        let answer = peer.json();
        assert_eq!(answer["type"], "response", "{answer}");
    };
    let mut keeper = Peer::open(&api.server);
    ask(&mut keeper, "create_room");
    ask(&mut keeper, "join");
    let mut say = |tag: &str, data| {
        let tags = format!(r#"{{"t":"{tag}"}}"#);
        keeper.send_text(&format!(
            r#"{{"action":"publish","channel":"hall","tags":{tags},"data":{data},"echo":false}}"#
        ));
        expect_nothing(&mut keeper);
    };
    let mut peer = Peer::open(&api.server);
    subscribe(&mut peer, "hall", &filter("t == 'a'"));
    ask(&mut peer, "join");
    say("b", 1);
    say("a", 2);
    expect_data(&mut peer, 2);
    for is_closed in [true, false] {
        if is_closed {
            peer.close();
            api.server.wait_for_connections(1);
            peer = Peer::open(&api.server);
        } else {
            ask(&mut peer, "leave");
            subscribe(&mut peer, "hall", &filter("t == 'a'"));
            peer.unsubscribe("hall");
        }
        ask(&mut peer, "join");
        say("b", 3);
        expect_data(&mut peer, 3);
    }
}

#[test]
fn what_a_filter_takes_comes_from_a_history() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut api = launch(folder.path(), &[]);
    for round in 0..2 {
        for channel in &CHANNELS[1..] {
            // Only the log has it, after a while.
            let count = if *channel == "disk:deals" { 500 } else { 50 };
            let mut publisher = Peer::open(&api.server);
            let begin = 1000 * round;
            if round == 0 || *channel != "kept:deals" {
                for number in 1..=count {
                    let tags = format!(r#"{{"odd":"{}"}}"#, number % 2 == 1);
                    publish(&mut publisher, channel, &tags, begin + number);
                }
            }
            for (mut peer, _) in open_on_both_shards(&api.server) {
                let more = format!(r#","since":"start"{}"#, filter("odd"));
                let confirmation = subscribe(&mut peer, channel, &more);
                assert_eq!(confirmation["recovered"], true);
                let rounds = if *channel == "kept:deals" { round..round + 1 } else { 0..round + 1 };
                let all = u64::from(count) * (rounds.len() as u64);
                if round == 0 || *channel != "kept:deals" {
                    assert_eq!(confirmation["recoveredCount"], all, "what is passed over counts");
                    for round in rounds {
                        for number in (1..=count).step_by(2) {
                            expect_data(&mut peer, 1000 * round + number);
                        }
                    }
                }
                expect_nothing(&mut peer);
                if round == 0 && *channel == "kept:deals" {
                    // From a place in the middle, and for the others.
                    let epoch = &confirmation["epoch"];
                    let mut peer = Peer::open(&api.server);
                    let recover = json!({"epoch": epoch, "offset": 25});
                    let more = format!(r#","recover":{recover}{}"#, filter("!odd"));
                    assert_eq!(subscribe(&mut peer, channel, &more)["recoveredCount"], 25);
                    for number in (26..=count).step_by(2) {
                        expect_data(&mut peer, number);
                    }
                    expect_nothing(&mut peer);
                }
            }
        }
        if round == 0 {
            api.server.signal(Signal::KILL);
            api.server.wait_for_exit(PATIENCE);
            api = launch(folder.path(), &[]);
        }
    }
}

#[test]
fn what_is_passed_over_needs_no_acknowledgement() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = launch(folder.path(), &[]);
    let (mut peer, pair) = open_session(&api.server);
    subscribe(&mut peer, "ack:a", &filter("wanted"));
    let mut publisher = Peer::open(&api.server);
    for number in 1..=1500 {
        let tags = if number % 500 == 0 { r#"{"wanted":"true"}"# } else { "{}" };
        publish(&mut publisher, "ack:a", tags, number);
    }
    for number in [500, 1000, 1500] {
        let id = expect_data(&mut peer, number)["messageId"].clone();
        if number < 1500 {
            peer.send_text(&format!(r#"{{"type":"ack","messageId":{id}}}"#));
        }
    }
    expect_nothing(&mut peer);
    peer.hang_up();
    let mut peer = Peer::open(&api.server);
    peer.send_text(&pair.request(""));
    assert_eq!(peer.json()["type"], "session_restored");
    expect_data(&mut peer, 1500);
    expect_nothing(&mut peer);
}

#[test]
fn a_session_keeps_its_filters() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut api = launch(folder.path(), &[]);
    let mut publisher = Peer::open(&api.server);
    let (mut peer, mut pair) = open_session(&api.server);
    for channel in CHANNELS {
        subscribe(&mut peer, channel, &filter("t == 'a'"));
    }
    let (a, b) = (r#"{"t":"a"}"#, r#"{"t":"b"}"#);
    let mut number = 0;
    for is_killed in [false, true] {
        if is_killed {
            // One write may be under way, two are not.
            for channel in ["some", "more"] {
                let before = api.server.counter("sessions_written");
                subscribe(&mut peer, channel, "");
                wait_until("it is written", || api.server.counter("sessions_written") > before);
            }
            api.server.signal(Signal::KILL);
            api.server.wait_for_exit(PATIENCE);
            api = launch(folder.path(), &[]);
            publisher = Peer::open(&api.server);
        } else {
            peer.hang_up();
        }
        // Missed, where there is a history.
        for (place, channel) in (0..).zip(&CHANNELS[1..]) {
            publish(&mut publisher, channel, b, number + place);
            publish(&mut publisher, channel, a, number + place + 10);
        }
        peer = Peer::open(&api.server);
        peer.send_text(&pair.request(""));
        let restored = peer.json();
        assert_eq!(restored["type"], "session_restored", "{restored}");
        pair = Pair::of(&restored);
        // The history in memory is gone after a kill; of the others some may come again.
        let expected = if is_killed { 11..=12 } else { 10..=12 };
        let mut missed: BTreeSet<_> = expected.map(|place| u64::from(number) + place).collect();
        while !missed.is_empty() {
            let publication = peer.json();
            assert_eq!(publication["tags"]["t"], "a", "{publication}");
            missed.remove(&publication["data"].as_u64().expect("a number"));
            if let Some(id) = publication.get("messageId") {
                peer.send_text(&format!(r#"{{"type":"ack","messageId":{id}}}"#));
            }
        }
        number += 100;
        for channel in CHANNELS {
            publish(&mut publisher, channel, b, number);
            publish(&mut publisher, channel, a, number + 1);
            let publication = expect_data(&mut peer, number + 1);
            if let Some(id) = publication.get("messageId") {
                peer.send_text(&format!(r#"{{"type":"ack","messageId":{id}}}"#));
            }
        }
        expect_nothing(&mut peer);
        number += 100;
    }
}

#[test]
fn tags_are_refused_where_there_are_none_and_where_they_cannot_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = launch(folder.path(), &[]);
    let mut peer = Peer::open(&api.server);
    let none = "the channel's namespace has no tags";
    for (request, code, expected) in [
        (r#""publish","channel":"plain:a","data":1,"tags":{"a":"b"}"#, "permission_denied", none),
        (r#""subscribe","channel":"plain:a","filter":"a""#, "permission_denied", none),
        (r#""publish","channel":"a","data":1,"tags":7"#, "invalid_message", "must be an object"),
        (r#""publish","channel":"a","data":1,"tags":{"a":7}"#, "invalid_message", "`a` in `tags`"),
        (r#""publish","channel":"a","data":1,"tags":{"a b":""}"#, "invalid_message", "a name in"),
        (r#""subscribe","channel":"a","filter":"a ="#, "invalid_json", ""),
        (r#""subscribe","channel":"a","filter":"a =""#, "invalid_message", "`filter`: expected"),
        (r#""subscribe","channel":"a","filter":7"#, "invalid_message", "`filter` must be"),
        (
            r#""publish","channel":"a","to":{"user":"bob"},"data":1,"tags":{"a":"b"}"#,
            "invalid_message",
            "`tags` and `to` exclude each other",
        ),
    ] {
        peer.send_text(&format!(r#"{{"action":{request}}}"#));
        let error = peer.json();
        assert_eq!(error["data"]["code"], code, "{error}");
        let message = error["data"]["message"].as_str().expect("words");
        assert!(message.contains(expected), "{error}");
    }
    // No tags are none, and need no leave.
    subscribe(&mut peer, "plain:a", "");
    peer.send_text(r#"{"action":"publish","channel":"plain:a","data":1,"tags":{}}"#);
    peer.expect_text(r#"{"channel":"plain:a","data":1}"#);
}

#[test]
fn the_server_api_has_tags_and_filters() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = launch(folder.path(), &[]);
    let (a, b) = (json!({"t": "a"}), json!({"t": "b"}));
    for channel in CHANNELS {
        for (mut peer, id) in open_on_both_shards(&api.server) {
            let mine = json!({"connection": id, "channel": channel, "filter": "t == 'a'"});
            api.call("subscribe", &mine);
            assert_eq!(peer.json()["data"]["type"], "subscription_confirm");
            let first = json!({"channel": channel, "data": 1, "tags": b});
            let second = json!({"channel": channel, "data": 2, "tags": a});
            api.call("publish", &first);
            api.call("publish", &second);
            assert_eq!(expect_data(&mut peer, 2)["tags"], a);
            let many = json!({"channels": [channel, "none"], "data": 3, "tags": b});
            api.call("broadcast", &many);
            let many = json!({"channels": [channel, "none"], "data": 4, "tags": a});
            api.call("broadcast", &many);
            expect_data(&mut peer, 4);
        }
    }
    let mut alice = Peer::open(&api.server);
    let token = key_of("alice");
    alice.send_text(&format!(r#"{{"type":"auth","payload":{{"token":"{token}"}}}}"#));
    assert_eq!(alice.json()["type"], "response");
    let hers = json!({"user": "alice", "channel": "deals", "filter": "t == 'b'"});
    assert_eq!(api.call("subscribe", &hers), json!({"connections": 1}));
    alice.json();
    api.call("publish", &json!({"channel": "deals", "data": 5, "tags": a}));
    api.call("publish", &json!({"channel": "deals", "data": 6, "tags": b}));
    expect_data(&mut alice, 6);
    for (call, body, status, code) in [
        ("publish", json!({"channel": "plain:a", "data": 1, "tags": a}), 409, "permission_denied"),
        ("publish", json!({"channel": "a", "data": 1, "tags": {"a": 1}}), 400, "invalid_message"),
        ("publish", json!({"channel": "a", "data": 1, "tags": null}), 400, "invalid_message"),
        (
            "subscribe",
            json!({"user": "alice", "channel": "plain:a", "filter": "a"}),
            409,
            "permission_denied",
        ),
        (
            "unsubscribe",
            json!({"user": "alice", "channel": "deals", "filter": "a"}),
            400,
            "invalid_message",
        ),
    ] {
        assert_eq!(api.refused(call, &body), (status, code.to_owned()), "{body}");
    }
}

#[test]
fn the_commands_have_tags_and_filters() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = launch(folder.path(), &[]);
    let url = api.server.url();
    for (tag, data) in [("plan=free", "1"), ("plan=pro", "2")] {
        let output =
            run(&["publish", "kept:a", data, "--tag", tag, "--tag", "a.b=c=d", "--url", &url]);
        assert!(output.status.success(), "{output:?}");
    }
    let heard = run(&[
        "subscribe",
        "kept:a",
        "--since",
        "start",
        "--filter",
        "plan == 'pro'",
        "--json",
        "--count",
        "1",
        "--url",
        &url,
    ]);
    let expected = "{\"channel\":\"kept:a\",\"offset\":2,\"tags\":{\"plan\":\"pro\",\"a.b\":\"c=d\"},\"data\":2}\n";
    assert_eq!(String::from_utf8_lossy(&heard.stdout), expected, "{heard:?}");
    for arguments in [
        &["publish", "a", "1", "--tag", "plan", "--url", &url][..],
        &["publish", "a", "1", "--tag", "1=2", "--url", &url],
        &["publish", "plain:a", "1", "--tag", "a=b", "--url", &url],
        &["subscribe", "a", "--filter", "plan =", "--url", &url],
    ] {
        assert!(!run(arguments).status.success(), "{arguments:?}");
    }
}
