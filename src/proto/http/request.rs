//! A complete request head, judged: an upgrade, a plain request, or a refusal.

use httparse::{EMPTY_HEADER, Error, Status};

use crate::proto::http::fields::Fields;
use crate::proto::http::head::HeadLimits;
use crate::proto::http::response::Refusal;
use crate::proto::http::target::{Target, is_authority};
use crate::proto::http::upgrade::{Upgrade, is_handshake, parse_upgrade};

/// A request that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Upgrade(Upgrade),
    Plain(Plain),
}

/// A GET or HEAD without a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plain {
    /// Decoded; begins with `/`.
    pub path: String,
    /// HEAD: the response has the header fields of a GET and no body.
    pub head_only: bool,
    /// Whether another request may follow on this connection.
    pub keep_alive: bool,
}

/// Judges the head that [`find_head_end`](super::find_head_end) found, up to and including its
/// empty line. Allocates for `limits.fields_max` fields at most.
///
/// # Errors
///
/// What breaks RFC 9112 or RFC 6455, 4.2.1, or is beyond what this server does. The connection is
/// closed after a refusal: what follows cannot be told apart with certainty.
pub fn parse_request(head: &[u8], limits: &HeadLimits) -> Result<Request, Refusal> {
    if head.len() > limits.bytes_max {
        return Err(Refusal::head_too_large(format!(
            "request head of {} bytes exceeds the limit of {}",
            head.len(),
            limits.bytes_max
        )));
    }
    check_line_ends(head)?;
    let mut headers = vec![EMPTY_HEADER; limits.fields_max];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(Refusal::bad_request("malformed request")),
        Err(error) => return Err(malformed(error, head, limits)),
    }
    let (Some(method), Some(target), Some(minor_version)) =
        (request.method, request.path, request.version)
    else {
        return Err(Refusal::bad_request("malformed request"));
    };
    let line = RequestLine { method, target, is_http_1_1: minor_version == 1 };
    judge(&line, Fields(request.headers), limits)
        .map_err(|refusal| Refusal { head_only: method == "HEAD", ..refusal })
}

struct RequestLine<'a> {
    method: &'a str,
    target: &'a str,
    /// Otherwise HTTP/1.0; the parser takes no other.
    is_http_1_1: bool,
}

fn judge(
    line: &RequestLine<'_>,
    fields: Fields<'_>,
    limits: &HeadLimits,
) -> Result<Request, Refusal> {
    let is_handshake = is_handshake(fields);
    check_host(line, fields)?;
    match line.method {
        "GET" => {}
        "HEAD" if !is_handshake => {}
        _ => return Err(Refusal::method()),
    }
    check_no_body(fields)?;
    let target = Target::parse(line.target)?;
    if is_handshake {
        // 4.2.1: an HTTP/1.1 or higher GET request.
        if !line.is_http_1_1 {
            return Err(Refusal::bad_request("a WebSocket needs HTTP/1.1"));
        }
        return Ok(Request::Upgrade(parse_upgrade(&target, fields, limits)?));
    }
    Ok(Request::Plain(Plain {
        path: target.path()?,
        head_only: line.method == "HEAD",
        keep_alive: is_keep_alive(line, fields),
    }))
}

/// RFC 9112, 2.2: a line ends with CRLF. A server may take a lone LF for it, and then disagrees
/// with a proxy that does not: a way to smuggle requests. CR alone is worse.
fn check_line_ends(head: &[u8]) -> Result<(), Refusal> {
    let mut previous = 0;
    for &byte in head {
        if (byte == b'\n') != (previous == b'\r') {
            return Err(Refusal::bad_request("a line does not end with CRLF"));
        }
        previous = byte;
    }
    Ok(())
}

fn malformed(error: Error, head: &[u8], limits: &HeadLimits) -> Refusal {
    match error {
        Error::TooManyHeaders => Refusal::head_too_large(format!(
            "request has more than {} header fields",
            limits.fields_max
        )),
        // A well-formed version that is not ours, such as the preface of HTTP/2.
        Error::Version if names_other_version(head) => Refusal::http_version(),
        // Among these: obs-fold, white space before a colon, NUL (RFC 9112, 5.1, 5.2; 9110, 5.5).
        Error::HeaderName
        | Error::HeaderValue
        | Error::NewLine
        | Error::Status
        | Error::Token
        | Error::Version => Refusal::bad_request(format!("malformed request: {error}")),
    }
}

