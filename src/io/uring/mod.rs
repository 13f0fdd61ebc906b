//! The io_uring backend: completions as the kernel gives them.
//!
//! A shard owns one ring, or several where connections are in the tables of the rings (direct
//! descriptors): a ring's table is limited to `RLIMIT_NOFILE`, their number is not. All are entered by
//! the shard's thread, those without news are only looked at.
//!
//! Sends of a turn go to the kernel together ([`Backend::submit`]). They never wait (`MSG_DONTWAIT`),
//! so all of them have ended when `submit` returns, and nothing of a frame is referred to any more.
//! Where there is no room, a poll request waits for it, as in the epoll backend.
//!
//! Accepts are single requests, not a multishot: each has the address of its peer, there are never more
//! of them than free slots, and a turn takes a bounded number.

mod accepting;
mod buffers;
mod holding;
pub mod ring;
mod tag;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::{Backend, FramePool, Handler, Receive, SendQueue, SendStatus, Waker};
use crate::ids::Token;
use buffers::Buffer;
use holding::Held;
use ring::{Completion, File, Ring, RingOptions};
use tag::{Kind, tag, tag_place, untag};

/// Completions taken per turn, see the epoll backend.
const EVENTS_MAX: usize = 64;
/// Accepts under way.
const ACCEPTS: u16 = 64;
/// Where the frames of a turn are joined.
const ARENA_BYTES: usize = 1 << 20;
/// Receive buffers of a ring that is the only one of its shard, and of one of several.
const BUFFERS: u16 = 256;
const BUFFERS_OF_MANY: u16 = 128;

#[derive(Debug, Clone, Copy)]
struct Socket {
    file: File,
    generation: u32,
    ring: u16,
    /// Between `accepted` and `close`.
    open: bool,
    /// The shard wants no bytes now.
    paused: bool,
    /// A receive request is under way.
    receiving: bool,
    /// A request for room is under way.
    awaiting_room: bool,
    /// A request that ends our side is under way.
    shutting: bool,
}

/// A ring and what is under way in it.
struct Lane {
    ring: Ring,
    /// Files of connections and of accepts under way.
    files: u32,
    /// Places whose accept is not under way.
    idle_accepts: Vec<u16>,
    /// Sends whose completions have not been taken up.
    sends: usize,
}

/// Connections in the tables of the rings.
#[derive(Debug, Clone, Copy)]
pub struct DirectDescriptors {
    /// Of one ring: at most the limit of open files of the process.
    pub slots: u32,
    /// Rings of this shard.
    pub rings_max: u16,
}

/// One shard's sockets under io_uring.
pub struct Uring {
    direct: Option<DirectDescriptors>,
    lanes: Vec<Lane>,
    /// The lane that is looked at first in this turn: none is always the last.
    first: usize,
    clock: Instant,
    /// Counted up by other threads, and by all rings but the first, which is the one that sleeps.
    event: Arc<OwnedFd>,
    watching: bool,
    listener: Option<TcpListener>,
    /// Accepts under way in all rings.
    accepting: u16,
    accept_retry: Option<Instant>,
    /// By slot.
    sockets: Vec<Option<Socket>>,
    held: HashMap<u32, Held>,
    /// Files to close when the shutdown with this user data has ended. The kernel does it on a thread
    /// of its own and looks the file up there: closed before, another might have its number.
    closing: HashMap<u64, File>,
    /// The peer has ended its side, which the next turn tells: what it has sent before is answered first.
    ended: Vec<Token>,
    /// Resumed: take up what is held, and receive again.
    resumed: VecDeque<Token>,
    /// The turn's share of sending is used up, or the arena.
    unfinished: Vec<Token>,
    closed: Vec<(Token, io::Result<()>)>,
    /// Came while sends were waited for.
    deferred: VecDeque<(u16, Completion)>,
    arena: Box<[u8]>,
    arena_used: usize,
}

