//! The way of one shard to the thread of the durable log: some batches each turn, and never a wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::message::LogMessage;

/// Batches that wait for the log, from all shards together.
const BATCHES_MAX: usize = 1024;
/// An outbox of so many bytes is handed over at once: the log works while the shard's turn goes on.
const BATCH_BYTES: usize = 32 << 10;

/// Emptied batches that wait to be filled again, for each shard.
const SPARES_MAX: usize = 8;

struct Batch {
    messages: Vec<LogMessage>,
    /// Their weight, and whose account it is on.
    bytes: usize,
    account: Arc<AtomicUsize>,
    /// The list goes back there when it is empty, so that the shard need not make another one.
    spares: Sender<Vec<LogMessage>>,
}

/// One shard's access to the log.
pub struct LogPort {
    sender: Sender<Batch>,
    outbox: Vec<LogMessage>,
    /// Bytes of the outbox.
    outbox_bytes: usize,
    /// Bytes in the outbox and in the channel that this shard has put there.
    account: Arc<AtomicUsize>,
    /// Lists that the log has emptied, and the way for them.
    spares: (Sender<Vec<LogMessage>>, Receiver<Vec<LogMessage>>),
    backlog_max: usize,
}

/// What the thread of the log takes its messages from.
pub struct LogInbox {
    receiver: Receiver<Batch>,
}

/// Makes ports: one for each shard, and one for whoever ends the log.
#[derive(Clone)]
pub struct LogSender {
    sender: Sender<Batch>,
    backlog_max: usize,
}

/// The way to a log. `backlog_max`: bytes that may wait from one shard.
pub fn connect_log(backlog_max: usize) -> (LogSender, LogInbox) {
    let (sender, receiver) = bounded(BATCHES_MAX);
    (LogSender { sender, backlog_max }, LogInbox { receiver })
}

impl LogSender {
    pub fn port(&self) -> LogPort {
        LogPort {
            sender: self.sender.clone(),
            outbox: Vec::new(),
            outbox_bytes: 0,
            account: Arc::default(),
            spares: bounded(SPARES_MAX),
            backlog_max: self.backlog_max,
        }
    }

    /// Tells the log to finish and end. Waits for room where there is none: not for shards.
    pub fn stop(&self) {
        let (messages, account) = (vec![LogMessage::Stop], Arc::default());
        let (spares, _) = bounded(1);
        // A log that has ended already is content.
        drop(self.sender.send(Batch { messages, bytes: 0, account, spares }));
    }
}

impl LogPort {
    /// Puts a message into the outbox, or gives it back if too much waits already. A long outbox is
    /// handed over.
    pub fn post(&mut self, message: LogMessage) -> Result<(), LogMessage> {
        let bytes = message.weight();
        if self.account.load(Ordering::Relaxed) + bytes > self.backlog_max {
            return Err(message);
        }
        self.account.fetch_add(bytes, Ordering::Relaxed);
        self.outbox_bytes += bytes;
        self.outbox.push(message);
        if self.outbox_bytes >= BATCH_BYTES {
            self.flush();
        }
        Ok(())
    }

    /// Hands over what is in the outbox, if the channel takes it.
    pub fn flush(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        let spare = self.spares.1.try_recv().unwrap_or_default();
        let messages = std::mem::replace(&mut self.outbox, spare);
        let bytes = std::mem::take(&mut self.outbox_bytes);
        let (account, spares) = (Arc::clone(&self.account), self.spares.0.clone());
        match self.sender.try_send(Batch { messages, bytes, account, spares }) {
            Ok(()) => {}
            Err(TrySendError::Full(batch)) => {
                (self.outbox, self.outbox_bytes) = (batch.messages, batch.bytes);
            }
            // A log that has ended takes nothing; its end ends the server.
            Err(TrySendError::Disconnected(batch)) => {
                self.account.fetch_sub(batch.bytes, Ordering::Relaxed);
            }
        }
    }

    /// Whether something waits for room in the channel: it must be offered again soon.
    pub fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }
}

impl LogInbox {
    /// Puts the messages of one batch behind those in `messages`; waits for one for `timeout` at
    /// most. `false`: there was none.
    pub fn receive(&self, timeout: Duration, messages: &mut Vec<LogMessage>) -> bool {
        let mut batch = match self.receiver.recv_timeout(timeout) {
            Ok(batch) => batch,
            Err(RecvTimeoutError::Timeout) => return false,
            // All who could ask are gone.
            Err(RecvTimeoutError::Disconnected) => {
                messages.push(LogMessage::Stop);
                return true;
            }
        };
        batch.account.fetch_sub(batch.bytes, Ordering::Relaxed);
        messages.append(&mut batch.messages);
        // There are enough of them, or the shard is gone.
        drop(batch.spares.try_send(batch.messages));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ShardId, TopicName};
    use crate::message::Ticket;

    fn position(number: u64) -> LogMessage {
        let ticket = Ticket { shard: ShardId(0), number };
        LogMessage::Position { topic: TopicName::new("t"), ticket }
    }

    fn numbers(messages: &[LogMessage]) -> Vec<u64> {
        let number = |message: &LogMessage| match message {
            LogMessage::Position { ticket, .. } => ticket.number,
            LogMessage::Append(_)
            | LogMessage::Read { .. }
            | LogMessage::ReadLast { .. }
            | LogMessage::Locate { .. }
            | LogMessage::Stop => 0,
        };
        messages.iter().map(number).collect()
    }

    #[test]
    fn what_waits_is_bounded_and_room_comes_back() {
        let each = position(1).weight();
        let (sender, inbox) = connect_log(3 * each);
        let (mut port, mut other) = (sender.port(), sender.port());
        for number in 1..=3 {
            port.post(position(number)).expect("there is room");
        }
        assert!(port.post(position(4)).is_err());
        other.post(position(5)).expect("each has an account of its own");
        port.flush();
        assert!(port.post(position(6)).is_err(), "it waits in the channel");
        let mut messages = Vec::new();
        assert!(inbox.receive(Duration::ZERO, &mut messages));
        assert_eq!(numbers(&messages), [1, 2, 3]);
        port.post(position(7)).expect("there is room again");
        assert!(!inbox.receive(Duration::ZERO, &mut messages), "nothing was flushed");
    }

    #[test]
    fn a_full_channel_keeps_order() {
        let (sender, inbox) = connect_log(usize::MAX);
        let mut port = sender.port();
        for number in 0..BATCHES_MAX as u64 + 5 {
            port.post(position(number)).expect("there is room");
            port.flush();
        }
        assert!(port.has_unsent());
        let mut messages = Vec::new();
        while inbox.receive(Duration::ZERO, &mut messages) {}
        port.flush();
        assert!(!port.has_unsent());
        inbox.receive(Duration::ZERO, &mut messages);
        assert_eq!(numbers(&messages), (0..BATCHES_MAX as u64 + 5).collect::<Vec<_>>());
    }

    #[test]
    fn without_a_sender_the_log_is_told_to_stop() {
        let (sender, inbox) = connect_log(1000);
        sender.stop();
        drop(sender);
        let mut messages = Vec::new();
        for _ in 0..2 {
            assert!(inbox.receive(Duration::ZERO, &mut messages));
        }
        assert!(matches!(messages.as_slice(), [LogMessage::Stop, LogMessage::Stop]));
    }
}
