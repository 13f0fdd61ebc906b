//! Frames of RFC 6455 as bytes: masked ones to send, unmasked ones received. No sockets.

/// The opcodes of RFC 6455, 5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpCode(pub u8);

impl OpCode {
    pub const TEXT: Self = Self(1);
    pub const BINARY: Self = Self(2);
    pub const CLOSE: Self = Self(8);
    pub const PING: Self = Self(9);
    pub const PONG: Self = Self(10);
}

const FIN: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub opcode: OpCode,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Takes the frame at the front of `bytes`; also tells its length. `None`: it is not whole.
    ///
    /// # Panics
    ///
    /// The frame is one that this server must not send: masked, fragmented, with reserved bits, or
    /// with a length that is not in its shortest form.
    pub fn take(bytes: &[u8]) -> Option<(Self, usize)> {
        let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
        assert_eq!(first & 0xF0, FIN, "final and without reserved bits: {first:#04x}");
        assert_eq!(second & 0x80, 0, "5.1: a server MUST NOT mask any frames");
        let (length, header) = match second {
            126 => {
                let length = u16::from_be_bytes(*rest.first_chunk()?);
                assert!(length >= 126, "5.2: the minimal number of bytes MUST be used");
                (u64::from(length), 4)
            }
            127 => {
                let length = u64::from_be_bytes(*rest.first_chunk()?);
                assert!(length >= 65536, "5.2: the minimal number of bytes MUST be used");
                (length, 10)
            }
            short => (u64::from(short), 2),
        };
        let end = header + length as usize;
        let payload = bytes.get(header..end)?.to_vec();
        Some((Self { opcode: OpCode(first & 0x0F), payload }, end))
    }

    pub fn text(&self) -> &str {
        assert_eq!(self.opcode, OpCode::TEXT, "{self:?}");
        std::str::from_utf8(&self.payload).expect("text is UTF-8")
    }
}

/// A whole message, or a control frame, as a client sends it.
pub fn frame(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    masked(FIN | opcode.0, payload)
}

/// The first frame of a message that goes on.
pub fn fragment(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    masked(opcode.0, payload)
}

/// A further frame of a message; `last` ends it.
pub fn continuation(payload: &[u8], last: bool) -> Vec<u8> {
    masked(if last { FIN } else { 0 }, payload)
}

/// The header of a masked frame, with its key.
pub fn header(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..65536 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}

/// The payload of a Close frame (5.5.1).
pub fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len() as u64);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, octet)| byte ^ octet));
    bytes
}
