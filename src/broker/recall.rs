//! What is read from histories: by cursors, by queries; and what leaves them by time.

use super::Broker;
use super::behind::Question;
use super::cursors::{self, CursorState, Turn};
use super::effect::{Effect, Fed, SubscribeError};
use super::filling::TableFull;
use super::history::History;
use super::topics::{Topic, TopicKey};
use crate::ids::{Epoch, Moment, Token, TopicName};
use crate::message::{Ask, Begin, Opening, Page, Reader, ShardMessage, Slice};
use crate::proto::{HistoryQuery, Standing, Unavailable};

/// What one slice costs at most, if it has more than one publication. As much of a history may a
/// connection that takes no bytes keep from being forgotten.
pub const SLICE_COST_MAX: usize = 16 << 10;

/// Queries of one shard that the others, or the log, have not answered.
pub(super) const QUERIES_MAX: usize = 64;

/// Publications and message ids that expire at a time.
const EXPIRED_MAX: usize = 1024;

impl Broker {
    /// Lets one of the connection's cursors read, if it has any: call it when its queue has room.
    pub fn feed(&mut self, token: Token, effects: &mut Vec<Effect>) -> Fed {
        if let Some(fed) = self.reread(token, effects) {
            return fed;
        }
        let pauses = self.acks.is_paused(token);
        let pauses = |key| pauses && self.topics.topic(key).terms().is_some();
        let (key, next) = match self.cursors.turn(token, pauses) {
            Turn::None => return Fed::Nothing,
            Turn::Waiting => return Fed::Waiting,
            Turn::Read { topic, next } => (topic, next),
        };
        if self.is_behind(key, next) {
            return self.feed_behind(key, token, next, effects);
        }
        let topic = self.topics.topic(key);
        if let Some(history) = topic.history() {
            let slice = history.slice(next, self.limits.slice_cost_max, (self.shard, token));
            self.replay(key, token, slice, effects);
            return Fed::Something;
        }
        if self.cursors.reads_full() {
            return Fed::Stalled;
        }
        let (to, topic) = (topic.home, topic.name.clone());
        let reader = self.reader(token);
        self.cursors.asked(token, key, reader.ask);
        let message = ShardMessage::Read { topic, reader, next };
        effects.push(Effect::Send { to, message });
        Fed::Waiting
    }

    /// Whether [`Broker::feed`] stalls connections until a slice has come.
    pub fn reads_full(&self) -> bool {
        self.cursors.reads_full()
    }

    /// A client asks for a part of a history; [`Effect::Page`] follows, now or when the home has
    /// answered.
    pub fn query(
        &mut self,
        token: Token,
        name: &str,
        query: &HistoryQuery,
        request_id: Option<Box<str>>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), SubscribeError> {
        let topic = TopicName::new(name);
        let hash = self.topics.hash(name);
        let home = self.topics.home(hash);
        let waits = home != self.shard || self.is_durable(self.topics.find(hash, name), name);
        if waits && (self.queries >= QUERIES_MAX || self.congested.contains(&home)) {
            return Err(SubscribeError::Congested);
        }
        self.queries += 1;
        let (reader, query, receipt) = (self.reader(token), Box::new(*query), request_id);
        if home == self.shard {
            self.answer_query(topic, reader, query, receipt, effects);
            return Ok(());
        }
        let message = ShardMessage::Query { topic, reader, query, receipt };
        effects.push(Effect::Send { to: home, message });
        Ok(())
    }

    /// At home: what a query gets, as soon as it is known.
    pub(super) fn answer_query(
        &mut self,
        topic: TopicName,
        reader: Reader,
        query: Box<HistoryQuery>,
        receipt: Option<Box<str>>,
        effects: &mut Vec<Effect>,
    ) {
        let page = match self.find_loading(&topic) {
            Ok(None) if self.is_query_behind(&topic, &query) => {
                self.ask(Question::Range { topic, reader, query, receipt }, effects);
                return;
            }
            Ok(None) => self.page(&topic, &query),
            Ok(Some(key)) => {
                let message = ShardMessage::Query { topic, reader, query, receipt };
                self.hold(key, message);
                return;
            }
            // What the log has cannot be had here.
            Err(TableFull) => {
                Page { complete: Err(Unavailable::Trimmed), ..self.page(&topic, &query) }
            }
        };
        self.turn_page(topic, reader, page, receipt, effects);
    }

