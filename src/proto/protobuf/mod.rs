//! The messages of the subprotocol `stentor.v1.protobuf`, which `stentor.proto` describes: binary frames
//! in, commands out; publications and answers in, binary frames out.
//!
//! By hand, because what a generated codec hands out owns its bytes, and a publication here is borrowed
//! from the receive buffer until it stands in its frame. The tests hold it against a generated one.

mod chat;
mod envelope;
mod field;
mod number;
mod plain;
mod publication;
pub mod reply;
mod request;
#[cfg(test)]
pub mod tests;
mod typed;
mod wire;

pub use publication::{bytes_as_json, plain_frame, publication_frame, translated};
pub use request::{Requests, Scratch};
