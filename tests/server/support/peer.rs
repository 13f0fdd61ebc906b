//! A client in the raw: one socket, bytes out, frames and responses in, each with a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};

use super::frame::{Frame, OpCode, close_payload, frame};
use super::http::{Response, upgrade_request};
use super::{PATIENCE, Server};

pub struct Peer {
    stream: TcpStream,
    /// Received; from `taken` on not looked at yet.
    received: Vec<u8>,
    taken: usize,
}

/// How receiving ended.
#[derive(Debug, PartialEq, Eq)]
enum Received {
    Bytes,
    End,
    Reset,
    Nothing,
}

impl Peer {
    /// A TCP connection, nothing more.
    pub fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address).expect("the server accepts");
        Self::over(stream)
    }

    /// With a receive buffer of about that size, set before the handshake of TCP.
    pub fn connect_small(server: &Server, bytes: usize) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(bytes).expect("a buffer");
        socket.connect(&server.address.into()).expect("the server accepts");
        Self::over(socket.into())
    }

    /// From that address, which has ports of its own.
    #[cfg(feature = "uring")]
    pub fn connect_from(server: &Server, source: std::net::IpAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of this machine");
        socket.connect(&server.address.into()).expect("the server accepts");
        Self::over(socket.into())
    }

    /// `None`: the server, or the kernel for it, does not take the connection.
    pub fn try_connect(address: SocketAddr) -> Option<Self> {
        TcpStream::connect_timeout(&address, PATIENCE).ok().map(Self::over)
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a TCP socket");
        Self { stream, received: Vec::new(), taken: 0 }
    }

    /// A WebSocket on a path without a meaning.
    #[track_caller]
    pub fn open(server: &Server) -> Self {
        Self::open_at(server, "/ws")
    }

    #[track_caller]
    pub fn open_at(server: &Server, path: &str) -> Self {
        let mut peer = Self::connect(server);
        peer.upgrade(path);
        peer
    }

    /// The same with a subprotocol; the welcome has not been read.
    #[track_caller]
    pub fn speaking(server: &Server, subprotocol: &str) -> Self {
        let mut peer = Self::connect(server);
        let line = format!("Sec-WebSocket-Protocol: {subprotocol}\r\n");
        peer.send(upgrade_request("/ws", &line).as_bytes());
        assert_eq!(peer.response().status, 101);
        peer
    }

    /// The opening handshake, which must succeed.
    #[track_caller]
    pub fn upgrade(&mut self, path: &str) {
        self.send(upgrade_request(path, "").as_bytes());
        let response = self.response();
        assert_eq!(response.status, 101, "{response:?}");
    }

    // Sending.

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// The server may have hung up.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    #[track_caller]
    pub fn send_text(&mut self, text: &str) {
        self.send(&frame(OpCode::TEXT, text.as_bytes()));
    }

    /// Ends our side of the TCP connection.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("it is open");
    }

    /// As [`Peer::finish`], if the server has not hung up.
    pub fn finish_if_open(&mut self) {
        drop(self.stream.shutdown(Shutdown::Write));
    }

    /// Ends both directions for every handle of this socket.
    pub fn hang_up(self) {
        drop(self.stream.shutdown(Shutdown::Both));
    }

    /// What is closed then is reset: no FIN, no TIME_WAIT.
    pub fn abort(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    }

    /// Another handle of the same socket, to send while this one receives.
    pub fn sender(&self) -> TcpStream {
        self.stream.try_clone().expect("descriptors")
    }

    // Receiving.

    /// The next response; what answers a HEAD has no body.
    #[track_caller]
    pub fn response_to(&mut self, head_only: bool) -> Response {
        self.take(|bytes| Response::take(bytes, head_only))
    }

    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_to(false)
    }

    /// The next response, or `None` if the connection ends without a whole one.
    pub fn response_or_end(&mut self) -> Option<Response> {
        loop {
            if let Some((response, length)) = Response::take(&self.received[self.taken..], false) {
                self.taken += length;
                return Some(response);
            }
            match self.receive(PATIENCE) {
                Received::Bytes => {}
                Received::End | Received::Reset => return None,
                Received::Nothing => panic!("neither an answer nor the end"),
            }
        }
    }

    /// The next response if it comes in time.
    pub fn response_within(&mut self, patience: Duration) -> Option<Response> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some((response, length)) = Response::take(&self.received[self.taken..], false) {
                self.taken += length;
                return Some(response);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.receive(left) != Received::Bytes {
                return None;
            }
        }
    }

    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        self.take(Frame::take)
    }

    /// The next frame if one comes in time.
    pub fn frame_within(&mut self, patience: Duration) -> Option<Frame> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some((frame, length)) = Frame::take(&self.received[self.taken..]) {
                self.taken += length;
                return Some(frame);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.receive(left) != Received::Bytes {
                return None;
            }
        }
    }

    /// The text of the next frame.
    #[track_caller]
    pub fn text(&mut self) -> String {
        self.frame().text().to_string()
    }

    #[track_caller]
    pub fn json(&mut self) -> Value {
        serde_json::from_str(&self.text()).expect("JSON")
    }

    #[track_caller]
    pub fn expect_text(&mut self, text: &str) {
        assert_eq!(self.text(), text);
    }

    #[track_caller]
    pub fn expect_frame(&mut self, opcode: OpCode, payload: &[u8]) {
        let frame = self.frame();
        assert_eq!(frame.opcode, opcode, "{frame:?}");
        assert!(frame.payload == payload, "{} bytes, not the payload", frame.payload.len());
    }

    /// The next frame is a Close with this code and reason.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16, reason: &str) {
        let frame = self.frame();
        assert_eq!(frame.opcode, OpCode::CLOSE, "{frame:?}");
        let (found, words) = parse_close(&frame);
        assert_eq!((found, words.as_str()), (code, reason));
    }

    /// Passes over messages until a Close comes; the code and the reason.
    #[track_caller]
    pub fn skip_to_close(&mut self) -> (u16, String) {
        loop {
            let frame = self.frame();
            if frame.opcode == OpCode::CLOSE {
                return parse_close(&frame);
            }
        }
    }

    /// 7.1.1: the server ends the TCP connection first, and says nothing before that.
    #[track_caller]
    pub fn expect_end(&mut self) {
        self.expect_nothing_taken();
        let received = self.receive(PATIENCE);
        let rest = &self.received[self.taken..];
        assert_eq!(received, Received::End, "{:?}", String::from_utf8_lossy(rest));
    }

    /// The connection ends, be it orderly or not; what still comes is passed over.
    #[track_caller]
    pub fn expect_gone(&mut self) {
        loop {
            match self.receive(PATIENCE) {
                Received::Bytes => self.taken = self.received.len(),
                Received::End | Received::Reset => return,
                Received::Nothing => panic!("still open after {PATIENCE:?}"),
            }
        }
    }

    /// Whether the server has hung up by now.
    pub fn is_gone(&mut self) -> bool {
        matches!(self.receive(Duration::from_millis(1)), Received::End | Received::Reset)
    }

    /// Both answers of a ping come next: nothing else was under way.
    #[track_caller]
    pub fn expect_idle(&mut self) {
        self.send_text(r#"{"type":"ping"}"#);
        self.expect_text(r#"{"type":"pong"}"#);
    }

    /// As [`Peer::expect_idle`], with pongs under way.
    #[track_caller]
    pub fn expect_idle_behind_pongs(&mut self) {
        self.send_text(r#"{"type":"ping"}"#);
        loop {
            let frame = self.frame();
            if frame.opcode != OpCode::PONG {
                assert_eq!(frame.text(), r#"{"type":"pong"}"#);
                return;
            }
        }
    }

    // The native protocol.

    #[track_caller]
    pub fn subscribe(&mut self, channel: &str) {
        self.send_text(&format!(r#"{{"action":"subscribe","channel":"{channel}"}}"#));
        self.expect_text(&format!(
            r#"{{"channel":"system","data":{{"type":"subscription_confirm","channel":"{channel}"}}}}"#
        ));
    }

    #[track_caller]
    pub fn unsubscribe(&mut self, channel: &str) {
        self.send_text(&format!(r#"{{"action":"unsubscribe","channel":"{channel}"}}"#));
        self.expect_text(&format!(
            r#"{{"channel":"system","data":{{"type":"unsubscription_confirm","channel":"{channel}"}}}}"#
        ));
    }

    #[track_caller]
    pub fn publish(&mut self, channel: &str, data: &str) {
        self.send_text(&format!(r#"{{"action":"publish","channel":"{channel}","data":{data}}}"#));
    }

    /// Publishes and waits for the acknowledgement, which must come next.
    #[track_caller]
    pub fn publish_acked(&mut self, channel: &str, data: &str) {
        self.send_text(&format!(
            r#"{{"action":"publish","channel":"{channel}","data":{data},"id":1}}"#
        ));
        self.expect_text(&format!(r#"{{"type":"ack","requestId":1,"channel":"{channel}"}}"#));
    }

    #[track_caller]
    pub fn expect_publication(&mut self, channel: &str, data: &str) {
        self.expect_text(&format!(r#"{{"channel":"{channel}","data":{data}}}"#));
    }

    /// Our half of a closing handshake, the server's, and the end.
    #[track_caller]
    pub fn close(mut self) {
        self.send(&frame(OpCode::CLOSE, &close_payload(1000, b"")));
        self.expect_close(1000, "");
        self.expect_end();
    }

    #[track_caller]
    fn take<T>(&mut self, parse: impl Fn(&[u8]) -> Option<(T, usize)>) -> T {
        loop {
            if let Some((value, length)) = parse(&self.received[self.taken..]) {
                self.taken += length;
                return value;
            }
            let received = self.receive(PATIENCE);
            if received != Received::Bytes {
                let rest = &self.received[self.taken..];
                panic!("{received:?} after {:?}", String::from_utf8_lossy(rest));
            }
        }
    }

    #[track_caller]
    fn expect_nothing_taken(&self) {
        let rest = &self.received[self.taken..];
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(rest));
    }

    fn receive(&mut self, patience: Duration) -> Received {
        self.received.drain(..self.taken);
        self.taken = 0;
        self.stream.set_read_timeout(Some(patience)).expect("it is not zero");
        // What has come grows by what is read, so that a large frame is not searched often.
        let room = self.received.len().clamp(16 << 10, 1 << 20);
        let length = self.received.len();
        self.received.resize(length + room, 0);
        let outcome = self.stream.read(&mut self.received[length..]);
        self.received.truncate(length + outcome.as_ref().map_or(0, |count| *count));
        match outcome {
            Ok(0) => Received::End,
            Ok(_) => Received::Bytes,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Received::Nothing,
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Received::Reset,
                _ => panic!("receiving: {error}"),
            },
        }
    }
}

fn parse_close(frame: &Frame) -> (u16, String) {
    let Some((code, reason)) = frame.payload.split_first_chunk::<2>() else {
        // 7.1.5: a Close without a code counts as 1005.
        return (1005, String::new());
    };
    let reason = std::str::from_utf8(reason).expect("5.5.1: UTF-8");
    (u16::from_be_bytes(*code), reason.to_string())
}

/// What everybody may expect whatever others do: to subscribe, to publish, to receive.
#[track_caller]
pub fn fresh_client_works(server: &Server) {
    let mut peer = Peer::open(server);
    peer.subscribe("fresh");
    peer.publish("fresh", r#""works""#);
    peer.expect_publication("fresh", r#""works""#);
    peer.close();
}

/// Sends a subscription with more fields, which begin with a comma, and returns its confirmation.
#[track_caller]
pub fn subscribe(peer: &mut Peer, channel: &str, fields: &str) -> Value {
    peer.send_text(&format!(r#"{{"action":"subscribe","channel":"{channel}"{fields}}}"#));
    let confirmation = peer.json();
    assert_eq!(confirmation["data"]["type"], "subscription_confirm", "{confirmation}");
    assert_eq!(confirmation["data"]["channel"], channel);
    confirmation["data"].clone()
}
