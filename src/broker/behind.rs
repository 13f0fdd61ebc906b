//! What lies behind the memory of a durable topic: the home reads it from the log, for cursors a chunk
//! at a time, for subscriptions and queries as they ask. What the log keeps is what there is: a place
//! is `trimmed` when the log has it no more.
//!
//! The order is exact because a cursor gets nothing but slices: from the log as long as its place is
//! behind the memory, then from the memory, whose last slice makes it live.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;

use super::Broker;
use super::chunks::{CHUNK_RECORDS, Chunk, Want};
use super::effect::{Effect, Fed};
use super::history::History;
use super::topics::TopicKey;
use crate::ids::{Position, Token, TopicName};
use crate::message::{Begin, LogMessage, LogPlace, LogSlice, Page, Reader, Slice, Ticket};
use crate::proto::{HistoryQuery, Since, Start, Unavailable, encoder};

/// What the log is asked for somebody.
#[derive(Debug)]
pub enum Question {
    /// Where a subscription begins.
    Place { topic: TopicName, reader: Reader, begin: Begin },
    /// Where what a query asks for begins and ends.
    Range { topic: TopicName, reader: Reader, query: Box<HistoryQuery>, receipt: Option<Box<str>> },
    /// The publications of a query.
    Page { topic: TopicName, reader: Reader, draft: Box<Draft>, receipt: Option<Box<str>> },
    /// For cursors.
    Chunk(Want),
}

/// An answer to a query that lacks its publications.
#[derive(Debug)]
pub struct Draft {
    page: Page,
    /// They are behind the first offset, up to the second.
    from: u64,
    to: u64,
    limit: usize,
    reverse: bool,
}

/// The questions of one shard to the log, but for those that open topics.
#[derive(Debug, Default)]
pub struct Questions {
    /// By ticket. At most [`Chunks::reads_max`](super::chunks::Chunks::reads_max).
    asked: HashMap<u64, Question, RandomState>,
    /// At most one for each subscription that is not confirmed, and each query.
    waiting: VecDeque<Question>,
}

impl Broker {
    /// Whether a cursor of a topic at home here has to be fed from the log.
    pub(super) fn is_behind(&self, key: TopicKey, next: u64) -> bool {
        let topic = self.topics.topic(key);
        topic
            .durable()
            .filter(|(history, _)| history.inbox.is_none())
            .is_some_and(|(history, durable)| durable.is_open() && next < history.first())
    }

    /// Whether the log has to tell where a subscription begins.
    pub(super) fn is_place_behind(&self, key: TopicKey, start: Start) -> bool {
        let Some((history, durable)) = self.topics.topic(key).durable() else { return false };
        durable.is_open()
            && history.inbox.is_none()
            && match history.named(start) {
                None => history.lacks_latest(durable.oldest),
                Some(Ok(since)) => !history.reaches(since, durable.oldest),
                Some(Err(_)) => false,
            }
    }

    /// Whether a query asks for what only the log has.
    pub(super) fn is_query_behind(&self, name: &str, query: &HistoryQuery) -> bool {
        self.find(name).and_then(|key| self.topics.topic(key).durable()).is_some_and(
            |(history, durable)| durable.is_open() && !history.reaches(query.since, durable.oldest),
        )
    }

    /// As [`Broker::feed`], from the log.
    pub(super) fn feed_behind(
        &mut self,
        key: TopicKey,
        token: Token,
        next: u64,
        effects: &mut Vec<Effect>,
    ) -> Fed {
        if let Some(slice) = self.slice_behind(key, next, effects) {
            self.replay(key, token, slice, effects);
            return Fed::Something;
        }
        if self.cursors.reads_full() {
            return Fed::Stalled;
        }
        let reader = self.reader(token);
        self.cursors.asked(token, key, reader.ask);
        self.want(key, next, Some(reader), effects);
        Fed::Waiting
    }

