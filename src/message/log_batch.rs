//! What one shard has for the durable log, on its way there as a whole.

use std::ops::Range;

use super::log::{LogAppend, LogMessage, Ticket};
use crate::ids::Epoch;

/// Room for names, and for data, that a batch keeps when it is empty.
const SPARE_BYTES_MAX: usize = 256 << 10;
/// As [`SPARE_BYTES_MAX`], for what is asked.
const SPARE_MAX: usize = 1 << 10;

/// Messages and appends, in order. What the appends say lies end to end in memory that serves again: an append
/// allocates nothing, and shares nothing with what its shard keeps of it.
#[derive(Debug, Default)]
pub struct LogBatch {
    asked: Vec<Asked>,
    /// Of each append its topic and its message id.
    names: String,
    data: Vec<u8>,
}

#[derive(Debug)]
enum Asked {
    Message(LogMessage),
    Append(Append),
}

/// A [`LogAppend`] whose names and data lie in the batch.
#[derive(Debug)]
struct Append {
    epoch: Epoch,
    offset: u64,
    stored: u64,
    time_ms: u64,
    ticket: Ticket,
    topic: Range<usize>,
    /// Begins where the topic ends.
    id_end: Option<usize>,
    data: Range<usize>,
}

/// One thing that is asked of the log.
#[derive(Debug)]
pub enum LogRequest<'a> {
    Message(LogMessage),
    Append(LogAppend<'a>),
}

impl LogBatch {
    pub fn push(&mut self, message: LogMessage) {
        self.asked.push(Asked::Message(message));
    }

    /// Copies what it says.
    pub fn append(&mut self, append: LogAppend<'_>) {
        let LogAppend { topic, epoch, offset, stored, time_ms, message_id, data, ticket } = append;
        let (begin, data_begin) = (self.names.len(), self.data.len());
        self.names.push_str(topic);
        let topic = begin..self.names.len();
        let id_end = message_id.map(|id| {
            self.names.push_str(id);
            self.names.len()
        });
        self.data.extend_from_slice(data);
        let data = data_begin..self.data.len();
        let append = Append { epoch, offset, stored, time_ms, ticket, topic, id_end, data };
        self.asked.push(Asked::Append(append));
    }

    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Messages and appends.
    pub fn len(&self) -> usize {
        self.asked.len()
    }

    /// Bytes of the data of its appends.
    pub fn data_bytes(&self) -> usize {
        self.data.len()
    }

    /// Takes everything out, in order.
    pub fn drain(&mut self, mut take: impl FnMut(LogRequest<'_>)) {
        for asked in self.asked.drain(..) {
            take(match asked {
                Asked::Message(message) => LogRequest::Message(message),
                Asked::Append(append) => LogRequest::Append(append.with(&self.names, &self.data)),
            });
        }
        // Of a batch that has waited for a slow disk.
        self.asked.shrink_to(SPARE_MAX);
        self.names.clear();
        self.names.shrink_to(SPARE_BYTES_MAX);
        self.data.clear();
        self.data.shrink_to(SPARE_BYTES_MAX);
    }
}

impl Append {
    fn with<'a>(self, names: &'a str, data: &'a [u8]) -> LogAppend<'a> {
        LogAppend {
            message_id: self.id_end.map(|end| &names[self.topic.end..end]),
            topic: &names[self.topic],
            epoch: self.epoch,
            offset: self.offset,
            stored: self.stored,
            time_ms: self.time_ms,
            data: &data[self.data],
            ticket: self.ticket,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ShardId, TopicName};

    #[test]
    fn what_goes_in_comes_out_in_order_and_leaves_room_for_more() {
        let mut batch = LogBatch::default();
        for round in 0..3u64 {
            let ids = [None, Some(""), Some("\"a\"")];
            for (offset, message_id) in (1..).zip(ids) {
                let ticket = Ticket { shard: ShardId(1), number: round };
                batch.append(LogAppend {
                    topic: "t:é",
                    epoch: Epoch(7),
                    offset,
                    stored: offset - 1,
                    time_ms: 9,
                    message_id,
                    data: &vec![b'x'; (offset as usize) << 16],
                    ticket,
                });
                batch.push(LogMessage::Position { topic: TopicName::new("p"), ticket });
            }
            assert_eq!(batch.len(), 6);
            let mut appends = 0;
            let mut messages = 0;
            batch.drain(|request| match request {
                LogRequest::Append(append) => {
                    assert_eq!((append.topic, append.epoch, append.time_ms), ("t:é", Epoch(7), 9));
                    assert_eq!(append.message_id, ids[appends]);
                    appends += 1;
                    assert_eq!((append.offset, append.stored + 1), (appends as u64, append.offset));
                    assert_eq!(append.data.len(), appends << 16);
                    assert_eq!(append.ticket.number, round);
                    assert_eq!(messages + 1, appends, "each in its place");
                }
                LogRequest::Message(_) => {
                    messages += 1;
                    assert_eq!(messages, appends);
                }
            });
            assert_eq!((appends, messages, batch.len(), batch.data_bytes()), (3, 3, 0, 0));
            assert!(batch.data.capacity() <= SPARE_BYTES_MAX);
        }
    }
}
