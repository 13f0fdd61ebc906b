//! What the thread of the server API and the shards tell each other.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::{Page, PublishOutcome, RoomOutcome};
use crate::filter::Filter;
use crate::ids::{ConnectionId, GroupName, Position, Token, TopicName, UserName};
use crate::proto::{Audience, CloseCode, HistoryQuery, Presence, PresenceQuery, RoomAction};

/// Names a request to the thread that asked; the answer has it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdminTicket(u64);

impl AdminTicket {
    /// What the slot of a [`Token`] has where no connection is meant: slots are smaller.
    const OUTSIDE: u32 = 1 << 31;

    /// 63 bits of it: enough for a million requests a second for 290,000 years.
    pub fn new(number: u64) -> Self {
        Self(number & (u64::MAX >> 1))
    }

    /// A token for whoever publishes or asks without being a connection.
    pub fn token(self) -> Token {
        Token { slot: Self::OUTSIDE | (self.0 >> 32) as u32, generation: self.0 as u32 }
    }

    /// The request behind a token; `None`: it is that of a connection.
    pub fn of(token: Token) -> Option<Self> {
        let high = u64::from(token.slot & !Self::OUTSIDE);
        (token.slot & Self::OUTSIDE != 0).then(|| Self(high << 32 | u64::from(token.generation)))
    }
}

/// A request of the server API to one shard.
#[derive(Debug)]
pub struct AdminRequest {
    pub ticket: AdminTicket,
    pub call: AdminCall,
}

/// What is asked. Each is a bounded piece of work.
#[derive(Debug)]
pub enum AdminCall {
    /// To the topic's home. `data` is one JSON value, with tags before it perhaps; `message_id` a JSON string.
    Publish {
        topic: TopicName,
        data: Bytes,
        message_id: Option<Box<str>>,
        filter: Option<Arc<Filter>>,
    },
    /// To the topic's home.
    History {
        topic: TopicName,
        query: HistoryQuery,
    },
    /// To the topic's home.
    Presence {
        topic: TopicName,
        query: PresenceQuery,
    },
    /// To the topic's home. Nobody joins or leaves like this.
    Room {
        topic: TopicName,
        action: RoomAction,
    },
    /// Rooms at home here behind that name, in their order.
    Rooms {
        after: Option<TopicName>,
        limit: usize,
    },
    /// Those at home here, from this place in the table on.
    Topics {
        from: u32,
    },
    /// How many subscribers of these are here.
    Subscribers {
        topics: Vec<TopicName>,
    },
    /// From this slot on.
    Connections {
        from: u32,
    },
    /// This and the following to the connection's shard.
    Connection(ConnectionId),
    Subscribe {
        connection: ConnectionId,
        topic: TopicName,
        filter: Option<Arc<Filter>>,
    },
    Unsubscribe {
        connection: ConnectionId,
        topic: TopicName,
    },
    Disconnect {
        connection: ConnectionId,
        code: CloseCode,
        reason: Box<str>,
    },
    /// To the home of a user's inbox: what is sent to the user under this channel.
    SendToUser {
        inbox: TopicName,
        channel: TopicName,
        data: Bytes,
    },
    /// To the connection's shard: a frame, of JSON.
    SendToConnection {
        connection: ConnectionId,
        frame: Bytes,
        filter: Option<Arc<Filter>>,
    },
    /// This and the following to every shard. A frame, of JSON, for whom of the audience is there.
    SendToMany {
        frame: Bytes,
        audience: Arc<Audience>,
    },
    /// All connections of the user there.
    SubscribeUser {
        user: UserName,
        topic: TopicName,
        filter: Option<Arc<Filter>>,
    },
    UnsubscribeUser {
        user: UserName,
        topic: TopicName,
    },
    DisconnectUser {
        user: UserName,
        code: CloseCode,
        reason: Box<str>,
    },
    Group(Arc<GroupChange>),
    Stats,
}

/// Users who came into a group, or went out of it, and who may have been there before, or not.
#[derive(Debug)]
pub struct GroupChange {
    pub group: GroupName,
    pub joined: Vec<UserName>,
    pub left: Vec<UserName>,
}

