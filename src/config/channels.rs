//! What channels promise, by their namespace.

use std::time::Duration;

use super::UserRule;
use crate::schema::SchemaSource;

/// `[channels]` and `[namespaces.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelOptions {
    /// What delivery promises. Default `live`.
    pub level: Level,
    /// What happens to publications for a reader over its `send_queue_size`; at level `live` only.
    /// Default `disconnect`.
    pub slow_consumer: SlowConsumer,
    /// Publications kept of each channel. Default 1,000.
    pub history_size: usize,
    /// Bytes kept of each channel, 128 more for each publication, at level `durable` as they are on
    /// disk; the newest one is kept whatever it takes. Default 1 MiB.
    pub history_bytes: usize,
    /// How long a publication is kept, and a channel that nobody uses with its epoch. Default 5 min.
    pub history_ttl: Duration,
    /// A new subscriber first gets the latest publication. Default off.
    pub last: bool,
    /// How long a `messageId` is remembered. Default 5 min.
    pub idempotency_window: Duration,
    /// Message ids remembered of each channel; 0: none. Default 1,000.
    pub idempotency_size: usize,
    /// Publications may have tags, and subscriptions filters over them. Default off.
    pub tags: bool,
    /// Users may be sent messages under these channels. Default off; `offline_queue` implies it.
    pub direct: bool,
    /// What is sent to a user goes to the durable log first, and waits there until a connection of the
    /// user has received it. Default off.
    pub offline_queue: bool,
    /// Messages that wait for one user. Default 1,000.
    pub offline_queue_size: usize,
    /// Bytes that wait for one user, 128 more for each message; the newest one always does. Default 1 MiB.
    pub offline_queue_bytes: usize,
    /// How long a message waits. Default 24 h.
    pub offline_queue_ttl: Duration,
    /// How long a delivery waits for its acknowledgement until it is sent again; at level `acked` only.
    /// Default 5 s.
    pub ack_timeout: Duration,
    /// How often it is sent again at most. Default 3.
    pub ack_retries: u32,
    /// It is known who is in these channels, and clients in them may ask. Default off; `join_leave` implies it.
    pub presence: bool,
    /// Attributes of users that those who may know of them are shown. Default none.
    pub presence_info: Vec<Box<str>>,
    /// Subscribers are told who comes and goes. Default off.
    pub join_leave: bool,
    /// They are told of each channel at most once in this time. Default 100 ms.
    pub join_leave_interval: Duration,
    /// Clients may make rooms of these channels and be in them. Default on.
    pub rooms: bool,
    /// A room exists from the first one who joins it until the last one leaves. Default off.
    pub auto_create: bool,
    /// A room that was made and has been empty for so long gives its place to another one when there are
    /// as many as `limits.max_rooms`. Default 1 h.
    pub room_ttl: Duration,
    /// Users who may do in every room what its owner may. `None` (written empty): nobody, the default.
    pub moderators: Option<UserRule>,
    /// Users who may send messages to groups, to connections, to many users and to everybody. `None` (written
    /// empty): nobody, the default.
    pub senders: Option<UserRule>,
    /// Who is kicked out of a room is disconnected (4003). Default off.
    pub kick_closes: bool,
    /// What the data of clients must obey. `None` (written empty): nothing, the default.
    pub schema: Option<SchemaSource>,
}

impl ChannelOptions {
    /// Whether publications have offsets and are kept.
    pub fn has_history(&self) -> bool {
        match self.level {
            Level::Live => false,
            Level::History | Level::Durable | Level::Acked => true,
        }
    }

    /// Whether publications are on disk before anybody hears of them.
    pub fn is_durable(&self) -> bool {
        match self.level {
            Level::Live | Level::History => false,
            Level::Durable | Level::Acked => true,
        }
    }

    /// Whether each delivery is repeated until its receiver acknowledges it.
    pub fn is_acked(&self) -> bool {
        match self.level {
            Level::Live | Level::History | Level::Durable => false,
            Level::Acked => true,
        }
    }

    /// Whether users may be sent messages under these channels.
    pub fn is_direct(&self) -> bool {
        self.direct || self.offline_queue
    }

    /// Whether it is known who is in these channels.
    pub fn has_presence(&self) -> bool {
        self.presence || self.join_leave
    }

    /// The options of the inboxes of users for what is sent to them under these channels. An inbox is a
    /// topic; one that queues keeps what waits as a durable topic keeps its history.
    pub(super) fn inbox(&self) -> Self {
        Self {
            level: if self.offline_queue { Level::Durable } else { Level::Live },
            slow_consumer: match self.slow_consumer {
                // Messages of several channels stand in one inbox: the last one is not the latest of all.
                SlowConsumer::Conflate => SlowConsumer::DropOldest,
                policy => policy,
            },
            history_size: self.offline_queue_size,
            history_bytes: self.offline_queue_bytes,
            history_ttl: self.offline_queue_ttl,
            last: self.offline_queue,
            presence: false,
            join_leave: false,
            ..self.clone()
        }
    }
}

/// The channels whose name starts with `name:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// 1 to 64 characters of `A-Z a-z 0-9 _ -`.
    pub name: String,
    pub options: ChannelOptions,
}

/// What the delivery of a channel's publications promises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Level {
    /// At most once, to whoever is connected.
    #[default]
    Live,
    /// Everything that is still kept arrives in order, once, by offset, across reconnects.
    History,
    /// The same across restarts: acknowledged and delivered once the durable log has it.
    Durable,
    /// The same, and each delivery is repeated until its receiver acknowledges it.
    Acked,
}

/// Policies for a slow reader of live channels. Control frames and replies are never dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum SlowConsumer {
    /// The oldest publications not yet on their way make room.
    DropOldest,
    /// The new publication is not queued.
    DropNewest,
    /// Only the last publication of each channel is kept.
    Conflate,
    /// The connection is closed with 4002.
    #[default]
    Disconnect,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            level: Level::default(),
            slow_consumer: SlowConsumer::default(),
            history_size: 1000,
            history_bytes: 1 << 20,
            history_ttl: Duration::from_mins(5),
            last: false,
            idempotency_window: Duration::from_mins(5),
            idempotency_size: 1000,
            tags: false,
            direct: false,
            offline_queue: false,
            offline_queue_size: 1000,
            offline_queue_bytes: 1 << 20,
            offline_queue_ttl: Duration::from_hours(24),
            ack_timeout: Duration::from_secs(5),
            ack_retries: 3,
            presence: false,
            presence_info: Vec::new(),
            join_leave: false,
            join_leave_interval: Duration::from_millis(100),
            rooms: true,
            auto_create: false,
            room_ttl: Duration::from_hours(1),
            moderators: None,
            senders: None,
            kick_closes: false,
            schema: None,
        }
    }
}
