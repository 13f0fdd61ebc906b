//! Who is in a topic: what the shards of its connections tell its home, and the home them.

use std::sync::Arc;

use bytes::Bytes;

use super::Reader;
use crate::ids::{ConnectionId, ShardId, Token, UserName};
use crate::proto::{Presence, PresenceQuery};

/// About one topic.
#[derive(Debug)]
pub enum PresenceMessage {
    /// To the home: connections of `from` that came or went since the message before.
    Changes { from: ShardId, changes: Vec<Change> },
    /// From the home: the frame, of JSON, that tells subscribers who came and went.
    Notice { frame: Bytes },
    /// To the home: a client asks who is there.
    Query { reader: Reader, query: PresenceQuery, receipt: Option<Box<str>> },
    /// The answer; `receipt` is that of the question.
    Answer { reader: Reader, presence: Presence, receipt: Option<Box<str>> },
}

/// Where a connection of the telling shard stands now, whatever it was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub token: Token,
    /// `None`: it is not there.
    pub arrival: Option<Arrival>,
}

/// A connection that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    pub connection_id: ConnectionId,
    pub user: Option<UserName>,
    /// What others are shown of the user: a JSON object.
    pub info: Option<Arc<str>>,
}

impl PresenceMessage {
    /// Bytes that wait with it, beyond a small message.
    pub fn weight(&self) -> usize {
        match self {
            Self::Changes { changes, .. } => {
                let arrivals = changes.iter().filter_map(|change| change.arrival.as_ref());
                let info: usize =
                    arrivals.filter_map(|it| it.info.as_ref()).map(|info| info.len()).sum();
                changes.len() * size_of::<Change>() + info
            }
            Self::Notice { frame } => frame.len(),
            Self::Query { .. } => 0,
            Self::Answer { presence, .. } => presence.weight(),
        }
    }
}
