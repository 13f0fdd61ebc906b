//! The thread of the durable log: takes what shards ask, commits it a batch at a time, answers through
//! their mailboxes. It alone touches the files, and nobody waits for it.

mod answering;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;

use super::cleaning::Cleaned;
use super::disk::Disk;
use super::reading::ReadLimits;
use super::record::{Kind, Record};
use super::store::{Refused, Store};
use super::topics::TopicSlot;
use crate::config::SyncMode;
use crate::ids::{Epoch, TopicName};
use crate::mesh::{LogInbox, LogParcel, Mailer};
use crate::message::{
    LogAnswer, LogAppend, LogMessage, LogRefusal, LogRequest, ShardMessage, Ticket,
};
use crate::metrics::{Counter, Metrics};
use answering::Job;

/// Messages of one turn, but for what comes with the last of them.
const TURN_MESSAGES: usize = 65_536;
/// Bytes of one batch: it is written when it has them, however much more waits.
const BATCH_BYTES: usize = 4 << 20;
/// Between two looks at what is to be trimmed and cleaned without a publication.
const TICK: Duration = Duration::from_secs(1);
/// Topics looked at in one tick.
const SWEEP_MAX: u32 = 1 << 16;
/// After a failed write: from then on the next batch is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// While a shard does not take its answers.
const UNSENT_WAIT: Duration = Duration::from_millis(1);

/// What the thread of the log works with.
pub struct Log<D: Disk> {
    store: Store<D>,
    inbox: LogInbox,
    mailer: Mailer,
    metrics: Metrics,
    sync: SyncMode,
    clock: Clock,
    /// When the turn began.
    now: Instant,
    /// Publications in the batch, in order; nobody has heard of them.
    waiting: Vec<Waiting>,
    /// When the oldest of them is to be synced.
    sync_due: Option<Instant>,
    /// Questions to answer when what came before them is settled.
    jobs: VecDeque<Job>,
    /// Since when writing fails, and when it is tried again.
    failing: Option<Failing>,
    next_tick: Instant,
    sweep_from: u32,
    /// There may be something to give back.
    clean_now: bool,
    /// That has failed since the last tick.
    cannot_clean: bool,
    stopping: bool,
}

/// Tells the time of records: that of the server, which does not jump.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pub started: Instant,
    /// Unix time of `started`, in milliseconds.
    pub unix_start: u64,
}

impl Clock {
    fn unix_ms(&self, now: Instant) -> u64 {
        self.unix_start + now.saturating_duration_since(self.started).as_millis() as u64
    }
}

struct Waiting {
    slot: TopicSlot,
    topic: TopicName,
    epoch: Epoch,
    offset: u64,
    ticket: Ticket,
}

struct Failing {
    since: Instant,
    retry: Instant,
}

impl<D: Disk> Log<D> {
    pub fn new(
        store: Store<D>,
        inbox: LogInbox,
        mailer: Mailer,
        metrics: Metrics,
        sync: SyncMode,
        clock: Clock,
    ) -> Self {
        Self {
            store,
            inbox,
            mailer,
            metrics,
            sync,
            clock,
            waiting: Vec::new(),
            sync_due: None,
            jobs: VecDeque::new(),
            failing: None,
            now: clock.started,
            next_tick: clock.started + TICK,
            sweep_from: 0,
            clean_now: true,
            cannot_clean: false,
            stopping: false,
        }
    }

    /// Works until it is told to stop. An error: the store could not be ended in order; what was
    /// acknowledged is in it all the same.
    pub fn run(mut self) -> io::Result<()> {
        while !self.stopping {
            let timeout = self.timeout(Instant::now());
            let first = self.inbox.receive(timeout);
            self.turn(first, Instant::now());
        }
        self.commit(true);
        self.mailer.flush();
        self.store.close()
    }

    /// Does what is asked, first what has come already, and what there is to do without.
    fn turn(&mut self, first: Option<LogParcel>, now: Instant) {
        self.now = now;
        let mut count = 0;
        let mut next = first;
        while let Some(mut parcel) = next {
            count += parcel.batch.len();
            parcel.batch.drain(|request| match request {
                LogRequest::Append(append) => self.append(&append),
                LogRequest::Message(message) => self.take(message),
            });
            parcel.give_back();
            // What came meanwhile shares the sync.
            next = (count < TURN_MESSAGES).then(|| self.inbox.receive(Duration::ZERO)).flatten();
        }
        self.commit(false);
        self.do_jobs();
        // Nobody waits for what is cleaned.
        self.mailer.flush();
        self.maintain();
        self.mailer.flush();
    }

