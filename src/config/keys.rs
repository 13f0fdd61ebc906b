//! Every key of the configuration, said once: its name, its flag, its help, and the field it fills.
//!
//! Reading the file, the environment and the flags, `stentor config`, the suggestions for wrong
//! keys and the help texts all go by this list.

use super::Config;
use super::field::Field;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The sections of the file, in the order they are printed.
pub const SECTIONS: [&str; 13] = [
    "server",
    "limits",
    "heartbeat",
    "auth",
    "sessions",
    "channels",
    NAMESPACES,
    ROUTES,
    "webhooks",
    "store",
    "admin",
    "diagnostics",
    "log",
];

/// The section of sections: `[namespaces.chat]` has the keys of `[channels]`.
pub const NAMESPACES: &str = "namespaces";

/// The section whose keys are the types of messages, and `default`.
pub const ROUTES: &str = "routes";

/// What the name of every environment variable of ours starts with.
pub const ENVIRONMENT_PREFIX: &str = "STENTOR_";

pub struct Key {
    /// `section.name`
    pub path: &'static str,
    /// The long flag without its dashes. The other keys are reached with `--set`.
    pub flag: Option<&'static str>,
    /// One line for people, without a full stop.
    pub help: &'static str,
    pub field: Field,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// What a slot number can tell apart.
const CONNECTIONS_MAX: u64 = u32::MAX as u64;
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);
const RETENTION: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24 * 365);
const RATE: RangeInclusive<u64> = 0..=1_000_000;
const BACKLOG: RangeInclusive<u64> = MIB..=1024 * GIB;

use Field::{
    Address, Choice, Count, Directory, File, OptionalAddress, Path, Schema, Secret, Size, Switch,
    Sync, Time,
};

