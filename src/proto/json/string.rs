//! JSON strings as they stand in a text, and what they say.

use std::borrow::Cow;

/// The content of a JSON string, between its quotes, escapes as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawString<'a> {
    content: &'a str,
    has_escapes: bool,
}

impl<'a> RawString<'a> {
    /// The string that this value is, `None` if it is another kind. `value` comes from a scanner.
    pub fn of_value(value: &'a str) -> Option<Self> {
        let content = value.strip_prefix('"')?.strip_suffix('"')?;
        Some(Self { content, has_escapes: content.as_bytes().contains(&b'\\') })
    }

    /// The string with that content, as a scanner has found it.
    pub(super) fn of_content(content: &'a str, has_escapes: bool) -> Self {
        Self { content, has_escapes }
    }

    /// As it was written. At least one byte long for each byte of the decoded text.
    pub fn raw(self) -> &'a str {
        self.content
    }

    /// Whether the text differs from how it was written.
    pub fn has_escapes(self) -> bool {
        self.has_escapes
    }

    /// The text; borrowed unless it has escapes. `None` if it is not Unicode text: an escaped
    /// surrogate without its partner.
    pub fn decode(self) -> Option<Cow<'a, str>> {
        if !self.has_escapes {
            return Some(Cow::Borrowed(self.content));
        }
        // The parser unescapes in place, hence the copy.
        let mut scratch = Vec::with_capacity(self.content.len() + 2);
        scratch.push(b'"');
        scratch.extend_from_slice(self.content.as_bytes());
        scratch.push(b'"');
        simd_json::from_slice::<String>(&mut scratch).ok().map(Cow::Owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_refuses_lone_surrogates_only() {
        let decode = |value| RawString::of_value(value).unwrap().decode();
        assert_eq!(decode(r#""\ud83d\ude00 \u00e9\/""#).unwrap(), "😀 é/");
        assert!(matches!(decode(r#""plain ✓""#), Some(Cow::Borrowed("plain ✓"))));
        for lone in [r#""\ud800""#, r#""\udc00""#, r#""\ud83dx""#, r#""\ud83d\u0041""#] {
            assert_eq!(decode(lone), None, "{lone}");
        }
    }
}
