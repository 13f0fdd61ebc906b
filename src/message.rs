//! Everything that crosses a thread. Values only: nobody shares state through a message.

mod log;

use bytes::Bytes;

pub use log::{
    LogAnswer, LogAppend, LogMessage, LogRecord, LogRefusal, LogSlice, Missing, MissingReason,
    Ticket,
};

use crate::ids::{ShardId, Token, TopicName};

/// What one shard tells another.
#[derive(Debug)]
pub enum ShardMessage {
    /// To a topic's home: `from` has its first subscriber. Answered by [`ShardMessage::Interested`].
    Interest { topic: TopicName, from: ShardId, ask: Ask },
    /// From a topic's home: what comes behind this message in the mailbox is complete from here on.
    Interested { topic: TopicName, ask: Ask },
    /// To a topic's home: `from` has no subscriber any more.
    Disinterest { topic: TopicName, from: ShardId },
    /// To a topic's home: a client of `publisher.shard` published.
    Publish { topic: TopicName, frame: Bytes, publisher: Publisher },
    /// From a topic's home, in the topic's total order.
    Deliver { topic: TopicName, frame: Bytes, except: Option<Token> },
    /// From a topic's home to the publisher's shard.
    Published { topic: TopicName, publisher: Publisher, outcome: PublishOutcome },
    /// From the durable log.
    Log(LogAnswer),
}

impl ShardMessage {
    /// Bytes that wait with this message, for the bound of the mesh. An estimate for the small ones.
    pub fn weight(&self) -> usize {
        const SMALL: usize = 128;
        match self {
            Self::Publish { frame, .. } | Self::Deliver { frame, .. } => SMALL + frame.len(),
            Self::Log(answer) => answer.weight(),
            Self::Interest { .. }
            | Self::Interested { .. }
            | Self::Disinterest { .. }
            | Self::Published { .. } => SMALL,
        }
    }
}

/// Tells apart the questions of one shard about one topic: an answer to a question that was
/// withdrawn since must not confirm the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask(pub u64);

/// Who published, and what it wants to hear of it.
#[derive(Debug)]
pub struct Publisher {
    pub shard: ShardId,
    pub token: Token,
    /// Whether the publisher, if subscribed, receives its own publication.
    pub echo: bool,
    /// `None`: it is told of a refusal only.
    pub receipt: Option<Box<Receipt>>,
}

/// What an acknowledgement repeats, as raw JSON of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub request_id: Option<Box<str>>,
    pub message_id: Option<Box<str>>,
}

/// What the home of a topic did with a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishOutcome {
    /// It has its place in the topic's order.
    Accepted,
    /// A shard with subscribers cannot take more; nobody received it.
    BacklogFull,
}
