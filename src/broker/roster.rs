//! Who is in one topic, at its home: in the order in which they came, and what subscribers have not been
//! told of yet.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use crate::ids::{Moment, ShardId, Token, UserName};
use crate::message::Arrival;
use crate::proto::{Headcount, Presence, PresenceNotice, PresenceQuery, PresentMember};

/// Members in one notice, those who came and those who went: some 100 bytes each.
const NOTICE_MEMBERS_MAX: usize = 256;

/// A connection of the server.
pub type Place = (ShardId, Token);

#[derive(Debug, Default)]
pub struct Roster {
    /// By a number that grows with each one who comes.
    members: BTreeMap<u64, PresentMember>,
    numbers: HashMap<Place, u64, foldhash::fast::RandomState>,
    /// Connections of each user.
    users: HashMap<UserName, u32>,
    last: u64,
    /// The highest number that an answer has shown.
    shown: u64,
    news: News,
}

/// What subscribers have not been told of. Who comes and goes unnoticed is in none of it; whom an answer has
/// shown was noticed.
#[derive(Debug, Default)]
struct News {
    joined: BTreeSet<u64>,
    /// At most as many as subscribers were told of, or asked for.
    left: Vec<PresentMember>,
}

impl Roster {
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn count(&self) -> Headcount {
        Headcount { clients: self.members.len(), users: self.users.len() }
    }

    /// Somebody is there, from now on or already; who is there under another name leaves first.
    pub fn join(&mut self, place: Place, arrival: Arrival, now: Moment) {
        let Arrival { connection_id, user, info } = arrival;
        if let Some(member) = self.member(place) {
            if (member.connection_id, &member.user) == (connection_id, &user) {
                return;
            }
            self.leave(place);
        }
        if let Some(user) = &user {
            *self.users.entry_ref(user).or_insert(0) += 1;
        }
        self.last += 1;
        let member = PresentMember { connection_id, user, info, joined_at: now.0 };
        self.members.insert(self.last, member);
        self.numbers.insert(place, self.last);
        self.news.joined.insert(self.last);
    }

    /// Somebody is not there, any more or anyway.
    pub fn leave(&mut self, place: Place) {
        let Some(number) = self.numbers.remove(&place) else { return };
        let Some(member) = self.members.remove(&number) else { return };
        if let Some(user) = &member.user
            && let Some(connections) = self.users.get_mut(user)
        {
            *connections -= 1;
            if *connections == 0 {
                self.users.remove(user);
            }
        }
        let was_told = !self.news.joined.remove(&number);
        if was_told || number <= self.shown {
            self.news.left.push(member);
        }
    }

    pub fn page(&mut self, query: PresenceQuery) -> Presence {
        let PresenceQuery { after, limit } = query;
        let behind = self.members.range(after.saturating_add(1)..);
        let page: Vec<_> = behind.take(limit).collect();
        let last = page.last().map(|(number, _)| **number);
        let next = last.filter(|last| self.members.range(last + 1..).next().is_some());
        let members = page.into_iter().map(|(_, member)| member.clone()).collect();
        self.shown = self.shown.max(last.unwrap_or(0));
        Presence { count: self.count(), members, next }
    }

    pub fn has_news(&self) -> bool {
        !self.news.joined.is_empty() || !self.news.left.is_empty()
    }

    /// Nobody is told of what has happened so far.
    pub fn forget_news(&mut self) {
        self.news = News::default();
    }

    /// What has happened since the last call, in notices of bounded size, in order.
    pub fn take_news(&mut self) -> Vec<PresenceNotice> {
        let News { joined, left } = std::mem::take(&mut self.news);
        let joined = joined.iter().filter_map(|number| self.members.get(number).cloned());
        // All who left first: one of them may be there again.
        let mut news = left.into_iter().map(Err).chain(joined.map(Ok)).peekable();
        let mut notices = Vec::new();
        while news.peek().is_some() {
            let mut notice = PresenceNotice { count: self.count(), ..PresenceNotice::default() };
            for item in news.by_ref().take(NOTICE_MEMBERS_MAX) {
                match item {
                    Ok(joined) => notice.joined.push(joined),
                    Err(left) => notice.left.push(left),
                }
            }
            notice.more = news.peek().is_some();
            notices.push(notice);
        }
        notices
    }

