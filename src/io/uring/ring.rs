//! One io_uring: requests in, completions out. All memory that a request points to is the ring's own,
//! or stays with the caller until the completion where a function says so.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use rustix::io::Errno;
use socket2::{SockAddr, SockAddrStorage};

use super::buffers::{Buffer, Buffers};

/// Requests that may wait for one `enter`.
const REQUESTS_MAX: u32 = 512;
/// Completions that may wait; beyond them the kernel keeps a list.
const COMPLETIONS_MAX: u32 = 4 * REQUESTS_MAX;
const BUFFER_GROUP: u16 = 0;
const BUFFER_BYTES: usize = 16 << 10;
/// Longest wait for requests to end when a ring is dropped.
const CANCEL_SECONDS: u64 = 5;

/// An open file as requests name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// In the table of the process.
    Descriptor(RawFd),
    /// In the table of the ring.
    Slot(u32),
}

/// What a ring is made of.
#[derive(Debug, Clone, Copy)]
pub struct RingOptions {
    /// Slots of the ring's own table of files; at most the limit of open files of the process.
    /// `None`: files are in the table of the process.
    pub slots: Option<u32>,
    /// Receive buffers of 16 KiB, a power of two.
    pub buffers: u16,
    /// Accepts under way at a time.
    pub accepts: u16,
}

/// A request that has ended, or, with `more`, one of several results of it.
#[derive(Debug)]
pub struct Completion {
    pub user_data: u64,
    /// Not negative.
    pub result: io::Result<u32>,
    pub more: bool,
    pub buffer: Option<Buffer>,
}

/// Where an accept writes the address of the peer.
struct Address {
    storage: SockAddrStorage,
    length: libc::socklen_t,
}

/// One io_uring, of one thread: the one that enters it first.
pub struct Ring {
    ring: IoUring,
    buffers: Option<Buffers>,
    addresses: Vec<Address>,
    /// Addresses of dials that the kernel has not taken up.
    #[expect(clippy::vec_box, reason = "requests point to them while the list grows")]
    dialed: Vec<Box<[SockAddr; 2]>>,
    has_slots: bool,
    /// A new ring takes requests only from the thread that has enabled it.
    enabled: bool,
    /// Of an enter in the midst of requests: the next one tells it.
    failed: Option<io::Error>,
}

