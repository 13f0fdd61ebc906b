//! The protocols on the wire: WebSocket frames, the HTTP upgrade and the messages inside, in JSON or in
//! protobuf.
//!
//! Bytes in, values out: no sockets, no clock, no logging, no globals. What arrives here comes from
//! strangers, so nothing in this folder panics on it, and nothing is allocated before it is checked;
//! every bound is an argument.

pub mod answer;
pub mod audience;
pub mod close;
pub mod command;
pub mod data;
pub mod decoder;
pub mod encoder;
pub mod encoding;
pub mod error_code;
pub mod http;
pub mod inbox;
pub mod json;
pub mod opcode;
pub mod presence;
pub mod protobuf;
pub mod protocol_error;
pub mod recall;
pub mod reply;
pub mod room;
pub mod routed;
pub mod tags;
pub mod typed;

#[cfg(test)]
mod tests;

pub use answer::Answer;
pub use audience::{ADDRESSEES_MAX, Addressee, Among, Audience};
pub use close::{CloseCode, CloseFrame};
pub use command::{Command, Commands, Family, Received, Rejection, RequestId, Subscription};
pub use data::Data;
pub use decoder::{Decoder, DecoderLimits, Event};
pub use encoding::Encoding;
pub use error_code::ErrorCode;
pub use opcode::OpCode;
pub use presence::{Headcount, Presence, PresenceNotice, PresenceQuery, PresentMember};
pub use protocol_error::ProtocolError;
pub use recall::{
    Claim, ClaimedPlace, HistoryQuery, Recovery, Restored, Since, Standing, Start, Unavailable,
};
pub use room::{Removal, RoomAction, RoomPlan, RoomRefusal, RoomView};
