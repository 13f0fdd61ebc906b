//! The backends of all shards: which kind it is, and what it needs.

use std::io;
use std::net::TcpListener;
use std::time::Instant;

use crate::config::{BackendChoice, Config};
use crate::io::descriptors;
use crate::io::epoll::Epoll;
#[cfg(feature = "uring")]
use crate::io::uring::{DirectDescriptors, Uring};
use crate::shard::TURNED_AWAY_MAX;

/// One backend for each shard, all of one kind.
pub enum Backends {
    Epoll(Vec<Epoll>),
    #[cfg(feature = "uring")]
    Uring(Vec<Uring>),
}

/// Descriptors that are no client's: standard streams, the log, signals, and per shard the poll, the
/// listener and the waker.
const DESCRIPTORS_KEPT: u64 = 32;
const DESCRIPTORS_PER_SHARD: u64 = 4;

/// How many connections a server may have, and why not more.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Open files of one table of descriptors.
    open_files: u64,
    shards: usize,
    /// Of these, for those who are told that there is no room.
    turned_away: u64,
}

impl Capacity {
    /// `open_files`: the limit of this process.
    pub fn new(open_files: u64, shards: usize) -> Self {
        let turned_away = (TURNED_AWAY_MAX as u64).min(open_files / 8);
        Self { open_files, shards, turned_away }
    }

    /// Connections in one table of descriptors.
    fn shared(self) -> usize {
        let kept = DESCRIPTORS_KEPT + DESCRIPTORS_PER_SHARD * self.shards as u64;
        self.open_files.saturating_sub(kept + self.turned_away).max(1) as usize
    }

    /// Connections with a table for each shard, which has the wakers of all.
    fn unshared(self) -> usize {
        let shards = self.shards as u64;
        let places =
            self.open_files.saturating_sub(DESCRIPTORS_KEPT + DESCRIPTORS_PER_SHARD + shards);
        // Those who are turned away have the room that is there because no shard gets just its share.
        let uneven = if shards > 1 { places - evenly_filled(places) } else { 0 };
        let spare = uneven.max(self.turned_away.div_ceil(shards));
        (places.saturating_sub(spare).max(1) as usize).saturating_mul(self.shards)
    }
}

/// How many connections of a shard with so many places are its share: the kernel spreads them by their
/// addresses, so a shard may get some more. [`uneven`] undoes it.
fn evenly_filled(places: u64) -> u64 {
    places - places.div_ceil(21)
}

/// Places for a shard whose share of connections this is.
#[cfg(feature = "uring")]
fn uneven(share: usize) -> usize {
    share + share / 20
}

impl Backends {
    /// Takes over the listeners, one for each shard. With `auto`, epoll where the kernel has no
    /// io_uring.
    pub fn new(
        config: &Config,
        listeners: Vec<TcpListener>,
        clock: Instant,
        capacity: Capacity,
    ) -> io::Result<Self> {
        let unshares = config.server.unshare_descriptors;
        if unshares {
            descriptors::probe().map_err(cannot_unshare)?;
        }
        match config.server.backend {
            BackendChoice::Epoll if config.server.direct_descriptors => Err(needs_uring()),
            BackendChoice::Uring if unshares => Err(needs_epoll()),
            BackendChoice::Auto if unshares && config.server.direct_descriptors => {
                Err(needs_epoll())
            }
            BackendChoice::Auto if unshares => Self::epoll(listeners, clock),
            BackendChoice::Epoll => Self::epoll(listeners, clock),
            BackendChoice::Uring => Self::uring(config, listeners, clock, capacity),
            BackendChoice::Auto if config.server.direct_descriptors => {
                Self::uring(config, listeners, clock, capacity)
            }
            BackendChoice::Auto => {
                let copies = listeners.iter().map(TcpListener::try_clone);
                let copies = copies.collect::<io::Result<_>>()?;
                Self::uring(config, copies, clock, capacity).or_else(|error| {
                    tracing::info!(%error, "no io_uring, so epoll");
                    for listener in &listeners {
                        listener.set_nonblocking(true)?;
                    }
                    Self::epoll(listeners, clock)
                })
            }
        }
    }

