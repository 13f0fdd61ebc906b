//! The header of a client frame (RFC 6455, section 5.2): decoding and the rules that need no
//! payload. Nothing is kept: what the caller knows of the open message is an argument.

use crate::proto::opcode::OpCode;
use crate::proto::protocol_error::ProtocolError;

/// Longest header of a client frame: 2 bytes, a 64-bit length, the masking key.
pub(super) const HEADER_BYTES_MAX: usize = 14;

const FIN: u8 = 0x80;
const RSV: u8 = 0x70;
const MASK: u8 = 0x80;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub fin: bool,
    pub opcode: OpCode,
    /// As declared. Fits the limit, alone and with the fragments before it.
    pub payload_len: u64,
    pub mask: [u8; 4],
}

impl FrameHeader {
    /// Reads the header at the front of `bytes` and returns it with its own length in bytes.
    /// `None`: more bytes are needed, and those there are break no rule.
    ///
    /// `open_message_bytes` is what the fragments of an open message have together, `None` when
    /// none is open. The verdict on a byte does not depend on the bytes after it, so splitting the
    /// input never changes which error is reported.
    pub fn parse(
        bytes: &[u8],
        open_message_bytes: Option<usize>,
        message_bytes_max: usize,
    ) -> Result<Option<(Self, usize)>, ProtocolError> {
        let Some((&first, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let (fin, opcode) = parse_first_byte(first, open_message_bytes.is_some())?;

        let Some((&second, rest)) = rest.split_first() else {
            return Ok(None);
        };
        // 5.1: the server MUST close the connection upon receiving a frame that is not masked.
        if second & MASK == 0 {
            return Err(ProtocolError::Unmasked);
        }
        let short_len = second & !MASK;
        // 5.5: all control frames MUST have a payload length of 125 bytes or less.
        if opcode.is_control() && short_len > 125 {
            return Err(ProtocolError::ControlTooLong);
        }

        let Some((payload_len, rest)) = parse_length(short_len, rest)? else {
            return Ok(None);
        };
        if !opcode.is_control() {
            // Saturating: a sum over fragments that does not fit is too big as well.
            let message_bytes = payload_len.saturating_add(open_message_bytes.unwrap_or(0) as u64);
            if message_bytes > message_bytes_max as u64 {
                let limit = message_bytes_max;
                return Err(ProtocolError::TooBig { bytes: message_bytes, limit });
            }
        }
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let header = Self { fin, opcode, payload_len, mask: *mask };
        Ok(Some((header, bytes.len() - rest.len())))
    }
}

fn parse_first_byte(byte: u8, in_message: bool) -> Result<(bool, OpCode), ProtocolError> {
    // 5.2: RSV MUST be 0 unless an extension is negotiated that defines meanings for them.
    if byte & RSV != 0 {
        return Err(ProtocolError::ReservedBits);
    }
    let bits = byte & 0x0F;
    let Some(opcode) = OpCode::from_bits(bits) else {
        return Err(ProtocolError::ReservedOpcode(bits));
    };
    let fin = byte & FIN != 0;
    match opcode {
        // 5.5: control frames MUST NOT be fragmented.
        OpCode::Close | OpCode::Ping | OpCode::Pong if !fin => {
            Err(ProtocolError::ControlFragmented)
        }
        // 5.4: the fragments of one message MUST NOT be interleaved with those of another.
        OpCode::Continuation if !in_message => Err(ProtocolError::UnexpectedContinuation),
        OpCode::Text | OpCode::Binary if in_message => Err(ProtocolError::ExpectedContinuation),
        _ => Ok((fin, opcode)),
    }
}

fn parse_length(short_len: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, ProtocolError> {
    let (payload_len, minimum, rest) = match short_len {
        126 => match rest.split_first_chunk::<2>() {
            Some((bytes, rest)) => (u64::from(u16::from_be_bytes(*bytes)), 126, rest),
            None => return Ok(None),
        },
        127 => {
            // 5.2: the most significant bit MUST be 0.
            if rest.first().is_some_and(|first| first & 0x80 != 0) {
                return Err(ProtocolError::BadLength);
            }
            match rest.split_first_chunk::<8>() {
                Some((bytes, rest)) => (u64::from_be_bytes(*bytes), 65536, rest),
                None => return Ok(None),
            }
        }
        short => (u64::from(short), 0, rest),
    };
    // 5.2: in all cases, the minimal number of bytes MUST be used to encode the length.
    if payload_len < minimum {
        return Err(ProtocolError::BadLength);
    }
    Ok(Some((payload_len, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Option<(FrameHeader, usize)>, ProtocolError> {
        FrameHeader::parse(bytes, None, usize::MAX)
    }

    fn payload_len(bytes: &[u8]) -> Result<u64, ProtocolError> {
        parse(bytes).map(|header| header.expect("the header is whole").0.payload_len)
    }

    #[test]
    fn a_header_is_read_and_measured() {
        let (header, header_len) = parse(b"\x81\x85\x01\x02\x03\x04hello").unwrap().unwrap();
        assert_eq!(
            header,
            FrameHeader { fin: true, opcode: OpCode::Text, payload_len: 5, mask: [1, 2, 3, 4] }
        );
        assert_eq!(header_len, 6);
    }

    #[test]
    fn each_length_form_has_its_range() {
        assert_eq!(payload_len(b"\x82\xfd\0\0\0\0"), Ok(125));
        assert_eq!(payload_len(b"\x82\xfe\x00\x7e\0\0\0\0"), Ok(126));
        assert_eq!(payload_len(b"\x82\xfe\xff\xff\0\0\0\0"), Ok(65535));
        assert_eq!(payload_len(b"\x82\xff\0\0\0\0\0\x01\0\0\0\0\0\0"), Ok(65536));
        assert_eq!(
            payload_len(b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0"),
            Ok(i64::MAX as u64)
        );
    }

    #[test]
    fn non_minimal_lengths_and_the_top_bit_are_refused() {
        let bad = Err(ProtocolError::BadLength);
        assert_eq!(parse(b"\x82\xfe\x00\x7d"), bad);
        assert_eq!(parse(b"\x82\xff\0\0\0\0\0\0\xff\xff"), bad);
        assert_eq!(parse(b"\x82\xff\x80"), bad);
        assert_eq!(parse(b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff"), bad);
    }

    #[test]
    fn an_incomplete_header_is_not_an_error() {
        let header = b"\x82\xff\0\0\0\0\0\x01\0\0\x01\x02\x03\x04";
        for len in 0..header.len() {
            assert_eq!(parse(&header[..len]), Ok(None));
        }
        assert!(parse(header).unwrap().is_some());
    }

    #[test]
    fn each_rule_has_its_error() {
        assert_eq!(parse(b"\x81\x05"), Err(ProtocolError::Unmasked));
        assert_eq!(parse(b"\xc1"), Err(ProtocolError::ReservedBits));
        assert_eq!(parse(b"\x83"), Err(ProtocolError::ReservedOpcode(3)));
        assert_eq!(parse(b"\x8f"), Err(ProtocolError::ReservedOpcode(15)));
        assert_eq!(parse(b"\x09"), Err(ProtocolError::ControlFragmented));
        assert_eq!(parse(b"\x89\xfe"), Err(ProtocolError::ControlTooLong));
        assert_eq!(parse(b"\x80"), Err(ProtocolError::UnexpectedContinuation));
        let open = FrameHeader::parse(b"\x81", Some(0), 100);
        assert_eq!(open, Err(ProtocolError::ExpectedContinuation));
    }

    #[test]
    fn too_big_is_known_before_the_mask_arrives() {
        let declared = b"\x82\xff\x40\0\0\0\0\0\0\0";
        let too_big = ProtocolError::TooBig { bytes: 1 << 62, limit: 100 };
        assert_eq!(FrameHeader::parse(declared, None, 100), Err(too_big));

        let sum = FrameHeader::parse(b"\x80\x81", Some(100), 100);
        assert_eq!(sum, Err(ProtocolError::TooBig { bytes: 101, limit: 100 }));
        assert_eq!(FrameHeader::parse(b"\x80\x80", Some(100), 100), Ok(None));
        // A ping is not part of the message.
        assert_eq!(FrameHeader::parse(b"\x89\xfd", Some(100), 100), Ok(None));
    }
}
