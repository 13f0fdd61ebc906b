//! The JSON of clients: the verdict of `serde_json` on every text, the commands of the reference,
//! spans byte for byte, and replies that are JSON again.

#![no_main]

mod reference;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use stentor::ids::Epoch;
use stentor::proto::encoder::{publication_frame, retained_frame};
use stentor::proto::json::{DEPTH_MAX, JsonError, RawString, Scanner};
use stentor::proto::{
    Command, Commands, Data, ErrorCode, Rejection, RequestId, Standing, Subscription, inbox, reply,
};
use stentor_fuzz::within_cpu_time;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    within_cpu_time(text.len(), || {
        check_value(&text);
        check_commands(&text);
    });
});

/// The one value of a text. Difference: deeper than 64 there is none for us; with a `RawValue`
/// `serde_json` has no such limit. Numbers have no range, and strings any escapes, in both.
fn check_value(text: &str) {
    let mut scanner = Scanner::new(text);
    let ours = scanner.value().and_then(|value| {
        scanner.whitespace();
        if scanner.rest().is_empty() { Ok(value) } else { Err(JsonError::Syntax) }
    });
    match serde_json::from_str::<&RawValue>(text) {
        Ok(theirs) if reference::depth(theirs.get()) > DEPTH_MAX as usize => {
            assert_eq!(ours, Err(JsonError::TooDeep));
        }
        Ok(theirs) => assert!(ours.is_ok_and(|ours| is_same_span(ours, theirs.get())), "{ours:?}"),
        Err(error) => assert!(ours.is_err(), "{ours:?}: {error}"),
    }
    if let Some(string) = ours.ok().and_then(RawString::of_value) {
        let theirs = serde_json::from_str::<String>(text).ok();
        assert_eq!(string.decode().as_deref(), theirs.as_deref());
    }
}

fn check_commands(text: &str) {
    let expected = reference::commands(text);
    let ours: Vec<_> = Commands::new(text).collect();
    assert_eq!(ours.len(), expected.len(), "{ours:?} is not {expected:?}");
    for (ours, expected) in ours.iter().zip(&expected) {
        match (ours, expected) {
            (Ok(ours), Ok(expected)) => {
                assert_eq!(ours, expected);
                check_command(ours, expected);
            }
            (Err(ours), Err(expected)) => {
                // What it says to people is for us alone to choose.
                let message = ours.message.clone();
                assert_eq!(ours, &Rejection { message, ..expected.clone() });
                check_rejection(ours);
            }
            _ => panic!("{ours:?} is not {expected:?}"),
        }
    }
}

