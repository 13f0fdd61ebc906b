//! Messages that are none, on the real binary, in both encodings: every field of every request in every wrong
//! form has its code, and the connection is as good as before.

mod requests;
mod schema;

use prost::Message;
use serde_json::{Value, json};

use crate::support::envelope::envelope::Body;
use crate::support::envelope::{Envelope, Ping};
use crate::support::*;
use requests::{Edit, Place, Request, requests};
use schema::{Field, Kind, Schema, delimited, field, within};

/// On one event loop, what is refused for its form is answered before what comes behind it. More refusals
/// than these tests bring about would end a connection.
fn start() -> Server {
    let errors = ["--set", "limits.max_errors=50000"];
    Server::start(&[&errors[..], &["--shards", "1", "--max-message-size", "16MiB"]].concat())
}

/// The code of the error that a message in JSON gets, with the request's id; `None`: it gets none.
/// Whatever it is, the connection goes on.
#[track_caller]
fn refusal(peer: &mut Peer, text: &str) -> Option<(String, Value)> {
    peer.send_text(text);
    peer.send_text(r#"{"type":"ping","id":"behind"}"#);
    let mut refusal = None;
    loop {
        let answer = peer.json();
        if answer["type"] == "pong" && answer["id"] == "behind" {
            return refusal;
        }
        let errors = [&answer, &answer["data"]].into_iter();
        for error in errors.filter(|error| error["type"] == "error") {
            let code = error["code"].as_str().expect("a code");
            refusal = Some((code.to_owned(), error["requestId"].clone()));
        }
    }
}

/// Plays every request with each of its places edited, where there is something to edit.
fn with_each_place(edits: impl Fn(&Request, &Place) -> Vec<(Edit, String, Value)>) {
    let server = start();
    let mut peer = Peer::open(&server);
    let mut count = 0;
    for request in requests() {
        for place in &request.places {
            for (edit, code, id) in edits(&request, place) {
                let text = request.edited(place, edit);
                assert_eq!(refusal(&mut peer, &text), Some((code, id)), "{text}");
                count += 1;
            }
        }
    }
    assert!(count > 30, "{count}");
    fresh_client_works(&server);
}

/// The id of the request, unless it is the id that is edited.
fn id_beside(place: &Place) -> Value {
    if place.path == "id" { Value::Null } else { json!("r") }
}

#[test]
fn the_requests_themselves_are_in_order() {
    let server = start();
    let mut peer = Peer::open(&server);
    for request in requests() {
        let refusal = refusal(&mut peer, request.text);
        let code = refusal.as_ref().map_or("", |(code, _)| code);
        assert!(!code.starts_with("invalid"), "{}: {code}", request.text);
        // What may stand in a place is not refused for its kind.
        for place in request.places.iter().filter(|place| place.kinds.contains('n')) {
            let text = request.edited(place, Edit::Replace("null"));
            let refusal = self::refusal(&mut peer, &text);
            assert!(refusal.is_none_or(|(code, _)| !code.starts_with("invalid")), "{text}");
        }
    }
}

#[test]
fn a_value_of_the_wrong_kind_is_refused() {
    with_each_place(|_, place| {
        let kinds = [
            ('n', "null"),
            ('b', "true"),
            ('i', "7"),
            ('-', "-7"),
            ('f', "1.5"),
            ('s', r#""x""#),
            ('a', "[]"),
            ('o', "{}"),
        ];
        let wrong = kinds.into_iter().filter(|(kind, _)| !place.kinds.contains(*kind));
        let edit = |(_, json)| (Edit::Replace(json), place.code.clone(), id_beside(place));
        wrong.map(edit).collect()
    });
}

#[test]
fn what_is_missing_is_missed() {
    with_each_place(|_, place| match place.is_required {
        true => vec![(Edit::Remove, place.code.clone(), id_beside(place))],
        false => Vec::new(),
    });
}

#[test]
fn what_is_there_twice_is_refused() {
    with_each_place(|request, place| {
        // Further down, who has not to be understood may say it twice.
        let is_nested = place.path.contains('.');
        let code = if is_nested { place.code.clone() } else { "invalid_message".to_owned() };
        match request.has(place) {
            true => vec![(Edit::Twice, code, id_beside(place))],
            false => Vec::new(),
        }
    });
}

#[test]
fn half_a_surrogate_is_no_text() {
    with_each_place(|_, place| {
        let edit = Edit::Replace(r#""a\ud800b""#);
        match place.is_text() {
            true => vec![(edit, place.code.clone(), id_beside(place))],
            false => Vec::new(),
        }
    });
}

#[test]
fn what_looks_like_a_number_may_be_none() {
    with_each_place(|_, place| {
        let none = ["NaN", "Infinity", "-", "01", "1.", ".5", "1e", "+1", "0x1", "1_0", "1n"];
        let edit = |json| (Edit::Replace(json), "invalid_json".to_owned(), Value::Null);
        match place.kinds.contains('i') {
            true => none.into_iter().map(edit).collect(),
            false => Vec::new(),
        }
    });
}

#[test]
fn what_is_cut_off_is_no_json() {
    let server = start();
    let mut peer = Peer::open(&server);
    for request in requests() {
        for length in 0..request.text.len() {
            let refusal = refusal(&mut peer, &request.text[..length]);
            let expected = ("invalid_json".to_owned(), Value::Null);
            assert_eq!(refusal, Some(expected), "{}", &request.text[..length]);
        }
    }
}

#[test]
fn ten_megabytes_of_one_word_have_their_code_too() {
    let server = start();
    let mut peer = Peer::open(&server);
    let word = "k".repeat(10 << 20);
    assert_eq!(refusal(&mut peer, &format!(r#"{{"{word}":1,"type":"ping"}}"#)), None);
    for (text, code) in [
        (format!(r#"{{"id":"r","type":"{word}"}}"#), "no_route"),
        (format!(r#"{{"id":"r","action":"{word}"}}"#), "unknown_action"),
        (format!(r#"{{"id":"r","action":"subscribe","channel":"{word}"}}"#), "channel_invalid"),
        (
            format!(r#"{{"id":"r","type":"auth","payload":{{"token":"{word}"}}}}"#),
            "unauthenticated",
        ),
        (
            format!(r#"{{"id":"r","type":"text","channel":"a","payload":{{}},"sender":"{word}"}}"#),
            "invalid_message",
        ),
        (format!(r#"{{"id":"r","type":"query","payload":{{"resource":"{word}"}}}}"#), "no_route"),
    ] {
        let expected = Some((code.to_owned(), json!("r")));
        assert_eq!(refusal(&mut peer, &text), expected, "{}", &text[..40]);
    }
    let id = format!(r#"{{"id":"{word}","type":"ping"}}"#);
    let expected = Some(("invalid_message".to_owned(), Value::Null));
    assert_eq!(refusal(&mut peer, &id), expected);
    // What it is told of them is short.
    peer.send_text(&format!(r#"{{"action":"{word}"}}"#));
    assert!(peer.text().len() < 300);
}

#[test]
fn data_may_be_as_deep_as_a_message_and_no_deeper() {
    let server = start();
    let mut peer = Peer::open(&server);
    let nested = |depth| ["[".repeat(depth), "]".repeat(depth)].concat();
    for (open, close) in [
        (r#"{"action":"publish","channel":"a","data":"#, "}"),
        (r#"{"type":"ping","unknown":"#, "}"),
        (r#"{"type":"event","payload":{"event":"a","data":"#, "}}"),
    ] {
        let depth = 64 - close.len();
        assert_eq!(refusal(&mut peer, &format!("{open}{}{close}", nested(depth))), None);
        let expected = Some(("invalid_json".to_owned(), Value::Null));
        let deeper = format!("{open}{}{close}", nested(depth + 1));
        assert_eq!(refusal(&mut peer, &deeper), expected, "{open}");
    }
}

/// The code of the error that these bytes get in protobuf, as [`refusal`].
#[track_caller]
fn refusal_of_bytes(peer: &mut Peer, payload: &[u8]) -> Option<String> {
    let body = Some(Body::Ping(Ping::default()));
    let ping = Envelope { id: "behind".into(), body, ..Default::default() };
    peer.send(&frame(OpCode::BINARY, payload));
    peer.send(&frame(OpCode::BINARY, &ping.encode_length_delimited_to_vec()));
    let mut refusal = None;
    loop {
        let frame = peer.frame();
        let answer = Envelope::decode_length_delimited(&frame.payload[..]).expect("an envelope");
        match answer.body {
            Some(Body::Pong(_)) if answer.request_id == "behind" => return refusal,
            Some(Body::Error(error)) => refusal = Some(error.code),
            _ => {}
        }
    }
}

#[track_caller]
fn speaking_protobuf(server: &Server) -> Peer {
    let mut peer = Peer::speaking(server, "stentor.v1.protobuf");
    peer.frame();
    peer
}

/// Plays wrong forms of each field that a client may send.
fn with_each_field(forms: impl Fn(&Field) -> Vec<Vec<u8>>) {
    let server = start();
    let mut peer = speaking_protobuf(&server);
    let schema = Schema::read();
    let mut count = 0;
    schema.visit_requests(&mut |path, field| {
        for form in forms(field) {
            let refusal = refusal_of_bytes(&mut peer, &delimited(&within(path, form)));
            assert_eq!(refusal.as_deref(), Some("invalid_protobuf"), "{path:?} {}", field.name);
            count += 1;
        }
    });
    assert!(count > 30, "{count}");
    fresh_client_works(&server);
}

#[test]
fn a_field_of_the_wrong_wire_type_is_refused() {
    with_each_field(|of| {
        let contents: [(u32, &[u8]); 8] = [
            (0, b"\x01"),
            (1, b"12345678"),
            (2, b"\x00"),
            (3, b""),
            (4, b""),
            (5, b"1234"),
            (6, b""),
            (7, b""),
        ];
        let wrong = contents.into_iter().filter(|(wire_type, _)| *wire_type != of.kind.wire_type());
        wrong.map(|(wire_type, content)| field(of.number, wire_type, content)).collect()
    });
}

#[test]
fn a_varint_of_eleven_bytes_is_refused() {
    let long = [&[0x80; 10][..], &[0x01]].concat();
    with_each_field(|of| vec![field(of.number, of.kind.wire_type(), &long)]);
}

#[test]
fn text_that_is_no_utf_8_is_refused_where_there_is_text() {
    with_each_field(|of| match of.kind {
        Kind::Text => vec![field(of.number, 2, b"\x02\xc3\x28"), field(of.number, 2, b"\x01\xff")],
        _ => Vec::new(),
    });
}

#[test]
fn what_is_cut_off_is_no_envelope() {
    let server = start();
    let mut peer = speaking_protobuf(&server);
    let schema = Schema::read();
    for body in schema.requests() {
        let Kind::Message(message) = &body.kind else { panic!("{body:?}") };
        let fields = schema.samples(message);
        let whole = fields.concat();
        let ends: Vec<_> = (0..=fields.len()).map(|count| fields[..count].concat().len()).collect();
        for length in 0..=whole.len() {
            // The body ends here, and what is around it knows.
            let cut = delimited(&within(&[body.number], whole[..length].to_vec()));
            let refusal = refusal_of_bytes(&mut peer, &cut);
            let is_malformed = refusal.as_deref() == Some("invalid_protobuf");
            assert_eq!(is_malformed, !ends.contains(&length), "{} {length}", body.name);
        }
        let frame = delimited(&within(&[body.number], whole));
        for length in 0..frame.len() {
            let refusal = refusal_of_bytes(&mut peer, &frame[..length]);
            assert_eq!(refusal.as_deref(), Some("invalid_protobuf"), "{} {length}", body.name);
        }
    }
    fresh_client_works(&server);
}

#[test]
fn a_field_that_is_unknown_is_passed_over() {
    let server = start();
    let schema = Schema::read();
    let unknown: [(u32, &[u8]); 4] =
        [(0, b"\x01"), (1, b"12345678"), (2, b"\x03\xff\xff\xff"), (5, b"1234")];
    for body in schema.requests() {
        let Kind::Message(message) = &body.kind else { panic!("{body:?}") };
        for sample in schema.samples(message) {
            // On a connection for which nothing has changed.
            let ask = |content| {
                let mut peer = speaking_protobuf(&server);
                refusal_of_bytes(&mut peer, &delimited(&within(&[body.number], content)))
            };
            let expected = ask(sample.clone());
            for (wire_type, content) in unknown {
                let unknown = field(1000, wire_type, content);
                let around = [&unknown[..], &sample, &unknown].concat();
                assert_eq!(ask(around), expected, "{} {wire_type}", body.name);
            }
        }
    }
}