impl Uring {
    /// `clock` is the start of the time that all shards share. May be used by another thread than
    /// the one that creates it.
    ///
    /// # Errors
    ///
    /// This kernel has no io_uring, lacks something of it, or forbids it.
    pub fn new(
        listener: TcpListener,
        clock: Instant,
        direct: Option<DirectDescriptors>,
    ) -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Accept requests wait by themselves; on a non-blocking file they would fail instead.
        listener.set_nonblocking(false)?;
        let mut uring = Self {
            direct,
            lanes: Vec::new(),
            first: 0,
            clock,
            event: Arc::new(event),
            watching: false,
            listener: Some(listener),
            accepting: 0,
            accept_retry: None,
            sockets: Vec::new(),
            held: HashMap::new(),
            closing: HashMap::new(),
            ended: Vec::new(),
            resumed: VecDeque::new(),
            unfinished: Vec::new(),
            closed: Vec::new(),
            deferred: VecDeque::new(),
            arena: vec![0; ARENA_BYTES].into_boxed_slice(),
            arena_used: 0,
        };
        uring.add_lane()?;
        Ok(uring)
    }

    fn add_lane(&mut self) -> io::Result<()> {
        let many = self.direct.is_some_and(|direct| direct.rings_max > 1);
        let ring = Ring::new(RingOptions {
            slots: self.direct.map(|direct| direct.slots),
            buffers: if many { BUFFERS_OF_MANY } else { BUFFERS },
            accepts: ACCEPTS,
        })?;
        if !self.lanes.is_empty() {
            ring.notify(self.event.as_fd())?;
        }
        let idle_accepts = (0..ACCEPTS).collect();
        self.lanes.push(Lane { ring, files: 0, idle_accepts, sends: 0 });
        Ok(())
    }

    fn socket(&mut self, token: Token) -> Option<&mut Socket> {
        self.sockets
            .get_mut(token.index())?
            .as_mut()
            .filter(|socket| socket.generation == token.generation && socket.open)
    }

    /// Gives the file back; `closed` follows with the next `poll`.
    fn end(&mut self, token: Token, reason: io::Result<()>) {
        let Some(socket) = self.socket(token) else { return };
        socket.open = false;
        let socket = *socket;
        let ring = &mut self.lanes[usize::from(socket.ring)].ring;
        // A request holds the file open: it goes first.
        if socket.receiving {
            ring.cancel(tag(Kind::Receive, token), tag_place(Kind::Other, 0));
        }
        if socket.awaiting_room {
            ring.cancel(tag(Kind::Room, token), tag_place(Kind::Other, 0));
        }
        if socket.shutting {
            self.closing.insert(tag(Kind::Shutdown, token), socket.file);
        } else {
            ring.close(socket.file, tag_place(Kind::Close, 0));
        }
        self.held.remove(&token.slot);
        self.closed.push((token, reason));
    }

    /// One completion.
    fn complete(&mut self, lane_index: u16, completion: Completion, handler: &mut impl Handler) {
        let (kind, token) = untag(completion.user_data);
        let Completion { result, more, buffer, user_data } = completion;
        match kind {
            Kind::Accept => self.accepted(lane_index, token.slot as u16, result, handler),
            Kind::Receive => self.received(lane_index, token, result, more, buffer, handler),
            Kind::Room => {
                if let Some(socket) = self.socket(token) {
                    socket.awaiting_room = false;
                    // An error shows with the next send.
                    handler.sent(token, 0);
                }
            }
            Kind::Close => self.lanes[usize::from(lane_index)].files -= 1,
            Kind::Shutdown => {
                if let Some(file) = self.closing.remove(&user_data) {
                    let ring = &mut self.lanes[usize::from(lane_index)].ring;
                    ring.close(file, tag_place(Kind::Close, 0));
                } else if let Some(socket) = self.socket(token) {
                    socket.shutting = false;
                }
            }
            Kind::Wake => self.watching &= more,
            Kind::Send | Kind::Other => {}
        }
    }

    /// Bytes have come, or the receive request has ended.
    fn received(
        &mut self,
        lane_index: u16,
        token: Token,
        result: io::Result<u32>,
        more: bool,
        buffer: Option<Buffer>,
        handler: &mut impl Handler,
    ) {
        let is_open = self.socket(token).is_some();
        let holds = self.holds(token);
        let paused = self.socket(token).is_some_and(|socket| {
            socket.receiving = more;
            socket.paused || holds
        });
        let ring = &mut self.lanes[usize::from(lane_index)].ring;
        let mut wanted = Receive::More;
        if let Some(buffer) = buffer {
            if paused {
                self.held.entry(token.slot).or_default().add(ring.bytes(&buffer));
            } else if is_open && result.as_ref().is_ok_and(|bytes| *bytes > 0) {
                wanted = handler.received(token, ring.bytes(&buffer));
            }
            ring.recycle(buffer);
        }
        if !is_open {
            return;
        }
        if result.as_ref().is_err_and(|error| has_errno(error, &[Errno::NOBUFS])) {
            handler.receive_starved();
        }
        let end = match result {
            Ok(0) => Some(Ok(())),
            Ok(_) => None,
            Err(error) if is_again(&error) => None,
            Err(error) => Some(Err(error)),
        };
        match end {
            Some(end) if paused => self.hold_end(token, end),
            Some(Ok(())) => self.ended.push(token),
            Some(Err(error)) => self.end(token, Err(error)),
            None if wanted == Receive::Pause => self.pause(token),
            None if !paused => self.receive_again(token),
            None => {}
        }
    }

    /// Receives if it does not yet.
    fn receive_again(&mut self, token: Token) {
        let Some(socket) = self.socket(token) else { return };
        if !socket.receiving {
            socket.receiving = true;
            let socket = *socket;
            let ring = &mut self.lanes[usize::from(socket.ring)].ring;
            ring.receive(socket.file, tag(Kind::Receive, token));
        }
    }

    /// What earlier turns left.
    fn leftovers(&mut self, handler: &mut impl Handler) {
        for (token, reason) in std::mem::take(&mut self.closed) {
            handler.closed(token, reason);
        }
        for token in std::mem::take(&mut self.unfinished) {
            handler.sent(token, 0);
        }
        self.tell_ends(handler);
        self.take_up_resumed(handler);
    }

    /// Invariant: between turns every buffer is the kernel's, but those of completions that wait.
    fn holds_no_buffer(&self) -> bool {
        let waiting = |(_, completion): &&(u16, Completion)| completion.buffer.is_some();
        let waiting = self.deferred.iter().filter(waiting).count();
        waiting == self.lanes.iter().map(|lane| usize::from(lane.ring.buffers_out())).sum::<usize>()
    }

    /// Enters the rings that have something to do, and waits if none has news.
    fn enter(&mut self, timeout: Duration) -> io::Result<()> {
        if !self.watching {
            self.watching = true;
            self.lanes[0].ring.watch(self.event.as_fd(), tag_place(Kind::Wake, 0));
        }
        let [first, others @ ..] = &mut self.lanes[..] else { return Ok(()) };
        let sleepy = !timeout.is_zero() && !first.ring.has_completions();
        let mut news = false;
        for lane in &mut *others {
            // Before the last look, so that what comes behind it is told.
            lane.ring.set_notifying(sleepy);
            if lane.ring.wants_enter() {
                lane.ring.enter(None)?;
            }
            news |= lane.ring.has_completions();
        }
        if sleepy && !news {
            first.ring.enter(Some(timeout))?;
            for lane in others {
                lane.ring.set_notifying(false);
                if lane.ring.wants_enter() {
                    lane.ring.enter(None)?;
                }
            }
        } else if first.ring.wants_enter() {
            first.ring.enter(None)?;
        }
        Ok(())
    }

    /// Takes up completions, a bounded number.
    fn take_up(&mut self, handler: &mut impl Handler) -> io::Result<()> {
        let mut events = 0;
        while events < EVENTS_MAX
            && let Some((lane, completion)) = self.deferred.pop_front()
        {
            self.complete(lane, completion, handler);
            events += 1;
        }
        let lanes = self.lanes.len();
        self.first = (self.first + 1) % lanes;
        for index in (self.first..lanes).chain(0..self.first) {
            loop {
                while events < EVENTS_MAX
                    && let Some(completion) = self.lanes[index].ring.take()
                {
                    self.complete(index as u16, completion, handler);
                    events += 1;
                }
                // The kernel hands out some twenty at a time.
                let ring = &mut self.lanes[index].ring;
                if events >= EVENTS_MAX {
                    return Ok(());
                }
                if !ring.wants_enter() {
                    break;
                }
                ring.enter(None)?;
                if !ring.has_completions() {
                    break;
                }
            }
        }
        handler.caught_up();
        Ok(())
    }

    /// There is something to do that no completion will tell.
    fn is_pending(&self) -> bool {
        !self.resumed.is_empty()
            || !self.ended.is_empty()
            || !self.closed.is_empty()
            || !self.unfinished.is_empty()
            || !self.deferred.is_empty()
    }

    /// A send has ended.
    fn finish_send(&mut self, token: Token, result: io::Result<u32>, handler: &mut impl Handler) {
        let Some(socket) = self.socket(token) else { return };
        match result {
            Ok(count) => {
                if handler.submitted(token, count as usize) == SendStatus::Pending {
                    self.unfinished.push(token);
                }
            }
            Err(error) if is_again(&error) => {
                handler.submitted(token, 0);
                socket.awaiting_room = true;
                let socket = *socket;
                let ring = &mut self.lanes[usize::from(socket.ring)].ring;
                ring.await_room(socket.file, tag(Kind::Room, token));
            }
            Err(error) => {
                handler.submitted(token, 0);
                self.end(token, Err(error));
            }
        }
    }
}

