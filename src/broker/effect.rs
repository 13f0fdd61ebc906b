//! What goes into a broker and what comes out of it, as values.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::filter::Filter;
use crate::ids::{ShardId, Token, TopicName};
use crate::io::{FrameId, FramePool};
use crate::message::{
    Begin, Page, PublishOutcome, Receipt, RoomOutcome, SessionMessage, SessionSubscription,
    ShardMessage,
};
use crate::proto::{Data, ErrorCode, Presence, PresenceNotice, Removal, Standing, encoder};

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
        standing: Standing,
    },
    /// Tell the client that the subscriptions of the session it restores are there. None of them has
    /// got anything yet.
    Resumed {
        token: Token,
        subscriptions: Vec<Resumed>,
    },
    /// It is not the broker's.
    Session(Box<SessionMessage>),
    /// Tell the publisher, if it wants to hear of it.
    Published {
        token: Token,
        topic: TopicName,
        receipt: Option<Box<Receipt>>,
        outcome: PublishOutcome,
    },
    /// [`Broker::feed`](super::Broker::feed) may have something for this connection.
    Ready {
        token: Token,
    },
    /// Queue these frames, behind a notice of the gap before them if there is one.
    Replay {
        token: Token,
        topic: TopicName,
        /// First and last offset that are not kept any more.
        gap: Option<(u64, u64)>,
        frames: Vec<Bytes>,
    },
    /// The connection was handed, or sees queued by the effect before this, what an inbox has up to this
    /// offset: [`Broker::received`](super::Broker::received) wants to hear when it has received that.
    Handed {
        token: Token,
        topic: TopicName,
        upto: u64,
    },
    /// What the connection was to get cannot be read from the log: it has to come back for it.
    Unreadable {
        token: Token,
    },
    /// At home: tell the subscribers here and on those shards.
    News {
        topic: TopicName,
        interested: Vec<ShardId>,
        notice: PresenceNotice,
    },
    /// Queue this frame for every subscriber here.
    Notice {
        topic: TopicName,
        frame: Bytes,
    },
    /// Answer a query for who is there.
    Presence {
        token: Token,
        topic: TopicName,
        presence: Presence,
        request_id: Option<Box<str>>,
    },
    /// Tell a client what became of its request of a room.
    Room {
        token: Token,
        topic: TopicName,
        outcome: RoomOutcome,
        request_id: Option<Box<str>>,
        /// Nobody asked: a session that was in the room has come back.
        returns: bool,
    },
    /// A connection was in a room and is not any more: it is to be unsubscribed, and told.
    Removed {
        token: Token,
        topic: TopicName,
        removal: Removal,
    },
    /// Answer a query.
    Page {
        token: Token,
        topic: TopicName,
        page: Box<Page>,
        request_id: Option<Box<str>>,
    },
}

/// What became of a subscription of a restored session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// As the session had it.
    pub subscription: SessionSubscription,
    /// Where it stands, or why it is refused.
    pub outcome: Result<Standing, ErrorCode>,
}

/// Where the shard takes publications for its connections. Slots are those of the broker's members.
pub trait Deliver {
    /// Publications of a topic without a history, in order. `are_json`: all of their frames are of JSON; else
    /// some may be of protobuf.
    fn live(&mut self, frames: &mut FramePool, slot: u32, ids: &[FrameId], are_json: bool);

    /// Publications of a topic with one, in frames of JSON. `false`: none was taken, the connection is too
    /// slow for now; it goes on as a cursor.
    fn retained(&mut self, frames: &mut FramePool, slot: u32, ids: &[FrameId]) -> bool;
}

/// What [`Broker::feed`](super::Broker::feed) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fed {
    /// The connection has no cursor.
    Nothing,
    /// An answer is due; [`Effect::Ready`] follows it.
    Waiting,
    /// So many slices are on their way to this shard that one has to come first, whoever's it is.
    Stalled,
    /// [`Effect::Replay`] came of it, and there may be more.
    Something,
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

/// A client's request to subscribe, as the broker needs it. The name has passed the rules for names.
#[derive(Debug)]
pub struct SubscribeRequest<'a> {
    pub token: Token,
    pub topic: &'a str,
    pub begin: Begin,
    /// Raw JSON of the client, for the confirmation.
    pub request_id: Option<Box<str>>,
    pub select: Select,
}

/// Which publications of a topic a subscription is for from its confirmation on, by their tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// Those that it was for before; of a new one, all.
    AsBefore,
    All,
    Matching(Arc<Filter>),
}

impl From<Option<Arc<Filter>>> for Select {
    fn from(filter: Option<Arc<Filter>>) -> Self {
        filter.map_or(Self::All, Self::Matching)
    }
}

/// What is published.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// As histories and the log keep it: JSON, tags before JSON, or a message in its place, see
    /// [`encoder::publication_frame`].
    Kept(&'a [u8]),
    /// As a client sent it.
    Sent(Data<'a>),
}

impl<'a> Body<'a> {
    pub(super) fn kept(self) -> Cow<'a, [u8]> {
        match self {
            Self::Kept(body) => Cow::Borrowed(body),
            Self::Sent(data) => match data.as_json() {
                Cow::Borrowed(json) => Cow::Borrowed(json.as_bytes()),
                Cow::Owned(json) => Cow::Owned(json.into_bytes()),
            },
        }
    }

    /// Of a publication that nobody keeps: in the encoding that it came in.
    #[inline]
    pub(super) fn live_frame(self, topic: &str) -> Bytes {
        match self {
            Self::Kept(body) => encoder::publication_frame(topic, body),
            Self::Sent(data) => data.live_frame(topic),
        }
    }
}

/// A client's request to publish, as the broker needs it.
pub struct PublishRequest<'a> {
    pub token: Token,
    pub topic: &'a str,
    pub body: Body<'a>,
    /// Whether the publisher, if subscribed, receives it too.
    pub echo: bool,
    pub receipt: Option<Box<Receipt>>,
}
