//! Publications as nearly every client writes them, read without asking for what is not there.

use std::borrow::Cow;

use crate::ids::check_topic_name;
use crate::proto::command::Command;
use crate::proto::data::Data;
use crate::proto::protobuf::field::delimited_len;
use crate::proto::protobuf::number;
use crate::proto::protobuf::wire::Reader;

/// The publication that the first of these envelopes is, if it has nothing but a channel and data, in the order of
/// their numbers and in their shortest form; and the envelopes behind it. `None`: it is another, or something in
/// it is wrong: the slow way tells.
#[inline]
pub(super) fn publication(envelopes: &[u8]) -> Option<(Command<'_>, &[u8])> {
    let mut reader = Reader::new(envelopes);
    let mut envelope = Reader::new(reader.whole_delimited()?);
    let publication = envelope.expect_delimited(number::PUBLISH)?;
    let mut publish = Reader::new(publication);
    let channel = publish.expect_delimited(1)?;
    let bytes = publish.expect_delimited(2)?;
    let is_all = envelope.rest().is_empty() && publish.rest().is_empty();
    let shortest = delimited_len(1, channel.len()) + delimited_len(2, bytes.len());
    if !is_all || publication.len() != shortest || bytes.is_empty() {
        return None;
    }
    // Most names are too short for anything faster.
    let channel = str::from_utf8(channel).ok()?;
    check_topic_name(channel).ok()?;
    let command = Command::Publish {
        channel: Cow::Borrowed(channel),
        data: Data::Plain { publication, bytes },
        echo: true,
        id: None,
        message_id: None,
        filter: None,
        tags: None,
    };
    Some((command, reader.rest()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::encoder::frame_payload;
    use crate::proto::protobuf::field::{Field, binary_frame};

    #[test]
    fn a_publication_in_every_length_form_is_passed_on_as_it_came() {
        for channel_len in [1, 2, 127, 128, 255] {
            // The lengths of the messages around the data take a byte more a few bytes earlier.
            let around = |length: usize| length - channel_len - 20..length + 5;
            for data_len in (1..300).chain(around(1 << 14)).chain(around(1 << 16)) {
                let (channel, data) = ("c".repeat(channel_len), vec![0xFF; data_len]);
                let fields = [Field::Text(1, &channel), Field::Bytes(2, &data)];
                let sent = binary_frame(&[Field::Message(number::PUBLISH, &fields)]);
                let Some((Command::Publish { channel: read, data: plain, .. }, [])) =
                    publication(frame_payload(&sent))
                else {
                    panic!("{channel_len}, {data_len}")
                };
                let expected = binary_frame(&[Field::Message(number::PUBLICATION, &fields)]);
                assert_eq!((&*read, plain.live_frame(&read)), (&*channel, expected));
            }
        }
    }

    #[test]
    fn what_is_not_in_its_shortest_form_goes_the_slow_way() {
        for envelope in [
            &b"\x09\x62\x07\x0a\x81\x00a\x12\x01b"[..],
            b"\x09\x62\x07\x0a\x01a\x12\x81\x00b",
            b"\x07\x62\x05\x0a\x01a\x12\x00",
            b"\x08\x62\x06\x12\x01b\x0a\x01a",
            b"\x09\x62\x06\x0a\x01a\x12\x01b",
        ] {
            assert!(publication(envelope).is_none(), "{}", envelope.escape_ascii());
        }
        // The lengths around them are not passed on.
        let envelopes = b"\x89\x00\x62\x86\x00\x0a\x01a\x12\x01bmore";
        assert!(matches!(publication(envelopes), Some((_, b"more"))));
    }
}