    /// At home: the answer to a query.
    pub(super) fn turn_page(
        &mut self,
        topic: TopicName,
        reader: Reader,
        page: Page,
        receipt: Option<Box<str>>,
        effects: &mut Vec<Effect>,
    ) {
        let page = Box::new(page);
        if reader.shard == self.shard {
            self.queries -= 1;
            let token = reader.token;
            effects.push(Effect::Page { token, topic, page, request_id: receipt });
        } else {
            let message = ShardMessage::Page { topic, reader, page, receipt };
            effects.push(Effect::Send { to: reader.shard, message });
        }
    }

    /// Whether channels with this name keep a history.
    pub fn has_history(&self, name: &str) -> bool {
        self.keeps_histories && self.options(name).has_history()
    }

    /// When histories have something to expire, or earlier.
    pub fn next_expiry(&self) -> Option<Moment> {
        let due = self.retention.next()?;
        Some(Moment(due.0.saturating_sub(self.origin.unix_start)))
    }

    /// Forgets what is too old, a bounded amount.
    pub fn expire(&mut self) {
        let mut left = EXPIRED_MAX;
        while left > 0 && self.retention.next().is_some_and(|due| due <= self.now) {
            left -= self.expire_next(left).clamp(1, left);
        }
    }

    /// Returns how many publications and ids that was.
    fn expire_next(&mut self, count: usize) -> usize {
        let Some(next) = self.retention.pop() else { return 0 };
        let now = self.now;
        let topic = self.topics.topic_mut(next.topic);
        let is_idle = topic.is_idle();
        let Some(history) = topic.history_mut() else { return 0 };
        if !is_idle {
            history.touch(now);
        }
        let before = history.cost();
        let dropped = history.expire(now, count);
        self.tally.queue_dropped += history.take_dropped();
        let is_over = is_idle && history.is_empty() && history.due() <= now;
        self.retention.account(before, history.cost());
        if self.retention.put_back(next, history, is_over) {
            topic.past = None;
            self.topics.remove_unused(next.topic);
        }
        dropped
    }

    /// Makes room in the memory for histories: what would expire first goes first.
    pub(super) fn evict(&mut self) {
        while self.retention.is_over()
            && let Some(next) = self.retention.pop_filled()
        {
            if self.unload(next.topic) {
                // It is listed for its end already, or with this.
                if let Some(history) = self.topics.topic_mut(next.topic).history_mut() {
                    self.retention.put_back(next, history, false);
                }
                continue;
            }
            let Some(history) = self.topics.topic_mut(next.topic).history_mut() else { continue };
            let before = history.cost();
            if next.due >= history.due() && (history.trim_oldest() || history.forget_oldest_id()) {
                self.tally.evicted += 1;
                self.tally.queue_dropped += history.take_dropped();
            }
            self.retention.account(before, history.cost());
            self.retention.put_back(next, history, false);
        }
    }

    /// Confirms a subscription, which is live at the head and a cursor elsewhere.
    pub(super) fn begin(
        &mut self,
        key: TopicKey,
        token: Token,
        request_id: Option<Box<str>>,
        opening: &Opening,
        effects: &mut Vec<Effect>,
    ) {
        let Opening { position, head, recovery } = *opening;
        self.tally.not_recovered +=
            u64::from(recovery.is_some_and(|recovery| recovery.outcome.is_err()));
        let topic = self.topics.topic(key).name.clone();
        let standing = Standing { position: Some(position), recovery };
        effects.push(Effect::Subscribed { token, topic, request_id, standing });
        if position.offset == head {
            self.admit(key, token);
        } else {
            let next = position.offset + 1;
            self.insert_cursor(key, token, CursorState::Reading { next });
            effects.push(Effect::Ready { token });
        }
    }