    /// What follows `next`, which is behind the memory, if it was read already.
    pub(super) fn slice_behind(
        &mut self,
        key: TopicKey,
        next: u64,
        effects: &mut Vec<Effect>,
    ) -> Option<Slice> {
        let topic = self.topics.topic(key);
        let (history, _) = topic.durable()?;
        let (epoch, head) = (history.position().epoch, history.first());
        let chunk = self.chunks.find(&topic.name, epoch, next)?;
        let slice = chunk.slice(next, self.limits.slice_cost_max);
        let end = chunk.end();
        // The next chunk is on its way before this one is used up.
        if chunk.nears_end(slice.next) && end < head {
            self.want(key, end, None, effects);
        }
        Some(slice)
    }

    /// Has a chunk read that begins at `from`: for somebody, or ahead of the one before it.
    pub(super) fn want(
        &mut self,
        key: TopicKey,
        from: u64,
        reader: Option<Reader>,
        effects: &mut Vec<Effect>,
    ) {
        let topic = self.topics.topic(key);
        let name = topic.name.clone();
        let epoch = topic.history().map(|history| history.position().epoch);
        if reader.is_none() && epoch.is_some_and(|epoch| self.chunks.contains(&name, epoch, from)) {
            return;
        }
        let asked = self.questions.asked.values_mut().filter_map(|question| match question {
            Question::Chunk(want) => Some(want),
            _ => None,
        });
        let mut wants = asked.chain(&mut self.chunks.wanted);
        if let Some(want) = wants.find(|want| want.from == from && want.topic == name) {
            want.readers.extend(reader);
            return;
        }
        let readers = reader.into_iter().collect();
        self.chunks.wanted.push_back(Want { topic: name, from, readers });
        self.go_on_asking(effects);
    }

    /// Asks the log for somebody, as soon as it has room.
    pub(super) fn ask(&mut self, question: Question, effects: &mut Vec<Effect>) {
        self.questions.waiting.push_back(question);
        self.go_on_asking(effects);
    }

    /// Asks the log what waits to be asked, as far as it has room. While it has none an answer is due.
    pub(super) fn go_on_asking(&mut self, effects: &mut Vec<Effect>) {
        while self.questions.asked.len() < self.chunks.reads_max()
            && self.log_bytes + LogMessage::SMALL <= self.log_bytes_max
        {
            // In turns, so that neither keeps the other waiting for ever.
            let prefers_chunk = self.last_ticket.is_multiple_of(2);
            let waiting = &mut self.questions.waiting;
            let question = if prefers_chunk || waiting.is_empty() {
                let chunk = self.chunks.wanted.pop_front().map(Question::Chunk);
                chunk.or_else(|| waiting.pop_front())
            } else {
                waiting.pop_front()
            };
            let Some(question) = question else { return };
            let question = match question {
                Question::Chunk(want) => match self.serve_read(want, effects) {
                    Some(want) => Question::Chunk(want),
                    None => continue,
                },
                question => question,
            };
            self.last_ticket += 1;
            let ticket = Ticket { shard: self.shard, number: self.last_ticket };
            let bytes_max = match &question {
                Question::Chunk(_) => self.chunks.chunk_bytes(),
                _ => self.limits.page_bytes_max,
            };
            let message = question.message(ticket, bytes_max);
            self.log_bytes += LogMessage::SMALL;
            self.questions.asked.insert(ticket.number, question);
            self.to_log.push(message);
        }
    }

    /// Serves those who wait for a chunk that has been read since for somebody else; else gives it
    /// back.
    fn serve_read(&mut self, want: Want, effects: &mut Vec<Effect>) -> Option<Want> {
        let Some(key) = self.find(&want.topic) else { return Some(want) };
        let history = self.topics.topic(key).history();
        let Some(epoch) = history.map(|history| history.position().epoch) else {
            return Some(want);
        };
        let Some(chunk) = self.chunks.find(&want.topic, epoch, want.from) else {
            return Some(want);
        };
        let slice = chunk.slice(want.from, self.limits.slice_cost_max);
        for reader in want.readers {
            self.hand_slice(want.topic.clone(), reader, slice.clone(), effects);
        }
        None
    }

