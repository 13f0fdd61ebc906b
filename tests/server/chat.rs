//! A chat of fifty users on the real binary: they talk all at once, come, go, are muted and kicked out, lose
//! their connections and come back. Everybody in the room gets everything that was said while it was, once, in
//! one order, from whom it was.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::*;

const CONFIGURATION: &str = r#"
[server]
shards = 2

[limits]
max_errors = 10000

[namespaces.chat]
level = "history"
join_leave = true
join_leave_interval = "10ms"
schema = "envelope"
"#;

const USERS: usize = 50;
const STEPS: usize = 150;
const ROOM: &str = "chat:lobby";

/// Where somebody stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Outside,
    Inside,
    /// A member whose connection is gone.
    Away,
}

struct User {
    name: String,
    peer: Option<Peer>,
    pair: Pair,
    standing: Standing,
    /// Whoever goes and comes again still is.
    is_muted: bool,
    /// What it must have got, and what it got: offsets.
    due: Vec<u64>,
    seen: Vec<u64>,
    /// Of its subscription, or of what it got last.
    position: Option<u64>,
    /// Since it came last: who is there, by connection, and how many are said to be.
    heard: BTreeMap<String, String>,
    last_id: u64,
}

struct Chat {
    place: Place,
    users: Vec<User>,
    /// By offset: whom it is from, and what was said.
    said: BTreeMap<u64, (String, String)>,
    random: Random,
}

impl User {
    fn enter(place: &Place, name: String) -> Self {
        let (peer, pair) = open_session(&place.server);
        let mut user = Self {
            name,
            peer: Some(peer),
            pair,
            standing: Standing::Outside,
            is_muted: false,
            due: Vec::new(),
            seen: Vec::new(),
            position: None,
            heard: BTreeMap::new(),
            last_id: 0,
        };
        let token = key_of(&user.name);
        let payload = json!({ "token": token });
        let answer = user.ask(json!({"type": "auth", "payload": payload}), &mut BTreeMap::new());
        assert_eq!(answer["payload"]["userId"], user.name);
        user
    }

    fn peer(&mut self) -> &mut Peer {
        self.peer.as_mut().expect("it is connected")
    }

    fn send(&mut self, mut message: Value) {
        self.last_id += 1;
        message["id"] = json!(self.last_id);
        self.peer().send_text(&message.to_string());
    }

    /// The answer to what was sent last.
    fn answer(&mut self, said: &mut BTreeMap<u64, (String, String)>) -> Value {
        loop {
            let message = self.take(said);
            if message["requestId"] == self.last_id {
                return message;
            }
        }
    }

    fn ask(&mut self, message: Value, said: &mut BTreeMap<u64, (String, String)>) -> Value {
        self.send(message);
        self.answer(said)
    }

    fn command(
        &mut self,
        action: &str,
        target: Option<&str>,
        said: &mut BTreeMap<u64, (String, String)>,
    ) -> Result<Value, String> {
        let parameters = match target {
            Some(target) => json!({"room": ROOM, "target": target}),
            None => json!({ "room": ROOM }),
        };
        let payload = json!({"action": action, "parameters": parameters});
        let answer = self.ask(json!({"type": "command", "payload": payload}), said);
        match answer["code"].as_str() {
            Some(code) => Err(code.to_owned()),
            None => Ok(answer["payload"].clone()),
        }
    }

    /// Takes one message in.
    fn take(&mut self, said: &mut BTreeMap<u64, (String, String)>) -> Value {
        let message = self.peer().json();
        match message["type"].as_str() {
            Some("text") => {
                let text = |field: &Value| field.as_str().expect("a text").to_owned();
                let offset = message["offset"].as_u64().expect("an offset");
                let heard = (text(&message["sender"]), text(&message["payload"]["content"]));
                let known = said.entry(offset).or_insert_with(|| heard.clone());
                assert_eq!(*known, heard, "{} heard something else at {offset}", self.name);
                self.seen.push(offset);
                self.position = Some(offset);
            }
            Some("presence") => {
                for left in message["left"].as_array().expect("a list") {
                    self.heard.remove(left["connectionId"].as_str().expect("an id"));
                }
                for joined in message["joined"].as_array().expect("a list") {
                    let text = |name: &str| joined[name].as_str().unwrap_or_default().to_owned();
                    self.heard.insert(text("connectionId"), text("userId"));
                }
            }
            _ if message["data"]["type"] == "subscription_confirm" => {
                self.position = message["data"]["offset"].as_u64();
            }
            _ => {}
        }
        message
    }
}

