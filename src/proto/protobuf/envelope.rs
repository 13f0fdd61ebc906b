//! The envelope of a request, read and not judged: what each field means says `stentor.proto`, whose
//! names these are.

use crate::filter::ATTRIBUTES_MAX;
use crate::proto::audience::ADDRESSEES_MAX;
use crate::proto::protobuf::chat::{Chat, Event};
use crate::proto::protobuf::number;
use crate::proto::protobuf::wire::{Reader, Value, WireError};

/// As far as a request has it. What comes twice counts as it came last; a message that comes twice is one
/// with the fields of both.
#[derive(Debug, Default)]
pub struct Envelope<'a> {
    pub id: &'a str,
    pub body: Body<'a>,
    /// The name of a body that only the server sends. It is not read.
    pub servers: Option<&'static str>,
    /// The number of a body that we do not know.
    pub unknown: Option<u32>,
}

/// What an envelope has one of.
#[derive(Debug, Default)]
pub enum Body<'a> {
    /// Nothing that we know.
    #[default]
    None,
    Subscribe(Subscribe<'a>),
    Unsubscribe(Unsubscribe<'a>),
    Publish(Publish<'a>),
    Ping(Ping),
    Pong(Ping),
    Query(Query<'a>),
    Command(Command<'a>),
    Auth(Auth<'a>),
    Ack(Ack<'a>),
    RestoreSession(RestoreSession<'a>),
    EndSession(EndSession<'a>),
    Event(Event<'a>),
    Chat(Box<Chat<'a>>),
}

#[derive(Debug, Default)]
pub struct Subscribe<'a> {
    pub channel: &'a str,
    pub recover: Option<Position<'a>>,
    pub since: Option<u64>,
    pub from_start: bool,
    pub limit: Option<u32>,
    pub filter: &'a str,
}

#[derive(Debug, Default)]
pub struct Position<'a> {
    pub epoch: &'a str,
    pub offset: u64,
}

#[derive(Debug, Default)]
pub struct Unsubscribe<'a> {
    pub channel: &'a str,
    pub subscription_id: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Publish<'a> {
    pub channel: &'a str,
    pub data: &'a [u8],
    pub message_id: &'a str,
    pub no_echo: bool,
    pub to_user: Option<&'a str>,
    pub to: Option<Addressees<'a>>,
    pub filter: &'a str,
    /// Each name once; no more than one over the limit.
    pub tags: Vec<Entry<'a>>,
}

/// Of each list no more than one entry over the limit.
#[derive(Debug, Default)]
pub struct Addressees<'a> {
    pub users: Vec<&'a str>,
    pub groups: Vec<&'a str>,
    pub connections: Vec<&'a str>,
    pub everybody: bool,
    pub except_users: Vec<&'a str>,
    pub except_connections: Vec<&'a str>,
}

/// Of a map.
#[derive(Debug, Default)]
pub struct Entry<'a> {
    pub key: &'a str,
    pub value: &'a str,
}

#[derive(Debug, Default)]
pub struct Ack<'a> {
    pub message_id: &'a str,
    pub channel: &'a str,
    pub offset: u64,
}

#[derive(Debug, Default)]
pub struct Auth<'a> {
    pub token: &'a str,
}

#[derive(Debug, Default)]
pub struct RestoreSession<'a> {
    pub session_id: &'a str,
    pub connection_id: &'a str,
    pub positions: Vec<ChannelPosition<'a>>,
}

#[derive(Debug, Default)]
pub struct EndSession<'a> {
    pub session_id: &'a str,
}

#[derive(Debug, Default)]
pub struct ChannelPosition<'a> {
    pub channel: &'a str,
    pub epoch: Option<&'a str>,
    pub offset: u64,
}

#[derive(Debug, Default)]
pub struct Ping {
    pub timestamp_ms: i64,
}

#[derive(Debug, Default)]
pub struct Query<'a> {
    pub resource: &'a str,
    pub parameters: &'a [u8],
}

#[derive(Debug, Default)]
pub struct Command<'a> {
    pub action: &'a str,
    pub target: &'a str,
    pub parameters: &'a [u8],
}

/// A message whose fields are read one by one, into what was there before.
pub trait Message<'a>: Default {
    /// Takes a field; one that is unknown is passed over.
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError>;

    /// Takes the fields of `message`.
    fn merge(&mut self, message: &'a [u8]) -> Result<(), WireError> {
        let mut reader = Reader::new(message);
        while let Some((number, value)) = reader.next_field()? {
            self.set(number, value)?;
        }
        Ok(())
    }

    /// With the fields of `message`.
    fn merged(mut self, message: &'a [u8]) -> Result<Self, WireError> {
        self.merge(message)?;
        Ok(self)
    }
}

