//! The epoll backend: readiness from mio, turned into completions.
//!
//! Edge-triggered: each socket is registered once for both directions and never touched again. A read
//! shorter than the buffer means drained; whatever may hold more is on the `again` list. Sends and
//! receives are rustix's plain system calls: those of the C library also look whether their thread is
//! being cancelled, which costs a tenth of what a delivery takes outside of the kernel.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll};
use rustix::net::{self, RecvFlags, SendFlags};

use super::accept::{ACCEPT_PAUSE, is_peers_loss};
use super::{Backend, FramePool, Handler, Receive, SendQueue, SendStatus, Waker};
use crate::ids::Token;

const LISTENER: mio::Token = mio::Token(usize::MAX);
const WAKER: mio::Token = mio::Token(usize::MAX - 1);

/// Kernel events taken per turn: as many as keep their sockets in the cache between receive and send,
/// and no fewer than the publications that a sweep joins.
const EVENTS_MAX: usize = 64;
/// Connections accepted per turn.
const ACCEPTS_MAX: usize = 256;
/// Bytes received per turn; what is left comes with the next one.
const RECEIVED_BYTES_MAX: usize = 1 << 20;
/// System calls for one connection's queue per turn.
const SENDS_MAX: usize = 8;
/// One receive takes at most this much. Shared by all connections of the shard.
const SCRATCH_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
struct Socket {
    /// `None` between `close` and the next tenant of the slot.
    stream: Option<TcpStream>,
    generation: u32,
    /// The shard wants no bytes now.
    paused: bool,
    /// In `again` already.
    queued: bool,
}

/// One shard's sockets under mio.
pub struct Epoll {
    poll: Poll,
    events: Events,
    clock: Instant,
    waker: Arc<mio::Waker>,
    listener: Option<TcpListener>,
    /// There may be connections that no event will announce.
    accept_again: bool,
    accept_retry: Option<Instant>,
    /// By slot.
    sockets: Vec<Socket>,
    /// May hold bytes that no event will announce.
    again: VecDeque<Token>,
    /// Stopped sending at [`SENDS_MAX`], not at a full socket.
    unfinished: Vec<Token>,
    closed: Vec<(Token, io::Result<()>)>,
    /// Receives, then joins sends: never both at once.
    scratch: Box<[u8]>,
}

impl Epoll {
    /// `clock` is the start of the time that all shards share.
    pub fn new(listener: std::net::TcpListener, clock: Instant) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKER)?);
        let mut listener = TcpListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            clock,
            waker,
            listener: Some(listener),
            accept_again: false,
            accept_retry: None,
            sockets: Vec::new(),
            again: VecDeque::new(),
            unfinished: Vec::new(),
            closed: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
        })
    }

    /// What no other thread's table of descriptors may keep open, see [`super::descriptors`].
    pub fn descriptors(&self) -> Vec<RawFd> {
        let listener = self.listener.as_ref().map(AsRawFd::as_raw_fd);
        listener.into_iter().chain([self.poll.as_raw_fd()]).collect()
    }

    fn accept(&mut self, handler: &mut impl Handler) {
        self.accept_again = false;
        self.accept_retry = None;
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, peer)) => self.welcome(stream, peer, handler),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if is_peers_loss(&error) => {}
                Err(error) => {
                    // EMFILE, ENFILE, ENOBUFS, ENOMEM: nothing to do but wait for better times.
                    self.accept_retry = Some(Instant::now() + ACCEPT_PAUSE);
                    handler.accept_paused(&error);
                    return;
                }
            }
        }
        self.accept_again = true;
    }

    fn welcome(&mut self, mut stream: TcpStream, peer: SocketAddr, handler: &mut impl Handler) {
        let Some(token) = handler.accepted(peer) else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered =
            self.poll.registry().register(&mut stream, mio::Token(token.pack() as usize), interest);
        if self.sockets.len() <= token.index() {
            self.sockets.resize_with(token.index() + 1, Socket::default);
        }
        self.sockets[token.index()] = Socket {
            stream: Some(stream),
            generation: token.generation,
            paused: false,
            queued: false,
        };
        if let Err(error) = registered {
            self.end(token, Err(error));
        }
    }

    fn socket(&mut self, token: Token) -> Option<&mut Socket> {
        self.sockets
            .get_mut(token.index())
            .filter(|socket| socket.generation == token.generation && socket.stream.is_some())
    }

    /// Closes the descriptor; `closed` follows with the next `poll`.
    fn end(&mut self, token: Token, reason: io::Result<()>) {
        let Some(socket) = self.socket(token) else { return };
        socket.stream = None;
        self.closed.push((token, reason));
        // A descriptor is free: an accept that waited for one need not wait longer.
        self.accept_again |= self.accept_retry.is_some();
    }

    fn enqueue(&mut self, token: Token) {
        if let Some(socket) = self.socket(token)
            && !socket.queued
        {
            socket.queued = true;
            self.again.push_back(token);
        }
    }

    /// One receive. `more`: the socket may hold more even if the read is short, because its end of
    /// stream has been announced. Returns the bytes received.
    fn receive(&mut self, token: Token, more: bool, handler: &mut impl Handler) -> usize {
        let Some(socket) = self.sockets.get_mut(token.index()) else { return 0 };
        if socket.generation != token.generation || socket.paused {
            // `resume` puts a paused one back on the list.
            return 0;
        }
        let Some(stream) = &mut socket.stream else { return 0 };
        let received = net::recv(&*stream, &mut *self.scratch, RecvFlags::empty());
        let count = match received.map_err(io::Error::from) {
            Ok((count, _)) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return 0,
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.enqueue(token);
                return 0;
            }
            Err(error) => {
                self.end(token, Err(error));
                return 0;
            }
        };
        match handler.received(token, &mut self.scratch[..count]) {
            Receive::Pause => socket.paused = true,
            Receive::More if count == SCRATCH_BYTES || (more && count > 0) => self.enqueue(token),
            Receive::More => {}
        }
        count
    }

    /// What earlier turns left: closed connections, unfinished sends and receives. Returns the bytes
    /// received.
    fn leftovers(&mut self, handler: &mut impl Handler) -> usize {
        for (token, reason) in std::mem::take(&mut self.closed) {
            handler.closed(token, reason);
        }
        for token in std::mem::take(&mut self.unfinished) {
            handler.sent(token, 0);
        }
        let mut received = 0;
        for _ in 0..self.again.len() {
            if received >= RECEIVED_BYTES_MAX {
                break;
            }
            let Some(token) = self.again.pop_front() else { break };
            if let Some(socket) = self.socket(token) {
                socket.queued = false;
                // Whether its end was announced is forgotten by now: read until nothing comes.
                received += self.receive(token, true, handler);
            }
        }
        received
    }

    fn timeout(&self, wanted: Duration) -> Duration {
        let pending = self.accept_again
            || !self.again.is_empty()
            || !self.closed.is_empty()
            || !self.unfinished.is_empty();
        match self.accept_retry {
            _ if pending => Duration::ZERO,
            Some(retry) => wanted.min(retry.saturating_duration_since(Instant::now())),
            None => wanted,
        }
    }
}

