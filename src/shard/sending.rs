//! Queues of connections: what goes in, what slow readers lose, and the flush.

use std::io;

use slab::Slab;

use super::State;
use super::connection::{Connection, Feed, Phase};
use super::traffic::Flow;
use crate::broker::{Deliver, SLICE_COST_MAX};
use crate::config::SlowConsumer;
use crate::ids::{Tick, Token};
use crate::io::{
    Backend, FRAME_OVERHEAD_BYTES, FrameClass, FrameId, FramePool, Receive, SendQueue, SendStatus,
};
use crate::metrics::Counter;
use crate::proto::{Encoding, protobuf};

/// Publications that did not reach a slow reader.
#[derive(Debug, Default, Clone, Copy)]
struct Dropped {
    oldest: u64,
    newest: u64,
    conflated: u64,
}

impl State {
    /// Goes on with the broker's fan-outs: queues frames, sends nothing.
    pub(super) fn advance_fanouts(&mut self) {
        if !self.broker.has_fanouts() {
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        let limit = self.settings.config.limits.send_queue_size;
        let visits = self.pace.visits();
        let Self { broker, frames, connections, dirty, overflowed, twins, .. } = self;
        let dropped = Dropped::default();
        let mut queues =
            Queues { connections, dirty, overflowed, twins, translated: 0, limit, dropped };
        let deliveries = broker.advance(visits, frames, &mut effects, &mut queues);
        let (dropped, translated) = (queues.dropped, queues.translated);
        self.count(Counter::Deliveries, deliveries as u64);
        self.count(Counter::Translated, translated);
        self.count(Counter::DroppedOldest, dropped.oldest);
        self.count(Counter::DroppedNewest, dropped.newest);
        self.count(Counter::Conflated, dropped.conflated);
        self.apply(effects);
        for token in std::mem::take(&mut self.overflowed) {
            self.close_slow_consumer(token);
        }
    }

    /// Queues a frame that the caller holds, and marks the connection dirty.
    pub(super) fn queue(&mut self, token: Token, frame: FrameId) {
        // 5.5.1: the application MUST NOT send any more data frames after sending a Close frame.
        self.queue_by(token, frame, SendQueue::push, |connection| !connection.close_sent);
    }

    /// As [`State::queue`], ahead of the messages that wait.
    pub(super) fn queue_control(&mut self, token: Token, frame: FrameId) {
        // 5.5.2: a Ping is answered unless a Close was received.
        self.queue_by(token, frame, SendQueue::push_control, |connection| {
            matches!(connection.phase, Phase::Open | Phase::Echo | Phase::Closing)
        });
    }

    fn queue_by(
        &mut self,
        token: Token,
        frame: FrameId,
        push: fn(&mut SendQueue, &mut FramePool, FrameId),
        may: fn(&Connection) -> bool,
    ) {
        let Some(connection) = self.connections.get_mut(token.index()) else { return };
        if connection.generation == token.generation && may(connection) {
            push(&mut connection.queue, &mut self.frames, frame);
            self.mark_dirty(token.slot);
        }
    }

    /// Whether a connection that does not read its replies, or one of whose messages is being checked, must
    /// wait with its requests.
    pub(super) fn throttle(&mut self, token: Token) -> Receive {
        let limit = self.settings.config.limits.send_queue_size;
        let awaits_check = self.awaits_check(token);
        let Some(connection) = self.connection(token) else { return Receive::More };
        if awaits_check {
            connection.paused = true;
            return Receive::Pause;
        }
        if connection.paused || connection.queue.cost() <= limit {
            return Receive::More;
        }
        connection.paused = true;
        self.count(Counter::ReceivePaused, 1);
        Receive::Pause
    }

    pub(super) fn mark_dirty(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Every connection that has changed since the last flush is flushed once.
    pub(super) fn flush_sockets(&mut self, backend: &mut impl Backend) -> io::Result<()> {
        let mut dirty = std::mem::take(&mut self.dirty);
        let now = Tick::at(self.now);
        for slot in dirty.drain(..) {
            let Some(connection) = self.connections.get_mut(slot as usize) else { continue };
            connection.dirty = false;
            let token = connection.token(slot);
            if connection.phase == Phase::Gone {
                backend.close(token);
                continue;
            }
            let mut over = [false; 2];
            if !connection.blocked && !connection.queue.is_empty() {
                let before = Queued::of(&connection.queue);
                match backend.send(token, &mut connection.queue, &mut self.frames) {
                    SendStatus::Submitted => continue,
                    // Nearly always, so without another look-up.
                    SendStatus::Drained => {
                        connection.progress = now;
                        self.sent_bytes += before.bytes as u64;
                        over = connection.note_taken(before.frames, before.bytes);
                    }
                    SendStatus::Pending => {
                        self.note_send(token, before, SendStatus::Pending);
                        self.settle(token, backend);
                        continue;
                    }
                }
            }
            let settles = connection.paused || connection.phase == Phase::Draining;
            if over != [false; 2] {
                self.carry_sent(token, over);
            }
            if settles {
                self.settle(token, backend);
            }
        }
        // The allocation serves the next turn.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
        backend.submit(self)?;
        let mut submitted = std::mem::take(&mut self.submitted);
        for token in submitted.drain(..) {
            self.settle(token, backend);
        }
        self.submitted = submitted;
        let sent_bytes = std::mem::take(&mut self.sent_bytes);
        self.count(Counter::BytesSent, sent_bytes);
        Ok(())
    }

    /// A submitted send is done, see [`Handler::submitted`](crate::io::Handler::submitted).
    pub(super) fn finish_send(&mut self, token: Token, count: usize) -> SendStatus {
        let Some(connection) = self.connections.get_mut(token.index()) else {
            return SendStatus::Drained;
        };
        debug_assert_eq!(connection.generation, token.generation, "it was not closed meanwhile");
        let before = Queued::of(&connection.queue);
        connection.queue.advance(&mut self.frames, count);
        let drained = connection.queue.is_empty();
        if connection.paused || connection.phase == Phase::Draining {
            self.submitted.push(token);
        }
        let status = if drained { SendStatus::Drained } else { SendStatus::Pending };
        self.note_send(token, before, status);
        status
    }

    /// What a send has changed; `before`: what was queued.
    fn note_send(&mut self, token: Token, before: Queued, status: SendStatus) {
        let Some(connection) = self.connections.get_mut(token.index()) else { return };
        let Queued { frames, bytes } = Queued::of(&connection.queue);
        let accepted = before.bytes - bytes;
        self.sent_bytes += accepted as u64;
        let over = connection.note_taken(before.frames - frames, accepted);
        let now = Tick::at(self.now);
        if accepted > 0 {
            connection.progress = now;
        }
        if status == SendStatus::Pending {
            connection.blocked = true;
            connection.progress = now;
            self.rearm(token);
        }
        self.carry_sent(token, over);
    }

    fn carry_sent(&mut self, token: Token, over: [bool; 2]) {
        for (flow, is_over) in [Flow::FramesSent, Flow::BytesSent].into_iter().zip(over) {
            if is_over {
                self.carry(token, flow);
            }
        }
    }

    /// What follows from a queue that has drained.
    fn settle(&mut self, token: Token, backend: &mut impl Backend) {
        let limit = self.settings.config.limits.send_queue_size;
        let awaits_check = self.awaits_check(token);
        let Some(connection) = self.connections.get_mut(token.index()) else { return };
        if connection.paused && !awaits_check && connection.queue.cost() <= limit / 2 {
            connection.paused = false;
            // The rest of a message that was left with its peer is not late.
            connection.message_since = Tick::at(self.now);
            backend.resume(token);
        }
        if connection.phase == Phase::Draining && connection.queue.is_empty() {
            if connection.ended {
                connection.phase = Phase::Gone;
                backend.close(token);
            } else if !connection.shut {
                connection.shut = true;
                backend.shutdown(token);
            }
        }
    }
}

/// What is in a queue.
#[derive(Debug, Clone, Copy)]
struct Queued {
    frames: usize,
    bytes: usize,
}

impl Queued {
    fn of(queue: &SendQueue) -> Self {
        Self { frames: queue.len(), bytes: queue.bytes() }
    }
}

/// The queues of all connections, as a fan-out fills them.
struct Queues<'a> {
    connections: &'a mut Slab<Connection>,
    dirty: &'a mut Vec<u32>,
    overflowed: &'a mut Vec<Token>,
    /// Reused: the frames of one visit in the other encoding.
    twins: &'a mut Vec<FrameId>,
    /// Twins that were made.
    translated: u64,
    limit: usize,
    dropped: Dropped,
}

impl Deliver for Queues<'_> {
    #[inline]
    fn live(&mut self, frames: &mut FramePool, slot: u32, ids: &[FrameId], are_json: bool) {
        // The broker forgets subscribers before their slots are freed.
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let encoding = connection.encoding;
        let ids = if encoding == Encoding::Json && are_json {
            ids
        } else {
            self.translated += find_twins(frames, ids, encoding, self.twins);
            &*self.twins
        };
        // What gathers within a turn, which is bounded, says nothing of the reader yet.
        if !connection.blocked || connection.queue.cost() + cost(frames, ids) <= self.limit {
            for &id in ids {
                connection.queue.push(frames, id);
            }
        } else if !connection.overflowed {
            deliver_slowly(connection, frames, ids, self.limit, &mut self.dropped);
            if connection.overflowed {
                self.overflowed.push(connection.token(slot));
            }
        }
        if !connection.dirty && !connection.blocked {
            connection.dirty = true;
            self.dirty.push(slot);
        }
    }

