//! What can be asked, as it is written in JSON.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::ApiError;
use super::grouping::{CreateGroup, DeleteGroup, GroupUsers, ListGroups, OneGroup};
use super::rooms::{CreateRoom, ListRooms, OneRoom, RoomUser};
use super::target::{Compiled, Send, User, Who, present};
use super::value::{Channel, Cursor, Id, MessageId, Place, Tagged, Whole, object};
use crate::proto::{HistoryQuery, PresenceQuery, Since};

/// Entries of one page of a listing, publications of one page of a history.
pub const LIMIT_MAX: usize = 1000;
const LIMIT: usize = 100;
/// Channels of one broadcast, commands of one batch.
pub const MANY_MAX: usize = 1000;

/// One command; in a batch `{"publish":{…}}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    #[serde(deserialize_with = "object")]
    Publish(Publish),
    #[serde(deserialize_with = "object")]
    Broadcast(Broadcast),
    #[serde(deserialize_with = "object")]
    Send(Send),
    #[serde(deserialize_with = "object")]
    Subscribe(Subscribe),
    #[serde(deserialize_with = "object")]
    Unsubscribe(Unsubscribe),
    #[serde(deserialize_with = "object")]
    Disconnect(Disconnect),
    #[serde(deserialize_with = "object")]
    History(History),
    #[serde(deserialize_with = "object")]
    Presence(Presence),
    #[serde(deserialize_with = "object")]
    Channels(Channels),
    #[serde(deserialize_with = "object")]
    Connections(Connections),
    #[serde(deserialize_with = "object")]
    Connection(One),
    #[serde(deserialize_with = "object")]
    Groups(ListGroups),
    #[serde(deserialize_with = "object")]
    Group(OneGroup),
    #[serde(deserialize_with = "object")]
    Rooms(ListRooms),
    #[serde(deserialize_with = "object")]
    Room(OneRoom),
    #[serde(deserialize_with = "object")]
    CreateRoom(CreateRoom),
    #[serde(deserialize_with = "object")]
    DeleteRoom(OneRoom),
    #[serde(deserialize_with = "object")]
    RoomMute(RoomUser),
    #[serde(deserialize_with = "object")]
    RoomUnmute(RoomUser),
    #[serde(deserialize_with = "object")]
    RoomKick(RoomUser),
    #[serde(deserialize_with = "object")]
    CreateGroup(CreateGroup),
    #[serde(deserialize_with = "object")]
    DeleteGroup(DeleteGroup),
    #[serde(deserialize_with = "object")]
    GroupAdd(GroupUsers),
    #[serde(deserialize_with = "object")]
    GroupRemove(GroupUsers),
    #[serde(deserialize_with = "object")]
    Info(Info),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Publish {
    pub channel: Channel,
    pub data: Box<RawValue>,
    #[serde(default, alias = "idempotency_key", alias = "idempotencyKey")]
    pub message_id: Option<MessageId>,
    #[serde(default, deserialize_with = "present")]
    pub filter: Option<Compiled>,
    #[serde(default, deserialize_with = "present")]
    pub tags: Option<Tagged>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Broadcast {
    pub channels: Vec<Channel>,
    pub data: Box<RawValue>,
    #[serde(default, alias = "idempotency_key", alias = "idempotencyKey")]
    pub message_id: Option<MessageId>,
    #[serde(default, deserialize_with = "present")]
    pub filter: Option<Compiled>,
    #[serde(default, deserialize_with = "present")]
    pub tags: Option<Tagged>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    #[serde(default, alias = "connectionId", deserialize_with = "present")]
    connection: Option<Id>,
    #[serde(default, deserialize_with = "present")]
    user: Option<User>,
    pub channel: Channel,
    #[serde(default, deserialize_with = "present")]
    pub filter: Option<Compiled>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unsubscribe {
    #[serde(default, alias = "connectionId", deserialize_with = "present")]
    connection: Option<Id>,
    #[serde(default, deserialize_with = "present")]
    user: Option<User>,
    pub channel: Channel,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disconnect {
    #[serde(default, alias = "connectionId", deserialize_with = "present")]
    connection: Option<Id>,
    #[serde(default, deserialize_with = "present")]
    user: Option<User>,
    pub code: Option<Whole>,
    pub reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    pub channel: Channel,
    since: Option<Place>,
    until: Option<Place>,
    limit: Option<Whole>,
    #[serde(default)]
    reverse: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presence {
    pub channel: Channel,
    limit: Option<Whole>,
    after: Option<Whole>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channels {
    /// `*` stands for any text, `?` for one character.
    pub pattern: Option<String>,
    pub limit: Option<Whole>,
    pub cursor: Option<Cursor>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connections {
    pub limit: Option<Whole>,
    pub cursor: Option<Cursor>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct One {
    #[serde(alias = "connectionId")]
    pub connection: Id,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Info {}

/// Commands that are looked at one by one: a bad one does not spoil the others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    pub commands: Vec<Box<RawValue>>,
}

impl Subscribe {
    pub fn who(&self) -> Result<Who, ApiError> {
        Who::of(self.connection, self.user.clone())
    }
}

impl Unsubscribe {
    pub fn who(&self) -> Result<Who, ApiError> {
        Who::of(self.connection, self.user.clone())
    }
}

impl Disconnect {
    pub fn who(&self) -> Result<Who, ApiError> {
        Who::of(self.connection, self.user.clone())
    }
}

impl History {
    pub fn query(&self) -> Result<HistoryQuery, ApiError> {
        let limit = check_limit(self.limit)?;
        let since = self.since.as_ref().map_or(Since::Oldest, |place| place.0);
        let until = self.until.as_ref().map(|place| place.0);
        if until == Some(Since::Oldest) {
            return Err(ApiError::invalid(
                "`until` must be an offset or a Unix time in milliseconds",
            ));
        }
        Ok(HistoryQuery { since, until, limit, reverse: self.reverse })
    }
}

impl Presence {
    pub fn query(&self) -> Result<PresenceQuery, ApiError> {
        let after = self.after.map_or(0, |after| after.0);
        let limit = match self.limit {
            // Only how many there are.
            Some(Whole(0)) => 0,
            limit => check_limit(limit)?,
        };
        Ok(PresenceQuery { after, limit })
    }
}

pub fn check_limit(limit: Option<Whole>) -> Result<usize, ApiError> {
    match limit.map_or(Ok(LIMIT), |limit| usize::try_from(limit.0)) {
        Ok(limit @ 1..=LIMIT_MAX) => Ok(limit),
        _ => Err(ApiError::invalid(format!("`limit` must be a number from 1 to {LIMIT_MAX}"))),
    }
}

pub fn check_count(count: usize, what: &str) -> Result<(), ApiError> {
    match count {
        1..=MANY_MAX => Ok(()),
        _ => Err(ApiError::invalid(format!("`{what}` must have 1 to {MANY_MAX} entries"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_clients() {
        let since = |text: &str| {
            let text = format!(r#"{{"channel":"a","since":{text}}}"#);
            serde_json::from_str::<History>(&text).map(|history| history.query().unwrap().since)
        };
        assert_eq!(since("\"start\"").unwrap(), Since::Oldest);
        assert_eq!(since("7").unwrap(), Since::Offset(7));
        assert_eq!(since("7.0").unwrap(), Since::Offset(7));
        assert_eq!(since("1700000000000").unwrap(), Since::Time(1_700_000_000_000));
        for text in ["-1", "1.5", "\"end\"", "[]", "true"] {
            let error = since(text).unwrap_err().to_string();
            assert!(error.contains("an offset or a Unix time in milliseconds"), "{error}");
        }
    }
}
