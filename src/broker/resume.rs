//! The subscriptions of a session on a new connection: all of them stand before any of them gets something,
//! so that one message can tell of them all.
//!
//! Until then a subscription with a history is a cursor that does not read, and one without waits beside
//! those whose home has not answered.

use super::acking::Unacked;
use super::cursors::CursorState;
use super::effect::{Effect, Resumed};
use super::topics::{Hold, Interest, TopicKey, Waiting};
use super::{Broker, NO_HISTORY};
use crate::config::Level;
use crate::ids::{Position, Token, TopicName};
use crate::message::{Begin, Opening, SessionSubscription};
use crate::proto::{ErrorCode, Recovery, Standing, Start, Unavailable};

type Outcome = Result<Standing, ErrorCode>;

/// Of a subscription without history.
pub(super) const LIVE: Standing = Standing { position: None, recovery: Some(NO_HISTORY) };

/// The connection had subscribed by itself.
const SUBSCRIBED: Recovery = Recovery { outcome: Err(Unavailable::Subscribed), count: 0 };

/// A session that is being restored.
#[derive(Debug)]
pub struct Resumption {
    generation: u32,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    subscription: SessionSubscription,
    /// `None`: there is nothing to be done for it any more.
    topic: Option<TopicKey>,
    /// `None`: its home has not answered.
    outcome: Option<Outcome>,
}

impl Broker {
    /// Subscribes a connection to what its session was subscribed to, each from the place beside it.
    /// [`Effect::Resumed`] follows, now or when all homes have answered. One at a time for a connection.
    pub fn resume(
        &mut self,
        token: Token,
        wanted: Vec<(SessionSubscription, Start)>,
        effects: &mut Vec<Effect>,
    ) {
        let mut entries = Vec::with_capacity(wanted.len());
        for (subscription, start) in wanted {
            let start = self.unacked_start(&subscription, start);
            let (topic, outcome) = match self.resume_one(token, &subscription.topic, start, effects)
            {
                Ok((topic, outcome)) => {
                    let is_lost = |standing: Standing| {
                        standing.recovery.is_some_and(|recovery| recovery.outcome.is_err())
                    };
                    if topic.is_some() && !outcome.is_some_and(is_lost) {
                        self.resume_unacked(token, &subscription, start);
                    }
                    if let Some(key) = topic {
                        let filter = subscription.filter.clone();
                        self.topics.topic_mut(key).set_selection(token.slot, filter);
                    }
                    (topic, outcome.map(Ok))
                }
                Err(code) => (None, Some(Err(code))),
            };
            entries.push(Entry { subscription, topic, outcome });
        }
        self.resumptions.insert(token.slot, Resumption { generation: token.generation, entries });
        self.finish_resumption(token, effects);
    }

    /// What the connection is subscribed to, for its session: only what its client was told of, or will
    /// be, with `places`; of acked topics with what it has acknowledged. What a session could not get back
    /// here is among it.
    pub fn session_subscriptions(
        &mut self,
        token: Token,
        places: &super::Places,
    ) -> Vec<SessionSubscription> {
        let mut unacked = self.unacked(token);
        unacked.sort_unstable_by(|one, other| one.topic.cmp(&other.topic));
        let mut subscriptions = Vec::new();
        for &key in self.members.topics(token) {
            let topic = self.topics.topic(key);
            // Whoever is the user has its inboxes.
            if topic.name.is_inbox() {
                continue;
            }
            let position = places.get(key);
            let is_known = match topic.past {
                Some(_) => position.is_some(),
                None => topic.subscribers.contains(token.slot) || self.is_held(key, token),
            };
            if is_known {
                let topic = topic.name.clone();
                let found = unacked.binary_search_by(|unacked| unacked.topic.cmp(&topic)).ok();
                let (position, acked) = found.map_or((position, Box::default()), |found| {
                    let unacked = &unacked[found];
                    (Some(unacked.position), unacked.acked.as_slice().into())
                });
                let is_member = self.rooms_of(token).contains(&topic);
                let filter = self.topics.topic(key).selection(token.slot).cloned();
                let subscription =
                    SessionSubscription { topic, position, acked, is_member, filter };
                subscriptions.push(subscription);
            }
        }
        let refused = |entry: &&Entry| matches!(entry.outcome, Some(Err(_)));
        if let Some(resumption) = self.resumption(token) {
            let refused = resumption.entries.iter().filter(refused);
            subscriptions.extend(refused.map(|entry| entry.subscription.clone()));
        }
        subscriptions
    }

    /// Where the subscriptions of a connection stand that has the session already.
    pub fn standings(&mut self, token: Token) -> Vec<Resumed> {
        let mut standings = Vec::new();
        for key in self.members.topics(token).to_vec() {
            if let Some(standing) = self.standing(key, token) {
                let recovery = Some(Recovery { outcome: Ok(()), count: 0 });
                let topic = self.topics.topic(key).name.clone();
                let (position, acked) = (standing.position, Box::default());
                let (is_member, filter) = (false, None);
                let subscription =
                    SessionSubscription { topic, position, acked, is_member, filter };
                let outcome = Ok(Standing { recovery, ..standing });
                standings.push(Resumed { subscription, outcome });
            }
        }
        standings
    }

