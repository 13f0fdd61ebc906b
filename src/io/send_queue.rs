//! What waits to be sent to one connection: a list of shared frames, and the rules for what may be
//! dropped from it. Data only: no sockets.

use super::frame_pool::{FRAME_OVERHEAD_BYTES, FrameClass, FrameId, FramePool, NIL};
use crate::config::SlowConsumer;

/// Larger frames are sent in place: copying them into a joined send stops to pay.
pub const JOIN_FRAME_BYTES_MAX: usize = 16 << 10;

/// The frames that wait for one connection: 20 bytes.
///
/// Invariant: the numbers are zero if the list is empty.
#[derive(Debug)]
pub struct SendQueue {
    head: u32,
    tail: u32,
    /// Bytes of the first frame that the kernel has already.
    head_sent: u32,
    /// Bytes that the kernel has not accepted yet.
    bytes: u32,
    /// Frames in the list.
    count: u32,
}

impl Default for SendQueue {
    fn default() -> Self {
        Self { head: NIL, tail: NIL, head_sent: 0, bytes: 0, count: 0 }
    }
}

impl SendQueue {
    /// Bytes queued and not accepted by the kernel.
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Memory that what is queued may keep: its bytes and its overhead. Limits are about this.
    pub fn cost(&self) -> usize {
        self.bytes() + self.count as usize * FRAME_OVERHEAD_BYTES
    }

