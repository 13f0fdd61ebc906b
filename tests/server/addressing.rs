//! Messages of clients to many connections: to users, groups, connections and everybody, on the real binary
//! with two shards, in both encodings.

use prost::Message;
use serde_json::{Value, json};

use crate::support::envelope::envelope::Body;
use crate::support::envelope::{Audience, Envelope, Publish};
use crate::support::*;

const CONFIGURATION: &str = r#"
[server]
shards = 2

[namespaces.ops]
senders = "role == 'operator'"

[namespaces.kept]
level = "history"
senders = "role == 'operator'"
"#;

const USERS: [&str; 3] = [
    "alice attributes=role=operator,plan=pro",
    "bob groups=staff,night attributes=plan=pro",
    "carol groups=staff attributes=plan=free",
];

/// A connection and its id.
struct Client {
    id: String,
    peer: Peer,
}

/// The server, with two connections of each user and of somebody who is none, one on each shard.
struct World {
    place: Place,
    clients: Vec<Client>,
}

impl World {
    fn new() -> Self {
        let place = Place::new(CONFIGURATION, &USERS);
        let mut clients = Vec::new();
        for user in ["alice", "bob", "carol", ""] {
            for (peer, id) in open_on_both_shards(&place.server) {
                let mut client = Client { id, peer };
                if !user.is_empty() {
                    authenticate(&mut client.peer, user);
                }
                clients.push(client);
            }
        }
        Self { place, clients }
    }

    /// Alice's first connection sends this, and is told that it is on its way.
    #[track_caller]
    fn send(&mut self, to: &Value, more: &Value) {
        let mut message = json!({"action": "publish", "channel": "ops:a", "to": to, "data": 7});
        for (name, value) in more.as_object().expect("members") {
            message[name] = value.clone();
        }
        self.clients[0].peer.send_text(&message.to_string());
    }

