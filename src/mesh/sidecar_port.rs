//! The way from the shards to a thread beside them, of the server API or of the bridge: a batch each turn,
//! and never a wait. What comes back takes a [`Mailer`](super::Mailer).

use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// Batches that wait for the thread, from all shards together.
pub(super) const BATCHES_MAX: usize = 1024;

/// One shard's way to the thread. What waits in it is for its user to bound.
pub struct SidecarPort<T> {
    sender: Sender<Vec<T>>,
    outbox: Vec<T>,
    wake: Arc<PipeWriter>,
}

/// Makes ports, one for each shard.
pub struct SidecarSender<T> {
    sender: Sender<Vec<T>>,
    wake: Arc<PipeWriter>,
}

/// What the thread takes from the shards.
pub struct SidecarInbox<T> {
    receiver: Receiver<Vec<T>>,
    /// Readable when something may have come.
    wakes: PipeReader,
}

/// The way to a thread.
pub fn connect_sidecar<T>() -> io::Result<(SidecarSender<T>, SidecarInbox<T>)> {
    let (wakes, wake) = io::pipe()?;
    rustix::io::ioctl_fionbio(&wake, true)?;
    let (sender, receiver) = bounded(BATCHES_MAX);
    Ok((SidecarSender { sender, wake: Arc::new(wake) }, SidecarInbox { receiver, wakes }))
}

impl<T> SidecarSender<T> {
    pub fn port(&self) -> SidecarPort<T> {
        SidecarPort {
            sender: self.sender.clone(),
            outbox: Vec::new(),
            wake: Arc::clone(&self.wake),
        }
    }
}

impl<T> Clone for SidecarSender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), wake: Arc::clone(&self.wake) }
    }
}

impl<T> SidecarPort<T> {
    /// Puts it into the outbox.
    pub fn post(&mut self, item: T) {
        self.outbox.push(item);
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
            // The thread has ended: nobody asks any more, or the server is about to end.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    /// Whether something waits for room in the channel: it must be offered again soon.
    pub fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }
}

impl<T> SidecarInbox<T> {
    /// The next batch. `None`: look again when the descriptor is readable.
    pub fn receive(&self) -> Option<Vec<T>> {
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

    #[test]
    fn a_batch_wakes_once_and_an_empty_one_does_not() {
        let (sender, mut inbox) = connect_sidecar().expect("descriptors");
        rustix::io::ioctl_fionbio(&inbox.wakes, true).expect("a pipe");
        let mut wakes = || inbox.wakes.read(&mut [0; 8]).unwrap_or(0);
        let mut port = sender.port();
        port.flush();
        assert_eq!(wakes(), 0);
        port.post(1);
        port.post(2);
        assert!(inbox.receiver.is_empty());
        port.flush();
        assert_eq!(wakes(), 1);
        assert_eq!(inbox.receive(), Some(vec![1, 2]));
    }

    #[test]
    fn a_full_channel_keeps_what_it_cannot_take() {
        let (sender, inbox) = connect_sidecar().expect("descriptors");
        let mut port = sender.port();
        for number in 0..BATCHES_MAX + 5 {
            port.post(number);
            port.flush();
        }
        assert!(port.has_unsent());
        let mut received: Vec<_> = std::iter::from_fn(|| inbox.receive()).flatten().collect();
        port.flush();
        assert!(!port.has_unsent());
        received.extend(inbox.receive().into_iter().flatten());
        assert_eq!(received, (0..BATCHES_MAX + 5).collect::<Vec<_>>());
        drop(inbox);
        port.post(1);
        port.flush();
        assert!(!port.has_unsent(), "nobody takes it any more");
    }
}
