//! The rules for client messages once more, on top of `serde_json` and in the order of the
//! protocol's text; nothing of ours is called that reads JSON.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use stentor::filter::{ATTRIBUTES_MAX, Filter, VALUE_BYTES_MAX, is_attribute_name};
use stentor::ids::{
    ConnectionId, Epoch, GroupName, Position, SessionId, TOPIC_NAME_BYTES_MAX, TYPE_NAME_BYTES_MAX,
    UserName, check_topic_name,
};
use stentor::proto::command::{MESSAGE_ID_BYTES_MAX, REQUEST_ID_BYTES_MAX};
use stentor::proto::json::DEPTH_MAX;
use stentor::proto::routed::RoutedMessage;
use stentor::proto::tags::Tags;
use stentor::proto::typed::TypedMessage;
use stentor::proto::{
    ADDRESSEES_MAX, Addressee, Among, Audience, Claim, ClaimedPlace, Command, Data, ErrorCode,
    Family, HistoryQuery, PresenceQuery, Received, Rejection, RequestId, RoomAction, RoomPlan,
    Since, Start, Subscription,
};

/// Names that a message must not have twice.
const KNOWN: [&str; 24] = [
    "deliveryId",
    "sender",
    "version",
    "metadata",
    "sessionId",
    "connectionId",
    "positions",
    "action",
    "channel",
    "data",
    "type",
    "id",
    "echo",
    "messageId",
    "to",
    "filter",
    "tags",
    "timestamp",
    "offset",
    "subscriptionId",
    "recover",
    "since",
    "limit",
    "payload",
];

type Answer<'a> = Result<Command<'a>, Rejection<'a>>;

/// What a frame asks for, message by message.
pub fn commands(text: &str) -> Vec<Answer<'_>> {
    let mut answers = Vec::new();
    let mut rest = text;
    while !rest.is_empty() || answers.is_empty() {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>();
        let Some(Ok(value)) = values.next() else {
            answers.push(Err(invalid_json()));
            break;
        };
        let behind = &rest[values.byte_offset()..];
        let next = behind.trim_start_matches([' ', '\t', '\n', '\r']);
        let between = &behind[..behind.len() - next.len()];
        let is_separated = next.is_empty() || between.contains('\n');
        if !is_separated || depth(value.get()) > DEPTH_MAX as usize {
            answers.push(Err(invalid_json()));
            break;
        }
        answers.push(Message::read(value.get()).answer());
        rest = next;
    }
    answers
}

/// Most containers open at once in a text that is JSON.
pub fn depth(json: &str) -> usize {
    let (mut open, mut deepest) = (0_usize, 0);
    let (mut in_string, mut is_escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => open += 1,
            b']' | b'}' if !in_string => open -= 1,
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

/// A key, unless it is not Unicode text, and its value as it stands there.
type Member<'a> = (Option<String>, &'a str);

/// The members of an object in their order, doubles too; `None` if it is no object.
pub fn members(json: &str) -> Option<Vec<Member<'_>>> {
    struct Members<'a>(Vec<Member<'a>>);

    impl<'de> Deserialize<'de> for Members<'de> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(MembersVisitor)
        }
    }

    struct MembersVisitor;

    impl<'de> Visitor<'de> for MembersVisitor {
        type Value = Members<'de>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                members.push((serde_json::from_str(key.get()).ok(), value.get()));
            }
            Ok(Members(members))
        }
    }

    serde_json::from_str::<Members<'_>>(json).ok().map(|members| members.0)
}

fn invalid_json<'a>() -> Rejection<'a> {
    let code = ErrorCode::InvalidJson;
    Rejection { family: Family::Action, code, message: Cow::Borrowed(""), channel: None, id: None }
}

/// One message.
struct Message<'a> {
    json: &'a str,
    /// `None` if it is a value of another kind.
    members: Option<Vec<Member<'a>>>,
}