    /// The log has told where something is.
    pub(super) fn located_behind(
        &mut self,
        ticket: u64,
        place: Result<&LogPlace, Unavailable>,
        effects: &mut Vec<Effect>,
    ) {
        match self.questions.asked.remove(&ticket) {
            Some(Question::Place { topic, reader, begin }) => {
                let Some(key) = self.find(&topic) else { return };
                let Some((history, durable)) = self.topics.topic_mut(key).durable_mut() else {
                    return;
                };
                if let Ok(place) = place {
                    durable.oldest = durable.oldest.max(place.oldest);
                }
                let opening = match history.named(begin.start) {
                    None => history.open_now(place.is_ok_and(|place| place.oldest < place.next)),
                    Some(named) => {
                        let named = named.and_then(|since| locate(history, since, place));
                        history.open_at(named, begin.limit)
                    }
                };
                self.answer_opening(topic, reader, opening, effects);
            }
            Some(Question::Range { topic, reader, query, receipt }) => {
                let history = self.find_history(&topic);
                match draft(history, &query, place) {
                    Ok(draft) => {
                        let draft = Box::new(draft);
                        self.ask(Question::Page { topic, reader, draft, receipt }, effects);
                    }
                    Err(page) => self.turn_page(topic, reader, page, receipt, effects),
                }
            }
            // Asked for publications, and they cannot be read.
            Some(Question::Page { topic, reader, draft, receipt }) => {
                let complete = Err(Unavailable::Unreadable);
                let page = Page { complete, ..draft.page };
                self.turn_page(topic, reader, page, receipt, effects);
            }
            Some(Question::Chunk(want)) => {
                for reader in want.readers {
                    let (next, frames) = (want.from, Vec::new());
                    let slice = Slice { gap: None, frames, next, at_head: false, failed: true };
                    self.hand_slice(want.topic.clone(), reader, slice, effects);
                }
            }
            None => {}
        }
    }

    /// The log has told that it cannot read.
    pub(super) fn unreadable_behind(&mut self, ticket: u64, effects: &mut Vec<Effect>) {
        self.located_behind(ticket, Err(Unavailable::Unreadable), effects);
    }

    /// Publications from the log.
    pub(super) fn read_behind(&mut self, ticket: u64, slice: LogSlice, effects: &mut Vec<Effect>) {
        match self.questions.asked.remove(&ticket) {
            Some(Question::Chunk(Want { topic, from, readers })) => {
                let is_acked = self.options(&topic).is_acked();
                let mut chunk = Chunk::new(topic.clone(), from, slice, is_acked);
                let cost_max = self.limits.slice_cost_max;
                // The log has nothing there, and had: whatever it was, the reader must go on.
                let bare = chunk.end() <= from;
                let first = self.find_history(&topic).map_or(from, History::first);
                for reader in readers {
                    let slice = if bare {
                        let gap = (first > from).then(|| (from, first - 1));
                        let (next, frames) = (first, Vec::new());
                        Slice { gap, frames, next, at_head: false, failed: false }
                    } else {
                        chunk.slice(from, cost_max)
                    };
                    self.hand_slice(topic.clone(), reader, slice, effects);
                }
                if !bare {
                    self.chunks.insert(chunk);
                }
            }
            Some(Question::Page { topic, reader, draft, receipt }) => {
                let is_acked = self.options(&topic).is_acked();
                let page = draft.finish(&topic, slice, is_acked);
                self.turn_page(topic, reader, page, receipt, effects);
            }
            Some(Question::Place { .. } | Question::Range { .. }) | None => {}
        }
    }
}

