//! What is told of channels, their histories, and rooms.

use serde_json::{Value, json};

use super::HISTORY;
use crate::support::*;

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
