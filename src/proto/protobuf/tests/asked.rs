//! What clients ask for, in words that compare: texts and not their JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::filter::Filter;
use crate::ids::{ConnectionId, SessionId};
use crate::proto::json::RawString;
use crate::proto::tags::{Tags, pairs};
use crate::proto::{
    Addressee, Claim, Command, PresenceQuery, Received, RoomAction, Start, Subscription,
};

/// A request in words of its own.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    Subscribe {
        channel: String,
        start: Start,
        limit: Option<u64>,
        id: Option<String>,
        filter: Option<Arc<Filter>>,
    },
    Unsubscribe {
        subscription: Subscription<'static>,
        id: Option<String>,
    },
    Publish {
        channel: String,
        data: String,
        echo: bool,
        ids: [Option<String>; 2],
        to: Option<Addressee>,
        filter: Option<Arc<Filter>>,
        /// A map has no order.
        tags: BTreeMap<String, String>,
    },
    History {
        channel: String,
        id: Option<String>,
    },
    Presence {
        channel: String,
        query: PresenceQuery,
        id: Option<String>,
    },
    Room {
        room: Option<String>,
        action: RoomAction,
        id: Option<String>,
    },
    Rooms {
        id: Option<String>,
    },
    Groups {
        id: Option<String>,
    },
    Ping {
        id: Option<String>,
        timestamp: Option<String>,
    },
    Auth {
        token: String,
        id: Option<String>,
    },
    Ack {
        received: Received<'static>,
        id: Option<String>,
    },
    Session {
        id: Option<String>,
    },
    Sessions {
        id: Option<String>,
    },
    EndSession {
        session: Option<SessionId>,
        id: Option<String>,
    },
    Restore {
        pair: Option<(SessionId, ConnectionId)>,
        claims: Vec<Claim>,
        id: Option<String>,
    },
    Message {
        channel: Option<String>,
        json: serde_json::Value,
    },
    Routed {
        kind: String,
        resource: Option<String>,
        channel: Option<String>,
        ids: [Option<String>; 2],
        json: serde_json::Value,
    },
    Time {
        id: Option<String>,
    },
    Stats {
        id: Option<String>,
    },
    Pong,
}

/// The text of a JSON string.
fn text(json: &str) -> String {
    RawString::of_value(json).and_then(RawString::decode).expect("a JSON string").into_owned()
}

fn map(tags: Tags) -> BTreeMap<String, String> {
    let pairs = pairs(tags.as_json()).into_iter();
    pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

pub fn asked(command: Command<'_>) -> Asked {
    let id = |id: Option<crate::proto::RequestId<'_>>| id.map(|id| text(id.as_json()));
    match command {
        Command::Subscribe { channel, start, limit, id: request, filter } => {
            let channel = channel.into_owned();
            Asked::Subscribe { channel, start, limit, id: id(request), filter }
        }
        Command::Unsubscribe { subscription, id: request } => Asked::Unsubscribe {
            subscription: match subscription {
                Subscription::Channel(channel) => {
                    Subscription::Channel(channel.into_owned().into())
                }
                Subscription::Id(number) => Subscription::Id(number),
            },
            id: id(request),
        },
        Command::Ack { received, id: request } => Asked::Ack {
            received: match received {
                Received::One(position) => Received::One(position),
                Received::UpTo { channel, offset } => {
                    Received::UpTo { channel: channel.into_owned().into(), offset }
                }
            },
            id: id(request),
        },
        Command::Presence { channel, query, id: request } => {
            let channel = channel.into_owned();
            Asked::Presence { channel, query, id: id(request) }
        }
        Command::Room { room, action, id: request } => {
            Asked::Room { room: room.map(|room| room.into_owned()), action, id: id(request) }
        }
        Command::Rooms { id: request } => Asked::Rooms { id: id(request) },
        Command::Groups { id: request } => Asked::Groups { id: id(request) },
        Command::Session { id: request } => Asked::Session { id: id(request) },
        Command::Sessions { id: request } => Asked::Sessions { id: id(request) },
        Command::EndSession { session, id: request } => {
            Asked::EndSession { session, id: id(request) }
        }
        Command::RestoreSession { pair, claims, id: request } => {
            Asked::Restore { pair, claims, id: id(request) }
        }
        Command::Publish { channel, data, echo, id: request, message_id, filter, tags } => {
            Asked::Publish {
                channel: channel.into_owned(),
                data: data.as_json().into_owned(),
                echo,
                ids: [id(request), message_id.map(text)],
                to: None,
                filter,
                tags: tags.map_or_else(BTreeMap::new, map),
            }
        }
        Command::Direct { to, channel, data, echo, id: request, message_id, filter } => {
            Asked::Publish {
                channel: channel.into_owned(),
                data: data.as_json().into_owned(),
                echo,
                ids: [id(request), message_id.map(text)],
                to: Some(to),
                filter,
                tags: BTreeMap::new(),
            }
        }
        Command::Auth { token, id: request } => {
            Asked::Auth { token: token.into_owned(), id: id(request) }
        }
        Command::History { channel, id: request, .. } => {
            Asked::History { channel: channel.into_owned(), id: id(request) }
        }
        Command::Ping { id: request, timestamp } => {
            Asked::Ping { id: id(request), timestamp: timestamp.map(ToOwned::to_owned) }
        }
        Command::Message(message) => Asked::Message {
            channel: message.channel.as_deref().map(ToOwned::to_owned),
            json: serde_json::from_slice(&message.stamped(None, 3, 4)[1..]).expect("JSON"),
        },
        Command::Routed(message) => Asked::Routed {
            kind: message.kind.into_owned(),
            resource: message.resource.map(|resource| resource.into_owned()),
            channel: message.channel.map(|channel| channel.into_owned()),
            ids: [id(message.id), message.message_id.map(text)],
            json: serde_json::from_str(message.text).expect("JSON"),
        },
        Command::Time { id: request } => Asked::Time { id: id(request) },
        Command::Stats { id: request } => Asked::Stats { id: id(request) },
        Command::Pong => Asked::Pong,
    }
}
