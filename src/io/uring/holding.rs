//! Connections that the shard does not want bytes of: what comes for them nevertheless is held, in the
//! order of its coming, and taken up when they are resumed.

use std::io;

use super::tag::{Kind, tag, tag_place};
use super::{EVENTS_MAX, Uring};
use crate::ids::Token;
use crate::io::{Handler, Receive};

/// What came for a connection that had paused.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// How the stream ended behind them.
    end: Option<io::Result<()>>,
}

impl Held {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

impl Uring {
    /// The shard wants no more bytes of this connection.
    pub(super) fn pause(&mut self, token: Token) {
        let Some(socket) = self.socket(token) else { return };
        socket.paused = true;
        let socket = *socket;
        if socket.receiving {
            let ring = &mut self.lanes[usize::from(socket.ring)].ring;
            ring.cancel(tag(Kind::Receive, token), tag_place(Kind::Other, 0));
        }
    }

    /// Bytes of an open connection wait to be taken up: nothing may overtake them, resumed or not.
    pub(super) fn holds(&self, token: Token) -> bool {
        !self.held.is_empty() && self.held.contains_key(&token.slot)
    }

    /// How the stream of a connection ended, behind what is held for it.
    pub(super) fn hold_end(&mut self, token: Token, end: io::Result<()>) {
        self.held.entry(token.slot).or_default().end = Some(end);
    }

    /// The shard wants bytes again: in the next turn, a bounded number of connections each.
    pub(super) fn unpause(&mut self, token: Token) {
        if let Some(socket) = self.socket(token) {
            socket.paused = false;
            self.resumed.push_back(token);
        }
    }

    /// Tells of streams that have ended, except where something is held that goes first.
    pub(super) fn tell_ends(&mut self, handler: &mut impl Handler) {
        for token in std::mem::take(&mut self.ended) {
            let holds = self.holds(token);
            match self.socket(token).map(|socket| socket.paused || holds) {
                Some(true) => self.hold_end(token, Ok(())),
                Some(false) => {
                    handler.received(token, &mut []);
                }
                None => {}
            }
        }
    }

    /// Of the connections that were resumed, the share of one turn.
    pub(super) fn take_up_resumed(&mut self, handler: &mut impl Handler) {
        for _ in 0..self.resumed.len().min(EVENTS_MAX) {
            let Some(token) = self.resumed.pop_front() else { break };
            self.take_up_held(token, handler);
        }
    }

    /// Unless it has paused again.
    fn take_up_held(&mut self, token: Token, handler: &mut impl Handler) {
        if self.socket(token).is_none_or(|socket| socket.paused) {
            return;
        }
        if let Some(mut held) = self.held.remove(&token.slot) {
            if !held.bytes.is_empty() && handler.received(token, &mut held.bytes) == Receive::Pause
            {
                held.bytes = Vec::new();
                if held.end.is_some() {
                    self.held.insert(token.slot, held);
                }
                self.pause(token);
                return;
            }
            match held.end {
                Some(Ok(())) => {
                    handler.received(token, &mut []);
                    return;
                }
                Some(Err(error)) => return self.end(token, Err(error)),
                None => {}
            }
        }
        self.receive_again(token);
    }
}
