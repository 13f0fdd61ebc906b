//! Subscriptions: how they begin and how they end.

use super::cursors::CursorState;
use super::effect::{Effect, SubscribeError, SubscribeRequest};
use super::subscribers::Inserted;
use super::topics::{Hold, Interest, TopicKey, Waiting};
use super::{Broker, NO_HISTORY};
use crate::ids::{Position, Token};
use crate::proto::{Standing, Start};

impl Broker {
    /// Subscribes a connection; [`Effect::Subscribed`] follows, now or when the home has answered.
    /// Subscribing again is confirmed again, from where the subscription stands.
    pub fn subscribe(
        &mut self,
        request: SubscribeRequest<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), SubscribeError> {
        let (token, select) = (request.token, request.select.clone());
        let key = self.begin_subscription(request, effects)?;
        // What is delivered from here on comes behind the confirmation.
        self.select(key, token, select);
        Ok(())
    }

    fn begin_subscription(
        &mut self,
        request: SubscribeRequest<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<TopicKey, SubscribeError> {
        let SubscribeRequest { token, topic: name, begin, request_id, .. } = request;
        let hash = self.topics.hash(name);
        let found = self.topics.find(hash, name);
        if let Some(key) = found
            && let Some(standing) = self.standing(key, token)
        {
            let topic = self.topics.topic(key).name.clone();
            effects.push(Effect::Subscribed { token, topic, request_id, standing });
            return Ok(key);
        }
        let limit = self.limits.subscriptions_per_connection_max;
        if self.members.subscriptions(token) >= limit as usize + self.inboxes_of(token) {
            return Err(SubscribeError::TooMany { limit });
        }
        if let Some(key) = found
            && self.is_under_way(key, token)
        {
            self.wait_behind(key, token, request_id);
            return Ok(key);
        }
        let home = self.topics.home(hash);
        let asks = begin.start != Start::Now;
        if (found.is_none() || asks) && self.congested.contains(&home) {
            return Err(SubscribeError::Congested);
        }
        let key = match found {
            Some(key) => key,
            None => self
                .insert_topic(hash, name)
                .ok_or(SubscribeError::TableFull { limit: self.limits.topics_max })?,
        };
        let topic = self.topics.topic(key);
        let last = topic.past.as_ref().is_some_and(|past| past.last);
        // Until the log has told where the topic is, it is as one whose home has not answered.
        let is_loading = self.is_loading(key);
        if self.is_place_behind(key, begin.start) && !topic.is_waiting(token) {
            self.ask_opening(key, token, begin, vec![request_id], effects);
        } else if let Some(history) = topic.history().filter(|_| !is_loading) {
            let opening = history.open(begin);
            self.mark(key);
            self.enroll(key, token);
            self.begin(key, token, request_id, &opening, effects);
        } else if topic.past.is_some() && (asks || last) && !topic.is_waiting(token) {
            self.ask_opening(key, token, begin, vec![request_id], effects);
        } else if (topic.home == self.shard && !is_loading) || topic.interest == Interest::Held {
            self.enroll(key, token);
            self.admit(key, token);
            let topic = self.topics.topic(key);
            let standing = Standing {
                position: topic.position(),
                recovery: (asks && topic.past.is_none()).then_some(NO_HISTORY),
            };
            let topic = topic.name.clone();
            effects.push(Effect::Subscribed { token, topic, request_id, standing });
        } else {
            let wants_history = asks && topic.past.is_none();
            let waiting = Waiting { token, request_id, wants_history, hold: Hold::No };
            self.ask_home(key, waiting, effects);
        }
        Ok(key)
    }

    /// Ends a subscription, or the wait for it. `false`: there is none.
    pub fn unsubscribe(&mut self, token: Token, name: &str, effects: &mut Vec<Effect>) -> bool {
        self.leave_room(token, name, effects);
        let Some(key) = self.topics.find(self.topics.hash(name), name) else { return false };
        let withdrawn = self.withdraw_resumed(key, token, effects);
        let topic = self.topics.topic_mut(key);
        let mut found = topic.subscribers.remove(token.slot) || withdrawn;
        // Somebody who waited is answered first, in the order of the requests.
        let waiting = topic.waiting.extract_if(.., |waiting| waiting.token == token);
        let mut unanswered: Vec<_> = waiting.map(|waiting| waiting.request_id).collect();
        if topic.past.is_some()
            && let Some(state) = self.remove_cursor(key, token)
        {
            found = true;
            if let CursorState::Opening(opening) = state {
                if opening.resumes {
                    self.members.answered(token);
                }
                unanswered.extend(opening.request_ids);
            }
        }
        if self.acks.remove(token, key) {
            effects.push(Effect::Ready { token });
        }
        for request_id in unanswered {
            found = true;
            self.members.answered(token);
            let topic = self.topics.topic(key).name.clone();
            let standing = Standing::default();
            effects.push(Effect::Subscribed { token, topic, request_id, standing });
        }
        self.members.remove(token, key);
        self.topics.topic_mut(key).set_selection(token.slot, None);
        self.note_presence(key, token);
        self.lose_interest(key, effects);
        if withdrawn {
            self.finish_resumption(token, effects);
        }
        found
    }

    /// The connection is gone.
    pub fn leave(&mut self, token: Token, effects: &mut Vec<Effect>) {
        self.leave_user(token);
        self.leave_rooms(token, effects);
        self.forget_resumption(token);
        self.acks.leave(token);
        for key in self.members.leave(token) {
            self.note_presence(key, token);
            let topic = self.topics.topic_mut(key);
            topic.subscribers.remove(token.slot);
            topic.set_selection(token.slot, None);
            topic.waiting.retain(|waiting| waiting.token != token);
            if topic.past.is_some() {
                self.remove_cursor(key, token);
            }
            self.lose_interest(key, effects);
        }
    }

    /// Where the subscription of a connection stands, if it has one that is confirmed.
    pub(super) fn standing(&mut self, key: TopicKey, token: Token) -> Option<Standing> {
        let topic = self.topics.topic(key);
        if let Some(place) = topic.subscribers.place_of(token.slot) {
            return Some(Standing { position: topic.reached(token.slot, place), recovery: None });
        }
        let position = topic.past.as_ref().and_then(|_| topic.position());
        match self.cursors.find(token, key)? {
            CursorState::Reading { next } | CursorState::Held { next } => {
                let offset = *next - 1;
                let position = position.map(|Position { epoch, .. }| Position { epoch, offset });
                Some(Standing { position, recovery: None })
            }
            CursorState::Opening(_) => None,
        }
    }

    /// Makes a connection one of the topic's, which it must not be already.
    pub(super) fn enroll(&mut self, key: TopicKey, token: Token) {
        self.members.insert(token, key);
        self.note_presence(key, token);
    }

    /// Makes a connection a subscriber, from the next publication on.
    pub(super) fn admit(&mut self, key: TopicKey, token: Token) -> Inserted {
        let topic = self.topics.topic_mut(key);
        let inserted = topic.subscribers.insert(token.slot);
        if let Some(fanout) = &mut topic.fanout {
            fanout.subscribed(token.slot, inserted);
        }
        inserted
    }
}
