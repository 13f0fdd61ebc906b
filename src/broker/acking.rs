//! Deliveries that are repeated until they are acknowledged.
//!
//! A subscriber of an acked topic is as any other of a topic with history: live, or a cursor. What it is
//! sent stands in its window until it is acknowledged; with so many of those that it may have no more, it
//! is left behind as a slow reader is, and its cursor does not read until there is room. What waits too
//! long is read from the history again, as a cursor reads, and sent in between.

use super::Broker;
use super::acks::{AckError, Rereading, Settled};
use super::effect::{Effect, Fed};
use super::topics::TopicKey;
use super::window::Window;
use crate::ids::{Moment, Position, Token, TopicName};
use crate::message::{Reader, ShardMessage, Slice};
use crate::proto::encoder;

/// Connections looked at per call of [`Broker::expire_acks`].
const EXPIRED_MAX: usize = 64;

/// What one subscription has acknowledged, for another connection to go on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unacked {
    pub topic: TopicName,
    /// Everything before and at it is acknowledged; what follows is not, but for `acked`.
    pub position: Position,
    /// First and last offsets, both included, in order.
    pub acked: Vec<(u64, u64)>,
}

impl Broker {
    /// A client has the publication with this offset and epoch.
    pub fn ack(
        &mut self,
        token: Token,
        Position { epoch, offset }: Position,
        effects: &mut Vec<Effect>,
    ) -> Result<(), AckError> {
        let settled = self.acks.settle(token, |receiver| receiver.ack(epoch, offset))?;
        self.note_settled(token, settled, effects);
        Ok(())
    }

    /// A client has everything of a topic up to this offset.
    pub fn ack_to(
        &mut self,
        token: Token,
        name: &str,
        offset: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), AckError> {
        let key = self.find(name).filter(|key| self.topics.topic(*key).terms().is_some());
        let key = key.filter(|key| self.standing(*key, token).is_some());
        let key = key.ok_or(AckError::NotSubscribed)?;
        let position = self.topics.topic(key).position().ok_or(AckError::NotSubscribed)?;
        if offset > position.offset {
            return Err(AckError::NotSent);
        }
        let settled = self.acks.settle(token, |receiver| {
            Ok(receiver.find(position.epoch).map_or(0, |window| window.ack_to(offset)))
        });
        // Nothing was sent yet, so all of it has its acknowledgement.
        if let Ok(settled) = settled {
            self.note_settled(token, settled, effects);
        }
        Ok(())
    }

    /// What the subscriptions of a connection have not acknowledged; those that were never sent anything
    /// are not among them.
    pub fn unacked(&mut self, token: Token) -> Vec<Unacked> {
        let Some(receiver) = self.acks.receiver(token) else { return Vec::new() };
        let windows = receiver.windows().iter().map(|window| {
            let (offset, acked) = window.acked();
            let topic = self.topics.topic(window.topic).name.clone();
            Unacked { topic, position: Position { epoch: window.epoch, offset }, acked }
        });
        windows.collect()
    }

    /// Goes on with what another connection has acknowledged. To be called right behind the
    /// [`Broker::subscribe`] that recovers from [`Unacked::position`], before anything is fed.
    pub fn restore_unacked(&mut self, token: Token, unacked: &Unacked) {
        let Some(key) = self.find(&unacked.topic) else { return };
        if self.topics.topic(key).terms().is_some() && self.members.is_subscribed(token, key) {
            let Position { epoch, offset } = unacked.position;
            self.acks.restore(token, Window::new(key, epoch, offset, &unacked.acked));
        }
    }

    /// When deliveries have waited too long for their acknowledgement, or earlier.
    pub fn next_overdue(&self) -> Option<Moment> {
        let due = self.acks.next_due()?;
        Some(Moment(due.0.saturating_sub(self.origin.unix_start)))
    }

    /// Has deliveries repeated that have waited too long, those of a bounded number of connections.
    pub fn expire_acks(&mut self, effects: &mut Vec<Effect>) {
        for _ in 0..EXPIRED_MAX {
            let Some(token) = self.acks.pop_due(self.now) else { return };
            let Some(receiver) = self.acks.receiver(token) else { continue };
            let (mut repeats, mut next) = (false, None::<Moment>);
            for window in receiver.windows() {
                let Some(terms) = self.topics.topic(window.topic).terms() else { continue };
                let overdue = window.expire(self.now, terms);
                self.tally.ack_expired += overdue.expired as u64;
                repeats |= overdue.repeats;
                next = next.into_iter().chain(overdue.next).min();
            }
            if let Some(next) = next {
                self.acks.arm(token, next);
            }
            if repeats {
                effects.push(Effect::Ready { token });
            }
        }
    }

