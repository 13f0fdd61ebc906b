//! The subscribers' side of a broadcast: checks every delivery and keeps the books.
//!
//! Subscriber `i` listens to topic `i % topics`. Each publisher goes through all topics in turn, and
//! each begins at another one; so the topic and number in a stamp tell the publication.

use super::ending::Ending;
use super::fleet::Crowd;
use super::flights::Flights;
use super::ledger::{Arrival, Faults, Ledger};
use super::meter::{Meter, histogram};
use super::stamp::{Corrupt, Payload, Stamp};
use hdrhistogram::Histogram;

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

/// All subscribers; ids from [`Shape::subscribers`] on are publishers.
#[derive(Debug)]
pub struct Audience {
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
    /// Subscribers from here on have stopped reading: nothing is expected of them.
    pub stopped_from: usize,
    /// What was unexpected, or why a connection ended: the first one.
    pub trouble: Option<String>,
}

impl Audience {
    pub fn new(shape: Shape, data_bytes: usize, window: Option<usize>) -> Self {
        Self {
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
            trouble: None,
        }
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
        (0..self.stopped_from).flat_map(move |subscriber| {
            let topic = shape.topic_of_subscriber(subscriber);
            self.published.iter().enumerate().map(move |(publisher, published)| {
                (subscriber, publisher, shape.published_to(publisher, topic, *published))
            })
        })
    }

    fn delivered(&mut self, subscriber: usize, stamp: Stamp, now_ns: u64) {
        let Stamp { source, topic, number, sent_ns } = stamp;
        let (source, topic) = (source as usize, topic as usize);
        let faults = &mut self.ledger.faults;
        // The checksum holds, so this is of another run, or made up.
        if source >= self.shape.publishers || topic >= self.shape.topics {
            faults.corrupt += 1;
            return;
        }
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
            None => {
                self.ledger.faults.unexpected += 1;
                self.trouble.get_or_insert_with(|| {
                    format!("unexpected: {}", String::from_utf8_lossy(message))
                });
            }
        }
    }

    fn closed(&mut self, id: usize, ending: &Ending, _: u64) {
        self.ledger.faults.disconnected += 1;
        self.trouble.get_or_insert_with(|| format!("connection {id}: {ending}"));
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
}
