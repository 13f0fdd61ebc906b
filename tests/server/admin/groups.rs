//! Groups: who is in them, and messages to them.

use std::fs;

use serde_json::json;

use super::{ALICE, BOB, authenticate, message, start_with_users};
use crate::support::*;

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
