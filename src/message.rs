//! Everything that crosses a thread. Values only: nobody shares state through a message.

mod admin;
mod bridge;
mod check;
mod log;
mod log_batch;
mod presence;
mod room;
mod session;
mod session_proofs;
mod session_record;

use std::sync::Arc;

use bytes::Bytes;

pub use admin::{
    AdminAnswer, AdminCall, AdminRefusal, AdminRequest, AdminTicket, ConnectionInfo, GroupChange,
    ShardStats,
};
pub use bridge::{BridgeAnswer, BridgeMessage, BridgeOrigin, BridgeOutcome};
pub use check::{Question, Verdict};
pub use log::{
    LogAnswer, LogAppend, LogMessage, LogPlace, LogRecord, LogRefusal, LogSlice, Missing,
    MissingReason, Ticket,
};
pub use log_batch::{LogBatch, LogRequest};
pub use presence::{Arrival, Change, PresenceMessage};
pub use room::{Asker, RoomMessage, RoomOutcome};
pub use session::{
    EndRequest, Holder, RestoreRequest, SessionLine, SessionLines, SessionMessage, SessionState,
    SessionSubscription,
};
pub use session_proofs::SessionProofs;
pub use session_record::{KeptSession, RecordFlaw, SessionRecord};

use crate::filter::Filter;
use crate::ids::{Position, ShardId, Token, TopicName};
use crate::proto::{Audience, Family, HistoryQuery, Recovery, RequestId, Start, Unavailable};

/// What one shard tells another.
#[derive(Debug)]
pub enum ShardMessage {
    /// To a topic's home: `from` has its first subscriber. Answered by [`ShardMessage::Interested`].
    Interest { topic: TopicName, from: ShardId, ask: Ask },
    /// From a topic's home: what comes behind this message in the mailbox is complete from here on.
    /// `position`: of the history, if there is one.
    Interested { topic: TopicName, ask: Ask, position: Option<Position> },
    /// To a topic's home: `from` has no subscriber any more.
    Disinterest { topic: TopicName, from: ShardId },
    /// To a topic's home: a client of `publisher.shard` published. `body` is the whole frame, or,
    /// with a history, the data alone: the frame has the offset in it.
    Publish { topic: TopicName, body: Bytes, publisher: Publisher },
    /// From a topic's home, in the topic's total order. `offset` is 0 without a history.
    Deliver { topic: TopicName, frame: Bytes, except: Option<Token>, offset: u64 },
    /// The same of a publication that is for some of the subscribers only; without a history.
    DeliverSome { topic: TopicName, frame: Bytes, except: Option<Token>, filter: Arc<Filter> },
    /// From a topic's home to the publisher's shard.
    Published { topic: TopicName, publisher: Publisher, outcome: PublishOutcome },
    /// To the home of a topic with history, behind `Interest`: where does a subscription begin?
    Open { topic: TopicName, reader: Reader, begin: Box<Begin> },
    /// The answer. If the opening is at the head, what comes behind this message follows it.
    Opened { topic: TopicName, reader: Reader, opening: Box<Opening> },
    /// To the home of a topic with history, behind `Interest`: what follows `next`?
    Read { topic: TopicName, reader: Reader, next: u64 },
    /// The answer. If it reaches the head, what comes behind this message follows it.
    Slice { topic: TopicName, reader: Reader, slice: Box<Slice> },
    /// To the home of a topic: a client asks for a part of its history.
    Query { topic: TopicName, reader: Reader, query: Box<HistoryQuery>, receipt: Option<Box<str>> },
    /// The answer; `receipt` is that of the question.
    Page { topic: TopicName, reader: Reader, page: Box<Page>, receipt: Option<Box<str>> },
    /// To the home of an inbox: the user has received everything up to this offset.
    Received { topic: TopicName, upto: u64 },
    /// From the durable log.
    Log(LogAnswer),
    /// Between a session's home and the shards of its connections.
    Session(Box<SessionMessage>),
    /// Between a topic's home and the shards of those who are in it.
    Presence { topic: TopicName, message: Box<PresenceMessage> },
    /// Between a room's home and the shards of those who are in it.
    Room { topic: TopicName, message: Box<RoomMessage> },
    /// A client sends a frame, of JSON, to whom of the audience is there.
    Announce { frame: Bytes, audience: Arc<Audience> },
    /// From the server API.
    Admin(Box<AdminRequest>),
    /// From the bridge.
    Bridge(Box<BridgeAnswer>),
    /// From the checker.
    Verdict(Box<Verdict>),
}

impl Publisher {
    /// Which of the subscribers its publication is for.
    pub fn filter(&self) -> Option<&Arc<Filter>> {
        self.receipt.as_ref()?.filter.as_ref()
    }
}