impl Chat {
    fn new(seed: u64) -> Self {
        let names: Vec<_> = (0..USERS).map(|number| format!("user{number}")).collect();
        let names: Vec<_> = names.iter().map(|name| &**name).collect();
        let place = Place::new(CONFIGURATION, &names);
        let users = names.iter().map(|name| User::enter(&place, (*name).to_owned())).collect();
        Self { place, users, said: BTreeMap::new(), random: Random::new(seed) }
    }

    fn those(&self, standing: Standing) -> Vec<usize> {
        (0..USERS).filter(|user| self.users[*user].standing == standing).collect()
    }

    fn some(&mut self, standing: Standing) -> Option<usize> {
        let there = self.those(standing);
        (!there.is_empty()).then(|| there[self.random.below(there.len())])
    }

    /// Several speak at once, those who may not too.
    fn talk(&mut self) {
        let count = 1 + self.random.below(12);
        let mut speakers = BTreeSet::new();
        for _ in 0..count {
            let user = self.random.below(USERS);
            if self.users[user].standing != Standing::Away {
                speakers.insert(user);
            }
        }
        for &speaker in &speakers {
            let number = self.random.number();
            let user = &mut self.users[speaker];
            let (name, id) = (&user.name, user.last_id + 1);
            let message = json!({
                "type": "text",
                "messageId": format!("0b4c1d3e-6a52-4b0c-9c3e-{:012x}", number >> 16),
                "timestamp": 1,
                "sender": "somebody else",
                "channel": ROOM,
                "payload": {"content": format!("{name} says {id}")},
            });
            user.send(message);
        }
        let mut taken = BTreeSet::new();
        for &speaker in &speakers {
            let user = &mut self.users[speaker];
            let answer = user.answer(&mut self.said);
            if user.standing == Standing::Inside && !user.is_muted {
                let offset = answer["offset"].as_u64().unwrap_or_else(|| panic!("{answer}"));
                let said = (user.name.clone(), format!("{} says {}", user.name, user.last_id));
                assert_eq!(*self.said.entry(offset).or_insert_with(|| said.clone()), said);
                assert!(taken.insert(offset), "two at {offset}");
            } else {
                assert_eq!(answer["code"], "forbidden", "{answer}");
            }
        }
        for user in &mut self.users {
            if user.standing != Standing::Outside {
                user.due.extend(&taken);
            }
        }
        for user in self.users.iter_mut().filter(|user| user.standing == Standing::Inside) {
            while user.seen.len() < user.due.len() {
                user.take(&mut self.said);
            }
            assert_eq!(user.seen, user.due, "{}", user.name);
        }
    }

    fn join(&mut self, user: usize) {
        let user = &mut self.users[user];
        user.heard.clear();
        user.position = None;
        let room = user.command("join", None, &mut self.said).expect("there is room");
        // Before the answer, or behind it.
        while user.position.is_none() {
            user.take(&mut self.said);
        }
        assert!(room["users"].as_array().expect("a list").contains(&json!(user.name)));
        user.standing = Standing::Inside;
    }

    fn leave(&mut self, user: usize) {
        let user = &mut self.users[user];
        assert_eq!(user.command("leave", None, &mut self.said), Ok(json!({ "id": ROOM })));
        user.standing = Standing::Outside;
    }

    /// The owner mutes, unmutes or kicks; others may not.
    fn moderate(&mut self, target: usize) {
        let action = ["mute", "unmute", "kick"][self.random.below(3)];
        let stranger = self.some(Standing::Inside).unwrap_or(0);
        let name = self.users[target].name.clone();
        if stranger != 0 {
            let refused = self.users[stranger].command(action, Some(&name), &mut self.said);
            assert_eq!(refused, Err("forbidden".to_owned()));
        }
        let done = self.users[0].command(action, Some(&name), &mut self.said);
        assert_eq!(done, Ok(json!({ "id": ROOM })), "{action} {name}");
        let target = &mut self.users[target];
        if action == "kick" {
            while target.take(&mut self.said)["data"]["reason"] != "kicked" {}
            target.standing = Standing::Outside;
        } else {
            target.is_muted = action == "mute";
        }
    }

