//! Rooms as clients ask for them and hear of them.

use std::fmt::Write as _;

use crate::ids::{TopicName, UserName};
use crate::proto::error_code::ErrorCode;
use crate::proto::json;

/// Users that a room has room for at most, whatever is asked.
pub const ROOM_USERS_MAX: u32 = 1_000_000;
/// The same if nothing is asked.
pub const ROOM_USERS: u32 = 100;
/// Longest display name, in bytes.
pub const ROOM_NAME_BYTES_MAX: usize = 255;
/// Longest metadata, in bytes of JSON.
pub const ROOM_METADATA_BYTES_MAX: usize = 4096;
/// Users that an answer lists.
pub const ROOM_USERS_LISTED_MAX: usize = 1000;

/// What somebody wants of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomAction {
    Create(RoomPlan),
    Delete,
    Join,
    Leave,
    /// The target is not heard any more, or again.
    Mute {
        target: UserName,
        muted: bool,
    },
    /// The target is taken out.
    Kick {
        target: UserName,
    },
    /// What is known of it.
    Describe,
}

/// A room that is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomPlan {
    /// `None`: `Room ID`.
    pub name: Option<Box<str>>,
    /// `None`: [`ROOM_USERS`].
    pub users_max: Option<u32>,
    /// An object of JSON; `None`: an empty one.
    pub metadata: Option<Box<str>>,
}

/// What is known of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomView {
    pub name: Box<str>,
    pub users_max: u32,
    pub user_count: usize,
    /// In the order in which they came, [`ROOM_USERS_LISTED_MAX`] at most. Who has no name of a user has
    /// that of the connection.
    pub users: Vec<UserName>,
    /// Who made it; `None`: the server API.
    pub owner: Option<UserName>,
    /// An object of JSON.
    pub metadata: Box<str>,
}

/// Why somebody does not get what they want of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomRefusal {
    Exists,
    NotFound,
    Full,
    AlreadyMember,
    /// It is for the owner to do.
    NotOwner,
    /// Who leaves, or is to be taken out, is not in it.
    NotMember,
    /// The shard has as many rooms as it may.
    TooMany {
        limit: usize,
    },
    /// The topic table, of this size, is full.
    TableFull {
        limit: usize,
    },
}

impl RoomRefusal {
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Exists => ErrorCode::RoomExists,
            Self::NotFound => ErrorCode::RoomNotFound,
            Self::Full => ErrorCode::RoomFull,
            Self::AlreadyMember => ErrorCode::AlreadyMember,
            Self::NotOwner => ErrorCode::Forbidden,
            Self::NotMember => ErrorCode::NotSubscribed,
            Self::TooMany { .. } | Self::TableFull { .. } => ErrorCode::Unavailable,
        }
    }

    /// For people.
    pub fn text(self) -> String {
        match self {
            Self::Exists => "there is such a room".into(),
            Self::NotFound => "there is no such room".into(),
            Self::Full => "the room has as many users as it may".into(),
            Self::AlreadyMember => "this connection is in the room".into(),
            Self::NotOwner => "only the owner of the room may do that".into(),
            Self::NotMember => "nobody of that name is in the room".into(),
            Self::TooMany { limit } => format!("this server has as many rooms as it may: {limit}"),
            Self::TableFull { limit } => format!("this server holds {limit} channels already"),
        }
    }
}

impl RoomView {
    /// The payload of an answer. `id`: the room's channel.
    pub fn payload(&self, id: &str) -> String {
        let Self { name, users_max, user_count, users, owner, metadata } = self;
        let [id, name] = [id, name].map(json::quote);
        let mut out = format!(
            r#"{{"id":{id},"name":{name},"userCount":{user_count},"maxUsers":{users_max},"users":["#
        );
        for (index, user) in users.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Writing to a string does not fail.
            let _ = write!(out, "{comma}{}", json::quote(user));
        }
        out.push(']');
        if let Some(owner) = owner {
            let _ = write!(out, r#","owner":{}"#, json::quote(owner));
        }
        let _ = write!(out, r#","metadata":{metadata}}}"#);
        out
    }
}

/// The payload of an answer of which there is no more to say.
pub fn room_left(id: &str) -> String {
    format!(r#"{{"id":{}}}"#, json::quote(id))
}

/// The payload of the answer to the query for the rooms of a connection.
pub fn rooms(ids: &[TopicName]) -> String {
    let ids: Vec<_> = ids.iter().map(|id| json::quote(id)).collect();
    format!(r#"{{"rooms":[{}]}}"#, ids.join(","))
}

/// Why somebody is in a room no longer who did not leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    Kicked,
    Deleted,
    /// Its session has come back, and there is no way into the room.
    Lost,
}

impl Removal {
    /// The stable name for clients.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kicked => "kicked",
            Self::Deleted => "room_deleted",
            Self::Lost => "room_lost",
        }
    }
}
