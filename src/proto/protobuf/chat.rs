//! Events and chat messages as clients send them, and the JSON messages that they are: those are what the
//! server passes on. The same of queries and commands.

use std::fmt::Write as _;

use crate::proto::json;
use crate::proto::protobuf::bytes_as_json;
use crate::proto::protobuf::envelope::{Entry, Message};
use crate::proto::protobuf::wire::{Value, WireError};

/// What each `MessageType` is called in JSON.
pub const TYPES: [&str; 4] = ["text", "image", "file", "command"];
/// The same of each `CommandAction`.
const ACTIONS: [&str; 4] = ["join", "leave", "mute", "kick"];

#[derive(Debug, Default)]
pub struct Event<'a> {
    pub event: &'a str,
    pub data: &'a [u8],
    pub sender: &'a str,
    pub timestamp_ms: i64,
}

#[derive(Debug, Default)]
pub struct Chat<'a> {
    message_id: &'a str,
    timestamp_ms: i64,
    type_: u64,
    sender: &'a str,
    payload: Payload<'a>,
    metadata: Vec<Entry<'a>>,
    channel: &'a str,
    version: &'a str,
}

#[derive(Debug, Default)]
enum Payload<'a> {
    #[default]
    None,
    Text(Text<'a>),
    Image(Image<'a>),
    File(File<'a>),
    Command(Action<'a>),
}

#[derive(Debug, Default)]
struct Text<'a> {
    content: &'a str,
    mentions: Vec<&'a str>,
}

#[derive(Debug, Default)]
struct Image<'a> {
    url: &'a str,
    width: i64,
    height: i64,
}

#[derive(Debug, Default)]
struct File<'a> {
    url: &'a str,
    size: i64,
    mime_type: &'a str,
}

#[derive(Debug, Default)]
struct Action<'a> {
    action: u64,
    target: &'a str,
}