impl<'a> Message<'a> for Envelope<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        /// A body, merged into the one before if that is of the same kind.
        macro_rules! body {
            ($kind:ident, $name:literal) => {{
                if !matches!(self.body, Body::$kind(_)) {
                    self.body = Body::$kind(Default::default());
                }
                if let Body::$kind(body) = &mut self.body {
                    body.merge(value.bytes($name)?)?;
                }
            }};
        }
        match number {
            number::PUBLISH => body!(Publish, "publish"),
            number::SUBSCRIBE => body!(Subscribe, "subscribe"),
            number::UNSUBSCRIBE => body!(Unsubscribe, "unsubscribe"),
            number::PING => body!(Ping, "ping"),
            number::PONG => body!(Pong, "pong"),
            number::QUERY => body!(Query, "query"),
            number::COMMAND => body!(Command, "command"),
            number::AUTH => body!(Auth, "auth"),
            number::ACK => body!(Ack, "ack"),
            number::RESTORE_SESSION => body!(RestoreSession, "restore_session"),
            number::END_SESSION => body!(EndSession, "end_session"),
            number::EVENT => body!(Event, "event"),
            number::CHAT => body!(Chat, "chat"),
            other => match other {
                number::PUBLICATION => self.servers = Some("publication"),
                number::CONFIRMATION => self.servers = Some("confirmation"),
                number::ERROR => self.servers = Some("error"),
                number::RESPONSE => self.servers = Some("response"),
                number::WELCOME => self.servers = Some("welcome"),
                number::SESSION_RESTORED => self.servers = Some("session_restored"),
                number::PRESENCE => self.servers = Some("presence"),
                number::GAP => self.servers = Some("gap"),
                1 => self.id = value.text("id")?,
                2 => drop(value.text("request_id")?),
                number::FIRST.. => self.unknown = Some(other),
                _ => {}
            },
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Subscribe<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        match number {
            1 => self.channel = value.text("channel")?,
            2 => {
                let before = self.recover.take().unwrap_or_default();
                self.recover = Some(before.merged(value.bytes("recover")?)?);
            }
            4 => self.filter = value.text("filter")?,
            5 => self.limit = Some(value.number("limit")? as u32),
            7 => self.since = Some(value.number("since")?),
            8 => self.from_start = value.number("from_start")? != 0,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Position<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        match number {
            1 => self.epoch = value.text("epoch")?,
            2 => self.offset = value.number("offset")?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Unsubscribe<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        match number {
            1 => self.channel = value.text("channel")?,
            2 => self.subscription_id = Some(value.number("subscription_id")?),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Publish<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        match number {
            1 => self.channel = value.text("channel")?,
            2 => self.data = value.bytes("data")?,
            3 => self.message_id = value.text("message_id")?,
            4 => self.no_echo = value.number("no_echo")? != 0,
            5 => {
                let tag = Entry::default().merged(value.bytes("tags")?)?;
                if let Some(known) = self.tags.iter_mut().find(|known| known.key == tag.key) {
                    *known = tag;
                } else if self.tags.len() <= ATTRIBUTES_MAX {
                    // One too many is enough to tell.
                    self.tags.push(tag);
                }
            }
            6 => self.to_user = Some(value.text("to_user")?),
            7 => self.filter = value.text("filter")?,
            8 => {
                let before = self.to.take().unwrap_or_default();
                self.to = Some(before.merged(value.bytes("to")?)?);
            }
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Addressees<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        let (list, name) = match number {
            1 => (&mut self.users, "users"),
            2 => (&mut self.groups, "groups"),
            3 => (&mut self.connections, "connections"),
            4 => {
                self.everybody = value.number("everybody")? != 0;
                return Ok(());
            }
            5 => (&mut self.except_users, "except_users"),
            6 => (&mut self.except_connections, "except_connections"),
            _ => return Ok(()),
        };
        let text = value.text(name)?;
        // One too many is enough to tell.
        if list.len() <= ADDRESSEES_MAX {
            list.push(text);
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Entry<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        match number {
            1 => self.key = value.text("key")?,
            2 => self.value = value.text("value")?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Ack<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        match number {
            1 => self.message_id = value.text("message_id")?,
            2 => self.channel = value.text("channel")?,
            3 => self.offset = value.number("offset")?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Auth<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        if number == 1 {
            self.token = value.text("token")?;
        }
        Ok(())
    }
}

impl<'a> Message<'a> for RestoreSession<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        match number {
            1 => self.session_id = value.text("session_id")?,
            2 => self.connection_id = value.text("connection_id")?,
            3 => {
                let position = ChannelPosition::default().merged(value.bytes("positions")?)?;
                self.positions.push(position);
            }
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for EndSession<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        if number == 1 {
            self.session_id = value.text("session_id")?;
        }
        Ok(())
    }
}

impl<'a> Message<'a> for ChannelPosition<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        match number {
            1 => self.channel = value.text("channel")?,
            2 => self.epoch = Some(value.text("epoch")?),
            3 => self.offset = value.number("offset")?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Ping {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        if number == 1 {
            self.timestamp_ms = value.number("timestamp_ms")? as i64;
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Query<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        match number {
            1 => self.resource = value.text("resource")?,
            2 => self.parameters = value.bytes("parameters")?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Command<'a> {
    fn set(&mut self, number: u32, value: Value<'a>) -> Result<(), WireError> {
        match number {
            1 => self.action = value.text("action")?,
            2 => self.target = value.text("target")?,
            3 => self.parameters = value.bytes("parameters")?,
            _ => {}
        }
        Ok(())
    }
}