impl Ring {
    /// # Errors
    ///
    /// The kernel has no io_uring, or not all that is needed (6.1 has), or forbids it.
    pub fn new(options: RingOptions) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_cqsize(COMPLETIONS_MAX)
            .setup_clamp()
            .setup_submit_all()
            .setup_r_disabled()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(REQUESTS_MAX)?;
        if let Some(slots) = options.slots {
            ring.submitter().register_files_sparse(slots)?;
        }
        let buffers = Buffers::new(options.buffers, BUFFER_BYTES);
        // SAFETY: `drop` ends all requests before it frees the buffers.
        unsafe { buffers.register(&ring, BUFFER_GROUP)? };
        let address = || Address { storage: SockAddrStorage::zeroed(), length: 0 };
        Ok(Self {
            ring,
            buffers: Some(buffers),
            addresses: (0..options.accepts).map(|_| address()).collect(),
            dialed: Vec::new(),
            has_slots: options.slots.is_some(),
            enabled: false,
            failed: None,
        })
    }

    /// Has this event counted up when the ring has something to take up, as long as that is wanted.
    pub fn notify(&self, event: BorrowedFd<'_>) -> io::Result<()> {
        self.ring.submitter().register_eventfd(event.as_raw_fd())
    }

    /// Whether [`Ring::notify`] is wanted: it is not while somebody looks anyway.
    pub fn set_notifying(&mut self, wanted: bool) {
        let queue = self.ring.completion();
        if wanted { queue.enable_eventfd() } else { queue.disable_eventfd() }
    }

    /// Accepts one connection. The result is the new file, see [`Ring::accepted_file`]; the address of
    /// the peer is in place `index`, which one accept at a time may use.
    pub fn accept(&mut self, listener: BorrowedFd<'_>, index: u16, user_data: u64) {
        let address = &mut self.addresses[usize::from(index)];
        address.length = address.storage.size_of();
        // No SOCK_NONBLOCK: requests on such a file fail instead of waiting.
        let accept = opcode::Accept::new(
            Fd(listener.as_raw_fd()),
            (&raw mut address.storage).cast(),
            &raw mut address.length,
        );
        let entry = if self.has_slots {
            accept.file_index(Some(DestinationSlot::auto_target())).build()
        } else {
            accept.flags(libc::SOCK_CLOEXEC).build()
        };
        // SAFETY: the address stays where it is until `drop` has ended all requests.
        unsafe { self.push(entry.user_data(user_data)) };
    }

    /// The file of an accept's result.
    pub fn accepted_file(&self, result: u32) -> File {
        if self.has_slots { File::Slot(result) } else { File::Descriptor(result as RawFd) }
    }

    /// The peer of the accept that had this place.
    pub fn peer(&mut self, index: u16) -> Option<SocketAddr> {
        let address = &mut self.addresses[usize::from(index)];
        let storage = std::mem::replace(&mut address.storage, SockAddrStorage::zeroed());
        // SAFETY: the kernel has written an address of this length.
        unsafe { SockAddr::new(storage, address.length) }.as_socket()
    }

    /// Makes a socket in a slot that is free, and connects it from `source`. One completion if that
    /// works; if not, one with the cause and one for each step behind it (`ECANCELED`).
    pub fn dial(&mut self, slot: u32, source: SocketAddr, target: SocketAddr, user_data: u64) {
        let addresses = Box::new([SockAddr::from(source), SockAddr::from(target)]);
        let [source, target] = &*addresses;
        let domain = i32::from(target.family());
        let socket = opcode::Socket::new(domain, libc::SOCK_STREAM, 0)
            .file_index(DestinationSlot::try_from_slot_target(slot).ok())
            .build()
            .flags(Flags::IO_LINK | Flags::SKIP_SUCCESS);
        let bind = opcode::Bind::new(Fixed(slot), source.as_ptr().cast(), source.len())
            .build()
            .flags(Flags::IO_LINK | Flags::SKIP_SUCCESS);
        let connect =
            opcode::Connect::new(Fixed(slot), target.as_ptr().cast(), target.len()).build();
        let requests = [socket, bind, connect].map(|entry| entry.user_data(user_data));
        // SAFETY: the addresses stay until the kernel has taken them up: `enter` sees to it.
        unsafe { self.push_all(&requests) };
        // Not before: if the queue was full, that has been entered, and forgot all addresses.
        self.dialed.push(addresses);
    }

    /// Sends what the kernel has room for. Bytes of the program itself need no keeper.
    pub fn send_static(&mut self, file: File, bytes: &'static [u8], user_data: u64) {
        // SAFETY: they stay for good.
        unsafe { self.send(file, bytes, user_data) };
    }

    /// Receives into buffers until it is cancelled, fails, or the stream ends.
    pub fn receive(&mut self, file: File, user_data: u64) {
        let (number, flags) = target(file);
        let entry = opcode::RecvMulti::new(Fd(number), BUFFER_GROUP).build();
        // SAFETY: buffers are registered, and freed after all requests.
        unsafe { self.push(entry.flags(flags).user_data(user_data)) };
    }

    /// Sends what the kernel has room for, without waiting for more.
    ///
    /// # Safety
    ///
    /// `bytes` stay where they are, unchanged, until the completion has been taken up.
    pub unsafe fn send(&mut self, file: File, bytes: &[u8], user_data: u64) {
        let (number, flags) = target(file);
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(Fd(number), bytes.as_ptr(), length)
            // DONTWAIT: it ends within `enter`. WAITALL: a short one is told as it is.
            .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        // SAFETY: the caller's promise.
        unsafe { self.push(entry.flags(flags).user_data(user_data)) };
    }

    /// Ends once when the file has room to send, or fails.
    pub fn await_room(&mut self, file: File, user_data: u64) {
        let (number, flags) = target(file);
        let entry = opcode::PollAdd::new(Fd(number), libc::POLLOUT as u32).build();
        // SAFETY: points to no memory.
        unsafe { self.push(entry.flags(flags).user_data(user_data)) };
    }

    /// A result whenever `event` is counted up.
    pub fn watch(&mut self, event: BorrowedFd<'_>, user_data: u64) {
        let poll = opcode::PollAdd::new(Fd(event.as_raw_fd()), libc::POLLIN as u32).multi(true);
        // SAFETY: points to no memory.
        unsafe { self.push(poll.build().user_data(user_data)) };
    }

    /// Ends our side of a stream.
    pub fn shutdown(&mut self, file: File, user_data: u64) {
        let (number, flags) = target(file);
        let entry = opcode::Shutdown::new(Fd(number), libc::SHUT_WR).build();
        // SAFETY: points to no memory.
        unsafe { self.push(entry.flags(flags).user_data(user_data)) };
    }

    pub fn close(&mut self, file: File, user_data: u64) {
        let entry = match file {
            File::Descriptor(descriptor) => opcode::Close::new(Fd(descriptor)).build(),
            File::Slot(slot) => opcode::Close::new(Fixed(slot)).build(),
        };
        // SAFETY: points to no memory.
        unsafe { self.push(entry.user_data(user_data)) };
    }

    /// Ends the request with user data `target`, if there still is one.
    pub fn cancel(&mut self, target: u64, user_data: u64) {
        let entry = opcode::AsyncCancel::new(target).build();
        // SAFETY: points to no memory.
        unsafe { self.push(entry.user_data(user_data)) };
    }

    /// Ends all requests on this descriptor.
    pub fn cancel_all(&mut self, descriptor: BorrowedFd<'_>, user_data: u64) {
        let builder = CancelBuilder::fd(Fd(descriptor.as_raw_fd())).all();
        let entry = opcode::AsyncCancel2::new(builder).build();
        // SAFETY: points to no memory.
        unsafe { self.push(entry.user_data(user_data)) };
    }

    /// [`Ring::enter`] has something to do: there are requests, or the kernel says that it has
    /// completions to make. The latter may be said once too often, with nothing behind it.
    pub fn wants_enter(&mut self) -> bool {
        let queue = self.ring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    pub fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// Hands the kernel what was asked for, and lets it do what is due. With a `wait`, until there is a
    /// completion, at most that long.
    pub fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if !self.enabled {
            self.ring.submitter().register_enable_rings()?;
            self.enabled = true;
        }
        let outcome = match wait {
            None => self.ring.submitter().submit(),
            Some(wait) => {
                let wait = Timespec::from(wait);
                let arguments = SubmitArgs::new().timespec(&wait);
                self.ring.submitter().submit_with_args(1, &arguments)
            }
        };
        match outcome {
            Ok(_) => {
                // Addresses are copied when a request is taken up (IORING_FEAT_SUBMIT_STABLE).
                if self.ring.submission().is_empty() {
                    self.dialed.clear();
                }
                Ok(())
            }
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The next completion, in the order of the kernel.
    pub fn take(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        let result = match u32::try_from(entry.result()) {
            Ok(result) => Ok(result),
            Err(_) => Err(io::Error::from_raw_os_error(-entry.result())),
        };
        let flags = entry.flags();
        let buffer =
            cqueue::buffer_select(flags).zip(self.buffers.as_mut()).map(|(id, buffers)| {
                let bytes = result.as_ref().map_or(0, |bytes| *bytes as usize);
                // SAFETY: of this very completion.
                unsafe { buffers.take_up(id, bytes) }
            });
        let more = cqueue::more(flags);
        Some(Completion { user_data: entry.user_data(), result, more, buffer })
    }

    /// What a receive has brought.
    pub fn bytes<'a>(&'a mut self, buffer: &'a Buffer) -> &'a mut [u8] {
        self.buffers.as_mut().map_or(&mut [], |buffers| buffers.bytes(buffer))
    }

    /// Every buffer of a completion comes back here.
    pub fn recycle(&mut self, buffer: Buffer) {
        if let Some(buffers) = &mut self.buffers {
            buffers.recycle(buffer);
        }
    }

    /// Buffers of completions that have not come back.
    pub fn buffers_out(&self) -> u16 {
        self.buffers.as_ref().map_or(0, Buffers::out)
    }

    /// # Safety
    ///
    /// What the entry points to is valid until its completion.
    unsafe fn push(&mut self, entry: Entry) {
        // SAFETY: as above.
        unsafe { self.push_all(&[entry]) };
    }

    /// Several that are linked: they reach the kernel together.
    ///
    /// # Safety
    ///
    /// As of [`Ring::push`].
    unsafe fn push_all(&mut self, entries: &[Entry]) {
        // SAFETY: as above.
        while unsafe { self.ring.submission().push_multiple(entries) }.is_err() {
            // Full: the kernel takes what there is.
            if let Err(error) = self.enter(None) {
                self.failed = Some(error);
                return;
            }
        }
    }
}

impl Drop for Ring {
    /// Frees what requests point to only when there are none any more.
    fn drop(&mut self) {
        if !self.enabled {
            return;
        }
        let timeout = Some(Timespec::new().sec(CANCEL_SECONDS));
        let cancelled =
            self.ring.submitter().register_sync_cancel(timeout, CancelBuilder::any().all());
        let ended = match cancelled {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(Errno::NOENT.raw_os_error()),
        };
        if !ended {
            std::mem::forget(self.buffers.take());
            std::mem::forget(std::mem::take(&mut self.addresses));
        }
    }
}

/// How a request names the file: a number, and whose table it is of.
fn target(file: File) -> (i32, Flags) {
    match file {
        File::Descriptor(descriptor) => (descriptor, Flags::empty()),
        File::Slot(slot) => (slot as i32, Flags::FIXED_FILE),
    }
}

/// The wait is over, was interrupted, or the kernel wants completions to be taken up first.
fn is_passing(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN))
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
