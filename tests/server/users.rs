//! Users on the real binary: who may connect and do what, messages to users, and what waits for those who
//! are away, whatever happens to them or to the server.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::*;

const ALICE: &str = "alice-0123456789abcdef";
const BOB: &str = "bob-0123456789abcdef";
const BOB_TOO: &str = "bob-fedcba9876543210+/=";

const KEYS: &str = "# who\nalice alice-0123456789abcdef\nbob bob-0123456789abcdef\n\
                    bob bob-fedcba9876543210+/=\n";

const CONFIGURATION: &str = r#"
[namespaces.chat]
direct = true
slow_consumer = "conflate"

[namespaces.mail]
offline_queue = true

[namespaces.small]
offline_queue = true
offline_queue_size = 5

[namespaces.tiny]
offline_queue = true
offline_queue_bytes = "1KiB"

[namespaces.brief]
offline_queue = true
offline_queue_ttl = "4s"
"#;

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("keys"), KEYS).expect("it is ours");
    fs::write(folder.path().join("stentor.toml"), CONFIGURATION).expect("it is ours");
    folder
}

fn flags(folder: &Path) -> Vec<String> {
    let path = |name| folder.join(name).to_str().expect("text").to_owned();
    let named = [("--config", "stentor.toml"), ("--auth-keys", "keys"), ("--store", "log")];
    named.into_iter().flat_map(|(flag, name)| [flag.to_owned(), path(name)]).collect()
}

fn launch(folder: &Path, more: &[&str]) -> Server {
    let flags = flags(folder);
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Server::start(&flags)
}

/// A client that answers pings, as every WebSocket does, unless it is told not to.
struct Client {
    peer: Peer,
    answers: bool,
    /// Messages that came before an answer.
    early: VecDeque<Value>,
}

impl Client {
    fn over(peer: Peer) -> Self {
        Self { peer, answers: true, early: VecDeque::new() }
    }

    #[track_caller]
    fn open(server: &Server) -> Self {
        Self::over(Peer::open(server))
    }

    /// Authenticated by a message, which is answered when nothing can miss it any more.
    #[track_caller]
    fn user(server: &Server, token: &str) -> Self {
        let mut client = Self::open(server);
        let answer = client.auth(token);
        assert_eq!(answer["type"], "response", "{answer}");
        client
    }

    /// As [`Client::user`], and what waits for it is not proven to have come.
    #[track_caller]
    fn user_without_pongs(server: &Server, token: &str) -> Self {
        let mut client = Self::open(server);
        client.answers = false;
        client.auth(token);
        client
    }

    #[track_caller]
    fn auth(&mut self, token: &str) -> Value {
        self.peer.send_text(&format!(
            r#"{{"type":"auth","id":"a","timestamp":1,"payload":{{"token":"{token}"}}}}"#
        ));
        self.answer(|message| message["requestId"] == "a")
    }

    /// The next message that is meant; what comes before it is kept.
    #[track_caller]
    fn answer(&mut self, is_meant: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.receive();
            if is_meant(&message) {
                return message;
            }
            self.early.push_back(message);
        }
    }

    #[track_caller]
    fn message(&mut self) -> Value {
        self.early.pop_front().unwrap_or_else(|| self.receive())
    }

    #[track_caller]
    fn receive(&mut self) -> Value {
        loop {
            let received = self.peer.frame();
            match received.opcode {
                OpCode::PING if self.answers => {
                    self.peer.send(&frame(OpCode::PONG, &received.payload));
                }
                OpCode::PING => {}
                _ => return serde_json::from_str(received.text()).expect("JSON"),
            }
        }
    }

    #[track_caller]
    fn expect(&mut self, channel: &str, data: &Value) -> String {
        let message = self.message();
        assert_eq!((&message["channel"], &message["data"]), (&json!(channel), data), "{message}");
        message["messageId"].as_str().unwrap_or_default().to_owned()
    }

    /// Nothing was under way; and every ping before this is answered.
    #[track_caller]
    fn expect_idle(&mut self) {
        assert_eq!(self.early, [] as [Value; 0]);
        self.peer.send_text(r#"{"type":"ping"}"#);
        let message = self.receive();
        assert_eq!(message, json!({"type": "pong"}));
    }

    #[track_caller]
    fn send(&mut self, to: &str, channel: &str, data: &Value) -> Value {
        self.peer.send_text(&format!(
            r#"{{"action":"publish","to":{{"user":"{to}"}},"channel":"{channel}","data":{data},"id":"s"}}"#
        ));
        self.answer(|message| message["requestId"] == "s" || message["data"]["requestId"] == "s")
    }

    #[track_caller]
    fn send_acked(&mut self, to: &str, channel: &str, data: &Value) {
        let answer = self.send(to, channel, data);
        assert_eq!(answer, json!({"type": "ack", "requestId": "s", "channel": channel}));
    }
}

