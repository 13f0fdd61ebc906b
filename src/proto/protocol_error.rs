//! How a peer can break RFC 6455, and what it is told.

use std::fmt;

use crate::proto::close::CloseCode;

/// What was wrong with the bytes of a connection. The connection ends with
/// [`close_code`](Self::close_code).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError {
    /// A client frame without a mask.
    Unmasked,
    /// RSV1–3 are set and no extension was agreed on.
    ReservedBits,
    /// Opcode 3–7 or 11–15.
    ReservedOpcode(u8),
    /// The length is not in its shortest form, or the top bit of the 64-bit form is set.
    BadLength,
    /// A control frame without FIN.
    ControlFragmented,
    /// A control frame with more than 125 bytes.
    ControlTooLong,
    /// A continuation while no message is open.
    UnexpectedContinuation,
    /// A text or binary frame while a message is open.
    ExpectedContinuation,
    /// A message exceeds the limit, as its frame headers declare it.
    TooBig { bytes: u64, limit: usize },
    /// More empty continuations in one message than allowed.
    EmptyFragments { limit: u32 },
    /// A text message that is not UTF-8.
    Utf8,
    /// A close frame with one byte.
    CloseTooShort,
    /// A close code that must not be sent.
    CloseCode(u16),
    /// A close reason that is not UTF-8.
    CloseReasonUtf8,
}

impl ProtocolError {
    /// The code to close with (RFC 6455, 7.4.1).
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::Unmasked
            | Self::ReservedBits
            | Self::ReservedOpcode(_)
            | Self::BadLength
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::UnexpectedContinuation
            | Self::ExpectedContinuation
            | Self::CloseTooShort
            | Self::CloseCode(_) => CloseCode::Protocol,
            Self::TooBig { .. } => CloseCode::Size,
            Self::EmptyFragments { .. } => CloseCode::Policy,
            Self::Utf8 | Self::CloseReasonUtf8 => CloseCode::Invalid,
        }
    }

    /// A short machine code: the close reason, the log reason and the label of the metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unmasked => "unmasked",
            Self::ReservedBits => "reserved_bits",
            Self::ReservedOpcode(_) => "reserved_opcode",
            Self::BadLength => "bad_length",
            Self::ControlFragmented => "control_fragmented",
            Self::ControlTooLong => "control_too_long",
            Self::UnexpectedContinuation => "unexpected_continuation",
            Self::ExpectedContinuation => "expected_continuation",
            Self::TooBig { .. } => "too_big",
            Self::EmptyFragments { .. } => "fragment_abuse",
            Self::Utf8 | Self::CloseReasonUtf8 => "utf8",
            Self::CloseTooShort => "close_too_short",
            Self::CloseCode(_) => "close_code",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmasked => f.write_str("a client frame is not masked"),
            Self::ReservedBits => f.write_str("reserved bits are set without an extension"),
            Self::ReservedOpcode(opcode) => write!(f, "opcode {opcode} is reserved"),
            Self::BadLength => f.write_str("a length has its top bit set or is not minimal"),
            Self::ControlFragmented => f.write_str("a control frame is fragmented"),
            Self::ControlTooLong => f.write_str("a control frame exceeds 125 bytes"),
            Self::UnexpectedContinuation => f.write_str("a continuation without a message"),
            Self::ExpectedContinuation => {
                f.write_str("a new message before the last one was finished")
            }
            Self::TooBig { bytes, limit } => {
                write!(f, "message of {bytes} bytes exceeds the limit of {limit}")
            }
            Self::EmptyFragments { limit } => {
                write!(f, "a message has more than {limit} empty continuations")
            }
            Self::Utf8 => f.write_str("a text message is not UTF-8"),
            Self::CloseTooShort => f.write_str("a close frame of one byte has no room for a code"),
            Self::CloseCode(code) => write!(f, "close code {code} must not be sent"),
            Self::CloseReasonUtf8 => f.write_str("a close reason is not UTF-8"),
        }
    }
}

impl std::error::Error for ProtocolError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_the_numbers() {
        let error = ProtocolError::TooBig { bytes: 70000, limit: 65536 };
        assert_eq!(error.to_string(), "message of 70000 bytes exceeds the limit of 65536");
        assert_eq!(error.close_code(), CloseCode::Size);
        assert_eq!(error.reason(), "too_big");
    }

    #[test]
    fn errors_stay_small() {
        assert!(size_of::<ProtocolError>() <= 24);
    }

    #[test]
    fn the_documentation_has_every_reason_with_its_code() {
        let text = include_str!("../../docs/protocol.md");
        for error in [
            ProtocolError::Unmasked,
            ProtocolError::ReservedBits,
            ProtocolError::ReservedOpcode(3),
            ProtocolError::BadLength,
            ProtocolError::ControlFragmented,
            ProtocolError::ControlTooLong,
            ProtocolError::UnexpectedContinuation,
            ProtocolError::ExpectedContinuation,
            ProtocolError::TooBig { bytes: 2, limit: 1 },
            ProtocolError::EmptyFragments { limit: 1 },
            ProtocolError::Utf8,
            ProtocolError::CloseTooShort,
            ProtocolError::CloseCode(1005),
            ProtocolError::CloseReasonUtf8,
        ] {
            let start = format!("| {} | ", u16::from(error.close_code()));
            let name = format!("`{}`", error.reason());
            let mut rows = text.lines().filter(|line| line.starts_with(&start));
            assert!(rows.any(|row| row.contains(&name)), "{start}{name}");
        }
    }
}
