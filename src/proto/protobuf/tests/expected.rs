//! The rules of the protocol once more: what they make of an envelope that a generated codec has read.

use std::collections::HashSet;
use std::sync::Arc;

use super::asked::Asked;
use super::envelope;
use super::envelope::envelope::Body;
use super::envelope::{
    Ack, Auth, ChannelPosition, EndSession, Envelope, Event, Ping, Position, Publish, Query,
    RestoreSession, Subscribe, Unsubscribe,
};
use crate::filter::{Filter, VALUE_BYTES_MAX, is_attribute_name};
use crate::ids::{self, ConnectionId, Epoch, GroupName, SessionId, UserName, check_topic_name};
use crate::proto::json;
use crate::proto::protobuf::bytes_as_json;
use crate::proto::{
    Addressee, Among, Audience, Claim, ClaimedPlace, ErrorCode, PresenceQuery, Received,
    RoomAction, RoomPlan, Since, Start, Subscription,
};

/// What the rules of the protocol make of an envelope.
pub fn expected(envelope: &Envelope) -> Result<Asked, ErrorCode> {
    let fits = |text: &str, max| json::quote(text).len() - 2 <= max;
    let optional = |text: &String| (!text.is_empty()).then(|| text.clone());
    let channel = |name: &String| check_topic_name(name).map(|()| name.clone());
    let id = optional(&envelope.id);
    if is_servers(envelope) {
        return Err(ErrorCode::NoRoute);
    }
    if id.as_ref().is_some_and(|id| !fits(id, 64)) {
        return Err(ErrorCode::InvalidMessage);
    }
    Ok(match envelope.body.as_ref().ok_or(ErrorCode::InvalidMessage)? {
        Body::Subscribe(Subscribe { channel: name, recover, since, from_start, limit, filter }) => {
            let channel = channel(name)?;
            let start = match (recover, since, from_start) {
                (None, None, false) => Start::Now,
                (Some(Position { epoch, offset }), None, false) if !epoch.is_empty() => {
                    Start::Recover { epoch: Epoch::parse(epoch), offset: *offset }
                }
                (None, Some(since), false) => Start::Since(Since::from_number(*since)),
                (None, None, true) => Start::Since(Since::Oldest),
                _ => return Err(ErrorCode::InvalidMessage),
            };
            let (limit, filter) = (limit.map(u64::from), compiled(filter)?);
            Asked::Subscribe { channel, start, limit, id, filter }
        }
        Body::Unsubscribe(Unsubscribe { channel: name, subscription_id }) => {
            let subscription = match subscription_id {
                Some(number) if name.is_empty() => Subscription::Id(*number),
                Some(_) => return Err(ErrorCode::InvalidMessage),
                None => Subscription::Channel(channel(name)?.into()),
            };
            Asked::Unsubscribe { subscription, id }
        }
        Body::Ack(Ack { message_id, channel: name, offset }) => {
            let received = if message_id.is_empty() {
                Received::UpTo { channel: channel(name)?.into(), offset: *offset }
            } else {
                let position = ids::Position::parse(message_id);
                Received::One(position.ok_or(ErrorCode::InvalidMessage)?)
            };
            Asked::Ack { received, id }
        }
        Body::RestoreSession(RestoreSession { session_id, connection_id, positions }) => {
            if session_id.is_empty() || connection_id.is_empty() {
                return Err(ErrorCode::InvalidMessage);
            }
            let claim = |position: &ChannelPosition| Claim {
                channel: position.channel.as_str().into(),
                place: match &position.epoch {
                    None => ClaimedPlace::Offset(position.offset),
                    Some(epoch) => ClaimedPlace::Position {
                        epoch: Epoch::parse(epoch),
                        offset: position.offset,
                    },
                },
            };
            let mut claims: Vec<_> = positions.iter().map(claim).collect();
            claims.sort_by(|one, other| one.channel.cmp(&other.channel));
            if claims.windows(2).any(|pair| pair[0].channel == pair[1].channel) {
                return Err(ErrorCode::InvalidMessage);
            }
            let pair = SessionId::parse(session_id).zip(ConnectionId::parse(connection_id));
            Asked::Restore { pair, claims, id }
        }
        Body::Publish(Publish {
            channel: name,
            data,
            message_id,
            no_echo,
            to_user,
            to,
            filter,
            tags,
        }) => {
            let channel = channel(name)?;
            if !fits(message_id, 128) {
                return Err(ErrorCode::InvalidMessage);
            }
            let to = addressee(to_user.as_deref(), to.as_ref())?;
            let filter = compiled(filter)?;
            let is_tag = |(name, value): (&String, &String)| {
                is_attribute_name(name) && value.len() <= VALUE_BYTES_MAX
            };
            if !tags.iter().all(is_tag) || to.is_some() && !tags.is_empty() {
                return Err(ErrorCode::InvalidMessage);
            }
            let tags = tags.clone().into_iter().collect();
            // The other scanner of JSON takes what is nested deeper, and does not keep white space.
            let json = std::str::from_utf8(data).ok().filter(|text| text.trim_ascii() == *text);
            let json =
                json.filter(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
            let data = json.map_or_else(|| bytes_as_json(data), ToOwned::to_owned);
            let ids = [id, optional(message_id)];
            Asked::Publish { channel, data, echo: !no_echo, ids, to, filter, tags }
        }
        Body::Ping(Ping { timestamp_ms }) => {
            Asked::Ping { id, timestamp: (*timestamp_ms != 0).then(|| timestamp_ms.to_string()) }
        }
        Body::Pong(_) => Asked::Pong,
        Body::Auth(Auth { token }) if token.is_empty() => return Err(ErrorCode::InvalidMessage),
        Body::Auth(Auth { token }) => Asked::Auth { token: token.clone(), id },
        Body::Query(Query { resource, parameters }) if resource == "history" => {
            // The strategy has these only.
            match &parameters[..] {
                br#" {"channel":"a:b"} "# => Asked::History { channel: "a:b".into(), id },
                b"" | b"{}" => return Err(ErrorCode::InvalidMessage),
                _ => return Err(ErrorCode::InvalidJson),
            }
        }
        Body::Query(Query { resource, .. }) if resource == "rooms" => Asked::Rooms { id },
        Body::Query(Query { resource, .. }) if resource == "groups" => Asked::Groups { id },
        Body::Query(Query { resource, parameters }) if resource == "presence" => {
            match &parameters[..] {
                br#" {"channel":"a:b"} "# => Asked::Presence {
                    channel: "a:b".into(),
                    query: PresenceQuery { after: 0, limit: 100 },
                    id,
                },
                b"" | b"{}" => return Err(ErrorCode::InvalidMessage),
                _ => return Err(ErrorCode::InvalidJson),
            }
        }
        Body::Command(command) => {
            let (room, action) = room_action(command)?;
            Asked::Room { room, action, id }
        }
        Body::Event(Event { event, data, sender, timestamp_ms, .. }) => {
            let channel = channel(event)?;
            if !fits(sender, 255) {
                return Err(ErrorCode::InvalidMessage);
            }
            let timestamp = if *timestamp_ms == 0 { 3 } else { *timestamp_ms };
            let mut json = serde_json::json!({
                "type": "event", "id": id.unwrap_or("4".into()), "timestamp": timestamp,
                "payload": {"event": event},
            });
            if let Some(sender) = optional(sender) {
                json["sender"] = sender.into();
            }
            if !data.is_empty() {
                let text = std::str::from_utf8(data).ok().filter(|text| text.trim_ascii() == *text);
                match text.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok()) {
                    Some(data) => json["payload"]["data"] = data,
                    None => {
                        json["payload"]["data"] = data_encoding::BASE64.encode(data).into();
                        json["payload"]["encoding"] = "base64".into();
                    }
                }
            }
            Asked::Message { channel: Some(channel), json }
        }
        Body::Chat(_) => return Err(ErrorCode::NoRoute), // The strategy has none.
        Body::Query(Query { resource, .. }) if resource == "time" => Asked::Time { id },
        Body::Query(Query { resource, .. }) if resource == "stats" => Asked::Stats { id },
        Body::Query(Query { resource, .. }) if resource == "session" => Asked::Session { id },
        Body::Query(Query { resource, .. }) if resource == "sessions" => Asked::Sessions { id },
        Body::EndSession(EndSession { session_id }) if session_id.is_empty() => {
            return Err(ErrorCode::InvalidMessage);
        }
        Body::EndSession(EndSession { session_id }) => {
            Asked::EndSession { session: SessionId::parse(session_id), id }
        }
        Body::Query(Query { parameters, .. }) => {
            let json = serde_json::from_slice::<serde::de::IgnoredAny>(parameters);
            let is_json = parameters.is_empty() || json.is_ok();
            return Err(if is_json { ErrorCode::NoRoute } else { ErrorCode::InvalidJson });
        }
        Body::Publication(_)
        | Body::Confirmation(_)
        | Body::Error(_)
        | Body::Response(_)
        | Body::SessionRestored(_)
        | Body::Welcome(_)
        | Body::Gap(_)
        | Body::Presence(_) => return Err(ErrorCode::NoRoute),
    })
}

