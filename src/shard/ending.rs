//! Every way a connection ends, and the end of the shard itself.

use std::time::Duration;

use bytes::Bytes;
use slab::Slab;

use super::State;
use super::connection::Phase;
use crate::ids::{Moment, Token};
use crate::io::{Backend, FrameClass};
use crate::metrics::Counter;
use crate::proto::{CloseCode, close, encoder};

/// Connections told to go per turn of a shutdown.
const GOODBYES_MAX: usize = 1024;

/// Where an orderly shutdown stands.
#[derive(Debug, Default)]
pub(super) enum Shutdown {
    #[default]
    No,
    /// Nothing new is accepted; what was published before is delivered first.
    Finishing { deadline: Moment },
    /// Connections are closed, in slices; the next one to look at.
    Closing { deadline: Moment, next_slot: usize },
    /// Waits for the last connections.
    Leaving { deadline: Moment },
}

impl Shutdown {
    pub(super) fn begin(&mut self, now: Moment, timeout: Duration) {
        if matches!(self, Self::No) {
            *self = Self::Finishing { deadline: now.after(timeout) };
        }
    }

    /// Until the last connections are dropped.
    pub(super) fn time_left(&self, now: Moment) -> Option<Duration> {
        match self {
            Self::No => None,
            Self::Finishing { deadline }
            | Self::Closing { deadline, .. }
            | Self::Leaving { deadline } => Some(deadline.since(now)),
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        !matches!(self, Self::No)
    }

    /// The next turn has something to do for it.
    pub(super) fn is_advancing(&self) -> bool {
        matches!(self, Self::Finishing { .. } | Self::Closing { .. })
    }
}

impl State {
    pub(super) fn begin_shutdown(&mut self) {
        self.shutdown.begin(self.now, self.settings.config.server.shutdown_timeout);
    }

    /// Whether the shard has shut down.
    pub(super) fn has_ended(&self) -> bool {
        match self.shutdown {
            Shutdown::Leaving { deadline } => self.connections.is_empty() || self.now >= deadline,
            Shutdown::No | Shutdown::Finishing { .. } | Shutdown::Closing { .. } => false,
        }
    }

    /// `quiet`: no shard has sent anything that was not taken in.
    pub(super) fn advance_shutdown(&mut self, quiet: bool, backend: &mut impl Backend) {
        match self.shutdown {
            Shutdown::No | Shutdown::Leaving { .. } => {}
            Shutdown::Finishing { deadline } => {
                backend.stop_accepting();
                let idle =
                    !self.broker.has_fanouts() && self.feeds.is_empty() && !self.has_tellings();
                let delivered = quiet && self.outbox.is_empty() && idle;
                if delivered || self.now >= deadline {
                    self.shutdown = Shutdown::Closing { deadline, next_slot: 0 };
                }
            }
            Shutdown::Closing { deadline, next_slot } => {
                let slots: Vec<_> = self
                    .connections
                    .iter()
                    .map(|(slot, connection)| connection.token(slot as u32))
                    .skip_while(|token| token.index() < next_slot)
                    .take(GOODBYES_MAX)
                    .collect();
                self.shutdown = match slots.last() {
                    Some(last) => Shutdown::Closing { deadline, next_slot: last.index() + 1 },
                    None => Shutdown::Leaving { deadline },
                };
                for token in slots {
                    self.say_goodbye(token);
                }
            }
        }
    }

    /// 1001 behind everything that waits; a connection without WebSocket just ends.
    fn say_goodbye(&mut self, token: Token) {
        self.hurry_check(token);
        match self.phase(token) {
            Phase::Open | Phase::Echo => {
                self.send_close(token, encoder::close_frame(CloseCode::Away, "shutdown"));
                self.enter(token, Phase::Closing);
            }
            Phase::Head => self.enter(token, Phase::Draining),
            Phase::Closing | Phase::Draining | Phase::Gone => {}
        }
    }

    /// Starts the closing handshake; the peer's answer ends it, or the time-out.
    pub(super) fn close(&mut self, token: Token, code: CloseCode, reason: &str) {
        self.hurry_check(token);
        if matches!(self.phase(token), Phase::Open | Phase::Echo) {
            if close::ends_session(code) {
                self.give_up_session(token);
            }
            self.drop_publications(token);
            self.send_close(token, encoder::close_frame(code, reason));
            self.enter(token, Phase::Closing);
        }
    }

    /// The peer broke the protocol: says why, and listens no more (RFC 6455 §7.1.7).
    pub(super) fn fail(&mut self, token: Token, code: CloseCode, reason: &'static str, text: &str) {
        let counter = Counter::named(reason).unwrap_or(Counter::ProtocolError);
        self.count(counter, 1);
        self.note(token, reason, text);
        self.hurry_check(token);
        if close::ends_session(code) {
            self.give_up_session(token);
        }
        self.drop_publications(token);
        self.send_close(token, encoder::close_frame(code, reason));
        self.enter(token, Phase::Draining);
    }

