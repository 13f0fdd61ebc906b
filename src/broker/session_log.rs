//! The sessions at home on one shard, in the durable log: what is to be written of them, and what is read
//! when the server starts. Data only: what has to be asked of the log comes back as messages.
//!
//! Each shard that sessions began on has a topic, its id says which; where there are fewer shards than
//! before, one of them keeps several (see [`SessionLog::home`]). A record is all there is to say of a
//! session, so that the last one counts, and one that waits to be written is replaced by the next.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::config::Config;
use crate::ids::{Epoch, Moment, SessionId, ShardId, TopicName};
use crate::message::{
    LogAnswer, LogAppend, LogBatch, LogMessage, LogRefusal, LogSlice, SessionRecord, Ticket,
};

/// Records given to the log per turn.
const WRITTEN_MAX: usize = 256;

/// Records, and bytes of them, that one question to the log asks for.
const READ_RECORDS_MAX: u32 = 1024;
const READ_BYTES_MAX: usize = 256 << 10;

/// What waits takes beyond its bytes.
const WAITING_BYTES: usize = 96;

/// After something that failed, until it is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// A topic that the disk fails to read so often is given up.
const ATTEMPTS_MAX: u32 = 5;

/// What happened since it was last asked for, for the counters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SessionLogTally {
    /// The log has taken them.
    pub written: u64,
    /// It has not; they are tried again.
    pub refused: u64,
    /// There was no room to try, or to try again.
    pub dropped: u64,
    /// Records, and topics, that cannot be read.
    pub unreadable: u64,
}

/// One topic of the log.
#[derive(Debug)]
struct Line {
    topic: TopicName,
    stage: Stage,
    /// Given to the log, which has not answered.
    pending: VecDeque<Pending>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Unasked,
    /// The log was asked where the topic is.
    Asked,
    At {
        epoch: Epoch,
        /// The newest offset that is known to be kept.
        stored: u64,
    },
    /// Something was refused, and so is what follows: nothing more until all of that is answered.
    Refused,
}

#[derive(Debug)]
struct Pending {
    ticket: u64,
    offset: u64,
    weight: usize,
    secret: u128,
    waiting: Waiting,
}

#[derive(Debug)]
struct Waiting {
    line: usize,
    data: Bytes,
    /// Of two records of a session the one with the higher number is the newer.
    number: u64,
}

/// The topic that is being read.
#[derive(Debug, Default)]
struct Loading {
    line: usize,
    /// What is left to read of it; `None`: the log has not said where it is.
    left: Option<std::ops::Range<u64>>,
    /// The log owes an answer.
    asked: bool,
    failures: u32,
}

#[derive(Debug)]
pub struct SessionLog {
    shard: ShardId,
    shards: u16,
    /// In the order of the shards they are of: this one, and each that would be `shards` further.
    lines: Vec<Line>,
    /// `None`: everything is read.
    loading: Option<Loading>,
    waiting: HashMap<u128, Waiting, foldhash::fast::RandomState>,
    /// What waits, by secret, each once.
    order: VecDeque<u128>,
    /// Bytes of all that wait, at most `waiting_max`.
    waiting_bytes: usize,
    waiting_max: usize,
    /// Bytes that the log has yet to answer for, at most `log_bytes_max`.
    log_bytes: usize,
    log_bytes_max: usize,
    last_ticket: u64,
    last_record: u64,
    /// Nothing is asked of the log before that.
    retry: Option<Moment>,
    /// The log refuses: that was told.
    failing: bool,
    tally: SessionLogTally,
}

impl SessionLog {
    /// The shard, of so many, that keeps a session.
    pub fn home(session: SessionId, shards: u16) -> ShardId {
        ShardId(session.shard.0 % shards.max(1))
    }

    /// `known`: sessions in the log began on shards with lower numbers than that.
    pub fn new(shard: ShardId, shards: u16, known: u16, config: &Config) -> Self {
        let lines = (shard.0..known.max(shards)).step_by(usize::from(shards.max(1)));
        let lines = lines.map(|shard| Line {
            topic: TopicName::sessions(ShardId(shard)),
            stage: Stage::Unasked,
            pending: VecDeque::new(),
        });
        Self {
            shard,
            shards: shards.max(1),
            lines: lines.collect(),
            loading: Some(Loading::default()),
            waiting: HashMap::default(),
            order: VecDeque::new(),
            waiting_bytes: 0,
            waiting_max: config.sessions.memory,
            log_bytes: 0,
            log_bytes_max: config.store.backlog,
            last_ticket: 0,
            last_record: 0,
            retry: None,
            failing: false,
            tally: SessionLogTally::default(),
        }
    }

    pub fn take_tally(&mut self) -> SessionLogTally {
        mem::take(&mut self.tally)
    }

    /// Whether sessions of before are still being read.
    pub fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    /// Whether something is on its way to the disk, unless that fails.
    pub fn is_writing(&self) -> bool {
        !self.failing && (!self.order.is_empty() || self.lines.iter().any(Line::is_busy))
    }

