//! Who is in a room: what the shards of its members and its topic's home tell each other.

use super::Reader;
use crate::ids::{ShardId, Token, UserName};
use crate::proto::{Removal, RoomAction, RoomRefusal, RoomView};

/// About one room.
#[derive(Debug)]
pub enum RoomMessage {
    /// To the home: a connection wants something of it.
    Ask { asker: Asker, action: RoomAction, receipt: Option<Box<str>> },
    /// The answer; `receipt` is that of the question.
    Answer { reader: Reader, outcome: RoomOutcome, receipt: Option<Box<str>>, returns: bool },
    /// To the home: a member has left, or its connection has ended.
    Left { from: ShardId, token: Token },
    /// From the home to the shard of a member that is none any more.
    Removed { token: Token, removal: Removal },
}

/// Who wants something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    pub reader: Reader,
    /// Its user, or the id of its connection.
    pub name: UserName,
    /// It may do what the owner may.
    pub moderates: bool,
    /// A session that had been in the room comes back.
    pub returns: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomOutcome {
    Done,
    /// The connection is in the room now, but is not subscribed.
    Joined(Box<RoomView>),
    Described(Box<RoomView>),
    Refused(RoomRefusal),
}

impl RoomMessage {
    /// Bytes that wait with it, beyond a small message.
    pub fn weight(&self) -> usize {
        const USER_BYTES: usize = 48;
        match self {
            Self::Answer {
                outcome: RoomOutcome::Joined(view) | RoomOutcome::Described(view),
                ..
            } => view.metadata.len() + view.users.len() * USER_BYTES,
            Self::Ask { action: RoomAction::Create(plan), .. } => {
                plan.metadata.as_ref().map_or(0, |metadata| metadata.len())
            }
            Self::Answer { .. } | Self::Ask { .. } | Self::Left { .. } | Self::Removed { .. } => 0,
        }
    }
}
