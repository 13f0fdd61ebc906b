//! The fields of one message: reading them off the text, and the rules for each.

use std::borrow::Cow;
use std::sync::Arc;

use crate::filter::Filter;
use crate::ids::{TOPIC_NAME_BYTES_MAX, TYPE_NAME_BYTES_MAX, check_topic_name};
use crate::proto::command::plain::Opening;
use crate::proto::command::{
    Command, Family, MESSAGE_ID_BYTES_MAX, REQUEST_ID_BYTES_MAX, Rejection, RequestId,
};
use crate::proto::data::Data;
use crate::proto::error_code::ErrorCode;
use crate::proto::json::{JsonError, RawString, Scanner};
use crate::proto::routed::RoutedMessage;
use crate::proto::tags::Tags;

/// Most characters of an unknown name that an error repeats.
const NAME_CHARS_MAX: usize = 64;

/// The fields we know of one message, as JSON values.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    /// All of it, and nothing around it.
    pub(super) text: &'a str,
    /// The message is a JSON value of another kind, and has no fields.
    is_no_object: bool,
    action: Option<&'a str>,
    type_: Option<&'a str>,
    pub(super) channel: Option<&'a str>,
    data: Option<&'a str>,
    echo: Option<&'a str>,
    id: Option<&'a str>,
    pub(super) message_id: Option<&'a str>,
    pub(super) timestamp: Option<&'a str>,
    pub(super) sender: Option<&'a str>,
    pub(super) version: Option<&'a str>,
    pub(super) metadata: Option<&'a str>,
    pub(super) delivery_id: Option<&'a str>,
    pub(super) offset: Option<&'a str>,
    pub(super) subscription_id: Option<&'a str>,
    pub(super) recover: Option<&'a str>,
    pub(super) since: Option<&'a str>,
    pub(super) limit: Option<&'a str>,
    pub(super) payload: Option<&'a str>,
    pub(super) to: Option<&'a str>,
    filter: Option<&'a str>,
    tags: Option<&'a str>,
    pub(super) session_id: Option<&'a str>,
    pub(super) connection_id: Option<&'a str>,
    pub(super) positions: Option<&'a str>,
    /// The first field that came twice.
    duplicate: Option<&'static str>,
    /// Came twice, first or not: in doubt, and not to be repeated in the answer.
    channel_is_doubtful: bool,
    id_is_doubtful: bool,
}

