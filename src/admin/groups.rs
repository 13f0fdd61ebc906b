//! Named sets of users: those of the keys file, which stay, and what backends add. Plain data: no requests.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::config::StaticGroups;
use crate::ids::{GroupName, UserName};

#[derive(Debug)]
pub struct Groups {
    groups: BTreeMap<GroupName, Group>,
    /// Of all groups; at most `members_max`.
    members: usize,
    groups_max: usize,
    members_max: usize,
}

type Group = BTreeMap<UserName, Membership>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Membership {
    /// By the keys file.
    Static,
    Dynamic,
}

/// Why a group stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupError {
    Exists,
    NotFound,
    /// The keys file says so.
    Static,
    TooManyGroups {
        limit: usize,
    },
    TooManyMembers {
        limit: usize,
    },
}

/// A piece of a list, and where it goes on; `None`: these were the last.
type Page<T, K> = (Vec<T>, Option<K>);

impl Groups {
    /// With those of the keys file, for which there must be room.
    pub fn new(fixed: &StaticGroups, groups_max: usize, members_max: usize) -> Self {
        let group = |users: &BTreeSet<UserName>| -> Group {
            users.iter().map(|user| (user.clone(), Membership::Static)).collect()
        };
        let groups: BTreeMap<_, _> =
            fixed.iter().map(|(name, users)| (name.clone(), group(users))).collect();
        let members = groups.values().map(BTreeMap::len).sum();
        Self { groups, members, groups_max, members_max }
    }

    /// Returns how many users it has.
    pub fn create(&mut self, name: GroupName, users: Vec<UserName>) -> Result<usize, GroupError> {
        if self.groups.contains_key(&name) {
            return Err(GroupError::Exists);
        }
        if self.groups.len() >= self.groups_max {
            return Err(GroupError::TooManyGroups { limit: self.groups_max });
        }
        let group: Group = users.into_iter().map(|user| (user, Membership::Dynamic)).collect();
        self.check_room(group.len())?;
        let count = group.len();
        self.members += count;
        self.groups.insert(name, group);
        Ok(count)
    }

    pub fn delete(&mut self, name: &GroupName) -> Result<(), GroupError> {
        let group = self.groups.get(name).ok_or(GroupError::NotFound)?;
        if group.values().any(|membership| *membership == Membership::Static) {
            return Err(GroupError::Static);
        }
        self.members -= group.len();
        self.groups.remove(name);
        Ok(())
    }

    /// All of them, or none where there is no room. Returns how many the group has then.
    pub fn add(&mut self, name: &GroupName, users: Vec<UserName>) -> Result<usize, GroupError> {
        let group = self.groups.get(name).ok_or(GroupError::NotFound)?;
        let fresh: BTreeSet<_> =
            users.into_iter().filter(|user| !group.contains_key(user)).collect();
        self.check_room(fresh.len())?;
        let group = self.groups.get_mut(name).ok_or(GroupError::NotFound)?;
        self.members += fresh.len();
        group.extend(fresh.into_iter().map(|user| (user, Membership::Dynamic)));
        Ok(group.len())
    }

    /// All of them, or none where one has to stay. Who is no member is passed over. Returns how many the
    /// group has then.
    pub fn remove(&mut self, name: &GroupName, users: &[UserName]) -> Result<usize, GroupError> {
        let group = self.groups.get_mut(name).ok_or(GroupError::NotFound)?;
        if users.iter().any(|user| group.get(user) == Some(&Membership::Static)) {
            return Err(GroupError::Static);
        }
        let removed = users.iter().filter(|user| group.remove(*user).is_some()).count();
        self.members -= removed;
        Ok(group.len())
    }

    /// All of its users.
    pub fn users(&self, name: &GroupName) -> Result<Vec<UserName>, GroupError> {
        let group = self.groups.get(name).ok_or(GroupError::NotFound)?;
        Ok(group.keys().cloned().collect())
    }

    /// Up to `limit` of its users, in the order of their names.
    pub fn list_users(
        &self,
        name: &GroupName,
        from: Option<UserName>,
        limit: usize,
    ) -> Result<Page<UserName, UserName>, GroupError> {
        let group = self.groups.get(name).ok_or(GroupError::NotFound)?;
        let mut rest =
            group.range((from.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded));
        let users = rest.by_ref().take(limit).map(|(user, _)| user.clone()).collect();
        Ok((users, rest.next().map(|(user, _)| user.clone())))
    }