    #[track_caller]
    fn expect_ack(&mut self) {
        self.clients[0].peer.expect_text(r#"{"type":"ack","requestId":1,"channel":"ops:a"}"#);
    }

    /// These get it, by the places of their connections, and nobody else gets anything before.
    #[track_caller]
    fn expect(&mut self, heard: &[usize]) {
        for place in heard {
            self.clients[*place].peer.expect_text(r#"{"channel":"ops:a","data":7}"#);
        }
        for client in &mut self.clients {
            client.peer.send_text(r#"{"type":"ping"}"#);
            client.peer.expect_text(r#"{"type":"pong"}"#);
        }
    }
}

#[track_caller]
fn authenticate(peer: &mut Peer, user: &str) {
    let token = key_of(user);
    peer.send_text(&format!(r#"{{"type":"auth","timestamp":1,"payload":{{"token":"{token}"}}}}"#));
    assert_eq!(peer.json()["type"], "response");
}

#[test]
fn a_message_reaches_its_audience_wherever_it_is() {
    let mut world = World::new();
    let id = |place: usize| world.clients[place].id.clone();
    let (own, bobs, nobodys) = (id(0), id(3), id(7));
    let unknown = "00000000000000000000000000000000000000000000";
    let cases: [(Value, Value, &[usize]); 13] = [
        (json!({"everybody": true}), json!({}), &[0, 1, 2, 3, 4, 5, 6, 7]),
        (json!({"everybody": true}), json!({"echo": false}), &[1, 2, 3, 4, 5, 6, 7]),
        (
            json!({"everybody": true, "except": {"users": ["bob", "x"], "connections": [own, "x"]}}),
            json!({}),
            &[1, 4, 5, 6, 7],
        ),
        (json!({"everybody": true}), json!({"filter": "plan == 'pro'"}), &[0, 1, 2, 3]),
        (json!({"users": ["carol", "bob"]}), json!({}), &[2, 3, 4, 5]),
        (json!({"users": ["bob"], "except": {"connections": [bobs]}}), json!({}), &[2]),
        (json!({"users": ["nobody"]}), json!({}), &[]),
        (json!({"users": ["bob", "carol"]}), json!({"filter": "plan == 'free'"}), &[4, 5]),
        (json!({"groups": ["staff"]}), json!({}), &[2, 3, 4, 5]),
        (json!({"groups": ["night", "staff"]}), json!({}), &[2, 3, 4, 5]),
        (json!({"groups": ["night", "day"], "except": {"users": ["carol"]}}), json!({}), &[2, 3]),
        (json!({"connections": [nobodys, bobs, unknown, "x"]}), json!({}), &[3, 7]),
        (json!({"connections": [own, bobs]}), json!({"filter": "role"}), &[]),
    ];
    for (to, more, heard) in cases {
        world.send(&to, &more);
        world.expect(heard);
        // Told or not, it is the same.
        let mut asked = more.clone();
        asked["id"] = json!(1);
        world.send(&to, &asked);
        world.expect_ack();
        world.expect(heard);
    }
    assert_eq!(world.place.server.counter("announcements"), 26);
}

#[test]
fn subscribers_get_it_only_if_they_are_meant() {
    let mut world = World::new();
    for client in &mut world.clients[2..] {
        client.peer.subscribe("ops:a");
    }
    world.send(&json!({"groups": ["night"]}), &json!({"id": 1, "messageId": "m"}));
    let ack = r#"{"type":"ack","messageId":"m","requestId":1,"channel":"ops:a"}"#;
    assert_eq!(world.clients[0].peer.json(), serde_json::from_str::<Value>(ack).expect("JSON"));
    world.expect(&[2, 3]);
}

#[test]
fn who_may_not_send_to_many_is_told() {
    let mut world = World::new();
    let message = |channel: &str, to: &str| {
        format!(r#"{{"action":"publish","channel":"{channel}","to":{to},"data":7,"id":1}}"#)
    };
    let refused = |channel: &str, code: &str| {
        let data = json!({"type": "error", "message": "*", "code": code, "channel": channel, "requestId": 1});
        json!({"channel": "system", "data": data})
    };
    for (place, channel, code) in [
        (2, "ops:a", "permission_denied"),
        (0, "other:a", "permission_denied"),
        (6, "ops:a", "unauthenticated"),
    ] {
        for to in [r#"{"everybody":true}"#, r#"{"users":["bob"]}"#, r#"{"groups":["night"]}"#] {
            let peer = &mut world.clients[place].peer;
            peer.send_text(&message(channel, to));
            let mut answer = peer.json();
            assert!(answer["data"]["message"].as_str().is_some_and(|text| !text.is_empty()));
            answer["data"]["message"] = "*".into();
            assert_eq!(answer, refused(channel, code));
        }
    }
    world.expect(&[]);
    // The level of the channel does not matter: nothing is kept of it.
    world.clients[0].peer.send_text(&message("kept:a", r#"{"connections":["x"]}"#));
    world.clients[0].peer.expect_text(r#"{"type":"ack","requestId":1,"channel":"kept:a"}"#);
    world.clients[0].peer.send_text(&message("kept:a", r#"{"users":[]}"#));
    assert_eq!(world.clients[0].peer.json()["data"]["code"], "invalid_message");
}

#[test]
fn both_encodings_send_and_hear_it() {
    let mut world = World::new();
    let mut speaker = Peer::speaking(&world.place.server, "stentor.v1.protobuf");
    speaker.frame();
    let send = |peer: &mut Peer, body| {
        let envelope = Envelope { body: Some(body), ..Envelope::default() };
        peer.send(&frame(OpCode::BINARY, &envelope.encode_length_delimited_to_vec()));
    };
    let receive = |peer: &mut Peer| {
        let frame = peer.frame();
        Envelope::decode_length_delimited(&frame.payload[..]).expect("an envelope").body
    };
    send(&mut speaker, Body::Auth(envelope::Auth { token: key_of("alice") }));
    assert!(matches!(receive(&mut speaker), Some(Body::Response(_))));
    let publish = |to| Publish {
        channel: "ops:a".into(),
        data: b"7".to_vec(),
        to: Some(to),
        ..Publish::default()
    };
    let to = Audience { groups: vec!["night".into()], ..Audience::default() };
    send(&mut speaker, Body::Publish(publish(to)));
    world.expect(&[2, 3]);
    let to = Audience {
        everybody: true,
        except_users: vec!["bob".into(), "carol".into()],
        except_connections: vec![world.clients[0].id.clone()],
        ..Audience::default()
    };
    send(&mut speaker, Body::Publish(publish(to)));
    world.expect(&[1, 6, 7]);
    let Some(Body::Publication(heard)) = receive(&mut speaker) else { panic!("a publication") };
    assert_eq!((&*heard.channel, &heard.data[..]), ("ops:a", &b"7"[..]));
    for to in [
        Audience::default(),
        Audience { everybody: true, users: vec!["bob".into()], ..Audience::default() },
        Audience { users: vec!["u".into(); 101], ..Audience::default() },
    ] {
        send(&mut speaker, Body::Publish(publish(to)));
        let Some(Body::Error(error)) = receive(&mut speaker) else { panic!("a refusal") };
        assert_eq!((&*error.code, &*error.channel), ("invalid_message", "ops:a"));
    }
    world.expect(&[]);
}

#[test]
fn who_has_not_authenticated_hears_nothing_where_all_must() {
    let configuration = CONFIGURATION.to_owned() + "[auth]\nrequired = true\n";
    let place = Place::new(&configuration, &USERS);
    let mut sender = Peer::open(&place.server);
    authenticate(&mut sender, "alice");
    let mut stranger = Peer::open(&place.server);
    let mut others = open_on_both_shards(&place.server).map(|(peer, _)| peer);
    others.iter_mut().for_each(|peer| authenticate(peer, "carol"));
    sender.send_text(r#"{"action":"publish","channel":"ops:a","to":{"everybody":true},"data":1}"#);
    sender.expect_text(r#"{"channel":"ops:a","data":1}"#);
    // Now it has gone to all on either shard.
    others.iter_mut().for_each(|peer| peer.expect_text(r#"{"channel":"ops:a","data":1}"#));
    authenticate(&mut stranger, "bob");
    sender.send_text(r#"{"action":"publish","channel":"ops:a","to":{"everybody":true},"data":2}"#);
    for peer in [&mut sender, &mut stranger] {
        peer.expect_text(r#"{"channel":"ops:a","data":2}"#);
    }
}