/// Why a message is refused, before it is said whose.
pub(in crate::proto) type Refused = (ErrorCode, Cow<'static, str>);

impl<'a> Fields<'a> {
    /// Reads the message that `text` begins with, whatever it is. `opening`: what is known of it. Returns the
    /// place behind it.
    pub fn read(
        &mut self,
        text: &'a str,
        opening: Option<Opening<'a>>,
    ) -> Result<Scanner<'a>, JsonError> {
        let mut scanner = Scanner::new(text);
        scanner.whitespace();
        let text = scanner.rest();
        let mut object = if let Some(Opening { channel, data, rest }) = opening {
            self.action = Some(r#""publish""#);
            self.channel = Some(channel);
            self.data = Some(data);
            scanner = rest;
            scanner.rest_of_object()
        } else if let Some(object) = scanner.object() {
            object
        } else {
            self.is_no_object = true;
            scanner.value()?;
            return Ok(scanner);
        };
        while let Some((key, value)) = object.next_member()? {
            if !key.has_escapes() {
                self.set(key.raw(), value);
            } else if let Some(name) = key.decode() {
                self.set(&name, value);
            } // Else it is no text, and so no name that we know.
        }
        self.text = text.get(..text.len() - scanner.rest().len()).unwrap_or_default();
        Ok(scanner)
    }

    fn set(&mut self, name: &str, value: &'a str) {
        let (field, name) = match name {
            "action" => (&mut self.action, "action"),
            "channel" => (&mut self.channel, "channel"),
            "data" => (&mut self.data, "data"),
            "type" => (&mut self.type_, "type"),
            "id" => (&mut self.id, "id"),
            "echo" => (&mut self.echo, "echo"),
            "messageId" => (&mut self.message_id, "messageId"),
            "timestamp" => (&mut self.timestamp, "timestamp"),
            "offset" => (&mut self.offset, "offset"),
            "subscriptionId" => (&mut self.subscription_id, "subscriptionId"),
            "recover" => (&mut self.recover, "recover"),
            "since" => (&mut self.since, "since"),
            "limit" => (&mut self.limit, "limit"),
            "payload" => (&mut self.payload, "payload"),
            "to" => (&mut self.to, "to"),
            "filter" => (&mut self.filter, "filter"),
            "tags" => (&mut self.tags, "tags"),
            "sessionId" => (&mut self.session_id, "sessionId"),
            "connectionId" => (&mut self.connection_id, "connectionId"),
            "positions" => (&mut self.positions, "positions"),
            "sender" => (&mut self.sender, "sender"),
            "version" => (&mut self.version, "version"),
            "metadata" => (&mut self.metadata, "metadata"),
            "deliveryId" => (&mut self.delivery_id, "deliveryId"),
            _ => return,
        };
        if field.replace(value).is_some() {
            self.duplicate.get_or_insert(name);
            self.channel_is_doubtful |= name == "channel";
            self.id_is_doubtful |= name == "id";
        }
    }

    /// What the fields ask for, if they are all there and of their types.
    pub fn command(&self) -> Result<Command<'a>, Rejection<'a>> {
        self.interpret().map_err(|(code, message)| Rejection {
            family: self.family(),
            code,
            message,
            channel: self.known_channel(),
            id: self.known_id(),
        })
    }

    /// With both, `action` wins.
    fn family(&self) -> Family {
        if self.action.is_none() && self.type_.is_some() { Family::Type } else { Family::Action }
    }

    fn interpret(&self) -> Result<Command<'a>, Refused> {
        if self.is_no_object {
            return Err(invalid("a message must be an object"));
        }
        if let Some(name) = self.duplicate {
            return Err(invalid(format!("`{name}` appears more than once")));
        }
        match (self.action, self.type_) {
            // Most messages: nothing is to be decoded.
            (Some(r#""publish""#), _) => self.action_command("publish"),
            (Some(action), _) => self.action_command(&decode(action, "action")?),
            (None, Some(type_)) => self.type_command(decode(type_, "type")?),
            (None, None) => Err(invalid("a message needs `action` or `type`")),
        }
    }

    fn action_command(&self, action: &str) -> Result<Command<'a>, Refused> {
        match action {
            "publish" if self.to.is_some() => self.direct(),
            "publish" => Ok(Command::Publish {
                id: self.id()?,
                channel: self.channel()?,
                data: self.published()?,
                echo: self.echo()?,
                message_id: self.message_id()?,
                filter: self.filter()?,
                tags: self.tags()?,
            }),
            "subscribe" => Ok(Command::Subscribe {
                id: self.id()?,
                channel: self.channel()?,
                start: self.start()?,
                limit: self.limit()?,
                filter: self.filter()?,
            }),
            "unsubscribe" => {
                Ok(Command::Unsubscribe { id: self.id()?, subscription: self.subscription()? })
            }
            unknown => {
                let message = format!("unknown action `{}`", displayed_name(unknown));
                Err((ErrorCode::UnknownAction, Cow::Owned(message)))
            }
        }
    }

    fn direct(&self) -> Result<Command<'a>, Refused> {
        let direct = Command::Direct {
            id: self.id()?,
            channel: self.channel()?,
            to: self.addressee()?,
            data: self.published()?,
            echo: self.echo()?,
            message_id: self.message_id()?,
            filter: self.filter()?,
        };
        if self.tags()?.is_some() { Err(no_tags()) } else { Ok(direct) }
    }

    fn published(&self) -> Result<Data<'a>, Refused> {
        self.data.map(Data::Json).ok_or_else(|| invalid("`data` is missing"))
    }

    fn type_command(&self, type_: Cow<'a, str>) -> Result<Command<'a>, Refused> {
        match &*type_ {
            "ping" => Ok(Command::Ping { id: self.id()?, timestamp: self.timestamp()? }),
            "pong" => Ok(Command::Pong),
            "query" => self.query(self.id()?),
            "auth" => self.auth(self.id()?),
            "restore_session" => self.restore(self.id()?),
            "end_session" => self.end_session(self.id()?),
            "event" => self.event(self.id()?),
            "text" => self.chat(self.id()?, "text"),
            "image" => self.chat(self.id()?, "image"),
            "file" => self.chat(self.id()?, "file"),
            "command" => self.command_of_type(type_, self.id()?),
            "ack" => Ok(Command::Ack { id: self.id()?, received: self.received()? }),
            // These cannot have a route.
            unknown if !(1..=TYPE_NAME_BYTES_MAX).contains(&unknown.len()) => {
                let message = format!("no route for type `{}`", displayed_name(unknown));
                Err((ErrorCode::NoRoute, Cow::Owned(message)))
            }
            _ => self.routed(type_, self.id()?, None),
        }
    }

    /// What other fields must be is for whoever the route leads to.
    pub(super) fn routed(
        &self,
        kind: Cow<'a, str>,
        id: Option<RequestId<'a>>,
        resource: Option<Cow<'a, str>>,
    ) -> Result<Command<'a>, Refused> {
        Ok(Command::Routed(Box::new(RoutedMessage {
            kind,
            text: self.text,
            id,
            message_id: self.message_id().unwrap_or_default(),
            channel: self.known_channel(),
            resource,
        })))
    }

    pub(super) fn channel(&self) -> Result<Cow<'a, str>, Refused> {
        channel(self.channel)
    }

    pub(super) fn echo(&self) -> Result<bool, Refused> {
        match self.echo {
            None | Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(invalid("`echo` must be true or false")),
        }
    }

    fn filter(&self) -> Result<Option<Arc<Filter>>, Refused> {
        let filter = self.filter.map(|filter| compiled(&decode(filter, "filter")?));
        filter.transpose()
    }

    fn tags(&self) -> Result<Option<Tags>, Refused> {
        match self.tags {
            None => Ok(None),
            Some(tags) => Tags::of_json(tags).map_err(|error| invalid(error.to_string())),
        }
    }

    fn id(&self) -> Result<Option<RequestId<'a>>, Refused> {
        let Some(value) = self.id else {
            return Ok(None);
        };
        match RequestId::parse(value) {
            None => Err(invalid(format!(
                "`id` must be an integer or a string of 1 to {REQUEST_ID_BYTES_MAX} bytes"
            ))),
            id => Ok(id),
        }
    }

    pub(super) fn message_id(&self) -> Result<Option<&'a str>, Refused> {
        match self.message_id {
            Some(value) if !is_short_string(value, MESSAGE_ID_BYTES_MAX) => Err(invalid(format!(
                "`messageId` must be a string of 1 to {MESSAGE_ID_BYTES_MAX} bytes"
            ))),
            message_id => Ok(message_id),
        }
    }

    pub(super) fn timestamp(&self) -> Result<Option<&'a str>, Refused> {
        match self.timestamp {
            Some(value)
                if !is_short_string(value, REQUEST_ID_BYTES_MAX) && !is_short_number(value) =>
            {
                Err(invalid(format!(
                    "`timestamp` must be a number or a string, of at most {REQUEST_ID_BYTES_MAX} \
                     bytes"
                )))
            }
            timestamp => Ok(timestamp),
        }
    }

    /// For the answer to a refused message; absent if it is itself in doubt, or too long to repeat.
    fn known_channel(&self) -> Option<Cow<'a, str>> {
        if self.channel_is_doubtful {
            return None;
        }
        let channel = RawString::of_value(self.channel?)?.decode()?;
        (channel.len() <= TOPIC_NAME_BYTES_MAX).then_some(channel)
    }

    fn known_id(&self) -> Option<RequestId<'a>> {
        if self.id_is_doubtful { None } else { RequestId::parse(self.id?) }
    }
}

