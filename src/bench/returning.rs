//! Clients that come back: what each is subscribed to, what it has of it, and when it has everything
//! again that it missed.
//!
//! Client `i` has `subscriptions` topics in a row, from `i × subscriptions` on, modulo the topics. One
//! publisher goes through the topics in turn, so a publication's number tells its offset.

use super::answer::{self, Notice};
use super::ending::Ending;
use super::fleet::Crowd;
use super::ledger::{Arrival, Faults, Ledger};
use super::meter::Meter;
use super::stamp::{Corrupt, Payload, Stamp};
use super::target::Target;
use std::fmt::Write;
use std::sync::Arc;

/// How clients come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// One message restores everything.
    Session,
    /// A subscription with `recover` for each channel.
    Recover,
}

/// Who is subscribed to what.
#[derive(Debug, Clone, Copy)]
pub struct Crew {
    pub clients: usize,
    /// Of each client; at most as many as there are topics.
    pub subscriptions: usize,
    pub topics: usize,
    pub by: By,
}

impl Crew {
    fn topic(self, client: usize, subscription: usize) -> usize {
        (client * self.subscriptions + subscription) % self.topics
    }

    /// The inverse; `None`: the client is not subscribed to it.
    fn subscription(self, client: usize, topic: usize) -> Option<usize> {
        let first = self.topic(client, 0);
        let steps = (topic + self.topics - first) % self.topics;
        (steps < self.subscriptions).then_some(client * self.subscriptions + steps)
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Away,
    /// Upgraded: the server has the first word.
    Greeted,
    /// It has asked for its subscriptions.
    Asked,
    /// It has them, and all that it missed.
    Back,
    /// It cannot have them.
    Refused,
}

#[derive(Debug, Default)]
struct Client {
    state: State,
    /// Session and connection, as the server last called them.
    ids: Option<(String, String)>,
    /// Subscriptions that have been confirmed since it came.
    confirmed: usize,
    /// Confirmed subscriptions that still miss something.
    lacking: usize,
}

/// One channel's history.
#[derive(Debug, Clone)]
struct Life {
    epoch: String,
    /// Offset before publication 0.
    offset: u64,
}

/// All clients and the publisher, whose id is behind theirs.
pub struct Returning {
    crew: Crew,
    target: Arc<Target>,
    payload: Payload,
    place: usize,
    /// By subscription.
    ledger: Ledger,
    /// What a confirmed subscription must have for its client to be back, by subscription.
    due: Vec<u32>,
    clients: Vec<Client>,
    /// By topic; `None`: nobody was confirmed yet.
    lives: Vec<Option<Life>>,
    /// By topic.
    pub published: Vec<u32>,
    /// Clients that may ask now.
    pub asking: Vec<usize>,
    /// Clients whose connections have ended.
    pub failed: Vec<usize>,
    pub publisher_is_here: bool,
    /// Clients that are back, and those that never will be.
    pub back: usize,
    pub refused: usize,
    /// Publications that clients had missed when they were confirmed, all together.
    pub missed: u64,
    /// Since when they want to be back.
    pub begin_ns: u64,
    pub meter: Meter,
    pub arrived_ns: u64,
    pub trouble: Option<String>,
}

impl Returning {
    pub fn new(crew: Crew, target: Arc<Target>, data_bytes: usize) -> Self {
        let subscriptions = crew.clients * crew.subscriptions;
        Self {
            crew,
            target,
            payload: Payload::new(data_bytes),
            place: 0,
            ledger: Ledger::new(subscriptions, 1),
            due: vec![0; subscriptions],
            clients: (0..crew.clients).map(|_| Client::default()).collect(),
            lives: vec![None; crew.topics],
            published: vec![0; crew.topics],
            asking: Vec::new(),
            failed: Vec::new(),
            publisher_is_here: false,
            back: 0,
            refused: 0,
            missed: 0,
            begin_ns: 0,
            meter: Meter::default(),
            arrived_ns: 0,
            trouble: None,
        }
    }

    /// The client's connection is gone.
    pub fn leave(&mut self, id: usize) {
        let client = &mut self.clients[id];
        self.back -= usize::from(client.state == State::Back);
        self.refused -= usize::from(client.state == State::Refused);
        (client.state, client.confirmed, client.lacking) = (State::Away, 0, 0);
        let first = id * self.crew.subscriptions;
        self.due[first..first + self.crew.subscriptions].fill(0);
    }

