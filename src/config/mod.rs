//! What the program needs to run, already checked: the valid half of the configuration.
//!
//! `raw` holds what a user wrote (file, environment, flags), `keys` lists every key once, and `load`
//! turns the one into a [`Config`] by the other; nothing below this module ever sees a value that
//! was not checked. Every bound has its unit here.

mod auth_keys;
mod channels;
pub mod field;
mod group_rules;
mod hint;
pub mod keys;
mod load;
mod problem;
pub mod raw;
mod routes;
mod secret;
mod toml_text;
mod type_schemas;
mod user_rule;
pub mod values;

pub use auth_keys::{Keys, StaticGroups, TOKEN_BYTES_MAX};
pub use channels::{ChannelOptions, Level, Namespace, SlowConsumer};
pub use group_rules::GroupRules;
pub use load::{Assignment, Loaded, Sources};
pub use problem::{ConfigError, Origin, Problem};
pub use routes::{DEFAULT_ROUTE, Destination, Route, RouteTable, Routes, Webhooks};
pub use secret::Secret;
pub use type_schemas::TypeSchemas;
pub use user_rule::UserRule;
pub use values::reserved_by;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::INBOX_MARK;
use crate::schema::Schemas;

/// Everything `stentor serve` obeys. [`Config::default`] is what an empty configuration means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    pub server: Server,
    pub limits: Limits,
    pub heartbeat: Heartbeat,
    pub auth: Auth,
    /// Their members are in `auth.keys` already.
    pub groups: GroupRules,
    pub sessions: Sessions,
    /// Options of channels without a namespace, and of namespaces that are not configured.
    pub channels: ChannelOptions,
    /// `[namespaces.NAME]`, in the order of their names.
    pub namespaces: Vec<Namespace>,
    /// What their `schema` stands for and `[schemas]`, compiled when the configuration was loaded. `None`:
    /// there is none.
    pub schemas: Option<Arc<Schemas>>,
    /// Compiled in `schemas` too.
    pub type_schemas: TypeSchemas,
    pub routes: Routes,
    pub webhooks: Webhooks,
    pub store: Store,
    pub admin: Admin,
    pub diagnostics: Diagnostics,
    pub log: Log,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Address of the WebSocket and HTTP port. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// Event loops, 1 to 1024. `None` (written `0`): one for each core this process may use.
    pub shards: Option<u16>,
    /// Binds each shard's thread to a core. Default on.
    pub pin: bool,
    /// Allows `listen` off loopback although nothing authenticates clients. Default off.
    pub insecure: bool,
    /// Time from the first SIGTERM until connections that are still open are dropped. Default 10 s.
    pub shutdown_timeout: Duration,
    /// How connections are spoken to. Default epoll.
    pub backend: BackendChoice,
    /// io_uring keeps connections in its own tables, so that the open-file limit does not bound them.
    /// Default off.
    pub direct_descriptors: bool,
    /// Gives each shard's thread a table of descriptors of its own, and so an open-file limit of its
    /// own. Default off: `/proc/PID/fd` shows the main thread's table alone, so tools that count
    /// descriptors there see none of the connections.
    pub unshare_descriptors: bool,
}

