//! Whoever is no connection: the server API, which publishes and looks around.

use bytes::Bytes;

use super::Broker;
use super::effect::Effect;
use super::topics::TopicKey;
use crate::ids::{Token, TopicName};
use crate::io::FramePool;
use crate::message::{ConnectionInfo, Publisher};
use crate::proto::encoder;

/// Places of the table that [`Broker::list_topics`] looks at in one call.
const LISTED_MAX: u32 = 1024;

impl Broker {
    /// At home: somebody who is no connection publishes, by the door of the other shards' clients.
    /// [`Effect::Published`] follows, now or when the log has answered.
    pub fn publish_from_outside(
        &mut self,
        topic: TopicName,
        data: Bytes,
        publisher: Publisher,
        frames: &mut FramePool,
        effects: &mut Vec<Effect>,
    ) {
        let body =
            if self.has_history(&topic) { data } else { encoder::publication_frame(&topic, &data) };
        self.receive_publication(topic, body, publisher, frames, effects);
    }

    /// Topics at home here from this place in the table on, and where to go on: a bounded piece.
    pub fn list_topics(&self, from: u32) -> (Vec<(u32, TopicName)>, Option<u32>) {
        let end = self.topics.places();
        let until = from.saturating_add(LISTED_MAX).min(end);
        let found = (from..until).filter_map(|place| {
            let topic = self.topics.get(TopicKey(place))?;
            let is_listed = topic.home == self.shard && !topic.name.is_inbox();
            is_listed.then(|| (place, topic.name.clone()))
        });
        (found.collect(), (until < end).then_some(until))
    }

    /// How many of this shard's connections are subscribed to it.
    pub fn subscribers(&self, name: &str) -> u32 {
        let Some(key) = self.find(name) else { return 0 };
        let topic = self.topics.topic(key);
        let cursors = topic.past.as_ref().map_or(0, |past| past.cursors);
        topic.subscribers.len() as u32 + cursors
    }

    /// The topics of a connection, as many as are told at once.
    pub fn topics_of(&self, token: Token) -> Vec<TopicName> {
        let names = self.members.topics(token).iter().map(|key| &self.topics.topic(*key).name);
        let names = names.filter(|name| !name.is_inbox());
        names.take(ConnectionInfo::TOPICS_MAX).cloned().collect()
    }

    /// The topic of a connection that has one only.
    pub fn only_topic(&self, token: Token) -> Option<&TopicName> {
        let names = self.members.topics(token).iter().map(|key| &self.topics.topic(*key).name);
        let mut names = names.filter(|name| !name.is_inbox());
        names.next().filter(|_| names.next().is_none())
    }

    /// Bytes of publications that wait for their fan-out.
    pub fn fanout_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// Bytes of all histories here, as `limits.history_memory` counts them.
    pub fn history_bytes(&self) -> usize {
        self.retention.bytes
    }

    /// Bytes that wait for the durable log.
    pub fn log_bytes(&self) -> usize {
        self.log_bytes
    }
}