impl ShardMessage {
    /// Bytes that wait with this message, for the bound of the mesh. An estimate for the small ones.
    pub fn weight(&self) -> usize {
        const SMALL: usize = 128;
        let bytes = |frames: &[Bytes]| frames.iter().map(Bytes::len).sum::<usize>();
        match self {
            Self::Publish { body, publisher, .. } => {
                SMALL + body.len() + publisher.filter().map_or(0, |filter| filter.weight())
            }
            Self::Deliver { frame, .. } => SMALL + frame.len(),
            Self::DeliverSome { frame, filter, .. } => SMALL + frame.len() + filter.weight(),
            Self::Slice { slice, .. } => SMALL + bytes(&slice.frames),
            Self::Page { page, .. } => SMALL + bytes(&page.frames),
            Self::Log(answer) => answer.weight(),
            Self::Session(message) => SMALL + message.weight(),
            Self::Room { message, .. } => SMALL + message.weight(),
            Self::Presence { message, .. } => SMALL + message.weight(),
            Self::Admin(request) => SMALL + request.weight(),
            Self::Bridge(answer) => SMALL + answer.weight(),
            Self::Announce { frame, audience } => SMALL + frame.len() + audience.weight(),
            Self::Verdict(_)
            | Self::Interest { .. }
            | Self::Interested { .. }
            | Self::Disinterest { .. }
            | Self::Published { .. }
            | Self::Open { .. }
            | Self::Opened { .. }
            | Self::Read { .. }
            | Self::Query { .. }
            | Self::Received { .. } => SMALL,
        }
    }
}

/// Tells apart the questions of one shard about one topic: an answer to a question that was
/// withdrawn since must not confirm the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask(pub u64);

/// Who reads a history, and which of its questions this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    pub shard: ShardId,
    pub token: Token,
    pub ask: Ask,
}

/// Where a subscription to a topic with history is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    pub start: Start,
    /// Publications that the history may give at most.
    pub limit: Option<u64>,
}

/// Where it does begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// The first publication that the subscriber gets is behind it.
    pub position: Position,
    /// The newest offset: the subscription is live if it begins here.
    pub head: u64,
    /// `None` if the subscriber named no place.
    pub recovery: Option<Recovery>,
}

/// A piece of a history, for a cursor.
#[derive(Debug, Clone)]
pub struct Slice {
    /// First and last offset that the reader should have got, and that are not kept any more.
    pub gap: Option<(u64, u64)>,
    /// In the order of their offsets.
    pub frames: Vec<Bytes>,
    /// The offset to go on with.
    pub next: u64,
    /// There is nothing newer.
    pub at_head: bool,
    /// The durable log has it but cannot read it: nothing was passed over.
    pub failed: bool,
}

/// A piece of a history, for a query.
#[derive(Debug, Clone)]
pub struct Page {
    /// Behind the newest publication; `None`: nothing was ever published.
    pub position: Option<Position>,
    /// In the order that was asked for.
    pub frames: Vec<Bytes>,
    /// Whether the history still reaches back to where the query begins.
    pub complete: Result<(), Unavailable>,
    /// A bound ended it: there is more in the range.
    pub more: bool,
}

/// Who published, and what it wants to hear of it.
#[derive(Debug)]
pub struct Publisher {
    pub shard: ShardId,
    pub token: Token,
    /// Whether the publisher, if subscribed, receives its own publication.
    pub echo: bool,
    /// `None`, or without an id: it is told of a refusal only.
    pub receipt: Option<Box<Receipt>>,
}

/// What is seldom said of a publication: what an acknowledgement repeats, as raw JSON of the client, and that
/// it is not for everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub request_id: Option<Box<str>>,
    pub message_id: Option<Box<str>>,
    /// Of a message to a user: the channel that the client named.
    pub channel: Option<Box<str>>,
    /// What a refusal is told in.
    pub family: Family,
    /// Which of the subscribers it is for, see [`Filter`]; `None`: all of them.
    pub filter: Option<Arc<Filter>>,
}

impl Receipt {
    /// Of a publication for all subscribers of the channel that it names, with what its client said of it.
    pub fn new(family: Family, id: Option<RequestId<'_>>, message_id: Option<&str>) -> Self {
        Self {
            request_id: id.map(|id| id.as_json().into()),
            message_id: message_id.map(Into::into),
            channel: None,
            family,
            filter: None,
        }
    }
}

/// For people: why tags are refused, and filters over them.
pub const NO_TAGS: &str = "the channel's namespace has no tags: its option `tags` is off";

/// For people: why a publication for some of the subscribers is refused on a topic with a history.
pub const FILTERED_HISTORY: &str = "`filter`: the channel has a history, which is for everybody";

/// What the home of a topic did with a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishOutcome {
    /// It has its place in the topic's order: with a history, this offset.
    Accepted { offset: Option<u64> },
    /// A shard with subscribers cannot take more; nobody received it.
    BacklogFull,
    /// The home's topic table, of this size, is full; nobody received it.
    TableFull { limit: usize },
    /// The durable log has not kept it; nobody received it.
    NotStored,
    /// It is a room, and the publisher is not in it, or is muted.
    Barred,
}

impl PublishOutcome {
    /// Of a publication without an offset.
    pub const ACCEPTED: Self = Self::Accepted { offset: None };

    pub fn is_accepted(self) -> bool {
        matches!(self, Self::Accepted { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_small_as_a_delivery() {
        // Each one is moved from the broker to the outbox, into a batch and out of it.
        assert_eq!(size_of::<ShardMessage>(), 80);
    }
}
