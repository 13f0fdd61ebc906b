//! Publications through the API.

use serde_json::json;

use super::HISTORY;
use crate::support::*;

#[test]
fn a_publication_reaches_subscribers_on_every_shard() {
    let api = Api::start(&HISTORY);
    let mut clients = open_on_both_shards(&api.server);
    for channel in ["a", "b", "c", "d", "kept:a", "kept:b", "kept:c"] {
        for (peer, _) in &mut clients {
            peer.send_text(&format!(r#"{{"action":"subscribe","channel":"{channel}"}}"#));
            peer.json();
        }
        let body = format!(r#"{{"channel":"{channel}","data":{{ "a" : [1.0e1, "\u00e9"] }}}}"#);
        let (status, answer) = api.post("/api/publish", &body);
        let is_kept = channel.starts_with("kept");
        let result = if is_kept { json!({"offset": 1}) } else { json!({}) };
        assert_eq!((status, answer), (200, json!({ "result": result })));
        let offset = if is_kept { r#""offset":1,"# } else { "" };
        for (peer, _) in &mut clients {
            // Byte for byte.
            peer.expect_text(&format!(
                r#"{{"channel":"{channel}",{offset}"data":{{ "a" : [1.0e1, "\u00e9"] }}}}"#
            ));
        }
    }
    assert_eq!(api.server.counter("publications"), 7);
}

#[test]
fn a_message_id_is_published_once_whatever_connection_it_comes_on() {
    let api = Api::start(&HISTORY);
    for (name, value) in [("messageId", "m"), ("idempotency_key", "m"), ("messageId", "n")] {
        let result = api.call("publish", &json!({"channel": "kept:x", "data": 1, name: value}));
        assert_eq!(result, json!({"offset": if value == "m" { 1 } else { 2 }}));
    }
    // Whoever repeats it.
    let mut peer = Peer::open(&api.server);
    peer.send_text(r#"{"action":"publish","channel":"kept:x","data":2,"messageId":"m"}"#);
    assert_eq!(peer.json()["offset"], 1);
    api.server.wait_for_counter("duplicates", 2);
}

#[test]
fn a_broadcast_answers_for_each_channel() {
    let api = Api::start(&HISTORY);
    let mut peer = Peer::open(&api.server);
    peer.subscribe("a");
    let channels = json!(["a", "kept:b", "", "system"]);
    let result = api.call("broadcast", &json!({"channels": channels, "data": null}));
    let responses = result["responses"].as_array().expect("a list");
    assert_eq!(responses[0], json!({"result": {}}));
    assert_eq!(responses[1], json!({"result": {"offset": 1}}));
    assert_eq!(responses[2]["error"]["code"], "channel_invalid");
    assert_eq!(responses[3]["error"]["code"], "channel_reserved");
    peer.expect_publication("a", "null");
    let none = api.refused("broadcast", &json!({"channels": [], "data": 1}));
    assert_eq!(none, (400, "invalid_message".to_owned()));
    let many: Vec<_> = (0..1001).map(|number| number.to_string()).collect();
    assert_eq!(api.refused("broadcast", &json!({"channels": many, "data": 1})).0, 400);
}

#[test]
fn a_batch_is_done_in_order() {
    let api = Api::start(&HISTORY);
    let (mut peer, id) = open_named(&api.server);
    let batch = json!({"commands": [
        {"publish": {"channel": "kept:a", "data": 1}},
        {"publish": {"channel": "kept:a", "data": 2}},
        {"subscribe": {"connection": id, "channel": "a"}},
        {"publish": {"channel": "a", "data": 3}},
        {"broadcast": {"channels": ["a", "kept:a"], "data": 4}},
        {"history": {"channel": "kept:a"}},
        {"nonsense": {}},
        {"publish": {"channel": "a"}},
        {"info": {"x": 1}},
        {"info": {}, "publish": {}},
        {"publish": ["a", 1]},
        7,
    ]});
    let result = api.call("batch", &batch);
    let replies = result["replies"].as_array().expect("a list");
    assert_eq!(replies.len(), 12);
    assert_eq!(replies[1], json!({"result": {"offset": 2}}));
    assert_eq!(replies[4]["result"]["responses"][1], json!({"result": {"offset": 3}}));
    assert_eq!(replies[5]["result"]["publications"].as_array().map(Vec::len), Some(3));
    for reply in &replies[6..] {
        assert_eq!(reply["error"]["code"], "invalid_message", "{reply}");
    }
    assert_eq!(peer.json()["data"]["type"], "subscription_confirm");
    peer.expect_publication("a", "3");
    peer.expect_publication("a", "4");
    // An end takes effect at once, whatever is on its way.
    let batch = json!({"commands": [
        {"unsubscribe": {"connection": id, "channel": "a"}},
        {"publish": {"channel": "a", "data": 5}},
    ]});
    api.call("batch", &batch);
    assert_eq!(peer.json()["data"]["type"], "unsubscription_confirm");
    peer.expect_idle();
    assert_eq!(api.refused("batch", &json!({"commands": []})).0, 400);
}

#[test]
fn a_durable_publication_is_answered_when_it_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store");
    let flags = ["--store", store.to_str().expect("text"), "--level", "durable"];
    let api = Api::start(&flags);
    assert_eq!(api.call("publish", &json!({"channel": "d", "data": 1})), json!({"offset": 1}));
    assert_eq!(api.server.counter("store_kept"), 1);
    drop(api);
    let api = Api::start(&flags);
    // The log has to tell first where the channel is.
    let page = api.call("history", &json!({"channel": "d"}));
    assert_eq!(page["publications"], json!([{"offset": 1, "data": 1}]));
    assert_eq!(api.call("publish", &json!({"channel": "d", "data": 2})), json!({"offset": 2}));
}
