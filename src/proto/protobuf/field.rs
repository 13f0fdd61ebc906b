//! Messages of protobuf, written: a list of fields becomes a frame, in one allocation of exact size.

use std::borrow::Cow;

use bytes::Bytes;

use crate::proto::encoder::{header_len, push_header};
use crate::proto::opcode::OpCode;

/// A field with its number. Text, bytes and numbers that are empty or 0 are left out, unless it is said:
/// proto3 has no other form for them.
#[derive(Debug, Clone, Copy)]
pub enum Field<'a> {
    Text(u32, &'a str),
    /// A text of a list, there even if it is empty: the others keep their places.
    Listed(u32, &'a str),
    Bytes(u32, &'a [u8]),
    Number(u32, u64),
    /// A number that is there even as 0: the field is `optional`.
    Present(u32, u64),
    /// A message, there even if it is empty.
    Message(u32, &'a [Field<'a>]),
    /// A map of texts to texts: for each a message of the two.
    Map(u32, &'a [(Cow<'a, str>, Cow<'a, str>)]),
    /// Nothing at all.
    Absent,
}

impl<'a> Field<'a> {
    /// A truth that is left out if it is `false`.
    pub fn flag(number: u32, flag: bool) -> Self {
        Self::Number(number, u64::from(flag))
    }

    /// The message in this field, if there is one.
    pub fn message(number: u32, fields: Option<&'a [Field<'a>]>) -> Self {
        fields.map_or(Self::Absent, |fields| Self::Message(number, fields))
    }

    fn len(&self) -> usize {
        match *self {
            Self::Text(_, "") | Self::Bytes(_, []) | Self::Number(_, 0) | Self::Absent => 0,
            Self::Text(number, text) | Self::Listed(number, text) => {
                delimited_len(number, text.len())
            }
            Self::Bytes(number, bytes) => delimited_len(number, bytes.len()),
            Self::Number(number, value) | Self::Present(number, value) => {
                varint_len(key(number, 0)) + varint_len(value)
            }
            Self::Message(number, fields) => delimited_len(number, message_len(fields)),
            Self::Map(number, entries) => {
                entries.iter().map(|entry| Field::Message(number, &pair(entry)).len()).sum()
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Text(_, "") | Self::Bytes(_, []) | Self::Number(_, 0) | Self::Absent => {}
            Self::Text(number, text) | Self::Listed(number, text) => {
                write_delimited(number, text.as_bytes(), out);
            }
            Self::Bytes(number, bytes) => write_delimited(number, bytes, out),
            Self::Number(number, value) | Self::Present(number, value) => {
                write_varint(key(number, 0), out);
                write_varint(value, out);
            }
            Self::Message(number, fields) => {
                write_varint(key(number, 2), out);
                write_message(fields, out);
            }
            Self::Map(number, entries) => {
                entries.iter().for_each(|entry| Field::Message(number, &pair(entry)).write(out));
            }
        }
    }
}

/// The fields of an entry of a map.
fn pair<'a>((key, value): &'a (Cow<'_, str>, Cow<'_, str>)) -> [Field<'a>; 2] {
    [Field::Text(1, key), Field::Text(2, value)]
}

/// A binary frame that holds this message behind its length.
pub fn binary_frame(message: &[Field<'_>]) -> Bytes {
    let length = message_len(message);
    let payload_len = varint_len(length as u64) + length;
    let frame_len = header_len(payload_len) + payload_len;
    let mut out = Vec::with_capacity(frame_len);
    push_header(OpCode::Binary, payload_len, &mut out);
    write_message(message, &mut out);
    debug_assert_eq!(out.len(), frame_len);
    Bytes::from(out)
}

fn message_len(fields: &[Field<'_>]) -> usize {
    fields.iter().map(Field::len).sum()
}

/// Appends a message behind its length.
fn write_message(fields: &[Field<'_>], out: &mut Vec<u8>) {
    write_varint(message_len(fields) as u64, out);
    fields.iter().for_each(|field| field.write(out));
}

/// Of bytes in this field.
#[inline]
pub fn delimited_len(number: u32, length: usize) -> usize {
    varint_len(key(number, 2)) + varint_len(length as u64) + length
}

/// Appends bytes in this field.
#[inline]
pub fn write_delimited(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    write_lead(number, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Appends what stands before so many bytes in this field. Inlined, so that nothing is decided which is known
/// already.
#[inline(always)]
pub fn write_lead(number: u32, length: usize, out: &mut Vec<u8>) {
    match (key(number, 2), length as u64) {
        // Nearly always; in one step.
        (key @ ..0x80, length @ ..0x80) => out.extend_from_slice(&[key as u8, length as u8]),
        (key @ ..0x80, length @ 0x80..0x4000) => {
            out.extend_from_slice(&[key as u8, length as u8 | 0x80, (length >> 7) as u8]);
        }
        (key, length) => {
            write_varint(key, out);
            write_varint(length, out);
        }
    }
}

/// Its number and how it is written.
fn key(number: u32, wire_type: u32) -> u64 {
    u64::from(number << 3 | wire_type)
}

#[inline]
pub fn varint_len(number: u64) -> usize {
    match number {
        ..0x80 => 1,
        0x80..0x4000 => 2,
        _ => (u64::BITS - number.leading_zeros()).div_ceil(7) as usize,
    }
}

#[inline]
pub fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_their_shortest_form() {
        for number in (0..64).flat_map(|bit| [0, 1 << bit, (1 << bit) - 1]).chain([u64::MAX]) {
            let mut out = Vec::new();
            write_varint(number, &mut out);
            assert_eq!(out.len(), varint_len(number));
            assert!(out.len() == 1 || out.last() != Some(&0));
            let read = out.iter().rev().fold(0, |read, byte| read << 7 | u64::from(byte & 0x7F));
            assert_eq!(read, number);
        }
    }

    #[test]
    fn what_is_empty_is_left_out() {
        let inner = [Field::Text(1, ""), Field::Bytes(2, b""), Field::Number(3, 0)];
        assert_eq!(&binary_frame(&inner)[..], b"\x82\x01\x00");
        let outer = [Field::Message(1, &inner), Field::Present(2, 0), Field::Absent];
        assert_eq!(&binary_frame(&outer)[..], b"\x82\x05\x04\x0a\x00\x10\x00");
        assert_eq!(&binary_frame(&[Field::flag(1, true)])[..], b"\x82\x03\x02\x08\x01");
        let list = [Field::Listed(1, ""), Field::Listed(1, "a")];
        assert_eq!(&binary_frame(&list)[..], b"\x82\x06\x05\x0a\x00\x0a\x01a");
        let map = [("a".into(), "b".into()), ("c".into(), "".into())];
        let map = [Field::Map(7, &map), Field::Map(7, &[])];
        let entries = b"\x82\x0e\x0d\x3a\x06\x0a\x01a\x12\x01b\x3a\x03\x0a\x01c";
        assert_eq!(&binary_frame(&map)[..], entries);
    }
}
