//! Pings and what their pongs tell: how long the way is, and what a client has surely got.

use super::State;
use super::connection::{Aside, Connection};
use crate::ids::{Tick, Token};
use crate::metrics::Counter;

/// The payload of a ping that asks what a client has got. A pong that has it was asked for.
pub(super) const PROBE: &[u8] = b"probe";

impl State {
    /// Pings a connection. If it has a session, and nothing waits for it, the pong says that it has got
    /// everything that was sent before.
    pub(super) fn ping(&mut self, token: Token) {
        let (now, tick) = (self.now, self.tick());
        let Some(connection) = self.connection(token) else { return };
        connection.pinged = Some(tick);
        connection.note_ping(now);
        // A ping overtakes what is queued.
        let is_drained = connection.queue.is_empty();
        let may_probe = is_drained
            && self
                .known_identity(token)
                .is_some_and(|identity| identity.has_places() && identity.track().asked.is_none());
        let mut frame = self.ping;
        if may_probe {
            frame = self.probe;
            let places = self.broker.places(token);
            if let Some(identity) = self.known_identity(token) {
                identity.track().asked = Some(places);
                identity.track().probed = tick;
            }
        }
        self.count(Counter::HeartbeatsSent, 1);
        self.queue_control(token, frame);
    }

    pub(super) fn take_pong(&mut self, token: Token, payload: &[u8]) {
        let now = self.now;
        let Some(connection) = self.connection(token) else { return };
        connection.note_pong(now);
        if payload == PROBE
            && let Some(track) = self.known_identity(token).and_then(|it| it.track.as_mut())
            && let Some(reached) = track.asked.take()
        {
            track.places.advance(&reached);
        }
    }
}

/// Whether a connection is to be pinged although it is not silent, since it would otherwise never be known
/// what it has got.
pub(super) fn is_probe_due(
    connection: &Connection,
    now: Tick,
    interval: std::time::Duration,
) -> bool {
    let Some(Aside::Identity(identity)) = connection.aside.as_deref() else { return false };
    let track = identity.track.as_ref();
    identity.has_places() && track.is_some_and(|track| now >= track.probed.after(interval))
}
