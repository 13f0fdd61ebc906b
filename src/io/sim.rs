//! The simulated backend: sockets, time and faults from a seed, no kernel.
//!
//! All shards of a simulated server share one [`Network`], on one thread. The test on the other side
//! of the sockets connects, sends, reads and resets through it, and moves the clock. What a kernel may
//! do in many ways happens in a random one: chunks, short writes, the order of events, late ones.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Backend, FramePool, Handler, Receive, SendQueue, SendStatus, Waker};
use crate::ids::{Moment, ShardId, Token};

/// Sockets with room for this much take whatever fits.
pub const STEADY_CAPACITY: usize = 1 << 20;

/// A simulated connection, as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(usize);

/// Numbers from a seed (SplitMix64): the same seed, the same run.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, not including, `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    /// True once in `odds` times.
    pub fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }
}

#[derive(Debug)]
struct Socket {
    shard: ShardId,
    token: Option<Token>,
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
    /// Bytes that fit into `to_client`.
    capacity: usize,
    client_ended: bool,
    /// The server was told of it.
    end_told: bool,
    reset: bool,
    paused: bool,
    /// The last send found no room.
    starved: bool,
    server_ended: bool,
    closed: bool,
}

/// The network and the clock that all simulated shards share.
#[derive(Debug)]
pub struct Network {
    now: Moment,
    random: Random,
    sockets: Vec<Socket>,
    /// Accepting fails while this is set, as it does without descriptors.
    pub descriptors_exhausted: bool,
    /// A shard has too much to do to ever look at this one.
    pub unheard: Option<SocketId>,
}

impl Network {
    pub fn new(seed: u64) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            now: Moment(0),
            random: Random::new(seed),
            sockets: Vec::new(),
            descriptors_exhausted: false,
            unheard: None,
        }))
    }

    pub fn now(&self) -> Moment {
        self.now
    }

    pub fn advance(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
    }

    /// A new connection to `shard`, with room for `capacity` bytes towards the client. From
    /// [`STEADY_CAPACITY`] on, sends to it are never short while there is room.
    pub fn connect(&mut self, shard: ShardId, capacity: usize) -> SocketId {
        self.sockets.push(Socket {
            shard,
            token: None,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            capacity,
            client_ended: false,
            end_told: false,
            reset: false,
            paused: false,
            starved: false,
            server_ended: false,
            closed: false,
        });
        SocketId(self.sockets.len() - 1)
    }

    pub fn send(&mut self, id: SocketId, bytes: &[u8]) {
        self.sockets[id.0].to_server.extend(bytes);
    }

    /// What the client reads, at most `count` bytes.
    pub fn read(&mut self, id: SocketId, count: usize) -> Vec<u8> {
        let socket = &mut self.sockets[id.0];
        let count = count.min(socket.to_client.len());
        socket.to_client.drain(..count).collect()
    }

    /// Bytes that wait for the client.
    pub fn readable(&self, id: SocketId) -> usize {
        self.sockets[id.0].to_client.len()
    }

    /// The client ends its side.
    pub fn end(&mut self, id: SocketId) {
        self.sockets[id.0].client_ended = true;
    }

    /// The client resets the connection: what waits is lost.
    pub fn reset(&mut self, id: SocketId) {
        let socket = &mut self.sockets[id.0];
        socket.reset = true;
        socket.to_client.clear();
        socket.to_server.clear();
    }

    /// The server sends no more.
    pub fn server_ended(&self, id: SocketId) -> bool {
        self.sockets[id.0].server_ended || self.sockets[id.0].closed
    }

    /// Connections that the server has not closed.
    pub fn open(&self) -> usize {
        self.sockets.iter().filter(|socket| socket.token.is_some() && !socket.closed).count()
    }
}

/// One simulated shard's sockets.
pub struct Simulated {
    shard: ShardId,
    network: Rc<RefCell<Network>>,
    woken: Arc<AtomicBool>,
    accepting: bool,
    /// By slot: the socket of its last tenant.
    sockets: Vec<Option<usize>>,
    closed: Vec<(Token, io::Result<()>)>,
    /// Sends wait for `submit`, as those of io_uring do.
    submits: bool,
    /// What was sent, and how much of it was accepted.
    submitted: Vec<(Token, usize)>,
}

impl Simulated {
    /// One for each shard.
    pub fn for_shards(count: usize, network: &Rc<RefCell<Network>>) -> Vec<Self> {
        (0..count as u16).map(|shard| Self::new(ShardId(shard), Rc::clone(network))).collect()
    }

    fn new(shard: ShardId, network: Rc<RefCell<Network>>) -> Self {
        let submits = network.borrow_mut().random.one_in(2);
        Self {
            shard,
            network,
            woken: Arc::default(),
            accepting: true,
            sockets: Vec::new(),
            closed: Vec::new(),
            submits,
            submitted: Vec::new(),
        }
    }

    fn socket(&self, network: &Network, token: Token) -> Option<usize> {
        self.sockets
            .get(token.index())
            .copied()
            .flatten()
            .filter(|index| network.sockets[*index].token == Some(token))
            .filter(|index| !network.sockets[*index].closed)
    }

    /// Whether somebody has sent what was not handed over.
    fn has_unheard(&self) -> bool {
        let network = self.network.borrow();
        let sockets = self.sockets.iter().flatten().map(|index| &network.sockets[*index]);
        sockets
            .filter(|socket| !socket.closed)
            .any(|socket| !socket.paused && !socket.to_server.is_empty())
    }

