//! The lines of a server's log, as they come.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

use serde_json::Value;

use super::PATIENCE;

#[derive(Default)]
pub struct Log {
    lines: Mutex<Vec<String>>,
    arrived: Condvar,
}

impl Log {
    /// Collects until the end of `stream`.
    pub fn collect(&self, stream: impl BufRead) {
        for line in stream.split(b'\n') {
            let Ok(line) = line else { return };
            self.lock().push(String::from_utf8_lossy(&line).into_owned());
            self.arrived.notify_all();
        }
    }

    pub fn lines(&self) -> Vec<String> {
        self.lock().clone()
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Of everything written, newlines included.
    pub fn bytes(&self) -> usize {
        self.lock().iter().map(|line| line.len() + 1).sum()
    }

    /// The lines with this message.
    pub fn with_message(&self, message: &str) -> Vec<Value> {
        let has_message = |value: &Value| value["message"] == message;
        self.lock().iter().filter_map(|line| parse(line)).filter(has_message).collect()
    }

    /// How many connections were closed for this reason.
    pub fn count_reason(&self, reason: &str) -> usize {
        self.with_message("closing connection")
            .iter()
            .filter(|line| line["reason"] == reason)
            .count()
    }

    /// The first line from number `from` on that `wanted` takes. Waits for it.
    #[track_caller]
    pub fn wait_for(&self, from: usize, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lock();
        let mut next = from;
        loop {
            while let Some(line) = lines.get(next) {
                next += 1;
                if let Some(value) = parse(line).filter(|value| wanted(value)) {
                    return value;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let (guard, waited) = self.arrived.wait_timeout(lines, left).expect("no panics");
            lines = guard;
            if waited.timed_out() {
                // Whoever looks at the log next must find it whole.
                drop(lines);
                panic!("no such line within {PATIENCE:?}");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().expect("no panics while it is held")
    }
}

/// `name=value name=value`
pub fn parse_counters(text: &str) -> BTreeMap<String, u64> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').expect("name=value");
        (name.to_string(), value.parse().expect("a number"))
    };
    text.split_whitespace().map(pair).collect()
}

fn parse(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok()
}
