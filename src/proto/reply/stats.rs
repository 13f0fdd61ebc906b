//! What a client can ask of the server's clock and of its own connection.

use super::LinkQuality;
use crate::proto::json;

/// What the query `stats` tells: of this connection, since it was opened, and of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionFacts {
    /// Unix time in milliseconds.
    pub connected_since: u64,
    pub messages_received: u64,
    pub bytes_received: u64,
    /// Frames and bytes that the socket has taken.
    pub messages_sent: u64,
    pub bytes_sent: u64,
    /// Bytes that wait for it.
    pub queued_bytes: usize,
    pub subscriptions: usize,
    /// Of the last ping that was answered, in milliseconds.
    pub rtt: Option<u16>,
}

/// The payload of the [`response`](super::response) to the query `stats`. Received is what the server got.
pub fn stats(facts: &ConnectionFacts) -> String {
    let ConnectionFacts {
        connected_since,
        messages_received,
        bytes_received,
        messages_sent,
        bytes_sent,
        queued_bytes,
        subscriptions,
        rtt,
    } = facts;
    let quality = LinkQuality::of(*rtt).as_str();
    let rtt = rtt.map_or("null".to_owned(), |rtt| rtt.to_string());
    format!(
        r#"{{"connectedSince":{connected_since},"messagesReceived":{messages_received},"bytesReceived":{bytes_received},"messagesSent":{messages_sent},"bytesSent":{bytes_sent},"queuedBytes":{queued_bytes},"subscriptions":{subscriptions},"linkQuality":"{quality}","rtt":{rtt}}}"#
    )
}

/// The payload of the [`response`](super::response) to the query `groups`.
pub fn groups<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(json::quote).collect();
    format!(r#"{{"groups":[{}]}}"#, names.join(","))
}

/// The payload of the [`response`](super::response) to the query `time`: Unix time in milliseconds.
pub fn time(now_unix_ms: u64) -> String {
    format!(r#"{{"time":{now_unix_ms}}}"#)
}
