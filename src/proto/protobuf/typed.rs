//! Events and chat messages for subscribers who speak protobuf, from the JSON messages that the server
//! keeps and passes on. What the schema has no field for is left out.

use std::borrow::Cow;

use bytes::Bytes;
use data_encoding::BASE64;

use crate::proto::json::{RawString, Scanner};
use crate::proto::protobuf::chat::TYPES;
use crate::proto::protobuf::field::{Field, binary_frame};
use crate::proto::protobuf::number;

/// The frame of this message, a JSON object of ours. `None`: it is of no type that is passed on.
pub fn message_frame(json: &str) -> Option<Bytes> {
    let message = Object::of(json);
    let type_ = message.text("type");
    if type_ == "event" {
        return Some(event_frame(&message));
    }
    let type_ = TYPES.iter().position(|known| *known == type_)? as u64;
    Some(chat_frame(&message, type_))
}

fn event_frame(message: &Object<'_>) -> Bytes {
    let payload = message.object("payload");
    let data = payload.raw("data").unwrap_or_default();
    let data = match data.as_bytes() {
        [b'"', digits @ .., b'"'] if payload.text("encoding") == "base64" => {
            Cow::Owned(BASE64.decode(digits).unwrap_or_default())
        }
        data => Cow::Borrowed(data),
    };
    binary_frame(&[
        Field::Text(1, &message.plain("id")),
        Field::Message(
            number::EVENT,
            &[
                Field::Text(1, &payload.text("event")),
                Field::Bytes(2, &data),
                Field::Text(3, &message.text("sender")),
                Field::Number(4, message.number("timestamp") as u64),
                Field::Number(5, message.number("offset") as u64),
                Field::Text(6, &message.text("deliveryId")),
            ],
        ),
    ])
}

fn chat_frame(message: &Object<'_>, type_: u64) -> Bytes {
    let payload = message.object("payload");
    let [content, url, mime_type] = ["content", "url", "mimeType"].map(|name| payload.text(name));
    let mentions = payload.texts("mentions");
    let mut fields = Vec::with_capacity(mentions.len() + 3);
    match type_ {
        0 => {
            fields.push(Field::Text(1, &content));
            fields.extend(mentions.iter().map(|name| Field::Text(2, name)));
        }
        1 => fields.extend([
            Field::Text(1, &url),
            Field::Number(2, payload.number("width") as u64),
            Field::Number(3, payload.number("height") as u64),
        ]),
        _ => fields.extend([
            Field::Text(1, &url),
            Field::Number(2, payload.number("size") as u64),
            Field::Text(3, &mime_type),
        ]),
    }
    // `text`, `image` and `file` have the numbers from 5 on, in the order of their types.
    let payload = Field::Message(5 + type_ as u32, &fields);
    let metadata = message.object("metadata");
    let entries: Vec<_> =
        metadata.0.iter().map(|(key, value)| (key.clone(), plain(value))).collect();
    let entries: Vec<_> =
        entries.iter().map(|(key, value)| [Field::Text(1, key), Field::Text(2, value)]).collect();
    let [message_id, sender, channel, version, delivery_id] =
        ["messageId", "sender", "channel", "version", "deliveryId"].map(|name| message.text(name));
    let mut chat = vec![
        Field::Text(1, &message_id),
        Field::Number(2, message.number("timestamp") as u64),
        Field::Number(3, type_),
        Field::Text(4, &sender),
        payload,
    ];
    chat.extend(entries.iter().map(|entry| Field::Message(9, entry)));
    chat.extend([
        Field::Text(10, &channel),
        Field::Text(11, &version),
        Field::Number(12, message.number("offset") as u64),
        Field::Text(13, &delivery_id),
    ]);
    binary_frame(&[Field::Text(1, &message.plain("id")), Field::Message(number::CHAT, &chat)])
}

/// The members of an object, values as they were written. What does not fit is as if it were not there.
struct Object<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Object<'a> {
    fn of(json: &'a str) -> Self {
        let mut members = Vec::new();
        let mut scanner = Scanner::new(json);
        if let Some(mut object) = scanner.object() {
            while let Ok(Some((key, value))) = object.next_member() {
                members.extend(key.decode().map(|key| (key, value)));
            }
        }
        Self(members)
    }

    fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    fn object(&self, name: &str) -> Object<'a> {
        Object::of(self.raw(name).unwrap_or_default())
    }

    /// Of a string.
    fn text(&self, name: &str) -> Cow<'a, str> {
        self.raw(name).and_then(RawString::of_value).and_then(RawString::decode).unwrap_or_default()
    }

    /// The text of a string, or the value as it was written.
    fn plain(&self, name: &str) -> Cow<'a, str> {
        self.raw(name).map(plain).unwrap_or_default()
    }

    /// Of a whole number.
    fn number(&self, name: &str) -> i64 {
        self.raw(name).and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    /// The strings of an array.
    fn texts(&self, name: &str) -> Vec<Cow<'a, str>> {
        let Some(array) = self.raw(name).and_then(|value| value.strip_prefix('[')) else {
            return Vec::new();
        };
        let mut texts = Vec::new();
        let mut scanner = Scanner::new(array);
        while let Ok(value) = scanner.value() {
            texts.extend(RawString::of_value(value).and_then(RawString::decode));
            scanner.whitespace();
            match scanner.rest().strip_prefix(',') {
                Some(rest) => scanner = Scanner::new(rest),
                None => break,
            }
        }
        texts
    }
}

fn plain(value: &str) -> Cow<'_, str> {
    RawString::of_value(value).and_then(RawString::decode).unwrap_or(Cow::Borrowed(value))
}
