//! The frames of one shard, shared by all its connections, and the list nodes of their queues.
//!
//! A frame is held once per shard and referred to by index with a plain count, so queueing it for one
//! more connection touches no atomic and allocates nothing. The pool of nodes stays small and hot,
//! since most nodes live for one turn only.
//!
//! While a publication is being delivered its frame may have a *twin*: the same in another encoding, for
//! all connections that want it.

use bytes::Bytes;
use slab::Slab;

use crate::config::SlowConsumer;

/// No node.
pub(super) const NIL: u32 = u32::MAX;

/// What a frame that waits costs on top of its bytes, if nobody shares it: its node, its place in the
/// pool, and what its allocation takes.
pub const FRAME_OVERHEAD_BYTES: usize = 128;

/// A frame in the [`FramePool`]. Valid while somebody holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameId(u32);

/// What a queue may do with a frame when its reader is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameClass {
    /// Goes ahead of what waits, never dropped.
    Control,
    /// As [`FrameClass::Control`], and a newer one may take its place (RFC 6455 §5.5.3).
    Pong,
    /// HTTP responses: nothing goes ahead of them, never dropped.
    Http,
    /// Confirmations, errors, echoes, Close: never dropped.
    Reply,
    /// A publication that its topic keeps: no policy drops it, only the end of the connection.
    Retained,
    /// A publication of the topic with that key, under the policy of its namespace.
    Publication { topic: u32, policy: SlowConsumer },
}

#[derive(Debug)]
struct Frame {
    bytes: Bytes,
    class: FrameClass,
    /// Queue nodes and holders. Invariant: never 0.
    references: u32,
    /// The frame with the same publication in another encoding, which this one holds; [`NIL`]: none.
    twin: u32,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    frame: u32,
    next: u32,
}

/// The frames of one shard, and the nodes of its queues.
#[derive(Debug)]
pub struct FramePool {
    frames: Slab<Frame>,
    nodes: Vec<Node>,
    /// First of the unused nodes.
    free: u32,
    nodes_used: usize,
    /// Of all twins that their frames hold: their bytes and [`FRAME_OVERHEAD_BYTES`].
    twin_bytes: usize,
}

impl Default for FramePool {
    fn default() -> Self {
        Self { frames: Slab::new(), nodes: Vec::new(), free: NIL, nodes_used: 0, twin_bytes: 0 }
    }
}

impl FramePool {
    /// Takes in a frame; the caller holds it until [`FramePool::release`].
    pub fn insert(&mut self, bytes: Bytes, class: FrameClass) -> FrameId {
        // 2^32 frames of 48 bytes do not fit a machine this runs on.
        FrameId(self.frames.insert(Frame { bytes, class, references: 1, twin: NIL }) as u32)
    }

    pub fn release(&mut self, id: FrameId) {
        let frame = &mut self.frames[id.0 as usize];
        frame.references -= 1;
        if frame.references == 0 {
            debug_assert_eq!(frame.twin, NIL, "whoever gave it a twin retires it");
            self.frames.remove(id.0 as usize);
        }
    }

    /// The frame with the same publication in the other encoding, if it has been made.
    pub fn twin(&self, id: FrameId) -> Option<FrameId> {
        let twin = self.frames[id.0 as usize].twin;
        (twin != NIL).then_some(FrameId(twin))
    }

    /// Gives a frame that has none its twin, which stays until [`FramePool::retire`].
    pub fn insert_twin(&mut self, id: FrameId, bytes: Bytes) -> FrameId {
        self.twin_bytes += bytes.len() + FRAME_OVERHEAD_BYTES;
        let twin = self.insert(bytes, self.class(id));
        let frame = &mut self.frames[id.0 as usize];
        debug_assert_eq!(frame.twin, NIL, "it has one");
        frame.twin = twin.0;
        twin
    }

    /// As [`FramePool::release`], and lets go of the twin: nobody else is to get the publication. Queues
    /// that have the one or the other keep it.
    pub fn retire(&mut self, id: FrameId) {
        if let Some(twin) = self.twin(id) {
            self.twin_bytes -= self.bytes(twin).len() + FRAME_OVERHEAD_BYTES;
            self.frames[id.0 as usize].twin = NIL;
            self.release(twin);
        }
        self.release(id);
    }

    /// Memory that twins take, as long as their publications are being delivered.
    pub fn twin_bytes(&self) -> usize {
        self.twin_bytes
    }

    pub fn bytes(&self, id: FrameId) -> &Bytes {
        &self.frames[id.0 as usize].bytes
    }

    pub fn class(&self, id: FrameId) -> FrameClass {
        self.frames[id.0 as usize].class
    }

    /// Frames held by anybody.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Gives the memory of a past burst back, as far as what is in use does not lie behind it.
    pub fn shrink(&mut self) {
        const KEPT: usize = 1 << 12;
        if self.nodes_used == 0 && self.nodes.capacity() > KEPT {
            self.nodes = Vec::new();
            self.free = NIL;
        }
        if self.frames.len() < KEPT / 2 && self.frames.capacity() > KEPT {
            self.frames.shrink_to_fit();
        }
    }

    pub(super) fn node(&mut self, frame: FrameId, next: u32) -> u32 {
        self.frames[frame.0 as usize].references += 1;
        self.nodes_used += 1;
        let node = Node { frame: frame.0, next };
        if self.free == NIL {
            self.nodes.push(node);
            return (self.nodes.len() - 1) as u32;
        }
        let index = self.free;
        self.free = self.nodes[index as usize].next;
        self.nodes[index as usize] = node;
        index
    }

    pub(super) fn free_node(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        let frame = FrameId(node.frame);
        node.next = self.free;
        self.free = index;
        self.nodes_used -= 1;
        self.release(frame);
    }

    pub(super) fn frame_of(&self, node: u32) -> FrameId {
        FrameId(self.nodes[node as usize].frame)
    }

    pub(super) fn next(&self, node: u32) -> u32 {
        self.nodes[node as usize].next
    }

    pub(super) fn set_next(&mut self, node: u32, next: u32) {
        self.nodes[node as usize].next = next;
    }

    pub(super) fn frame_bytes(&self, node: u32) -> usize {
        self.bytes(self.frame_of(node)).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_small_as_it_was_without_a_twin() {
        assert!(size_of::<Frame>() <= 48, "{}", size_of::<Frame>());
    }

    #[test]
    fn a_twin_lives_as_long_as_its_publication_is_delivered_or_waits() {
        let mut frames = FramePool::default();
        let frame = frames.insert(Bytes::from_static(b"json"), FrameClass::Retained);
        assert_eq!(frames.twin(frame), None);
        let twin = frames.insert_twin(frame, Bytes::from_static(b"binary"));
        assert_eq!((frames.twin(frame), frames.class(twin)), (Some(twin), FrameClass::Retained));
        assert_eq!(frames.twin_bytes(), 6 + FRAME_OVERHEAD_BYTES);
        // Both wait for somebody.
        let nodes = [frames.node(frame, NIL), frames.node(twin, NIL)];
        frames.retire(frame);
        assert_eq!((frames.len(), frames.twin_bytes()), (2, 0));
        assert_eq!(&frames.bytes(twin)[..], b"binary");
        for node in nodes {
            frames.free_node(node);
        }
        assert!(frames.is_empty());
    }
}