    /// Its connection breaks.
    fn vanish(&mut self, user: usize) {
        self.users[user].standing = Standing::Away;
        let peer = self.users[user].peer.take().expect("it is connected");
        let before = self.place.server.connections();
        peer.abort();
        self.place.server.wait_for_connections(before - 1);
    }

    /// It comes back, and goes on where it was.
    fn come_back(&mut self, user: usize) {
        let (mut peer, _) = open_session(&self.place.server);
        let user = &mut self.users[user];
        let positions =
            format!(r#","positions":{{"{ROOM}":{}}}"#, user.position.expect("it joined"));
        peer.send_text(&user.pair.request(&positions));
        user.peer = Some(peer);
        user.heard.clear();
        let restored = loop {
            let message = user.take(&mut self.said);
            if message["type"] == "session_restored" {
                break message;
            }
        };
        assert_eq!(restored["subscriptions"][0]["recovered"], true, "{restored}");
        user.pair = Pair::of(&restored);
        user.standing = Standing::Inside;
        while user.seen.len() < user.due.len() {
            user.take(&mut self.said);
        }
        assert_eq!(user.seen, user.due, "{} came back", user.name);
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0 | 1 => {
                if let Some(user) = self.some(Standing::Outside) {
                    self.join(user);
                }
            }
            2 => {
                if let Some(user) = self.some(Standing::Inside).filter(|user| *user != 0) {
                    self.leave(user);
                }
            }
            3 | 4 => {
                if let Some(user) = self.some(Standing::Inside).filter(|user| *user != 0) {
                    self.moderate(user);
                }
            }
            5 => {
                if let Some(user) = self.some(Standing::Inside).filter(|user| *user != 0) {
                    self.vanish(user);
                }
            }
            6 => {
                if let Some(user) = self.some(Standing::Away) {
                    self.come_back(user);
                }
            }
            _ => self.talk(),
        }
    }

    /// Everybody knows who is there.
    fn check_members(&mut self) {
        let inside = self.those(Standing::Inside);
        let mut expected: Vec<_> = inside.iter().map(|user| &*self.users[*user].name).collect();
        expected.sort_unstable();
        let expected: Vec<String> = expected.into_iter().map(ToOwned::to_owned).collect();
        for &user in &inside {
            let user = &mut self.users[user];
            let payload = json!({"resource": "room", "parameters": {"room": ROOM}});
            let answer = user.ask(json!({"type": "query", "payload": payload}), &mut self.said);
            let mut named: Vec<String> =
                serde_json::from_value(answer["payload"]["users"].clone()).expect("names");
            named.sort_unstable();
            assert_eq!(named, expected);
            let payload = json!({"resource": "presence", "parameters": {"channel": ROOM}});
            let answer = user.ask(json!({"type": "query", "payload": payload}), &mut self.said);
            let members = answer["payload"]["members"].as_array().expect("a list").clone();
            let mut present: Vec<_> = members
                .iter()
                .map(|it| it["userId"].as_str().expect("a user").to_owned())
                .collect();
            present.sort_unstable();
            assert_eq!(present, expected);
        }
    }
}

#[test]
fn fifty_users_have_one_conversation() {
    for seed in 0..4 {
        converse(seed);
    }
}

fn converse(seed: u64) {
    let mut chat = Chat::new(seed);
    let room = chat.users[0].command("create_room", None, &mut chat.said).expect("it is new");
    assert_eq!(room["owner"], "user0");
    for user in 0..USERS {
        chat.join(user);
    }
    chat.talk();
    for _ in 0..STEPS {
        chat.step();
    }
    for user in chat.those(Standing::Away) {
        chat.come_back(user);
    }
    for _ in 0..5 {
        chat.talk();
    }
    chat.check_members();
    assert!(chat.said.len() > 100, "they were talkative: {}", chat.said.len());
    assert!(chat.said.values().all(|(sender, said)| said.starts_with(&format!("{sender} says"))));
}
