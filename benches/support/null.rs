//! A shard on a backend without a kernel: bytes come from memory, and whatever is sent is taken at once.
//! What is left is the server's own work.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use stentor::config::Config;
use stentor::ids::Token;
use stentor::io::{Backend, FramePool, Handler, SendQueue, SendStatus, Waker};
use stentor::mesh;
use stentor::metrics::{Counter, Metrics};
use stentor::shard::{Settings, Shard};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: c3RlbnRvciBiZW5jaCAxNg==\r\nSec-WebSocket-Version: 13\r\n";
/// What follows it.
const END: &[u8] = b"Connection: Upgrade\r\n\r\n";
const PROTOBUF_END: &[u8] =
    b"Sec-WebSocket-Protocol: stentor.v1.protobuf\r\nConnection: Upgrade\r\n\r\n";

/// What happens to connections in the next poll.
#[derive(Default)]
enum Step {
    /// This many connect.
    Accept(usize),
    /// Each of them sends this.
    FromAll(Vec<u8>),
    /// The first one sends what is in `wire`, once.
    FromFirst,
    #[default]
    Nothing,
}

struct Null {
    step: Rc<Cell<Step>>,
    tokens: Vec<Token>,
    wire: Vec<u8>,
    scratch: Vec<u8>,
    waker: Arc<AtomicBool>,
}

impl Backend for Null {
    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }

    fn poll(&mut self, _: Duration, handler: &mut impl Handler) -> io::Result<()> {
        handler.waits(Duration::ZERO);
        handler.woke(Duration::ZERO);
        match self.step.take() {
            Step::Accept(count) => {
                let peer = SocketAddr::from(([127, 0, 0, 1], 1));
                self.tokens.extend((0..count).filter_map(|_| handler.accepted(peer)));
            }
            Step::FromAll(bytes) => {
                for token in &self.tokens {
                    handler.received(*token, &mut bytes.clone());
                }
            }
            Step::FromFirst => {
                handler.received(self.tokens[0], &mut self.wire);
            }
            Step::Nothing => {}
        }
        Ok(())
    }

    fn send(&mut self, _: Token, queue: &mut SendQueue, frames: &mut FramePool) -> SendStatus {
        while !queue.is_empty() {
            let count = queue.gather(frames, &mut self.scratch).len();
            queue.advance(frames, count);
        }
        SendStatus::Drained
    }

    fn submit(&mut self, _: &mut impl Handler) -> io::Result<()> {
        Ok(())
    }

    fn resume(&mut self, _: Token) {}
    fn shutdown(&mut self, _: Token) {}
    fn close(&mut self, _: Token) {}
    fn stop_accepting(&mut self) {}

    fn waker(&self) -> Waker {
        Waker::Simulated(Arc::clone(&self.waker))
    }
}

/// One shard whose connections all subscribe to one topic; the first one publishes to it.
pub struct NullServer {
    shard: Shard<Null>,
    step: Rc<Cell<Step>>,
    settings: Arc<Settings>,
    subscribers: u64,
}

impl NullServer {
    pub fn new(subscribers: usize, data: &str) -> Self {
        let publish = format!(r#"{{"action":"publish","channel":"topic","data":{data}}}"#);
        let publish = client_frame(1, publish.as_bytes());
        let subscribe = client_frame(1, br#"{"action":"subscribe","channel":"topic"}"#);
        Self::started(subscribers, [REQUEST, END].concat(), subscribe, publish)
    }

    /// All of them speak protobuf.
    pub fn protobuf(subscribers: usize, data: &str) -> Self {
        let request = [REQUEST, PROTOBUF_END].concat();
        let subscribe = client_frame(2, b"\x09\x52\x07\x0a\x05topic");
        let publish = client_frame(2, &protobuf_publish(data));
        Self::started(subscribers, request, subscribe, publish)
    }

    fn started(subscribers: usize, request: Vec<u8>, subscribe: Vec<u8>, publish: Vec<u8>) -> Self {
        let settings = Arc::new(Settings {
            config: Config::default(),
            metrics: Metrics::new(1),
            connections_max: usize::MAX / 2,
            unix_start: 0,
            hasher: SeedableRandomState::with_seed(1, SharedSeed::global_fixed()),
            session_shards: 0,
            identity: || 7,
        });
        let step = Rc::new(Cell::new(Step::Accept(subscribers)));
        let backend = Null {
            step: Rc::clone(&step),
            tokens: Vec::new(),
            wire: publish,
            scratch: vec![0; 64 << 10],
            waker: Arc::default(),
        };
        let (mut ports, _) = mesh::connect(vec![backend.waker()], usize::MAX);
        let port = ports.pop().expect("there is one for each waker");
        let mut server = Self {
            shard: Shard::new(backend, port, None, Arc::clone(&settings)),
            step,
            settings,
            subscribers: subscribers as u64,
        };
        server.turn();
        server.step.set(Step::FromAll(request));
        server.turn();
        server.step.set(Step::FromAll(subscribe));
        server.turn();
        server
    }

    /// One publication, until everybody has it.
    pub fn publish(&mut self) {
        let wanted = self.deliveries() + self.subscribers;
        self.step.set(Step::FromFirst);
        while self.deliveries() < wanted {
            self.turn();
        }
    }

    fn deliveries(&self) -> u64 {
        self.settings.metrics.total(Counter::Deliveries)
    }

    fn turn(&mut self) {
        self.shard.turn().expect("nothing here fails");
    }
}

/// An envelope behind its length that publishes to `topic`. Every length is written in two bytes, so `data`
/// has at most 16,000.
pub fn protobuf_publish(data: &str) -> Vec<u8> {
    let varint = |length: usize| [length as u8 | 0x80, (length >> 7) as u8];
    let publish = [b"\x0a\x05topic\x12", &varint(data.len())[..], data.as_bytes()].concat();
    let envelope = [b"\x62", &varint(publish.len())[..], &publish].concat();
    [&varint(envelope.len())[..], &envelope].concat()
}

/// A masked frame whose key is 0: unmasking it changes nothing, so it can be used again.
pub fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ ..126 => frame.push(0x80 | length as u8),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}
