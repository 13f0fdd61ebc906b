//! What shards and the thread of the bridge tell each other.

use crate::ids::{ConnectionId, ShardId, TargetId, Token, UserName};

/// A message of a client on its way to a target outside.
#[derive(Debug)]
pub struct BridgeMessage {
    pub target: TargetId,
    /// The value of `type`.
    pub kind: Box<str>,
    /// The whole message as its client wrote it: JSON.
    pub text: Box<str>,
    pub connection_id: ConnectionId,
    /// Whose connection it is; `None`: nobody's.
    pub user: Option<UserName>,
    pub channel: Option<Box<str>>,
    /// Unix time, in milliseconds.
    pub received_ms: u64,
    pub origin: BridgeOrigin,
}

/// Whom the answer is for, and what it repeats.
#[derive(Debug)]
pub struct BridgeOrigin {
    pub shard: ShardId,
    pub token: Token,
    /// Raw JSON of the client, as the next.
    pub request_id: Option<Box<str>>,
    pub message_id: Option<Box<str>>,
}

/// What became of a message.
#[derive(Debug)]
pub struct BridgeAnswer {
    pub origin: BridgeOrigin,
    pub outcome: BridgeOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BridgeOutcome {
    /// The target has it, and says nothing.
    Taken,
    /// The target says this: one JSON value.
    Replied(Box<str>),
    /// The target does not want it. `code` has
    /// `REFUSAL_CODE_BYTES_MAX` bytes at most, all of them visible ASCII.
    Refused { code: Box<str>, text: Box<str> },
    /// The target could not be had, or did not take it, however often it was tried.
    Unavailable,
}

/// Longest code of a refusal, in bytes.
pub const REFUSAL_CODE_BYTES_MAX: usize = 64;

/// Longest text of a refusal, in bytes.
pub const REFUSAL_TEXT_BYTES_MAX: usize = 1024;

impl BridgeOutcome {
    /// An answer of JSON. It has no line breaks, which may separate messages in a frame.
    pub fn replied(json: &str) -> Self {
        // None stands within a string.
        Self::Replied(json.replace(['\n', '\r'], " ").into())
    }

    /// A refusal within the bounds; a code that is none is `refused`.
    pub fn refusal(code: &str, text: &str) -> Self {
        let is_code = (1..=REFUSAL_CODE_BYTES_MAX).contains(&code.len())
            && code.bytes().all(|byte| byte.is_ascii_graphic());
        let end = text.floor_char_boundary(REFUSAL_TEXT_BYTES_MAX);
        Self::Refused {
            code: if is_code { code } else { "refused" }.into(),
            text: text[..end].into(),
        }
    }
}

impl BridgeMessage {
    /// Bytes that wait with it.
    pub fn weight(&self) -> usize {
        const SMALL: usize = 256;
        SMALL + self.text.len()
    }
}

impl BridgeAnswer {
    /// Bytes that wait with it, beyond a small message.
    pub fn weight(&self) -> usize {
        match &self.outcome {
            BridgeOutcome::Replied(payload) => payload.len(),
            BridgeOutcome::Refused { text, .. } => text.len(),
            BridgeOutcome::Taken | BridgeOutcome::Unavailable => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_short_and_has_a_code() {
        let refusal = |code: &str, text: &str| match BridgeOutcome::refusal(code, text) {
            BridgeOutcome::Refused { code, text } => (code.into_string(), text.len()),
            other => panic!("{other:?}"),
        };
        assert_eq!(refusal("too_late", "x"), ("too_late".to_string(), 1));
        let long = "é".repeat(1000);
        assert_eq!(refusal("", &long), ("refused".to_string(), 1024));
        for code in ["a b", "é", &"x".repeat(65)] {
            assert_eq!(refusal(code, "").0, "refused");
        }
    }
}
