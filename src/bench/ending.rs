//! How a connection of the load generator ends.

use super::frame::FrameError;
use std::fmt;
use std::io;

/// Why a connection is gone.
#[derive(Debug)]
pub enum Ending {
    Lost(io::Error),
    /// The first line of the answer.
    NotUpgraded(String),
    Closed {
        code: u16,
        reason: String,
    },
    /// Without a Close frame.
    Ended,
    Frame(FrameError),
    /// More waits to be sent than a run may hold.
    NotReading,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(error) => write!(f, "{error}"),
            Self::NotUpgraded(line) => write!(f, "not upgraded: {line}"),
            Self::Closed { code, reason } => write!(f, "closed by the server: {code} {reason}"),
            Self::Ended => f.write_str("ended by the server without a reason"),
            Self::Frame(error) => write!(f, "the server sent {error}"),
            Self::NotReading => f.write_str("the server does not read"),
        }
    }
}
