//! The contract between the loop and the kernel, and its backends.
//!
//! The contract is completion-shaped: a backend says what the kernel has finished, the loop says
//! what it wants next. Callers see tokens and bytes, never descriptors or readiness.
//!
//! Order of calls: `poll` hands every completion to the [`Handler`], which changes the shard's state
//! and never calls the backend; then the loop calls `send`, `resume`, `shutdown` and `close` for the
//! connections that changed. Each token that `accepted` returned ends with exactly one `closed`,
//! after which the backend has forgotten it.

mod accept;
pub mod descriptors;
pub mod epoll;
mod frame_pool;
pub mod listener;
#[cfg(test)]
pub mod seeds;
mod send_queue;
pub mod sim;
#[cfg(feature = "uring")]
pub mod uring;
mod waker;

pub use frame_pool::{FRAME_OVERHEAD_BYTES, FrameClass, FrameId, FramePool};
pub use send_queue::SendQueue;
pub use waker::Waker;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::ids::{Moment, Token};

/// One shard's sockets.
pub trait Backend: Sized {
    /// Since the clock that all shards of the server share was started.
    fn elapsed(&self) -> Duration;

    /// The same in milliseconds.
    fn now(&self) -> Moment {
        Moment::at(self.elapsed())
    }

    /// Waits until something has finished, at most `timeout`, and hands it to `handler`.
    /// A bounded amount per call; what is left comes with the next one.
    fn poll(&mut self, timeout: Duration, handler: &mut impl Handler) -> io::Result<()>;

    /// Sends what `queue` holds, joined into as few system calls as pay off, and takes what the
    /// kernel accepted off it; or prepares that for [`Backend::submit`], until which the queue and its
    /// frames must stay as they are. At most one send of a connection is outstanding.
    fn send(&mut self, token: Token, queue: &mut SendQueue, frames: &mut FramePool) -> SendStatus;

    /// Does all sends that are [`SendStatus::Submitted`]: `submitted` tells of each before this returns.
    /// An error is the backend's: the shard cannot go on.
    fn submit(&mut self, handler: &mut impl Handler) -> io::Result<()>;

    /// Goes on receiving after [`Receive::Pause`].
    fn resume(&mut self, token: Token);

    /// Nothing more will be sent: the peer sees the end of the stream. Receiving goes on.
    fn shutdown(&mut self, token: Token);

    /// Ends in `closed`.
    fn close(&mut self, token: Token);

    /// No `accepted` comes after this.
    fn stop_accepting(&mut self);

    /// Ends a `poll` of this backend from another thread.
    fn waker(&self) -> Waker;
}

/// What the kernel finished. A handler changes shard state; it never calls the backend.
pub trait Handler {
    /// Whatever there was to do is done: the wait begins, so long after the clock was started.
    fn waits(&mut self, elapsed: Duration);

    /// The wait is over; what follows in this `poll` happens now, so long after the clock was started.
    fn woke(&mut self, elapsed: Duration);

    /// All that peers had sent when the wait was over has been handed over: who is silent now is silent,
    /// and not merely unheard.
    fn caught_up(&mut self);

    /// `None` refuses: the connection is dropped without a word.
    fn accepted(&mut self, peer: SocketAddr) -> Option<Token>;

    /// Accepting pauses: the process or the system is out of descriptors or memory. The backend
    /// tries again by itself.
    fn accept_paused(&mut self, error: &io::Error);

    /// `bytes` is borrowed: unmask in place, copy what must stay. Empty: the peer sends no more.
    fn received(&mut self, token: Token, bytes: &mut [u8]) -> Receive;

    /// A receive found all buffers of the backend in use. It is asked for again: nothing is lost.
    fn receive_starved(&mut self);

    /// A send that was [`SendStatus::Pending`] made progress: `count` bytes were accepted, or with
    /// 0 there is room again.
    fn sent(&mut self, token: Token, count: usize);

    /// A send that was [`SendStatus::Submitted`] is done: `count` bytes were accepted. Returns whether
    /// anything is left, of which `sent` tells when there is room.
    fn submitted(&mut self, token: Token, count: usize) -> SendStatus;

    /// The last event of a token: the one place that frees its slot.
    fn closed(&mut self, token: Token, reason: io::Result<()>);
}

/// Whether a connection wants more bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receive {
    More,
    /// Leave them with the peer until [`Backend::resume`].
    Pause,
}

/// How a send ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendStatus {
    /// The queue is empty.
    Drained,
    /// The kernel has no room, or the turn's share is used up: `sent` follows.
    Pending,
    /// Prepared: [`Backend::submit`] does it.
    Submitted,
}
