//! Publications as nearly every client writes them, read without asking for what is not there.

use std::borrow::Cow;

use crate::ids::check_topic_name;
use crate::proto::command::{Command, next_message};
use crate::proto::data::Data;
use crate::proto::json::Scanner;

/// How a message begins that is written as `JSON.stringify` writes `{action: "publish", channel, data, …}`.
pub(super) struct Opening<'a> {
    /// A JSON string without escapes, with its quotes.
    pub(super) channel: &'a str,
    /// One JSON value.
    pub(super) data: &'a str,
    /// Behind the data.
    pub(super) rest: Scanner<'a>,
}

impl<'a> Opening<'a> {
    /// `None`: it begins in another way, or what is there is wrong: the slow way tells.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let mut scanner = Scanner::new(text);
        if !scanner.literal(r#"{"action":"publish","channel":"#) {
            return None;
        }
        let channel = scanner.plain_string()?;
        let data = if scanner.literal(r#","data":"#) { scanner.member()? } else { return None };
        Some(Self { channel, data, rest: scanner })
    }

    /// The publication, if this is all of it and nothing is wrong, and the text behind it.
    pub(super) fn publication(&self) -> Option<(Command<'a>, &'a str)> {
        let mut scanner = self.rest.clone();
        let channel = self.channel.strip_prefix('"')?.strip_suffix('"')?;
        if !scanner.literal("}") || check_topic_name(channel).is_err() {
            return None;
        }
        let rest = next_message(&mut scanner).ok()?;
        let publish = Command::Publish {
            channel: Cow::Borrowed(channel),
            data: Data::Json(self.data),
            echo: true,
            id: None,
            message_id: None,
            filter: None,
            tags: None,
        };
        Some((publish, rest))
    }
}
