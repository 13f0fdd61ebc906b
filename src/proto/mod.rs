//! The protocols on the wire: WebSocket frames, the HTTP upgrade and the JSON messages inside.
//!
//! Bytes in, values out: no sockets, no clock, no logging, no globals. What arrives here comes from
//! strangers, so nothing in this folder panics on it, and nothing is allocated before it is checked;
//! every bound is an argument.

pub mod close;
pub mod command;
pub mod decoder;
pub mod encoder;
pub mod error_code;
pub mod http;
pub mod json;
pub mod opcode;
pub mod protocol_error;
pub mod recall;
pub mod reply;

#[cfg(test)]
mod tests;

pub use close::{CloseCode, CloseFrame};
pub use command::{Command, Commands, Family, Received, Rejection, RequestId, Subscription};
pub use decoder::{Decoder, DecoderLimits, Event};
pub use error_code::ErrorCode;
pub use opcode::OpCode;
pub use protocol_error::ProtocolError;
pub use recall::{HistoryQuery, Recovery, Since, Standing, Start, Unavailable};
