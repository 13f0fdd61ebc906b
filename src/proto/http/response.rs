//! Responses, written whole. Pure functions of their arguments: there is no clock here, so the value
//! of the Date field (RFC 9110, 6.6.1: MUST be sent by a server with a clock) is one of them.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use crate::proto::http::upgrade::{Subprotocol, Upgrade, WEBSOCKET_VERSION};

/// Why a request is not served. The connection is closed after the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// A short machine code: the log reason and the label of the metric.
    pub reason: &'static str,
    /// For people: the body of the response.
    pub text: Cow<'static, str>,
    /// When to come back, if that would help.
    pub retry_after: Option<Duration>,
    /// The request was a HEAD, so the response must not have a body.
    pub head_only: bool,
}

impl Refusal {
    pub fn new(status: u16, reason: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, reason, text: text.into(), retry_after: None, head_only: false }
    }

    /// What came is no valid request.
    pub fn bad_request(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, "bad_request", text)
    }

    /// The credentials are wrong, or there are none and there must be.
    pub fn unauthenticated(text: &'static str) -> Self {
        Self::new(401, "unauthenticated", text)
    }

    /// Upgrades are not served on this path.
    pub fn reserved_path() -> Self {
        Self::new(404, "reserved_path", "no WebSocket is served on this path")
    }

    /// A method other than GET and HEAD; for an upgrade, other than GET.
    pub fn method() -> Self {
        Self::new(405, "method", "method not allowed")
    }

    /// The head did not arrive in time.
    pub fn handshake_timeout() -> Self {
        Self::new(408, "handshake_timeout", "the request did not arrive in time")
    }

    pub(super) fn target_too_long(parameters_max: usize) -> Self {
        let text = format!("the query has more than {parameters_max} parameters");
        Self::new(414, "head_too_large", text)
    }

    /// The version of the WebSocket protocol is not 13.
    pub fn version() -> Self {
        Self::new(426, "version", "Sec-WebSocket-Version must be 13")
    }

    /// More bytes or fields than allowed.
    pub fn head_too_large(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(431, "head_too_large", text)
    }

    /// As many connections are open as the server takes. `retry_after` is rounded up to seconds.
    pub fn over_capacity(retry_after: Duration) -> Self {
        let refusal = Self::new(503, "conn_limit", "the server is at its capacity");
        Self { retry_after: Some(retry_after), ..refusal }
    }

    /// There is no room for another connection of this user at the moment.
    pub fn no_room(reason: &'static str, text: String, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(503, reason, text) }
    }

    /// A version of HTTP other than 1.0 and 1.1.
    pub fn http_version() -> Self {
        Self::new(505, "http_version", "only HTTP/1.1 is spoken here")
    }
}

/// The 101 that turns the connection into a WebSocket (RFC 6455, 4.2.2).
pub fn upgrade_response(upgrade: &Upgrade, selected: Option<Subprotocol>) -> Bytes {
    let mut out = String::with_capacity(192);
    push_status_line(&mut out, 101);
    push_field(&mut out, "Upgrade", "websocket");
    push_field(&mut out, "Connection", "Upgrade");
    push_field(&mut out, "Sec-WebSocket-Accept", &upgrade.accept_key);
    if let Some(subprotocol) = selected {
        push_field(&mut out, "Sec-WebSocket-Protocol", subprotocol.as_str());
    }
    out.push_str("\r\n");
    Bytes::from(out)
}

/// The answer to a request that is refused; ends the connection.
pub fn refusal_response(refusal: &Refusal, date: &str) -> Bytes {
    let mut extra: Vec<(&str, &str)> = Vec::new();
    let retry_after_seconds =
        refusal.retry_after.map(|duration| duration.as_millis().div_ceil(1000).to_string());
    match refusal.status {
        // RFC 9110, 15.5.2: the server MUST send a WWW-Authenticate field.
        401 => extra.push(("WWW-Authenticate", "Bearer")),
        // RFC 9110, 15.5.6: the origin server MUST generate an Allow field in a 405.
        405 => extra.push(("Allow", "GET, HEAD")),
        // RFC 6455, 4.4: the versions the server supports. RFC 9110, 15.5.22: MUST send Upgrade.
        426 => {
            extra.extend([("Sec-WebSocket-Version", WEBSOCKET_VERSION), ("Upgrade", "websocket")])
        }
        _ => {}
    }
    if let Some(seconds) = &retry_after_seconds {
        extra.push(("Retry-After", seconds));
    }
    let body = format!("{}\n", refusal.text);
    let content_type = "text/plain; charset=utf-8";
    let head_only = refusal.head_only;
    plain_response(refusal.status, content_type, body.as_bytes(), false, head_only, date, &extra)
}

