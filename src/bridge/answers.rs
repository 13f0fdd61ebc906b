//! The way back to the shards: what became of messages, into their mailboxes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::ids::ShardId;
use crate::mesh::Mailer;
use crate::message::{BridgeAnswer, BridgeOrigin, BridgeOutcome, ShardMessage};

/// While a shard does not take its answers.
const UNSENT_WAIT: Duration = Duration::from_millis(1);

/// All shards, as tasks answer them. Only the thread of the bridge has it, so its lock is never waited
/// for.
pub struct Answers {
    mailer: Mutex<Mailer>,
    /// Something was posted.
    posted: Notify,
}

impl Answers {
    pub fn new(mailer: Mailer) -> Self {
        Self { mailer: Mutex::new(mailer), posted: Notify::new() }
    }

    /// Tells a shard what became of a message, as soon as it has room for that.
    pub async fn send(&self, origin: BridgeOrigin, outcome: BridgeOutcome) {
        let shard = origin.shard;
        while !self.has_room(shard) {
            tokio::time::sleep(UNSENT_WAIT).await;
        }
        let answer = Box::new(BridgeAnswer { origin, outcome });
        self.lock().post(shard, ShardMessage::Bridge(answer));
        self.posted.notify_one();
    }

    /// Hands over what was posted, for ever.
    pub async fn keep_flushing(self: Arc<Self>) {
        loop {
            self.posted.notified().await;
            // What other tasks have to post now shares the batch, and the wake-up.
            tokio::task::yield_now().await;
            while self.flush() {
                tokio::time::sleep(UNSENT_WAIT).await;
            }
        }
    }

    fn has_room(&self, shard: ShardId) -> bool {
        self.lock().has_room(shard)
    }

    /// Whether something is left.
    fn flush(&self) -> bool {
        let mut mailer = self.lock();
        mailer.flush();
        mailer.has_unsent()
    }

    fn lock(&self) -> MutexGuard<'_, Mailer> {
        // Nothing in here panics half-way.
        self.mailer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
