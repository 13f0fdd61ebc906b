//! What a client asks for: envelopes in, commands out. Checks form only, by the rules of the JSON
//! messages: what they mean is decided elsewhere.

use std::borrow::Cow;
use std::mem;
use std::sync::Arc;

use crate::filter::Filter;
use crate::ids::{self, ConnectionId, Epoch, SessionId, TOPIC_NAME_BYTES_MAX, check_topic_name};
use crate::proto::audience::Addressee;
use crate::proto::command::{
    Addressees, Command, Family, MESSAGE_ID_BYTES_MAX, REQUEST_ID_BYTES_MAX, Received, Refused,
    Rejection, RequestId, Subscription, addressee, compiled, history, invalid, next_command,
    no_tags, presence, room, sorted_claims,
};
use crate::proto::data::Data;
use crate::proto::error_code::ErrorCode;
use crate::proto::json;
use crate::proto::protobuf::chat::{command_json, query_json};
use crate::proto::protobuf::envelope::{
    self, Ack, Auth, Body, ChannelPosition, EndSession, Envelope, Message, Ping, Position, Publish,
    Query, RestoreSession, Subscribe, Unsubscribe,
};
use crate::proto::protobuf::plain;
use crate::proto::protobuf::wire::{Reader, WireError};
use crate::proto::recall::{Claim, ClaimedPlace, Since, Start};
use crate::proto::tags::Tags;

/// The requests of one binary frame, in order; at least one, even for an empty frame.
///
/// Where an envelope ends is known before it is read, so one that is malformed does not touch the next.
/// After a length that cannot be the rest of the frame is dropped.
///
/// How many are taken of one frame is the caller's to bound.
#[derive(Debug, Clone)]
pub struct Requests<'b> {
    rest: &'b [u8],
    is_first: bool,
}

/// What a command needs that does not stand in its envelope: texts as JSON, of which commands are made.
/// Nothing is allocated for a publication without ids.
#[derive(Debug, Default)]
pub struct Scratch {
    id: String,
    message_id: String,
    timestamp: String,
    /// The JSON message that an event or a chat message is.
    message: String,
}

impl<'b> Requests<'b> {
    pub fn new(frame: &'b [u8]) -> Self {
        Self { rest: frame, is_first: true }
    }

    /// What was not taken yet.
    pub fn rest(&self) -> &'b [u8] {
        self.rest
    }

    /// The next request, which borrows from the frame and from `scratch`.
    pub fn next<'a>(
        &mut self,
        scratch: &'a mut Scratch,
    ) -> Option<Result<Command<'a>, Rejection<'a>>>
    where
        'b: 'a,
    {
        let is_first = mem::replace(&mut self.is_first, false);
        if let Some((command, rest)) = plain::publication(self.rest) {
            self.rest = rest;
            return Some(Ok(command));
        }
        if self.rest.is_empty() {
            return is_first.then(|| Err(malformed("the frame is empty".into())));
        }
        let mut reader = Reader::new(self.rest);
        let envelope = reader.delimited();
        self.rest = if envelope.is_ok() { reader.rest() } else { &[] };
        Some(match envelope {
            Ok(envelope) => read(envelope, scratch),
            Err(WireError::Truncated) => Err(malformed("the frame ends within an envelope".into())),
            Err(error) => Err(malformed(error.to_string().into())),
        })
    }
}

/// The request that any envelope is.
#[inline(never)]
fn read<'a>(envelope: &'a [u8], scratch: &'a mut Scratch) -> Result<Command<'a>, Rejection<'a>> {
    match Envelope::default().merged(envelope) {
        Ok(envelope) => envelope.command(scratch),
        Err(error) => Err(malformed(error.to_string().into())),
    }
}

