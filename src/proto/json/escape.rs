//! Writing JSON strings: the measuring and the escaping of text between quotes.

use std::borrow::Cow;

use crate::proto::json::skip;

/// What stands for `text` between the quotes of a JSON string: mostly the text itself.
pub(in crate::proto) fn content(text: &str) -> Cow<'_, [u8]> {
    if is_plain(text) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut out = Vec::with_capacity(string_len(text) - 2);
    text.bytes().for_each(|byte| push_escaped(byte, &mut out));
    Cow::Owned(out)
}

/// Bytes that `text` takes as a JSON string, quotes included.
pub(in crate::proto) fn string_len(text: &str) -> usize {
    if is_plain(text) { 2 + text.len() } else { 2 + text.bytes().map(escaped_len).sum::<usize>() }
}

/// Appends `text` as a JSON string, quotes included: exactly [`string_len`] bytes.
pub(in crate::proto) fn push_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    if is_plain(text) {
        out.extend_from_slice(text.as_bytes());
    } else {
        text.bytes().for_each(|byte| push_escaped(byte, out));
    }
    out.push(b'"');
}

/// Whether nothing in the text must be escaped.
fn is_plain(text: &str) -> bool {
    skip::plain(text.as_bytes()).is_empty()
}

/// RFC 8259, 7: the quotation mark, the reverse solidus and U+0000–U+001F MUST be escaped.
fn escaped_len(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0C => 2,
        0x00..=0x1F => 6,
        _ => 1,
    }
}

/// Bytes of characters beyond ASCII pass as they are, so working on bytes keeps the text UTF-8.
fn push_escaped(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0C => out.extend_from_slice(b"\\f"),
        0x00..=0x1F => {
            let low = char::from_digit(u32::from(byte & 0xF), 16).unwrap_or('0') as u8;
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', b'0' + (byte >> 4), low]);
        }
        _ => out.push(byte),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(text: &str) -> String {
        let mut out = Vec::new();
        push_string(text, &mut out);
        assert_eq!(out.len(), string_len(text));
        assert_eq!(&*content(text), &out[1..out.len() - 1]);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_what_must_be_escaped_is() {
        assert_eq!(string("chat:lobby ✓/"), r#""chat:lobby ✓/""#);
        assert_eq!(string("a\"b\\c\nd\u{1}\u{1f}"), r#""a\"b\\c\nd\u0001\u001f""#);
    }

    proptest! {
        #[test]
        fn any_text_reads_back(text in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&string(&text)).unwrap(), text);
        }
    }
}