impl<'a> Message<'a> {
    fn read(json: &'a str) -> Self {
        Self { json, members: members(json) }
    }

    /// A message that is passed on whole.
    fn typed(
        &self,
        id: Option<RequestId<'a>>,
        channel: Option<Cow<'a, str>>,
        kind: &'static str,
    ) -> Result<Command<'a>, ErrorCode> {
        let is_event = kind == "event";
        if self.field("offset").or(self.field("deliveryId")).is_some() {
            return Err(ErrorCode::InvalidMessage);
        }
        self.check_version()?;
        let echo = self.echo()?;
        let message_id = self.optional("messageId", is_message_id)?;
        let timestamp = self.optional("timestamp", is_timestamp)?;
        let sender =
            self.optional("sender", |sender| string(sender).is_some() && sender.len() <= 257)?;
        let sender = sender.map(|sender| {
            let start = sender.as_ptr() as usize - self.json.as_ptr() as usize;
            start..start + sender.len()
        });
        Ok(Command::Message(Box::new(TypedMessage {
            kind,
            channel,
            echo,
            id,
            message_id,
            text: self.json,
            sender,
            lacks_id: is_event && id.is_none(),
            lacks_timestamp: is_event && timestamp.is_none(),
        })))
    }

    fn echo(&self) -> Result<bool, ErrorCode> {
        match self.field("echo") {
            None | Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(ErrorCode::InvalidMessage),
        }
    }

    fn check_version(&self) -> Result<(), ErrorCode> {
        let is_number = |part: &str| {
            (1..=9).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        let Some(version) = self.field("version") else { return Ok(()) };
        let version = string(version);
        let minor = version.as_deref().and_then(|version| version.strip_prefix("1."));
        minor.filter(|minor| is_number(minor)).map(drop).ok_or(ErrorCode::UnsupportedVersion)
    }

    /// A message of which only the type is ours to know.
    fn routed(
        &self,
        kind: String,
        id: Option<RequestId<'a>>,
        resource: Option<String>,
    ) -> Result<Command<'a>, ErrorCode> {
        Ok(Command::Routed(Box::new(RoutedMessage {
            kind: Cow::Owned(kind),
            text: self.json,
            id,
            message_id: self.field("messageId").filter(|id| is_message_id(id)),
            channel: self
                .field("channel")
                .and_then(string)
                .filter(|channel| channel.len() <= TOPIC_NAME_BYTES_MAX)
                .map(Cow::Owned),
            resource: resource.map(Cow::Owned),
        })))
    }

    /// The action of a command, if it is one of rooms and looks like one.
    fn room_action(&self) -> Option<String> {
        let payload = self.object("payload", &["action"]).ok()??;
        let action = payload.field("action").and_then(string)?;
        let known = ["create_room", "delete_room", "join", "leave", "mute", "unmute", "kick"];
        known.contains(&&*action).then_some(action)
    }

    fn of_room(&self, id: Option<RequestId<'a>>, action: &str) -> Result<Command<'a>, ErrorCode> {
        let invalid = ErrorCode::InvalidMessage;
        self.check_version()?;
        let payload = self.object("payload", &["parameters", "target"])?.ok_or(invalid)?;
        let names = ["room", "name", "maxUsers", "metadata", "target", "user"];
        let parameters = payload.object("parameters", &names)?;
        let field = |name| parameters.as_ref().and_then(|parameters| parameters.field(name));
        let of_metadata = match (self.field("channel"), self.object("metadata", &["channel"])) {
            (None, metadata) => metadata?.and_then(|it| it.field("channel")),
            (Some(_), _) => None,
        };
        let aims = ["mute", "unmute", "kick"].contains(&action);
        let target = payload.field("target");
        let room = field("room").or(self.field("channel")).or(of_metadata);
        let room = room.or(if aims { None } else { target }).map(named).transpose()?;
        let aim = || {
            let target = field("target").or(field("user")).or(target).ok_or(invalid)?;
            UserName::parse(&string(target).ok_or(invalid)?).ok_or(invalid)
        };
        let action = match action {
            "join" => RoomAction::Join,
            "leave" => RoomAction::Leave,
            "delete_room" => RoomAction::Delete,
            "kick" => RoomAction::Kick { target: aim()? },
            "mute" => RoomAction::Mute { target: aim()?, muted: true },
            "unmute" => RoomAction::Mute { target: aim()?, muted: false },
            _ => {
                let name = field("name").map(|name| string(name).ok_or(invalid)).transpose()?;
                let users_max = field("maxUsers").map(whole).transpose()?;
                let metadata = field("metadata");
                if name.as_ref().is_some_and(|name| !(1..=255).contains(&name.len()))
                    || users_max.is_some_and(|max| !(1..=1_000_000).contains(&max))
                    || metadata.is_some_and(|it| members(it).is_none() || it.len() > 4096)
                {
                    return Err(invalid);
                }
                RoomAction::Create(RoomPlan {
                    name: name.map(Into::into),
                    users_max: users_max.map(|max| max as u32),
                    metadata: metadata.map(Into::into),
                })
            }
        };
        Ok(Command::Room { room, action, id })
    }

    fn answer(&self) -> Answer<'a> {
        self.command().map_err(|code| Rejection {
            family: match (self.field("action"), self.field("type")) {
                (None, Some(_)) => Family::Type,
                _ => Family::Action,
            },
            code,
            message: Cow::Borrowed(""),
            channel: self
                .single("channel")
                .and_then(string)
                .filter(|channel| channel.len() <= TOPIC_NAME_BYTES_MAX)
                .map(Cow::Owned),
            id: self.single("id").filter(|id| is_request_id(id)).and_then(RequestId::parse),
        })
    }

    fn filter(&self) -> Result<Option<Arc<Filter>>, ErrorCode> {
        let Some(value) = self.field("filter") else { return Ok(None) };
        let text = string(value).ok_or(ErrorCode::InvalidMessage)?;
        Filter::parse(&text)
            .map(|filter| Some(Arc::new(filter)))
            .map_err(|_| ErrorCode::InvalidMessage)
    }

    fn addressee(&self) -> Result<Addressee, ErrorCode> {
        let invalid = ErrorCode::InvalidMessage;
        let names = ["user", "users", "groups", "connections", "everybody", "except"];
        let to = self.object("to", &names)?.ok_or(invalid)?;
        let given: Vec<_> = names.into_iter().filter(|name| to.field(name).is_some()).collect();
        let list = |of: &Self, name| of.field(name).map(texts).transpose();
        let lists = ["users", "groups", "connections"].map(|name| list(&to, name));
        let [users, groups, connections] = lists;
        let (users, groups, connections) = (users?, groups?, connections?);
        if to.field("everybody").is_some_and(|value| value != "true") {
            return Err(invalid);
        }
        let except = to.object("except", &["users", "connections"])?;
        let except = |name| except.as_ref().map_or(Ok(None), |except| list(except, name));
        let (except_users, except_connections) = (except("users")?, except("connections")?);
        let user = |name: &String| UserName::parse(name).ok_or(invalid);
        let ids = |ids: &[String]| ids.iter().filter_map(|id| ConnectionId::parse(id)).collect();
        let among = match given.iter().filter(|name| **name != "except").collect::<Vec<_>>()[..] {
            [&"user"] if given == ["user"] => {
                let name = to.field("user").and_then(string).ok_or(invalid)?;
                return user(&name).map(Addressee::User);
            }
            [&"everybody"] => Among::Everybody,
            [&"users"] => {
                Among::Users(users.unwrap_or_default().iter().map(user).collect::<Result<_, _>>()?)
            }
            [&"groups"] => {
                let groups = groups.unwrap_or_default();
                let groups = groups.iter().map(|name| GroupName::parse(name));
                Among::Groups(groups.collect::<Option<_>>().ok_or(invalid)?)
            }
            [&"connections"] if connections.as_ref().is_some_and(Vec::is_empty) => {
                return Err(invalid);
            }
            [&"connections"] => Among::Connections(ids(&connections.unwrap_or_default())),
            _ => return Err(invalid),
        };
        let is_empty = match &among {
            Among::Users(users) => users.is_empty(),
            Among::Groups(groups) => groups.is_empty(),
            Among::Everybody | Among::Connections(_) => false,
        };
        if is_empty {
            return Err(invalid);
        }
        let except_users = except_users.unwrap_or_default();
        Ok(Addressee::Audience(Box::new(Audience {
            among,
            except_users: except_users.iter().map(user).collect::<Result<_, _>>()?,
            except_connections: ids(&except_connections.unwrap_or_default()),
            filter: None,
        })))
    }

    /// The rules for each, and how they are written; who has them is asked by name and value.
    fn tags(&self) -> Result<Option<Tags>, ErrorCode> {
        let invalid = ErrorCode::InvalidMessage;
        let Some(value) = self.field("tags") else { return Ok(None) };
        let mut tags: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        for (name, value) in members(value).ok_or(invalid)? {
            let (name, value) = name.zip(string(value)).ok_or(invalid)?;
            let is_first = tags.iter().all(|(other, _)| *other != name);
            if !is_attribute_name(&name) || value.len() > VALUE_BYTES_MAX || !is_first {
                return Err(invalid);
            }
            tags.push((name.into(), value.into()));
            if tags.len() > ATTRIBUTES_MAX {
                return Err(invalid);
            }
        }
        Tags::of_texts(&tags).map_err(|_| invalid)
    }

    fn command(&self) -> Result<Command<'a>, ErrorCode> {
        let is_object = self.members.is_some();
        if !is_object || KNOWN.iter().any(|name| self.count(name) > 1) {
            return Err(ErrorCode::InvalidMessage);
        }
        let invalid = ErrorCode::InvalidMessage;
        if let Some(action) = self.field("action") {
            return match &string(action).ok_or(invalid)?[..] {
                "publish" if self.field("to").is_some() => {
                    let direct = Command::Direct {
                        id: self.id()?,
                        channel: self.channel()?,
                        to: self.addressee()?,
                        data: Data::Json(self.field("data").ok_or(invalid)?),
                        echo: self.echo()?,
                        message_id: self.optional("messageId", is_message_id)?,
                        filter: self.filter()?,
                    };
                    if self.tags()?.is_some() { Err(invalid) } else { Ok(direct) }
                }
                "publish" => Ok(Command::Publish {
                    id: self.id()?,
                    channel: self.channel()?,
                    data: Data::Json(self.field("data").ok_or(invalid)?),
                    echo: self.echo()?,
                    message_id: self.optional("messageId", is_message_id)?,
                    filter: self.filter()?,
                    tags: self.tags()?,
                }),
                "subscribe" => Ok(Command::Subscribe {
                    id: self.id()?,
                    channel: self.channel()?,
                    start: self.start()?,
                    limit: self.field("limit").map(whole).transpose()?,
                    filter: self.filter()?,
                }),
                "unsubscribe" => {
                    Ok(Command::Unsubscribe { id: self.id()?, subscription: self.subscription()? })
                }
                _ => Err(ErrorCode::UnknownAction),
            };
        }
        match &self.field("type").and_then(string).ok_or(invalid)?[..] {
            "ping" => Ok(Command::Ping {
                id: self.id()?,
                timestamp: self.optional("timestamp", is_timestamp)?,
            }),
            "pong" => Ok(Command::Pong),
            "ack" => Ok(Command::Ack { id: self.id()?, received: self.received()? }),
            "command" => {
                let id = self.id()?;
                match self.room_action() {
                    Some(action) => self.of_room(id, &action),
                    None => self.routed("command".to_owned(), id, None),
                }
            }
            "event" => {
                let id = self.id()?;
                let payload = self.object("payload", &["event", "data"])?.ok_or(invalid)?;
                let channel = payload.field("event").map(named).ok_or(invalid)??;
                if self.field("channel").is_some() && self.channel()? != channel {
                    return Err(invalid);
                }
                self.typed(id, Some(channel), "event")
            }
            kind @ ("text" | "image" | "file") => {
                let id = self.id()?;
                self.object("payload", &[])?.ok_or(invalid)?;
                let channel = match self.field("channel") {
                    Some(_) => Some(self.channel()?),
                    None => {
                        let metadata = self.object("metadata", &["channel"])?;
                        let channel = metadata.as_ref().and_then(|it| it.field("channel"));
                        channel.map(named).transpose()?
                    }
                };
                let kinds = ["text", "image", "file"];
                let kind = kinds.into_iter().find(|known| *known == kind).expect("one of them");
                self.typed(id, channel, kind)
            }
            "auth" => {
                let id = self.id()?;
                let payload = self.object("payload", &["token"])?.ok_or(invalid)?;
                let token = payload.field("token").and_then(string).ok_or(invalid)?;
                Ok(Command::Auth { token: Cow::Owned(token), id })
            }
            "query" => {
                let id = self.id()?;
                let payload =
                    self.object("payload", &["resource", "parameters"])?.ok_or(invalid)?;
                let resource = payload.field("resource").and_then(string).ok_or(invalid)?;
                match &resource[..] {
                    "history" => {}
                    "rooms" => return Ok(Command::Rooms { id }),
                    "groups" => return Ok(Command::Groups { id }),
                    "room" => {
                        let parameters = payload.object("parameters", &["room"])?;
                        let room = parameters.as_ref().and_then(|it| it.field("room"));
                        let room = room.map(named).transpose()?;
                        return Ok(Command::Room { room, action: RoomAction::Describe, id });
                    }
                    "presence" => {
                        let names = ["channel", "limit", "after"];
                        let parameters = payload.object("parameters", &names)?.ok_or(invalid)?;
                        let query = parameters.presence();
                        return Ok(Command::Presence {
                            id,
                            channel: parameters.channel()?,
                            query: query?,
                        });
                    }
                    "time" => return Ok(Command::Time { id }),
                    "stats" => return Ok(Command::Stats { id }),
                    "session" => return Ok(Command::Session { id }),
                    "sessions" => return Ok(Command::Sessions { id }),
                    _ => return self.routed("query".to_owned(), id, Some(resource)),
                }
                let names = ["channel", "since", "until", "limit", "reverse"];
                let parameters = payload.object("parameters", &names)?.ok_or(invalid)?;
                let query = parameters.history();
                Ok(Command::History { id, channel: parameters.channel()?, query: query? })
            }
            "end_session" => {
                let id = self.id()?;
                let session = self.field("sessionId").and_then(string).ok_or(invalid)?;
                Ok(Command::EndSession { session: SessionId::parse(&session), id })
            }
            "restore_session" => {
                let id = self.id()?;
                let text = |name| self.field(name).and_then(string).ok_or(invalid);
                let (session, connection) = (text("sessionId")?, text("connectionId")?);
                let pair = SessionId::parse(&session).zip(ConnectionId::parse(&connection));
                Ok(Command::RestoreSession { pair, claims: self.claims()?, id })
            }
            kind if (1..=TYPE_NAME_BYTES_MAX).contains(&kind.len()) => {
                self.routed(kind.to_owned(), self.id()?, None)
            }
            _ => Err(ErrorCode::NoRoute),
        }
    }

    /// Where the client says that it is, in the order of the channels.
    fn claims(&self) -> Result<Vec<Claim>, ErrorCode> {
        let invalid = ErrorCode::InvalidMessage;
        let Some(positions) = self.field("positions") else { return Ok(Vec::new()) };
        let mut claims = Vec::new();
        for (channel, value) in members(positions).ok_or(invalid)? {
            let channel = channel.ok_or(invalid)?.into();
            let position = Message::read(value);
            let place = if position.members.is_none() {
                ClaimedPlace::Offset(whole(value)?)
            } else if ["epoch", "offset"].iter().any(|name| position.count(name) > 1) {
                return Err(invalid);
            } else {
                let epoch = position.field("epoch").and_then(string).ok_or(invalid)?;
                let offset = whole(position.field("offset").ok_or(invalid)?)?;
                ClaimedPlace::Position { epoch: Epoch::parse(&epoch), offset }
            };
            claims.push(Claim { channel, place });
        }
        claims.sort_by(|one, other| one.channel.cmp(&other.channel));
        let twice = claims.windows(2).any(|pair| pair[0].channel == pair[1].channel);
        if twice { Err(invalid) } else { Ok(claims) }
    }

    fn received(&self) -> Result<Received<'a>, ErrorCode> {
        let invalid = ErrorCode::InvalidMessage;
        if let Some(id) = self.field("messageId") {
            let id = string(id).ok_or(invalid)?;
            let (epoch, offset) = id.split_once('-').ok_or(invalid)?;
            let epoch = Epoch::parse(epoch).ok_or(invalid)?;
            let offset = whole(offset).ok().filter(|number| number.to_string() == offset);
            let offset = offset.filter(|offset| *offset > 0).ok_or(invalid)?;
            return Ok(Received::One(Position { epoch, offset }));
        }
        let offset = whole(self.field("offset").ok_or(invalid)?)?;
        Ok(Received::UpTo { channel: self.channel()?, offset })
    }

    fn subscription(&self) -> Result<Subscription<'a>, ErrorCode> {
        match (self.field("channel"), self.field("subscriptionId")) {
            (Some(_), Some(_)) => Err(ErrorCode::InvalidMessage),
            (None, Some(id)) => Ok(Subscription::Id(whole(id)?)),
            (_, None) => Ok(Subscription::Channel(self.channel()?)),
        }
    }

    /// As the parameters of a query for a history.
    fn history(&self) -> Result<HistoryQuery, ErrorCode> {
        let limit = self.field("limit").map_or(Ok(100), whole)?;
        if limit == 0 || limit > 1000 {
            return Err(ErrorCode::InvalidMessage);
        }
        Ok(HistoryQuery {
            since: self.field("since").map_or(Ok(Since::Oldest), place)?,
            until: self.field("until").map(|until| whole(until).map(at)).transpose()?,
            limit: limit as usize,
            reverse: match self.field("reverse") {
                None | Some("false") => false,
                Some("true") => true,
                Some(_) => return Err(ErrorCode::InvalidMessage),
            },
        })
    }

    /// As the parameters of a query for who is there.
    fn presence(&self) -> Result<PresenceQuery, ErrorCode> {
        let limit = self.field("limit").map_or(Ok(100), whole)?;
        let after = self.field("after").map_or(Ok(0), whole)?;
        match limit {
            0..=1000 => Ok(PresenceQuery { after, limit: limit as usize }),
            _ => Err(ErrorCode::InvalidMessage),
        }
    }

    fn start(&self) -> Result<Start, ErrorCode> {
        let invalid = ErrorCode::InvalidMessage;
        match (self.object("recover", &["epoch", "offset"])?, self.field("since")) {
            (Some(_), Some(_)) => Err(invalid),
            (None, None) => Ok(Start::Now),
            (None, Some(since)) => Ok(Start::Since(place(since)?)),
            (Some(recover), None) => {
                let epoch = recover.field("epoch").and_then(string).ok_or(invalid)?;
                let offset = whole(recover.field("offset").ok_or(invalid)?)?;
                Ok(Start::Recover { epoch: Epoch::parse(&epoch), offset })
            }
        }
    }

    /// A field that may be absent, but must be an object without doubles of these names.
    fn object(&self, name: &str, names: &[&str]) -> Result<Option<Message<'a>>, ErrorCode> {
        let Some(json) = self.field(name) else { return Ok(None) };
        let object = Message::read(json);
        let is_sound = object.members.is_some() && names.iter().all(|name| object.count(name) < 2);
        is_sound.then_some(Some(object)).ok_or(ErrorCode::InvalidMessage)
    }

    fn channel(&self) -> Result<Cow<'a, str>, ErrorCode> {
        let channel = self.field("channel").and_then(string).ok_or(ErrorCode::InvalidMessage)?;
        check_topic_name(&channel).map_err(ErrorCode::from)?;
        Ok(Cow::Owned(channel))
    }

    fn id(&self) -> Result<Option<RequestId<'a>>, ErrorCode> {
        Ok(self.optional("id", is_request_id)?.and_then(RequestId::parse))
    }

    /// A field that may be absent, but not of the wrong kind.
    fn optional(&self, name: &str, rule: fn(&str) -> bool) -> Result<Option<&'a str>, ErrorCode> {
        match self.field(name) {
            Some(value) if !rule(value) => Err(ErrorCode::InvalidMessage),
            value => Ok(value),
        }
    }

    /// The first of that name.
    fn field(&self, name: &str) -> Option<&'a str> {
        let mut members = self.members.iter().flatten();
        members.find(|(key, _)| key.as_deref() == Some(name)).map(|(_, value)| *value)
    }

    fn single(&self, name: &str) -> Option<&'a str> {
        self.field(name).filter(|_| self.count(name) == 1)
    }

    fn count(&self, name: &str) -> usize {
        let members = self.members.iter().flatten();
        members.filter(|(key, _)| key.as_deref() == Some(name)).count()
    }
}

