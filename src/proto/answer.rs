//! What the server says to one client, before it is written in the encoding of that client.

use bytes::Bytes;

use crate::ids::{ConnectionId, Position, SessionId, UserName};
use crate::proto::command::{Rejection, RequestId};
use crate::proto::encoding::Encoding;
use crate::proto::recall::{Restored, Standing, Unavailable};
use crate::proto::{protobuf, reply};

/// One message of the server that is not a publication. The fields are those of the functions of the same
/// names in [`reply`].
#[derive(Debug, Clone, Copy)]
pub enum Answer<'a> {
    SubscriptionConfirm {
        channel: &'a str,
        standing: &'a Standing,
        /// Where the client is told of a history.
        subscription_id: Option<u64>,
        id: Option<RequestId<'a>>,
    },
    UnsubscriptionConfirm {
        channel: &'a str,
        id: Option<RequestId<'a>>,
    },
    /// Somebody was in a room and is not any more.
    Removed {
        channel: &'a str,
        reason: &'static str,
    },
    Gap {
        channel: &'a str,
        from: u64,
        to: u64,
    },
    QueueGap {
        namespace: &'a str,
    },
    Response {
        /// JSON.
        payload: &'a str,
        id: Option<RequestId<'a>>,
        /// The time, and the number of this message.
        envelope: (u64, u64),
    },
    HistoryPage {
        channel: &'a str,
        position: Option<Position>,
        /// In JSON, whatever the encoding of the answer.
        frames: &'a [Bytes],
        complete: Result<(), Unavailable>,
        more: bool,
        id: Option<RequestId<'a>>,
        /// The time, and the number of this message.
        envelope: (u64, u64),
    },
    Error {
        rejection: &'a Rejection<'a>,
        now_unix_ms: u64,
        message_id: u64,
    },
    PublishAck {
        id: Option<RequestId<'a>>,
        message_id: Option<&'a str>,
        channel: &'a str,
        offset: Option<u64>,
    },
    /// Of what a route has taken.
    Taken {
        id: Option<RequestId<'a>>,
        message_id: Option<&'a str>,
    },
    /// What a route does not want. It has codes of its own.
    Refused {
        code: &'a str,
        text: &'a str,
        id: Option<RequestId<'a>>,
        /// The time, and the number of this message.
        envelope: (u64, u64),
    },
    Pong {
        id: Option<RequestId<'a>>,
        timestamp: Option<&'a str>,
    },
    SessionRestored {
        session_id: SessionId,
        connection_id: ConnectionId,
        /// Whose both are, if they are anybody's.
        user: Option<&'a UserName>,
        /// Where each subscription stands, or why it is refused.
        subscriptions: &'a [Restored<'a>],
        id: Option<RequestId<'a>>,
        message_id: u64,
    },
    Welcome {
        connection_id: ConnectionId,
        session_id: SessionId,
        message_id: u64,
        heartbeat_ms: u64,
        message_bytes_max: usize,
    },
}

/// Calls the function of that name which writes in the encoding.
macro_rules! written {
    ($encoding:expr, $name:ident($($argument:expr),*)) => {
        match $encoding {
            Encoding::Json => reply::$name($($argument),*),
            Encoding::Protobuf => protobuf::reply::$name($($argument),*),
        }
    };
}

impl Answer<'_> {
    /// The whole frame, in one allocation.
    pub fn frame(&self, encoding: Encoding) -> Bytes {
        match *self {
            Self::SubscriptionConfirm { channel, standing, subscription_id, id } => {
                written!(encoding, subscription_confirm(channel, standing, subscription_id, id))
            }
            Self::UnsubscriptionConfirm { channel, id } => {
                written!(encoding, unsubscription_confirm(channel, id))
            }
            Self::Removed { channel, reason } => written!(encoding, removed(channel, reason)),
            Self::Gap { channel, from, to } => written!(encoding, gap(channel, from, to)),
            Self::QueueGap { namespace } => written!(encoding, queue_gap(namespace)),
            Self::Response { payload, id, envelope } => {
                written!(encoding, response(payload, id, envelope))
            }
            Self::HistoryPage { channel, position, frames, complete, more, id, envelope } => {
                written!(
                    encoding,
                    history_page(channel, position, frames, complete, more, id, envelope)
                )
            }
            Self::Error { rejection, now_unix_ms, message_id } => {
                written!(encoding, error(rejection, now_unix_ms, message_id))
            }
            Self::PublishAck { id, message_id, channel, offset } => {
                written!(encoding, publish_ack(id, message_id, channel, offset))
            }
            Self::Taken { id, message_id } => written!(encoding, taken(id, message_id)),
            Self::Refused { code, text, id, envelope } => {
                written!(encoding, refused(code, text, id, envelope))
            }
            Self::Pong { id, timestamp } => written!(encoding, pong(id, timestamp)),
            Self::SessionRestored {
                session_id,
                connection_id,
                user,
                subscriptions,
                id,
                message_id,
            } => {
                let ids = (session_id, connection_id);
                written!(encoding, session_restored(ids, user, subscriptions, id, message_id))
            }
            Self::Welcome {
                connection_id,
                session_id,
                message_id,
                heartbeat_ms,
                message_bytes_max,
            } => written!(
                encoding,
                welcome(connection_id, session_id, message_id, heartbeat_ms, message_bytes_max)
            ),
        }
    }
}