/// The name of a channel that a field must hold.
pub(super) fn channel(value: Option<&str>) -> Result<Cow<'_, str>, Refused> {
    let value = value.ok_or_else(|| invalid("`channel` is missing"))?;
    let channel = decode(value, "channel")?;
    match check_topic_name(&channel) {
        Ok(()) => Ok(channel),
        Err(error) => Err((ErrorCode::from(error), Cow::Owned(error.to_string()))),
    }
}

/// The filter that a field `filter` has.
pub(in crate::proto) fn compiled(filter: &str) -> Result<Arc<Filter>, Refused> {
    let filter = Filter::parse(filter);
    filter.map(Arc::new).map_err(|error| invalid(format!("`filter`: {error}")))
}

/// For a message to a user with tags: it has no subscribers whose filters could ask for them.
pub(in crate::proto) fn no_tags() -> Refused {
    invalid("`tags` and `to` exclude each other")
}

pub(in crate::proto) fn invalid(message: impl Into<Cow<'static, str>>) -> Refused {
    (ErrorCode::InvalidMessage, message.into())
}

/// The text of a field that must be a string.
pub(super) fn decode<'a>(value: &'a str, name: &str) -> Result<Cow<'a, str>, Refused> {
    let string = RawString::of_value(value);
    string
        .and_then(RawString::decode)
        .ok_or_else(|| invalid(format!("`{name}` must be a string of Unicode text")))
}

/// A name from the peer, safe to print and short.
pub(in crate::proto) fn displayed_name(name: &str) -> String {
    name.chars().take(NAME_CHARS_MAX).flat_map(char::escape_debug).collect()
}

pub(super) fn is_short_string(value: &str, bytes_max: usize) -> bool {
    RawString::of_value(value).is_some_and(|string| (1..=bytes_max).contains(&string.raw().len()))
}

/// Of a JSON value: whether it is a number, and short enough to be echoed.
fn is_short_number(value: &str) -> bool {
    value.len() <= REQUEST_ID_BYTES_MAX
        && value.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

pub(super) fn is_integer(value: &str) -> bool {
    is_short_number(value) && !value.contains(['.', 'e', 'E'])
}
