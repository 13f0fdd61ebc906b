//! Who is in a channel, on the real binary: who asks is told, in pages, and subscribers hear who comes and
//! goes, however that happens, in both encodings.

use std::collections::BTreeMap;

use prost::Message;
use serde_json::{Value, json};

use crate::support::envelope::envelope::Body;
use crate::support::envelope::{Envelope, Query, Subscribe};
use crate::support::*;

const CONFIGURATION: &str = r#"
[server]
shards = 2

[limits]
max_errors = 1000

[namespaces.room]
presence_info = "name,plan,none"
join_leave = true
join_leave_interval = "10ms"

[namespaces.kept]
join_leave = true
level = "history"

[namespaces.quiet]
presence = true
"#;

fn place() -> Place {
    Place::new(CONFIGURATION, &["alice attributes=plan=pro,name=\"Al\",hidden=1"])
}

/// One that hears who comes and goes.
struct Client {
    peer: Peer,
    pair: Pair,
    /// Users by their connections; empty: nobody.
    heard: BTreeMap<String, String>,
    /// Connections, as the last notice has it.
    count: u64,
}

impl Client {
    fn open(place: &Place, channel: &str) -> Self {
        let (peer, pair) = open_session(&place.server);
        let mut client = Self { peer, pair, heard: BTreeMap::new(), count: 0 };
        client.peer.send_text(&format!(r#"{{"action":"subscribe","channel":"{channel}"}}"#));
        client.skip_to(|message| message["data"]["type"] == "subscription_confirm");
        client
    }

    /// Takes what comes until that does, which is returned.
    #[track_caller]
    fn skip_to(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.peer.json();
            if message["type"] == "presence" {
                self.hear(&message);
            }
            if wanted(&message) {
                return message;
            }
        }
    }

    fn hear(&mut self, notice: &Value) {
        assert!(notice["id"].is_string() && notice["timestamp"].as_u64() > Some(1_700_000_000_000));
        for left in notice["left"].as_array().expect("a list") {
            self.heard.remove(left["connectionId"].as_str().expect("a name"));
        }
        for joined in notice["joined"].as_array().expect("a list") {
            self.heard.extend([named(joined)]);
        }
        self.count = notice["clients"].as_u64().expect("a number");
    }

    /// Waits until as many as that are there, and knows who.
    #[track_caller]
    fn expect_count(&mut self, count: usize) {
        while self.count != count as u64 {
            self.skip_to(|message| message["type"] == "presence");
        }
    }

    /// The list as the server has it, in pages of `limit`.
    #[track_caller]
    fn list(&mut self, channel: &str, limit: u64) -> BTreeMap<String, String> {
        let (mut listed, mut after) = (BTreeMap::new(), json!(0));
        loop {
            let page = self.query(&json!({"channel": channel, "limit": limit, "after": after}));
            let members = page["payload"]["members"].as_array().expect("a list");
            assert!(members.len() as u64 <= limit);
            listed.extend(members.iter().map(named));
            if page["payload"].get("next").is_none() {
                assert_eq!(page["payload"]["clients"], listed.len());
                return listed;
            }
            after = page["payload"]["next"].clone();
        }
    }

    /// The answer to a query for who is there.
    #[track_caller]
    fn query(&mut self, parameters: &Value) -> Value {
        let payload = json!({"resource": "presence", "parameters": parameters});
        self.peer.send_text(&json!({"type": "query", "id": 7, "payload": payload}).to_string());
        self.skip_to(|message| message["requestId"] == 7)
    }
}

fn named(member: &Value) -> (String, String) {
    assert!(member["joinedAt"].as_u64() > Some(1_700_000_000_000), "{member}");
    let user = member.get("userId").map_or("", |user| user.as_str().expect("a name"));
    (member["connectionId"].as_str().expect("a name").to_owned(), user.to_owned())
}

#[test]
fn subscribers_hear_who_comes_and_goes_however_that_happens() {
    for channel in ["room:a", "kept:a"] {
        let place = place();
        let mut first = Client::open(&place, channel);
        first.expect_count(1);
        assert_eq!(first.heard, BTreeMap::from([(first.pair.connection.clone(), String::new())]));
        let mut others: Vec<_> = (0..5).map(|_| Client::open(&place, channel)).collect();
        first.expect_count(6);
        let names = others.iter().map(|other| &other.pair.connection);
        assert!(names.chain([&first.pair.connection]).all(|name| first.heard.contains_key(name)));
        assert_eq!(first.list(channel, 2), first.heard);

        // One who authenticates is somebody else.
        let late = &mut others[0];
        late.peer.send_text(&format!(
            r#"{{"type":"auth","payload":{{"token":"{}"}}}}"#,
            key_of("alice")
        ));
        late.skip_to(|message| message["type"] == "response");
        let name = late.pair.connection.clone();
        while first.heard[&name] != "alice" {
            first.skip_to(|message| message["type"] == "presence");
        }
        assert_eq!(first.query(&json!({"channel": channel}))["payload"]["users"], 1);

        let [mut unsubscribes, closes, aborts, moves, _stays] =
            <[Client; 5]>::try_from(others).ok().expect("there are five");
        unsubscribes
            .peer
            .send_text(&format!(r#"{{"action":"unsubscribe","channel":"{channel}"}}"#));
        first.expect_count(5);
        let Client { mut peer, .. } = closes;
        peer.send(&frame(OpCode::CLOSE, &close_payload(1000, b"")));
        assert_eq!(peer.skip_to_close().0, 1000);
        first.expect_count(4);
        aborts.peer.abort();
        first.expect_count(3);
        let pair = moves.pair;
        moves.peer.abort();
        first.expect_count(2);
        // A session that comes back brings its channels.
        let (mut back, new) = open_session(&place.server);
        back.send_text(&pair.request(""));
        first.expect_count(3);
        assert!(first.heard.contains_key(&new.connection));
        assert_eq!(first.list(channel, 1000), first.heard);
        drop(back);
        first.expect_count(2);
    }
}

#[test]
fn a_crowd_ends_with_one_list_and_few_notices() {
    const CROWD: usize = 300;
    let place = place();
    let mut clients: Vec<_> = (0..CROWD).map(|_| Client::open(&place, "room:crowd")).collect();
    let expected: BTreeMap<_, _> =
        clients.iter().map(|client| (client.pair.connection.clone(), String::new())).collect();
    for client in &mut clients {
        client.expect_count(CROWD);
        // Who came before it was told of no more than those who came after.
        let listed = client.list("room:crowd", 1000);
        assert_eq!(listed, expected);
        assert!(client.heard.iter().all(|member| listed.get(member.0) == Some(member.1)));
    }
    assert_eq!(clients[0].heard, expected);
    let notices = place.server.counter("presence_notices");
    assert!(notices <= CROWD as u64, "{notices}");
}

#[test]
fn who_may_not_ask_is_told_why() {
    let place = place();
    let mut client = Client::open(&place, "quiet:a");
    let answer = client.query(&json!({"channel": "quiet:a", "limit": 0}));
    let nobody: [Value; 0] = [];
    assert_eq!(
        answer["payload"],
        json!({"channel": "quiet:a", "clients": 1, "users": 0, "members": nobody})
    );
    for (parameters, code) in [
        (json!({"channel": "quiet:b"}), "not_subscribed"),
        (json!({"channel": "other"}), "permission_denied"),
        (json!({}), "invalid_message"),
        (json!({"channel": "system"}), "channel_reserved"),
        (json!({"channel": "quiet:a", "limit": 1001}), "invalid_message"),
        (json!({"channel": "quiet:a", "limit": "1"}), "invalid_message"),
        (json!({"channel": "quiet:a", "after": -1}), "invalid_message"),
        (json!(7), "invalid_message"),
    ] {
        let answer = client.query(&parameters);
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&json!("error"), &json!(code)),
            "{parameters}"
        );
    }
    // Nobody is told where nobody wants to be.
    let _other = Client::open(&place, "quiet:a");
    assert_eq!(client.list("quiet:a", 1).len(), 2);
    client.peer.expect_idle();
}

#[test]
fn notices_and_answers_reach_the_other_encoding() {
    let place = place();
    let mut peer = Peer::speaking(&place.server, "stentor.v1.protobuf");
    let receive = |peer: &mut Peer| {
        let frame = peer.frame();
        let envelope = Envelope::decode_length_delimited(&frame.payload[..]).expect("an envelope");
        envelope.body.expect("it has a body")
    };
    let Body::Welcome(welcome) = receive(&mut peer) else { panic!("no welcome") };
    let send = |peer: &mut Peer, body| {
        let envelope = Envelope { id: "x".into(), body: Some(body), ..Default::default() };
        peer.send(&frame(OpCode::BINARY, &envelope.encode_length_delimited_to_vec()));
    };
    let channel = "room:p".to_owned();
    send(&mut peer, Body::Subscribe(Subscribe { channel: channel.clone(), ..Default::default() }));
    assert!(matches!(receive(&mut peer), Body::Confirmation(_)));
    let Body::Presence(own) = receive(&mut peer) else { panic!("no notice") };
    assert_eq!((&own.channel, own.clients, own.users, own.more), (&channel, 1, 0, false));
    assert_eq!(own.joined[0].connection_id, welcome.connection_id);
    assert!(own.timestamp_ms > 1_700_000_000_000 && own.joined[0].joined_at_ms > 1_700_000_000_000);

    let mut other = Client::open(&place, "room:p");
    let Body::Presence(joined) = receive(&mut peer) else { panic!("no notice") };
    assert_eq!((joined.clients, &joined.joined[0].connection_id), (2, &other.pair.connection));
    other
        .peer
        .send_text(&format!(r#"{{"type":"auth","payload":{{"token":"{}"}}}}"#, key_of("alice")));
    let Body::Presence(known) = receive(&mut peer) else { panic!("no notice") };
    assert_eq!((known.users, known.left.len(), known.left[0].user_id.as_deref()), (1, 1, None));
    assert_eq!(known.joined[0].user_id.as_deref(), Some("alice"));
    let info = r#"{"name":"Al","plan":"pro"}"#;
    assert_eq!((&*known.left[0].info, &*known.joined[0].info), ("", info));
    let asked = other.query(&json!({"channel": "room:p"}));
    let told: Vec<_> = asked["payload"]["members"].as_array().expect("a list").iter().collect();
    assert_eq!(
        told.iter().map(|member| &member["info"]).collect::<Vec<_>>(),
        [&Value::Null, &json!({"name": "Al", "plan": "pro"})]
    );

    let parameters = br#"{"channel":"room:p","limit":1}"#.to_vec();
    send(&mut peer, Body::Query(Query { resource: "presence".into(), parameters }));
    let Body::Response(response) = receive(&mut peer) else { panic!("no response") };
    let payload: Value = serde_json::from_slice(&response.payload).expect("JSON");
    assert_eq!(
        (&payload["clients"], payload["members"].as_array().map(Vec::len)),
        (&json!(2), Some(1))
    );
    assert_eq!(payload["next"], 1);
    drop(other);
    let Body::Presence(gone) = receive(&mut peer) else { panic!("no notice") };
    assert_eq!((gone.clients, gone.left[0].user_id.as_deref()), (1, Some("alice")));
}
