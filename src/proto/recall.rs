//! How a client says which part of a history it wants, and what it is told of it.

use crate::ids::{Epoch, Position};
use crate::proto::error_code::ErrorCode;

/// Numbers from this one on are Unix times in milliseconds, smaller ones are offsets: it is March
/// 1973, and more publications than one topic sees in a day at a million a second.
pub const FIRST_UNIX_MS: u64 = 100_000_000_000;

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Start {
    /// With the next publication.
    #[default]
    Now,
    /// Behind a publication that was seen in this epoch; `None`: a text that is no epoch of ours.
    Recover {
        epoch: Option<Epoch>,
        offset: u64,
    },
    Since(Since),
}

/// A place in a history, as a client names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Before the oldest publication that is kept.
    Oldest,
    /// Behind the publication with this offset.
    Offset(u64),
    /// Before what was published at this Unix time, in milliseconds, or later.
    Time(u64),
}

impl Since {
    /// The place that this number names.
    pub fn from_number(number: u64) -> Self {
        if number < FIRST_UNIX_MS { Self::Offset(number) } else { Self::Time(number) }
    }
}

/// Why a subscriber does not get everything from the place it named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// The history began anew since: another epoch.
    Epoch,
    /// Some of it is not kept any more.
    Trimmed,
    /// The offset is beyond the newest publication.
    Future,
    /// It is more than the client's own `limit`.
    Limit,
    /// The channel keeps no history.
    NoHistory,
    /// The connection was subscribed already, from elsewhere.
    Subscribed,
    /// The durable log has it, but cannot read it, or the disk has lost it.
    Unreadable,
}

impl Unavailable {
    /// The stable name for clients.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::Trimmed => "trimmed",
            Self::Future => "future",
            Self::Limit => "limit",
            Self::NoHistory => "no_history",
            Self::Subscribed => "subscribed",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What became of a place that a subscriber named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Whether it gets everything from that place on.
    pub outcome: Result<(), Unavailable>,
    /// Publications that it gets from the history before live ones.
    pub count: u64,
}

/// Where a subscription stands when it is confirmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// The first publication it gets is behind this; `None` without a history.
    pub position: Option<Position>,
    /// `None` if no place was named.
    pub recovery: Option<Recovery>,
}

/// One subscription of a session that is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored<'a> {
    pub channel: &'a str,
    pub subscription_id: Option<u64>,
    /// Where it stands, or why it is refused.
    pub outcome: Result<Standing, ErrorCode>,
}

/// Where a client says that it is on one channel of the session that it restores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// As the client wrote it, valid or not.
    pub channel: Box<str>,
    pub place: ClaimedPlace,
}

/// Behind the publication with this offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimedPlace {
    /// Of the epoch in which the session was subscribed.
    Offset(u64),
    /// `None`: a text that is no epoch of ours.
    Position { epoch: Option<Epoch>, offset: u64 },
}

/// What a `history` query asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Nothing at or before this place.
    pub since: Since,
    /// Nothing behind this place: an offset, or a Unix time in milliseconds. Both are included.
    pub until: Option<Since>,
    /// Publications at most.
    pub limit: usize,
    /// The newest first.
    pub reverse: bool,
}