impl AdminRequest {
    /// Bytes that wait with it, beyond a small message.
    pub fn weight(&self) -> usize {
        match &self.call {
            AdminCall::Publish { data, filter, .. } => data.len() + filter_bytes(filter.as_ref()),
            AdminCall::SendToUser { data, .. } => data.len(),
            AdminCall::Subscribe { filter, .. } | AdminCall::SubscribeUser { filter, .. } => {
                filter_bytes(filter.as_ref())
            }
            AdminCall::SendToConnection { frame, filter, .. } => {
                frame.len() + filter_bytes(filter.as_ref())
            }
            AdminCall::SendToMany { frame, audience } => frame.len() + audience.weight(),
            AdminCall::Subscribers { topics } => topics.len() * size_of::<TopicName>(),
            AdminCall::History { .. }
            | AdminCall::Presence { .. }
            | AdminCall::Room { .. }
            | AdminCall::Rooms { .. }
            | AdminCall::Topics { .. }
            | AdminCall::Connections { .. }
            | AdminCall::Connection(_)
            | AdminCall::Unsubscribe { .. }
            | AdminCall::Disconnect { .. }
            | AdminCall::UnsubscribeUser { .. }
            | AdminCall::DisconnectUser { .. }
            // The names are those of the server API.
            | AdminCall::Group(_)
            | AdminCall::Stats => 0,
        }
    }
}

fn filter_bytes(filter: Option<&Arc<Filter>>) -> usize {
    filter.map_or(0, |filter| filter.weight())
}

/// What a shard answers.
#[derive(Debug)]
pub enum AdminAnswer {
    Published(PublishOutcome),
    Page(Box<Page>),
    Presence(Box<Presence>),
    Room(RoomOutcome),
    Rooms(Vec<TopicName>),
    /// With their places. `next`: where to go on; `None`: these were the last.
    Topics {
        topics: Vec<(u32, TopicName)>,
        next: Option<u32>,
    },
    /// In the order of the question.
    Subscribers(Vec<u32>),
    Connections {
        connections: Vec<ConnectionInfo>,
        next: Option<u32>,
    },
    Connection(Box<ConnectionInfo>),
    /// The subscription is confirmed, and on a topic with history begins behind this.
    Subscribed(Option<Position>),
    Done,
    /// How many connections it was done for. `refusal`: why not for another one.
    Reached {
        connections: u64,
        refusal: Option<AdminRefusal>,
    },
    Stats(ShardStats),
    Refused(AdminRefusal),
}

/// Why a shard does not do what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminRefusal {
    /// There is none of that name, or no WebSocket that is open.
    NoConnection,
    NotSubscribed,
    /// Nothing may come to the connection before it has authenticated.
    NotAuthenticated,
    /// The connection has as many subscriptions as it may.
    TooManySubscriptions {
        limit: u32,
    },
    /// The table of topics is full.
    TableFull {
        limit: usize,
    },
    BacklogFull,
    NoHistory,
    NoPresence,
    /// Channels of the namespace are no rooms.
    NoRooms,
    ShuttingDown,
}

/// What is known of one connection.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    pub id: ConnectionId,
    pub peer: SocketAddr,
    /// A word for people and programs: `open`, `echo`, `closing`.
    pub state: &'static str,
    /// Unix times, in milliseconds; exact to a sixteenth of a second.
    pub state_since_ms: u64,
    pub last_activity_ms: u64,
    pub messages_received: u64,
    pub bytes_received: u64,
    /// Frames and bytes that the socket has taken.
    pub messages_sent: u64,
    pub bytes_sent: u64,
    /// Frames and bytes that wait for the socket.
    pub queued_messages: usize,
    pub queued_bytes: usize,
    /// Milliseconds from the last ping that was answered to its pong.
    pub rtt: Option<u16>,
    pub user: Option<UserName>,
    /// The socket had no room when it was last offered something.
    pub is_blocked: bool,
    /// Topics it is subscribed to, those that wait for their confirmation included.
    pub subscriptions: usize,
    /// Their names, where one connection was asked for, and [`ConnectionInfo::TOPICS_MAX`] of them
    /// at most.
    pub topics: Vec<TopicName>,
}

impl ConnectionInfo {
    pub const TOPICS_MAX: usize = 1000;
}

/// What is known of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardStats {
    pub connections: usize,
    /// In its table: with a subscriber here, or at home here with one elsewhere or a history.
    pub topics: usize,
    /// Frames that wait for a reader or their fan-out.
    pub frames: usize,
    /// Bytes of publications that wait for their fan-out.
    pub fanout_bytes: usize,
    /// Bytes of histories at home here.
    pub history_bytes: usize,
    /// Bytes that wait for the durable log.
    pub log_bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_and_its_token_are_one_and_no_connection_has_such_a_token() {
        for number in [0, 1, u64::from(u32::MAX), 1 << 32, u64::MAX >> 1] {
            let ticket = AdminTicket::new(number);
            assert_eq!(AdminTicket::of(ticket.token()), Some(ticket));
        }
        assert_eq!(AdminTicket::new(1 << 63), AdminTicket::new(0));
        let token = Token { slot: (1 << 31) - 1, generation: u32::MAX };
        assert_eq!(AdminTicket::of(token), None);
    }
}
