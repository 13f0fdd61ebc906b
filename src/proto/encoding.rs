//! The forms in which the messages of a connection are written.

/// How a connection speaks: chosen by its subprotocol, for as long as it lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Objects in text frames.
    #[default]
    Json,
    /// Envelopes in binary frames, see `protobuf/stentor.proto`.
    Protobuf,
}