/// Nothing is wrong: asked again, the kernel does it. No buffer was free, or it was cancelled.
fn is_again(error: &io::Error) -> bool {
    has_errno(error, &[Errno::AGAIN, Errno::INTR, Errno::NOBUFS, Errno::CANCELED])
}

fn has_errno(error: &io::Error, wanted: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|errno| wanted.contains(&Errno::from_raw_os_error(errno)))
}

impl Backend for Uring {
    fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    fn poll(&mut self, timeout: Duration, handler: &mut impl Handler) -> io::Result<()> {
        debug_assert!(self.holds_no_buffer(), "a receive buffer is lost");
        // Whatever is left over changes what the shard wants next: it must not wait then.
        let timeout = if self.is_pending() { Duration::ZERO } else { timeout };
        self.leftovers(handler);
        self.arm_accepts(handler);
        let timeout = self
            .accept_retry
            .map_or(timeout, |retry| timeout.min(retry.saturating_duration_since(Instant::now())));
        handler.waits(self.elapsed());
        self.enter(timeout)?;
        handler.woke(self.elapsed());
        self.take_up(handler)
    }

    fn send(&mut self, token: Token, queue: &mut SendQueue, frames: &mut FramePool) -> SendStatus {
        let Some(socket) = self.socket(token).copied() else { return SendStatus::Pending };
        let arena = &mut self.arena[self.arena_used..];
        let begin = arena.as_ptr();
        let bytes = queue.gather(frames, arena);
        if bytes.as_ptr() == begin {
            self.arena_used += bytes.len();
        }
        let lane = &mut self.lanes[usize::from(socket.ring)];
        // SAFETY: `submit` comes before the queue changes or the arena is used again, and returns
        // when this has ended.
        unsafe { lane.ring.send(socket.file, bytes, tag(Kind::Send, token)) };
        lane.sends += 1;
        SendStatus::Submitted
    }

