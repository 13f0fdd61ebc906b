//! Who may ask: whoever presents the key, or, where there is none, programs of this machine.

use std::hint::black_box;
use std::net::IpAddr;

use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{HeaderMap, StatusCode};

use super::error::ApiError;
use crate::config::Secret;

const KEY_HEADER: &str = "x-api-key";

/// Checks the head of a request. Without a key the server listens on loopback, and a web page must not
/// reach it by a name that it has made to mean this machine.
pub fn check(key: Option<&Secret>, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(key) = key else {
        return if names_this_machine(headers) { Ok(()) } else { Err(foreign_host()) };
    };
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let bare = text(KEY_HEADER);
    let authorization = text(AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, rest) = value.split_once(' ')?;
        let known = ["apikey", "bearer"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        known.then(|| rest.trim())
    });
    let mut given = [bare, authorization].into_iter().flatten().peekable();
    if given.peek().is_none() {
        let message = "a key is needed: X-API-Key: KEY, or Authorization: Bearer KEY";
        return Err(unauthenticated(message));
    }
    if given.any(|given| is_same(key.expose().as_bytes(), given.as_bytes())) {
        Ok(())
    } else {
        Err(unauthenticated("this is not the key"))
    }
}

fn unauthenticated(message: &'static str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthenticated", message)
}

fn foreign_host() -> ApiError {
    let message = "without admin.key the Host must be an IP address or localhost";
    ApiError::new(StatusCode::FORBIDDEN, "permission_denied", message)
}

/// Takes as long for every text of the given one's length.
fn is_same(key: &[u8], given: &[u8]) -> bool {
    let mut difference = key.len() ^ given.len();
    for (index, byte) in given.iter().enumerate() {
        let expected = key.get(index % key.len().max(1)).copied().unwrap_or_default();
        difference |= usize::from(black_box(expected ^ byte));
    }
    black_box(difference) == 0
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    // No browser leaves it out.
    let Some(host) = headers.get(HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(key: Option<&str>, fields: &[(&'static str, &str)]) -> u16 {
        let key = key.and_then(|key| Secret::parse(key).unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        check(key.as_ref(), &headers).map_or_else(|error| error.status.as_u16(), |()| 200)
    }

    #[test]
    fn the_key_may_come_in_three_ways() {
        let key = "0123456789abcdef";
        for (name, value) in [
            ("x-api-key", key),
            ("authorization", "apikey 0123456789abcdef"),
            ("authorization", "Bearer 0123456789abcdef"),
            ("authorization", "BEARER  0123456789abcdef"),
        ] {
            assert_eq!(status(Some(key), &[(name, value)]), 200, "{name}: {value}");
        }
        for (name, value) in [
            ("x-api-key", "0123456789abcdeg"),
            ("x-api-key", "0123456789abcde"),
            ("x-api-key", "0123456789abcdef0123456789abcdef"),
            ("x-api-key", ""),
            ("authorization", key),
            ("authorization", "Basic 0123456789abcdef"),
            ("authorization", "Bearer "),
            ("x-key", key),
        ] {
            assert_eq!(status(Some(key), &[(name, value)]), 401, "{name}: {value}");
        }
        assert_eq!(
            status(Some(key), &[("x-api-key", "wrong"), ("authorization", "apikey x")]),
            401
        );
    }

    #[test]
    fn without_a_key_the_host_is_an_address() {
        for host in
            ["127.0.0.1", "127.0.0.1:8081", "localhost:1", "[::1]", "[::1]:8081", "Localhost"]
        {
            assert_eq!(status(None, &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example", "evil.example:8081", "localhost.evil.example", ""] {
            assert_eq!(status(None, &[("host", host)]), 403, "{host}");
        }
        assert_eq!(status(None, &[]), 200);
    }
}
