//! The publications of one topic that are kept at its home, and which of them somebody may have.
//! Data only: trimming by age is driven from `retention`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::idempotency::{Fingerprint, ID_BYTES, MessageIds};
use super::inbox::Inbox;
use super::retention::Listed;
use super::spares::Spares;
use crate::config::ChannelOptions;
use crate::ids::{Epoch, Moment, Position, ShardId, Token};
use crate::io::FRAME_OVERHEAD_BYTES;
use crate::message::{Begin, Opening, Page, Slice};
use crate::proto::{HistoryQuery, Recovery, Since, Start, Unavailable, encoder};

/// Who does not want its own publication back.
pub type Author = (ShardId, Token);

#[derive(Debug)]
struct Entry {
    /// As every subscriber gets it; empty for what nobody gets, a mark in an inbox.
    frame: Bytes,
    time: Moment,
    /// Its publisher, if that one does not want it.
    except: Option<Author>,
}

impl Entry {
    fn cost(&self) -> usize {
        self.frame.len() + FRAME_OVERHEAD_BYTES
    }
}

/// What is kept of one topic.
///
/// Times are Unix time, so that what was published before a restart has its age too.
///
/// Invariant: entries have the offsets from `first` on without a gap, and times that do not fall.
#[derive(Debug)]
pub struct History {
    epoch: Epoch,
    pub options: Arc<ChannelOptions>,
    /// Of the oldest entry; without one, of the next publication.
    first: u64,
    entries: VecDeque<Entry>,
    /// [`Entry::cost`] of all entries.
    bytes: usize,
    /// When the newest publication that is not kept any more was published.
    trimmed: Option<Moment>,
    /// `None` until somebody publishes with one.
    ids: Option<Box<MessageIds>>,
    /// When it was last published or listened to.
    used: Moment,
    pub listed: Listed,
    /// Of inboxes only.
    pub inbox: Option<Box<Inbox>>,
}

impl History {
    pub fn new(epoch: Epoch, options: Arc<ChannelOptions>, now: Moment) -> Self {
        Self {
            epoch,
            options,
            first: 1,
            entries: VecDeque::new(),
            bytes: 0,
            trimmed: None,
            ids: None,
            used: now,
            listed: Listed::default(),
            inbox: None,
        }
    }