    /// Subscriptions of a connection, those that are not confirmed included.
    pub fn subscriptions(&self, token: Token) -> usize {
        let topics = self.members.topics(token).iter();
        topics.filter(|key| !self.topics.topic(**key).name.is_inbox()).count()
    }

    /// Where a subscription that its client says begins at `start` does begin. Of an acked topic the client
    /// has acknowledged everything up to where it is, and never less than before.
    fn unacked_start(&self, subscription: &SessionSubscription, start: Start) -> Start {
        let is_acked = self.options(&subscription.topic).level == Level::Acked;
        match (start, subscription.position) {
            (Start::Recover { epoch, offset }, Some(kept))
                if is_acked && epoch.is_none_or(|epoch| epoch == kept.epoch) =>
            {
                Start::Recover { epoch, offset: offset.max(kept.offset) }
            }
            _ => start,
        }
    }

    /// What was acknowledged behind the place where a subscription begins is not sent again.
    fn resume_unacked(
        &mut self,
        token: Token,
        SessionSubscription { topic, position, acked, .. }: &SessionSubscription,
        start: Start,
    ) {
        let (Start::Recover { epoch, offset }, Some(kept)) = (start, *position) else { return };
        if epoch.is_none_or(|epoch| epoch == kept.epoch) {
            let behind = acked.iter().filter(|(_, last)| *last > offset);
            let acked = behind.map(|(first, last)| ((*first).max(offset + 1), *last)).collect();
            let position = Position { offset, ..kept };
            self.restore_unacked(token, &Unacked { topic: topic.clone(), position, acked });
        }
    }

    fn resume_one(
        &mut self,
        token: Token,
        name: &TopicName,
        start: Start,
        effects: &mut Vec<Effect>,
    ) -> Result<(Option<TopicKey>, Option<Standing>), ErrorCode> {
        let hash = self.topics.hash(name);
        let found = self.topics.find(hash, name);
        if let Some(key) = found
            && (self.topics.topic(key).is_waiting(token) || self.has_place(key, token))
        {
            let standing = self.standing(key, token).unwrap_or_default();
            return Ok((None, Some(Standing { recovery: Some(SUBSCRIBED), ..standing })));
        }
        if self.members.subscriptions(token)
            >= self.limits.subscriptions_per_connection_max as usize
        {
            return Err(ErrorCode::TooManySubscriptions);
        }
        let home = self.topics.home(hash);
        let asks_home = found.is_none_or(|key| {
            let topic = self.topics.topic(key);
            topic.past.is_some() || topic.interest != Interest::Held
        });
        if asks_home && self.congested.contains(&home) {
            return Err(ErrorCode::BacklogFull);
        }
        let key = found.or_else(|| self.insert_topic(hash, name)).ok_or(ErrorCode::Unavailable)?;
        let is_loading = self.is_loading(key);
        if self.topics.topic(key).past.is_none() {
            self.enroll(key, token);
            let topic = self.topics.topic_mut(key);
            topic.waiting.push(Waiting {
                token,
                request_id: None,
                wants_history: true,
                hold: Hold::Session,
            });
            if home == self.shard || topic.interest == Interest::Held {
                return Ok((Some(key), Some(LIVE)));
            }
            self.ensure_interest(key, effects);
            return Ok((Some(key), None));
        }
        let begin = Begin { start, limit: None };
        let is_behind = self.is_place_behind(key, start);
        let topic = self.topics.topic(key);
        if let Some(history) = topic.history().filter(|_| !is_loading && !is_behind) {
            let opening = history.open(begin);
            self.enroll(key, token);
            return Ok((Some(key), Some(self.hold_cursor(key, token, &opening))));
        }
        self.ask_opening(key, token, begin, Vec::new(), effects);
        Ok((Some(key), None))
    }

    /// Whether the connection is subscribed to the topic, or waits for its history.
    fn has_place(&mut self, key: TopicKey, token: Token) -> bool {
        self.topics.topic(key).subscribers.contains(token.slot)
            || self.cursors.find(token, key).is_some()
    }

    /// The cursor of a session that is being restored begins here; it reads when the session is.
    pub(super) fn hold_cursor(
        &mut self,
        key: TopicKey,
        token: Token,
        opening: &Opening,
    ) -> Standing {
        let Opening { position, recovery, .. } = *opening;
        if recovery.is_some_and(|recovery| recovery.outcome.is_err()) {
            self.tally.not_recovered += 1;
            // What was acknowledged was of another place.
            self.acks.remove(token, key);
        }
        self.insert_cursor(key, token, CursorState::Held { next: position.offset + 1 });
        Standing { position: Some(position), recovery }
    }

