//! Why a server does not start, or stops.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::ids::ShardId;
use crate::log::LogError;

/// Why the server does not start.
#[derive(Debug)]
pub enum StartError {
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
    /// The address of the server API.
    Admin {
        address: SocketAddr,
        error: io::Error,
    },
    /// What a handler was to be for.
    Route {
        kind: String,
        reason: String,
    },
    /// The target of a route.
    Bridge(io::Error),
    Backend(io::Error),
    Thread(io::Error),
    Signals(io::Error),
    Randomness(getrandom::Error),
    Log(LogError),
}

/// Why the server stopped although nobody asked for it, or not as it should.
#[derive(Debug)]
pub enum RunError {
    Start(StartError),
    Shard {
        shard: ShardId,
        error: io::Error,
    },
    ShardPanicked(ShardId),
    /// The durable log could not be ended in order.
    Log(io::Error),
    LogPanicked,
    /// The server API cannot go on.
    Admin(io::Error),
    AdminPanicked,
    /// Nothing can be routed outside any more.
    Bridge(io::Error),
    BridgePanicked,
    CheckerPanicked,
    /// These did not end in time.
    ShutdownTimeout(Vec<ShardId>),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { address, error } => write!(f, "cannot listen on {address}: {error}"),
            Self::Admin { address, error } => {
                write!(f, "the server API cannot listen on {address}: {error}")
            }
            Self::Bridge(error) => write!(f, "cannot route outside: {error}"),
            Self::Route { kind, reason } => {
                write!(f, "a route for `{}`: {reason}", kind.escape_debug())
            }
            Self::Backend(error) => write!(f, "cannot set up the backend: {error}"),
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
            Self::Signals(error) => write!(f, "cannot handle signals: {error}"),
            Self::Randomness(error) => write!(f, "the kernel gives no randomness: {error}"),
            Self::Log(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Shard { shard, error } => write!(f, "{shard} cannot go on: {error}"),
            Self::ShardPanicked(shard) => write!(f, "{shard} panicked; this is a bug"),
            Self::Log(error) => write!(f, "the durable log did not end in order: {error}"),
            Self::Admin(error) => write!(f, "the server API cannot go on: {error}"),
            Self::AdminPanicked => f.write_str("the server API panicked; this is a bug"),
            Self::Bridge(error) => write!(f, "the bridge cannot go on: {error}"),
            Self::BridgePanicked => f.write_str("the bridge panicked; this is a bug"),
            Self::CheckerPanicked => f.write_str("the checker of schemas panicked; this is a bug"),
            Self::LogPanicked => f.write_str("the durable log panicked; this is a bug"),
            Self::ShutdownTimeout(shards) if shards.is_empty() => {
                f.write_str("the durable log or the bridge did not end in time")
            }
            Self::ShutdownTimeout(shards) => {
                let shards: Vec<_> = shards.iter().map(ToString::to_string).collect();
                write!(f, "{} did not end in time", shards.join(", "))
            }
        }
    }
}

impl std::error::Error for StartError {}
impl std::error::Error for RunError {}
