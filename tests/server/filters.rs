//! Filters over what the server knows of receivers, on the real binary: publications of clients in both
//! encodings and of the server API, messages to users, and groups that a rule makes.

use std::fs;

use prost::Message;
use serde_json::json;
use tempfile::TempDir;

use crate::support::envelope::envelope::Body;
use crate::support::envelope::{Envelope, Publish};
use crate::support::*;

const CONFIGURATION: &str = r#"
[server]
shards = 2

[groups]
paying = "plan in ['pro', 'team'] && !trial"

[namespaces.kept]
level = "history"

[namespaces.mail]
direct = true
"#;

const KEYS: &str = "\
    alice alice-0123456789abcdef attributes=plan=pro,region=eu,level=7\n\
    bob bob-0123456789abcdef groups=staff attributes=plan=pro,region=us,trial=true\n\
    carol carol-0123456789abcdef attributes=plan=free,region=eu\n\
    dave dave-0123456789abcdef\n";

const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// The server, and two connections of each user, subscribed to `news` and `kept:news`.
struct World {
    api: Api,
    clients: Vec<(&'static str, Peer)>,
    _folder: TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
        let (file, keys) = (path("stentor.toml"), path("keys"));
        fs::write(&file, CONFIGURATION).expect("it is ours");
        fs::write(&keys, KEYS).expect("it is ours");
        let api = Api::start(&["--config", &file, "--auth-keys", &keys]);
        let mut clients = Vec::new();
        for user in USERS {
            for mut peer in open_on_both_shards(&api.server).map(|(peer, _)| peer) {
                authenticate(&mut peer, user);
                peer.subscribe("news");
                clients.push((user, peer));
            }
        }
        Self { api, clients, _folder: folder }
    }

