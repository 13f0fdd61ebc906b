//! Finding the head of a request in bytes that arrive in any pieces. Looks at each byte once and
//! parses nothing.

use crate::proto::http::response::Refusal;

/// The bounds on a request head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Longest head, in bytes, up to and including the empty line.
    pub bytes_max: usize,
    /// Most header fields, and most parameters in the query of an upgrade.
    pub fields_max: usize,
}

/// Longest method that can begin a request.
const METHOD_BYTES_MAX: usize = 24;

/// Where the head at the front of `buffer` ends: the length with its empty line. `None`: not yet.
///
/// `scanned` is the caller's, zero at first; it remembers what was looked at, so that a head which
/// comes byte by byte costs no more than one that comes whole.
///
/// A line feed alone ends a line here, so that a head with the wrong line ends is found, and
/// refused by [`parse_request`](super::parse_request), rather than waited for.
pub fn find_head_end(buffer: &[u8], scanned: &mut usize) -> Option<usize> {
    let mut start = *scanned;
    while let Some(found) = buffer.get(start..)?.iter().position(|&byte| byte == b'\n') {
        let line_end = start + found;
        let before = buffer.get(..line_end)?;
        let line_is_empty = before.ends_with(b"\n") || before.ends_with(b"\n\r");
        start = line_end + 1;
        if line_is_empty {
            *scanned = start;
            return Some(start);
        }
    }
    *scanned = buffer.len();
    None
}

/// Refuses what can no longer become a request, when [`find_head_end`] finds no end: bytes that do
/// not begin like HTTP (a TLS handshake, say), and heads that are too long. Looks at the first few
/// bytes only.
///
/// # Errors
///
/// 400 or 431.
pub fn check_start(buffer: &[u8], limits: &HeadLimits) -> Result<(), Refusal> {
    if buffer.len() > limits.bytes_max {
        return Err(Refusal::head_too_large(format!(
            "request head exceeds the limit of {} bytes",
            limits.bytes_max
        )));
    }
    // RFC 9112, 2.2: a server SHOULD ignore at least one empty line before the request-line.
    let line = buffer.strip_prefix(b"\r\n").unwrap_or(buffer);
    if line == b"\r" {
        return Ok(());
    }
    let method_end = line.iter().take(METHOD_BYTES_MAX + 1).position(|&byte| !is_token_byte(byte));
    match method_end {
        None if line.len() <= METHOD_BYTES_MAX => Ok(()),
        Some(at) if at > 0 && line.get(at) == Some(&b' ') => Ok(()),
        _ => Err(Refusal::bad_request("not an HTTP request")),
    }
}

/// RFC 9110, 5.6.2: `tchar`.
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes_max: 100, fields_max: 10 };

    #[test]
    fn the_end_is_found_in_any_pieces_and_the_rest_left() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\x81\x80next\r\n\r\n";
        let head_len = 27;
        assert_eq!(find_head_end(bytes, &mut 0), Some(head_len));
        for cut in 0..head_len {
            let mut scanned = 0;
            assert_eq!(find_head_end(&bytes[..cut], &mut scanned), None);
            assert_eq!(scanned, cut);
            assert_eq!(find_head_end(bytes, &mut scanned), Some(head_len));
        }
    }

    #[test]
    fn byte_by_byte_is_linear() {
        let mut head = b"GET / HTTP/1.1\r\n".to_vec();
        while head.len() < 16 * 1024 {
            head.extend_from_slice(b"X: y\r\n");
        }
        let (mut scanned, mut work) = (0, 0);
        for len in 1..=head.len() {
            let before = scanned;
            assert_eq!(find_head_end(&head[..len], &mut scanned), None);
            work += scanned - before;
        }
        assert_eq!(work, head.len());
    }

    #[test]
    fn bare_line_feeds_end_a_head_too() {
        assert_eq!(find_head_end(b"GET / HTTP/1.1\nHost: a\n\nrest", &mut 0), Some(24));
        assert_eq!(find_head_end(b"GET / HTTP/1.1\nHost: a\n\r\nrest", &mut 0), Some(25));
    }

    #[test]
    fn a_scan_beyond_the_buffer_finds_nothing() {
        assert_eq!(find_head_end(b"abc", &mut 10), None);
    }

    #[test]
    fn what_begins_like_a_request_may_go_on() {
        let beginnings: [&[u8]; 7] =
            [b"", b"G", b"GET", b"GET ", b"PROPFIND /", b"\r", b"\r\nGET / HT"];
        for bytes in beginnings {
            assert_eq!(check_start(bytes, &LIMITS), Ok(()), "{bytes:?}");
        }
    }

    #[test]
    fn what_does_not_is_refused_at_once() {
        let beginnings: [&[u8]; 7] = [
            b"\x16\x03\x01\x02\x00\x01",
            b"\x16",
            b" GET /",
            b"\0",
            b"GET\t/",
            b"\x81\x85\x01\x02",
            b"AAAAAAAAAAAAAAAAAAAAAAAAA",
        ];
        for bytes in beginnings {
            assert_eq!(check_start(bytes, &LIMITS).unwrap_err().status, 400, "{bytes:?}");
        }
    }

    #[test]
    fn a_head_without_an_end_is_too_large() {
        let bytes = [b"GET /".as_slice(), &[b'a'; 95]].concat();
        assert_eq!(check_start(&bytes, &LIMITS), Ok(()));
        let refusal = check_start(&[&bytes[..], b"a"].concat(), &LIMITS).unwrap_err();
        assert_eq!((refusal.status, refusal.reason), (431, "head_too_large"));
    }
}