fn addressee(
    user: Option<&str>,
    to: Option<&envelope::Audience>,
) -> Result<Option<Addressee>, ErrorCode> {
    let user_of = |name: &String| UserName::parse(name).ok_or(ErrorCode::InvalidMessage);
    let users = |names: &[String]| names.iter().map(user_of).collect::<Result<HashSet<_>, _>>();
    let connections =
        |ids: &[String]| ids.iter().filter_map(|id| ConnectionId::parse(id)).collect();
    let to = match (user, to) {
        (None, None) => return Ok(None),
        (Some(user), None) => return Ok(Some(Addressee::User(user_of(&user.to_owned())?))),
        (None, Some(to)) => to,
        (Some(_), Some(_)) => return Err(ErrorCode::InvalidMessage),
    };
    let among = match (&to.users[..], &to.groups[..], &to.connections[..], to.everybody) {
        ([], [], [], true) => Among::Everybody,
        (names @ [_, ..], [], [], false) => Among::Users(users(names)?),
        ([], names @ [_, ..], [], false) => {
            let groups = names.iter().map(|name| GroupName::parse(name));
            Among::Groups(groups.collect::<Option<_>>().ok_or(ErrorCode::InvalidMessage)?)
        }
        ([], [], ids @ [_, ..], false) => Among::Connections(connections(ids)),
        _ => return Err(ErrorCode::InvalidMessage),
    };
    let audience = Audience {
        among,
        except_users: users(&to.except_users)?,
        except_connections: connections(&to.except_connections),
        filter: None,
    };
    Ok(Some(Addressee::Audience(Box::new(audience))))
}