    /// When there is something to do that no answer of the log brings.
    pub fn next(&self) -> Option<Moment> {
        self.retry
    }

    /// The log is to have this of a session, in place of what waits.
    pub fn write(&mut self, session: SessionId, record: &SessionRecord) {
        let line = usize::from(session.shard.0 / self.shards);
        let is_home = Self::home(session, self.shards) == self.shard;
        if is_home && line < self.lines.len() {
            self.last_record += 1;
            let (data, number) = (record.encode(), self.last_record);
            self.wait(record.secret, Waiting { line, data, number });
        }
    }

    /// Unless what waits is newer.
    fn wait(&mut self, secret: u128, waiting: Waiting) {
        if self.waiting.get(&secret).is_some_and(|other| other.number > waiting.number) {
            return;
        }
        self.waiting_bytes += waiting.bytes();
        match self.waiting.insert(secret, waiting) {
            Some(before) => self.waiting_bytes -= before.bytes(),
            None => self.order.push_back(secret),
        }
        while self.waiting_bytes > self.waiting_max && self.drop_next() {
            self.tally.dropped += 1;
        }
    }

    fn take_next(&mut self) -> Option<(u128, Waiting)> {
        let secret = self.order.pop_front()?;
        let waiting = self.waiting.remove(&secret)?;
        self.waiting_bytes -= waiting.bytes();
        Some((secret, waiting))
    }

    fn drop_next(&mut self) -> bool {
        self.take_next().is_some()
    }

    /// Asks and gives the log what it may have now, a bounded amount.
    pub fn advance(&mut self, now: Moment, unix_ms: u64, to_log: &mut LogBatch) {
        if self.retry.is_some_and(|retry| retry > now) {
            return;
        }
        self.retry = None;
        self.go_on_loading(to_log);
        for _ in 0..WRITTEN_MAX {
            let next = self.order.front().and_then(|secret| self.waiting.get(secret));
            let Some(&Waiting { line, ref data, .. }) = next else { return };
            let weight = LogAppend::weight(None, data.len());
            if weight > self.log_bytes_max {
                self.drop_next();
                self.tally.dropped += 1;
                continue;
            }
            let room = self.log_bytes_max.saturating_sub(self.log_bytes);
            let Line { stage, ref topic, ref pending } = self.lines[line];
            match stage {
                Stage::At { epoch, stored } if weight <= room => {
                    let offset = stored + pending.len() as u64 + 1;
                    let (topic, data) = (topic.clone(), data.clone());
                    let ticket = self.ticket(weight);
                    to_log.append(LogAppend {
                        topic: &topic,
                        epoch,
                        offset,
                        stored,
                        time_ms: unix_ms,
                        message_id: None,
                        data: &data,
                        ticket,
                    });
                    let Some((secret, waiting)) = self.take_next() else { return };
                    let ticket = ticket.number;
                    let pending = Pending { ticket, offset, weight, secret, waiting };
                    self.lines[line].pending.push_back(pending);
                }
                Stage::Refused if pending.is_empty() => self.lines[line].stage = Stage::Unasked,
                Stage::Unasked if LogMessage::SMALL <= room => {
                    let topic = topic.clone();
                    let ticket = self.ticket(LogMessage::SMALL);
                    to_log.push(LogMessage::Position { topic, ticket });
                    self.lines[line].stage = Stage::Asked;
                    return;
                }
                Stage::At { .. } | Stage::Unasked | Stage::Asked | Stage::Refused => return,
            }
        }
    }

    /// For a question of this weight.
    fn ticket(&mut self, weight: usize) -> Ticket {
        self.log_bytes += weight;
        self.last_ticket += 1;
        Ticket { shard: self.shard, number: self.last_ticket }
    }

    fn go_on_loading(&mut self, to_log: &mut LogBatch) {
        loop {
            let room = self.log_bytes_max.saturating_sub(self.log_bytes);
            let Some(loading) = &mut self.loading else { return };
            if loading.asked || LogMessage::SMALL > room {
                return;
            }
            let Some(line) = self.lines.get(loading.line) else {
                self.loading = None;
                return;
            };
            let topic = line.topic.clone();
            let from = match &loading.left {
                Some(left) if left.is_empty() => {
                    *loading = Loading { line: loading.line + 1, ..Loading::default() };
                    continue;
                }
                Some(left) => Some(left.start),
                None => None,
            };
            loading.asked = true;
            let ticket = self.ticket(LogMessage::SMALL);
            to_log.push(match from {
                None => LogMessage::Position { topic, ticket },
                Some(from) => LogMessage::Read {
                    topic,
                    from,
                    records_max: READ_RECORDS_MAX,
                    bytes_max: READ_BYTES_MAX,
                    ticket,
                },
            });
            return;
        }
    }

