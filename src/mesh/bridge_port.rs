//! The way of routed messages from the shards to the thread of the bridge: a batch each turn, and never a
//! wait. Its answers come through a [`Mailer`](super::Mailer).
//!
//! What waits for one target, be it here, in the target's queue or on its way, is bounded: a message takes
//! a place in the target's room before it is posted, and gives it back when it is dropped. So a target
//! that takes nothing fills its own room alone.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::sidecar_port::{SidecarInbox, SidecarPort, SidecarSender, connect_sidecar};
use crate::ids::TargetId;
use crate::message::BridgeMessage;

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
    port: SidecarPort<Posted>,
    rooms: Arc<[Room]>,
    size: RoomSize,
}

/// Makes ports, one for each shard.
#[derive(Clone)]
pub struct BridgeSender {
    sender: SidecarSender<Posted>,
    rooms: Arc<[Room]>,
    size: RoomSize,
}

/// What the thread takes the messages from.
pub struct BridgeInbox {
    inbox: SidecarInbox<Posted>,
    rooms: Arc<[Room]>,
}

/// The way to a thread that serves so many targets.
pub fn connect_bridge(targets: usize, size: RoomSize) -> io::Result<(BridgeSender, BridgeInbox)> {
    let (sender, inbox) = connect_sidecar()?;
    let rooms: Arc<[Room]> = (0..targets).map(|_| Room::default()).collect();
    let inbox = BridgeInbox { inbox, rooms: Arc::clone(&rooms) };
    Ok((BridgeSender { sender, rooms, size }, inbox))
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
        BridgePort { port: self.sender.port(), rooms: Arc::clone(&self.rooms), size: self.size }
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
        self.port.post(Posted { message, place });
        true
    }

    /// As [`SidecarPort::flush`].
    pub fn flush(&mut self) {
        self.port.flush();
    }

    /// As [`SidecarPort::has_unsent`].
    pub fn has_unsent(&self) -> bool {
        self.port.has_unsent()
    }
}

impl BridgeInbox {
    /// As [`SidecarInbox::receive`].
    pub fn receive(&self) -> Option<Vec<Posted>> {
        self.inbox.receive()
    }

    /// As [`SidecarInbox::wakes`].
    pub fn wakes(&self) -> io::Result<OwnedFd> {
        self.inbox.wakes()
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
}