/// `[limits]`: what one peer, or all of them, may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open connections of the whole server. `None` (written `0`): what the open-file limit allows.
    pub max_connections: Option<usize>,
    /// Bytes of one message's payload, all fragments together. Default 64 KiB, at most 1 GiB.
    pub max_message_size: usize,
    /// Bytes of one HTTP head. Default 16 KiB.
    pub max_head_size: usize,
    /// Header fields of one HTTP head. Default 64.
    pub max_head_fields: usize,
    /// From accept to the last byte of the HTTP head, absolute. Default 10 s.
    pub handshake_timeout: Duration,
    /// From our Close frame to the end of the connection. Default 5 s.
    pub close_timeout: Duration,
    /// From the first to the last byte of one message. Default 30 s.
    pub message_timeout: Duration,
    /// Continuation frames without payload in one message. Default 1,024.
    pub max_empty_fragments: u32,
    /// Control frames a second, averaged over 5 s. Default 50; 0: no limit.
    pub control_frame_rate: u32,
    /// Subscriptions of one connection. Default 1,000.
    pub max_subscriptions: u32,
    /// Refused messages within one heartbeat interval before a connection is closed (1008).
    /// Default 100.
    pub max_errors: u32,
    /// Publications a second of one connection. Default 0: no limit.
    pub publish_rate: u32,
    /// Publications above the rate that may come at once. Default 100.
    pub publish_burst: u32,
    /// Bytes not yet accepted by the socket, per connection; each message counts 128 more, for what
    /// keeping it costs. Default 1 MiB.
    pub send_queue_size: usize,
    /// Time without a single byte accepted by a socket that has bytes queued, after which its reader
    /// counts as slow. Default 10 s.
    pub slow_consumer_timeout: Duration,
    /// Topics with a subscriber or a history, per shard. Default 1,000,000.
    pub max_topics: usize,
    /// Bytes of publications waiting for their fan-out, per shard. Default 64 MiB.
    pub fanout_backlog: usize,
    /// Bytes waiting to go from one shard to another. Default 64 MiB.
    pub mesh_backlog: usize,
    /// Bytes of all histories, per shard: publications, each with 128 bytes on top, and remembered
    /// message ids. Over it, what is nearest to its `history_ttl` goes first. Default 256 MiB.
    pub history_memory: usize,
    /// Publications of acked channels that one connection was sent and has not acknowledged; with so many
    /// of them delivery to it pauses. Each takes 40 bytes at most. Default 1,000.
    pub max_unacked: usize,
    /// Rooms, per shard. Default 10,000.
    pub max_rooms: usize,
    /// Bytes of data that a schema is asked about; more is refused where there is one. Default 16 KiB.
    pub max_checked_size: usize,
    /// Bytes of data that a schema is asked about on the event loop; a thread of its own is asked about more,
    /// and meanwhile its connection waits. Default 2 KiB.
    pub checked_in_turn: usize,
}

/// `[heartbeat]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// A connection that was silent for one interval is pinged, after two it is closed (4004): after four
    /// at the latest while its shard has not read all that had come.
    /// Default 25 s.
    pub interval: Duration,
}

/// `[auth]`: who clients are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// A file of keys, see [`Keys::read`]. `None` (written empty): nobody can be authenticated.
    pub keys_file: Option<PathBuf>,
    /// What was in it when the configuration was loaded.
    pub keys: Arc<Keys>,
    /// Whether a connection may do anything before it is authenticated. Default off.
    pub required: bool,
    /// With `required`, time from the upgrade to valid credentials. Default 5 s.
    pub timeout: Duration,
    /// Users with a connection, per shard. Default 1,000,000.
    pub max_users: usize,
    /// Connections of one user, per shard. Default 100.
    pub max_connections_per_user: u32,
}

/// `[sessions]`: what is kept of clients that have no connection, each shard's part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    /// How long a session outlives its connection. Default 1 h.
    pub ttl: Duration,
    /// Sessions without a connection, per shard; the oldest make room. Default 100,000; 0: none is kept.
    pub max_parked: usize,
    /// Bytes of them, per shard; the oldest make room. Default 64 MiB.
    pub memory: usize,
    /// Sessions are kept in the durable log too, and survive the end of the server. Default no.
    pub durable: bool,
    /// A session that has a connection is written at most once in this time. Default 1 s.
    pub durable_interval: Duration,
}

impl Config {
    /// The namespace whose inboxes take what is sent to users under this channel; `""` is that of channels
    /// without one.
    pub fn inbox_namespace(&self, channel: &str) -> Option<&str> {
        let (name, options) = self.namespace_of(channel);
        options.is_direct().then_some(name)
    }

    /// What holds for a channel with this name.
    pub fn options_of(&self, channel: &str) -> &ChannelOptions {
        self.namespace_of(channel).1
    }

    fn namespace_of(&self, channel: &str) -> (&str, &ChannelOptions) {
        let named = channel
            .split_once(':')
            .and_then(|(wanted, _)| self.namespaces.iter().find(|space| space.name == wanted));
        named.map_or(("", &self.channels), |space| (space.name.as_str(), &space.options))
    }

    /// For each namespace under which users may be sent messages: what the names of its inboxes have
    /// before their `:`, and their options.
    pub fn inboxes(&self) -> impl Iterator<Item = (String, ChannelOptions)> {
        let named = self.namespaces.iter().map(|space| (space.name.as_str(), &space.options));
        std::iter::once(("", &self.channels))
            .chain(named)
            .filter(|(_, options)| options.is_direct())
            .map(|(name, options)| (format!("{INBOX_MARK}{name}"), options.inbox()))
    }
}

