//! Who may use the API, and what is no request of it.

use serde_json::Value;

use super::KEY;
use crate::support::*;

#[test]
fn the_key_is_asked_for() {
    let launch = Launch::new(&["--admin", "127.0.0.1:0"]).env("STENTOR_ADMIN_KEY", KEY);
    let api = Api::launch(launch);
    let publish = |fields: &str| {
        let head =
            format!("POST /api/publish HTTP/1.1\r\nContent-Type: application/json\r\n{fields}");
        api.request(&head, r#"{"channel":"a","data":1}"#)
    };
    let refused = publish("");
    assert_eq!((refused.status, refused.field("WWW-Authenticate")), (401, Some("Bearer")));
    assert!(refused.body.contains(r#""code":"unauthenticated""#), "{refused:?}");
    assert_eq!(publish("X-API-Key: a-key-for-tests-onlz\r\n").status, 401);
    for fields in [
        format!("X-API-Key: {KEY}\r\n"),
        format!("Authorization: apikey {KEY}\r\n"),
        format!("Authorization: Bearer {KEY}\r\n"),
    ] {
        assert_eq!(publish(&fields).status, 200, "{fields}");
    }
    for path in ["/metrics", "/api/openapi.json"] {
        assert_eq!(api.get(path).status, 401, "{path}");
    }
    for path in ["/health", "/health/live", "/health/ready"] {
        assert_eq!(api.get(path).status, 200, "{path}");
    }
    assert!(!api.server.log.lines().join("").contains(KEY));
}

#[test]
fn an_api_for_everybody_needs_a_key() {
    let output = run(&["serve", "--admin", "0.0.0.0:0", "--listen", "127.0.0.1:0"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("there is no admin.key"), "{text}");
}

#[test]
fn bad_requests_are_told_apart() {
    let api = Api::start(&["--set", "admin.max_body_size=1KiB", "--max-message-size", "512"]);
    let send = |method: &str, path: &str, content_type: &str, body: &str| {
        let head = format!("{method} {path} HTTP/1.1\r\n{content_type}");
        let response = api.request(&head, body);
        let answer: Value = serde_json::from_str(&response.body).expect("JSON");
        (response.status, answer["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let json = "Content-Type: application/json; charset=utf-8\r\n";
    let publish = "/api/publish";
    let large = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(1100));
    let long = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(600));
    let deep = format!(r#"{{"channel":"a","data":{}{}}}"#, "[".repeat(65), "]".repeat(65));
    let good = r#"{"channel":"a","data":1}"#;
    for (method, path, content_type, body, expected) in [
        ("POST", publish, json, good, (200, "")),
        ("GET", publish, json, "", (405, "method_not_allowed")),
        ("PUT", publish, json, good, (405, "method_not_allowed")),
        ("POST", "/metrics", json, good, (405, "method_not_allowed")),
        ("POST", "/api/nothing", json, good, (404, "no_route")),
        ("GET", "/", "", "", (404, "no_route")),
        ("POST", publish, "", good, (415, "unsupported_media_type")),
        ("POST", publish, "Content-Type: text/plain\r\n", good, (415, "unsupported_media_type")),
        ("POST", publish, json, "", (400, "invalid_json")),
        ("POST", publish, json, "{", (400, "invalid_json")),
        ("POST", publish, json, r#"{"channel":"a","data":1} x"#, (400, "invalid_json")),
        ("POST", publish, json, r#"{"channel":"a","data":tru}"#, (400, "invalid_json")),
        ("POST", publish, json, &deep, (400, "invalid_json")),
        ("POST", publish, json, "[]", (400, "invalid_message")),
        ("POST", publish, json, "null", (400, "invalid_message")),
        // As lists of their fields.
        ("POST", publish, json, r#"["a",1,null]"#, (400, "invalid_message")),
        ("POST", "/api/connections", json, "[null,null]", (400, "invalid_message")),
        ("POST", publish, json, r#"{"channel":"a"}"#, (400, "invalid_message")),
        ("POST", publish, json, r#"{"channel":1,"data":1}"#, (400, "invalid_message")),
        ("POST", publish, json, r#"{"channel":"a","data":1,"x":1}"#, (400, "invalid_message")),
        ("POST", publish, json, r#"{"channel":"a","data":1,"data":1}"#, (400, "invalid_message")),
        (
            "POST",
            publish,
            json,
            r#"{"channel":"a","data":1,"messageId":""}"#,
            (400, "invalid_message"),
        ),
        ("POST", publish, json, r#"{"channel":"a\n","data":1}"#, (400, "channel_invalid")),
        ("POST", publish, json, r#"{"channel":"system","data":1}"#, (400, "channel_reserved")),
        ("POST", publish, json, &large, (413, "message_too_large")),
        ("POST", publish, json, &long, (413, "message_too_large")),
    ] {
        let expected = (expected.0, expected.1.to_owned());
        assert_eq!(send(method, path, content_type, body), expected, "{method} {path} {body}");
    }
    // Without a length.
    let mut peer = api.connect();
    let chunk = "x".repeat(2000);
    peer.send(
        format!(
            "POST /api/publish HTTP/1.1\r\nHost: 127.0.0.1\r\n{json}Transfer-Encoding: chunked\r\n\r\n\
             7d0\r\n{chunk}\r\n0\r\n\r\n"
        )
        .as_bytes(),
    );
    assert_eq!(peer.response().status, 413);
    let counters = api.server.counters();
    assert_eq!(counters["admin_requests"], 27);
    assert_eq!(counters["admin_refused"], 26);
}

#[test]
fn a_web_page_cannot_reach_an_api_without_a_key() {
    let api = Api::start(&[]);
    let mut peer = api.connect();
    peer.send(get("/metrics", "").replace("Host: test", "Host: evil.example").as_bytes());
    assert_eq!(peer.response().status, 403);
}
