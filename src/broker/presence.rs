//! Who is in a topic: the shards of its connections tell the home who came and went, once a turn; the home
//! keeps the roster and tells subscribers, once in an interval.
//!
//! What a shard tells is how things stand, not what has happened: it may be told late and again.

use std::collections::BTreeMap;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use super::Broker;
use super::effect::{Effect, SubscribeError};
use super::recall::QUERIES_MAX;
use super::roster::Roster;
use super::topics::TopicKey;
use crate::ids::{ConnectionId, Moment, ShardId, Token, TopicName};
use crate::message::{Arrival, Change, PresenceMessage, Reader, ShardMessage};
use crate::proto::{Presence, PresenceQuery};

/// Topics whose subscribers are told in one turn.
const TOLD_MAX: usize = 64;
/// What the interval between two notices of one topic is at least, for each connection in it: in a crowd whose
/// members come one after the other every notice goes to all of them, and this many a second do.
const INTERVAL_PER_CLIENT: Duration = Duration::from_micros(200);
/// Subscribers hear later where a shard of theirs can take no more at the moment.
const CONGESTED_PAUSE: Duration = Duration::from_millis(20);

/// What a topic has whose namespace wants to know who is there.
#[derive(Debug, Default)]
pub struct Attendance {
    /// Empty but at home.
    pub roster: Roster,
    /// Subscribers are told of who comes and goes, at most once in this time, and less often where there are
    /// many. `None`: they are not.
    pub interval: Option<Duration>,
    told: Moment,
    /// It is among those who will be.
    is_listed: bool,
}

/// What is to be told of all topics.
#[derive(Debug, Default)]
pub struct Tidings {
    /// To their homes: connections here whose subscription began or ended, or that have another user.
    changed: HashMap<TopicName, HashSet<Token, foldhash::fast::RandomState>>,
    /// To subscribers, from home: by when, and a number that makes it unique.
    due: BTreeMap<(Moment, u64), TopicName>,
    last: u64,
}

impl Attendance {
    pub fn new(interval: Option<Duration>) -> Self {
        Self { interval, ..Self::default() }
    }
}

impl Broker {
    /// Whether it is known who is in a channel of that name.
    pub fn has_presence(&self, name: &str) -> bool {
        self.options(name).has_presence()
    }

    /// Whether the connection is subscribed to the channel, or about to be.
    pub fn is_subscribed(&self, token: Token, name: &str) -> bool {
        self.find(name).is_some_and(|key| self.members.is_subscribed(token, key))
    }

    /// A subscription has begun or ended, or its connection has another user.
    pub(super) fn note_presence(&mut self, key: TopicKey, token: Token) {
        let topic = self.topics.topic(key);
        if topic.attendance.is_some() {
            self.tidings.changed.entry_ref(&topic.name).or_default().insert(token);
        }
    }

    /// The connection is another user's now.
    pub fn note_user(&mut self, token: Token) {
        for key in self.members.topics(token).to_vec() {
            self.note_presence(key, token);
        }
    }

    /// Whether some home is to be told of something.
    pub fn has_changes(&self) -> bool {
        !self.tidings.changed.is_empty()
    }

    /// Topics whose homes are to be told, and the connections that have changed there. What cannot be told
    /// now waits, and is told as it stands then.
    pub fn take_changed(&mut self) -> Vec<(TopicName, Vec<Token>)> {
        let Self { tidings, topics, congested, .. } = self;
        let can_take = |topic: &str| !congested.contains(&topics.home(topics.hash(topic)));
        let changed = tidings.changed.extract_if(|topic, _| can_take(topic));
        changed.map(|(topic, tokens)| (topic, tokens.into_iter().collect())).collect()
    }

    /// Tells the home of a topic who of these is there and who is not. They come with what they are called;
    /// `None`: the connection is gone.
    pub fn tell_home(
        &mut self,
        topic: TopicName,
        connections: impl Iterator<Item = (Token, Option<ConnectionId>)>,
        effects: &mut Vec<Effect>,
    ) {
        let changes = connections.map(|(token, name)| {
            let name = name.filter(|_| self.is_subscribed(token, &topic));
            let user = self.users.user_of(token).cloned();
            let shown = &self.options(&topic).presence_info;
            let arrival = name.map(|connection_id| {
                let info = self.users.receivers().attributes(token.slot).shown(shown);
                Arrival { connection_id, user, info: info.map(Into::into) }
            });
            Change { token, arrival }
        });
        let (home, from) = (self.topics.home(self.topics.hash(&topic)), self.shard);
        let changes = changes.collect();
        if home == from {
            self.take_changes(&topic, from, changes, effects);
        } else {
            let message = Box::new(PresenceMessage::Changes { from, changes });
            effects.push(Effect::Send {
                to: home,
                message: ShardMessage::Presence { topic, message },
            });
        }
    }

    /// A message of another shard.
    pub(super) fn receive_presence(
        &mut self,
        topic: TopicName,
        message: PresenceMessage,
        effects: &mut Vec<Effect>,
    ) {
        match message {
            PresenceMessage::Changes { from, changes } => {
                self.take_changes(&topic, from, changes, effects);
            }
            PresenceMessage::Notice { frame } => effects.push(Effect::Notice { topic, frame }),
            PresenceMessage::Query { reader, query, receipt } => {
                let presence = self.presence_of(&topic, query);
                let message = Box::new(PresenceMessage::Answer { reader, presence, receipt });
                let message = ShardMessage::Presence { topic, message };
                effects.push(Effect::Send { to: reader.shard, message });
            }
            PresenceMessage::Answer { reader: Reader { token, .. }, presence, receipt } => {
                self.queries -= 1;
                effects.push(Effect::Presence { token, topic, presence, request_id: receipt });
            }
        }
    }

