//! The timing wheel of a shard: one deadline per connection, 12 bytes each, no allocation to move it.
//!
//! Coarse and lazy: a deadline beyond the wheel fires early, at its rim, and whoever handles it looks
//! at the clock and sets it again. So a connection that receives something need not touch its timer.

use crate::ids::{Moment, Tick};
use std::time::Duration;

/// Buckets of one [`Tick`] each: 33 s.
const BUCKETS: u32 = 512;
const NIL: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Link {
    next: u32,
    /// `NIL`: the first of its bucket.
    previous: u32,
    /// `NIL`: not in the wheel.
    bucket: u32,
}

const UNLINKED: Link = Link { next: NIL, previous: NIL, bucket: NIL };

/// Deadlines by connection slot.
#[derive(Debug)]
pub struct TimerWheel {
    /// First slot of each bucket.
    heads: Vec<u32>,
    links: Vec<Link>,
    /// A bit per bucket that is not empty.
    occupied: [u64; BUCKETS as usize / 64],
    /// Every bucket before this tick has fired.
    fired: Tick,
}

impl TimerWheel {
    pub fn new(now: Moment) -> Self {
        Self {
            heads: vec![NIL; BUCKETS as usize],
            links: Vec::new(),
            occupied: [0; BUCKETS as usize / 64],
            fired: Tick::at(now),
        }
    }

    /// Sets the deadline of `slot`, in place of the one it had.
    pub fn arm(&mut self, slot: u32, deadline: Tick) {
        self.disarm(slot);
        let latest = self.fired.0.saturating_add(BUCKETS - 1);
        let bucket = deadline.0.clamp(self.fired.0, latest) % BUCKETS;
        let head = self.heads[bucket as usize];
        if self.links.len() <= slot as usize {
            self.links.resize(slot as usize + 1, UNLINKED);
        }
        self.links[slot as usize] = Link { next: head, previous: NIL, bucket };
        if head != NIL {
            self.links[head as usize].previous = slot;
        }
        self.heads[bucket as usize] = slot;
        self.occupied[bucket as usize / 64] |= 1 << (bucket % 64);
    }

    /// Takes the deadline of `slot` away, if it has one.
    pub fn disarm(&mut self, slot: u32) {
        let Some(&link) = self.links.get(slot as usize) else { return };
        if link.bucket == NIL {
            return;
        }
        self.links[slot as usize] = UNLINKED;
        if link.next != NIL {
            self.links[link.next as usize].previous = link.previous;
        }
        match link.previous {
            NIL => self.set_head(link.bucket, link.next),
            previous => self.links[previous as usize].next = link.next,
        }
    }

    /// Takes out slots whose deadline has come, at most `count`.
    pub fn expire(&mut self, now: Moment, count: usize, expired: &mut Vec<u32>) {
        let now = Tick::at(now);
        // After a long pause every bucket has come round once; more rounds find nothing new.
        if now.0.saturating_sub(self.fired.0) > BUCKETS {
            self.fired = Tick(now.0 - BUCKETS);
        }
        while self.fired <= now && expired.len() < count {
            let bucket = self.fired.0 % BUCKETS;
            let slot = self.heads[bucket as usize];
            if slot == NIL {
                if self.fired == now {
                    break;
                }
                self.fired.0 += 1;
                continue;
            }
            self.disarm(slot);
            expired.push(slot);
        }
    }

    /// Time until the next bucket with a deadline, at most `longest`.
    pub fn next(&self, now: Moment, longest: Duration) -> Duration {
        let Some(ticks) = self.next_occupied() else { return longest };
        let due = Moment(u64::from(self.fired.0 + ticks) * Tick::MILLIS);
        due.since(now).min(longest)
    }

    /// Buckets from the next one to fire to the first that is not empty.
    fn next_occupied(&self) -> Option<u32> {
        let first = self.fired.0 % BUCKETS;
        let words = self.occupied.len() as u32;
        // The first word counts twice: its upper bits come first, its lower ones last.
        (0..=words).find_map(|ahead| {
            let index = (first / 64 + ahead) % words;
            let mask = match ahead {
                0 => u64::MAX << (first % 64),
                _ if ahead == words => !(u64::MAX << (first % 64)),
                _ => u64::MAX,
            };
            let word = self.occupied[index as usize] & mask;
            let bucket = index * 64 + word.trailing_zeros();
            (word != 0).then(|| (bucket + BUCKETS - first) % BUCKETS)
        })
    }

    fn set_head(&mut self, bucket: u32, slot: u32) {
        self.heads[bucket as usize] = slot;
        if slot == NIL {
            self.occupied[bucket as usize / 64] &= !(1 << (bucket % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn moment(tick: u32) -> Moment {
        Moment(u64::from(tick) * Tick::MILLIS)
    }

    proptest! {
        #[test]
        fn the_wheel_fires_what_is_due(
            steps in prop::collection::vec((0..3u8, 0..30u32, 0..800u32), 0..300),
        ) {
            let mut wheel = TimerWheel::new(moment(0));
            let mut model = BTreeMap::new();
            let mut now = 0;
            for (step, slot, ticks) in steps {
                match step {
                    0 => {
                        wheel.arm(slot, Tick(now + ticks));
                        // Beyond the rim it fires early.
                        model.insert(slot, now + ticks.min(BUCKETS - 1));
                    }
                    1 => {
                        wheel.disarm(slot);
                        model.remove(&slot);
                    }
                    _ => {
                        now += ticks;
                        let mut expired = Vec::new();
                        wheel.expire(moment(now), usize::MAX, &mut expired);
                        expired.sort_unstable();
                        let due: Vec<_> = model
                            .extract_if(.., |_, deadline| *deadline <= now)
                            .map(|(slot, _)| slot)
                            .collect();
                        prop_assert_eq!(expired, due);
                    }
                }
                let next = model.values().min().map_or(u64::MAX, |deadline| {
                    u64::from(deadline.saturating_sub(now)) * Tick::MILLIS
                });
                let longest = Duration::from_secs(60);
                let expected = Duration::from_millis(next).min(longest);
                prop_assert_eq!(wheel.next(moment(now), longest), expected);
            }
        }
    }

    #[test]
    fn a_burst_of_deadlines_is_taken_in_parts() {
        let mut wheel = TimerWheel::new(moment(0));
        for slot in 0..10 {
            wheel.arm(slot, Tick(1));
        }
        let mut expired = Vec::new();
        wheel.expire(moment(1), 6, &mut expired);
        assert_eq!(expired.len(), 6);
        assert_eq!(wheel.next(moment(1), Duration::from_secs(1)), Duration::ZERO);
        expired.clear();
        wheel.expire(moment(1), 6, &mut expired);
        assert_eq!(expired.len(), 4);
    }
}