/// Spans are equal already; that they are the very same bytes, and what is answered.
fn check_command(ours: &Command<'_>, expected: &Command<'_>) {
    match (ours, expected) {
        (
            Command::Publish { channel, data: Data::Json(data), id, message_id, tags, .. },
            Command::Publish { data: Data::Json(theirs), .. },
        ) => {
            assert!(is_same_span(data, theirs));
            if let Some(tags) = tags {
                let tagged =
                    Reply::read(&publication_frame(channel, &tags.before(data.as_bytes())));
                assert_eq!(tagged.string("channel"), **channel);
                assert_eq!(tagged.json("tags"), Some(tags.as_json()));
                assert_eq!(tagged.json("data"), Some(*data));
            }
            let publication = Reply::read(&publication_frame(channel, data.as_bytes()));
            assert_eq!(publication.string("channel"), **channel);
            assert_eq!(publication.json("data"), Some(*data));
            let ack = Reply::read(&reply::publish_ack(*id, *message_id, channel, None));
            assert_eq!(ack.string("channel"), **channel);
            assert_eq!(ack.json("requestId"), id.map(RequestId::as_json));
            assert_eq!(ack.json("messageId"), *message_id);
        }
        (
            Command::Direct { channel, data: Data::Json(data), .. },
            Command::Direct { data: Data::Json(theirs), .. },
        ) => {
            assert!(is_same_span(data, theirs));
            let record = inbox::record(channel, data.as_bytes());
            assert_eq!(inbox::as_mark(&record), None);
            let message = Reply::read(&inbox::frame(Epoch(1), 7, &record));
            assert_eq!(message.string("channel"), **channel);
            assert_eq!(message.string("messageId"), "0000000000000001-7");
            assert_eq!(message.json("data"), Some(*data));
        }
        (Command::Subscribe { channel, id, .. }, _) => {
            let standing = Standing::default();
            check_confirm(
                &reply::subscription_confirm(channel, &standing, None, *id),
                channel,
                *id,
            );
        }
        (Command::History { channel, id, .. }, _) => {
            let frames = [retained_frame(channel, 7, b"{}")];
            let page = reply::history_page(channel, None, &frames, Ok(()), true, *id, (1, 2));
            let page = Reply::read(&page);
            assert_eq!(page.json("requestId"), id.map(RequestId::as_json));
            let payload = page.inside("payload");
            assert_eq!(payload.string("channel"), **channel);
            assert_eq!(payload.json("publications"), Some(r#"[{"offset":7,"data":{}}]"#));
        }
        (Command::Unsubscribe { subscription: Subscription::Channel(channel), id }, _) => {
            check_confirm(&reply::unsubscription_confirm(channel, *id), channel, *id);
        }
        (Command::Ping { id, timestamp }, _) => {
            let pong = Reply::read(&reply::pong(*id, *timestamp));
            assert_eq!(pong.string("type"), "pong");
            assert_eq!(pong.json("id"), id.map(RequestId::as_json));
            assert_eq!(pong.json("timestamp"), *timestamp);
        }
        (Command::Message(message), _) => {
            let stamped = message.stamped(Some("a\"b"), 1, 2);
            let text = std::str::from_utf8(&stamped[1..]).expect("text");
            assert!(serde_json::from_str::<&RawValue>(text).is_ok(), "{text}");
            let passed_on = Reply::read(&publication_frame("c", &stamped));
            assert_eq!(passed_on.string("sender"), "a\"b");
        }
        (Command::Routed(message), Command::Routed(theirs)) => {
            assert!(is_same_span(message.text, theirs.text));
            check_rejection(&message.no_route());
        }
        (
            Command::Publish { .. }
            | Command::Presence { .. }
            | Command::Room { .. }
            | Command::Rooms { .. }
            | Command::Groups { .. }
            | Command::Routed(_)
            | Command::Time { .. }
            | Command::Stats { .. }
            | Command::Unsubscribe { .. }
            | Command::Ack { .. }
            | Command::Direct { .. }
            | Command::Auth { .. }
            | Command::Session { .. }
            | Command::Sessions { .. }
            | Command::EndSession { .. }
            | Command::RestoreSession { .. }
            | Command::Pong,
            _,
        ) => {}
    }
}

fn check_confirm(frame: &Bytes, channel: &str, id: Option<RequestId<'_>>) {
    let confirm = Reply::read(frame);
    assert_eq!(confirm.string("channel"), "system");
    let data = confirm.inside("data");
    assert_eq!(data.string("channel"), channel);
    assert_eq!(data.json("requestId"), id.map(RequestId::as_json));
}

fn check_rejection(rejection: &Rejection<'_>) {
    assert!(rejection.message.chars().all(|character| !character.is_control()));
    let error = Reply::read(&reply::error(rejection, 1_700_000_000_000, 7));
    let (error, message) = match rejection.family {
        stentor::proto::Family::Action => (error.inside("data"), "message"),
        stentor::proto::Family::Type => (error, "error"),
    };
    assert_eq!(error.string("type"), "error");
    assert_eq!(error.string("code"), rejection.code.as_str());
    assert_eq!(error.string(message), rejection.message);
    assert_eq!(error.json("requestId"), rejection.id.map(RequestId::as_json));
    let is_action = rejection.family == stentor::proto::Family::Action;
    if let Some(channel) = rejection.channel.as_ref().filter(|_| is_action) {
        assert_eq!(error.string("channel"), **channel);
    }
    assert!(rejection.code != ErrorCode::InvalidJson || rejection.id.is_none());
}

fn is_same_span(ours: &str, theirs: &str) -> bool {
    std::ptr::eq(ours, theirs)
}

/// An object that we sent.
struct Reply(String);

impl Reply {
    /// The payload of one final, unmasked text frame.
    fn read(frame: &[u8]) -> Self {
        let (len, payload) = match frame {
            [0x81, 127, rest @ ..] => {
                let (len, payload) = rest.split_first_chunk().expect("8 bytes of length");
                (u64::from_be_bytes(*len), payload)
            }
            [0x81, 126, rest @ ..] => {
                let (len, payload) = rest.split_first_chunk().expect("2 bytes of length");
                (u64::from(u16::from_be_bytes(*len)), payload)
            }
            [0x81, len @ 0..=125, payload @ ..] => (u64::from(*len), payload),
            _ => panic!("no text frame: {}", frame.escape_ascii()),
        };
        assert_eq!(len, payload.len() as u64);
        Self(String::from_utf8(payload.to_vec()).expect("text is UTF-8"))
    }

    /// A member as it stands there. Panics on what is not an object, or has a member twice.
    fn json(&self, name: &str) -> Option<&str> {
        let members = reference::members(&self.0).expect("a reply is a JSON object");
        let mut found = members.iter().filter(|(key, _)| key.as_deref() == Some(name));
        let value = found.next().map(|(_, value)| *value);
        assert!(found.next().is_none(), "{name} comes twice: {}", self.0);
        value
    }

    fn string(&self, name: &str) -> String {
        let value = self.json(name).expect(name);
        serde_json::from_str(value).expect("what we wrote as a string is one")
    }

    fn inside(&self, name: &str) -> Self {
        Self(self.json(name).expect(name).to_owned())
    }
}
