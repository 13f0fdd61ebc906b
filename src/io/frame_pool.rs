//! The frames of one shard, shared by all its connections, and the list nodes of their queues.
//!
//! A frame is held once per shard and referred to by index with a plain count, so queueing it for one
//! more connection touches no atomic and allocates nothing. The pool of nodes stays small and hot,
//! since most nodes live for one turn only.

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
}

impl Default for FramePool {
    fn default() -> Self {
        Self { frames: Slab::new(), nodes: Vec::new(), free: NIL, nodes_used: 0 }
    }
}

impl FramePool {
    /// Takes in a frame; the caller holds it until [`FramePool::release`].
    pub fn insert(&mut self, bytes: Bytes, class: FrameClass) -> FrameId {
        // 2^32 frames of 48 bytes do not fit a machine this runs on.
        FrameId(self.frames.insert(Frame { bytes, class, references: 1 }) as u32)
    }

    pub fn release(&mut self, id: FrameId) {
        let frame = &mut self.frames[id.0 as usize];
        frame.references -= 1;
        if frame.references == 0 {
            self.frames.remove(id.0 as usize);
        }
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
