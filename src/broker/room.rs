//! One room, at the home of its topic: who is in it and who is not heard.

use std::collections::{BTreeMap, HashSet};

use hashbrown::HashMap;

use super::roster::Place;
use crate::ids::{Moment, UserName};
use crate::proto::room::{ROOM_USERS, ROOM_USERS_LISTED_MAX};
use crate::proto::{RoomPlan, RoomRefusal, RoomView};

#[derive(Debug)]
pub struct Room {
    name: Box<str>,
    users_max: u32,
    metadata: Box<str>,
    /// `None`: the server API's.
    owner: Option<UserName>,
    /// It is over when the last one leaves.
    pub is_auto: bool,
    /// By a number that grows with each user who comes.
    users: BTreeMap<u64, UserName>,
    seats: HashMap<UserName, Seat>,
    members: HashMap<Place, UserName, foldhash::fast::RandomState>,
    /// At most as many as the room may have users.
    muted: HashSet<UserName>,
    last: u64,
    /// Since when nobody is in it.
    pub empty_since: Moment,
}

/// A user in the room.
#[derive(Debug)]
struct Seat {
    number: u64,
    /// Of each of its connections.
    places: Vec<Place>,
}

impl Room {
    /// `id`: the name of its channel.
    pub fn new(id: &str, plan: RoomPlan, owner: Option<UserName>, now: Moment) -> Self {
        let RoomPlan { name, users_max, metadata } = plan;
        Self {
            name: name.unwrap_or_else(|| format!("Room {id}").into()),
            users_max: users_max.unwrap_or(ROOM_USERS),
            metadata: metadata.unwrap_or_else(|| "{}".into()),
            owner,
            is_auto: false,
            users: BTreeMap::new(),
            seats: HashMap::new(),
            members: HashMap::default(),
            muted: HashSet::new(),
            last: 0,
            empty_since: now,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    pub fn is_owner(&self, name: &UserName) -> bool {
        self.owner.as_ref() == Some(name)
    }

    /// `returns`: it had been here, and gets its place back even if somebody has taken it meanwhile.
    pub fn join(&mut self, place: Place, name: UserName, returns: bool) -> Result<(), RoomRefusal> {
        if self.members.contains_key(&place) {
            return Err(RoomRefusal::AlreadyMember);
        }
        match self.seats.get_mut(&name) {
            Some(seat) => seat.places.push(place),
            None if self.users.len() >= self.users_max as usize && !returns => {
                return Err(RoomRefusal::Full);
            }
            None => {
                self.last += 1;
                self.users.insert(self.last, name.clone());
                self.seats.insert(name.clone(), Seat { number: self.last, places: vec![place] });
            }
        }
        self.members.insert(place, name);
        Ok(())
    }

    /// `false`: it was not here.
    pub fn leave(&mut self, place: Place, now: Moment) -> bool {
        let Some(name) = self.members.remove(&place) else { return false };
        if let Some(seat) = self.seats.get_mut(&name) {
            seat.places.retain(|other| *other != place);
            if seat.places.is_empty() {
                self.users.remove(&seat.number);
                self.seats.remove(&name);
            }
        }
        if self.users.is_empty() {
            self.empty_since = now;
        }
        true
    }

    /// Takes a user out, with all its connections; those are returned.
    pub fn kick(&mut self, name: &UserName, now: Moment) -> Vec<Place> {
        let places = self.seats.get(name).map_or(Vec::new(), |seat| seat.places.clone());
        for place in &places {
            self.leave(*place, now);
        }
        places
    }

    /// Nobody hears that user any more, or everybody again.
    pub fn mute(&mut self, name: UserName, muted: bool) -> Result<(), RoomRefusal> {
        if !muted {
            self.muted.remove(&name);
        } else if self.muted.len() >= self.users_max as usize {
            return Err(RoomRefusal::Full);
        } else {
            self.muted.insert(name);
        }
        Ok(())
    }

    /// Whether it may say something here.
    pub fn may_publish(&self, place: Place) -> bool {
        let name = self.members.get(&place);
        name.is_some_and(|name| self.muted.is_empty() || !self.muted.contains(name))
    }

    /// The connections of everybody.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.members.keys().copied()
    }

    pub fn view(&self) -> RoomView {
        RoomView {
            name: self.name.clone(),
            users_max: self.users_max,
            user_count: self.users.len(),
            users: self.users.values().take(ROOM_USERS_LISTED_MAX).cloned().collect(),
            owner: self.owner.clone(),
            metadata: self.metadata.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{ShardId, Token};

    fn place(slot: u32) -> Place {
        (ShardId((slot % 2) as u16), Token { slot, generation: 1 })
    }

    fn user(number: u32) -> UserName {
        UserName::parse(&format!("user {number}")).expect("a name")
    }

    proptest! {
        /// The model: who sits where, in the order of their coming.
        #[test]
        fn a_room_has_its_users_in_order_and_no_more_than_it_may(
            users_max in 1..4u32,
            steps in prop::collection::vec((0..10u8, 0..8u32, 0..5u32), 0..100),
        ) {
            let plan = RoomPlan { users_max: Some(users_max), ..RoomPlan::default() };
            let mut room = Room::new("a", plan, None, Moment(0));
            let mut model: Vec<(u32, Vec<u32>)> = Vec::new();
            let mut muted = HashSet::new();
            for (time, (step, slot, number)) in steps.into_iter().enumerate() {
                let now = Moment(time as u64);
                let sits = model.iter().any(|(_, slots)| slots.contains(&slot));
                match step {
                    0..=4 => {
                        let returns = step == 4;
                        let joined = room.join(place(slot), user(number), returns);
                        let is_full = model.len() >= users_max as usize;
                        let seat = model.iter_mut().find(|(other, _)| *other == number);
                        let expected = match seat {
                            _ if sits => Err(RoomRefusal::AlreadyMember),
                            Some((_, slots)) => {
                                slots.push(slot);
                                Ok(())
                            }
                            None if is_full && !returns => Err(RoomRefusal::Full),
                            None => {
                                model.push((number, vec![slot]));
                                Ok(())
                            }
                        };
                        prop_assert_eq!(joined, expected);
                    }
                    5 | 6 => {
                        prop_assert_eq!(room.leave(place(slot), now), sits);
                        model.iter_mut().for_each(|(_, slots)| slots.retain(|it| *it != slot));
                    }
                    7 => {
                        let kicked = room.kick(&user(number), now);
                        let slots = model.iter().find(|(other, _)| *other == number);
                        let slots = slots.map_or(Vec::new(), |(_, slots)| slots.clone());
                        let places: Vec<_> = slots.into_iter().map(place).collect();
                        prop_assert_eq!(kicked, places);
                        model.retain(|(other, _)| *other != number);
                    }
                    _ => {
                        let mute = step == 8;
                        if room.mute(user(number), mute).is_ok() {
                            if mute { muted.insert(number) } else { muted.remove(&number) };
                        }
                    }
                }
                model.retain(|(_, slots)| !slots.is_empty());
                let view = room.view();
                let users: Vec<_> = model.iter().map(|(number, _)| user(*number)).collect();
                prop_assert_eq!((view.user_count, view.users), (users.len(), users));
                prop_assert_eq!(room.is_empty(), model.is_empty());
                prop_assert!(muted.len() <= users_max as usize);
                for slot in 0..8 {
                    let seat = model.iter().find(|(_, slots)| slots.contains(&slot));
                    let may = seat.is_some_and(|(number, _)| !muted.contains(number));
                    prop_assert_eq!(room.may_publish(place(slot)), may);
                }
            }
        }
    }
}
