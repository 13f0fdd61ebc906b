//! What was received, against what was sent: the proof of order, and the count of what is lost,
//! repeated or out of order. Numbers count from 0 without a gap for each receiver and source.

use hashbrown::HashSet;
use serde::Serialize;
use std::ops::AddAssign;

/// Missing numbers that are remembered one by one. What comes late beyond them counts as repeated.
const MISSING_MAX: usize = 1 << 20;

/// Odd, so that no two orders are the same but by chance.
const ORDER_FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

/// What a server did wrong, in messages.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Never came.
    pub lost: u64,
    /// Came more than once.
    pub repeated: u64,
    /// Came behind a later one of the same publisher and topic.
    pub reordered: u64,
    /// Receivers that saw the publications of their topic in another order than the others did.
    pub disagreeing: u64,
    /// Not what was sent.
    pub corrupt: u64,
    /// Of a topic that the receiver has not subscribed to.
    pub misrouted: u64,
    /// Messages without a stamp, such as errors.
    pub unexpected: u64,
    /// Connections that the server ended, or that failed.
    pub disconnected: u64,
}

impl Faults {
    pub fn total(self) -> u64 {
        self.by_name().iter().map(|(_, count)| count).sum()
    }

    /// Every count with the word for it.
    pub fn by_name(self) -> [(&'static str, u64); 8] {
        [
            ("lost", self.lost),
            ("repeated", self.repeated),
            ("out of order", self.reordered),
            ("receivers with an order of their own", self.disagreeing),
            ("corrupt", self.corrupt),
            ("misrouted", self.misrouted),
            ("unexpected", self.unexpected),
            ("disconnected", self.disconnected),
        ]
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        *self = Self {
            lost: self.lost + other.lost,
            repeated: self.repeated + other.repeated,
            reordered: self.reordered + other.reordered,
            disagreeing: self.disagreeing + other.disagreeing,
            corrupt: self.corrupt + other.corrupt,
            misrouted: self.misrouted + other.misrouted,
            unexpected: self.unexpected + other.unexpected,
            disconnected: self.disconnected + other.disconnected,
        };
    }
}

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// For the first time, in order or late.
    First,
    Again,
}

/// The books of all receivers.
#[derive(Debug)]
pub struct Ledger {
    sources: usize,
    /// The next number, by receiver, then source.
    next: Vec<u32>,
    /// Skipped so far: receiver and source as an index of `next`, number. At most [`MISSING_MAX`].
    missing: HashSet<(u32, u32), foldhash::fast::RandomState>,
    /// A hash of what came in which order, by receiver.
    order: Vec<u64>,
    /// Receivers from here on may miss messages.
    excused_from: usize,
    /// What each of them has missed, which is not lost.
    missed: Vec<u64>,
    pub faults: Faults,
}

impl Ledger {
    pub fn new(receivers: usize, sources: usize) -> Self {
        Self {
            sources,
            next: vec![0; receivers * sources],
            missing: HashSet::default(),
            order: vec![0; receivers],
            excused_from: receivers,
            missed: Vec::new(),
            faults: Faults::default(),
        }
    }

    /// What the receivers from here on do not get is no fault from now on. What they get must still be in
    /// order and come once.
    pub fn excuse(&mut self, excused_from: usize) {
        self.excused_from = excused_from;
        self.missed = vec![0; self.order.len() - excused_from];
    }

    /// Messages that an excused receiver has not got since.
    pub fn missed(&self, receiver: usize) -> u64 {
        self.missed[receiver - self.excused_from]
    }

    /// Where the losses of a receiver are counted.
    fn losses(&mut self, receiver: usize) -> &mut u64 {
        match receiver.checked_sub(self.excused_from) {
            Some(excused) => &mut self.missed[excused],
            None => &mut self.faults.lost,
        }
    }