/// Bytes of which it cannot be told what they ask for.
fn malformed(message: Cow<'static, str>) -> Rejection<'static> {
    let (family, code) = (Family::Action, ErrorCode::InvalidProtobuf);
    Rejection { family, code, message, channel: None, id: None }
}

impl<'a> Envelope<'a> {
    /// What the envelope asks for, if that is as it should be.
    fn command(self, scratch: &'a mut Scratch) -> Result<Command<'a>, Rejection<'a>> {
        let Self { id: id_text, body, servers, unknown } = self;
        scratch.fill(id_text, &body);
        let scratch: &'a Scratch = scratch;
        let id = RequestId::parse(&scratch.id);
        let channel = body.channel();
        let command = if let Some(name) = servers {
            Err(no_route(format!("no route for `{name}`")))
        } else if let Some(number) = body.unknown_type() {
            Err(no_route(format!("no route for type {number}")))
        } else if id.is_none() && !id_text.is_empty() {
            Err(invalid(format!("`id` must have 1 to {REQUEST_ID_BYTES_MAX} bytes")))
        } else {
            match body {
                Body::Publish(publish) => publish.command(scratch, id),
                Body::Subscribe(subscribe) => subscribe.command(id),
                Body::Unsubscribe(unsubscribe) => unsubscribe.command(id),
                Body::Ack(ack) => ack.command(id),
                Body::Ping(Ping { timestamp_ms }) => {
                    let timestamp = (timestamp_ms != 0).then_some(&*scratch.timestamp);
                    Ok(Command::Ping { id, timestamp })
                }
                Body::Pong(_) => Ok(Command::Pong),
                Body::Query(query) if query.is_built_in() => query.command(id),
                Body::RestoreSession(restore) => restore.command(id),
                Body::EndSession(EndSession { session_id: "" }) => {
                    Err(invalid("`session_id` is missing"))
                }
                Body::EndSession(EndSession { session_id }) => {
                    Ok(Command::EndSession { session: SessionId::parse(session_id), id })
                }
                Body::Auth(Auth { token: "" }) => Err(invalid("`token` is missing")),
                Body::Auth(Auth { token }) => Ok(Command::Auth { token: token.into(), id }),
                // They are read as the JSON that they are.
                Body::Event(_) | Body::Chat(_) => return typed(&scratch.message),
                Body::Query(Query { parameters: bytes, .. })
                | Body::Command(envelope::Command { parameters: bytes, .. }) => {
                    match parameters(bytes) {
                        Ok(_) => return typed(&scratch.message),
                        Err(refused) => Err(refused),
                    }
                }
                Body::None => Err(unknown.map_or_else(
                    || invalid("an envelope needs a body"),
                    |number| no_route(format!("no route for body {number}")),
                )),
            }
        };
        command.map_err(|(code, message)| {
            let channel = channel.map(Cow::Borrowed);
            Rejection { family: Family::Action, code, message, channel, id }
        })
    }
}

impl<'a> Body<'a> {
    /// The number of the type of a chat message, if we do not know it.
    fn unknown_type(&self) -> Option<u64> {
        match self {
            Self::Chat(chat) => chat.unknown_type(),
            _ => None,
        }
    }

    /// For the answer to a refused request; absent if it is too long to repeat.
    fn channel(&self) -> Option<&'a str> {
        let channel = match *self {
            Self::Publish(Publish { channel, .. })
            | Self::Subscribe(Subscribe { channel, .. })
            | Self::Unsubscribe(Unsubscribe { channel, .. }) => channel,
            Self::None
            | Self::Ping(_)
            | Self::Pong(_)
            | Self::Query(_)
            | Self::Command(_)
            | Self::Auth(_)
            | Self::Ack(_)
            | Self::RestoreSession(_)
            | Self::EndSession(_)
            | Self::Event(_)
            | Self::Chat(_) => "",
        };
        (1..=TOPIC_NAME_BYTES_MAX).contains(&channel.len()).then_some(channel)
    }
}