fn string(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

/// A list of texts that is not too long.
fn texts(json: &str) -> Result<Vec<String>, ErrorCode> {
    let texts = serde_json::from_str::<Vec<String>>(json).ok();
    texts.filter(|texts| texts.len() <= ADDRESSEES_MAX).ok_or(ErrorCode::InvalidMessage)
}

fn place(json: &str) -> Result<Since, ErrorCode> {
    if string(json).is_some_and(|text| text == "start") {
        return Ok(Since::Oldest);
    }
    whole(json).map(at)
}

/// Offsets are smaller than any time of interest.
fn at(number: u64) -> Since {
    if number < 100_000_000_000 { Since::Offset(number) } else { Since::Time(number) }
}

fn whole(json: &str) -> Result<u64, ErrorCode> {
    let digits = json.bytes().all(|byte| byte.is_ascii_digit());
    let number = json.parse().ok().filter(|_| digits);
    number.ok_or(ErrorCode::InvalidMessage)
}

fn is_message_id(json: &str) -> bool {
    is_string_up_to(json, MESSAGE_ID_BYTES_MAX)
}

fn is_request_id(json: &str) -> bool {
    is_string_up_to(json, REQUEST_ID_BYTES_MAX)
        || (is_number_up_to(json, REQUEST_ID_BYTES_MAX) && !json.contains(['.', 'e', 'E']))
}

fn is_timestamp(json: &str) -> bool {
    is_string_up_to(json, REQUEST_ID_BYTES_MAX) || is_number_up_to(json, REQUEST_ID_BYTES_MAX)
}

/// Its length as it was written, between the quotes.
fn is_string_up_to(json: &str, bytes_max: usize) -> bool {
    json.starts_with('"') && json.len() > 2 && json.len() - 2 <= bytes_max
}

fn is_number_up_to(json: &str, bytes_max: usize) -> bool {
    json.len() <= bytes_max
        && json.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
}

/// The name of a channel that a JSON value is.
fn named<'a>(json: &'a str) -> Result<Cow<'a, str>, ErrorCode> {
    let channel = string(json).ok_or(ErrorCode::InvalidMessage)?;
    check_topic_name(&channel).map_err(ErrorCode::from)?;
    Ok(Cow::Owned(channel))
}
