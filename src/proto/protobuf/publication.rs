//! Publications between the two encodings. The server keeps and passes on one form, the frame of JSON;
//! a frame of protobuf is made from it where somebody is to get one.

use std::borrow::Cow;

use bytes::Bytes;
use data_encoding::BASE64;

use crate::proto::encoder::frame_payload;
use crate::proto::json::{RawString, Scanner};
use crate::proto::protobuf::field::{Field, binary_frame};
use crate::proto::protobuf::number;
use crate::proto::protobuf::typed::message_frame;
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

/// The publication that is in this frame of JSON, for subscribers who speak protobuf.
pub fn publication_frame(json_frame: &[u8]) -> Bytes {
    let publication = Publication::read(json_frame);
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
    /// `frame` is one of ours, so what does not fit the grammar cannot come up; it would be left out.
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