impl Question {
    /// `bytes_max`: of publications in the answer.
    fn message(&self, ticket: Ticket, bytes_max: usize) -> LogMessage {
        let time = |place: Since| match place {
            Since::Time(unix_ms) => Some(unix_ms),
            Since::Oldest | Since::Offset(_) => None,
        };
        match self {
            Self::Place { topic, begin, .. } => {
                let since_ms = match begin.start {
                    Start::Since(since) => time(since),
                    Start::Now | Start::Recover { .. } => None,
                };
                LogMessage::Locate { topic: topic.clone(), since_ms, until_ms: None, ticket }
            }
            Self::Range { topic, query, .. } => {
                let (since_ms, until_ms) = (time(query.since), query.until.and_then(time));
                LogMessage::Locate { topic: topic.clone(), since_ms, until_ms, ticket }
            }
            Self::Page { topic, draft, .. } => {
                let topic = topic.clone();
                let Draft { from, to, limit, reverse, .. } = **draft;
                let records_max = limit.min((to - from) as usize) as u32;
                let range = from + 1..to + 1;
                if reverse {
                    LogMessage::ReadLast { topic, range, records_max, bytes_max, ticket }
                } else {
                    LogMessage::Read { topic, from: range.start, records_max, bytes_max, ticket }
                }
            }
            Self::Chunk(Want { topic, from, .. }) => LogMessage::Read {
                topic: topic.clone(),
                from: *from,
                records_max: CHUNK_RECORDS,
                bytes_max,
                ticket,
            },
        }
    }
}

impl Draft {
    /// The answer, with the publications that the log has in its range.
    fn finish(self, topic: &str, slice: LogSlice, is_acked: bool) -> Page {
        let Self { mut page, from, to, reverse, .. } = self;
        if let Some(missing) = slice.missing {
            let lost = missing.is_lost();
            page.complete = Err(if lost { Unavailable::Unreadable } else { Unavailable::Trimmed });
        }
        let records = slice.records.iter().filter(|record| record.offset <= to);
        let frames = records.clone().map(|record| {
            let position = Position { epoch: slice.epoch, offset: record.offset };
            encoder::kept_frame(topic, position, &record.data, is_acked)
        });
        page.frames = frames.collect();
        let offsets: Vec<_> = records.map(|record| record.offset).collect();
        page.more = if reverse {
            page.frames.reverse();
            offsets.first().is_some_and(|first| *first > from + 1)
        } else {
            offsets.last().is_some_and(|last| *last < to)
        };
        page
    }
}

/// The offset behind which a place is, in what the log and the memory keep.
fn locate(
    history: &History,
    since: Since,
    place: Result<&LogPlace, Unavailable>,
) -> Result<u64, Unavailable> {
    let place = place?;
    let head = history.position().offset;
    let oldest = place.oldest.min(history.first());
    match since {
        Since::Oldest => Ok(oldest - 1),
        Since::Offset(offset) if offset > head => Err(Unavailable::Future),
        Since::Offset(offset) if offset + 1 < oldest => Err(Unavailable::Trimmed),
        Since::Offset(offset) => Ok(offset),
        Since::Time(_) => place.since.map_or(Err(Unavailable::Trimmed), |first| Ok(first - 1)),
    }
}

/// What a query gets but for the publications; `Err`: there are none.
fn draft(
    history: Option<&History>,
    query: &HistoryQuery,
    place: Result<&LogPlace, Unavailable>,
) -> Result<Draft, Page> {
    let position = history.map(History::position);
    let page = |complete| Page { position, frames: Vec::new(), complete, more: false };
    let (Some(history), Ok(kept)) = (history, place) else {
        return Err(page(Err(Unavailable::Unreadable)));
    };
    let located = locate(history, query.since, place);
    if matches!(located, Err(Unavailable::Future)) {
        return Err(page(located.map(drop)));
    }
    let oldest = kept.oldest - 1;
    let from = located.unwrap_or(oldest).max(oldest);
    let to = match query.until {
        None => kept.next - 1,
        Some(Since::Oldest) => oldest,
        Some(Since::Offset(offset)) => offset.min(kept.next - 1),
        Some(Since::Time(_)) => kept.until,
    };
    let (limit, reverse) = (query.limit, query.reverse);
    let page = page(located.map(drop));
    if to <= from || limit == 0 {
        return Err(page);
    }
    let position = Some(Position { offset: kept.next - 1, epoch: kept.epoch });
    Ok(Draft { page: Page { position, ..page }, from, to, limit, reverse })
}
