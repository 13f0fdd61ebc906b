//! What a decoder holds while something is incomplete: a header, a frame, the fragments of a
//! message. Grows with the bytes received, never with a length declared.

use std::borrow::Cow;
use std::mem;

use crate::proto::decoder::frame_header::{FrameHeader, HEADER_BYTES_MAX};
use crate::proto::decoder::mask::apply_mask;
use crate::proto::decoder::utf8::TextAssembler;
use crate::proto::decoder::{DecoderLimits, Event};
use crate::proto::opcode::OpCode;
use crate::proto::protocol_error::ProtocolError;

/// What has arrived of something incomplete.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// A header that is not whole; the first `header_len` bytes.
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// A frame whose header is whole and whose payload is not.
    pub frame: Option<OpenFrame>,
    /// The payload so far of a control frame: at most 125 bytes.
    pub control: Vec<u8>,
    /// A message whose last frame is not whole. Other than a control frame, which may come between
    /// its fragments (5.4), everything belongs to it.
    pub message: Option<Message>,
}

impl Partial {
    pub fn is_empty(&self) -> bool {
        self.header_len == 0
            && self.frame.is_none()
            && self.control.is_empty()
            && self.message.is_none()
    }

    /// Reads a header of which some bytes may be held already, or holds what there is of it.
    pub fn take_header(
        &mut self,
        input: &mut &mut [u8],
        limits: &DecoderLimits,
    ) -> Result<Option<OpenFrame>, ProtocolError> {
        let held = usize::from(self.header_len);
        let mut copied = 0;
        for (slot, byte) in self.header.iter_mut().skip(held).zip(input.iter()) {
            *slot = *byte;
            copied += 1;
        }
        let bytes = self.header.get(..held + copied).unwrap_or(&self.header);
        let open_message_bytes = self.message.as_ref().map(Message::len);
        match FrameHeader::parse(bytes, open_message_bytes, limits.message_bytes_max)? {
            Some((header, len)) => {
                take_front(input, len.saturating_sub(held));
                self.header_len = 0;
                self.count_empty_fragment(&header, limits)?;
                Ok(Some(OpenFrame { header, received: 0 }))
            }
            None => {
                take_front(input, copied);
                self.header_len = (held + copied) as u8; // at most HEADER_BYTES_MAX
                Ok(None)
            }
        }
    }

    fn count_empty_fragment(
        &mut self,
        header: &FrameHeader,
        limits: &DecoderLimits,
    ) -> Result<(), ProtocolError> {
        if header.opcode == OpCode::Continuation
            && header.payload_len == 0
            && !header.fin
            && let Some(message) = &mut self.message
        {
            message.empty_fragments += 1;
            if message.empty_fragments > limits.empty_fragments_max {
                return Err(ProtocolError::EmptyFragments { limit: limits.empty_fragments_max });
            }
        }
        Ok(())
    }

    /// The message this data frame belongs to; begun if the frame is its first.
    pub fn open_message(&mut self, opcode: OpCode) -> &mut Message {
        self.message.get_or_insert_with(|| Message {
            content: match opcode {
                OpCode::Text => Content::Text(TextAssembler::default()),
                _ => Content::Binary(Vec::new()),
            },
            empty_fragments: 0,
        })
    }
}

/// A frame whose header has been read.
#[derive(Debug)]
pub(super) struct OpenFrame {
    pub header: FrameHeader,
    /// Bytes of the payload taken so far, at most `header.payload_len`.
    pub received: u64,
}

impl OpenFrame {
    /// Takes what `input` has of the payload, unmasked.
    pub fn take_payload<'a>(&mut self, input: &mut &'a mut [u8]) -> &'a [u8] {
        let missing = self.header.payload_len - self.received;
        let payload = take_front(input, usize::try_from(missing).unwrap_or(usize::MAX));
        // The phase is needed modulo 4 only, so cutting the count to `usize` keeps it.
        apply_mask(payload, self.header.mask, self.received as usize);
        self.received += payload.len() as u64;
        payload
    }
}

/// The fragments of one message, in one buffer.
#[derive(Debug)]
pub(super) struct Message {
    pub content: Content,
    empty_fragments: u32,
}

#[derive(Debug)]
pub(super) enum Content {
    Text(TextAssembler),
    Binary(Vec<u8>),
}

impl Message {
    fn len(&self) -> usize {
        match &self.content {
            Content::Text(text) => text.len(),
            Content::Binary(bytes) => bytes.len(),
        }
    }

    pub fn push(&mut self, payload: &[u8]) -> Result<(), ProtocolError> {
        match &mut self.content {
            // 8.1: a stream that is not valid UTF-8 fails the connection.
            Content::Text(text) => text.push(payload).map_err(|_| ProtocolError::Utf8),
            Content::Binary(bytes) => {
                bytes.extend_from_slice(payload);
                Ok(())
            }
        }
    }

    pub fn finish(self) -> Result<Event<'static>, ProtocolError> {
        match self.content {
            Content::Text(text) => {
                let text = text.finish().map_err(|_| ProtocolError::Utf8)?;
                Ok(Event::Text(Cow::Owned(text)))
            }
            Content::Binary(bytes) => Ok(Event::Binary(Cow::Owned(bytes))),
        }
    }
}

/// Splits up to `count` bytes off the front of `input`.
pub(super) fn take_front<'a>(input: &mut &'a mut [u8], count: usize) -> &'a mut [u8] {
    let all = mem::take(input);
    let (front, rest) = all.split_at_mut(count.min(all.len()));
    *input = rest;
    front
}