    /// Those connections get that, and no others get anything before it.
    #[track_caller]
    fn expect(&mut self, users: &[&str], text: &str) {
        for (user, peer) in &mut self.clients {
            if users.contains(user) {
                peer.expect_text(text);
            }
        }
        for (_, peer) in &mut self.clients {
            peer.send_text(r#"{"type":"ping"}"#);
            peer.expect_text(r#"{"type":"pong"}"#);
        }
    }
}

#[track_caller]
fn authenticate(peer: &mut Peer, user: &str) {
    let token = key_of(user);
    peer.send_text(&format!(r#"{{"type":"auth","timestamp":1,"payload":{{"token":"{token}"}}}}"#));
    assert_eq!(peer.json()["type"], "response");
}

const CASES: [(&str, &[&str]); 6] = [
    ("plan == 'pro' && region in ['eu']", &["alice"]),
    ("plan == 'pro'", &["alice", "bob"]),
    ("plan != 'pro'", &["carol", "dave"]),
    ("level >= 7 || trial", &["alice", "bob"]),
    ("!(region == 'eu')", &["bob", "dave"]),
    ("nothing", &[]),
];

#[test]
fn a_publication_reaches_those_whom_its_filter_takes() {
    let mut world = World::new();
    let mut publisher = Peer::open(&world.api.server);
    for (number, (filter, users)) in CASES.into_iter().enumerate() {
        // It is acknowledged although nobody gets it.
        publisher.send_text(&format!(
            r#"{{"action":"publish","channel":"news","data":{number},"filter":{},"id":1}}"#,
            json!(filter)
        ));
        assert_eq!(publisher.json()["type"], "ack");
        world.expect(users, &format!(r#"{{"channel":"news","data":{number}}}"#));
    }
    // Without a filter, and without anything to hear of it.
    publisher.publish("news", "7");
    world.expect(&USERS, r#"{"channel":"news","data":7}"#);
    publisher.send_text(r#"{"action":"publish","channel":"news","data":8,"filter":"trial"}"#);
    world.expect(&["bob"], r#"{"channel":"news","data":8}"#);
    publisher.expect_idle();
}

#[test]
fn a_publication_in_protobuf_has_a_filter_too() {
    let mut world = World::new();
    let mut publisher = Peer::speaking(&world.api.server, "stentor.v1.protobuf");
    publisher.frame();
    let publish = Publish {
        channel: "news".into(),
        data: b"1".to_vec(),
        filter: "plan == 'free'".into(),
        ..Publish::default()
    };
    let envelope = Envelope { body: Some(Body::Publish(publish)), ..Envelope::default() };
    publisher.send(&frame(OpCode::BINARY, &envelope.encode_length_delimited_to_vec()));
    world.expect(&["carol"], r#"{"channel":"news","data":1}"#);
}

#[test]
fn the_server_api_has_filters() {
    let mut world = World::new();
    for (number, (filter, users)) in CASES.into_iter().enumerate() {
        let publish = json!({"channel": "news", "data": number, "filter": filter});
        assert_eq!(world.api.call("publish", &publish), json!({}));
        world.expect(users, &format!(r#"{{"channel":"news","data":{number}}}"#));
        let broadcast = json!({"channels": ["news", "none"], "data": number, "filter": filter});
        world.api.call("broadcast", &broadcast);
        world.expect(users, &format!(r#"{{"channel":"news","data":{number}}}"#));
        let everybody =
            json!({"channel": "all", "data": number, "everybody": true, "filter": filter});
        let reached = world.api.call("send", &everybody);
        assert_eq!(reached, json!({ "connections": 2 * users.len() }));
        world.expect(users, &format!(r#"{{"channel":"all","data":{number}}}"#));
        let to_users =
            json!({"channel": "mail:a", "data": number, "users": USERS, "filter": filter});
        world.api.call("send", &to_users);
        world.expect(users, &format!(r#"{{"channel":"mail:a","data":{number}}}"#));
    }
    let except = json!({"channel": "all", "data": 1, "everybody": true,
        "except": {"users": ["alice"]}, "filter": "plan == 'pro'"});
    assert_eq!(world.api.call("send", &except), json!({"connections": 2}));
    world.expect(&["bob"], r#"{"channel":"all","data":1}"#);
    let page = world.api.call("connections", &json!({}));
    let ids: Vec<_> = page["connections"].as_array().expect("a list").iter().collect();
    let ids: Vec<_> = ids.into_iter().map(|one| one["connectionId"].clone()).collect();
    assert_eq!(ids.len(), 8, "{page}");
    world
        .api
        .call("send", &json!({"channel": "x", "data": 2, "connections": ids, "filter": "trial"}));
    world.expect(&["bob"], r#"{"channel":"x","data":2}"#);
}

#[test]
fn a_rule_makes_a_group() {
    let mut world = World::new();
    let group = world.api.call("group", &json!({"group": "paying"}));
    assert_eq!(group, json!({"group": "paying", "users": ["alice"]}));
    let groups = json!(["paying", "staff"]);
    world.api.call("send", &json!({"channel": "mail:a", "data": 1, "groups": groups}));
    world.expect(&["alice", "bob"], r#"{"channel":"mail:a","data":1}"#);
    let some = json!({"channel": "mail:a", "data": 2, "groups": groups, "filter": "trial"});
    let reached = world.api.call("send", &some);
    assert_eq!(reached, json!({"responses": [{"result": {"users": 0}}, {"result": {"users": 1}}]}));
    world.expect(&["bob"], r#"{"channel":"mail:a","data":2}"#);
    let refused = world.api.refused("delete_group", &json!({"group": "paying"}));
    assert_eq!(refused.1, "permission_denied");
}

#[test]
fn a_message_to_a_user_has_a_filter() {
    let mut world = World::new();
    let mut sender = Peer::open(&world.api.server);
    authenticate(&mut sender, "dave");
    for (number, user) in USERS.into_iter().enumerate() {
        sender.send_text(&format!(
            r#"{{"action":"publish","channel":"mail:x","to":{{"user":"{user}"}},"data":{number},"filter":"region == 'eu'","id":1}}"#
        ));
        assert_eq!(sender.json()["type"], "ack");
        let heard = ["alice", "carol"].contains(&user);
        let users: &[&str] = if heard { &[user] } else { &[] };
        world.expect(users, &format!(r#"{{"channel":"mail:x","data":{number}}}"#));
    }
}

#[test]
fn a_filter_that_cannot_be_is_refused() {
    let world = World::new();
    let mut publisher = Peer::open(&world.api.server);
    for (channel, filter, expected) in [
        ("news", r#""plan =""#, "`filter`: expected `&&`, `||` or the end at byte 5"),
        ("news", "7", "`filter` must be a string of Unicode text"),
        ("kept:news", r#""plan""#, "`filter`: the channel has a history, which is for everybody"),
    ] {
        publisher.send_text(&format!(
            r#"{{"action":"publish","channel":"{channel}","data":1,"filter":{filter}}}"#
        ));
        let error = publisher.json();
        assert_eq!(error["data"]["code"], "invalid_message");
        assert_eq!(
            (&error["data"]["message"], &error["data"]["channel"]),
            (&json!(expected), &json!(channel))
        );
        let filter: serde_json::Value = serde_json::from_str(filter).expect("JSON");
        let body = json!({"channel": channel, "data": 1, "filter": filter});
        let status = if channel == "news" { 400 } else { 409 };
        let refused = world.api.refused("publish", &body);
        assert_eq!(refused, (status, "invalid_message".to_owned()));
    }
    publisher.subscribe("news");
}
