//! The queue of one target: messages in their order, in batches, each repeated until it is taken or given
//! up.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::answers::Answers;
use super::target::Target;
use crate::config::Webhooks;
use crate::mesh::Posted;
use crate::message::{BridgeMessage, BridgeOutcome};
use crate::metrics::{Counter, Metrics};

/// Until the first repetition; each later one waits twice as long.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest wait before a repetition.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Bytes of one batch, over which no message is added.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// How a target is served.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Messages in a batch.
    batch_size: usize,
    /// How long a message waits for others.
    batch_timeout: Duration,
    /// How often a batch is repeated.
    retries: u32,
}

/// The messages of one target.
pub struct Queue<T> {
    target: T,
    messages: mpsc::Receiver<Posted>,
    manner: Manner,
    answers: Arc<Answers>,
    metrics: Metrics,
    /// The last batch was given up, and the log says so.
    is_failing: bool,
}

impl Manner {
    pub fn of(webhooks: &Webhooks) -> Self {
        let Webhooks { batch_size, batch_timeout, retries, .. } = *webhooks;
        Self { batch_size, batch_timeout, retries }
    }

    /// Whatever has come, up to that many, at once; nothing is repeated.
    pub fn eager(batch_size: usize) -> Self {
        Self { batch_size, batch_timeout: Duration::ZERO, retries: 0 }
    }
}

impl<T: Target> Queue<T> {
    pub fn new(
        target: T,
        messages: mpsc::Receiver<Posted>,
        manner: Manner,
        answers: Arc<Answers>,
        metrics: Metrics,
    ) -> Self {
        Self { target, messages, manner, answers, metrics, is_failing: false }
    }

    /// Delivers until nobody sends any more and all is delivered.
    pub async fn serve(mut self) {
        while let Some(batch) = self.gather().await {
            // The places are kept until the messages have been answered.
            let (messages, places): (Vec<_>, Vec<_>) = batch.into_iter().map(Posted::split).unzip();
            let mut outcomes = self.deliver(&messages).await;
            debug_assert_eq!(outcomes.len(), messages.len());
            outcomes.resize(messages.len(), BridgeOutcome::Unavailable);
            for (message, outcome) in messages.into_iter().zip(outcomes) {
                self.count(match outcome {
                    BridgeOutcome::Taken | BridgeOutcome::Replied(_) => Counter::RouteTaken,
                    BridgeOutcome::Refused { .. } => Counter::RouteRefused,
                    BridgeOutcome::Unavailable => Counter::RouteFailed,
                });
                self.answers.send(message.origin, outcome).await;
            }
            drop(places);
        }
    }

    /// The next messages. `None`: there will be none.
    async fn gather(&mut self) -> Option<Vec<Posted>> {
        let first = self.messages.recv().await?;
        let mut bytes = first.message.weight();
        let mut batch = vec![first];
        let mut deadline = pin!(sleep(self.manner.batch_timeout));
        while batch.len() < self.manner.batch_size && bytes < BATCH_BYTES_MAX {
            let next = match self.messages.try_recv() {
                Ok(next) => next,
                Err(_) if self.manner.batch_timeout.is_zero() => break,
                Err(_) => tokio::select! {
                    next = self.messages.recv() => match next {
                        Some(next) => next,
                        None => break,
                    },
                    () = &mut deadline => break,
                },
            };
            bytes += next.message.weight();
            batch.push(next);
        }
        Some(batch)
    }

    async fn deliver(&mut self, batch: &[BridgeMessage]) -> Vec<BridgeOutcome> {
        let mut pause = BACKOFF_MIN;
        let mut retries_left = self.manner.retries;
        loop {
            let failure = match self.target.deliver(batch).await {
                Ok(outcomes) => {
                    if std::mem::take(&mut self.is_failing) {
                        tracing::info!(route = self.target.name(), "a route works again");
                    }
                    return outcomes;
                }
                Err(failure) => failure,
            };
            if !failure.passes || retries_left == 0 {
                if !std::mem::replace(&mut self.is_failing, true) {
                    let (route, reason) = (self.target.name(), failure.reason);
                    tracing::warn!(route, reason, "a route fails: its messages are given up");
                }
                return vec![BridgeOutcome::Unavailable; batch.len()];
            }
            retries_left -= 1;
            self.count(Counter::RouteRetries);
            sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    fn count(&self, counter: Counter) {
        self.metrics.bridge().add(counter, 1);
    }
}
