//! Whom a command is for, as it is written in JSON.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::value::RawValue;

use super::command::{MANY_MAX, check_count};
use super::error::ApiError;
use super::value::{Channel, Id};
use crate::filter::Filter;
use crate::ids::{GROUP_NAME_BYTES_MAX, GroupName, USER_NAME_BYTES_MAX, UserName};
use crate::proto::{Among, Audience};

/// One connection, or all of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    Connection(Id),
    User(UserName),
}

impl Who {
    pub fn of(connection: Option<Id>, user: Option<User>) -> Result<Self, ApiError> {
        match (connection, user) {
            (Some(connection), None) => Ok(Self::Connection(connection)),
            (None, Some(user)) => Ok(Self::User(user.0)),
            _ => Err(ApiError::invalid("it takes exactly one of `connection` and `user`")),
        }
    }
}

/// A message to those who need not be subscribed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    pub channel: Channel,
    pub data: Box<RawValue>,
    #[serde(default, deserialize_with = "present")]
    users: Option<Vec<User>>,
    #[serde(default, deserialize_with = "present")]
    connections: Option<Vec<Id>>,
    #[serde(default, deserialize_with = "present")]
    groups: Option<Vec<Group>>,
    #[serde(default, deserialize_with = "present")]
    everybody: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    except: Option<Excepted>,
    #[serde(default, deserialize_with = "present")]
    pub filter: Option<Compiled>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Excepted {
    #[serde(default)]
    users: Vec<User>,
    #[serde(default)]
    connections: Vec<Id>,
}

/// To whom it goes.
#[derive(Debug)]
pub enum Target {
    Users(Vec<UserName>),
    Connections(Vec<Id>),
    Groups(Vec<GroupName>),
    Everybody(Arc<Audience>),
}

impl Send {
    pub fn target(&mut self) -> Result<Target, ApiError> {
        let (users, connections) = (self.users.take(), self.connections.take());
        if self.everybody == Some(false) {
            return Err(ApiError::invalid("`everybody` is true, or left out"));
        }
        if self.except.is_some() && self.everybody.is_none() {
            return Err(ApiError::invalid("`except` is for `everybody`"));
        }
        match (users, connections, self.groups.take(), self.everybody) {
            (Some(users), None, None, None) => {
                check_list(&users, "users")?;
                Ok(Target::Users(users.into_iter().map(|user| user.0).collect()))
            }
            (None, Some(connections), None, None) => {
                check_list(&connections, "connections")?;
                Ok(Target::Connections(connections))
            }
            (None, None, Some(groups), None) => {
                check_list(&groups, "groups")?;
                Ok(Target::Groups(groups.into_iter().map(|group| group.0).collect()))
            }
            (None, None, None, Some(_)) => {
                let except = self.except.take().unwrap_or_default();
                let filter = self.filter.take().map(|filter| filter.0);
                let audience = Audience { filter, ..except.check()? };
                Ok(Target::Everybody(Arc::new(audience)))
            }
            _ => {
                let names = "`users`, `connections`, `groups` and `everybody`";
                Err(ApiError::invalid(format!("it takes exactly one of {names}")))
            }
        }
    }
}

impl Excepted {
    /// Everybody else.
    fn check(self) -> Result<Audience, ApiError> {
        for (count, what) in [(self.users.len(), "users"), (self.connections.len(), "connections")]
        {
            if count > MANY_MAX {
                let message = format!("`{what}` of `except` may have {MANY_MAX} entries");
                return Err(ApiError::invalid(message));
            }
        }
        Ok(Audience {
            among: Among::Everybody,
            except_users: self.users.into_iter().map(|user| user.0).collect(),
            // What names no connection excepts none.
            except_connections: self
                .connections
                .into_iter()
                .filter_map(|id| id.find().ok())
                .collect(),
            filter: None,
        })
    }
}

