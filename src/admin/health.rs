//! Whether the process lives, and whether it is to be sent clients.

use std::time::Duration;

use axum::http::StatusCode;
use serde::Serialize;

use super::{Context, Stage};
use crate::ids::Moment;

/// A shard that has not turned for this long is stalled; a healthy one turns every second.
const STALLED_AFTER: Duration = Duration::from_secs(5);

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    status: &'static str,
    shards: usize,
    /// Numbers of those that stand still.
    stalled: Vec<usize>,
}

impl Context {
    /// 200 while every shard turns.
    pub fn live(&self) -> (StatusCode, Health) {
        self.health(None)
    }

    /// 200 while clients are served as promised.
    pub fn ready(&self) -> (StatusCode, Health) {
        let shards = self.metrics.shards();
        let trouble = if self.stage() != Stage::Serving {
            Some("shutting_down")
        } else if shards.iter().any(|shard| shard.last_turn().is_none()) {
            Some("starting")
        } else if self.metrics.log().is_failing() {
            Some("log_failing")
        } else {
            None
        };
        self.health(trouble)
    }

    fn health(&self, trouble: Option<&'static str>) -> (StatusCode, Health) {
        let shards = self.metrics.shards();
        let now = self.now();
        let is_stalled =
            |last: Option<u64>| last.is_some_and(|last| now.since(Moment(last)) > STALLED_AFTER);
        // One that has ended in order does not turn any more.
        let ends = self.stage() != Stage::Serving;
        let stalled: Vec<_> = (0..shards.len())
            .filter(|index| !ends && is_stalled(shards[*index].last_turn()))
            .collect();
        let trouble = trouble.or((!stalled.is_empty()).then_some("stalled"));
        let status =
            if trouble.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let health = Health { status: trouble.unwrap_or("ok"), shards: shards.len(), stalled };
        (status, health)
    }
}
