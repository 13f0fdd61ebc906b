//! The forms in which the messages of a connection are written.

use crate::proto::opcode::OpCode;

/// How a connection speaks: chosen by its subprotocol, for as long as it lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Objects in text frames.
    #[default]
    Json,
    /// Envelopes in binary frames, see `protobuf/stentor.proto`.
    Protobuf,
}

impl Encoding {
    /// That of a whole frame of the server with a message in it.
    #[inline]
    pub fn of_frame(frame: &[u8]) -> Self {
        const BINARY: u8 = 0x80 | OpCode::Binary as u8;
        if frame.first() == Some(&BINARY) { Self::Protobuf } else { Self::Json }
    }
}
