//! The opcodes of RFC 6455, section 5.2. Only those that exist: a reserved one is not a value.
//!
//! `tungstenite`'s type also carries the reserved ones and panics above 15; ours is what is left
//! once a header byte has been checked.

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OpCode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl OpCode {
    /// The opcode of these four bits; `None` for 3–7 and 11–15, which are reserved, and above.
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Continuation),
            1 => Some(Self::Text),
            2 => Some(Self::Binary),
            8 => Some(Self::Close),
            9 => Some(Self::Ping),
            10 => Some(Self::Pong),
            _ => None,
        }
    }

    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// 5.5: control frames are identified by opcodes where the most significant bit is 1.
    pub fn is_control(self) -> bool {
        self.bits() & 0x8 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_round_trip_and_reserved_ones_are_no_opcode() {
        for bits in 0..=u8::MAX {
            match OpCode::from_bits(bits) {
                Some(opcode) => {
                    assert_eq!(opcode.bits(), bits);
                    assert_eq!(opcode.is_control(), bits >= 8);
                }
                None => assert!(matches!(bits, 3..=7 | 11..)),
            }
        }
    }
}
