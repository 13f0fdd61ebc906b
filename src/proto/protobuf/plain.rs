//! Publications as nearly every client writes them, read without asking for what is not there.

use std::borrow::Cow;

use crate::ids::check_topic_name;
use crate::proto::command::Command;
use crate::proto::data::Data;
use crate::proto::protobuf::number;
use crate::proto::protobuf::wire::Reader;

/// The publication that an envelope is, if it has nothing but a channel and data, in the order of their numbers.
/// `None`: it is another, or something in it is wrong: the slow way tells.
pub(super) fn publication(envelope: &[u8]) -> Option<Command<'_>> {
    let mut reader = Reader::new(envelope);
    let mut publish = Reader::new(reader.expect_delimited(number::PUBLISH)?);
    let channel = publish.expect_delimited(1)?;
    let data = publish.expect_delimited(2)?;
    if !reader.rest().is_empty() || !publish.rest().is_empty() {
        return None;
    }
    let channel = simdutf8::basic::from_utf8(channel).ok()?;
    check_topic_name(channel).ok()?;
    Some(Command::Publish {
        channel: Cow::Borrowed(channel),
        data: Data::Bytes(data),
        echo: true,
        id: None,
        message_id: None,
        filter: None,
        tags: None,
    })
}