    /// Up to `limit` of those that are wanted, in the order of their names, with the number of their users.
    pub fn list(
        &self,
        from: Option<GroupName>,
        limit: usize,
        wanted: impl Fn(&str) -> bool,
    ) -> Page<(GroupName, usize), GroupName> {
        let rest = (from.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded);
        let mut rest = self.groups.range(rest).filter(|(name, _)| wanted(name));
        let groups = rest.by_ref().take(limit);
        let groups = groups.map(|(name, group)| (name.clone(), group.len())).collect();
        (groups, rest.next().map(|(name, _)| name.clone()))
    }

    fn check_room(&self, more: usize) -> Result<(), GroupError> {
        match self.members + more > self.members_max {
            true => Err(GroupError::TooManyMembers { limit: self.members_max }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group(name: &str) -> GroupName {
        GroupName::parse(name).unwrap()
    }

    fn users(names: &[u8]) -> Vec<UserName> {
        names.iter().map(|name| UserName::parse(&name.to_string()).unwrap()).collect()
    }

    fn fixed() -> StaticGroups {
        StaticGroups::from([(group("0"), users(&[0, 1]).into_iter().collect())])
    }

    #[test]
    fn what_the_keys_file_says_stays() {
        let mut groups = Groups::new(&fixed(), 10, 10);
        assert_eq!(groups.add(&group("0"), users(&[1, 2])), Ok(3));
        assert_eq!(groups.remove(&group("0"), &users(&[2, 1])), Err(GroupError::Static));
        assert_eq!(groups.remove(&group("0"), &users(&[2, 9])), Ok(2));
        assert_eq!(groups.delete(&group("0")), Err(GroupError::Static));
        assert_eq!(groups.create(group("0"), Vec::new()), Err(GroupError::Exists));
        assert_eq!(groups.delete(&group("1")), Err(GroupError::NotFound));
    }

    #[test]
    fn lists_come_in_pages() {
        let mut groups = Groups::new(&StaticGroups::new(), 10, 10);
        for name in ["c", "ab", "aa"] {
            groups.create(group(name), users(&[1, 2, 3])).unwrap();
        }
        let (page, next) = groups.list(None, 2, |_| true);
        assert_eq!(page, [(group("aa"), 3), (group("ab"), 3)]);
        assert_eq!(groups.list(next, 2, |_| true), (vec![(group("c"), 3)], None));
        assert_eq!(groups.list(None, 1, |name| name == "c"), (vec![(group("c"), 3)], None));
        let (page, next) = groups.list_users(&group("c"), None, 2).unwrap();
        assert_eq!((&page, &next), (&users(&[1, 2]), &Some(users(&[3])[0].clone())));
        // Whoever it names may be gone by then.
        groups.remove(&group("c"), &users(&[3])).unwrap();
        assert_eq!(groups.list_users(&group("c"), next, 2), Ok((Vec::new(), None)));
    }

    proptest! {
        #[test]
        fn groups_are_sets_with_bounds(
            steps in prop::collection::vec(
                (0..4u8, 0..5u8, prop::collection::vec(0..6u8, 0..5)), 0..200),
        ) {
            let mut groups = Groups::new(&fixed(), 4, 9);
            let mut model = BTreeMap::from([(0, BTreeSet::from([0, 1]))]);
            for (step, name, names) in steps {
                let (key, own) = (group(&name.to_string()), users(&names));
                let known = model.contains_key(&name);
                let total = model.values().map(BTreeSet::len).sum::<usize>();
                let of = model.get(&name).cloned().unwrap_or_default();
                let all: BTreeSet<_> = of.iter().chain(&names).copied().collect();
                let room = total + all.len() - of.len() <= 9;
                let stays = name == 0 && (step == 1 || names.iter().any(|name| *name < 2));
                let done = match step {
                    0 => groups.create(key, own).is_ok(),
                    1 => groups.delete(&key).is_ok(),
                    2 => groups.add(&key, own).is_ok(),
                    _ => groups.remove(&key, &own).is_ok(),
                };
                let expected = match step {
                    0 => !known && model.len() < 4 && room,
                    1 | 3 => known && !stays,
                    _ => known && room,
                };
                prop_assert_eq!(done, expected);
                if done {
                    match step {
                        1 => drop(model.remove(&name)),
                        3 => model.entry(name).or_default().retain(|user| !names.contains(user)),
                        _ => model.entry(name).or_default().extend(names),
                    }
                }
                prop_assert_eq!(groups.members, model.values().map(BTreeSet::len).sum::<usize>());
                for name in 0..5u8 {
                    let listed = groups.users(&group(&name.to_string())).ok();
                    let expected = model.get(&name).map(|own| {
                        users(&own.iter().copied().collect::<Vec<_>>())
                    });
                    prop_assert_eq!(listed, expected);
                }
            }
        }
    }
}
