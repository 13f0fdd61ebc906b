//! The outgoing half of RFC 6455: unmasked, unfragmented server frames. Framing only: frames are
//! built whole, in one allocation of their exact size, to be shared by reference.

use bytes::Bytes;

use crate::ids::Position;
use crate::proto::close::CloseCode;
use crate::proto::json::escape;
use crate::proto::opcode::OpCode;
use crate::proto::tags::{self, TAGS_MARK};
use crate::proto::typed::{MESSAGE_MARK, as_message};

/// Longest header of a server frame: 2 bytes and a 64-bit length.
pub const HEADER_BYTES_MAX: usize = 10;

/// 5.5: a control frame has at most this many bytes of payload.
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// How long the header of a server frame is. 5.2: the minimal number of bytes MUST be used to encode the
/// length of the payload.
#[inline]
pub fn header_len(payload_len: usize) -> usize {
    match payload_len {
        ..126 => 2,
        126..=0xFFFF => 4,
        _ => HEADER_BYTES_MAX,
    }
}

/// Appends the header of a final, unmasked frame. In pieces of fixed size, which take no call to be copied.
#[inline]
pub fn push_header(opcode: OpCode, payload_len: usize, out: &mut Vec<u8>) {
    const FIN: u8 = 0x80;
    let first = FIN | opcode.bits();
    match payload_len {
        ..126 => out.extend_from_slice(&[first, payload_len as u8]),
        126..=0xFFFF => {
            let [high, low] = (payload_len as u16).to_be_bytes();
            out.extend_from_slice(&[first, 126, high, low]);
        }
        _ => {
            out.extend_from_slice(&[first, 127]);
            out.extend_from_slice(&(payload_len as u64).to_be_bytes());
        }
    }
}

