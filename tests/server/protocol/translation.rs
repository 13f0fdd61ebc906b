//! The examples in the other encoding: requests in JSON become envelopes, and envelopes of the server
//! become the JSON that says the same. Nothing of the server's own reads or writes either here.

use std::collections::HashMap;

use data_encoding::BASE64;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::fields::{Fields, Said};
use crate::support::envelope::chat_message::Payload;
use crate::support::envelope::envelope::Body;
use crate::support::envelope::{
    Ack, Audience, Auth, ChannelPosition, ChatMessage, Command, CommandPayload, Confirmation,
    EndSession, Envelope, Event, FilePayload, History, ImagePayload, Member, Ping, Pong, Position,
    Presence, Publication, Publish, Query, RestoreSession, Subscribe, TextPayload, Unsubscribe,
};

const TYPES: [&str; 4] = ["text", "image", "file", "command"];
const ACTIONS: [&str; 4] = ["join", "leave", "mute", "kick"];

/// What of a conversation in JSON an envelope does not say.
#[derive(Debug, Default)]
pub struct Translator {
    /// The ids as the client wrote them, by their text.
    ids: HashMap<String, Value>,
    /// The request before was an `action`, and is answered as one.
    is_action: bool,
    /// The channel of the request before was there, and empty.
    channel_is_empty: bool,
}

impl Translator {
    /// The envelope of a request; else why there is none that says it.
    pub fn request(&mut self, line: &str) -> Said<Envelope> {
        let mut fields = Fields::of("the message", line)?;
        self.is_action = fields.has("action");
        self.channel_is_empty = false;
        let id = self.id(&mut fields)?;
        let body = if self.is_action { self.action(&mut fields)? } else { typed(&mut fields)? };
        fields.end()?;
        Ok(Envelope { id, request_id: String::new(), body: Some(body) })
    }

    fn id(&mut self, fields: &mut Fields<'_>) -> Said<String> {
        let Some(raw) = fields.take("id") else { return Ok(String::new()) };
        let id: Value = serde_json::from_str(raw).expect("it was read before");
        let text = match &id {
            Value::String(text) if !text.is_empty() => text.clone(),
            Value::Number(_) => raw.to_owned(),
            _ => return Err(format!("an id that is {raw}")),
        };
        let known = self.ids.entry(text.clone()).or_insert_with(|| id.clone());
        if *known == id { Ok(text) } else { Err(format!("{raw} besides {known}")) }
    }

