//! Subscribers of the acked topic: what they acknowledge, what comes again, and what they take to
//! another connection.

use std::collections::BTreeSet;

use super::steps::{From, Step};
use super::{ACK_RETRIES, ACK_TIMEOUT, ACKED, SHARDS, SLOTS, TOPICS, UNACKED_MAX, World, position};
use crate::broker::AckError;
use crate::ids::{Moment, Position};

/// A delivery that is not acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    at: Moment,
    repeats: u32,
}

impl World {
    /// Whether a delivery is one of those that come again.
    pub fn see_again(&mut self, stream: usize, offset: u64) -> bool {
        let stream = &mut self.streams[stream];
        if stream.topic != ACKED || offset >= stream.next {
            return false;
        }
        let now = self.now;
        let sent = stream.unacked.get_mut(&offset);
        let sent = sent.unwrap_or_else(|| panic!("{offset} is acknowledged, and comes again"));
        assert!(sent.at.after(ACK_TIMEOUT) <= now, "{offset} comes early: {sent:?}, {now:?}");
        *sent = Sent { at: now, repeats: sent.repeats + 1 };
        assert!(sent.repeats <= ACK_RETRIES);
        self.redelivered += 1;
        true
    }

    /// A publication has come for the first time.
    pub fn note_delivery(&mut self, shard: usize, slot: u32, stream: usize, offset: u64) {
        let stream = &mut self.streams[stream];
        if stream.topic != ACKED {
            return;
        }
        assert!(!stream.known.contains(&offset), "{offset} was acknowledged elsewhere");
        stream.delivered = offset;
        stream.unacked.insert(offset, Sent { at: self.now, repeats: 0 });
        let unacked = stream.unacked.len();
        assert!(unacked <= UNACKED_MAX, "{slot} of {shard} has {unacked} to acknowledge");
        self.paused += usize::from(unacked == UNACKED_MAX);
    }

    /// Whether a gap is one among deliveries that were to come again.
    pub fn lose_again(&mut self, stream: usize, from: u64, to: u64) -> bool {
        let stream = &mut self.streams[stream];
        if stream.topic != ACKED || from >= stream.next {
            return false;
        }
        assert!(stream.unacked.contains_key(&from) && stream.unacked.contains_key(&to));
        stream.unacked.retain(|offset, _| !(from..=to).contains(offset));
        true
    }

    pub fn acknowledge(&mut self, shard: usize, slot: u32, pick: usize) {
        let Some(&index) = self.current.get(&(shard, slot, ACKED)) else { return };
        let token = self.token(shard, slot);
        let (mut effects, broker) = (Vec::new(), &mut self.brokers[shard]);
        let stream = &mut self.streams[index];
        let epoch = stream.epoch;
        let count = stream.unacked.len().max(1);
        match (stream.unacked.keys().nth(pick % count).copied(), pick) {
            (_, 6) => {
                let offset = stream.next + 100;
                let outcome = broker.ack(token, Position { epoch, offset }, &mut effects);
                // Unless it was never sent anything.
                assert!(matches!(outcome, Err(AckError::NotSent | AckError::NotSubscribed)));
                let outcome = broker.ack_to(token, TOPICS[ACKED], offset, &mut effects);
                assert_eq!(outcome, Err(AckError::NotSent));
            }
            (Some(offset), 7..) => {
                let outcome = broker.ack_to(token, TOPICS[ACKED], offset, &mut effects);
                assert_eq!(outcome, Ok(()));
                stream.unacked.retain(|other, _| *other > offset);
            }
            (Some(offset), _) => {
                for _ in 0..2 {
                    let outcome = broker.ack(token, Position { epoch, offset }, &mut effects);
                    assert_eq!(outcome, Ok(()));
                }
                stream.unacked.remove(&offset);
            }
            (None, _) => {}
        }
        self.apply(shard, effects);
        self.compare_unacked(shard, slot);
    }

