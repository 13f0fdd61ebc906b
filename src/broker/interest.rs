//! Between a topic's home and the shards that have subscribers: who wants its publications, and who waits
//! to hear that it gets them.

use super::effect::Effect;
use super::resume::LIVE;
use super::topics::{Hold, Interest, Record, TopicKey, Waiting};
use super::{Broker, NO_HISTORY};
use crate::ids::{Position, ShardId, TopicName};
use crate::message::{Ask, ShardMessage};
use crate::proto::Standing;

impl Broker {
    pub(super) fn ask_home(&mut self, key: TopicKey, waiting: Waiting, effects: &mut Vec<Effect>) {
        let token = waiting.token;
        if !self.topics.topic(key).is_waiting(token) {
            self.enroll(key, token);
        }
        self.members.waiting(token);
        self.topics.topic_mut(key).waiting.push(waiting);
        self.ensure_interest(key, effects);
    }

    /// Has the home send this topic's publications here from now on.
    pub(super) fn ensure_interest(&mut self, key: TopicKey, effects: &mut Vec<Effect>) {
        let topic = self.topics.topic_mut(key);
        if topic.home == self.shard {
            self.ask_log(key);
        } else if topic.interest == Interest::None {
            self.last_ask += 1;
            let ask = Ask(self.last_ask);
            topic.interest = Interest::Asked(ask);
            let (to, topic, from) = (topic.home, topic.name.clone(), self.shard);
            let message = ShardMessage::Interest { topic, from, ask };
            effects.push(Effect::Send { to, message });
        }
    }

    /// At home: another shard has subscribers.
    pub(super) fn interest(
        &mut self,
        topic: TopicName,
        from: ShardId,
        ask: Ask,
        effects: &mut Vec<Effect>,
    ) {
        let hash = self.topics.hash(&topic);
        let found = self.topics.find(hash, &topic);
        // The asking shard has counted it against its own table already.
        let key = found.unwrap_or_else(|| self.insert_unbounded(hash, topic.clone()));
        if self.is_loading(key) {
            self.hold(key, ShardMessage::Interest { topic, from, ask });
            return;
        }
        let entry = self.topics.topic_mut(key);
        if !entry.interested.contains(&from) {
            entry.interested.push(from);
        }
        let position = entry.position();
        let message = ShardMessage::Interested { topic, ask, position };
        effects.push(Effect::Send { to: from, message });
    }

    /// The home has answered: whoever waited is subscribed.
    pub(super) fn interested(
        &mut self,
        name: &TopicName,
        ask: Ask,
        position: Option<Position>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(key) = self.find(name) else { return };
        let topic = self.topics.topic_mut(key);
        if topic.interest != Interest::Asked(ask) {
            // The question was withdrawn, and asked again perhaps; that answer is on its way.
            return;
        }
        topic.interest = Interest::Held;
        if let Some(past) = &mut topic.past {
            past.record = Record::Away(position);
        }
        self.confirm_waiting(key, effects);
    }

    /// Whoever waited for the home, or the home for the log, is subscribed.
    pub(super) fn confirm_waiting(&mut self, key: TopicKey, effects: &mut Vec<Effect>) {
        let topic = self.topics.topic_mut(key);
        let (name, position) = (topic.name.clone(), topic.position());
        let mut held = Vec::new();
        for waiting in std::mem::take(&mut topic.waiting) {
            if waiting.hold != Hold::No {
                held.push(waiting);
                continue;
            }
            let Waiting { token, request_id, wants_history, .. } = waiting;
            self.members.answered(token);
            self.admit(key, token);
            let standing = Standing { position, recovery: wants_history.then_some(NO_HISTORY) };
            let topic = name.clone();
            effects.push(Effect::Subscribed { token, topic, request_id, standing });
        }
        // They stay until the whole session is there.
        let own = held.iter().filter(|waiting| waiting.hold == Hold::Session);
        let tokens: Vec<_> = own.map(|waiting| waiting.token).collect();
        self.topics.topic_mut(key).waiting = held;
        for token in tokens {
            self.note_resumed(key, token, LIVE, effects);
        }
    }

    pub(super) fn disinterest(
        &mut self,
        name: &TopicName,
        from: ShardId,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(key) = self.find(name) {
            if self.is_loading(key) {
                // Behind the interest that it ends.
                let message = ShardMessage::Disinterest { topic: name.clone(), from };
                self.hold(key, message);
                return;
            }
            self.topics.topic_mut(key).interested.retain(|shard| *shard != from);
            self.lose_interest(key, effects);
        }
    }

    /// Tells the home when the last subscriber has left, and forgets topics that nobody wants.
    pub(super) fn lose_interest(&mut self, key: TopicKey, effects: &mut Vec<Effect>) {
        let now = self.now;
        let topic = self.topics.topic_mut(key);
        if let Some(history) = topic.history_mut() {
            history.touch(now);
        }
        if !topic.has_listeners() && topic.interest != Interest::None {
            topic.interest = Interest::None;
            let (to, topic, from) = (topic.home, topic.name.clone(), self.shard);
            let message = ShardMessage::Disinterest { topic, from };
            effects.push(Effect::Send { to, message });
        }
        self.topics.remove_unused(key);
    }
}
