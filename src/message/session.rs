//! Sessions between shards: their homes keep those without a connection, and know who has the others.

use std::sync::Arc;

use crate::filter::Filter;
use crate::ids::{ConnectionId, Position, SessionId, ShardId, Token, TopicName, UserName};
use crate::proto::ErrorCode;

/// A connection that has, or is to have, a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    pub shard: ShardId,
    pub token: Token,
}

/// Between the home of a session and the shards of its connections. For each `Granted` that a shard gets it
/// sends one `Park` or `Forget`, sooner or later: so a session is never lost, and never had twice.
#[derive(Debug)]
pub enum SessionMessage {
    /// To the home: a client wants to go on with a session. Answered by `Granted` or `Refused`.
    Restore(RestoreRequest),
    /// From the home: the session is the connection's.
    Granted { request: RestoreRequest, state: SessionState },
    /// From the home: it is not.
    Refused { request: RestoreRequest, code: ErrorCode },
    /// From the home: another connection is to have the session. Whoever has it still sends `Park`.
    Release { session: SessionId, from: Holder },
    /// To the home: the connection has ended, or has to give the session up. `told`: its client may have
    /// heard that it has the session.
    Park {
        session: SessionId,
        connection: ConnectionId,
        from: Holder,
        told: bool,
        state: SessionState,
    },
    /// To the home: the connection has the session, and this is to be kept of it.
    Keep { session: SessionId, connection: ConnectionId, state: SessionState },
    /// To the home: the session has ended with its connection, or been left for another one.
    Forget { session: SessionId, from: Holder },
    /// To every shard: which sessions of the user are there? Answered by `Listed`.
    List { user: UserName, to: Holder },
    /// To the shard of the connection that wants to know.
    Listed { to: Holder, lines: SessionLines },
    /// To the home: the session is to end. Answered by `Ended`.
    End(EndRequest),
    /// From the home: the session of this connection is to end, with it. If the connection has it no longer
    /// the home is asked again.
    EndHeld { holder: Holder, request: EndRequest },
    /// To the shard of the connection that wants it to end: it has ended, or is not there.
    Ended { request: EndRequest, found: bool },
}

impl SessionMessage {
    /// Bytes that wait with this message, an estimate.
    pub fn weight(&self) -> usize {
        match self {
            Self::Granted { state, .. } | Self::Park { state, .. } | Self::Keep { state, .. } => {
                state.bytes()
            }
            Self::Listed { lines, .. } => size_of_val(&*lines.lines),
            Self::Restore(_)
            | Self::Refused { .. }
            | Self::Release { .. }
            | Self::Forget { .. }
            | Self::List { .. }
            | Self::End(_)
            | Self::EndHeld { .. }
            | Self::Ended { .. } => 0,
        }
    }
}

/// What a client says who restores a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreRequest {
    pub session: SessionId,
    /// The connection that the client had it on: who names both may have it.
    pub proof: ConnectionId,
    /// The connection that is to have it.
    pub to: Holder,
    pub connection: ConnectionId,
    /// Whose that connection is already: it cannot have the session of anybody else.
    pub user: Option<UserName>,
}

impl RestoreRequest {
    /// Whether a session of this user may be had with it.
    pub fn may_have(&self, user: Option<&UserName>) -> bool {
        self.user.as_ref().zip(user).is_none_or(|(one, other)| one == other)
    }
}

/// Who wants a session to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndRequest {
    pub session: SessionId,
    /// Whose session it must be.
    pub user: UserName,
    /// The connection that is to be told.
    pub to: Holder,
    /// Raw JSON of the client.
    pub request_id: Option<Box<str>>,
}

/// Sessions of one user, in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionLines {
    pub lines: Vec<SessionLine>,
    /// There are more than the list may have.
    pub more: bool,
}

/// What is told of a session in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLine {
    pub session: SessionId,
    pub connected: bool,
    pub subscriptions: usize,
    /// Since when its connection is there, or is not: Unix time in milliseconds.
    pub since: u64,
}

/// What a session keeps while it has no connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionState {
    /// Whose it is, and its next connection with it.
    pub user: Option<UserName>,
    pub subscriptions: Box<[SessionSubscription]>,
}

/// A subscription of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSubscription {
    pub topic: TopicName,
    /// What the client surely has of it; of an acked topic, what it has acknowledged without a hole.
    /// `None`: it has no history.
    pub position: Option<Position>,
    /// Of an acked topic: what is acknowledged behind that. First and last offsets, both included, in
    /// order.
    pub acked: Box<[(u64, u64)]>,
    /// It is a room that it was in.
    pub is_member: bool,
    /// Which publications it is for, by their tags.
    pub filter: Option<Arc<Filter>>,
}

impl SessionState {
    /// Bytes of memory, as good as they can be told.
    pub fn bytes(&self) -> usize {
        /// Of the name's own allocation, beyond its text.
        const NAME_BYTES: usize = 32;
        let bytes = |subscription: &SessionSubscription| {
            let ranges = size_of_val(&*subscription.acked);
            let filter = subscription.filter.as_ref().map_or(0, |filter| filter.weight());
            let name = NAME_BYTES + subscription.topic.len();
            size_of::<SessionSubscription>() + name + ranges + filter
        };
        let user = self.user.as_ref().map_or(0, |user| NAME_BYTES + user.len());
        user + self.subscriptions.iter().map(bytes).sum::<usize>()
    }
}
