//! Rooms: topics that have members. The home of the topic decides who is one; the shard of a member says
//! when it has gone.

use super::Broker;
use super::effect::{Effect, SubscribeError};
use super::room::Room;
use super::topics::TopicKey;
use crate::ids::{ShardId, Token, TopicName, UserName};
use crate::message::{
    AdminTicket, Asker, Publisher, Reader, RoomMessage, RoomOutcome, ShardMessage,
};
use crate::proto::{Removal, RoomAction, RoomPlan, RoomRefusal};

impl Broker {
    /// Whether a channel of that name may be a room.
    pub fn may_be_room(&self, name: &str) -> bool {
        self.options(name).rooms
    }

    /// Whether who is kicked out of the room loses its connection.
    pub fn kick_closes(&self, name: &str) -> bool {
        self.options(name).kick_closes
    }

    /// A client wants something of a room: [`Effect::Room`] follows, now or when the home has answered.
    /// `name`: of its user, or the id of its connection. `returns`: its session had been a member.
    ///
    /// # Errors
    ///
    /// The home can take no more messages at the moment.
    pub fn ask_room(
        &mut self,
        (token, name): (Token, UserName),
        room: &str,
        (action, returns): (RoomAction, bool),
        receipt: Option<Box<str>>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), SubscribeError> {
        let hash = self.topics.hash(room);
        let home = self.topics.home(hash);
        if self.congested.contains(&home) {
            return Err(SubscribeError::Congested);
        }
        let topic = self.name(self.topics.find(hash, room), room);
        // By what is known of a user; nothing is known of others.
        let moderators = self.options(room).moderators.as_ref();
        let moderates = self.users.user_of(token).is_some()
            && moderators.is_some_and(|rule| rule.matches(self.attributes(token.slot)));
        if returns {
            self.returning.push((token, topic.clone()));
        }
        let asker = Asker { reader: self.reader(token), name, moderates, returns };
        let message = RoomMessage::Ask { asker, action, receipt };
        self.post_room(home, topic, message, effects);
        Ok(())
    }

    /// To another shard, or to this one at once.
    fn post_room(
        &mut self,
        to: ShardId,
        topic: TopicName,
        message: RoomMessage,
        effects: &mut Vec<Effect>,
    ) {
        if to == self.shard {
            self.receive_room(topic, message, effects);
        } else {
            let message = ShardMessage::Room { topic, message: Box::new(message) };
            effects.push(Effect::Send { to, message });
        }
    }

    /// A message of another shard, or of this one.
    pub(super) fn receive_room(
        &mut self,
        topic: TopicName,
        message: RoomMessage,
        effects: &mut Vec<Effect>,
    ) {
        match message {
            RoomMessage::Ask { asker, action, receipt } => {
                let (reader, returns) = (asker.reader, asker.returns);
                let outcome = self.run_room(&topic, Some(asker), action, effects);
                let message = RoomMessage::Answer { reader, outcome, receipt, returns };
                self.post_room(reader.shard, topic, message, effects);
            }
            RoomMessage::Answer { reader: Reader { token, .. }, outcome, receipt, returns } => {
                if returns && let Some(place) = self.place_returning(token, &topic) {
                    self.returning.swap_remove(place);
                }
                effects.push(Effect::Room { token, topic, outcome, request_id: receipt, returns });
            }
            RoomMessage::Left { from, token } => {
                let now = self.now;
                if let Some(key) = self.find(&topic)
                    && let Some(room) = &mut self.topics.topic_mut(key).room
                {
                    room.leave((from, token), now);
                    self.settle_room(key, &topic, effects);
                }
            }
            RoomMessage::Removed { token, removal } => {
                // The home had not heard of the return: this is of a membership before, which had been left.
                let is_over = self.place_returning(token, &topic).is_none();
                if is_over && self.forget_membership(token, &topic) {
                    effects.push(Effect::Removed { token, topic, removal });
                }
            }
        }
    }

    fn place_returning(&self, token: Token, room: &TopicName) -> Option<usize> {
        self.returning.iter().position(|(who, what)| *who == token && what == room)
    }