    fn action(&mut self, fields: &mut Fields<'_>) -> Said<Body> {
        let action = fields.required("action")?;
        let channel = fields.present("channel");
        self.channel_is_empty = channel.as_ref().is_ok_and(String::is_empty);
        match &*action {
            "subscribe" => {
                let recover = fields.object("recover")?.map(|mut recover| {
                    let epoch = recover.required("epoch")?;
                    let offset = recover.number("offset")?.ok_or("no `offset` in `recover`")?;
                    recover.end().map(|()| Position { epoch, offset })
                });
                let from_start = fields.take_if("since", r#""start""#);
                let since = fields.number("since")?;
                let (limit, filter) = (fields.number("limit")?, fields.text("filter")?);
                let (channel, recover) = (channel?, recover.transpose()?);
                let body = Subscribe { channel, recover, since, from_start, limit, filter };
                Ok(Body::Subscribe(body))
            }
            "unsubscribe" => {
                let subscription_id = fields.number("subscriptionId")?;
                let channel = match subscription_id {
                    Some(_) => channel.unwrap_or_default(),
                    None => channel?,
                };
                Ok(Body::Unsubscribe(Unsubscribe { channel, subscription_id }))
            }
            "publish" => {
                let to = fields.object("to")?.map_or(Ok((None, None)), addressee);
                let (to_user, to) = to?;
                let tags = fields.take("tags").map_or(Ok(HashMap::new()), serde_json::from_str);
                Ok(Body::Publish(Publish {
                    channel: channel?,
                    data: fields.take("data").ok_or("no `data`, which is empty there")?.into(),
                    message_id: fields.text("messageId")?,
                    no_echo: fields.truth("echo")? == Some(false),
                    to_user,
                    to,
                    filter: fields.text("filter")?,
                    tags: tags.map_err(|_| "`tags` that are no texts")?,
                }))
            }
            other => Err(format!("the action `{other}`")),
        }
    }

    /// What the server says, as it says it in JSON.
    pub fn answer(&self, envelope: Envelope) -> Value {
        let Envelope { id, request_id, body } = envelope;
        let mut known = json!({});
        if !request_id.is_empty() {
            known["requestId"] = self.ids.get(&request_id).expect("a request has it").clone();
        }
        let stamped = |kind: &str, timestamp_ms: i64| json!({"type": kind, "id": id, "timestamp": timestamp_ms});
        match body.expect("a body") {
            Body::Confirmation(confirmation) => system(with(known, confirmed(confirmation))),
            Body::Error(error) if self.is_action => {
                let mut data =
                    json!({"type": "error", "code": error.code, "message": error.message});
                if !error.channel.is_empty() || self.channel_is_empty {
                    data["channel"] = json!(error.channel);
                }
                system(with(known, data))
            }
            Body::Error(error) => {
                let words = json!({"code": error.code, "error": error.message});
                with(with(known, stamped("error", error.timestamp_ms)), words)
            }
            Body::Response(response) => {
                let payload = match response.history {
                    Some(history) => page(history),
                    None => serde_json::from_slice(&response.payload).expect("JSON"),
                };
                let stamped = stamped("response", response.timestamp_ms);
                with(with(known, stamped), json!({"payload": payload}))
            }
            Body::Ack(Ack { message_id, channel, offset }) => {
                let mut ack = with(known, json!({"type": "ack"}));
                set(&mut ack, "messageId", message_id);
                set(&mut ack, "channel", channel);
                set(&mut ack, "offset", offset);
                ack
            }
            Body::Pong(Pong { timestamp_ms }) => {
                let mut pong = json!({"type": "pong"});
                set(&mut pong, "timestamp", timestamp_ms);
                if let Some(id) = known.get("requestId") {
                    pong["id"] = id.clone();
                }
                with(known, pong)
            }
            Body::Publication(publication) => {
                let channel = json!({"channel": publication.channel});
                with(channel, published(publication))
            }
            Body::Event(event) => self.passed_on(&id, happened(event)),
            Body::Chat(chat) => self.passed_on(&id, chatted(chat)),
            Body::Presence(presence) => present(&id, presence),
            other => panic!("nothing of the examples: {other:?}"),
        }
    }

    /// A message with the id that its client gave it, if it did.
    fn passed_on(&self, id: &str, mut message: Value) -> Value {
        if !id.is_empty() {
            message["id"] = self.ids.get(id).cloned().unwrap_or_else(|| json!(id));
        }
        message
    }
}

fn typed(fields: &mut Fields<'_>) -> Said<Body> {
    let kind = fields.required("type")?;
    match &*kind {
        "ping" => Ok(Body::Ping(Ping { timestamp_ms: fields.nonzero("timestamp")? })),
        "pong" => Ok(Body::Pong(Pong { timestamp_ms: fields.nonzero("timestamp")? })),
        "auth" => {
            let mut payload = fields.payload()?;
            let token = payload.required("token")?;
            payload.end()?;
            Ok(Body::Auth(Auth { token }))
        }
        "query" => {
            let mut payload = fields.payload()?;
            let resource = payload.required("resource")?;
            let parameters = payload.take("parameters").unwrap_or_default().into();
            payload.end()?;
            Ok(Body::Query(Query { resource, parameters }))
        }
        "restore_session" => Ok(Body::RestoreSession(RestoreSession {
            session_id: fields.required("sessionId")?,
            connection_id: fields.required("connectionId")?,
            positions: positions(fields)?,
        })),
        "end_session" => {
            Ok(Body::EndSession(EndSession { session_id: fields.required("sessionId")? }))
        }
        "ack" => Ok(Body::Ack(Ack {
            message_id: fields.text("messageId")?,
            channel: fields.text("channel")?,
            offset: fields.nonzero("offset")?,
        })),
        "event" => {
            let mut payload = fields.payload()?;
            let event = payload.present("event")?;
            let data = payload.take("data").unwrap_or_default().into();
            payload.end()?;
            let (sender, timestamp_ms) = (fields.text("sender")?, fields.nonzero("timestamp")?);
            Ok(Body::Event(Event { event, data, sender, timestamp_ms, ..Default::default() }))
        }
        // Of the chat, if it has anything of its envelope.
        "command"
            if !["version", "messageId", "timestamp", "sender", "channel", "metadata"]
                .iter()
                .any(|name| fields.has(name)) =>
        {
            let mut payload = fields.payload()?;
            let (action, target) = (payload.text("action")?, payload.text("target")?);
            let parameters = payload.take("parameters").unwrap_or_default().into();
            payload.end()?;
            Ok(Body::Command(Command { action, target, parameters }))
        }
        kind => {
            let place = TYPES.iter().position(|known| *known == kind);
            chat(fields, place.ok_or(format!("the type `{kind}`"))?)
        }
    }
}

fn positions(fields: &mut Fields<'_>) -> Said<Vec<ChannelPosition>> {
    let Some(positions) = fields.object("positions")? else { return Ok(Vec::new()) };
    let place = |(channel, value): (String, &str)| {
        if let Ok(offset) = value.parse() {
            return Ok(ChannelPosition { channel, epoch: None, offset });
        }
        let mut place = Fields::of("`positions`", value)?;
        let epoch = Some(place.present("epoch")?);
        let offset = place.number("offset")?.ok_or("no `offset` in `positions`")?;
        place.end().map(|()| ChannelPosition { channel, epoch, offset })
    };
    positions.rest().map(place).collect()
}

fn chat(fields: &mut Fields<'_>, kind: usize) -> Said<Body> {
    let mut payload = fields.payload()?;
    let said = match kind {
        0 => {
            let content = payload.required("content")?;
            let mentions = payload.take("mentions").map_or(Ok(Vec::new()), serde_json::from_str);
            let mentions = mentions.map_err(|_| "`mentions` that are no texts")?;
            Payload::Text(TextPayload { content, mentions })
        }
        1 => Payload::Image(ImagePayload {
            url: payload.required("url")?,
            width: payload.number("width")?.ok_or("no `width`")?,
            height: payload.number("height")?.ok_or("no `height`")?,
        }),
        2 => Payload::File(FilePayload {
            url: payload.required("url")?,
            size: payload.number("size")?.ok_or("no `size`")?,
            mime_type: payload.required("mimeType")?,
        }),
        _ => {
            let action = payload.required("action")?;
            let place = ACTIONS.iter().position(|known| *known == action);
            let action = place.ok_or(format!("the action `{action}` in a chat"))? as i32;
            Payload::Command(CommandPayload { action, target: payload.text("target")? })
        }
    };
    payload.end()?;
    let metadata = fields.take("metadata").map_or(Ok(HashMap::new()), serde_json::from_str);
    Ok(Body::Chat(ChatMessage {
        message_id: fields.text("messageId")?,
        timestamp_ms: fields.nonzero("timestamp")?,
        r#type: kind as i32,
        sender: fields.text("sender")?,
        metadata: metadata.map_err(|_| "`metadata` that are no texts")?,
        channel: fields.text("channel")?,
        version: fields.text("version")?,
        payload: Some(said),
        ..Default::default()
    }))
}

fn confirmed(confirmation: Confirmation) -> Value {
    let mut data = json!({"channel": confirmation.channel});
    set(&mut data, "reason", confirmation.reason);
    if confirmation.unsubscribed {
        data["type"] = json!("unsubscription_confirm");
        return data;
    }
    data["type"] = json!("subscription_confirm");
    if let Some(id) = confirmation.subscription_id {
        data["subscriptionId"] = json!(id);
    }
    if let Some(Position { epoch, offset }) = confirmation.position {
        (data["epoch"], data["offset"]) = (json!(epoch), json!(offset));
    }
    if let Some(recovered) = confirmation.recovered {
        data["recovered"] = json!(recovered);
        data["recoveredCount"] = json!(confirmation.recovered_count);
        if !recovered {
            data["code"] = json!("position_unavailable");
        }
    }
    data
}

fn page(history: History) -> Value {
    let (epoch, offset) = match history.position {
        Some(Position { epoch, offset }) => (json!(epoch), offset),
        None => (Value::Null, 0),
    };
    let publications: Vec<_> = history.publications.into_iter().map(published).collect();
    let mut page = json!({"channel": history.channel, "epoch": epoch, "offset": offset,
        "publications": publications, "complete": history.complete, "more": history.more});
    set(&mut page, "reason", history.reason);
    page
}

/// A publication without its channel.
fn published(publication: Publication) -> Value {
    let Publication { data, offset, message_id, tags, is_message, .. } = publication;
    if is_message {
        return serde_json::from_slice(&data).expect("JSON");
    }
    let mut published = data_of(&data);
    set(&mut published, "offset", offset);
    set(&mut published, "messageId", message_id);
    if !tags.is_empty() {
        published["tags"] = json!(tags);
    }
    published
}

/// Bytes that are no JSON are in base64.
fn data_of(data: &[u8]) -> Value {
    match serde_json::from_slice::<&RawValue>(data) {
        Ok(json) if json.get().len() == data.len() => {
            json!({"data": serde_json::from_str::<Value>(json.get()).expect("JSON")})
        }
        _ => json!({"data": BASE64.encode(data), "encoding": "base64"}),
    }
}

fn happened(event: Event) -> Value {
    let mut payload = json!({"event": event.event});
    if !event.data.is_empty() {
        payload = with(payload, data_of(&event.data));
    }
    let mut message = json!({"type": "event", "payload": payload});
    set(&mut message, "sender", event.sender);
    set(&mut message, "timestamp", event.timestamp_ms);
    set(&mut message, "offset", event.offset);
    set(&mut message, "deliveryId", event.delivery_id);
    message
}

fn chatted(chat: ChatMessage) -> Value {
    let payload = match chat.payload.expect("a payload") {
        Payload::Text(TextPayload { content, mentions }) if mentions.is_empty() => {
            json!({"content": content})
        }
        Payload::Text(text) => json!({"content": text.content, "mentions": text.mentions}),
        Payload::Image(image) => {
            json!({"url": image.url, "width": image.width, "height": image.height})
        }
        Payload::File(file) => {
            json!({"url": file.url, "size": file.size, "mimeType": file.mime_type})
        }
        Payload::Command(command) => panic!("no server passes it on: {command:?}"),
    };
    let mut message = json!({"type": TYPES[chat.r#type as usize], "payload": payload});
    set(&mut message, "version", chat.version);
    set(&mut message, "messageId", chat.message_id);
    set(&mut message, "timestamp", chat.timestamp_ms);
    set(&mut message, "sender", chat.sender);
    set(&mut message, "channel", chat.channel);
    set(&mut message, "offset", chat.offset);
    set(&mut message, "deliveryId", chat.delivery_id);
    if !chat.metadata.is_empty() {
        message["metadata"] = json!(chat.metadata);
    }
    message
}

fn present(id: &str, presence: Presence) -> Value {
    let listed = |members: Vec<Member>| {
        let member = |member: Member| json!({"connectionId": member.connection_id, "userId": member.user_id, "joinedAt": member.joined_at_ms});
        members.into_iter().map(member).collect::<Vec<_>>()
    };
    json!({"id": id, "type": "presence", "channel": presence.channel, "timestamp": presence.timestamp_ms,
        "joined": listed(presence.joined), "left": listed(presence.left), "clients": presence.clients,
        "users": presence.users, "more": presence.more})
}

fn system(data: Value) -> Value {
    json!({"channel": "system", "data": data})
}

/// The members of both objects.
fn with(mut members: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("no object: {more}") };
    members.as_object_mut().expect("an object").extend(more);
    members
}

/// Sets what is there: protobuf leaves out what is empty or 0.
fn set(members: &mut Value, name: &str, value: impl Into<Value>) {
    let value = value.into();
    if value != json!("") && value != json!(0) {
        members[name] = value;
    }
}

/// One user, or many connections.
fn addressee(mut to: Fields<'_>) -> Said<(Option<String>, Option<Audience>)> {
    if to.has("user") {
        let user = to.present("user")?;
        return to.end().map(|()| (Some(user), None));
    }
    let mut audience = Audience {
        users: texts(to.take("users"))?,
        groups: texts(to.take("groups"))?,
        connections: texts(to.take("connections"))?,
        everybody: to.truth("everybody")? == Some(true),
        ..Audience::default()
    };
    if let Some(mut except) = to.object("except")? {
        audience.except_users = texts(except.take("users"))?;
        audience.except_connections = texts(except.take("connections"))?;
        except.end()?;
    }
    to.end().map(|()| (None, Some(audience)))
}

fn texts(list: Option<&str>) -> Said<Vec<String>> {
    let texts = list.map_or(Ok(Vec::new()), serde_json::from_str);
    texts.map_err(|_| "a list with something that is no text".to_owned())
}
