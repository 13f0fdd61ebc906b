//! A server that runs: one thread waits for the others and for signals, and ends all of it in order.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use signal_hook::consts::SIGUSR1;
use signal_hook::iterator::Signals;
use tokio::sync::watch;

use super::error::{RunError, StartError};
use crate::admin::Stage;
use crate::bridge;
use crate::ids::ShardId;
use crate::mesh::{Control, LogSender};
use crate::metrics::{Counter, Gauge, Metrics};
use crate::shard::Settings;

/// Time that a shard has beyond `shutdown_timeout` to end its last turn.
const SHUTDOWN_SLACK: Duration = Duration::from_secs(1);

/// What the main thread waits for.
pub(super) enum Event {
    Signal(i32),
    Ended(ShardId, thread::Result<io::Result<()>>),
    LogEnded(thread::Result<io::Result<()>>),
    AdminEnded(thread::Result<io::Result<()>>),
    BridgeEnded(thread::Result<io::Result<()>>),
    CheckerPanicked,
}

/// What tells the durable log, the server API and the bridge to end, as far as they run.
pub(super) type Others =
    (Option<LogSender>, Option<watch::Sender<Stage>>, Option<watch::Sender<bridge::Stage>>);

/// The threads besides this one.
pub(super) struct Running {
    control: Control,
    shards: Vec<ShardId>,
    log_runs: bool,
    admin_runs: bool,
    bridge_runs: bool,
    /// As far as they have not been told.
    others: Others,
}

impl Running {
    pub fn new(control: Control, shards: Vec<ShardId>, others: Others) -> Self {
        let (log_runs, admin_runs) = (others.0.is_some(), others.1.is_some());
        let bridge_runs = others.2.is_some();
        Self { control, shards, log_runs, admin_runs, bridge_runs, others }
    }

    /// Waits for signals and for threads to end; one that ends by itself takes the server with it. The
    /// log and the bridge end last: what shards have handed them is kept, or delivered. The server API goes on
    /// answering until all shards have ended.
    pub fn supervise(
        mut self,
        settings: &Settings,
        events: &Receiver<Event>,
    ) -> Result<(), RunError> {
        let mut deadline = None;
        let mut outcome = Ok(());
        while !self.shards.is_empty() || self.log_runs || self.admin_runs || self.bridge_runs {
            let event = match deadline {
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => events.recv_deadline(deadline),
            };
            let mut stop = false;
            match event {
                Ok(Event::Signal(SIGUSR1)) => log_counters(&settings.metrics, "counters"),
                Ok(Event::Signal(signal)) if deadline.is_none() => {
                    let connections = settings.metrics.connections();
                    tracing::info!(signal, connections, "shutting down");
                    stop = true;
                }
                Ok(event) => {
                    if let Some(error) = self.note(event) {
                        tracing::error!(%error, "shutting down");
                        outcome = Err(error);
                        stop = deadline.is_none();
                    }
                }
                Err(_) => return Err(RunError::ShutdownTimeout(self.shards)),
            }
            if stop {
                let timeout = settings.config.server.shutdown_timeout + SHUTDOWN_SLACK;
                deadline = Some(Instant::now() + timeout);
                self.begin_shutdown();
            }
            if self.shards.is_empty() {
                self.end_others(deadline);
            }
        }
        outcome
    }

    /// Notes that a thread has ended. Returns what it failed with, if it did.
    fn note(&mut self, event: Event) -> Option<RunError> {
        match event {
            Event::Signal(_) => None,
            Event::Ended(shard, ended) => {
                self.shards.retain(|other| *other != shard);
                let failed = |error| RunError::Shard { shard, error };
                failure(ended, failed, RunError::ShardPanicked(shard))
            }
            Event::LogEnded(ended) => {
                self.log_runs = false;
                failure(ended, RunError::Log, RunError::LogPanicked)
            }
            Event::AdminEnded(ended) => {
                self.admin_runs = false;
                failure(ended, RunError::Admin, RunError::AdminPanicked)
            }
            Event::BridgeEnded(ended) => {
                self.bridge_runs = false;
                failure(ended, RunError::Bridge, RunError::BridgePanicked)
            }
            Event::CheckerPanicked => Some(RunError::CheckerPanicked),
        }
    }

    fn begin_shutdown(&mut self) {
        self.control.shutdown();
        if let (_, Some(admin), _) = &self.others {
            admin.send_replace(Stage::ShuttingDown);
        }
    }

    /// The shards have ended, before `deadline`: the others hear that nothing more comes.
    fn end_others(&mut self, deadline: Option<Instant>) {
        let (log, admin, bridge) = std::mem::take(&mut self.others);
        if let Some(log) = log {
            log.stop();
        }
        if let Some(admin) = admin {
            admin.send_replace(Stage::Ending);
        }
        if let Some(bridge) = bridge {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let patience = left.unwrap_or_default().saturating_sub(SHUTDOWN_SLACK);
            bridge.send_replace(bridge::Stage::Ending { patience });
        }
    }
}

fn failure(
    ended: thread::Result<io::Result<()>>,
    failed: impl FnOnce(io::Error) -> RunError,
    panicked: RunError,
) -> Option<RunError> {
    match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(failed(error)),
        Err(_) => Some(panicked),
    }
}

/// Signals arrive on a thread of their own, so that a second one ends the process whatever the first
/// one is waiting for.
pub(super) fn watch_signals(mut signals: Signals, events: Sender<Event>) -> Result<(), StartError> {
    let watch = move || {
        let mut stopping = false;
        for signal in signals.forever() {
            if stopping && signal != SIGUSR1 {
                // Ends the process as if it had never handled signals.
                drop(signal_hook::low_level::emulate_default_handler(signal));
            }
            stopping |= signal != SIGUSR1;
            drop(events.send(Event::Signal(signal)));
        }
    };
    let builder = thread::Builder::new().name("stentor-signals".into());
    builder.spawn(watch).map(drop).map_err(StartError::Thread)
}

/// Writes all that is not 0 to the log of the process.
pub(super) fn log_counters(metrics: &Metrics, message: &str) {
    let counters = Counter::ALL.iter().map(|counter| (counter.name(), metrics.total(*counter)));
    let gauges = Gauge::ALL.iter().map(|gauge| (gauge.name(), metrics.take(*gauge)));
    let counters: Vec<_> = counters
        .chain(gauges)
        .filter(|(_, total)| *total > 0)
        .map(|(name, total)| format!("{name}={total}"))
        .collect();
    let connections = metrics.connections();
    tracing::info!(connections, counters = counters.join(" "), "{message}");
}
