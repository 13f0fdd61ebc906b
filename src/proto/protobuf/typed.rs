//! Events, chat messages and notices for subscribers who speak protobuf, from the JSON messages that the server
//! keeps and passes on. What the schema has no field for is left out.

use std::borrow::Cow;

use bytes::Bytes;
use data_encoding::BASE64;

use crate::proto::json::{Members, RawString, Scanner};
use crate::proto::protobuf::chat::TYPES;
use crate::proto::protobuf::field::{Field, binary_frame};
use crate::proto::protobuf::number as body;

/// The frame of this message, a JSON object of ours. `None`: it is of no type that is passed on.
pub fn message_frame(json: &str) -> Option<Bytes> {
    let message = &Members::of(json)?;
    let type_ = text(message, "type");
    if type_ == "event" {
        return Some(event_frame(message));
    }
    if type_ == "presence" {
        return Some(presence_frame(message));
    }
    let type_ = TYPES.iter().position(|known| *known == type_)? as u64;
    Some(chat_frame(message, type_))
}

fn event_frame(message: &Members<'_>) -> Bytes {
    let payload = object(message, "payload");
    let data = payload.raw("data").unwrap_or_default();
    let data = match data.as_bytes() {
        [b'"', digits @ .., b'"'] if text(&payload, "encoding") == "base64" => {
            Cow::Owned(BASE64.decode(digits).unwrap_or_default())
        }
        data => Cow::Borrowed(data),
    };
    binary_frame(&[
        Field::Text(1, &message.raw("id").map(plain).unwrap_or_default()),
        Field::Message(
            body::EVENT,
            &[
                Field::Text(1, &text(&payload, "event")),
                Field::Bytes(2, &data),
                Field::Text(3, &text(message, "sender")),
                Field::Number(4, number(message, "timestamp")),
                Field::Number(5, number(message, "offset")),
                Field::Text(6, &text(message, "deliveryId")),
            ],
        ),
    ])
}

fn presence_frame(message: &Members<'_>) -> Bytes {
    let [joined, left] = ["joined", "left"].map(|name| values(message, name));
    let members = [(2, joined), (3, left)].into_iter().flat_map(|(list, members)| {
        members.into_iter().filter_map(Members::of).map(move |member| {
            let [name, user] = ["connectionId", "userId"].map(|name| text(&member, name));
            let info = member.raw("info").unwrap_or_default();
            (list, name, user, number(&member, "joinedAt"), info)
        })
    });
    let members: Vec<_> = members.collect();
    let entries = members.iter().map(|(list, name, user, joined_at, info)| {
        let joined_at = Field::Number(3, *joined_at);
        (*list, [Field::Text(1, name), Field::Text(2, user), joined_at, Field::Text(4, info)])
    });
    let entries: Vec<_> = entries.collect();
    let channel = text(message, "channel");
    let [clients, users, timestamp] =
        ["clients", "users", "timestamp"].map(|name| number(message, name));
    let mut fields = vec![Field::Text(1, &channel)];
    fields.extend(entries.iter().map(|(list, entry)| Field::Message(*list, entry)));
    fields.extend([
        Field::Number(4, clients),
        Field::Number(5, users),
        Field::flag(6, message.raw("more") == Some("true")),
        Field::Number(7, timestamp),
    ]);
    binary_frame(&[
        Field::Text(1, &message.raw("id").map(plain).unwrap_or_default()),
        Field::Message(body::PRESENCE, &fields),
    ])
}

fn chat_frame(message: &Members<'_>, type_: u64) -> Bytes {
    let payload = object(message, "payload");
    let [content, url, mime_type] = ["content", "url", "mimeType"].map(|name| text(&payload, name));
    let mentions = texts(&payload, "mentions");
    let mut fields = Vec::with_capacity(mentions.len() + 3);
    match type_ {
        0 => {
            fields.push(Field::Text(1, &content));
            fields.extend(mentions.iter().map(|name| Field::Listed(2, name)));
        }
        1 => fields.extend([
            Field::Text(1, &url),
            Field::Number(2, number(&payload, "width")),
            Field::Number(3, number(&payload, "height")),
        ]),
        _ => fields.extend([
            Field::Text(1, &url),
            Field::Number(2, number(&payload, "size")),
            Field::Text(3, &mime_type),
        ]),
    }
    // `text`, `image` and `file` have the numbers from 5 on, in the order of their types.
    let payload = Field::Message(5 + type_ as u32, &fields);
    let metadata = object(message, "metadata");
    let entries: Vec<_> = metadata.iter().map(|(key, value)| (key, plain(value))).collect();
    let entries: Vec<_> =
        entries.iter().map(|(key, value)| [Field::Text(1, key), Field::Text(2, value)]).collect();
    let [message_id, sender, channel, version, delivery_id] =
        ["messageId", "sender", "channel", "version", "deliveryId"].map(|name| text(message, name));
    let mut chat = vec![
        Field::Text(1, &message_id),
        Field::Number(2, number(message, "timestamp")),
        Field::Number(3, type_),
        Field::Text(4, &sender),
        payload,
    ];
    chat.extend(entries.iter().map(|entry| Field::Message(9, entry)));
    chat.extend([
        Field::Text(10, &channel),
        Field::Text(11, &version),
        Field::Number(12, number(message, "offset")),
        Field::Text(13, &delivery_id),
    ]);
    binary_frame(&[
        Field::Text(1, &message.raw("id").map(plain).unwrap_or_default()),
        Field::Message(body::CHAT, &chat),
    ])
}

/// The object in a field; empty if it is none.
fn object<'a>(message: &Members<'a>, name: &str) -> Members<'a> {
    message.raw(name).and_then(Members::of).unwrap_or_default()
}

/// The text in a field; empty if it is none.
fn text<'a>(message: &Members<'a>, name: &str) -> Cow<'a, str> {
    message.text(name).unwrap_or_default()
}

/// The whole number in a field, as protobuf has it; 0 if it is none.
fn number(message: &Members<'_>, name: &str) -> u64 {
    message.number::<i64>(name).unwrap_or_default() as u64
}

/// The strings of the array in a field.
fn texts<'a>(message: &Members<'a>, name: &str) -> Vec<Cow<'a, str>> {
    let values = values(message, name).into_iter();
    values.filter_map(|value| RawString::of_value(value)?.decode()).collect()
}

/// The values of the array in a field, as they were written.
fn values<'a>(message: &Members<'a>, name: &str) -> Vec<&'a str> {
    let Some(array) = message.raw(name).and_then(|value| value.strip_prefix('[')) else {
        return Vec::new();
    };
    let mut values = Vec::new();
    let mut scanner = Scanner::new(array);
    while let Ok(value) = scanner.value() {
        values.push(value);
        scanner.whitespace();
        match scanner.rest().strip_prefix(',') {
            Some(rest) => scanner = Scanner::new(rest),
            None => break,
        }
    }
    values
}

/// The text of a string, or the value as it was written.
fn plain(value: &str) -> Cow<'_, str> {
    RawString::of_value(value).and_then(RawString::decode).unwrap_or(Cow::Borrowed(value))
}