    /// One turn at this time of the server's clock, with whatever was asked before.
    #[cfg(test)]
    pub fn turn_at(&mut self, elapsed: Duration) {
        let first = self.inbox.receive(Duration::ZERO);
        self.turn(first, self.clock.started + elapsed);
    }

    /// How long there is nothing to do unless somebody asks.
    pub(super) fn timeout(&self, now: Instant) -> Duration {
        if self.may_clean(now) || self.jobs.iter().any(|job| self.mailer.has_room(job.shard())) {
            return Duration::ZERO;
        }
        let mut until = self.next_tick;
        if let Some(due) = self.sync_due {
            until = until.min(due);
        }
        // What is pending has a time of its own.
        let cleans = self.clean_now && !self.store.has_pending();
        if let Some(failing) = self.failing.as_ref().filter(|_| cleans) {
            until = until.min(failing.retry);
        }
        let timeout = until.saturating_duration_since(now);
        let held = self.mailer.has_unsent() || !self.jobs.is_empty();
        if held { timeout.min(UNSENT_WAIT) } else { timeout }
    }

    fn take(&mut self, message: LogMessage) {
        match message {
            LogMessage::Read { topic, from, records_max, bytes_max, ticket } => {
                let limits = ReadLimits { records: records_max, bytes: bytes_max };
                self.queue(Job::Read { topic, from, limits, ticket });
            }
            LogMessage::ReadLast { topic, range, records_max, bytes_max, ticket } => {
                let limits = ReadLimits { records: records_max, bytes: bytes_max };
                self.queue(Job::ReadLast { topic, range, limits, ticket });
            }
            LogMessage::Locate { topic, since_ms, until_ms, ticket } => {
                self.queue(Job::Locate { topic, since_ms, until_ms, ticket });
            }
            // It takes no longer than a refusal would.
            LogMessage::Position { topic, ticket } => {
                self.jobs.push_back(Job::Position { topic, ticket });
            }
            LogMessage::Stop => self.stopping = true,
        }
    }

    fn append(&mut self, append: &LogAppend<'_>) {
        if let Err(reason) = self.try_append(append) {
            let topic = TopicName::new(append.topic);
            self.refuse(topic, append.offset, reason, append.ticket);
        }
    }

    fn try_append(&mut self, append: &LogAppend<'_>) -> Result<(), LogRefusal> {
        let now = self.now;
        let LogAppend { topic, epoch, offset, stored, time_ms, message_id, data, ticket } = *append;
        if self.failing.as_ref().is_some_and(|failing| now < failing.retry) {
            return Err(LogRefusal::Disk);
        }
        match self.store.prepare() {
            // Those before it may be what is to be given back, and the next one wants their files.
            Ok(begins) => self.clean_now |= begins && !self.cannot_clean,
            Err(error) => {
                self.fail(&error);
                return Err(LogRefusal::Disk);
            }
        }
        let kind = Kind::Publication;
        let record = Record { kind, topic, epoch: epoch.0, offset, time_ms, message_id, data };
        match self.store.append(&record, stored) {
            Ok(slot) => {
                // The name that the table has: that of the request is its shard's.
                let topic = self.store.topics.get(slot).expect("it has one more").name.clone();
                self.waiting.push(Waiting { slot, topic, epoch, offset, ticket });
                if self.store.batch_bytes() >= BATCH_BYTES {
                    self.commit(false);
                }
                Ok(())
            }
            Err(Refused::Position { epoch, next }) => {
                Err(LogRefusal::Position { epoch: Epoch(epoch), next })
            }
            Err(Refused::Topics) => {
                self.count(Counter::StoreTopicLimit, 1);
                Err(LogRefusal::Topics)
            }
            Err(Refused::TooLong) => Err(LogRefusal::TooLong),
        }
    }

    /// Writes the batch, makes it durable as the mode says, and tells those who wait for it. `now`:
    /// whatever the mode says.
    fn commit(&mut self, at_once: bool) {
        if self.waiting.is_empty() {
            return;
        }
        let now = self.now;
        let written = match self.sync {
            SyncMode::Os if !at_once => self.store.write().map(|()| {
                self.store.settle();
                true
            }),
            SyncMode::Interval(interval)
                if !at_once && *self.sync_due.get_or_insert(now + interval) > now =>
            {
                self.store.write().map(|()| false)
            }
            SyncMode::Always | SyncMode::Interval(_) | SyncMode::Os => {
                self.store.commit().map(|()| true)
            }
        };
        match written {
            Ok(false) => {}
            Ok(true) => self.settled(now),
            Err(error) => {
                self.fail(&error);
                for waiting in std::mem::take(&mut self.waiting) {
                    let Waiting { topic, offset, ticket, .. } = waiting;
                    self.refuse(topic, offset, LogRefusal::Disk, ticket);
                }
            }
        }
    }

