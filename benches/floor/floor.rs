//! The floor: the cheapest fan-out that this kernel allows, with nothing above it. One thread, epoll:
//! accept, upgrade, and for each publication one `send` of one ready frame to every subscriber. No
//! limits, no checks, no timers. What a server costs is a ratio of this.
//!
//!     cargo run --release --example floor -- 127.0.0.1:9001
//!
//! | a text message of the client | answer |
//! | --- | --- |
//! | `+TOPIC`, a decimal number | subscribes the connection to it; sent back |
//! | `=TOPIC BODY` | `BODY` as a text frame to every subscriber of the topic |
//! | anything else | sent back |
//!
//! With `--acknowledge` a message with an `id`, a number, is acknowledged instead; with `--keep FILE` as well, when
//! it is on disk.
//!
//! It does what a plain server does: `TCP_NODELAY` is set on each accepted socket, and frames are never
//! joined. Its options: `--inherit-nodelay` sets it on the listener instead; `--ping-every SECONDS`
//! sends each connection a protocol ping that often, spread evenly.

mod keeping;

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Socket, Type};
use tungstenite::handshake::derive_accept_key;

use keeping::Keeping;

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
/// As Stentor's, so that both have the same kernel buffers.
const SEND_BUFFER_BYTES: usize = 128 << 10;
const BACKLOG: i32 = 4096;
const PING: [u8; 2] = [0x89, 0];

struct Connection {
    stream: TcpStream,
    upgraded: bool,
    /// What came without its end.
    incoming: Vec<u8>,
    /// What the kernel did not take.
    outgoing: Vec<u8>,
    topics: Vec<usize>,
}

struct Floor {
    poll: Poll,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Subscribers by topic.
    topics: Vec<Vec<usize>>,
    inherit_nodelay: bool,
    keeping: Option<Keeping>,
    /// Reused: the frame on its way to all.
    frame: Vec<u8>,
}

fn main() -> std::io::Result<()> {
    let mut address = SocketAddr::from(([127, 0, 0, 1], 9001));
    let mut inherit_nodelay = false;
    let mut ping_every = None;
    let (mut acknowledge, mut file) = (false, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--inherit-nodelay" => inherit_nodelay = true,
            "--ping-every" => {
                let seconds = arguments.next().and_then(|seconds| seconds.parse().ok());
                ping_every = Some(Duration::from_secs_f64(seconds.expect("a number of seconds")));
            }
            "--acknowledge" => acknowledge = true,
            "--keep" => file = Some(PathBuf::from(arguments.next().expect("a file"))),
            text => address = text.parse().expect("ADDRESS:PORT"),
        }
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(inherit_nodelay)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let mut listener = TcpListener::from_std(socket.into());
    println!("floor listening on ws://{}", listener.local_addr()?);
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let (connections, free, topics, frame) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let keeping = acknowledge.then(|| Keeping::new(file.as_deref(), waker)).transpose()?;
    Floor { poll, connections, free, topics, inherit_nodelay, keeping, frame }
        .run(&listener, ping_every)
}

