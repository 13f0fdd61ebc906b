//! Requests and responses of HTTP/1.1 as text. No sockets.

/// The key of RFC 6455, 1.3, and what answers it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT_KEY: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A valid upgrade; `lines` are further header lines, each with its CRLF.
pub fn upgrade_request(path: &str, lines: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{lines}\r\n"
    )
}

/// A plain request; `lines` as above.
pub fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n{lines}\r\n")
}

/// A response, its body included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Names and values as they came.
    pub fields: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    /// Takes the response at the front of `bytes`; also tells its length. `None`: it is not whole.
    /// `head_only`: it answers a HEAD, so it has no body whatever it says.
    pub fn take(bytes: &[u8], head_only: bool) -> Option<(Self, usize)> {
        let head_length = bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&bytes[..head_length]).expect("a head is text");
        let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .unwrap_or_else(|| panic!("no status line: {status_line:?}"));
        let field = |line: &str| {
            let (name, value) = line.split_once(": ").expect("`name: value`");
            (name.to_string(), value.to_string())
        };
        let mut response = Self { status, fields: lines.map(field).collect(), body: String::new() };
        let length = match response.field("Content-Length") {
            Some(length) if !head_only => length.parse().expect("a number"),
            _ => 0,
        };
        let body = bytes.get(head_length..head_length + length)?;
        response.body = String::from_utf8(body.to_vec()).expect("bodies are text");
        Some((response, head_length + length))
    }

    /// The value of the only field of that name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let value = values.next();
        assert!(values.next().is_none(), "{name} comes twice: {self:?}");
        value.map(|(_, value)| value.as_str())
    }
}
