//! What goes into a broker and what comes out of it, as values.

use crate::ids::{ShardId, Token, TopicName};
use crate::message::{PublishOutcome, Receipt, ShardMessage};

/// What the shard has to do for its broker, in this order.
#[derive(Debug)]
pub enum Effect {
    Send {
        to: ShardId,
        message: ShardMessage,
    },
    /// Tell the client that it is subscribed.
    Subscribed {
        token: Token,
        topic: TopicName,
        request_id: Option<Box<str>>,
    },
    /// Tell the publisher, if it wants to hear of it.
    Published {
        token: Token,
        topic: TopicName,
        receipt: Option<Box<Receipt>>,
        outcome: PublishOutcome,
    },
}

/// Why a subscription is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeError {
    /// The connection has as many as it may.
    TooMany { limit: u32 },
    /// The home of the topic can take no more messages at the moment.
    Congested,
    /// The shard's topic table is full.
    TableFull { limit: usize },
}

/// A client's request to publish, as the broker needs it.
pub struct PublishRequest<'a> {
    pub token: Token,
    pub topic: &'a str,
    /// Whether the publisher, if subscribed, receives it too.
    pub echo: bool,
    pub receipt: Option<Box<Receipt>>,
}