    /// Behind the newest publication.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.head() }
    }

    /// The next publication, or one behind it, as every subscriber gets it.
    pub fn frame(&self, topic: &str, offset: u64, data: &[u8], spares: &mut Spares) -> Bytes {
        let (position, is_acked) =
            (Position { epoch: self.epoch, offset }, self.options.is_acked());
        if is_acked {
            return encoder::kept_frame(topic, position, data, is_acked);
        }
        let memory = spares.take(topic.len() + data.len() + encoder::KEPT_FRAME_BYTES_MIN);
        encoder::kept_frame_in(memory, topic, position, data, is_acked)
    }

    /// What it takes of the memory for histories.
    pub fn cost(&self) -> usize {
        self.bytes + self.ids.as_ref().map_or(0, |ids| ids.len() * ID_BYTES)
    }

    /// Somebody listens, or has just stopped to.
    pub fn touch(&mut self, now: Moment) {
        self.used = now;
    }

    /// The offset that an earlier publication under this id got.
    pub fn find_id(&mut self, id: Fingerprint, now: Moment) -> Option<u64> {
        let ids = self.ids.as_mut()?;
        // Each id is dropped once, so this costs a publication no more than one on average.
        ids.expire(now, self.options.idempotency_window, usize::MAX);
        ids.find(id)
    }

    /// Remembers the id of the publication that has, or will have, this offset. Returns how many
    /// older ones made room.
    pub fn insert_id(&mut self, id: Fingerprint, offset: u64, now: Moment) -> usize {
        let ids_max = self.options.idempotency_size;
        self.ids.get_or_insert_default().insert(id, offset, now, ids_max)
    }

    /// Remembers the id of a publication that the log has from `time`, if it would be remembered still.
    pub fn restore_id(&mut self, id: Fingerprint, offset: u64, time: Moment, now: Moment) {
        let is_over = time.after(self.options.idempotency_window) <= now;
        if !is_over && self.options.idempotency_size > 0 && self.find_id(id, now).is_none() {
            self.insert_id(id, offset, time);
        }
    }

    /// Keeps the next publication, whose offset stands in its frame already. Returns how many older
    /// ones made room; itself it stays, whatever its size.
    pub fn push(
        &mut self,
        frame: Bytes,
        except: Option<Author>,
        now: Moment,
        spares: &mut Spares,
    ) -> usize {
        self.used = now;
        let entry = Entry { frame, time: now, except };
        self.bytes += entry.cost();
        self.entries.push_back(entry);
        let mut trimmed = 0;
        while self.entries.len() > 1
            && (self.entries.len() > self.options.history_size
                || self.bytes > self.options.history_bytes)
        {
            if let Some(frame) = self.take_oldest() {
                spares.put(frame);
            }
            trimmed += 1;
        }
        trimmed
    }

    /// Drops the oldest publication, if there is one.
    pub fn trim_oldest(&mut self) -> bool {
        self.take_oldest().is_some()
    }

    fn take_oldest(&mut self) -> Option<Bytes> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.cost();
        if let Some(inbox) = &mut self.inbox {
            let waited = self.first > inbox.received && !entry.frame.is_empty();
            inbox.dropped += u64::from(waited);
        }
        self.first += 1;
        self.trimmed = Some(entry.time);
        if self.entries.len() < self.entries.capacity() / 4 {
            // Gives the memory of a past burst back.
            self.entries.shrink_to(self.entries.len() * 2);
        }
        Some(entry.frame)
    }

    /// Forgets the ids of publications behind `offset`: they did not come to be.
    pub fn forget_ids_behind(&mut self, offset: u64) {
        if let Some(ids) = &mut self.ids {
            ids.forget_behind(offset);
        }
    }

    /// Begins anew as the log has it: the next publication that is pushed has offset `first`.
    pub fn restore(&mut self, epoch: Epoch, first: u64) {
        self.epoch = epoch;
        self.first = first;
        self.entries.clear();
        self.bytes = 0;
    }

    /// Forgets everything, ids too, until [`History::restore`].
    pub fn unload(&mut self) {
        self.restore(self.epoch, 1);
        self.entries = VecDeque::new();
        self.ids = None;
    }

    /// Forgets the oldest message id, if there is one.
    pub fn forget_oldest_id(&mut self) -> bool {
        self.ids.as_mut().is_some_and(|ids| ids.forget_oldest())
    }

    /// Drops what is too old, at most `count` publications and as many ids. Returns how many.
    pub fn expire(&mut self, now: Moment, count: usize) -> usize {
        let ttl = self.options.history_ttl;
        let mut dropped = 0;
        while dropped < count
            && self.entries.front().is_some_and(|entry| entry.time.after(ttl) <= now)
        {
            self.trim_oldest();
            dropped += 1;
        }
        if let Some(ids) = &mut self.ids {
            dropped += ids.expire(now, self.options.idempotency_window, count);
            if ids.len() == 0 {
                self.ids = None;
            }
        }
        dropped
    }

    /// When [`History::expire`] has something to do, or, if nothing is kept, when the history ends
    /// unless somebody uses it.
    pub fn due(&self) -> Moment {
        let ids = self.ids.as_ref().and_then(|ids| ids.oldest());
        let ids = ids.map(|time| time.after(self.options.idempotency_window));
        let entry = self.entries.front().map(|entry| entry.time.after(self.options.history_ttl));
        let next = ids.into_iter().chain(entry).min();
        next.unwrap_or_else(|| self.used.after(self.options.history_ttl))
    }

    /// Messages of an inbox that were dropped before their user had received them, since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        self.inbox.as_mut().map_or(0, |inbox| std::mem::take(&mut inbox.dropped))
    }

    /// Nothing is kept, not even an id.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.ids.is_none()
    }

    /// Where a new subscription begins.
    pub fn open(&self, begin: Begin) -> Opening {
        match self.named(begin.start) {
            Some(named) => self.open_at(named.and_then(|since| self.locate(since)), begin.limit),
            None => self.open_now(!self.entries.is_empty()),
        }
    }

    /// Where a subscription begins that names no place. `has_latest`: the latest publication is kept.
    pub fn open_now(&self, has_latest: bool) -> Opening {
        if let Some(inbox) = &self.inbox {
            return self.opening(self.skip_marks(inbox.received), None);
        }
        let latest = u64::from(self.options.last && has_latest);
        self.opening(self.head() - latest, None)
    }

    /// Where a subscription begins that named the place behind this offset.
    pub fn open_at(&self, place: Result<u64, Unavailable>, limit: Option<u64>) -> Opening {
        let head = self.head();
        let (offset, outcome) = match place {
            Err(reason) => (head, Err(reason)),
            Ok(offset) if limit.is_some_and(|limit| head - offset > limit) => {
                (head - limit.unwrap_or_default(), Err(Unavailable::Limit))
            }
            Ok(offset) => (offset, Ok(())),
        };
        self.opening(offset, Some(Recovery { outcome, count: head - offset }))
    }

    fn opening(&self, offset: u64, recovery: Option<Recovery>) -> Opening {
        let position = Position { epoch: self.epoch, offset };
        Opening { position, head: self.head(), recovery }
    }

    /// The place that a subscriber names, if it names one.
    pub fn named(&self, start: Start) -> Option<Result<Since, Unavailable>> {
        match start {
            Start::Now => None,
            Start::Recover { epoch, .. } if epoch != Some(self.epoch) => {
                Some(Err(Unavailable::Epoch))
            }
            Start::Recover { offset, .. } => Some(Ok(Since::Offset(offset))),
            Start::Since(since) => Some(Ok(since)),
        }
    }

    /// Offset of the oldest publication that is kept; without one, of the next.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Whether a place can be told from what is kept here, if nothing before `oldest` is kept
    /// elsewhere.
    pub fn reaches(&self, since: Since, oldest: u64) -> bool {
        match since {
            _ if self.first == 1 => true,
            Since::Oldest => self.first <= oldest,
            Since::Offset(offset) => offset >= self.first - 1 || self.first <= oldest,
            Since::Time(unix_ms) => {
                self.entries.front().is_some_and(|entry| entry.time < Moment(unix_ms))
            }
        }
    }

    /// Whether the latest publication may be kept elsewhere only.
    pub fn lacks_latest(&self, oldest: u64) -> bool {
        self.options.last && self.entries.is_empty() && self.first > oldest
    }

    /// What a reader gets next: what follows `next`, or the oldest that is kept if that is gone. At
    /// least one publication if there is one, and no more than `cost_max` beyond it.
    pub fn slice(&self, next: u64, cost_max: usize, reader: Author) -> Slice {
        let first = next.max(self.first);
        let mut slice = Slice {
            gap: (first > next).then(|| (next, first - 1)),
            frames: Vec::new(),
            next: first,
            at_head: false,
            failed: false,
        };
        let mut cost = 0;
        for entry in self.entries.range((first - self.first) as usize..) {
            cost += entry.cost();
            if cost > cost_max && slice.next > first {
                return slice;
            }
            slice.next += 1;
            if entry.except != Some(reader) && !entry.frame.is_empty() {
                slice.frames.push(entry.frame.clone());
            }
        }
        slice.at_head = true;
        slice
    }

    /// A page for a query: at most its limit, and at least one but no more than `cost_max` beyond it.
    pub fn page(&self, query: &HistoryQuery, cost_max: usize) -> Page {
        let mut page = Page {
            position: Some(self.position()),
            frames: Vec::new(),
            complete: self.locate(query.since).map(drop),
            more: false,
        };
        if matches!(page.complete, Err(Unavailable::Future)) {
            return page;
        }
        let oldest = self.first - 1;
        let from = self.locate(query.since).unwrap_or(oldest).max(oldest);
        let to = query.until.map_or(self.head(), |until| self.locate_end(until));
        let count = to.saturating_sub(from) as usize;
        let begin = (from - oldest) as usize;
        let mut cost = 0;
        for place in 0..count {
            let index = if query.reverse { begin + count - 1 - place } else { begin + place };
            let Some(entry) = self.entries.get(index) else { break };
            cost += entry.cost();
            if place == query.limit || (cost > cost_max && place > 0) {
                page.more = true;
                break;
            }
            page.frames.push(entry.frame.clone());
        }
        page
    }

    /// The offset before the first message that is kept and behind `offset`, or the newest one.
    fn skip_marks(&self, offset: u64) -> u64 {
        let offset = offset.clamp(self.first - 1, self.head());
        let behind = self.entries.range((offset + 1 - self.first) as usize..);
        offset + behind.take_while(|entry| entry.frame.is_empty()).count() as u64
    }

    /// The offset behind which that place is.
    fn locate(&self, since: Since) -> Result<u64, Unavailable> {
        match since {
            Since::Oldest => Ok(self.first - 1),
            Since::Offset(offset) if offset > self.head() => Err(Unavailable::Future),
            Since::Offset(offset) if offset + 1 < self.first => Err(Unavailable::Trimmed),
            Since::Offset(offset) => Ok(offset),
            Since::Time(unix_ms) => {
                let time = Moment(unix_ms);
                if self.trimmed.is_some_and(|trimmed| trimmed >= time) {
                    return Err(Unavailable::Trimmed);
                }
                let earlier = self.entries.partition_point(|entry| entry.time < time);
                Ok(self.first - 1 + earlier as u64)
            }
        }
    }

    /// The offset of the last publication before or at that place.
    fn locate_end(&self, until: Since) -> u64 {
        match until {
            Since::Oldest => self.first - 1,
            Since::Offset(offset) => offset.min(self.head()),
            Since::Time(unix_ms) => {
                let time = Moment(unix_ms);
                let earlier = self.entries.partition_point(|entry| entry.time <= time);
                self.first - 1 + earlier as u64
            }
        }
    }

    fn head(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }
}