#[test]
fn credentials_come_in_three_ways() {
    let folder = folder();
    let server = launch(folder.path(), &[]);
    let mut alice = Client::user(&server, ALICE);
    let mut header = Peer::connect(&server);
    let line = format!("Authorization: bearer {BOB}\r\n");
    header.send(upgrade_request("/ws", &line).as_bytes());
    assert_eq!(header.response().status, 101);
    let mut header = Client::over(header);
    let escaped = BOB_TOO.replace('+', "%2B");
    let query = Peer::open_at(&server, &format!("/ws?x=1&token={escaped}"));
    let mut query = Client::over(query);
    let mut message = Client::open(&server);
    let answer = message.auth(BOB);
    let payload = &answer["payload"];
    assert_eq!((&payload["userId"], &payload["expiresAt"]), (&json!("bob"), &Value::Null));
    assert_eq!(payload["connectionId"].as_str().map(str::len), Some(44), "{answer}");
    assert_eq!(payload["sessionId"].as_str().map(str::len), Some(36), "{answer}");
    assert!(answer["timestamp"].is_u64() && answer["id"].is_string(), "{answer}");
    // An upgrade is not told when its inboxes are open; a message that waits comes when they are.
    for (n, client) in [&mut header, &mut query, &mut message].into_iter().enumerate() {
        assert_eq!(client.auth(BOB)["payload"]["userId"], "bob", "{n}");
    }
    alice.send_acked("bob", "mail:x", &json!({"n": 1}));
    for client in [&mut header, &mut query, &mut message] {
        client.expect("mail:x", &json!({"n": 1}));
        client.expect_idle();
    }
    alice.expect_idle();
    assert_eq!(server.counter("authenticated"), 4);
}

#[test]
fn wrong_credentials_are_refused() {
    let folder = folder();
    let server = launch(folder.path(), &["--echo", "/echo"]);
    let wrong = &BOB[1..];
    for (path, line) in [
        ("/ws".to_owned(), format!("Authorization: Bearer {wrong}\r\n")),
        ("/ws".to_owned(), "Authorization: Bearer\r\n".to_owned()),
        (format!("/ws?token={wrong}"), String::new()),
        (format!("/ws?token={BOB}"), format!("Authorization: Bearer {wrong}\r\n")),
        (format!("/echo?token={wrong}"), String::new()),
    ] {
        let mut peer = Peer::connect(&server);
        peer.send(upgrade_request(&path, &line).as_bytes());
        let response = peer.response();
        assert_eq!(response.status, 401, "{path} {line}");
        assert_eq!(response.field("WWW-Authenticate"), Some("Bearer"));
        assert_eq!(response.body, "the token is not known\n");
        peer.expect_end();
    }
    let mut client = Client::open(&server);
    let answer = client.auth(wrong);
    let expected = (&json!("error"), &json!("unauthenticated"), &json!("the token is not known"));
    assert_eq!((&answer["type"], &answer["code"], &answer["error"]), expected);
    // It may try again, and is who it is from then on.
    assert_eq!(client.auth(BOB)["payload"]["userId"], "bob");
    assert_eq!(client.auth(BOB_TOO)["payload"]["userId"], "bob");
    assert_eq!(client.auth(ALICE)["code"], "permission_denied");
    client.peer.subscribe("still:works");
    // Nobody has more than ten guesses.
    let mut guesser = Client::open(&server);
    for _ in 0..9 {
        guesser.auth(wrong);
    }
    guesser.auth(wrong);
    guesser.peer.expect_close(1008, "too_many_errors");
    assert_eq!(server.counter("unauthenticated"), 5 + 1 + 10);
    let log = server.log.lines().join("\n");
    assert!(!log.contains(wrong) && !log.contains(ALICE), "{log}");
}

