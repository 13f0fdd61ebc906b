//! The subscribers' side of a broadcast: checks every delivery and keeps the books.
//!
//! Subscriber `i` listens to topic `i % topics`. Each publisher goes through all topics in turn, and
//! each begins at another one; so the topic and number in a stamp tell the publication.

use super::answer::Notice;
use super::ending::Ending;
use super::fleet::Crowd;
use super::flights::Flights;
use super::ledger::{Arrival, Faults, Ledger};
use super::meter::{Meter, histogram};
use super::stamp::{Corrupt, Payload, Stamp};
use hdrhistogram::Histogram;
use std::ops::Range;

/// Who publishes what to whom.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub publishers: usize,
    pub topics: usize,
    /// At least one for each topic.
    pub subscribers: usize,
}

impl Shape {
    pub fn topic_of_subscriber(self, subscriber: usize) -> usize {
        subscriber % self.topics
    }

    pub fn subscribers_of(self, topic: usize) -> usize {
        let all_have = self.subscribers / self.topics;
        all_have + usize::from(topic < self.subscribers % self.topics)
    }

    fn first_topic(self, publisher: usize) -> usize {
        publisher * self.topics / self.publishers
    }

    /// What a thread has of it; `share` is its part of so many things.
    pub fn part(self, share: impl Fn(usize) -> Range<usize>) -> Part {
        let [publishers, topics, subscribers] =
            [self.publishers, self.topics, self.subscribers].map(share);
        Part {
            whole: self,
            first_publisher: publishers.start,
            first_topic: topics.start,
            first_connection: subscribers.start + publishers.start,
            own: Self {
                publishers: publishers.len(),
                topics: topics.len(),
                subscribers: subscribers.len(),
            },
        }
    }

    /// Topic and number of a publisher's publication.
    pub fn place(self, publisher: usize, index: u64) -> (usize, u32) {
        let topics = self.topics as u64;
        let topic = (self.first_topic(publisher) as u64 + index) % topics;
        (topic as usize, (index / topics) as u32)
    }

    /// The publication that a stamp is of: the inverse of [`Shape::place`].
    fn index(self, stamp: Stamp) -> u64 {
        let first = self.first_topic(stamp.source as usize);
        let steps = (stamp.topic as usize + self.topics - first) % self.topics;
        steps as u64 + u64::from(stamp.number) * self.topics as u64
    }

    /// How many of a publisher's first `count` went to `topic`.
    fn published_to(self, publisher: usize, topic: usize, count: u64) -> u32 {
        let steps = (topic + self.topics - self.first_topic(publisher)) % self.topics;
        (count.saturating_sub(steps as u64).div_ceil(self.topics as u64)) as u32
    }
}

/// One thread's publishers, topics and subscribers. Inside they count from 0; what goes over the wire has
/// the numbers of the whole, so that what goes astray between threads is noticed.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    whole: Shape,
    pub own: Shape,
    /// Where its numbers begin in the whole.
    pub first_publisher: usize,
    pub first_topic: usize,
    /// Of subscribers and publishers together.
    pub first_connection: usize,
}

impl Part {
    /// The stamp in the numbers of the whole.
    pub fn to_whole(self, stamp: Stamp) -> Stamp {
        let source = stamp.source + self.first_publisher as u32;
        Stamp { source, topic: stamp.topic + self.first_topic as u32, ..stamp }
    }

    /// The inverse; `None` if it is another thread's.
    fn to_own(self, stamp: Stamp) -> Option<Stamp> {
        let source = stamp.source.checked_sub(self.first_publisher as u32)?;
        let topic = stamp.topic.checked_sub(self.first_topic as u32)?;
        let is_own = (source as usize) < self.own.publishers && (topic as usize) < self.own.topics;
        is_own.then_some(Stamp { source, topic, ..stamp })
    }
}

/// What has become of the subscribers that had stopped, once they read again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StoppedFate {
    /// Whose connections the server has ended.
    pub disconnected: u64,
    /// Who stayed and got everything.
    pub caught_up: u64,
    /// Who stayed and missed something.
    pub gap: u64,
    /// Messages that those have missed, all together.
    pub missed: u64,
    /// How the first connection ended.
    pub ending: Option<String>,
}

