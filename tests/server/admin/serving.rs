//! The API as a server: its bounds, its health, its description.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::HISTORY;
use crate::support::*;

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
