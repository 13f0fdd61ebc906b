//! Publications between the two encodings. What is kept, and what came in JSON, is passed on as a frame of
//! JSON; what came in protobuf and is for now alone, as one of protobuf. The other is made of it where
//! somebody is to get that.

use std::borrow::Cow;

use bytes::Bytes;
use data_encoding::BASE64;

use crate::proto::data::Data;
use crate::proto::encoder::{self, frame_payload, header_len, push_header};
use crate::proto::encoding::Encoding;
use crate::proto::json::{RawString, Scanner};
use crate::proto::opcode::OpCode;
use crate::proto::protobuf::field::{
    Field, binary_frame, delimited_len, varint_len, write_delimited, write_lead, write_varint,
};
use crate::proto::protobuf::number;
use crate::proto::protobuf::typed::message_frame;
use crate::proto::protobuf::wire::Reader;
use crate::proto::tags::pairs;

/// What stands behind `"data":` in the JSON of a publication whose data is these bytes, which are not
/// JSON: `"…","encoding":"base64"`.
pub fn bytes_as_json(bytes: &[u8]) -> String {
    const AROUND: [&str; 2] = ["\"", "\",\"encoding\":\"base64\""];
    let length = AROUND.map(str::len).iter().sum::<usize>() + BASE64.encode_len(bytes.len());
    let mut json = String::with_capacity(length);
    json.push_str(AROUND[0]);
    BASE64.encode_append(bytes, &mut json);
    json.push_str(AROUND[1]);
    json
}

/// A publication of these bytes on a channel without history, as `binary_frame` makes it of its fields.
pub fn publication_frame(channel: &str, data: &[u8]) -> Bytes {
    // Text and bytes that are empty are left out; a channel is not.
    let data_len = if data.is_empty() { 0 } else { delimited_len(2, data.len()) };
    let mut out = begun_frame(delimited_len(1, channel.len()) + data_len);
    write_delimited(1, channel.as_bytes(), &mut out);
    if !data.is_empty() {
        write_delimited(2, data, &mut out);
    }
    debug_assert_eq!(out.len(), out.capacity());
    Bytes::from(out)
}

/// The same of a whole publication, see [`Data::Plain`]; on the hot path.
#[inline]
pub fn plain_frame(publication: &[u8]) -> Bytes {
    let mut out = begun_frame(publication.len());
    out.extend_from_slice(publication);
    debug_assert_eq!(out.len(), out.capacity());
    Bytes::from(out)
}

/// A frame up to the fields of its publication, and room for them, which take so many bytes.
#[inline]
fn begun_frame(publication_len: usize) -> Vec<u8> {
    const BINARY: u8 = 0x80 | OpCode::Binary.bits();
    const KEY: u8 = (number::PUBLICATION << 3 | 2) as u8;
    const fn two_bytes(length: usize) -> [u8; 2] {
        [length as u8 | 0x80, (length >> 7) as u8]
    }
    // Nearly always all lengths before the fields have one form, and are one piece.
    match publication_len {
        ..=122 => {
            let [payload, envelope] = [publication_len + 3, publication_len + 2];
            let before = [BINARY, payload as u8, envelope as u8, KEY, publication_len as u8];
            begun_with(before, publication_len)
        }
        128..=16_000 => {
            let [high, low] = (publication_len as u16 + 5).to_be_bytes();
            let ([e0, e1], [p0, p1]) = (two_bytes(publication_len + 3), two_bytes(publication_len));
            begun_with([BINARY, 126, high, low, e0, e1, KEY, p0, p1], publication_len)
        }
        _ => {
            let envelope_len = delimited_len(number::PUBLICATION, publication_len);
            let payload_len = varint_len(envelope_len as u64) + envelope_len;
            let mut out = Vec::with_capacity(header_len(payload_len) + payload_len);
            push_header(OpCode::Binary, payload_len, &mut out);
            write_varint(envelope_len as u64, &mut out);
            write_lead(number::PUBLICATION, publication_len, &mut out);
            out
        }
    }
}

