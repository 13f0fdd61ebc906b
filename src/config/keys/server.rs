//! The keys of the server itself: where it listens, what one peer may take, who clients are, what is kept of them.

use super::{BACKLOG, CONNECTIONS_MAX, GIB, KIB, Key, MIB, RATE, RETENTION, TIMEOUT};
use crate::config::field::Field::{Address, Choice, Count, File, Size, Switch, Time};
use std::time::Duration;

/// In the order they are printed.
pub static KEYS: [Key; 42] = [
    Key {
        path: "server.listen",
        flag: Some("listen"),
        help: "Where to listen; :9000 is port 9000 of 127.0.0.1",
        field: Address(|c| &mut c.server.listen),
    },
    Key {
        path: "server.shards",
        flag: Some("shards"),
        help: "Event loops, each a thread; 0: one for each core",
        field: Count(|c| &mut c.server.shards, 0..=1024),
    },
    Key {
        path: "server.pin",
        flag: Some("pin"),
        help: "Bind each shard's thread to a core",
        field: Switch(|c| &mut c.server.pin),
    },
    Key {
        path: "server.backend",
        flag: Some("backend"),
        help: "Way to the kernel; auto: uring where the kernel has it, else epoll",
        field: Choice(|c| &mut c.server.backend),
    },
    Key {
        path: "server.direct_descriptors",
        flag: Some("direct-descriptors"),
        help: "With uring: connections need no descriptors of the process",
        field: Switch(|c| &mut c.server.direct_descriptors),
    },
    Key {
        path: "server.unshare_descriptors",
        flag: Some("unshare-descriptors"),
        help: "With epoll: each event loop has the open-file limit to itself",
        field: Switch(|c| &mut c.server.unshare_descriptors),
    },
    Key {
        path: "server.insecure",
        flag: Some("insecure"),
        help: "Allow listening off loopback without encryption",
        field: Switch(|c| &mut c.server.insecure),
    },
    Key {
        path: "server.shutdown_timeout",
        flag: Some("shutdown-timeout"),
        help: "From SIGTERM until open connections are dropped",
        field: Time(|c| &mut c.server.shutdown_timeout, TIMEOUT),
    },
    Key {
        path: "limits.max_connections",
        flag: Some("max-connections"),
        help: "Open connections; 0: what the open-file limit allows",
        field: Count(|c| &mut c.limits.max_connections, 0..=CONNECTIONS_MAX),
    },
    Key {
        path: "limits.max_message_size",
        flag: Some("max-message-size"),
        help: "Bytes of one message, all its fragments together",
        field: Size(|c| &mut c.limits.max_message_size, 1..=GIB),
    },
    Key {
        path: "limits.max_head_size",
        flag: None,
        help: "Size of one HTTP request head",
        field: Size(|c| &mut c.limits.max_head_size, 512..=MIB),
    },
    Key {
        path: "limits.max_head_fields",
        flag: None,
        help: "Header fields of one HTTP request head",
        field: Count(|c| &mut c.limits.max_head_fields, 8..=1024),
    },
    Key {
        path: "limits.handshake_timeout",
        flag: None,
        help: "From accept to the last byte of the HTTP request head",
        field: Time(|c| &mut c.limits.handshake_timeout, TIMEOUT),
    },
    Key {
        path: "limits.close_timeout",
        flag: None,
        help: "From our Close frame to the end of the connection",
        field: Time(|c| &mut c.limits.close_timeout, TIMEOUT),
    },
    Key {
        path: "limits.message_timeout",
        flag: None,
        help: "From the first to the last byte of one message",
        field: Time(|c| &mut c.limits.message_timeout, TIMEOUT),
    },
    Key {
        path: "limits.max_empty_fragments",
        flag: None,
        help: "Continuation frames without payload in one message",
        field: Count(|c| &mut c.limits.max_empty_fragments, 0..=1_000_000),
    },
    Key {
        path: "limits.control_frame_rate",
        flag: None,
        help: "Control frames a second from one connection, averaged over 5 s; 0: no limit",
        field: Count(|c| &mut c.limits.control_frame_rate, 0..=10_000),
    },
    Key {
        path: "limits.max_subscriptions",
        flag: None,
        help: "Subscriptions of one connection",
        field: Count(|c| &mut c.limits.max_subscriptions, 1..=10_000_000),
    },
    Key {
        path: "limits.max_errors",
        flag: None,
        help: "Refused messages in a heartbeat interval before a connection is closed",
        field: Count(|c| &mut c.limits.max_errors, 1..=50_000),
    },
    Key {
        path: "limits.publish_rate",
        flag: None,
        help: "Publications a second from one connection; 0: no limit",
        field: Count(|c| &mut c.limits.publish_rate, RATE),
    },
    Key {
        path: "limits.publish_burst",
        flag: None,
        help: "Publications above publish_rate that may come at once",
        field: Count(|c| &mut c.limits.publish_burst, 1..=1_000_000),
    },
    Key {
        path: "limits.send_queue_size",
        flag: Some("send-queue-size"),
        help: "Bytes queued for one reader before it counts as slow",
        field: Size(|c| &mut c.limits.send_queue_size, KIB..=GIB),
    },
    Key {
        path: "limits.slow_consumer_timeout",
        flag: None,
        help: "Time without a byte accepted before a reader counts as slow",
        field: Time(|c| &mut c.limits.slow_consumer_timeout, TIMEOUT),
    },
    Key {
        path: "limits.max_topics",
        flag: None,
        help: "Channels with a subscriber or a history, for each shard",
        field: Count(|c| &mut c.limits.max_topics, 1..=CONNECTIONS_MAX),
    },
    Key {
        path: "limits.fanout_backlog",
        flag: None,
        help: "Bytes of publications waiting for their fan-out, for each shard",
        field: Size(|c| &mut c.limits.fanout_backlog, BACKLOG),
    },
    Key {
        path: "limits.mesh_backlog",
        flag: None,
        help: "Bytes waiting to go from one shard to another",
        field: Size(|c| &mut c.limits.mesh_backlog, BACKLOG),
    },
    Key {
        path: "limits.history_memory",
        flag: None,
        help: "Bytes of all histories, for each shard; what expires first goes first",
        field: Size(|c| &mut c.limits.history_memory, KIB..=1024 * GIB),
    },
    Key {
        path: "limits.max_unacked",
        flag: None,
        help: "Deliveries to one connection that wait for its ack, at level acked; then it pauses",
        field: Count(|c| &mut c.limits.max_unacked, 1..=1_000_000),
    },
    Key {
        path: "limits.max_rooms",
        flag: None,
        help: "Rooms, per shard",
        field: Count(|c| &mut c.limits.max_rooms, 0..=10_000_000),
    },
    Key {
        path: "limits.max_checked_size",
        flag: None,
        help: "Bytes of data that a schema is asked about; more is refused where there is one",
        field: Size(|c| &mut c.limits.max_checked_size, 1..=MIB),
    },
    Key {
        path: "limits.checked_in_turn",
        flag: None,
        help: "Bytes of data that the event loop checks itself; a thread beside it checks more",
        field: Size(|c| &mut c.limits.checked_in_turn, 0..=MIB),
    },
    Key {
        path: "heartbeat.interval",
        flag: Some("heartbeat"),
        help: "Silence before a ping; twice that closes a connection",
        field: Time(
            |c| &mut c.heartbeat.interval,
            Duration::from_millis(100)..=Duration::from_hours(1),
        ),
    },
    Key {
        path: "auth.keys_file",
        flag: Some("auth-keys"),
        help: "File with a line USER TOKEN for each key; empty: nobody can authenticate",
        field: File(|c| &mut c.auth.keys_file),
    },
    Key {
        path: "auth.required",
        flag: Some("auth-required"),
        help: "Refuse everything but pings before a connection has authenticated",
        field: Switch(|c| &mut c.auth.required),
    },
    Key {
        path: "auth.timeout",
        flag: None,
        help: "With auth.required: from the upgrade to valid credentials",
        field: Time(|c| &mut c.auth.timeout, TIMEOUT),
    },
    Key {
        path: "auth.max_users",
        flag: None,
        help: "Users with a connection, for each shard",
        field: Count(|c| &mut c.auth.max_users, 1..=CONNECTIONS_MAX),
    },
    Key {
        path: "auth.max_connections_per_user",
        flag: None,
        help: "Connections of one user, for each shard",
        field: Count(|c| &mut c.auth.max_connections_per_user, 1..=1_000_000),
    },
    Key {
        path: "sessions.ttl",
        flag: None,
        help: "How long a session outlives its connection",
        field: Time(|c| &mut c.sessions.ttl, RETENTION),
    },
    Key {
        path: "sessions.max_parked",
        flag: None,
        help: "Sessions without a connection, for each shard; 0: none; the oldest go first",
        field: Count(|c| &mut c.sessions.max_parked, 0..=CONNECTIONS_MAX),
    },
    Key {
        path: "sessions.memory",
        flag: None,
        help: "Bytes of them, for each shard; the oldest go first",
        field: Size(|c| &mut c.sessions.memory, KIB..=1024 * GIB),
    },
    Key {
        path: "sessions.durable",
        flag: None,
        help: "Sessions are kept in the durable log too, and survive a restart",
        field: Switch(|c| &mut c.sessions.durable),
    },
    Key {
        path: "sessions.durable_interval",
        flag: None,
        help: "A session with a connection is written at most once in this time",
        field: Time(|c| &mut c.sessions.durable_interval, TIMEOUT),
    },
];
