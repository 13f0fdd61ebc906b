//! Frames on their way to many connections here that are no subscribers of a topic: each turn to a bounded
//! number of them.

use std::collections::VecDeque;
use std::vec;

use super::State;
use super::connection::Phase;
use crate::config::SlowConsumer;
use crate::ids::Token;
use crate::io::{FRAME_OVERHEAD_BYTES, FrameClass, FrameId};
use crate::metrics::Counter;
use crate::proto::{Encoding, protobuf};

/// Connections that are told something in one turn.
const TOLD_MAX: usize = 1024;

/// Not that of a topic: no publication takes the place of what is told.
const NO_TOPIC: u32 = u32::MAX;

/// It makes room for newer ones where a reader is slow.
pub(super) const TOLD: FrameClass =
    FrameClass::Publication { topic: NO_TOPIC, policy: SlowConsumer::DropOldest };

/// What is told one after the other: what comes second is heard second.
#[derive(Debug, Default)]
pub(super) struct Tellings {
    waiting: VecDeque<Telling>,
}

/// One frame, in the form of each encoding.
#[derive(Debug)]
pub(super) struct Telling {
    json: FrameId,
    /// Made when the first connection needs it.
    protobuf: Option<FrameId>,
    /// Who was there when it came, and has not heard it.
    to: vec::IntoIter<Token>,
}

impl Tellings {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn push(&mut self, telling: Telling) {
        self.waiting.push_back(telling);
    }
}

impl Telling {
    /// `json` is a frame that the telling releases.
    pub fn new(json: FrameId, to: Vec<Token>) -> Self {
        Self { json, protobuf: None, to: to.into_iter() }
    }
}

impl State {
    /// Whether the next turn has somebody to tell.
    pub(super) fn has_tellings(&self) -> bool {
        !self.notices.is_empty()
    }

    /// Queues what is told for a bounded number of connections.
    pub(super) fn advance_tellings(&mut self) {
        if !self.notices.is_empty() {
            let mut notices = std::mem::take(&mut self.notices);
            self.advance(&mut notices);
            self.notices = notices;
        }
    }

    fn advance(&mut self, tellings: &mut Tellings) {
        let mut left = TOLD_MAX;
        while left > 0
            && let Some(mut telling) = tellings.waiting.pop_front()
        {
            while left > 0
                && let Some(token) = telling.to.next()
            {
                left -= 1;
                self.tell(token, &mut telling);
            }
            if telling.to.len() == 0 {
                self.frames.release(telling.json);
                if let Some(frame) = telling.protobuf {
                    self.frames.release(frame);
                }
            } else {
                tellings.waiting.push_front(telling);
            }
        }
    }

    /// A connection that is too slow for it does not get it: the next one has the numbers by which it is
    /// missed.
    fn tell(&mut self, token: Token, telling: &mut Telling) {
        let Some(connection) = self.connections.get(token.index()) else { return };
        if connection.generation != token.generation || connection.phase != Phase::Open {
            return;
        }
        let frame = match connection.encoding {
            Encoding::Json => telling.json,
            Encoding::Protobuf => *telling.protobuf.get_or_insert_with(|| {
                let frame = protobuf::publication_frame(self.frames.bytes(telling.json));
                self.frames.insert(frame, TOLD)
            }),
        };
        let cost = self.frames.bytes(frame).len() + FRAME_OVERHEAD_BYTES;
        let limit = self.settings.config.limits.send_queue_size;
        if connection.blocked && connection.queue.cost() + cost > limit {
            self.count(Counter::PresenceDropped, 1);
        } else {
            self.queue(token, frame);
        }
    }
}
