//! The keys of what is beside the event loops: webhooks, the durable log, the server API, diagnostics.

use super::{BACKLOG, CONNECTIONS_MAX, GIB, KIB, Key, MIB, TIMEOUT};
use crate::config::field::Field::{
    Choice, Count, Directory, OptionalAddress, Path, Secret, Size, Sync, Time,
};
use std::time::Duration;

/// In the order they are printed.
pub static KEYS: [Key; 25] = [
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
        path: "admin.max_groups",
        flag: None,
        help: "Groups of users, those of the keys file included",
        field: Count(|c| &mut c.admin.max_groups, 1..=1_000_000),
    },
    Key {
        path: "admin.max_group_users",
        flag: None,
        help: "Users of all groups together, each for every group it is in",
        field: Count(|c| &mut c.admin.max_group_users, 1..=10_000_000),
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