impl Backend for Epoll {
    fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    fn poll(&mut self, timeout: Duration, handler: &mut impl Handler) -> io::Result<()> {
        // Whatever is left over changes what the shard wants next: it must not wait then.
        let timeout = self.timeout(timeout);
        let mut received = self.leftovers(handler);
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        handler.waits(self.elapsed());
        match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => events.clear(),
            outcome => outcome?,
        }
        handler.woke(self.elapsed());
        let mut taken = 0;
        for event in &events {
            taken += 1;
            match event.token() {
                LISTENER => self.accept_again = true,
                WAKER => {}
                mio::Token(packed) => {
                    let token = Token::unpack(packed as u64);
                    if event.is_writable() && self.socket(token).is_some() {
                        handler.sent(token, 0);
                    }
                    if event.is_readable() || event.is_read_closed() || event.is_error() {
                        if received < RECEIVED_BYTES_MAX {
                            received += self.receive(token, event.is_read_closed(), handler);
                        } else {
                            self.enqueue(token);
                        }
                    }
                }
            }
        }
        if self.again.is_empty() && taken < EVENTS_MAX {
            handler.caught_up();
        }
        self.events = events;
        let retry = self.accept_retry.is_some_and(|retry| retry <= Instant::now());
        if self.accept_again || retry {
            self.accept(handler);
        }
        Ok(())
    }

    fn send(&mut self, token: Token, queue: &mut SendQueue, frames: &mut FramePool) -> SendStatus {
        for _ in 0..SENDS_MAX {
            let Some(socket) = self.sockets.get_mut(token.index()) else { break };
            let Some(stream) = &mut socket.stream else { break };
            debug_assert_eq!(socket.generation, token.generation);
            let bytes = queue.gather(frames, &mut self.scratch);
            let wanted = bytes.len();
            match net::send(&*stream, bytes, SendFlags::NOSIGNAL).map_err(io::Error::from) {
                Ok(count) => {
                    queue.advance(frames, count);
                    if queue.is_empty() {
                        return SendStatus::Drained;
                    }
                    if count < wanted {
                        return SendStatus::Pending;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return SendStatus::Pending,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.end(token, Err(error));
                    return SendStatus::Pending;
                }
            }
        }
        self.unfinished.push(token);
        SendStatus::Pending
    }

    fn submit(&mut self, _: &mut impl Handler) -> io::Result<()> {
        Ok(())
    }

    fn resume(&mut self, token: Token) {
        if let Some(socket) = self.socket(token) {
            socket.paused = false;
            self.enqueue(token);
        }
    }

    fn shutdown(&mut self, token: Token) {
        if let Some(stream) = self.socket(token).and_then(|socket| socket.stream.as_ref()) {
            // Fails only if the peer is gone already, which `closed` will tell.
            drop(stream.shutdown(Shutdown::Write));
        }
    }

    fn close(&mut self, token: Token) {
        self.end(token, Ok(()));
    }

    fn stop_accepting(&mut self) {
        self.listener = None;
        self.accept_again = false;
        self.accept_retry = None;
    }

    fn waker(&self) -> Waker {
        Waker::Kernel(Arc::clone(&self.waker))
    }
}
