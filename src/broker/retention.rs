//! Which history is next to lose something, by age or for want of memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::history::History;
use super::topics::TopicKey;
use crate::ids::Moment;

/// Where a history stands in the heaps of [`Retention`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Among those that keep something.
    filled: bool,
    /// Among those that end unless somebody uses them.
    ending: bool,
}

/// What was taken out of a heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// The time it was put in under.
    pub due: Moment,
    pub topic: TopicKey,
    filled: bool,
}

/// The histories at home on one shard.
///
/// Each stands in a heap as long as it exists, under a time that is not later than the one at which it
/// is due: publishing touches no heap, but for the first publication after a pause. Who comes to the top
/// too early is put back. Empty ones have a heap of their own, where nobody looks for memory.
#[derive(Debug)]
pub struct Retention {
    filled: BinaryHeap<Reverse<(Moment, u32)>>,
    ending: BinaryHeap<Reverse<(Moment, u32)>>,
    /// What all of them keep.
    pub bytes: usize,
    pub bytes_max: usize,
}

impl Retention {
    pub fn new(bytes_max: usize) -> Self {
        Self { filled: BinaryHeap::new(), ending: BinaryHeap::new(), bytes: 0, bytes_max }
    }

    /// Lists a history that is new, or that may keep something since it was last listed.
    pub fn list(&mut self, topic: TopicKey, history: &mut History) {
        let due = Reverse((history.due(), topic.0));
        if history.is_empty() {
            if !std::mem::replace(&mut history.listed.ending, true) {
                self.ending.push(due);
            }
        } else if !std::mem::replace(&mut history.listed.filled, true) {
            self.filled.push(due);
        }
    }

    /// When the next one is due, or earlier.
    pub fn next(&self) -> Option<Moment> {
        let heaps = self.filled.peek().into_iter().chain(self.ending.peek());
        heaps.map(|Reverse((due, _))| *due).min()
    }

    /// Takes out what is due first. It must be put back.
    pub fn pop(&mut self) -> Option<Next> {
        let Reverse((due, topic)) = match (self.filled.peek(), self.ending.peek()) {
            // The later one is the smaller one.
            (Some(filled), Some(ending)) if filled < ending => self.ending.pop()?,
            (None, _) => self.ending.pop()?,
            (Some(_), _) => return self.pop_filled(),
        };
        Some(Next { due, topic: TopicKey(topic), filled: false })
    }

    /// As [`Retention::pop`], among those that may keep something.
    pub fn pop_filled(&mut self) -> Option<Next> {
        let Reverse((due, topic)) = self.filled.pop()?;
        Some(Next { due, topic: TopicKey(topic), filled: true })
    }

    /// Lists what was taken out again. With `is_over`, returns whether the history stands in no heap
    /// now, and may end.
    pub fn put_back(&mut self, next: Next, history: &mut History, is_over: bool) -> bool {
        if next.filled {
            history.listed.filled = false;
        } else {
            history.listed.ending = false;
        }
        if is_over && history.listed == Listed::default() {
            return true;
        }
        self.list(next.topic, history);
        false
    }

    /// What one history keeps has changed.
    pub fn account(&mut self, before: usize, after: usize) {
        self.bytes = self.bytes + after - before;
    }

    pub fn is_over(&self) -> bool {
        self.bytes > self.bytes_max
    }
}

/// What histories lost and readers had to do without, since it was last asked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Publications dropped at `history_size` or `history_bytes`.
    pub trimmed: u64,
    /// Publications and message ids dropped at `limits.history_memory`.
    pub evicted: u64,
    /// Message ids dropped at `idempotency_size`.
    pub ids_dropped: u64,
    /// Publications that came twice under one message id.
    pub duplicates: u64,
    /// Subscriptions that became cursors because their connection was slow.
    pub fell_behind: u64,
    /// Subscribers who cannot have everything from the place they named.
    pub not_recovered: u64,
    /// Cursors that found their place trimmed.
    pub gaps: u64,
    /// Messages dropped that waited for their user.
    pub queue_dropped: u64,
    /// Deliveries that were acknowledged.
    pub acked: u64,
    /// Deliveries that were sent again for want of an acknowledgement.
    pub redelivered: u64,
    /// Deliveries that are not sent again any more, though nobody acknowledged them.
    pub ack_expired: u64,
    /// Times that delivery to a connection paused at `limits.max_unacked`.
    pub ack_paused: u64,
}