    /// At home: does what somebody wants of a room, if they may. `who`: `None`: the server API, which may do
    /// everything but join and leave.
    pub fn run_room(
        &mut self,
        id: &TopicName,
        who: Option<Asker>,
        action: RoomAction,
        effects: &mut Vec<Effect>,
    ) -> RoomOutcome {
        match self.try_room(id, who, action, effects) {
            Ok(outcome) => outcome,
            Err(refusal) => RoomOutcome::Refused(refusal),
        }
    }

    fn try_room(
        &mut self,
        id: &TopicName,
        who: Option<Asker>,
        action: RoomAction,
        effects: &mut Vec<Effect>,
    ) -> Result<RoomOutcome, RoomRefusal> {
        if action == RoomAction::Leave {
            // The message before this one has said so, and perhaps that was the end of the room.
            return Ok(RoomOutcome::Done);
        }
        let now = self.now;
        let name = who.as_ref().map(|asker| &asker.name);
        match (&action, self.find_room(id).is_some()) {
            (RoomAction::Create(_), true) => return Err(RoomRefusal::Exists),
            (RoomAction::Create(plan), false) => {
                let room = Room::new(id, plan.clone(), name.cloned(), now);
                let view = Box::new(room.view());
                self.insert_room(id, room)?;
                return Ok(RoomOutcome::Described(view));
            }
            (RoomAction::Join, false) if self.options(id).auto_create => {
                let mut room = Room::new(id, RoomPlan::default(), name.cloned(), now);
                room.is_auto = true;
                self.insert_room(id, room)?;
            }
            (_, false) => return Err(RoomRefusal::NotFound),
            (_, true) => {}
        }
        let Some((key, room)) = self.find_room(id) else { return Err(RoomRefusal::NotFound) };
        let may_moderate =
            who.as_ref().is_none_or(|asker| asker.moderates || room.is_owner(&asker.name));
        match (action, who) {
            (RoomAction::Join, Some(Asker { reader, name, returns, .. })) => {
                room.join((reader.shard, reader.token), name, returns)?;
                Ok(RoomOutcome::Joined(Box::new(room.view())))
            }
            (RoomAction::Describe, _) => Ok(RoomOutcome::Described(Box::new(room.view()))),
            _ if !may_moderate => Err(RoomRefusal::NotOwner),
            (RoomAction::Mute { target, muted }, _) => {
                room.mute(target, muted)?;
                Ok(RoomOutcome::Done)
            }
            (RoomAction::Kick { target }, _) => {
                let places = room.kick(&target, now);
                if places.is_empty() {
                    return Err(RoomRefusal::NotMember);
                }
                self.remove(id, places, Removal::Kicked, effects);
                self.settle_room(key, id, effects);
                Ok(RoomOutcome::Done)
            }
            (RoomAction::Delete, _) => {
                let places = room.places().collect();
                self.remove(id, places, Removal::Deleted, effects);
                self.end_room(key, id, effects);
                Ok(RoomOutcome::Done)
            }
            // The server API is in no room, members leave where they are, and what is created was above.
            (RoomAction::Join | RoomAction::Leave | RoomAction::Create(_), _) => {
                Err(RoomRefusal::NotMember)
            }
        }
    }

    fn find_room(&mut self, id: &str) -> Option<(TopicKey, &mut Room)> {
        let key = self.find(id)?;
        self.topics.topic_mut(key).room.as_mut().map(|room| (key, &mut **room))
    }

    fn insert_room(&mut self, id: &TopicName, room: Room) -> Result<(), RoomRefusal> {
        let limit = self.limits.rooms_max;
        if self.rooms.len() >= limit && !self.forget_empty_room() {
            return Err(RoomRefusal::TooMany { limit });
        }
        let hash = self.topics.hash(id);
        let found = self.topics.find(hash, id);
        let full = RoomRefusal::TableFull { limit: self.limits.topics_max };
        let key = found.or_else(|| self.insert_topic(hash, id)).ok_or(full)?;
        self.topics.topic_mut(key).room = Some(Box::new(room));
        self.rooms.insert(id.clone());
        Ok(())
    }