/// The JSON message that a query is. `parameters` are JSON; `id`: of the envelope, empty: it has none.
pub fn query_json(id: &str, resource: &str, parameters: Option<&str>) -> String {
    let mut members = Members::new("query", id);
    let resource = json::quote(resource);
    let parameters = match parameters {
        Some(parameters) => format!(r#","parameters":{parameters}"#),
        None => String::new(),
    };
    members.raw("payload", &format!(r#"{{"resource":{resource}{parameters}}}"#));
    members.finish()
}

/// The JSON message that a command is, as [`query_json`].
pub fn command_json(id: &str, action: &str, target: &str, parameters: Option<&str>) -> String {
    let mut payload = Members(String::from("{"));
    payload.text("action", action);
    payload.text("target", target);
    if let Some(parameters) = parameters {
        payload.raw("parameters", parameters);
    }
    let mut members = Members::new("command", id);
    members.raw("payload", &payload.finish());
    members.finish()
}

impl Event<'_> {
    /// `id`: of the envelope; empty: it has none.
    pub fn json(&self, id: &str) -> String {
        let mut members = Members::new("event", id);
        members.text("sender", self.sender);
        members.number("timestamp", self.timestamp_ms);
        let mut payload = format!(r#"{{"event":{}"#, json::quote(self.event));
        if !self.data.is_empty() {
            payload.push_str(r#","data":"#);
            // In the payload of the message.
            match json::value_within(self.data, 2) {
                Some(data) => payload.push_str(data),
                None => payload.push_str(&bytes_as_json(self.data)),
            }
        }
        payload.push('}');
        members.raw("payload", &payload);
        members.finish()
    }
}

impl Chat<'_> {
    /// The number of its type, if that is none we know: then it is no message of any.
    pub fn unknown_type(&self) -> Option<u64> {
        self.type_name().is_none().then_some(self.type_)
    }

    fn type_name(&self) -> Option<&'static str> {
        TYPES.get(usize::try_from(self.type_).ok()?).copied()
    }

    /// As [`Event::json`].
    pub fn json(&self, id: &str) -> String {
        let mut members = Members::new(self.type_name().unwrap_or_default(), id);
        members.text("version", self.version);
        members.text("messageId", self.message_id);
        members.number("timestamp", self.timestamp_ms);
        members.text("sender", self.sender);
        members.text("channel", self.channel);
        if let Some(payload) = self.payload.json() {
            members.raw("payload", &payload);
        }
        if !self.metadata.is_empty() {
            let entries = self.metadata.iter();
            let pair = |entry: &Entry<'_>| {
                format!("{}:{}", json::quote(entry.key), json::quote(entry.value))
            };
            let entries: Vec<_> = entries.map(pair).collect();
            members.raw("metadata", &format!("{{{}}}", entries.join(",")));
        }
        members.finish()
    }
}

impl Payload<'_> {
    fn json(&self) -> Option<String> {
        Some(match self {
            Self::None => return None,
            Self::Text(Text { content, mentions }) => {
                let mentioned: Vec<_> = mentions.iter().map(|name| json::quote(name)).collect();
                let mentions = match &mentioned[..] {
                    [] => String::new(),
                    mentioned => format!(r#","mentions":[{}]"#, mentioned.join(",")),
                };
                format!(r#"{{"content":{}{mentions}}}"#, json::quote(content))
            }
            Self::Image(Image { url, width, height }) => {
                let url = json::quote(url);
                format!(r#"{{"url":{url},"width":{width},"height":{height}}}"#)
            }
            Self::File(File { url, size, mime_type }) => {
                let (url, mime_type) = (json::quote(url), json::quote(mime_type));
                format!(r#"{{"url":{url},"size":{size},"mimeType":{mime_type}}}"#)
            }
            Self::Command(Action { action, target }) => {
                let action = usize::try_from(*action).ok().and_then(|action| ACTIONS.get(action));
                let target = match *target {
                    "" => String::new(),
                    target => format!(r#","target":{}"#, json::quote(target)),
                };
                format!(r#"{{"action":"{}"{target}}}"#, action.unwrap_or(&"unknown"))
            }
        })
    }
}

/// A JSON object that grows; what is empty or 0 is left out, as in protobuf.
struct Members(String);

impl Members {
    fn new(type_: &str, id: &str) -> Self {
        let mut members = Self(format!(r#"{{"type":"{type_}""#));
        members.text("id", id);
        members
    }

    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.raw(name, &json::quote(text));
        }
    }

    fn number(&mut self, name: &str, number: i64) {
        if number != 0 {
            self.raw(name, &number.to_string());
        }
    }

    fn raw(&mut self, name: &str, json: &str) {
        let comma = if self.0.len() > 1 { "," } else { "" };
        // Writing to a string does not fail.
        let _ = write!(self.0, r#"{comma}"{name}":{json}"#);
    }

    fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

impl<'a> Message<'a> for Event<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        match number {
            1 => self.event = value.text("event")?,
            2 => self.data = value.bytes("data")?,
            3 => self.sender = value.text("sender")?,
            4 => self.timestamp_ms = value.number("timestamp_ms")? as i64,
            // What the server says of it.
            5 => drop(value.number("offset")?),
            6 => drop(value.text("delivery_id")?),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Chat<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        /// A payload, merged into the one before if that is of the same kind.
        macro_rules! payload {
            ($kind:ident, $name:literal) => {{
                if !matches!(self.payload, Payload::$kind(_)) {
                    self.payload = Payload::$kind(Default::default());
                }
                if let Payload::$kind(payload) = &mut self.payload {
                    payload.merge(value.bytes($name)?)?;
                }
            }};
        }
        match number {
            1 => self.message_id = value.text("message_id")?,
            2 => self.timestamp_ms = value.number("timestamp_ms")? as i64,
            3 => self.type_ = value.number("type")?,
            4 => self.sender = value.text("sender")?,
            5 => payload!(Text, "text"),
            6 => payload!(Image, "image"),
            7 => payload!(File, "file"),
            8 => payload!(Command, "command"),
            9 => self.metadata.push(Entry::default().merged(value.bytes("metadata")?)?),
            10 => self.channel = value.text("channel")?,
            11 => self.version = value.text("version")?,
            // What the server says of it.
            12 => drop(value.number("offset")?),
            13 => drop(value.text("delivery_id")?),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Text<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        match number {
            1 => self.content = value.text("content")?,
            2 => self.mentions.push(value.text("mentions")?),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Image<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        match number {
            1 => self.url = value.text("url")?,
            2 => self.width = value.number("width")? as i64,
            3 => self.height = value.number("height")? as i64,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for File<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        match number {
            1 => self.url = value.text("url")?,
            2 => self.size = value.number("size")? as i64,
            3 => self.mime_type = value.text("mime_type")?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Action<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        match number {
            1 => self.action = value.number("action")?,
            2 => self.target = value.text("target")?,
            _ => {}
        }
        Ok(())
    }
}
