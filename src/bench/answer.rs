//! What the native protocol answers where it numbers publications: read by the places of a few fields,
//! because a load generator reads more of it than a server writes.
//!
//! The server writes these fields itself, without white space, before anything that a client has chosen.

/// What an acknowledgement says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The `id` of the publication.
    pub request: u64,
    /// Its place in the channel; `None`: the channel has no history.
    pub offset: Option<u64>,
}

impl Acknowledgement {
    /// `None` if `message` is something else.
    pub fn read(message: &[u8]) -> Option<Self> {
        if !message.starts_with(br#"{"type":"ack""#) {
            return None;
        }
        let request = number(message, "requestId")?;
        Some(Self { request, offset: number(message, "offset") })
    }
}

/// What a server says about a subscription, not of the channel's publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice<'a> {
    Confirmed {
        channel: &'a str,
        /// Epoch and offset; `None`: the channel has no history.
        position: Option<(&'a str, u64)>,
        /// Whether a place that was asked for could be had; `None` if none was.
        recovered: Option<bool>,
    },
    /// What is not kept any more.
    Gap,
    Other,
}

impl<'a> Notice<'a> {
    /// `None` if `message` is none of the system's.
    pub fn read(message: &'a [u8]) -> Option<Self> {
        let rest = message.strip_prefix(br#"{"channel":"system","data":{"type":""#)?;
        if rest.starts_with(b"gap\"") {
            return Some(Self::Gap);
        }
        let confirmed = || {
            let rest = rest.strip_prefix(b"subscription_confirm\",")?;
            let channel = text(rest, "channel")?;
            let position = text(rest, "epoch").zip(number(rest, "offset"));
            let recovered = value(rest, "recovered").map(|value| value.starts_with(b"true"));
            Some(Self::Confirmed { channel, position, recovered })
        };
        Some(confirmed().unwrap_or(Self::Other))
    }
}

/// The field's value when it is a whole number.
pub fn number(message: &[u8], field: &str) -> Option<u64> {
    let digits = value(message, field)?;
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&digits[..length]).ok()?.parse().ok()
}

/// The field's value when it is a string without escapes.
pub fn text<'a>(message: &'a [u8], field: &str) -> Option<&'a str> {
    let rest = value(message, field)?.strip_prefix(b"\"")?;
    let length = rest.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&rest[..length]).ok()
}

/// What follows the field's name, the first time that it stands there.
fn value<'a>(message: &'a [u8], field: &str) -> Option<&'a [u8]> {
    let field = field.as_bytes();
    let mut rest = message;
    loop {
        let quote = rest.iter().position(|byte| *byte == b'"')?;
        rest = &rest[quote + 1..];
        let behind = rest.strip_prefix(field).and_then(|rest| rest.strip_prefix(b"\":"));
        if behind.is_some() {
            return behind;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Position};
    use crate::proto::command::RequestId;
    use crate::proto::recall::{Recovery, Standing, Unavailable};
    use crate::proto::{encoder, reply};

    /// The message of a frame of the server.
    fn message(frame: &[u8]) -> &[u8] {
        let mut rest = frame;
        super::super::frame::next_frame(&mut rest).unwrap().unwrap().payload
    }

    #[test]
    fn acknowledgements_of_the_server_are_read() {
        let id = RequestId::parse("17").unwrap();
        let with = reply::publish_ack(Some(id), Some("\"m\""), "a:b", Some(4_000_000_000));
        let wanted = Acknowledgement { request: 17, offset: Some(4_000_000_000) };
        assert_eq!(Acknowledgement::read(message(&with)), Some(wanted));
        let without = reply::publish_ack(Some(id), None, "a:b", None);
        let wanted = Acknowledgement { request: 17, offset: None };
        assert_eq!(Acknowledgement::read(message(&without)), Some(wanted));
        assert_eq!(Acknowledgement::read(br#"{"type":"pong","requestId":1}"#), None);
    }

    #[test]
    fn notices_of_the_server_are_read() {
        let position = Some(Position { epoch: Epoch(0xAB), offset: 7 });
        let outcomes = [
            (None, None),
            (Some(Ok(())), Some(true)),
            (Some(Err(Unavailable::Trimmed)), Some(false)),
        ];
        for (outcome, recovered) in outcomes {
            let recovery = outcome.map(|outcome| Recovery { outcome, count: 3 });
            let standing = Standing { position, recovery };
            let frame = reply::subscription_confirm("a:b-3", &standing, Some(4), None);
            let epoch = Epoch(0xAB).to_string();
            let position = Some((epoch.as_str(), 7));
            let wanted = Notice::Confirmed { channel: "a:b-3", position, recovered };
            assert_eq!(Notice::read(message(&frame)), Some(wanted));
        }
        let live = reply::subscription_confirm("a", &Standing::default(), None, None);
        let wanted = Notice::Confirmed { channel: "a", position: None, recovered: None };
        assert_eq!(Notice::read(message(&live)), Some(wanted));
        assert_eq!(Notice::read(message(&reply::gap("a", 1, 2))), Some(Notice::Gap));
        let error = br#"{"channel":"system","data":{"type":"error","message":"no"}}"#;
        assert_eq!(Notice::read(error), Some(Notice::Other));
        assert_eq!(Notice::read(br#"{"channel":"a","data":1}"#), None);
    }

    #[test]
    fn a_name_inside_a_value_is_no_field() {
        assert_eq!(number(br#"{"a":"offset","offset":3}"#, "offset"), Some(3));
        assert_eq!(number(br#"{"offsets":2,"offset":"x"}"#, "offset"), None);
        assert_eq!(text(br#"{"a":"b"}"#, "a"), Some("b"));
        let welcome = encoder::payload_frame(crate::proto::OpCode::Text, b"{}");
        assert_eq!(text(message(&welcome), "sessionId"), None);
    }
}
