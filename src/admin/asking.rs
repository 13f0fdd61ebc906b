//! The way to the shards and back: questions into their mailboxes, a batch for whatever requests are
//! ready at a time, and answers to whoever asked.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::{Notify, oneshot};

use super::error::ApiError;
use crate::ids::ShardId;
use crate::mesh::{AdminInbox, Mailer};
use crate::message::{AdminAnswer, AdminCall, AdminRequest, AdminTicket, ShardMessage};

/// While a shard does not take its questions.
const UNSENT_WAIT: Duration = Duration::from_millis(1);

/// All shards, as requests ask them. Only the thread of the server API has it, so its lock is never
/// waited for.
pub struct Shards {
    inner: Mutex<Inner>,
    /// Something was posted.
    posted: Notify,
    count: u16,
}

struct Inner {
    mailer: Mailer,
    /// Who waits, as many as the mailer has room for.
    calls: HashMap<AdminTicket, oneshot::Sender<AdminAnswer>>,
    last_ticket: u64,
}

/// A question under way.
pub struct Asked(oneshot::Receiver<AdminAnswer>);

impl Shards {
    pub fn new(mailer: Mailer, count: u16) -> Self {
        let inner = Inner { mailer, calls: HashMap::new(), last_ticket: 0 };
        Self { inner: Mutex::new(inner), posted: Notify::new(), count }
    }

    pub fn ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.count).map(ShardId)
    }

    /// Asks a shard; questions to one shard are answered as if they came one after the other.
    pub fn ask(&self, shard: ShardId, call: AdminCall) -> Result<Asked, ApiError> {
        let mut inner = self.lock();
        if !inner.mailer.has_room(shard) {
            return Err(ApiError::backlog_full());
        }
        inner.last_ticket += 1;
        let ticket = AdminTicket::new(inner.last_ticket);
        let (sender, receiver) = oneshot::channel();
        // Its end is that of the receiver too, for a shard that there is not.
        if shard.0 < self.count {
            inner.calls.insert(ticket, sender);
            let request = Box::new(AdminRequest { ticket, call });
            inner.mailer.post(shard, ShardMessage::Admin(request));
            self.posted.notify_one();
        }
        Ok(Asked(receiver))
    }

    /// Whether each shard can be asked something.
    pub fn check_room(&self) -> Result<(), ApiError> {
        let inner = self.lock();
        match self.ids().all(|shard| inner.mailer.has_room(shard)) {
            true => Ok(()),
            false => Err(ApiError::backlog_full()),
        }
    }

    /// Hands over what was posted, for ever.
    pub async fn keep_flushing(&self) {
        loop {
            self.posted.notified().await;
            // What other requests have to post now shares the batch, and the wake-up.
            tokio::task::yield_now().await;
            while self.flush() {
                tokio::time::sleep(UNSENT_WAIT).await;
            }
        }
    }

    /// Whether something is left.
    fn flush(&self) -> bool {
        let mut inner = self.lock();
        inner.mailer.flush();
        inner.mailer.has_unsent()
    }

    /// Hands answers to those who wait for them, for ever.
    pub async fn keep_answering(&self, inbox: AdminInbox) -> io::Result<()> {
        let wakes = pipe::Receiver::from_owned_fd(inbox.wakes()?)?;
        let mut bytes = [0; 1024];
        loop {
            wakes.readable().await?;
            let read = wakes.try_read(&mut bytes);
            while let Some(answers) = inbox.receive() {
                let mut inner = self.lock();
                for (ticket, answer) in answers {
                    if let Some(call) = inner.calls.remove(&ticket) {
                        // Whoever asked may have given up.
                        drop(call.send(answer));
                    }
                }
            }
            if matches!(read, Ok(0)) {
                // All shards have ended; the server will say so.
                return std::future::pending().await;
            }
        }
    }

    /// Nobody will answer any more.
    pub fn give_up(&self) {
        self.lock().calls.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half-way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    /// The answer, which is not a refusal.
    pub async fn answer(self) -> Result<AdminAnswer, ApiError> {
        match self.0.await {
            Ok(AdminAnswer::Refused(refusal)) => Err(refusal.into()),
            Ok(answer) => Ok(answer),
            Err(_) => Err(ApiError::shutting_down()),
        }
    }
}