/// All subscribers of one thread; ids from [`Shape::subscribers`] on are publishers.
#[derive(Debug)]
pub struct Audience {
    part: Part,
    /// The part's.
    shape: Shape,
    payload: Payload,
    place: usize,
    ledger: Ledger,
    /// In a closed loop.
    pub flights: Option<Flights>,
    /// Publications so far, by publisher.
    pub published: Vec<u64>,
    pub meter: Meter,
    /// From sending to the last delivery of a publication.
    pub completion: Histogram<u64>,
    /// The last delivery.
    pub arrived_ns: u64,
    /// Subscribers from here on have stopped reading.
    stopped_from: usize,
    /// Whether the server has ended the connection of each that has stopped.
    ended: Vec<bool>,
    /// How the first of these connections ended.
    ending: Option<String>,
    /// What was unexpected, or why a connection ended: the first one.
    pub trouble: Option<String>,
}

impl Audience {
    pub fn new(part: Part, data_bytes: usize, window: Option<usize>) -> Self {
        let shape = part.own;
        Self {
            part,
            shape,
            payload: Payload::new(data_bytes),
            place: 0,
            ledger: Ledger::new(shape.subscribers, shape.publishers),
            flights: window.map(|window| Flights::new(shape.publishers, window)),
            published: vec![0; shape.publishers],
            meter: Meter::default(),
            completion: histogram(),
            arrived_ns: 0,
            stopped_from: shape.subscribers,
            ended: Vec::new(),
            ending: None,
            trouble: None,
        }
    }

    /// The last `count` subscribers stop reading. What a server then drops is its policy, and no fault,
    /// and so is it to disconnect them.
    pub fn stop(&mut self, count: usize) {
        self.stopped_from = self.shape.subscribers - count;
        self.ended = vec![false; count];
        self.ledger.excuse(self.stopped_from);
    }

    /// Ids of the subscribers that have stopped reading.
    pub fn stopped(&self) -> Range<usize> {
        self.stopped_from..self.shape.subscribers
    }

    /// What has become of them; behind [`Audience::settle`].
    pub fn stopped_fate(&self) -> StoppedFate {
        let mut fate = StoppedFate { ending: self.ending.clone(), ..StoppedFate::default() };
        for (subscriber, ended) in self.stopped().zip(&self.ended) {
            match self.ledger.missed(subscriber) {
                _ if *ended => fate.disconnected += 1,
                0 => fate.caught_up += 1,
                missed => {
                    fate.gap += 1;
                    fate.missed += missed;
                }
            }
        }
        fate
    }

    /// Whether every delivery has come.
    pub fn is_complete(&self) -> bool {
        self.dues().all(|(subscriber, publisher, count)| {
            self.ledger.is_complete(subscriber, publisher, count)
        })
    }

    /// Closes the books.
    pub fn settle(&mut self) -> Faults {
        let dues: Vec<_> = self.dues().collect();
        for (subscriber, publisher, count) in dues {
            self.ledger.settle(subscriber, publisher, count);
        }
        // A stream with other faults has no order to compare.
        if self.ledger.faults.total() == 0 {
            let topics = self.shape.topics;
            let disagree =
                |id: &usize| !self.ledger.agree(*id, self.shape.topic_of_subscriber(*id));
            let disagreeing = (topics..self.stopped_from).filter(disagree).count();
            self.ledger.faults.disagreeing = disagreeing as u64;
        }
        self.ledger.faults
    }

    /// Subscriber, publisher, and how many the one should have of the other.
    fn dues(&self) -> impl Iterator<Item = (usize, usize, u32)> {
        let shape = self.shape;
        let stays = |subscriber: &usize| {
            let stopped = subscriber.checked_sub(self.stopped_from);
            stopped.is_none_or(|index| !self.ended[index])
        };
        (0..shape.subscribers).filter(stays).flat_map(move |subscriber| {
            let topic = shape.topic_of_subscriber(subscriber);
            self.published.iter().enumerate().map(move |(publisher, published)| {
                (subscriber, publisher, shape.published_to(publisher, topic, *published))
            })
        })
    }

    fn delivered(&mut self, subscriber: usize, stamp: Stamp, now_ns: u64) {
        let faults = &mut self.ledger.faults;
        let Shape { publishers, topics, .. } = self.part.whole;
        // The checksum holds, so this is of another run, or made up.
        if stamp.source as usize >= publishers || stamp.topic as usize >= topics {
            faults.corrupt += 1;
            return;
        }
        let Some(stamp) = self.part.to_own(stamp) else {
            faults.misrouted += 1;
            return;
        };
        let Stamp { source, topic, number, sent_ns } = stamp;
        let (source, topic) = (source as usize, topic as usize);
        let index = self.shape.index(stamp);
        if index >= self.published[source] {
            faults.corrupt += 1;
            return;
        }
        if topic != self.shape.topic_of_subscriber(subscriber) {
            faults.misrouted += 1;
            return;
        }
        self.arrived_ns = now_ns;
        if self.ledger.note(subscriber, source, number) == Arrival::Again {
            return;
        }
        self.meter.note(sent_ns, now_ns);
        let landed = self.flights.as_mut().and_then(|flights| flights.land(source, index));
        if let Some(sent_ns) = landed
            && self.meter.is_running()
        {
            self.completion.saturating_record((now_ns - sent_ns).max(1));
        }
    }
}