#[test]
fn nothing_goes_without_authentication_where_it_is_required() {
    let folder = folder();
    let server =
        launch(folder.path(), &["--auth-required", "--echo", "/echo", "--set", "auth.timeout=5s"]);
    let mut late = Peer::open(&server);
    let mut client = Client::open(&server);
    let mut early = Client::open(&server);
    assert_eq!(early.auth(ALICE)["payload"]["userId"], "alice");
    for request in [
        r#"{"action":"subscribe","channel":"a","id":1}"#,
        r#"{"action":"unsubscribe","channel":"a","id":1}"#,
        r#"{"action":"publish","channel":"a","data":1,"id":1}"#,
        r#"{"action":"publish","to":{"user":"bob"},"channel":"a","data":1,"id":1}"#,
    ] {
        client.peer.send_text(request);
        assert_eq!(
            client.message()["data"],
            json!({"type": "error", "message": "authenticate first", "code": "unauthenticated",
                   "channel": "a", "requestId": 1})
        );
    }
    client.peer.send_text(
        r#"{"type":"query","id":1,"payload":{"resource":"history","parameters":{"channel":"a"}}}"#,
    );
    let answer = client.message();
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("unauthenticated")));
    client.expect_idle();
    // In one frame: what follows the credentials is allowed.
    client.peer.send_text(&format!(
        "{{\"type\":\"auth\",\"payload\":{{\"token\":\"{BOB}\"}}}}\n\
         {{\"action\":\"subscribe\",\"channel\":\"a\"}}"
    ));
    client.answer(|message| message["data"]["type"] == "subscription_confirm");
    late.expect_close(1008, "unauthenticated");
    server.wait_for_counter("auth_timeout", 1);
    // Whoever has authenticated stays, and so does an echo that came with a token.
    early.peer.subscribe("a");
    let mut echo = Peer::connect(&server);
    echo.send(upgrade_request("/echo", "").as_bytes());
    assert_eq!(echo.response().status, 401);
    let mut echo = Peer::open_at(&server, &format!("/echo?token={ALICE}"));
    echo.send_text("x");
    echo.expect_text("x");
    assert_eq!(server.counter("auth_timeout"), 1);
}