/// In the order they are printed; the keys of one section stand together.
pub static KEYS: [Key; 87] = [
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
    Key {
        path: "channels.level",
        flag: Some("level"),
        help: "What delivery promises",
        field: Choice(|c| &mut c.channels.level),
    },
    Key {
        path: "channels.slow_consumer",
        flag: Some("slow-consumer"),
        help: "For slow readers",
        field: Choice(|c| &mut c.channels.slow_consumer),
    },
    Key {
        path: "channels.history_size",
        flag: None,
        help: "Publications kept of each channel, at level history",
        field: Count(|c| &mut c.channels.history_size, 1..=10_000_000),
    },
    Key {
        path: "channels.history_bytes",
        flag: None,
        help: "Bytes kept of each channel; the newest publication always is",
        field: Size(|c| &mut c.channels.history_bytes, 1..=64 * GIB),
    },
    Key {
        path: "channels.history_ttl",
        flag: None,
        help: "How long a publication is kept, and a channel that nobody uses",
        field: Time(|c| &mut c.channels.history_ttl, RETENTION),
    },
    Key {
        path: "channels.last",
        flag: None,
        help: "A new subscriber first gets the latest publication, at level history",
        field: Switch(|c| &mut c.channels.last),
    },
    Key {
        path: "channels.idempotency_window",
        flag: None,
        help: "How long a messageId is remembered, at level history",
        field: Time(|c| &mut c.channels.idempotency_window, RETENTION),
    },
    Key {
        path: "channels.idempotency_size",
        flag: None,
        help: "Message ids remembered of each channel; 0: none",
        field: Count(|c| &mut c.channels.idempotency_size, 0..=10_000_000),
    },
    Key {
        path: "channels.direct",
        flag: None,
        help: "Users may be sent messages under these channels",
        field: Switch(|c| &mut c.channels.direct),
    },
    Key {
        path: "channels.offline_queue",
        flag: None,
        help: "What is sent to a user waits on disk until it was received; implies direct",
        field: Switch(|c| &mut c.channels.offline_queue),
    },
    Key {
        path: "channels.offline_queue_size",
        flag: None,
        help: "Messages that wait for one user; over that the oldest go",
        field: Count(|c| &mut c.channels.offline_queue_size, 1..=10_000_000),
    },
    Key {
        path: "channels.offline_queue_bytes",
        flag: None,
        help: "Bytes that wait for one user; the newest message always does",
        field: Size(|c| &mut c.channels.offline_queue_bytes, 1..=64 * GIB),
    },
    Key {
        path: "channels.offline_queue_ttl",
        flag: None,
        help: "How long a message waits for its user",
        field: Time(|c| &mut c.channels.offline_queue_ttl, RETENTION),
    },
    Key {
        path: "channels.ack_timeout",
        flag: None,
        help: "How long a delivery waits for its ack before it is sent again, at level acked",
        field: Time(|c| &mut c.channels.ack_timeout, TIMEOUT),
    },
    Key {
        path: "channels.ack_retries",
        flag: None,
        help: "How often a delivery without an ack is sent again, at level acked",
        field: Count(|c| &mut c.channels.ack_retries, 0..=1000),
    },
    Key {
        path: "channels.presence",
        flag: None,
        help: "Who is in a channel is known, and clients in it may ask",
        field: Switch(|c| &mut c.channels.presence),
    },
    Key {
        path: "channels.join_leave",
        flag: None,
        help: "Subscribers are told who comes and goes; implies presence",
        field: Switch(|c| &mut c.channels.join_leave),
    },
    Key {
        path: "channels.join_leave_interval",
        flag: None,
        help: "Subscribers are told at most once in this time",
        field: Time(|c| &mut c.channels.join_leave_interval, TIMEOUT),
    },
    Key {
        path: "channels.rooms",
        flag: None,
        help: "Clients may make rooms of these channels and be in them",
        field: Switch(|c| &mut c.channels.rooms),
    },
    Key {
        path: "channels.auto_create",
        flag: None,
        help: "A room exists from the first one who joins it until the last one leaves",
        field: Switch(|c| &mut c.channels.auto_create),
    },
    Key {
        path: "channels.room_ttl",
        flag: None,
        help: "A room that has been empty for so long gives its place to a new one if there must be one",
        field: Time(|c| &mut c.channels.room_ttl, RETENTION),
    },
    Key {
        path: "channels.kick_closes",
        flag: None,
        help: "Who is kicked out of a room is disconnected with 4003",
        field: Switch(|c| &mut c.channels.kick_closes),
    },
    Key {
        path: "channels.schema",
        flag: None,
        help: "What data of clients must obey: a JSON Schema file, or envelope; empty: nothing",
        field: Schema(|c| &mut c.channels.schema),
    },
    Key {
        path: "webhooks.timeout",
        flag: None,
        help: "From a request to a webhook to its whole response",
        field: Time(|c| &mut c.webhooks.timeout, TIMEOUT),
    },
    Key {
        path: "webhooks.retries",
        flag: None,
        help: "How often a request is sent again that failed or was answered with 429 or 5xx",
        field: Count(|c| &mut c.webhooks.retries, 0..=100),
    },
    Key {
        path: "webhooks.queue_size",
        flag: None,
        help: "Messages waiting for one target of a route",
        field: Count(|c| &mut c.webhooks.queue_size, 1..=10_000_000),
    },
    Key {
        path: "webhooks.batch_size",
        flag: None,
        help: "Messages in one request to a webhook",
        field: Count(|c| &mut c.webhooks.batch_size, 1..=1000),
    },
    Key {
        path: "webhooks.batch_timeout",
        flag: None,
        help: "How long a message waits for others to share its request; 0: not at all",
        field: Time(|c| &mut c.webhooks.batch_timeout, Duration::ZERO..=Duration::from_secs(10)),
    },
    Key {
        path: "webhooks.secret",
        flag: None,
        help: "What requests to webhooks are signed with; it is not printed",
        field: Secret(|c| &mut c.webhooks.secret),
    },
    Key {
        path: "store.directory",
        flag: Some("store"),
        help: "Folder of the durable log, made if there is none; empty: nothing is durable",
        field: Directory(|c| &mut c.store.directory),
    },
    Key {
        path: "store.sync",
        flag: Some("store-sync"),
        help: "When publications are on disk and acknowledged (always: after a sync each batch; \
               interval 5ms: after a sync each 5 ms; os: after the write, a power loss may take them)",
        field: Sync(|c| &mut c.store.sync),
    },
    Key {
        path: "store.max_size",
        flag: None,
        help: "Bytes of the durable log, over which the oldest publications go; 0: no limit",
        field: Size(|c| &mut c.store.max_size, 0..=1024 * 1024 * GIB),
    },
    Key {
        path: "store.segment_size",
        flag: None,
        help: "Bytes of one file of the durable log; room comes back a file at a time",
        field: Size(|c| &mut c.store.segment_size, MIB..=GIB),
    },
    Key {
        path: "store.backlog",
        flag: None,
        help: "Bytes waiting for the durable log, for each shard",
        field: Size(|c| &mut c.store.backlog, BACKLOG),
    },
    Key {
        path: "store.cache_size",
        flag: None,
        help: "Bytes of the newest publications of each durable channel in memory; the log has the rest",
        field: Size(|c| &mut c.store.cache_size, 1..=GIB),
    },
    Key {
        path: "store.read_memory",
        flag: None,
        help: "Bytes read from the durable log for readers, for each shard",
        field: Size(|c| &mut c.store.read_memory, MIB..=GIB),
    },
    Key {
        path: "store.max_channels",
        flag: None,
        help: "Channels in the durable log",
        field: Count(|c| &mut c.store.max_channels, 1..=CONNECTIONS_MAX),
    },
    Key {
        path: "store.forget_after",
        flag: None,
        help: "Time without publications after which a channel may get a new epoch",
        field: Time(
            |c| &mut c.store.forget_after,
            Duration::from_hours(1)..=Duration::from_hours(24 * 3650),
        ),
    },
    Key {
        path: "admin.listen",
        flag: Some("admin"),
        help: "Where the server API, /metrics and /health listen; empty: nowhere",
        field: OptionalAddress(|c| &mut c.admin.listen),
    },
    Key {
        path: "admin.key",
        flag: None,
        help: "What requests to the server API and for /metrics must present; it is not printed",
        field: Secret(|c| &mut c.admin.key),
    },
    Key {
        path: "admin.max_connections",
        flag: None,
        help: "Open connections to the server API; more wait to be accepted",
        field: Count(|c| &mut c.admin.max_connections, 1..=65_536),
    },
    Key {
        path: "admin.max_body_size",
        flag: None,
        help: "Bytes of one request body of the server API",
        field: Size(|c| &mut c.admin.max_body_size, KIB..=GIB),
    },
    Key {
        path: "admin.timeout",
        flag: None,
        help: "For one request of the server API: to send it whole, and again to answer it",
        field: Time(|c| &mut c.admin.timeout, TIMEOUT),
    },
    Key {
        path: "diagnostics.echo",
        flag: Some("echo"),
        help: "Path that returns every message unchanged; empty: none",
        field: Path(|c| &mut c.diagnostics.echo),
    },
    Key {
        path: "log.level",
        flag: Some("log-level"),
        help: "Least important lines logged",
        field: Choice(|c| &mut c.log.level),
    },
    Key {
        path: "log.format",
        flag: Some("log-format"),
        help: "Log lines (auto: text on a terminal, else JSON)",
        field: Choice(|c| &mut c.log.format),
    },
];

/// The key with this path.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

impl Key {
    pub fn section(&self) -> &'static str {
        self.split().0
    }

    pub fn name(&self) -> &'static str {
        self.split().1
    }

    /// `STENTOR_SECTION_KEY`
    pub fn environment_name(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.path.replace('.', "_").to_ascii_uppercase())
    }

    /// Puts what was written for this key into its field. The error says what is wrong with it and
    /// what was expected.
    pub fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        self.field
            .set(config, text)
            .map_err(|reason| format!("{reason}; expected {}", self.field.expected()))
    }

    /// The value as it is written in the file.
    pub fn show(&self, config: &Config) -> String {
        self.field.show(&mut config.clone())
    }

    /// The help, with the names where there is a choice.
    pub fn help_with_choices(&self) -> String {
        match self.field.choices() {
            [] => self.help.to_string(),
            names => format!("{}: {}", self.help, names.join(", ")),
        }
    }

    fn split(&self) -> (&'static str, &'static str) {
        self.path.split_once('.').expect("every path in KEYS has a section, see the tests")
    }
}