    /// Tells who waits: one answer for each topic and shard.
    fn settled(&mut self, now: Instant) {
        self.sync_due = None;
        self.count(Counter::StoreBatches, 1);
        self.count(Counter::StoreKept, self.waiting.len() as u64);
        if let Some(failing) = self.failing.take() {
            let seconds = now.saturating_duration_since(failing.since).as_secs_f32();
            tracing::info!(seconds, "the durable log works again");
            self.metrics.log().note_failing(false);
        }
        let mut answers: Vec<Waiting> = Vec::new();
        let mut places: HashMap<TopicSlot, usize, RandomState> = HashMap::default();
        for waiting in self.waiting.drain(..) {
            // What one connection sends comes together.
            if let Some(last) = answers.last_mut()
                && last.slot == waiting.slot
                && last.ticket.shard == waiting.ticket.shard
            {
                *last = waiting;
                continue;
            }
            match places.get(&waiting.slot) {
                Some(&place) if answers[place].ticket.shard == waiting.ticket.shard => {
                    answers[place] = waiting;
                }
                _ => {
                    places.insert(waiting.slot, answers.len());
                    answers.push(waiting);
                }
            }
        }
        let unix_ms = self.clock.unix_ms(now);
        for Waiting { slot, topic, epoch, offset, ticket } in answers {
            let ticket_number = ticket.number;
            let stored = LogAnswer::Stored { topic, epoch, upto: offset, ticket: ticket_number };
            self.answer(ticket, stored);
            self.trim(slot, unix_ms);
        }
    }

    fn trim(&mut self, slot: TopicSlot, unix_ms: u64) {
        // What cannot be read to be trimmed now is looked at again with the next publication.
        if let Ok(trimmed) = self.store.trim(slot, unix_ms) {
            self.count(Counter::StoreTrimmed, trimmed);
        }
    }

    /// Before somebody is told what is kept of a topic.
    fn trim_named(&mut self, topic: &str) {
        if let Some(slot) = self.store.topics.find(topic) {
            self.trim(slot, self.clock.unix_ms(self.now));
        }
    }

    /// Says once that writing fails.
    fn fail(&mut self, error: &io::Error) {
        self.count(Counter::StoreFailures, 1);
        self.sync_due = None;
        let now = self.now;
        let retry = now + RETRY;
        match &mut self.failing {
            Some(failing) => failing.retry = retry,
            None => {
                tracing::error!(%error, "the durable log cannot write: it refuses publications");
                self.failing = Some(Failing { since: now, retry });
                self.metrics.log().note_failing(true);
            }
        }
    }

    fn refuse(&mut self, topic: TopicName, offset: u64, reason: LogRefusal, ticket: Ticket) {
        self.count(Counter::StoreRefused, 1);
        let number = ticket.number;
        self.answer(ticket, LogAnswer::Refused { topic, offset, reason, ticket: number });
    }

    /// Whether there may be something to give back, and the disk can be asked for it.
    fn may_clean(&self, now: Instant) -> bool {
        let failing = self.failing.as_ref().is_some_and(|failing| now < failing.retry);
        self.clean_now && !failing && !self.store.has_pending()
    }

    /// Trims what has become too old, and gives room back, a bounded amount.
    fn maintain(&mut self) {
        let now = self.now;
        let unix_ms = self.clock.unix_ms(now);
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.clean_now = true;
            self.cannot_clean = false;
            let places = self.store.topic_places();
            for place in (self.sweep_from..places).take(SWEEP_MAX as usize) {
                self.trim(TopicSlot(place), unix_ms);
            }
            let next = self.sweep_from.saturating_add(SWEEP_MAX);
            self.sweep_from = if next < places { next } else { 0 };
        }
        if !self.may_clean(now) {
            return;
        }
        match self.store.clean(unix_ms) {
            Ok(Cleaned { moved, evicted, lost, more, .. }) => {
                self.clean_now = more;
                self.count(Counter::StoreMoved, moved);
                self.count(Counter::StoreEvicted, evicted);
                self.count(Counter::StoreLost, lost);
            }
            Err(error) => {
                self.clean_now = false;
                self.cannot_clean = true;
                if self.store.is_writable() {
                    tracing::warn!(%error, "the durable log cannot give room back");
                } else {
                    self.fail(&error);
                }
            }
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: LogAnswer) {
        self.mailer.post(ticket.shard, ShardMessage::Log(answer));
    }

    fn count(&self, counter: Counter, count: u64) {
        self.metrics.log().add(counter, count);
    }
}