#[test]
fn a_message_to_a_user_reaches_each_of_its_connections_and_nobody_else() {
    let folder = folder();
    let server = launch(folder.path(), &[]);
    let mut alice = Client::user(&server, ALICE);
    let mut nobody = Client::open(&server);
    nobody.peer.subscribe("chat:room");
    // Its devices are on both shards.
    let mut devices: Vec<Client> = Vec::new();
    let mut shards = Vec::new();
    while shards.len() < 2 || devices.len() < 3 {
        let mut device = Client::open(&server);
        let id = device.auth(BOB)["payload"]["connectionId"].as_str().expect("text").to_owned();
        devices.push(device);
        shards.push(id[..4].to_owned());
        shards.sort();
        shards.dedup();
    }
    for n in 0..20 {
        alice.send_acked("bob", "chat:room", &json!([n]));
        alice.send_acked("alice", "mail:", &json!(n));
    }
    for device in &mut devices {
        for n in 0..20 {
            let message = device.message();
            assert_eq!(message, json!({"channel": "chat:room", "data": [n]}), "byte for byte");
        }
        device.expect_idle();
    }
    for n in 0..20 {
        alice.expect("mail:", &json!(n));
    }
    // A device of its own may send to the others.
    devices[0].peer.send_text(
        r#"{"action":"publish","to":{"user":"bob"},"channel":"chat:me","data":1,"echo":false}"#,
    );
    for device in &mut devices[1..] {
        device.expect("chat:me", &json!(1));
    }
    devices[0].expect_idle();
    // Who has gone gets nothing, and nothing waits at this level.
    drop(devices);
    server.wait_for_connections(2);
    alice.send_acked("bob", "chat:room", &json!("gone"));
    let mut back = Client::user(&server, BOB);
    back.expect_idle();
    nobody.expect_idle();
}

#[test]
fn whom_a_message_may_go_to_and_from() {
    let folder = folder();
    let server = launch(folder.path(), &[]);
    let mut alice = Client::user(&server, ALICE);
    let mut nobody = Client::open(&server);
    let refused = |answer: Value| answer["data"]["code"].as_str().map(str::to_owned);
    for channel in ["chat:x", "mail:x", "other:x", "x"] {
        let answer = nobody.send("alice", channel, &json!(1));
        assert_eq!(refused(answer).as_deref(), Some("unauthenticated"), "{channel}");
    }
    for channel in ["other:x", "x", "chat", ":x"] {
        let answer = alice.send("bob", channel, &json!(1));
        assert_eq!(refused(answer).as_deref(), Some("permission_denied"), "{channel}");
    }
    for to in ["\"bob\"", "{}", "[]", "{\"user\":7}", "{\"user\":\"\"}", "{\"user\":\"a\\u0001\"}"]
    {
        alice.peer.send_text(&format!(
            r#"{{"action":"publish","to":{to},"channel":"mail:x","data":1,"id":"s"}}"#
        ));
        assert_eq!(refused(alice.message()).as_deref(), Some("invalid_message"), "{to}");
    }
    // Inboxes have names that nobody can use.
    for name in ["\\u0001mail:bob", "\\u0001:bob", "\\u0001mail"] {
        for action in ["subscribe", "unsubscribe", "publish"] {
            alice.peer.send_text(&format!(
                r#"{{"action":"{action}","channel":"{name}","data":1,"id":"s"}}"#
            ));
            assert_eq!(refused(alice.message()).as_deref(), Some("channel_invalid"), "{action}");
        }
        alice.peer.send_text(&format!(
            r#"{{"type":"query","payload":{{"resource":"history","parameters":{{"channel":"{name}"}}}}}}"#
        ));
        assert_eq!(alice.message()["code"], "channel_invalid");
    }
    alice.expect_idle();
}

#[test]
fn what_is_sent_to_a_user_who_is_away_waits_and_comes_once() {
    let folder = folder();
    let server = launch(folder.path(), &[]);
    let mut alice = Client::user(&server, ALICE);
    for n in 0..100 {
        alice.send_acked("bob", if n % 2 == 0 { "mail:a" } else { "mail:b" }, &json!(n));
    }
    let channel = |n| if n % 2 == 0 { "mail:a" } else { "mail:b" };
    // It comes whole, and again: nothing has proven that it came.
    let mut first = Vec::new();
    for _ in 0..2 {
        let mut bob = Client::user_without_pongs(&server, BOB);
        let ids: Vec<_> = (0..100).map(|n| bob.expect(channel(n), &json!(n))).collect();
        if first.is_empty() {
            let mut unlike = ids.clone();
            unlike.sort();
            unlike.dedup();
            assert_eq!(unlike.len(), 100, "each has an id of its own: {ids:?}");
            first = ids;
        } else {
            assert_eq!(ids, first, "the same message has the same id");
        }
        bob.peer.abort();
    }
    server.wait_for_connections(1);
    let mut bob = Client::user(&server, BOB);
    alice.send_acked("bob", "mail:a", &json!("new"));
    for (n, id) in first.iter().enumerate() {
        assert_eq!(&bob.expect(channel(n), &json!(n)), id);
    }
    bob.expect("mail:a", &json!("new"));
    bob.expect_idle();
    server.wait_for_counter("queue_proofs", 1);
    drop(bob);
    server.wait_for_connections(1);
    alice.send_acked("bob", "mail:a", &json!("newer"));
    let mut bob = Client::user(&server, BOB_TOO);
    bob.expect("mail:a", &json!("newer"));
    bob.expect_idle();
    assert_eq!(server.counter("queue_dropped"), 0);
}

