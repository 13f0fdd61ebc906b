//! The fields of messages that are passed on whole: `event`, and the chat envelope of `text`, `image` and
//! `file`.

use std::borrow::Cow;

use crate::proto::command::fields::{Fields, Refused, channel, decode, displayed_name, invalid};
use crate::proto::command::recall::members;
use crate::proto::command::{Command, RequestId};
use crate::proto::error_code::ErrorCode;
use crate::proto::json::RawString;
use crate::proto::typed::{MINOR_VERSION, TypedMessage};

/// Longest `sender`, in bytes as it was written between the quotes.
const SENDER_BYTES_MAX: usize = 255;

impl<'a> Fields<'a> {
    /// An event goes to the channel of its name.
    pub fn event(&self, id: Option<RequestId<'a>>) -> Result<Command<'a>, Refused> {
        let payload = self.payload.ok_or_else(|| invalid("`payload` is missing"))?;
        let [event, _] = members(payload, "payload", ["event", "data"])?;
        let event = event.ok_or_else(|| invalid("`event` is missing in `payload`"))?;
        // So that an error speaks of the field that is there.
        decode(event, "event")?;
        let event = channel(Some(event))?;
        // Who looks at `channel` alone would take it for a message of that one, or of the server.
        if self.channel.is_some() && self.channel()? != event {
            return Err(invalid("`channel` must be the name of the event, or absent"));
        }
        self.typed(id, Some(event), "event")
    }

    /// What is said in a chat goes to the channel it names, itself or in its metadata.
    pub fn chat(
        &self,
        id: Option<RequestId<'a>>,
        kind: &'static str,
    ) -> Result<Command<'a>, Refused> {
        let payload = self.payload.ok_or_else(|| invalid("`payload` is missing"))?;
        let [] = members(payload, "payload", [])?;
        let named = match (self.channel, self.metadata) {
            (Some(_), _) => self.channel,
            (None, Some(metadata)) => members(metadata, "metadata", ["channel"])?[0],
            (None, None) => None,
        };
        let named = named.map(|name| channel(Some(name))).transpose()?;
        self.typed(id, named, kind)
    }