impl Crowd for Audience {
    fn opened(&mut self, _: usize, _: u64) {}

    fn received(&mut self, id: usize, message: &[u8], now_ns: u64) {
        match self.payload.read(message, &mut self.place) {
            Some(Ok(stamp)) if id < self.shape.subscribers => self.delivered(id, stamp, now_ns),
            Some(Ok(_)) => self.ledger.faults.misrouted += 1,
            Some(Err(Corrupt)) => self.ledger.faults.corrupt += 1,
            // That they were too late for some of it; the numbers tell of how much.
            None if self.stopped().contains(&id) && Notice::read(message) == Some(Notice::Gap) => {}
            None => {
                self.ledger.faults.unexpected += 1;
                self.trouble.get_or_insert_with(|| {
                    format!("unexpected: {}", String::from_utf8_lossy(message))
                });
            }
        }
    }

    fn closed(&mut self, id: usize, ending: &Ending, _: u64) {
        if self.stopped().contains(&id) {
            self.ended[id - self.stopped_from] = true;
            // Bytes that are no frames are no policy.
            if !matches!(ending, Ending::Frame(_)) {
                self.ending.get_or_insert_with(|| ending.to_string());
                return;
            }
        }
        self.ledger.faults.disconnected += 1;
        self.trouble.get_or_insert_with(|| {
            format!("connection {}: {ending}", self.part.first_connection + id)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_tells_its_publication() {
        let shape = Shape { publishers: 3, topics: 7, subscribers: 9 };
        for publisher in 0..shape.publishers {
            let mut counts = [0; 7];
            for index in 0..100 {
                let (topic, number) = shape.place(publisher, index);
                assert_eq!(number, counts[topic]);
                assert_eq!(shape.published_to(publisher, topic, index), number);
                let (source, topic32) = (publisher as u32, topic as u32);
                let stamp = Stamp { source, topic: topic32, number, sent_ns: 0 };
                assert_eq!(shape.index(stamp), index);
                counts[topic] += 1;
                assert_eq!(shape.published_to(publisher, topic, index + 1), counts[topic]);
            }
        }
        let all: usize = (0..7).map(|topic| shape.subscribers_of(topic)).sum();
        assert_eq!(all, shape.subscribers);
    }

    #[test]
    fn a_gap_is_the_fate_of_those_who_stopped_only() {
        let whole = Shape { publishers: 1, topics: 1, subscribers: 3 };
        let mut audience = Audience::new(whole.part(|total| 0..total), 64, None);
        audience.stop(1);
        let gap = br#"{"channel":"system","data":{"type":"gap","channel":"c","from":1,"to":2}}"#;
        audience.received(2, gap, 0);
        assert_eq!((audience.settle(), &audience.trouble), (Faults::default(), &None));
        audience.received(1, gap, 0);
        assert_eq!(audience.settle(), Faults { unexpected: 1, ..Faults::default() });
        let error = br#"{"channel":"system","data":{"type":"error","message":"no"}}"#;
        audience.received(2, error, 0);
        assert_eq!(audience.settle().unexpected, 2);
    }

    #[test]
    fn parts_have_the_stamps_of_the_whole() {
        let whole = Shape { publishers: 5, topics: 4, subscribers: 9 };
        let upper = whole.part(|total| total / 2..total);
        assert_eq!((upper.own.publishers, upper.own.topics, upper.own.subscribers), (3, 2, 5));
        assert_eq!(upper.first_connection, 4 + 2);
        let stamp = Stamp { source: 2, topic: 1, number: 7, sent_ns: 9 };
        let sent = upper.to_whole(stamp);
        assert_eq!((sent.source, sent.topic), (4, 3));
        assert_eq!(upper.to_own(sent), Some(stamp));
        let lower = whole.part(|total| 0..total / 2);
        assert_eq!(lower.to_own(sent), None);
        assert_eq!(upper.to_own(Stamp { source: 1, ..sent }), None);
        assert_eq!(upper.to_own(Stamp { topic: 4, ..sent }), None);
    }
}
