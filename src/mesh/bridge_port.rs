//! The way of routed messages from the shards to the thread of the bridge: a batch each turn, and never a
//! wait. Its answers come through a [`Mailer`](super::Mailer).
//!
//! What waits for one target, be it here, in the target's queue or on its way, is bounded: a message takes
//! a place in the target's room before it is posted, and gives it back when it is dropped. So a target
//! that takes nothing fills its own room alone.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::ids::TargetId;
use crate::message::BridgeMessage;

/// Batches that wait for the thread, from all shards together.
const BATCHES_MAX: usize = 1024;

type Batch = Vec<Posted>;

/// What may wait for one target.
#[derive(Debug, Clone, Copy)]
pub struct RoomSize {
    pub messages: usize,
    /// Over it nothing more is taken; the last one may exceed it.
    pub bytes: usize,
}

/// What does wait for one target.
#[derive(Debug, Default)]
struct Room {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

/// A place in a room, given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    rooms: Arc<[Room]>,
    target: TargetId,
    bytes: usize,
}

/// A message with its place.
#[derive(Debug)]
pub struct Posted {
    pub message: BridgeMessage,
    place: Place,
}

impl Posted {
    pub fn split(self) -> (BridgeMessage, Place) {
        (self.message, self.place)
    }
}

/// One shard's way to the thread of the bridge.
pub struct BridgePort {
    sender: Sender<Batch>,
    outbox: Batch,
    wake: Arc<PipeWriter>,
    rooms: Arc<[Room]>,
    size: RoomSize,
}

/// Makes ports, one for each shard.
#[derive(Clone)]
pub struct BridgeSender {
    sender: Sender<Batch>,
    wake: Arc<PipeWriter>,
    rooms: Arc<[Room]>,
    size: RoomSize,
}

/// What the thread takes the messages from.
pub struct BridgeInbox {
    receiver: Receiver<Batch>,
    /// Readable when something may have come.
    wakes: PipeReader,
    rooms: Arc<[Room]>,
}

/// The way to a thread that serves so many targets.
pub fn connect_bridge(targets: usize, size: RoomSize) -> io::Result<(BridgeSender, BridgeInbox)> {
    let (wakes, wake) = io::pipe()?;
    rustix::io::ioctl_fionbio(&wake, true)?;
    let (sender, receiver) = bounded(BATCHES_MAX);
    let rooms: Arc<[Room]> = (0..targets).map(|_| Room::default()).collect();
    let inbox = BridgeInbox { receiver, wakes, rooms: Arc::clone(&rooms) };
    Ok((BridgeSender { sender, wake: Arc::new(wake), rooms, size }, inbox))
}

impl Place {
    fn take(rooms: &Arc<[Room]>, target: TargetId, bytes: usize, size: RoomSize) -> Option<Self> {
        let room = rooms.get(target.index())?;
        if room.bytes.load(Ordering::Relaxed) >= size.bytes {
            return None;
        }
        if room.messages.fetch_add(1, Ordering::Relaxed) >= size.messages {
            room.messages.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        room.bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(Self { rooms: Arc::clone(rooms), target, bytes })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(room) = self.rooms.get(self.target.index()) {
            room.messages.fetch_sub(1, Ordering::Relaxed);
            room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl BridgeSender {
    pub fn port(&self) -> BridgePort {
        BridgePort {
            sender: self.sender.clone(),
            outbox: Vec::new(),
            wake: Arc::clone(&self.wake),
            rooms: Arc::clone(&self.rooms),
            size: self.size,
        }
    }
}

impl BridgePort {
    /// Puts a message into the outbox. `false`: there is no room for it at its target.
    #[must_use]
    pub fn post(&mut self, message: BridgeMessage) -> bool {
        let (target, bytes) = (message.target, message.weight());
        let Some(place) = Place::take(&self.rooms, target, bytes, self.size) else {
            return false;
        };
        self.outbox.push(Posted { message, place });
        true
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
            // The thread has ended, and the server is about to.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    /// Whether something waits for room in the channel: it must be offered again soon.
    pub fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }
}

impl BridgeInbox {
    /// The next messages. `None`: look again when the descriptor is readable.
    pub fn receive(&self) -> Option<Batch> {
        self.receiver.try_recv().ok()
    }

    /// The reading end of a pipe: there is a byte in it for each batch. Read it first, then receive.
    pub fn wakes(&self) -> io::Result<OwnedFd> {
        Ok(self.wakes.try_clone()?.into())
    }

    /// Messages that wait for all targets, those on their way included.
    pub fn waiting(&self) -> usize {
        self.rooms.iter().map(|room| room.messages.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ConnectionId, ShardId, Token};
    use crate::message::BridgeOrigin;

    fn message(target: u16, text: &str) -> BridgeMessage {
        let shard = ShardId(0);
        let token = Token { slot: 0, generation: 0 };
        BridgeMessage {
            target: TargetId(target),
            kind: "x".into(),
            text: text.into(),
            connection_id: ConnectionId { shard, slot: 0, secret: 0 },
            user: None,
            channel: None,
            received_ms: 0,
            origin: BridgeOrigin { shard, token, request_id: None, message_id: None },
        }
    }

    #[test]
    fn a_target_that_takes_nothing_fills_its_own_room_alone() {
        let size = RoomSize { messages: 2, bytes: 1 << 20 };
        let (sender, inbox) = connect_bridge(2, size).expect("descriptors");
        let (mut one, mut other) = (sender.port(), sender.port());
        assert!(one.post(message(0, "a")) && other.post(message(0, "b")));
        assert!(!one.post(message(0, "c")) && !other.post(message(0, "c")));
        assert!(one.post(message(1, "d")) && !one.post(message(2, "there is no such target")));
        assert!(inbox.receive().is_none());
        one.flush();
        other.flush();
        assert_eq!(inbox.waiting(), 3);
        let batch = inbox.receive().expect("a batch");
        let texts: Vec<_> = batch.iter().map(|posted| &*posted.message.text).collect();
        assert_eq!(texts, ["a", "d"]);
        assert!(!one.post(message(0, "c")), "it is on its way");
        drop(batch);
        assert!(one.post(message(0, "c")));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let size = RoomSize { messages: 100, bytes: 1000 };
        let (sender, inbox) = connect_bridge(1, size).expect("descriptors");
        let mut port = sender.port();
        assert!(port.post(message(0, &"x".repeat(5000))) && !port.post(message(0, "")));
        port.flush();
        drop(inbox.receive());
        assert!(port.post(message(0, "")));
    }

    #[test]
    fn a_full_channel_keeps_what_it_cannot_take() {
        let size = RoomSize { messages: 1 << 20, bytes: 1 << 30 };
        let (sender, inbox) = connect_bridge(1, size).expect("descriptors");
        let mut port = sender.port();
        for _ in 0..BATCHES_MAX + 5 {
            assert!(port.post(message(0, "x")));
            port.flush();
        }
        assert!(port.has_unsent());
        let received = std::iter::from_fn(|| inbox.receive()).flatten().count();
        port.flush();
        assert!(!port.has_unsent());
        assert_eq!(received + inbox.receive().map_or(0, |batch| batch.len()), BATCHES_MAX + 5);
        drop(inbox);
        assert!(port.post(message(0, "x")));
        port.flush();
        assert!(!port.has_unsent(), "nobody takes it any more");
    }
}