    /// Makes room for another one: one that has been empty for its time.
    fn forget_empty_room(&mut self) -> bool {
        let now = self.now;
        let is_over = |id: &&TopicName| {
            let Some(key) = self.find(id) else { return false };
            let ttl = self.options(id).room_ttl;
            let room = self.topics.topic(key).room.as_ref();
            room.is_some_and(|room| room.is_empty() && now.since(room.empty_since) >= ttl)
        };
        let Some(id) = self.rooms.iter().find(is_over).cloned() else { return false };
        if let Some(key) = self.find(&id) {
            self.end_room(key, &id, &mut Vec::new());
        }
        true
    }

    /// Somebody has left.
    fn settle_room(&mut self, key: TopicKey, id: &TopicName, effects: &mut Vec<Effect>) {
        let room = self.topics.topic(key).room.as_ref();
        if room.is_some_and(|room| room.is_auto && room.is_empty()) {
            self.end_room(key, id, effects);
        }
    }

    fn end_room(&mut self, key: TopicKey, id: &TopicName, effects: &mut Vec<Effect>) {
        self.rooms.remove(id);
        self.topics.topic_mut(key).room = None;
        self.lose_interest(key, effects);
    }

    /// Tells the shards of members that these are none any more.
    fn remove(
        &mut self,
        id: &TopicName,
        places: Vec<(ShardId, Token)>,
        removal: Removal,
        effects: &mut Vec<Effect>,
    ) {
        for (shard, token) in places {
            self.post_room(shard, id.clone(), RoomMessage::Removed { token, removal }, effects);
        }
    }

    /// At home: whether it is a room, and not for this one to say something in.
    pub(super) fn is_barred(&self, found: Option<TopicKey>, publisher: &Publisher) -> bool {
        let Some(key) = found else { return false };
        let place = (publisher.shard, publisher.token);
        self.topics.topic(key).room.as_ref().is_some_and(|room| {
            !room.may_publish(place) && AdminTicket::of(publisher.token).is_none()
        })
    }

    /// A connection here, which has not gone, is a member from now on.
    pub fn note_membership(&mut self, token: Token, room: TopicName) {
        let (generation, rooms) =
            self.memberships.entry(token.slot).or_insert((token.generation, Vec::new()));
        if *generation != token.generation {
            (*generation, *rooms) = (token.generation, Vec::new());
        }
        if !rooms.contains(&room) {
            rooms.push(room);
        }
    }

    /// Whether it was one.
    pub fn forget_membership(&mut self, token: Token, room: &str) -> bool {
        let Some((generation, rooms)) = self.memberships.get_mut(&token.slot) else { return false };
        let before = rooms.len();
        if *generation == token.generation {
            rooms.retain(|other| **other != *room);
        }
        let was_member = rooms.len() < before;
        if rooms.is_empty() {
            self.memberships.remove(&token.slot);
        }
        was_member
    }

    /// The rooms that a connection is in.
    pub fn rooms_of(&self, token: Token) -> &[TopicName] {
        match self.memberships.get(&token.slot) {
            Some((generation, rooms)) if *generation == token.generation => rooms,
            _ => &[],
        }
    }

    /// A connection is not in a room any more, if it was: its home hears of it.
    pub fn leave_room(&mut self, token: Token, room: &str, effects: &mut Vec<Effect>) {
        if !self.memberships.is_empty() && self.forget_membership(token, room) {
            self.tell_left(token, room, effects);
        }
    }

    /// The home of a room hears that a connection is not in it, whether that was noted here or not.
    pub fn tell_left(&mut self, token: Token, room: &str, effects: &mut Vec<Effect>) {
        let home = self.topics.home(self.topics.hash(room));
        let message = RoomMessage::Left { from: self.shard, token };
        self.post_room(home, TopicName::new(room), message, effects);
    }

    /// The same of all its rooms.
    pub(super) fn leave_rooms(&mut self, token: Token, effects: &mut Vec<Effect>) {
        for room in self.rooms_of(token).to_vec() {
            self.leave_room(token, &room, effects);
        }
    }

    /// Rooms at home here behind this one, in the order of their names.
    pub fn list_rooms(&self, after: Option<&TopicName>, limit: usize) -> Vec<TopicName> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.rooms.range::<TopicName, _>((from, Unbounded)).take(limit).cloned().collect()
    }
}
