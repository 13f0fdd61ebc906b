//! Who a connection is: what its client and operators call it. Made when somebody first asks, so that a
//! connection without a name costs none.

use super::State;
use crate::ids::{ConnectionId, SessionId, Token};

/// The names of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub connection_id: ConnectionId,
    pub session_id: SessionId,
}

impl State {
    /// Who this connection is. `None`: it is gone.
    pub(super) fn identity(&mut self, token: Token) -> Option<&mut Identity> {
        let (shard, random) = (self.id, self.settings.identity);
        let identity = &mut self.connection(token)?.identity;
        Some(identity.get_or_insert_with(|| {
            Box::new(Identity {
                connection_id: ConnectionId { shard, slot: token.slot, secret: random() },
                session_id: SessionId { shard, secret: random() },
            })
        }))
    }
}
