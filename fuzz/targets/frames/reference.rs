//! RFC 6455, section 5, read off the page: all bytes are there, nothing is fast, everything is
//! copied. What the decoder must agree with, to the byte at which a stream fails.

use std::borrow::Cow;

use stentor::proto::{CloseCode, CloseFrame, DecoderLimits, Event, ProtocolError};

use crate::Outcome;

/// Decodes until the bytes end, an error, or a close.
pub fn decode(bytes: &[u8], limits: &DecoderLimits) -> Outcome {
    let mut stream = Stream { rest: bytes, message: None, limits };
    let mut events = Vec::new();
    loop {
        match stream.frame() {
            Ok(None) => return (events, None),
            Ok(Some(event)) => events.extend(event),
            Err(error) => return (events, Some(error)),
        }
        if matches!(events.last(), Some(Event::Close(_))) {
            return (events, None);
        }
    }
}

struct Stream<'a> {
    rest: &'a [u8],
    /// The message of which there were fragments, but not the last.
    message: Option<Message>,
    limits: &'a DecoderLimits,
}

struct Message {
    is_text: bool,
    bytes: Vec<u8>,
    empty_fragments: u32,
}

/// The event that a frame completes, if it does; `None` if the frame is not whole.
type Step = Result<Option<Option<Event<'static>>>, ProtocolError>;

impl Stream<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }

    fn frame(&mut self) -> Step {
        let Some([first]) = self.take() else { return Ok(None) };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0F);
        if first & 0x70 != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        match (opcode, &self.message) {
            (3..=7 | 11.., _) => return Err(ProtocolError::ReservedOpcode(opcode)),
            (8..=10, _) if !fin => return Err(ProtocolError::ControlFragmented),
            (0, None) => return Err(ProtocolError::UnexpectedContinuation),
            (1 | 2, Some(_)) => return Err(ProtocolError::ExpectedContinuation),
            _ => {}
        }

        let Some([second]) = self.take() else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(ProtocolError::Unmasked);
        }
        if opcode >= 8 && second & 0x7F > 125 {
            return Err(ProtocolError::ControlTooLong);
        }
        let Some(len) = self.length(second & 0x7F)? else { return Ok(None) };
        if opcode < 8 {
            let before = self.message.as_ref().map_or(0, |message| message.bytes.len());
            let (bytes, limit) = (len + before as u64, self.limits.message_bytes_max);
            if bytes > limit as u64 {
                return Err(ProtocolError::TooBig { bytes, limit });
            }
        }
        let Some(key) = self.take::<4>() else { return Ok(None) };

        let taken = self.rest.len().min(len as usize);
        let is_whole = taken as u64 == len;
        let (payload, rest) = self.rest.split_at(taken);
        self.rest = rest;
        let payload = (0..taken).map(|i| payload[i] ^ key[i % 4]).collect();
        match opcode {
            0..=2 => self.data(opcode, fin, is_whole, len, payload),
            _ if !is_whole => Ok(None),
            8 => Ok(Some(Some(Event::Close(close(&payload)?)))),
            9 => Ok(Some(Some(Event::Ping(Cow::Owned(payload))))),
            _ => Ok(Some(Some(Event::Pong(Cow::Owned(payload))))),
        }
    }

    fn length(&mut self, short: u8) -> Result<Option<u64>, ProtocolError> {
        let (len, minimum) = match short {
            126 => match self.take() {
                Some(bytes) => (u64::from(u16::from_be_bytes(bytes)), 126),
                None => return Ok(None),
            },
            127 if self.rest.first().is_some_and(|first| first & 0x80 != 0) => {
                return Err(ProtocolError::BadLength);
            }
            127 => match self.take() {
                Some(bytes) => (u64::from_be_bytes(bytes), 65536),
                None => return Ok(None),
            },
            short => (u64::from(short), 0),
        };
        if len < minimum { Err(ProtocolError::BadLength) } else { Ok(Some(len)) }
    }

    fn data(&mut self, opcode: u8, fin: bool, is_whole: bool, len: u64, payload: Vec<u8>) -> Step {
        let new = || Message { is_text: opcode == 1, bytes: Vec::new(), empty_fragments: 0 };
        let mut message = self.message.take().unwrap_or_else(new);
        if opcode == 0 && len == 0 && !fin {
            message.empty_fragments += 1;
            let limit = self.limits.empty_fragments_max;
            if message.empty_fragments > limit {
                return Err(ProtocolError::EmptyFragments { limit });
            }
        }
        message.bytes.extend(payload);
        if message.is_text
            && let Err(error) = std::str::from_utf8(&message.bytes)
        {
            // A character may be cut, but not at the end of the message.
            let may_go_on = error.error_len().is_none() && !(fin && is_whole);
            if !may_go_on {
                return Err(ProtocolError::Utf8);
            }
        }
        if !is_whole {
            return Ok(None);
        }
        if !fin {
            self.message = Some(message);
            return Ok(Some(None));
        }
        Ok(Some(Some(if message.is_text {
            let text = String::from_utf8(message.bytes).map_err(|_| ProtocolError::Utf8)?;
            Event::Text(Cow::Owned(text))
        } else {
            Event::Binary(Cow::Owned(message.bytes))
        })))
    }
}

fn close(payload: &[u8]) -> Result<Option<CloseFrame>, ProtocolError> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(ProtocolError::CloseTooShort),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    match code {
        0..1000 | 1004..=1006 | 1015..3000 | 5000.. => Err(ProtocolError::CloseCode(code)),
        _ => match std::str::from_utf8(reason) {
            Ok(reason) => {
                Ok(Some(CloseFrame { code: CloseCode::from(code), reason: reason.to_owned() }))
            }
            Err(_) => Err(ProtocolError::CloseReasonUtf8),
        },
    }
}
