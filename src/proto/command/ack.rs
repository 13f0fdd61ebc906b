//! What a client has received: the fields of `ack`, and which subscription `unsubscribe` means.

use std::borrow::Cow;

use crate::ids::Position;
use crate::proto::command::fields::{Fields, Refused, decode, invalid};
use crate::proto::command::recall::whole;

/// What an acknowledgement is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received<'a> {
    /// One publication, by the `messageId` it was delivered with.
    One(Position),
    /// Everything of a channel up to this offset.
    UpTo { channel: Cow<'a, str>, offset: u64 },
}

/// How a client names a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscription<'a> {
    Channel(Cow<'a, str>),
    /// The `subscriptionId` of its confirmation.
    Id(u64),
}

impl<'a> Fields<'a> {
    /// A client may send back more of a delivery than its `messageId`, which counts then.
    pub fn received(&self) -> Result<Received<'a>, Refused> {
        match (self.message_id, self.offset) {
            (Some(id), _) => Position::parse(&decode(id, "messageId")?)
                .map(Received::One)
                .ok_or_else(|| invalid("`messageId` is none that was delivered")),
            (None, Some(offset)) => {
                let offset = whole(offset, "offset")?;
                Ok(Received::UpTo { channel: self.channel()?, offset })
            }
            (None, None) => Err(invalid("an ack needs `messageId`, or `channel` and `offset`")),
        }
    }

    pub fn subscription(&self) -> Result<Subscription<'a>, Refused> {
        match (self.channel, self.subscription_id) {
            (None, Some(id)) => Ok(Subscription::Id(whole(id, "subscriptionId")?)),
            (Some(_), Some(_)) => Err(invalid("`channel` and `subscriptionId` exclude each other")),
            (_, None) => Ok(Subscription::Channel(self.channel()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;
    use crate::proto::command::{Command, Commands};

    fn ack(fields: &str) -> Result<Received<'static>, String> {
        let frame = format!(r#"{{"type":"ack"{fields}}}"#);
        match Commands::new(&frame).next() {
            Some(Ok(Command::Ack { received: Received::One(at), .. })) => Ok(Received::One(at)),
            Some(Ok(Command::Ack { received: Received::UpTo { channel, offset }, .. })) => {
                Ok(Received::UpTo { channel: channel.into_owned().into(), offset })
            }
            Some(Err(rejection)) => Err(rejection.message.into_owned()),
            other => panic!("{other:?}"),
        }
    }

    fn unsubscribe(fields: &str) -> Result<Subscription<'static>, String> {
        let frame = format!(r#"{{"action":"unsubscribe"{fields}}}"#);
        match Commands::new(&frame).next() {
            Some(Ok(Command::Unsubscribe { subscription: Subscription::Id(id), .. })) => {
                Ok(Subscription::Id(id))
            }
            Some(Ok(Command::Unsubscribe {
                subscription: Subscription::Channel(channel), ..
            })) => Ok(Subscription::Channel(channel.into_owned().into())),
            Some(Err(rejection)) => Err(rejection.message.into_owned()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_ack_names_one_publication_or_a_place() {
        let at = Position { epoch: Epoch(255), offset: 12 };
        assert_eq!(ack(r#","messageId":"00000000000000ff-12""#), Ok(Received::One(at)));
        assert_eq!(
            ack(r#","channel":"a","offset":3,"messageId":"00000000000000ff-\u0031\u0032""#),
            Ok(Received::One(at))
        );
        assert_eq!(
            ack(r#","offset":0,"channel":"a:b""#),
            Ok(Received::UpTo { channel: "a:b".into(), offset: 0 })
        );
    }

    #[test]
    fn acks_of_nothing_are_refused() {
        for (fields, expected) in [
            ("", "an ack needs `messageId`, or `channel` and `offset`"),
            (r#","channel":"a""#, "an ack needs `messageId`, or `channel` and `offset`"),
            (r#","messageId":"m-1""#, "`messageId` is none that was delivered"),
            (r#","messageId":"00000000000000ff-0""#, "`messageId` is none that was delivered"),
            (r#","messageId":7"#, "`messageId` must be a string of Unicode text"),
            (r#","offset":1"#, "`channel` is missing"),
            (r#","channel":"system","offset":1"#, "the channel `system` is reserved"),
            (
                r#","channel":"a","offset":-1"#,
                "`offset` must be a whole number from 0 to 18446744073709551615",
            ),
        ] {
            assert_eq!(ack(fields), Err(expected.to_owned()), "{fields}");
        }
    }

    #[test]
    fn a_subscription_has_two_names() {
        assert_eq!(unsubscribe(r#","channel":"a""#), Ok(Subscription::Channel("a".into())));
        assert_eq!(unsubscribe(r#","subscriptionId":7"#), Ok(Subscription::Id(7)));
        for (fields, expected) in [
            ("", "`channel` is missing"),
            (
                r#","channel":"a","subscriptionId":7"#,
                "`channel` and `subscriptionId` exclude each other",
            ),
            (
                r#","subscriptionId":"7""#,
                "`subscriptionId` must be a whole number from 0 to 18446744073709551615",
            ),
        ] {
            assert_eq!(unsubscribe(fields), Err(expected.to_owned()), "{fields}");
        }
    }
}
