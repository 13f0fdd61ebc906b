//! The client's half of RFC 6455: masked frames out, whole server frames in, nothing copied.

use crate::proto::OpCode;
use crate::proto::encoder::push_header;
use std::fmt;

/// 5.3 wants it unpredictable, for the sake of proxies; a load generator on loopback has none.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x3c, 0xa5];
/// 5.2: the bit that says that a payload is masked.
const MASKED: u8 = 0x80;

/// A message of the server, borrowed from what was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerFrame<'a> {
    pub opcode: OpCode,
    pub payload: &'a [u8],
}

/// What a server may send but this tool does not read, or what no server may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    Fragmented,
    /// Extensions were not asked for.
    ReservedBits,
    ReservedOpCode,
    Masked,
}

/// Takes one frame off `input`; `None` if it has not come whole yet.
pub fn next_frame<'a>(input: &mut &'a [u8]) -> Result<Option<ServerFrame<'a>>, FrameError> {
    let &[first, second, ref rest @ ..] = *input else { return Ok(None) };
    let opcode = OpCode::from_bits(first & 0x0F).ok_or(FrameError::ReservedOpCode)?;
    if first & 0x70 != 0 {
        return Err(FrameError::ReservedBits);
    }
    if first & 0x80 == 0 || opcode == OpCode::Continuation {
        return Err(FrameError::Fragmented);
    }
    let (length, rest) = match second {
        MASKED.. => return Err(FrameError::Masked),
        127 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        126 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        length => (u64::from(length), rest),
    };
    // What exceeds the memory never comes whole.
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let Some((payload, rest)) = rest.split_at_checked(length) else { return Ok(None) };
    *input = rest;
    Ok(Some(ServerFrame { opcode, payload }))
}

/// Appends a masked frame.
pub fn push_frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    let header = out.len();
    push_header(opcode, payload.len(), out);
    out[header + 1] |= MASKED;
    out.extend_from_slice(&MASK);
    let begin = out.len();
    out.extend_from_slice(payload);
    let (words, tail) = out[begin..].as_chunks_mut::<4>();
    let mask = u32::from_ne_bytes(MASK);
    for bytes in words {
        *bytes = (u32::from_ne_bytes(*bytes) ^ mask).to_ne_bytes();
    }
    for (byte, octet) in tail.iter_mut().zip(MASK) {
        *byte ^= octet;
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fragmented => "a message in several frames, which this tool does not read",
            Self::ReservedBits => "a frame with reserved bits, though no extension was offered",
            Self::ReservedOpCode => "a frame with a reserved opcode",
            Self::Masked => "a masked frame",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Decoder, DecoderLimits, Event, encoder};

    #[test]
    fn what_is_pushed_a_server_reads() {
        let limits = DecoderLimits { message_bytes_max: 1 << 20, empty_fragments_max: 1 };
        for length in [0, 1, 3, 4, 125, 126, 65_535, 65_536, 70_001] {
            let payload = vec![b'x'; length];
            let mut wire = Vec::new();
            push_frame(OpCode::Binary, &payload, &mut wire);
            let mut decoder = Decoder::default();
            let event = decoder.next(&mut &mut wire[..], &limits).unwrap();
            assert_eq!(event, Some(Event::Binary(payload.into())));
        }
    }

    #[test]
    fn what_a_server_writes_is_read_once_it_is_whole() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let payload = vec![7; length];
            let wire = encoder::payload_frame(OpCode::Binary, &payload);
            for cut in [0, 1, 2, 3, 5, 9, wire.len() - 1] {
                if cut < wire.len() {
                    assert_eq!(next_frame(&mut &wire[..cut]), Ok(None));
                }
            }
            let mut input = &wire[..];
            let frame = ServerFrame { opcode: OpCode::Binary, payload: &payload };
            assert_eq!(next_frame(&mut input), Ok(Some(frame)));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for (bytes, error) in [
            ([0x01, 0], FrameError::Fragmented),
            ([0x80, 0], FrameError::Fragmented),
            ([0xC1, 0], FrameError::ReservedBits),
            ([0x83, 0], FrameError::ReservedOpCode),
            ([0x81, 0x80], FrameError::Masked),
        ] {
            assert_eq!(next_frame(&mut &bytes[..]), Err(error));
        }
    }
}