/// Appends a whole frame to `out`.
pub fn write_frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(header_len(payload.len()) + payload.len());
    push_header(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

/// A piece of a JSON text.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// JSON as it stands, copied byte for byte.
    Raw(&'a [u8]),
    /// Text that becomes a JSON string.
    String(&'a str),
}

impl<'a> Part<'a> {
    pub const fn raw(json: &'a str) -> Self {
        Self::Raw(json.as_bytes())
    }

    #[inline(always)]
    fn len(&self) -> usize {
        match self {
            Self::Raw(json) => json.len(),
            Self::String(text) => escape::string_len(text),
        }
    }
}

/// The text frame of all parts one after the other, in one allocation of exact size.
pub fn text_frame(parts: &[Part<'_>]) -> Bytes {
    assemble(parts)
}

/// Inlined where publications are made, so that nothing is decided there which is known already.
#[inline(always)]
fn assemble(parts: &[Part<'_>]) -> Bytes {
    assemble_in(Vec::new(), parts)
}

/// As [`assemble`], in this memory if it is enough.
#[inline(always)]
fn assemble_in(mut out: Vec<u8>, parts: &[Part<'_>]) -> Bytes {
    let payload_len = parts.iter().map(Part::len).sum();
    let frame_len = header_len(payload_len) + payload_len;
    out.clear();
    out.reserve_exact(frame_len);
    push_header(OpCode::Text, payload_len, &mut out);
    for part in parts {
        match part {
            Part::Raw(json) => out.extend_from_slice(json),
            Part::String(text) => escape::push_string(text, &mut out),
        }
    }
    debug_assert_eq!(out.len(), frame_len);
    Bytes::from(out)
}

/// A publication as each subscriber gets it: `{"channel":C,"data":D}`, `data` byte for byte, with its tags
/// `{"channel":C,"tags":T,"data":D}`; or the message that is in its place.
///
/// `data` must be as [`Command::Publish`](crate::proto::Command) has it, or
/// [`TypedMessage::stamped`](crate::proto::typed::TypedMessage::stamped), or
/// [`Tags::before`](crate::proto::tags::Tags::before).
pub fn publication_frame(channel: &str, data: &[u8]) -> Bytes {
    if let [MESSAGE_MARK | TAGS_MARK, ..] = data {
        return marked_frame(channel, data);
    }
    assemble(&[
        Part::raw(r#"{"channel":""#),
        Part::Raw(&escape::content(channel)),
        Part::raw(r#"","data":"#),
        Part::Raw(data),
        Part::raw("}"),
    ])
}

/// A message, or a publication with tags.
fn marked_frame(channel: &str, data: &[u8]) -> Bytes {
    match (as_message(data), tags::split(data)) {
        (Some(message), _) => payload_frame(OpCode::Text, message),
        (None, Some((tags, data))) => tagged_frame(channel, "", tags, data),
        // No mark stands alone.
        (None, None) => text_frame(&[]),
    }
}

/// A publication with tags. `place`: what stands between the channel and them, with a comma before it.
fn tagged_frame(channel: &str, place: &str, tags: &[u8], data: &[u8]) -> Bytes {
    text_frame(&[
        Part::raw(r#"{"channel":"#),
        Part::String(channel),
        Part::raw(place),
        Part::raw(r#","tags":"#),
        Part::Raw(tags),
        Part::raw(r#","data":"#),
        Part::Raw(data),
        Part::raw("}"),
    ])
}

/// A publication of a channel with history: `{"channel":C,"offset":N,"data":D}`.
///
/// `data` must be as [`Command::Publish`](crate::proto::Command) has it.
pub fn retained_frame(channel: &str, offset: u64, data: &[u8]) -> Bytes {
    retained_frame_in(Vec::new(), channel, offset, data)
}

fn retained_frame_in(memory: Vec<u8>, channel: &str, offset: u64, data: &[u8]) -> Bytes {
    assemble_in(
        memory,
        &[
            Part::raw(r#"{"channel":""#),
            Part::Raw(&escape::content(channel)),
            Part::raw(r#"","offset":"#),
            Part::raw(itoa::Buffer::new().format(offset)),
            Part::raw(r#","data":"#),
            Part::Raw(data),
            Part::raw("}"),
        ],
    )
}

/// A publication of an acked channel: `{"channel":C,"offset":N,"messageId":"E-N","data":D}`.
///
/// `data` must be one JSON value, as [`Command::Publish`](crate::proto::Command) has it.
pub fn acked_frame(channel: &str, position: Position, data: &[u8]) -> Bytes {
    let id = format!(r#"{},"messageId":"{position}","data":"#, position.offset);
    text_frame(&[
        Part::raw(r#"{"channel":"#),
        Part::String(channel),
        Part::raw(r#","offset":"#),
        Part::raw(&id),
        Part::Raw(data),
        Part::raw("}"),
    ])
}

/// A publication of a channel with history: that of [`acked_frame`] or of [`retained_frame`], with its tags
/// before the data; or the message that is in its place, with `"offset":N` before all it has, and `"deliveryId":"E-N"` on an acked channel.
pub fn kept_frame(channel: &str, position: Position, data: &[u8], is_acked: bool) -> Bytes {
    kept_frame_in(Vec::new(), channel, position, data, is_acked)
}

/// What a frame of [`kept_frame`] has at least beside its channel and its data.
pub const KEPT_FRAME_BYTES_MIN: usize = r#"{"channel":"","offset":1,"data":}"#.len() + 2;

/// As [`kept_frame`], in this memory if it is enough for a frame of the usual kind.
pub fn kept_frame_in(
    memory: Vec<u8>,
    channel: &str,
    position: Position,
    data: &[u8],
    is_acked: bool,
) -> Bytes {
    if let Some([b'{', members @ ..]) = as_message(data) {
        let id = if is_acked { format!(r#","deliveryId":"{position}""#) } else { String::new() };
        text_frame(&[
            Part::raw(r#"{"offset":"#),
            Part::raw(itoa::Buffer::new().format(position.offset)),
            Part::raw(&id),
            Part::raw(","),
            Part::Raw(members),
        ])
    } else if let Some((tags, data)) = tags::split(data) {
        let id = if is_acked { format!(r#","messageId":"{position}""#) } else { String::new() };
        tagged_frame(channel, &format!(r#","offset":{}{id}"#, position.offset), tags, data)
    } else if is_acked {
        acked_frame(channel, position, data)
    } else {
        retained_frame_in(memory, channel, position.offset, data)
    }
}

/// The offset in a frame of [`kept_frame`]; 0 if it is none for this channel.
pub fn retained_offset(channel: &str, frame: &[u8]) -> u64 {
    let fields = retained_fields(channel, frame);
    let number = fields.strip_prefix(br#""offset":"#).unwrap_or_default();
    let digits = number.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0u64, |offset, digit| offset.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
}

/// What follows the channel in a frame of [`kept_frame`]: `"offset":N,…"data":D}`, or the rest of a message.
///
/// `channel` must be the one that the frame was made with.
pub fn retained_fields<'a>(channel: &str, frame: &'a [u8]) -> &'a [u8] {
    if let [b'{', message @ ..] = frame_payload(frame)
        && message.starts_with(br#""offset":"#)
    {
        return message;
    }
    let fields_at = r#"{"channel":,"#.len() + escape::string_len(channel);
    frame_payload(frame).get(fields_at..).unwrap_or_default()
}

/// What is in a whole frame of the server.
pub fn frame_payload(frame: &[u8]) -> &[u8] {
    // 5.2: the second byte is the length, or says how many bytes hold it.
    let header_len = match frame.get(1) {
        Some(126) => 4,
        Some(127) => HEADER_BYTES_MAX,
        _ => 2,
    };
    frame.get(header_len..).unwrap_or_default()
}

/// A frame of a payload that is passed on as it is.
///
/// For control opcodes use the functions below, which keep to the limit of 125 bytes.
pub fn payload_frame(opcode: OpCode, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(header_len(payload.len()) + payload.len());
    write_frame(opcode, payload, &mut out);
    Bytes::from(out)
}

/// A close frame with a code and a reason, which is cut to what fits: 123 bytes, at a character
/// boundary.
pub fn close_frame(code: CloseCode, reason: &str) -> Bytes {
    // 5.5.1: the reason is UTF-8, so it must not be cut within a character.
    let reason_len = reason.floor_char_boundary(CONTROL_PAYLOAD_BYTES_MAX - 2);
    let mut payload = Vec::with_capacity(CONTROL_PAYLOAD_BYTES_MAX);
    payload.extend_from_slice(&u16::from(code).to_be_bytes());
    payload.extend(reason.bytes().take(reason_len));
    payload_frame(OpCode::Close, &payload)
}

/// A close frame without a body: the answer to one without a body.
pub fn empty_close_frame() -> Bytes {
    payload_frame(OpCode::Close, &[])
}

/// A ping. Only the first 125 bytes of `payload` are sent.
pub fn ping_frame(payload: &[u8]) -> Bytes {
    payload_frame(OpCode::Ping, control_payload(payload))
}

/// The answer to a ping. 5.5.3: it MUST have identical application data.
pub fn pong_frame(payload: &[u8]) -> Bytes {
    payload_frame(OpCode::Pong, control_payload(payload))
}

fn control_payload(payload: &[u8]) -> &[u8] {
    payload.get(..CONTROL_PAYLOAD_BYTES_MAX).unwrap_or(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_use_the_shortest_length() {
        let header = |len| {
            let mut out = Vec::new();
            push_header(OpCode::Binary, len, &mut out);
            assert_eq!(out.len(), header_len(len));
            out
        };
        assert_eq!(header(0), [0x82, 0]);
        assert_eq!(header(125), [0x82, 125]);
        assert_eq!(header(126), [0x82, 126, 0, 126]);
        assert_eq!(header(65535), [0x82, 126, 0xff, 0xff]);
        assert_eq!(header(65536), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_publication_keeps_its_data_byte_for_byte() {
        let data = br#"{ "a" : 1.0, "b":"\u00e9" }"#;
        let payload = br#"{"channel":"chat:lobby","data":{ "a" : 1.0, "b":"\u00e9" }}"#;
        let frame = publication_frame("chat:lobby", data);
        assert_eq!(&frame[..2], [0x81, payload.len() as u8]);
        assert_eq!(&frame[2..], payload);
    }

    #[test]
    fn tags_stand_right_before_the_data() {
        let data = b"\t{\"plan\":\"pro\"}\t{ \"a\" : \"\\t\" }";
        let rest = r#""tags":{"plan":"pro"},"data":{ "a" : "\t" }}"#;
        let text = |frame: Bytes| String::from_utf8(frame_payload(&frame).to_vec()).unwrap();
        let live = publication_frame("c", data);
        assert_eq!(text(live), format!(r#"{{"channel":"c",{rest}"#));
        let position = Position { epoch: crate::ids::Epoch(0xab), offset: 7 };
        let kept = kept_frame("c", position, data, false);
        assert_eq!(retained_offset("c", &kept), 7);
        assert_eq!(text(kept), format!(r#"{{"channel":"c","offset":7,{rest}"#));
        let acked = text(kept_frame("c", position, data, true));
        assert_eq!(acked, format!(r#"{{"channel":"c","offset":7,"messageId":"{position}",{rest}"#));
    }

    #[test]
    fn the_fields_of_a_retained_publication_follow_its_channel() {
        for data_len in [2, 100, 65_500, 65_536] {
            let data = format!("\"{}\"", "d".repeat(data_len - 2));
            let frame = retained_frame("a\"b", 17, data.as_bytes());
            let payload = format!(r#"{{"channel":"a\"b","offset":17,"data":{data}}}"#);
            assert!(frame.ends_with(payload.as_bytes()));
            let fields = format!(r#""offset":17,"data":{data}}}"#);
            assert_eq!(retained_fields("a\"b", &frame), fields.as_bytes());
        }
        assert_eq!(retained_fields("a", b""), b"");
    }

    #[test]
    fn a_channel_is_escaped_in_every_length_form() {
        for data_len in [2, 90, 100, 200, 65_500, 65_536, 200_000] {
            let data = format!("\"{}\"", "d".repeat(data_len - 2));
            let frame = publication_frame("a\"b\\", data.as_bytes());
            let payload = format!(r#"{{"channel":"a\"b\\","data":{data}}}"#);
            let mut expected = Vec::new();
            push_header(OpCode::Text, payload.len(), &mut expected);
            expected.extend_from_slice(payload.as_bytes());
            assert_eq!(frame, expected);
        }
    }

    #[test]
    fn a_close_reason_is_cut_between_characters() {
        assert_eq!(&close_frame(CloseCode::Normal, "bye")[..], b"\x88\x05\x03\xe8bye");
        let frame = close_frame(CloseCode::Policy, &"é".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert_eq!(frame[1], 124);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
        assert_eq!(&empty_close_frame()[..], b"\x88\x00");
    }

    #[test]
    fn control_frames_stay_within_125_bytes() {
        assert_eq!(&ping_frame(b"x")[..], b"\x89\x01x");
        assert_eq!(&pong_frame(b"")[..], b"\x8a\x00");
        assert_eq!(pong_frame(&[0; 1000]).len(), 127);
    }
}
