//! Why a connection of the client failed: one variant per situation a person can act on.

use super::message::Refusal;
use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

/// Of the Close frame of a server that got more bytes in a message than it takes: RFC 6455, section 7.4.1.
pub const TOO_BIG: u16 = 1009;

#[derive(Debug)]
pub enum ClientError {
    /// The text is the reason.
    InvalidUrl {
        url: String,
        reason: String,
    },
    /// It has characters that no token has.
    InvalidToken,
    /// The server does not know the token.
    Unauthenticated,
    /// `wss://`
    TlsUnsupported,
    Unreachable {
        url: String,
        error: io::Error,
    },
    /// An HTTP answer other than the upgrade.
    NotUpgraded {
        url: String,
        status: u16,
    },
    /// The server did not answer in time.
    Timeout(Duration),
    /// A Close frame of the server. Without a code it is 1005.
    Closed {
        code: u16,
        reason: String,
    },
    /// The connection ended without a Close frame.
    Disconnected,
    /// A message of the server that is not of the protocol.
    InvalidMessage(String),
    /// The server answered a request with an error.
    Refused(Refusal),
    /// A violation of RFC 6455, or an I/O error in the middle.
    WebSocket(tungstenite::Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidUrl { url, reason } => {
                write!(f, "`{url}` is not the address of a server: {reason}")
            }
            Self::InvalidToken => f.write_str("a token has printable ASCII characters only"),
            Self::Unauthenticated => f.write_str("the server does not accept the token"),
            Self::TlsUnsupported => f.write_str("TLS (wss://) is not supported by this client yet"),
            Self::Unreachable { url, error } => {
                write!(f, "cannot connect to {url}: ")?;
                match error.kind() {
                    io::ErrorKind::ConnectionRefused => f.write_str(
                        "connection refused; is the server running? start it with: stentor serve",
                    ),
                    io::ErrorKind::TimedOut => f.write_str("no answer"),
                    _ => write!(f, "{error}"),
                }
            }
            Self::NotUpgraded { url, status } => {
                write!(f, "{url} does not speak WebSocket: it answered with HTTP status {status}")
            }
            Self::Timeout(duration) => {
                write!(f, "the server did not answer within {} s", duration.as_secs())
            }
            Self::Closed { code: TOO_BIG, reason } => write!(
                f,
                "closed by the server: {TOO_BIG} {reason}: the message has more bytes than its \
                 `limits.max_message_size`"
            ),
            Self::Closed { code, reason } if reason.is_empty() => {
                write!(f, "closed by the server: {code}")
            }
            Self::Closed { code, reason } => write!(f, "closed by the server: {code} {reason}"),
            Self::Disconnected => f.write_str("the server ended the connection without a reason"),
            Self::InvalidMessage(reason) => write!(f, "not a message of a Stentor: {reason}"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::WebSocket(error) => write!(f, "the connection failed: {error}"),
        }
    }
}

// The texts hold their causes already.
impl Error for ClientError {}
