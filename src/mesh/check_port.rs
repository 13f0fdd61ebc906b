//! The way of texts from the shards to the checker: handed over at once, and never a wait. Its verdicts come
//! through a [`Mailer`](super::Mailer).
//!
//! What waits is bounded. A question takes a place, which the shard gives back when it has done what follows
//! from the verdict: so it is known of the whole server whether anything waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::message::Question;

/// Questions that wait, of all shards together.
const QUESTIONS_MAX: usize = 256;

/// What waits.
#[derive(Debug, Default)]
struct Room {
    questions: AtomicUsize,
    bytes: AtomicUsize,
}

/// One shard's way to the checker.
pub struct CheckPort {
    sender: Sender<Question>,
    room: Arc<Room>,
    bytes_max: usize,
}

/// Makes ports, one for each shard.
pub struct CheckSender {
    sender: Sender<Question>,
    room: Arc<Room>,
    bytes_max: usize,
}

/// What the checker takes the questions from.
pub struct CheckInbox {
    receiver: Receiver<Question>,
}

/// The way to a checker. `bytes_max`: over it nothing more is taken; the last text may exceed it.
pub fn connect_checker(bytes_max: usize) -> (CheckSender, CheckInbox) {
    let (sender, receiver) = bounded(QUESTIONS_MAX);
    (CheckSender { sender, room: Arc::default(), bytes_max }, CheckInbox { receiver })
}

impl CheckSender {
    pub fn port(&self) -> CheckPort {
        let (sender, room) = (self.sender.clone(), Arc::clone(&self.room));
        CheckPort { sender, room, bytes_max: self.bytes_max }
    }
}

impl CheckPort {
    /// Hands a question over. `false`: there is no room for it.
    #[must_use]
    pub fn post(&self, question: Question) -> bool {
        let bytes = question.text.len();
        if !self.has_room() {
            return false;
        }
        self.room.questions.fetch_add(1, Ordering::AcqRel);
        self.room.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Fails if other shards were faster, or if there is nobody to answer.
        let posted = self.sender.try_send(question).is_ok();
        if !posted {
            self.give_back(1, bytes);
        }
        posted
    }

    /// Whether the next question may be taken.
    pub fn has_room(&self) -> bool {
        self.room.questions.load(Ordering::Relaxed) < QUESTIONS_MAX
            && self.room.bytes.load(Ordering::Relaxed) < self.bytes_max
    }

    /// What followed from so many verdicts is done, and has left for other shards.
    pub fn give_back(&self, questions: usize, bytes: usize) {
        self.room.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.room.questions.fetch_sub(questions, Ordering::AcqRel);
    }

    /// Whether something waits for a verdict, of any shard.
    pub fn is_waiting(&self) -> bool {
        self.room.questions.load(Ordering::Acquire) > 0
    }
}

impl CheckInbox {
    /// Waits for the next question. `None`: all shards have ended.
    pub fn receive(&self) -> Option<Question> {
        self.receiver.recv().ok()
    }

    /// The next question, if there is one.
    pub fn try_receive(&self) -> Option<Question> {
        self.receiver.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ShardId, Token};
    use crate::schema::Schema;

    fn question(text: &str) -> Question {
        let token = Token { slot: 0, generation: 0 };
        let schema = Arc::new(Schema::envelope());
        Question { shard: ShardId(0), token, schema, text: text.into() }
    }

    #[test]
    fn a_place_is_taken_until_the_shard_has_done_with_the_verdict() {
        let (sender, inbox) = connect_checker(100);
        let (one, other) = (sender.port(), sender.port());
        assert!(!one.is_waiting());
        assert!(one.post(question(&"x".repeat(500))), "the last one may exceed the bound");
        assert!(!other.post(question("y")));
        let verdict = inbox.receive().expect("it was posted").judge();
        assert!(other.is_waiting() && !other.has_room());
        assert!(verdict.outcome.is_err());
        one.give_back(1, verdict.bytes);
        assert!(!other.is_waiting() && other.post(question("y")));
    }

    #[test]
    fn questions_are_bounded_too() {
        let (sender, inbox) = connect_checker(usize::MAX);
        let port = sender.port();
        assert!((0..QUESTIONS_MAX).all(|_| port.post(question(""))));
        assert!(!port.post(question("")));
        assert!(inbox.try_receive().is_some());
        port.give_back(1, 0);
        assert!(port.post(question("")));
        port.give_back(2, 0);
        drop(inbox);
        assert!(!port.post(question("")), "nobody answers");
    }

    #[test]
    fn the_inbox_ends_with_the_shards() {
        let (sender, inbox) = connect_checker(1);
        let port = sender.port();
        drop(sender);
        assert!(port.post(question("")));
        drop(port);
        assert!(inbox.receive().is_some() && inbox.receive().is_none());
    }
}
