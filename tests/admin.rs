//! The server API over real sockets: every call, what is refused and how, and what clients see of it.

#[rustfmt::skip]
#[path = "support/envelope.rs"]
#[allow(clippy::all, dead_code)]
mod envelope;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use serde_json::{Value, json};
use support::*;
use tempfile::TempDir;

use envelope::Envelope;
use envelope::envelope::Body;

const KEY: &str = "a-key-for-tests-only";

const HISTORY: [&str; 2] = ["--set", "namespaces.kept.level=history"];

#[test]
fn a_publication_reaches_subscribers_on_every_shard() {
    let api = Api::start(&HISTORY);
    let mut clients = open_on_both_shards(&api.server);
    for channel in ["a", "b", "c", "d", "kept:a", "kept:b", "kept:c"] {
        for (peer, _) in &mut clients {
            peer.send_text(&format!(r#"{{"action":"subscribe","channel":"{channel}"}}"#));
            peer.json();
        }
        let body = format!(r#"{{"channel":"{channel}","data":{{ "a" : [1.0e1, "\u00e9"] }}}}"#);
        let (status, answer) = api.post("/api/publish", &body);
        let is_kept = channel.starts_with("kept");
        let result = if is_kept { json!({"offset": 1}) } else { json!({}) };
        assert_eq!((status, answer), (200, json!({ "result": result })));
        let offset = if is_kept { r#""offset":1,"# } else { "" };
        for (peer, _) in &mut clients {
            // Byte for byte.
            peer.expect_text(&format!(
                r#"{{"channel":"{channel}",{offset}"data":{{ "a" : [1.0e1, "\u00e9"] }}}}"#
            ));
        }
    }
    assert_eq!(api.server.counter("publications"), 7);
}

#[test]
fn a_message_id_is_published_once_whatever_connection_it_comes_on() {
    let api = Api::start(&HISTORY);
    for (name, value) in [("messageId", "m"), ("idempotency_key", "m"), ("messageId", "n")] {
        let result = api.call("publish", &json!({"channel": "kept:x", "data": 1, name: value}));
        assert_eq!(result, json!({"offset": if value == "m" { 1 } else { 2 }}));
    }
    // Whoever repeats it.
    let mut peer = Peer::open(&api.server);
    peer.send_text(r#"{"action":"publish","channel":"kept:x","data":2,"messageId":"m"}"#);
    assert_eq!(peer.json()["offset"], 1);
    api.server.wait_for_counter("duplicates", 2);
}

#[test]
fn a_broadcast_answers_for_each_channel() {
    let api = Api::start(&HISTORY);
    let mut peer = Peer::open(&api.server);
    peer.subscribe("a");
    let channels = json!(["a", "kept:b", "", "system"]);
    let result = api.call("broadcast", &json!({"channels": channels, "data": null}));
    let responses = result["responses"].as_array().expect("a list");
    assert_eq!(responses[0], json!({"result": {}}));
    assert_eq!(responses[1], json!({"result": {"offset": 1}}));
    assert_eq!(responses[2]["error"]["code"], "channel_invalid");
    assert_eq!(responses[3]["error"]["code"], "channel_reserved");
    peer.expect_publication("a", "null");
    let none = api.refused("broadcast", &json!({"channels": [], "data": 1}));
    assert_eq!(none, (400, "invalid_message".to_owned()));
    let many: Vec<_> = (0..1001).map(|number| number.to_string()).collect();
    assert_eq!(api.refused("broadcast", &json!({"channels": many, "data": 1})).0, 400);
}

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
fn it_is_told_who_is_in_a_channel() {
    let api = Api::start(&["--set", "namespaces.room.presence=true"]);
    let clients = open_on_both_shards(&api.server);
    let none: [Value; 0] = [];
    let empty = json!({"channel": "room:a", "clients": 0, "users": 0, "members": none});
    assert_eq!(api.call("presence", &json!({"channel": "room:a"})), empty);
    for (_, id) in &clients {
        api.call("subscribe", &json!({"connection": id, "channel": "room:a"}));
    }
    wait_until("the home knows", || {
        api.call("presence", &json!({"channel": "room:a", "limit": 0}))["clients"] == 2
    });
    let first = api.call("presence", &json!({"channel": "room:a", "limit": 1}));
    assert_eq!(first["members"].as_array().map(Vec::len), Some(1));
    let second =
        api.call("presence", &json!({"channel": "room:a", "limit": 1, "after": first["next"]}));
    assert!(second.get("next").is_none());
    let mut listed = [&first, &second].map(|page| page["members"][0]["connectionId"].clone());
    let mut names = clients.map(|(_, id)| json!(id));
    listed.sort_by_key(Value::to_string);
    names.sort_by_key(Value::to_string);
    assert_eq!(listed, names);
    let refused = api.refused("presence", &json!({"channel": "other"}));
    assert_eq!(refused, (409, "permission_denied".to_owned()));
    for body in [json!({"channel": "room:a", "limit": 1001}), json!({"channel": "room:a", "x": 1})]
    {
        assert_eq!(api.refused("presence", &body), (400, "invalid_message".to_owned()), "{body}");
    }
}

#[test]
fn rooms_are_made_listed_moderated_and_deleted() {
    let api = Api::start(&["--set", "namespaces.none.rooms=false"]);
    let names: Vec<_> = (0..7).map(|number| format!("r{number}")).collect();
    for name in &names {
        let made =
            api.call("create_room", &json!({"room": name, "maxUsers": 5, "metadata": {"a": 1}}));
        let nobody: [Value; 0] = [];
        let expected = json!({"id": name, "name": format!("Room {name}"), "userCount": 0, "maxUsers": 5,
            "users": nobody, "metadata": {"a": 1}});
        assert_eq!(made, expected);
        assert_eq!(api.call("room", &json!({"room": name})), expected);
    }
    let (mut listed, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let page = api.call("rooms", &json!({"limit": 3, "cursor": cursor}));
        listed.extend(page["rooms"].as_array().expect("a list").clone());
        cursor = page["cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(json!(listed), json!(names));

    let join =
        r#"{"type":"command","id":1,"payload":{"action":"join","parameters":{"room":"r1"}}}"#;
    let mut clients = open_on_both_shards(&api.server);
    for (peer, _) in &mut clients {
        peer.send_text(join);
        assert_eq!(peer.json()["type"], "response");
    }
    let [(mut first, id), (mut second, _)] = clients;
    assert_eq!(api.call("room_mute", &json!({"room": "r1", "user": id})), json!({}));
    let publish = r#"{"action":"publish","id":2,"channel":"r1","data":1}"#;
    first.send_text(publish);
    assert_eq!(first.json()["data"]["code"], "forbidden");
    api.call("room_unmute", &json!({"room": "r1", "user": id}));
    // The server API may say something in any room.
    api.call("publish", &json!({"channel": "r1", "data": 7}));
    for peer in [&mut first, &mut second] {
        peer.expect_publication("r1", "7");
    }
    api.call("room_kick", &json!({"room": "r1", "user": id}));
    assert_eq!(first.json()["data"]["reason"], "kicked");
    assert_eq!(api.call("delete_room", &json!({"room": "r1"})), json!({}));
    assert_eq!(second.json()["data"]["reason"], "room_deleted");

    for (call, body, expected) in [
        ("create_room", json!({"room": "r2"}), (409, "room_exists")),
        ("create_room", json!({"room": "none:a"}), (409, "forbidden")),
        ("create_room", json!({"room": "x", "maxUsers": 0}), (400, "invalid_message")),
        ("create_room", json!({"room": "x", "metadata": []}), (400, "invalid_message")),
        ("create_room", json!({"room": "x", "name": ""}), (400, "invalid_message")),
        ("delete_room", json!({"room": "r1"}), (404, "room_not_found")),
        ("room", json!({"room": "r1"}), (404, "room_not_found")),
        ("room_kick", json!({"room": "r2", "user": "ann"}), (404, "not_subscribed")),
    ] {
        let (status, code) = expected;
        assert_eq!(api.refused(call, &body), (status, code.to_owned()), "{call} {body}");
    }
}

#[test]
fn a_history_is_read_in_pages() {
    let api = Api::start(&HISTORY);
    for number in 1..=5 {
        let data = format!(r#"{{ "n" : {number} }}"#);
        api.post("/api/publish", &format!(r#"{{"channel":"kept:h","data":{data}}}"#));
    }
    let page = api.call("history", &json!({"channel": "kept:h", "since": 1, "limit": 3}));
    assert_eq!(
        (&page["offset"], &page["complete"], &page["more"]),
        (&json!(5), &json!(true), &json!(true))
    );
    assert_eq!(page["epoch"].as_str().map(str::len), Some(16));
    assert_eq!(page["publications"][2], json!({"offset": 4, "data": {"n": 4}}));
    let page = api.call("history", &json!({"channel": "kept:h", "reverse": true, "until": 4}));
    let offsets: Vec<_> = page["publications"].as_array().expect("a list").iter().collect();
    assert_eq!((offsets.len(), &offsets[0]["offset"]), (4, &json!(4)));
    let unused = api.call("history", &json!({"channel": "kept:unused"}));
    assert_eq!(
        unused,
        json!({"epoch": null, "offset": 0, "publications": [], "complete": true, "more": false})
    );
    let none = api.refused("history", &json!({"channel": "live"}));
    assert_eq!(none, (409, "position_unavailable".to_owned()));
    for body in [
        json!({"channel": "kept:h", "limit": 0}),
        json!({"channel": "kept:h", "limit": 1001}),
        json!({"channel": "kept:h", "since": "end"}),
        json!({"channel": "kept:h", "until": "start"}),
    ] {
        assert_eq!(api.refused("history", &body), (400, "invalid_message".to_owned()), "{body}");
    }
}

#[test]
fn channels_are_listed_once_with_all_their_subscribers() {
    let api = Api::start(&HISTORY);
    let [(mut first, _), (mut second, _)] = open_on_both_shards(&api.server);
    for number in 0..20 {
        first.subscribe(&format!("room:{number}"));
        if number % 2 == 0 {
            second.subscribe(&format!("room:{number}"));
        }
    }
    api.call("publish", &json!({"channel": "kept:k", "data": 1}));
    let name = |one: &Value| one["channel"].as_str().expect("a name").to_owned();
    for limit in [1, 3, 1000] {
        let mut all = api.list("channels", json!({ "limit": limit }));
        all.sort_by_key(name);
        let mut expected: Vec<_> = (0..20)
            .map(|number| json!({"channel": format!("room:{number}"), "subscribers": 2 - number % 2}))
            .chain([json!({"channel": "kept:k", "subscribers": 0})])
            .collect();
        expected.sort_by_key(name);
        assert_eq!(all, expected, "limit {limit}");
    }
    let mut some = api.list("channels", json!({"pattern": "room:1?", "limit": 2}));
    some.sort_by_key(name);
    assert_eq!(
        some.iter().map(name).collect::<Vec<_>>(),
        (10..20).map(|n| format!("room:{n}")).collect::<Vec<_>>()
    );
    assert_eq!(api.list("channels", json!({"pattern": "*9"})).len(), 2);
    for body in [json!({"limit": 0}), json!({"cursor": "x"}), json!({"pattern": "x".repeat(256)})] {
        assert_eq!(api.refused("channels", &body), (400, "invalid_message".to_owned()), "{body}");
    }
    assert_eq!(api.call("channels", &json!({"cursor": "99.0"})), json!({"channels": []}));
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

#[test]
fn a_batch_is_done_in_order() {
    let api = Api::start(&HISTORY);
    let (mut peer, id) = open_named(&api.server);
    let batch = json!({"commands": [
        {"publish": {"channel": "kept:a", "data": 1}},
        {"publish": {"channel": "kept:a", "data": 2}},
        {"subscribe": {"connection": id, "channel": "a"}},
        {"publish": {"channel": "a", "data": 3}},
        {"broadcast": {"channels": ["a", "kept:a"], "data": 4}},
        {"history": {"channel": "kept:a"}},
        {"nonsense": {}},
        {"publish": {"channel": "a"}},
        {"info": {"x": 1}},
        {"info": {}, "publish": {}},
        {"publish": ["a", 1]},
        7,
    ]});
    let result = api.call("batch", &batch);
    let replies = result["replies"].as_array().expect("a list");
    assert_eq!(replies.len(), 12);
    assert_eq!(replies[1], json!({"result": {"offset": 2}}));
    assert_eq!(replies[4]["result"]["responses"][1], json!({"result": {"offset": 3}}));
    assert_eq!(replies[5]["result"]["publications"].as_array().map(Vec::len), Some(3));
    for reply in &replies[6..] {
        assert_eq!(reply["error"]["code"], "invalid_message", "{reply}");
    }
    assert_eq!(peer.json()["data"]["type"], "subscription_confirm");
    peer.expect_publication("a", "3");
    peer.expect_publication("a", "4");
    // An end takes effect at once, whatever is on its way.
    let batch = json!({"commands": [
        {"unsubscribe": {"connection": id, "channel": "a"}},
        {"publish": {"channel": "a", "data": 5}},
    ]});
    api.call("batch", &batch);
    assert_eq!(peer.json()["data"]["type"], "unsubscription_confirm");
    peer.expect_idle();
    assert_eq!(api.refused("batch", &json!({"commands": []})).0, 400);
}

#[test]
fn the_key_is_asked_for() {
    let launch = Launch::new(&["--admin", "127.0.0.1:0"]).env("STENTOR_ADMIN_KEY", KEY);
    let api = Api::launch(launch);
    let publish = |fields: &str| {
        let head =
            format!("POST /api/publish HTTP/1.1\r\nContent-Type: application/json\r\n{fields}");
        api.request(&head, r#"{"channel":"a","data":1}"#)
    };
    let refused = publish("");
    assert_eq!((refused.status, refused.field("WWW-Authenticate")), (401, Some("Bearer")));
    assert!(refused.body.contains(r#""code":"unauthenticated""#), "{refused:?}");
    assert_eq!(publish("X-API-Key: a-key-for-tests-onlz\r\n").status, 401);
    for fields in [
        format!("X-API-Key: {KEY}\r\n"),
        format!("Authorization: apikey {KEY}\r\n"),
        format!("Authorization: Bearer {KEY}\r\n"),
    ] {
        assert_eq!(publish(&fields).status, 200, "{fields}");
    }
    for path in ["/metrics", "/api/openapi.json"] {
        assert_eq!(api.get(path).status, 401, "{path}");
    }
    for path in ["/health", "/health/live", "/health/ready"] {
        assert_eq!(api.get(path).status, 200, "{path}");
    }
    assert!(!api.server.log.lines().join("").contains(KEY));
}

#[test]
fn an_api_for_everybody_needs_a_key() {
    let output = run(&["serve", "--admin", "0.0.0.0:0", "--listen", "127.0.0.1:0"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("there is no admin.key"), "{text}");
}

#[test]
fn an_address_in_use_is_said() {
    let api = Api::start(&[]);
    let address = api.address.to_string();
    let output = run(&["serve", "--admin", &address, "--listen", "127.0.0.1:0"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("the server API cannot listen on") && text.contains("--admin"), "{text}");
}

#[test]
fn bad_requests_are_told_apart() {
    let api = Api::start(&["--set", "admin.max_body_size=1KiB", "--max-message-size", "512"]);
    let send = |method: &str, path: &str, content_type: &str, body: &str| {
        let head = format!("{method} {path} HTTP/1.1\r\n{content_type}");
        let response = api.request(&head, body);
        let answer: Value = serde_json::from_str(&response.body).expect("JSON");
        (response.status, answer["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let json = "Content-Type: application/json; charset=utf-8\r\n";
    let publish = "/api/publish";
    let large = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(1100));
    let long = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(600));
    let deep = format!(r#"{{"channel":"a","data":{}{}}}"#, "[".repeat(65), "]".repeat(65));
    let good = r#"{"channel":"a","data":1}"#;
    for (method, path, content_type, body, expected) in [
        ("POST", publish, json, good, (200, "")),
        ("GET", publish, json, "", (405, "method_not_allowed")),
        ("PUT", publish, json, good, (405, "method_not_allowed")),
        ("POST", "/metrics", json, good, (405, "method_not_allowed")),
        ("POST", "/api/nothing", json, good, (404, "no_route")),
        ("GET", "/", "", "", (404, "no_route")),
        ("POST", publish, "", good, (415, "unsupported_media_type")),
        ("POST", publish, "Content-Type: text/plain\r\n", good, (415, "unsupported_media_type")),
        ("POST", publish, json, "", (400, "invalid_json")),
        ("POST", publish, json, "{", (400, "invalid_json")),
        ("POST", publish, json, r#"{"channel":"a","data":1} x"#, (400, "invalid_json")),
        ("POST", publish, json, r#"{"channel":"a","data":tru}"#, (400, "invalid_json")),
        ("POST", publish, json, &deep, (400, "invalid_json")),
        ("POST", publish, json, "[]", (400, "invalid_message")),
        ("POST", publish, json, "null", (400, "invalid_message")),
        // As lists of their fields.
        ("POST", publish, json, r#"["a",1,null]"#, (400, "invalid_message")),
        ("POST", "/api/connections", json, "[null,null]", (400, "invalid_message")),
        ("POST", publish, json, r#"{"channel":"a"}"#, (400, "invalid_message")),
        ("POST", publish, json, r#"{"channel":1,"data":1}"#, (400, "invalid_message")),
        ("POST", publish, json, r#"{"channel":"a","data":1,"x":1}"#, (400, "invalid_message")),
        ("POST", publish, json, r#"{"channel":"a","data":1,"data":1}"#, (400, "invalid_message")),
        (
            "POST",
            publish,
            json,
            r#"{"channel":"a","data":1,"messageId":""}"#,
            (400, "invalid_message"),
        ),
        ("POST", publish, json, r#"{"channel":"a\n","data":1}"#, (400, "channel_invalid")),
        ("POST", publish, json, r#"{"channel":"system","data":1}"#, (400, "channel_reserved")),
        ("POST", publish, json, &large, (413, "message_too_large")),
        ("POST", publish, json, &long, (413, "message_too_large")),
    ] {
        let expected = (expected.0, expected.1.to_owned());
        assert_eq!(send(method, path, content_type, body), expected, "{method} {path} {body}");
    }
    // Without a length.
    let mut peer = api.connect();
    let chunk = "x".repeat(2000);
    peer.send(
        format!(
            "POST /api/publish HTTP/1.1\r\nHost: 127.0.0.1\r\n{json}Transfer-Encoding: chunked\r\n\r\n\
             7d0\r\n{chunk}\r\n0\r\n\r\n"
        )
        .as_bytes(),
    );
    assert_eq!(peer.response().status, 413);
    let counters = api.server.counters();
    assert_eq!(counters["admin_requests"], 27);
    assert_eq!(counters["admin_refused"], 26);
}

#[test]
fn a_web_page_cannot_reach_an_api_without_a_key() {
    let api = Api::start(&[]);
    let mut peer = api.connect();
    peer.send(get("/metrics", "").replace("Host: test", "Host: evil.example").as_bytes());
    assert_eq!(peer.response().status, 403);
}

#[test]
fn those_who_dawdle_are_cut_off_and_others_served() {
    let api = Api::start(&["--set", "admin.timeout=500ms"]);
    let mut silent = api.connect();
    let mut half = api.connect();
    half.send(b"POST /api/publish HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    let mut body = api.connect();
    body.send(
        b"POST /api/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
          Content-Length: 100\r\n\r\n{",
    );
    api.call("info", &json!({}));
    assert_eq!(body.response().status, 408);
    for peer in [&mut silent, &mut half, &mut body] {
        peer.expect_gone();
    }
    api.call("info", &json!({}));
}

#[test]
fn connections_beyond_the_limit_wait_for_their_turn() {
    let api = Api::start(&["--set", "admin.max_connections=2"]);
    let first = api.connect();
    let second = api.connect();
    let mut third = api.connect();
    third.send(get("/health/live", "").as_bytes());
    assert_eq!(third.response_within(Duration::from_millis(200)), None);
    drop(first);
    assert_eq!(third.response().status, 200);
    drop(second);
}

#[test]
fn a_hundred_at_a_time_are_answered() {
    let api = Api::start(&HISTORY);
    let mut peer = Peer::open(&api.server);
    peer.send_text(r#"{"action":"subscribe","channel":"kept:many"}"#);
    peer.json();
    thread::scope(|scope| {
        for number in 0..100 {
            let api = &api;
            scope.spawn(move || {
                let mut peer = api.connect();
                for _ in 0..5 {
                    let body = format!(r#"{{"channel":"kept:many","data":{number}}}"#);
                    peer.send(
                        format!(
                            "POST /api/publish HTTP/1.1\r\nHost: 127.0.0.1\r\n\
                             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                            body.len()
                        )
                        .as_bytes(),
                    );
                    assert_eq!(peer.response().status, 200);
                }
            });
        }
    });
    for offset in 1..=500 {
        assert_eq!(peer.json()["offset"], offset);
    }
}

#[test]
fn a_durable_publication_is_answered_when_it_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store");
    let flags = ["--store", store.to_str().expect("text"), "--level", "durable"];
    let api = Api::start(&flags);
    assert_eq!(api.call("publish", &json!({"channel": "d", "data": 1})), json!({"offset": 1}));
    assert_eq!(api.server.counter("store_kept"), 1);
    drop(api);
    let api = Api::start(&flags);
    // The log has to tell first where the channel is.
    let page = api.call("history", &json!({"channel": "d"}));
    assert_eq!(page["publications"], json!([{"offset": 1, "data": 1}]));
    assert_eq!(api.call("publish", &json!({"channel": "d", "data": 2})), json!({"offset": 2}));
}

#[test]
fn readiness_follows_the_server() {
    let mut api = Api::start(&[]);
    let ready =
        |api: &Api| serde_json::from_str::<Value>(&api.get("/health/ready").body).expect("JSON");
    wait_until("it is ready", || api.get("/health/ready").status == 200);
    assert_eq!(ready(&api), json!({"status": "ok", "shards": 2, "stalled": []}));
    // A client that does not answer keeps the server from ending.
    let mut peer = Peer::open(&api.server);
    api.server.signal(rustix::process::Signal::TERM);
    peer.expect_close(1001, "shutdown");
    wait_until("it is not ready any more", || api.get("/health/ready").status == 503);
    assert_eq!(ready(&api)["status"], "shutting_down");
    assert_eq!(api.get("/health/live").status, 200);
    let refused = api.refused("publish", &json!({"channel": "a", "data": 1}));
    assert_eq!(refused, (503, "unavailable".to_owned()));
    peer.send(&frame(OpCode::CLOSE, &close_payload(1001, b"")));
    drop(peer);
    assert_eq!(api.server.wait_for_exit(PATIENCE).code(), Some(0));
    assert!(Peer::try_connect(api.address).is_none());
}

#[test]
fn the_document_tells_the_truth() {
    let api = Api::start(&HISTORY);
    let document: Value = serde_json::from_str(&api.get("/api/openapi.json").body).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    for (path, item) in document["paths"].as_object().expect("paths") {
        let item = item.as_object().expect("methods");
        assert_eq!(item.len(), 1, "{path}");
        let (method, operation) = item.iter().next().expect("one");
        let statuses = operation["responses"].as_object().expect("responses");
        let example = &operation["requestBody"]["content"]["application/json"]["example"];
        let head = format!(
            "{} {path} HTTP/1.1\r\nContent-Type: application/json\r\n",
            method.to_uppercase()
        );
        let body = if example.is_null() { String::new() } else { example.to_string() };
        let response = api.request(&head, &body);
        assert!(statuses.contains_key(&response.status.to_string()), "{path}: {response:?}");
        assert_ne!(response.status, 400, "{path}: {response:?}");
        let other = api.request(&format!("DELETE {path} HTTP/1.1\r\n"), "");
        assert_eq!(other.status, 405, "{path}");
        let allowed = other.field("allow").unwrap_or_default();
        assert!(allowed.split(',').any(|allowed| allowed.eq_ignore_ascii_case(method)), "{path}");
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value.as_str() {
                    Some(target) if name == "$ref" => found.push(target.to_owned()),
                    _ => collect_references(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect_references(value, found)),
        _ => {}
    }
}

/// Every sample of a text in the format of Prometheus, with its labels. Strict: what breaks a rule of
/// the format or of its conventions panics.
fn parse_metrics(text: &str) -> BTreeMap<String, f64> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    };
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut lines = text.strip_suffix('\n').expect("the last line ends too").split('\n').peekable();
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").unwrap_or_else(|| panic!("no HELP: {line}"));
        let (name, help) = help.split_once(' ').expect("a name and a text");
        assert!(is_name(name) && !help.trim().is_empty() && !help.ends_with('.'), "{line}");
        assert!(families.insert(name), "{name} comes twice");
        let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")));
        let kind = kind.unwrap_or_else(|| panic!("no TYPE for {name}"));
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{name} is a {kind}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        for unit in ["ms", "us", "milliseconds", "microseconds", "kib"] {
            assert!(
                name.split('_').all(|word| word != unit),
                "{name}: seconds and bytes are the units"
            );
        }
        let mut count = 0;
        while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, value) = sample.rsplit_once(' ').expect("a series and a value");
            let (sampled, labels) = series.split_once('{').unwrap_or((series, "}"));
            let suffixes = ["_bucket", "_sum", "_count"];
            let base = suffixes.iter().find_map(|suffix| sampled.strip_suffix(suffix));
            let belongs = sampled == name || (kind == "histogram" && base == Some(name));
            assert!(belongs, "{sample} below {name}");
            let labels = labels.strip_suffix('}').expect("a brace");
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once('=').expect("a label and its value");
                assert!(
                    is_name(label) && value.starts_with('"') && value.ends_with('"'),
                    "{sample}"
                );
            }
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {sample}"));
            assert!(value >= 0.0, "{sample}");
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
            count += 1;
        }
        assert!(count > 0, "{name} has no sample");
    }
    samples
}

#[test]
fn what_happens_is_counted_by_namespace() {
    let (_folder, api) = start_with_users(&["--set", "namespaces.kept.level=durable"]);
    let mut clients = open_on_both_shards(&api.server);
    for (peer, _) in &mut clients {
        authenticate(peer, ALICE);
        peer.subscribe("x");
    }
    let [(first, _), (second, _)] = &mut clients;
    first.send_text(r#"{"action":"subscribe","channel":"kept:a"}"#);
    assert_eq!(first.json()["data"]["type"], "subscription_confirm");
    for number in 1..=3 {
        second.publish("kept:a", &number.to_string());
        assert_eq!(first.json()["offset"], number);
    }
    // One that reads from the history, and one who has nobody.
    second.send_text(r#"{"action":"subscribe","channel":"kept:a","since":"start"}"#);
    assert_eq!(second.json()["data"]["recoveredCount"], 3);
    for number in 1..=3 {
        assert_eq!(second.json()["offset"], number);
    }
    second.publish_acked("other:a", "1");
    let sent = api.call("send", &json!({"channel": "chat:x", "data": 1, "users": ["alice"]}));
    assert_eq!(sent["responses"][0], json!({"result": {}}));
    for (peer, _) in &mut clients {
        peer.expect_text(r#"{"channel":"chat:x","data":1}"#);
        peer.send_text(r#"{"type":"ping"}"#);
        peer.expect_text(r#"{"type":"pong"}"#);
    }
    let samples = parse_metrics(&api.get("/metrics").body);
    for (namespace, publications, deliveries) in
        [("(none)", 1.0, 0.0), ("chat", 1.0, 2.0), ("kept", 3.0, 6.0), ("mail", 0.0, 0.0)]
    {
        let sum = |name: &str| {
            let series = |shard| {
                format!(
                    "stentor_namespace_{name}_total{{shard=\"{shard}\",namespace=\"{namespace}\"}}"
                )
            };
            samples[&series(0)] + samples[&series(1)]
        };
        assert_eq!(
            (sum("publications"), sum("deliveries")),
            (publications, deliveries),
            "{namespace}"
        );
    }
}

#[test]
fn metrics_are_in_the_format_of_prometheus_and_true() {
    let api = Api::start(&[]);
    let mut clients = open_on_both_shards(&api.server);
    for (peer, _) in &mut clients {
        peer.subscribe("a");
    }
    for number in 0..10 {
        clients[0].0.publish("a", &number.to_string());
        for (peer, _) in &mut clients {
            peer.expect_publication("a", &number.to_string());
        }
    }
    for (peer, _) in &mut clients {
        // Answered a turn later: the one that sent the last publication has counted it.
        peer.send_text(r#"{"type":"ping"}"#);
        peer.expect_text(r#"{"type":"pong"}"#);
    }
    let response = api.get("/metrics");
    assert_eq!(response.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let samples = parse_metrics(&response.body);
    let value =
        |series: &str| samples.get(series).copied().unwrap_or_else(|| panic!("no {series}"));
    let sum = |name: &str| {
        (0..2).map(|shard| value(&format!("{name}{{shard=\"{shard}\"}}"))).sum::<f64>()
    };
    assert_eq!(sum("stentor_publications_total"), 10.0);
    assert_eq!(sum("stentor_deliveries_total"), 20.0);
    assert_eq!(
        value("stentor_connections{shard=\"0\"}") + value("stentor_connections{shard=\"1\"}"),
        sum("stentor_connections")
    );
    assert!(sum("stentor_topics") >= 2.0);
    // Each shard has handed all of them out.
    assert_eq!(sum("stentor_fanout_seconds_count"), 20.0);
    let seconds = sum("stentor_fanout_seconds_sum");
    assert!(seconds > 0.0 && seconds < 20.0, "{seconds}");
    check_histograms(&samples);
    assert!(sum("stentor_turn_age_seconds") < 10.0);
    let of_none = |name: &str| {
        let series =
            |shard| format!("stentor_namespace_{name}{{shard=\"{shard}\",namespace=\"(none)\"}}");
        value(&series(0)) + value(&series(1))
    };
    assert_eq!((of_none("publications_total"), of_none("deliveries_total")), (10.0, 20.0));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(value(&format!("stentor_build_info{{version=\"{version}\"}}")), 1.0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    assert!((now - value("process_start_time_seconds")).abs() < 60.0);
    assert_eq!(value("stentor_admin_requests_total"), 1.0);
    // All that is counted.
    let counters = api.server.counters();
    for name in counters.keys().filter(|name| *name != "longest_turn_us") {
        let family = format!("stentor_{name}");
        assert!(samples.keys().any(|series| series.starts_with(&family)), "no {family}");
    }
}

/// Buckets grow with their bounds, and the last one has all.
fn check_histograms(samples: &BTreeMap<String, f64>) {
    let mut series: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for (name, value) in samples.iter().filter(|(name, _)| name.contains("_bucket{")) {
        let (labels, bound) = name.split_once(",le=\"").expect("a bound, behind the other labels");
        let bound = bound.trim_end_matches("\"}").replace("+Inf", "inf");
        series.entry(labels).or_default().push((bound.parse().expect("a number"), *value));
    }
    assert_eq!(series.len(), 2);
    for (labels, mut buckets) in series {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.is_sorted_by_key(|bucket| bucket.1), "{labels}: {buckets:?}");
        let last = buckets.last().expect("it has buckets");
        let count = format!("{}}}", labels.replace("_bucket", "_count"));
        assert_eq!((last.0, last.1), (f64::INFINITY, samples[&count]), "{count}");
    }
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

#[test]
fn a_message_reaches_the_users_of_groups_once() {
    let (_folder, api) = start_with_users(&[]);
    let clients = open_on_both_shards(&api.server);
    let [mut alice, mut bob] = clients.map(|(peer, _)| peer);
    authenticate(&mut alice, ALICE);
    authenticate(&mut bob, BOB);
    api.call("create_group", &json!({"group": "all", "users": ["alice", "bob", "carol"]}));
    let groups = json!(["on-call", "all", "none", "staff"]);
    let message = json!({"channel": "chat:x", "data": 1, "groups": groups});
    let responses = api.call("send", &message)["responses"].clone();
    assert_eq!(responses[0], json!({"result": {"users": 1}}));
    assert_eq!(responses[1], json!({"result": {"users": 3}}));
    assert_eq!(responses[2]["error"]["code"], "group_not_found");
    assert_eq!(responses[3], json!({"result": {"users": 2}}));
    // Neither is who has left.
    api.call("group_remove", &json!({"group": "all", "users": ["bob"]}));
    api.call("send", &json!({"channel": "chat:x", "data": 2, "groups": ["all"]}));
    for (peer, last) in [(&mut alice, 2), (&mut bob, 1)] {
        for data in 1..=last {
            assert_eq!(peer.json(), json!({"channel": "chat:x", "data": data}));
        }
        peer.expect_idle();
    }
    let refused = api.refused("send", &json!({"channel": "x", "data": 1, "groups": ["all"]}));
    assert_eq!(refused, (409, "permission_denied".to_owned()));
}

#[test]
fn users_ask_for_their_groups() {
    let (_folder, api) = start_with_users(&[]);
    let query = r#"{"type":"query","id":1,"payload":{"resource":"groups"}}"#;
    let mut nobody = Peer::open(&api.server);
    nobody.send_text(query);
    assert_eq!(nobody.json()["code"], "unauthenticated");
    let mut peers = open_on_both_shards(&api.server).map(|(peer, _)| peer);
    for peer in &mut peers {
        authenticate(peer, ALICE);
    }
    let mut expect = |groups: &[&str]| {
        for peer in &mut peers {
            peer.send_text(query);
            assert_eq!(message(peer)["payload"], json!({ "groups": groups }));
        }
    };
    expect(&["on-call", "staff"]);
    for (call, body, groups) in [
        (
            "create_group",
            json!({"group": "a", "users": ["bob", "alice"]}),
            &["a", "on-call", "staff"][..],
        ),
        ("create_group", json!({"group": "b"}), &["a", "on-call", "staff"]),
        ("group_add", json!({"group": "b", "users": ["alice"]}), &["a", "b", "on-call", "staff"]),
        ("group_remove", json!({"group": "a", "users": ["alice"]}), &["b", "on-call", "staff"]),
        ("delete_group", json!({"group": "b"}), &["on-call", "staff"]),
    ] {
        api.call(call, &body);
        expect(groups);
    }
    // What is refused changes nothing.
    let refused = api.refused("group_remove", &json!({"group": "staff", "users": ["alice"]}));
    assert_eq!(refused.1, "permission_denied");
    expect(&["on-call", "staff"]);
}

#[test]
fn groups_are_made_changed_listed_and_deleted() {
    let limits = ["--set", "admin.max_groups=5", "--set", "admin.max_group_users=9"];
    let (_folder, api) = start_with_users(&limits);
    let made = json!({"group": "x", "users": ["a", "b", "a"]});
    assert_eq!(api.call("create_group", &made), json!({"users": 2}));
    assert_eq!(api.refused("create_group", &made), (409, "group_exists".to_owned()));
    let batch = json!({"commands": [
        {"create_group": {"group": "y"}},
        {"group_add": {"group": "y", "users": ["b", "c"]}},
        {"group_remove": {"group": "y", "users": ["c", "d"]}},
        {"group": {"group": "y"}},
    ]});
    let expected = json!({"replies": [
        {"result": {"users": 0}},
        {"result": {"users": 2}},
        {"result": {"users": 1}},
        {"result": {"group": "y", "users": ["b"]}},
    ]});
    assert_eq!(api.call("batch", &batch), expected);
    let all = [("on-call", 1), ("staff", 2), ("x", 2), ("y", 1)];
    let all = all.map(|(group, users)| json!({"group": group, "users": users}));
    for limit in [1, 3, 1000] {
        assert_eq!(api.list("groups", json!({ "limit": limit })), all, "{limit}");
    }
    assert_eq!(api.list("groups", json!({"pattern": "*a*"})).len(), 2);
    let page = api.call("group", &json!({"group": "staff", "limit": 1}));
    assert_eq!(page, json!({"group": "staff", "users": ["alice"], "cursor": "bob"}));
    let page = api.call("group", &json!({"group": "staff", "cursor": page["cursor"]}));
    assert_eq!(page, json!({"group": "staff", "users": ["bob"]}));
    // What the keys file says stays, and can be added to.
    let of_staff = |users: &[&str]| json!({"group": "staff", "users": users});
    assert_eq!(api.call("group_add", &of_staff(&["carol"])), json!({"users": 3}));
    for (name, body) in
        [("group_remove", of_staff(&["carol", "bob"])), ("delete_group", json!({"group": "staff"}))]
    {
        assert_eq!(api.refused(name, &body), (409, "permission_denied".to_owned()));
    }
    assert_eq!(api.call("group_remove", &of_staff(&["carol"])), json!({"users": 2}));
    // Six are in groups, and nine may be.
    let four = api.refused("group_add", &json!({"group": "x", "users": ["1", "2", "3", "4"]}));
    assert_eq!(four, (503, "unavailable".to_owned()));
    assert_eq!(api.call("create_group", &json!({"group": "z"})), json!({"users": 0}));
    assert_eq!(api.refused("create_group", &json!({"group": "more"})).0, 503);
    assert_eq!(api.call("delete_group", &json!({"group": "x"})), json!({}));
    for (name, body) in [
        ("delete_group", json!({"group": "x"})),
        ("group", json!({"group": "x"})),
        ("group_add", json!({"group": "x", "users": ["a"]})),
        ("group_remove", json!({"group": "x", "users": ["a"]})),
    ] {
        assert_eq!(api.refused(name, &body), (404, "group_not_found".to_owned()), "{name}");
    }
    for (name, body) in [
        ("create_group", json!({"group": ""})),
        ("create_group", json!({"group": "x".repeat(65)})),
        ("create_group", json!({"group": "x", "users": [""]})),
        ("group_add", json!({"group": "y", "users": []})),
        ("group", json!({"group": "y", "limit": 0})),
        ("groups", json!({"pattern": "x".repeat(65)})),
    ] {
        let (status, code) = api.refused(name, &body);
        assert_eq!((status, &*code), (400, "invalid_message"), "{name} {body}");
    }
}

#[test]
fn more_groups_in_the_keys_file_than_may_be_are_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys");
    fs::write(&keys, format!("alice {ALICE} groups=a,b\n")).expect("it is ours");
    let path = keys.to_str().expect("text");
    let output = run(&["serve", "--auth-keys", path, "--set", "admin.max_groups=1"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("admin.max_groups = 1: auth.keys_file and [groups] make 2"), "{text}");
}
