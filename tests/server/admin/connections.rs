//! Connections from outside: what they have, what is told of them, how they end.

use serde_json::json;

use super::{ALICE, HISTORY, authenticate, start_with_users};
use crate::support::*;

#[test]
fn a_connection_is_subscribed_and_unsubscribed_from_outside() {
    let api = Api::start(&HISTORY);
    for (mut peer, id) in open_on_both_shards(&api.server) {
        for channel in ["news", "kept:news"] {
            let place = json!({"connection": id, "channel": channel});
            let result = api.call("subscribe", &place);
            assert_eq!(result.get("epoch").is_some(), channel != "news", "{result}");
            let confirmation = peer.json();
            assert_eq!(confirmation["data"]["type"], "subscription_confirm");
            assert_eq!(confirmation["data"]["channel"], channel);
            // Nothing can come between.
            api.call("publish", &json!({"channel": channel, "data": 1}));
            assert_eq!(peer.json()["data"], 1);
            api.call("subscribe", &place);
            assert_eq!(peer.json()["data"]["type"], "subscription_confirm");
            api.call("unsubscribe", &place);
            assert_eq!(peer.json()["data"]["type"], "unsubscription_confirm");
            api.call("publish", &json!({"channel": channel, "data": 1}));
            peer.expect_idle();
            let code = "not_subscribed".to_owned();
            assert_eq!(api.refused("unsubscribe", &place), (404, code));
        }
    }
    let id = "0".repeat(44);
    for (id, channel, refusal) in [
        (id.as_str(), "a", (404, "connection_not_found")),
        ("ffff00000000", "a", (404, "connection_not_found")),
        (&format!("ffff{}", &id[4..]), "a", (404, "connection_not_found")),
        (&id, "", (400, "channel_invalid")),
    ] {
        let (status, code) =
            api.refused("subscribe", &json!({"connection": id, "channel": channel}));
        assert_eq!((status, code.as_str()), refusal, "{id} {channel}");
    }
}

#[test]
fn the_limits_of_a_connection_hold_from_outside_too() {
    let api = Api::start(&["--set", "limits.max_subscriptions=2"]);
    let (_peer, id) = open_named(&api.server);
    for channel in ["a", "b"] {
        api.call("subscribe", &json!({"connection": id, "channel": channel}));
    }
    let third = api.refused("subscribe", &json!({"connection": id, "channel": "c"}));
    assert_eq!(third, (409, "too_many_subscriptions".to_owned()));
}

#[test]
fn a_disconnect_closes_with_code_and_reason() {
    let api = Api::start(&[]);
    let [(mut first, first_id), (mut second, second_id)] = open_on_both_shards(&api.server);
    api.call("disconnect", &json!({"connection": first_id}));
    first.expect_close(4003, "kicked");
    api.call("disconnect", &json!({"connection": second_id, "code": 3500, "reason": "so long"}));
    second.expect_close(3500, "so long");
    // Both are closing, and then gone.
    for id in [first_id, second_id] {
        let again = api.refused("disconnect", &json!({"connection": id}));
        assert_eq!(again, (404, "connection_not_found".to_owned()));
    }
    assert_eq!(api.server.counter("kicked"), 2);
    let (_peer, id) = open_named(&api.server);
    for (code, reason) in [(1005, "x"), (0, "x"), (5000, "x"), (4000, &*"x".repeat(124))] {
        let body = json!({"connection": id, "code": code, "reason": reason});
        assert_eq!(api.refused("disconnect", &body), (400, "invalid_message".to_owned()));
    }
}

