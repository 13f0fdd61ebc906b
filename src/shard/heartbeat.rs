//! Pings and what their pongs tell: how long the way is, and what a client has surely got.

use super::State;
use super::connection::{Aside, Connection};
use crate::ids::{Moment, Tick, Token};
use crate::metrics::Counter;

/// The payload of a ping that asks what a client has got. A pong that has it was asked for.
pub(super) const PROBE: &[u8] = b"probe";

/// The way to a client, as its pongs show it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Link {
    rtt: Option<u16>,
    /// When the oldest ping left that no pong has answered.
    sent: Option<Moment>,
}

impl Link {
    /// A ping leaves.
    pub fn note_ping(&mut self, now: Moment) {
        self.sent.get_or_insert(now);
    }

    /// A pong has come, asked for or not.
    pub fn note_pong(&mut self, now: Moment) {
        if let Some(sent) = self.sent.take() {
            self.rtt = Some(u16::try_from(now.since(sent).as_millis()).unwrap_or(u16::MAX));
        }
    }

    /// Milliseconds from the last ping that was answered to its pong.
    pub fn rtt(&self) -> Option<u16> {
        self.rtt
    }
}

impl State {
    /// Pings a connection. If it has a session, and nothing waits for it, the pong says that it has got
    /// everything that was sent before.
    pub(super) fn ping(&mut self, token: Token) {
        let (now, tick) = (self.now, self.tick());
        let Some(connection) = self.connection(token) else { return };
        connection.note_ping(tick);
        // A ping overtakes what is queued.
        let is_drained = connection.queue.is_empty();
        let may_probe = self.known_identity(token).is_some_and(|identity| {
            identity.link.note_ping(now);
            is_drained && identity.has_places() && identity.track().asked.is_none()
        });
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
        let Some(identity) = self.known_identity(token) else { return };
        identity.link.note_pong(now);
        if payload == PROBE
            && let Some(track) = identity.track.as_mut()
            && let Some(reached) = track.asked.take()
        {
            track.places.advance(&reached);
            self.note_session(token);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_round_trip_is_that_of_the_oldest_ping() {
        let mut link = Link::default();
        link.note_pong(Moment(5));
        assert_eq!(link.rtt(), None);
        for (sent, answered, expected) in [(10, 33, 23), (50, 50, 0), (100, 1_000_000, u16::MAX)] {
            link.note_ping(Moment(sent));
            link.note_ping(Moment(sent + 1));
            link.note_pong(Moment(answered));
            link.note_pong(Moment(answered + 7));
            assert_eq!(link.rtt(), Some(expected));
        }
    }
}
