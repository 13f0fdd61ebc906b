//! JSON as text: whether it is well formed, where a value stands in it, and how a string is written.
//! Values are found, never built, so they can be passed on byte for byte.

use std::fmt;
use std::ops::Range;

/// Where a text stops being JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyntaxError {
    /// Offset in bytes; the length of the text if it ends too early.
    pub at: usize,
    pub expected: &'static str,
}

impl SyntaxError {
    /// With the place in `text` as people count it.
    pub fn explain(self, text: &str) -> String {
        let before = &text[..text.floor_char_boundary(self.at)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let found = match text[before.len()..].chars().next() {
            Some(found) => format!("`{}`", found.escape_debug()),
            None => "the end".to_string(),
        };
        let (line, column) =
            (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
        format!("line {line}, column {column}: expected {}, found {found}", self.expected)
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: expected {}", self.at, self.expected)
    }
}

/// A text as a JSON string.
pub fn quote(text: &str) -> String {
    simd_json::to_string(text).expect("writing a str to memory cannot fail")
}

/// Whether `text` is one JSON value, with nothing but space around it.
pub fn check(text: &str) -> Result<(), SyntaxError> {
    let bytes = text.as_bytes();
    let end = skip_space(bytes, value_end(bytes, skip_space(bytes, 0))?);
    if end == bytes.len() { Ok(()) } else { wrong(end, "the end") }
}

/// The place of the value of a top-level field of an object. A key written with escapes is not
/// found.
pub fn find_value(object: &str, key: &str) -> Option<Range<usize>> {
    let bytes = object.as_bytes();
    let mut at = skip_space(bytes, 0);
    if bytes.get(at) != Some(&b'{') {
        return None;
    }
    loop {
        let key_start = skip_space(bytes, at + 1);
        let start = key_end(bytes, key_start).ok()?;
        let end = value_end(bytes, start).ok()?;
        let rest = object[key_start + 1..].strip_prefix(key);
        if rest.is_some_and(|rest| rest.starts_with('"')) {
            return Some(start..end);
        }
        at = skip_space(bytes, end);
        if bytes.get(at) != Some(&b',') {
            return None;
        }
    }
}

/// The end of the value that starts at `from`. Deep nesting costs heap, not stack.
fn value_end(bytes: &[u8], from: usize) -> Result<usize, SyntaxError> {
    let mut at = from;
    // The brackets that are open around `at`.
    let mut open = Vec::new();
    loop {
        at = match bytes.get(at) {
            Some(b'{') => {
                at = skip_space(bytes, at + 1);
                if bytes.get(at) != Some(&b'}') {
                    open.push(b'{');
                    at = key_end(bytes, at)?;
                    continue;
                }
                at + 1
            }
            Some(b'[') => {
                at = skip_space(bytes, at + 1);
                if bytes.get(at) != Some(&b']') {
                    open.push(b'[');
                    continue;
                }
                at + 1
            }
            Some(b'"') => string_end(bytes, at)?,
            Some(b'-' | b'0'..=b'9') => number_end(bytes, at)?,
            Some(b't') => word_end(bytes, at, "true")?,
            Some(b'f') => word_end(bytes, at, "false")?,
            Some(b'n') => word_end(bytes, at, "null")?,
            _ => return wrong(at, "a value"),
        };
        // A value has ended; so may the ones around it.
        while let Some(&bracket) = open.last() {
            at = skip_space(bytes, at);
            match (bracket, bytes.get(at)) {
                (b'{', Some(b'}')) | (b'[', Some(b']')) => {
                    open.pop();
                    at += 1;
                }
                (b'{', Some(b',')) => {
                    at = key_end(bytes, skip_space(bytes, at + 1))?;
                    break;
                }
                (_, Some(b',')) => {
                    at = skip_space(bytes, at + 1);
                    break;
                }
                (b'{', _) => return wrong(at, "`,` or `}`"),
                _ => return wrong(at, "`,` or `]`"),
            }
        }
        if open.is_empty() {
            return Ok(at);
        }
    }
}

/// The start of the value whose key starts at `from`.
fn key_end(bytes: &[u8], from: usize) -> Result<usize, SyntaxError> {
    if bytes.get(from) != Some(&b'"') {
        return wrong(from, "a key in double quotes");
    }
    let colon = skip_space(bytes, string_end(bytes, from)?);
    if bytes.get(colon) != Some(&b':') {
        return wrong(colon, "`:`");
    }
    Ok(skip_space(bytes, colon + 1))
}

fn string_end(bytes: &[u8], from: usize) -> Result<usize, SyntaxError> {
    let mut at = from + 1;
    loop {
        match bytes.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => {
                at += 1;
                match bytes.get(at) {
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
                    Some(b'u') => {
                        for _ in 0..4 {
                            at += 1;
                            if !bytes.get(at).is_some_and(u8::is_ascii_hexdigit) {
                                return wrong(at, "four hexadecimal digits");
                            }
                        }
                    }
                    _ => return wrong(at, "an escape: one of \" \\ / b f n r t u"),
                }
            }
            Some(0..0x20) => return wrong(at, "no control character (write \\n, \\t, \\u0000)"),
            Some(_) => {}
            None => return wrong(at, "a closing quote"),
        }
        at += 1;
    }
}

fn number_end(bytes: &[u8], from: usize) -> Result<usize, SyntaxError> {
    let digits_end = |from: usize| {
        let rest = bytes.get(from..).unwrap_or_default();
        match rest.iter().take_while(|byte| byte.is_ascii_digit()).count() {
            0 => wrong(from, "a digit"),
            count => Ok(from + count),
        }
    };
    let start = from + usize::from(bytes[from] == b'-');
    // A number does not start with a superfluous zero: what follows one is not part of it.
    let mut at = if bytes.get(start) == Some(&b'0') { start + 1 } else { digits_end(start)? };
    if bytes.get(at) == Some(&b'.') {
        at = digits_end(at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = matches!(bytes.get(at + 1), Some(b'+' | b'-'));
        at = digits_end(at + 1 + usize::from(sign))?;
    }
    Ok(at)
}

fn word_end(bytes: &[u8], from: usize, word: &'static str) -> Result<usize, SyntaxError> {
    let end = from + word.len();
    if bytes.get(from..end) == Some(word.as_bytes()) { Ok(end) } else { wrong(from, "a value") }
}

fn skip_space(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| b" \t\r\n".contains(byte)).count()
}

fn wrong<T>(at: usize, expected: &'static str) -> Result<T, SyntaxError> {
    Err(SyntaxError { at, expected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_is_told_from_what_is_not() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        for text in [
            "0",
            "-0.5e+10",
            "1e400",
            "123456789012345678901234567890",
            "\"\\u00e9\\n\"",
            " [ ] ",
            "[1,2,{\"a\":[{}]}]",
            "{\"a\" : 1 , \"b\":null}",
            "true",
            deep.as_str(),
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for (text, at, expected) in [
            ("", 0, "a value"),
            ("01", 1, "the end"),
            ("-", 1, "a digit"),
            ("1.", 2, "a digit"),
            ("1e", 2, "a digit"),
            ("tru", 0, "a value"),
            ("[1,]", 3, "a value"),
            ("[1 2]", 3, "`,` or `]`"),
            ("[1}", 2, "`,` or `]`"),
            ("{\"a\":1", 6, "`,` or `}`"),
            ("{\"a\" 1}", 5, "`:`"),
            ("{a:1}", 1, "a key in double quotes"),
            ("{\"a\":1,}", 7, "a key in double quotes"),
            ("\"x", 2, "a closing quote"),
            ("\"\t\"", 1, "no control character (write \\n, \\t, \\u0000)"),
            ("\"\\x\"", 2, "an escape: one of \" \\ / b f n r t u"),
            ("\"\\u12g4\"", 5, "four hexadecimal digits"),
            ("{}x", 2, "the end"),
        ] {
            assert_eq!(check(text), Err(SyntaxError { at, expected }), "{text}");
        }
    }

    #[test]
    fn an_error_is_explained_with_line_and_column() {
        let text = "{\"é\":\n x}";
        let error = check(text).unwrap_err();
        assert_eq!(error.explain(text), "line 2, column 2: expected a value, found `x`");
        let error = check("[1").unwrap_err();
        assert_eq!(error.explain("[1"), "line 1, column 3: expected `,` or `]`, found the end");
    }

    #[test]
    fn values_are_found_at_the_top_only() {
        let json = r#" {"a":{"b":1},"b" : [2, "}"] ,"c":3} "#;
        let value = |key| find_value(json, key).map(|range| &json[range]);
        assert_eq!(value("a"), Some(r#"{"b":1}"#));
        assert_eq!(value("b"), Some(r#"[2, "}"]"#));
        assert_eq!(value("c"), Some("3"));
        assert_eq!(value("d"), None);
        assert_eq!(find_value("[1]", "a"), None);
        assert_eq!(find_value("{}", "a"), None);
    }

    proptest! {
        #[test]
        fn what_it_accepts_is_what_serde_json_accepts(text in r#"([\[\]{}:, ]|"[ab\\]{0,2}"|-?[01]{1,2}|\.5|e1|true|null){0,8}"#) {
            let model = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert_eq!(check(&text).is_ok(), model);
        }
    }
}