    /// At home.
    fn take_changes(
        &mut self,
        name: &TopicName,
        from: ShardId,
        changes: Vec<Change>,
        effects: &mut Vec<Effect>,
    ) {
        let hash = self.topics.hash(name);
        let is_joined = changes.iter().any(|change| change.arrival.is_some());
        let key = match self.topics.find(hash, name) {
            Some(key) => key,
            // The telling shard has counted it against its own table already.
            None if is_joined => self.insert_unbounded(hash, name.clone()),
            None => return,
        };
        let now = self.now;
        let Some(attendance) = &mut self.topics.topic_mut(key).attendance else { return };
        let Attendance { roster, interval, told, is_listed } = &mut **attendance;
        for Change { token, arrival } in changes {
            match arrival {
                Some(arrival) => roster.join((from, token), arrival, now),
                None => roster.leave((from, token)),
            }
        }
        match interval {
            None => roster.forget_news(),
            Some(interval) if roster.has_news() && !*is_listed => {
                *is_listed = true;
                let crowd = roster.count().clients.try_into().unwrap_or(u32::MAX);
                let interval = (*interval).max(INTERVAL_PER_CLIENT.saturating_mul(crowd));
                let due = told.after(interval).max(now);
                self.tidings.list(due, name.clone());
            }
            Some(_) => {}
        }
        self.lose_interest(key, effects);
    }

    /// When subscribers are to be told of something.
    pub fn next_notice(&self) -> Option<Moment> {
        let ((due, _), _) = self.tidings.due.first_key_value()?;
        Some(Moment(due.0.saturating_sub(self.origin.unix_start)))
    }

    /// Tells subscribers who came and went where it is time for that: [`Effect::News`] follow, of a bounded
    /// number of topics.
    pub fn tell_subscribers(&mut self, effects: &mut Vec<Effect>) {
        for _ in 0..TOLD_MAX {
            let Some(first) = self.tidings.due.first_entry() else { return };
            if first.key().0 > self.now {
                return;
            }
            let name = first.remove();
            let Some(key) = self.find(&name) else { continue };
            let topic = self.topics.topic(key);
            if topic.interested.iter().any(|shard| self.congested.contains(shard)) {
                self.tidings.list(self.now.after(CONGESTED_PAUSE), name);
                continue;
            }
            let now = self.now;
            let interested = topic.interested.clone();
            let Some(attendance) = &mut self.topics.topic_mut(key).attendance else { continue };
            attendance.is_listed = false;
            attendance.told = now;
            for notice in attendance.roster.take_news() {
                let (topic, interested) = (name.clone(), interested.clone());
                effects.push(Effect::News { topic, interested, notice });
            }
        }
    }

    /// The slots of those who are to get a notice.
    pub fn listeners(&self, name: &str) -> Vec<Token> {
        let Some(key) = self.find(name) else { return Vec::new() };
        let topic = self.topics.topic(key);
        let subscribers = &topic.subscribers;
        let live = (0..subscribers.places()).filter_map(|place| subscribers.at(place));
        let mut slots: Vec<_> = live.collect();
        if topic.past.as_ref().is_some_and(|past| past.cursors > 0) {
            slots.extend(self.cursors.readers_of(key));
        }
        slots.into_iter().filter_map(|slot| self.members.tenant_of(slot)).collect()
    }

    /// A client asks who is there: [`Effect::Presence`] follows, now or when the home has answered.
    ///
    /// # Errors
    ///
    /// The home can take no more messages at the moment.
    pub fn ask_presence(
        &mut self,
        token: Token,
        name: &str,
        query: PresenceQuery,
        request_id: Option<Box<str>>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), SubscribeError> {
        let hash = self.topics.hash(name);
        let home = self.topics.home(hash);
        let topic = self.name(self.topics.find(hash, name), name);
        if home == self.shard {
            let presence = self.presence_of(name, query);
            effects.push(Effect::Presence { token, topic, presence, request_id });
        } else if self.queries >= QUERIES_MAX || self.congested.contains(&home) {
            return Err(SubscribeError::Congested);
        } else {
            self.queries += 1;
            let (reader, receipt) = (self.reader(token), request_id);
            let message = Box::new(PresenceMessage::Query { reader, query, receipt });
            let message = ShardMessage::Presence { topic, message };
            effects.push(Effect::Send { to: home, message });
        }
        Ok(())
    }

    /// At home: who is there.
    pub fn presence_of(&mut self, name: &str, query: PresenceQuery) -> Presence {
        let key = self.find(name);
        let attendance = key.and_then(|key| self.topics.topic_mut(key).attendance.as_mut());
        attendance.map_or_else(Presence::default, |attendance| attendance.roster.page(query))
    }
}

impl Tidings {
    fn list(&mut self, due: Moment, topic: TopicName) {
        self.last += 1;
        self.due.insert((due, self.last), topic);
    }
}