    /// Hands over the messages of a client that wants its subscriptions, for the first time or again.
    pub fn ask(&mut self, id: usize, again: bool, mut send: impl FnMut(&str)) {
        self.clients[id].state = State::Asked;
        let mut message = String::new();
        let ids = self.clients[id].ids.as_ref().filter(|_| again && self.crew.by == By::Session);
        if let Some((session, connection)) = ids {
            message.push_str(r#"{"type":"restore_session","sessionId":""#);
            message.push_str(session);
            message.push_str(r#"","connectionId":""#);
            message.push_str(connection);
            message.push_str(r#"","positions":{"#);
            for subscription in 0..self.crew.subscriptions {
                let comma = if subscription > 0 { "," } else { "" };
                let (channel, _, offset) = self.position(id, subscription);
                write!(message, r#"{comma}"{channel}":{offset}"#).expect("a string takes all");
            }
            message.push_str("}}");
            return send(&message);
        }
        for subscription in 0..self.crew.subscriptions {
            let (channel, epoch, offset) = self.position(id, subscription);
            message.clear();
            write!(message, r#"{{"action":"subscribe","channel":"{channel}""#)
                .expect("a string takes all");
            if again {
                write!(message, r#","recover":{{"epoch":"{epoch}","offset":{offset}}}"#)
                    .expect("a string takes all");
            }
            message.push('}');
            send(&message);
        }
    }

    /// Channel, epoch, and the offset of what the client has got last.
    fn position(&self, id: usize, subscription: usize) -> (String, &str, u64) {
        let topic = self.crew.topic(id, subscription);
        let next = self.ledger.next(id * self.crew.subscriptions + subscription, 0);
        let life = self.lives[topic].as_ref();
        let (epoch, offset) = life.map_or(("", 0), |life| (life.epoch.as_str(), life.offset));
        (self.target.channel(topic), epoch, offset.saturating_add(u64::from(next)))
    }

    /// Whether every delivery has come.
    pub fn is_complete(&self) -> bool {
        self.dues().all(|(subscription, count)| self.ledger.is_complete(subscription, 0, count))
    }

    /// Closes the books.
    pub fn settle(&mut self) -> Faults {
        let dues: Vec<_> = self.dues().collect();
        for (subscription, count) in dues {
            self.ledger.settle(subscription, 0, count);
        }
        self.ledger.faults
    }

    fn dues(&self) -> impl Iterator<Item = (usize, u32)> {
        let crew = self.crew;
        (0..crew.clients * crew.subscriptions).map(move |subscription| {
            let (client, place) =
                (subscription / crew.subscriptions, subscription % crew.subscriptions);
            (subscription, self.published[crew.topic(client, place)])
        })
    }

    fn unexpected(&mut self, message: &[u8]) {
        self.ledger.faults.unexpected += 1;
        self.note_trouble(message);
    }

    fn note_trouble(&mut self, message: &[u8]) {
        let text = || format!("unexpected: {}", String::from_utf8_lossy(message));
        self.trouble.get_or_insert_with(text);
    }

    /// It does not get what it asked for, and is not waited for.
    fn refuse(&mut self, id: usize, message: &[u8]) {
        self.unexpected(message);
        if let Some(client) = self.clients.get_mut(id)
            && client.state == State::Asked
        {
            client.state = State::Refused;
            self.refused += 1;
        }
    }

    fn noticed(&mut self, id: usize, notice: Notice<'_>, message: &[u8], now_ns: u64) {
        let (channel, position, recovered) = match notice {
            Notice::Confirmed { channel, position: Some(position), recovered } => {
                (channel, position, recovered)
            }
            // What is missing then shows by its numbers.
            Notice::Gap => return self.note_trouble(message),
            Notice::Confirmed { channel, .. } => {
                let text = format!("the channel {channel} has no history");
                return self.refuse(id, text.as_bytes());
            }
            Notice::Other => return self.refuse(id, message),
        };
        let topic = self.target.topic(channel).filter(|topic| *topic < self.crew.topics);
        let Some(topic) = topic.filter(|_| id < self.crew.clients) else {
            return self.unexpected(message);
        };
        let Some(subscription) = self.crew.subscription(id, topic) else {
            return self.unexpected(message);
        };
        let (epoch, offset) = position;
        // Before anything is published, all begin at the same place.
        let life =
            self.lives[topic].get_or_insert_with(|| Life { epoch: epoch.to_string(), offset });
        if life.epoch != epoch || recovered == Some(false) {
            self.note_trouble(message);
        }
        self.confirm(id, subscription, now_ns);
    }

    /// What was published so far, it must get to be back.
    fn confirm(&mut self, id: usize, subscription: usize, now_ns: u64) {
        let topic = self.crew.topic(id, subscription % self.crew.subscriptions);
        let due = self.published[topic];
        self.due[subscription] = due;
        let missed = due.saturating_sub(self.ledger.next(subscription, 0));
        self.missed += u64::from(missed);
        let client = &mut self.clients[id];
        client.lacking += usize::from(missed > 0);
        client.confirmed += 1;
        self.look(id, now_ns);
    }

    fn restored(&mut self, id: usize, message: &[u8], now_ns: u64) {
        let ids = answer::text(message, "sessionId").zip(answer::text(message, "connectionId"));
        let restored = count(message, b"\"recovered\":true");
        let given_up = count(message, b"\"recovered\":false");
        let awaited = id < self.crew.clients && self.clients[id].state == State::Asked;
        let Some(ids) = ids.filter(|_| awaited) else {
            return self.refuse(id, message);
        };
        self.clients[id].ids = Some((ids.0.to_string(), ids.1.to_string()));
        if restored + given_up != self.crew.subscriptions {
            return self.refuse(id, message);
        }
        if given_up > 0 {
            self.note_trouble(message);
        }
        let first = id * self.crew.subscriptions;
        for subscription in first..first + self.crew.subscriptions {
            self.confirm(id, subscription, now_ns);
        }
    }

    fn welcomed(&mut self, id: usize, message: &[u8]) {
        if id >= self.crew.clients {
            return;
        }
        let ids = answer::text(message, "sessionId").zip(answer::text(message, "connectionId"));
        let client = &mut self.clients[id];
        let Some((session, connection)) = ids.filter(|_| client.state == State::Greeted) else {
            return self.unexpected(message);
        };
        // On its return it wants the old one.
        client.ids.get_or_insert_with(|| (session.to_string(), connection.to_string()));
        self.asking.push(id);
    }

    fn delivered(&mut self, id: usize, stamp: Stamp, message: &[u8], now_ns: u64) {
        let Stamp { source, topic, number, .. } = stamp;
        let topic = topic as usize;
        if source != 0 || topic >= self.crew.topics || number >= self.published[topic] {
            self.ledger.faults.corrupt += 1;
            return;
        }
        let subscription = self.crew.subscription(id, topic);
        let Some(subscription) = subscription.filter(|_| id < self.crew.clients) else {
            self.ledger.faults.misrouted += 1;
            return;
        };
        let life = self.lives[topic].as_ref();
        let offset = life.map(|life| life.offset.saturating_add(u64::from(number) + 1));
        if offset != answer::number(message, "offset") {
            self.unexpected(message);
        }
        self.arrived_ns = now_ns;
        let due = self.due[subscription];
        let lacked = self.ledger.next(subscription, 0) < due;
        if self.ledger.note(subscription, 0, number) == Arrival::First
            && lacked
            && self.ledger.next(subscription, 0) >= due
        {
            self.clients[id].lacking -= 1;
            self.look(id, now_ns);
        }
    }

    /// Whether the client is back by now.
    fn look(&mut self, id: usize, now_ns: u64) {
        let client = &mut self.clients[id];
        if client.state == State::Asked
            && client.confirmed == self.crew.subscriptions
            && client.lacking == 0
        {
            client.state = State::Back;
            self.back += 1;
            self.meter.note(self.begin_ns, now_ns);
        }
    }
}

impl Crowd for Returning {
    fn opened(&mut self, id: usize, _: u64) {
        let Some(client) = self.clients.get_mut(id) else {
            self.publisher_is_here = true;
            return;
        };
        client.state = State::Greeted;
        if self.crew.by == By::Recover {
            self.asking.push(id);
        }
    }

    fn received(&mut self, id: usize, message: &[u8], now_ns: u64) {
        if let Some(notice) = Notice::read(message) {
            return self.noticed(id, notice, message, now_ns);
        }
        if message.starts_with(br#"{"type":"welcome""#) {
            return self.welcomed(id, message);
        }
        if message.starts_with(br#"{"type":"session_restored""#) {
            return self.restored(id, message, now_ns);
        }
        match self.payload.read(message, &mut self.place) {
            Some(Ok(stamp)) => self.delivered(id, stamp, message, now_ns),
            Some(Err(Corrupt)) => self.ledger.faults.corrupt += 1,
            None => self.refuse(id, message),
        }
    }

    fn closed(&mut self, id: usize, ending: &Ending, _: u64) {
        self.ledger.faults.disconnected += 1;
        self.trouble.get_or_insert_with(|| format!("connection {id}: {ending}"));
        if id < self.crew.clients {
            self.leave(id);
            self.failed.push(id);
        }
    }
}

fn count(message: &[u8], wanted: &[u8]) -> usize {
    message.windows(wanted.len()).filter(|bytes| *bytes == wanted).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_knows_its_topics() {
        let crew = Crew { clients: 7, subscriptions: 3, topics: 5, by: By::Recover };
        for client in 0..crew.clients {
            let topics: Vec<_> = (0..3).map(|place| crew.topic(client, place)).collect();
            for topic in 0..crew.topics {
                let place = topics.iter().position(|own| *own == topic);
                let subscription = place.map(|place| client * 3 + place);
                assert_eq!(crew.subscription(client, topic), subscription);
            }
        }
    }
}
