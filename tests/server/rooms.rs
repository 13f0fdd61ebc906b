//! Rooms on the real binary: made, joined, left, moderated and deleted, on one shard and across two, in both
//! encodings, by users and by connections without one.

use prost::Message;
use serde_json::{Value, json};

use crate::support::envelope::envelope::Body;
use crate::support::envelope::{ChatMessage, Command, CommandPayload, Envelope, chat_message};
use crate::support::*;

const CONFIGURATION: &str = r#"
[server]
shards = 2

[limits]
max_errors = 1000
max_rooms = 20

[channels]
room_ttl = "1s"

[namespaces.auto]
auto_create = true

[namespaces.strict]
kick_closes = true

[namespaces.watched]
moderators = "role == 'moderator' || !role"

[namespaces.kept]
level = "history"

[namespaces.none]
rooms = false
"#;

fn place() -> Place {
    Place::new(
        CONFIGURATION,
        &["ann", "bob attributes=role=guest", "eve attributes=role=moderator"],
    )
}

struct Client {
    peer: Peer,
    pair: Pair,
    last: u64,
}

impl Client {
    /// A connection of that user; empty: of nobody.
    fn open(place: &Place, user: &str) -> Self {
        let (mut peer, pair) = open_session(&place.server);
        if !user.is_empty() {
            let payload = json!({"token": key_of(user)});
            peer.send_text(&json!({"type": "auth", "payload": payload}).to_string());
            assert_eq!(peer.json()["payload"]["userId"], user);
        }
        Self { peer, pair, last: 0 }
    }

    /// The answer to a command of rooms: its payload, or its code.
    #[track_caller]
    fn command(&mut self, action: &str, parameters: Value) -> Result<Value, String> {
        let payload = json!({"action": action, "parameters": parameters});
        self.ask(json!({"type": "command", "payload": payload}))
    }

    #[track_caller]
    fn query(&mut self, resource: &str, parameters: Value) -> Result<Value, String> {
        let payload = json!({"resource": resource, "parameters": parameters});
        self.ask(json!({"type": "query", "payload": payload}))
    }

    #[track_caller]
    fn ask(&mut self, mut message: Value) -> Result<Value, String> {
        self.last += 1;
        message["id"] = json!(self.last);
        self.peer.send_text(&message.to_string());
        let answer = loop {
            let answer = self.peer.json();
            if answer["requestId"] == self.last {
                break answer;
            }
        };
        match answer["type"].as_str() {
            Some("response") => Ok(answer["payload"].clone()),
            _ => Err(answer["code"].as_str().expect("a code").to_owned()),
        }
    }

    #[track_caller]
    fn publish(&mut self, room: &str, data: &str) -> Value {
        let message =
            format!(r#"{{"action":"publish","id":"p","channel":"{room}","data":{data}}}"#);
        self.peer.send_text(&message);
        self.skip_to(|message| message["requestId"] == "p" || message["data"]["requestId"] == "p")
    }

    #[track_caller]
    fn skip_to(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.peer.json();
            if wanted(&message) {
                return message;
            }
        }
    }
}

fn error(code: &str) -> Result<Value, String> {
    Err(code.to_owned())
}

