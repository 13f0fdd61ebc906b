//! What all scenarios share: the server, the span, and how the client behaves.

use super::clock::{Clock, SECOND_NS};
use super::cost::{CpuTime, ServerProcess, Spent};
use super::fleet::{Fleet, FleetOptions};
use super::target::Target;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

/// Between two progress lines.
const PROGRESS_NS: u64 = SECOND_NS / 2;

#[derive(Debug, Clone)]
pub struct Conditions {
    pub target: Rc<Target>,
    /// As it was given.
    pub url: String,
    /// The process whose cost is told.
    pub server: Option<ServerProcess>,
    /// Load before the measured span: TCP and caches warm up.
    pub warmup: Duration,
    pub duration: Duration,
    /// Whether the client polls without sleeping; `None`: only in closed loops.
    pub spin: Option<bool>,
    pub fleet: FleetOptions,
    /// Upgrades under way at a time.
    pub concurrency: usize,
    /// Show progress on stderr.
    pub progress: bool,
    pub clock: Clock,
}

impl Conditions {
    pub fn fleet(&self) -> io::Result<Fleet> {
        Fleet::new(Rc::clone(&self.target), self.clock, self.fleet)
    }

    pub fn progress(&self) -> Progress {
        Progress { shown: self.progress, next_ns: 0 }
    }

    pub fn server_time(&self) -> io::Result<Option<CpuTime>> {
        self.server.map(ServerProcess::cpu_time).transpose()
    }

    /// What the server has spent since `before`.
    pub fn server_spent(&self, before: Option<CpuTime>) -> io::Result<Option<Spent>> {
        Ok(self.server_time()?.zip(before).map(|(now, before)| now.since(before)))
    }

    pub fn server_memory(&self) -> io::Result<Option<f64>> {
        self.server.map(|server| server.resident_bytes().map(|bytes| bytes as f64)).transpose()
    }
}

/// A line on the terminal that is written over.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    next_ns: u64,
}

impl Progress {
    pub fn show(&mut self, now_ns: u64, text: impl FnOnce() -> String) {
        if self.shown && now_ns >= self.next_ns {
            self.next_ns = now_ns + PROGRESS_NS;
            // Nobody needs it.
            drop(write!(io::stderr(), "\r\x1b[K{}", text()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown && self.next_ns > 0 {
            drop(write!(io::stderr(), "\r\x1b[K"));
        }
    }
}
