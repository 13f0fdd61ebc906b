//! The examples of `tests/server/protocol/`, which are data: what a client says and what the server answers, on
//! the real binary, in both encodings.

mod fields;
mod translation;

use std::fs;
use std::path::Path;

use prost::Message;
use serde_json::Value;

use crate::support::envelope::Envelope;
use crate::support::envelope::envelope::Body;
use crate::support::*;
use translation::Translator;

const CONFIGURATION: &str = r#"
[limits]
max_errors = 1000

[namespaces.kept]
level = "history"

[namespaces.deals]
tags = true

[namespaces.sales]
tags = true
level = "history"

[namespaces.open]
presence = true
"#;

/// Whether a message is as expected; `"*"` fits anything.
fn fits(expected: &Value, message: &Value) -> bool {
    match (expected, message) {
        (Value::String(any), _) if any == "*" => true,
        (Value::Object(expected), Value::Object(message)) => {
            expected.len() == message.len()
                && expected.iter().all(|(key, value)| {
                    message.get(key).is_some_and(|message| fits(value, message))
                })
        }
        (Value::Array(expected), Value::Array(message)) => {
            expected.len() == message.len()
                && expected.iter().zip(message).all(|(expected, message)| fits(expected, message))
        }
        _ => expected == message,
    }
}

/// A client of one of the two encodings, which hears and says everything in JSON.
struct Client {
    peer: Peer,
    /// `None`: JSON is what it speaks.
    translator: Option<Translator>,
}

impl Client {
    #[track_caller]
    fn open(server: &Server, is_binary: bool) -> Self {
        if !is_binary {
            return Self { peer: Peer::open(server), translator: None };
        }
        let mut peer = Peer::speaking(server, "stentor.v1.protobuf");
        let welcome = envelope(&peer.frame());
        assert!(matches!(welcome.body, Some(Body::Welcome(_))), "{welcome:?}");
        Self { peer, translator: Some(Translator::default()) }
    }

    /// # Errors
    ///
    /// Its encoding has no word for it; nothing was sent then.
    fn send(&mut self, line: &str) -> Result<(), String> {
        match &mut self.translator {
            None => self.peer.send_text(line),
            Some(translator) => {
                let payload = translator.request(line)?.encode_length_delimited_to_vec();
                self.peer.send(&frame(OpCode::BINARY, &payload));
            }
        }
        Ok(())
    }

    #[track_caller]
    fn close(self) {
        self.peer.close();
    }

    #[track_caller]
    fn receive(&mut self) -> Value {
        match &self.translator {
            None => self.peer.json(),
            Some(translator) => translator.answer(envelope(&self.peer.frame())),
        }
    }
}

/// The only envelope of a frame.
#[track_caller]
fn envelope(frame: &Frame) -> Envelope {
    assert_eq!(frame.opcode, OpCode::BINARY, "{frame:?}");
    let mut rest = &frame.payload[..];
    let envelope = Envelope::decode_length_delimited(&mut rest).expect("an envelope");
    assert!(rest.is_empty(), "{frame:?}");
    envelope
}

/// Plays one file; how many messages it expects.
fn play(name: &str, is_binary: bool) -> usize {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("stentor.toml");
    fs::write(&config, CONFIGURATION).expect("it is ours");
    let server = Server::start(&["--config", config.to_str().expect("text")]);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/protocol").join(name);
    let text = fs::read_to_string(file).expect("it is there");
    let (mut client, mut expected) = (None, 0);
    // Why what is said next has no words in protobuf; whether what was said had none.
    let (mut json_only, mut is_passed_over) = (None, false);
    for (number, line) in text.lines().enumerate() {
        let at = format!("{name}:{}", number + 1);
        if line.is_empty() {
            // Nothing more was said than what was expected.
            if let Some(client) = client.take() {
                Client::close(client);
            }
            continue;
        }
        if let Some(reason) = line.strip_prefix("json only: ") {
            json_only = Some(reason);
            continue;
        }
        let Some((mark, rest)) = line.split_once(' ') else { panic!("{at}: {line}") };
        match mark {
            "#" => {}
            ">" => {
                let client = client.get_or_insert_with(|| Client::open(&server, is_binary));
                let said = client.send(rest);
                match (&said, json_only.take()) {
                    (Ok(()), Some(reason)) if is_binary => {
                        panic!("{at}: protobuf has words for it, although {reason}")
                    }
                    (Err(why), None) => panic!("{at}: protobuf has no words for it: {why}"),
                    _ => is_passed_over = said.is_err(),
                }
            }
            "<" if is_passed_over => {}
            "<" => {
                let message = client.as_mut().unwrap_or_else(|| panic!("{at}: nobody")).receive();
                let wanted =
                    serde_json::from_str(rest).unwrap_or_else(|error| panic!("{at}: {error}"));
                assert!(fits(&wanted, &message), "{at}: {message}");
                expected += 1;
            }
            _ => panic!("{at}: {line}"),
        }
    }
    if let Some(client) = client {
        client.close();
    }
    expected
}

#[test]
fn actions_are_answered_as_the_examples_say() {
    assert!(play("actions.txt", false) > 30);
}

#[test]
fn actions_are_answered_in_protobuf_too() {
    assert!(play("actions.txt", true) > 20);
}

#[test]
fn types_are_answered_as_the_examples_say() {
    assert!(play("types.txt", false) > 30);
}

#[test]
fn types_are_answered_in_protobuf_too() {
    assert!(play("types.txt", true) > 20);
}

#[test]
fn rooms_are_answered_as_the_examples_say() {
    assert!(play("rooms.txt", false) > 25);
}

#[test]
fn rooms_are_answered_in_protobuf_too() {
    assert!(play("rooms.txt", true) > 25);
}
