//! The windows of all connections with acked subscriptions, and when to look at them. A connection
//! without one costs nothing here.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::topics::TopicKey;
use super::window::{Acked, Terms, Window};
use crate::ids::{Epoch, Moment, Token};
use crate::message::Ask;

/// A part of a history that is read again for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rereading {
    pub topic: TopicKey,
    /// The first offset that is to be sent again.
    pub first: u64,
    /// The question to another shard's history.
    pub ask: Ask,
}

/// What one connection was sent and has not acknowledged.
#[derive(Debug)]
pub struct Receiver {
    generation: u32,
    /// Of all windows together.
    unacked: usize,
    /// One for each subscription that was ever sent something, in the order of their epochs.
    windows: Vec<Window>,
    /// Its place in [`Acks::due`].
    due: Option<Moment>,
    /// The slice that is on its way: one at a time.
    pub rereading: Option<Rereading>,
}

/// By connection slot.
#[derive(Debug)]
pub struct Acks {
    receivers: HashMap<u32, Receiver, foldhash::fast::RandomState>,
    /// When something of a connection, of this slot, may have waited too long; one entry for each that
    /// waits for an acknowledgement.
    due: BTreeSet<(Moment, u32)>,
    /// Deliveries that one connection may have to acknowledge.
    unacked_max: usize,
}

/// An acknowledgement that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckError {
    /// It belongs to no subscription of this connection: one that ended, perhaps.
    NotSubscribed,
    /// There is no such publication, or it was not sent to this connection.
    NotSent,
}

impl Acks {
    pub fn new(unacked_max: usize) -> Self {
        Self { receivers: HashMap::default(), due: BTreeSet::new(), unacked_max }
    }

    /// How many more deliveries the connection of a slot may get.
    pub fn room(&self, slot: u32) -> usize {
        let unacked = self.receivers.get(&slot).map_or(0, |receiver| receiver.unacked);
        self.unacked_max.saturating_sub(unacked)
    }

    /// Whether delivery to a connection pauses.
    pub fn is_paused(&self, token: Token) -> bool {
        !self.receivers.is_empty() && self.room(token.slot) == 0
    }

    pub fn receiver(&mut self, token: Token) -> Option<&mut Receiver> {
        let found = self.receivers.get_mut(&token.slot);
        found.filter(|receiver| receiver.generation == token.generation)
    }

    /// Begins with what was acknowledged on an earlier connection.
    pub fn restore(&mut self, token: Token, window: Window) {
        self.insert(token, window, true);
    }

    /// A publication, not sent before, is on its way.
    pub fn note_sent(
        &mut self,
        token: Token,
        (topic, epoch): (TopicKey, Epoch),
        offset: u64,
        now: Moment,
        terms: Terms,
    ) {
        let window = self.insert(token, Window::new(topic, epoch, 0, &[]), false);
        window.note_sent(offset, now, terms);
        if let Some(receiver) = self.receivers.get_mut(&token.slot) {
            receiver.unacked += 1;
            arm(&mut self.due, receiver, token.slot, Window::due(now, terms));
        }
    }

    /// Runs `change`, which removes deliveries from the windows of a connection and says how many.
    /// Returns whether delivery to it may go on, having paused.
    pub fn settle(
        &mut self,
        token: Token,
        change: impl FnOnce(&mut Receiver) -> Result<usize, AckError>,
    ) -> Result<Settled, AckError> {
        let was_paused = self.is_paused(token);
        let receiver = self.receiver(token).ok_or(AckError::NotSubscribed)?;
        let count = change(receiver)?;
        receiver.unacked -= count;
        Ok(Settled { count, goes_on: was_paused && count > 0 })
    }

    /// A subscription has ended. Returns whether delivery to the others may go on, having paused.
    pub fn remove(&mut self, token: Token, topic: TopicKey) -> bool {
        let was_paused = self.is_paused(token);
        let Some(receiver) = self.receiver(token) else { return false };
        receiver.windows.retain(|window| window.topic != topic);
        receiver.unacked = receiver.windows.iter().map(Window::unacked).sum();
        receiver.rereading.take_if(|rereading| rereading.topic == topic);
        if receiver.windows.is_empty() {
            self.leave(token);
        }
        was_paused && !self.is_paused(token)
    }

    /// The connection is gone.
    pub fn leave(&mut self, token: Token) {
        let Some(receiver) = self.receiver(token) else { return };
        let due = receiver.due;
        self.receivers.remove(&token.slot);
        if let Some(due) = due {
            self.due.remove(&(due, token.slot));
        }
        if self.receivers.is_empty() {
            // Gives the memory of a past crowd back.
            self.receivers = HashMap::default();
        }
    }

    /// When the next connection is due.
    pub fn next_due(&self) -> Option<Moment> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes out a connection that is due by now. It must be armed again.
    pub fn pop_due(&mut self, now: Moment) -> Option<Token> {
        let (due, slot) = self.due.first().copied().filter(|(due, _)| *due <= now)?;
        self.due.remove(&(due, slot));
        let receiver = self.receivers.get_mut(&slot)?;
        receiver.due = None;
        Some(Token { slot, generation: receiver.generation })
    }

    /// Looks at a connection no later than that.
    pub fn arm(&mut self, token: Token, due: Moment) {
        if let Some(receiver) = self.receivers.get_mut(&token.slot) {
            arm(&mut self.due, receiver, token.slot, due);
        }
    }

    /// The window of this topic and epoch: the one that is there, unless `replace`.
    fn insert(&mut self, token: Token, window: Window, replace: bool) -> &mut Window {
        let receiver = self.receivers.entry(token.slot).or_insert_with(|| Receiver {
            generation: token.generation,
            unacked: 0,
            windows: Vec::new(),
            due: None,
            rereading: None,
        });
        debug_assert_eq!(receiver.generation, token.generation, "who leaves is forgotten");
        let windows = &mut receiver.windows;
        let place = windows.partition_point(|other| other.epoch.0 < window.epoch.0);
        match windows.get(place) {
            Some(found) if found.epoch == window.epoch && !replace => {}
            Some(found) if found.epoch == window.epoch => {
                receiver.unacked -= found.unacked();
                windows[place] = window;
            }
            _ => windows.insert(place, window),
        }
        &mut windows[place]
    }
}

/// What became of acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Deliveries that have theirs now.
    pub count: usize,
    /// Delivery had paused, and may go on.
    pub goes_on: bool,
}

impl Receiver {
    pub fn windows(&mut self) -> &mut [Window] {
        &mut self.windows
    }

    /// The subscription to the topic whose history has this epoch.
    pub fn find(&mut self, epoch: Epoch) -> Option<&mut Window> {
        let place = self.windows.binary_search_by_key(&epoch.0, |window| window.epoch.0).ok()?;
        self.windows.get_mut(place)
    }

    /// The acknowledgement of one delivery.
    pub fn ack(&mut self, epoch: Epoch, offset: u64) -> Result<usize, AckError> {
        match self.find(epoch).ok_or(AckError::NotSubscribed)?.ack(offset) {
            Acked::Taken(count) => Ok(count),
            Acked::NotSent => Err(AckError::NotSent),
        }
    }
}

fn arm(due: &mut BTreeSet<(Moment, u32)>, receiver: &mut Receiver, slot: u32, at: Moment) {
    if receiver.due.is_some_and(|due| due <= at) {
        return;
    }
    if let Some(later) = receiver.due.replace(at) {
        due.remove(&(later, slot));
    }
    due.insert((at, slot));
}