fn compiled(filter: &str) -> Result<Option<Arc<Filter>>, ErrorCode> {
    let filter = (!filter.is_empty()).then(|| Filter::parse(filter).map(Arc::new));
    filter.transpose().map_err(|_| ErrorCode::InvalidMessage)
}

/// What a command asks of which room.
fn room_action(command: &envelope::Command) -> Result<(Option<String>, RoomAction), ErrorCode> {
    let parameters = match command.parameters.trim_ascii() {
        b"" => b"{}",
        parameters => parameters,
    };
    let parameters = serde_json::from_slice::<serde_json::Value>(parameters);
    let parameters = parameters.map_err(|_| ErrorCode::InvalidJson)?;
    let aims = match &*command.action {
        "create_room" | "delete_room" | "join" | "leave" => false,
        "mute" | "unmute" | "kick" => true,
        _ => return Err(ErrorCode::NoRoute),
    };
    let parameters = parameters.as_object().ok_or(ErrorCode::InvalidMessage)?;
    let field = |name: &str| parameters.get(name).and_then(|value| value.as_str());
    let target = Some(&*command.target).filter(|target| !target.is_empty());
    let room = field("room").or(target.filter(|_| !aims));
    let room = room.map(|room| check_topic_name(room).map(|()| room.to_owned())).transpose()?;
    let aim = || {
        let aimed = field("target").or(target).and_then(UserName::parse);
        aimed.ok_or(ErrorCode::InvalidMessage)
    };
    let action = match &*command.action {
        "create_room" => RoomAction::Create(RoomPlan {
            name: field("name").map(Into::into),
            users_max: parameters.get("maxUsers").and_then(|max| max.as_u64()?.try_into().ok()),
            metadata: parameters.get("metadata").map(|metadata| metadata.to_string().into()),
        }),
        "delete_room" => RoomAction::Delete,
        "join" => RoomAction::Join,
        "leave" => RoomAction::Leave,
        "kick" => RoomAction::Kick { target: aim()? },
        mute => RoomAction::Mute { target: aim()?, muted: mute == "mute" },
    };
    Ok((room, action))
}

pub fn is_servers(envelope: &Envelope) -> bool {
    matches!(envelope.body, Some(Body::Gap(_)))
}
