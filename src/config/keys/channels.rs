//! The keys of `[channels]`, which namespaces have too.

use super::{GIB, Key, RETENTION, TIMEOUT};
use crate::config::field::Field::{Attributes, Choice, Count, Rule, Schema, Size, Switch, Time};

/// In the order they are printed.
pub static KEYS: [Key; 27] = [
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
        path: "channels.tags",
        flag: None,
        help: "Publications may have tags, and subscriptions filters over them",
        field: Switch(|c| &mut c.channels.tags),
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
        path: "channels.presence_info",
        flag: None,
        help: "Attributes of users that are shown with them",
        field: Attributes(|c| &mut c.channels.presence_info),
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
        path: "channels.moderators",
        flag: None,
        help: "Users who may do in every room what its owner may: a filter over their attributes",
        field: Rule(|c| &mut c.channels.moderators),
    },
    Key {
        path: "channels.senders",
        flag: None,
        help: "Users who may send to groups, connections and everybody: a filter over their attributes",
        field: Rule(|c| &mut c.channels.senders),
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
];
