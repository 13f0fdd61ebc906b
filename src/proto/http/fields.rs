//! Header fields of a parsed head: looking them up and reading them as lists and tokens.

use httparse::Header;

use crate::proto::http::head::is_token_byte;
use crate::proto::http::response::Refusal;

/// The fields of one request, in order.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub &'a [Header<'a>]);

impl<'a> Fields<'a> {
    /// The values of all lines with this name, in order. Names compare without case.
    pub fn all(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let is_named = move |field: &&Header<'_>| field.name.eq_ignore_ascii_case(name);
        self.0.iter().filter(is_named).map(|field| field.value)
    }

    pub fn has(self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// The value of a field that must not come twice.
    ///
    /// # Errors
    ///
    /// 400 if it does.
    pub fn single(self, name: &str) -> Result<Option<&'a [u8]>, Refusal> {
        let mut values = self.all(name);
        let first = values.next();
        match values.next() {
            None => Ok(first),
            Some(_) => Err(Refusal::bad_request(format!("more than one {name} field"))),
        }
    }

    /// The elements of a list field. RFC 9110, 5.3: lines of one name are one list; 5.6.1: white
    /// space around elements does not count.
    pub fn list(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name).flat_map(|value| value.split(|&byte| byte == b',')).map(trim)
    }

    /// Whether a list field has this token, in any case.
    pub fn list_has(self, name: &str, token: &str) -> bool {
        self.list(name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// RFC 9110, 5.6.2: `token = 1*tchar`.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

/// Without the `OWS` of RFC 9110, 5.6.3, which is less than what `trim_ascii` takes off.
fn trim(bytes: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = bytes.iter().position(|byte| !is_blank(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    bytes.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_go_over_lines_and_names_have_no_case() {
        let header = |name, value: &'static str| Header { name, value: value.as_bytes() };
        let headers = [
            header("Connection", "keep-alive ,\tUpgrade"),
            header("Host", "a"),
            header("CONNECTION", "x,, y"),
        ];
        let fields = Fields(&headers);
        let elements: Vec<_> = fields.list("connection").collect();
        assert_eq!(elements, [&b"keep-alive"[..], b"Upgrade", b"x", b"", b"y"]);
        assert!(fields.list_has("Connection", "UPGRADE"));
        assert!(!fields.list_has("Connection", "grade"));
        assert_eq!(fields.single("host"), Ok(Some(&b"a"[..])));
        assert_eq!(fields.single("origin"), Ok(None));
        assert_eq!(fields.single("connection").unwrap_err().status, 400);
    }

    #[test]
    fn tokens_have_no_separators() {
        assert!(is_token(b"stentor.v1.json"));
        for bytes in [&b""[..], b"a b", b"a/b", b"\"a\"", b"a\x7f", "é".as_bytes()] {
            assert!(!is_token(bytes), "{bytes:?}");
        }
    }
}
