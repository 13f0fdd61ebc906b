//! Channels as clients see them: the shapes byte for byte, the rules, and the order.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use crate::support::*;

fn action(action: &str, channel: &str) -> String {
    format!(r#"{{"action":"{action}","channel":"{channel}"}}"#)
}

fn open() -> (Server, Peer) {
    let server = Server::start(&[]);
    let peer = Peer::open(&server);
    (server, peer)
}

/// The error that answers `message`, on a connection that goes on afterwards.
#[track_caller]
fn expect_error(peer: &mut Peer, message: &str, code: &str) -> serde_json::Value {
    peer.send_text(message);
    let text = peer.text();
    let start = r#"{"channel":"system","data":{"type":"error","message":""#;
    assert!(text.starts_with(start), "{message}: {text}");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["data"]["code"], code, "{message}: {text}");
    peer.expect_idle();
    value
}

// The shapes of existing clients, byte for byte.

#[test]
fn subscribe_publish_and_receive_have_exactly_these_shapes() {
    let (_server, mut peer) = open();
    peer.send_text(r#"{"action":"subscribe","channel":"news"}"#);
    peer.expect_text(
        r#"{"channel":"system","data":{"type":"subscription_confirm","channel":"news"}}"#,
    );
    peer.send_text(r#"{"action":"publish","channel":"news","data":{"title":"hello"}}"#);
    // Nothing but the publication: no acknowledgement was asked for.
    peer.expect_text(r#"{"channel":"news","data":{"title":"hello"}}"#);
    peer.send_text(r#"{"action":"unsubscribe","channel":"news"}"#);
    peer.expect_text(
        r#"{"channel":"system","data":{"type":"unsubscription_confirm","channel":"news"}}"#,
    );
    peer.expect_idle();
}

#[test]
fn errors_have_this_shape() {
    let (_server, mut peer) = open();
    peer.send_text(r#"{"action":"dance","channel":"news","id":"x"}"#);
    peer.expect_text(
        r#"{"channel":"system","data":{"type":"error","message":"unknown action `dance`","code":"unknown_action","channel":"news","requestId":"x"}}"#,
    );
    peer.send_text(r#"{"type":"dance","id":7}"#);
    let text = peer.text();
    assert!(text.starts_with(r#"{"id":""#), "{text}");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["type"], "error");
    assert_eq!(value["requestId"], 7);
    assert_eq!(value["error"], "no route for type `dance`");
    assert_eq!(value["code"], "no_route");
    assert!(value["timestamp"].as_u64() > Some(1_700_000_000_000), "{text}");
}

#[test]
fn ping_is_answered_with_pong_and_what_it_carried() {
    let (_server, mut peer) = open();
    for (ping, pong) in [
        (r#"{"type":"ping"}"#, r#"{"type":"pong"}"#),
        (r#"{"type":"ping","id":"a"}"#, r#"{"type":"pong","id":"a","requestId":"a"}"#),
        (
            r#"{ "timestamp" : 1.5e3 , "id" : -7 , "type" : "ping" }"#,
            r#"{"type":"pong","id":-7,"requestId":-7,"timestamp":1.5e3}"#,
        ),
        (r#"{"type":"ping","timestamp":"now"}"#, r#"{"type":"pong","timestamp":"now"}"#),
    ] {
        peer.send_text(ping);
        peer.expect_text(pong);
    }
    // Nobody asked.
    peer.send_text(r#"{"type":"pong"}"#);
    peer.expect_idle();
}

#[test]
fn ids_come_back_as_request_ids_exactly_as_they_were_written() {
    let (_server, mut peer) = open();
    for id in ["1", "0", "-5", "123456789012345678901234567890", r#""a""#, r#""\u00e9 \"q\"""#] {
        peer.send_text(&format!(r#"{{"action":"subscribe","channel":"a","id":{id}}}"#));
        peer.expect_text(&format!(
            r#"{{"channel":"system","data":{{"type":"subscription_confirm","channel":"a","requestId":{id}}}}}"#
        ));
        peer.send_text(&format!(
            r#"{{"action":"publish","channel":"b","data":0,"id":{id},"messageId":"m"}}"#
        ));
        peer.expect_text(&format!(
            r#"{{"type":"ack","messageId":"m","requestId":{id},"channel":"b"}}"#
        ));
        peer.send_text(&format!(r#"{{"action":"unsubscribe","channel":"a","id":{id}}}"#));
        peer.expect_text(&format!(
            r#"{{"channel":"system","data":{{"type":"unsubscription_confirm","channel":"a","requestId":{id}}}}}"#
        ));
    }
    let long = format!(r#""{}""#, "i".repeat(64));
    peer.send_text(&format!(r#"{{"type":"ping","id":{long}}}"#));
    peer.expect_text(&format!(r#"{{"type":"pong","id":{long},"requestId":{long}}}"#));
}

#[test]
fn a_message_id_alone_asks_for_an_acknowledgement() {
    let (_server, mut peer) = open();
    peer.send_text(r#"{"action":"publish","channel":"b","data":0,"messageId":"m-1"}"#);
    peer.expect_text(r#"{"type":"ack","messageId":"m-1","channel":"b"}"#);
}

#[test]
fn data_passes_byte_for_byte() {
    let server = Server::start(&[]);
    let mut publisher = Peer::open(&server);
    let mut subscribers: Vec<_> = (0..8).map(|_| Peer::open(&server)).collect();
    subscribers.iter_mut().for_each(|peer| peer.subscribe("raw"));
    let long = format!(r#""{}""#, "é✓😀".repeat(5000));
    for data in [
        "null",
        "true",
        "0",
        "-0.0",
        "1.50e+300",
        "12345678901234567890123456789012345678901234567890",
        r#""""#,
        r#""\u00e9\/\b\f\n\r\t\"\\ \ud800""#,
        "\"ünï ✓ 😀 \u{7f}\u{2028}\"",
        "[]",
        "[ 1 ,\t2,\r\n 3 ]",
        r#"{ "b" : 1 , "a" : 2, "b":3 }"#,
        r#"{"z":{"y":[{"x":[[[]]]}]},"channel":"other","data":1,"action":"subscribe"}"#,
        &long,
    ] {
        publisher.publish("raw", data);
        for peer in &mut subscribers {
            peer.expect_publication("raw", data);
        }
    }
    // White space around the value is not the value.
    publisher
        .send_text("{\"channel\":\"raw\",\"data\" : \n {\"a\" : 1} \t,\"action\":\"publish\"}");
    for peer in &mut subscribers {
        peer.expect_publication("raw", r#"{"a" : 1}"#);
    }
}

#[test]
fn unknown_fields_are_ignored_and_names_may_be_escaped() {
    let (_server, mut peer) = open();
    peer.send_text(r#"{"\u0061ction":"subscribe","x":{"channel":"no"},"channel":"n\u0065ws"}"#);
    peer.expect_text(
        r#"{"channel":"system","data":{"type":"subscription_confirm","channel":"news"}}"#,
    );
    peer.publish("news", "1");
    peer.expect_publication("news", "1");
}

// Subscriptions.

#[test]
fn subscribing_twice_is_confirmed_twice_and_delivers_once() {
    let (_server, mut peer) = open();
    for _ in 0..3 {
        peer.subscribe("a");
    }
    peer.publish_acked("b", "0");
    peer.publish("a", "1");
    peer.expect_publication("a", "1");
    peer.publish("a", "2");
    peer.expect_publication("a", "2");
    // One unsubscribe ends it.
    peer.unsubscribe("a");
    expect_error(&mut peer, &action("unsubscribe", "a"), "not_subscribed");
}

#[test]
fn after_the_confirmation_of_unsubscribe_nothing_comes() {
    let server = Server::start(&[]);
    let mut publisher = Peer::open(&server);
    let mut leaver = Peer::open(&server);
    let mut stayer = Peer::open(&server);
    for round in 0..20 {
        let channel = format!("c{round}");
        leaver.subscribe(&channel);
        stayer.subscribe(&channel);
        publisher.publish(&channel, "1");
        leaver.expect_publication(&channel, "1");
        leaver.unsubscribe(&channel);
        publisher.publish(&channel, "2");
        stayer.expect_publication(&channel, "1");
        stayer.expect_publication(&channel, "2");
        leaver.expect_idle();
    }
}

#[test]
fn the_publisher_receives_its_own_publication_unless_it_says_no() {
    let server = Server::start(&[]);
    let mut publisher = Peer::open(&server);
    let mut other = Peer::open(&server);
    publisher.subscribe("a");
    other.subscribe("a");
    publisher.send_text(r#"{"action":"publish","channel":"a","data":1,"echo":false}"#);
    publisher.send_text(r#"{"action":"publish","channel":"a","data":2,"echo":true}"#);
    publisher.publish("a", "3");
    for number in ["2", "3"] {
        publisher.expect_publication("a", number);
    }
    for number in ["1", "2", "3"] {
        other.expect_publication("a", number);
    }
}

#[test]
fn a_channel_without_subscribers_takes_publications_too() {
    let (server, mut peer) = open();
    for number in 0..50 {
        peer.publish_acked(&format!("nobody{number}"), "1");
    }
    assert_eq!(server.counter("publications"), 50);
    assert_eq!(server.counter("deliveries"), 0);
}

#[test]
fn the_limit_of_subscriptions_is_per_connection_and_what_ends_makes_room() {
    let server = Server::start(&["--set", "limits.max_subscriptions=3"]);
    let mut peer = Peer::open(&server);
    for channel in ["a", "b", "c"] {
        peer.subscribe(channel);
    }
    expect_error(&mut peer, &action("subscribe", "d"), "too_many_subscriptions");
    assert_eq!(server.counter("sub_limit"), 1);
    // One that is there already is no new one.
    peer.subscribe("a");
    peer.unsubscribe("b");
    peer.subscribe("d");
    Peer::open(&server).subscribe("a");
}

#[test]
fn subscriptions_up_to_the_limit_may_be_asked_for_all_at_once() {
    let (server, mut peer) = open();
    let requests: Vec<u8> = (0..1000)
        .flat_map(|number| {
            let request = action("subscribe", &format!("c{number}"));
            frame(OpCode::TEXT, request.as_bytes())
        })
        .collect();
    peer.send(&requests);
    let mut confirmed = HashMap::new();
    for _ in 0..1000 {
        let answer = peer.json();
        assert_eq!(answer["data"]["type"], "subscription_confirm", "{answer}");
        *confirmed.entry(answer["data"]["channel"].to_string()).or_insert(0) += 1;
    }
    assert_eq!(confirmed.len(), 1000);
    assert_eq!(server.counter("sub_limit"), 0);
}

// Names.

#[test]
fn channel_names_follow_the_rules() {
    let (_server, mut peer) = open();
    let longest = "n".repeat(255);
    let longest_unicode = "é".repeat(127);
    for name in ["a", " ", "chat:lobby", ":", "a:b:c", "ünï ✓ 😀", "System", "system:x", "/", "*"]
    {
        peer.subscribe(name);
        peer.publish(name, "1");
        peer.expect_publication(name, "1");
    }
    for name in [&longest, &longest_unicode] {
        peer.subscribe(name);
        peer.publish(name, "1");
        peer.expect_publication(name, "1");
    }
    let long = "n".repeat(256);
    let long_unicode = "é".repeat(128);
    for name in ["", "a\\nb", "\\u0000", "\\u007f", "a\\u0085", &long, &long_unicode] {
        for verb in ["subscribe", "unsubscribe"] {
            expect_error(&mut peer, &action(verb, name), "channel_invalid");
        }
        let publish = format!(r#"{{"action":"publish","channel":"{name}","data":1}}"#);
        expect_error(&mut peer, &publish, "channel_invalid");
    }
}

#[test]
fn system_is_reserved_for_the_server() {
    let (_server, mut peer) = open();
    for name in ["system", "s\\u0079stem"] {
        expect_error(&mut peer, &action("subscribe", name), "channel_reserved");
        expect_error(&mut peer, &action("unsubscribe", name), "channel_reserved");
        let publish = format!(r#"{{"action":"publish","channel":"{name}","data":1}}"#);
        let error = expect_error(&mut peer, &publish, "channel_reserved");
        assert_eq!(error["data"]["channel"], "system");
    }
}

// Errors.

#[test]
fn what_is_not_json_is_invalid_json() {
    let (_server, mut peer) = open();
    for message in [
        "",
        " ",
        "\n",
        "{",
        "}",
        "nonsense",
        "{\"action\":\"subscribe\",\"channel\":\"a\",}",
        "{\"action\":\"subscribe\" \"channel\":\"a\"}",
        "{'action':'subscribe'}",
        "{\"action\":\"publish\",\"channel\":\"a\",\"data\":01}",
        "{\"action\":\"publish\",\"channel\":\"a\",\"data\":+1}",
        "{\"action\":\"publish\",\"channel\":\"a\",\"data\":\"\t\"}",
        "{\"action\":\"publish\",\"channel\":\"a\",\"data\":\"\\x\"}",
        "{\"action\":\"publish\",\"channel\":\"a\",\"data\":nul}",
        "{\"type\":\"ping\"} {\"type\":\"ping\"}",
        "\u{feff}{\"type\":\"ping\"}",
    ] {
        // What came before the mistake may have been done.
        peer.send_text(message);
        let mut answer = peer.json();
        if answer["type"] == "pong" {
            answer = peer.json();
        }
        assert_eq!(answer["data"]["code"], "invalid_json", "{message:?}: {answer}");
        peer.expect_idle();
    }
}

#[test]
fn what_lacks_a_field_or_has_a_wrong_one_is_an_invalid_message_that_names_it() {
    let (_server, mut peer) = open();
    for (message, field) in [
        ("1", "object"),
        ("[]", "object"),
        ("\"subscribe\"", "object"),
        ("{}", "action"),
        (r#"{"action":1}"#, "action"),
        (r#"{"action":"subscribe"}"#, "channel"),
        (r#"{"action":"subscribe","channel":null}"#, "channel"),
        (r#"{"action":"subscribe","channel":"\ud800"}"#, "channel"),
        (r#"{"action":"subscribe","channel":"a","channel":"b"}"#, "channel"),
        (r#"{"action":"publish","channel":"a"}"#, "data"),
        (r#"{"action":"publish","channel":"a","data":1,"data":2}"#, "data"),
        (r#"{"action":"publish","channel":"a","data":1,"echo":0}"#, "echo"),
        (r#"{"action":"publish","channel":"a","data":1,"messageId":5}"#, "messageId"),
        (r#"{"action":"publish","channel":"a","data":1,"messageId":""}"#, "messageId"),
        (r#"{"action":"publish","channel":"a","data":1,"id":1.5}"#, "id"),
        (r#"{"action":"publish","channel":"a","data":1,"id":""}"#, "id"),
        (r#"{"action":"publish","channel":"a","data":1,"id":{}}"#, "id"),
    ] {
        let error = expect_error(&mut peer, message, "invalid_message");
        let words = error["data"]["message"].as_str().expect("a text");
        assert!(words.contains(field), "{message}: {words}");
    }
    let long = format!(r#"{{"type":"ping","id":"{}"}}"#, "i".repeat(65));
    peer.send_text(&long);
    assert_eq!(peer.json()["code"], "invalid_message");
}

#[test]
fn requests_that_cannot_be_done_have_their_codes() {
    let (_server, mut peer) = open();
    expect_error(&mut peer, r#"{"action":"dance"}"#, "unknown_action");
    expect_error(&mut peer, r#"{"action":"Subscribe","channel":"a"}"#, "unknown_action");
    expect_error(&mut peer, &action("unsubscribe", "a"), "not_subscribed");
    for message in [
        r#"{"type":"dance"}"#,
        r#"{"type":"query","payload":{"resource":"weather"}}"#,
        r#"{"type":""}"#,
    ] {
        peer.send_text(message);
        assert_eq!(peer.json()["code"], "no_route", "{message}");
    }
}

#[test]
fn what_is_nested_too_deep_is_refused() {
    let (_server, mut peer) = open();
    peer.subscribe("deep");
    // The message itself is the outermost of 64.
    let deepest = format!("{}{}", "[".repeat(63), "]".repeat(63));
    peer.publish("deep", &deepest);
    peer.expect_publication("deep", &deepest);
    let deeper = format!(r#"{{"action":"publish","channel":"deep","data":[{deepest}]}}"#);
    let error = expect_error(&mut peer, &deeper, "invalid_json");
    assert!(error["data"]["message"].as_str().expect("a text").contains("64"), "{error}");
}

#[test]
fn publications_over_the_rate_are_refused_as_rate_limited() {
    let flags = ["--set", "limits.publish_rate=1", "--set", "limits.publish_burst=5"];
    let server = Server::start(&flags);
    let mut subscriber = Peer::open(&server);
    subscriber.subscribe("a");
    let mut peer = Peer::open(&server);
    let mut accepted = Vec::new();
    for number in 0..20 {
        let publish =
            format!(r#"{{"action":"publish","channel":"a","data":{number},"id":{number}}}"#);
        peer.send_text(&publish);
        let answer = peer.json();
        if answer["type"] == "ack" {
            accepted.push(number);
        } else {
            assert_eq!(answer["data"]["code"], "rate_limited", "{answer}");
            assert_eq!(answer["data"]["requestId"], number);
            assert_eq!(answer["data"]["channel"], "a");
        }
    }
    assert!((5..=8).contains(&accepted.len()), "{accepted:?}");
    for number in &accepted {
        subscriber.expect_publication("a", &number.to_string());
    }
    // Only the acknowledged ones were delivered.
    subscriber.expect_idle();
    assert_eq!(server.counter("rate_limited"), 20 - accepted.len() as u64);
}

#[test]
fn publications_that_find_no_room_are_refused_as_backlog_full_and_delivered_to_nobody() {
    // One fan-out of 60 KB to 300 subscribers takes many turns, so publications gather.
    let flags = ["--shards", "1", "--set", "limits.fanout_backlog=1MiB"];
    let server = Server::start(&[&flags[..], &["--send-queue-size", "64MiB"]].concat());
    let mut witness = Peer::open(&server);
    witness.subscribe("big");
    let mut crowd: Vec<_> = (0..300).map(|_| Peer::connect_small(&server, 4096)).collect();
    for peer in &mut crowd {
        peer.upgrade("/ws");
        peer.subscribe("big");
    }
    let publishers: Vec<_> =
        (0..4).map(|number| publish_big(Peer::open(&server), number * 50)).collect();
    let (sender, received) = mpsc::channel();
    // It ends with the server.
    thread::spawn(move || {
        while let Some(frame) = witness.frame_within(PATIENCE) {
            drop(sender.send(frame));
        }
    });
    let answers: Vec<_> =
        publishers.into_iter().flat_map(|thread| thread.join().expect("no panics")).collect();
    let (acked, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer["type"] == "ack");
    assert!(refused.iter().all(|error| error["data"]["code"] == "backlog_full"));
    assert!(!refused.is_empty(), "the backlog was never full");
    assert_eq!(server.counter("backlog_full"), refused.len() as u64);
    let mut accepted: Vec<_> =
        acked.iter().map(|ack| ack["requestId"].as_u64().expect("a number")).collect();
    let mut delivered: Vec<_> = (0..accepted.len())
        .map(|_| {
            let frame = received.recv_timeout(PATIENCE).expect("all that was accepted comes");
            let message: serde_json::Value = serde_json::from_str(frame.text()).expect("JSON");
            message["data"][0].as_u64().expect("a number")
        })
        .collect();
    accepted.sort_unstable();
    delivered.sort_unstable();
    assert_eq!(delivered, accepted);
    // Each to the witness and to the crowd, and no other.
    server.wait_for_counter("deliveries", 301 * accepted.len() as u64);
    assert_eq!(server.counter("deliveries"), 301 * accepted.len() as u64);
}

/// 50 publications of 60 KB as fast as the server takes them; the answers.
fn publish_big(mut peer: Peer, first: usize) -> thread::JoinHandle<Vec<serde_json::Value>> {
    let padding = "x".repeat(60_000);
    let publish = |id: usize| {
        let data = format!(r#"[{id},"{padding}"]"#);
        let text = format!(r#"{{"action":"publish","channel":"big","data":{data},"id":{id}}}"#);
        frame(OpCode::TEXT, text.as_bytes())
    };
    let requests: Vec<u8> = (first..first + 50).flat_map(publish).collect();
    thread::spawn(move || {
        let mut sender = peer.sender();
        let sending = thread::spawn(move || sender.write_all(&requests));
        let answers = (0..50).map(|_| peer.json()).collect();
        sending.join().expect("no panics").expect("the server reads");
        answers
    })
}

#[test]
fn refused_messages_do_not_close_the_connection_until_there_are_too_many() {
    let server = Server::start(&["--set", "limits.max_errors=5"]);
    let mut peer = Peer::open(&server);
    for _ in 0..4 {
        expect_error(&mut peer, "nonsense", "invalid_json");
    }
    peer.send_text("nonsense");
    assert_eq!(peer.json()["data"]["code"], "invalid_json");
    peer.expect_close(1008, "too_many_errors");
    assert_eq!(server.counter("too_many_errors"), 1);
    assert_eq!(server.counter("messages_rejected"), 5);
    assert_eq!(server.log.count_reason("too_many_errors"), 1);
    fresh_client_works(&server);
}

// Several messages in a frame.

#[test]
fn a_frame_may_hold_several_messages_one_a_line() {
    let (_server, mut peer) = open();
    let subscribe = action("subscribe", "a");
    let publish = r#"{"action":"publish","channel":"a","data":{"line":
1}}"#;
    peer.send_text(&format!(
        "\n{subscribe}\r\n\n {publish} \n{subscribe}\n{{\"type\":\"ping\"}}\n\n"
    ));
    let mut answers: Vec<_> = (0..4).map(|_| peer.text()).collect();
    let publication = "{\"channel\":\"a\",\"data\":{\"line\":\n1}}".to_string();
    let at = answers.iter().position(|answer| *answer == publication).expect("it is delivered");
    // The publication has its place behind the confirmation; the other answers are in order.
    assert!(at > 0, "{answers:?}");
    answers.remove(at);
    let confirmed = r#"{"channel":"system","data":{"type":"subscription_confirm","channel":"a"}}"#;
    assert!(answers.contains(&r#"{"type":"pong"}"#.to_string()), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| *answer == confirmed).count(), 2, "{answers:?}");
    peer.expect_idle();
}

#[test]
fn a_refused_message_does_not_touch_the_others_of_its_frame() {
    let (_server, mut peer) = open();
    peer.send_text(
        "{\"type\":\"ping\",\"id\":1}\n{\"action\":\"dance\"}\n{\"type\":\"ping\",\"id\":2}",
    );
    assert_eq!(peer.json()["id"], 1);
    assert_eq!(peer.json()["data"]["code"], "unknown_action");
    assert_eq!(peer.json()["id"], 2);
    // After what is not JSON nothing can be told apart.
    peer.send_text("{\"type\":\"ping\",\"id\":3}\n{\"type\":\n{\"type\":\"ping\",\"id\":4}");
    assert_eq!(peer.json()["id"], 3);
    assert_eq!(peer.json()["data"]["code"], "invalid_json");
    peer.expect_idle();
}

// Namespaces.

#[test]
fn namespaces_come_from_the_configuration_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("stentor.toml");
    let text =
        "[limits]\nmax_subscriptions = 2\n\n[namespaces.chat]\nslow_consumer = \"conflate\"\n";
    fs::write(&file, text).expect("it is ours");
    let server = Server::start(&["--config", file.to_str().expect("text")]);
    let mut peer = Peer::open(&server);
    for channel in ["chat:lobby", "lobby"] {
        peer.subscribe(channel);
        peer.publish(channel, "1");
        peer.expect_publication(channel, "1");
    }
    expect_error(&mut peer, &action("subscribe", "third"), "too_many_subscriptions");
}

// Order.

/// Both event loops have a good part of `count` connections.
#[track_caller]
fn expect_split(server: &Server, count: usize) {
    let split = server.connections_by_shard();
    assert_eq!(split.len(), 2, "{split:?}");
    assert_eq!(split.iter().sum::<usize>(), count, "{split:?}");
    assert!(split.iter().all(|connections| *connections > count / 4), "{split:?}");
}

/// `[publisher, number]` of a publication on `channel`.
fn parse_publication(text: &str, channel: &str) -> (usize, usize) {
    let start = format!(r#"{{"channel":"{channel}","data":["#);
    let numbers = text.strip_prefix(&start).and_then(|rest| rest.strip_suffix("]}"));
    let (publisher, number) =
        numbers.and_then(|numbers| numbers.split_once(',')).unwrap_or_else(|| panic!("{text}"));
    (publisher.parse().expect("a number"), number.parse().expect("a number"))
}

#[test]
fn a_thousand_subscribers_on_two_shards_see_a_hundred_publishers_in_one_order() {
    const SUBSCRIBERS: usize = 1000;
    const PUBLISHERS: usize = 100;
    const EACH: usize = 10;
    let server = Server::start(&["--shards", "2"]);
    let mut subscribers: Vec<_> = (0..SUBSCRIBERS).map(|_| Peer::open(&server)).collect();
    subscribers.iter_mut().for_each(|peer| peer.subscribe("order"));
    let publishers: Vec<_> = (0..PUBLISHERS).map(|_| Peer::open(&server)).collect();
    expect_split(&server, SUBSCRIBERS + PUBLISHERS);
    let start = Barrier::new(PUBLISHERS);
    thread::scope(|scope| {
        for (publisher, mut peer) in publishers.into_iter().enumerate() {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                for number in 0..EACH {
                    peer.publish("order", &format!("[{publisher},{number}]"));
                }
                // What was sent is taken before the connection ends.
                peer.expect_idle();
            });
        }
    });
    let order: Vec<_> = (0..PUBLISHERS * EACH).map(|_| subscribers[0].text()).collect();
    for (index, peer) in subscribers.iter_mut().enumerate().skip(1) {
        for (place, publication) in order.iter().enumerate() {
            assert_eq!(&peer.text(), publication, "subscriber {index}, place {place}");
        }
    }
    // Nothing is lost or doubled, and each publisher's are in its order.
    let mut next = [0; PUBLISHERS];
    for text in &order {
        let (publisher, number) = parse_publication(text, "order");
        assert_eq!(number, next[publisher], "publisher {publisher}");
        next[publisher] += 1;
    }
    assert_eq!(next, [EACH; PUBLISHERS]);
    let counters = server.counters();
    assert_eq!(counters["publications"], (PUBLISHERS * EACH) as u64);
    assert_eq!(counters["deliveries"], (SUBSCRIBERS * PUBLISHERS * EACH) as u64);
    subscribers.iter_mut().for_each(|peer| peer.expect_idle());
}

#[test]
fn one_publisher_is_heard_in_its_order_on_every_channel() {
    const COUNT: usize = 2000;
    let server = Server::start(&["--shards", "2"]);
    let channels: Vec<_> = (0..8).map(|number| format!("order{number}")).collect();
    let mut subscribers: Vec<_> = (0..16).map(|_| Peer::open(&server)).collect();
    for peer in &mut subscribers {
        channels.iter().for_each(|channel| peer.subscribe(channel));
    }
    let mut publisher = Peer::open(&server);
    let requests: Vec<u8> = (0..COUNT)
        .flat_map(|number| {
            let channel = &channels[number % channels.len()];
            let text =
                format!(r#"{{"action":"publish","channel":"{channel}","data":[0,{number}]}}"#);
            frame(OpCode::TEXT, text.as_bytes())
        })
        .collect();
    publisher.send(&requests);
    for peer in &mut subscribers {
        let mut next: Vec<_> = (0..channels.len()).collect();
        for _ in 0..COUNT {
            let text = peer.text();
            let place = channels
                .iter()
                .position(|channel| text.contains(channel.as_str()))
                .unwrap_or_else(|| panic!("{text}"));
            let (_, number) = parse_publication(&text, &channels[place]);
            assert_eq!(number, next[place], "{text}");
            next[place] += channels.len();
        }
    }
}

#[test]
fn no_publication_comes_before_the_confirmation_and_none_is_missing_after_it() {
    const SUBSCRIBERS: usize = 50;
    // They read only when all is published, however long that takes.
    let patient = ["--set", "limits.slow_consumer_timeout=10m", "--heartbeat", "10m"];
    let flags = [&["--shards", "2", "--send-queue-size", "256MiB"][..], &patient].concat();
    let server = Server::start(&flags);
    let mut publisher = Peer::open(&server);
    let mut sender = publisher.sender();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let publishing = thread::spawn(move || {
        let mut count = 0;
        while !stopped.load(Ordering::Relaxed) {
            let text = format!(r#"{{"action":"publish","channel":"live","data":[0,{count}]}}"#);
            sender.write_all(&frame(OpCode::TEXT, text.as_bytes())).expect("the server reads");
            count += 1;
        }
        count
    });
    let mut subscribers: Vec<_> = (0..SUBSCRIBERS)
        .map(|_| {
            let mut peer = Peer::open(&server);
            // The first message is the confirmation: `subscribe` takes no other.
            peer.subscribe("live");
            peer
        })
        .collect();
    stop.store(true, Ordering::Relaxed);
    let count = publishing.join().expect("no panics");
    publisher.publish_acked("live", &format!("[0,{count}]"));
    for (index, peer) in subscribers.iter_mut().enumerate() {
        let (_, first) = parse_publication(&peer.text(), "live");
        for number in first + 1..=count {
            assert_eq!(parse_publication(&peer.text(), "live").1, number, "subscriber {index}");
        }
    }
}
