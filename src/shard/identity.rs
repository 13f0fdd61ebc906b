//! Who a connection is: what its client and operators call it. Made when somebody first asks, so that a
//! connection without a name costs none.

use super::State;
use super::connection::{Aside, Phase};
use super::heartbeat::Link;
use super::keeping::Keep;
use super::traffic::Carried;
use crate::broker::Places;
use crate::ids::{ConnectionId, Position, SessionId, Tick, Token, UserName};
use crate::message::SessionSubscription;
use crate::proto::Claim;

/// The names of one connection.
#[derive(Debug)]
pub struct Identity {
    pub connection_id: ConnectionId,
    pub session_id: SessionId,
    /// Whose it is; `None`: it has not authenticated.
    pub user: Option<UserName>,
    /// `None` while there is nothing to be said of its session.
    pub track: Option<Box<Track>>,
    /// What its [`Traffic`](super::traffic::Traffic) cannot hold.
    pub carried: Carried,
    pub link: Link,
    pub keep: Keep,
}

/// What a session needs that has a history to go on from, or has had another connection.
#[derive(Debug, Default)]
pub struct Track {
    /// What the client surely has of each subscription with a history.
    pub places: Places,
    /// The same as of the ping that was sent to find out, until it is answered.
    pub asked: Option<Places>,
    /// When that ping was sent.
    pub probed: Tick,
    /// The connection that was named when the session came here from another one.
    pub proof: Option<ConnectionId>,
    /// What the session was subscribed to and could not get back here; the next connection tries again.
    pub unmet: Vec<SessionSubscription>,
    /// The client wants another session, and has not been answered.
    pub restoring: Option<Box<Restoring>>,
}

/// A request that waits for the home of the session, or those of its subscriptions.
#[derive(Debug)]
pub struct Restoring {
    /// Raw JSON of the client.
    pub request_id: Option<Box<str>>,
    /// In the order of their channels; gone once the session is there.
    pub claims: Box<[Claim]>,
}

impl Identity {
    pub fn track(&mut self) -> &mut Track {
        self.track.get_or_insert_default()
    }

    /// Whether the session began on another connection.
    pub fn has_moved(&self) -> bool {
        self.track.as_ref().is_some_and(|track| track.proof.is_some())
    }

    /// Whether it matters what the client has got.
    pub fn has_places(&self) -> bool {
        self.track.as_ref().is_some_and(|track| !track.places.is_empty())
    }
}

impl State {
    /// Who this connection is. `None`: it is gone, or no WebSocket that is open.
    pub(super) fn identity(&mut self, token: Token) -> Option<&mut Identity> {
        let (shard, random) = (self.id, self.settings.identity);
        let connection = self.connection(token)?;
        if !matches!(connection.phase, Phase::Open | Phase::Echo) {
            return None;
        }
        if connection.aside.is_none() {
            // Whoever learns the name has what was queued before.
            let places = self.broker.places(token);
            let track =
                (!places.is_empty()).then(|| Box::new(Track { places, ..Track::default() }));
            let identity = Identity {
                connection_id: ConnectionId { shard, slot: token.slot, secret: random() },
                session_id: SessionId { shard, secret: random() },
                user: None,
                track,
                carried: Carried::default(),
                link: Link::default(),
                keep: Keep::default(),
            };
            let aside = Some(Box::new(Aside::Identity(identity)));
            self.connection(token)?.aside = aside;
            self.note_session(token);
        }
        self.known_identity(token)
    }

    /// A subscription is confirmed that begins here.
    pub(super) fn note_begin(&mut self, token: Token, topic: &str, position: Position) {
        if let Some(identity) = self.known_identity(token) {
            let mut places = std::mem::take(&mut identity.track().places);
            self.broker.note_begin(&mut places, topic, position);
            self.put_back(token, places);
        }
    }

    /// A subscription ends; before the broker hears of it.
    pub(super) fn forget_place(&mut self, token: Token, topic: &str) {
        let Some(track) = self.known_identity(token).and_then(|it| it.track.as_mut()) else {
            return;
        };
        let mut places = std::mem::take(&mut track.places);
        let mut asked = track.asked.take();
        self.broker.forget_place(&mut places, topic);
        if let Some(asked) = &mut asked {
            self.broker.forget_place(asked, topic);
        }
        self.put_back(token, places);
        if let Some(track) = self.known_identity(token).and_then(|it| it.track.as_mut()) {
            track.asked = asked;
            track.unmet.retain(|unmet| &*unmet.topic != topic);
        }
    }

    fn put_back(&mut self, token: Token, places: Places) {
        if let Some(identity) = self.known_identity(token) {
            identity.track().places = places;
        }
    }
}