    #[inline]
    fn retained(&mut self, frames: &mut FramePool, slot: u32, ids: &[FrameId]) -> bool {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return true };
        let ids = match connection.encoding {
            Encoding::Json => ids,
            encoding @ Encoding::Protobuf => {
                self.translated += find_twins(frames, ids, encoding, self.twins);
                &*self.twins
            }
        };
        let room = self.limit.min(SLICE_COST_MAX);
        if connection.blocked && connection.queue.cost() + cost(frames, ids) > room {
            // What the history keeps need not be kept here as well.
            return false;
        }
        for &id in ids {
            connection.queue.push(frames, id);
        }
        if !connection.dirty && !connection.blocked {
            connection.dirty = true;
            self.dirty.push(slot);
        }
        true
    }
}

/// The same publications in this encoding. Each twin is made when the first connection needs it, for all of
/// this shard; returns how many were.
fn find_twins(
    frames: &mut FramePool,
    ids: &[FrameId],
    encoding: Encoding,
    twins: &mut Vec<FrameId>,
) -> u64 {
    twins.clear();
    let mut made = 0;
    for &id in ids {
        if Encoding::of_frame(frames.bytes(id)) == encoding {
            twins.push(id);
            continue;
        }
        let twin = frames.twin(id).unwrap_or_else(|| {
            made += 1;
            let frame = protobuf::translated(frames.bytes(id));
            frames.insert_twin(id, frame)
        });
        twins.push(twin);
    }
    made
}