/// Nobody gets anything twice.
pub fn check_list<T: Eq + Hash>(list: &[T], what: &str) -> Result<(), ApiError> {
    check_count(list.len(), what)?;
    let distinct: HashSet<_> = list.iter().collect();
    match distinct.len() == list.len() {
        true => Ok(()),
        false => Err(ApiError::invalid(format!("`{what}` has an entry twice"))),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct User(pub UserName);

impl<'de> Deserialize<'de> for User {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        UserName::parse(&text).map(Self).ok_or_else(|| {
            let rule = "a user has 1 to";
            Error::custom(format!("{rule} {USER_NAME_BYTES_MAX} bytes, none of them control"))
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Group(pub GroupName);

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        GroupName::parse(&text).map(Self).ok_or_else(|| {
            let rule = "a group has 1 to";
            Error::custom(format!("{rule} {GROUP_NAME_BYTES_MAX} bytes, none of them control"))
        })
    }
}

/// Which of the receivers it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled(pub Arc<Filter>);

impl<'de> Deserialize<'de> for Compiled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let filter = Filter::parse(&text);
        filter
            .map(|filter| Self(Arc::new(filter)))
            .map_err(|error| Error::custom(format!("`filter`: {error}")))
    }
}

/// Of a field that may be left out and cannot be `null`.
pub fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::running::parse;

    fn target(members: &str) -> Result<Target, String> {
        let text = format!(r#"{{"channel":"a","data":1{members}}}"#);
        let target = parse::<Send>(&text).and_then(|mut send| send.target());
        target.map_err(|error| {
            assert_eq!(error.code, "invalid_message", "{members}");
            error.message.into_owned()
        })
    }

    #[test]
    fn a_message_is_for_one_kind_of_receivers() {
        let Ok(Target::Users(users)) = target(r#","users":["a","b"]"#) else { panic!() };
        assert_eq!(users.iter().map(|user| &**user).collect::<Vec<_>>(), ["a", "b"]);
        assert!(matches!(target(r#","connections":["x"]"#), Ok(Target::Connections(_))));
        assert!(matches!(target(r#","groups":["x"]"#), Ok(Target::Groups(_))));
        let except = r#","everybody":true,"except":{"users":["a"],"connections":["x"]}"#;
        let Ok(Target::Everybody(to)) = target(except) else { panic!() };
        assert_eq!((to.except_users.len(), to.except_connections.len()), (1, 0));
        let many = vec!["\"a\""; MANY_MAX + 1].join(",");
        for (members, reason) in [
            ("", "exactly one of"),
            (r#","users":["a"],"everybody":true"#, "exactly one of"),
            (r#","users":["a"],"connections":["x"]"#, "exactly one of"),
            (r#","everybody":false"#, "`everybody` is true"),
            (r#","everybody":null"#, "invalid type"),
            (r#","users":null,"everybody":true"#, "invalid type"),
            (r#","users":["a"],"except":{}"#, "`except` is for"),
            (r#","everybody":true,"except":{"x":1}"#, "unknown field"),
            (r#","users":[]"#, "1 to 1000"),
            (r#","users":["a","a"]"#, "`users` has an entry twice"),
            (r#","users":[""]"#, "a user has 1 to 128 bytes"),
            (r#","users":["\u0001"]"#, "a user has 1 to 128 bytes"),
            (r#","groups":[""]"#, "a group has 1 to 64 bytes"),
            (r#","groups":["a","b","a"]"#, "`groups` has an entry twice"),
            (r#","groups":["a"],"users":["a"]"#, "exactly one of"),
            (r#","everybody":true,"filter":7"#, "invalid type"),
            (r#","everybody":true,"filter":null"#, "invalid type"),
            (r#","everybody":true,"filter":"a =="}"#, "`filter`: expected a value"),
            (&format!(r#","users":[{many}]"#), "1 to 1000"),
            (&format!(r#","everybody":true,"except":{{"users":[{many}]}}"#), "1000 entries"),
        ] {
            let error = target(members).expect_err(members);
            assert!(error.contains(reason), "{members}: {error}");
        }
    }

    #[test]
    fn a_command_is_for_a_connection_or_a_user() {
        let user = || UserName::parse("a").map(User);
        let id: Id = parse("\"x\"").unwrap();
        assert_eq!(Who::of(None, user()), Ok(Who::User(user().unwrap().0)));
        assert_eq!(Who::of(Some(id), None), Ok(Who::Connection(id)));
        assert!(Who::of(Some(id), user()).is_err() && Who::of(None, None).is_err());
    }
}