impl<'a> Publish<'a> {
    fn command(
        self,
        scratch: &'a Scratch,
        id: Option<RequestId<'a>>,
    ) -> Result<Command<'a>, Refused> {
        let channel = checked(self.channel)?;
        if !self.message_id.is_empty() && scratch.message_id.is_empty() {
            let message = format!("`message_id` must have 1 to {MESSAGE_ID_BYTES_MAX} bytes");
            return Err(invalid(message));
        }
        let data = Data::Bytes(self.data);
        let echo = !self.no_echo;
        let message_id = (!self.message_id.is_empty()).then_some(&*scratch.message_id);
        let filter = filter(self.filter)?;
        let tags: Vec<_> = self.tags.iter().map(|tag| (tag.key.into(), tag.value.into())).collect();
        let tags = Tags::of_texts(&tags).map_err(|error| invalid(error.to_string()))?;
        let to = match (self.to_user, self.to) {
            (None, None) => {
                return Ok(Command::Publish { channel, data, echo, id, message_id, filter, tags });
            }
            (Some(user), None) => Addressee::User(addressee(user, "to_user")?),
            (None, Some(to)) => Addressee::Audience(Box::new(to.listed().audience()?)),
            (Some(_), Some(_)) => return Err(invalid("`to_user` and `to` exclude each other")),
        };
        if tags.is_some() {
            return Err(no_tags());
        }
        Ok(Command::Direct { to, channel, data, echo, id, message_id, filter })
    }
}

impl<'a> envelope::Addressees<'a> {
    /// As they are in JSON, where an empty list is another thing than none.
    fn listed(self) -> Addressees<'a> {
        let texts = |list: Vec<&'a str>| list.into_iter().map(Cow::Borrowed).collect::<Vec<_>>();
        let list = |list: Vec<&'a str>| (!list.is_empty()).then(|| texts(list));
        Addressees {
            users: list(self.users),
            groups: list(self.groups),
            connections: list(self.connections),
            everybody: self.everybody,
            except_users: texts(self.except_users),
            except_connections: texts(self.except_connections),
        }
    }
}