    /// Has the home say where a subscription begins. Without `request_ids` it belongs to a session that is
    /// being restored.
    pub(super) fn ask_opening(
        &mut self,
        key: TopicKey,
        token: Token,
        begin: Begin,
        request_ids: Vec<Option<Box<str>>>,
        effects: &mut Vec<Effect>,
    ) {
        self.enroll(key, token);
        self.members.waiting(token);
        let reader = self.reader(token);
        let resumes = request_ids.is_empty();
        let opening = cursors::Opening { ask: reader.ask, request_ids, resumes };
        self.insert_cursor(key, token, CursorState::Opening(opening));
        self.ensure_interest(key, effects);
        let topic = self.topics.topic(key);
        let (to, topic) = (topic.home, topic.name.clone());
        let begin_there = Box::new(begin);
        let message = ShardMessage::Open { topic: topic.clone(), reader, begin: begin_there };
        if to != self.shard {
            effects.push(Effect::Send { to, message });
        } else if self.is_loading(key) {
            self.hold(key, message);
        } else {
            self.ask(Question::Place { topic, reader, begin }, effects);
        }
    }

    /// At home: where does a subscription of another shard begin?
    pub(super) fn answer_open(
        &mut self,
        topic: TopicName,
        reader: Reader,
        begin: Begin,
        effects: &mut Vec<Effect>,
    ) {
        // Its interest came before this and has not been withdrawn, or nobody waits for an answer.
        let Some(key) = self.find(&topic) else { return };
        if self.is_loading(key) {
            let message = ShardMessage::Open { topic, reader, begin: Box::new(begin) };
            self.hold(key, message);
            return;
        }
        if self.is_place_behind(key, begin.start) {
            self.ask(Question::Place { topic, reader, begin }, effects);
            return;
        }
        let Some(history) = self.topics.topic(key).history() else { return };
        let opening = history.open(begin);
        self.mark(key);
        self.answer_opening(topic, reader, opening, effects);
    }

    /// At home: where a subscription begins.
    pub(super) fn answer_opening(
        &mut self,
        topic: TopicName,
        reader: Reader,
        opening: Opening,
        effects: &mut Vec<Effect>,
    ) {
        let opening = Box::new(opening);
        if reader.shard == self.shard {
            self.opened(&topic, reader, &opening, effects);
            return;
        }
        let message = ShardMessage::Opened { topic, reader, opening };
        effects.push(Effect::Send { to: reader.shard, message });
    }

    /// The home has said where a subscription begins.
    pub(super) fn opened(
        &mut self,
        name: &TopicName,
        reader: Reader,
        opening: &Opening,
        effects: &mut Vec<Effect>,
    ) {
        let Some(key) = self.find(name) else { return };
        let token = reader.token;
        match self.cursors.find(token, key) {
            Some(CursorState::Opening(opening)) if opening.ask == reader.ask => {}
            // It was withdrawn, and asked again perhaps.
            _ => return,
        }
        let state = self.remove_cursor(key, token);
        let Some(CursorState::Opening(waiting)) = state else { return };
        let mut request_ids = waiting.request_ids.into_iter();
        self.members.answered(token);
        if waiting.resumes {
            let standing = self.hold_cursor(key, token, opening);
            self.note_resumed(key, token, standing, effects);
        } else {
            self.begin(key, token, request_ids.next().flatten(), opening, effects);
        }
        for request_id in request_ids {
            self.members.answered(token);
            let standing = Standing { position: Some(opening.position), recovery: None };
            let topic = name.clone();
            effects.push(Effect::Subscribed { token, topic, request_id, standing });
        }
    }

    /// At home: a cursor of another shard reads.
    pub(super) fn answer_read(
        &mut self,
        topic: TopicName,
        reader: Reader,
        next: u64,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(key) = self.find(&topic)
            && self.is_behind(key, next)
        {
            match self.slice_behind(key, next, effects) {
                Some(slice) => self.hand_slice(topic, reader, slice, effects),
                None => self.want(key, next, Some(reader), effects),
            }
            return;
        }
        let (author, cost_max) = ((reader.shard, reader.token), self.limits.slice_cost_max);
        let slice = self.find_history(&topic).map_or_else(
            // Nobody waits for it any more; but every read ends.
            || Slice { gap: None, frames: Vec::new(), next, at_head: false, failed: false },
            |history| history.slice(next, cost_max, author),
        );
        self.hand_slice(topic, reader, slice, effects);
    }

