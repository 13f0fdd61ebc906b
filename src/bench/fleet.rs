//! Many connections on one thread: non-blocking sockets under mio, one receive buffer for all of them.
//! Connects, upgrades, reads frames, answers pings; what messages mean is the [`Crowd`]'s.

use super::clock::Clock;
use super::ending::Ending;
use super::frame::{ServerFrame, next_frame, push_frame};
use super::source::source_address;
use super::target::Target;
use crate::proto::OpCode;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Events per poll: few, so that others who share the thread are not kept waiting.
const EVENTS_MAX: usize = 64;
/// One receive takes at most this much.
const SCRATCH_BYTES: usize = 256 << 10;
/// Bytes that may wait for a server that does not read.
const OUTGOING_BYTES_MAX: usize = 64 << 20;
/// An answer to the upgrade is shorter than this.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// epoll counts in milliseconds: less than this is spun.
const NAP_NS_MIN: u64 = 2_000_000;

/// Whose connections they are. Called during [`Fleet::poll`]; acts after it.
pub trait Crowd {
    /// The upgrade is done.
    fn opened(&mut self, id: usize, now_ns: u64);
    /// A text or binary message has come.
    fn received(&mut self, id: usize, message: &[u8], now_ns: u64);
    /// The connection is gone, or could not be made.
    fn closed(&mut self, id: usize, ending: &Ending, now_ns: u64);
}

/// How long [`Fleet::poll`] may wait for something to happen.
#[derive(Debug, Clone, Copy)]
pub enum Wait {
    /// Not at all: a receiver that sleeps costs the sender of the next message its wake-up.
    Spin,
    /// Until this time of the clock.
    Until(u64),
}

/// How sockets are made.
#[derive(Debug, Clone, Copy, Default)]
pub struct FleetOptions {
    /// Source addresses 127.0.0.1, 127.0.0.2 …; 0: as many as the connections need. See
    /// `source_address`.
    pub sources: usize,
    /// Kernel buffer for what is received; `None`: as the kernel likes it.
    pub receive_buffer_bytes: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    Connecting,
    Upgrading,
    Open,
}

#[derive(Debug, Default)]
struct Connection {
    stream: Option<TcpStream>,
    phase: Phase,
    /// Nothing is received.
    paused: bool,
    /// What came without its end.
    incoming: Vec<u8>,
    /// What the kernel did not take.
    outgoing: Vec<u8>,
}

/// The connections to one server, by id: 0, 1, 2 …
pub struct Fleet {
    target: Arc<Target>,
    clock: Clock,
    options: FleetOptions,
    /// The number of connection 0 in the whole run.
    first: usize,
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    scratch: Box<[u8]>,
    /// Connections over [`OUTGOING_BYTES_MAX`]: the next poll ends them.
    stuck: Vec<usize>,
    /// When the last poll stopped waiting.
    woke_ns: u64,
    /// Protocol pings answered.
    pings: u64,
    /// Bytes received by all connections together, those of upgrades too.
    received_bytes: u64,
}

