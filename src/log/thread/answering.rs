//! What shards ask of the durable log, and what they hear: questions wait for what came before them, and are
//! answered between batches.

use std::io;
use std::ops::Range;

use super::Log;
use crate::ids::{Epoch, ShardId, TopicName};
use crate::log::disk::Disk;
use crate::log::reading::ReadLimits;
use crate::message::{LogAnswer, LogSlice, Ticket};
use crate::metrics::Counter;

/// Bytes read for shards in one turn, between batches.
const READ_BYTES: usize = 1 << 20;
/// Questions that wait for their turn; over that they are refused.
const JOBS_MAX: usize = 1 << 16;

/// A question of a shard.
pub(super) enum Job {
    Read { topic: TopicName, from: u64, limits: ReadLimits, ticket: Ticket },
    ReadLast { topic: TopicName, range: Range<u64>, limits: ReadLimits, ticket: Ticket },
    Locate { topic: TopicName, since_ms: Option<u64>, until_ms: Option<u64>, ticket: Ticket },
    Position { topic: TopicName, ticket: Ticket },
}

impl Job {
    pub(super) fn shard(&self) -> ShardId {
        match self {
            Self::Read { ticket, .. }
            | Self::ReadLast { ticket, .. }
            | Self::Locate { ticket, .. }
            | Self::Position { ticket, .. } => ticket.shard,
        }
    }

    fn into_question(self) -> (TopicName, Ticket) {
        match self {
            Self::Read { topic, ticket, .. }
            | Self::ReadLast { topic, ticket, .. }
            | Self::Locate { topic, ticket, .. }
            | Self::Position { topic, ticket } => (topic, ticket),
        }
    }
}

impl<D: Disk> Log<D> {
    /// Takes a question, if not too many wait.
    pub(super) fn queue(&mut self, job: Job) {
        if self.jobs.len() < JOBS_MAX {
            self.jobs.push_back(job);
        } else {
            self.count(Counter::StoreReadRefused, 1);
            let (topic, ticket) = job.into_question();
            self.answer(ticket, LogAnswer::Unreadable { topic, ticket: ticket.number });
        }
    }

    /// Answers questions in their order, a bounded amount of bytes. Those of a shard that takes
    /// nothing now wait.
    pub(super) fn do_jobs(&mut self) {
        let mut bytes_left = READ_BYTES;
        for _ in 0..self.jobs.len() {
            if bytes_left == 0 {
                break;
            }
            let Some(job) = self.jobs.pop_front() else { break };
            if !self.mailer.has_room(job.shard()) {
                self.jobs.push_back(job);
                continue;
            }
            match job {
                Job::Position { topic, ticket } => {
                    self.trim_named(&topic);
                    let position = self.store.position(&topic);
                    let answer = LogAnswer::Position {
                        topic,
                        epoch: Epoch(position.epoch),
                        next: position.next,
                        oldest: position.oldest,
                        ticket: ticket.number,
                    };
                    self.answer(ticket, answer);
                }
                Job::Read { topic, from, limits, ticket } => {
                    let read = self.store.read(&topic, from, limits);
                    bytes_left = bytes_left.saturating_sub(self.answer_read(topic, read, ticket));
                }
                Job::ReadLast { topic, range, limits, ticket } => {
                    let read = self.store.read_last(&topic, range, limits);
                    bytes_left = bytes_left.saturating_sub(self.answer_read(topic, read, ticket));
                }
                Job::Locate { topic, since_ms, until_ms, ticket } => {
                    self.trim_named(&topic);
                    match self.store.locate(&topic, since_ms, until_ms) {
                        Ok(place) => {
                            let (place, number) = (Box::new(place), ticket.number);
                            let located = LogAnswer::Located { topic, place, ticket: number };
                            self.answer(ticket, located);
                        }
                        Err(error) => self.answer_unreadable(topic, &error, ticket),
                    }
                }
            }
        }
    }

    /// Returns how many bytes it answers with.
    fn answer_read(
        &mut self,
        topic: TopicName,
        read: io::Result<LogSlice>,
        ticket: Ticket,
    ) -> usize {
        let number = ticket.number;
        match read {
            Ok(slice) => {
                self.count(Counter::StoreRead, slice.records.len() as u64);
                let missing = slice.missing;
                if let Some(lost) = missing.filter(|missing| missing.is_lost()) {
                    self.count(Counter::StoreLost, 1);
                    let (from, to) = (lost.from, lost.to);
                    tracing::error!(
                        channel = &*topic,
                        from,
                        to,
                        "the durable log has lost publications"
                    );
                }
                let bytes = slice.records.iter().map(|record| record.data.len() + 64).sum();
                self.answer(
                    ticket,
                    LogAnswer::Read { topic, slice: Box::new(slice), ticket: number },
                );
                bytes
            }
            Err(error) => {
                self.answer_unreadable(topic, &error, ticket);
                1
            }
        }
    }

    fn answer_unreadable(&mut self, topic: TopicName, error: &io::Error, ticket: Ticket) {
        self.count(Counter::StoreReadRefused, 1);
        tracing::warn!(channel = &*topic, %error, "the durable log cannot read");
        self.answer(ticket, LogAnswer::Unreadable { topic, ticket: ticket.number });
    }
}
