//! The opening handshake of RFC 6455, section 4.2: which requests may become a WebSocket.

use tungstenite::handshake::derive_accept_key;

use crate::proto::encoding::Encoding;
use crate::proto::http::fields::{Fields, is_token};
use crate::proto::http::head::HeadLimits;
use crate::proto::http::response::Refusal;
use crate::proto::http::target::Target;

/// The only version of the protocol there is.
pub(super) const WEBSOCKET_VERSION: &str = "13";

/// A subprotocol this server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subprotocol {
    /// JSON text frames, and a welcome.
    Json,
    /// As [`Subprotocol::Json`], and the client takes several messages in one frame.
    JsonBatch,
    /// Envelopes in binary frames, and a welcome.
    Protobuf,
}

impl Subprotocol {
    /// As in `Sec-WebSocket-Protocol`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "stentor.v1.json",
            Self::JsonBatch => "stentor.v1.json.batch",
            Self::Protobuf => "stentor.v1.protobuf",
        }
    }

    pub fn encoding(self) -> Encoding {
        match self {
            Self::Json | Self::JsonBatch => Encoding::Json,
            Self::Protobuf => Encoding::Protobuf,
        }
    }

    /// 11.3.4: names are compared as they are, with case.
    fn of_name(name: &[u8]) -> Option<Self> {
        let mut known = [Self::Json, Self::JsonBatch, Self::Protobuf].into_iter();
        known.find(|known| known.as_str().as_bytes() == name)
    }
}

/// A request that may become a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// Decoded; begins with `/`.
    pub path: String,
    /// The parameters of the query in order, decoded; at most [`HeadLimits::fields_max`].
    pub query: Vec<(String, String)>,
    /// The value for `Sec-WebSocket-Accept`.
    pub accept_key: String,
    /// The first of the subprotocols offered that is spoken here.
    pub subprotocol: Option<Subprotocol>,
    /// The token of `Authorization: Bearer`, if there is one: a secret.
    pub bearer: Option<Box<[u8]>>,
}

/// Whether this request asks for a WebSocket, well or badly.
pub(super) fn is_handshake(fields: Fields<'_>) -> bool {
    // RFC 9110, 7.8: a server MAY ignore an Upgrade field, here one for other protocols. A key
    // without one is a handshake that lost its Upgrade on the way; it must not pass for a request.
    fields.list_has("upgrade", "websocket") || fields.has("sec-websocket-key")
}

/// Checks a GET request of HTTP/1.1 against RFC 6455, 4.2.1, in the order of its list.
pub(super) fn parse_upgrade(
    target: &Target<'_>,
    fields: Fields<'_>,
    limits: &HeadLimits,
) -> Result<Upgrade, Refusal> {
    if !fields.list_has("upgrade", "websocket") {
        return Err(Refusal::bad_request("no Upgrade: websocket"));
    }
    if !fields.list_has("connection", "upgrade") {
        return Err(Refusal::bad_request("no Connection: Upgrade"));
    }
    // 4.2.2: if the version does not match, abort with 426 and the versions that are understood.
    if fields.single("sec-websocket-version")? != Some(WEBSOCKET_VERSION.as_bytes()) {
        return Err(Refusal::version());
    }
    let Some(key) = fields.single("sec-websocket-key")?.filter(|key| is_key(key)) else {
        return Err(Refusal::bad_request("no valid Sec-WebSocket-Key"));
    };
    Ok(Upgrade {
        path: target.path()?,
        query: target.query(limits.fields_max)?,
        accept_key: derive_accept_key(key),
        subprotocol: choose_subprotocol(fields)?,
        bearer: bearer(fields)?,
    })
}

/// 4.2.1: a base64-encoded value that, when decoded, is 16 bytes in length. The 4 bits that a
/// 22nd digit has to spare may be anything: RFC 4648, 3.5 lets a decoder ignore them.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    match key.strip_suffix(b"==") {
        Some(digits) => digits.len() == 22 && digits.iter().all(is_digit),
        None => false,
    }
}

