//! The way of one shard to the thread of the durable log: some batches each turn, and never a wait.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::message::{LogBatch, LogMessage};

/// Batches that wait for the log, from all shards together.
const BATCHES_MAX: usize = 1024;
/// A batch with so many bytes of data is handed over at once: the log works while the shard's turn goes on.
const LONG_BATCH_BYTES: usize = 32 << 10;
/// As [`LONG_BATCH_BYTES`], of one with so many messages.
const LONG_BATCH: usize = 128;

/// Emptied batches that wait to be filled again, for each shard.
const SPARES_MAX: usize = 8;

/// A batch, and the way back for it.
pub struct LogParcel {
    pub batch: LogBatch,
    spares: Sender<LogBatch>,
}

impl LogParcel {
    fn stop() -> Self {
        let mut batch = LogBatch::default();
        batch.push(LogMessage::Stop);
        Self { batch, spares: bounded(1).0 }
    }

    /// Gives the batch, which is empty now, to its shard again, so that it need not make another one.
    pub fn give_back(self) {
        debug_assert!(self.batch.is_empty(), "what is in it is lost");
        // There are enough of them, or the shard is gone.
        drop(self.spares.try_send(self.batch));
    }
}

/// One shard's access to the log. What waits in its channel is bounded by what its shard lets the log owe
/// it: `store.backlog` for publications, and as much for sessions where it keeps those.
pub struct LogPort {
    sender: Sender<LogParcel>,
    /// Batches that the log has emptied, and the way for them.
    spares: (Sender<LogBatch>, Receiver<LogBatch>),
}

/// What the thread of the log takes its messages from.
pub struct LogInbox {
    receiver: Receiver<LogParcel>,
}

/// Makes ports: one for each shard, and one for whoever ends the log.
#[derive(Clone)]
pub struct LogSender {
    sender: Sender<LogParcel>,
}

/// The way to a log.
pub fn connect_log() -> (LogSender, LogInbox) {
    let (sender, receiver) = bounded(BATCHES_MAX);
    (LogSender { sender }, LogInbox { receiver })
}

impl LogSender {
    pub fn port(&self) -> LogPort {
        LogPort { sender: self.sender.clone(), spares: bounded(SPARES_MAX) }
    }

    /// Tells the log to finish and end. Waits for room where there is none: not for shards.
    pub fn stop(&self) {
        // A log that has ended already is content.
        drop(self.sender.send(LogParcel::stop()));
    }
}

impl LogPort {
    /// Hands over a batch that is long enough to be worth it.
    pub fn offer(&self, batch: &mut LogBatch) {
        if batch.data_bytes() >= LONG_BATCH_BYTES || batch.len() >= LONG_BATCH {
            self.flush(batch);
        }
    }

    /// Hands over a batch and leaves an empty one, if the channel takes it. What is left is to be offered
    /// again soon.
    pub fn flush(&self, batch: &mut LogBatch) {
        if batch.is_empty() {
            return;
        }
        let spare = self.spares.1.try_recv().unwrap_or_default();
        let full = std::mem::replace(batch, spare);
        match self.sender.try_send(LogParcel { batch: full, spares: self.spares.0.clone() }) {
            // A log that has ended takes nothing; its end ends the server.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(parcel)) => {
                let spare = std::mem::replace(batch, parcel.batch);
                drop(self.spares.0.try_send(spare));
            }
        }
    }
}

impl LogInbox {
    /// The next batch; `None`: there was none for as long as `timeout`.
    pub fn receive(&self, timeout: Duration) -> Option<LogParcel> {
        match self.receiver.recv_timeout(timeout) {
            Ok(parcel) => Some(parcel),
            Err(RecvTimeoutError::Timeout) => None,
            // All who could ask are gone.
            Err(RecvTimeoutError::Disconnected) => Some(LogParcel::stop()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ShardId, TopicName};
    use crate::message::{LogRequest, Ticket};

    fn put(batch: &mut LogBatch, number: u64) {
        let ticket = Ticket { shard: ShardId(0), number };
        batch.push(LogMessage::Position { topic: TopicName::new("t"), ticket });
    }

    /// The numbers of all positions that are asked for; `None`: to stop.
    fn numbers(inbox: &LogInbox, batches: usize) -> Vec<Option<u64>> {
        let mut numbers = Vec::new();
        for _ in 0..batches {
            let Some(mut parcel) = inbox.receive(Duration::ZERO) else { break };
            parcel.batch.drain(|request| {
                numbers.push(match request {
                    LogRequest::Message(LogMessage::Position { ticket, .. }) => Some(ticket.number),
                    LogRequest::Message(LogMessage::Stop) => None,
                    other => panic!("{other:?}"),
                });
            });
            parcel.give_back();
        }
        numbers
    }

    #[test]
    fn a_long_batch_goes_at_once_and_a_short_one_when_it_is_flushed() {
        let (sender, inbox) = connect_log();
        let (port, mut batch) = (sender.port(), LogBatch::default());
        for number in 1..LONG_BATCH as u64 {
            put(&mut batch, number);
            port.offer(&mut batch);
        }
        assert!(inbox.receive(Duration::ZERO).is_none());
        put(&mut batch, LONG_BATCH as u64);
        port.offer(&mut batch);
        assert!(batch.is_empty());
        put(&mut batch, LONG_BATCH as u64 + 1);
        port.offer(&mut batch);
        assert!(!batch.is_empty());
        port.flush(&mut batch);
        let all: Vec<_> = (1..=LONG_BATCH as u64 + 1).map(Some).collect();
        assert_eq!(numbers(&inbox, 10), all);
    }

    #[test]
    fn a_full_channel_keeps_order() {
        let (sender, inbox) = connect_log();
        let (port, mut batch) = (sender.port(), LogBatch::default());
        let count = BATCHES_MAX as u64 + 5;
        for number in 0..count {
            put(&mut batch, number);
            port.flush(&mut batch);
        }
        assert!(!batch.is_empty());
        let mut all = numbers(&inbox, BATCHES_MAX);
        port.flush(&mut batch);
        assert!(batch.is_empty());
        all.extend(numbers(&inbox, 1));
        assert_eq!(all, (0..count).map(Some).collect::<Vec<_>>());
    }

    #[test]
    fn an_emptied_batch_serves_again() {
        let (sender, inbox) = connect_log();
        let (port, mut batch) = (sender.port(), LogBatch::default());
        for round in 0..100 {
            put(&mut batch, round);
            port.flush(&mut batch);
            assert_eq!(numbers(&inbox, 1), [Some(round)]);
            assert_eq!(port.spares.1.len(), 1);
        }
    }

    #[test]
    fn without_a_sender_the_log_is_told_to_stop() {
        let (sender, inbox) = connect_log();
        sender.stop();
        drop(sender);
        assert_eq!(numbers(&inbox, 2), [None, None]);
    }
}
