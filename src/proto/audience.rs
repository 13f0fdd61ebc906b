//! Whom a message is for that needs no subscribers.

use std::collections::HashSet;
use std::sync::Arc;

use crate::filter::Filter;
use crate::ids::{ConnectionId, GroupName, UserName};

/// Entries of each list of an audience that a client names.
pub const ADDRESSEES_MAX: usize = 100;

/// Whom a client sends a message to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressee {
    User(UserName),
    Audience(Box<Audience>),
}

/// Connections, wherever they are; each of them once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    pub among: Among,
    pub except_users: HashSet<UserName>,
    pub except_connections: HashSet<ConnectionId>,
    /// Those of them for whom it holds.
    pub filter: Option<Arc<Filter>>,
}

/// What an audience is a part of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Among {
    #[default]
    Everybody,
    /// All connections of these users.
    Users(HashSet<UserName>),
    /// All connections of all users in these groups.
    Groups(HashSet<GroupName>),
    Connections(HashSet<ConnectionId>),
}

impl Audience {
    /// Whether a connection, or its user, is left out by name.
    pub fn excepts(&self, connection: ConnectionId, user: Option<&UserName>) -> bool {
        self.except_connections.contains(&connection)
            || user.is_some_and(|user| self.except_users.contains(user))
    }

    /// Bytes that it takes, about.
    pub fn weight(&self) -> usize {
        let names = self.except_users.len()
            + self.except_connections.len()
            + match &self.among {
                Among::Everybody => 0,
                Among::Users(users) => users.len(),
                Among::Groups(groups) => groups.len(),
                Among::Connections(connections) => connections.len(),
            };
        const NAME: usize = 64;
        names * NAME + self.filter.as_ref().map_or(0, |filter| filter.weight())
    }
}
