//! A small blocking client: one connection, one message at a time.

mod error;
mod message;

pub use error::{ClientError, TOO_BIG};
pub use message::{Publication, Refusal, ServerMessage};

use crate::proto::json::quote;
use crate::proto::tags::Tags;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::header::AUTHORIZATION;
use tungstenite::http::{HeaderValue, Uri};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{HandshakeError, Message, WebSocket};

/// Where `stentor serve` listens unless it is told otherwise.
pub const DEFAULT_URL: &str = "ws://127.0.0.1:8080";

/// For the TCP connection, the upgrade, and each acknowledgement.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// For the server's half of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// What a server may be configured to pass on, and some for the envelope.
const MESSAGE_BYTES_MAX: usize = (1 << 30) + (64 << 10);

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// With the next publication.
    Now,
    /// With the oldest publication that the channel keeps.
    Oldest,
    /// Behind this offset, or with what was published at this Unix time, in milliseconds, or later:
    /// the server tells them apart by their size.
    Since(u64),
    /// Behind a position that was reached before.
    Recover { epoch: String, offset: u64 },
}

/// A connection to a server.
pub struct Client {
    socket: WebSocket<TcpStream>,
    /// Requests are numbered from 1.
    last_request: u64,
}

impl Client {
    /// `url` is `ws://HOST:PORT/PATH`, port and path being optional.
    pub fn connect(url: &str) -> Result<Self, ClientError> {
        Self::open(url, None)
    }

    /// As [`Client::connect`], as the user whose token this is.
    pub fn connect_as(url: &str, token: &str) -> Result<Self, ClientError> {
        let credentials = HeaderValue::try_from(format!("Bearer {token}"));
        Self::open(url, Some(credentials.map_err(|_| ClientError::InvalidToken)?))
    }

    fn open(url: &str, credentials: Option<HeaderValue>) -> Result<Self, ClientError> {
        let uri = parse_url(url)?;
        let unreachable = |error| ClientError::Unreachable { url: url.to_string(), error };
        let stream = open_stream(&uri).map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(unreachable)?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let mut request = uri.into_client_request().map_err(ClientError::WebSocket)?;
        request.headers_mut().extend(credentials.map(|value| (AUTHORIZATION, value)));
        match tungstenite::client::client_with_config(request, stream, Some(config)) {
            Ok((socket, _)) => Ok(Self { socket, last_request: 0 }),
            Err(HandshakeError::Interrupted(_)) => Err(ClientError::Timeout(ANSWER_TIMEOUT)),
            Err(HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                let status = response.status().as_u16();
                if status == 401 {
                    return Err(ClientError::Unauthenticated);
                }
                Err(ClientError::NotUpgraded { url: url.to_string(), status })
            }
            Err(HandshakeError::Failure(error)) => Err(failure(error)),
        }
    }

