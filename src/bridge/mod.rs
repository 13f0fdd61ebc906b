//! The way of routed messages to targets outside: webhooks, and functions of the program that the server
//! is a part of.
//!
//! One thread, and in it a task with a queue for each target, so that one that is slow or dead holds up
//! its own messages alone. Shards take a place in a target's room before they hand over a message
//! ([`BridgePort`](crate::mesh::BridgePort)), so nothing here has to refuse one for want of room. Files:
//! `target` (what a target is), `queue` (batches, retries), `answers` (the way back), `webhook` with
//! `delivery` (what is said), `http` (how) and `tls`, `handler` (functions).

mod answers;
mod delivery;
mod handler;
mod http;
mod queue;
mod target;
mod tls;
mod webhook;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::{Config, Destination, RouteTable};
use crate::mesh::{BridgeInbox, Mailer, Posted};
use crate::message::BridgeOutcome;
use crate::metrics::{Counter, Metrics};
use answers::Answers;
use handler::HandlerTarget;
pub use handler::{Handler, Handlers, Inbound, Refusal, Reply};
use queue::{Manner, Queue};
pub use target::{Failure, Target};
use webhook::Webhook;

/// Calls of one handler that are under way at a time.
const HANDLER_CALLS_MAX: usize = 64;

/// Where the server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Serving,
    /// All shards have ended. What waits has this long to be delivered.
    Ending {
        patience: Duration,
    },
}

/// What the bridge works with.
pub struct Surroundings {
    pub config: Config,
    pub metrics: Metrics,
    /// To the shards.
    pub mailer: Mailer,
    /// From the shards.
    pub inbox: BridgeInbox,
    pub stage: watch::Receiver<Stage>,
}

/// The bridge before its thread runs: it knows how to reach its targets.
pub struct Bridge {
    /// By their number.
    plans: Vec<Plan>,
}

/// A target that nobody serves yet.
enum Plan {
    Webhook(Webhook),
    Handler(HandlerTarget),
}

type Queues = Vec<mpsc::Sender<Posted>>;

impl Bridge {
    /// `None`: nothing is routed outside. `handlers`: for the types that are routed to one.
    ///
    /// # Errors
    ///
    /// A target cannot be reached in any way.
    pub fn prepare(config: &Config, handlers: &Handlers) -> io::Result<Option<Self>> {
        let table = RouteTable::new(&config.routes);
        let is_secure = |destination: &Destination| match destination {
            Destination::Webhook(url) => url.scheme_str() == Some("https"),
            Destination::Channel | Destination::Handler => false,
        };
        let needs_tls = table.targets().any(|(_, destination)| is_secure(destination));
        let tls = if needs_tls { Some(tls::connector()?) } else { None };
        let mut plans = Vec::new();
        for (kind, destination) in table.targets() {
            plans.push(match destination {
                Destination::Webhook(url) => {
                    let tls = tls.as_ref().filter(|_| is_secure(destination));
                    Plan::Webhook(Webhook::new(url, &config.webhooks, tls)?)
                }
                Destination::Handler | Destination::Channel => {
                    let none = || io::Error::other(format!("there is no handler of `{kind}`"));
                    let handler = handlers.get(kind).ok_or_else(none)?;
                    Plan::Handler(HandlerTarget::new(kind, Arc::clone(handler)))
                }
            });
        }
        Ok((!plans.is_empty()).then_some(Self { plans }))
    }

    pub fn targets(&self) -> usize {
        self.plans.len()
    }

    /// Serves until [`Stage::Ending`], and then for as long as it says. An error: it cannot go on.
    pub fn run(self, surroundings: Surroundings) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.serve(surroundings))
    }

    async fn serve(self, surroundings: Surroundings) -> io::Result<()> {
        let Surroundings { config, metrics, mailer, inbox, mut stage } = surroundings;
        let answers = Arc::new(Answers::new(mailer));
        let flushing = tokio::spawn(Arc::clone(&answers).keep_flushing());
        let mut tasks = JoinSet::new();
        let queues = self.start_queues(&config, &metrics, &answers, &mut tasks);
        let patience = tokio::select! {
            received = receive(&inbox, &queues, &answers) => return received,
            patience = ending(&mut stage) => patience,
        };
        while let Some(batch) = inbox.receive() {
            hand_out(batch, &queues, &answers).await;
        }
        // Its queue ends with this, and each task with its queue.
        drop(queues);
        let all = async { while tasks.join_next().await.is_some() {} };
        drop(tokio::time::timeout(patience, all).await);
        let lost = inbox.waiting();
        if lost > 0 {
            metrics.bridge().add(Counter::RouteLost, lost as u64);
            tracing::warn!(messages = lost, "routed messages were not delivered before the end");
        }
        flushing.abort();
        Ok(())
    }

    fn start_queues(
        self,
        config: &Config,
        metrics: &Metrics,
        answers: &Arc<Answers>,
        tasks: &mut JoinSet<()>,
    ) -> Queues {
        let mut queues = Vec::new();
        for plan in self.plans {
            let (sender, receiver) = mpsc::channel(config.webhooks.queue_size);
            queues.push(sender);
            let (metrics, answers) = (metrics.clone(), Arc::clone(answers));
            match plan {
                Plan::Webhook(target) => {
                    let manner = Manner::of(&config.webhooks);
                    tasks.spawn(Queue::new(target, receiver, manner, answers, metrics).serve());
                }
                Plan::Handler(target) => {
                    let manner = Manner::eager(HANDLER_CALLS_MAX);
                    tasks.spawn(Queue::new(target, receiver, manner, answers, metrics).serve());
                }
            }
        }
        queues
    }
}

/// Hands what comes from shards to the queues of its targets, for ever.
async fn receive(inbox: &BridgeInbox, queues: &Queues, answers: &Answers) -> io::Result<()> {
    let wakes = pipe::Receiver::from_owned_fd(inbox.wakes()?)?;
    let mut bytes = [0; 1024];
    loop {
        wakes.readable().await?;
        let read = wakes.try_read(&mut bytes);
        while let Some(batch) = inbox.receive() {
            hand_out(batch, queues, answers).await;
        }
        if matches!(read, Ok(0)) {
            // All shards have ended; the server will say so.
            return std::future::pending().await;
        }
        // Targets have their turn however much comes.
        tokio::task::yield_now().await;
    }
}

async fn hand_out(batch: Vec<Posted>, queues: &Queues, answers: &Answers) {
    for posted in batch {
        let Some(queue) = queues.get(posted.message.target.index()) else { continue };
        // There is room, for it has a place; so the task of this target has ended, which is a bug.
        if let Err(error) = queue.try_send(posted) {
            let message = error.into_inner().message;
            answers.send(message.origin, BridgeOutcome::Unavailable).await;
        }
    }
}

/// Comes back when all shards have ended.
async fn ending(stage: &mut watch::Receiver<Stage>) -> Duration {
    let ended = stage.wait_for(|stage| *stage != Stage::Serving).await;
    match ended.as_deref() {
        Ok(Stage::Ending { patience }) => *patience,
        // Without a sender the server is gone.
        Ok(Stage::Serving) | Err(_) => Duration::ZERO,
    }
}