    fn epoll(listeners: Vec<TcpListener>, clock: Instant) -> io::Result<Self> {
        let backends = listeners.into_iter().map(|listener| Epoll::new(listener, clock));
        backends.collect::<io::Result<_>>().map(Self::Epoll)
    }

    #[cfg(feature = "uring")]
    fn uring(
        config: &Config,
        listeners: Vec<TcpListener>,
        clock: Instant,
        capacity: Capacity,
    ) -> io::Result<Self> {
        let direct = direct_descriptors(config, capacity);
        let backends = listeners.into_iter().map(|listener| Uring::new(listener, clock, direct));
        let explain = |error: io::Error| {
            io::Error::new(error.kind(), format!("io_uring: {error}{}", advice(&error)))
        };
        backends.collect::<io::Result<_>>().map(Self::Uring).map_err(explain)
    }

    #[cfg(not(feature = "uring"))]
    fn uring(_: &Config, _: Vec<TcpListener>, _: Instant, _: Capacity) -> io::Result<Self> {
        let text = "io_uring: this program was built without it; add `--features uring`";
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Epoll(_) => "epoll",
            #[cfg(feature = "uring")]
            Self::Uring(_) => "io_uring",
        }
    }
}

/// Connections that a server with this configuration can have.
pub fn affordable(config: &Config, capacity: Capacity) -> usize {
    #[cfg(feature = "uring")]
    if let Some(direct) = direct_descriptors(config, capacity) {
        let slots = direct.slots as usize * usize::from(direct.rings_max);
        return slots.saturating_sub(spare_slots(direct.slots as usize)) * capacity.shards;
    }
    if config.server.unshare_descriptors { capacity.unshared() } else { capacity.shared() }
}

/// Slots of a shard that no connection gets: accepts under way, and those who are told that there is
/// no room. Of a small table not more than a part: it is for connections.
#[cfg(feature = "uring")]
fn spare_slots(table: usize) -> usize {
    (TURNED_AWAY_MAX + 64).min(table / 4)
}

/// Rings for as many connections as are asked for; for one ring's worth each if no number is given.
#[cfg(feature = "uring")]
fn direct_descriptors(config: &Config, capacity: Capacity) -> Option<DirectDescriptors> {
    /// The kernel's own limit for one table.
    const SLOTS_MAX: u64 = 1 << 15;
    if !config.server.direct_descriptors {
        return None;
    }
    let slots = capacity.open_files.min(SLOTS_MAX);
    let rings = config.limits.max_connections.map_or(1, |connections| {
        let share = connections.div_ceil(capacity.shards);
        (uneven(share) + spare_slots(slots as usize)).div_ceil(slots as usize)
    });
    Some(DirectDescriptors {
        slots: slots as u32,
        rings_max: u16::try_from(rings).unwrap_or(u16::MAX),
    })
}

fn needs_uring() -> io::Error {
    let text = "server.direct_descriptors needs server.backend = \"uring\"";
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn needs_epoll() -> io::Error {
    let text = "server.unshare_descriptors needs server.backend = \"epoll\"; with io_uring, \
                server.direct_descriptors is what lifts the open-file limit";
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn cannot_unshare(error: io::Error) -> io::Error {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; unshare(2) is forbidden, as by the seccomp profile of a container: allow it there, or \
             leave this off"
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("server.unshare_descriptors: {error}{advice}"))
}

/// What to do where the kernel says no.
#[cfg(feature = "uring")]
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; io_uring is forbidden, by the sysctl kernel.io_uring_disabled or by the seccomp \
             profile of a container: allow it there, or use --backend epoll"
        }
        io::ErrorKind::OutOfMemory => {
            "; its rings need more memory than this process may lock: raise `ulimit -l` \
             (LimitMEMLOCK= of systemd) or grant CAP_IPC_LOCK, or use --backend epoll"
        }
        io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput => {
            "; this kernel is too old (6.1 is needed): use --backend epoll"
        }
        _ => "",
    }
}
