//! The incoming half of RFC 6455: masked client frames become messages, in whatever pieces the
//! bytes arrive. Owns what is incomplete, and nothing between messages. Never answers: pongs and
//! closes are the caller's.

mod frame_header;
mod mask;
mod partial;
mod utf8;

use std::borrow::Cow;
use std::mem;

use crate::proto::close::{CloseFrame, parse_close};
use crate::proto::decoder::frame_header::FrameHeader;
use crate::proto::decoder::partial::{Message, OpenFrame, Partial, take_front};
use crate::proto::opcode::OpCode;
use crate::proto::protocol_error::ProtocolError;

/// The bounds on what one connection may send.
#[derive(Debug, Clone, Copy)]
pub struct DecoderLimits {
    /// Longest message, in bytes, over all of its fragments.
    pub message_bytes_max: usize,
    /// Most empty continuations in one message; they cost work and never add to its length.
    pub empty_fragments_max: u32,
}

/// What a client sent. Borrows from the input unless it came in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// A text message. Valid UTF-8, checked once, as it arrived.
    Text(Cow<'a, str>),
    Binary(Cow<'a, [u8]>),
    /// To be answered with a pong of the same payload (5.5.3), at most 125 bytes.
    Ping(Cow<'a, [u8]>),
    /// The payload is that of the ping it answers, unless nobody asked for it; at most 125 bytes.
    Pong(Cow<'a, [u8]>),
    /// The last event of a connection; nothing after it is to be decoded.
    Close(Option<CloseFrame>),
}

/// The state of one connection's incoming stream: one word, and no memory while it is between
/// messages.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Invariant: `None` unless part of a frame or message is held.
    partial: Option<Box<Partial>>,
}

impl Decoder {
    /// Takes the next event off `input`, unmasking in place, and advances `input` past it.
    /// `Ok(None)`: the input is used up; what was incomplete is kept.
    ///
    /// A frame that holds a whole message and lies whole in `input` is borrowed from it, without
    /// any allocation. Memory grows with the bytes received, never with a length declared: a
    /// message takes at most twice its bytes so far.
    ///
    /// # Errors
    ///
    /// The first byte that breaks RFC 6455 or `limits` ends the stream, even in the middle of a
    /// frame. After an error, as after [`Event::Close`], do not call this again.
    pub fn next<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        limits: &DecoderLimits,
    ) -> Result<Option<Event<'a>>, ProtocolError> {
        while let Some(mut frame) = self.take_frame(input, limits)? {
            let is_first_piece = frame.received == 0;
            let payload = frame.take_payload(input);
            if frame.received < frame.header.payload_len {
                self.hold(frame, payload)?;
                return Ok(None);
            }
            let whole_message = is_first_piece && frame.header.fin;
            let event = match frame.header.opcode {
                OpCode::Text if whole_message => Some(Event::Text(Cow::Borrowed(
                    simdutf8::basic::from_utf8(payload).map_err(|_| ProtocolError::Utf8)?,
                ))),
                OpCode::Binary if whole_message => Some(Event::Binary(Cow::Borrowed(payload))),
                OpCode::Text | OpCode::Binary | OpCode::Continuation => {
                    self.finish_fragment(&frame.header, payload)?
                }
                OpCode::Ping => Some(Event::Ping(self.finish_control(payload))),
                OpCode::Pong => Some(Event::Pong(self.finish_control(payload))),
                OpCode::Close => Some(Event::Close(parse_close(self.finish_control(payload))?)),
            };
            self.release_if_empty();
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Whether part of a message or frame is held (for the message time-out).
    pub fn holds_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// The frame whose payload comes next in `input`; `None` if its header is not whole yet.
    fn take_frame(
        &mut self,
        input: &mut &mut [u8],
        limits: &DecoderLimits,
    ) -> Result<Option<OpenFrame>, ProtocolError> {
        if self.partial.is_none() {
            if let Some((header, len)) = FrameHeader::parse(input, None, limits.message_bytes_max)?
            {
                take_front(input, len);
                return Ok(Some(OpenFrame { header, received: 0 }));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
        let partial = self.partial.get_or_insert_default();
        match partial.frame.take() {
            Some(frame) => Ok(Some(frame)),
            None => partial.take_header(input, limits),
        }
    }

    /// Keeps a frame of which `payload` is the newest, but not the last piece.
    fn hold(&mut self, frame: OpenFrame, payload: &[u8]) -> Result<(), ProtocolError> {
        let partial = self.partial.get_or_insert_default();
        // Without a byte there is nothing to assemble; the rest may still come in one piece.
        if frame.received > 0 {
            if frame.header.opcode.is_control() {
                partial.control.extend_from_slice(payload);
            } else {
                partial.open_message(frame.header.opcode).push(payload)?;
            }
        }
        partial.frame = Some(frame);
        Ok(())
    }

    /// Adds the last piece of a frame to its message, and returns the message if it is now whole.
    fn finish_fragment(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<Option<Event<'static>>, ProtocolError> {
        let partial = self.partial.get_or_insert_default();
        partial.open_message(header.opcode).push(payload)?;
        if !header.fin {
            return Ok(None);
        }
        partial.message.take().map(Message::finish).transpose()
    }

    /// The whole payload of a control frame, of which `payload` is the last piece.
    fn finish_control<'a>(&mut self, payload: &'a [u8]) -> Cow<'a, [u8]> {
        match &mut self.partial {
            Some(partial) if !partial.control.is_empty() => {
                let mut whole = mem::take(&mut partial.control);
                whole.extend_from_slice(payload);
                Cow::Owned(whole)
            }
            _ => Cow::Borrowed(payload),
        }
    }

    fn release_if_empty(&mut self) {
        if self.partial.as_ref().is_some_and(|partial| partial.is_empty()) {
            self.partial = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::close::CloseCode;

    const LIMITS: DecoderLimits =
        DecoderLimits { message_bytes_max: 1 << 20, empty_fragments_max: 1024 };

    /// A masked frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..126 => bytes.push(0x80 | len as u8),
            len @ 126..65536 => {
                bytes.push(0xFE);
                bytes.extend((len as u16).to_be_bytes());
            }
            len => {
                bytes.push(0xFF);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, octet)| byte ^ octet));
        bytes
    }

    fn text(text: &str) -> Event<'_> {
        Event::Text(Cow::Borrowed(text))
    }

    /// Feeds `bytes` in pieces of `step` and returns the events up to the first error.
    fn decode(bytes: &[u8], step: usize) -> (Vec<Event<'static>>, Option<ProtocolError>) {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        for piece in bytes.to_vec().chunks_mut(step) {
            let mut input = piece;
            loop {
                match decoder.next(&mut input, &LIMITS) {
                    Ok(Some(event)) => events.push(own(event)),
                    Ok(None) => break,
                    Err(error) => return (events, Some(error)),
                }
            }
            assert!(input.is_empty(), "`None` means that the input is used up");
        }
        (events, None)
    }

    fn own(event: Event<'_>) -> Event<'static> {
        match event {
            Event::Text(text) => Event::Text(Cow::Owned(text.into_owned())),
            Event::Binary(bytes) => Event::Binary(Cow::Owned(bytes.into_owned())),
            Event::Ping(bytes) => Event::Ping(Cow::Owned(bytes.into_owned())),
            Event::Pong(bytes) => Event::Pong(Cow::Owned(bytes.into_owned())),
            Event::Close(frame) => Event::Close(frame),
        }
    }

    fn error_of(bytes: &[u8]) -> Option<ProtocolError> {
        let (_, whole) = decode(bytes, usize::MAX);
        let (_, single) = decode(bytes, 1);
        assert_eq!(whole, single);
        whole
    }

    #[test]
    fn an_idle_decoder_is_one_word() {
        assert_eq!(size_of::<Decoder>(), 8);
        assert!(size_of::<Partial>() <= 144, "{}", size_of::<Partial>());
    }

    #[test]
    fn whole_messages_are_borrowed_and_leave_nothing_behind() {
        let mut bytes =
            [frame(0x81, b"hello"), frame(0x82, &[0; 70000]), frame(0x8a, b"x")].concat();
        let mut input = bytes.as_mut_slice();
        let mut decoder = Decoder::default();
        let first = decoder.next(&mut input, &LIMITS).unwrap().unwrap();
        assert!(matches!(first, Event::Text(Cow::Borrowed("hello"))));
        let second = decoder.next(&mut input, &LIMITS).unwrap().unwrap();
        assert!(matches!(second, Event::Binary(Cow::Borrowed(bytes)) if bytes.len() == 70000));
        let third = decoder.next(&mut input, &LIMITS);
        assert_eq!(third, Ok(Some(Event::Pong(Cow::Borrowed(b"x")))));
        assert_eq!(decoder.next(&mut input, &LIMITS), Ok(None));
        assert!(!decoder.holds_partial());
    }

    #[test]
    fn a_payload_after_its_header_is_still_borrowed() {
        let mut bytes = frame(0x81, b"hello");
        let (head, payload) = bytes.split_at_mut(6);
        let (mut head, mut payload) = (head, payload);
        let mut decoder = Decoder::default();
        assert_eq!(decoder.next(&mut head, &LIMITS), Ok(None));
        assert!(decoder.holds_partial());
        let event = decoder.next(&mut payload, &LIMITS).unwrap().unwrap();
        assert!(matches!(event, Event::Text(Cow::Borrowed("hello"))));
        assert!(!decoder.holds_partial());
    }

    #[test]
    fn fragments_join_around_control_frames() {
        let bytes = [
            frame(0x01, "sch\u{f6}".as_bytes()),
            frame(0x89, b"are you there"),
            frame(0x00, b""),
            frame(0x80, b"ner"),
            frame(0x81, b""),
            frame(0x88, b"\x03\xe8"),
        ]
        .concat();
        let expected = vec![
            Event::Ping(Cow::Borrowed(b"are you there")),
            text("schöner"),
            text(""),
            Event::Close(Some(CloseFrame { code: CloseCode::Normal, reason: String::new() })),
        ];
        for step in [1, 2, 3, 5, 7, 11, bytes.len()] {
            assert_eq!(decode(&bytes, step), (expected.clone(), None), "step {step}");
        }
    }

    #[test]
    fn a_masking_key_of_zero_is_legal() {
        assert_eq!(decode(b"\x81\x82\0\0\0\0hi", usize::MAX), (vec![text("hi")], None));
    }

    #[test]
    fn bad_text_fails_before_the_message_ends() {
        // 6.4.* of the Autobahn suite: the bad byte is in the first of two announced fragments.
        let mut bytes = frame(0x01, b"\xce\xba\xf4\x90");
        assert_eq!(error_of(&bytes), Some(ProtocolError::Utf8));
        // The same within a frame of which most is missing.
        let declared = frame(0x81, &[b"ok \xff".as_slice(), &[b'x'; 1000]].concat());
        assert_eq!(error_of(&declared[..12]), Some(ProtocolError::Utf8));
        // And across a cut in the middle of a character.
        bytes = [frame(0x01, b"\xe2\x9c"), frame(0x80, b"\x28")].concat();
        assert_eq!(error_of(&bytes), Some(ProtocolError::Utf8));
        // An incomplete character at the end of the message.
        bytes = [frame(0x01, b"\xe2\x9c"), frame(0x80, b"")].concat();
        assert_eq!(error_of(&bytes), Some(ProtocolError::Utf8));
    }

    #[test]
    fn sizes_are_refused_at_the_header_and_over_all_fragments() {
        let limit = LIMITS.message_bytes_max;
        let declared = b"\x82\xff\x40\0\0\0\0\0\0\0";
        assert_eq!(error_of(declared), Some(ProtocolError::TooBig { bytes: 1 << 62, limit }));
        let mut wrapping = frame(0x02, b"abc");
        wrapping.extend(b"\x80\xff\x7f\xff\xff\xff\xff\xff\xff\xff");
        let bytes = i64::MAX as u64 + 3;
        assert_eq!(error_of(&wrapping), Some(ProtocolError::TooBig { bytes, limit }));
    }

    #[test]
    fn a_declared_length_reserves_nothing() {
        let mut bytes = b"\x82\xff\0\0\0\0\0\x10\0\0\x01\x02\x03\x04ten bytes!".to_vec();
        let mut decoder = Decoder::default();
        assert_eq!(decoder.next(&mut bytes.as_mut_slice(), &LIMITS), Ok(None));
        let message = decoder.partial.unwrap().message.unwrap();
        assert!(
            matches!(message.content, partial::Content::Binary(bytes) if bytes.capacity() <= 20)
        );
    }

    #[test]
    fn one_byte_fragments_cost_one_buffer() {
        let count = 131_000;
        let mut bytes = frame(0x02, b"x");
        (1..count).for_each(|_| bytes.extend(frame(0x00, b"x")));
        bytes.extend(frame(0x80, b""));
        let mut decoder = Decoder::default();
        let event = decoder.next(&mut bytes.as_mut_slice(), &LIMITS).unwrap().unwrap();
        let Event::Binary(Cow::Owned(message)) = event else { panic!("{event:?}") };
        assert_eq!(message.len(), count);
        assert!(message.capacity() < 2 * count);
    }

    #[test]
    fn empty_continuations_are_counted_per_message() {
        let allowed = frame(0x00, b"").repeat(1024);
        let message = [frame(0x01, b""), allowed.clone(), frame(0x80, b"x")].concat();
        assert_eq!(decode(&message.repeat(2), 1000), (vec![text("x"), text("x")], None));
        let abuse = [frame(0x01, b""), allowed, frame(0x00, b"")].concat();
        assert_eq!(error_of(&abuse), Some(ProtocolError::EmptyFragments { limit: 1024 }));
    }

    #[test]
    fn close_bodies_are_checked_when_they_are_whole() {
        assert_eq!(error_of(&frame(0x88, b"x")), Some(ProtocolError::CloseTooShort));
        assert_eq!(error_of(&frame(0x88, b"\x03\xee")), Some(ProtocolError::CloseCode(1006)));
        assert_eq!(error_of(&frame(0x88, b"\x03\xe8\xc3")), Some(ProtocolError::CloseReasonUtf8));
        assert_eq!(decode(&frame(0x88, b""), 1), (vec![Event::Close(None)], None));
    }

    #[test]
    fn a_message_of_the_limit_passes_in_any_pieces() {
        let bytes = frame(0x82, &vec![7; LIMITS.message_bytes_max]);
        for step in [1, 4093, 16384] {
            let (events, error) = decode(&bytes, step);
            assert_eq!(error, None);
            assert!(
                matches!(&events[..], [Event::Binary(b)] if b.len() == LIMITS.message_bytes_max)
            );
        }
    }
}