    fn submit(&mut self, handler: &mut impl Handler) -> io::Result<()> {
        for index in 0..self.lanes.len() {
            let mut wait = None;
            while self.lanes[index].sends > 0 {
                self.lanes[index].ring.enter(wait)?;
                while let Some(completion) = self.lanes[index].ring.take() {
                    let (kind, token) = untag(completion.user_data);
                    if kind == Kind::Send {
                        self.lanes[index].sends -= 1;
                        self.finish_send(token, completion.result, handler);
                    } else {
                        self.deferred.push_back((index as u16, completion));
                    }
                }
                wait = Some(Duration::from_millis(1));
            }
        }
        self.arena_used = 0;
        Ok(())
    }

    fn resume(&mut self, token: Token) {
        self.unpause(token);
    }

    fn shutdown(&mut self, token: Token) {
        if let Some(socket) = self.socket(token) {
            socket.shutting = true;
            let socket = *socket;
            let ring = &mut self.lanes[usize::from(socket.ring)].ring;
            ring.shutdown(socket.file, tag(Kind::Shutdown, token));
        }
    }

    fn close(&mut self, token: Token) {
        self.end(token, Ok(()));
    }

    fn stop_accepting(&mut self) {
        if let Some(listener) = self.listener.take() {
            for lane in &mut self.lanes {
                lane.ring.cancel_all(listener.as_fd(), tag_place(Kind::Other, 0));
                // Before the descriptor is closed, and another file has its number.
                drop(lane.ring.enter(None));
            }
        }
        self.accept_retry = None;
    }

    fn waker(&self) -> Waker {
        Waker::Event(Arc::clone(&self.event))
    }
}