#[test]
fn what_waits_is_bounded_by_number_bytes_and_age() {
    let folder = folder();
    let server = launch(folder.path(), &[]);
    let mut alice = Client::user(&server, ALICE);
    for n in 0..7 {
        alice.send_acked("bob", "small:", &json!(n));
    }
    server.wait_for_counter("queue_dropped", 2);
    let long = "x".repeat(300);
    for n in 0..4 {
        alice.send_acked("bob", "tiny:", &json!(format!("{n}{long}")));
    }
    server.wait_for_counter("queue_dropped", 4);
    alice.send_acked("bob", "brief:", &json!("old"));
    server.wait_for_counter("queue_dropped", 5);
    alice.send_acked("bob", "brief:", &json!("young"));
    let mut bob = Client::user(&server, BOB);
    let mut seen: Vec<(String, Value)> = (0..8)
        .map(|_| {
            let message = bob.message();
            (message["channel"].as_str().expect("a name").to_owned(), message["data"].clone())
        })
        .collect();
    // Each queue in its order.
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    let small = (2..7).map(|n| ("small:".to_owned(), json!(n)));
    let tiny = (2..4).map(|n| ("tiny:".to_owned(), json!(format!("{n}{long}"))));
    let expected: Vec<_> =
        [("brief:".to_owned(), json!("young"))].into_iter().chain(small).chain(tiny).collect();
    assert_eq!(seen, expected);
    bob.expect_idle();
    // What was received makes room for what comes, and is not dropped by it.
    server.wait_for_counter("store_kept", 13 + 3);
    let dropped = server.counter("queue_dropped");
    drop(bob);
    server.wait_for_connections(1);
    for n in 10..15 {
        alice.send_acked("bob", "small:", &json!(n));
    }
    assert_eq!(server.counter("queue_dropped"), dropped);
    let mut bob = Client::user(&server, BOB);
    for n in 10..15 {
        bob.expect("small:", &json!(n));
    }
    bob.expect_idle();
}

#[test]
fn what_waits_survives_every_kill_and_what_was_received_stays_received() {
    let folder = folder();
    let mut next = 0;
    for round in 0..5 {
        // Sent and acknowledged, then the end.
        let server = launch(folder.path(), &[]);
        let mut alice = Client::user(&server, ALICE);
        let from = next;
        for _ in 0..20 {
            alice.send_acked("bob", "mail:x", &json!(next));
            next += 1;
        }
        kill(server);
        // Not proven, then the end.
        let server = launch(folder.path(), &[]);
        let mut bob = Client::user_without_pongs(&server, BOB);
        let ids: Vec<_> = (from..next).map(|n| bob.expect("mail:x", &json!(n))).collect();
        kill(server);
        // Proven, and known to the log.
        let server = launch(folder.path(), &[]);
        let mut bob = Client::user(&server, BOB);
        let again: Vec<_> = (from..next).map(|n| bob.expect("mail:x", &json!(n))).collect();
        assert_eq!(again, ids, "round {round}");
        bob.expect_idle();
        let mut alice = Client::user(&server, ALICE);
        alice.send_acked("bob", "mail:x", &json!(next));
        bob.expect("mail:x", &json!(next));
        next += 1;
        bob.expect_idle();
        // The message, and the mark of the first proof, if not that of the second.
        server.wait_for_counter("queue_proofs", 2);
        server.wait_for_counter("store_kept", 3);
        kill(server);
        let server = launch(folder.path(), &[]);
        let mut bob = Client::user(&server, BOB);
        bob.expect_idle();
        kill(server);
    }
}

