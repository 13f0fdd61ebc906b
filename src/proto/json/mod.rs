//! A validating JSON scanner (RFC 8259): one pass, no tree, no recursion, no allocation.
//!
//! It finds where values begin and end, so that they can be passed on byte for byte. It never looks
//! at what they mean: numbers have no range here and a `\ud800` without its partner is a legal
//! escape, until the string it stands in is decoded.

pub(super) mod escape;
mod members;
mod skip;
mod string;

use std::fmt;
use std::mem;

pub use members::Members;
pub use skip::DEPTH_MAX;
pub use string::RawString;

/// A text as a JSON string, with its quotes.
pub fn quote(text: &str) -> String {
    let mut quoted = Vec::with_capacity(escape::string_len(text));
    escape::push_string(text, &mut quoted);
    // Escaping keeps UTF-8, so nothing is lost.
    String::from_utf8_lossy(&quoted).into_owned()
}

/// The text, if it is one JSON value with nothing around it, that may be a member of a message: nested
/// no deeper than that allows.
pub fn member_value(bytes: &[u8]) -> Option<&str> {
    value_within(bytes, 1)
}

/// As [`member_value`], of one that stands inside of `depth` objects.
pub fn value_within(bytes: &[u8], depth: u32) -> Option<&str> {
    let rest = skip::value(bytes, depth).ok()?;
    let begins = bytes.first().is_some_and(|first| !first.is_ascii_whitespace());
    if begins && rest.is_empty() { simdutf8::basic::from_utf8(bytes).ok() } else { None }
}

/// Why a text is not JSON for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonError {
    /// Against the grammar of RFC 8259.
    Syntax,
    /// More than [`DEPTH_MAX`] arrays and objects inside one another.
    TooDeep,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => f.write_str("the message is not valid JSON"),
            Self::TooDeep => write!(f, "the message is nested deeper than {DEPTH_MAX}"),
        }
    }
}

/// A position in a JSON text.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// What has not been scanned.
    pub fn rest(&self) -> &'a str {
        self.rest
    }

    /// Skips white space and returns what was skipped.
    pub fn whitespace(&mut self) -> &'a str {
        self.advance_to(skip::whitespace(self.rest.as_bytes()))
    }

    /// The value that comes next, without the white space around it.
    ///
    /// # Errors
    ///
    /// What comes next is no value; the position stays before it.
    pub fn value(&mut self) -> Result<&'a str, JsonError> {
        self.whitespace();
        let rest = skip::value(self.rest.as_bytes(), 0)?;
        Ok(self.advance_to(rest))
    }

    /// Takes this text, if it comes next. No white space is passed over.
    #[inline(always)]
    pub fn literal(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Takes a string without escapes, with its quotes, if it comes next. No white space is passed over.
    #[inline]
    pub fn plain_string(&mut self) -> Option<&'a str> {
        let [b'"', content @ ..] = self.rest.as_bytes() else { return None };
        let (behind, has_escapes) = skip::string_end(content).ok()?;
        (!has_escapes).then(|| self.advance_to(behind))
    }

    /// The value of a member of the outermost object, if it comes next. No white space is passed over.
    #[inline]
    pub fn member(&mut self) -> Option<&'a str> {
        let bytes = self.rest.as_bytes();
        let begins = bytes.first().is_some_and(|first| *first > b' ');
        let rest = skip::value(bytes, 1).ok()?;
        begins.then(|| self.advance_to(rest))
    }

    /// The rest of an object, some of whose members have been read.
    pub fn rest_of_object(&mut self) -> Object<'a, '_> {
        Object { scanner: self, is_first: false }
    }

    /// Opens the object that comes next; `None` if another value does.
    pub fn object(&mut self) -> Option<Object<'a, '_>> {
        self.whitespace();
        self.accept(b'{').then_some(Object { scanner: self, is_first: true })
    }

    fn accept(&mut self, byte: u8) -> bool {
        match self.rest.as_bytes() {
            [first, rest @ ..] if *first == byte => {
                self.advance_to(rest);
                true
            }
            _ => false,
        }
    }

    /// Goes to `rest`, the end of what is left, and returns what is passed over.
    fn advance_to(&mut self, rest: &[u8]) -> &'a str {
        let passed = self.rest.len() - rest.len();
        // Nothing but whole characters is skipped, so there is a boundary here.
        let (skipped, rest) = self.rest.split_at_checked(passed).unwrap_or((self.rest, ""));
        self.rest = rest;
        skipped
    }
}

/// The members of an object whose brace has been opened.
pub struct Object<'a, 's> {
    scanner: &'s mut Scanner<'a>,
    is_first: bool,
}

