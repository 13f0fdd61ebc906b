//! A table of descriptors for each thread, so that each has the limit of open files to itself.
//!
//! A thread that leaves the common table takes a copy of it along: whatever is open then stays open in
//! every copy until each thread closes its own. What must end when its owner closes it (a listener,
//! above all: the kernel goes on filling its queue) is therefore closed by all others at once. What is
//! used across threads was opened before, and has the same number everywhere: the wakers, and the
//! standard streams.

use std::io;
use std::os::fd::RawFd;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// How threads part with the common table.
pub struct Tables {
    /// By thread: what no other may keep open.
    owned: Vec<Vec<RawFd>>,
    /// All have parted, or could not.
    parted: Barrier,
    failed: AtomicBool,
}

impl Tables {
    /// `owned`: for each thread the descriptors that are its alone, all open now. They stay open, and
    /// nothing else is opened, until [`Tables::leave`] has returned.
    pub fn new(owned: Vec<Vec<RawFd>>) -> Self {
        let parted = Barrier::new(owned.len() + 1);
        Self { owned, parted, failed: AtomicBool::new(false) }
    }

    /// Gives the calling thread a table of its own: the first thing that thread `index` does. Waits for
    /// all the others, and for [`Tables::leave`].
    ///
    /// # Errors
    ///
    /// The kernel has no memory for it, or forbids it, see [`probe`]. The thread is in the common table.
    pub fn part(&self, index: usize) -> io::Result<()> {
        let outcome = unshare();
        match outcome {
            Ok(()) => {
                let others = self.owned.iter().enumerate().filter(|(other, _)| *other != index);
                close_all(others.flat_map(|(_, owned)| owned));
            }
            Err(_) => self.failed.store(true, Ordering::Relaxed),
        }
        self.parted.wait();
        outcome
    }

    /// Waits until all threads have parted, and closes what they own in the table that they have left:
    /// that of the calling thread.
    pub fn leave(&self) {
        self.parted.wait();
        // Who is still in this table owns descriptors here, and is about to say why it ends.
        if !self.failed.load(Ordering::Relaxed) {
            close_all(self.owned.iter().flatten());
        }
    }
}

/// Whether threads may have tables of their own: a system call that profiles of containers forbid.
///
/// # Errors
///
/// Why not.
pub fn probe() -> io::Result<()> {
    let thread = thread::Builder::new().spawn(unshare)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

fn unshare() -> io::Result<()> {
    // SAFETY: of what was open before, only what stays open in all tables is used by other threads
    // than its owner, see above; what is opened later stays with its thread.
    unsafe { unshare_unsafe(UnshareFlags::FILES) }.map_err(io::Error::from)
}

fn close_all<'a>(descriptors: impl Iterator<Item = &'a RawFd>) {
    for &descriptor in descriptors {
        // SAFETY: in this table it is a copy that nobody owns: its owner has another table.
        unsafe { rustix::io::close(descriptor) };
    }
}