    /// Asks for the publications of a channel, or of those for which `filter` is. The answer, [`ServerMessage::Subscribed`] or
    /// [`ServerMessage::Refused`], comes from [`Client::next_message`].
    pub fn subscribe(
        &mut self,
        channel: &str,
        begin: &Begin,
        filter: Option<&str>,
    ) -> Result<(), ClientError> {
        let begin = match begin {
            Begin::Now => String::new(),
            Begin::Oldest => r#","since":"start""#.to_owned(),
            Begin::Since(place) => format!(r#","since":{place}"#),
            Begin::Recover { epoch, offset } => {
                format!(r#","recover":{{"epoch":{},"offset":{offset}}}"#, quote(epoch))
            }
        };
        let filter = filter.map(|filter| format!(r#","filter":{}"#, quote(filter)));
        let filter = filter.unwrap_or_default();
        let channel = quote(channel);
        self.send(format!(r#"{{"action":"subscribe","channel":{channel}{begin}{filter}}}"#))
    }

    /// Tells the server that a publication with this `messageId` has arrived: else it is sent again.
    pub fn acknowledge(&mut self, message_id: &str) -> Result<(), ClientError> {
        self.send(format!(r#"{{"type":"ack","messageId":{}}}"#, quote(message_id)))
    }

    /// Publishes `data`, a JSON text, with tags perhaps, and waits for the acknowledgement; returns its offset, on a
    /// channel with history. Other messages that come before it are passed over: a connection that
    /// subscribes should not publish with this.
    pub fn publish(
        &mut self,
        channel: &str,
        data: &str,
        tags: Option<&Tags>,
    ) -> Result<Option<u64>, ClientError> {
        self.last_request += 1;
        let request = self.last_request;
        let channel = quote(channel);
        let tags = tags.map(|tags| format!(r#","tags":{}"#, tags.as_json())).unwrap_or_default();
        self.send(format!(
            r#"{{"action":"publish","channel":{channel},"data":{data}{tags},"id":{request}}}"#
        ))?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            match self.read(Some(deadline))? {
                ServerMessage::Acknowledged { request: Some(answered), offset }
                    if answered == request =>
                {
                    return Ok(offset);
                }
                // One request is under way, so an error that names none is its answer, too.
                ServerMessage::Refused(refusal)
                    if refusal.request.is_none_or(|answered| answered == request) =>
                {
                    return Err(ClientError::Refused(refusal));
                }
                _ => {}
            }
        }
    }

    /// Waits for the next message, as long as it takes. Pings are answered on the way.
    pub fn next_message(&mut self) -> Result<ServerMessage, ClientError> {
        self.read(None)
    }

    /// Answers the pings that have come by now, and passes over everything else: for a client that
    /// has had nothing to say or to hear for a while.
    pub fn answer_pings(&mut self) -> Result<(), ClientError> {
        loop {
            match self.read(Some(Instant::now() + Duration::from_millis(1))) {
                Ok(_) => {}
                Err(ClientError::Timeout(_)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Says goodbye, and waits a moment for the answer.
    pub fn close(mut self) {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        if self.socket.close(None).is_ok() {
            while self.read(Some(deadline)).is_ok() {}
        }
    }

    fn send(&mut self, json: String) -> Result<(), ClientError> {
        self.socket.send(Message::text(json)).map_err(failure)
    }

    fn read(&mut self, deadline: Option<Instant>) -> Result<ServerMessage, ClientError> {
        loop {
            let timeout = deadline.map(|deadline| deadline.duration_since(Instant::now()));
            if timeout.is_some_and(|timeout| timeout.is_zero()) {
                return Err(ClientError::Timeout(ANSWER_TIMEOUT));
            }
            let stream = self.socket.get_ref();
            stream.set_read_timeout(timeout).map_err(|error| failure(error.into()))?;
            match self.socket.read().map_err(failure)? {
                Message::Text(text) => return ServerMessage::parse(text.to_string()),
                Message::Close(frame) => {
                    // The echo of the Close frame is queued; a server that is gone needs none.
                    let _ = self.socket.flush();
                    let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                        (frame.code.into(), frame.reason.to_string())
                    });
                    return Err(ClientError::Closed { code, reason });
                }
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}

fn parse_url(url: &str) -> Result<Uri, ClientError> {
    let invalid = |reason: &str| ClientError::InvalidUrl {
        url: url.to_string(),
        reason: format!("{reason}; write it like {DEFAULT_URL}"),
    };
    let uri: Uri = url.parse().map_err(|error| invalid(&format!("{error}")))?;
    match uri.scheme_str() {
        Some("ws") => {}
        Some("wss") => return Err(ClientError::TlsUnsupported),
        Some(scheme) => return Err(invalid(&format!("`{scheme}://` is not WebSocket"))),
        None => return Err(invalid("it does not start with `ws://`")),
    }
    match uri.host() {
        Some(host) if !host.is_empty() => Ok(uri),
        _ => Err(invalid("the host is missing")),
    }
}

/// Tries the addresses of the host in turn; the error is that of the last.
fn open_stream(uri: &Uri) -> io::Result<TcpStream> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, uri.port_u16().unwrap_or(80)).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, ANSWER_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn failure(error: tungstenite::Error) -> ClientError {
    use tungstenite::Error;
    use tungstenite::error::ProtocolError;
    match error {
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::HandshakeIncomplete,
        ) => ClientError::Disconnected,
        Error::Io(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ClientError::Timeout(ANSWER_TIMEOUT)
            }
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => ClientError::Disconnected,
            _ => ClientError::WebSocket(Error::Io(error)),
        },
        error => ClientError::WebSocket(error),
    }
}

#[cfg(test)]
mod tests;
