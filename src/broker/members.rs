//! What the broker knows of each connection: its generation and the topics it subscribed to.

use super::topics::TopicKey;
use crate::ids::Token;

/// The subscriptions of one connection; almost all have none, one or a few.
#[derive(Debug, Default)]
enum TopicSet {
    #[default]
    None,
    One(TopicKey),
    #[allow(clippy::box_collection, reason = "a member stays small")]
    Many(Box<Vec<TopicKey>>),
}

#[derive(Debug, Default)]
struct Member {
    generation: u32,
    /// Confirmations that wait for a home.
    waiting: u32,
    topics: TopicSet,
}

/// By connection slot: 24 bytes each.
#[derive(Debug, Default)]
pub struct Members {
    members: Vec<Member>,
}

impl Members {
    /// Whether the slot's tenant is the one with that token, as far as it ever subscribed.
    pub fn is_current(&self, token: Token) -> bool {
        self.members.get(token.index()).is_some_and(|member| member.generation == token.generation)
    }

    /// The tenant of a slot that has subscribed.
    pub fn tenant_of(&self, slot: u32) -> Option<Token> {
        let member = self.members.get(slot as usize)?;
        Some(Token { slot, generation: member.generation })
    }

    /// What counts towards the limit: topics, those that wait for their home included, or answers
    /// that are due, whichever is more.
    pub fn subscriptions(&self, token: Token) -> usize {
        self.member(token)
            .map_or(0, |member| member.topics.as_slice().len().max(member.waiting as usize))
    }

    /// What it is subscribed to, what waits for its home included.
    pub fn topics(&self, token: Token) -> &[TopicKey] {
        self.member(token).map_or(&[], |member| member.topics.as_slice())
    }

    pub fn waiting(&mut self, token: Token) {
        self.tenant(token).waiting += 1;
    }

    pub fn answered(&mut self, token: Token) {
        if self.is_current(token) {
            self.members[token.index()].waiting -= 1;
        }
    }

    /// `key` must not be there already.
    pub fn insert(&mut self, token: Token, key: TopicKey) {
        let topics = &mut self.tenant(token).topics;
        *topics = match std::mem::take(topics) {
            TopicSet::None => TopicSet::One(key),
            TopicSet::One(first) => TopicSet::Many(Box::new(vec![first, key])),
            TopicSet::Many(mut keys) => {
                keys.push(key);
                TopicSet::Many(keys)
            }
        };
    }

    pub fn remove(&mut self, token: Token, key: TopicKey) {
        if !self.is_current(token) {
            return;
        }
        match &mut self.members[token.index()].topics {
            TopicSet::None => {}
            topics @ TopicSet::One(_) if topics.as_slice() == [key] => *topics = TopicSet::None,
            TopicSet::One(_) => {}
            TopicSet::Many(keys) => keys.retain(|kept| *kept != key),
        }
    }

    /// The connection is gone; returns what it was subscribed to.
    pub fn leave(&mut self, token: Token) -> Vec<TopicKey> {
        if !self.is_current(token) {
            return Vec::new();
        }
        let member = std::mem::take(&mut self.members[token.index()]);
        member.topics.as_slice().to_vec()
    }

    fn member(&self, token: Token) -> Option<&Member> {
        self.members.get(token.index()).filter(|member| member.generation == token.generation)
    }

    fn tenant(&mut self, token: Token) -> &mut Member {
        if self.members.len() <= token.index() {
            self.members.resize_with(token.index() + 1, Member::default);
        }
        let member = &mut self.members[token.index()];
        if member.generation != token.generation {
            *member = Member { generation: token.generation, ..Member::default() };
        }
        member
    }
}

impl TopicSet {
    fn as_slice(&self) -> &[TopicKey] {
        match self {
            Self::None => &[],
            Self::One(key) => std::slice::from_ref(key),
            Self::Many(keys) => keys,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_small() {
        assert_eq!(size_of::<Member>(), 24);
    }

    #[test]
    fn a_new_tenant_of_a_slot_starts_without_topics() {
        let mut members = Members::default();
        let old = Token { slot: 3, generation: 1 };
        let new = Token { slot: 3, generation: 2 };
        members.insert(old, TopicKey(1));
        members.insert(old, TopicKey(2));
        assert_eq!(members.subscriptions(old), 2);
        assert_eq!(members.subscriptions(new), 0);
        assert_eq!(members.leave(new), []);
        assert_eq!(members.leave(old), [TopicKey(1), TopicKey(2)]);
        members.insert(new, TopicKey(5));
        assert_eq!(members.subscriptions(new), 1);
        assert_eq!(members.leave(old), []);
    }
}