    /// 4002. Its publications go; if it reads on within the close time-out it learns why.
    pub(super) fn close_slow_consumer(&mut self, token: Token) {
        let limits = &self.settings.config.limits;
        let (limit, timeout) = (limits.send_queue_size, limits.slow_consumer_timeout);
        let Some(connection) = self.connection(token) else { return };
        let queued = connection.queue.cost();
        let text = if connection.overflowed {
            format!("{queued} bytes queued, the next publication exceeds the limit of {limit}")
        } else {
            format!("{queued} bytes queued, none taken for {timeout:?}")
        };
        self.fail(token, close::SLOW_CONSUMER, Counter::SlowConsumer.name(), &text);
    }

    /// The peer's Close. 5.5.1: if an endpoint receives a Close frame and did not previously send one,
    /// it MUST send a Close frame in response, typically echoing the status code.
    pub(super) fn peer_closed(&mut self, token: Token, code: Option<CloseCode>) {
        let answer =
            code.map_or_else(encoder::empty_close_frame, |code| encoder::close_frame(code, ""));
        self.drop_publications(token);
        self.send_close(token, answer);
        self.enter(token, Phase::Draining);
    }

    /// The peer sends no more: an HTTP client may still wait for its response, a WebSocket without a
    /// Close is lost.
    pub(super) fn peer_ended(&mut self, token: Token) {
        let Some(connection) = self.connection(token) else { return };
        connection.ended = true;
        match connection.phase {
            Phase::Open | Phase::Echo | Phase::Closing => self.abandon(token),
            Phase::Head | Phase::Draining => {
                self.enter(token, Phase::Draining);
                self.mark_dirty(token.slot);
            }
            Phase::Gone => {}
        }
    }

    /// Drops the connection as it is.
    pub(super) fn abandon(&mut self, token: Token) {
        self.hurry_check(token);
        self.enter(token, Phase::Gone);
        self.mark_dirty(token.slot);
    }

    /// Changes the phase. Whoever leaves the open ones leaves the broker: nothing is delivered to it
    /// any more.
    pub(super) fn enter(&mut self, token: Token, phase: Phase) {
        let tick = self.tick();
        let Some(connection) = self.connection(token) else { return };
        let was_open = matches!(connection.phase, Phase::Open | Phase::Echo);
        // The time-out of the closing handshake runs from its beginning.
        if (connection.phase, phase) != (Phase::Closing, Phase::Draining) {
            connection.phase_since = tick;
        }
        connection.phase = phase;
        if phase == Phase::Draining && connection.head().is_some() {
            connection.aside = None;
        }
        if was_open && !matches!(phase, Phase::Open | Phase::Echo) {
            self.leave_broker(token);
        }
        if phase == Phase::Draining {
            self.mark_dirty(token.slot);
        }
        self.rearm(token);
    }

    /// The last event of a connection.
    pub(super) fn forget(&mut self, token: Token) {
        if self.connection(token).is_none() {
            return;
        }
        self.hurry_check(token);
        self.checks.forget(token);
        self.leave_broker(token);
        self.timers.disarm(token.slot);
        let mut connection = self.connections.remove(token.index());
        connection.queue.clear(&mut self.frames);
        self.count(Counter::ConnectionsClosed, 1);
        if self.connections.is_empty() {
            self.give_memory_back();
        }
    }

    /// After the last one of a crowd has left. A few come and go without this.
    fn give_memory_back(&mut self) {
        const KEPT: usize = 1024;
        self.frames.shrink();
        if self.connections.capacity() > KEPT {
            self.connections = Slab::new();
            self.broker.forget_members();
        }
        self.dirty.shrink_to(KEPT);
        self.outbox.shrink_to(KEPT);
        self.effects.shrink_to(KEPT);
    }

    fn leave_broker(&mut self, token: Token) {
        self.joining.forget(token);
        self.gatherings.forget(token);
        self.receipts.forget(token);
        self.end_session(token);
        let mut effects = std::mem::take(&mut self.effects);
        self.broker.leave(token, &mut effects);
        self.apply(effects);
        self.left_outside(token);
        self.forget_entering(token);
    }

    fn drop_publications(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token.index()) else { return };
        if connection.generation == token.generation {
            connection.queue.drop_publications(&mut self.frames);
        }
    }

    /// Queues our Close behind everything that waits; nothing more is queued then. 5.5.1: the
    /// application MUST NOT send any more data frames after sending a Close frame.
    fn send_close(&mut self, token: Token, frame: Bytes) {
        self.queue_bytes(token, frame, FrameClass::Reply);
        if let Some(connection) = self.connection(token) {
            connection.close_sent = true;
        }
    }

    /// A line for the log.
    pub(super) fn note(&mut self, token: Token, reason: &'static str, text: &str) {
        let Some(connection) = self.connection(token) else { return };
        let peer = connection.peer();
        let metrics = &self.settings.metrics.shards()[self.id.index()];
        self.peer_log.note(self.now, metrics, reason, peer, text);
    }
}