/// A complete response. `date` is in the format of RFC 9110, 5.6.7; `extra` are further fields; their text must come from the server, not from
/// a client.
pub fn plain_response(
    status: u16,
    content_type: &str,
    body: &[u8],
    keep_alive: bool,
    head_only: bool,
    date: &str,
    extra: &[(&str, &str)],
) -> Bytes {
    let mut out = String::with_capacity(256 + body.len());
    push_status_line(&mut out, status);
    push_field(&mut out, "Date", date);
    push_field(&mut out, "Content-Type", content_type);
    push_field(&mut out, "Content-Length", &body.len().to_string());
    // Browsers take the type as it is declared, and do not guess one that runs scripts.
    push_field(&mut out, "X-Content-Type-Options", "nosniff");
    // RFC 9110, 7.8: a sender of Upgrade MUST also send it as a connection option.
    let has_upgrade = extra.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
    let connection = match (keep_alive, has_upgrade) {
        (true, false) => "keep-alive",
        (true, true) => "keep-alive, Upgrade",
        (false, false) => "close",
        (false, true) => "close, Upgrade",
    };
    push_field(&mut out, "Connection", connection);
    for (name, value) in extra {
        push_field(&mut out, name, value);
    }
    out.push_str("\r\n");
    let mut out = out.into_bytes();
    // RFC 9110, 9.3.2: the server MUST NOT send content in the response to HEAD.
    if !head_only {
        out.extend_from_slice(body);
    }
    Bytes::from(out)
}

fn push_status_line(out: &mut String, status: u16) {
    out.push_str("HTTP/1.1 ");
    out.push_str(&status.to_string());
    out.push(' ');
    out.push_str(reason_phrase(status));
    out.push_str("\r\n");
}

fn push_field(out: &mut String, name: &str, value: &str) {
    debug_assert!(!name.contains(['\r', '\n', ':']) && !value.contains(['\r', '\n']));
    out.push_str(name);
    out.push_str(": ");
    out.push_str(value);
    out.push_str("\r\n");
}

/// RFC 9112, 4: a client ignores it; it may be empty.
fn reason_phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(refusal: Refusal) -> String {
        String::from_utf8(refusal_response(&refusal, "Sun, 06 Nov 1994 08:49:37 GMT").to_vec())
            .unwrap()
    }

    #[test]
    fn an_upgrade_is_answered_as_the_rfc_shows() {
        let upgrade = Upgrade {
            path: "/".into(),
            query: Vec::new(),
            accept_key: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into(),
            subprotocol: None,
            bearer: None,
        };
        let plain = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(upgrade_response(&upgrade, None), plain);
        let response = upgrade_response(&upgrade, Some(Subprotocol::Json));
        assert!(response.ends_with(b"\r\nSec-WebSocket-Protocol: stentor.v1.json\r\n\r\n"));
    }

    #[test]
    fn a_refusal_is_whole_and_closes() {
        assert_eq!(
            refusal(Refusal::bad_request("no Host")),
            "HTTP/1.1 400 Bad Request\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: 8\r\nX-Content-Type-Options: nosniff\r\n\
             Connection: close\r\n\r\nno Host\n"
        );
        let head = Refusal { head_only: true, ..Refusal::handshake_timeout() };
        assert!(refusal(head).ends_with("\r\n\r\n"));
    }

    #[test]
    fn some_refusals_say_what_would_do() {
        assert!(refusal(Refusal::method()).contains("\r\nAllow: GET, HEAD\r\n"));
        let version = refusal(Refusal::version());
        assert!(version.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
        assert!(version.contains("\r\nConnection: close, Upgrade\r\n"));
        assert!(version.contains("\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n"));
        let busy = refusal(Refusal::over_capacity(Duration::from_millis(1500)));
        assert!(busy.starts_with("HTTP/1.1 503 ") && busy.contains("\r\nRetry-After: 2\r\n"));
    }

    #[test]
    fn a_head_response_has_the_length_and_not_the_body() {
        let extra = [("Cache-Control", "no-store")];
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let get = plain_response(200, "text/html", b"<p>", true, false, date, &extra);
        let head = plain_response(200, "text/html", b"<p>", true, true, date, &extra);
        assert_eq!(get, [&head[..], b"<p>"].concat());
        let head = std::str::from_utf8(&head).unwrap();
        assert!(head.contains("\r\nContent-Length: 3\r\n"));
        assert!(head.contains("\r\nConnection: keep-alive\r\nCache-Control: no-store\r\n\r\n"));
    }
}
