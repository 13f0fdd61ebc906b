//! What happens when a connection's deadline comes. Deadlines are looked up here, from the state; the
//! wheel only says when to look.

use std::time::Duration;

use super::State;
use super::connection::{Connection, Phase};
use super::heartbeat::is_probe_due;
use super::sending::may_wait;
use crate::config::{Auth, Config};
use crate::ids::{Tick, Token};
use crate::metrics::Counter;
use crate::proto::http::Refusal;
use crate::proto::{CloseCode, close};

/// Longest silence, in heartbeat intervals, of a peer that a busy shard may merely not have heard.
const UNHEARD_INTERVALS_MAX: u32 = 4;

/// Deadlines looked at per turn: no more than the events that a backend takes, so that a crowd of pings
/// does not keep a shard from reading the answers.
const EXPIRED_MAX: usize = 64;

impl State {
    pub(super) fn expire_timers(&mut self) {
        let mut expired = std::mem::take(&mut self.expired);
        self.timers.expire(self.now, EXPIRED_MAX, &mut expired);
        for slot in expired.drain(..) {
            if let Some(connection) = self.connections.get(slot as usize) {
                let token = connection.token(slot);
                self.expire(token);
                self.rearm(token);
            }
        }
        self.expired = expired;
    }

    /// Sets the deadline anew from the connection's state.
    pub(super) fn rearm(&mut self, token: Token) {
        let Some(connection) = self.connections.get(token.index()) else { return };
        if connection.phase == Phase::Gone {
            self.timers.disarm(token.slot);
        } else {
            let deadline = deadline(connection, token, &self.settings.config);
            self.timers.arm(token.slot, deadline.max(Tick(self.tick().0 + 1)));
        }
    }

    fn expire(&mut self, token: Token) {
        let now = self.tick();
        let close_timeout = self.settings.config.limits.close_timeout;
        let Some(connection) = self.connection(token) else { return };
        match connection.phase {
            Phase::Head => self.expire_head(token),
            Phase::Closing | Phase::Draining => {
                if now >= connection.phase_since.after(close_timeout) {
                    self.count(Counter::CloseTimeout, 1);
                    self.abandon(token);
                }
            }
            Phase::Open | Phase::Echo => self.expire_open(token),
            Phase::Gone => {}
        }
    }

    /// The head's deadline is absolute: bytes do not move it.
    fn expire_head(&mut self, token: Token) {
        let now = self.tick();
        let timeout = self.settings.config.limits.handshake_timeout;
        let Some(connection) = self.connection(token) else { return };
        if now < connection.phase_since.after(timeout) {
            return;
        }
        if connection.head().is_some() {
            self.refuse(token, &Refusal::handshake_timeout());
        } else {
            // Nothing was asked: an idle kept-alive connection, or one that never spoke.
            self.count(Counter::HandshakeTimeout, 1);
            self.abandon(token);
        }
    }

    fn expire_open(&mut self, token: Token) {
        let now = self.tick();
        let config = &self.settings.config;
        let interval = config.heartbeat.interval;
        let auth = &config.auth;
        let awaits_check = self.awaits_check(token);
        let Some(connection) = self.connections.get_mut(token.index()) else { return };
        if auth_due(connection, auth).is_some_and(|due| now >= due) {
            self.close_unauthenticated(token);
            return;
        }
        let is_slow = connection.blocked
            && now >= connection.progress.after(config.limits.slow_consumer_timeout);
        if is_slow && may_wait(connection, &self.frames) {
            // Judged: the next look at its queue is due when the time has passed again.
            connection.progress = now;
        } else if is_slow {
            self.close_slow_consumer(token);
        } else if connection.message_open
            && now >= connection.message_since.after(config.limits.message_timeout)
        {
            let reason = Counter::FragmentAbuse.name();
            self.fail(token, CloseCode::Policy, reason, "a message was not complete in time");
        } else if connection.pinged().is_some()
            && now >= silence_ends(connection, interval)
            && (awaits_check
                || (Tick::at(self.caught_up) < silence_ends(connection, interval)
                    && now < connection.last_received.after(interval * UNHEARD_INTERVALS_MAX)))
        {
            // The answer may be there, unread: the peer is not to pay for what the shard has to do.
            connection.note_ping(now);
        } else if connection.pinged().is_some() && now >= silence_ends(connection, interval) {
            self.count(Counter::NoHeartbeat, 1);
            self.note(token, Counter::NoHeartbeat.name(), "silent for two heartbeat intervals");
            self.close(token, close::NO_HEARTBEAT, Counter::NoHeartbeat.name());
        } else if connection.pinged().is_none()
            && (now >= ping_due(connection, token, interval)
                || is_probe_due(connection, now, interval))
        {
            self.ping(token);
        }
    }
}

/// When to look at a connection again.
fn deadline(connection: &Connection, token: Token, config: &Config) -> Tick {
    match connection.phase {
        Phase::Head => connection.phase_since.after(config.limits.handshake_timeout),
        Phase::Closing | Phase::Draining => {
            connection.phase_since.after(config.limits.close_timeout)
        }
        Phase::Open | Phase::Echo => {
            let interval = config.heartbeat.interval;
            let mut deadline = match connection.pinged() {
                Some(_) => silence_ends(connection, interval),
                None => ping_due(connection, token, interval),
            };
            if connection.blocked {
                let slow = connection.progress.after(config.limits.slow_consumer_timeout);
                deadline = deadline.min(slow);
            }
            if connection.message_open {
                let open = connection.message_since.after(config.limits.message_timeout);
                deadline = deadline.min(open);
            }
            auth_due(connection, &config.auth).map_or(deadline, |due| due.min(deadline))
        }
        Phase::Gone => Tick(u32::MAX),
    }
}

/// When a connection must have authenticated, if it must and has not. An echo has done so at its upgrade.
fn auth_due(connection: &Connection, auth: &Auth) -> Option<Tick> {
    let waits = auth.required && !connection.authenticated && connection.phase == Phase::Open;
    waits.then(|| connection.phase_since.after(auth.timeout))
}

/// When a connection that was pinged counts as lost: after two intervals of silence. If the shard
/// itself stood still, the ping went out late, and the peer has one interval to answer it.
fn silence_ends(connection: &Connection, interval: Duration) -> Tick {
    let pinged = connection.pinged().unwrap_or(connection.last_received);
    connection.last_received.after(interval * 2).max(pinged.after(interval))
}

/// Up to a quarter of the interval early, by connection: a crowd that came at once is not pinged at
/// once.
fn ping_due(connection: &Connection, token: Token, interval: Duration) -> Tick {
    // Fibonacci hashing: neighbours land far apart.
    let spread = token.slot.wrapping_mul(0x9E37_79B9) >> 16;
    let early = (interval / 4) * spread / (1 << 16);
    connection.last_received.after(interval - early)
}
