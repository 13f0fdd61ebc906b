//! What is asked about groups, and how it is done: on this thread, and the shards are told of changes.

use std::sync::{Arc, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::Context;
use super::answer::{self, Outcome, json};
use super::command::{MANY_MAX, check_count, check_limit};
use super::error::ApiError;
use super::groups::{GroupError, Groups};
use super::pattern::matches;
use super::target::{Group, User};
use super::value::Whole;
use crate::ids::{GROUP_NAME_BYTES_MAX, UserName};
use crate::message::{AdminCall, GroupChange};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListGroups {
    pattern: Option<String>,
    limit: Option<Whole>,
    cursor: Option<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneGroup {
    group: Group,
    limit: Option<Whole>,
    cursor: Option<User>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateGroup {
    group: Group,
    #[serde(default)]
    users: Vec<User>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteGroup {
    group: Group,
}

/// Who is to come in, or to go.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupUsers {
    group: Group,
    users: Vec<User>,
}

/// How many users a group has.
#[derive(Serialize)]
struct Size {
    users: usize,
}

#[derive(Serialize)]
struct Listed {
    groups: Vec<ListedGroup>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

#[derive(Serialize)]
struct ListedGroup {
    group: String,
    users: usize,
}

#[derive(Serialize)]
struct WholeGroup {
    group: String,
    users: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

impl Context {
    pub fn list_groups(&self, list: ListGroups) -> Outcome {
        let ListGroups { pattern, limit, cursor } = list;
        let limit = check_limit(limit)?;
        if let Some(pattern) = &pattern
            && pattern.len() > GROUP_NAME_BYTES_MAX
        {
            let (bytes, limit) = (pattern.len(), GROUP_NAME_BYTES_MAX);
            let message = format!("`pattern` of {bytes} bytes exceeds the limit of {limit}");
            return Err(ApiError::invalid(message));
        }
        let wanted = |name: &str| pattern.as_ref().is_none_or(|pattern| matches(pattern, name));
        let (groups, next) = self.groups().list(cursor.map(|group| group.0), limit, wanted);
        let listed = groups.into_iter();
        let groups =
            listed.map(|(name, users)| ListedGroup { group: name.to_string(), users }).collect();
        json(&Listed { groups, cursor: next.map(|name| name.to_string()) })
    }

    pub fn group(&self, one: OneGroup) -> Outcome {
        let OneGroup { group, limit, cursor } = one;
        let (limit, from) = (check_limit(limit)?, cursor.map(|user| user.0));
        let (users, next) = self.groups().list_users(&group.0, from, limit)?;
        let users = users.iter().map(|user| user.to_string()).collect();
        let cursor = next.map(|user| user.to_string());
        json(&WholeGroup { group: group.0.to_string(), users, cursor })
    }

    pub async fn create_group(&self, create: CreateGroup) -> Outcome {
        if create.users.len() > MANY_MAX {
            let message = format!("`users` may have {MANY_MAX} entries; add more afterwards");
            return Err(ApiError::invalid(message));
        }
        let (group, joined) = (create.group.0, names(create.users));
        let change = GroupChange { group, joined, left: Vec::new() };
        let create = |groups: &mut Groups, change: &GroupChange| {
            groups.create(change.group.clone(), change.joined.clone())
        };
        json(&Size { users: self.change_group(change, create).await? })
    }

    pub async fn delete_group(&self, delete: DeleteGroup) -> Outcome {
        let group = delete.group.0;
        let left = self.groups().users(&group)?;
        let change = GroupChange { group, joined: Vec::new(), left };
        self.change_group(change, |groups, change| groups.delete(&change.group)).await?;
        json(&answer::Done {})
    }

    pub async fn group_add(&self, add: GroupUsers) -> Outcome {
        check_count(add.users.len(), "users")?;
        let (group, joined) = (add.group.0, names(add.users));
        let change = GroupChange { group, joined, left: Vec::new() };
        let add = |groups: &mut Groups, change: &GroupChange| {
            groups.add(&change.group, change.joined.clone())
        };
        json(&Size { users: self.change_group(change, add).await? })
    }

    pub async fn group_remove(&self, remove: GroupUsers) -> Outcome {
        check_count(remove.users.len(), "users")?;
        let (group, left) = (remove.group.0, names(remove.users));
        let change = GroupChange { group, joined: Vec::new(), left };
        let remove =
            |groups: &mut Groups, change: &GroupChange| groups.remove(&change.group, &change.left);
        json(&Size { users: self.change_group(change, remove).await? })
    }

    /// Changes a group here, and tells every shard; one that could not hear of it is asked for before.
    async fn change_group<T>(
        &self,
        change: GroupChange,
        run: impl FnOnce(&mut Groups, &GroupChange) -> Result<T, GroupError>,
    ) -> Result<T, ApiError> {
        self.shards.check_room()?;
        let changed = run(&mut self.groups(), &change)?;
        let change = Arc::new(change);
        let ask = |shard| self.shards.ask(shard, AdminCall::Group(change.clone()));
        // All before the first answer: every shard hears of changes in one order.
        let asked: Vec<_> = self.shards.ids().map(ask).collect();
        for asked in asked {
            asked?.answer().await?;
        }
        Ok(changed)
    }

    /// Only this thread asks, and never waits with it.
    pub fn groups(&self) -> MutexGuard<'_, Groups> {
        // Nothing in there panics half-way.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn names(users: Vec<User>) -> Vec<UserName> {
    users.into_iter().map(|user| user.0).collect()
}

/// That it was done for a group, with how many users.
pub fn group_reached(users: usize) -> Outcome {
    json(&Size { users })
}

impl From<GroupError> for ApiError {
    fn from(error: GroupError) -> Self {
        use axum::http::StatusCode;
        match error {
            GroupError::Exists => {
                let message = "there is a group of this name already";
                Self::new(StatusCode::CONFLICT, "group_exists", message)
            }
            GroupError::NotFound => {
                let message = "there is no group of this name";
                Self::new(StatusCode::NOT_FOUND, "group_not_found", message)
            }
            GroupError::Static => {
                let message = "the keys file has put users into this group: they stay, and it does";
                Self::new(StatusCode::CONFLICT, "permission_denied", message)
            }
            GroupError::TooManyGroups { limit } => {
                Self::unavailable(format!("this server holds {limit} groups already"))
            }
            GroupError::TooManyMembers { limit } => {
                Self::unavailable(format!("all groups together may have {limit} users"))
            }
        }
    }
}
