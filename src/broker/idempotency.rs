//! The message ids that a topic remembers: whoever publishes under one of them again is told where the
//! first publication went, and nothing is delivered twice.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;

use crate::ids::Moment;

/// What one remembered id counts for in the memory of histories.
pub const ID_BYTES: usize = 64;

/// A message id as a hash under the seed of the process: two of 64 bits meet by chance once in 10^15
/// publications at a thousand remembered ones. It is never written anywhere: the log has the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);

/// Message ids of one topic, in the order they came.
#[derive(Debug, Default)]
pub struct MessageIds {
    offsets: HashMap<Fingerprint, u64, foldhash::fast::RandomState>,
    order: VecDeque<(Moment, Fingerprint)>,
}

impl MessageIds {
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// When the oldest one was published.
    pub fn oldest(&self) -> Option<Moment> {
        self.order.front().map(|(time, _)| *time)
    }

    /// The offset of the publication under this id.
    pub fn find(&self, id: Fingerprint) -> Option<u64> {
        self.offsets.get(&id).copied()
    }

    /// Remembers an id that is not there. Returns how many made room for it: at most `ids_max`, which
    /// is not 0, stay.
    pub fn insert(&mut self, id: Fingerprint, offset: u64, now: Moment, ids_max: usize) -> usize {
        let mut dropped = 0;
        while self.order.len() >= ids_max {
            dropped += usize::from(self.forget_oldest());
        }
        self.offsets.insert(id, offset);
        self.order.push_back((now, id));
        dropped
    }

    /// Forgets what is as old as `window`, at most `count`; returns how many.
    pub fn expire(&mut self, now: Moment, window: Duration, count: usize) -> usize {
        let mut forgotten = 0;
        while forgotten < count && self.oldest().is_some_and(|time| time.after(window) <= now) {
            forgotten += usize::from(self.forget_oldest());
        }
        forgotten
    }

    /// Forgets those of publications behind `offset`, which are the newest.
    pub fn forget_behind(&mut self, offset: u64) {
        while let Some((_, id)) = self.order.back()
            && self.offsets.get(id).is_none_or(|other| *other > offset)
        {
            self.offsets.remove(id);
            self.order.pop_back();
        }
    }

    /// Whether there was one.
    pub fn forget_oldest(&mut self) -> bool {
        let Some((_, id)) = self.order.pop_front() else { return false };
        self.offsets.remove(&id);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_forgotten_by_age_and_by_number() {
        let mut ids = MessageIds::default();
        let second = Duration::from_secs(1);
        for number in 1..=4 {
            let dropped = ids.insert(Fingerprint(number), number, Moment(number * 100), 3);
            assert_eq!(dropped, usize::from(number == 4));
        }
        assert_eq!(ids.find(Fingerprint(1)), None);
        assert_eq!(ids.find(Fingerprint(2)), Some(2));
        assert_eq!(ids.expire(Moment(1199), second, 10), 0);
        assert_eq!(ids.expire(Moment(1300), second, 10), 2);
        assert_eq!((ids.len(), ids.oldest()), (1, Some(Moment(400))));
        assert_eq!(ids.find(Fingerprint(4)), Some(4));
    }
}