    pub fn note(&mut self, receiver: usize, source: usize, number: u32) -> Arrival {
        let order = &mut self.order[receiver];
        *order = (*order ^ (source as u64) << 32 ^ u64::from(number)).wrapping_mul(ORDER_FACTOR);
        *order = order.rotate_left(23);
        let account = receiver * self.sources + source;
        let next = &mut self.next[account];
        if number == *next {
            *next += 1;
            return Arrival::First;
        }
        if number > *next {
            let skipped = *next..number;
            *next = number + 1;
            *self.losses(receiver) += skipped.len() as u64;
            let room = MISSING_MAX - self.missing.len();
            self.missing.extend(skipped.take(room).map(|number| (account as u32, number)));
            return Arrival::First;
        }
        if self.missing.remove(&(account as u32, number)) {
            match self.losses(receiver) {
                // It was counted before the receiver was excused.
                0 => self.faults.lost -= 1,
                losses => *losses -= 1,
            }
            self.faults.reordered += 1;
            Arrival::First
        } else {
            self.faults.repeated += 1;
            Arrival::Again
        }
    }

    /// The number that is next in order: all before it were seen, or skipped.
    pub fn next(&self, receiver: usize, source: usize) -> u32 {
        self.next[receiver * self.sources + source]
    }

    /// Whether the receiver has seen, or skipped, all of the first `count`.
    pub fn is_complete(&self, receiver: usize, source: usize, count: u32) -> bool {
        self.next[receiver * self.sources + source] >= count
    }

    /// Whether two receivers saw the same in the same order.
    pub fn agree(&self, receiver: usize, other: usize) -> bool {
        self.order[receiver] == self.order[other]
    }

    /// The end: whatever of the first `count` has not come is lost.
    pub fn settle(&mut self, receiver: usize, source: usize, count: u32) {
        let next = &mut self.next[receiver * self.sources + source];
        let rest = u64::from(count.saturating_sub(*next));
        *next = (*next).max(count);
        *self.losses(receiver) += rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(numbers: &[u32], count: u32) -> (u64, u64, u64) {
        let mut ledger = Ledger::new(3, 2);
        for number in numbers {
            ledger.note(2, 1, *number);
        }
        ledger.settle(2, 1, count);
        (ledger.faults.lost, ledger.faults.repeated, ledger.faults.reordered)
    }

    #[test]
    fn each_fault_is_told_from_the_others() {
        assert_eq!(faults(&[0, 1, 2], 3), (0, 0, 0));
        assert_eq!(faults(&[0, 2], 3), (1, 0, 0));
        assert_eq!(faults(&[0, 1], 3), (1, 0, 0));
        assert_eq!(faults(&[], 3), (3, 0, 0));
        assert_eq!(faults(&[0, 0, 1, 2, 1], 3), (0, 2, 0));
        assert_eq!(faults(&[1, 0, 2], 3), (0, 0, 1));
        assert_eq!(faults(&[2, 0, 1, 0], 3), (0, 1, 2));
    }

    #[test]
    fn who_is_excused_may_miss_but_not_repeat_or_reorder() {
        let mut ledger = Ledger::new(2, 1);
        for number in [0, 2] {
            ledger.note(1, 0, number);
        }
        assert_eq!(ledger.faults, Faults { lost: 1, ..Faults::default() });
        ledger.excuse(1);
        // Late from before: out of order, and not lost after all.
        ledger.note(1, 0, 1);
        assert_eq!(ledger.faults, Faults { reordered: 1, ..Faults::default() });
        ledger.note(1, 0, 6);
        assert_eq!(ledger.missed(1), 3);
        ledger.note(1, 0, 4);
        ledger.note(1, 0, 6);
        ledger.settle(1, 0, 10);
        assert_eq!(ledger.missed(1), 5);
        assert_eq!(ledger.faults, Faults { reordered: 2, repeated: 1, ..Faults::default() });
        ledger.settle(0, 0, 2);
        assert_eq!(ledger.faults.lost, 2);
    }

    #[test]
    fn receivers_and_sources_have_accounts_of_their_own() {
        let mut ledger = Ledger::new(2, 2);
        for (receiver, source) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            assert_eq!(ledger.note(receiver, source, 0), Arrival::First);
        }
        assert_eq!(ledger.faults.total(), 0);
        assert!(ledger.agree(0, 1));
        ledger.note(0, 0, 1);
        ledger.note(0, 1, 1);
        ledger.note(1, 1, 1);
        ledger.note(1, 0, 1);
        assert!(!ledger.agree(0, 1));
        assert_eq!(ledger.faults.total(), 0);
        assert!(ledger.is_complete(1, 1, 2));
        assert!(!ledger.is_complete(1, 1, 3));
    }
}