/// The ways to the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BackendChoice {
    #[default]
    Epoll,
    /// io_uring: an error at start where the kernel does not have it.
    Uring,
    /// io_uring where the kernel has it, else epoll.
    Auto,
}

/// `[store]`: the durable log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Where it is. `None` (written empty): there is none.
    pub directory: Option<PathBuf>,
    /// What stands behind an acknowledgement. Default always.
    pub sync: SyncMode,
    /// Bytes of all its files, over which the oldest publications go. 0: no limit, the default.
    pub max_size: u64,
    /// Bytes of one of its files. Default 64 MiB.
    pub segment_size: usize,
    /// Bytes waiting for it, for each shard. Default 64 MiB.
    pub backlog: usize,
    /// Bytes of the newest publications of each channel that are kept in memory too, 128 more for each
    /// publication; what lies before is read from the log. Default 1 MiB.
    pub cache_size: usize,
    /// Bytes read from it for readers and kept for the next ones, for each shard; each publication counts
    /// twice. Default 16 MiB.
    pub read_memory: usize,
    /// Channels in it. Default 1,000,000.
    pub max_channels: usize,
    /// Time without publications after which a channel may get a new epoch. Default 30 days.
    pub forget_after: Duration,
}

/// When publications count as kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// After a sync for each batch: whatever came during the sync before.
    #[default]
    Always,
    /// After a sync too, but no sooner than this long after the first of its batch.
    Interval(Duration),
    /// When the system has them: they survive the end of the server, not that of the machine.
    Os,
}

/// `[admin]`: the server API with its metrics and health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Its address. `None` (written empty): there is none, the default.
    pub listen: Option<SocketAddr>,
    /// What a request must present. `None` (written empty): nothing, on loopback only.
    pub key: Option<Secret>,
    /// Open connections, over which accepting pauses. Default 256.
    pub max_connections: usize,
    /// Bytes of one request body. Default 4 MiB.
    pub max_body_size: usize,
    /// Until a request is there whole, and from then until it is answered. Default 10 s.
    pub timeout: Duration,
    /// Groups, those of the keys file included. Default 10,000.
    pub max_groups: usize,
    /// Memberships of all groups together. Default 100,000.
    pub max_group_users: usize,
}

/// `[diagnostics]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// Path of an endpoint that returns every message unchanged. `None`: there is none.
    pub echo: Option<String>,
}

/// `[log]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    Text,
    Json,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            shards: None,
            pin: true,
            insecure: false,
            shutdown_timeout: Duration::from_secs(10),
            backend: BackendChoice::default(),
            direct_descriptors: false,
            unshare_descriptors: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: None,
            max_message_size: 64 << 10,
            max_head_size: 16 << 10,
            max_head_fields: 64,
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            message_timeout: Duration::from_secs(30),
            max_empty_fragments: 1024,
            control_frame_rate: 50,
            max_subscriptions: 1000,
            max_errors: 100,
            publish_rate: 0,
            publish_burst: 100,
            send_queue_size: 1 << 20,
            slow_consumer_timeout: Duration::from_secs(10),
            max_topics: 1_000_000,
            fanout_backlog: 64 << 20,
            mesh_backlog: 64 << 20,
            history_memory: 256 << 20,
            max_unacked: 1000,
            max_rooms: 10_000,
            max_checked_size: 16 << 10,
            checked_in_turn: 2 << 10,
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            keys_file: None,
            keys: Arc::default(),
            required: false,
            timeout: Duration::from_secs(5),
            max_users: 1_000_000,
            max_connections_per_user: 100,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            directory: None,
            sync: SyncMode::default(),
            max_size: 0,
            segment_size: 64 << 20,
            backlog: 64 << 20,
            cache_size: 1 << 20,
            read_memory: 16 << 20,
            max_channels: 1_000_000,
            forget_after: Duration::from_hours(24 * 30),
        }
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            ttl: Duration::from_hours(1),
            max_parked: 100_000,
            memory: 64 << 20,
            durable: false,
            durable_interval: Duration::from_secs(1),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: None,
            key: None,
            max_connections: 256,
            max_body_size: 4 << 20,
            timeout: Duration::from_secs(10),
            max_groups: 10_000,
            max_group_users: 100_000,
        }
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval: Duration::from_secs(25) }
    }
}

#[cfg(test)]
mod tests;