    /// The broker would give to another connection what the subscriber knows.
    fn compare_unacked(&mut self, shard: usize, slot: u32) {
        let token = self.token(shard, slot);
        for state in self.brokers[shard].unacked(token) {
            let stream = &self.streams[self.current[&(shard, slot, position(&state.topic))]];
            let acked = |offset: u64| {
                state.acked.iter().any(|(first, last)| (*first..=*last).contains(&offset))
            };
            let unacked = state.position.offset + 1..=stream.delivered;
            let unacked: Vec<_> = unacked.filter(|offset| !acked(*offset)).collect();
            let expected: Vec<_> = stream.unacked.keys().copied().collect();
            assert_eq!(unacked, expected, "{state:?}: {stream:?}");
        }
    }

    /// The connection breaks, and the next one in its slot goes on with what it has acknowledged.
    pub fn resume(&mut self, shard: usize, slot: u32) {
        let token = self.token(shard, slot);
        let unacked = self.brokers[shard].unacked(token);
        let stream = self.current.get(&(shard, slot, ACKED));
        let tag = stream.and_then(|stream| self.streams[*stream].tag);
        self.take(Step::Leave(shard, slot));
        let Some(unacked) = unacked.into_iter().next() else { return };
        self.reached.insert((shard, slot, ACKED), unacked.position);
        let known = unacked.acked.iter().flat_map(|(first, last)| *first..=*last);
        self.restored.insert(self.asked.len(), known.collect());
        self.subscribe(shard, slot, ACKED, From::Recover, (None, tag));
        let token = self.token(shard, slot);
        self.brokers[shard].restore_unacked(token, &unacked);
    }

    /// What the subscription that was asked for under this number need not see again.
    pub fn take_restored(&mut self, id: usize) -> BTreeSet<u64> {
        self.restored.remove(&id).unwrap_or_default()
    }

    /// Has whatever waits too long sent again.
    pub fn expire_acks(&mut self) {
        for shard in 0..self.brokers.len() {
            let mut effects = Vec::new();
            self.brokers[shard].expire_acks(&mut effects);
            self.apply(shard, effects);
        }
    }

    /// Everybody acknowledges what it has. Returns whether there was something.
    pub fn acknowledge_all(&mut self) -> bool {
        let mut any = false;
        for (shard, slot, topic) in self.current.keys().copied().collect::<Vec<_>>() {
            if topic == ACKED
                && !self.streams[self.current[&(shard, slot, topic)]].unacked.is_empty()
            {
                any = true;
                self.acknowledge(shard, slot, 0);
            }
        }
        any
    }
}

/// Everything on its way arrives, and everybody reads; nobody acknowledges.
fn deliver(world: &mut World) {
    for _ in 0..20 {
        for shard in 0..SHARDS {
            (0..SHARDS).for_each(|from| world.take(Step::Arrive(from, shard)));
            world.take(Step::Advance(shard, usize::MAX));
            (0..SLOTS).for_each(|slot| world.take(Step::Feed(shard, slot)));
        }
    }
}

#[test]
fn what_is_not_acknowledged_comes_as_often_as_may_be() {
    // At home, and elsewhere.
    for shard in 0..SHARDS {
        let mut world = World::new(100);
        world.take(Step::Subscribe(shard, 0, ACKED, From::Now, (None, None)));
        deliver(&mut world);
        for _ in 0..UNACKED_MAX + 2 {
            world.take(Step::Publish(shard, 1, ACKED, true, None));
        }
        let mut seen = Vec::new();
        for _ in 0..4 {
            deliver(&mut world);
            seen.push((world.paused, world.redelivered));
            world.take(Step::Wait(4));
        }
        assert_eq!(seen, [0, 1, 2, 2].map(|times| (1, times * UNACKED_MAX)));
        world.settle();
        world.check();
        assert_eq!(world.streams[0].delivered, UNACKED_MAX as u64 + 2);
        world.leave_all();
    }
}
