//! The server API, metrics and health: HTTP on an address of its own, in a thread of its own.
//!
//! It shares nothing with the shards: what it asks goes into their mailboxes, what they answer comes back
//! through a channel, and counters are read where shards write them. A shard that stands still delays its
//! own answers alone. Files: `serving` (connections), `routes` (requests and responses), `access` (who may),
//! `command` (what can be asked), `target` (for whom), `running` (how it is done), `addressing` (for whoever is
//! named), `listing` (what takes many calls), `groups` (sets of users), `grouping`
//! (what is asked about them), `asking`
//! (the way to the shards), `answer` (what is said), `error` (how it is refused), `health`, `exposition`
//! (metrics), `openapi.json` (what clients are told of all this).

mod access;
mod addressing;
mod answer;
mod asking;
mod command;
mod error;
mod exposition;
mod grouping;
mod groups;
mod health;
mod listing;
mod pattern;
mod rooms;
mod routes;
mod running;
mod serving;
mod target;
mod value;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::{Semaphore, watch};

use crate::config::Config;
use crate::ids::{Moment, ShardId};
use crate::mesh::{AdminInbox, Mailer};
use crate::metrics::Metrics;
use asking::Shards;
use groups::Groups;

/// Listings under way at a time: each call of one is a long piece of a shard's turn.
const LISTINGS_MAX: usize = 2;

/// Where the server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Serving,
    /// Shards close their connections: nothing new is begun.
    ShuttingDown,
    /// All shards have ended.
    Ending,
}

/// The server API before its thread runs: it has its address.
pub struct Sidecar {
    listener: TcpListener,
    address: SocketAddr,
}

/// What it works with.
pub struct Surroundings {
    pub config: Config,
    pub metrics: Metrics,
    /// To the shards.
    pub mailer: Mailer,
    /// From the shards.
    pub inbox: AdminInbox,
    /// The home of a topic.
    pub home: Box<dyn Fn(&str) -> ShardId + Send + Sync>,
    /// When the clock of all threads started, and its Unix time in milliseconds.
    pub started: Instant,
    pub unix_start: u64,
    pub stage: watch::Receiver<Stage>,
}

/// What all requests share.
struct Context {
    config: Config,
    metrics: Metrics,
    shards: Shards,
    home: Box<dyn Fn(&str) -> ShardId + Send + Sync>,
    started: Instant,
    unix_start: u64,
    stage: watch::Receiver<Stage>,
    listings: Semaphore,
    /// Only this thread has them: the lock is never waited for.
    groups: Mutex<Groups>,
}

impl Sidecar {
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address in use; tells the port where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until [`Stage::Ending`]. An error: it cannot go on.
    pub fn run(self, surroundings: Surroundings) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let Surroundings { config, metrics, mailer, inbox, home, started, unix_start, stage } =
                surroundings;
            let limits = (config.admin.max_groups, config.admin.max_group_users);
            let groups = Groups::new(config.auth.keys.groups(), limits.0, limits.1);
            let context = Arc::new(Context {
                shards: Shards::new(mailer, metrics.shards().len() as u16),
                config,
                metrics,
                home,
                started,
                unix_start,
                stage,
                listings: Semaphore::new(LISTINGS_MAX),
                groups: Mutex::new(groups),
            });
            serving::serve(tokio::net::TcpListener::from_std(self.listener)?, context, inbox).await
        })
    }
}

impl Context {
    /// Now, by the clock of the shards.
    fn now(&self) -> Moment {
        Moment::at(self.started.elapsed())
    }

    fn stage(&self) -> Stage {
        *self.stage.borrow()
    }
}