    fn member(&self, place: Place) -> Option<&PresentMember> {
        self.members.get(self.numbers.get(&place)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    use crate::ids::ConnectionId;

    fn place(slot: u32) -> Place {
        (ShardId((slot % 3) as u16), Token { slot, generation: slot * 7 })
    }

    fn arrival(slot: u32, user: Option<u32>) -> Arrival {
        let connection_id =
            ConnectionId { shard: place(slot).0, slot, secret: u128::from(slot) << 64 };
        let user = user.map(|user| UserName::parse(&format!("user {user}")).expect("a name"));
        let info = user.as_ref().map(|user| Arc::from(&**user));
        Arrival { connection_id, user, info }
    }

    /// What a client knows that has heard every notice, or has asked and heard every one since.
    #[derive(Default)]
    struct Listener(Vec<PresentMember>);

    impl Listener {
        fn hear(&mut self, notices: Vec<PresenceNotice>) {
            for (index, notice) in notices.iter().enumerate() {
                assert!(notice.joined.len() + notice.left.len() <= NOTICE_MEMBERS_MAX);
                for left in &notice.left {
                    // Somebody else may have asked and seen it.
                    self.0.retain(|member| member != left);
                }
                for joined in &notice.joined {
                    if !self.0.contains(joined) {
                        self.0.push(joined.clone());
                    }
                }
                assert_eq!(notice.more, index + 1 < notices.len());
                assert!(notice.more || notice.count.clients == self.0.len());
            }
        }
    }

    /// All pages of a roster.
    fn listed(roster: &mut Roster, limit: usize) -> Vec<PresentMember> {
        let (mut listed, mut after) = (Vec::new(), Some(0));
        while let Some(place) = after {
            let page = roster.page(PresenceQuery { after: place, limit });
            assert!(page.members.len() <= limit);
            listed.extend(page.members);
            after = page.next;
        }
        listed
    }

    proptest! {
        #[test]
        fn a_roster_is_an_ordered_set_and_listeners_know_it(
            steps in prop::collection::vec((0..9u8, 0..40u32, prop::option::of(0..5u32)), 0..300),
            limit in 1..9usize,
        ) {
            let mut roster = Roster::default();
            let mut model: Vec<(u32, PresentMember)> = Vec::new();
            let (mut listener, mut asker) = (Listener::default(), Listener::default());
            for (time, (step, slot, user)) in steps.into_iter().enumerate() {
                let now = Moment(time as u64);
                match step {
                    0..4 => {
                        let arrival = arrival(slot, user);
                        let Arrival { connection_id, user, info } = arrival.clone();
                        let is_same = model.iter().any(|(of, member)| *of == slot && member.user == user);
                        if !is_same {
                            model.retain(|(of, _)| *of != slot);
                            let joined_at = now.0;
                            let member = PresentMember { connection_id, user, info, joined_at };
                            model.push((slot, member));
                        }
                        roster.join(place(slot), arrival, now);
                    }
                    4..7 => {
                        model.retain(|(of, _)| *of != slot);
                        roster.leave(place(slot));
                    }
                    7 => {
                        let news = roster.take_news();
                        listener.hear(news.clone());
                        asker.hear(news);
                    }
                    _ => asker.0 = listed(&mut roster, limit),
                }
                let mut users: Vec<_> = model.iter().filter_map(|(_, it)| it.user.clone()).collect();
                users.sort();
                users.dedup();
                let count = Headcount { clients: model.len(), users: users.len() };
                prop_assert_eq!(roster.count(), count);
            }
            let news = roster.take_news();
            listener.hear(news.clone());
            asker.hear(news);
            prop_assert!(!roster.has_news());
            let model: Vec<_> = model.into_iter().map(|(_, member)| member).collect();
            prop_assert_eq!(&listener.0, &model);
            prop_assert_eq!(&asker.0, &model);
            prop_assert_eq!(listed(&mut roster, limit), model);
        }
    }

    #[test]
    fn a_crowd_is_told_in_pieces() {
        let (mut roster, mut listener) = (Roster::default(), Listener::default());
        for slot in 0..1000 {
            roster.join(place(slot), arrival(slot, None), Moment(1));
        }
        let notices = roster.take_news();
        assert_eq!(notices.len(), 4);
        listener.hear(notices);
        for slot in 0..1000 {
            roster.leave(place(slot));
            roster.join(place(slot), arrival(slot, Some(1)), Moment(2));
        }
        listener.hear(roster.take_news());
        assert_eq!(roster.count(), Headcount { clients: 1000, users: 1 });
    }

    #[test]
    fn only_how_many_there_are() {
        let mut roster = Roster::default();
        roster.join(place(1), arrival(1, Some(1)), Moment(1));
        let page = roster.page(PresenceQuery { after: 0, limit: 0 });
        assert_eq!((page.count.clients, page.members.len(), page.next), (1, 0, None));
    }
}
