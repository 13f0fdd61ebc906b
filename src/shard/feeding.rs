//! Cursors: connections that read from histories, a slice at a time and in turns, as far as their
//! sockets take it.

use super::State;
use super::connection::{Connection, Feed};
use crate::broker::{Fed, SLICE_COST_MAX, Tally};
use crate::ids::Token;
use crate::io::{FrameClass, FramePool};
use crate::message::ShardMessage;
use crate::metrics::Counter;

/// Slices queued or asked for per turn: about a millisecond of sending.
const SLICES_MAX: usize = 64;

/// What filters of subscriptions compare with in the time of sending a slice.
const SLICE_VALUES: usize = 1024;

impl State {
    /// Hands on what the log has read.
    pub(super) fn take_slices(&mut self) {
        let mut slices = std::mem::take(&mut self.slices);
        for slice in slices.drain(..) {
            let mut effects = std::mem::take(&mut self.effects);
            self.broker.receive(ShardMessage::Log(slice), &mut self.frames, &mut effects);
            self.apply(effects);
        }
        // The allocation serves the next turn.
        self.slices = slices;
    }

    /// Lets the next connections on the list read.
    pub(super) fn advance_feeds(&mut self) {
        let limit = self.settings.config.limits.send_queue_size.min(SLICE_COST_MAX);
        let mut left = SLICES_MAX;
        for _ in 0..self.feeds.len().min(SLICES_MAX) {
            if left == 0 {
                return;
            }
            let Some(token) = self.feeds.pop_front() else { return };
            let Some(connection) = self.connections.get_mut(token.index()) else { continue };
            if connection.generation != token.generation {
                continue;
            }
            if connection.blocked {
                // `sent` brings it back.
                connection.feed = Feed::Parked;
                continue;
            }
            if !has_room(connection, &self.frames, limit) {
                // The flush behind this tells whether it takes more.
                self.feeds.push_back(token);
                continue;
            }
            let mut effects = std::mem::take(&mut self.effects);
            let fed = self.broker.feed(token, &mut effects);
            match fed {
                Fed::Nothing => connection.feed = Feed::None,
                Fed::Waiting => connection.feed = Feed::Parked,
                Fed::Stalled | Fed::Something => self.feeds.push_back(token),
            }
            self.apply(effects);
            left = left.saturating_sub(1 + self.broker.take_compared() / SLICE_VALUES);
        }
    }

    /// Whether there is something to do for cursors in this turn, though perhaps not now.
    pub(super) fn has_readers(&self) -> bool {
        !self.feeds.is_empty() || !self.slices.is_empty()
    }

    /// Whether the next turn has something to do for cursors.
    pub(super) fn has_feeds(&self) -> bool {
        !self.feeds.is_empty() && !self.broker.reads_full()
    }

    /// The connection has, or may have, cursors that can read.
    pub(super) fn list_feed(&mut self, token: Token) {
        let Some(connection) = self.connection(token) else { return };
        if connection.feed != Feed::Listed {
            connection.feed = Feed::Listed;
            self.feeds.push_back(token);
        }
    }

    /// Forgets what is too old in the histories at home here, and counts what they went through.
    pub(super) fn expire_histories(&mut self) {
        if !self.broker.keeps_histories() {
            return;
        }
        if self.broker.next_expiry().is_some_and(|due| due <= self.now) {
            self.broker.expire();
        }
        let tally = self.broker.take_tally();
        if tally != Tally::default() {
            self.count(Counter::HistoryTrimmed, tally.trimmed);
            self.count(Counter::HistoryEvicted, tally.evicted);
            self.count(Counter::IdempotencyDropped, tally.ids_dropped);
            self.count(Counter::Duplicates, tally.duplicates);
            self.count(Counter::FellBehind, tally.fell_behind);
            self.count(Counter::NotRecovered, tally.not_recovered);
            self.count(Counter::HistoryGaps, tally.gaps);
            self.count(Counter::QueueDropped, tally.queue_dropped);
            self.count(Counter::Acked, tally.acked);
            self.count(Counter::Redelivered, tally.redelivered);
            self.count(Counter::AckExpired, tally.ack_expired);
            self.count(Counter::AckPaused, tally.ack_paused);
        }
    }
}

/// Whether a slice may be queued: as long as there is less than one, whatever live channels have
/// queued, so that they cannot keep a cursor waiting for ever.
fn has_room(connection: &Connection, frames: &FramePool, limit: usize) -> bool {
    connection.queue.cost() < limit
        || !connection.queue.classes(frames).any(|class| class == FrameClass::Retained)
}
