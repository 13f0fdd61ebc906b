//! What is counted: every counter with its name, said once.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// What is counted. The names are stable: logs and metrics use them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Counter {
            pub const ALL: &[Counter] = &[$(Counter::$variant,)+];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// For people, without a full stop.
            pub fn help(self) -> &'static str {
                let text = match self {
                    $(Self::$variant => concat!($($doc),+),)+
                };
                text.trim().trim_end_matches('.')
            }
        }
    };
}

counters! {
    /// Connections accepted from the kernel.
    ConnectionsAccepted = "connections_accepted",
    /// Connections whose last event has been seen.
    ConnectionsClosed = "connections_closed",
    /// Connections turned away at the connection limit.
    ConnectionLimit = "conn_limit",
    /// Times that accepting paused because the process or the system had no descriptors left.
    AcceptPaused = "accept_paused",
    /// Upgrades answered with 101.
    Upgrades = "upgrades",
    /// Plain HTTP requests answered with 200.
    HttpRequests = "http_requests",
    /// Bytes received.
    BytesReceived = "bytes_received",
    /// Bytes accepted by sockets.
    BytesSent = "bytes_sent",
    /// Receives that ended because all receive buffers of an io_uring were in use; asked for again.
    ReceiveBuffersEmpty = "receive_buffers_empty",
    /// WebSocket messages received.
    MessagesReceived = "messages_received",
    /// Publications taken from this shard's clients, and from the server API.
    Publications = "publications",
    /// Publications queued for a subscriber.
    Deliveries = "deliveries",
    /// Publications delivered from a history.
    Replayed = "replayed",
    /// Publications written in protobuf as well: once for all subscribers of a shard, and for each reader
    /// of a history.
    Translated = "translated",
    /// Connections that were taken out of a room.
    RoomRemovals = "room_removals",
    /// Notices of who came and went, once for all subscribers.
    PresenceNotices = "presence_notices",
    /// Notices that a connection was too slow for.
    PresenceDropped = "presence_dropped",
    /// Publications that came twice under one message id.
    Duplicates = "duplicates",
    /// Subscribers who cannot have everything from the place they named.
    NotRecovered = "not_recovered",
    /// Publications dropped from a history at its size.
    HistoryTrimmed = "history_trimmed",
    /// Publications and message ids dropped for want of memory for histories.
    HistoryEvicted = "history_evicted",
    /// Message ids dropped before their time because there were too many.
    IdempotencyDropped = "idempotency_dropped",
    /// Publications refused because a shard could not take more.
    BacklogFull = "backlog_full",
    /// Publications dropped by `drop_oldest`.
    DroppedOldest = "dropped_oldest",
    /// Publications dropped by `drop_newest`.
    DroppedNewest = "dropped_newest",
    /// Publications replaced by a newer one of their channel by `conflate`.
    Conflated = "conflated",
    /// Connections closed with 4002.
    SlowConsumer = "slow_consumer",
    /// Subscriptions that read from the history because their connection was slow.
    FellBehind = "fell_behind",
    /// Cursors that found their place trimmed.
    HistoryGaps = "history_gaps",
    /// Deliveries of acked channels that were acknowledged.
    Acked = "acked",
    /// Deliveries sent again for want of an acknowledgement.
    Redelivered = "redelivered",
    /// Deliveries not acknowledged, and not sent again any more.
    AckExpired = "ack_expired",
    /// Times that delivery to a connection paused at `max_unacked`.
    AckPaused = "ack_paused",
    /// Times that receiving from a connection paused because it did not read its replies.
    ReceivePaused = "receive_paused",
    /// Pongs replaced by a newer one before they could leave.
    PongsReplaced = "pongs_replaced",
    /// Heartbeat pings sent.
    HeartbeatsSent = "heartbeats_sent",
    /// Connections closed with 4004.
    NoHeartbeat = "no_heartbeat",
    /// Connections dropped because the peer did not end its side in time.
    CloseTimeout = "close_timeout",
    /// Client messages answered with an error.
    MessagesRejected = "messages_rejected",
    /// Subscriptions refused at the limit of the connection or the topic table.
    SubscriptionLimit = "sub_limit",
    /// Publications refused by the rate limit.
    RateLimited = "rate_limited",
    /// Publications refused because their data broke the schema of their channel, or was too large for it.
    SchemaViolations = "schema_violations",
    /// Checks against a schema that the checker was asked for, and no event loop did.
    CheckedAside = "checked_aside",
    /// Checks that an event loop did because too many waited for the checker.
    CheckQueueFull = "check_queue_full",
    /// Connections closed (1008) after too many refused messages.
    TooManyErrors = "too_many_errors",
    /// Connections closed (1008) for too many control frames.
    ControlFlood = "control_flood",
    /// Connections closed (1008) for empty fragments without end or a message that stays open.
    FragmentAbuse = "fragment_abuse",
    /// Client frames without a mask (1002).
    Unmasked = "unmasked",
    /// Frame lengths that RFC 6455 forbids (1002).
    BadLength = "bad_length",
    /// Messages over `max_message_size` (1009).
    TooBig = "too_big",
    /// Invalid UTF-8 in a text message or close reason (1007).
    Utf8 = "utf8",
    /// Every other breach of RFC 6455 (1002).
    ProtocolError = "protocol_error",
    /// Heads over `max_head_size` or `max_head_fields` (431).
    HeadTooLarge = "head_too_large",
    /// Heads that were not complete in time (408), and connections that did not begin one.
    HandshakeTimeout = "handshake_timeout",
    /// Every other refused request (4xx).
    BadRequest = "bad_request",
    /// Connections that became a user's.
    Authenticated = "authenticated",
    /// Credentials that were wrong, and requests refused for want of them.
    Unauthenticated = "unauthenticated",
    /// Connections closed (1008) because they had not authenticated in time.
    AuthTimeout = "auth_timeout",
    /// Connections refused at the number of users, or of connections of one.
    UserLimit = "user_limit",
    /// Events and chat messages taken from this shard's clients; they are among the publications.
    TypedMessages = "typed_messages",
    /// Messages to users taken from this shard's clients.
    DirectMessages = "direct_messages",
    /// Messages to many connections taken from this shard's clients; they are among the publications.
    Announcements = "announcements",
    /// Connections that were too slow for such a message, and messages of other shards that this one had no
    /// room for.
    AnnouncementsDropped = "announcements_dropped",
    /// Times that a connection proved to have received what waited for its user.
    QueueProofs = "queue_proofs",
    /// Messages dropped that waited for their user.
    QueueDropped = "queue_dropped",
    /// Messages of clients that were handed to a target outside.
    Routed = "routed",
    /// Messages refused because too many waited for their target.
    RouteFull = "route_full",
    /// Messages that a target has taken.
    RouteTaken = "route_taken",
    /// Messages that a target answered with an error of its own.
    RouteRefused = "route_refused",
    /// Messages that a target did not take, however often it was tried.
    RouteFailed = "route_failed",
    /// Times that a batch of messages was sent to a target again.
    RouteRetries = "route_retries",
    /// Messages that waited for a target when the server ended.
    RouteLost = "route_lost",
    /// Requests that the server API has answered, those for metrics and health included.
    AdminRequests = "admin_requests",
    /// Requests that the server API has answered with an error.
    AdminRefused = "admin_refused",
    /// Calls of the server API that a shard has taken.
    AdminCalls = "admin_calls",
    /// Messages of the server API queued for a connection that it names, or for one of all.
    ApiDeliveries = "api_deliveries",
    /// Such messages that a connection was too slow for.
    ApiDropped = "api_dropped",
    /// Connections closed by the server API.
    Kicked = "kicked",
    /// Publications that the durable log has kept, as `store.sync` promises.
    StoreKept = "store_kept",
    /// Batches of the durable log that were synced, or with `store.sync = "os"` written.
    StoreBatches = "store_batches",
    /// Publications that the durable log has refused.
    StoreRefused = "store_refused",
    /// Publications refused because their topic was new and `store.max_channels` was reached.
    StoreTopicLimit = "store_topic_limit",
    /// Writes and syncs of the durable log that failed.
    StoreFailures = "store_failures",
    /// Publications read back from the durable log.
    StoreRead = "store_read",
    /// Reads from the durable log that were refused: the disk failed, or too many waited.
    StoreReadRefused = "store_read_refused",
    /// Connections closed (1011) because what they were to get could not be read from the log.
    LogUnreadable = "log_unreadable",
    /// Publications that the disk has lost, each time one is asked for or to be moved.
    StoreLost = "store_lost",
    /// Publications removed because their topic keeps no more.
    StoreTrimmed = "store_trimmed",
    /// Publications written again so that the room of others came back.
    StoreMoved = "store_moved",
    /// Publications removed at `store.max_size` although their topic would have kept them.
    StoreEvicted = "store_evicted",
    /// Sessions that lost their connection and are kept.
    SessionsParked = "sessions_parked",
    /// Sessions that went on with another connection.
    SessionsRestored = "sessions_restored",
    /// Connections closed with 4005: their session moved.
    SessionsMoved = "sessions_moved",
    /// Sessions to which nobody came back within `sessions.ttl`.
    SessionsExpired = "sessions_expired",
    /// Sessions dropped at `sessions.max_parked` or `sessions.memory`.
    SessionsDropped = "sessions_dropped",
    /// Sessions that their user ended.
    SessionsEnded = "sessions_ended",
    /// Sessions, and ends of sessions, written to the durable log.
    SessionsWritten = "sessions_written",
    /// Times that the durable log did not take a session: it is tried again.
    SessionsUnwritten = "sessions_unwritten",
    /// Sessions that the durable log does not have as they are, because too many wait for it.
    SessionsUnkept = "sessions_unkept",
    /// Sessions read from the durable log at the start.
    SessionsLoaded = "sessions_loaded",
    /// Sessions in the durable log that could not be read at the start.
    SessionsUnreadable = "sessions_unreadable",
    /// Requests to restore a session under a pair of ids that no session has, or to end one that is not there.
    SessionNotFound = "session_not_found",
    /// Log lines held back by the limit per reason.
    LogSuppressed = "log_suppressed",
}

impl Counter {
    /// The counter of that name, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|counter| counter.name() == name)
    }
}
