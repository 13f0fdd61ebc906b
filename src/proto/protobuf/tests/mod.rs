//! The codec against the one that `prost` generates of the same schema.

#[rustfmt::skip]
#[path = "../../../../tests/server/support/envelope.rs"]
#[allow(clippy::all, dead_code)]
pub mod envelope;
mod asked;
mod both;
mod expected;
mod replies;
mod requests;

use bytes::Bytes;
use prost::Message;

use crate::proto::encoder::frame_payload;
use envelope::Envelope;

/// The only envelope in a binary frame of the server.
fn decode(frame: &Bytes) -> Envelope {
    assert_eq!(frame[0], 0x82);
    let mut payload = frame_payload(frame);
    let envelope = Envelope::decode_length_delimited(&mut payload).expect("it is protobuf");
    assert!(payload.is_empty());
    envelope
}