#[test]
fn connections_are_listed_and_their_numbers_are_true() {
    let api = Api::start(&["--echo", "/echo"]);
    let mut clients = Vec::new();
    for _ in 0..10 {
        // Without a welcome nobody has an id before it is asked for.
        clients.push(Peer::open(&api.server));
    }
    let mut echo = Peer::open_at(&api.server, "/echo");
    let silent = Peer::connect(&api.server);
    let all = api.list("connections", json!({"limit": 3}));
    assert_eq!(all.len(), 11, "one that has asked nothing is no WebSocket");
    drop(silent);
    assert_eq!(all.iter().filter(|one| one["state"] == "echo").count(), 1);
    let mut ids: Vec<_> = all.iter().map(|one| one["connectionId"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 11);
    // What it has sent and got, to the byte.
    let (mut peer, id) = open_named(&api.server);
    let find = || api.call("connection", &json!({ "connectionId": id }));
    let before = find();
    assert_eq!((&before["messagesReceived"], &before["messagesSent"]), (&json!(0), &json!(1)));
    peer.subscribe("a");
    peer.send_text(r#"{"action":"subscribe","channel":"b"}"#);
    peer.json();
    for _ in 0..5 {
        peer.publish("a", "1");
        peer.expect_publication("a", "1");
    }
    let after = find();
    let difference = |name: &str| after[name].as_u64().unwrap() - before[name].as_u64().unwrap();
    assert_eq!((difference("messagesReceived"), difference("messagesSent")), (7, 7));
    let subscribe = r#"{"action":"subscribe","channel":"a"}"#.len() + 6;
    let publish = r#"{"action":"publish","channel":"a","data":1}"#.len() + 6;
    assert_eq!(difference("bytesReceived"), (2 * subscribe + 5 * publish) as u64);
    let confirm =
        r#"{"channel":"system","data":{"type":"subscription_confirm","channel":"a"}}"#.len() + 2;
    let publication = r#"{"channel":"a","data":1}"#.len() + 2;
    assert_eq!(difference("bytesSent"), (2 * confirm + 5 * publication) as u64);
    assert_eq!((&after["queuedBytes"], &after["blocked"]), (&json!(0), &json!(false)));
    assert_eq!(
        (&after["linkQuality"], after.get("rtt"), after.get("userId")),
        (&json!("unknown"), None, None)
    );
    assert_eq!((&after["subscriptions"], &after["channels"]), (&json!(2), &json!(["a", "b"])));
    let port = after["peer"]
        .as_str()
        .and_then(|peer| peer.rsplit_once(':'))
        .map(|(_, port)| port.to_owned());
    assert_eq!(port, peer.sender().local_addr().ok().map(|address| address.port().to_string()));
    let time = |name: &str| after[name].as_u64().expect("a time");
    assert!(time("stateSince") <= time("lastActivity"), "{after}");
    echo.send(&frame(OpCode::BINARY, b"x"));
    echo.expect_frame(OpCode::BINARY, b"x");
    let echo = &api.list("connections", json!({}))[..];
    let echo = echo.iter().find(|one| one["state"] == "echo").expect("it is there");
    assert_eq!((&echo["messagesReceived"], &echo["messagesSent"]), (&json!(1), &json!(1)));
    let unknown = api.refused("connection", &json!({"connection": "x"}));
    assert_eq!(unknown, (404, "connection_not_found".to_owned()));
}

#[test]
fn a_connection_tells_whose_it_is_and_how_far_away() {
    let (_folder, api) = start_with_users(&["--set", "heartbeat.interval=500ms"]);
    let (mut peer, id) = open_named(&api.server);
    authenticate(&mut peer, ALICE);
    let ping = peer.frame();
    assert_eq!(ping.opcode, OpCode::PING);
    peer.send(&frame(OpCode::PONG, &ping.payload));
    peer.send_text(r#"{"type":"ping"}"#);
    peer.expect_text(r#"{"type":"pong"}"#);
    let info = api.call("connection", &json!({ "connection": id }));
    assert_eq!((&info["userId"], &info["linkQuality"]), (&json!("alice"), &json!("good")));
    assert!(info["rtt"].as_u64().is_some_and(|rtt| rtt < 100), "{info}");
}

#[test]
fn all_connections_of_a_user_are_meant_by_its_name() {
    let (_folder, api) = start_with_users(&["--set", "limits.max_subscriptions=1"]);
    let mut found: [Option<(Peer, Pair)>; 2] = [None, None];
    while found.iter().any(Option::is_none) {
        let (peer, pair) = open_session(&api.server);
        let shard = usize::from_str_radix(pair.shard(), 16).expect("a number");
        found[shard] = Some((peer, pair));
    }
    let mut alice = found.map(|one| one.expect("both are there"));
    for (peer, _) in &mut alice {
        authenticate(peer, ALICE);
    }
    let two = json!({"connections": 2});
    let (of_alice, of_bob) =
        (json!({"user": "alice", "channel": "news"}), json!({"user": "bob", "channel": "news"}));
    assert_eq!(api.call("subscribe", &of_alice), two);
    assert_eq!(api.call("subscribe", &of_bob), json!({"connections": 0}));
    let more = api.refused("subscribe", &json!({"user": "alice", "channel": "more"}));
    assert_eq!(more, (409, "too_many_subscriptions".to_owned()));
    api.call("publish", &json!({"channel": "news", "data": 1}));
    for (peer, _) in &mut alice {
        assert_eq!(peer.json()["data"]["type"], "subscription_confirm");
        // Before the next call: on its way between shards it might meet nobody.
        peer.expect_publication("news", "1");
    }
    assert_eq!(api.call("unsubscribe", &of_alice), two);
    assert_eq!(api.call("unsubscribe", &of_alice), json!({"connections": 0}));
    for (peer, _) in &mut alice {
        assert_eq!(peer.json()["data"]["type"], "unsubscription_confirm");
    }
    assert_eq!(api.call("disconnect", &json!({"user": "alice", "reason": "out"})), two);
    for (peer, pair) in &mut alice {
        peer.expect_close(4003, "out");
        // Its session has ended too.
        let mut again = Peer::open(&api.server);
        authenticate(&mut again, ALICE);
        again.send_text(&pair.request(""));
        assert_eq!(again.json()["code"], "session_not_found");
    }
    for body in
        [json!({"user": "alice", "connection": "0".repeat(44)}), json!({}), json!({"user": ""})]
    {
        assert_eq!(api.refused("disconnect", &body), (400, "invalid_message".to_owned()), "{body}");
    }
}
