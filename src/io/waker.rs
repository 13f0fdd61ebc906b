//! Ends another thread's wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Wakes one shard. Waking a shard that is awake makes its next wait return at once.
#[derive(Debug, Clone)]
pub enum Waker {
    Kernel(Arc<mio::Waker>),
    /// An eventfd.
    #[cfg(feature = "uring")]
    Event(Arc<std::os::fd::OwnedFd>),
    /// Of the simulated backend: a flag that its next `poll` takes down.
    Simulated(Arc<AtomicBool>),
}

impl Waker {
    pub fn wake(&self) {
        match self {
            // An eventfd write fails only with EAGAIN at 2^64-2 unread wakes: it is awake then.
            Self::Kernel(waker) => drop(waker.wake()),
            #[cfg(feature = "uring")]
            Self::Event(event) => drop(rustix::io::write(event, &1u64.to_ne_bytes())),
            Self::Simulated(flag) => flag.store(true, Ordering::Release),
        }
    }
}
