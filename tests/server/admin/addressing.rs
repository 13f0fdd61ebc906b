//! Messages to users, connections and everybody.

use serde_json::json;

use super::{ALICE, BOB, auth, authenticate, body, message, open_protobuf, start_with_users};
use crate::support::envelope::envelope::Body;
use crate::support::*;

#[test]
fn a_message_reaches_users_through_their_inboxes() {
    let (_folder, api) = start_with_users(&[]);
    let mut alice = open_on_both_shards(&api.server).map(|(peer, _)| peer);
    for peer in &mut alice {
        authenticate(peer, ALICE);
    }
    let users = json!(["alice", "nobody"]);
    let sent = api.call("send", &json!({"channel": "chat:x", "data": {"n": 1}, "users": users}));
    assert_eq!(sent, json!({"responses": [{"result": {}}, {"result": {}}]}));
    // Bob is away, and what queues waits for him.
    let sent =
        api.call("send", &json!({"channel": "mail:x", "data": 2, "users": ["bob", "alice"]}));
    assert_eq!(sent["responses"].as_array().map(Vec::len), Some(2));
    for peer in &mut alice {
        peer.expect_text(r#"{"channel":"chat:x","data":{"n":1}}"#);
        let queued = message(peer);
        assert_eq!((&queued["channel"], &queued["data"]), (&json!("mail:x"), &json!(2)));
    }
    let mut bob = Peer::open(&api.server);
    bob.send_text(&auth(BOB));
    // Before the answer, or behind it.
    let heard = [message(&mut bob), message(&mut bob)];
    assert!(heard.iter().any(|message| message["data"] == 2), "{heard:?}");
    let refused = api.refused("send", &json!({"channel": "x", "data": 1, "users": ["alice"]}));
    assert_eq!(refused, (409, "permission_denied".to_owned()));
}

#[test]
fn a_message_reaches_connections_that_are_not_subscribed() {
    let api = Api::start(&[]);
    let clients = open_on_both_shards(&api.server);
    let ids: Vec<_> = clients.iter().map(|(_, id)| id.clone()).chain(["0".repeat(44)]).collect();
    let body = format!(
        r#"{{"channel":"news","data":{{ "a" : [1.0e1, "\u00e9"] }},"connections":{}}}"#,
        json!(ids)
    );
    let (status, answer) = api.post("/api/send", &body);
    assert_eq!(status, 200, "{answer}");
    let responses = answer["result"]["responses"].as_array().expect("a list");
    assert_eq!(responses[..2], [json!({"result": {}}), json!({"result": {}})]);
    assert_eq!(responses[2]["error"]["code"], "connection_not_found");
    for (mut peer, _) in clients {
        peer.expect_text(r#"{"channel":"news","data":{ "a" : [1.0e1, "\u00e9"] }}"#);
        peer.expect_idle();
    }
    assert_eq!(api.server.counter("api_deliveries"), 2);
}

#[test]
fn a_message_reaches_everybody_but_those_who_are_excepted() {
    let (_folder, api) = start_with_users(&["--echo", "/echo"]);
    let [(mut first, _), (mut second, second_id)] = open_on_both_shards(&api.server);
    let mut alice = Peer::open(&api.server);
    authenticate(&mut alice, ALICE);
    let mut other = open_protobuf(&api.server);
    let mut echo = Peer::open_at(&api.server, "/echo");
    api.server.wait_for_connections(5);
    let publication = |data: &[u8]| {
        let (channel, data) = ("news".to_owned(), data.to_vec());
        Body::Publication(envelope::Publication { channel, data, ..Default::default() })
    };
    let all = json!({"channel": "news", "data": "all", "everybody": true});
    assert_eq!(api.call("send", &all), json!({"connections": 4}));
    for peer in [&mut first, &mut second, &mut alice] {
        peer.expect_text(r#"{"channel":"news","data":"all"}"#);
    }
    assert_eq!(body(&mut other), publication(b"\"all\""));
    let except = json!({"users": ["alice", "bob"], "connections": [second_id, "x"]});
    let some = json!({"channel": "news", "data": 2, "everybody": true, "except": except});
    let batch = api.call("batch", &json!({"commands": [{"send": some}]}));
    assert_eq!(batch, json!({"replies": [{"result": {"connections": 2}}]}));
    first.expect_text(r#"{"channel":"news","data":2}"#);
    assert_eq!(body(&mut other), publication(b"2"));
    for peer in [&mut first, &mut second, &mut alice] {
        peer.expect_idle();
    }
    echo.send_text("mine");
    echo.expect_text("mine");
    for body in [
        json!({"channel": "a", "data": 1}),
        json!({"channel": "a", "data": 1, "everybody": false}),
        json!({"channel": "a", "data": 1, "everybody": true, "users": ["a"]}),
        json!({"channel": "a", "data": 1, "users": ["a", "a"]}),
        json!({"channel": "a", "everybody": true}),
    ] {
        assert_eq!(api.refused("send", &body), (400, "invalid_message".to_owned()), "{body}");
    }
    let reserved = api.refused("send", &json!({"channel": "system", "data": 1, "everybody": true}));
    assert_eq!(reserved, (400, "channel_reserved".to_owned()));
}

#[test]
fn a_crowd_of_more_than_one_turn_is_told_once_each() {
    const CROWD: usize = 2500;
    let launch = Launch::new(&["--admin", "127.0.0.1:0"]).env("STENTOR_SERVER_SHARDS", "1");
    let api = Api::launch(launch);
    let mut crowd: Vec<_> = (0..CROWD).map(|_| Peer::open(&api.server)).collect();
    for data in 0..3 {
        let all = json!({"channel": "news", "data": data, "everybody": true});
        assert_eq!(api.call("send", &all), json!({ "connections": CROWD }));
    }
    for peer in &mut crowd {
        for data in ["0", "1", "2"] {
            peer.expect_publication("news", data);
        }
        peer.expect_idle();
    }
    assert_eq!(api.server.counter("api_deliveries"), 3 * CROWD as u64);
}

#[test]
fn nothing_comes_to_those_who_must_authenticate_and_have_not() {
    let (_folder, api) = start_with_users(&["--set", "auth.required=true"]);
    let (mut stranger, stranger_id) = open_named(&api.server);
    let (mut alice, alice_id) = open_named(&api.server);
    authenticate(&mut alice, ALICE);
    let all = json!({"channel": "news", "data": 1, "everybody": true});
    assert_eq!(api.call("send", &all), json!({"connections": 1}));
    let ids = json!([stranger_id, alice_id]);
    let sent = api.call("send", &json!({"channel": "news", "data": 2, "connections": ids}));
    assert_eq!(sent["responses"][0]["error"]["code"], "permission_denied");
    assert_eq!(sent["responses"][1], json!({"result": {}}));
    for data in [1, 2] {
        assert_eq!(alice.json()["data"], data);
    }
    stranger.expect_idle();
}
