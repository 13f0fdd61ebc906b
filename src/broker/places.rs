//! How far a connection has surely got on the topics with history that it is subscribed to: looked up now
//! and then, not kept for each delivery.

use super::Broker;
use super::cursors::CursorState;
use super::topics::TopicKey;
use crate::ids::{Position, Token};

/// Positions of one connection, by topic. At most one for each of its subscriptions.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Places {
    /// In the order of the keys.
    places: Vec<(TopicKey, Position)>,
}

impl Places {
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn get(&self, topic: TopicKey) -> Option<Position> {
        let place = self.find(topic).ok()?;
        Some(self.places[place].1)
    }

    /// A subscription begins here, unless it began before.
    fn begin(&mut self, topic: TopicKey, position: Position) {
        if let Err(place) = self.find(topic) {
            self.places.insert(place, (topic, position));
        }
    }

    /// The client may have no more than this.
    fn lower(&mut self, topic: TopicKey, position: Position) {
        match self.find(topic) {
            Ok(place) => {
                let kept = &mut self.places[place].1;
                if kept.epoch != position.epoch || kept.offset > position.offset {
                    *kept = position;
                }
            }
            Err(place) => self.places.insert(place, (topic, position)),
        }
    }

    /// The client has got this far by now. Positions never go back within an epoch.
    pub fn advance(&mut self, reached: &Places) {
        for &(topic, position) in &reached.places {
            match self.find(topic) {
                Ok(place) => {
                    let kept = &mut self.places[place].1;
                    if kept.epoch != position.epoch || kept.offset < position.offset {
                        *kept = position;
                    }
                }
                Err(place) => self.places.insert(place, (topic, position)),
            }
        }
    }

    fn remove(&mut self, topic: TopicKey) {
        if let Ok(place) = self.find(topic) {
            self.places.remove(place);
        }
    }

    fn find(&self, topic: TopicKey) -> Result<usize, usize> {
        self.places.binary_search_by_key(&topic.0, |(key, _)| key.0)
    }
}

impl Broker {
    /// How far the connection's queue has been filled, which is no further than its deliveries: what a
    /// fan-out still has for anybody does not count.
    pub fn places(&mut self, token: Token) -> Places {
        let mut places = Vec::new();
        for &key in self.members.topics(token) {
            let topic = self.topics.topic(key);
            if topic.past.is_none() || topic.name.is_inbox() {
                continue;
            }
            let reached = if let Some(place) = topic.subscribers.place_of(token.slot) {
                topic.reached(token.slot, place)
            } else {
                match self.cursors.find(token, key) {
                    Some(CursorState::Reading { next }) => {
                        let offset = next.saturating_sub(1);
                        topic.position().map(|Position { epoch, .. }| Position { epoch, offset })
                    }
                    Some(CursorState::Held { .. } | CursorState::Opening(_)) | None => None,
                }
            };
            places.extend(reached.map(|position| (key, position)));
        }
        places.sort_unstable_by_key(|(key, _)| key.0);
        Places { places }
    }

    /// A subscription was confirmed: it begins here, unless it was confirmed before.
    pub fn note_begin(&self, places: &mut Places, topic: &str, position: Position) {
        if let Some(key) = self.find(topic) {
            places.begin(key, position);
        }
    }

    /// A session had a subscription to this topic, and came this far.
    pub fn note_kept(&self, places: &mut Places, topic: &str, position: Position) {
        if let Some(key) = self.find(topic) {
            places.lower(key, position);
        }
    }

    /// A subscription ends.
    pub fn forget_place(&self, places: &mut Places, topic: &str) {
        if let Some(key) = self.find(topic) {
            places.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;

    fn at(epoch: u64, offset: u64) -> Position {
        Position { epoch: Epoch(epoch), offset }
    }

    #[test]
    fn places_advance_and_never_go_back_but_when_told() {
        let mut places = Places::default();
        places.begin(TopicKey(5), at(1, 3));
        places.begin(TopicKey(2), at(1, 8));
        places.begin(TopicKey(5), at(1, 9));
        assert_eq!(places.get(TopicKey(5)), Some(at(1, 3)));
        let mut reached = Places::default();
        reached.begin(TopicKey(2), at(1, 7));
        reached.begin(TopicKey(5), at(1, 4));
        reached.begin(TopicKey(9), at(1, 1));
        places.advance(&reached);
        let kept = |places: &Places| [2, 5, 9].map(|key| places.get(TopicKey(key)));
        assert_eq!(kept(&places), [Some(at(1, 8)), Some(at(1, 4)), Some(at(1, 1))]);
        places.lower(TopicKey(2), at(1, 6));
        places.lower(TopicKey(5), at(1, 6));
        places.lower(TopicKey(9), at(2, 6));
        assert_eq!(kept(&places), [Some(at(1, 6)), Some(at(1, 4)), Some(at(2, 6))]);
        places.remove(TopicKey(5));
        assert_eq!(kept(&places), [Some(at(1, 6)), None, Some(at(2, 6))]);
    }
}