    /// At home: what a cursor, here or elsewhere, has waited for.
    pub(super) fn hand_slice(
        &mut self,
        topic: TopicName,
        reader: Reader,
        slice: Slice,
        effects: &mut Vec<Effect>,
    ) {
        if reader.shard == self.shard {
            self.sliced(&topic, reader, slice, effects);
            return;
        }
        let slice = Box::new(slice);
        let message = ShardMessage::Slice { topic, reader, slice };
        effects.push(Effect::Send { to: reader.shard, message });
    }

    /// A slice for a cursor here.
    pub(super) fn sliced(
        &mut self,
        name: &TopicName,
        reader: Reader,
        slice: Slice,
        effects: &mut Vec<Effect>,
    ) {
        self.cursors.end_read();
        let token = reader.token;
        if let Err(slice) = self.reread_answered(reader, slice, effects)
            && let Some(key) = self.find(name)
            && self.cursors.answered(token, key, reader.ask)
        {
            self.replay(key, token, slice, effects);
        }
        effects.push(Effect::Ready { token });
    }

    /// A fan-out has left connections behind: they go on from the history. So many of them have too much
    /// to acknowledge, the others are slow.
    pub(super) fn fall_behind(&mut self, key: TopicKey, full: u64, effects: &mut Vec<Effect>) {
        let mut behind = std::mem::take(&mut self.behind);
        self.tally.fell_behind += behind.len() as u64 - full;
        self.tally.ack_paused += full;
        for (slot, next) in behind.drain(..) {
            let Some(token) = self.members.tenant_of(slot) else { continue };
            self.insert_cursor(key, token, CursorState::Reading { next });
            effects.push(Effect::Ready { token });
        }
        self.behind = behind;
    }

    pub(super) fn remove_cursor(&mut self, key: TopicKey, token: Token) -> Option<CursorState> {
        let state = self.cursors.remove(token, key)?;
        if let Some(past) = &mut self.topics.topic_mut(key).past {
            past.cursors -= 1;
        }
        Some(state)
    }

    /// What a query gets.
    pub(super) fn page(&self, topic: &TopicName, query: &HistoryQuery) -> Page {
        let cost_max = self.limits.page_bytes_max;
        if let Some(history) = self.find_history(topic) {
            return history.page(query, cost_max);
        }
        // As one that nobody has published to; it has no epoch yet.
        let options = self.options(topic).clone();
        let page = History::new(Epoch(0), options, self.now).page(query, cost_max);
        Page { position: None, ..page }
    }

    /// Hands a slice on, but for what the subscription is not for. The one that reaches the head makes it
    /// live.
    pub(super) fn replay(
        &mut self,
        key: TopicKey,
        token: Token,
        mut slice: Slice,
        effects: &mut Vec<Effect>,
    ) {
        if slice.failed {
            self.remove_cursor(key, token);
            effects.push(Effect::Unreadable { token });
            return;
        }
        self.retain_selected(key, token, &mut slice.frames);
        let Slice { gap, frames, next, at_head, .. } = self.note_slice(key, token, slice);
        self.tally.gaps += u64::from(gap.is_some());
        if gap.is_some() || !frames.is_empty() {
            let topic = self.topics.topic(key);
            self.namespaces.note_deliveries(topic.space, frames.len());
            let is_inbox = topic.past.as_ref().is_some_and(|past| past.is_inbox);
            let topic = topic.name.clone();
            let handed =
                is_inbox.then(|| Effect::Handed { token, topic: topic.clone(), upto: next - 1 });
            effects.push(Effect::Replay { token, topic, gap, frames });
            effects.extend(handed);
        }
        if at_head {
            self.remove_cursor(key, token);
            self.admit(key, token);
        } else if let Some(CursorState::Reading { next: place }) = self.cursors.find(token, key) {
            *place = next;
        }
    }

    pub(super) fn insert_cursor(&mut self, key: TopicKey, token: Token, state: CursorState) {
        self.cursors.insert(token, key, state);
        if let Some(past) = &mut self.topics.topic_mut(key).past {
            past.cursors += 1;
        }
    }

    pub(super) fn find_history(&self, name: &str) -> Option<&History> {
        self.find(name).and_then(|key| Topic::history(self.topics.topic(key)))
    }

    pub(super) fn reader(&mut self, token: Token) -> Reader {
        self.last_ask += 1;
        Reader { shard: self.shard, token, ask: Ask(self.last_ask) }
    }
}
