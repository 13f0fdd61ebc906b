//! What is kept of messages to users, and the frames that become of it. A record is JSON: an object for a
//! message, `{"channel":C,"data":D}`, a number for a mark.

use bytes::Bytes;

use crate::ids::{Epoch, Position};
use crate::proto::encoder::{Part, text_frame};
use crate::proto::json::{Scanner, escape};

const HEAD: &str = r#"{"channel":"#;

/// A message as it is kept until its user has received it. `data` is one JSON value.
pub fn record(channel: &str, data: &[u8]) -> Bytes {
    const MIDDLE: &str = r#","data":"#;
    let length = HEAD.len() + escape::string_len(channel) + MIDDLE.len() + data.len() + 1;
    let mut out = Vec::with_capacity(length);
    out.extend_from_slice(HEAD.as_bytes());
    escape::push_string(channel, &mut out);
    out.extend_from_slice(MIDDLE.as_bytes());
    out.extend_from_slice(data);
    out.push(b'}');
    Bytes::from(out)
}

/// Everything up to this offset was received.
pub fn mark(upto: u64) -> Bytes {
    Bytes::from(upto.to_string())
}

/// The offset of a mark; `None`: the record is a message.
pub fn as_mark(record: &[u8]) -> Option<u64> {
    std::str::from_utf8(record).ok()?.parse().ok()
}

/// A message as each connection of its user gets it: `{"channel":C,"messageId":M,"data":D}`, where M is
/// the same whenever the message comes again.
pub fn frame(epoch: Epoch, offset: u64, record: &[u8]) -> Bytes {
    let fields = std::str::from_utf8(record).ok().and_then(|text| text.strip_prefix(HEAD));
    let mut scanner = Scanner::new(fields.unwrap_or_default());
    // Our own writing, which the log has checked: there is a channel.
    let channel = scanner.value().unwrap_or("\"\"");
    text_frame(&[
        Part::raw(HEAD),
        Part::raw(channel),
        Part::raw(r#","messageId":""#),
        Part::raw(&message_id(Position { epoch, offset })),
        Part::raw("\""),
        Part::raw(scanner.rest()),
    ])
}

fn message_id(Position { epoch, offset }: Position) -> String {
    format!("{epoch}-{offset}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_becomes_a_frame_with_an_id() {
        for channel in ["chat:a", "a\"b\\,\"data\":", "ü"] {
            for data in ["1", r#"{ "a" : [1.0, "}"] }"#, "\"x\""] {
                let record = record(channel, data.as_bytes());
                assert_eq!(record.len(), record.to_vec().capacity());
                assert_eq!(as_mark(&record), None);
                let frame = frame(Epoch(0xE), 7, &record);
                let json: serde_json::Value = serde_json::from_slice(&frame[2..]).unwrap();
                assert_eq!(json["channel"], channel);
                assert_eq!(json["messageId"], "000000000000000e-7");
                assert!(frame.ends_with(format!(r#","data":{data}}}"#).as_bytes()), "{frame:?}");
            }
        }
    }

    #[test]
    fn a_mark_is_no_message() {
        assert_eq!(as_mark(&mark(0)), Some(0));
        assert_eq!(as_mark(&mark(u64::MAX)), Some(u64::MAX));
    }
}