/// RFC 6750, 2.1. RFC 9110, 11.1: the scheme has no case. Credentials of another scheme are for somebody
/// else on the way.
fn bearer(fields: Fields<'_>) -> Result<Option<Box<[u8]>>, Refusal> {
    let Some(value) = fields.single("authorization")? else { return Ok(None) };
    let scheme_end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, token) = value.split_at(scheme_end);
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer");
    Ok(is_bearer.then(|| token.trim_ascii().into()))
}

fn choose_subprotocol(fields: Fields<'_>) -> Result<Option<Subprotocol>, Refusal> {
    let mut chosen = None;
    let mut is_empty = true;
    // RFC 9110, 5.6.1.2: a recipient MUST parse and ignore a reasonable number of empty elements.
    for name in fields.list("sec-websocket-protocol").filter(|name| !name.is_empty()) {
        if !is_token(name) {
            return Err(Refusal::bad_request("invalid Sec-WebSocket-Protocol"));
        }
        is_empty = false;
        chosen = chosen.or_else(|| Subprotocol::of_name(name));
    }
    // 11.3.4: `Sec-WebSocket-Protocol-Client = 1#token`, so at least one.
    if is_empty && fields.has("sec-websocket-protocol") {
        return Err(Refusal::bad_request("empty Sec-WebSocket-Protocol"));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use httparse::Header;

    use super::*;

    fn choose(lines: &[&'static str]) -> Result<Option<Subprotocol>, u16> {
        let header = |value: &&'static str| Header {
            name: "Sec-WebSocket-Protocol",
            value: value.as_bytes(),
        };
        let headers: Vec<_> = lines.iter().map(header).collect();
        choose_subprotocol(Fields(&headers)).map_err(|refusal| refusal.status)
    }

    #[test]
    fn the_first_subprotocol_that_is_spoken_is_chosen() {
        assert_eq!(choose(&[]), Ok(None));
        assert_eq!(choose(&["chat, superchat"]), Ok(None));
        assert_eq!(choose(&["chat", "stentor.v1.json,x"]), Ok(Some(Subprotocol::Json)));
        assert_eq!(choose(&["stentor.v1.json.batch"]), Ok(Some(Subprotocol::JsonBatch)));
        assert_eq!(choose(&["stentor.v1.protobuf"]), Ok(Some(Subprotocol::Protobuf)));
        assert_eq!(choose(&["Stentor.v1.json"]), Ok(None));
    }

    #[test]
    fn lists_that_are_empty_or_malformed_are_refused() {
        assert_eq!(choose(&["a,,b", ",c,", ""]), Ok(None));
        for line in ["", " ", ",", " , ,", "a b", "\"a\"", "a/b"] {
            assert_eq!(choose(&[line]), Err(400), "{line:?}");
        }
        assert_eq!(choose(&["stentor.v1.json", "@"]), Err(400));
    }

    #[test]
    fn a_bearer_token_is_what_follows_its_scheme() {
        let bearer = |value: &'static str| {
            let headers = [Header { name: "authorization", value: value.as_bytes() }];
            bearer(Fields(&headers)).unwrap()
        };
        assert_eq!(bearer("Bearer abc"), Some(b"abc"[..].into()));
        assert_eq!(bearer("bEARER   a b "), Some(b"a b"[..].into()));
        assert_eq!(bearer("Bearer"), Some(b""[..].into()));
        assert_eq!(bearer("Basic YTpi"), None);
        let twice = Header { name: "Authorization", value: b"Bearer a" };
        assert_eq!(super::bearer(Fields(&[twice, twice])).unwrap_err().status, 400);
    }

    #[test]
    fn keys_are_16_bytes_of_base64() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(is_key(b"AAAAAAAAAAAAAAAAAAAA+/=="));
        for key in [
            &b""[..],
            b"==",
            b"dGhlIHNhbXBsZSBub25jZQ",
            b"dGhlIHNhbXBsZSBub25jZQ=",
            b"dGhlIHNhbXBsZSBub25jZQ===",
            b"dGhlIHNhbXBsZSBub25j Q==",
            b"dGhlIHNhbXBsZSBub25jZQQQ",
            b"dGhlIHNhbXBsZSBub25jZ-==",
        ] {
            assert!(!is_key(key), "{key:?}");
        }
    }
}