impl Floor {
    fn run(&mut self, listener: &TcpListener, ping_every: Option<Duration>) -> std::io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0; 64 << 10];
        let begin = Instant::now();
        let mut pinged = 0;
        loop {
            let timeout = ping_every.map(|_| Duration::from_millis(10));
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                outcome => outcome?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(listener)?,
                    WAKER => {}
                    Token(id) => {
                        if event.is_writable() {
                            self.write(id);
                        }
                        if event.is_readable() || event.is_read_closed() {
                            self.read(id, event.is_read_closed(), &mut scratch);
                        }
                    }
                }
            }
            if let Some(mut keeping) = self.keeping.take() {
                keeping.turn(|id, bytes| self.send(id, bytes));
                self.keeping = Some(keeping);
            }
            if let Some(every) = ping_every {
                let slots = self.connections.len() as f64;
                let due = (begin.elapsed().as_secs_f64() / every.as_secs_f64() * slots) as usize;
                // Connections that have just come are not owed the pings of the time before.
                pinged = pinged.max(due.saturating_sub(self.connections.len()));
                while pinged < due {
                    self.send(pinged % self.connections.len(), &PING);
                    pinged += 1;
                }
            }
        }
    }

    fn accept(&mut self, listener: &TcpListener) -> std::io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if !self.inherit_nodelay {
                stream.set_nodelay(true)?;
            }
            let id = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(id), interest)?;
            self.connections[id] = Some(Connection {
                stream,
                upgraded: false,
                incoming: Vec::new(),
                outgoing: Vec::new(),
                topics: Vec::new(),
            });
        }
    }

    fn write(&mut self, id: usize) {
        let Some(connection) = &mut self.connections[id] else { return };
        if !connection.outgoing.is_empty()
            && let Ok(count) = connection.stream.write(&connection.outgoing)
        {
            connection.outgoing.drain(..count);
        }
    }

    fn send(&mut self, id: usize, bytes: &[u8]) {
        let Some(connection) = &mut self.connections[id] else { return };
        let mut sent = 0;
        if connection.outgoing.is_empty() {
            sent = connection.stream.write(bytes).unwrap_or(0);
        }
        if sent < bytes.len() {
            connection.outgoing.extend_from_slice(&bytes[sent..]);
        }
    }

    fn read(&mut self, id: usize, ending: bool, scratch: &mut [u8]) {
        loop {
            let Some(connection) = &mut self.connections[id] else { return };
            let count = match connection.stream.read(scratch) {
                Ok(count) if count > 0 => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                _ => return self.forget(id),
            };
            if connection.incoming.is_empty() {
                let consumed = self.take_in(id, &mut scratch[..count]);
                self.keep(id, &scratch[consumed..count]);
            } else {
                let mut bytes = std::mem::take(&mut connection.incoming);
                bytes.extend_from_slice(&scratch[..count]);
                let consumed = self.take_in(id, &mut bytes);
                self.keep(id, &bytes[consumed..]);
            }
            if count < scratch.len() && !ending {
                return;
            }
        }
    }

    fn keep(&mut self, id: usize, rest: &[u8]) {
        if let Some(connection) = &mut self.connections[id] {
            connection.incoming.extend_from_slice(rest);
        }
    }

    fn forget(&mut self, id: usize) {
        if let Some(connection) = self.connections[id].take() {
            for topic in connection.topics {
                self.topics[topic].retain(|subscriber| *subscriber != id);
            }
            self.free.push(id);
        }
    }

    /// Returns how many bytes are done with.
    fn take_in(&mut self, id: usize, bytes: &mut [u8]) -> usize {
        let mut consumed = 0;
        if self.connections[id].as_ref().is_some_and(|connection| !connection.upgraded) {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                return 0;
            };
            self.upgrade(id, &bytes[..end]);
            consumed = end + 4;
        }
        while let Some((opcode, payload, end)) = unmask_frame(&mut bytes[consumed..]) {
            match opcode {
                8 => {
                    self.forget(id);
                    return bytes.len();
                }
                1 | 2 => self.message(id, opcode, payload),
                _ => {}
            }
            consumed += end;
        }
        consumed
    }

    fn upgrade(&mut self, id: usize, head: &[u8]) {
        let head = String::from_utf8_lossy(head);
        let key = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
        });
        let Some(key) = key else { return self.forget(id) };
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        );
        self.send(id, response.as_bytes());
        if let Some(connection) = &mut self.connections[id] {
            connection.upgraded = true;
        }
    }

    fn message(&mut self, id: usize, opcode: u8, payload: &[u8]) {
        if self.keeping.as_mut().is_some_and(|keeping| keeping.take(id, payload)) {
            return;
        }
        let mut frame = std::mem::take(&mut self.frame);
        match payload {
            [b'=', rest @ ..] => {
                let (topic, body) = split_number(rest);
                write_frame(opcode, body, &mut frame);
                for index in 0..self.topics.get(topic).map_or(0, Vec::len) {
                    self.send(self.topics[topic][index], &frame);
                }
            }
            [b'+', rest @ ..] => {
                let (topic, _) = split_number(rest);
                if self.topics.len() <= topic {
                    self.topics.resize_with(topic + 1, Vec::new);
                }
                self.topics[topic].push(id);
                if let Some(connection) = &mut self.connections[id] {
                    connection.topics.push(topic);
                }
                write_frame(opcode, payload, &mut frame);
                self.send(id, &frame);
            }
            _ => {
                write_frame(opcode, payload, &mut frame);
                self.send(id, &frame);
            }
        }
        self.frame = frame;
    }
}

/// A decimal number, and what follows the byte behind it.
fn split_number(text: &[u8]) -> (usize, &[u8]) {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = text[..digits].iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    (number, text.get(digits + 1..).unwrap_or_default())
}

fn write_frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.push(0x80 | opcode);
    match payload.len() {
        length @ ..126 => out.push(length as u8),
        length @ 126..65_536 => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// The first frame, if it is whole: opcode, payload, and its length with the header.
fn unmask_frame(bytes: &mut [u8]) -> Option<(u8, &[u8], usize)> {
    let opcode = bytes.first()? & 0x0F;
    let (length, header) = match bytes.get(1)? & 0x7F {
        126 => (usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize, 10),
        length => (usize::from(length), 2),
    };
    let mask: [u8; 4] = *bytes.get(header..)?.first_chunk()?;
    let end = (header + 4).checked_add(length)?;
    let payload = bytes.get_mut(header + 4..end)?;
    let (words, tail) = payload.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, octet) in tail.iter_mut().zip(mask) {
        *byte ^= octet;
    }
    Some((opcode, payload, end))
}