    /// Reads what a connection is to be sent again. `None`: that is nothing.
    pub(super) fn reread(&mut self, token: Token, effects: &mut Vec<Effect>) -> Option<Fed> {
        let receiver = self.acks.receiver(token)?;
        if receiver.rereading.is_some() {
            return Some(Fed::Waiting);
        }
        let due = |window: &mut Window| Some((window.topic, window.first_due()?));
        let (key, first) = receiver.windows().iter_mut().find_map(due)?;
        if self.is_behind(key, first) {
            if let Some(slice) = self.slice_behind(key, first, effects) {
                self.repeat(key, token, first, slice, effects);
                return Some(Fed::Something);
            }
            if self.cursors.reads_full() {
                return Some(Fed::Stalled);
            }
            let reader = self.begin_rereading(key, token, first);
            self.want(key, first, Some(reader), effects);
            return Some(Fed::Waiting);
        }
        let topic = self.topics.topic(key);
        if let Some(history) = topic.history() {
            let slice = history.slice(first, self.limits.slice_cost_max, (self.shard, token));
            self.repeat(key, token, first, slice, effects);
            return Some(Fed::Something);
        }
        if self.cursors.reads_full() {
            return Some(Fed::Stalled);
        }
        let (to, topic) = (topic.home, topic.name.clone());
        let reader = self.begin_rereading(key, token, first);
        let message = ShardMessage::Read { topic, reader, next: first };
        effects.push(Effect::Send { to, message });
        Some(Fed::Waiting)
    }

    fn begin_rereading(&mut self, key: TopicKey, token: Token, first: u64) -> Reader {
        let reader = self.reader(token);
        self.cursors.begin_read();
        if let Some(receiver) = self.acks.receiver(token) {
            receiver.rereading = Some(Rereading { topic: key, first, ask: reader.ask });
        }
        reader
    }

    /// Another shard, or the log, has answered. `Err`: it is no answer to [`Broker::reread`].
    pub(super) fn reread_answered(
        &mut self,
        reader: Reader,
        slice: Slice,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Slice> {
        let receiver = self.acks.receiver(reader.token);
        let asked = receiver.and_then(|receiver| {
            receiver.rereading.take_if(|rereading| rereading.ask == reader.ask)
        });
        let Some(Rereading { topic, first, .. }) = asked else { return Err(slice) };
        self.repeat(topic, reader.token, first, slice, effects);
        Ok(())
    }

    /// Takes from a slice what its reader may have and has not acknowledged on an earlier connection; it
    /// ends where there is no more room.
    pub(super) fn note_slice(&mut self, key: TopicKey, token: Token, mut slice: Slice) -> Slice {
        let topic = self.topics.topic(key);
        let (Some(terms), Some(Position { epoch, .. })) = (topic.terms(), topic.position()) else {
            return slice;
        };
        let name = topic.name.clone();
        let mut frames = Vec::with_capacity(slice.frames.len());
        for frame in slice.frames {
            let offset = encoder::retained_offset(&name, &frame);
            let window = self.acks.receiver(token).and_then(|receiver| receiver.find(epoch));
            if window.is_some_and(|window| window.is_known(offset)) {
                continue;
            }
            if self.acks.room(token.slot) == 0 {
                (slice.next, slice.at_head) = (offset, false);
                self.tally.ack_paused += 1;
                break;
            }
            self.acks.note_sent(token, (key, epoch), offset, self.now, terms);
            frames.push(frame);
        }
        slice.frames = frames;
        slice
    }

    /// Sends what is due of a slice that begins at `first`.
    fn repeat(
        &mut self,
        key: TopicKey,
        token: Token,
        first: u64,
        slice: Slice,
        effects: &mut Vec<Effect>,
    ) {
        if slice.failed {
            effects.push(Effect::Unreadable { token });
            return;
        }
        let topic = self.topics.topic(key).name.clone();
        let Slice { gap, mut frames, next, .. } = slice;
        let now = self.now;
        let Some(terms) = self.topics.topic(key).terms() else { return };
        let (mut lost, mut given_up) = (None, 0);
        let settled = self.acks.settle(token, |receiver| {
            let window = receiver.windows().iter_mut().find(|window| window.topic == key);
            let window = window.ok_or(AckError::NotSubscribed)?;
            lost = gap.and_then(|(from, to)| window.lose(from, to));
            frames.retain(|frame| window.is_due(encoder::retained_offset(&topic, frame)));
            window.note_repeated(first, next, now);
            if next <= first {
                // There is no such place: it cannot be had by asking again.
                given_up = window.give_up();
            }
            Ok(lost.map_or(0, |(_, _, count)| count))
        });
        let Ok(settled) = settled else { return };
        self.acks.arm(token, Window::due(now, terms));
        self.tally.redelivered += frames.len() as u64;
        self.tally.ack_expired += (settled.count + given_up) as u64;
        self.tally.gaps += u64::from(lost.is_some());
        let gap = lost.map(|(from, to, _)| (from, to));
        if gap.is_some() || !frames.is_empty() {
            effects.push(Effect::Replay { token, topic, gap, frames });
        }
        if settled.goes_on {
            effects.push(Effect::Ready { token });
        }
    }

    fn note_settled(&mut self, token: Token, settled: Settled, effects: &mut Vec<Effect>) {
        self.tally.acked += settled.count as u64;
        if settled.goes_on {
            effects.push(Effect::Ready { token });
        }
    }

    /// The number by which a connection may name its subscription to this topic, as long as it has it.
    pub fn subscription_id(&self, name: &str) -> Option<u64> {
        self.find(name).map(|key| u64::from(key.0) + 1)
    }

    /// The topic of the subscription that a connection names by this number.
    pub fn subscribed_topic(&self, token: Token, subscription: u64) -> Option<TopicName> {
        let key = TopicKey(u32::try_from(subscription.checked_sub(1)?).ok()?);
        let subscribed = self.members.is_subscribed(token, key);
        subscribed.then(|| self.topics.topic(key).name.clone())
    }
}
