//! What subscribers see, against what was published, and what must hold in the end.

use std::collections::VecDeque;

use super::steps::Step;
use super::{SHARDS, SLOTS, TTL, UNACKED_MAX, World, position};
use crate::broker::Broker;
use crate::broker::tests::tag;
use crate::ids::Position;
use crate::message::PublishOutcome;

impl World {
    /// What the home has made of a publication: `before` is where its history ended.
    pub fn note_outcome(
        &mut self,
        topic: usize,
        number: usize,
        id: Option<u8>,
        before: Option<Position>,
        outcome: PublishOutcome,
    ) {
        let after = self.history(topic).map(|(position, _)| position);
        let head = |position: Option<Position>| position.map_or(0, |position| position.offset);
        let key = id.map(|id| (topic, id));
        let known = key.and_then(|key| self.accepted.get(&key)).filter(|(epoch, _, time)| {
            let same_epoch = before.is_some_and(|before| before.epoch.0 == *epoch);
            same_epoch && time.after(TTL) > self.now
        });
        match outcome {
            PublishOutcome::Accepted { offset: Some(offset) } => match known {
                Some((_, first, _)) => {
                    assert_eq!((offset, after), (*first, before), "it came twice");
                }
                None => {
                    assert_eq!((offset, offset), (head(before) + 1, head(after)));
                    let epoch = after.expect("there is a history").epoch.0;
                    let order = self.orders.entry((topic, epoch)).or_default();
                    order.push(number);
                    assert_eq!(order.len() as u64, offset, "offsets have no gap");
                    key.map(|key| self.accepted.insert(key, (epoch, offset, self.now)));
                }
            },
            PublishOutcome::BacklogFull => assert_eq!(after, before, "it was refused"),
            outcome => panic!("{outcome:?}"),
        }
    }

    /// A subscriber gets a publication.
    pub fn see(&mut self, shard: usize, slot: u32, text: &str) {
        let (topic, offset, number) = parse(text);
        let stream = self.current.get(&(shard, slot, topic));
        let stream = *stream.unwrap_or_else(|| panic!("{slot} of {shard} does not want {text}"));
        let order = &self.orders[&(topic, self.streams[stream].epoch.0)];
        assert_eq!(order[offset as usize - 1], number, "an offset has one publication: {text}");
        let publication = &self.publications[number];
        assert!(publication.echo || publication.author != self.streams[stream].reader, "its own");
        if self.see_again(stream, offset) {
            return;
        }
        self.pass_own(stream, offset);
        let wanted = self.streams[stream].tag;
        assert!(wanted.is_none() || wanted == tag(number), "{:?}: {text}", self.streams[stream]);
        assert_eq!(self.streams[stream].next, offset, "{:?}: {text}", self.streams[stream]);
        self.streams[stream].next += 1;
        self.note_delivery(shard, slot, stream, offset);
    }

    pub fn see_gap(&mut self, shard: usize, slot: u32, topic: usize, from: u64, to: u64) {
        self.gaps += 1;
        let stream = self.current[&(shard, slot, topic)];
        let (_, first) = self.history(topic).expect("somebody reads it");
        assert!(from <= to && to < first, "{from} to {to} are not gone: {first} is there");
        if self.lose_again(stream, from, to) {
            return;
        }
        self.pass_own(stream, from);
        let stream = &mut self.streams[stream];
        assert_eq!(stream.next, from);
        stream.next = to + 1;
    }

    /// Passes over what the reader published itself and does not want, what it has acknowledged on an
    /// earlier connection, and what is or was not for it, as far as `offset`.
    pub fn pass_own(&mut self, stream: usize, offset: u64) {
        let stream = &mut self.streams[stream];
        let order = self.orders.get(&(stream.topic, stream.epoch.0));
        while stream.next < offset
            && let Some(number) = order.and_then(|order| order.get(stream.next as usize - 1))
        {
            let publication = &self.publications[*number];
            let own = !publication.echo && publication.author == stream.reader;
            let mut wanted = stream.tag.iter().chain(&stream.tags_before);
            let passes = wanted.any(|wanted| tag(*number) != Some(*wanted));
            if !own && !passes && !stream.known.contains(&stream.next) {
                return;
            }
            stream.next += 1;
        }
    }

    pub fn end(&mut self, shard: usize, slot: u32, topic: usize) {
        if let Some(stream) = self.current.remove(&(shard, slot, topic)) {
            let stream = &mut self.streams[stream];
            stream.over = true;
            let position = Position { epoch: stream.epoch, offset: stream.next - 1 };
            self.reached.insert((shard, slot, topic), position);
        }
    }

    /// Everything on its way arrives, every reader reads.
    pub fn settle(&mut self) {
        self.slow.clear();
        for round in 0.. {
            assert!(round < 1000, "they never come to rest");
            let before: usize = self.links.iter().flatten().map(VecDeque::len).sum();
            let mut reading = false;
            for shard in 0..SHARDS {
                (0..SHARDS).for_each(|from| self.arrive(from, shard));
                self.advance(shard, usize::MAX);
                for slot in 0..SLOTS {
                    reading |= self.feed(shard, slot);
                }
            }
            reading |= self.acknowledge_all();
            let busy = reading || self.brokers.iter().any(Broker::has_fanouts);
            if before == 0 && !busy && self.links.iter().flatten().all(VecDeque::is_empty) {
                return;
            }
        }
    }

    pub fn check(&mut self) {
        for (shard, broker) in self.brokers.iter().enumerate() {
            for slot in 0..SLOTS {
                assert_eq!(broker.acks.room(slot), UNACKED_MAX, "{slot} of {shard}");
            }
        }
        for asked in &self.asked {
            let (shard, token) = asked.reader;
            let is_gone = token != self.token(shard, token.slot);
            assert!(asked.answered || is_gone, "never answered: {asked:?}");
        }
        for index in 0..self.streams.len() {
            if self.streams[index].over {
                continue;
            }
            let topic = self.streams[index].topic;
            let (position, _) = self.history(topic).expect("somebody listens");
            assert_eq!(position.epoch, self.streams[index].epoch);
            self.pass_own(index, position.offset + 1);
            assert_eq!(self.streams[index].next, position.offset + 1, "{:?}", self.streams[index]);
        }
    }

    /// Nothing is left when everybody has gone and the time of everything is over.
    pub fn leave_all(&mut self) {
        for shard in 0..SHARDS {
            for slot in 0..SLOTS {
                self.take(Step::Leave(shard, slot));
            }
        }
        self.settle();
        (0..4).for_each(|_| self.wait(TTL.as_secs()));
        for (broker, frames) in self.brokers.iter().zip(&self.frames) {
            assert_eq!(broker.topics(), 0);
            assert_eq!(broker.backlog_bytes, 0);
            assert_eq!(broker.next_overdue(), None);
            assert_eq!((broker.retention.bytes, broker.retention.next()), (0, None));
            assert!(frames.is_empty());
        }
    }
}

/// Topic, offset and number of a publication.
pub fn parse(text: &str) -> (usize, u64, usize) {
    let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let topic = position(value["channel"].as_str().expect("a name"));
    let offset = value["offset"].as_u64().expect("an offset");
    (topic, offset, value["data"].as_u64().expect("our number") as usize)
}