    /// The log has answered. What it has of sessions goes behind those in `loaded`, in the order it was
    /// written.
    pub fn answered(
        &mut self,
        answer: LogAnswer,
        now: Moment,
        loaded: &mut Vec<(SessionId, SessionRecord)>,
    ) {
        let place = |topic: &TopicName| self.lines.iter().position(|line| line.topic == *topic);
        match answer {
            LogAnswer::Stored { topic, upto, ticket, .. } => {
                if let Some(line) = place(&topic) {
                    self.stored(line, upto, ticket);
                }
            }
            LogAnswer::Refused { topic, reason, ticket, .. } => {
                if let Some(line) = place(&topic) {
                    self.refused(line, reason, ticket, now);
                }
            }
            LogAnswer::Position { topic, epoch, next, oldest, .. } => {
                let line = place(&topic);
                self.log_bytes -= LogMessage::SMALL;
                if let Some(line) = line {
                    self.located(line, epoch, oldest..next);
                }
            }
            LogAnswer::Read { topic, slice, .. } => {
                let line = place(&topic);
                self.log_bytes -= LogMessage::SMALL;
                if let (Some(line), Some(shard)) = (line, topic.as_sessions()) {
                    self.read(line, shard, *slice, loaded);
                }
            }
            LogAnswer::Unreadable { .. } => {
                self.log_bytes -= LogMessage::SMALL;
                self.unreadable(now);
            }
            // Nobody asked for that.
            LogAnswer::Located { .. } => {}
        }
    }

    fn stored(&mut self, line: usize, upto: u64, ticket: u64) {
        let line = &mut self.lines[line];
        let is_stored = |pending: &mut Pending| pending.offset <= upto && pending.ticket <= ticket;
        while let Some(pending) = line.pending.pop_front_if(is_stored) {
            self.log_bytes -= pending.weight;
            self.tally.written += 1;
            if let Stage::At { stored, .. } = &mut line.stage {
                *stored = pending.offset;
            }
        }
        if mem::take(&mut self.failing) {
            tracing::info!(shard = self.shard.0, "sessions are kept in the durable log again");
        }
    }

    fn refused(&mut self, line: usize, reason: LogRefusal, ticket: u64, now: Moment) {
        let Line { stage, pending, .. } = &mut self.lines[line];
        let place = pending.iter().position(|pending| pending.ticket == ticket);
        let Some(refused) = place.and_then(|place| pending.remove(place)) else { return };
        *stage = Stage::Refused;
        self.log_bytes -= refused.weight;
        self.retry = Some(now.after(RETRY));
        self.tally.refused += 1;
        if !mem::replace(&mut self.failing, true) {
            tracing::error!(
                shard = self.shard.0,
                ?reason,
                "sessions cannot be kept in the durable log: they go on in memory"
            );
        }
        match reason {
            LogRefusal::TooLong => self.tally.dropped += 1,
            LogRefusal::Disk | LogRefusal::Position { .. } | LogRefusal::Topics => {
                self.wait(refused.secret, refused.waiting);
            }
        }
    }

    fn located(&mut self, line: usize, epoch: Epoch, kept: std::ops::Range<u64>) {
        let Line { stage, pending, .. } = &mut self.lines[line];
        if matches!(stage, Stage::Unasked | Stage::Asked) && pending.is_empty() {
            *stage = Stage::At { epoch, stored: kept.end.saturating_sub(1) };
        }
        if let Some(loading) = &mut self.loading
            && (loading.line, loading.asked) == (line, true)
            && loading.left.is_none()
        {
            loading.left = Some(kept);
            loading.asked = false;
        }
    }

    fn read(
        &mut self,
        line: usize,
        shard: ShardId,
        slice: LogSlice,
        loaded: &mut Vec<(SessionId, SessionRecord)>,
    ) {
        let Some(loading) = &mut self.loading else { return };
        let Some(left) = loading.left.as_mut().filter(|_| loading.line == line) else { return };
        (loading.asked, loading.failures) = (false, 0);
        // Written in this life is what is known here.
        let end = left.end;
        left.start = slice.missing.map_or(left.start, |missing| missing.to + 1);
        self.tally.unreadable += u64::from(slice.missing.is_some_and(|missing| missing.is_lost()));
        if slice.records.is_empty() {
            left.start = end;
        }
        for record in slice.records.into_iter().filter(|record| record.offset < end) {
            left.start = record.offset + 1;
            match SessionRecord::decode(&record.data) {
                Ok(record) => {
                    loaded.push((SessionId { shard, secret: record.secret }, record));
                }
                Err(flaw) => {
                    self.tally.unreadable += 1;
                    tracing::warn!(?flaw, offset = record.offset, "the durable log has no session");
                }
            }
        }
    }

    fn unreadable(&mut self, now: Moment) {
        let Some(loading) = &mut self.loading else { return };
        loading.asked = false;
        loading.failures += 1;
        if loading.failures < ATTEMPTS_MAX {
            self.retry = Some(now.after(RETRY));
            return;
        }
        self.tally.unreadable += 1;
        let line = loading.line;
        tracing::error!(shard = self.shard.0, line, "sessions of before cannot be read");
        *loading = Loading { line: line + 1, ..Loading::default() };
    }
}

impl Line {
    fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }
}

impl Waiting {
    fn bytes(&self) -> usize {
        WAITING_BYTES + self.data.len()
    }
}