    /// The part of [`SendQueue::cost`] that no policy can drop: a first frame that has begun to leave.
    pub fn begun_cost(&self, frames: &FramePool) -> usize {
        match self.head_sent {
            0 => 0,
            sent => frames.frame_bytes(self.head) - sent as usize + FRAME_OVERHEAD_BYTES,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.head == NIL
    }

    /// Frames queued.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Queues `frame` behind everything else.
    pub fn push(&mut self, frames: &mut FramePool, frame: FrameId) {
        let node = frames.node(frame, NIL);
        if self.head == NIL {
            self.head = node;
        } else {
            frames.set_next(self.tail, node);
        }
        self.tail = node;
        self.bytes += frames.bytes(frame).len() as u32;
        self.count += 1;
    }

    /// Queues a control frame ahead of the messages that have not begun to leave, behind HTTP
    /// responses and the control frames that wait already.
    pub fn push_control(&mut self, frames: &mut FramePool, frame: FrameId) {
        let stays_ahead = |frames: &FramePool, node: u32| match frames.class(frames.frame_of(node))
        {
            FrameClass::Control | FrameClass::Pong | FrameClass::Http => true,
            FrameClass::Reply | FrameClass::Retained | FrameClass::Publication { .. } => false,
        };
        let mut before = NIL;
        let mut next = self.head;
        while next != NIL && ((before == NIL && self.head_sent > 0) || stays_ahead(frames, next)) {
            before = next;
            next = frames.next(next);
        }
        let node = frames.node(frame, next);
        match before {
            NIL => self.head = node,
            before => frames.set_next(before, node),
        }
        if next == NIL {
            self.tail = node;
        }
        self.bytes += frames.bytes(frame).len() as u32;
        self.count += 1;
    }

    /// Takes out the first pong that waits whole. 5.5.3: an endpoint that has not answered earlier
    /// pings yet MAY send a Pong for only the most recent one.
    pub fn take_pong(&mut self, frames: &mut FramePool) -> bool {
        let mut taken = false;
        self.sift(frames, |frames, frame, begun| {
            if taken {
                return Sift::Stop;
            }
            taken = frames.class(frame) == FrameClass::Pong && !begun;
            if taken { Sift::Drop } else { Sift::Keep }
        });
        taken
    }

    /// What to send next: the first frame in place, or several small ones joined in `scratch`.
    pub fn gather<'a>(&self, frames: &'a FramePool, scratch: &'a mut [u8]) -> &'a [u8] {
        if self.head == NIL {
            return &[];
        }
        let first = &frames.bytes(frames.frame_of(self.head))[self.head_sent as usize..];
        let mut next = frames.next(self.head);
        if next == NIL || first.len() > JOIN_FRAME_BYTES_MAX.min(scratch.len()) {
            return first;
        }
        let mut filled = first.len();
        scratch[..filled].copy_from_slice(first);
        while next != NIL {
            let bytes = frames.bytes(frames.frame_of(next));
            let Some(room) = scratch.get_mut(filled..filled + bytes.len()) else { break };
            if bytes.len() > JOIN_FRAME_BYTES_MAX {
                break;
            }
            room.copy_from_slice(bytes);
            filled += bytes.len();
            next = frames.next(next);
        }
        &scratch[..filled]
    }

    /// The kernel accepted the next `count` bytes.
    pub fn advance(&mut self, frames: &mut FramePool, count: usize) {
        self.bytes -= count as u32;
        let mut accepted = self.head_sent as usize + count;
        while self.head != NIL {
            let length = frames.frame_bytes(self.head);
            if accepted < length {
                break;
            }
            accepted -= length;
            let next = frames.next(self.head);
            frames.free_node(self.head);
            self.head = next;
            self.count -= 1;
        }
        if self.head == NIL {
            self.tail = NIL;
        }
        self.head_sent = accepted as u32;
        debug_assert!(self.head != NIL || (self.cost() == 0 && self.head_sent == 0));
    }

    /// The classes of the frames that wait, the first to leave first.
    pub fn classes<'a>(&self, frames: &'a FramePool) -> impl Iterator<Item = FrameClass> + 'a {
        let mut node = self.head;
        std::iter::from_fn(move || {
            let frame = (node != NIL).then(|| frames.frame_of(node))?;
            node = frames.next(node);
            Some(frames.class(frame))
        })
    }

    /// Drops the oldest publications under `policy` until the queue costs at most `cost_max`.
    /// A frame that has begun to leave stays. Returns how many were dropped.
    pub fn drop_oldest(
        &mut self,
        frames: &mut FramePool,
        policy: SlowConsumer,
        cost_max: usize,
    ) -> u64 {
        let mut excess = self.cost().saturating_sub(cost_max);
        self.sift(frames, |frames, frame, begun| {
            if excess == 0 {
                return Sift::Stop;
            }
            if begun || !is_publication(frames.class(frame), policy) {
                return Sift::Keep;
            }
            excess = excess.saturating_sub(frames.bytes(frame).len() + FRAME_OVERHEAD_BYTES);
            Sift::Drop
        })
    }

    /// Keeps only the last waiting publication of each topic under `conflate`. Returns how many
    /// were dropped.
    pub fn conflate(&mut self, frames: &mut FramePool) -> u64 {
        let mut waiting = hashbrown::HashMap::<u32, u32, foldhash::fast::RandomState>::default();
        let conflated = |frames: &FramePool, frame| match frames.class(frame) {
            FrameClass::Publication { topic, policy: SlowConsumer::Conflate } => Some(topic),
            FrameClass::Publication { .. }
            | FrameClass::Control
            | FrameClass::Pong
            | FrameClass::Http
            | FrameClass::Retained
            | FrameClass::Reply => None,
        };
        let mut node = self.head;
        while node != NIL {
            if let Some(topic) = conflated(frames, frames.frame_of(node)) {
                *waiting.entry(topic).or_default() += 1;
            }
            node = frames.next(node);
        }
        self.sift(frames, |frames, frame, begun| {
            let Some(topic) = conflated(frames, frame) else { return Sift::Keep };
            let left = waiting.entry(topic).or_default();
            *left -= 1;
            if *left == 0 || begun { Sift::Keep } else { Sift::Drop }
        })
    }

    /// Drops every publication that has not begun to leave. Returns how many there were.
    pub fn drop_publications(&mut self, frames: &mut FramePool) -> u64 {
        self.sift(frames, |frames, frame, begun| match frames.class(frame) {
            FrameClass::Retained | FrameClass::Publication { .. } if !begun => Sift::Drop,
            FrameClass::Retained
            | FrameClass::Publication { .. }
            | FrameClass::Control
            | FrameClass::Pong
            | FrameClass::Http
            | FrameClass::Reply => Sift::Keep,
        })
    }

    /// Drops everything: the connection is gone.
    pub fn clear(&mut self, frames: &mut FramePool) {
        while self.head != NIL {
            let next = frames.next(self.head);
            frames.free_node(self.head);
            self.head = next;
        }
        *self = Self::default();
    }

    /// Asks `judge` about each frame from the oldest on; it also hears whether the frame has begun
    /// to leave, which must then be kept. Returns how many were dropped.
    fn sift(
        &mut self,
        frames: &mut FramePool,
        mut judge: impl FnMut(&FramePool, FrameId, bool) -> Sift,
    ) -> u64 {
        let mut dropped = 0;
        let mut before = NIL;
        let mut node = self.head;
        while node != NIL {
            let next = frames.next(node);
            let begun = before == NIL && self.head_sent > 0;
            match judge(frames, frames.frame_of(node), begun) {
                Sift::Stop => return dropped,
                Sift::Keep => before = node,
                Sift::Drop => {
                    debug_assert!(!begun);
                    self.bytes -= frames.frame_bytes(node) as u32;
                    self.count -= 1;
                    frames.free_node(node);
                    match before {
                        NIL => self.head = next,
                        before => frames.set_next(before, next),
                    }
                    dropped += 1;
                }
            }
            node = next;
        }
        self.tail = before;
        dropped
    }
}

