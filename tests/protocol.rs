//! The examples of `tests/protocol/`, which are data: what a client says and what the server answers, on
//! the real binary.

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::*;

const CONFIGURATION: &str = r#"
[limits]
max_errors = 1000

[namespaces.kept]
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

/// Plays one file; how many messages it expects.
fn play(name: &str) -> usize {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("stentor.toml");
    fs::write(&config, CONFIGURATION).expect("it is ours");
    let server = Server::start(&["--config", config.to_str().expect("text")]);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protocol").join(name);
    let text = fs::read_to_string(file).expect("it is there");
    let (mut peer, mut expected) = (None, 0);
    for (number, line) in text.lines().enumerate() {
        let at = format!("{name}:{}", number + 1);
        if line.is_empty() {
            // Nothing more was said than what was expected.
            if let Some(peer) = peer.take() {
                Peer::close(peer);
            }
            continue;
        }
        let Some((mark, rest)) = line.split_once(' ') else { panic!("{at}: {line}") };
        match mark {
            "#" => {}
            ">" => peer.get_or_insert_with(|| Peer::open(&server)).send_text(rest),
            "<" => {
                let message = peer.as_mut().unwrap_or_else(|| panic!("{at}: nobody")).json();
                let wanted =
                    serde_json::from_str(rest).unwrap_or_else(|error| panic!("{at}: {error}"));
                assert!(fits(&wanted, &message), "{at}: {message}");
                expected += 1;
            }
            _ => panic!("{at}: {line}"),
        }
    }
    if let Some(peer) = peer {
        peer.close();
    }
    expected
}

#[test]
fn actions_are_answered_as_the_examples_say() {
    assert!(play("actions.txt") > 30);
}

#[test]
fn types_are_answered_as_the_examples_say() {
    assert!(play("types.txt") > 25);
}

#[test]
fn rooms_are_answered_as_the_examples_say() {
    assert!(play("rooms.txt") > 20);
}
