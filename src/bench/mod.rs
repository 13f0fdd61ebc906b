//! The load generator of `stentor bench`: few threads that drive many sockets against any server, prove
//! that what comes back is what was sent, and say what it cost the server.
//!
//! `target` says how the server is spoken to, `fleet` holds the connections, `stamp` and `ledger` are
//! the proof, `meter` and `cost` the measurement, `team` the threads. A scenario (`fanout`, `echo`, `connect`, `idle`,
//! `slow`, `durable`, `replay`, `resume`) puts them together into a [`Summary`], and `table` and `report` show it.

mod acked;
mod answer;
mod audience;
mod broadcast;
mod clock;
mod conditions;
pub mod connect;
mod cost;
pub mod durable;
pub mod echo;
mod ending;
pub mod fanout;
mod fleet;
mod flights;
mod frame;
pub mod idle;
mod ledger;
mod meter;
mod muster;
mod outcome;
mod probe;
#[cfg(feature = "uring")]
pub mod reach;
pub mod replay;
mod replayed;
pub mod report;
pub mod resume;
mod returning;
pub mod slow;
mod source;
mod stamp;
mod summary;
mod table;
mod target;
mod team;
#[cfg(test)]
mod tests;

pub use audience::Shape;
pub use broadcast::{BroadcastPlan, Pace};
pub use clock::Clock;
pub use conditions::Conditions;
pub use cost::ServerProcess;
pub use fleet::FleetOptions;
pub use ledger::Faults;
pub use probe::Probing;
pub use returning::{By, Crew};
pub use stamp::DATA_BYTES_MIN;
pub use summary::{Figure, Latency, Summary};
pub use target::{Dialect, Target, TargetError};

/// Upgrades under way at a time, where they are not what is measured.
pub const CONCURRENCY: usize = 256;