    /// Whether the connection has a subscription without history that waits for the rest of its session.
    pub(super) fn is_held(&self, key: TopicKey, token: Token) -> bool {
        let waiting = &self.topics.topic(key).waiting;
        waiting.iter().any(|waiting| waiting.hold != Hold::No && waiting.token == token)
    }

    /// Whether the connection waits for the history of the topic, or for the rest of its session.
    pub(super) fn is_under_way(&mut self, key: TopicKey, token: Token) -> bool {
        matches!(self.cursors.find(token, key), Some(CursorState::Opening(_)))
            || self.is_held(key, token)
    }

    /// Asked for again while it is under way: it is confirmed behind that.
    pub(super) fn wait_behind(
        &mut self,
        key: TopicKey,
        token: Token,
        request_id: Option<Box<str>>,
    ) {
        self.members.waiting(token);
        if let Some(CursorState::Opening(opening)) = self.cursors.find(token, key) {
            opening.request_ids.push(request_id);
            return;
        }
        let (wants_history, hold) = (false, Hold::Behind);
        let waiting = Waiting { token, request_id, wants_history, hold };
        self.topics.topic_mut(key).waiting.push(waiting);
    }

    /// The home of a topic has answered for a session that is being restored.
    pub(super) fn note_resumed(
        &mut self,
        key: TopicKey,
        token: Token,
        standing: Standing,
        effects: &mut Vec<Effect>,
    ) {
        let resumption = self.resumptions.get_mut(&token.slot);
        let Some(resumption) = resumption.filter(|it| it.generation == token.generation) else {
            return;
        };
        let mut entries = resumption.entries.iter_mut();
        if let Some(entry) = entries.find(|entry| entry.topic == Some(key)) {
            entry.outcome = Some(Ok(standing));
        }
        self.finish_resumption(token, effects);
    }

    /// The client unsubscribes before its session is restored. Returns whether it had to.
    pub(super) fn withdraw_resumed(
        &mut self,
        key: TopicKey,
        token: Token,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let resumption = self.resumptions.get_mut(&token.slot);
        let Some(resumption) = resumption.filter(|it| it.generation == token.generation) else {
            return false;
        };
        let before = resumption.entries.len();
        resumption.entries.retain(|entry| entry.topic != Some(key));
        let is_withdrawn = resumption.entries.len() < before;
        let held = self.topics.topic_mut(key).take_held(token);
        self.confirm_behind(key, held, Standing::default(), effects);
        is_withdrawn
    }

    pub(super) fn forget_resumption(&mut self, token: Token) {
        if self.resumption(token).is_some() {
            self.resumptions.remove(&token.slot);
        }
    }

    /// If everything is answered: the client is told, and the subscriptions begin.
    pub(super) fn finish_resumption(&mut self, token: Token, effects: &mut Vec<Effect>) {
        let is_answered = |resumption: &Resumption| {
            resumption.entries.iter().all(|entry| entry.outcome.is_some())
        };
        if !self.resumption(token).is_some_and(is_answered) {
            return;
        }
        let Some(resumption) = self.resumptions.remove(&token.slot) else { return };
        let mut subscriptions = Vec::with_capacity(resumption.entries.len());
        let mut reads = false;
        let mut live = Vec::new();
        for Entry { subscription, topic, outcome } in resumption.entries {
            subscriptions.extend(outcome.map(|outcome| Resumed { subscription, outcome }));
            let Some(key) = topic else { continue };
            match self.cursors.find(token, key) {
                Some(state @ CursorState::Held { .. }) => {
                    if let CursorState::Held { next } = *state {
                        *state = CursorState::Reading { next };
                    }
                    reads = true;
                }
                Some(_) => {}
                None => live.push(key),
            }
        }
        effects.push(Effect::Resumed { token, subscriptions });
        if reads {
            effects.push(Effect::Ready { token });
        }
        for key in live {
            let held = self.topics.topic_mut(key).take_held(token);
            self.admit(key, token);
            self.confirm_behind(key, held, LIVE, effects);
        }
    }

    /// Answers the requests for a subscription of a session, which has been told of.
    fn confirm_behind(
        &mut self,
        key: TopicKey,
        held: Vec<Waiting>,
        standing: Standing,
        effects: &mut Vec<Effect>,
    ) {
        for Waiting { token, request_id, hold, .. } in held {
            if hold == Hold::Behind {
                self.members.answered(token);
                let topic = self.topics.topic(key).name.clone();
                effects.push(Effect::Subscribed { token, topic, request_id, standing });
            }
        }
    }

    fn resumption(&self, token: Token) -> Option<&Resumption> {
        let resumption = self.resumptions.get(&token.slot)?;
        (resumption.generation == token.generation).then_some(resumption)
    }
}