impl<'a> Object<'a, '_> {
    /// The next key and its value; `None` behind the closing brace, where the scanner is then.
    #[inline(always)]
    pub fn next_member(&mut self) -> Result<Option<(RawString<'a>, &'a str)>, JsonError> {
        let text = self.scanner.rest;
        let mut rest = skip::whitespace(text.as_bytes());
        if let [b'}', behind @ ..] = rest {
            self.scanner.advance_to(behind);
            return Ok(None);
        }
        if !mem::replace(&mut self.is_first, false) {
            let [b',', member @ ..] = rest else { return Err(JsonError::Syntax) };
            rest = skip::whitespace(member);
        }
        let [b'"', key @ ..] = rest else { return Err(JsonError::Syntax) };
        let (behind_key, has_escapes) = skip::string_end(key)?;
        let [b':', value @ ..] = skip::whitespace(behind_key) else {
            return Err(JsonError::Syntax);
        };
        let value = skip::whitespace(value);
        let behind = skip::value(value, 1)?;
        // All of them begin at a character.
        let at = |rest: &[u8]| text.len() - rest.len();
        let key = text.get(at(key)..at(behind_key) - 1).unwrap_or_default();
        let value = text.get(at(value)..at(behind)).unwrap_or_default();
        self.scanner.rest = text.get(at(behind)..).unwrap_or_default();
        Ok(Some((RawString::of_content(key, has_escapes), value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the whole text is one value.
    fn is_json(text: &str) -> bool {
        let mut scanner = Scanner::new(text);
        scanner.value().is_ok() && {
            scanner.whitespace();
            scanner.rest().is_empty()
        }
    }

    #[test]
    fn values_of_each_kind() {
        let valid = [
            "null",
            "true",
            " false ",
            "0",
            "-0",
            "10",
            "-1.5",
            "1e5",
            "1E+5",
            "0.1e-9",
            "1e999",
            r#""""#,
            r#""a\"b\\\/\b\f\n\r\t\u00e9""#,
            r#""\ud800""#,
            "\"\u{7f}é✓😀\"",
            "[]",
            "[ ]",
            "{}",
            "{ }",
            "[1, 2,[3] ,{}]",
            r#"{"a":1,"b":{"c":[null]}}"#,
            "\t\n\r [ 1 ]\n",
            "123456789012345678901234567890",
        ];
        for text in valid {
            assert!(is_json(text), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let invalid = [
            "",
            " ",
            "tru",
            "nul",
            "True",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "0x1",
            "NaN",
            "\"",
            "\"a",
            "\"\\",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"a\nb\"",
            "\"\u{1f}\"",
            "[",
            "]",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{",
            "{a:1}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":1 "b":2}"#,
            r#"{"a" 1}"#,
            "[}",
            "{]",
            "[1}",
            r#"{"a":1]"#,
            "1 2",
            "[] []",
            "'a'",
            "\u{feff}1",
            "\u{a0}1",
            "// x\n1",
        ];
        for text in invalid {
            assert!(!is_json(text), "{text}");
        }
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(is_json(&nested(64)));
        assert_eq!(Scanner::new(&nested(65)).value(), Err(JsonError::TooDeep));
        assert_eq!(Scanner::new(&"[".repeat(1_000_000)).value(), Err(JsonError::TooDeep));
        let in_object = format!(r#"{{"a":{}}}"#, nested(64));
        let mut scanner = Scanner::new(&in_object);
        assert_eq!(scanner.object().unwrap().next_member(), Err(JsonError::TooDeep));
    }

    #[test]
    fn a_member_value_has_nothing_around_it() {
        for text in ["1", r#"{"a": [ ]}"#, r#""é""#, "null"] {
            assert_eq!(member_value(text.as_bytes()), Some(text));
        }
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(member_value(nested(63).as_bytes()).is_some());
        let deep = nested(64);
        let others = [&b""[..], b" 1", b"1 ", b"1\n", b"1 2", b"\"\xff\"", b"{", deep.as_bytes()];
        for bytes in others {
            assert_eq!(member_value(bytes), None, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn an_object_gives_its_members_as_spans() {
        let mut scanner = Scanner::new(" { \"a\" : [ 1 , 2 ] ,\"\\u0062\":\"x\\n\" } tail");
        let mut object = scanner.object().unwrap();
        let (key, value) = object.next_member().unwrap().unwrap();
        assert_eq!((key.raw(), value), ("a", "[ 1 , 2 ]"));
        let (key, value) = object.next_member().unwrap().unwrap();
        assert_eq!(key.decode().unwrap(), "b");
        assert_eq!(RawString::of_value(value).unwrap().decode().unwrap(), "x\n");
        assert_eq!(object.next_member(), Ok(None));
        assert_eq!(scanner.whitespace(), " ");
        assert_eq!(scanner.rest(), "tail");
        assert!(Scanner::new("[]").object().is_none());
    }
}
