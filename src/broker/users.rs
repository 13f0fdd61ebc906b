//! Users: which connections here are whose, and what is sent to a user.
//!
//! A user has an inbox for each namespace that takes messages to users: a topic that no client can
//! name, with all connections of the user as its subscribers. So its home orders the messages and knows
//! the shards to send them to, as with every topic. An inbox that queues is a durable topic; what the
//! user has received of it is in `inbox`.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;

use super::Broker;
use super::effect::{Effect, PublishRequest, Select, SubscribeError, SubscribeRequest};
use super::receivers::Receivers;
use crate::filter::Attributes;
use crate::ids::{Token, TopicName, UserName};
use crate::io::FramePool;
use crate::message::{Begin, PublishOutcome, Publisher, ShardMessage};
use crate::proto::{Start, encoder, inbox};

/// The connections of this shard that are somebody's.
#[derive(Debug)]
pub struct Users {
    /// By slot.
    members: HashMap<u32, Member, foldhash::fast::RandomState>,
    /// The slots of each; never none. Names come from the operator's keys, and yet are hashed with a
    /// random seed.
    connections: HashMap<UserName, Vec<u32>, foldhash::quality::RandomState>,
    receivers: Receivers,
    users_max: usize,
    connections_max: u32,
}

#[derive(Debug)]
struct Member {
    generation: u32,
    user: UserName,
}

/// Why a connection cannot become a user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinError {
    /// As many users have connections here as may.
    TooManyUsers { limit: usize },
    /// The user has as many connections here as it may.
    TooManyConnections { limit: u32 },
    /// The home of an inbox can take no more messages at the moment.
    Congested,
    /// The shard's topic table is full.
    TableFull { limit: usize },
}

impl Users {
    pub fn new(users_max: usize, connections_max: u32) -> Self {
        Self {
            members: HashMap::default(),
            connections: HashMap::default(),
            receivers: Receivers::default(),
            users_max,
            connections_max,
        }
    }

    /// Whose a connection is.
    pub fn user_of(&self, token: Token) -> Option<&UserName> {
        let member = self.members.get(&token.slot)?;
        (member.generation == token.generation).then_some(&member.user)
    }

    /// What filters know of the connections.
    pub fn receivers(&self) -> &Receivers {
        &self.receivers
    }

    /// Makes a connection the user's. It must not be anybody's.
    fn insert(
        &mut self,
        token: Token,
        user: &UserName,
        attributes: &Arc<Attributes>,
    ) -> Result<(), JoinError> {
        let users = self.connections.len();
        match self.connections.get_mut(user) {
            Some(slots) if slots.len() >= self.connections_max as usize => {
                return Err(JoinError::TooManyConnections { limit: self.connections_max });
            }
            Some(slots) => slots.push(token.slot),
            None if users >= self.users_max => {
                return Err(JoinError::TooManyUsers { limit: self.users_max });
            }
            None => {
                self.connections.insert(user.clone(), vec![token.slot]);
            }
        }
        let member = Member { generation: token.generation, user: user.clone() };
        self.members.insert(token.slot, member);
        self.receivers.insert(token.slot, attributes);
        Ok(())
    }

    fn remove(&mut self, token: Token) {
        if self.user_of(token).is_none() {
            return;
        }
        let Some(Member { user, .. }) = self.members.remove(&token.slot) else { return };
        self.receivers.remove(token.slot);
        if let Some(slots) = self.connections.get_mut(&user) {
            slots.retain(|slot| *slot != token.slot);
            if slots.is_empty() {
                self.connections.remove(&user);
            }
        }
        if self.members.is_empty() {
            // Gives the memory of a past crowd back.
            *self = Self::new(self.users_max, self.connections_max);
        }
    }
}

impl Broker {
    /// Makes a connection, which must not be anybody's, the user's: it gets what is sent to the user, and
    /// before that what waits. [`Effect::Subscribed`] follows for each of its inboxes.
    pub fn join(
        &mut self,
        token: Token,
        (user, attributes): (&UserName, &Arc<Attributes>),
        effects: &mut Vec<Effect>,
    ) -> Result<(), JoinError> {
        self.users.insert(token, user, attributes)?;
        self.note_user(token);
        for index in 0..self.namespaces.inboxes().len() {
            let topic = TopicName::inbox(&self.namespaces.inboxes()[index], user);
            let begin = Begin { start: Start::Now, limit: None };
            let request = SubscribeRequest {
                token,
                topic: &topic,
                begin,
                request_id: None,
                select: Select::All,
            };
            let home = self.topics.home(self.topics.hash(&topic));
            // Of an inbox that queues the home is asked, whether the topic is known here or not.
            let outcome = if self.congested.contains(&home) {
                Err(SubscribeError::Congested)
            } else {
                self.subscribe(request, effects)
            };
            if let Err(error) = outcome {
                // What the connection has subscribed to by itself stays.
                for joined in 0..index {
                    let topic = TopicName::inbox(&self.namespaces.inboxes()[joined], user);
                    self.unsubscribe(token, &topic, effects);
                }
                self.leave_user(token);
                return Err(match error {
                    SubscribeError::Congested => JoinError::Congested,
                    SubscribeError::TableFull { limit } => JoinError::TableFull { limit },
                    SubscribeError::TooMany { limit } => {
                        JoinError::TableFull { limit: limit as usize }
                    }
                });
            }
        }
        Ok(())
    }

    /// What filters know of a connection.
    pub fn attributes(&self, slot: u32) -> &Attributes {
        self.users.receivers.attributes(slot)
    }