/// These bytes, and room for so many more.
#[inline]
fn begun_with<const N: usize>(before: [u8; N], room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(N + room);
    out.extend_from_slice(&before);
    out
}

/// The publication that is in this frame, in the other encoding.
pub fn translated(frame: &[u8]) -> Bytes {
    match Encoding::of_frame(frame) {
        Encoding::Json => of_json(frame),
        Encoding::Protobuf => as_json(frame).unwrap_or_default(),
    }
}

/// In JSON; `None`: it is not one of [`publication_frame`] or [`plain_frame`].
fn as_json(frame: &[u8]) -> Option<Bytes> {
    let mut reader = Reader::new(frame_payload(frame));
    let mut envelope = Reader::new(reader.delimited().ok()?);
    let mut publication = Reader::new(envelope.expect_delimited(number::PUBLICATION)?);
    let channel = simdutf8::basic::from_utf8(publication.expect_delimited(1)?).ok()?;
    // No bytes are left out.
    let data = publication.expect_delimited(2).unwrap_or_default();
    Some(encoder::publication_frame(channel, Data::Bytes(data).as_json().as_bytes()))
}

/// In protobuf.
fn of_json(frame: &[u8]) -> Bytes {
    let publication = Publication::read(frame);
    if let Some(frame) = publication.message.and_then(message_frame) {
        return frame;
    }
    let channel = Field::Text(1, &publication.channel);
    let [data, offset, message_id, tags, is_message] = publication.fields();
    let fields = [channel, data, offset, message_id, tags, is_message];
    binary_frame(&[Field::Message(number::PUBLICATION, &fields)])
}

/// A publication without its framing.
#[derive(Debug, Default)]
pub(super) struct Publication<'a> {
    channel: Cow<'a, str>,
    data: Cow<'a, [u8]>,
    offset: u64,
    message_id: Cow<'a, str>,
    tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// All of it, if it is a message in the place of a publication.
    message: Option<&'a str>,
}

impl<'a> Publication<'a> {
    /// `frame` is one of ours in JSON, so what does not fit the grammar cannot come up; it would be left out.
    pub fn read(frame: &'a [u8]) -> Self {
        let mut publication = Self::default();
        let (mut is_base64, mut delivery_id) = (false, Cow::default());
        let text = simdutf8::basic::from_utf8(frame_payload(frame)).unwrap_or_default();
        let mut scanner = Scanner::new(text);
        let Some(mut object) = scanner.object() else { return publication };
        while let Ok(Some((key, value))) = object.next_member() {
            // Ours have no escapes; those of messages that are passed on are their clients'.
            match key.decode().as_deref().unwrap_or_default() {
                "channel" => publication.channel = text_of(value),
                "messageId" => publication.message_id = text_of(value),
                "data" => publication.data = Cow::Borrowed(value.as_bytes()),
                "tags" => publication.tags = pairs(value),
                "offset" => publication.offset = value.parse().unwrap_or_default(),
                "encoding" => is_base64 = true,
                "type" => publication.message = Some(text),
                "deliveryId" => delivery_id = text_of(value),
                _ => {}
            }
        }
        if let Some(message) = publication.message {
            let (offset, channel) = (publication.offset, Cow::default());
            let (data, message_id) = (Cow::Borrowed(message.as_bytes()), delivery_id);
            let tags = Vec::new();
            return Self { channel, data, offset, message_id, tags, message: Some(message) };
        }
        if is_base64 && let [b'"', digits @ .., b'"'] = &publication.data[..] {
            publication.data = Cow::Owned(BASE64.decode(digits).unwrap_or_default());
        }
        publication
    }

    /// All but the channel.
    pub fn fields(&self) -> [Field<'_>; 5] {
        let message_id = Field::Text(4, &self.message_id);
        let is_message = Field::flag(8, self.message.is_some());
        let tags = Field::Map(7, &self.tags);
        [Field::Bytes(2, &self.data), Field::Number(3, self.offset), message_id, tags, is_message]
    }
}

fn text_of(value: &str) -> Cow<'_, str> {
    RawString::of_value(value).and_then(RawString::decode).unwrap_or_default()
}