impl Fleet {
    /// `first` is the number of its connection 0 among those of all fleets that share the source
    /// addresses.
    pub fn new(
        target: Arc<Target>,
        clock: Clock,
        options: FleetOptions,
        first: usize,
    ) -> io::Result<Self> {
        Ok(Self {
            target,
            clock,
            options,
            first,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_MAX),
            connections: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            stuck: Vec::new(),
            woke_ns: 0,
            pings: 0,
            received_bytes: 0,
        })
    }

    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// When the last poll stopped waiting: what follows is the client's own work.
    pub fn woke_ns(&self) -> u64 {
        self.woke_ns
    }

    /// The number of its connection 0 in the whole run.
    pub fn first(&self) -> usize {
        self.first
    }

    /// Heartbeats answered so far.
    pub fn pings(&self) -> u64 {
        self.pings
    }

    /// Bytes received so far, by all connections together.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Begins to connect; ends in `opened` or `closed`.
    pub fn connect(&mut self, id: usize) -> io::Result<()> {
        self.begin(id).map_err(|error| explain(error, self.first + id))
    }

    fn begin(&mut self, id: usize) -> io::Result<()> {
        if self.connections.len() <= id {
            self.connections.resize_with(id + 1, Connection::default);
        }
        let mut stream = self.open_socket(id)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, mio::Token(id), interest)?;
        self.connections[id] =
            Connection { stream: Some(stream), phase: Phase::Connecting, ..Connection::default() };
        Ok(())
    }

    /// Ends a connection at once, by RST: no port is left waiting.
    pub fn cut(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        if let Some(stream) = connection.stream.take() {
            // Fails only if the peer was first.
            drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO)));
        }
        *connection = Connection::default();
    }

    /// Receives nothing more from a connection: a reader that has stopped.
    pub fn pause(&mut self, id: usize) {
        self.connections[id].paused = true;
    }

    /// Receives again, and first what has come meanwhile: no event tells of it.
    pub fn resume(&mut self, id: usize, crowd: &mut impl Crowd) {
        if std::mem::take(&mut self.connections[id].paused) {
            self.read(id, true, crowd);
        }
    }

    /// Sends whole frames. What the kernel does not take now goes later.
    pub fn send(&mut self, id: usize, frames: &[u8]) {
        let connection = &mut self.connections[id];
        let Some(stream) = &mut connection.stream else { return };
        let mut sent = 0;
        if connection.outgoing.is_empty() {
            // An error shows again when the connection is read.
            sent = stream.write(frames).unwrap_or(0);
        }
        connection.outgoing.extend_from_slice(&frames[sent..]);
        if connection.outgoing.len() > OUTGOING_BYTES_MAX {
            self.stuck.push(id);
        }
    }

    /// One turn: waits, then hands on what has happened. Returns how many sockets had something.
    pub fn poll(&mut self, wait: Wait, crowd: &mut impl Crowd) -> io::Result<usize> {
        let timeout = match wait {
            Wait::Spin => Duration::ZERO,
            Wait::Until(until_ns) => match until_ns.saturating_sub(self.clock.now_ns()) {
                short if short < NAP_NS_MIN => Duration::ZERO,
                long => Duration::from_nanos(long - NAP_NS_MIN / 2).min(Duration::from_secs(1)),
            },
        };
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => events.clear(),
            outcome => outcome?,
        }
        self.woke_ns = self.clock.now_ns();
        for id in std::mem::take(&mut self.stuck) {
            self.end(id, Ending::NotReading, crowd);
        }
        let mut count = 0;
        for event in &events {
            count += 1;
            let id = event.token().0;
            if event.is_writable() {
                self.write(id, crowd);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.read(id, event.is_read_closed(), crowd);
            }
        }
        self.events = events;
        Ok(count)
    }

    fn open_socket(&self, id: usize) -> io::Result<TcpStream> {
        let address = self.target.address;
        let kind = Type::STREAM.nonblocking();
        let socket = RawSocket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes) = self.options.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(source) = source_address(address.ip(), self.options.sources, self.first + id) {
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(TcpStream::from_std(socket.into()))
    }

    fn write(&mut self, id: usize, crowd: &mut impl Crowd) {
        let connection = &mut self.connections[id];
        let Some(stream) = &mut connection.stream else { return };
        if connection.phase == Phase::Connecting {
            if stream.peer_addr().is_err() {
                return match stream.take_error() {
                    // An event of the slot's last tenant: this one is still on its way.
                    Ok(None) => {}
                    Ok(Some(error)) | Err(error) => self.end(id, Ending::Lost(error), crowd),
                };
            }
            connection.phase = Phase::Upgrading;
            connection.outgoing.extend_from_slice(&self.target.request);
        }
        if connection.outgoing.is_empty() {
            return;
        }
        match stream.write(&connection.outgoing) {
            Ok(count) if count == connection.outgoing.len() => connection.outgoing = Vec::new(),
            Ok(count) => drop(connection.outgoing.drain(..count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.end(id, Ending::Lost(error), crowd),
        }
    }

    /// `ending`: the peer has announced its end, so read on until it comes.
    fn read(&mut self, id: usize, ending: bool, crowd: &mut impl Crowd) {
        let mut scratch = std::mem::take(&mut self.scratch);
        loop {
            let connection = &mut self.connections[id];
            let Some(stream) = connection.stream.as_mut().filter(|_| !connection.paused) else {
                break;
            };
            let count = match stream.read(&mut scratch) {
                Ok(0) => {
                    self.end(id, Ending::Ended, crowd);
                    break;
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.end(id, Ending::Lost(error), crowd);
                    break;
                }
            };
            self.received_bytes += count as u64;
            self.take_in(id, &scratch[..count], crowd);
            // A short read has drained the socket.
            if count < scratch.len() && !ending {
                break;
            }
        }
        self.scratch = scratch;
    }

    fn take_in(&mut self, id: usize, bytes: &[u8], crowd: &mut impl Crowd) {
        let connection = &mut self.connections[id];
        if connection.incoming.is_empty() && connection.phase == Phase::Open {
            let mut rest = bytes;
            self.take_frames(id, &mut rest, crowd);
            self.connections[id].incoming.extend_from_slice(rest);
            return;
        }
        let mut held = std::mem::take(&mut connection.incoming);
        held.extend_from_slice(bytes);
        let mut rest = &held[..];
        if connection.phase == Phase::Upgrading && !self.take_head(id, &mut rest, crowd) {
            return;
        }
        if self.connections[id].phase == Phase::Open {
            self.take_frames(id, &mut rest, crowd);
        }
        let consumed = held.len() - rest.len();
        held.drain(..consumed);
        if !held.is_empty() {
            self.connections[id].incoming = held;
        }
    }

    /// The answer to the upgrade. `false`: the connection is gone.
    fn take_head(&mut self, id: usize, rest: &mut &[u8], crowd: &mut impl Crowd) -> bool {
        let text = *rest;
        let Some(end) = text.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            if text.len() > HEAD_BYTES_MAX {
                self.end(id, Ending::NotUpgraded("an endless head".to_string()), crowd);
                return false;
            }
            return true;
        };
        let (head, frames) = text.split_at(end + 4);
        let accept = self.target.accept.as_bytes();
        let accepted = head.starts_with(b"HTTP/1.1 101 ")
            && head.windows(accept.len()).any(|bytes| bytes == accept);
        if !accepted {
            let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line).into_owned();
            self.end(id, Ending::NotUpgraded(line), crowd);
            return false;
        }
        self.connections[id].phase = Phase::Open;
        crowd.opened(id, self.clock.now_ns());
        *rest = frames;
        true
    }

    /// All whole frames of `rest`, with one look at the clock.
    fn take_frames(&mut self, id: usize, rest: &mut &[u8], crowd: &mut impl Crowd) {
        let now_ns = self.clock.now_ns();
        loop {
            let ServerFrame { opcode, payload } = match next_frame(rest) {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => {
                    *rest = &[];
                    return self.end(id, Ending::Frame(error), crowd);
                }
            };
            match opcode {
                OpCode::Text | OpCode::Binary => crowd.received(id, payload, now_ns),
                OpCode::Ping => {
                    self.pings += 1;
                    let mut pong = Vec::new();
                    push_frame(OpCode::Pong, payload, &mut pong);
                    self.send(id, &pong);
                }
                OpCode::Pong | OpCode::Continuation => {}
                OpCode::Close => {
                    let (code, reason) = match payload.split_first_chunk() {
                        Some((code, reason)) => (u16::from_be_bytes(*code), reason),
                        None => (1005, &[][..]),
                    };
                    let reason = String::from_utf8_lossy(reason).into_owned();
                    *rest = &[];
                    return self.end(id, Ending::Closed { code, reason }, crowd);
                }
            }
        }
    }

    fn end(&mut self, id: usize, ending: Ending, crowd: &mut impl Crowd) {
        if self.connections[id].stream.is_some() {
            self.cut(id);
            crowd.closed(id, &ending, self.clock.now_ns());
        }
    }
}

fn explain(error: io::Error, id: usize) -> io::Error {
    let advice = match error.kind() {
        ErrorKind::AddrNotAvailable => "no port is left, try more --sources",
        _ if error.raw_os_error() == Some(EMFILE) => "see `ulimit -n`",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("connection {id}: {error}; {advice}"))
}

/// The two errno values that `ErrorKind` does not tell.
const EINPROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();
const EMFILE: i32 = rustix::io::Errno::MFILE.raw_os_error();
