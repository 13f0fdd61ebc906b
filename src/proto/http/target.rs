//! The target of a request (RFC 9112, section 3.2) and the host it is sent to.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::proto::http::response::Refusal;

/// A request-target taken apart; nothing is decoded yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// At least `/`.
    raw_path: &'a str,
    /// What follows the first `?`; may be empty.
    raw_query: &'a str,
}

impl<'a> Target<'a> {
    /// Takes origin-form (`/path?query`) and absolute-form (`http://host/path?query`). The other
    /// forms belong to methods that are not served here.
    pub fn parse(target: &'a str) -> Result<Self, Refusal> {
        // RFC 9112, 3.2: no form of the target has a fragment, and a URI is ASCII (RFC 3986, 2).
        if target.contains('#') || !target.is_ascii() {
            return Err(Refusal::bad_request("invalid request target"));
        }
        let local = if target.starts_with('/') { target } else { strip_origin(target)? };
        let (raw_path, raw_query) = local.split_once('?').unwrap_or((local, ""));
        let raw_path = if raw_path.is_empty() { "/" } else { raw_path };
        Ok(Self { raw_path, raw_query })
    }

    /// The path with its escapes decoded.
    ///
    /// # Errors
    ///
    /// 400 for a broken escape, for what is not UTF-8, and for control characters.
    pub fn path(&self) -> Result<String, Refusal> {
        if !has_valid_escapes(self.raw_path) {
            return Err(Refusal::bad_request("invalid escape in the path"));
        }
        match percent_decode_str(self.raw_path).decode_utf8() {
            Ok(path) if !path.contains(char::is_control) => Ok(path.into_owned()),
            _ => Err(Refusal::bad_request("the path is not printable UTF-8")),
        }
    }

    /// The parameters of the query, in order, as browsers write them: by the rules of
    /// `application/x-www-form-urlencoded` in the WHATWG URL standard. So `+` is a space, a broken
    /// escape stands for itself, and what is not UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    ///
    /// 414 for more than `parameters_max` parameters.
    pub fn query(&self, parameters_max: usize) -> Result<Vec<(String, String)>, Refusal> {
        let mut parameters = Vec::new();
        for parameter in self.raw_query.split('&').filter(|parameter| !parameter.is_empty()) {
            if parameters.len() == parameters_max {
                return Err(Refusal::target_too_long(parameters_max));
            }
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            parameters.push((decode_form(name), decode_form(value)));
        }
        Ok(parameters)
    }
}

/// What follows the authority of an absolute-form target; may be empty.
fn strip_origin(target: &str) -> Result<&str, Refusal> {
    // RFC 9112, 3.2.2: a server MUST accept the absolute-form in requests. `Host` is checked but
    // not used, so there is nothing for its authority to replace.
    let invalid = || Refusal::bad_request("invalid request target");
    let (scheme, rest) = target.split_once("://").ok_or_else(invalid)?;
    if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(invalid());
    }
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, local) = rest.split_at_checked(authority_end).ok_or_else(invalid)?;
    if is_authority(authority.as_bytes()) { Ok(local) } else { Err(invalid()) }
}

fn decode_form(text: &str) -> String {
    let spaced =
        if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// RFC 3986, 2.1: a percent sign is followed by two hexadecimal digits.
fn has_valid_escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|after| {
        let digits = after.as_bytes().first_chunk::<2>();
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// Whether these bytes are a `Host`: `uri-host [ ":" port ]` of RFC 9110, 7.2, and not empty.
pub(super) fn is_authority(bytes: &[u8]) -> bool {
    let (host, port) = match bytes.iter().rposition(|&byte| byte == b':' || byte == b']') {
        Some(at) if bytes.get(at) == Some(&b':') => bytes.split_at(at),
        _ => (bytes, &b""[..]),
    };
    let port_is_valid = port.iter().skip(1).all(u8::is_ascii_digit) && port.len() <= 6;
    let host_is_valid = match host {
        // RFC 3986, 3.2.2: an IP-literal is in brackets.
        [b'[', address @ .., b']'] => {
            let is_valid = |byte: &u8| byte.is_ascii_hexdigit() || b":.".contains(byte);
            !address.is_empty() && address.iter().all(is_valid)
        }
        // Else a reg-name: unreserved, pct-encoded or sub-delims.
        name => {
            let is_valid =
                |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
            !name.is_empty() && name.iter().all(is_valid)
        }
    };
    host_is_valid && port_is_valid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(target: &str) -> Result<String, u16> {
        Target::parse(target).and_then(|target| target.path()).map_err(|refusal| refusal.status)
    }

    fn query(target: &str) -> Vec<(String, String)> {
        Target::parse(target).unwrap().query(64).unwrap()
    }

    #[test]
    fn both_forms_have_a_path() {
        assert_eq!(path("/").as_deref(), Ok("/"));
        assert_eq!(path("/a/b?x=1").as_deref(), Ok("/a/b"));
        assert_eq!(path("http://example.com:80/a?x").as_deref(), Ok("/a"));
        assert_eq!(path("WS://[::1]:9000").as_deref(), Ok("/"));
        assert_eq!(path("http://example.com?x=1").as_deref(), Ok("/"));
        assert_eq!(path("/%C3%A9%20x").as_deref(), Ok("/é x"));
    }

    #[test]
    fn bad_targets_are_refused() {
        for target in [
            "*",
            "example.com:80",
            "a",
            "/a#b",
            "ftp://a/",
            "http:///x",
            "http://a b/",
            "/é",
            "http://user@host/",
            "/%",
            "/%2",
            "/%zz",
            "/%ff",
            "/%00",
            "/a%0d%0ab",
        ] {
            assert_eq!(path(target), Err(400), "{target}");
        }
    }

    #[test]
    fn queries_follow_the_form_rules() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(query("/"), []);
        assert_eq!(
            query("/?a=1&&b&c=x+y%2Bz=&%C3%A9=%ff&d=%2"),
            [
                pair("a", "1"),
                pair("b", ""),
                pair("c", "x y+z="),
                pair("é", "\u{fffd}"),
                pair("d", "%2")
            ]
        );
        let many = format!("/?{}", "a&".repeat(65));
        let refusal = Target::parse(&many).unwrap().query(64).unwrap_err();
        assert_eq!((refusal.status, refusal.reason), (414, "head_too_large"));
    }

    #[test]
    fn hosts_are_names_or_addresses_with_an_optional_port() {
        for host in
            ["a", "example.com", "a:80", "a:", "127.0.0.1:9", "[::1]", "[fe80::1.2.3.4]:443"]
        {
            assert!(is_authority(host.as_bytes()), "{host}");
        }
        for host in ["", ":80", "a b", "a/b", "a:x", "[]", "[::1", "::1", "a:1234567", "u@h", "é"]
        {
            assert!(!is_authority(host.as_bytes()), "{host}");
        }
    }
}