#[test]
fn a_room_is_made_joined_and_left() {
    let place = place();
    let [mut ann, mut bob, mut nobody] = ["ann", "bob", ""].map(|user| Client::open(&place, user));
    let nobody_is = nobody.pair.connection.clone();
    for room in ["a", "b", "c", "kept:d"] {
        let here = || json!({"room": room});
        for who in [&mut ann, &mut nobody] {
            assert_eq!(who.command("join", here()), error("room_not_found"));
            assert_eq!(who.query("room", here()), error("room_not_found"));
        }
        let made = ann.command(
            "create_room",
            json!({"room": room, "maxUsers": 2, "metadata": {"topic": "x"}}),
        );
        let empty = json!({"id": room, "name": format!("Room {room}"), "userCount": 0, "maxUsers": 2,
            "users": [], "owner": "ann", "metadata": {"topic": "x"}});
        assert_eq!(made, Ok(empty));
        assert_eq!(bob.command("create_room", here()), error("room_exists"));
        assert_eq!(bob.command("join", here()).expect("there is room")["users"], json!(["bob"]));
        assert_eq!(bob.command("join", here()), error("already_member"));
        assert_eq!(
            nobody.command("join", here()).expect("and more")["users"],
            json!(["bob", nobody_is])
        );
        assert_eq!(ann.command("join", here()), error("room_full"));
        // Another connection of a user who is there takes no room.
        let mut again = Client::open(&place, "bob");
        assert_eq!(again.command("join", here()).expect("bob is there")["userCount"], 2);
        assert_eq!(again.query("rooms", json!({})), Ok(json!({"rooms": [room]})));

        // Whoever has joined is subscribed, and nobody else says something there.
        assert_eq!(nobody.publish(room, "1")["type"], "ack");
        for who in [&mut bob, &mut again] {
            assert_eq!(who.skip_to(|message| message["channel"] == room)["data"], 1);
        }
        let refused = ann.publish(room, "2");
        assert_eq!(refused["data"]["code"], "forbidden", "{refused}");

        assert_eq!(nobody.command("leave", here()), Ok(json!({"id": room})));
        assert_eq!(nobody.command("leave", here()), error("not_subscribed"));
        again.peer.abort();
        wait_until("both have left", || {
            ann.query("room", here()).expect("it is there")["userCount"] == 1
        });
        assert_eq!(
            ann.command("join", here()).expect("there is room")["users"],
            json!(["bob", "ann"])
        );
        bob.peer.send_text(&format!(r#"{{"action":"unsubscribe","channel":"{room}"}}"#));
        bob.skip_to(|message| message["data"]["type"] == "unsubscription_confirm");
        wait_until("bob has left", || {
            ann.query("room", here()).expect("it is there")["userCount"] == 1
        });
        assert_eq!(ann.command("leave", here()), Ok(json!({"id": room})));
    }
}

#[test]
fn its_owner_moderates_a_room() {
    let place = place();
    let [mut ann, mut bob, mut eve] = ["ann", "bob", "eve"].map(|user| Client::open(&place, user));
    for room in ["a", "b", "c"] {
        let aim = |target: &str| json!({"room": room, "target": target});
        ann.command("create_room", json!({"room": room})).expect("it is new");
        for who in [&mut ann, &mut bob, &mut eve] {
            who.command("join", json!({"room": room})).expect("there is room");
        }
        for action in ["mute", "unmute", "kick", "delete_room"] {
            assert_eq!(eve.command(action, aim("ann")), error("forbidden"), "{action}");
        }
        assert!(ann.command("mute", aim("bob")).is_ok());
        assert_eq!(bob.publish(room, "1")["data"]["code"], "forbidden");
        // The connections of a user are one.
        let mut again = Client::open(&place, "bob");
        again.command("join", json!({"room": room})).expect("there is room");
        assert_eq!(again.publish(room, "1")["data"]["code"], "forbidden");
        assert!(ann.command("unmute", aim("bob")).is_ok());
        assert_eq!(bob.publish(room, "2")["type"], "ack");

        assert!(ann.command("kick", aim("bob")).is_ok());
        for who in [&mut bob, &mut again] {
            let told = who.skip_to(|message| message["data"]["type"] == "unsubscription_confirm");
            assert_eq!(
                told,
                json!({"channel": "system", "data": {"type": "unsubscription_confirm",
                "channel": room, "reason": "kicked"}})
            );
        }
        assert_eq!(ann.command("kick", aim("bob")), error("not_subscribed"));
        assert_eq!(bob.query("rooms", json!({})), Ok(json!({"rooms": []})));
        assert_eq!(bob.publish(room, "3")["data"]["code"], "forbidden");

        assert!(ann.command("delete_room", json!({"room": room})).is_ok());
        let told = eve.skip_to(|message| message["data"]["type"] == "unsubscription_confirm");
        assert_eq!(told["data"]["reason"], "room_deleted");
        assert_eq!(eve.query("room", json!({"room": room})), error("room_not_found"));
        // Now it is a channel as any other.
        assert_eq!(bob.publish(room, "4")["type"], "ack");
    }
    place.server.wait_for_counter("room_removals", 12);
}

#[test]
fn rooms_obey_their_namespace() {
    let place = place();
    let [mut ann, mut bob] = ["ann", "bob"].map(|user| Client::open(&place, user));
    assert_eq!(ann.command("create_room", json!({"room": "none:a"})), error("forbidden"));
    // From the first one who joins until the last one leaves.
    assert_eq!(ann.command("join", json!({"room": "auto:a"})).expect("it is made")["owner"], "ann");
    bob.command("join", json!({"room": "auto:a"})).expect("there is room");
    ann.command("leave", json!({"room": "auto:a"})).expect("ann is there");
    assert_eq!(bob.query("room", json!({"room": "auto:a"})).expect("it is there")["userCount"], 1);
    bob.command("leave", json!({})).expect("the only one it is in");
    wait_until("it is over", || ann.query("room", json!({"room": "auto:a"})).is_err());
    assert_eq!(bob.command("leave", json!({})), error("no_target"));

    ann.command("create_room", json!({"room": "strict:a"})).expect("it is new");
    bob.command("join", json!({"room": "strict:a"})).expect("there is room");
    ann.command("kick", json!({"room": "strict:a", "user": "bob"})).expect("bob is there");
    assert_eq!(bob.peer.skip_to_close(), (4003, "kicked".to_owned()));
}

#[test]
fn there_are_so_many_rooms_and_an_old_empty_one_makes_room() {
    let place = place();
    let mut ann = Client::open(&place, "ann");
    let mut made = 0;
    let full = loop {
        match ann.command("create_room", json!({"room": format!("r{made}")})) {
            Ok(_) => made += 1,
            Err(code) => break code,
        }
    };
    assert_eq!(full, "unavailable");
    assert!((20..=40).contains(&made), "20 of each shard: {made}");
    wait_until("one is old enough", || {
        ann.command("create_room", json!({"room": format!("r{made}")})).is_ok()
    });
}

#[test]
fn a_session_that_comes_back_is_in_its_rooms() {
    let place = place();
    let [mut ann, mut bob] = ["ann", "bob"].map(|user| Client::open(&place, user));
    ann.command("create_room", json!({"room": "a", "maxUsers": 1})).expect("it is new");
    ann.command("create_room", json!({"room": "b"})).expect("it is new");
    for room in ["a", "b"] {
        bob.command("join", json!({"room": room})).expect("there is room");
    }
    let pair = bob.pair;
    bob.peer.abort();
    wait_until("bob is away", || {
        ann.query("room", json!({"room": "b"})).expect("it is there")["userCount"] == 0
    });
    // Its place is taken, and it gets it back; the other room is no more.
    ann.command("join", json!({"room": "a"})).expect("there is room");
    ann.command("delete_room", json!({"room": "b"})).expect("it is ann's");
    let (peer, _) = open_session(&place.server);
    let mut back = Client { peer, pair, last: 0 };
    back.peer.send_text(&back.pair.request(""));
    assert_eq!(back.skip_to(|message| message["type"] == "session_restored")["userId"], "bob");
    let lost = back.skip_to(|message| message["data"]["type"] == "unsubscription_confirm");
    assert_eq!(
        (&lost["data"]["channel"], &lost["data"]["reason"]),
        (&json!("b"), &json!("room_lost"))
    );
    wait_until("bob is back", || {
        ann.query("room", json!({"room": "a"})).expect("it is there")["users"]
            == json!(["ann", "bob"])
    });
    assert_eq!(back.publish("a", "1")["type"], "ack");
    assert_eq!(back.query("rooms", json!({})), Ok(json!({"rooms": ["a"]})));
}

#[test]
fn the_other_encoding_says_the_same() {
    let place = place();
    let mut ann = Client::open(&place, "ann");
    ann.command("create_room", json!({"room": "a"})).expect("it is new");
    let mut peer = Peer::speaking(&place.server, "stentor.v1.protobuf");
    let receive = |peer: &mut Peer| {
        let frame = peer.frame();
        let envelope = Envelope::decode_length_delimited(&frame.payload[..]).expect("an envelope");
        envelope.body.expect("it has a body")
    };
    let Body::Welcome(welcome) = receive(&mut peer) else { panic!("no welcome") };
    let send = |peer: &mut Peer, action, target: &str| {
        let payload = CommandPayload { action, target: target.to_owned() };
        let chat = ChatMessage {
            r#type: 3,
            channel: "a".into(),
            payload: Some(chat_message::Payload::Command(payload)),
            ..Default::default()
        };
        let envelope =
            Envelope { id: "x".into(), body: Some(Body::Chat(chat)), ..Default::default() };
        peer.send(&frame(OpCode::BINARY, &envelope.encode_length_delimited_to_vec()));
    };
    send(&mut peer, 0, "");
    let Body::Response(joined) = receive(&mut peer) else { panic!("no response") };
    let view: Value = serde_json::from_slice(&joined.payload).expect("JSON");
    assert_eq!(view["users"], json!([welcome.connection_id]));
    send(&mut peer, 3, "ann");
    let Body::Error(refused) = receive(&mut peer) else { panic!("no error") };
    assert_eq!(refused.code, "forbidden");
    ann.command("kick", json!({"room": "a", "target": welcome.connection_id}))
        .expect("it is there");
    let Body::Confirmation(told) = receive(&mut peer) else { panic!("not told") };
    assert_eq!((&*told.channel, told.unsubscribed, &*told.reason), ("a", true, "kicked"));

    // Whatever is asked of a room in JSON is asked of it here.
    let mut ask = |action: &str, target: &str, parameters: Value| {
        let parameters = parameters.to_string().into_bytes();
        let command = Command { action: action.into(), target: target.into(), parameters };
        let body = Some(Body::Command(command));
        let envelope = Envelope { id: "x".into(), body, ..Default::default() };
        peer.send(&frame(OpCode::BINARY, &envelope.encode_length_delimited_to_vec()));
        match receive(&mut peer) {
            Body::Response(response) => {
                Ok(serde_json::from_slice::<Value>(&response.payload).expect("JSON"))
            }
            Body::Error(refused) => Err(refused.code),
            other => panic!("{other:?}"),
        }
    };
    let plan = json!({"room": "b", "name": "B", "maxUsers": 1, "metadata": {"topic": "x"}});
    let made = json!({"id": "b", "name": "B", "userCount": 0, "maxUsers": 1, "users": [],
        "owner": welcome.connection_id, "metadata": {"topic": "x"}});
    assert_eq!(ask("create_room", "", plan.clone()), Ok(made));
    assert_eq!(ask("create_room", "", plan), error("room_exists"));
    assert_eq!(ask("join", "", json!({"room": "none"})), error("room_not_found"));
    ann.command("join", json!({"room": "b"})).expect("there is room");
    assert_eq!(ask("join", "b", json!({})), error("room_full"));
    assert_eq!(ask("mute", "ann", json!({"room": "b"})), Ok(json!({"id": "b"})));
    assert_eq!(ann.publish("b", "1")["data"]["code"], "forbidden");
    assert_eq!(ask("unmute", "", json!({"room": "b", "user": "ann"})), Ok(json!({"id": "b"})));
    assert_eq!(ann.publish("b", "1")["type"], "ack");
    assert_eq!(ask("kick", "", json!({"room": "b", "target": "ann"})), Ok(json!({"id": "b"})));
    let told = ann.skip_to(|message| message["data"]["type"] == "unsubscription_confirm");
    assert_eq!(told["data"]["reason"], "kicked");
    assert_eq!(ask("kick", "ann", json!({"room": "a"})), error("forbidden"));
    assert_eq!(ask("mute", "", json!({"room": "b"})), error("invalid_message"));
    assert_eq!(ask("join", "", json!("b")), error("invalid_message"));
    assert_eq!(ask("dance", "", json!({})), error("no_route"));
    assert_eq!(ask("delete_room", "b", json!({})), Ok(json!({"id": "b"})));
    assert_eq!(ask("leave", "", json!({})), error("no_target"));
}

#[test]
fn moderators_may_what_an_owner_may() {
    let place = place();
    let [mut ann, mut bob, mut eve, mut nobody] =
        ["ann", "bob", "eve", ""].map(|user| Client::open(&place, user));
    for room in ["watched:a", "watched:b", "watched:c"] {
        let here = || json!({ "room": room });
        let of_bob = || json!({"room": room, "target": "bob"});
        bob.command("create_room", here()).expect("it is new");
        bob.command("join", here()).expect("there is room");
        eve.command("join", here()).expect("there is room");
        // Of whom nothing is known is no moderator, whatever a rule says of nothing; a user may be.
        assert_eq!(nobody.command("kick", of_bob()), error("forbidden"));
        assert_eq!(eve.command("mute", of_bob()), Ok(json!({ "id": room })));
        assert_eq!(bob.publish(room, "1")["data"]["code"], "forbidden");
        assert_eq!(ann.command("unmute", of_bob()), Ok(json!({ "id": room })));
        assert_eq!(bob.publish(room, "2")["type"], "ack");
        assert_eq!(eve.command("kick", of_bob()), Ok(json!({ "id": room })));
        assert_eq!(ann.command("delete_room", here()), Ok(json!({ "id": room })));
    }
    // Elsewhere they may not.
    bob.command("create_room", json!({"room": "a"})).expect("it is new");
    assert_eq!(eve.command("delete_room", json!({"room": "a"})), error("forbidden"));
    assert_eq!(ann.command("delete_room", json!({"room": "a"})), error("forbidden"));
}