/// RFC 9112, 2.3: `HTTP-version = HTTP-name "/" DIGIT "." DIGIT`.
fn names_other_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').find(|line| line.len() > 1).unwrap_or_default();
    match line.last_chunk::<9>() {
        // Ours: something else in the line is wrong.
        Some(b" HTTP/1.0" | b" HTTP/1.1") => false,
        Some([b' ', b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']) => true,
        _ => false,
    }
}

/// RFC 9112, 3.2: a server MUST respond with 400 to any HTTP/1.1 request that lacks a Host field,
/// and to any request with more than one, or with an invalid value.
fn check_host(line: &RequestLine<'_>, fields: Fields<'_>) -> Result<(), Refusal> {
    match fields.single("host")? {
        Some(host) if is_authority(host) => Ok(()),
        None if !line.is_http_1_1 => Ok(()),
        Some(_) => Err(Refusal::bad_request("invalid Host")),
        None => Err(Refusal::bad_request("no Host")),
    }
}

/// Nothing here takes a body, so its length is never in doubt (RFC 9112, 6.3 and 11.2): any
/// Transfer-Encoding, and any Content-Length that is not zero in all its places, is refused.
fn check_no_body(fields: Fields<'_>) -> Result<(), Refusal> {
    let is_zero = |element: &[u8]| !element.is_empty() && element.iter().all(|&byte| byte == b'0');
    if fields.has("transfer-encoding") || !fields.list("content-length").all(is_zero) {
        return Err(Refusal::bad_request("a request body is not accepted"));
    }
    Ok(())
}

/// RFC 9112, 9.3: the rules of persistence, in their order.
fn is_keep_alive(line: &RequestLine<'_>, fields: Fields<'_>) -> bool {
    !fields.list_has("connection", "close")
        && (line.is_http_1_1 || fields.list_has("connection", "keep-alive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes_max: 16 * 1024, fields_max: 64 };

    fn parse(head: &str) -> Result<Request, (u16, &'static str)> {
        parse_request(head.as_bytes(), &LIMITS).map_err(|refusal| (refusal.status, refusal.reason))
    }

    /// A good handshake with one piece replaced.
    fn handshake(from: &str, to: &str) -> String {
        let good = "GET /chat?a=1 HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
                    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                    Sec-WebSocket-Version: 13\r\n\r\n";
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1)
    }

    fn status(from: &str, to: &str) -> u16 {
        parse(&handshake(from, to)).expect_err(to).0
    }

    fn is_upgrade(from: &str, to: &str) -> bool {
        matches!(parse(&handshake(from, to)), Ok(Request::Upgrade(_)))
    }

    #[test]
    fn the_example_of_the_rfc() {
        let Ok(Request::Upgrade(upgrade)) = parse(&handshake("", "")) else { panic!() };
        assert_eq!(
            upgrade,
            Upgrade {
                path: "/chat".into(),
                query: vec![("a".into(), "1".into())],
                accept_key: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into(),
                subprotocol: None,
                bearer: None,
            }
        );
    }

    #[test]
    fn what_browsers_and_proxies_vary_is_accepted() {
        assert!(is_upgrade("Connection: Upgrade", "connection: keep-alive, uPGRADE"));
        assert!(is_upgrade("Connection: Upgrade", "Connection: keep-alive\r\nConnection:upgrade"));
        assert!(is_upgrade("Upgrade: websocket", "UPGRADE: h2c, WebSocket"));
        assert!(is_upgrade("GET /chat", "GET http://other/chat"));
        assert!(is_upgrade("GET", "\r\nGET"));
        assert!(is_upgrade("Host:", "Content-Length: 0\r\nHost:"));
        let offers =
            "Sec-WebSocket-Extensions: permessage-deflate, ".to_owned() + &"x; a=1, ".repeat(500);
        assert!(is_upgrade("Host:", &format!("{offers}x\r\nHost:")));
        let blanks = format!("Sec-WebSocket-Protocol: b{}\r\nHost:", " ".repeat(15_000));
        assert!(is_upgrade("Host:", &blanks));
    }

    #[test]
    fn rfc_6455_4_2_1_each_condition() {
        assert_eq!(parse(&handshake("GET", "POST")), Err((405, "method")));
        assert_eq!(status("GET", "HEAD"), 405);
        assert_eq!(status("HTTP/1.1", "HTTP/1.0"), 400);
        assert_eq!(status("Host: server.example.com\r\n", ""), 400);
        assert_eq!(status("Upgrade: websocket\r\n", ""), 400);
        assert_eq!(status("Connection: Upgrade", "Connection: close"), 400);
        assert_eq!(parse(&handshake("Version: 13", "Version: 8")), Err((426, "version")));
        assert_eq!(status("Version: 13", "Version: 13, 8"), 426);
        assert_eq!(status("Sec-WebSocket-Version: 13\r\n", ""), 426);
        assert_eq!(status("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400);
        assert_eq!(status("ZQ==", "ZQ="), 400);
        assert_eq!(
            status(
                "Sec-WebSocket-Version",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version"
            ),
            400
        );
        assert_eq!(status("Host:", "Sec-WebSocket-Protocol: \r\nHost:"), 400);
    }

    #[test]
    fn rfc_9112_3_the_request_line_and_host() {
        assert_eq!(status("Host: server.example.com", "Host: a\r\nHost: a"), 400);
        assert_eq!(status("server.example.com", "a b"), 400);
        assert_eq!(status("server.example.com", ""), 400);
        assert_eq!(status("/chat", "/chat#x"), 400);
        assert_eq!(status("/chat", "*"), 400);
        assert_eq!(status("GET /chat", "GET  /chat"), 400);
        assert_eq!(status("HTTP/1.1", "HTTP/2.0"), 505);
        assert_eq!(status("HTTP/1.1", "HTTX/1.1"), 400);
        assert_eq!(status(" HTTP/1.1", ""), 400);
        assert_eq!(parse("PRI * HTTP/2.0\r\n\r\n"), Err((505, "http_version")));
        assert_eq!(parse("\r\n\r\n"), Err((400, "bad_request")));
        assert_eq!(parse(""), Err((400, "bad_request")));
    }

    #[test]
    fn rfc_9112_5_and_2_2_lines_that_smuggle() {
        assert_eq!(status("Host:", "X: a\r\n folded\r\nHost:"), 400);
        assert_eq!(status("Host:", "X : a\r\nHost:"), 400);
        assert_eq!(status("Host:", " X: a\r\nHost:"), 400);
        assert_eq!(status("Host:", "X: a\0b\r\nHost:"), 400);
        assert_eq!(status("Host:", "X: a\nHost:"), 400);
        assert_eq!(status("Host:", "X: a\rb\r\nHost:"), 400);
        assert_eq!(status("Host:", "X\r\nHost:"), 400);
    }

    #[test]
    fn rfc_9112_6_bodies() {
        assert_eq!(status("Host:", "Content-Length: 1\r\nHost:"), 400);
        assert_eq!(status("Host:", "Content-Length: 0\r\nContent-Length: 5\r\nHost:"), 400);
        assert_eq!(status("Host:", "Content-Length: 0, 5\r\nHost:"), 400);
        assert_eq!(status("Host:", "Content-Length: +0\r\nHost:"), 400);
        assert_eq!(status("Host:", "Content-Length:\r\nHost:"), 400);
        assert_eq!(status("Host:", "Transfer-Encoding: chunked\r\nHost:"), 400);
        assert_eq!(status("Host:", "Transfer-Encoding: identity\r\nHost:"), 400);
    }

    #[test]
    fn heads_beyond_the_limits_are_431() {
        let many = handshake("Host:", &format!("{}Host:", "X: y\r\n".repeat(60)));
        assert_eq!(parse(&many), Err((431, "head_too_large")));
        let just = handshake("Host:", &format!("{}Host:", "X: y\r\n".repeat(59)));
        assert!(parse(&just).is_ok());
        let long = handshake("Host:", &format!("X: {}\r\nHost:", "y".repeat(17_000)));
        assert_eq!(parse(&long), Err((431, "head_too_large")));
    }

    #[test]
    fn plain_requests_and_their_persistence() {
        let plain = |head: &str| match parse(head) {
            Ok(Request::Plain(plain)) => (plain.path, plain.head_only, plain.keep_alive),
            other => panic!("{other:?}"),
        };
        let path = || "/health".to_owned();
        assert_eq!(plain("GET /health HTTP/1.1\r\nHost: a\r\n\r\n"), (path(), false, true));
        assert_eq!(
            plain("HEAD /health HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n"),
            (path(), true, false)
        );
        assert_eq!(plain("GET /health HTTP/1.0\r\n\r\n"), (path(), false, false));
        assert_eq!(
            plain("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
            (path(), false, true)
        );
        assert_eq!(
            plain("GET /health HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
            (path(), false, true)
        );
        let post = "POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(parse(post), Err((405, "method")));
    }

    #[test]
    fn a_refused_head_request_is_known_as_one() {
        let refusal = parse_request(b"HEAD /#x HTTP/1.1\r\nHost: a\r\n\r\n", &LIMITS).unwrap_err();
        assert!(refusal.head_only);
    }
}
