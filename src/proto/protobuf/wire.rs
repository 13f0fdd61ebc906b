//! The wire format of protobuf, read: fields one after the other, borrowed from their message. No
//! schema, no recursion, no allocation.

use std::fmt;

/// A varint has at most so many bytes.
const VARINT_BYTES_MAX: usize = 10;

/// Why bytes are not a message of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// A field, or its length, reaches beyond the end.
    Truncated,
    /// A varint of more than 64 bits.
    Varint,
    /// A field has number 0, or one of more than 29 bits.
    FieldNumber,
    /// A wire type that there is not, or a group: proto3 has none.
    WireType(u8),
    /// This field is there with another wire type than its own.
    FieldType(&'static str),
    /// The text in this field is not UTF-8.
    Utf8(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the message ends within a field"),
            Self::Varint => f.write_str("a varint has more than 64 bits"),
            Self::FieldNumber => f.write_str("a field number is out of range"),
            Self::WireType(wire_type) => write!(f, "wire type {wire_type} is not spoken"),
            Self::FieldType(name) => write!(f, "`{name}` has the wrong wire type"),
            Self::Utf8(name) => write!(f, "`{name}` is not UTF-8"),
        }
    }
}

/// What a field holds, before it is known which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Number(u64),
    /// Wire type 2: text, bytes or a message.
    Bytes(&'a [u8]),
    /// Wire types 1 and 5, which none of our fields has.
    Fixed,
}

impl<'a> Value<'a> {
    /// `name` is that of the field, for the error.
    pub fn number(self, name: &'static str) -> Result<u64, WireError> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) | Self::Fixed => Err(WireError::FieldType(name)),
        }
    }

    pub fn bytes(self, name: &'static str) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) | Self::Fixed => Err(WireError::FieldType(name)),
        }
    }

    pub fn text(self, name: &'static str) -> Result<&'a str, WireError> {
        simdutf8::basic::from_utf8(self.bytes(name)?).map_err(|_| WireError::Utf8(name))
    }
}

/// The fields of a message, in order.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The number of the next field and what it holds; `None` at the end.
    pub fn next_field(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = u32::try_from(self.varint()?).map_err(|_| WireError::FieldNumber)?;
        let number = key >> 3;
        let value = match (key & 7) as u8 {
            0 => Value::Number(self.varint()?),
            1 => self.fixed(8)?,
            2 => Value::Bytes(self.delimited()?),
            5 => self.fixed(4)?,
            wire_type => return Err(WireError::WireType(wire_type)),
        };
        if number == 0 { Err(WireError::FieldNumber) } else { Ok(Some((number, value))) }
    }

    /// What field `number` has, if it comes next, with text, bytes or a message, and is whole. `number` must be
    /// below 16: its key is one byte.
    #[inline]
    pub fn expect_delimited(&mut self, number: u32) -> Option<&'a [u8]> {
        debug_assert!(number < 16);
        let [key, rest @ ..] = self.rest else { return None };
        if u32::from(*key) != number << 3 | 2 {
            return None;
        }
        let mut reader = Self::new(rest);
        let bytes = reader.whole_delimited()?;
        *self = reader;
        Some(bytes)
    }

    /// Bytes behind their length, if they are whole.
    #[inline]
    pub fn whole_delimited(&mut self) -> Option<&'a [u8]> {
        let Some((length, rest)) = short_varint(self.rest) else { return self.delimited().ok() };
        let (bytes, rest) = rest.split_at_checked(usize::from(length))?;
        self.rest = rest;
        Some(bytes)
    }

    /// Bytes behind their length.
    pub fn delimited(&mut self) -> Result<&'a [u8], WireError> {
        let length = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WireError> {
        let Some((number, rest)) = short_varint(self.rest) else { return self.long_varint() };
        self.rest = rest;
        Ok(u64::from(number))
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut number = 0;
        for (index, &byte) in self.rest.iter().take(VARINT_BYTES_MAX).enumerate() {
            number |= u64::from(byte & 0x7F) << (7 * index);
            if byte < 0x80 {
                // The tenth byte has one bit left.
                if index == VARINT_BYTES_MAX - 1 && byte > 1 {
                    return Err(WireError::Varint);
                }
                self.rest = &self.rest[index + 1..];
                return Ok(number);
            }
        }
        let is_long = self.rest.len() >= VARINT_BYTES_MAX;
        Err(if is_long { WireError::Varint } else { WireError::Truncated })
    }

    fn fixed(&mut self, length: usize) -> Result<Value<'a>, WireError> {
        self.rest = self.rest.get(length..).ok_or(WireError::Truncated)?;
        Ok(Value::Fixed)
    }
}

/// A varint of one or two bytes, as keys and lengths mostly are, and what follows it.
#[inline]
fn short_varint(bytes: &[u8]) -> Option<(u16, &[u8])> {
    match bytes {
        [byte @ ..0x80, rest @ ..] => Some((u16::from(*byte), rest)),
        [low, high @ ..0x80, rest @ ..] => {
            Some((u16::from(low & 0x7F) | u16::from(*high) << 7, rest))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(message: &[u8]) -> Result<Vec<(u32, Value<'_>)>, WireError> {
        let mut reader = Reader::new(message);
        std::iter::from_fn(|| reader.next_field().transpose()).collect()
    }

    #[test]
    fn fields_of_each_wire_type() {
        assert_eq!(fields(b""), Ok(vec![]));
        assert_eq!(
            fields(b"\x08\x96\x01\x12\x02hi\x19........\x25....\x0a\x00"),
            Ok(vec![
                (1, Value::Number(150)),
                (2, Value::Bytes(b"hi")),
                (3, Value::Fixed),
                (4, Value::Fixed),
                (1, Value::Bytes(b"")),
            ])
        );
        // Not in its shortest form, which is allowed.
        assert_eq!(fields(b"\x88\x00\x80\x80\x00"), Ok(vec![(1, Value::Number(0))]));
        let largest = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(fields(largest), Ok(vec![(1, Value::Number(u64::MAX))]));
    }

    #[test]
    fn everything_else_is_refused() {
        for (message, expected) in [
            (&b"\x08"[..], WireError::Truncated),
            (b"\x08\x80", WireError::Truncated),
            (b"\x80", WireError::Truncated),
            (b"\x12\x03hi", WireError::Truncated),
            (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", WireError::Truncated),
            (b"\x19.......", WireError::Truncated),
            (b"\x25...", WireError::Truncated),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", WireError::Varint),
            (b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", WireError::Varint),
            (b"\x00\x00", WireError::FieldNumber),
            (b"\x80\x80\x80\x80\x10\x00", WireError::FieldNumber),
            (b"\x0b\x0c", WireError::WireType(3)),
            (b"\x0c", WireError::WireType(4)),
            (b"\x0e", WireError::WireType(6)),
            (b"\x0f", WireError::WireType(7)),
        ] {
            assert_eq!(fields(message), Err(expected), "{}", message.escape_ascii());
        }
        assert_eq!(Value::Number(1).text("a"), Err(WireError::FieldType("a")));
        assert_eq!(Value::Bytes(b"1").number("a"), Err(WireError::FieldType("a")));
        assert_eq!(Value::Fixed.bytes("a"), Err(WireError::FieldType("a")));
        assert_eq!(Value::Bytes(b"\xff").text("a"), Err(WireError::Utf8("a")));
    }
}