    fn typed(
        &self,
        id: Option<RequestId<'a>>,
        channel: Option<Cow<'a, str>>,
        kind: &'static str,
    ) -> Result<Command<'a>, Refused> {
        // What the server adds nobody else says: of two, readers take the last.
        for (name, value) in [("offset", self.offset), ("deliveryId", self.delivery_id)] {
            if value.is_some() {
                return Err(invalid(format!("`{name}` is for the server to say")));
            }
        }
        self.check_version()?;
        let is_event = kind == "event";
        let (echo, message_id) = (self.echo()?, self.message_id()?);
        let timestamp = self.timestamp()?;
        let sender = self.sender.map(|sender| {
            let is_text = RawString::of_value(sender).is_some_and(|text| {
                text.raw().len() <= SENDER_BYTES_MAX && text.decode().is_some()
            });
            let must =
                || invalid(format!("`sender` must be text of at most {SENDER_BYTES_MAX} bytes"));
            // Its value is a part of the text.
            let start = sender.as_ptr().addr() - self.text.as_ptr().addr();
            if is_text { Ok(start..start + sender.len()) } else { Err(must()) }
        });
        Ok(Command::Message(Box::new(TypedMessage {
            kind,
            channel,
            echo,
            id,
            message_id,
            text: self.text,
            sender: sender.transpose()?,
            lacks_id: is_event && id.is_none(),
            lacks_timestamp: is_event && timestamp.is_none(),
        })))
    }

    /// `MAJOR.MINOR`: a newer minor version is as good as ours, what it has of its own is passed on.
    pub(super) fn check_version(&self) -> Result<(), Refused> {
        let Some(version) = self.version else { return Ok(()) };
        let text = RawString::of_value(version).and_then(RawString::decode);
        let is_spoken = text.as_deref().is_some_and(|text| {
            let is_number = |part: &str| {
                (1..=9).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
            };
            let parts = text.split_once('.');
            parts.is_some_and(|(major, minor)| is_number(major) && major == "1" && is_number(minor))
        });
        if is_spoken {
            return Ok(());
        }
        let shown = displayed_name(text.as_deref().unwrap_or(version));
        let message = format!(
            "version `{shown}` is not spoken: `version` must be 1.0 to 1.{MINOR_VERSION}, or a newer 1.x"
        );
        Err((ErrorCode::UnsupportedVersion, Cow::Owned(message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::command::Commands;

    fn one(frame: &str) -> Result<Box<TypedMessage<'_>>, (ErrorCode, String)> {
        match Commands::new(frame).next().expect("a message") {
            Ok(Command::Message(message)) => Ok(message),
            Ok(other) => panic!("{other:?}"),
            Err(rejection) => Err((rejection.code, rejection.message.into_owned())),
        }
    }

    fn stamped(frame: &str, sender: Option<&str>) -> String {
        let bytes = one(frame).expect("a message").stamped(sender, 9, 5);
        String::from_utf8(bytes).expect("text").split_off(1)
    }

    #[test]
    fn an_event_goes_to_the_channel_of_its_name_with_all_that_everybody_gets() {
        let bare = r#" {"type":"event", "payload":{"event":"a:b","data":[1]},"x":"\u00e9"} "#;
        assert_eq!(one(bare).unwrap().channel.as_deref(), Some("a:b"));
        assert_eq!(
            stamped(bare, Some("b\"b")),
            r#"{"id":"5","timestamp":9,"sender":"b\"b","type":"event", "payload":{"event":"a:b","data":[1]},"x":"\u00e9"}"#
        );
        let whole =
            r#"{"id":7,"sender" : "forged","timestamp":1,"type":"event","payload":{"event":"e"}}"#;
        assert_eq!(
            stamped(whole, Some("bob")),
            r#"{"id":7,"sender" : "bob","timestamp":1,"type":"event","payload":{"event":"e"}}"#
        );
        assert_eq!(stamped(whole, None), whole);
    }

    #[test]
    fn what_is_said_in_a_chat_goes_where_it_says() {
        let to = |fields: &str| {
            let frame = format!(r#"{{"type":"text","payload":{{"content":"x"}}{fields}}}"#);
            one(&frame).map(|message| message.channel.map(Cow::into_owned))
        };
        assert_eq!(to(r#","channel":"a""#), Ok(Some("a".into())));
        assert_eq!(to(r#","metadata":{"channel":"b"}"#), Ok(Some("b".into())));
        assert_eq!(to(r#","channel":"a","metadata":{"channel":"b"}"#), Ok(Some("a".into())));
        assert_eq!(to(r#","metadata":{}"#), Ok(None));
        assert_eq!(to(r#","metadata":7"#).unwrap_err().1, "`metadata` must be an object");
        assert_eq!(to(r#","channel":"system""#).unwrap_err().0, ErrorCode::ChannelReserved);
        let frame = r#"{"type":"image","messageId":"m","payload":{},"channel":"a","echo":false}"#;
        let message = one(frame).unwrap();
        assert_eq!((message.message_id, message.echo), (Some("\"m\""), false));
        assert_eq!(stamped(frame, None), frame);
    }

    #[test]
    fn versions_of_the_same_major_are_spoken() {
        let with = |version: &str| {
            let frame =
                format!(r#"{{"type":"text","channel":"a","payload":{{}},"version":{version}}}"#);
            one(&frame).map(drop).map_err(|(code, _)| code)
        };
        for version in [r#""1.0""#, r#""1.2""#, r#""1.3""#, r#""1.999999999""#, r#""1\u002e1""#] {
            assert_eq!(with(version), Ok(()), "{version}");
        }
        for version in [
            r#""2.0""#,
            r#""0.9""#,
            r#""1""#,
            r#""1.""#,
            r#"".2""#,
            r#""1.x""#,
            r#""1.2.3""#,
            r#""-1.2""#,
            r#""1.1234567890""#,
            r#""""#,
            "1.2",
            "null",
            "{}",
            r#""\ud800""#,
            r#""01.2""#,
        ] {
            assert_eq!(with(version), Err(ErrorCode::UnsupportedVersion), "{version}");
        }
    }

    #[test]
    fn fields_are_named_when_they_are_wrong() {
        for (fields, expected) in [
            (r#""type":"event""#, "`payload` is missing"),
            (r#""type":"event","payload":[]"#, "`payload` must be an object"),
            (r#""type":"event","payload":{}"#, "`event` is missing in `payload`"),
            (r#""type":"event","payload":{"event":7}"#, "`event` must be a string of Unicode text"),
            (r#""type":"text""#, "`payload` is missing"),
            (r#""type":"file","payload":"x""#, "`payload` must be an object"),
            (
                r#""type":"text","payload":{},"sender":7"#,
                "`sender` must be text of at most 255 bytes",
            ),
            (
                r#""type":"text","payload":{},"sender":"\udc00""#,
                "`sender` must be text of at most 255 bytes",
            ),
            (
                r#""type":"text","payload":{},"sender":"a","sender":"b""#,
                "`sender` appears more than once",
            ),
            (
                r#""type":"text","payload":{},"messageId":7"#,
                "`messageId` must be a string of 1 to 128 bytes",
            ),
            (r#""type":"text","payload":{},"echo":1"#, "`echo` must be true or false"),
            (r#""type":"text","payload":{},"offset":9"#, "`offset` is for the server to say"),
            (
                r#""type":"event","payload":{"event":"e"},"\u006fffset":9"#,
                "`offset` is for the server to say",
            ),
            (
                r#""type":"text","payload":{},"deliveryId":"1-9""#,
                "`deliveryId` is for the server to say",
            ),
            (
                r#""type":"event","payload":{"event":"e"},"channel":"other","data":{}"#,
                "`channel` must be the name of the event, or absent",
            ),
        ] {
            let frame = format!("{{{fields}}}");
            let expected = (ErrorCode::InvalidMessage, expected.to_owned());
            assert_eq!(one(&frame).expect_err(&frame), expected);
        }
    }
}