impl<'a> Subscribe<'a> {
    fn command(self, id: Option<RequestId<'a>>) -> Result<Command<'a>, Refused> {
        let channel = checked(self.channel)?;
        let start = match (self.recover, self.since, self.from_start) {
            (None, None, false) => Start::Now,
            (Some(Position { epoch: "", .. }), None, false) => {
                return Err(invalid("`epoch` is missing in `recover`"));
            }
            (Some(Position { epoch, offset }), None, false) => {
                Start::Recover { epoch: Epoch::parse(epoch), offset }
            }
            (None, Some(since), false) => Start::Since(Since::from_number(since)),
            (None, None, true) => Start::Since(Since::Oldest),
            _ => {
                return Err(invalid("`recover`, `since` and `from_start` exclude each other"));
            }
        };
        let (limit, filter) = (self.limit.map(u64::from), filter(self.filter)?);
        Ok(Command::Subscribe { channel, start, limit, id, filter })
    }
}

impl<'a> Unsubscribe<'a> {
    fn command(self, id: Option<RequestId<'a>>) -> Result<Command<'a>, Refused> {
        let subscription = match (self.channel, self.subscription_id) {
            ("", Some(id)) => Subscription::Id(id),
            (_, Some(_)) => {
                return Err(invalid("`channel` and `subscription_id` exclude each other"));
            }
            (channel, None) => Subscription::Channel(checked(channel)?),
        };
        Ok(Command::Unsubscribe { subscription, id })
    }
}

impl<'a> Ack<'a> {
    fn command(self, id: Option<RequestId<'a>>) -> Result<Command<'a>, Refused> {
        let received = match self.message_id {
            "" => Received::UpTo { channel: checked(self.channel)?, offset: self.offset },
            message_id => ids::Position::parse(message_id)
                .map(Received::One)
                .ok_or_else(|| invalid("`message_id` is none that was delivered"))?,
        };
        Ok(Command::Ack { received, id })
    }
}

impl<'a> Query<'a> {
    fn command(self, id: Option<RequestId<'a>>) -> Result<Command<'a>, Refused> {
        match self.resource {
            "time" => Ok(Command::Time { id }),
            "stats" => Ok(Command::Stats { id }),
            "session" => Ok(Command::Session { id }),
            "sessions" => Ok(Command::Sessions { id }),
            "presence" => presence(parameters(self.parameters)?, id),
            "room" => room(parameters(self.parameters)?, id),
            "rooms" => Ok(Command::Rooms { id }),
            "groups" => Ok(Command::Groups { id }),
            _ => history(parameters(self.parameters)?, id),
        }
    }

    /// Else it may have a route.
    fn is_built_in(&self) -> bool {
        matches!(
            self.resource,
            "time"
                | "stats"
                | "session"
                | "sessions"
                | "history"
                | "presence"
                | "room"
                | "rooms"
                | "groups"
        )
    }
}

impl<'a> RestoreSession<'a> {
    fn command(self, id: Option<RequestId<'a>>) -> Result<Command<'a>, Refused> {
        let Self { session_id, connection_id, positions } = self;
        if session_id.is_empty() || connection_id.is_empty() {
            return Err(invalid("`session_id` and `connection_id` must be there"));
        }
        let pair = SessionId::parse(session_id).zip(ConnectionId::parse(connection_id));
        let claims = positions.into_iter().map(|position| {
            let ChannelPosition { channel, epoch, offset } = position;
            let place = match epoch {
                None => ClaimedPlace::Offset(offset),
                Some(epoch) => ClaimedPlace::Position { epoch: Epoch::parse(epoch), offset },
            };
            Claim { channel: channel.into(), place }
        });
        Ok(Command::RestoreSession { pair, claims: sorted_claims(claims.collect())?, id })
    }
}

impl Scratch {
    fn fill(&mut self, id: &str, body: &Body<'_>) {
        *self = Self { id: quote(id, REQUEST_ID_BYTES_MAX), ..Self::default() };
        match body {
            Body::Publish(publish) => {
                self.message_id = quote(publish.message_id, MESSAGE_ID_BYTES_MAX);
            }
            Body::Event(event) => self.message = event.json(id),
            Body::Chat(chat) => self.message = chat.json(id),
            Body::Query(query) if !query.is_built_in() => {
                let parameters = parameters(query.parameters).unwrap_or_default();
                self.message = query_json(id, query.resource, parameters);
            }
            Body::Command(command) => {
                let parameters = parameters(command.parameters).unwrap_or_default();
                self.message = command_json(id, command.action, command.target, parameters);
            }
            Body::Ping(Ping { timestamp_ms }) if *timestamp_ms != 0 => {
                self.timestamp = timestamp_ms.to_string();
            }
            _ => {}
        }
    }
}

/// What a message in JSON asks for that was made of an envelope.
fn typed(mut json: &str) -> Result<Command<'_>, Rejection<'_>> {
    let command = next_command(&mut json);
    command.unwrap_or_else(|| Err(malformed(Cow::Borrowed("the message is empty"))))
}

/// The parameters of a query or a command as JSON; `None`: there are none.
fn parameters(bytes: &[u8]) -> Result<Option<&str>, Refused> {
    match bytes.trim_ascii() {
        [] => Ok(None),
        parameters => {
            // In the payload of the message.
            let parameters = json::value_within(parameters, 2);
            let message = Cow::Borrowed("`parameters` is not valid JSON");
            parameters.map(Some).ok_or((ErrorCode::InvalidJson, message))
        }
    }
}

/// The text as JSON; empty if it is, or if it has more than `bytes_max` there, without the quotes: so
/// the same texts are too long in both encodings.
fn quote(text: &str, bytes_max: usize) -> String {
    if text.is_empty() || text.len() > bytes_max {
        return String::new();
    }
    let quoted = json::quote(text);
    if quoted.len() - 2 <= bytes_max { quoted } else { String::new() }
}

/// The filter that a field has, if it is not empty.
fn filter(text: &str) -> Result<Option<Arc<Filter>>, Refused> {
    (!text.is_empty()).then(|| compiled(text)).transpose()
}

/// A channel's name that is one.
fn checked(channel: &str) -> Result<Cow<'_, str>, Refused> {
    match check_topic_name(channel) {
        Ok(()) => Ok(Cow::Borrowed(channel)),
        Err(error) => Err((ErrorCode::from(error), Cow::Owned(error.to_string()))),
    }
}

fn no_route(message: String) -> Refused {
    (ErrorCode::NoRoute, Cow::Owned(message))
}
