//! The thread that asks schemas about large texts, so that no event loop has to.
//!
//! One for the whole server. What waits for it is bounded by the room of its
//! [`CheckPort`](crate::mesh::CheckPort)s; a shard that finds it full asks the schema itself.

use std::thread;
use std::time::Duration;

use crate::mesh::{CheckInbox, Mailer};
use crate::message::ShardMessage;

/// How long a verdict waits that a shard cannot take yet.
const RETRY_PAUSE: Duration = Duration::from_millis(1);

/// Answers questions until all shards have ended.
pub fn run(inbox: &CheckInbox, mut mailer: Mailer) {
    loop {
        let posted = if mailer.has_unsent() {
            thread::sleep(RETRY_PAUSE);
            mailer.flush();
            inbox.try_receive()
        } else {
            let posted = inbox.receive();
            if posted.is_none() {
                return;
            }
            posted
        };
        if let Some(question) = posted {
            let shard = question.shard;
            let verdict = question.judge();
            mailer.post(shard, ShardMessage::Verdict(Box::new(verdict)));
            mailer.flush();
        }
    }
}
