//! What clients saw and were told in all lives of a server.

use std::collections::BTreeMap;

use super::{KEPT, Visitor};
use crate::shard::simulation::{Outcome, Published, TOPICS};

#[derive(Default)]
pub struct Memory {
    pub published: Vec<Published>,
    /// By topic and offset.
    seen: BTreeMap<(usize, u64), usize>,
    epochs: BTreeMap<usize, String>,
    /// From this number on publications are of this life.
    born: usize,
}

impl Memory {
    /// The server is another one from here on.
    pub fn begin_life(&mut self) {
        self.born = self.published.len();
    }

    /// That of a topic to which something was published.
    pub fn epoch(&self, topic: usize) -> Option<&String> {
        self.epochs.get(&topic)
    }

    /// What a client saw, when it is over.
    pub fn note(&mut self, visitor: &Visitor) {
        for segment in &visitor.client.segments {
            let topic = segment.topic;
            // A channel to which nothing was published has no epoch that would last.
            let Some(place) = segment.place.as_ref().filter(|place| place.offset > 0) else {
                continue;
            };
            let epoch = self.epochs.entry(topic).or_insert_with(|| place.epoch.clone());
            assert_eq!(*epoch, place.epoch, "the epoch of {} is another", TOPICS[topic]);
            for (offset, id) in &place.seen {
                let first = *self.seen.entry((topic, *offset)).or_insert(*id);
                assert_eq!(first, *id, "{} has two publications at {offset}", TOPICS[topic]);
                let refused = self.published[*id].outcome == Some(Outcome::Refused);
                assert!(*id < self.born || !refused, "{id} was refused, and is at {offset}");
            }
            let gone: u64 = place.gaps.iter().map(|(from, to)| to - from + 1).sum();
            let got = place.seen.len() as u64 + gone;
            assert_eq!(got, place.offset - place.begin, "{}: {segment:?}", TOPICS[topic]);
            assert!(topic != KEPT || gone == 0, "a gap where all is kept: {segment:?}");
            let before = visitor.came_from.iter().find(|(other, _)| *other == topic);
            if topic == KEPT
                && let Some((_, before)) = before
            {
                assert!(place.begin >= before.offset, "{segment:?} behind {before:?}");
            }
        }
    }

    /// Somebody has read the topic that keeps everything, from its start to its end.
    pub fn judge(&self, reader: &Visitor) {
        let [segment] = &reader.client.segments[..] else {
            panic!("one subscription: {:?}", reader.client.segments)
        };
        let place = segment.place.as_ref().expect("it has a history");
        assert_eq!(place.begin, 0, "recovered from the start");
        let mut times = vec![0; self.published.len()];
        place.seen.iter().for_each(|(_, id)| times[*id] += 1);
        assert!(times.iter().all(|times| *times <= 1), "something is there twice");
        for (id, publication) in self.published.iter().enumerate() {
            if publication.topic == KEPT && publication.outcome == Some(Outcome::Accepted) {
                assert_eq!(times[id], 1, "{id} was acknowledged");
            }
        }
        let seen = self.seen.range((KEPT, 0)..=(KEPT, u64::MAX)).count() as u64;
        assert_eq!(seen, place.offset, "whoever saw something saw what is there");
    }
}
