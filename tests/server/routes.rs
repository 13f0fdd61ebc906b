//! Routes on the real binary: messages to webhooks, signed and in batches, and what their clients are
//! told; a webhook that is slow, dead or wrong, and everybody else meanwhile.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;

use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::Sha256;
use stentor::bridge::{Inbound, Refusal, Reply};
use stentor::config::Config;
use stentor::server::Server as InProcess;

use crate::support::envelope::envelope::Body;
use crate::support::envelope::{Command, Envelope, Query};
use crate::support::*;

const SECRET: &str = "a-secret-of-webhooks";

/// A server with these routes and other keys, each `section.key=value`.
fn start(keys: &[&str]) -> Server {
    launch(keys).start()
}

fn launch(keys: &[&str]) -> Launch {
    let mut flags = vec!["--set", "webhooks.batch_timeout=10ms", "--set", "webhooks.timeout=20s"];
    for key in keys {
        let name = key.split_once('=').expect("`key=value`").0;
        // What is said here holds.
        if let Some(place) =
            flags.iter().position(|flag| flag.split_once('=').is_some_and(|it| it.0 == name))
        {
            flags.drain(place - 1..=place);
        }
        flags.extend(["--set", key]);
    }
    Launch::new(&flags)
}

fn to(hook: &Hook, kind: &str) -> String {
    format!("routes.{kind}={}", hook.route())
}

/// The answer, without what differs each time.
#[track_caller]
fn answer(peer: &mut Peer) -> Value {
    let mut answer = peer.json();
    let members = answer.as_object_mut().expect("an object");
    members.remove("timestamp");
    if members["type"] != "ack" {
        members.remove("id").expect("of the message");
    }
    answer
}