    fn end(&mut self, token: Token, reason: io::Result<()>) {
        let mut network = self.network.borrow_mut();
        let Some(index) = self.socket(&network, token) else { return };
        network.sockets[index].closed = true;
        self.closed.push((token, reason));
    }

    fn accept(&mut self, handler: &mut impl Handler) {
        let waiting: Vec<_> = {
            let network = self.network.borrow();
            let waits = |socket: &Socket| {
                socket.shard == self.shard && socket.token.is_none() && !socket.closed
            };
            let indexes = 0..network.sockets.len();
            indexes.filter(|index| waits(&network.sockets[*index])).collect()
        };
        for index in waiting {
            if self.network.borrow().descriptors_exhausted {
                handler.accept_paused(&io::Error::from(ErrorKind::StorageFull));
                return;
            }
            let peer = SocketAddr::from(([127, 0, 0, 1], (index % 60_000) as u16 + 1));
            let token = handler.accepted(peer);
            let mut network = self.network.borrow_mut();
            match token {
                Some(token) => {
                    network.sockets[index].token = Some(token);
                    if self.sockets.len() <= token.index() {
                        self.sockets.resize(token.index() + 1, None);
                    }
                    self.sockets[token.index()] = Some(index);
                }
                None => network.sockets[index].closed = true,
            }
        }
    }

    /// What happens to one socket in this poll: nothing, or one thing.
    fn happen(&mut self, token: Token, handler: &mut impl Handler) {
        let mut network = self.network.borrow_mut();
        let Some(index) = self.socket(&network, token) else { return };
        let Network { random, sockets, unheard, .. } = &mut *network;
        let socket = &mut sockets[index];
        if random.one_in(4) || *unheard == Some(SocketId(index)) {
            return;
        }
        if socket.reset {
            drop(network);
            self.end(token, Err(io::Error::from(ErrorKind::ConnectionReset)));
        } else if socket.starved && socket.to_client.len() < socket.capacity && random.one_in(2) {
            socket.starved = false;
            drop(network);
            handler.sent(token, 0);
        } else if !socket.paused && !socket.to_server.is_empty() {
            let most = if random.one_in(3) { 8 } else { 4096 };
            let count = 1 + random.below(most.min(socket.to_server.len()));
            let mut bytes: Vec<_> = socket.to_server.drain(..count).collect();
            drop(network);
            let receive = handler.received(token, &mut bytes);
            self.network.borrow_mut().sockets[index].paused = receive == Receive::Pause;
        } else if socket.client_ended && socket.to_server.is_empty() && !socket.end_told {
            socket.end_told = true;
            drop(network);
            handler.received(token, &mut []);
        }
    }
}

impl Backend for Simulated {
    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.network.borrow().now.0)
    }

    fn poll(&mut self, _timeout: Duration, handler: &mut impl Handler) -> io::Result<()> {
        self.woken.store(false, Ordering::Relaxed);
        handler.waits(self.elapsed());
        handler.woke(self.elapsed());
        for (token, reason) in std::mem::take(&mut self.closed) {
            handler.closed(token, reason);
        }
        let mut tokens: Vec<_> = {
            let network = self.network.borrow();
            let indexes = self.sockets.iter().flatten();
            indexes.filter_map(|index| network.sockets[*index].token).collect()
        };
        for index in (1..tokens.len()).rev() {
            let other = self.network.borrow_mut().random.below(index + 1);
            tokens.swap(index, other);
        }
        for token in tokens {
            self.happen(token, handler);
        }
        if !self.has_unheard() {
            handler.caught_up();
        }
        if self.accepting {
            self.accept(handler);
        }
        Ok(())
    }

    fn send(&mut self, token: Token, queue: &mut SendQueue, frames: &mut FramePool) -> SendStatus {
        let mut network = self.network.borrow_mut();
        let Some(index) = self.socket(&network, token) else { return SendStatus::Pending };
        let Network { random, sockets, .. } = &mut *network;
        let socket = &mut sockets[index];
        let mut scratch = vec![0; 64 << 10];
        let bytes = queue.gather(frames, &mut scratch);
        let room = socket.capacity.saturating_sub(socket.to_client.len());
        let mut count = bytes.len().min(room);
        if socket.capacity < STEADY_CAPACITY && random.one_in(5) {
            count = random.below(count + 1);
        }
        if !socket.reset {
            socket.to_client.extend(&bytes[..count]);
        }
        if self.submits {
            self.submitted.push((token, count));
            return SendStatus::Submitted;
        }
        queue.advance(frames, count);
        if queue.is_empty() {
            return SendStatus::Drained;
        }
        socket.starved = true;
        SendStatus::Pending
    }

    fn submit(&mut self, handler: &mut impl Handler) -> io::Result<()> {
        for (token, count) in std::mem::take(&mut self.submitted) {
            let status = handler.submitted(token, count);
            let mut network = self.network.borrow_mut();
            if let Some(index) = self.socket(&network, token) {
                network.sockets[index].starved = status == SendStatus::Pending;
            }
        }
        Ok(())
    }

    fn resume(&mut self, token: Token) {
        let mut network = self.network.borrow_mut();
        if let Some(index) = self.socket(&network, token) {
            network.sockets[index].paused = false;
        }
    }

    fn shutdown(&mut self, token: Token) {
        let mut network = self.network.borrow_mut();
        if let Some(index) = self.socket(&network, token) {
            network.sockets[index].server_ended = true;
        }
    }

    fn close(&mut self, token: Token) {
        self.end(token, Ok(()));
    }

    fn stop_accepting(&mut self) {
        self.accepting = false;
    }

    fn waker(&self) -> Waker {
        Waker::Simulated(Arc::clone(&self.woken))
    }
}