/// Queues publications for a reader whose queue cannot take all of them.
fn deliver_slowly(
    connection: &mut Connection,
    frames: &mut FramePool,
    ids: &[FrameId],
    limit: usize,
    dropped: &mut Dropped,
) {
    for &id in ids {
        let FrameClass::Publication { policy, .. } = frames.class(id) else { continue };
        let cost = cost(frames, &[id]);
        // Whatever the bound, one message fits behind the one that has begun to leave: else the newest
        // would be lost, and nothing newer might ever come.
        let limit = limit.max(cost) + connection.queue.begun_cost(frames);
        let fits = |queue: &SendQueue| queue.cost() + cost <= limit;
        if fits(&connection.queue) {
            connection.queue.push(frames, id);
            continue;
        }
        match policy {
            SlowConsumer::Disconnect => {
                connection.overflowed = true;
                return;
            }
            SlowConsumer::DropNewest => dropped.newest += 1,
            SlowConsumer::DropOldest => {
                let room = limit.saturating_sub(cost);
                dropped.oldest += connection.queue.drop_oldest(frames, policy, room);
                if fits(&connection.queue) {
                    connection.queue.push(frames, id);
                } else {
                    dropped.oldest += 1;
                }
            }
            SlowConsumer::Conflate => {
                connection.queue.push(frames, id);
                dropped.conflated += connection.queue.conflate(frames);
                dropped.oldest += connection.queue.drop_oldest(frames, policy, limit);
            }
        }
    }
}

/// What queueing these frames adds to [`SendQueue::cost`].
fn cost(frames: &FramePool, ids: &[FrameId]) -> usize {
    ids.iter().map(|id| frames.bytes(*id).len() + FRAME_OVERHEAD_BYTES).sum()
}

/// Whether what waits may be waited for: publications under a policy that bounds them anyway.
pub(super) fn may_wait(connection: &Connection, frames: &FramePool) -> bool {
    let droppable = |class| match class {
        FrameClass::Publication { policy, .. } => policy != SlowConsumer::Disconnect,
        FrameClass::Control
        | FrameClass::Pong
        | FrameClass::Http
        | FrameClass::Reply
        | FrameClass::Retained => false,
    };
    connection.feed == Feed::None && connection.queue.classes(frames).all(droppable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn the_newest_fits_behind_a_frame_that_has_begun_to_leave() {
        for policy in [SlowConsumer::DropOldest, SlowConsumer::Conflate] {
            let mut frames = FramePool::default();
            let peer = "127.0.0.1:1".parse().expect("an address");
            let mut connection = Connection::new(peer, 1, Tick(0));
            for fill in 0..20 {
                let class = FrameClass::Publication { topic: 1, policy };
                let frame = frames.insert(Bytes::from(vec![fill; 600]), class);
                deliver_slowly(
                    &mut connection,
                    &mut frames,
                    &[frame],
                    800,
                    &mut Dropped::default(),
                );
                frames.release(frame);
                if fill == 0 {
                    connection.queue.advance(&mut frames, 10);
                }
            }
            connection.queue.advance(&mut frames, 590);
            assert_eq!(connection.queue.gather(&frames, &mut [0; 2000]), [19; 600], "{policy:?}");
        }
    }
}
