//! What is asked about rooms, and how it is done: at the home of each.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Context;
use super::answer::{self, Outcome, json};
use super::command::check_limit;
use super::error::ApiError;
use super::target::User;
use super::value::{Channel, Whole};
use crate::ids::TopicName;
use crate::message::{AdminAnswer, AdminCall, RoomOutcome};
use crate::proto::room::{ROOM_METADATA_BYTES_MAX, ROOM_NAME_BYTES_MAX, ROOM_USERS_MAX};
use crate::proto::{RoomAction, RoomPlan, RoomRefusal};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRooms {
    limit: Option<Whole>,
    cursor: Option<Channel>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneRoom {
    room: Channel,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateRoom {
    room: Channel,
    name: Option<String>,
    max_users: Option<Whole>,
    metadata: Option<Box<RawValue>>,
}

/// Somebody in a room.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoomUser {
    room: Channel,
    user: User,
}

#[derive(Serialize)]
struct Listed {
    rooms: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

impl Context {
    /// In the order of their names, from all shards.
    pub async fn list_rooms(&self, list: ListRooms) -> Outcome {
        let limit = check_limit(list.limit)?;
        let after = list.cursor.map(|cursor| cursor.check()).transpose()?;
        // One more than that tells whether there are more.
        let call = || AdminCall::Rooms { after: after.clone(), limit: limit + 1 };
        let asked: Vec<_> = self.shards.ids().map(|shard| self.shards.ask(shard, call())).collect();
        let mut rooms: Vec<TopicName> = Vec::new();
        for asked in asked {
            let AdminAnswer::Rooms(here) = asked?.answer().await? else {
                return Err(ApiError::unexpected());
            };
            rooms.extend(here);
        }
        rooms.sort_unstable();
        let more = rooms.len() > limit;
        rooms.truncate(limit);
        let cursor = rooms.last().filter(|_| more).map(|room| room.to_string());
        json(&Listed { rooms: rooms.iter().map(|room| room.to_string()).collect(), cursor })
    }

    pub async fn room(&self, one: OneRoom) -> Outcome {
        self.ask_room(&one.room, RoomAction::Describe).await
    }

    pub async fn delete_room(&self, one: OneRoom) -> Outcome {
        self.ask_room(&one.room, RoomAction::Delete).await
    }

    pub async fn create_room(&self, create: CreateRoom) -> Outcome {
        let plan = create.plan()?;
        self.ask_room(&create.room, RoomAction::Create(plan)).await
    }

    pub async fn mute(&self, one: RoomUser, muted: bool) -> Outcome {
        self.ask_room(&one.room, RoomAction::Mute { target: one.user.0, muted }).await
    }

    pub async fn kick(&self, one: RoomUser) -> Outcome {
        self.ask_room(&one.room, RoomAction::Kick { target: one.user.0 }).await
    }

    async fn ask_room(&self, room: &Channel, action: RoomAction) -> Outcome {
        let topic = room.check()?;
        let home = (self.home)(&topic);
        let asked = self.shards.ask(home, AdminCall::Room { topic: topic.clone(), action })?;
        match asked.answer().await? {
            AdminAnswer::Room(RoomOutcome::Done) => json(&answer::Done {}),
            AdminAnswer::Room(RoomOutcome::Described(view) | RoomOutcome::Joined(view)) => {
                RawValue::from_string(view.payload(&topic)).map_err(|_| ApiError::unexpected())
            }
            AdminAnswer::Room(RoomOutcome::Refused(refusal)) => Err(refused(refusal)),
            _ => Err(ApiError::unexpected()),
        }
    }
}

impl CreateRoom {
    fn plan(&self) -> Result<RoomPlan, ApiError> {
        if let Some(name) = &self.name
            && !(1..=ROOM_NAME_BYTES_MAX).contains(&name.len())
        {
            let message = format!("`name` must have 1 to {ROOM_NAME_BYTES_MAX} bytes");
            return Err(ApiError::invalid(message));
        }
        let users_max = self.max_users.map(|max| match u32::try_from(max.0) {
            Ok(max @ 1..=ROOM_USERS_MAX) => Ok(max),
            _ => Err(ApiError::invalid(format!(
                "`maxUsers` must be a whole number from 1 to {ROOM_USERS_MAX}"
            ))),
        });
        let metadata = self.metadata.as_ref().map(|metadata| metadata.get());
        if metadata
            .is_some_and(|text| !text.starts_with('{') || text.len() > ROOM_METADATA_BYTES_MAX)
        {
            let limit = ROOM_METADATA_BYTES_MAX;
            let message = format!("`metadata` must be an object of at most {limit} bytes");
            return Err(ApiError::invalid(message));
        }
        Ok(RoomPlan {
            name: self.name.as_deref().map(Into::into),
            users_max: users_max.transpose()?,
            metadata: metadata.map(Into::into),
        })
    }
}

fn refused(refusal: RoomRefusal) -> ApiError {
    let status = match refusal {
        RoomRefusal::NotFound | RoomRefusal::NotMember => StatusCode::NOT_FOUND,
        RoomRefusal::TooMany { .. } | RoomRefusal::TableFull { .. } => {
            return ApiError::unavailable(refusal.text());
        }
        RoomRefusal::Exists
        | RoomRefusal::Full
        | RoomRefusal::AlreadyMember
        | RoomRefusal::NotOwner => StatusCode::CONFLICT,
    };
    ApiError::new(status, refusal.code().as_str(), refusal.text())
}
