//! What must hold of a simulated world.

use super::client::Client;
use super::{ACKED, FIRST_KEPT, Outcome, TOPICS, World};
use crate::ids::Moment;
use crate::metrics::Counter;
use crate::shard::state::FRAMES_FOR_GOOD;

/// Bytes that may gather for one connection in the turn in which it meets its bound: a sweep of every
/// topic, and answers to one receive.
const TURN_BYTES_MAX: usize = 64 << 10;

impl World {
    /// No queue passes its bound by more than what one turn may bring.
    pub fn check_bounds(&self) {
        let limit = self.settings.config.limits.send_queue_size;
        for shard in &self.shards {
            for (_, connection) in &shard.state().connections {
                let queued = connection.queue.bytes();
                assert!(queued <= limit + TURN_BYTES_MAX, "{queued} bytes queued, limit {limit}");
            }
        }
    }

    /// Every subscriber saw every publication of its topic from its confirmation on, once, in order,
    /// or was dropped by a counted policy.
    pub fn check_streams(&self) {
        let mut missing = [0; TOPICS.len()];
        for (topic, missing) in missing.iter_mut().enumerate().take(FIRST_KEPT) {
            let order = self.order_of(topic);
            for (index, client) in self.clients.iter().enumerate() {
                for segment in client.segments.iter().filter(|segment| segment.topic == topic) {
                    let wanted: Vec<_> = order
                        .iter()
                        .copied()
                        .filter(|id| {
                            self.published[*id].echo || self.published[*id].client != index
                        })
                        .collect();
                    *missing += check_segment(index, segment, &wanted, is_lossy(topic));
                }
            }
        }
        let dropped = |counter| self.settings.metrics.total(counter) as usize;
        assert!(missing[0] <= dropped(Counter::DroppedOldest), "drop_oldest is counted");
        assert!(missing[1] <= dropped(Counter::DroppedNewest), "drop_newest is counted");
        let conflated = dropped(Counter::Conflated) + dropped(Counter::DroppedOldest);
        assert!(missing[2] <= conflated, "conflate is counted");
    }

    /// Every subscriber of a topic with history saw every offset behind where it began, once, in
    /// order, or was told which ones are gone, or had acknowledged it on another connection.
    pub fn check_offsets(&self) {
        for (topic, channel) in TOPICS.iter().enumerate().skip(FIRST_KEPT) {
            let order = self.order_of(topic);
            for (index, client) in self.clients.iter().enumerate() {
                for segment in client.segments.iter().filter(|segment| segment.topic == topic) {
                    let Some(place) = &segment.place else {
                        assert!(segment.over && segment.seen.is_empty(), "{segment:?}");
                        continue;
                    };
                    let name = || format!("client {index}, {channel}: {segment:?}");
                    for (offset, id) in &place.seen {
                        assert_eq!(order[*offset as usize - 1], *id, "{offset}: {}", name());
                    }
                    let end = if segment.over { place.offset } else { order.len() as u64 };
                    for offset in place.begin + 1..=end {
                        let seen = place.seen.binary_search_by_key(&offset, |(seen, _)| *seen);
                        let gone = place.gaps.iter().any(|(a, b)| (*a..=*b).contains(&offset));
                        let publication = &self.published[order[offset as usize - 1]];
                        let own = !publication.echo && publication.client == index;
                        let had =
                            topic == ACKED && self.had_acknowledged(index, offset, publication);
                        assert!(
                            seen.is_ok() || gone || own || had,
                            "{offset} is missing: {}",
                            name()
                        );
                    }
                    assert!(topic != FIRST_KEPT || place.gaps.is_empty(), "{}", name());
                }
            }
        }
    }

    /// The order that the topic's witness saw. Accepted publications are in it, once; refused ones
    /// are not.
    fn order_of(&self, topic: usize) -> Vec<usize> {
        let [segment] = &self.clients[topic].segments[..] else { panic!("one subscription") };
        assert!(!segment.over, "the witness of {} was lost", TOPICS[topic]);
        let mut seen = vec![0; self.published.len()];
        for id in &segment.seen {
            seen[*id] += 1;
        }
        for (id, publication) in self.published.iter().enumerate() {
            if publication.topic == topic {
                match publication.outcome {
                    Some(Outcome::Accepted) => assert_eq!(seen[id], 1, "{id} was accepted"),
                    Some(Outcome::Refused) => assert_eq!(seen[id], 0, "{id} was refused"),
                    None => {
                        assert!(seen[id] <= 1);
                        let client = self.clients.get(publication.client);
                        assert!(client.is_some_and(Client::is_closed), "{id} was never answered");
                    }
                }
            }
        }
        segment.seen.clone()
    }

    /// Every frame, connection and topic was given back.
    pub fn check_nothing_held(&mut self) {
        for shard in &self.shards {
            let state = shard.state();
            assert!(state.has_ended());
            assert!(state.connections.is_empty(), "{} connections", state.connections.len());
            // The shared ping and pong.
            assert_eq!(state.frames.len(), FRAMES_FOR_GOOD, "frames are held");
            assert_eq!(state.frames.twin_bytes(), 0, "twins are held");
        }
        // What is kept ends by time.
        for shard in &mut self.shards {
            let broker = &mut shard.state_mut().broker;
            for day in 1..20 {
                broker.begin_turn(Moment(day << 40));
                broker.expire();
            }
            assert_eq!(broker.topics(), 0, "topics are held");
            assert_eq!(broker.next_overdue(), None, "windows are held");
        }
        assert_eq!(self.network.borrow().open(), 0);
        assert_eq!(self.settings.metrics.connections(), 0);
    }
}

fn is_lossy(topic: usize) -> bool {
    topic < 3
}

/// Returns how many publications a subscriber missed, which only a lossy topic may have.
fn check_segment(
    client: usize,
    segment: &super::client::Segment,
    wanted: &[usize],
    lossy: bool,
) -> usize {
    let name = || format!("client {client}, {}: {segment:?} of {wanted:?}", TOPICS[segment.topic]);
    let due = wanted.iter().position(|id| *id >= segment.published_before);
    let Some(first) = segment.seen.first() else {
        assert!(segment.over || due.is_none() || lossy, "nothing seen: {}", name());
        return due.map_or(0, |due| if segment.over { 0 } else { wanted.len() - due });
    };
    let start = wanted.iter().position(|id| id == first);
    let start = start.unwrap_or_else(|| panic!("never published: {}", name()));
    assert!(lossy || due.is_none_or(|due| start <= due), "begins late: {}", name());
    let begin = due.map_or(start, |due| due.min(start));
    let mut place = begin;
    let mut missed = 0;
    for id in &segment.seen {
        let ahead = wanted[place..].iter().position(|other| other == id);
        let ahead = ahead.unwrap_or_else(|| panic!("out of order: {}", name()));
        assert!(lossy || ahead == 0, "a gap: {}", name());
        missed += ahead;
        place += ahead + 1;
    }
    if !segment.over {
        missed += wanted.len() - place;
        assert!(lossy || place == wanted.len(), "ends early: {}", name());
    }
    missed
}