/// A message with a number and an id.
fn order(number: u32) -> String {
    format!(r#"{{"type":"order","id":{number}}}"#)
}

/// The ids of the messages.
fn ids(call: &Call) -> Vec<u64> {
    call.messages().iter().map(|message| message["id"].as_u64().expect("a number")).collect()
}

#[track_caller]
fn expect_ack(peer: &mut Peer, id: u32) {
    assert_eq!(answer(peer), json!({"type": "ack", "requestId": id}));
}

#[track_caller]
fn expect_error(peer: &mut Peer, id: u32, code: &str) {
    let answer = answer(peer);
    assert_eq!((&answer["type"], &answer["requestId"]), (&json!("error"), &json!(id)), "{answer}");
    assert_eq!(answer["code"], code, "{answer}");
}

#[test]
fn a_message_of_a_type_of_its_own_reaches_its_webhook_signed() {
    let hook = Hook::open();
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys");
    fs::write(&keys, "bob bob-0123456789abcdef\n").expect("it is ours");
    let keys = format!("auth.keys_file={}", keys.display());
    let server = start(&[&to(&hook, "order"), &format!("webhooks.secret={SECRET}"), &keys]);
    let mut peer = Peer::open(&server);
    let message = r#"{"type":"order","id":"o1","channel":"shop:1","x":[1.50, "\u00e9"]}"#;
    peer.send_text(message);
    let call = hook.call();
    assert!(call.head.starts_with("POST /hook HTTP/1.1\r\n"), "{}", call.head);
    assert_eq!(call.field("content-type"), Some("application/json"));
    assert_eq!(call.field("host"), Some(&*hook.address.to_string()));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    mac.update(call.body.as_bytes());
    let digest: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(call.field("x-stentor-signature"), Some(&*format!("sha256={digest}")));
    // Byte for byte.
    assert!(call.body.contains(&format!(r#","message":{message}}}"#)), "{}", call.body);
    let [sent] = &call.messages()[..] else { panic!("{}", call.body) };
    assert_eq!((&sent["type"], &sent["id"]), (&json!("order"), &json!("o1")));
    assert_eq!((&sent["channel"], sent.get("user")), (&json!("shop:1"), None));
    assert_eq!(sent["connectionId"].as_str().map(str::len), Some(44));
    assert!(sent["receivedAt"].as_u64() > Some(1_700_000_000_000));
    call.answer(200, "");
    assert_eq!(answer(&mut peer), json!({"type": "ack", "requestId": "o1"}));
    // Whose message it is, is told.
    peer.send_text(r#"{"type":"auth","payload":{"token":"bob-0123456789abcdef"}}"#);
    assert_eq!(peer.json()["payload"]["userId"], "bob");
    peer.send_text(r#"{"type":"order"}"#);
    let call = hook.call();
    assert_eq!(call.messages()[0]["user"], "bob");
    call.answer(204, "");
    server.wait_for_counter("route_taken", 2);
    // It asked for no answer.
    peer.expect_idle();
}

#[test]
fn messages_share_a_request() {
    let hook = Hook::open();
    let server =
        start(&[&to(&hook, "order"), "webhooks.batch_size=3", "webhooks.batch_timeout=10s"]);
    let mut peer = Peer::open(&server);
    for number in 1..=7 {
        peer.send_text(&order(number));
    }
    for expected in [[1, 2, 3], [4, 5, 6]] {
        let call = hook.call();
        assert_eq!(ids(&call), expected);
        let responses = r#"{"responses":[null,{"payload":{"n":2}},{"error":{"code":"sold_out","message":"no more"}}]}"#;
        call.answer(200, responses);
        let [first, second, third] = expected;
        expect_ack(&mut peer, first as u32);
        let response = json!({"type": "response", "requestId": second, "payload": {"n": 2}});
        assert_eq!(answer(&mut peer), response);
        let error =
            json!({"type": "error", "requestId": third, "error": "no more", "code": "sold_out"});
        assert_eq!(answer(&mut peer), error);
    }
    // The last one has waited long enough when the server ends.
    assert!(hook.is_idle());
}

#[test]
fn a_query_is_answered_by_its_webhook_in_both_encodings() {
    let hook = Hook::open();
    let server = start(&[&to(&hook, "query"), &to(&hook, "command")]);
    let answered = r#"{"responses":[{"payload":{"sky": "blue"}}]}"#;
    let mut peer = Peer::open(&server);
    let query = r#"{"type":"query","id":7,"payload":{"resource":"weather","parameters":{"at":1}}}"#;
    peer.send_text(query);
    let call = hook.call();
    assert_eq!(call.messages()[0]["message"], serde_json::from_str::<Value>(query).expect("JSON"));
    call.answer(200, answered);
    let response = json!({"type": "response", "requestId": 7, "payload": {"sky": "blue"}});
    assert_eq!(answer(&mut peer), response);
    // Those that are built in stay.
    peer.send_text(r#"{"type":"query","id":8,"payload":{"resource":"time"}}"#);
    assert_eq!(answer(&mut peer)["type"], "response");
    assert!(hook.is_idle());

    let mut client = Peer::speaking(&server, "stentor.v1.protobuf");
    client.frame();
    let mut ask = |id: &str, body: Body| {
        let envelope = Envelope { id: id.into(), body: Some(body), ..Default::default() };
        client.send(&frame(OpCode::BINARY, &envelope.encode_length_delimited_to_vec()));
        let call = hook.call();
        let sent = call.messages()[0]["message"].clone();
        call.answer(200, answered);
        let frame = client.frame();
        let envelope = Envelope::decode_length_delimited(&frame.payload[..]).expect("an envelope");
        assert_eq!(envelope.request_id, id);
        let Some(Body::Response(response)) = envelope.body else { panic!("{envelope:?}") };
        assert_eq!(response.payload, br#"{"sky": "blue"}"#);
        sent
    };
    let query = Query { resource: "weather".into(), parameters: br#"{"at":1}"#.to_vec() };
    let sent = ask("q", Body::Query(query));
    let payload = json!({"resource": "weather", "parameters": {"at": 1}});
    assert_eq!(sent, json!({"type": "query", "id": "q", "payload": payload}));
    let (action, target) = ("dance".into(), "eve".into());
    let command = Command { action, target, parameters: br#" {"at":[1]} "#.to_vec() };
    let sent = ask("c", Body::Command(command));
    let payload = json!({"action": "dance", "target": "eve", "parameters": {"at": [1]}});
    assert_eq!(sent, json!({"type": "command", "id": "c", "payload": payload}));
    let sent = ask("", Body::Command(Command::default()));
    assert_eq!(sent, json!({"type": "command", "payload": {}}));
}

#[test]
fn what_was_not_taken_is_sent_again() {
    let hook = Hook::open();
    let server = start(&[&to(&hook, "order")]);
    let mut peer = Peer::open(&server);
    peer.send_text(&order(1));
    for status in [500, 429, 503] {
        let call = hook.call();
        assert_eq!(ids(&call), [1]);
        call.answer(status, "");
    }
    hook.call().answer(200, "");
    expect_ack(&mut peer, 1);
    assert_eq!(server.counter("route_retries"), 3);
    // A connection that breaks counts likewise.
    peer.send_text(&order(2));
    drop(hook.call());
    hook.call().answer(200, "ok");
    expect_ack(&mut peer, 2);
}

#[test]
fn what_is_refused_is_given_up_at_once() {
    let hook = Hook::open();
    let server = start(&[&to(&hook, "order"), "limits.max_errors=1"]);
    let mut peer = Peer::open(&server);
    for (number, status) in [(1, 400), (2, 404), (3, 301)] {
        peer.send_text(&order(number));
        hook.call().answer(status, "");
        expect_error(&mut peer, number, "unavailable");
    }
    peer.send_text(&order(4));
    hook.call().answer(200, "");
    expect_ack(&mut peer, 4);
    assert_eq!((server.counter("route_failed"), server.counter("route_retries")), (3, 0));
}

#[test]
fn a_webhook_that_answers_nonsense_has_the_messages_but_answers_no_query() {
    let hook = Hook::open();
    let server = start(&[&to(&hook, "default"), "webhooks.retries=0"]);
    let mut peer = Peer::open(&server);
    let query = r#"{"type":"query","id":2,"payload":{"resource":"weather"}}"#;
    let large = format!(r#"{{"responses":[{{"payload":"{}"}}]}}"#, "x".repeat(1 << 20));
    for body in ["ok", "[", r#"{"responses":[7]}"#, &large] {
        peer.send_text(&order(1));
        hook.call().answer(200, body);
        expect_ack(&mut peer, 1);
        peer.send_text(query);
        hook.call().answer(200, body);
        expect_error(&mut peer, 2, "unavailable");
    }
    // What fits comes whole, on one line.
    let large = large
        .replacen("x", "", 100)
        .replace(r#""payload":"#, "\n\"payload\":[\n")
        .replace("}]}", "]}]}");
    peer.send_text(query);
    hook.call().answer(200, &large);
    let text = peer.text();
    assert!(text.len() > (1 << 20) - 200 && !text.contains('\n'), "{} bytes", text.len());
    // No HTTP at all.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it has one");
    let babbler = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("it connects");
        stream.write_all(b"220 smtp.example.org ready\r\n").expect("it is open");
    });
    let route = format!("routes.order=webhook:http://{address}");
    let server = start(&[&route, "webhooks.retries=0"]);
    let mut peer = Peer::open(&server);
    peer.send_text(&order(1));
    expect_error(&mut peer, 1, "unavailable");
    babbler.join().expect("it does not panic");
}

#[test]
fn a_dead_webhook_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it has one");
    drop(listener);
    let server = start(&[&format!("routes.order=webhook:http://{address}"), "webhooks.retries=1"]);
    let mut peer = Peer::open(&server);
    peer.send_text(&order(1));
    expect_error(&mut peer, 1, "unavailable");
    let line = server
        .log
        .wait_for(0, |line| line["message"] == "a route fails: its messages are given up");
    assert!(line.to_string().contains("cannot connect"), "{line}");
    assert_eq!(server.counter("route_retries"), 1);
}

#[test]
fn a_webhook_that_does_not_answer_in_time_is_asked_again() {
    let hook = Hook::open();
    let server = start(&[&to(&hook, "order"), "webhooks.timeout=500ms", "webhooks.retries=1"]);
    let mut peer = Peer::open(&server);
    peer.send_text(&order(1));
    let calls = [hook.call(), hook.call()];
    assert_eq!(calls.each_ref().map(ids), [[1], [1]]);
    expect_error(&mut peer, 1, "unavailable");
}

#[test]
fn a_webhook_may_be_encrypted_and_must_prove_who_it_is() {
    let hook = Hook::open_secure();
    let trusted = authority();
    let trusted = trusted.to_str().expect("text");
    let keys = [&*to(&hook, "order"), "webhooks.retries=0"];
    let server = launch(&keys).env("SSL_CERT_FILE", trusted).start();
    let mut peer = Peer::open(&server);
    for number in 1..=2 {
        peer.send_text(&order(number));
        let call = hook.call();
        assert_eq!(ids(&call), [u64::from(number)]);
        call.answer(200, "");
        expect_ack(&mut peer, number);
    }
    // Trust in nobody who signed this certificate.
    let stranger = trusted.replace("ca.pem", "cert.pem");
    let server = launch(&keys).env("SSL_CERT_FILE", &stranger).start();
    let mut peer = Peer::open(&server);
    peer.send_text(&order(1));
    expect_error(&mut peer, 1, "unavailable");
    let failed = |line: &Value| line["message"] == "a route fails: its messages are given up";
    let line = server.log.wait_for(0, failed);
    assert!(line["reason"].as_str().is_some_and(|it| it.starts_with("no TLS: ")), "{line}");
    assert!(hook.is_idle());
    // Trust in nobody at all.
    let output = launch(&keys).env("SSL_CERT_FILE", "/nonexistent").try_start().err();
    let stderr = String::from_utf8(output.expect("it does not start").stderr).expect("text");
    assert!(stderr.contains("no root certificates for https webhooks"), "{stderr}");
}

#[test]
fn a_full_queue_refuses_and_nobody_else_notices() {
    let (slow, quick) = (Hook::open(), Hook::open());
    let server = start(&[
        &to(&slow, "order"),
        &to(&quick, "default"),
        "webhooks.queue_size=2",
        "webhooks.batch_size=1",
        "limits.max_errors=1",
    ]);
    let mut peer = Peer::open(&server);
    for number in 1..=2 {
        peer.send_text(&order(number));
    }
    let call = slow.call();
    for number in 3..=5 {
        peer.send_text(&order(number));
        expect_error(&mut peer, number, "backlog_full");
    }
    assert_eq!(server.counter("route_full"), 3);
    // Another target, from a connection of its own and from the same one, and a channel.
    for mut other in [Peer::open(&server), Peer::open(&server)] {
        other.send_text(r#"{"type":"dance","id":9}"#);
        quick.call().answer(200, "");
        expect_ack(&mut other, 9);
        fresh_client_works(&server);
    }
    call.answer(200, "");
    expect_ack(&mut peer, 1);
    slow.call().answer(200, "");
    expect_ack(&mut peer, 2);
    peer.send_text(&order(6));
    slow.call().answer(200, "");
    expect_ack(&mut peer, 6);
}

#[test]
fn chats_go_to_their_route_instead_of_their_channel_and_the_rest_stays() {
    let hook = Hook::open();
    let server = start(&[&to(&hook, "text"), "routes.image=channel"]);
    let (mut peer, mut reader) = (Peer::open(&server), Peer::open(&server));
    reader.subscribe("chat:a");
    let chat = |kind: &str| {
        format!(
            r#"{{"type":"{kind}","messageId":"m","sender":"anna","channel":"chat:a","payload":{{}}}}"#
        )
    };
    peer.send_text(&chat("text"));
    let call = hook.call();
    assert_eq!(call.messages()[0]["channel"], "chat:a");
    call.answer(200, "");
    assert_eq!(answer(&mut peer), json!({"type": "ack", "messageId": "m"}));
    for kind in ["image", "file"] {
        peer.send_text(&chat(kind).replace("\"m\"", &format!("\"{kind}\"")));
        assert_eq!(reader.json()["type"], kind);
        assert_eq!(peer.json(), json!({"type": "ack", "messageId": kind, "channel": "chat:a"}));
    }
    for message in [
        r#"{"type":"dance","id":1}"#,
        r#"{"type":"command","id":1,"payload":{"action":"dance"}}"#,
        r#"{"type":"query","id":1,"payload":{"resource":"weather"}}"#,
        r#"{"type":"default","id":1}"#,
    ] {
        peer.send_text(message);
        expect_error(&mut peer, 1, "no_route");
    }
    assert!(hook.is_idle());
}

#[test]
fn what_waits_is_delivered_before_the_server_ends() {
    let hook = Hook::open();
    let mut server = start(&[&to(&hook, "order"), "webhooks.batch_size=2"]);
    let mut peer = Peer::open(&server);
    for number in 1..=3 {
        peer.send_text(&order(number));
    }
    let first = hook.call();
    server.wait_for_counter("routed", 3);
    server.signal(Signal::TERM);
    peer.expect_close(1001, "shutdown");
    peer.finish_if_open();
    let taken = ids(&first);
    first.answer(200, "");
    let mut left = 3 - taken.len();
    while left > 0 {
        let call = hook.call();
        left -= ids(&call).len();
        call.answer(200, "");
    }
    assert!(server.wait_for_exit(PATIENCE).success());
}

#[test]
fn the_end_does_not_wait_for_ever() {
    let hook = Hook::open();
    let mut server = start(&[&to(&hook, "order"), "server.shutdown_timeout=300ms"]);
    let mut peer = Peer::open(&server);
    peer.send_text(&order(1));
    let call = hook.call();
    server.signal(Signal::TERM);
    peer.expect_close(1001, "shutdown");
    peer.finish_if_open();
    assert!(server.wait_for_exit(PATIENCE).success());
    let lines = server.log.lines().join("\n");
    assert!(lines.contains("routed messages were not delivered") && lines.contains("route_lost=1"));
    drop(call);
}

/// Answers, refuses, panics or says nothing, as it is asked to.
async fn obey(inbound: Inbound) -> Result<Option<Reply>, Refusal> {
    let message: Value = serde_json::from_str(&inbound.message).expect("a message is JSON");
    match message["do"].as_str() {
        Some("answer") => {
            let facts = json!({"kind": inbound.kind, "id": inbound.id, "user": inbound.user});
            Ok(Reply::new(&facts).ok())
        }
        Some("refuse") => Err(Refusal::new("no", "it does not want to")),
        Some("panic") => panic!("it was asked to"),
        _ => Ok(None),
    }
}

#[test]
fn a_function_of_the_program_is_a_route() {
    let mut config = Config::default();
    config.server.listen.set_port(0);
    (config.server.shards, config.server.pin) = (Some(1), false);
    let server = InProcess::builder().config(config).route("default", obey).bind().expect("a port");
    let (address, stopper) = (server.address(), server.stopper());
    let running = thread::spawn(move || server.run());
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
    let (mut client, _) =
        tungstenite::client(format!("ws://{address}/"), stream).expect("an upgrade");
    let mut ask = |what: &str| -> Value {
        let message = format!(r#"{{"type":"x","id":"i","do":"{what}"}}"#);
        client.send(message.into()).expect("it is open");
        let answer = client.read().expect("an answer").into_text().expect("text");
        let mut answer: Value = serde_json::from_str(&answer).expect("JSON");
        for name in ["timestamp", "id"] {
            answer.as_object_mut().expect("an object").remove(name);
        }
        answer
    };
    let payload = json!({"kind": "x", "id": "\"i\"", "user": null});
    let answered = json!({"type": "response", "requestId": "i", "payload": payload});
    assert_eq!(ask("answer"), answered);
    let error = |code: &str, text: &str| json!({"type": "error", "requestId": "i", "error": text, "code": code});
    assert_eq!(ask("refuse"), error("no", "it does not want to"));
    assert_eq!(ask("panic"), error("internal", "the handler of the message failed"));
    assert_eq!(ask("nothing"), json!({"type": "ack", "requestId": "i"}));
    drop(client);
    stopper.stop();
    running.join().expect("it does not panic").expect("it ends in order");
    let refused = InProcess::builder().route("ping", obey).bind();
    assert!(refused.is_err_and(|error| error.to_string().contains("a route for `ping`")));
}
