//! Which groups a user is in, as its clients may ask. The server API keeps them and tells of every change.

use std::collections::{BTreeSet, HashSet};

use hashbrown::HashMap;

use super::State;
use crate::config::StaticGroups;
use crate::ids::{GroupName, Token, UserName};
use crate::message::GroupChange;
use crate::proto::{ErrorCode, RequestId, reply};

/// The groups of each user who is in one; as many as the server API has memberships.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    groups: HashMap<UserName, BTreeSet<GroupName>, foldhash::quality::RandomState>,
}

impl Memberships {
    pub fn new(fixed: &StaticGroups) -> Self {
        let mut memberships = Self::default();
        for (group, users) in fixed {
            for user in users {
                memberships.insert(user, group);
            }
        }
        memberships
    }

    pub fn apply(&mut self, change: &GroupChange) {
        for user in &change.joined {
            self.insert(user, &change.group);
        }
        for user in &change.left {
            if let Some(groups) = self.groups.get_mut(user) {
                groups.remove(&change.group);
                if groups.is_empty() {
                    self.groups.remove(user);
                }
            }
        }
    }

    /// In the order of their names.
    fn of(&self, user: &UserName) -> impl Iterator<Item = &GroupName> {
        self.groups.get(user).into_iter().flatten()
    }

    /// Whether the user is in one of these.
    pub fn any(&self, user: &UserName, groups: &HashSet<GroupName>) -> bool {
        self.of(user).any(|group| groups.contains(group))
    }

    fn insert(&mut self, user: &UserName, group: &GroupName) {
        self.groups.entry_ref(user).or_default().insert(group.clone());
    }
}

impl State {
    /// The groups of the connection's user.
    pub(super) fn query_groups(&mut self, token: Token, id: Option<RequestId<'_>>) {
        let user = self.known_identity(token).and_then(|identity| identity.user.clone());
        let Some(user) = user else {
            let text = "only users are in groups: authenticate first";
            self.refuse_room(token, (ErrorCode::Unauthenticated, text.into()), id);
            return;
        };
        let payload = reply::groups(self.memberships.of(&user).map(|group| &**group));
        self.respond(token, &payload, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_in_groups_until_they_are_not() {
        let user = |name: &str| UserName::parse(name).unwrap();
        let group = |name: &str| GroupName::parse(name).unwrap();
        let fixed = StaticGroups::from([(group("a"), BTreeSet::from([user("x"), user("y")]))]);
        let mut memberships = Memberships::new(&fixed);
        let change = |name: &str, joined: &[&str], left: &[&str]| GroupChange {
            group: group(name),
            joined: joined.iter().map(|name| user(name)).collect(),
            left: left.iter().map(|name| user(name)).collect(),
        };
        memberships.apply(&change("b", &["x", "z"], &[]));
        memberships.apply(&change("b", &["x"], &["z", "nobody"]));
        memberships.apply(&change("a", &[], &["y"]));
        let of = |name| memberships.of(&user(name)).map(|it| it.to_string()).collect::<Vec<_>>();
        assert_eq!(
            [of("x"), of("y"), of("z")],
            [vec!["a".to_string(), "b".to_string()], vec![], vec![]]
        );
        assert_eq!(memberships.groups.len(), 1);
    }
}
