//! What shards ask of the durable log, and what it answers.

use std::ops::Range;

use bytes::Bytes;

use crate::ids::{Epoch, ShardId, TopicName};

/// To the thread of the log, in a [`LogBatch`](super::LogBatch). Each but the last is answered by a
/// [`LogAnswer`] to the shard of its ticket; those about one topic, and appends to it, are dealt with in
/// the order they were sent.
#[derive(Debug)]
pub enum LogMessage {
    /// The publications of a topic from offset `from` on: at most `records_max`, and `bytes_max` of
    /// theirs (but always one). Answered by [`LogAnswer::Read`] or [`LogAnswer::Unreadable`].
    Read { topic: TopicName, from: u64, records_max: u32, bytes_max: usize, ticket: Ticket },
    /// As [`LogMessage::Read`], of the publications in this range those that come last.
    ReadLast {
        topic: TopicName,
        range: Range<u64>,
        records_max: u32,
        bytes_max: usize,
        ticket: Ticket,
    },
    /// What is kept of the topic, and where are these times in it (Unix milliseconds)? Answered by
    /// [`LogAnswer::Located`] or [`LogAnswer::Unreadable`].
    Locate { topic: TopicName, since_ms: Option<u64>, until_ms: Option<u64>, ticket: Ticket },
    /// Where is the topic? Answered by [`LogAnswer::Position`].
    Position { topic: TopicName, ticket: Ticket },
    /// Finish what was asked before, and end.
    Stop,
}

/// A publication to keep. Answered by [`LogAnswer::Stored`] or [`LogAnswer::Refused`].
#[derive(Debug, Clone, Copy)]
pub struct LogAppend<'a> {
    pub topic: &'a str,
    /// As the log has told it, or, of a topic that the log does not know, any.
    pub epoch: Epoch,
    /// The one behind the last that was appended and not refused.
    pub offset: u64,
    /// The newest that is known to be kept. A topic that the log does not know begins right behind it:
    /// what comes further behind has had one before it refused.
    pub stored: u64,
    /// Unix time in milliseconds.
    pub time_ms: u64,
    /// As the publisher wrote it, raw JSON.
    pub message_id: Option<&'a str>,
    /// As [`Command::Publish`](crate::proto::Command) has it.
    pub data: &'a [u8],
    pub ticket: Ticket,
}

impl LogAppend<'_> {
    /// What one with such a message id and so much data counts for the bound of the log. An estimate.
    pub fn weight(message_id: Option<&str>, data_bytes: usize) -> usize {
        LogMessage::SMALL + data_bytes + message_id.map_or(0, str::len)
    }
}

/// Who asks, and its own number of the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    pub shard: ShardId,
    pub number: u64,
}

impl LogMessage {
    /// Bytes that wait with a message, for the bound of the log. An estimate.
    pub const SMALL: usize = 160;
}

/// From the thread of the log. `ticket` is the number of the question.
#[derive(Debug, PartialEq, Eq)]
pub enum LogAnswer {
    /// Every publication of the topic up to `upto` is kept, as `store.sync` promises. One answer may
    /// stand for several appends; it has the ticket of the last.
    Stored {
        topic: TopicName,
        epoch: Epoch,
        upto: u64,
        ticket: u64,
    },
    /// This one publication is not kept.
    Refused {
        topic: TopicName,
        offset: u64,
        reason: LogRefusal,
        ticket: u64,
    },
    Read {
        topic: TopicName,
        slice: Box<LogSlice>,
        ticket: u64,
    },
    Located {
        topic: TopicName,
        place: Box<LogPlace>,
        ticket: u64,
    },
    /// The disk fails to read; it may be better at the next attempt.
    Unreadable {
        topic: TopicName,
        ticket: u64,
    },
    Position {
        topic: TopicName,
        epoch: Epoch,
        next: u64,
        oldest: u64,
        ticket: u64,
    },
}

impl LogAnswer {
    /// What it is about.
    pub fn topic(&self) -> &TopicName {
        match self {
            Self::Stored { topic, .. }
            | Self::Refused { topic, .. }
            | Self::Read { topic, .. }
            | Self::Located { topic, .. }
            | Self::Unreadable { topic, .. }
            | Self::Position { topic, .. } => topic,
        }
    }

    /// Bytes that wait with this answer. An estimate.
    pub fn weight(&self) -> usize {
        const SMALL: usize = 128;
        match self {
            Self::Read { slice, .. } => {
                SMALL + slice.records.iter().map(|record| SMALL + record.data.len()).sum::<usize>()
            }
            Self::Stored { .. }
            | Self::Refused { .. }
            | Self::Located { .. }
            | Self::Unreadable { .. }
            | Self::Position { .. } => SMALL,
        }
    }
}

/// Why a publication is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogRefusal {
    /// The disk is full or fails.
    Disk,
    /// The topic is elsewhere: a publication before this one was refused, or its epoch is another.
    Position { epoch: Epoch, next: u64 },
    /// `store.max_channels` is reached.
    Topics,
    /// No record can be that long.
    TooLong,
}

/// A part of a topic, without a hole in it.
#[derive(Debug, PartialEq, Eq)]
pub struct LogSlice {
    pub epoch: Epoch,
    /// Offset of the oldest publication that is kept.
    pub oldest: u64,
    /// Offset behind the newest.
    pub next: u64,
    /// What is missing where the reader asked to begin; the records begin right behind it.
    pub missing: Option<Missing>,
    pub records: Vec<LogRecord>,
}

/// What is kept of a topic, and where the times are that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPlace {
    pub epoch: Epoch,
    /// Offset of the oldest publication that is kept.
    pub oldest: u64,
    /// Offset behind the newest.
    pub next: u64,
    /// Offset of the first publication from that time on; `None`: it may be one that is not kept any
    /// more.
    pub since: Option<u64>,
    /// Offset of the last publication up to that time.
    pub until: u64,
}

/// Publications that will not come any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    pub from: u64,
    /// The last of them.
    pub to: u64,
    pub reason: MissingReason,
}

impl Missing {
    /// Whether somebody should look after the disk.
    pub fn is_lost(&self) -> bool {
        self.reason == MissingReason::Lost
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingReason {
    /// They were no longer to be kept.
    Trimmed,
    /// The disk has lost them.
    Lost,
}

/// A publication that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    pub offset: u64,
    /// Unix time in milliseconds.
    pub time_ms: u64,
    /// As the publisher wrote it, raw JSON.
    pub message_id: Option<Box<str>>,
    /// As it was appended.
    pub data: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_no_larger_than_a_delivery() {
        // It travels in the same batches as those.
        assert!(size_of::<LogAnswer>() <= 64, "{}", size_of::<LogAnswer>());
    }
}