    /// The connections of a user that are here, no more than `max` of them.
    pub fn connections_of(&self, user: &UserName, max: usize) -> Vec<Token> {
        let slots = self.users.connections.get(user).into_iter().flatten().take(max);
        let token = |slot: &u32| {
            let Member { generation, .. } = self.users.members.get(slot)?;
            Some(Token { slot: *slot, generation: *generation })
        };
        slots.filter_map(token).collect()
    }

    /// Inboxes of each user.
    pub fn inboxes(&self) -> usize {
        self.namespaces.inboxes().len()
    }

    /// How many inboxes of the connection's user are not open for it yet.
    pub fn inboxes_under_way(&mut self, token: Token) -> usize {
        let mut under_way = 0;
        for key in self.members.topics(token).to_vec() {
            let is_inbox = self.topics.topic(key).name.is_inbox();
            under_way += usize::from(is_inbox && self.standing(key, token).is_none());
        }
        under_way
    }

    /// How many of the connection's subscriptions are inboxes, which it did not ask for.
    pub(super) fn inboxes_of(&self, token: Token) -> usize {
        if self.users.user_of(token).is_some() { self.namespaces.inboxes().len() } else { 0 }
    }

    pub(super) fn leave_user(&mut self, token: Token) {
        self.users.remove(token);
    }

    /// Whether users may be sent messages under this channel.
    pub fn is_direct(&self, channel: &str) -> bool {
        self.namespaces.inbox_of(channel).is_some()
    }

    /// Whether a connection is of a user who may send messages to many under this channel.
    pub fn may_send_to_many(&self, token: Token, channel: &str) -> bool {
        let senders = self.options(channel).senders.as_ref();
        self.users.user_of(token).is_some()
            && senders.is_some_and(|rule| rule.matches(self.attributes(token.slot)))
    }

    /// A client of this shard sends a message to a user: a publication of the user's inbox, that says it
    /// is of the channel `request.topic`. Under a channel for which [`Broker::is_direct`] does not hold it
    /// is nobody's.
    pub fn publish_to(
        &mut self,
        user: &UserName,
        request: PublishRequest<'_>,
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
    ) {
        let PublishRequest { token, topic: channel, body, echo, receipt } = request;
        let Some(namespace) = self.namespaces.inbox_of(channel) else { return };
        let topic = TopicName::inbox(namespace, user);
        let publisher = Publisher { shard: self.shard, token, echo, receipt };
        let hash = self.topics.hash(&topic);
        let (home, found) = (self.topics.home(hash), self.topics.find(hash, &topic));
        let topic = found.map_or(topic, |key| self.topics.topic(key).name.clone());
        let no_room =
            if home == self.shard { self.giving_way } else { self.congested.contains(&home) };
        if no_room {
            self.respond(topic, publisher, PublishOutcome::BacklogFull, effects);
            return;
        }
        let body = self.inbox_body(&topic, channel, &body.kept());
        if home == self.shard {
            self.receive_publication(topic, body, publisher, frames, effects);
        } else {
            let message = ShardMessage::Publish { topic, body, publisher };
            effects.push(Effect::Send { to: home, message });
        }
    }

    /// At home of the user's inbox: the server API sends a message to the user, see
    /// [`Broker::publish_to`].
    pub fn publish_to_from_outside(
        &mut self,
        inbox: TopicName,
        channel: &str,
        data: &[u8],
        publisher: Publisher,
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
    ) {
        let body = self.inbox_body(&inbox, channel, data);
        self.receive_publication(inbox, body, publisher, frames, effects);
    }

    /// What an inbox gets of a message under this channel.
    fn inbox_body(&self, inbox: &TopicName, channel: &str, data: &[u8]) -> Bytes {
        match self.options(inbox).has_history() {
            true => inbox::record(channel, data),
            false => encoder::publication_frame(channel, data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn token(slot: u32, generation: u32) -> Token {
        Token { slot, generation }
    }

    proptest! {
        #[test]
        fn the_table_of_users_is_a_map_with_bounds(
            steps in prop::collection::vec((any::<bool>(), 0..12u32, 0..6u8), 0..300),
        ) {
            let mut users = Users::new(4, 3);
            // By slot: its generation, and whose it is.
            let mut model: BTreeMap<u32, (u32, u8)> = BTreeMap::new();
            let mut generation = 0;
            for (joins, slot, who) in steps {
                generation += 1;
                if joins && !model.contains_key(&slot) {
                    let user = UserName::parse(&who.to_string()).unwrap();
                    let own = model.values().filter(|(_, other)| *other == who).count();
                    let mut known: Vec<_> = model.values().map(|(_, who)| *who).collect();
                    known.sort_unstable();
                    known.dedup();
                    let expected = match own {
                        0 if known.len() == 4 => Err(JoinError::TooManyUsers { limit: 4 }),
                        3 => Err(JoinError::TooManyConnections { limit: 3 }),
                        _ => Ok(()),
                    };
                    let attributes = Arc::new(Attributes::default());
                    let inserted = users.insert(token(slot, generation), &user, &attributes);
                    prop_assert_eq!(inserted, expected);
                    if expected.is_ok() {
                        model.insert(slot, (generation, who));
                    }
                } else if !joins {
                    // Somebody else in that slot leaves nobody else's place.
                    users.remove(token(slot, generation));
                    if let Some((generation, _)) = model.remove(&slot) {
                        users.remove(token(slot, generation));
                    }
                }
                for slot in 0..12 {
                    let (generation, who) = model.get(&slot).copied().unwrap_or((1, 99));
                    let user = users.user_of(token(slot, generation)).map(|user| user.to_string());
                    prop_assert_eq!(user, (who != 99).then(|| who.to_string()));
                }
                prop_assert_eq!(users.members.len(), model.len());
                let connections: usize = users.connections.values().map(Vec::len).sum();
                prop_assert_eq!(connections, model.len());
            }
        }
    }
}
