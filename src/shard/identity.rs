//! Who a connection is: what its client and operators call it. Made when somebody first asks, so that a
//! connection without a name costs none.

use super::State;
use super::connection::{Aside, Phase};
use super::traffic::Carried;
use crate::ids::{ConnectionId, SessionId, Token};

/// The names of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub connection_id: ConnectionId,
    pub session_id: SessionId,
    /// What its [`Traffic`](super::traffic::Traffic) cannot hold.
    pub carried: Carried,
}

impl State {
    /// Who this connection is. `None`: it is gone, or no WebSocket yet.
    pub(super) fn identity(&mut self, token: Token) -> Option<&mut Identity> {
        let (shard, random) = (self.id, self.settings.identity);
        let connection = self.connection(token)?;
        if connection.phase == Phase::Head {
            return None;
        }
        let aside = connection.aside.get_or_insert_with(|| {
            Box::new(Aside::Identity(Identity {
                connection_id: ConnectionId { shard, slot: token.slot, secret: random() },
                session_id: SessionId { shard, secret: random() },
                carried: Carried::default(),
            }))
        });
        match &mut **aside {
            Aside::Identity(identity) => Some(identity),
            Aside::Head(_) => None,
        }
    }
}
