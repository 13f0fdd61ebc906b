//! One event loop: its connections, its part of the topic table, its timers.
//!
//! Handlers change the `state` and mark connections dirty; the loop acts at the end of a turn, and before it turns
//! to those who read histories. Files:
//! `requests` (HTTP), `frames` (WebSocket), `dispatch` (commands and the broker's effects), `publishing`, `sending`
//! (queues, slow readers, the flush), `feeding` (cursors), `recall` (what they and queries get), `acks`
//! (acknowledgements), `identity` (names), `users` (authentication, messages to users), `receipts` (what of them arrived),
//! `sessions` (what outlives a connection), `keeping` (and the server), `heartbeat` (pings), `outside` (the server API), `addressing` (whom it means), `presence` (who is in a channel), `rooms`, `groups`,
//! `telling` (frames for many connections), `traffic`
//! (numbers of a connection), `routing` (messages that go outside), `typed` (events, chat messages, two queries), `validation` (schemas), `checks`, `checking` (those that the checker does), `expiry` (deadlines), `ending` (every way a
//! connection ends).

mod acks;
mod addressing;
mod announcing;
mod checking;
mod checks;
mod connection;
mod dispatch;
mod ending;
mod expiry;
mod feeding;
mod frames;
mod groups;
mod heartbeat;
mod identity;
mod keeping;
mod outside;
mod pace;
mod peer_log;
mod presence;
mod publishing;
mod recall;
mod receipts;
mod requests;
mod rooms;
mod routing;
mod sending;
mod sessions;
#[cfg(test)]
pub(crate) mod simulation;
mod state;
mod telling;
mod timers;
mod traffic;
mod typed;
mod user_sessions;
mod users;
mod validation;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::SeedableRandomState;

use crate::config::Config;
use crate::io::Backend;
use crate::mesh::{AdminPort, BridgePort, CheckPort, LogPort, Port};
use crate::metrics::Metrics;
use state::State;

/// Messages of other shards taken in per turn.
const MESSAGES_MAX: usize = 1024;
/// Connections above the limit that are still listened to, in order to tell them why not.
pub const TURNED_AWAY_MAX: usize = 64;

/// What all shards of a server share.
pub struct Settings {
    pub config: Config,
    pub metrics: Metrics,
    /// Connections of the whole server.
    pub connections_max: usize,
    /// Unix time of [`Moment`](crate::ids::Moment) zero, in milliseconds.
    pub unix_start: u64,
    /// The same for all shards: decides where a topic is at home.
    pub hasher: SeedableRandomState,
    /// Shards that kept sessions may have begun on: those with a lower number.
    pub session_shards: u16,
    /// Unguessable numbers, for ids that a client can present as its own.
    pub identity: fn() -> u128,
}

/// One event loop on its backend.
pub struct Shard<B> {
    backend: B,
    mesh: Port,
    admin: Option<AdminPort>,
    state: State,
}

impl<B: Backend> Shard<B> {
    /// `log`: the way to the durable log, if there is one.
    pub fn new(backend: B, mesh: Port, log: Option<LogPort>, settings: Arc<Settings>) -> Self {
        let state = State::new(mesh.shard(), log, settings, backend.now());
        Self { backend, mesh, admin: None, state }
    }

    /// Gives it the way to the server API, which must be there before that asks anything.
    pub fn with_admin(self, admin: Option<AdminPort>) -> Self {
        Self { admin, ..self }
    }

    /// Gives it the way to the bridge, without which there is no room for what is routed outside.
    pub fn with_bridge(mut self, bridge: Option<BridgePort>) -> Self {
        self.state.bridge = bridge;
        self
    }

    /// Gives it the way to the checker, without which it asks all schemas itself.
    pub fn with_checker(mut self, checker: Option<CheckPort>) -> Self {
        self.state.checks.connect(checker);
        self
    }

    /// Turns until the server has shut down. An error is the backend's: the shard cannot go on.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.state.has_ended() {
            self.turn()?;
        }
        Ok(())
    }

    /// One turn: what has happened, then what follows from it.
    pub fn turn(&mut self) -> io::Result<()> {
        let mut timeout = self.state.timeout();
        if self.mesh.has_unsent()
            || !self.state.broker.to_log().is_empty()
            || self.admin.as_ref().is_some_and(AdminPort::has_unsent)
            || self.state.bridge.as_ref().is_some_and(BridgePort::has_unsent)
        {
            timeout = timeout.min(Duration::from_millis(1));
        }
        if !timeout.is_zero() && !self.mesh.prepare_sleep() {
            timeout = Duration::ZERO;
        }
        let polled = self.backend.poll(timeout, &mut self.state);
        self.mesh.awake();
        polled?;
        self.state.begin_turn(self.backend.now());
        self.state.broker.note_congestion(self.mesh.congested());
        self.state.expire_histories();
        self.state.expire_sessions();
        self.state.expire_acks();
        self.drain_mailbox();
        if self.mesh.take_shutdown() {
            self.state.begin_shutdown();
        }
        self.state.expire_timers();
        self.state.advance_fanouts();
        if self.state.has_readers() {
            // What is new does not wait for those who read what is old.
            self.hand_over();
            self.flush_sockets()?;
        }
        self.state.take_slices();
        self.state.advance_feeds();
        self.state.advance_keeping();
        self.state.advance_presence();
        self.state.advance_tellings();
        let owed = self.state.broker.waits_for_log()
            || self.state.is_keeping()
            || self.state.checks.is_owing()
            || self.state.bridge.as_ref().is_some_and(BridgePort::has_unsent);
        let quiet = !owed && !self.mesh.has_mail() && !self.mesh.has_unsent();
        self.state.advance_shutdown(quiet, &mut self.backend);
        self.hand_over();
        self.state.checks.settle();
        self.flush_sockets()?;
        // Behind the sockets: to wake a thread beside the shards takes time, and on a busy core the shard's
        // place.
        if let Some(bridge) = &mut self.state.bridge {
            bridge.flush();
        }
        self.flush_admin();
        self.state.note_frames();
        Ok(())
    }

    /// Gives the other shards and the log what is for them.
    fn hand_over(&mut self) {
        for (to, message) in self.state.outbox.drain(..) {
            self.mesh.post(to, message);
        }
        self.mesh.flush();
        self.state.flush_log();
    }

    fn flush_sockets(&mut self) -> io::Result<()> {
        self.state.flush_sockets(&mut self.backend)?;
        if self.state.broker.has_finished() {
            self.state.note_fanouts(self.backend.elapsed());
        }
        Ok(())
    }

    fn flush_admin(&mut self) {
        let Some(admin) = &mut self.admin else { return };
        for answer in self.state.outside.answers.drain(..) {
            admin.post(answer);
        }
        admin.flush();
    }

    /// What other threads sent, a bounded amount. While the broker has no room it waits, and the
    /// others refuse their publishers in time.
    fn drain_mailbox(&mut self) {
        for _ in 0..MESSAGES_MAX {
            if !self.state.broker.has_room() {
                break;
            }
            let Some(message) = self.mesh.receive() else { break };
            self.state.receive_message(message);
        }
        self.state.broker.give_way(!self.state.broker.has_room() && self.mesh.has_mail());
    }

    #[cfg(test)]
    fn state(&self) -> &State {
        &self.state
    }

    #[cfg(test)]
    fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }
}
