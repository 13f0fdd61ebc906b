//! Why connections are closed before their peers end them, for the log: at most some lines a second
//! for each reason, then a count.

use std::net::SocketAddr;

use crate::ids::{Moment, ShardId};
use crate::metrics::{Counter, ShardMetrics};

/// Lines a second for one reason.
const LINES_MAX: u32 = 10;
/// Bytes of a value that a peer chose.
const VALUE_BYTES_MAX: usize = 256;

#[derive(Debug)]
struct Entry {
    reason: &'static str,
    lines: u32,
    suppressed: u64,
}

/// The lines of one shard.
#[derive(Debug)]
pub struct PeerLog {
    shard: ShardId,
    /// The second that the entries count.
    second: u64,
    /// One per reason; reasons are constants of the program.
    entries: Vec<Entry>,
}

impl PeerLog {
    pub fn new(shard: ShardId) -> Self {
        Self { shard, second: 0, entries: Vec::new() }
    }

    /// Writes one line, or counts it. `detail` may hold what a peer sent.
    pub fn note(
        &mut self,
        now: Moment,
        metrics: &ShardMetrics,
        reason: &'static str,
        peer: SocketAddr,
        detail: &str,
    ) {
        self.begin_second(now);
        let index = self.entries.iter().position(|entry| entry.reason == reason);
        let index = index.unwrap_or_else(|| {
            self.entries.push(Entry { reason, lines: 0, suppressed: 0 });
            self.entries.len() - 1
        });
        let entry = &mut self.entries[index];
        if entry.lines == LINES_MAX {
            entry.suppressed += 1;
            metrics.add(Counter::LogSuppressed, 1);
            return;
        }
        entry.lines += 1;
        tracing::info!(shard = self.shard.0, reason, %peer, detail = escape(detail), "closing connection");
    }

    /// Tells what the past second held back. Called now and then, so that the count comes even if
    /// nothing else does. Returns whether a new second has begun.
    pub fn begin_second(&mut self, now: Moment) -> bool {
        let second = now.0 / 1000;
        if second == self.second {
            return false;
        }
        self.second = second;
        for entry in &mut self.entries {
            if entry.suppressed > 0 {
                let Entry { reason, suppressed, .. } = *entry;
                tracing::info!(shard = self.shard.0, reason, suppressed, "more connections closed");
            }
            entry.lines = 0;
            entry.suppressed = 0;
        }
        true
    }
}

/// One line, cut to [`VALUE_BYTES_MAX`].
fn escape(value: &str) -> String {
    let mut escaped = String::new();
    for part in value.chars().map(char::escape_debug) {
        let part = part.to_string();
        if escaped.len() + part.len() > VALUE_BYTES_MAX {
            escaped.push('…');
            break;
        }
        escaped.push_str(&part);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_on_one_short_line() {
        assert_eq!(escape("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        let long = escape(&"x\n".repeat(1000));
        assert!(long.len() <= VALUE_BYTES_MAX + '…'.len_utf8());
        assert!(long.ends_with('…'));
    }

    #[test]
    fn lines_are_limited_per_reason_and_second() {
        let metrics = ShardMetrics::default();
        let mut log = PeerLog::new(ShardId(0));
        let peer = "127.0.0.1:1".parse().unwrap();
        for _ in 0..25 {
            log.note(Moment(100), &metrics, "utf8", peer, "");
        }
        log.note(Moment(100), &metrics, "unmasked", peer, "");
        assert_eq!(metrics.value(Counter::LogSuppressed), 15);
        log.note(Moment(1100), &metrics, "utf8", peer, "");
        assert_eq!(metrics.value(Counter::LogSuppressed), 15);
    }
}
