//! The way of the shards' answers to the thread of the server API: a batch each turn, and never a wait.
//! Its questions come through a [`Mailer`](super::Mailer).

use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::message::{AdminAnswer, AdminTicket};

/// Batches that wait for the thread, from all shards together.
const BATCHES_MAX: usize = 1024;

type Batch = Vec<(AdminTicket, AdminAnswer)>;

/// One shard's way to the thread of the server API. What waits in it is bounded by what that thread
/// has asked.
pub struct AdminPort {
    sender: Sender<Batch>,
    outbox: Batch,
    wake: Arc<PipeWriter>,
}

/// Makes ports, one for each shard.
#[derive(Clone)]
pub struct AdminSender {
    sender: Sender<Batch>,
    wake: Arc<PipeWriter>,
}

/// What the thread takes the answers from.
pub struct AdminInbox {
    receiver: Receiver<Batch>,
    /// Readable when something may have come.
    wakes: PipeReader,
}

/// The way to a thread of the server API.
pub fn connect_admin() -> io::Result<(AdminSender, AdminInbox)> {
    let (wakes, wake) = io::pipe()?;
    rustix::io::ioctl_fionbio(&wake, true)?;
    let (sender, receiver) = bounded(BATCHES_MAX);
    Ok((AdminSender { sender, wake: Arc::new(wake) }, AdminInbox { receiver, wakes }))
}

impl AdminSender {
    pub fn port(&self) -> AdminPort {
        AdminPort { sender: self.sender.clone(), outbox: Vec::new(), wake: Arc::clone(&self.wake) }
    }
}

impl AdminPort {
    pub fn post(&mut self, ticket: AdminTicket, answer: AdminAnswer) {
        self.outbox.push((ticket, answer));
    }

    /// Hands over what is in the outbox, if the channel takes it.
    pub fn flush(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        match self.sender.try_send(std::mem::take(&mut self.outbox)) {
            // Fails only when thousands of wake-ups are unread: it is awake then.
            Ok(()) => drop((&*self.wake).write(&[0])),
            Err(TrySendError::Full(batch)) => self.outbox = batch,
            // The thread has ended, and with it whoever asked.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    /// Whether something waits for room in the channel: it must be offered again soon.
    pub fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }
}

impl AdminInbox {
    /// The next answers. `None`: look again when the descriptor is readable.
    pub fn receive(&self) -> Option<Batch> {
        self.receiver.try_recv().ok()
    }

    /// The reading end of a pipe: there is a byte in it for each batch. Read it first, then receive.
    pub fn wakes(&self) -> io::Result<OwnedFd> {
        Ok(self.wakes.try_clone()?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn tickets(batch: Option<Batch>) -> Vec<AdminTicket> {
        batch.unwrap_or_default().into_iter().map(|(ticket, _)| ticket).collect()
    }

    #[test]
    fn a_batch_wakes_once_and_an_empty_one_does_not() {
        let (sender, mut inbox) = connect_admin().expect("descriptors");
        rustix::io::ioctl_fionbio(&inbox.wakes, true).expect("a pipe");
        let mut wakes = || inbox.wakes.read(&mut [0; 8]).unwrap_or(0);
        let mut port = sender.port();
        port.flush();
        assert_eq!(wakes(), 0);
        port.post(AdminTicket::new(1), AdminAnswer::Done);
        port.post(AdminTicket::new(2), AdminAnswer::Done);
        assert!(inbox.receiver.is_empty());
        port.flush();
        assert_eq!(wakes(), 1);
        assert_eq!(tickets(inbox.receive()), [AdminTicket::new(1), AdminTicket::new(2)]);
    }

    #[test]
    fn a_full_channel_keeps_what_it_cannot_take() {
        let (sender, inbox) = connect_admin().expect("descriptors");
        let mut port = sender.port();
        for number in 0..BATCHES_MAX as u64 + 5 {
            port.post(AdminTicket::new(number), AdminAnswer::Done);
            port.flush();
        }
        assert!(port.has_unsent());
        let mut received: Vec<_> = std::iter::from_fn(|| inbox.receive()).flatten().collect();
        port.flush();
        assert!(!port.has_unsent());
        received.extend(inbox.receive().into_iter().flatten());
        let numbers = (0..BATCHES_MAX as u64 + 5).map(AdminTicket::new).collect::<Vec<_>>();
        assert_eq!(tickets(Some(received)), numbers);
        drop(inbox);
        port.post(AdminTicket::new(1), AdminAnswer::Done);
        port.flush();
        assert!(!port.has_unsent(), "nobody asks any more");
    }
}