enum Sift {
    Keep,
    Drop,
    /// Keep this one and everything behind it.
    Stop,
}

fn is_publication(class: FrameClass, wanted: SlowConsumer) -> bool {
    matches!(class, FrameClass::Publication { policy, .. } if policy == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    const MAX: usize = 64;

    fn publication(topic: u32, policy: SlowConsumer) -> FrameClass {
        FrameClass::Publication { topic, policy }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(FrameClass, u8),
        Control(FrameClass, u8),
        Send(u8),
        DropOldest(u16),
        Conflate,
        DropPublications,
        TakePong,
    }

    fn step() -> impl Strategy<Value = Step> {
        let class = prop_oneof![
            Just(FrameClass::Reply),
            Just(FrameClass::Http),
            Just(FrameClass::Retained),
            (0..3u32).prop_map(|topic| publication(topic, SlowConsumer::DropOldest)),
            (0..3u32).prop_map(|topic| publication(topic, SlowConsumer::Conflate)),
        ];
        let control = prop_oneof![Just(FrameClass::Control), Just(FrameClass::Pong)];
        prop_oneof![
            6 => (class, 1..40u8).prop_map(|(class, length)| Step::Push(class, length)),
            1 => (control, 1..9u8).prop_map(|(class, length)| Step::Control(class, length)),
            4 => any::<u8>().prop_map(Step::Send),
            1 => (0..4000u16).prop_map(Step::DropOldest),
            1 => Just(Step::Conflate),
            1 => Just(Step::DropPublications),
            1 => Just(Step::TakePong),
        ]
    }

    /// The same queue as a plain list: class, bytes, and whether it has begun to leave.
    #[derive(Default)]
    struct Model(Vec<(FrameClass, Vec<u8>, bool)>);

    impl Model {
        fn bytes(&self) -> Vec<u8> {
            self.0.iter().flat_map(|(_, bytes, _)| bytes.clone()).collect()
        }

        fn insert_control(&mut self, class: FrameClass, bytes: Vec<u8>) {
            let ahead = [FrameClass::Control, FrameClass::Pong, FrameClass::Http];
            let at = self.0.iter().position(|(class, _, begun)| !begun && !ahead.contains(class));
            self.0.insert(at.unwrap_or(self.0.len()), (class, bytes, false));
        }

        fn send(&mut self, mut count: usize) {
            while count > 0 {
                let (_, bytes, begun) = &mut self.0[0];
                let taken = count.min(bytes.len());
                bytes.drain(..taken);
                *begun = true;
                count -= taken;
                if bytes.is_empty() {
                    self.0.remove(0);
                }
            }
        }

        fn drop_oldest(&mut self, max: usize) {
            let cost = self.bytes().len() + self.0.len() * FRAME_OVERHEAD_BYTES;
            let mut excess = cost.saturating_sub(max);
            self.0.retain(|(class, bytes, begun)| {
                let drop = excess > 0 && !begun && is_publication(*class, SlowConsumer::DropOldest);
                if drop {
                    excess = excess.saturating_sub(bytes.len() + FRAME_OVERHEAD_BYTES);
                }
                !drop
            });
        }

        fn conflate(&mut self) {
            let classes: Vec<_> = self.0.iter().map(|(class, _, _)| *class).collect();
            let mut index = 0;
            self.0.retain(|(class, _, begun)| {
                index += 1;
                *begun
                    || !is_publication(*class, SlowConsumer::Conflate)
                    || !classes[index..].contains(class)
            });
        }
    }

    proptest! {
        #[test]
        fn the_queue_is_a_list_with_rules(steps in prop::collection::vec(step(), 0..200)) {
            let mut frames = FramePool::default();
            let mut queue = SendQueue::default();
            let mut model = Model::default();
            let mut scratch = [0; MAX];
            let mut fill = 0u8;
            for step in steps {
                match step {
                    Step::Push(class, length) | Step::Control(class, length) => {
                        fill = fill.wrapping_add(1);
                        let bytes = vec![fill; usize::from(length)];
                        let frame = frames.insert(Bytes::from(bytes.clone()), class);
                        if matches!(step, Step::Push(..)) {
                            queue.push(&mut frames, frame);
                            model.0.push((class, bytes, false));
                        } else {
                            queue.push_control(&mut frames, frame);
                            model.insert_control(class, bytes);
                        }
                        frames.release(frame);
                    }
                    Step::Send(count) => {
                        let gathered = queue.gather(&frames, &mut scratch);
                        prop_assert!(model.bytes().starts_with(gathered));
                        prop_assert!(!gathered.is_empty() || model.0.is_empty());
                        let count = gathered.len().min(usize::from(count));
                        queue.advance(&mut frames, count);
                        model.send(count);
                    }
                    Step::DropOldest(max) => {
                        queue.drop_oldest(&mut frames, SlowConsumer::DropOldest, usize::from(max));
                        model.drop_oldest(usize::from(max));
                    }
                    Step::Conflate => {
                        queue.conflate(&mut frames);
                        model.conflate();
                    }
                    Step::DropPublications => {
                        queue.drop_publications(&mut frames);
                        model.0.retain(|(class, _, begun)| {
                            let publication = matches!(
                                class,
                                FrameClass::Retained | FrameClass::Publication { .. }
                            );
                            *begun || !publication
                        });
                    }
                    Step::TakePong => {
                        let at = model.0.iter().position(|(class, _, begun)| {
                            !begun && *class == FrameClass::Pong
                        });
                        prop_assert_eq!(queue.take_pong(&mut frames), at.is_some());
                        at.map(|at| model.0.remove(at));
                    }
                }
                prop_assert_eq!(queue.bytes(), model.bytes().len());
                prop_assert_eq!(queue.cost(), queue.bytes() + model.0.len() * FRAME_OVERHEAD_BYTES);
                prop_assert_eq!(queue.is_empty(), model.0.is_empty());
                prop_assert_eq!(frames.len(), model.0.len());
            }
            let mut sent = Vec::new();
            while !queue.is_empty() {
                let gathered = queue.gather(&frames, &mut scratch).to_vec();
                queue.advance(&mut frames, gathered.len());
                sent.extend(gathered);
            }
            prop_assert_eq!(sent, model.bytes());
            prop_assert!(frames.is_empty());
        }
    }

    #[test]
    fn a_queue_is_small_and_a_frame_is_shared() {
        assert_eq!(size_of::<SendQueue>(), 20);
        let mut frames = FramePool::default();
        let frame = frames.insert(Bytes::from_static(b"hello"), FrameClass::Reply);
        let mut queues: Vec<_> = (0..100).map(|_| SendQueue::default()).collect();
        for queue in &mut queues {
            queue.push(&mut frames, frame);
        }
        frames.release(frame);
        assert_eq!(frames.len(), 1);
        for queue in &mut queues {
            queue.clear(&mut frames);
        }
        assert!(frames.is_empty());
    }

    #[test]
    fn large_frames_are_sent_in_place() {
        let mut frames = FramePool::default();
        let mut queue = SendQueue::default();
        let large = Bytes::from(vec![1; JOIN_FRAME_BYTES_MAX + 1]);
        for bytes in [Bytes::from_static(b"a"), large.clone(), Bytes::from_static(b"b")] {
            let frame = frames.insert(bytes, FrameClass::Reply);
            queue.push(&mut frames, frame);
            frames.release(frame);
        }
        let mut scratch = vec![0; 64 << 10];
        assert_eq!(queue.gather(&frames, &mut scratch), b"a");
        queue.advance(&mut frames, 1);
        assert_eq!(queue.gather(&frames, &mut scratch).as_ptr(), large.as_ptr());
    }
}
