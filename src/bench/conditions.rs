//! What all scenarios share: the server, the span, and how the client behaves.

use super::clock::{Clock, SECOND_NS};
use super::cost::{CpuTime, ServerProcess};
use super::fleet::FleetOptions;
use super::summary::Summary;
use super::target::Target;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::Duration;

/// Between two progress lines.
const PROGRESS_NS: u64 = SECOND_NS / 2;

#[derive(Debug, Clone)]
pub struct Conditions {
    pub target: Arc<Target>,
    /// As it was given.
    pub url: String,
    /// The process whose cost is told.
    pub server: Option<ServerProcess>,
    /// Threads of the client, at least 1: each has its share of the connections.
    pub threads: usize,
    /// The core of the first thread, the next ones have the next; `None`: where the kernel likes.
    pub pin: Option<usize>,
    /// Load before the measured span: TCP and caches warm up.
    pub warmup: Duration,
    pub duration: Duration,
    /// Whether the client polls without sleeping; `None`: only in closed loops.
    pub spin: Option<bool>,
    pub fleet: FleetOptions,
    /// Upgrades under way at a time, of all threads together.
    pub concurrency: usize,
    /// Show progress on stderr.
    pub progress: bool,
    pub clock: Clock,
}

impl Conditions {
    /// Refuses a run with fewer of what `flag` counts than threads; `why` says why each needs one.
    pub fn require(&self, flag: &str, count: usize, why: &str) -> io::Result<()> {
        let threads = self.threads;
        if count >= threads {
            return Ok(());
        }
        let text = format!("--threads {threads} needs --{flag} {threads} or more: {why}");
        Err(io::Error::new(ErrorKind::InvalidInput, text))
    }

    /// The beginning of a scenario's summary.
    pub fn summary(&self, scenario: &'static str) -> Summary {
        let mut summary = Summary::new(scenario, &self.url);
        if self.threads > 1 {
            summary.parameter("threads", self.threads);
        }
        summary
    }

    /// `shown`: if progress is shown at all.
    pub fn progress(&self, shown: bool) -> Progress {
        Progress { shown: shown && self.progress, threads: self.threads, next_ns: 0 }
    }

    pub fn server_time(&self) -> io::Result<Option<CpuTime>> {
        self.server.map(ServerProcess::cpu_time).transpose()
    }

    pub fn server_memory(&self) -> io::Result<Option<f64>> {
        self.server.map(|server| server.resident_bytes().map(|bytes| bytes as f64)).transpose()
    }
}

/// A line on the terminal that is written over.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    /// Of which the first shows its own.
    threads: usize,
    next_ns: u64,
}

impl Progress {
    pub fn show(&mut self, now_ns: u64, text: impl FnOnce() -> String) {
        if self.shown && now_ns >= self.next_ns {
            self.next_ns = now_ns + PROGRESS_NS;
            // Nobody needs it.
            drop(match self.threads {
                1 => write!(io::stderr(), "\r\x1b[K{}", text()),
                threads => write!(io::stderr(), "\r\x1b[Kfirst of {threads} threads: {}", text()),
            });
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
