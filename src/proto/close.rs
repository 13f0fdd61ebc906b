//! Close codes: which there are, which a peer may send, and the body of a close frame.

use std::borrow::Cow;

pub use tungstenite::protocol::frame::coding::CloseCode;

use crate::proto::protocol_error::ProtocolError;

/// The peer reads slower than it is sent to. It may come back and resume.
pub const SLOW_CONSUMER: CloseCode = CloseCode::Library(4002);

/// The server API has ended the connection, or its user the session, from another connection perhaps. It is
/// not to come back.
pub const KICKED: CloseCode = CloseCode::Library(4003);

/// Nothing, not even a pong, came from the peer for too long. It may come back and resume.
pub const NO_HEARTBEAT: CloseCode = CloseCode::Library(4004);

/// The session of the connection has moved to another one.
pub const SESSION_MOVED: CloseCode = CloseCode::Library(4005);

/// More publications than the rate limit allows, again and again; come back after a pause.
pub const RATE_LIMITED: CloseCode = CloseCode::Library(4006);

/// Why a peer closes: the body of its close frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame {
    /// A code that passed [`is_sendable_by_peer`].
    pub code: CloseCode,
    /// At most 123 bytes; may be empty.
    pub reason: String,
}

/// Whether a close frame may carry this code.
///
/// RFC 6455, 7.4: 1004, 1005, 1006 and 1015 MUST NOT be set in a close frame, 0–999 are not used,
/// and the rest below 3000 is reserved for the protocol. 1012–1014 were registered with IANA later.
pub fn is_sendable_by_peer(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Whether a connection that is closed with this code leaves nothing to come back to: its session ends
/// with it.
pub fn ends_session(code: CloseCode) -> bool {
    matches!(code, CloseCode::Policy | KICKED)
}

/// Reads the unmasked payload of a close frame. `None`: it was empty, which is allowed.
///
/// # Errors
///
/// [`ProtocolError::CloseTooShort`], [`ProtocolError::CloseCode`] or
/// [`ProtocolError::CloseReasonUtf8`].
pub(super) fn parse_close(payload: Cow<'_, [u8]>) -> Result<Option<CloseFrame>, ProtocolError> {
    if payload.is_empty() {
        return Ok(None);
    }
    // 5.5.1: if there is a body, its first two bytes MUST be an unsigned integer, the status code.
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return Err(ProtocolError::CloseTooShort);
    };
    let code = u16::from_be_bytes(*code);
    if !is_sendable_by_peer(code) {
        return Err(ProtocolError::CloseCode(code));
    }
    // 5.5.1: the body may contain UTF-8-encoded data with value /reason/.
    let reason =
        simdutf8::basic::from_utf8(reason).map_err(|_| ProtocolError::CloseReasonUtf8)?.to_owned();
    Ok(Some(CloseFrame { code: CloseCode::from(code), reason }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(payload: &[u8]) -> Result<Option<CloseFrame>, ProtocolError> {
        parse_close(Cow::Borrowed(payload))
    }

    #[test]
    fn sendable_codes_are_those_of_the_registry() {
        for code in [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 4002, 4999] {
            assert!(is_sendable_by_peer(code), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!is_sendable_by_peer(code), "{code}");
        }
    }

    #[test]
    fn our_codes_are_sendable_and_have_their_number() {
        assert_eq!(u16::from(SLOW_CONSUMER), 4002);
        assert_eq!(u16::from(NO_HEARTBEAT), 4004);
        assert_eq!(u16::from(KICKED), 4003);
        assert!(is_sendable_by_peer(4002) && is_sendable_by_peer(4004));
    }

    #[test]
    fn a_body_is_a_code_and_a_reason() {
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(
            parse(b"\x03\xe8bye"),
            Ok(Some(CloseFrame { code: CloseCode::Normal, reason: "bye".into() }))
        );
        let frame = parse(b"\x03\xf6").unwrap().unwrap();
        assert_eq!(u16::from(frame.code), 1014);
    }

    #[test]
    fn a_bad_body_is_named() {
        assert_eq!(parse(b"\x03"), Err(ProtocolError::CloseTooShort));
        assert_eq!(parse(b"\x03\xed"), Err(ProtocolError::CloseCode(1005)));
        assert_eq!(parse(b"\x03\xe8\xff"), Err(ProtocolError::CloseReasonUtf8));
    }
}