#[test]
fn a_message_that_is_published_twice_under_one_id_is_kept_once() {
    let folder = folder();
    let server = launch(folder.path(), &[]);
    let mut alice = Client::user(&server, ALICE);
    let text =
        r#"{"action":"publish","to":{"user":"bob"},"channel":"mail:x","data":1,"messageId":"m"}"#;
    alice.peer.send_text(&[text; 3].join("\n"));
    for _ in 0..3 {
        assert_eq!(alice.message(), json!({"type": "ack", "messageId": "m", "channel": "mail:x"}));
    }
    // Without id and messageId nobody hears of it.
    alice.peer.send_text(r#"{"action":"publish","to":{"user":"bob"},"channel":"mail:x","data":2}"#);
    alice.send_acked("bob", "mail:x", &json!(3));
    let mut bob = Client::user(&server, BOB);
    for n in 1..=3 {
        bob.expect("mail:x", &json!(n));
    }
    bob.expect_idle();
    assert_eq!(server.counter("duplicates"), 2);
}

#[test]
fn users_and_their_connections_are_counted() {
    let folder = folder();
    let limits: &[&str] = &["--shards", "1", "--set", "auth.max_users=1"];
    let more = &["--set", "auth.max_connections_per_user=2", "--set", "limits.max_subscriptions=1"];
    let server = launch(folder.path(), &[limits, more].concat());
    let first = Client::user(&server, BOB);
    let mut second = Client::user(&server, BOB_TOO);
    // Inboxes are none of the subscriptions that a connection may have.
    second.peer.subscribe("a");
    for (token, text) in [
        (BOB, "the user has 2 connections already"),
        (ALICE, "this server has connections of 1 users already"),
    ] {
        let mut refused = Client::open(&server);
        let answer = refused.auth(token);
        assert_eq!((&answer["code"], &answer["error"]), (&json!("unavailable"), &json!(text)));
        refused.expect_idle();
        let mut peer = Peer::connect(&server);
        peer.send(upgrade_request(&format!("/ws?token={token}"), "").as_bytes());
        let response = peer.response();
        assert_eq!((response.status, response.body.clone()), (503, format!("{text}\n")));
        assert_eq!(response.field("Retry-After"), Some("5"));
    }
    assert_eq!(server.counter("user_limit"), 4);
    drop(first);
    wait_until("the place is free", || {
        Client::open(&server).auth(BOB)["payload"]["userId"] == "bob"
    });
}

#[test]
fn the_commands_have_a_token() {
    let folder = folder();
    let server = launch(folder.path(), &["--auth-required"]);
    let url = server.url();
    let mut subscriber = Client::user(&server, BOB);
    subscriber.peer.subscribe("news");
    let output = run(&["publish", "news", "1", "--url", &url, "--token", ALICE]);
    assert!(output.status.success(), "{output:?}");
    let publish = ["publish", "news", "2", "--url", &url];
    let output = run_with(&publish, &[("STENTOR_TOKEN", ALICE)], "");
    assert!(output.status.success(), "{output:?}");
    for n in 1..=2 {
        subscriber.expect("news", &json!(n));
    }
    let output = run_with(&publish, &[("STENTOR_TOKEN", "wrong")], "");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("does not accept the token"), "{text}");
    let output = run(&publish);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("authenticate first"), "{text}");
}
